/*
 * held_spill: the body of a held message, in memory as long as it is short and in a file without a name when it is
 * long. The file is page cache with an overflow to disk: it is never synced, and the kernel removes it with its
 * descriptor, also when the process dies. Used by held.c alone; knows nothing of mail.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#include "gateway/filter/held.h"
#include "gateway/filter/held_spill.h"
#include "gateway/smtp/mime.h"

int held_spill_init(struct held_spill *s, const char *dir) {
    *s = (struct held_spill){.fd = -1};
    buf_init(&s->memory, HELD_MEMORY);
    if (!dir)
        return ERR_OK;
    s->dir = strdup(dir);
    return s->dir ? ERR_OK : ERR_NOMEM;
}

void held_spill_deinit(struct held_spill *s) {
    buf_deinit(&s->memory);
    free(s->dir);
    if (s->fd >= 0)
        close(s->fd);
}

/* The error of a system call, logged. */
static int failed(const struct held_spill *s, const char *what) {
    int why = errno;
    LOG_ERROR("held_file_failed", LOG_STR("what", what), LOG_STR("dir", s->dir), LOG_STR("why", strerror(why)));
    return why == ENOSPC || why == EDQUOT ? ERR_NO_SPACE : ERR_IO;
}

/* For file systems that cannot make a file without a name. */
static int make_and_unlink(const char *dir) {
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/held.XXXXXX", dir);
    if (len < 0 || (size_t)len >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int open_file(struct held_spill *s) {
    if (!s->dir)
        return ERR_FULL;
    s->fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        s->fd = make_and_unlink(s->dir);
    return s->fd < 0 ? failed(s, "open") : ERR_OK;
}

static int write_file(struct held_spill *s, struct span octets, uint64_t at) {
    while (octets.len) {
        ssize_t put = pwrite(s->fd, octets.at, octets.len, (off_t)at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return failed(s, "write");
        at += (uint64_t)put;
        octets = span_from(octets, (size_t)put);
    }
    return ERR_OK;
}

int held_spill_append(struct held_spill *s, struct span octets) {
    if (!octets.len)
        return ERR_OK;
    size_t room = HELD_MEMORY - buf_len(&s->memory);
    struct span first = span_first(octets, room), rest = span_from(octets, room);
    if (rest.len && !s->dir)
        return ERR_FULL;
    if (first.len && buf_add(&s->memory, first))
        return s->memory.err;
    s->size += first.len;
    s->eight_bit = s->eight_bit || mime_has_8bit(octets);
    if (!rest.len)
        return ERR_OK;
    int err = s->fd < 0 ? open_file(s) : ERR_OK;
    if (!err)
        err = write_file(s, rest, s->size - HELD_MEMORY);
    if (!err)
        s->size += rest.len;
    return err;
}

/* Octets of the file, at least one. */
static ptrdiff_t read_file(struct held_spill *s, uint64_t at, char *to, size_t max) {
    ssize_t got;
    do {
        got = pread(s->fd, to, max, (off_t)at);
    } while (got < 0 && errno == EINTR);
    if (got == 0)
        errno = EIO; /* shorter than what was written */
    if (got > 0)
        return got;
    (void)failed(s, "read");
    return ERR_IO;
}

ptrdiff_t held_spill_read(struct held_spill *s, uint64_t at, char *to, size_t max) {
    if (at >= s->size)
        return 0;
    if (max > s->size - at)
        max = (size_t)(s->size - at);
    struct span part = SPAN_EMPTY, memory = buf_span(&s->memory);
    if (at < memory.len)
        part = span_first(span_from(memory, (size_t)at), max);
    if (part.len)
        memcpy(to, part.at, part.len);
    if (part.len == max)
        return (ptrdiff_t)max;
    ptrdiff_t got = read_file(s, at + part.len - HELD_MEMORY, to + part.len, max - part.len);
    return got < 0 ? got : (ptrdiff_t)part.len + got;
}

int held_spill_clear(struct held_spill *s) {
    buf_clear(&s->memory);
    s->size = 0;
    s->eight_bit = false;
    if (s->fd >= 0 && ftruncate(s->fd, 0)) {
        (void)failed(s, "truncate");
        return ERR_IO;
    }
    return ERR_OK;
}
