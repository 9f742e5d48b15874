/*
 * rocks: the store on RocksDB; with rocks_options.c the door to it. One database for all shards of a node: one log, one
 * sync stream. Columns are the families of store.h.
 *
 * What is asked of RocksDB, and why:
 * - Before it opens, log_scan reads the logs: a torn last record (never acknowledged) is dropped, everything else that
 *   does not check is an error that names the file. RocksDB is then told to stop at the tail in any form (mode 2);
 *   afterwards the number of its last operation must not be less than what the scan and the mark say. Logs are also
 *   listed in the manifest, so that a missing one is noticed.
 * - Memory: one block cache with index and filter blocks in it, and one budget for all write buffers.
 * - Mail delivered at once dies in the write buffer: single deletes meet their puts there, and a flush
 *   writes neither. Bodies that live longer go to blob files, so that compactions do not copy them.
 * - After a failed write nothing goes on by itself: no background resume; store_reopen starts anew from the disk, and
 *   opening rewrites what the logs held into tables, so nothing rests on pages whose sync had failed.
 *
 * Readers hold `lock` for reading, also for the life of an iterator; reopening takes it for writing. One writer at a
 * time, under `writing`, so that the mark is exact.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "store/blob_scan.h"
#include "store/directory.h"
#include "store/identity.h"
#include "store/log_scan.h"
#include "store/rocks_in.h"

#define MEMORY_DEFAULT (192u * 1024u * 1024u)
#define MEMORY_MIN (8u * 1024u * 1024u)
#define WRITE_KEEP (4u * 1024u * 1024u) /* memory that the reused write batch may keep */
#define RANGES_MAX 8u

struct rocks_iter {
    struct store_iter iter;
    struct rocks *rocks;
    rocksdb_iterator_t *it;
    rocksdb_readoptions_t *read;
    struct buf end;
    bool started;
};

/* RocksDB's C interface gives texts only. */
static int err_of_text(const char *text) {
    if (strncmp(text, "Corruption", 10) == 0)
        return ERR_CORRUPT;
    if (strstr(text, "No space left") || strstr(text, "Disk quota exceeded"))
        return ERR_NO_SPACE;
    if (strstr(text, "/LOCK"))
        return ERR_EXISTS;
    if (strstr(text, "No such file"))
        return ERR_CORRUPT; /* a file that the manifest names is missing */
    return ERR_IO;
}

static void keep_why(struct rocks *r, const char *what, const char *text) {
    char name[64];
    bool unnamed = strstr(text, "blob log") && !strstr(text, ".blob") && blob_scan_cut(r->path, name, sizeof name);
    pthread_mutex_lock(&r->why_lock);
    snprintf(r->why, sizeof r->why, "%s%s%s", unnamed ? name : "", unnamed ? ": " : "", text);
    LOG_ERROR("store_error", LOG_STR("in", what), LOG_STR("why", r->why));
    pthread_mutex_unlock(&r->why_lock);
}

int rocks_take_error(struct rocks *r, const char *what, char *text) {
    if (!text)
        return ERR_OK;
    int err = err_of_text(text);
    keep_why(r, what, text);
    if (err == ERR_CORRUPT && r->db) /* what is met at opening is refused there */
        store_note_damage(&r->store);
    rocksdb_free(text);
    return err;
}

static void rocks_why(struct store *s, char *to, size_t size) {
    struct rocks *r = (struct rocks *)s;
    pthread_mutex_lock(&r->why_lock);
    snprintf(to, size, "%s", r->why);
    pthread_mutex_unlock(&r->why_lock);
}

/* -- opening -- */

