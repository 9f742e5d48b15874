/*
 * recipients: makes and renews the set of own domains and their tables. Domains that name the
 * same file share one table, so a file is read once and lies in memory once.
 *
 * A reload never changes a set: it makes a new one, which takes over the tables whose files
 * did not change and those whose new files are broken.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#include "gateway/directory/recipients_set.h"

static bool match_name(const struct map_node *n, const void *key) {
    const struct recipients_domain *d = (const struct recipients_domain *)n; /* node is the first member */
    return span_eq(d->name, *(const struct span *)key);
}

const struct recipients_domain *recipients_domain_of(const struct recipients *r, struct span name) {
    return (const struct recipients_domain *)map_find(&r->map, hash_span(name, 0), match_name, &name);
}

static struct recipients *set_new(size_t count) {
    struct recipients *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    arena_init(&r->mem, 16 * 1024, 0);
    map_init(&r->map);
    r->domains = calloc(count + 1, sizeof *r->domains);
    r->tables = calloc(count + 1, sizeof(struct table *));
    if (!r->domains || !r->tables) {
        recipients_unref(r);
        return NULL;
    }
    return r;
}

/* Adds a domain; name is canonical. ERR_EXISTS, ERR_NOMEM. */
static int add_domain(struct recipients *r, struct span name, enum recipients_directory directory, const char *path) {
    struct recipients_domain *d = &r->domains[r->count];
    if (recipients_domain_of(r, name))
        return ERR_EXISTS;
    d->name = arena_dup(&r->mem, name);
    d->directory = directory;
    d->path = path ? arena_strdup(&r->mem, path) : NULL;
    if (!d->name.at || (path && !d->path) || map_insert(&r->map, &d->node, hash_span(name, 0)) != ERR_OK)
        return ERR_NOMEM;
    r->count++;
    return ERR_OK;
}

static int add_domains(struct recipients *r, const struct recipients_config *c, struct buf *problems) {
    int err = ERR_OK;
    for (size_t i = 0; i < c->count; i++) {
        const struct recipients_domain_config *d = &c->domains[i];
        struct span name = SPAN_EMPTY;
        int bad = address_parse_domain(&name, span_of(d->name), &r->mem);
        if (!bad && d->directory == RECIPIENTS_TABLE && !d->table)
            bad = ERR_NOT_FOUND;
        if (!bad)
            bad = add_domain(r, name, d->directory, d->directory == RECIPIENTS_TABLE ? d->table : NULL);
        if (!bad)
            continue;
        buf_add_str(problems, "domains: ");
        buf_add_escaped(problems, span_of(d->name));
        buf_printf(problems, ": %s\n",
                   bad == ERR_EXISTS      ? "listed twice"
                   : bad == ERR_NOT_FOUND ? "no table file"
                   : bad == ERR_NOMEM     ? err_text(bad)
                                          : "not a domain name");
        err = bad == ERR_NOMEM ? ERR_NOMEM : ERR_INVALID;
    }
    return err;
}

static int by_path(const void *a, const void *b) {
    const struct recipients_domain *x = *(struct recipients_domain *const *)a,
                                   *y = *(struct recipients_domain *const *)b;
    int order = strcmp(x->path, y->path);
    return order ? order : span_cmp(x->name, y->name);
}

/* What gives the table for a file and its domains; NULL: it cannot be had. */
typedef struct table *(*source)(void *arg, const char *path, const struct span *names, size_t count);

/* Sorts the domains by file and asks for the table of each file once. ERR_INVALID: one or more could not be had. */
static int add_tables(struct recipients *r, source get, void *arg) {
    struct recipients_domain **sorted = calloc(r->count + 1, sizeof(struct recipients_domain *));
    struct span *names = calloc(r->count + 1, sizeof *names);
    size_t count = 0;
    int err = sorted && names ? ERR_OK : ERR_NOMEM;
    for (size_t i = 0; !err && i < r->count; i++) {
        if (r->domains[i].path)
            sorted[count++] = &r->domains[i];
    }
    if (count)
        qsort(sorted, count, sizeof *sorted, by_path);
    for (size_t from = 0, to; from < count; from = to) {
        for (to = from; to < count && strcmp(sorted[from]->path, sorted[to]->path) == 0; to++)
            names[to - from] = sorted[to]->name;
        struct table *t = get(arg, sorted[from]->path, names, to - from);
        if (!t) {
            err = ERR_INVALID;
            continue;
        }
        r->tables[r->table_count++] = t;
        for (size_t i = from; i < to; i++)
            sorted[i]->table = t;
    }
    free(sorted);
    free(names);
    return err;
}

