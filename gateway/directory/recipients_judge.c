/*
 * recipients_judge: the answer to one RCPT TO.
 *
 * The order of the questions: is the domain ours? If not: may this client relay? If it is: does
 * the local part try to relay through us? What does the directory say? An alias or forward is
 * followed through our own domains to its end, before we answer; one bad end refuses the
 * whole address, since we could not deliver what we accepted.
 *
 * The walk is depth first. An address on the way down that comes again is a loop, unless it
 * keeps a copy: then it has got the mail, and the second visit adds nothing (two people may forward to
 * each other and keep copies). What was finished is not walked again, so the work is bounded by
 * VISITS_MAX, whatever the tables say.
 *
 * Mail to a postmaster of ours is never refused: without an entry of its own it goes to the configured
 * postmaster, and where that leads nowhere, to the configured address as it is.
 */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/net/tcp.h"

#include "gateway/directory/recipients_set.h"

enum { VISITS_MAX = 10 * RECIPIENTS_EXPANSION_MAX, SCRATCH_BLOCK = 4096, SCRATCH_MAX = 16 * 1024 * 1024 };

enum seen_state { SEEN_OPEN, SEEN_OPEN_KEEPS, SEEN_DONE, SEEN_TARGET };
struct seen {
    struct map_node node;
    struct seen *before; /* in the order of seeing, to be undone */
    struct span address;
    bool local; /* local parts of ours compare without case */
    enum seen_state state;
};

struct judge {
    const struct recipients *r;
    struct arena *mem;    /* of the answer */
    struct arena scratch; /* of the walk; the answer is copied out of it */
    struct buf *steps;
    struct recipients_answer *out;
    struct recipients_target *targets;
    size_t count, cap;
    struct map seen; /* empty while one mailbox is the answer */
    struct seen *last_seen;
    size_t visits;   /* of aliases, forwards and their targets */
    bool postmaster; /* on the way to the configured postmaster */
    bool failed;     /* out says why */
};

static int visit(struct judge *j, const struct address *a, unsigned depth);

/* -- saying -- */

static void step(struct judge *j, unsigned depth, struct span address, const char *what) {
    if (!j->steps)
        return;
    for (unsigned i = 0; i < depth; i++)
        buf_add_str(j->steps, "  ");
    buf_add_escaped(j->steps, address);
    buf_add_str(j->steps, ": ");
    buf_add_str(j->steps, what);
    buf_add_byte(j->steps, '\n');
}

static void step_entry(struct judge *j, unsigned depth, struct span address, const struct table *t,
                       const struct table_entry *e) {
    static const char *const kinds[] = {"mailbox", "alias", "forward", "forward that keeps a copy"};
    if (!j->steps)
        return;
    for (unsigned i = 0; i < depth; i++)
        buf_add_str(j->steps, "  ");
    buf_add_escaped(j->steps, address);
    buf_printf(j->steps, ": %s%s%s (%s:%zu)\n", kinds[e->kind], e->catch_all ? " by the catch-all" : "",
               e->tagged ? " without its tag" : "", table_path(t), table_line(t, e));
}

static void say(struct judge *j, enum recipients_verdict verdict, struct span enhanced, struct span text) {
    j->out->verdict = verdict;
    j->out->enhanced = enhanced;
    j->out->text = text;
}

static void refuse(struct judge *j, enum recipients_verdict verdict, struct span enhanced, struct span text) {
    say(j, verdict, enhanced, text);
    j->failed = true;
}

/* -- collecting -- */

struct seen_key {
    struct span address;
    bool local, target;
};

static bool seen_match(const struct map_node *n, const void *key) {
    const struct seen *s = (const struct seen *)n; /* node is the first member */
    const struct seen_key *k = key;
    if (k->local != s->local || k->target != (s->state == SEEN_TARGET))
        return false;
    return k->local ? span_eq_nocase(s->address, k->address) : span_eq(s->address, k->address);
}