static int refuse(struct store_report *report, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct store_report *report, int err, const char *format, ...) {
    char text[STORE_DAMAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(report->damage, text, sizeof text);
    LOG_ERROR("store_refused", LOG_ERR("why", err), LOG_STR("what", report->damage));
    return err;
}

/* Damage that costs acknowledged mail: refused, unless the operator has emptied the mark to accept it. */
static int lost(struct rocks *r, struct store_report *report) {
    if (!r->loss_accepted)
        return refuse(report, ERR_CORRUPT, "%s", report->damage);
    LOG_WARN("store_loss_accepted", LOG_STR("what", report->damage));
    report->damage[0] = '\0';
    return ERR_OK;
}

static void close_database(struct rocks *r) {
    if (r->db) {
        for (int i = 0; i <= STORE_FAMILIES; i++)
            rocksdb_column_family_handle_destroy(r->families[i]);
        rocksdb_close(r->db);
    }
    r->db = NULL;
    mark_close(&r->mark);
}

static int open_columns(struct rocks *r, bool read_only, struct store_report *report) {
    const char *names[STORE_FAMILIES + 1] = {"default"};
    const rocksdb_options_t *const *options = (const rocksdb_options_t *const *)r->family_options;
    char *text = NULL;
    for (int i = 0; i < STORE_FAMILIES; i++)
        names[i + 1] = store_family_name((enum store_family)i);
    if (read_only)
        r->db = rocksdb_open_for_read_only_column_families(r->options, r->path, STORE_FAMILIES + 1, names, options,
                                                           r->families, 0, &text);
    else
        r->db =
            rocksdb_open_column_families(r->options, r->path, STORE_FAMILIES + 1, names, options, r->families, &text);
    if (!text)
        return ERR_OK;
    r->db = NULL;
    snprintf(report->damage, sizeof report->damage, "%s", text);
    return rocks_take_error(r, "open", text);
}

static uint64_t property(struct rocks *r, int column, const char *name) {
    uint64_t value = 0;
    return rocksdb_property_int_cf(r->db, r->families[column], name, &value) == 0 ? value : 0;
}

/* What must be there lies there: RocksDB checks its tables, but would begin an empty database where the name of the
 * manifest is missing, and looks at blob files only when they are read. */
static int check_files(struct rocks *r, const struct directory_list *files, struct store_report *report) {
    if (!files->current && files->mark && (files->tables || files->blobs || mark_get(&r->mark)))
        return refuse(report, ERR_CORRUPT, "%s/CURRENT is missing", r->path);
    if (files->current && !files->mark)
        return refuse(report, ERR_CORRUPT, "%s/" MARK_FILE " is missing", r->path);
    return ERR_OK;
}

static int check_blobs(struct rocks *r, struct store_report *report) {
    struct directory_list files;
    int err = directory_read(r->path, &files);
    uint64_t wanted = property(r, 1 + STORE_BODY, "rocksdb.num-blob-files");
    if (err == ERR_OK && files.blobs < wanted)
        return refuse(report, ERR_CORRUPT, "%s: %llu of %llu blob files (*.blob) are missing", r->path,
                      (unsigned long long)(wanted - files.blobs), (unsigned long long)wanted);
    return err;
}

/* Every acknowledged operation must be there. */
static int check_sequence(struct rocks *r, const struct log_scan *scan, struct store_report *report) {
    uint64_t have = rocksdb_get_latest_sequence_number(r->db), acknowledged = mark_get(&r->mark);
    if (have < scan->last_sequence)
        snprintf(report->damage, sizeof report->damage,
                 "the logs go to operation %llu, but only %llu could be replayed",
                 (unsigned long long)scan->last_sequence, (unsigned long long)have);
    else if (have < acknowledged)
        snprintf(report->damage, sizeof report->damage,
                 "operations %llu to %llu were acknowledged and are missing; newest log: %s",
                 (unsigned long long)have + 1, (unsigned long long)acknowledged,
                 scan->newest[0] ? scan->newest : "none, it is gone");
    else
        return ERR_OK;
    return lost(r, report);
}

static int open_mark(struct rocks *r, const struct directory_list *files, struct store_report *report) {
    bool create = !files->mark && !files->current;
    if (!files->mark && !create)
        return ERR_OK; /* check_files tells */
    int err = mark_open(&r->mark, r->path, create, r->read_only);
    r->loss_accepted = err == ERR_OK && r->mark.was_empty && files->current;
    return err == ERR_CORRUPT ? refuse(report, err, "%s/" MARK_FILE " does not check", r->path) : err;
}

/* Looks whether the tables hold what the logs do not, before anything is changed. */
static int probe(struct rocks *r, const struct log_scan *scan, struct store_report *report) {
    struct mark mark = r->mark;
    int err = open_columns(r, true, report);
    if (err == ERR_OK)
        err = check_sequence(r, scan, report);
    r->mark.page = NULL; /* stays open */
    close_database(r);
    r->mark = mark;
    return err;
}

/* Reads the logs before RocksDB may change them. */
static int examine_logs(struct rocks *r, struct log_scan *scan, struct store_report *report) {
    uint64_t acknowledged = mark_get(&r->mark);
    int err = log_scan(r->path, acknowledged, scan);
    if (err == ERR_CORRUPT) {
        snprintf(report->damage, sizeof report->damage, "%s", scan->damage);
        err = lost(r, report);
        scan->last_sequence = 0; /* what lies behind the damage is given up */
    } else if (err == ERR_OK && scan->torn[0]) {
        LOG_WARN("store_log_torn", LOG_STR("file", scan->torn), LOG_U64("octets", scan->torn_bytes),
                 LOG_STR("effect", "a write that was never acknowledged is dropped"));
    }
    bool all = r->read_only || scan->last_sequence >= acknowledged;
    return err == ERR_OK && !all ? probe(r, scan, report) : err;
}

/* Opens what lies in the directory, or makes it. On error nothing is open. */
static int open_database(struct rocks *r, struct store_report *report) {
    struct directory_list files;
    struct log_scan scan;
    int err = directory_read(r->path, &files);
    if (err == ERR_OK)
        err = open_mark(r, &files, report);
    if (err == ERR_OK)
        err = check_files(r, &files, report);
    if (err == ERR_OK && !r->read_only && directory_is_in_use(r->path))
        err = refuse(report, ERR_EXISTS, "%s is in use by another process", r->path);
    if (err == ERR_OK && files.current)
        err = examine_logs(r, &scan, report);
    else
        scan = (struct log_scan){0};
    if (err == ERR_OK)
        err = open_columns(r, r->read_only, report);
    if (err == ERR_OK)
        err = check_sequence(r, &scan, report);
    if (err == ERR_OK)
        err = check_blobs(r, report);
    if (err != ERR_OK)
        close_database(r);
    return err;
}

static int check_identity(struct rocks *r, struct store_report *report) {
    bool fresh = !r->read_only && rocksdb_get_latest_sequence_number(r->db) == 0;
    return identity_check(&r->store, r->node, fresh, report);
}

/* -- calls of the contract -- */

struct range {
    enum store_family family;
    struct span from, to;
};

static void add_operation(struct rocks *r, const struct batch_entry *e) {
    rocksdb_column_family_handle_t *f = r->families[e->family + 1];
    if (e->op == BATCH_PUT)
        rocksdb_writebatch_put_cf(r->batch, f, e->key.at, e->key.len, e->value.at, e->value.len);
    else if (e->op == BATCH_DELETE)
        rocksdb_writebatch_delete_cf(r->batch, f, e->key.at, e->key.len);
    else if (e->op == BATCH_SINGLE_DELETE)
        rocksdb_writebatch_singledelete_cf(r->batch, f, e->key.at, e->key.len);
    else
        rocksdb_writebatch_delete_range_cf(r->batch, f, e->key.at, e->key.len, e->value.at, e->value.len);
}

/* Files that lie wholly in a range that was just removed go at once, without a compaction. */
static void drop_files(struct rocks *r, const struct range *ranges, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *text = NULL;
        rocksdb_delete_file_in_range_cf(r->db, r->families[ranges[i].family + 1], ranges[i].from.at, ranges[i].from.len,
                                        ranges[i].to.at, ranges[i].to.len, &text);
        if (rocks_take_error(r, "delete_files", text) != ERR_OK)
            return; /* a compaction does it later */
    }
}