static struct table *load_table(void *arg, const char *path, const struct span *names, size_t count) {
    struct table *t;
    return table_load(&t, path, names, count, arg) == ERR_OK ? t : NULL;
}

static int take_postmaster(struct recipients *r, const char *text, struct buf *problems) {
    int err = address_parse(&r->postmaster, span_of(text), &r->mem);
    if (!err && recipients_domain_of(r, r->postmaster.domain) && address_is_indirect(&r->postmaster))
        err = ERR_INVALID;
    if (err && err != ERR_NOMEM) {
        buf_add_str(problems, "postmaster: ");
        buf_add_escaped(problems, span_of(text));
        buf_add_str(problems, ": not a mail address\n");
        err = ERR_INVALID;
    }
    return err;
}

int recipients_new(struct recipients **out, const struct recipients_config *c, struct buf *problems) {
    struct recipients *r = set_new(c->count);
    *out = NULL;
    if (!r)
        return ERR_NOMEM;
    int err = add_domains(r, c, problems);
    int bad = take_postmaster(r, c->postmaster, problems);
    if (!err)
        err = bad;
    if (err != ERR_NOMEM) { /* all problems at once, those of the tables too */
        bad = add_tables(r, load_table, problems);
        if (!err)
            err = bad;
    }
    if (err) {
        recipients_unref(r);
        return err;
    }
    *out = r;
    return ERR_OK;
}

struct recipients *recipients_ref(struct recipients *r) {
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void recipients_unref(struct recipients *r) {
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < r->table_count; i++)
        table_unref(r->tables[i]);
    map_deinit(&r->map);
    arena_deinit(&r->mem);
    free(r->domains);
    free(r->tables);
    free(r);
}

/* -- reload -- */

struct renewal {
    const struct recipients *old;
    struct buf *problems;
    size_t renewed;
};

static struct table *renew_table(void *arg, const char *path, const struct span *names, size_t count) {
    struct renewal *w = arg;
    struct table *old = NULL, *t;
    for (size_t i = 0; i < w->old->table_count && !old; i++) {
        if (strcmp(table_path(w->old->tables[i]), path) == 0)
            old = w->old->tables[i];
    }
    CHECK(old); /* every path of a set has its table */
    if (table_is_stale(old) && table_load(&t, path, names, count, w->problems) == ERR_OK) {
        w->renewed++;
        return t;
    }
    return table_ref(old);
}

static int copy_set(struct recipients *to, const struct recipients *from) {
    int err = ERR_OK;
    for (size_t i = 0; i < from->count && !err; i++)
        err = add_domain(to, from->domains[i].name, from->domains[i].directory, from->domains[i].path);
    if (!err)
        err = address_parse(&to->postmaster, from->postmaster.text, &to->mem);
    return err;
}

int recipients_reload(struct recipients *r, struct recipients **fresh, struct buf *problems) {
    struct renewal w = {.old = r, .problems = problems};
    bool stale = false;
    *fresh = NULL;
    for (size_t i = 0; i < r->table_count && !stale; i++)
        stale = table_is_stale(r->tables[i]);
    if (!stale)
        return ERR_OK;
    struct recipients *copy = set_new(r->count);
    if (!copy)
        return ERR_NOMEM;
    int err = copy_set(copy, r);
    if (!err)
        err = add_tables(copy, renew_table, &w);
    if (err || w.renewed == 0) {
        recipients_unref(copy);
        return err;
    }
    *fresh = copy;
    return ERR_OK;
}

const char *recipients_file(const struct recipients *r, size_t n) {
    return n < r->table_count ? table_path(r->tables[n]) : NULL;
}
