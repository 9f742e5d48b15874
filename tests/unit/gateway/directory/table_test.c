/* The recipients table: what its lines mean, what is refused and how it is told, and that a big one loads fast. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#include "gateway/directory/table.h"

static char dir[64], path[128];
static struct buf problems;
static const struct span one[] = {{"example.net", 11}};
static const struct span two[] = {{"example.net", 11}, {"xn--mnchen-3ya.example", 22}};

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/table_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/t", dir);
    buf_init(&problems, 1 << 16);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(path);
    rmdir(dir);
    buf_deinit(&problems);
    return 0;
}

static void write_file(struct span s) {
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, s.at, s.len), (ssize_t)s.len);
    close(fd);
}

static struct table *load(const char *text, const struct span *domains, size_t count) {
    struct table *t;
    write_file(span_of(text));
    buf_clear(&problems);
    if (table_load(&t, path, domains, count, &problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_int_equal(buf_len(&problems), 0);
    return t;
}

/* "kind[+~]targets|...@line": + tagged, ~ catch-all; "-" unknown */
static const char *found(const struct table *t, const char *key, const char *domain) {
    static char text[500];
    static const char *const kinds[] = {"box", "alias", "forward", "keep"};
    struct table_entry e;
    if (!table_find(t, span_of(key), span_of(domain), &e))
        return "-";
    int len = snprintf(text, sizeof text, "%s%s%s", kinds[e.kind], e.tagged ? "+" : "", e.catch_all ? "~" : "");
    struct span target;
    while (table_next_target(&e.targets, &target))
        len += snprintf(text + len, sizeof text - (size_t)len, "|%.*s", SPAN_FMT(target));
    snprintf(text + len, sizeof text - (size_t)len, " %zu", table_line(t, &e));
    return text;
}