static int write_locked(struct rocks *r, const struct store_batch *const *batches, size_t count, bool sync) {
    struct range ranges[RANGES_MAX];
    size_t range_count = 0;
    struct batch_entry e;
    char *text = NULL;
    rocksdb_writebatch_clear(r->batch);
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; store_batch_next(batches[i], &at, &e);) {
            add_operation(r, &e);
            if (e.op == BATCH_DELETE_RANGE && range_count < RANGES_MAX)
                ranges[range_count++] = (struct range){e.family, e.key, e.value};
        }
    rocksdb_write(r->db, sync ? r->write_synced : r->write_plain, r->batch, &text);
    if (text)
        return rocks_take_error(r, "write", text);
    if (sync)
        mark_set(&r->mark, rocksdb_get_latest_sequence_number(r->db));
    drop_files(r, ranges, range_count);
    return ERR_OK;
}

static int rocks_write(struct store *s, const struct store_batch *const *batches, size_t count, bool sync) {
    struct rocks *r = (struct rocks *)s;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += store_batch_bytes(batches[i]);
    pthread_rwlock_rdlock(&r->lock);
    pthread_mutex_lock(&r->writing);
    int err = r->db && !r->read_only ? write_locked(r, batches, count, sync) : ERR_IO;
    if (bytes > WRITE_KEEP) {
        rocksdb_writebatch_destroy(r->batch);
        r->batch = rocksdb_writebatch_create();
    }
    pthread_mutex_unlock(&r->writing);
    pthread_rwlock_unlock(&r->lock);
    return err;
}

