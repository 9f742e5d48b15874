/*
 * recipients: see recipients.h. The set of own domains, immutable once made; judging an address is a look-up and, for
 * aliases and forwards, a walk with a bound on depth and width.
 *
 * The walk goes down one branch at a time. A target that stands above itself on its own branch is a loop and refuses
 * the recipient; only a name that lists itself directly ("alice: alice, bob") means its own mailbox.
 */
#include "gateway/inbound/recipients.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "gateway/inbound/table.h"

#define MEMORY_MAX (256u * 1024u * 1024u)

struct domain {
    struct map_node by_name;
    struct span name; /* canonical */
    enum recipients_directory directory;
    size_t table; /* index in tables */
};
struct recipients {
    atomic_uint refs;
    struct arena mem;
    struct map by_name;
    struct domain *domains;
    size_t domain_count;
    struct table **tables; /* one for each file */
    struct span **served;  /* domains of each table */
    size_t *served_count;
    const char **paths;
    size_t table_count;
    struct address postmaster;
};

/* -- making a set -- */

static bool match_domain(const struct map_node *n, const void *key) {
    return span_eq(LIST_ENTRY(n, struct domain, by_name)->name, *(const struct span *)key);
}

static const struct domain *find_domain(const struct recipients *r, struct span name) {
    struct map_node *n = map_find(&r->by_name, hash_span(name, 0), match_domain, &name);
    return n ? LIST_ENTRY(n, struct domain, by_name) : NULL;
}

static size_t table_of_path(struct recipients *r, const char *path) {
    for (size_t i = 0; i < r->table_count; i++)
        if (strcmp(r->paths[i], path) == 0)
            return i;
    r->paths[r->table_count] = arena_strdup(&r->mem, path);
    return r->table_count++;
}

static int add_domain(struct recipients *r, const struct recipients_domain_config *c, struct buf *problems) {
    struct domain *d = &r->domains[r->domain_count];
    struct span name = span_of(c->name);
    if (address_parse_domain(&d->name, name, &r->mem) != ERR_OK) {
        buf_printf(problems, "domains: not a domain: %s\n", c->name);
        return ERR_INVALID;
    }
    if (find_domain(r, d->name)) {
        buf_printf(problems, "domains: %s stands there twice\n", c->name);
        return ERR_INVALID;
    }
    d->directory = c->directory;
    if (c->directory == RECIPIENTS_TABLE) {
        if (!c->table) {
            buf_printf(problems, "domains: %s has no table\n", c->name);
            return ERR_INVALID;
        }
        d->table = table_of_path(r, c->table);
    }
    r->domain_count++;
    return map_insert(&r->by_name, &d->by_name, hash_span(d->name, 0));
}

/* Which domains each table serves. */
static int group_domains(struct recipients *r) {
    for (size_t t = 0; t < r->table_count; t++) {
        r->served[t] = arena_calloc(&r->mem, r->domain_count, sizeof(struct span));
        if (!r->served[t])
            return ERR_NOMEM;
        for (size_t i = 0; i < r->domain_count; i++)
            if (r->domains[i].directory == RECIPIENTS_TABLE && r->domains[i].table == t)
                r->served[t][r->served_count[t]++] = r->domains[i].name;
    }
    return ERR_OK;
}

static struct recipients *set_new(size_t domains) {
    struct recipients *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    arena_init(&r->mem, 4096, MEMORY_MAX);
    map_init(&r->by_name);
    size_t n = domains + 1;
    r->domains = arena_calloc(&r->mem, n, sizeof *r->domains);
    r->tables = arena_calloc(&r->mem, n, sizeof(struct table *));
    r->served = arena_calloc(&r->mem, n, sizeof(struct span *));
    r->served_count = arena_calloc(&r->mem, n, sizeof *r->served_count);
    r->paths = arena_calloc(&r->mem, n, sizeof(const char *));
    if (r->domains && r->tables && r->served && r->served_count && r->paths)
        return r;
    recipients_unref(r);
    return NULL;
}

