/*
 * cdb: looks recipients up in a mapped CDB file (cdb_format.h).
 *
 * We walk the hash tables ourselves, with the library's hash: so every position is checked against the file, and every
 * octet against a checksum, before it counts. The pointers are checked when the file is opened, a hash table when it is
 * first touched (one of 256, so a small part of the file), a record when its hash fits. What fails is ERR_CORRUPT: 451,
 * since "unknown" would be final.
 *
 * The map is shared and read-only. A file that is cut while it is mapped ends the process, as with every mapping: that
 * is why it is replaced by rename only.
 */
#include <cdb.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

#include "gateway/directory/cdb.h"
#include "gateway/directory/cdb_format.h"

enum { UNTOUCHED, SOUND, DAMAGED };

struct cdb_table {
    atomic_uint refs;
    char *path;
    const unsigned char *map;
    size_t size; /* of the CDB itself, without the trailer */
    size_t mapped;
    uint64_t count;
    atomic_uchar state[CDB_TABLES];
    struct stat stat;
};

static uint32_t u32_at(const unsigned char *at) {
    return cdb_unpack(at);
}

static uint64_t u64_at(const unsigned char *at) {
    return (uint64_t)u32_at(at + 4) << 32 | u32_at(at);
}

size_t cdb_table_key(char to[CDB_KEY_MAX], struct span local, struct span domain, bool catch_all) {
    if (local.len > ADDRESS_LOCAL_MAX || domain.len > ADDRESS_DOMAIN_MAX)
        return 0;
    size_t len = 0;
    to[len++] = catch_all ? 'c' : 'n';
    if (!catch_all) {
        to[len++] = (char)local.len;
        for (size_t i = 0; i < local.len; i++) {
            char c = local.at[i];
            to[len++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
    }
    if (domain.len)
        memcpy(to + len, domain.at, domain.len);
    return len + domain.len;
}

/* -- opening -- */

static int problem(const char *path, struct buf *problems, const char *what, int err) {
    buf_printf(problems, "%s: %s\n", path, what);
    return err;
}

static int map_file(struct cdb_table *t, struct buf *problems) {
    int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        int err = errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : errno == EACCES ? ERR_DENIED : ERR_IO;
        return problem(t->path, problems, strerror(errno), err);
    }
    int err = ERR_OK;
    if (fstat(fd, &t->stat) != 0)
        err = problem(t->path, problems, strerror(errno), ERR_IO);
    else if (!S_ISREG(t->stat.st_mode))
        err = problem(t->path, problems, "not a regular file", ERR_DENIED);
    else if (t->stat.st_mode & S_IWOTH)
        err = problem(t->path, problems, "writable by everyone", ERR_DENIED);
    else if (t->stat.st_size < CDB_HEAD + CDB_TRAILER)
        err = problem(t->path, problems, "not made by 'posthouse table build', or cut", ERR_CORRUPT);
    if (!err) {
        t->mapped = (size_t)t->stat.st_size;
        void *map = mmap(NULL, t->mapped, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            err = problem(t->path, problems, strerror(errno), errno == ENOMEM ? ERR_NOMEM : ERR_IO);
        else
            t->map = map;
    }
    close(fd);
    return err;
}

/* Position and slots of a hash table; false: outside of the file. */
static bool table_at(const struct cdb_table *t, unsigned n, size_t *at, size_t *slots) {
    *at = u32_at(t->map + n * 8u);
    *slots = u32_at(t->map + n * 8u + 4);
    return *at >= CDB_HEAD && *at <= t->size && *slots <= (t->size - *at) / 8;
}

static int check_head(struct cdb_table *t, struct buf *problems) {
    const unsigned char *trailer = t->map + t->mapped - CDB_TRAILER;
    size_t at, slots;
    if (memcmp(trailer, CDB_MAGIC, 8) != 0)
        return problem(t->path, problems, "not made by 'posthouse table build', or cut", ERR_CORRUPT);
    if (u32_at(trailer + CDB_AT_VERSION) != CDB_VERSION)
        return problem(t->path, problems, "of another version: build it again", ERR_VERSION);
    t->size = t->mapped - CDB_TRAILER;
    t->count = u64_at(trailer + CDB_AT_COUNT);
    bool sound =
        u32_at(trailer + CDB_AT_CHECKSUM) == hash_checksum(trailer + CDB_AT_COUNT, CDB_TRAILER - CDB_AT_COUNT) &&
        u64_at(trailer + CDB_AT_SIZE) == t->size && u32_at(trailer + CDB_AT_HEAD) == hash_checksum(t->map, CDB_HEAD);
    for (unsigned i = 0; sound && i < CDB_TABLES; i++)
        sound = table_at(t, i, &at, &slots);
    return sound ? ERR_OK : problem(t->path, problems, "damaged", ERR_CORRUPT);
}

int cdb_table_open(struct cdb_table **out, const char *path, struct buf *problems) {
    struct cdb_table *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ERR_NOMEM;
    atomic_init(&t->refs, 1);
    t->path = strdup(path);
    int err = t->path ? map_file(t, problems) : ERR_NOMEM;
    if (!err)
        err = check_head(t, problems);
    if (err) {
        cdb_table_unref(t);
        return err;
    }
    (void)madvise((void *)t->map, t->mapped, MADV_RANDOM);
    *out = t;
    return ERR_OK;
}

struct cdb_table *cdb_table_ref(struct cdb_table *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void cdb_table_unref(struct cdb_table *t) {
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (t->map)
        munmap((void *)t->map, t->mapped);
    free(t->path);
    free(t);
}

/* -- looking up -- */

/* Proves a hash table when it is first touched; threads may do so side by side. */
static bool is_sound(struct cdb_table *t, unsigned n, size_t at, size_t slots) {
    unsigned char state = atomic_load_explicit(&t->state[n], memory_order_relaxed);
    if (state == UNTOUCHED) {
        const unsigned char *wanted = t->map + t->size + CDB_AT_TABLES + n * 4u;
        state = u32_at(wanted) == hash_checksum(t->map + at, slots * 8) ? SOUND : DAMAGED;
        atomic_store_explicit(&t->state[n], state, memory_order_relaxed);
    }
    return state == SOUND;
}

/* The record at this position, proven. False: damaged. */
static bool record_at(const struct cdb_table *t, size_t at, struct span *key, struct span *value) {
    if (at < CDB_HEAD || at > t->size || t->size - at < CDB_RECORD_HEAD)
        return false;
    size_t left = t->size - at - CDB_RECORD_HEAD;
    size_t key_len = u32_at(t->map + at), value_len = u32_at(t->map + at + 4);
    if (key_len > CDB_KEY_MAX || value_len < CDB_VALUE_MIN || value_len > left || key_len > left - value_len)
        return false;
    size_t len = CDB_RECORD_HEAD + key_len + value_len - 4;
    if (u32_at(t->map + at + len) != hash_checksum(t->map + at, len))
        return false;
    *key = span_make(t->map + at + CDB_RECORD_HEAD, key_len);
    *value = span_make(key->at + key_len, value_len - 4);
    return (unsigned char)value->at[0] <= TABLE_FORWARD_KEEP;
}

static int find_value(struct cdb_table *t, struct span key, struct span *value) {
    uint32_t hash = cdb_hash(key.at, (unsigned)key.len);
    size_t at, slots;
    struct span own;
    if (!table_at(t, hash % CDB_TABLES, &at, &slots))
        return ERR_CORRUPT;
    if (slots == 0)
        return ERR_NOT_FOUND;
    if (!is_sound(t, hash % CDB_TABLES, at, slots))
        return ERR_CORRUPT;
    size_t slot = (hash >> 8) % slots;
    for (size_t i = 0; i < slots; i++) {
        const unsigned char *s = t->map + at + slot * 8;
        size_t record = u32_at(s + 4);
        if (record == 0)
            return ERR_NOT_FOUND;
        if (u32_at(s) == hash) {
            if (!record_at(t, record, &own, value))
                return ERR_CORRUPT;
            if (span_eq(own, key))
                return ERR_OK;
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
    }
    return ERR_NOT_FOUND;
}

static int find_name(struct cdb_table *t, struct span local, struct span domain, bool catch_all,
                     struct table_entry *e) {
    char key[CDB_KEY_MAX];
    struct span value;
    size_t len = cdb_table_key(key, local, domain, catch_all);
    if (len == 0)
        return ERR_NOT_FOUND;
    int err = find_value(t, span_make(key, len), &value);
    if (err == ERR_OK)
        *e = (struct table_entry){.kind = (enum table_kind)(unsigned char)value.at[0],
                                  .catch_all = catch_all,
                                  .targets = span_from(value, CDB_VALUE_TARGETS),
                                  .offset = u32_at((const unsigned char *)value.at + 1)};
    return err;
}

static int find_key(struct cdb_table *t, struct span key, struct span domain, struct table_entry *e) {
    int err = key.len ? find_name(t, key, domain, false, e) : ERR_NOT_FOUND;
    return err == ERR_NOT_FOUND && key.len && domain.len ? find_name(t, key, SPAN_EMPTY, false, e) : err;
}

int cdb_table_find(const struct cdb_table *table, struct span key, struct span domain, struct table_entry *e) {
    struct cdb_table *t = (struct cdb_table *)table; /* for what is known of its hash tables */
    int err = find_key(t, key, domain, e);
    ptrdiff_t plus = span_find(key, '+');
    if (err == ERR_NOT_FOUND && plus > 0) {
        err = find_key(t, span_first(key, (size_t)plus), domain, e);
        if (err == ERR_OK)
            e->tagged = true;
    }
    return err == ERR_NOT_FOUND ? find_name(t, SPAN_EMPTY, domain, true, e) : err;
}

bool cdb_table_is_stale(const struct cdb_table *t) {
    struct stat now;
    const struct stat *then = &t->stat;
    return stat(t->path, &now) != 0 || now.st_dev != then->st_dev || now.st_ino != then->st_ino ||
           now.st_size != then->st_size || now.st_ctim.tv_sec != then->st_ctim.tv_sec ||
           now.st_ctim.tv_nsec != then->st_ctim.tv_nsec || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != then->st_mtim.tv_nsec;
}

const char *cdb_table_path(const struct cdb_table *t) {
    return t->path;
}

uint64_t cdb_table_count(const struct cdb_table *t) {
    return t->count;
}