static int rocks_get(struct store *s, enum store_family f, struct span key, struct buf *to) {
    struct rocks *r = (struct rocks *)s;
    char *text = NULL;
    pthread_rwlock_rdlock(&r->lock);
    if (!r->db) {
        pthread_rwlock_unlock(&r->lock);
        return ERR_IO;
    }
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned_cf(r->db, r->read, r->families[f + 1], key.at, key.len, &text);
    int err = rocks_take_error(r, "get", text);
    if (err == ERR_OK && !slice)
        err = ERR_NOT_FOUND;
    if (slice) {
        size_t len;
        const char *at = rocksdb_pinnableslice_value(slice, &len);
        err = buf_append(to, at, len);
        rocksdb_pinnableslice_destroy(slice);
    }
    pthread_rwlock_unlock(&r->lock);
    return err;
}

static bool iter_next(struct store_iter *iter, struct span *key, struct span *value) {
    struct rocks_iter *it = (struct rocks_iter *)iter;
    if (it->started)
        rocksdb_iter_next(it->it);
    it->started = true;
    if (!rocksdb_iter_valid(it->it))
        return false;
    key->at = rocksdb_iter_key(it->it, &key->len);
    if (span_cmp(*key, buf_span(&it->end)) >= 0)
        return false;
    if (value)
        value->at = rocksdb_iter_value(it->it, &value->len);
    return true;
}

static int iter_error(const struct store_iter *iter) {
    char *text = NULL;
    const struct rocks_iter *it = (const struct rocks_iter *)iter;
    rocksdb_iter_get_error(it->it, &text);
    return rocks_take_error(it->rocks, "iterate", text);
}

static void iter_seek(struct store_iter *iter, struct span key) {
    struct rocks_iter *it = (struct rocks_iter *)iter;
    rocksdb_iter_seek(it->it, key.at, key.len);
    it->started = false;
}

static void iter_close(struct store_iter *iter) {
    struct rocks_iter *it = (struct rocks_iter *)iter;
    struct rocks *r = it->rocks;
    rocksdb_iter_destroy(it->it);
    rocksdb_readoptions_destroy(it->read);
    buf_deinit(&it->end);
    free(it);
    pthread_rwlock_unlock(&r->lock);
}

static int rocks_iter_open(struct store_iter **out, struct store *s, enum store_family f, struct span from,
                           struct span to, bool once) {
    static const struct store_iter_ops ops = {iter_next, iter_error, iter_seek, iter_close};
    struct rocks *r = (struct rocks *)s;
    struct rocks_iter *it = calloc(1, sizeof *it);
    if (!it)
        return ERR_NOMEM;
    buf_init(&it->end, 1024);
    if (buf_add(&it->end, to) != ERR_OK) {
        free(it);
        return ERR_NOMEM;
    }
    pthread_rwlock_rdlock(&r->lock);
    if (!r->db) {
        pthread_rwlock_unlock(&r->lock);
        buf_deinit(&it->end);
        free(it);
        return ERR_IO;
    }
    it->iter.ops = &ops;
    it->rocks = r;
    it->read = rocksdb_readoptions_create();
    struct span end = buf_span(&it->end);
    rocksdb_readoptions_set_verify_checksums(it->read, 1);
    rocksdb_readoptions_set_fill_cache(it->read, !once);
    rocksdb_readoptions_set_iterate_upper_bound(it->read, end.at, end.len);
    it->it = rocksdb_create_iterator_cf(r->db, it->read, r->families[f + 1]);
    rocksdb_iter_seek(it->it, from.at, from.len);
    *out = &it->iter;
    return ERR_OK;
}