int recipients_new(struct recipients **out, const struct recipients_config *c, struct buf *problems) {
    struct recipients *r = set_new(c->count);
    int first = ERR_OK;
    *out = NULL;
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < c->count; i++) {
        int err = add_domain(r, &c->domains[i], problems);
        first = first == ERR_OK ? err : first;
    }
    struct span postmaster = arena_dup(&r->mem, span_of(c->postmaster));
    if (address_parse(&r->postmaster, postmaster, &r->mem) != ERR_OK) {
        buf_printf(problems, "postmaster: not an address: %s\n", c->postmaster);
        first = ERR_INVALID;
    }
    if (first == ERR_OK)
        first = group_domains(r);
    for (size_t t = 0; t < r->table_count && first != ERR_NOMEM; t++) {
        int err = r->served_count[t]
                      ? table_load(&r->tables[t], r->paths[t], r->served[t], r->served_count[t], problems)
                      : ERR_OK;
        first = first == ERR_OK ? err : first;
    }
    if (first != ERR_OK) {
        recipients_unref(r);
        return first == ERR_NOMEM ? ERR_NOMEM : ERR_INVALID;
    }
    *out = r;
    return ERR_OK;
}

struct recipients *recipients_ref(struct recipients *r) {
    atomic_fetch_add(&r->refs, 1);
    return r;
}

void recipients_unref(struct recipients *r) {
    if (!r || atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    for (size_t i = 0; i < r->table_count; i++)
        if (r->tables[i])
            table_unref(r->tables[i]);
    map_deinit(&r->by_name);
    arena_deinit(&r->mem);
    free(r);
}

/* The same set with references to the same tables. */
static struct recipients *copy_set(const struct recipients *old) {
    struct recipients *r = set_new(old->domain_count);
    if (!r)
        return NULL;
    struct span postmaster = arena_dup(&r->mem, old->postmaster.text);
    bool fine = postmaster.at && address_parse(&r->postmaster, postmaster, &r->mem) == ERR_OK;
    for (size_t i = 0; i < old->domain_count && fine; i++) {
        struct domain *d = &r->domains[i];
        *d = (struct domain){.name = arena_dup(&r->mem, old->domains[i].name),
                             .directory = old->domains[i].directory,
                             .table = old->domains[i].table};
        r->domain_count++;
        fine = d->name.at && map_insert(&r->by_name, &d->by_name, hash_span(d->name, 0)) == ERR_OK;
    }
    for (size_t i = 0; i < old->table_count && fine; i++) {
        r->paths[i] = arena_strdup(&r->mem, old->paths[i]);
        r->tables[i] = table_ref(old->tables[i]);
        r->table_count++;
        fine = r->paths[i] != NULL;
    }
    if (fine && group_domains(r) == ERR_OK)
        return r;
    recipients_unref(r);
    return NULL;
}

int recipients_reload(struct recipients *old, struct recipients **fresh, struct buf *problems) {
    bool stale = false, renewed = false;
    int first = ERR_OK;
    *fresh = NULL;
    for (size_t i = 0; i < old->table_count; i++)
        stale |= table_is_stale(old->tables[i]);
    if (!stale)
        return ERR_OK;
    struct recipients *r = copy_set(old);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < r->table_count; i++) {
        struct table *t;
        if (!table_is_stale(r->tables[i]))
            continue;
        int err = table_load(&t, r->paths[i], r->served[i], r->served_count[i], problems);
        if (err == ERR_OK) {
            table_unref(r->tables[i]);
            r->tables[i] = t;
            renewed = true;
        }
        first = first == ERR_OK ? err : first;
    }
    if (renewed)
        *fresh = r;
    else
        recipients_unref(r);
    return first;
}

