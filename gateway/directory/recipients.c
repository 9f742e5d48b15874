/*
 * recipients: makes the set of own domains with their tables, CDB files and directories. Domains that name the
 * same file share one table, so a file is read once and lies in memory once; domains that name the same directory share
 * it, with its cache and its connections.
 *
 * A set never changes; recipients_reload.c makes a new one of it, and recipients_renew one of new settings, which
 * takes over the directories that are set up as before.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#include "gateway/directory/recipients_set.h"

enum { SRS_KEYS_MAX = 16 };

static bool match_name(const struct map_node *n, const void *key) {
    const struct recipients_domain *d = (const struct recipients_domain *)n; /* node is the first member */
    return span_eq(d->name, *(const struct span *)key);
}

const struct recipients_domain *recipients_domain_of(const struct recipients *r, struct span name) {
    return (const struct recipients_domain *)map_find(&r->map, hash_span(name, 0), match_name, &name);
}

struct recipients *recipients_set_new(size_t domains, size_t sources) {
    struct recipients *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    arena_init(&r->mem, 16 * 1024, 0);
    map_init(&r->map);
    r->domains = calloc(domains + 1, sizeof *r->domains);
    r->tables = calloc(sources + 1, sizeof(struct table *));
    r->cdbs = calloc(sources + 1, sizeof(struct cdb_table *));
    r->directories = calloc(sources + 1, sizeof(struct directory *));
    if (!r->domains || !r->tables || !r->cdbs || !r->directories) {
        recipients_unref(r);
        return NULL;
    }
    return r;
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
    for (size_t i = 0; i < r->cdb_count; i++)
        cdb_table_unref(r->cdbs[i]);
    for (size_t i = 0; i < r->directory_count; i++)
        directory_unref(r->directories[i]);
    batv_unref(r->batv);
    map_deinit(&r->map);
    arena_deinit(&r->mem);
    free(r->domains);
    free(r->tables);
    free(r->cdbs);
    free(r->directories);
    free(r);
}

/* -- adding -- */

/* The set holds each directory once. */
static void hold(struct recipients *r, struct directory *d) {
    for (size_t i = 0; i < r->directory_count; i++) {
        if (r->directories[i] == d)
            return;
    }
    r->directories[r->directory_count++] = directory_ref(d);
}

int recipients_set_add(struct recipients *r, const struct recipients_domain *d) {
    struct recipients_domain *to = &r->domains[r->count];
    if (recipients_domain_of(r, d->name))
        return ERR_EXISTS;
    *to = *d;
    to->name = arena_dup(&r->mem, d->name);
    to->tag = arena_dup(&r->mem, d->tag);
    to->sources = arena_calloc(&r->mem, d->count, sizeof *to->sources);
    if (!to->name.at || !to->tag.at || !to->sources)
        return ERR_NOMEM;
    for (size_t i = 0; i < d->count; i++) {
        struct recipients_asked *s = &to->sources[i];
        *s = (struct recipients_asked){.kind = d->sources[i].kind, .directory = d->sources[i].directory};
        if (d->sources[i].path && !(s->path = arena_strdup(&r->mem, d->sources[i].path)))
            return ERR_NOMEM;
        if (s->directory)
            hold(r, s->directory);
    }
    if (map_insert(&r->map, &to->node, hash_span(to->name, 0)) != ERR_OK)
        return ERR_NOMEM;
    r->count++;
    r->source_count += d->count;
    return ERR_OK;
}

int recipients_set_srs(struct recipients *r, const struct srs_config *c) {
    size_t n = c->secret_count;
    const char **secrets = arena_calloc(&r->mem, n + 1, sizeof(const char *));
    r->srs = (struct srs_config){.domain = arena_strdup(&r->mem, c->domain),
                                 .secrets = secrets,
                                 .secret_count = n,
                                 .max_age_days = c->max_age_days};
    if (!r->srs.domain || !secrets)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        if (!(secrets[i] = arena_strdup(&r->mem, c->secrets[i])))
            return ERR_NOMEM;
    }
    return ERR_OK;
}

/* -- files -- */

struct use { /* of a file by a domain */
    const struct recipients_domain *d;
    struct recipients_asked *s;
};

static int by_file(const void *a, const void *b) {
    const struct use *x = a, *y = b;
    int order = strcmp(x->s->path, y->s->path);
    if (!order)
        order = (int)x->s->kind - (int)y->s->kind;
    return order ? order : span_cmp(x->d->name, y->d->name);
}

