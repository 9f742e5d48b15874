/*
 * rocks: the store on RocksDB, and the only file that knows it. One database for all shards of a node: one log, one
 * sync stream. Columns are the families of store.h.
 *
 * What is asked of RocksDB, and why:
 * - The log is read at open so that a torn last record (never acknowledged) is dropped, and everything else that
 *   does not check is an error that names the file. Closed logs are listed in the manifest, so that a missing one is
 *   noticed. For the newest one, which the manifest cannot know, a small file beside the store (PATH.acked) holds the
 *   sequence number of the last synced write: a store that comes back with less has lost what was acknowledged.
 * - Memory: one block cache with index and filter blocks in it, and one budget for all write buffers.
 * - Mail delivered at once dies in the write buffer: single deletes meet their puts there, and a flush
 *   writes neither. Bodies that live longer go to blob files, so that compactions do not copy them.
 *
 * Readers hold `lock` for reading, also for the life of an iterator; reopening takes it for writing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <rocksdb/c.h>

#include "base/check.h"
#include "base/log.h"
#include "base/rand.h"
#include "store/backend.h"
#include "store/keys.h"

#define SCHEMA 1u
#define MEMORY_DEFAULT (192u * 1024u * 1024u)
#define LOG_BYTES_MAX (512u * 1024u * 1024u)
#define OPEN_FILES_MAX 512
#define WAL_TOLERATE_TORN_TAIL 0

struct rocks {
    struct store store;
    pthread_rwlock_t lock;
    char *path, *node;
    int acked; /* descriptor of PATH.acked */
    uint64_t memory_bytes, reserve_bytes;
    rocksdb_options_t *options, *family_options[STORE_FAMILIES + 1];
    rocksdb_cache_t *cache;
    rocksdb_t *db; /* NULL: not open after a failed reopen */
    rocksdb_column_family_handle_t *families[STORE_FAMILIES + 1];
    rocksdb_writeoptions_t *write_synced, *write_plain;
    rocksdb_readoptions_t *read;
};

struct rocks_iter {
    struct store_iter iter;
    struct rocks *rocks;
    rocksdb_iterator_t *it;
    rocksdb_readoptions_t *read;
    struct buf end;
    bool started;
};

/* Names of the columns: RocksDB's own default one comes first and stays empty. */
static const char *column_name(int i) {
    return i == 0 ? "default" : store_family_name((enum store_family)(i - 1));
}

static int err_of_text(const char *text) {
    if (strstr(text, "Corruption"))
        return ERR_CORRUPT;
    if (strstr(text, "No space left"))
        return ERR_NO_SPACE;
    if (strstr(text, "lock") && strstr(text, "LOCK"))
        return ERR_EXISTS;
    if (strstr(text, "No such file"))
        return ERR_CORRUPT; /* a file that the manifest names is missing */
    return ERR_IO;
}

/* Takes and frees RocksDB's error text. */
static int take_error(const char *what, char *text) {
    if (!text)
        return ERR_OK;
    int err = err_of_text(text);
    LOG_ERROR("store_error", LOG_STR("in", what), LOG_STR("why", text));
    rocksdb_free(text);
    return err;
}

/* -- options -- */