static uint64_t seen_hash(const struct seen_key *k) {
    return k->local ? hash_span_nocase(k->address, k->target) : hash_span(k->address, 2u + k->target);
}

/* A lone mailbox, nearly every address, is written to the answer's memory at once; a walk has its own. */
static struct arena *arena_of(struct judge *j) {
    return j->visits ? &j->scratch : j->mem;
}

static struct seen *seen_find(const struct judge *j, struct seen_key k) {
    return (struct seen *)map_find(&j->seen, seen_hash(&k), seen_match, &k);
}

static int seen_add(struct judge *j, struct span address, bool local, enum seen_state state, struct seen **out) {
    struct seen *s = arena_calloc(&j->scratch, 1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    *s = (struct seen){.before = j->last_seen, .address = address, .local = local, .state = state};
    struct seen_key k = {address, local, state == SEEN_TARGET};
    if (map_insert(&j->seen, &s->node, seen_hash(&k)) != ERR_OK)
        return ERR_NOMEM;
    *out = j->last_seen = s;
    return ERR_OK;
}

static void forget_since(struct judge *j, const struct seen *mark) {
    for (; j->last_seen != mark; j->last_seen = j->last_seen->before)
        map_remove(&j->seen, &j->last_seen->node);
}

static int grow(struct judge *j) {
    size_t cap = j->cap ? j->cap * 2 : 1;
    struct recipients_target *more = arena_calloc(arena_of(j), cap, sizeof *more);
    if (!more)
        return ERR_NOMEM;
    if (j->count)
        memcpy(more, j->targets, j->count * sizeof *more);
    j->targets = more;
    j->cap = cap;
    return ERR_OK;
}

static int add_target(struct judge *j, const struct address *a, bool local) {
    struct seen *seen;
    if (seen_find(j, (struct seen_key){a->text, local, true}))
        return ERR_OK;
    if (j->count >= RECIPIENTS_EXPANSION_MAX) {
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.5.3"), SPAN("this address leads to too many recipients"));
        return ERR_OK;
    }
    int err = j->count == j->cap ? grow(j) : ERR_OK;
    struct span text = err ? SPAN_EMPTY : arena_dup(arena_of(j), a->text);
    if (!text.at)
        return ERR_NOMEM;
    j->targets[j->count++] = (struct recipients_target){
        .address = text, .destination = span_from(text, text.len - a->domain.len), .local = local};
    /* a lone mailbox needs no map */
    return j->visits ? seen_add(j, text, local, SEEN_TARGET, &seen) : ERR_OK;
}

/* -- walking -- */

/* A target of an entry of `a`: a bare name is in the same domain as the address asked for. */
static int visit_target(struct judge *j, const struct address *a, struct span target, unsigned depth) {
    char text[ADDRESS_PATH_MAX * 2];
    struct address next;
    bool whole = table_target_has_domain(target);
    if (++j->visits > VISITS_MAX) {
        step(j, depth, target, "too many aliases");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.4.6"), SPAN("this address is an alias of too many aliases"));
        return ERR_OK;
    }
    size_t len = target.len + (whole ? 0 : 1 + a->domain.len);
    if (len > sizeof text)
        return ERR_CORRUPT; /* the table checks its targets when it is loaded */
    memcpy(text, target.at, target.len);
    if (!whole) {
        text[target.len] = '@';
        memcpy(text + target.len + 1, a->domain.at, a->domain.len);
    }
    int err = address_parse(&next, span_make(text, len), &j->scratch);
    if (err == ERR_INVALID || err == ERR_RANGE) { /* "user" and a long domain together can be too long */
        step(j, depth, span_make(text, len), "not a mail address");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.1.3"), SPAN("this address leads to one that cannot be written"));
        return ERR_OK;
    }
    return err ? err : visit(j, &next, depth);
}

/* Follows an alias or forward. */
static int follow(struct judge *j, const struct address *a, struct table_entry *e, unsigned depth) {
    bool keeps = e->kind == TABLE_FORWARD_KEEP;
    struct seen *seen = seen_find(j, (struct seen_key){a->text, true, false});
    if (seen && (seen->state == SEEN_DONE || seen->state == SEEN_OPEN_KEEPS)) {
        step(j, depth, a->text, "has been there already");
        return ERR_OK;
    }
    if (seen) {
        step(j, depth, a->text, "a loop");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.4.6"), SPAN("this address leads into a mail loop"));
        return ERR_OK;
    }
    j->visits++;
    if (depth >= RECIPIENTS_DEPTH_MAX) {
        step(j, depth, a->text, "too deep");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.4.6"), SPAN("this address is an alias of too many aliases"));
        return ERR_OK;
    }
    int err = seen_add(j, a->text, true, keeps ? SEEN_OPEN_KEEPS : SEEN_OPEN, &seen);
    if (err)
        return err;
    if (keeps)
        err = add_target(j, a, true);
    struct span targets = e->targets, target;
    while (!err && !j->failed && table_next_target(&targets, &target))
        err = visit_target(j, a, target, depth + 1);
    if (!err && !j->failed)
        seen->state = SEEN_DONE;
    return err;
}

/* To the configured postmaster; where that leads nowhere, its address as it is. */
static int visit_postmaster(struct judge *j, unsigned depth) {
    struct recipients_answer before = *j->out;
    const struct seen *mark = j->last_seen;
    size_t count = j->count;
    j->postmaster = true;
    step(j, depth, j->r->postmaster.text, "the configured postmaster");
    int err = visit(j, &j->r->postmaster, depth);
    if (!err && j->failed) {
        step(j, depth, j->r->postmaster.text, "taken as it is, since it leads nowhere");
        *j->out = before;
        j->failed = false;
        j->count = count;
        forget_since(j, mark);
        err = add_target(j, &j->r->postmaster, recipients_domain_of(j->r, j->r->postmaster.domain) != NULL);
    }
    j->postmaster = false;
    return err;
}

static int visit_unknown(struct judge *j, const struct address *a, unsigned depth) {
    if (span_eq_nocase(a->key, SPAN("postmaster"))) {
        if (!j->postmaster && !span_eq_nocase(a->text, j->r->postmaster.text))
            return visit_postmaster(j, depth);
        step(j, depth, a->text, "not in the table, but a postmaster is always valid");
        return add_target(j, a, true);
    }
    if (span_eq_nocase(a->text, j->r->postmaster.text)) {
        step(j, depth, a->text, "not in the table, but the configured postmaster is always valid");
        return add_target(j, a, true);
    }
    step(j, depth, a->text, "unknown");
    if (depth == 0)
        refuse(j, RECIPIENTS_UNKNOWN, SPAN("5.1.1"), SPAN("no such recipient here"));
    else
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.1.1"), SPAN("this address leads to an unknown recipient"));
    return ERR_OK;
}

static int visit_own(struct judge *j, const struct recipients_domain *d, const struct address *a, unsigned depth) {
    struct table_entry e;
    if (address_is_indirect(a)) {
        step(j, depth, a->text, "an indirect address in a domain of ours");
        refuse(j, depth ? RECIPIENTS_UNROUTABLE : RECIPIENTS_NO_RELAY, SPAN("5.7.1"),
               SPAN("indirect addresses are not relayed"));
        return ERR_OK;
    }
    if (d->directory == RECIPIENTS_ANY) {
        step(j, depth, a->text, "any recipient is taken in this domain of ours");
        return add_target(j, a, true);
    }
    if (!table_find(d->table, a->key, a->domain, &e))
        return visit_unknown(j, a, depth);
    step_entry(j, depth, a->text, d->table, &e);
    return e.kind == TABLE_MAILBOX ? add_target(j, a, true) : follow(j, a, &e, depth);
}

/* Address literals that mean this machine: mail to them would come back to us. */
static bool is_own_literal(const struct address *a) {
    struct tcp_addr addr;
    if (!a->literal)
        return false;
    struct span ip = span_first(span_from(a->domain, 1), a->domain.len - 2);
    if (span_starts_nocase(ip, SPAN("IPv6:")))
        ip = span_from(ip, 5);
    return tcp_addr_parse(&addr, ip, 0) != ERR_OK || tcp_addr_is_loopback(&addr) || tcp_addr_is_unusable(&addr) ||
           tcp_addr_is_local(&addr);
}

static int visit(struct judge *j, const struct address *a, unsigned depth) {
    const struct recipients_domain *d = a->literal ? NULL : recipients_domain_of(j->r, a->domain);
    if (d)
        return visit_own(j, d, a, depth);
    if (is_own_literal(a)) {
        step(j, depth, a->text, "an address literal of this machine");
        refuse(j, depth ? RECIPIENTS_UNROUTABLE : RECIPIENTS_NO_RELAY, depth ? SPAN("5.4.6") : SPAN("5.7.1"),
               SPAN("mail to our own address literals is not relayed"));
        return ERR_OK;
    }
    step(j, depth, a->text, "elsewhere");
    return add_target(j, a, false);
}

/* -- the door -- */

static int judge(struct judge *j, const struct address *a, bool may_relay) {
    if (a->domain.len == 0) {
        say(j, RECIPIENTS_LOCAL, SPAN("2.1.5"), SPAN("recipient ok"));
        return visit_postmaster(j, 0);
    }
    bool own = !a->literal && recipients_domain_of(j->r, a->domain);
    if (!own && !may_relay) {
        step(j, 0, a->text, "not a domain of ours, and this client may not relay");
        refuse(j, RECIPIENTS_NO_RELAY, SPAN("5.7.1"), SPAN("relaying denied"));
        return ERR_OK;
    }
    if (own)
        say(j, RECIPIENTS_LOCAL, SPAN("2.1.5"), SPAN("recipient ok"));
    else
        say(j, RECIPIENTS_RELAY, SPAN("2.1.5"), SPAN("recipient ok, will relay"));
    return visit(j, a, 0);
}

/* The targets that a walk found, in as much memory as they need. */
static int copy_targets(struct judge *j) {
    struct recipients_target *all = arena_calloc(j->mem, j->count, sizeof *all);
    if (!all)
        return ERR_NOMEM;
    for (size_t i = 0; i < j->count; i++) {
        struct recipients_target t = j->targets[i];
        t.address = arena_dup(j->mem, t.address);
        if (!t.address.at)
            return ERR_NOMEM;
        t.destination = span_from(t.address, t.address.len - t.destination.len);
        all[i] = t;
    }
    j->targets = all;
    return ERR_OK;
}

int recipients_judge(struct recipients *r, const struct address *a, bool may_relay, struct arena *mem,
                     struct recipients_answer *out, struct buf *steps) {
    struct judge j = {.r = r, .mem = mem, .steps = steps, .out = out};
    *out = (struct recipients_answer){
        .verdict = RECIPIENTS_TEMPFAIL, .enhanced = SPAN("4.3.0"), .text = SPAN("recipient cannot be checked now")};
    map_init(&j.seen);
    arena_init(&j.scratch, SCRATCH_BLOCK, SCRATCH_MAX);
    int err = judge(&j, a, may_relay);
    if (!err && !j.failed && j.visits)
        err = copy_targets(&j);
    map_deinit(&j.seen);
    arena_deinit(&j.scratch);
    if (err) {
        *out = (struct recipients_answer){
            .verdict = RECIPIENTS_TEMPFAIL, .enhanced = SPAN("4.3.0"), .text = SPAN("recipient cannot be checked now")};
        return err;
    }
    if (!j.failed) {
        CHECK(j.count > 0);
        out->targets = j.targets;
        out->count = j.count;
    }
    return ERR_OK;
}
