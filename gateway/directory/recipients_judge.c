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
 *
 * Where a slow directory must be asked first the walk goes on beside it, to gather what else must be asked, and
 * then ends with ERR_AGAIN; the next walk begins anew, with the answers in the memo.
 */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/net/tcp.h"

#include "gateway/directory/recipients_memo.h"

enum { VISITS_MAX = 10 * RECIPIENTS_EXPANSION_MAX, SCRATCH_BLOCK = 4096, SCRATCH_MAX = 16 * 1024 * 1024 };

enum seen_state { SEEN_OPEN, SEEN_OPEN_KEEPS, SEEN_DONE, SEEN_TARGET };
struct seen {
    struct map_node node;
    struct seen *before; /* in the order of seeing, to be undone */
    struct span address;
    bool fold; /* local parts of ours compare without case, unless their domain minds it */
    enum seen_state state;
};

struct judge {
    const struct recipients *r;
    const struct recipients_caller *who;
    struct recipients_memo *memo;
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
    bool later;      /* something must be asked first */
    bool failed;     /* out says why */
    bool rewritten;  /* return_path is known */
    struct span return_path;
};

static int visit(struct judge *j, const struct address *a, unsigned depth);

/* -- saying -- */

static void step(struct judge *j, unsigned depth, struct span address, const char *what) {
    recipients_tell((struct recipients_telling){j->steps, depth}, address, what);
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
    bool fold, target;
};

static bool seen_match(const struct map_node *n, const void *key) {
    const struct seen *s = (const struct seen *)n; /* node is the first member */
    const struct seen_key *k = key;
    if (k->fold != s->fold || k->target != (s->state == SEEN_TARGET))
        return false;
    return k->fold ? span_eq_nocase(s->address, k->address) : span_eq(s->address, k->address);
}

static uint64_t seen_hash(const struct seen_key *k) {
    return k->fold ? hash_span_nocase(k->address, k->target) : hash_span(k->address, 2u + k->target);
}

/* A lone mailbox, nearly every address, is written to the answer's memory at once; a walk has its own. */
static struct arena *arena_of(struct judge *j) {
    return j->visits ? &j->scratch : j->mem;
}

static bool folds(const struct judge *j, const struct address *a) {
    const struct recipients_domain *d = recipients_domain_of(j->r, a->domain);
    return !d || !d->case_sensitive;
}

static struct seen *seen_find(const struct judge *j, struct seen_key k) {
    return (struct seen *)map_find(&j->seen, seen_hash(&k), seen_match, &k);
}