static rocksdb_block_based_table_options_t *table_options(struct rocks *r, bool filter) {
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(t, r->cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    rocksdb_block_based_options_set_block_size(t, 16 * 1024);
    if (filter)
        rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
    return t;
}

static rocksdb_options_t *family_options(struct rocks *r, int column) {
    rocksdb_options_t *o = rocksdb_options_create();
    enum store_family f = (enum store_family)(column - 1);
    bool looked_up = column > 0 && (f == STORE_ENVELOPE || f == STORE_RECIPIENT || f == STORE_SUBMISSION || f == STORE_BODY);
    rocksdb_block_based_table_options_t *t = table_options(r, looked_up);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    rocksdb_options_set_compression(o, column > 0 && f == STORE_TRACE ? rocksdb_lz4_compression : rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(o, column > 0 && f == STORE_BODY ? 64u << 20 : 16u << 20);
    rocksdb_options_set_max_write_buffer_number(o, 4);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    if (column > 0 && f == STORE_BODY) {
        rocksdb_options_set_enable_blob_files(o, 1);
        rocksdb_options_set_min_blob_size(o, 4096);
        rocksdb_options_set_blob_file_size(o, 128u << 20);
        rocksdb_options_set_enable_blob_gc(o, 1);
        rocksdb_options_set_blob_gc_age_cutoff(o, 0.5);
        rocksdb_options_set_blob_gc_force_threshold(o, 0.5);
    }
    return o;
}

static int database_options(struct rocks *r) {
    rocksdb_options_t *base = rocksdb_options_create();
    char *text = NULL;
    r->options = rocksdb_options_create();
    rocksdb_get_options_from_string(base, "track_and_verify_wals_in_manifest=true", r->options, &text);
    rocksdb_options_destroy(base);
    if (text)
        return take_error("options", text);
    rocksdb_options_t *o = r->options;
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_create_missing_column_families(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_wal_recovery_mode(o, WAL_TOLERATE_TORN_TAIL);
    rocksdb_options_set_db_write_buffer_size(o, r->memory_bytes / 2);
    rocksdb_options_set_max_total_wal_size(o, LOG_BYTES_MAX);
    rocksdb_options_set_max_open_files(o, OPEN_FILES_MAX);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_allow_concurrent_memtable_write(o, 0);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_info_log_level(o, 2); /* warn */
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_log_file_size(o, 4u << 20);
    rocksdb_options_set_bytes_per_sync(o, 1u << 20);
    return ERR_OK;
}

static int make_options(struct rocks *r) {
    r->cache = rocksdb_cache_create_lru(r->memory_bytes / 4);
    int err = database_options(r);
    if (err != ERR_OK)
        return err;
    for (int i = 0; i <= STORE_FAMILIES; i++)
        r->family_options[i] = family_options(r, i);
    r->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(r->write_synced, 1);
    r->write_plain = rocksdb_writeoptions_create();
    r->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(r->read, 1);
    return ERR_OK;
}

/* -- opening -- */

static void close_database(struct rocks *r) {
    if (!r->db)
        return;
    for (int i = 0; i <= STORE_FAMILIES; i++)
        rocksdb_column_family_handle_destroy(r->families[i]);
    rocksdb_close(r->db);
    r->db = NULL;
}

/* Remembers that everything up to now is acknowledged. Not synced: after a loss of power it may be older, never newer. */
static void note_acked(struct rocks *r) {
    uint64_t sequence = rocksdb_get_latest_sequence_number(r->db);
    if (pwrite(r->acked, &sequence, sizeof sequence, 0) != sizeof sequence)
        LOG_WARN("acked_not_noted", LOG_STR("why", strerror(errno)));
}

static int check_acked(struct rocks *r, struct store_report *report) {
    uint64_t noted, sequence = rocksdb_get_latest_sequence_number(r->db);
    if (pread(r->acked, &noted, sizeof noted, 0) != sizeof noted || noted <= sequence)
        return ERR_OK;
    snprintf(report->damage, sizeof report->damage,
             "%s: the log ends at write %llu, but writes up to %llu were acknowledged: a log file is missing or cut "
             "(after restoring an older copy on purpose, remove %s.acked)",
             r->path, (unsigned long long)sequence, (unsigned long long)noted, r->path);
    return ERR_CORRUPT;
}

static int open_acked(struct rocks *r) {
    char path[4096];
    snprintf(path, sizeof path, "%s.acked", r->path);
    r->acked = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return r->acked >= 0 ? ERR_OK : errno == ENOSPC ? ERR_NO_SPACE : ERR_IO;
}

static int open_database(struct rocks *r, struct store_report *report) {
    const char *names[STORE_FAMILIES + 1];
    char *text = NULL;
    for (int i = 0; i <= STORE_FAMILIES; i++)
        names[i] = column_name(i);
    r->db = rocksdb_open_column_families(r->options, r->path, STORE_FAMILIES + 1, names,
                                         (const rocksdb_options_t *const *)r->family_options, r->families, &text);
    if (!text) {
        int err = check_acked(r, report);
        if (err != ERR_OK)
            close_database(r);
        return err;
    }
    r->db = NULL;
    snprintf(report->damage, sizeof report->damage, "%s", text);
    return take_error("open", text);
}

static int check_value(struct rocks *r, enum key_tag tag, struct buf *value) {
    struct key k = key_meta(KEY_NODE, tag);
    buf_clear(value);
    return store_get(&r->store, STORE_META, key_span(&k), value);
}

static int write_identity(struct rocks *r) {
    struct store_batch *b = store_batch_new();
    uint8_t random[16];
    struct buf text;
    struct key k = key_meta(KEY_NODE, KEY_TAG_IDENTITY);
    if (!b)
        return ERR_NOMEM;
    rand_secure(random, sizeof random);
    buf_init(&text, 1024);
    buf_add_str(&text, r->node);
    buf_add_byte(&text, '\n');
    for (size_t i = 0; i < sizeof random; i++)
        buf_printf(&text, "%02x", random[i]);
    store_put(b, STORE_META, key_span(&k), buf_span(&text));
    k = key_meta(KEY_NODE, KEY_TAG_SCHEMA);
    buf_clear(&text);
    buf_add_u64(&text, SCHEMA);
    store_put(b, STORE_META, key_span(&k), buf_span(&text));
    int err = store_write(&r->store, b, true);
    buf_deinit(&text);
    store_batch_free(b);
    return err;
}

/* Whose store this is, and of which version; written when it is new. */
static int check_identity(struct rocks *r, struct store_report *report) {
    struct buf value;
    uint64_t schema = 0;
    buf_init(&value, 4096);
    int err = check_value(r, KEY_TAG_SCHEMA, &value);
    if (err == ERR_NOT_FOUND) {
        report->created = true;
        report->schema = SCHEMA;
        err = write_identity(r);
    } else if (err == ERR_OK) {
        report->schema = span_u64(buf_span(&value), &schema) ? (uint32_t)schema : 0;
        if (schema != SCHEMA) {
            snprintf(report->damage, sizeof report->damage, "schema %u; this program knows %u", report->schema, SCHEMA);
            err = ERR_VERSION;
        } else {
            err = check_value(r, KEY_TAG_IDENTITY, &value);
            struct span rest, owner = span_cut(buf_span(&value), '\n', &rest);
            if (err == ERR_OK && *r->node && !span_eq(owner, span_of(r->node))) {
                snprintf(report->damage, sizeof report->damage, "belongs to the node %.*s", SPAN_FMT(owner));
                err = ERR_DENIED;
            }
        }
    }
    buf_deinit(&value);
    return err;
}

static int make_directory(const char *path) {
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return errno == ENOSPC ? ERR_NO_SPACE : ERR_IO;
    if (lstat(path, &st) != 0)
        return ERR_IO;
    return S_ISDIR(st.st_mode) ? ERR_OK : ERR_DENIED;
}

/* -- calls of the contract -- */

static int rocks_write(struct store *s, const struct store_batch *b, bool sync) {
    struct rocks *r = (struct rocks *)s;
    struct batch_entry e;
    char *text = NULL;
    pthread_rwlock_rdlock(&r->lock);
    if (!r->db) {
        pthread_rwlock_unlock(&r->lock);
        return ERR_IO;
    }
    rocksdb_writebatch_t *w = rocksdb_writebatch_create();
    for (size_t at = 0; store_batch_next(b, &at, &e);) {
        rocksdb_column_family_handle_t *f = r->families[e.family + 1];
        if (e.op == BATCH_PUT)
            rocksdb_writebatch_put_cf(w, f, e.key.at, e.key.len, e.value.at, e.value.len);
        else if (e.op == BATCH_DELETE)
            rocksdb_writebatch_delete_cf(w, f, e.key.at, e.key.len);
        else if (e.op == BATCH_SINGLE_DELETE)
            rocksdb_writebatch_singledelete_cf(w, f, e.key.at, e.key.len);
        else
            rocksdb_writebatch_delete_range_cf(w, f, e.key.at, e.key.len, e.value.at, e.value.len);
    }
    rocksdb_write(r->db, sync ? r->write_synced : r->write_plain, w, &text);
    rocksdb_writebatch_destroy(w);
    if (!text && sync)
        note_acked(r);
    pthread_rwlock_unlock(&r->lock);
    return take_error("write", text);
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
    int err = take_error("get", text);
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
    rocksdb_iter_get_error(((const struct rocks_iter *)iter)->it, &text);
    return take_error("iterate", text);
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
                           struct span to) {
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
    rocksdb_readoptions_set_iterate_upper_bound(it->read, end.at, end.len);
    it->it = rocksdb_create_iterator_cf(r->db, it->read, r->families[f + 1]);
    rocksdb_iter_seek(it->it, from.at, from.len);
    *out = &it->iter;
    return ERR_OK;
}

static bool rocks_has_room(struct store *s, uint64_t more) {
    struct rocks *r = (struct rocks *)s;
    struct statvfs v;
    if (statvfs(r->path, &v) != 0)
        return true; /* the write itself will tell */
    uint64_t available = (uint64_t)v.f_bavail * v.f_frsize;
    return available >= r->reserve_bytes && available - r->reserve_bytes >= 2 * more;
}

static uint64_t property(struct rocks *r, int column, const char *name) {
    uint64_t value = 0;
    return rocksdb_property_int_cf(r->db, r->families[column], name, &value) == 0 ? value : 0;
}

static void file_sizes(const char *path, struct store_stats *out) {
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        size_t len = strlen(e->d_name);
        out->disk_bytes += (uint64_t)st.st_blocks * 512u;
        if (len > 4 && strcmp(e->d_name + len - 4, ".log") == 0)
            out->log_bytes += (uint64_t)st.st_size;
    }
    closedir(d);
}

static void rocks_stats(struct store *s, struct store_stats *out) {
    struct rocks *r = (struct rocks *)s;
    pthread_rwlock_rdlock(&r->lock);
    for (int i = 0; r->db && i <= STORE_FAMILIES; i++)
        out->memory_bytes += property(r, i, "rocksdb.cur-size-all-mem-tables");
    out->memory_bytes += rocksdb_cache_get_usage(r->cache);
    pthread_rwlock_unlock(&r->lock);
    file_sizes(r->path, out);
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
    for (int i = 0; i <= STORE_FAMILIES; i++)
        if (r->family_options[i])
            rocksdb_options_destroy(r->family_options[i]);
    if (r->options)
        rocksdb_options_destroy(r->options);
    if (r->cache)
        rocksdb_cache_destroy(r->cache);
    if (r->write_synced)
        rocksdb_writeoptions_destroy(r->write_synced);
    if (r->write_plain)
        rocksdb_writeoptions_destroy(r->write_plain);
    if (r->read)
        rocksdb_readoptions_destroy(r->read);
    pthread_rwlock_destroy(&r->lock);
    if (r->acked >= 0)
        close(r->acked);
    free(r->path);
    free(r->node);
    free(r);
}

int store_open(struct store **out, const struct store_config *c, struct store_report *report) {
    static const struct store_ops ops = {.close = rocks_close, .reopen = rocks_reopen, .write = rocks_write,
                                         .get = rocks_get, .iter_open = rocks_iter_open, .has_room = rocks_has_room,
                                         .stats = rocks_stats};
    *report = (struct store_report){0};
    struct rocks *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->store.ops = &ops;
    r->acked = -1;
    pthread_rwlock_init(&r->lock, NULL);
    r->path = strdup(c->path);
    r->node = strdup(c->node);
    r->memory_bytes = c->memory_bytes ? c->memory_bytes : MEMORY_DEFAULT;
    r->reserve_bytes = c->reserve_bytes;
    int err = r->path && r->node ? make_directory(c->path) : ERR_NOMEM;
    if (err == ERR_OK)
        err = open_acked(r);
    if (err == ERR_OK)
        err = make_options(r);
    if (err == ERR_OK)
        err = open_database(r, report);
    if (err == ERR_OK)
        err = check_identity(r, report);
    if (err != ERR_OK) {
        rocks_close(&r->store);
        return err;
    }
    *out = &r->store;
    return ERR_OK;
}