static void meanings(void **state) {
    (void)state;
    struct table *t = load("# people\r\n"
                           "alice\r\n"
                           "Bob@Example.NET   # the builder\n"
                           "\t sales: alice, bob@elsewhere.example ,\"a, b\"@x.y\n"
                           "fwd>x@y.z\n"
                           "keep >> \"q > r\"@y.z,w@y.z # and so on\n"
                           "\n"
                           "   \t\n"
                           "\"quo ted\"\n"
                           "\"dot.ted\"\n"
                           "a#b\n"
                           "\"#c\" : alice\n"
                           "\xc3\xa4rger\n"
                           "tag+exact\n"
                           "last",
                           one, 1);
    static const struct {
        const char *key, *is;
    } want[] = {
        {"alice", "box 2"},
        {"ALICE", "box 2"},
        {"alice+x", "box+ 2"},
        {"alice+x+y", "box+ 2"},
        {"bob", "box 3"},
        {"sales", "alias|alice|bob@elsewhere.example|\"a, b\"@x.y 4"},
        {"sales+t", "alias+|alice|bob@elsewhere.example|\"a, b\"@x.y 4"},
        {"fwd", "forward|x@y.z 5"},
        {"keep", "keep|\"q > r\"@y.z|w@y.z 6"},
        {"quo ted", "box 9"},
        {"Quo Ted", "box 9"},
        {"dot.ted", "box 10"},
        {"a#b", "box 11"},
        {"#c", "alias|alice 12"},
        {"\xc3\xa4rger", "box 13"},
        {"tag+exact", "box 14"},
        {"tag+other", "-"},
        {"tag", "-"},
        {"last", "box 15"},
        {"las", "-"},
        {"lastx", "-"},
        {"", "-"},
        {"+", "-"},
        {"+alice", "-"},
        {"people", "-"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_string_equal(found(t, want[i].key, "example.net"), want[i].is);
    assert_int_equal(table_count(t), 12);
    assert_string_equal(table_path(t), path);
    table_unref(t);
}

static void domains_and_catch_alls(void **state) {
    (void)state;
    struct table *t = load("both\n"
                           "here@example.net\n"
                           "there@m\xc3\xbcnchen.example\n"
                           "both2\nboth2@XN--MNCHEN-3ya.example: here\n"
                           "\"\"@example.net\n"
                           "@m\xc3\xbcnchen.example > all@elsewhere.example\n",
                           two, 2);
    assert_string_equal(found(t, "both", "example.net"), "box 1");
    assert_string_equal(found(t, "both", two[1].at), "box 1");
    assert_string_equal(found(t, "here", "example.net"), "box 2");
    assert_string_equal(found(t, "here", two[1].at), "forward~|all@elsewhere.example 7");
    assert_string_equal(found(t, "there", "example.net"), "-");
    assert_string_equal(found(t, "there", two[1].at), "box 3");
    assert_string_equal(found(t, "both2", "example.net"), "box 4");
    assert_string_equal(found(t, "both2", two[1].at), "alias|here 5");
    assert_string_equal(found(t, "both2+t", two[1].at), "alias+|here 5");
    assert_string_equal(found(t, "", "example.net"), "box 6");
    assert_string_equal(found(t, "", two[1].at), "forward~|all@elsewhere.example 7");
    table_unref(t);
    t = load("\xef\xbb\xbf"
             "alice\n@example.net\n",
             one, 1);
    assert_string_equal(found(t, "alice", "example.net"), "box 1");
    assert_string_equal(found(t, "nobody+x", "example.net"), "box~ 2");
    table_unref(t);
}

static void bad_lines(void **state) {
    (void)state;
    static const struct {
        const char *line, *what;
    } t[] = {
        {"alice bob", "alice bob: behind the name, only ':', '>', '>>' or a comment is expected"},
        {"alice,", "alice,: behind the name"},
        {"alice :", "alice :: no targets"},
        {"alice >> # none", "alice >> # none: no targets"},
        {"alice >>> x@y.z", "> x@y.z: not a mail address"},
        {": bob", ": bob: a name is expected here"},
        {"@", "@: a domain is expected behind '@'"},
        {"alice@", "alice@: a domain is expected behind '@'"},
        {"alice@other.example", "other.example: not a domain of this table"},
        {"@other.example", "other.example: not a domain of this table"},
        {"alice@example.net.", "example.net.: not a domain of this table"},
        {".alice", ".alice: not a local part"},
        {"al..ice", "al..ice: not a local part"},
        {"alice.", "alice.: not a local part"},
        {"\"alice", "\"alice: the quoted string is not closed"},
        {"\"al\"ice", "\"al\"ice: behind the name"},
        {"\xff\xfe", "\\xff\\xfe: not a local part"},
        {"a%b", "a%b: '%', '!' and '@' are not taken"},
        {"b!a: alice", "b!a: '%', '!' and '@' are not taken"},
        {"\"a@b\"", "\"a@b\": '%', '!' and '@' are not taken"},
        {"x12345678901234567890123456789012345678901234567890123456789012345", ": longer than 64 octets"},
        {"a: b c", "b c: not a mail address"},
        {"a: b@", "b@: not a mail address"},
        {"a: b@c, , d", ": an empty target"},
        {"a: b,", ": an empty target"},
        {"a: \"b", "\"b: not a mail address"},
        {"a: b%c", "b%c: '%', '!' and '@' are not taken"},
        {"a: a", "a: leads to itself (to keep a copy, write '>>')"},
        {"a > A@Example.net", "A@Example.net: leads to itself"},
        {"a: <b@c>", "<b@c>: not a mail address"},
        {"a: b@c.", "b@c.: not a mail address"},
        {"a: |/bin/sh", "|/bin/sh"},
        {"a: :include:/etc/passwd", ":include:/etc/passwd: not a mail address"},
        {"a\x1b[1m b", "a\\x1b[1m b: behind the name"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct table *table = NULL;
        char text[300], want[300];
        snprintf(text, sizeof text, "# first\nfine\n%s\n", t[i].line);
        snprintf(want, sizeof want, "%s:3: ", path);
        write_file(span_of(text));
        buf_clear(&problems);
        int err = table_load(&table, path, one, 1, &problems);
        if (strstr(t[i].line, "/bin/sh")) { /* a local part like another: bytes, never a command */
            assert_int_equal(err, ERR_OK);
            table_unref(table);
            continue;
        }
        assert_int_equal(err, ERR_INVALID);
        assert_null(table);
        if (strncmp(buf_cstr(&problems), want, strlen(want)) != 0 || !strstr(buf_cstr(&problems), t[i].what))
            fail_msg("line '%s' told as '%s'", t[i].line, buf_cstr(&problems));
    }
    write_file(SPAN("a\0b\n"));
    struct table *table;
    buf_clear(&problems);
    assert_int_equal(table_load(&table, path, one, 1, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), ":1: a NUL octet"));
}

static void duplicates_and_many_problems(void **state) {
    (void)state;
    struct table *t;
    char want[700];
    write_file(SPAN("a\nb\nA: b\n\"b\"\nb@example.net\n@example.net\n@EXAMPLE.net: a\n"));
    buf_clear(&problems);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_INVALID);
    snprintf(
        want, sizeof want,
        "%s:3: A: stands already in line 1\n%s:4: \"b\": stands already in line 2\n%s:5: b: stands already in line 2\n"
        "%s:7: EXAMPLE.net: stands already in line 6\n",
        path, path, path, path);
    assert_string_equal(buf_cstr(&problems), want);
    char text[500] = "";
    for (int i = 0; i < 50; i++)
        strncat(text, "bad line\n", sizeof text - strlen(text) - 1);
    write_file(span_of(text));
    buf_clear(&problems);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_INVALID);
    int lines = 0;
    for (const char *p = buf_cstr(&problems); *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 21);
    snprintf(want, sizeof want, "%s: 30 more problems\n", path);
    assert_non_null(strstr(buf_cstr(&problems), want));
    /* 1000 targets are taken, 1001 are not */
    struct buf big;
    buf_init(&big, 1 << 20);
    buf_add_str(&big, "all: t0");
    for (int i = 1; i < 1000; i++)
        buf_printf(&big, ",t%d", i);
    write_file(buf_span(&big));
    buf_clear(&problems);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_OK);
    table_unref(t);
    buf_add_str(&big, ",t1000");
    write_file(buf_span(&big));
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), ":1: more than 1000 targets"));
    buf_deinit(&big);
}

