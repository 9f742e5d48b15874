/*
 * hook_spool: see hook_spool.h. Files of the directory: NUMBER.seg in 16 hexadecimal digits, named by the first line
 * that it holds or will hold; `taken`, the number of the last line that is done with. The newest segment is never
 * removed, so that numbers go on when all is taken.
 *
 * A record is its length, a checksum of all that follows, its number, and the line. What does not check ends its
 * segment; the segments behind it are read on, with a gap in the numbers. `taken` is written in place: torn, it does
 * not check, and lines come again.
 */
#include "node/hook_spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

enum { SEGMENTS = 16, SEGMENTS_MAX = 64, HEAD = 16, READ_MAX = 64 * 1024 };

struct segment {
    uint64_t first, next; /* numbers of its first line and of the one behind its last */
    uint64_t size;        /* good octets */
};
struct hook_spool {
    char dir[PATH_MAX - 32];
    uint64_t max, size;
    struct segment segments[SEGMENTS_MAX]; /* oldest first; at least one */
    size_t count;
    int fd;           /* of the newest one, for appending */
    int reading;      /* of the oldest one; -1: not open */
    uint64_t at;      /* where the oldest waiting line stands in it */
    uint64_t waiting; /* number of the oldest line that waits, or of the next one */
    int taken;
    struct { /* behind the last line that was looked at: where to go on when it is taken */
        uint64_t last, first, at;
    } peeked;
};
struct head { /* as it is on disk, in this machine's order: a spool does not travel */
    uint32_t len, check;
    uint64_t number;
};
_Static_assert(sizeof(struct head) == HEAD, "no holes");

static struct segment *newest(struct hook_spool *s) {
    return &s->segments[s->count - 1];
}

static void path_of(const struct hook_spool *s, uint64_t first, char path[PATH_MAX]) {
    snprintf(path, PATH_MAX, "%s/%016llx.seg", s->dir, (unsigned long long)first);
}

/* over: the octets of the number and the line, as they follow one another. */
static uint32_t checksum(const void *over, size_t len) {
    return hash_checksum(over, len);
}

/* -- segments -- */

static int open_segment(const struct hook_spool *s, uint64_t first, int flags) {
    char path[PATH_MAX];
    path_of(s, first, path);
    return open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int begin_segment(struct hook_spool *s, uint64_t first) {
    int fd = open_segment(s, first, O_WRONLY | O_APPEND | O_CREAT | O_TRUNC);
    if (fd < 0)
        return errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = fd;
    s->segments[s->count++] = (struct segment){.first = first, .next = first};
    return ERR_OK;
}

/* Its lines that waited are gone; returns how many. */
static uint64_t remove_oldest(struct hook_spool *s) {
    struct segment gone = s->segments[0];
    char path[PATH_MAX];
    uint64_t lost = gone.next > s->waiting ? gone.next - (gone.first > s->waiting ? gone.first : s->waiting) : 0;
    path_of(s, gone.first, path);
    (void)unlink(path);
    s->size -= gone.size;
    s->count--;
    memmove(s->segments, s->segments + 1, s->count * sizeof *s->segments);
    if (s->reading >= 0)
        close(s->reading);
    s->reading = -1;
    s->at = 0;
    if (s->waiting < s->segments[0].first)
        s->waiting = s->segments[0].first;
    return lost;
}

/* The octets of the record that s begins with; 0: it is cut, or does not check. */
static size_t check_record(struct span s, struct head *h) {
    if (s.len < HEAD)
        return 0;
    memcpy(h, s.at, HEAD);
    if (h->len > HOOK_LINE_MAX || s.len - HEAD < h->len)
        return 0;
    return checksum(s.at + 8, h->len + 8) == h->check ? HEAD + h->len : 0;
}

/* -- opening -- */

static int by_number(const void *a, const void *b) {
    uint64_t x = ((const struct segment *)a)->first, y = ((const struct segment *)b)->first;
    return x < y ? -1 : x > y;
}

/* The good octets of a segment, and the numbers in it. */
static int measure(const struct hook_spool *s, struct segment *g, uint64_t *damaged) {
    static const size_t chunk = READ_MAX;
    int fd = open_segment(s, g->first, O_RDWR);
    char *mem = malloc(chunk);
    struct stat st;
    ssize_t got = 0;
    int err = !mem ? ERR_NOMEM : fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ? ERR_IO : ERR_OK;
    bool good = true;
    g->next = g->first;
    while (!err && good && (got = pread(fd, mem, chunk, (off_t)g->size)) > 0) {
        struct span rest = span_make(mem, (size_t)got);
        struct head h;
        size_t used = 0, one;
        while ((one = check_record(rest, &h)) && h.number == g->next) {
            rest = span_from(rest, one);
            used += one;
            g->next++;
        }
        g->size += used;
        good = used > 0;
    }
    if (!err && (got < 0 || ((uint64_t)st.st_size > g->size && ftruncate(fd, (off_t)g->size) != 0)))
        err = ERR_IO;
    if (!err)
        *damaged += (uint64_t)st.st_size - g->size;
    if (fd >= 0)
        close(fd);
    free(mem);
    return err;
}

static int find_segments(struct hook_spool *s) {
    DIR *d = opendir(s->dir);
    struct dirent *e;
    if (!d)
        return ERR_IO;
    while ((e = readdir(d))) {
        unsigned long long first;
        int used = 0;
        if (sscanf(e->d_name, "%16llx.seg%n", &first, &used) != 1 || used != 20 || e->d_name[20])
            continue;
        if (s->count == SEGMENTS_MAX - 1) { /* by no doing of ours */
            closedir(d);
            errno = EMFILE;
            return ERR_IO;
        }
        s->segments[s->count++] = (struct segment){.first = first};
    }
    closedir(d);
    qsort(s->segments, s->count, sizeof *s->segments, by_number);
    return ERR_OK;
}

/* The number of the last line that was done with; 0: none, or not known. */
static uint64_t read_taken(const struct hook_spool *s) {
    uint64_t both[2];
    if (pread(s->taken, both, sizeof both, 0) != (ssize_t)sizeof both)
        return 0;
    return hash_bytes(&both[0], sizeof both[0], 0) == both[1] ? both[0] : 0;
}

static int open_files(struct hook_spool *s, uint64_t *damaged) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/taken", s->dir);
    s->taken = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int err = s->taken < 0 ? ERR_IO : find_segments(s);
    for (size_t i = 0; !err && i < s->count; i++) {
        err = measure(s, &s->segments[i], damaged);
        s->size += s->segments[i].size;
    }
    if (err)
        return err;
    uint64_t taken = read_taken(s);
    if (!s->count || newest(s)->next <= taken) /* lost with the tail that a crash cut: their numbers were given */
        return begin_segment(s, taken + 1);
    s->fd = open_segment(s, newest(s)->first, O_WRONLY | O_APPEND);
    return s->fd < 0 ? ERR_IO : ERR_OK;
}