/* uses[0..count) name one file. */
static int open_file(struct recipients *r, struct use *uses, size_t count, struct span *names,
                     const struct recipients_files *from) {
    struct table *table = NULL;
    struct cdb_table *cdb = NULL;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (n == 0 || !span_eq(names[n - 1], uses[i].d->name))
            names[n++] = uses[i].d->name;
    }
    if (uses->s->kind == RECIPIENTS_CDB)
        cdb = from->cdb(from->arg, uses->s->path);
    else
        table = from->table(from->arg, uses->s->path, names, n);
    if (cdb)
        r->cdbs[r->cdb_count++] = cdb;
    if (table)
        r->tables[r->table_count++] = table;
    for (size_t i = 0; i < count; i++) {
        uses[i].s->table = table;
        uses[i].s->cdb = cdb;
    }
    return table || cdb ? ERR_OK : ERR_INVALID;
}

int recipients_set_open(struct recipients *r, const struct recipients_files *from) {
    struct use *uses = calloc(r->source_count + 1, sizeof *uses);
    struct span *names = calloc(r->source_count + 1, sizeof *names);
    size_t count = 0;
    int err = uses && names ? ERR_OK : ERR_NOMEM;
    for (size_t i = 0; !err && i < r->count; i++) {
        struct recipients_domain *d = &r->domains[i];
        for (size_t k = 0; k < d->count; k++) {
            if (d->sources[k].path)
                uses[count++] = (struct use){d, &d->sources[k]};
        }
    }
    if (count)
        qsort(uses, count, sizeof *uses, by_file);
    for (size_t at = 0, to; at < count; at = to) {
        for (to = at;
             to < count && strcmp(uses[at].s->path, uses[to].s->path) == 0 && uses[at].s->kind == uses[to].s->kind;)
            to++;
        int bad = open_file(r, uses + at, to - at, names, from);
        if (bad)
            err = bad;
    }
    free(uses);
    free(names);
    return err;
}

static struct table *load_table(void *arg, const char *path, const struct span *names, size_t count) {
    struct table *t;
    return table_load(&t, path, names, count, arg) == ERR_OK ? t : NULL;
}

static struct cdb_table *load_cdb(void *arg, const char *path) {
    struct cdb_table *t;
    return cdb_table_open(&t, path, arg) == ERR_OK ? t : NULL;
}

/* -- settings -- */

struct making {
    struct recipients *r, *old;
    struct buf *problems;
};

static int complain(struct making *m, const char *what, const char *name, const char *problem) {
    buf_add_str(m->problems, what);
    buf_add_escaped(m->problems, span_of(name));
    buf_printf(m->problems, ": %s\n", problem);
    return ERR_INVALID;
}

static struct directory *living(const struct recipients *r, const struct directory_config *c) {
    for (size_t i = 0; r && i < r->directory_count; i++) {
        if (directory_fits(r->directories[i], c))
            return r->directories[i];
    }
    return NULL;
}

/* The directory of these settings: of this set, of the old one, or a new one. The set gets its reference. */
static int find_directory(struct making *m, const struct directory_config *c, struct directory **d) {
    if ((*d = living(m->r, c)))
        return ERR_OK;
    if ((*d = living(m->old, c))) {
        hold(m->r, *d);
        return ERR_OK;
    }
    int err = directory_new(d, c, m->problems);
    if (!err)
        m->r->directories[m->r->directory_count++] = *d;
    return err;
}

/* *to gets what the domain asks in the end. NULL, or what is wrong; *err is set where that was told already. */
static const char *take_sources(struct making *m, const struct recipients_domain_config *c,
                                struct recipients_asked *sources, struct recipients_domain *to, int *err) {
    const struct recipients_source one = {.kind = c->directory, .table = c->table};
    const struct recipients_source *from = c->sources ? c->sources : &one;
    size_t count = c->sources ? c->source_count : 1;
    if (count == 0)
        return "no recipients are named";
    if (count > RECIPIENTS_SOURCES_MAX)
        return "more than 16 sources";
    for (size_t i = 0; i < count && !to->cut; i++) {
        struct recipients_asked *s = &sources[to->count++];
        bool file = from[i].kind == RECIPIENTS_TABLE || from[i].kind == RECIPIENTS_CDB;
        *s = (struct recipients_asked){.kind = from[i].kind, .path = file ? from[i].table : NULL};
        if (file && !from[i].table)
            return "no table file";
        if (from[i].kind == RECIPIENTS_DIRECTORY && (!from[i].directory || !from[i].directory->name))
            return "a directory without a name";
        if (from[i].kind == RECIPIENTS_DIRECTORY)
            *err = find_directory(m, from[i].directory, &s->directory);
        if (*err)
            return NULL;
        to->cut = from[i].kind == RECIPIENTS_ANY && i + 1 < count;
        if (from[i].kind == RECIPIENTS_ANY)
            break;
    }
    to->sources = sources;
    return NULL;
}

