/*
 * bus_keys: see bus_keys.h. Reads and writes small files with care: a secret that others could have read is refused
 * rather than used, and a file that is there is never overwritten, since the key in it may be somebody's only one.
 */
#include "base/net/bus_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "base/file.h"
#include "base/net/secret.h"

enum { FILE_MAX = 4096, BINARY_LEN = 32 };

int bus_key_new(struct bus_key *k) {
    return zmq_curve_keypair(k->public_key, k->secret_key) == 0 ? ERR_OK : ERR_UNSUPPORTED;
}

void bus_key_wipe(struct bus_key *k) {
    secret_wipe(k, sizeof *k);
}

bool bus_key_is_good(struct span text) {
    char copy[BUS_KEY_LEN + 1];
    uint8_t binary[BINARY_LEN];
    if (text.len != BUS_KEY_LEN || memchr(text.at, 0, text.len))
        return false;
    memcpy(copy, text.at, BUS_KEY_LEN);
    copy[BUS_KEY_LEN] = '\0';
    bool good = zmq_z85_decode(binary, copy) != NULL;
    secret_wipe(copy, sizeof copy);
    secret_wipe(binary, sizeof binary);
    return good;
}

int bus_key_public(char to[BUS_KEY_LEN + 1], const char *secret_key) {
    if (!bus_key_is_good(span_of(secret_key)) || zmq_curve_public(to, secret_key) != 0)
        return ERR_INVALID;
    return ERR_OK;
}

static int err_of_file(int error) {
    switch (error) {
    case EEXIST:
        return ERR_EXISTS;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
        return ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    default:
        return ERR_IO;
    }
}

int bus_key_write(const char *file, const struct bus_key *k) {
    char text[512];
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_of_file(errno);
    int len = snprintf(text, sizeof text,
                       "# Key of Posthouse. Give away the public line only; whoever has the secret is you.\n"
                       "public %s\nsecret %s\n",
                       k->public_key, k->secret_key);
    int err = file_write_all(fd, span_make(text, (size_t)len));
    if (err == ERR_OK && fsync(fd) != 0)
        err = err_of_file(errno);
    secret_wipe(text, sizeof text);
    close(fd);
    if (err == ERR_OK)
        err = file_sync_folder(file);
    if (err != ERR_OK)
        unlink(file);
    return err;
}

/* The text of the file; *shared when others than its owner and group could read or write it. */
static int read_text(const char *file, char text[FILE_MAX], size_t *len, bool *shared) {
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_of_file(errno);
    int err = fstat(fd, &st) == 0 ? ERR_OK : ERR_IO;
    if (err == ERR_OK && (!S_ISREG(st.st_mode) || st.st_size >= FILE_MAX))
        err = ERR_INVALID;
    ssize_t got = err == ERR_OK ? read(fd, text, FILE_MAX - 1) : 0;
    if (got < 0)
        err = ERR_IO;
    close(fd);
    *len = got > 0 ? (size_t)got : 0;
    *shared = err == ERR_OK && (st.st_mode & (S_IWGRP | S_IRWXO)) != 0;
    return err;
}

/* "NAME KEY", or with no name a key alone */
static bool take_line(struct span line, const char *name, char to[BUS_KEY_LEN + 1]) {
    struct span value = line;
    if (name && !span_eq(span_cut(line, ' ', &value), span_of(name)))
        return false;
    if (!bus_key_is_good(value))
        return false;
    span_copy(value, to, BUS_KEY_LEN + 1);
    return true;
}

static bool take_lines(struct bus_key *k, struct span rest) {
    while (rest.len) {
        struct span line = span_cut(rest, '\n', &rest);
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        bool known = line.len == 0 || line.at[0] == '#' /* no key begins so */ ||
                     take_line(line, "public", k->public_key) || take_line(line, "secret", k->secret_key) ||
                     take_line(line, NULL, k->public_key);
        if (!known)
            return false;
    }
    return true;
}

static int read_file(const char *file, struct bus_key *k, bool needs_secret) {
    char text[FILE_MAX], public_key[BUS_KEY_LEN + 1];
    size_t len;
    bool shared;
    memset(k, 0, sizeof *k);
    int err = read_text(file, text, &len, &shared);
    if (err == ERR_OK && !take_lines(k, span_make(text, len)))
        err = ERR_INVALID;
    secret_wipe(text, sizeof text);
    if (err == ERR_OK && (needs_secret ? !*k->secret_key : !*k->public_key && !*k->secret_key))
        err = ERR_INVALID;
    if (err == ERR_OK && *k->secret_key) {
        err = bus_key_public(public_key, k->secret_key);
        if (err == ERR_OK && *k->public_key && strcmp(public_key, k->public_key) != 0)
            err = ERR_INVALID;
        else if (err == ERR_OK)
            memcpy(k->public_key, public_key, sizeof public_key);
        if (err == ERR_OK && shared)
            err = ERR_DENIED;
    }
    if (err != ERR_OK)
        bus_key_wipe(k);
    return err;
}

int bus_key_read(const char *file, struct bus_key *k) {
    return read_file(file, k, true);
}

int bus_key_read_public(const char *file, char to[BUS_KEY_LEN + 1]) {
    struct bus_key k;
    int err = read_file(file, &k, false);
    if (err == ERR_OK)
        memcpy(to, k.public_key, sizeof k.public_key);
    bus_key_wipe(&k);
    return err;
}