const char *recipients_file(const struct recipients *r, size_t n) {
    return n < r->table_count ? r->paths[n] : NULL;
}

/* -- judging -- */

struct branch { /* the names above, on the way down */
    const struct branch *up;
    struct span address;
    unsigned depth;
};
struct walk {
    struct recipients *r;
    struct arena *mem;
    struct recipients_answer *out;
    struct recipients_target *targets;
    size_t count, cap;
    struct buf *steps;
};

static void say(const struct walk *w, unsigned depth, struct span address, const char *what) {
    if (w->steps)
        buf_printf(w->steps, "%*s<%.*s> %s\n", (int)depth * 2, "", SPAN_FMT(address), what);
}

static int refuse(struct walk *w, enum recipients_verdict verdict, const char *enhanced, const char *text) {
    w->out->verdict = verdict;
    w->out->enhanced = span_of(enhanced);
    w->out->text = span_of(text);
    return ERR_OK;
}

static bool is_accepted(const struct walk *w) {
    return w->out->verdict == RECIPIENTS_LOCAL || w->out->verdict == RECIPIENTS_RELAY;
}

static int add_target(struct walk *w, const struct address *a, bool local) {
    for (size_t i = 0; i < w->count; i++)
        if (span_eq_nocase(w->targets[i].address, a->text))
            return ERR_OK;
    if (w->count == RECIPIENTS_EXPANSION_MAX)
        return refuse(w, RECIPIENTS_UNROUTABLE, "5.4.6", "expands to too many addresses");
    if (w->count == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 4;
        struct recipients_target *grown = arena_alloc(w->mem, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        if (w->count)
            memcpy(grown, w->targets, w->count * sizeof *grown);
        w->targets = grown;
        w->cap = cap;
    }
    w->targets[w->count++] = (struct recipients_target){.address = a->text, .destination = a->domain, .local = local};
    return ERR_OK;
}

static int visit(struct walk *w, const struct address *a, const struct branch *up);

/* One target as written in the table, in the domain of the name that lists it. */
static int visit_target(struct walk *w, struct span target, const struct address *owner, const struct branch *here) {
    struct address a;
    struct span text = target;
    if (!table_target_has_domain(target)) {
        char *whole = arena_printf(w->mem, "%.*s@%.*s", SPAN_FMT(target), SPAN_FMT(owner->domain));
        if (!whole)
            return ERR_NOMEM;
        text = span_of(whole);
    }
    int err = address_parse(&a, text, w->mem);
    if (err == ERR_NOMEM)
        return err;
    if (err != ERR_OK) {
        say(w, here->depth + 1, text, "is not an address");
        return refuse(w, RECIPIENTS_UNROUTABLE, "5.1.3", "leads to an address that is malformed");
    }
    return visit(w, &a, here);
}

static int expand(struct walk *w, const struct address *a, const struct table_entry *e, const struct branch *here) {
    struct span rest = e->targets, target;
    if (e->kind == TABLE_FORWARD_KEEP) {
        int err = add_target(w, a, true);
        if (err != ERR_OK)
            return err;
    }
    while (is_accepted(w) && table_next_target(&rest, &target)) {
        int err = visit_target(w, target, a, here);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

static const char *entry_text(const struct table_entry *e) {
    if (e->kind == TABLE_ALIAS)
        return "is an alias of:";
    if (e->kind == TABLE_FORWARD)
        return "is forwarded, no copy kept, to:";
    if (e->kind == TABLE_FORWARD_KEEP)
        return "is a mailbox, and forwarded to:";
    return e->catch_all ? "is taken by the catch-all"
           : e->tagged  ? "is a mailbox (found without its +tag)"
                        : "is a mailbox";
}

static bool is_postmaster(const struct address *a) {
    return span_eq_nocase(a->key, SPAN("postmaster"));
}

/* Not in the directory: postmaster is always there (RFC 5321 section 4.5.1), others are not. */
static int visit_unknown(struct walk *w, const struct address *a, const struct branch *here) {
    if (is_postmaster(a) && !span_eq_nocase(a->text, w->r->postmaster.text)) {
        say(w, here->depth, a->text, "is postmaster, always valid:");
        return visit(w, &w->r->postmaster, here);
    }
    if (is_postmaster(a) || span_eq_nocase(a->text, w->r->postmaster.text)) {
        say(w, here->depth, a->text, "is the postmaster's address, always valid");
        return add_target(w, a, true);
    }
    say(w, here->depth, a->text, "is not in the table");
    if (here->up)
        return refuse(w, RECIPIENTS_UNROUTABLE, "5.1.1", "leads to an unknown address");
    return refuse(w, RECIPIENTS_UNKNOWN, "5.1.1", "no such user here");
}

static int visit_own(struct walk *w, const struct domain *d, const struct address *a, const struct branch *here) {
    struct table_entry e;
    if (address_is_indirect(a)) {
        say(w, here->depth, a->text, "asks to relay through us");
        return refuse(w, RECIPIENTS_NO_RELAY, "5.7.1", "no relaying through this address");
    }
    if (d->directory == RECIPIENTS_ANY) {
        say(w, here->depth, a->text, "is accepted: every address of its domain is");
        return add_target(w, a, true);
    }
    if (!table_find(w->r->tables[d->table], a->key, d->name, &e))
        return visit_unknown(w, a, here);
    say(w, here->depth, a->text, entry_text(&e));
    return e.kind == TABLE_MAILBOX ? add_target(w, a, true) : expand(w, a, &e, here);
}

static int visit(struct walk *w, const struct address *a, const struct branch *up) {
    struct branch here = {.up = up, .address = a->text, .depth = up ? up->depth + 1 : 0};
    for (const struct branch *b = up; b; b = b->up)
        if (span_eq_nocase(b->address, a->text)) {
            say(w, here.depth, a->text, "leads back to itself: a loop");
            return refuse(w, RECIPIENTS_UNROUTABLE, "5.4.6", "leads in a loop");
        }
    if (here.depth > RECIPIENTS_DEPTH_MAX) {
        say(w, here.depth, a->text, "is too deep");
        return refuse(w, RECIPIENTS_UNROUTABLE, "5.4.6", "leads through too many aliases");
    }
    const struct domain *d = a->literal ? NULL : find_domain(w->r, a->domain);
    if (d)
        return visit_own(w, d, a, &here);
    say(w, here.depth, a->text, "is elsewhere, and routed there");
    return add_target(w, a, false);
}

int recipients_judge(struct recipients *r, const struct address *a, bool may_relay, struct arena *mem,
                     struct recipients_answer *out, struct buf *steps) {
    struct walk w = {.r = r, .mem = mem, .out = out, .steps = steps};
    bool bare = a->domain.len == 0; /* <Postmaster> */
    *out = (struct recipients_answer){
        .verdict = RECIPIENTS_LOCAL, .enhanced = SPAN("2.1.5"), .text = SPAN("recipient accepted")};
    const struct domain *own = bare || a->literal ? NULL : find_domain(r, a->domain);
    if (!bare && !own) {
        say(&w, 0, a->text,
            may_relay ? "is elsewhere; this client may relay" : "is elsewhere; this client may not relay");
        if (!may_relay)
            return refuse(&w, RECIPIENTS_NO_RELAY, "5.7.1", "relaying denied");
        out->verdict = RECIPIENTS_RELAY;
    }
    if (bare)
        say(&w, 0, SPAN("Postmaster"), "is always valid:");
    int err = bare ? visit(&w, &r->postmaster, NULL) : own ? visit(&w, a, NULL) : add_target(&w, a, false);
    if (err != ERR_OK)
        return err;
    if (is_accepted(&w)) {
        out->targets = w.targets;
        out->count = w.count;
    }
    return ERR_OK;
}
