/*
 * place: what the store's tests share: a directory of their own, files in it to damage, and short forms of the calls.
 */
#ifndef TESTS_UNIT_STORE_PLACE_H
#define TESTS_UNIT_STORE_PLACE_H

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/store.h"

struct place {
    char root[64], path[400]; /* path: of the store, inside of root */
    struct store *store;
};

/* directory/name. */
static inline void join(char to[400], const char *directory, const char *name) {
    int len = snprintf(to, 400, "%s/%s", directory, name);
    assert_true(len > 0 && len < 400);
}

static inline void place_init(struct place *p) {
    memset(p, 0, sizeof *p);
    strcpy(p->root, "/tmp/posthouse-store-XXXXXX");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->path, sizeof p->path, "%s/queue", p->root);
}

static inline void place_clear(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(d), e->d_name, 0) != 0) {
            char inner[400];
            join(inner, path, e->d_name);
            place_clear(inner);
            rmdir(inner);
        }
    if (d)
        closedir(d);
}

static inline void place_deinit(struct place *p) {
    store_close(p->store);
    place_clear(p->root);
    rmdir(p->root);
}

static inline int place_try(struct place *p, struct store_report *report) {
    struct store_config c = {.path = p->path, .node = "n1", .memory_bytes = 8u << 20};
    p->store = NULL;
    int err = store_open(&p->store, &c, report);
    if (err != ERR_OK)
        p->store = NULL;
    return err;
}

static inline void place_open(struct place *p) {
    struct store_report report;
    int err = place_try(p, &report);
    if (err != ERR_OK)
        print_error("store_open: %s: %s\n", err_text(err), report.damage);
    assert_int_equal(err, ERR_OK);
}

static inline void place_close(struct place *p) {
    store_close(p->store);
    p->store = NULL;
}

static inline int place_setup(void **state) {
    struct place *p = malloc(sizeof *p);
    assert_non_null(p);
    place_init(p);
    place_open(p);
    *state = p;
    return 0;
}

static inline int place_teardown(void **state) {
    place_deinit(*state);
    free(*state);
    return 0;
}

static inline int put_err(struct store *s, enum store_family f, const char *key, const char *value, bool sync) {
    struct store_batch *b = store_batch_new();
    assert_non_null(b);
    store_put(b, f, span_of(key), span_of(value));
    int err = store_write(s, b, sync);
    store_batch_free(b);
    return err;
}

static inline void put(struct store *s, enum store_family f, const char *key, const char *value) {
    assert_int_equal(put_err(s, f, key, value, true), ERR_OK);
}

static inline int get_err(struct store *s, enum store_family f, const char *key) {
    struct buf b;
    buf_init(&b, 64u << 20);
    int err = store_get(s, f, span_of(key), &b);
    buf_deinit(&b);
    return err;
}

static inline bool has(struct store *s, enum store_family f, const char *key, const char *value) {
    struct buf b;
    buf_init(&b, 64u << 20);
    int err = store_get(s, f, span_of(key), &b);
    bool same = err == ERR_OK && span_eq(buf_span(&b), span_of(value));
    buf_deinit(&b);
    return same;
}

/* count synced writes to a family, keys from..from+count-1, each value of len octets that tell the number. */
static inline void fill_from(struct store *s, enum store_family f, int from, int count, size_t len) {
    char *value = malloc(len + 16);
    assert_non_null(value);
    for (int i = from; i < from + count; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%06d", i);
        memset(value, 'a' + i % 26, len);
        snprintf(value, len + 16, "%08d", i);
        value[8] = '-';
        value[len] = '\0';
        put(s, f, key, value);
    }
    free(value);
}

static inline int count_keys(struct store *s, enum store_family f) {
    struct store_iter *it;
    struct span key;
    int count = 0;
    assert_int_equal(store_iter_open(&it, s, f, SPAN("a"), SPAN("z")), ERR_OK);
    while (store_iter_next(it, &key, NULL))
        count++;
    assert_int_equal(store_iter_error(it), ERR_OK);
    store_iter_close(it);
    return count;
}

/* Full path of the newest (or oldest) file in a directory with this ending; false: none. */
static inline bool find_file(const char *directory, const char *end, bool newest, char to[400]) {
    DIR *d = opendir(directory);
    to[0] = '\0';
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name), n = strlen(end);
        char path[400];
        if (len < n || strcmp(e->d_name + len - n, end) != 0)
            continue;
        join(path, directory, e->d_name);
        if (!to[0] || (strcmp(path, to) > 0) == newest)
            strcpy(to, path);
    }
    closedir(d);
    return to[0];
}

static inline const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static inline off_t size_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static inline void flip(const char *path, off_t at) {
    unsigned char c;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 0x55;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

/* Copies all files of one directory into another new one. */
static inline void copy_directory(const char *from, const char *to) {
    DIR *d = opendir(from);
    assert_non_null(d);
    assert_int_equal(mkdir(to, 0700), 0);
    for (struct dirent *e; (e = readdir(d));) {
        char in[400], out[400], chunk[65536];
        ssize_t n;
        if (e->d_name[0] == '.')
            continue;
        join(in, from, e->d_name);
        join(out, to, e->d_name);
        int a = open(in, O_RDONLY), b = open(out, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_true(a >= 0 && b >= 0);
        while ((n = read(a, chunk, sizeof chunk)) > 0)
            assert_int_equal(write(b, chunk, (size_t)n), n);
        close(a);
        close(b);
    }
    closedir(d);
}

#endif
