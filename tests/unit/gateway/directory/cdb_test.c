/*
 * Compiled tables: answer for every question as the text table does, name what is wrong with a text as it does, and
 * never answer wrongly from a damaged file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rand.h"

#include "gateway/directory/cdb.h"

static char dir[64], text_path[128], path[128];
static struct buf problems;
static const struct span domains[] = {{"example.net", 11}, {"xn--mnchen-3ya.example", 22}};

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/cdb_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(text_path, sizeof text_path, "%s/t", dir);
    snprintf(path, sizeof path, "%s/t.cdb", dir);
    buf_init(&problems, 1 << 16);
    return 0;
}

static unsigned files(void) {
    unsigned n = 0;
    DIR *d = opendir(dir);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static int teardown(void **state) {
    (void)state;
    unlink(text_path);
    unlink(path);
    rmdir(dir);
    buf_deinit(&problems);
    return 0;
}

static void write_to(const char *name, const void *bytes, size_t len) {
    unlink(name);
    int fd = open(name, O_CREAT | O_WRONLY | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static int build(const char *text, size_t len, uint64_t *count) {
    write_to(text_path, text, len);
    buf_clear(&problems);
    return cdb_table_build(text_path, path, count, &problems);
}

static struct cdb_table *open_it(void) {
    struct cdb_table *t;
    buf_clear(&problems);
    if (cdb_table_open(&t, path, &problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    return t;
}

/* Both tables say the same of this name. */
static void compare(const struct table *t, const struct cdb_table *c, struct span key, struct span domain) {
    struct table_entry a, b;
    bool found = table_find(t, key, domain, &a);
    int err = cdb_table_find(c, key, domain, &b);
    if (err != (found ? ERR_OK : ERR_NOT_FOUND))
        fail_msg("%.*s@%.*s: found %d, error %d", SPAN_FMT(key), SPAN_FMT(domain), found, err);
    if (!found)
        return;
    assert_int_equal(a.kind, b.kind);
    assert_int_equal(a.catch_all, b.catch_all);
    assert_int_equal(a.tagged, b.tagged);
    assert_true(span_eq(a.targets, b.targets));
}

/* Line n of a big text, and a key that finds it. */
static void add_line(struct buf *to, unsigned n, char key[64]) {
    static const char *const signs[] = {"", ": a%u, b%u@elsewhere.example", " > a%u@elsewhere.example",
                                        " >> a%u, \"b, %u\""};
    char end[100];
    snprintf(end, sizeof end, n % 7 == 0 ? signs[n / 7 % 4] : "", n, n);
    if (n % 97 == 0) {
        snprintf(key, 64, "odd, name %u", n);
        buf_printf(to, "\"odd, name %u\"%s%s\n", n, n % 2 ? "@example.net" : "", end);
    } else {
        snprintf(key, 64, "User%u%s", n, n % 11 == 0 ? "+tag" : "");
        buf_printf(to, "  uSer%u%s%s%s%s\r\n", n, n % 11 == 0 ? "+Tag" : "",
                   n % 5 == 0   ? "@EXAMPLE.net"
                   : n % 5 == 1 ? "@m\xc3\xbcnchen.example"
                                : "",
                   end, n % 13 == 0 ? "   # a comment" : "");
    }
}