static bool rocks_has_room(struct store *s, uint64_t more) {
    struct rocks *r = (struct rocks *)s;
    uint64_t room = directory_room(r->path); /* unknown: the write itself will tell */
    return room == UINT64_MAX || (room >= r->reserve_bytes && room - r->reserve_bytes >= 2 * more);
}

static void rocks_stats(struct store *s, struct store_stats *out) {
    struct rocks *r = (struct rocks *)s;
    struct directory_list files;
    pthread_rwlock_rdlock(&r->lock);
    for (int i = 0; r->db && i <= STORE_FAMILIES; i++)
        out->memory_bytes += property(r, i, "rocksdb.cur-size-all-mem-tables");
    out->memory_bytes += rocksdb_cache_get_usage(r->cache);
    pthread_rwlock_unlock(&r->lock);
    if (directory_read(r->path, &files) == ERR_OK) {
        out->disk_bytes = files.bytes;
        out->log_bytes = files.log_bytes;
    }
}

static int rocks_reopen(struct store *s, struct store_report *report) {
    struct rocks *r = (struct rocks *)s;
    *report = (struct store_report){0};
    pthread_rwlock_wrlock(&r->lock);
    close_database(r);
    int err = open_database(r, report);
    pthread_rwlock_unlock(&r->lock);
    return err == ERR_OK ? check_identity(r, report) : err;
}

static void rocks_close(struct store *s) {
    struct rocks *r = (struct rocks *)s;
    close_database(r);
    rocks_free_options(r);
    pthread_rwlock_destroy(&r->lock);
    pthread_mutex_destroy(&r->writing);
    pthread_mutex_destroy(&r->why_lock);
    free(r->path);
    free(r->node);
    free(r);
}

static struct rocks *rocks_new(const struct store_config *c) {
    static const struct store_ops ops = {.close = rocks_close,
                                         .reopen = rocks_reopen,
                                         .write = rocks_write,
                                         .get = rocks_get,
                                         .iter_open = rocks_iter_open,
                                         .has_room = rocks_has_room,
                                         .stats = rocks_stats,
                                         .why = rocks_why};
    struct rocks *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->store.ops = &ops;
    pthread_rwlock_init(&r->lock, NULL);
    pthread_mutex_init(&r->writing, NULL);
    pthread_mutex_init(&r->why_lock, NULL);
    r->path = strdup(c->path);
    r->node = strdup(c->node ? c->node : "");
    r->memory_bytes = c->memory_bytes ? c->memory_bytes : MEMORY_DEFAULT;
    if (r->memory_bytes < MEMORY_MIN)
        r->memory_bytes = MEMORY_MIN;
    r->reserve_bytes = c->reserve_bytes;
    if (r->path && r->node)
        return r;
    rocks_close(&r->store);
    return NULL;
}

static int open_new(struct store **out, struct rocks *r, struct store_report *report) {
    int err = rocks_make_options(r);
    if (err == ERR_OK)
        err = open_database(r, report);
    if (err == ERR_OK)
        err = check_identity(r, report);
    if (err == ERR_OK)
        *out = &r->store;
    else
        rocks_close(&r->store);
    return err;
}

int store_open(struct store **out, const struct store_config *c, struct store_report *report) {
    *report = (struct store_report){0};
    int err = directory_make(c->path, report->damage, sizeof report->damage);
    if (err != ERR_OK)
        return err;
    struct rocks *r = rocks_new(c);
    return r ? open_new(out, r, report) : ERR_NOMEM;
}

int store_open_read_only(struct store **out, const char *path, struct store_report *report) {
    struct directory_list files;
    struct store_config c = {.path = path};
    *report = (struct store_report){0};
    int err = directory_read(path, &files);
    if (err == ERR_OK && !files.current && !files.mark)
        err = ERR_NOT_FOUND;
    if (err == ERR_OK && directory_is_in_use(path))
        err = ERR_EXISTS;
    if (err != ERR_OK)
        return err;
    struct rocks *r = rocks_new(&c);
    if (!r)
        return ERR_NOMEM;
    r->read_only = true;
    return open_new(out, r, report);
}
