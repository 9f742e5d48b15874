/*
 * blob_scan: see blob_scan.h. Reads with one buffer, whatever the size of a record; a length that does not fit into the
 * file is damage, so a wrong one leads nowhere.
 */
#include "store/blob_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/span.h"
#include "store/crc32c.h"

#define HEAD 30u
#define RECORD_HEAD 32u
#define CHUNK (1u << 20)

struct blob {
    const char *name;
    int fd;
    uint64_t size, at;
    uint8_t *chunk;
    const char *why;
};

static uint32_t get_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get_u64(const uint8_t *at) {
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

static uint32_t masked(uint32_t crc) {
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static bool take(struct blob *b, uint8_t *to, size_t len) {
    if (pread(b->fd, to, len, (off_t)b->at) != (ssize_t)len) {
        b->why = "cannot be read";
        return false;
    }
    return true;
}

static bool check_record(struct blob *b, uint64_t end) {
    uint8_t head[RECORD_HEAD];
    if (end - b->at < RECORD_HEAD) {
        b->why = "a record that is cut";
        return false;
    }
    if (!take(b, head, sizeof head))
        return false;
    uint64_t key = get_u64(head), value = get_u64(head + 8), room = end - b->at - RECORD_HEAD;
    if (masked(crc32c(0, head, 24)) != get_u32(head + 24) || key > room || value > room - key) {
        b->why = "a record whose head does not check";
        return false;
    }
    uint64_t start = b->at;
    uint32_t crc = 0;
    b->at += RECORD_HEAD;
    for (uint64_t left = key + value; left;) {
        size_t len = left < CHUNK ? (size_t)left : CHUNK;
        if (!take(b, b->chunk, len))
            return false;
        crc = crc32c(crc, b->chunk, len);
        b->at += len;
        left -= len;
    }
    if (masked(crc) == get_u32(head + 28))
        return true;
    b->at = start;
    b->why = "a record that does not check";
    return false;
}

static bool check_blob(struct blob *b) {
    uint8_t head[HEAD], foot[BLOB_FOOT];
    uint64_t records = 0;
    if (b->size < HEAD + BLOB_FOOT || !take(b, head, sizeof head) || get_u32(head) != BLOB_MAGIC) {
        b->why = "no head";
        return false;
    }
    b->at = b->size - BLOB_FOOT;
    if (!take(b, foot, sizeof foot))
        return false;
    if (masked(crc32c(0, foot, 28)) != get_u32(foot + 28)) {
        b->why = "a foot that does not check";
        return false;
    }
    for (b->at = HEAD; b->at < b->size - BLOB_FOOT; records++)
        if (!check_record(b, b->size - BLOB_FOOT))
            return false;
    if (records == get_u64(foot + 4))
        return true;
    b->why = "records are missing";
    return false;
}

static bool has_foot(int fd) {
    uint8_t at[4];
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size >= (off_t)BLOB_FOOT &&
           pread(fd, at, 4, st.st_size - (off_t)BLOB_FOOT) == 4 && get_u32(at) == BLOB_MAGIC;
}

static bool is_blob(const char *name) {
    return span_ends_nocase(span_of(name), SPAN(".blob"));
}

static int scan_one(int directory, const char *name, uint8_t *chunk, void (*found)(void *arg, const char *problem),
                    void *arg) {
    struct stat st;
    struct blob b = {.name = name, .chunk = chunk};
    b.fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (b.fd < 0 || fstat(b.fd, &st) != 0) {
        if (b.fd >= 0)
            close(b.fd);
        return ERR_IO;
    }
    b.size = (uint64_t)st.st_size;
    if (has_foot(b.fd) && !check_blob(&b)) {
        char text[512];
        snprintf(text, sizeof text, "%s: %s at octet %llu", name, b.why, (unsigned long long)b.at);
        found(arg, text);
    }
    close(b.fd);
    return ERR_OK;
}

int blob_scan(const char *directory, void (*found)(void *arg, const char *problem), void *arg) {
    DIR *d = opendir(directory);
    uint8_t *chunk = malloc(CHUNK);
    int err = !d ? ERR_IO : !chunk ? ERR_NOMEM : ERR_OK;
    for (struct dirent *e; err == ERR_OK && (e = readdir(d));)
        if (is_blob(e->d_name))
            err = scan_one(dirfd(d), e->d_name, chunk, found, arg);
    if (d)
        closedir(d);
    free(chunk);
    return err;
}

bool blob_scan_cut(const char *directory, char *name, unsigned size) {
    bool found = false;
    DIR *d = opendir(directory);
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if (is_blob(e->d_name)) {
            int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
            found = fd >= 0 && !has_foot(fd);
            if (found)
                snprintf(name, size, "%s", e->d_name);
            if (fd >= 0)
                close(fd);
        }
    if (d)
        closedir(d);
    return found;
}
