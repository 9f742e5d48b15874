/*
 * greylist_file: the memory of greylisting as a file. Magic and version (8 octets), records of 32 octets (kind, passes,
 * time, key; little-endian), then their count and a checksum over all before it. It is written to a temporary name,
 * synced and renamed; it is checked as a whole before one record is believed. It may be lost without harm: clients
 * then wait once more.
 *
 * Locks of the tables are held only while a shard is copied to memory, never over the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/little.h"

#include "gateway/guard/greylist.h"

enum { HEAD_LEN = 8, RECORD_LEN = 32, TAIL_LEN = 12, PIECE_LEN = 1024 * RECORD_LEN, SHARD_MAX = 256 << 20 };
static const struct span magic = {"PHgrey01", HEAD_LEN};
enum { MAGIC_NAME_LEN = 6 }; /* behind it the version */

/* -- writing -- */

struct writer {
    struct greylist *list;
    int fd;
    struct hash_stream *sum;
    struct buf shard; /* records of one shard */
    enum greylist_kind kind;
    uint64_t count;
};

static int put(struct writer *w, struct span s) {
    hash_stream_add(w->sum, s.at, s.len);
    return file_write_all(w->fd, s);
}

static void on_entry(void *arg, struct shelf_key k, const void *value) {
    struct writer *w = arg;
    const struct greylist_cell *cell = value;
    char record[RECORD_LEN];
    little_put(record, w->kind, 4);
    little_put(record + 4, cell->passes, 4);
    little_put(record + 8, cell->at_ms, 8);
    little_put(record + 16, k.word[0], 8);
    little_put(record + 24, k.word[1], 8);
    (void)buf_append(&w->shard, record, sizeof record); /* kept in shard.err */
    w->count++;
}

static int write_content(void *arg, int fd) {
    struct writer *w = arg;
    w->fd = fd;
    int err = put(w, magic);
    for (unsigned kind = 0; kind < GREYLIST_KINDS && !err; kind++) {
        w->kind = kind;
        for (unsigned shard = 0; shard < SHELF_SHARDS && !err; shard++) {
            buf_clear(&w->shard);
            shelf_walk(greylist_shelf(w->list, kind), shard, on_entry, w);
            err = w->shard.err ? w->shard.err : put(w, buf_span(&w->shard));
        }
    }
    char tail[TAIL_LEN];
    little_put(tail, w->count, 8);
    if (!err)
        err = put(w, span_make(tail, 8));
    little_put(tail + 8, hash_stream_checksum(w->sum), 4);
    return err ? err : file_write_all(w->fd, span_make(tail + 8, 4));
}

int greylist_write(struct greylist *l, const char *path) {
    struct writer w = {.list = l, .fd = -1, .sum = hash_stream_new()};
    if (!w.sum)
        return ERR_NOMEM;
    buf_init(&w.shard, SHARD_MAX);
    greylist_set_changed(l, false);
    int err = file_replace(path, write_content, &w);
    if (err)
        greylist_set_changed(l, true);
    buf_deinit(&w.shard);
    hash_stream_free(w.sum);
    return err;
}

/* -- reading -- */

static int read_all(int fd, char *to, size_t len) {
    while (len) {
        ssize_t n = read(fd, to, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? ERR_IO : ERR_CORRUPT;
        to += n;
        len -= (size_t)n;
    }
    return ERR_OK;
}

static int check_record(struct greylist *l, const char *record) {
    (void)l;
    return little_get(record, 4) < GREYLIST_KINDS ? ERR_OK : ERR_CORRUPT;
}

static int add_record(struct greylist *l, const char *record) {
    struct shelf *s = greylist_shelf(l, (enum greylist_kind)little_get(record, 4));
    struct shelf_key k = {{little_get(record + 16, 8), little_get(record + 24, 8)}};
    struct greylist_cell *cell = shelf_enter(s, k, true);
    if (cell) /* no memory: it is forgotten, as if the table were full */
        *cell =
            (struct greylist_cell){.at_ms = little_get(record + 8, 8), .passes = (uint32_t)little_get(record + 4, 4)};
    shelf_leave(s, k);
    return ERR_OK;
}

/* One pass over the file: its frame is checked, and each record given to visit. */
static int pass(struct greylist *l, int fd, uint64_t count, struct hash_stream *sum,
                int (*visit)(struct greylist *l, const char *record)) {
    char head[HEAD_LEN], tail[TAIL_LEN], *piece = malloc(PIECE_LEN);
    int err = !piece ? ERR_NOMEM : lseek(fd, 0, SEEK_SET) ? ERR_IO : read_all(fd, head, HEAD_LEN);
    if (!err && memcmp(head, magic.at, HEAD_LEN) != 0)
        err = memcmp(head, magic.at, MAGIC_NAME_LEN) == 0 ? ERR_VERSION : ERR_CORRUPT;
    hash_stream_reset(sum);
    if (!err)
        hash_stream_add(sum, head, HEAD_LEN);
    for (uint64_t left = count; left && !err;) {
        size_t n = left < PIECE_LEN / RECORD_LEN ? (size_t)left : PIECE_LEN / RECORD_LEN;
        err = read_all(fd, piece, n * RECORD_LEN);
        if (!err)
            hash_stream_add(sum, piece, n * RECORD_LEN);
        for (size_t i = 0; i < n && !err; i++)
            err = visit(l, piece + i * RECORD_LEN);
        left -= n;
    }
    if (!err)
        err = read_all(fd, tail, TAIL_LEN);
    if (!err) {
        hash_stream_add(sum, tail, 8);
        if (little_get(tail, 8) != count || little_get(tail + 8, 4) != hash_stream_checksum(sum))
            err = ERR_CORRUPT;
    }
    free(piece);
    return err;
}

int greylist_read(struct greylist *l, const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    struct hash_stream *sum = hash_stream_new();
    int err = !sum ? ERR_NOMEM : fstat(fd, &st) || !S_ISREG(st.st_mode) ? ERR_IO : ERR_OK;
    if (!err && st.st_size < HEAD_LEN + TAIL_LEN)
        err = ERR_CORRUPT;
    uint64_t octets = err ? 0 : (uint64_t)st.st_size - HEAD_LEN - TAIL_LEN;
    if (!err)
        err = pass(l, fd, octets / RECORD_LEN, sum, check_record);
    if (!err && octets % RECORD_LEN)
        err = ERR_CORRUPT;
    if (!err)
        err = pass(l, fd, octets / RECORD_LEN, sum, add_record);
    hash_stream_free(sum);
    close(fd);
    return err;
}