static void test_equals_table(void **state) {
    (void)state;
    enum { LINES = 200000 };
    static char keys[LINES][64];
    struct buf text;
    struct table *t;
    uint64_t count;
    buf_init(&text, 64 * 1024 * 1024);
    buf_add_str(&text, "\xef\xbb\xbf"
                       "first\n# comment\n\n@example.net > all@elsewhere.example\n");
    for (unsigned n = 0; n < LINES; n++)
        add_line(&text, n, keys[n]);
    buf_add_str(&text, "last");
    assert_int_equal(text.err, ERR_OK);
    if (build(buf_span(&text).at, buf_len(&text), &count) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_int_equal(count, LINES + 3);
    assert_int_equal(table_load(&t, text_path, domains, 2, &problems), ERR_OK);
    struct cdb_table *c = open_it();
    assert_int_equal(cdb_table_count(c), table_count(t));
    static const char *const more[] = {"first", "FIRST", "last", "", "+", "a+b", "first+x", "@", "odd"};
    for (size_t d = 0; d < 2; d++) {
        for (unsigned n = 0; n < LINES; n++)
            compare(t, c, span_of(keys[n]), domains[d]);
        for (size_t i = 0; i < sizeof more / sizeof *more; i++)
            compare(t, c, span_of(more[i]), domains[d]);
        struct rand r;
        rand_init(&r, 42);
        for (unsigned n = 0; n < 100000; n++) {
            char key[64];
            snprintf(key, sizeof key, "user%u%s", (unsigned)rand_below(&r, 2 * LINES), n % 3 ? "" : "+x");
            compare(t, c, span_of(key), domains[d]);
            snprintf(key, sizeof key, "u%llx", (unsigned long long)rand_u64(&r));
            compare(t, c, span_of(key), domains[d]);
        }
    }
    struct table_entry e;
    assert_int_equal(cdb_table_find(c, SPAN("last"), domains[0], &e), ERR_OK);
    assert_int_equal(e.offset, LINES + 5);
    char long_key[300];
    memset(long_key, 'x', sizeof long_key); /* no local part; also no overflow */
    assert_int_equal(cdb_table_find(c, span_make(long_key, 300), domains[1], &e), ERR_NOT_FOUND);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    cdb_table_unref(c);
    table_unref(t);
    buf_deinit(&text);
}

static void test_bad_texts(void **state) {
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"a\nb\na\n", ":3: a: stands already in line 1\n"},
        {"a\n\"A\"\n", ":2: \"A\": stands already in line 1\n"},
        {"\xef\xbb\xbf"
         "a\na\n",
         ":2: a: stands already in line 1\n"},
        {"x\n\n@a.example\n@A.example > b@c.example\n", ":4: A.example: stands already in line 3\n"},
        {"u@m\xc3\xbcnchen.example\nu@xn--mnchen-3ya.example: x@y.example", ":2: u: stands already in line 1\n"},
        {"a b\n", ":1: a b: behind the name"},
        {"a: \n", "no targets"},
        {"a: b c\n", "not a mail address"},
        {"a: a\n", "leads to itself"},
        {"a@x.example > a@x.example\n", "leads to itself"},
        {"a@b_c..d\n", "not a domain"},
        {"a%b\n", "local parts of ours"},
        {"a: b,\n", "an empty target"},
        {"\"a\n", "not closed"},
        {"", "empty"},
    };
    uint64_t count;
    unlink(path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (build(cases[i].text, strlen(cases[i].text), &count) != ERR_INVALID ||
            !strstr(buf_cstr(&problems), cases[i].problem) || !strstr(buf_cstr(&problems), text_path))
            fail_msg("'%s': %s", cases[i].text, buf_cstr(&problems));
        assert_int_equal(count, 0);
        assert_int_equal(files(), 1); /* only the text */
    }
    assert_int_equal(build("a\0b\n", 4, &count), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "NUL"));
    assert_int_equal(build("user\nuser@example.net\n", 22, &count), ERR_OK); /* two names here */
    assert_int_equal(count, 2);
    struct buf many;
    buf_init(&many, 4 * 1024 * 1024);
    for (int i = 0; i < 50; i++)
        buf_add_str(&many, "a b\n");
    assert_int_equal(build(buf_span(&many).at, buf_len(&many), &count), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "30 more problems"));
    buf_clear(&many);
    buf_add_str(&many, "good\n# ");
    for (int i = 0; i < 1200000; i++)
        buf_add_byte(&many, 'x');
    assert_int_equal(build(buf_span(&many).at, buf_len(&many), &count), ERR_RANGE);
    assert_non_null(strstr(buf_cstr(&problems), "longer than 1 MiB"));
    buf_deinit(&many);
    struct cdb_table *t = open_it(); /* the good one from before is still there */
    assert_int_equal(cdb_table_count(t), 2);
    cdb_table_unref(t);
}