static int add_domain(struct making *m, const struct recipients_domain_config *c) {
    struct recipients_asked sources[RECIPIENTS_SOURCES_MAX];
    struct recipients_domain d = {.tag = c->tag ? span_of(c->tag) : SPAN("+"), .case_sensitive = c->case_sensitive};
    const char *problem = NULL;
    int err = address_parse_domain(&d.name, span_of(c->name), &m->r->mem);
    if (err)
        problem = err == ERR_NOMEM ? NULL : "not a domain name";
    else
        problem = take_sources(m, c, sources, &d, &err);
    if (!problem && !err) {
        err = recipients_set_add(m->r, &d);
        problem = err == ERR_EXISTS ? "listed twice" : NULL;
    }
    if (err == ERR_NOMEM)
        complain(m, "domains: ", c->name, err_text(err));
    return problem ? complain(m, "domains: ", c->name, problem) : err;
}

static int take_postmaster(struct making *m, const char *text) {
    struct recipients *r = m->r;
    int err = address_parse(&r->postmaster, span_of(text), &r->mem);
    if (!err && recipients_domain_of(r, r->postmaster.domain) && address_is_indirect(&r->postmaster))
        err = ERR_INVALID;
    return err && err != ERR_NOMEM ? complain(m, "postmaster: ", text, "not a mail address") : err;
}

static int take_srs(struct making *m, const struct srs_config *c) {
    struct srs_config canonical;
    struct span domain;
    if (!c || !c->domain)
        return ERR_OK;
    int err = address_parse_domain(&domain, span_of(c->domain), &m->r->mem);
    if (err == ERR_NOMEM)
        return err;
    if (err || !recipients_domain_of(m->r, domain))
        return complain(m, "srs: ", c->domain, "not one of domains");
    if (c->secret_count == 0 || c->secret_count > SRS_KEYS_MAX)
        return complain(m, "srs: ", c->domain, "takes 1 to 16 secrets");
    if (c->max_age_days > SRS_AGE_MAX)
        return complain(m, "srs: ", c->domain, "return paths cannot live longer than 1000 days");
    for (size_t i = 0; i < c->secret_count; i++) {
        if (strlen(c->secrets[i]) < SRS_SECRET_MIN)
            return complain(m, "srs: ", c->domain, "a secret shorter than 16 octets");
    }
    canonical = *c;
    canonical.domain = domain.at; /* an arena's copy ends with a NUL */
    return recipients_set_srs(m->r, &canonical);
}

static int take_batv(struct making *m, const struct batv_config *c) {
    for (size_t i = 0; c && i < c->domain_count; i++) {
        struct span domain;
        int err = address_parse_domain(&domain, span_of(c->domains[i]), &m->r->mem);
        if (err == ERR_NOMEM)
            return err;
        if (err || !recipients_domain_of(m->r, domain))
            return complain(m, "batv: ", c->domains[i], "not one of domains");
    }
    return c ? batv_new(&m->r->batv, c) : ERR_OK;
}

static size_t count_sources(const struct recipients_config *c) {
    size_t count = 0;
    for (size_t i = 0; i < c->count; i++)
        count += c->domains[i].sources ? c->domains[i].source_count : 1;
    return count;
}

/* Goes on after a problem, so that all are told at once; memory is another matter. */
static int make(struct making *m, const struct recipients_config *c) {
    const struct recipients_files files = {load_table, load_cdb, m->problems};
    int first = ERR_OK, err = ERR_OK;
    for (size_t i = 0; i < c->count && err != ERR_NOMEM; i++) {
        err = add_domain(m, &c->domains[i]);
        first = first ? first : err;
    }
    err = err == ERR_NOMEM ? err : take_postmaster(m, c->postmaster);
    first = first ? first : err;
    err = err == ERR_NOMEM ? err : take_srs(m, c->srs);
    first = first ? first : err;
    err = err == ERR_NOMEM ? err : take_batv(m, c->batv);
    first = first ? first : err;
    err = err == ERR_NOMEM ? err : recipients_set_open(m->r, &files);
    return first ? first : err;
}

int recipients_renew(struct recipients **out, const struct recipients_config *c, struct recipients *old,
                     struct buf *problems) {
    struct making m = {recipients_set_new(c->count, count_sources(c)), old, problems};
    *out = NULL;
    if (!m.r)
        return ERR_NOMEM;
    int err = make(&m, c);
    if (err) {
        recipients_unref(m.r);
        return err;
    }
    *out = m.r;
    return ERR_OK;
}

int recipients_new(struct recipients **out, const struct recipients_config *c, struct buf *problems) {
    return recipients_renew(out, c, NULL, problems);
}

const struct directory *recipients_directory_at(const struct recipients *r, size_t n) {
    return n < r->directory_count ? r->directories[n] : NULL;
}