int hook_spool_open(struct hook_spool **out, const char *dir, uint64_t max, uint64_t *damaged) {
    struct hook_spool *s = calloc(1, sizeof *s);
    *out = NULL;
    *damaged = 0;
    if (!s)
        return ERR_NOMEM;
    s->fd = s->reading = s->taken = -1;
    hook_spool_set_max(s, max);
    int err = (size_t)snprintf(s->dir, sizeof s->dir, "%s", dir) < sizeof s->dir ? ERR_OK : ERR_INVALID;
    if (!err && mkdir(dir, 0700) != 0 && errno != EEXIST)
        err = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    if (!err)
        err = open_files(s, damaged);
    if (err) {
        int why = errno;
        hook_spool_close(s);
        errno = why;
        return err;
    }
    s->waiting = s->segments[0].first;
    hook_spool_take(s, read_taken(s));
    *out = s;
    return ERR_OK;
}

void hook_spool_close(struct hook_spool *s) {
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    if (s->reading >= 0)
        close(s->reading);
    if (s->taken >= 0)
        close(s->taken);
    free(s);
}

void hook_spool_set_max(struct hook_spool *s, uint64_t max) {
    s->max = max < HOOK_SPOOL_MIN ? HOOK_SPOOL_MIN : max;
}

/* -- appending -- */

uint64_t hook_spool_next(const struct hook_spool *s) {
    return s->segments[s->count - 1].next;
}

/* Room for `len` octets: the oldest segments go, and a new one begins when this one is large enough. */
static int make_room(struct hook_spool *s, size_t len, uint64_t *dropped) {
    if (newest(s)->size && newest(s)->size + len > s->max / SEGMENTS) {
        while (s->count >= SEGMENTS_MAX - 1)
            *dropped += remove_oldest(s);
        int err = begin_segment(s, newest(s)->next);
        if (err)
            return err;
    }
    while (s->count > 1 && s->size + len > s->max)
        *dropped += remove_oldest(s);
    return ERR_OK;
}