static void bad_files(void **state) {
    (void)state;
    struct table *t;
    unlink(path);
    buf_clear(&problems);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_NOT_FOUND);
    assert_non_null(strstr(buf_cstr(&problems), "/t: No such file"));
    assert_int_equal(table_load(&t, dir, one, 1, &problems), ERR_DENIED);
    assert_non_null(strstr(buf_cstr(&problems), ": not a regular file"));
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_DENIED);
    assert_int_equal(table_load(&t, "/dev/zero", one, 1, &problems), ERR_DENIED);
    write_file(SPAN_EMPTY);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "the file is empty"));
    write_file(SPAN("a\n"));
    chmod(path, 0666);
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_DENIED);
    assert_non_null(strstr(buf_cstr(&problems), "writable by everyone"));
    write_file(SPAN("a\n"));
    assert_int_equal(truncate(path, 0xfffffff1), 0); /* sparse */
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_RANGE);
    assert_non_null(strstr(buf_cstr(&problems), "larger than 4 GiB"));
}

static void staleness(void **state) {
    (void)state;
    struct table *t = load("a\n", one, 1);
    assert_false(table_is_stale(t));
    write_file(SPAN("b\n"));
    assert_true(table_is_stale(t));
    assert_string_equal(found(t, "a", "example.net"), "box 1");
    table_unref(t);
    t = load("a\n", one, 1);
    assert_ptr_equal(table_ref(t), t);
    table_unref(t);
    unlink(path);
    assert_true(table_is_stale(t));
    table_unref(t);
}

static void a_million_lines(void **state) {
    (void)state;
    enum { LINES = 1000000 };
    struct buf big;
    struct table *t;
    buf_init(&big, 64 << 20);
    for (int i = 0; i < LINES; i++) {
        if (i % 10 == 9)
            buf_printf(&big, "team.%07d: user.%07d, other.%07d@elsewhere.example\n", i, i - 1, i);
        else
            buf_printf(&big, "user.%07d@example.net\n", i);
    }
    assert_int_equal(big.err, ERR_OK);
    write_file(buf_span(&big));
    uint64_t start = clock_mono_ms();
    assert_int_equal(table_load(&t, path, one, 1, &problems), ERR_OK);
    uint64_t spent = clock_mono_ms() - start;
    double each = (double)(table_memory(t) - buf_len(&big)) / LINES;
    print_message("%d lines, %zu bytes: loaded in %llu ms, %.1f bytes + text per entry\n", LINES, buf_len(&big),
                  (unsigned long long)spent, each);
    assert_true(each <= 40);
    assert_int_equal(table_count(t), LINES);
    assert_string_equal(found(t, "user.0123456", "example.net"), "box 123457");
    assert_string_equal(found(t, "team.0999999", "example.net"),
                        "alias|user.0999998|other.0999999@elsewhere.example 1000000");
    char key[32];
    start = clock_mono_ms();
    struct table_entry e;
    for (int i = 0; i < LINES; i++) {
        int len = snprintf(key, sizeof key, i % 10 == 9 ? "team.%07d" : "user.%07d", i);
        assert_true(table_find(t, span_make(key, (size_t)len), one[0], &e));
    }
    print_message("%d look-ups in %llu ms\n", LINES, (unsigned long long)(clock_mono_ms() - start));
    table_unref(t);
    buf_deinit(&big);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meanings),        cmocka_unit_test(domains_and_catch_alls),
        cmocka_unit_test(bad_lines),       cmocka_unit_test(duplicates_and_many_problems),
        cmocka_unit_test(bad_files),       cmocka_unit_test(staleness),
        cmocka_unit_test(a_million_lines),
    };
    return cmocka_run_group_tests_name("table", tests, setup, teardown);
}