static void test_bad_files(void **state) {
    (void)state;
    struct cdb_table *t;
    uint64_t count;
    buf_clear(&problems);
    assert_int_equal(cdb_table_build("/nonexistent/t", path, &count, &problems), ERR_NOT_FOUND);
    assert_int_equal(cdb_table_build(dir, path, &count, &problems), ERR_DENIED);
    assert_int_equal(build("a\n", 2, &count), ERR_OK);
    assert_int_equal(cdb_table_build(text_path, "/nonexistent/t.cdb", &count, &problems), ERR_NOT_FOUND);
    assert_int_equal(cdb_table_open(&t, "/nonexistent/t.cdb", &problems), ERR_NOT_FOUND);
    assert_int_equal(cdb_table_open(&t, dir, &problems), ERR_DENIED);
    assert_int_equal(cdb_table_open(&t, text_path, &problems), ERR_CORRUPT);
    assert_non_null(strstr(buf_cstr(&problems), "not made by 'posthouse table build'"));
    t = open_it();
    assert_string_equal(cdb_table_path(t), path);
    assert_false(cdb_table_is_stale(t));
    assert_int_equal(build("a\nb\n", 4, &count), ERR_OK);
    assert_true(cdb_table_is_stale(t));
    struct table_entry e; /* the old one lives on */
    struct cdb_table *again = cdb_table_ref(t);
    cdb_table_unref(t);
    assert_int_equal(cdb_table_find(again, SPAN("a"), domains[0], &e), ERR_OK);
    assert_int_equal(cdb_table_find(again, SPAN("b"), domains[0], &e), ERR_NOT_FOUND);
    unlink(path);
    assert_true(cdb_table_is_stale(again));
    cdb_table_unref(again);
    assert_int_equal(build("a\n", 2, &count), ERR_OK);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(cdb_table_open(&t, path, &problems), ERR_DENIED);
    assert_int_equal(chmod(text_path, 0666), 0);
    assert_int_equal(cdb_table_build(text_path, path, &count, &problems), ERR_DENIED);
}

enum { NAMES = 60 };

/* Looks everybody up in a file that may be damaged: right, or ERR_CORRUPT. Returns how many were ERR_CORRUPT, or -1
 * where the file was not opened. */
static int look_up_all(void) {
    struct cdb_table *t;
    int corrupt = 0;
    buf_clear(&problems);
    int err = cdb_table_open(&t, path, &problems);
    if (err) {
        assert_true(err == ERR_CORRUPT || err == ERR_VERSION);
        assert_true(buf_len(&problems) > 0);
        return -1;
    }
    for (unsigned n = 0; n < 2 * NAMES; n++) {
        struct table_entry e;
        char key[32], targets[64];
        snprintf(key, sizeof key, "user%u", n);
        snprintf(targets, sizeof targets, "target%u@elsewhere.example", n);
        err = cdb_table_find(t, span_of(key), domains[0], &e);
        if (err == ERR_CORRUPT) {
            corrupt++;
            continue;
        }
        assert_int_equal(err, n < NAMES ? ERR_OK : ERR_NOT_FOUND);
        if (err == ERR_OK) {
            assert_int_equal(e.kind, TABLE_ALIAS);
            assert_int_equal(e.offset, n + 1);
            assert_true(span_eq(e.targets, span_of(targets)));
        }
    }
    cdb_table_unref(t);
    return corrupt;
}

static void test_damage(void **state) {
    (void)state;
    struct buf text;
    uint64_t count;
    buf_init(&text, 1 << 20);
    for (unsigned n = 0; n < NAMES; n++)
        buf_printf(&text, "user%u: target%u@elsewhere.example\n", n, n);
    assert_int_equal(build(buf_span(&text).at, buf_len(&text), &count), ERR_OK);
    buf_deinit(&text);
    assert_int_equal(look_up_all(), 0);
    static unsigned char good[65536], bad[65536];
    int fd = open(path, O_RDONLY);
    ssize_t len = read(fd, good, sizeof good);
    close(fd);
    assert_true(len > 4000 && len < (ssize_t)sizeof good);
    unsigned noticed = 0;
    for (ssize_t i = 0; i < len; i++) { /* every octet */
        memcpy(bad, good, (size_t)len);
        bad[i] ^= (unsigned char)(1u << (i % 8));
        write_to(path, bad, (size_t)len);
        noticed += look_up_all() != 0;
    }
    assert_int_equal(noticed, len);
    for (ssize_t cut = 0; cut < len; cut += 1 + cut / 50) {
        write_to(path, good, (size_t)cut);
        assert_int_equal(look_up_all(), -1);
    }
    for (ssize_t at = 0; at + 4 <= len; at += 3) { /* huge numbers */
        memcpy(bad, good, (size_t)len);
        memset(bad + at, 0xff, 4);
        write_to(path, bad, (size_t)len);
        look_up_all();
        memset(bad + at, 0, 4);
        write_to(path, bad, (size_t)len);
        look_up_all();
    }
    write_to(path, good, (size_t)len);
    assert_int_equal(look_up_all(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_table),
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