int hook_spool_add(struct hook_spool *s, struct span line, uint64_t *dropped) {
    char mem[HEAD + HOOK_LINE_MAX];
    size_t len = HEAD + line.len;
    *dropped = 0;
    if (line.len > HOOK_LINE_MAX)
        return ERR_FULL;
    int err = make_room(s, len, dropped);
    if (err)
        return err;
    struct segment *g = newest(s);
    struct head h = {.len = (uint32_t)line.len, .number = g->next};
    memcpy(mem + HEAD, line.at, line.len);
    memcpy(mem, &h, HEAD);
    h.check = checksum(mem + 8, line.len + 8);
    memcpy(mem, &h, HEAD);
    err = file_write_all(s->fd, span_make(mem, len));
    if (err) {
        int why = errno; /* half a record must not stand before the next one */
        if (ftruncate(s->fd, (off_t)g->size) != 0)
            why = EIO;
        errno = why;
        return err;
    }
    g->size += len;
    g->next++;
    s->size += len;
    return ERR_OK;
}

/* -- reading -- */

uint64_t hook_spool_count(const struct hook_spool *s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct segment *g = &s->segments[i];
        if (g->next > s->waiting)
            n += g->next - (g->first > s->waiting ? g->first : s->waiting);
    }
    return n;
}

/* Reads on in one segment. ERR_FULL: `to` takes no more. */
static int read_lines(struct hook_spool *s, int fd, const struct segment *g, uint64_t at, size_t *max, struct buf *to) {
    char mem[READ_MAX];
    while (*max && at < g->size) {
        ssize_t got = pread(fd, mem, sizeof mem, (off_t)at);
        struct span rest = span_make(mem, got > 0 ? (size_t)got : 0);
        struct head h;
        size_t one, all = rest.len;
        if (got < HEAD)
            return ERR_IO;
        while (*max && (one = check_record(rest, &h))) {
            if (h.number >= s->waiting) {
                if (to->max - buf_len(to) < h.len + 1)
                    return ERR_FULL;
                buf_append(to, rest.at + HEAD, h.len);
                if (buf_add_byte(to, '\n') != ERR_OK)
                    return ERR_NOMEM;
                s->peeked.last = h.number;
                s->peeked.first = g->first;
                s->peeked.at = at + one;
                --*max;
            }
            at += one;
            rest = span_from(rest, one);
        }
        if (rest.len == all)
            return ERR_IO;
    }
    return ERR_OK;
}

int hook_spool_peek(struct hook_spool *s, size_t max, struct buf *to, uint64_t *last) {
    int err = ERR_OK;
    buf_clear(to);
    s->peeked.last = 0;
    for (size_t i = 0; !err && max && i < s->count; i++) {
        const struct segment *g = &s->segments[i];
        if (g->next == g->first || g->next <= s->waiting)
            continue;
        int fd = i == 0 && s->reading >= 0 ? s->reading : open_segment(s, g->first, O_RDONLY);
        if (i == 0)
            s->reading = fd;
        err = fd < 0 ? ERR_IO : read_lines(s, fd, g, i == 0 ? s->at : 0, &max, to);
        if (fd >= 0 && i > 0)
            close(fd);
    }
    *last = s->peeked.last;
    return err == ERR_FULL || *last ? ERR_OK : err;
}

/* Where the line s->waiting begins in the oldest segment. */
static void find_place(struct hook_spool *s) {
    struct head h;
    const struct segment *g = &s->segments[0];
    uint64_t number = g->first;
    if (g->first == s->peeked.first && s->waiting == s->peeked.last + 1) {
        s->at = s->peeked.at;
        return;
    }
    if (s->reading < 0)
        s->reading = open_segment(s, g->first, O_RDONLY);
    else if (s->at && pread(s->reading, &h, HEAD, (off_t)s->at) == HEAD)
        number = h.number;
    if (number > s->waiting || number == g->first) {
        s->at = 0;
        number = g->first;
    }
    while (number < s->waiting && s->at < g->size && pread(s->reading, &h, HEAD, (off_t)s->at) == HEAD) {
        s->at += HEAD + h.len;
        number++;
    }
}

void hook_spool_take(struct hook_spool *s, uint64_t last) {
    if (last < s->waiting)
        return;
    s->waiting = last + 1;
    if (s->waiting > newest(s)->next)
        s->waiting = newest(s)->next;
    while (s->count > 1 && s->segments[0].next <= s->waiting)
        (void)remove_oldest(s);
    find_place(s);
    uint64_t both[2] = {s->waiting - 1, 0};
    both[1] = hash_bytes(&both[0], sizeof both[0], 0);
    if (pwrite(s->taken, both, sizeof both, 0) == (ssize_t)sizeof both)
        return;
    /* Not known: the lines come again. Half a record is known by its hash, so that it matters little whether this
     * works. */
    if (ftruncate(s->taken, 0) != 0)
        LOG_WARN("hook_place_unkept", LOG_STR("why", strerror(errno)));
}