static int seen_add(struct judge *j, struct span address, bool fold, enum seen_state state, struct seen **out) {
    struct seen *s = arena_calloc(&j->scratch, 1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    *s = (struct seen){.before = j->last_seen, .address = address, .fold = fold, .state = state};
    struct seen_key k = {address, fold, state == SEEN_TARGET};
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

/* The return path of what leaves our domains again: SRS, once for the whole walk. */
static int find_return_path(struct judge *j, struct span *out) {
    const struct address *sender = j->who->sender;
    int err = ERR_OK;
    if (!j->rewritten && j->r->srs.domain && sender && sender->domain.len &&
        !recipients_domain_of(j->r, sender->domain)) {
        err = srs_forward(&j->r->srs, sender, j->who->wall_ms, j->mem, &j->return_path);
        if (err == ERR_RANGE)
            LOG_INFO("srs_too_long", LOG_SPAN("sender", sender->text));
        if (err == ERR_RANGE || err == ERR_UNSUPPORTED) {
            j->return_path = SPAN_EMPTY;
            err = ERR_OK;
        }
    }
    j->rewritten = true;
    *out = j->return_path;
    return err;
}

static int add_target(struct judge *j, const struct address *a, bool local) {
    struct seen *seen;
    bool fold = local && j->visits && folds(j, a);
    if (seen_find(j, (struct seen_key){a->text, fold, true}))
        return ERR_OK;
    if (j->count >= RECIPIENTS_EXPANSION_MAX) {
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.5.3"), SPAN("this address leads to too many recipients"));
        return ERR_OK;
    }
    int err = j->count == j->cap ? grow(j) : ERR_OK;
    struct span text = err ? SPAN_EMPTY : arena_dup(arena_of(j), a->text), return_path = SPAN_EMPTY;
    if (!text.at || (!local && j->out->verdict == RECIPIENTS_LOCAL && find_return_path(j, &return_path) != ERR_OK))
        return ERR_NOMEM;
    j->targets[j->count++] = (struct recipients_target){.address = text,
                                                        .destination = span_from(text, text.len - a->domain.len),
                                                        .local = local,
                                                        .return_path = return_path};
    /* a lone mailbox needs no map */
    return j->visits ? seen_add(j, text, fold, SEEN_TARGET, &seen) : ERR_OK;
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
    if (len > sizeof text) { /* of a directory: tables check their targets when they are loaded */
        step(j, depth, span_first(target, ADDRESS_PATH_MAX), "not a mail address");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.1.3"), SPAN("this address leads to one that cannot be written"));
        return ERR_OK;
    }
    memcpy(text, target.at ? target.at : "", target.len);
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
    bool keeps = e->kind == TABLE_FORWARD_KEEP, fold = folds(j, a);
    struct seen *seen = seen_find(j, (struct seen_key){a->text, fold, false});
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
    int err = seen_add(j, a->text, fold, keeps ? SEEN_OPEN_KEEPS : SEEN_OPEN, &seen);
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
    if (!err && j->failed && j->out->verdict != RECIPIENTS_TEMPFAIL) {
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
        step(j, depth, a->text, "not known, but a postmaster is always valid");
        return add_target(j, a, true);
    }
    if (span_eq_nocase(a->text, j->r->postmaster.text)) {
        step(j, depth, a->text, "not known, but the configured postmaster is always valid");
        return add_target(j, a, true);
    }
    step(j, depth, a->text, "unknown");
    if (depth == 0)
        refuse(j, RECIPIENTS_UNKNOWN, SPAN("5.1.1"), SPAN("no such recipient here"));
    else
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.1.1"), SPAN("this address leads to an unknown recipient"));
    return ERR_OK;
}

static bool is_rewritten(const struct judge *j, const struct address *a) {
    const char *domain = j->r->srs.domain;
    return domain && srs_is_srs(a->key) && span_eq(a->domain, span_of(domain));
}

/* A bounce to a return path that we rewrote. */
static int visit_srs(struct judge *j, const struct address *a, unsigned depth) {
    struct address next;
    struct span original;
    int err = srs_reverse(&j->r->srs, a, j->who->wall_ms, &j->scratch, &original);
    if (!err)
        err = address_parse(&next, original, &j->scratch);
    if (err == ERR_NOMEM)
        return err;
    if (err) {
        step(j, depth, a->text,
             err == ERR_TIMEOUT ? "a return path of SRS, too old" : "not a return path that we made");
        refuse(j, depth ? RECIPIENTS_UNROUTABLE : RECIPIENTS_UNKNOWN, SPAN("5.1.1"),
               err == ERR_TIMEOUT ? SPAN("this return path has expired") : SPAN("no such return path here"));
        return ERR_OK;
    }
    step(j, depth, a->text, "a return path of SRS");
    if (++j->visits > VISITS_MAX || depth >= RECIPIENTS_DEPTH_MAX) {
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.4.6"), SPAN("this address leads into a mail loop"));
        return ERR_OK;
    }
    return visit(j, &next, depth + 1);
}

/* A return path that we have tagged. The address without its tag is looked up first: whoever is unknown is unknown, tag
 * or not. */
static int visit_tagged(struct judge *j, const struct address *a, unsigned depth) {
    struct address next;
    struct span plain;
    int bad = batv_check(j->r->batv, a->text, j->who->wall_ms, &j->scratch, &plain);
    if (bad == ERR_NOMEM)
        return bad;
    int err = address_parse(&next, plain, &j->scratch);
    if (err == ERR_NOMEM)
        return err;
    step(j, depth, a->text,
         !bad                 ? "a return path with a BATV tag of ours"
         : bad == ERR_TIMEOUT ? "a BATV tag that has expired"
                              : "a BATV tag that we did not make");
    if (err) {
        refuse(j, depth ? RECIPIENTS_UNROUTABLE : RECIPIENTS_UNKNOWN, SPAN("5.1.1"), SPAN("no such recipient here"));
        return ERR_OK;
    }
    err = visit(j, &next, depth);
    if (!err && bad && !j->failed && !j->later)
        refuse(j, RECIPIENTS_FORGED, SPAN("5.7.1"),
               bad == ERR_TIMEOUT ? SPAN("this return path has expired") : SPAN("this return path is not one of ours"));
    return err;
}

/* Reports about our mail come to tagged addresses, or to those of SRS, which prove the same. A postmaster hears from
 * everybody. */
static void check_untagged(struct judge *j, const struct address *a) {
    if (!batv_misses(j->r->batv, a->text) || is_rewritten(j, a) || span_eq_nocase(a->key, SPAN("postmaster")))
        return;
    if (!j->who->sender)
        step(j, 0, a->text, "from the null sender it would need a BATV tag");
    else if (!j->who->sender->domain.len && !j->who->may_relay)
        refuse(j, RECIPIENTS_FORGED, SPAN("5.7.1"), SPAN("no mail of this address is known that this could be about"));
}

static int visit_own(struct judge *j, const struct recipients_domain *d, const struct address *a, unsigned depth) {
    struct recipients_lookup l;
    if (is_rewritten(j, a))
        return visit_srs(j, a, depth);
    if (batv_is_tagged(j->r->batv, a->text))
        return visit_tagged(j, a, depth);
    if (address_is_indirect(a)) {
        step(j, depth, a->text, "an indirect address in a domain of ours");
        refuse(j, depth ? RECIPIENTS_UNROUTABLE : RECIPIENTS_NO_RELAY, SPAN("5.7.1"),
               SPAN("indirect addresses are not relayed"));
        return ERR_OK;
    }
    int err = recipients_lookup(d, a, j->memo, (struct recipients_telling){j->steps, depth}, &l);
    if (err)
        return err;
    switch (l.found) {
    case FOUND_ENTRY:
        return l.e.kind == TABLE_MAILBOX ? add_target(j, a, true) : follow(j, a, &l.e, depth);
    case FOUND_NOTHING:
        return visit_unknown(j, a, depth);
    case FOUND_LATER:
        j->later = true;
        return ERR_OK;
    case FOUND_UNSURE:
        refuse(j, RECIPIENTS_TEMPFAIL, SPAN("4.3.0"), SPAN("recipient cannot be checked now"));
        return ERR_OK;
    case FOUND_TOO_MANY:
        step(j, depth, a->text, "too many questions to directories");
        refuse(j, RECIPIENTS_UNROUTABLE, SPAN("5.4.6"), SPAN("this address is an alias of too many aliases"));
        return ERR_OK;
    }
    return ERR_INVALID;
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

static int judge(struct judge *j, const struct address *a) {
    if (a->domain.len == 0) {
        say(j, RECIPIENTS_LOCAL, SPAN("2.1.5"), SPAN("recipient ok"));
        return visit_postmaster(j, 0);
    }
    bool own = !a->literal && recipients_domain_of(j->r, a->domain);
    if (!own && !j->who->may_relay) {
        step(j, 0, a->text, "not a domain of ours, and this client may not relay");
        refuse(j, RECIPIENTS_NO_RELAY, SPAN("5.7.1"), SPAN("relaying denied"));
        return ERR_OK;
    }
    if (own)
        say(j, RECIPIENTS_LOCAL, SPAN("2.1.5"), SPAN("recipient ok"));
    else
        say(j, RECIPIENTS_RELAY, SPAN("2.1.5"), SPAN("recipient ok, will relay"));
    int err = visit(j, a, 0);
    if (!err && own && !j->failed && !j->later)
        check_untagged(j, a);
    return err;
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

int recipients_walk(const struct recipients *r, const struct address *a, const struct recipients_caller *who,
                    struct recipients_memo *memo, struct arena *mem, struct recipients_answer *out, struct buf *steps) {
    static const struct recipients_answer unsure = {
        .verdict = RECIPIENTS_TEMPFAIL, .enhanced = {"4.3.0", 5}, .text = {"recipient cannot be checked now", 31}};
    struct judge j = {.r = r, .who = who, .memo = memo, .mem = mem, .steps = steps, .out = out};
    *out = unsure;
    map_init(&j.seen);
    arena_init(&j.scratch, SCRATCH_BLOCK, SCRATCH_MAX);
    int err = judge(&j, a);
    if (!err && j.later)
        err = ERR_AGAIN;
    if (!err && !j.failed && j.visits)
        err = copy_targets(&j);
    map_deinit(&j.seen);
    arena_deinit(&j.scratch);
    if (err) {
        *out = unsure;
        return err;
    }
    if (!j.failed) {
        CHECK(j.count > 0);
        out->targets = j.targets;
        out->count = j.count;
    }
    return ERR_OK;
}
