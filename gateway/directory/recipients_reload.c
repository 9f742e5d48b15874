/*
 * recipients_reload: renews the files of a set: a new set takes over the tables whose files did not change and those
 * whose new files are broken, and all directories. Also what is to be said of a set as a whole: its files, its
 * warnings.
 */
#include <string.h>

#include "base/check.h"

#include "gateway/directory/recipients_set.h"

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

static struct cdb_table *renew_cdb(void *arg, const char *path) {
    struct renewal *w = arg;
    struct cdb_table *old = NULL, *t;
    for (size_t i = 0; i < w->old->cdb_count && !old; i++) {
        if (strcmp(cdb_table_path(w->old->cdbs[i]), path) == 0)
            old = w->old->cdbs[i];
    }
    CHECK(old);
    if (cdb_table_is_stale(old) && cdb_table_open(&t, path, w->problems) == ERR_OK) {
        w->renewed++;
        return t;
    }
    return cdb_table_ref(old);
}

static int copy_set(struct recipients *to, const struct recipients *from) {
    int err = ERR_OK;
    for (size_t i = 0; i < from->count && !err; i++)
        err = recipients_set_add(to, &from->domains[i]);
    if (!err)
        err = address_parse(&to->postmaster, from->postmaster.text, &to->mem);
    to->batv = batv_ref(from->batv);
    if (!err && from->srs.domain)
        err = recipients_set_srs(to, &from->srs);
    return err;
}

static bool is_stale(const struct recipients *r) {
    bool stale = false;
    for (size_t i = 0; i < r->table_count && !stale; i++)
        stale = table_is_stale(r->tables[i]);
    for (size_t i = 0; i < r->cdb_count && !stale; i++)
        stale = cdb_table_is_stale(r->cdbs[i]);
    return stale;
}

int recipients_reload(struct recipients *r, struct recipients **fresh, struct buf *problems) {
    struct renewal w = {.old = r, .problems = problems};
    const struct recipients_files files = {renew_table, renew_cdb, &w};
    *fresh = NULL;
    if (!is_stale(r))
        return ERR_OK;
    struct recipients *copy = recipients_set_new(r->count, r->source_count);
    if (!copy)
        return ERR_NOMEM;
    int err = copy_set(copy, r);
    if (!err)
        err = recipients_set_open(copy, &files);
    if (err || w.renewed == 0) {
        recipients_unref(copy);
        return err;
    }
    *fresh = copy;
    return ERR_OK;
}

const char *recipients_file(const struct recipients *r, size_t n) {
    if (n < r->table_count)
        return table_path(r->tables[n]);
    n -= r->table_count;
    return n < r->cdb_count ? cdb_table_path(r->cdbs[n]) : NULL;
}

static size_t warn(struct buf *lines, const struct recipients_domain *d, const char *what) {
    buf_add_str(lines, "domains: ");
    buf_add_escaped(lines, d->name);
    buf_printf(lines, ": %s\n", what);
    return 1;
}

/* Whether an earlier directory, set up in another way, has the name of the nth. */
static bool is_namesake(const struct recipients *r, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(directory_name(r->directories[i]), directory_name(r->directories[n])) == 0)
            return true;
    }
    return false;
}

size_t recipients_warnings(const struct recipients *r, struct buf *lines) {
    size_t count = 0;
    for (size_t i = 0; i < r->directory_count; i++) {
        if (!is_namesake(r, i))
            continue;
        buf_add_str(lines, "directories: ");
        buf_add_escaped(lines, span_of(directory_name(r->directories[i])));
        buf_add_str(lines, ": two different ones have this name: the log cannot tell them apart\n");
        count++;
    }
    for (size_t i = 0; i < r->count; i++) {
        const struct recipients_domain *d = &r->domains[i];
        bool files = false;
        for (size_t k = 0; k < d->count; k++)
            files |= d->sources[k].path != NULL;
        if (d->sources[d->count - 1].kind == RECIPIENTS_ANY)
            count += warn(lines, d, "any recipient is accepted: backscatter, when the mailbox server refuses some");
        if (d->cut)
            count += warn(lines, d, "sources behind `any` are never asked");
        if (d->case_sensitive && files)
            count += warn(lines, d, "tables do not mind the case of local parts, only directories do");
    }
    return count;
}
