/* config_text: settings as YAML again: what it says stays, secrets do not; and how two differ. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/config_text.h"

static char file[64];
static struct arena mem;
static struct buf text;

static int set_up(void **state) {
    (void)state;
    snprintf(file, sizeof file, "/tmp/config_text_test.XXXXXX");
    int fd = mkstemp(file);
    arena_init(&mem, 4096, 0);
    buf_init(&text, CONFIG_TEXT_MAX);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state) {
    (void)state;
    arena_deinit(&mem);
    buf_deinit(&text);
    return unlink(file);
}

static struct yaml *load(const char *yaml) {
    struct yaml *root;
    struct buf problems;
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(yaml, f);
    assert_int_equal(fclose(f), 0);
    buf_init(&problems, 4096);
    assert_int_equal(yaml_load(&root, file, &mem, &problems), ERR_OK);
    buf_deinit(&problems);
    return root;
}

static struct config_lines lines_of(const char *yaml, uint64_t seed) {
    struct config_lines lines;
    assert_int_equal(config_lines_make(&lines, load(yaml), seed, &mem), ERR_OK);
    return lines;
}

static const char *shown(const char *yaml) {
    struct config_lines lines = lines_of(yaml, 0);
    buf_clear(&text);
    assert_int_equal(config_text_show(&lines, &text), ERR_OK);
    return buf_cstr(&text);
}

static const char *diff(const char *a, const char *b) {
    struct config_lines x = lines_of(a, 42), y = lines_of(b, 42);
    buf_clear(&text);
    assert_int_equal(config_text_diff(&x, &y, &text), ERR_OK);
    return buf_cstr(&text);
}

static bool same_tree(const struct yaml *a, const struct yaml *b) {
    for (; a && b; a = a->next, b = b->next)
        if (a->kind != b->kind || !span_eq(a->key, b->key) || !span_eq(a->text, b->text) ||
            !same_tree(a->first, b->first))
            return false;
    return !a && !b;
}

/* What is shown means the same. */
static void it_is_the_same_document_again(void **state) {
    (void)state;
    static const char *const documents[] = {
        "node: {name: a, hostname: mx.example.net}\n# a comment\nlist: [1, two, \"3: three\"]\n",
        "domains:\n  - name: a.test\n    route: \"smtp:h:25\"\n  - {name: b.test, recipients: {table: r.txt}}\n",
        "a: {}\nb: []\nc: \"\"\nd: 'it''s'\n",
        "a:\n  - - x\n    - y\n  - []\n  - {k: [v, w], l: m}\n",
        "\"odd key: \": \"tab\\tquote\\\" back\\\\ newline\\n \\xc3\\xa4 \\x7f\"\n\xc3\xa4: \xc3\xb6\n",
        "n: -5\nx: \"- not a list\"\ny: \"#no comment\"\nz: \"true\"\nw: a b  c\n",
    };
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        struct yaml *before = load(documents[i]);
        char *copy = arena_strdup(&mem, shown(documents[i]));
        struct yaml *after = load(copy);
        if (!same_tree(before, after))
            fail_msg("document %zu became:\n%s", i, copy);
    }
    assert_string_equal(shown(""), "");
    assert_string_equal(shown("a: [x, {b: c, d: [e]}]"), "a:\n  - x\n  - b: c\n    d:\n      - e\n");
}

static void secrets_are_blanked(void **state) {
    (void)state;
    static const char yaml[] =
        "srs: {domain: a.test, secrets: [hush1, hush2]} # hush3\n"
        "routes:\n  - {domain: b.test, user: ann, password: \"hush4\", password_file: /etc/p}\n"
        "directories:\n  - {uri: \"postgres://joe:hush5@db.test/mail?x=1\"}\n"
        "  - {uri: \"host=db user=joe password=hush6 dbname=mail\"}\n"
        "admin: {users: [{name: u, password: {deep: [hush7]}}], token: hush8}\n"
        "batv: {secrets: hush9}\n"
        "hooks: [{headers: [\"Authorization: Bearer hush10\"], url: \"https://h.test/?a=1&TOKEN=hush11&b=2\"}]\n"
        "both: \"postgres://joe:hush12@db.test/mail?password=hush13\"\n"
        "libpq: [\"password\\t= hush14\\tuser=j\", \"password='hush15 \\\\' hush16' user=k\", \"password=a&hush17 "
        "user=l\",\n"
        "  \"password=a\\\\ hush18 user=m\", \"user=n password='hush19\", \"password=hush20\\\\\"]\n"
        "web: \"https://h.test/?pwd=hush21 hush22&x=api_key\"\n";
    const char *out = shown(yaml);
    assert_null(strstr(out, "hush"));
    assert_non_null(strstr(out, "uri: \"postgres://joe:***@db.test/mail?x=1\""));
    assert_non_null(strstr(out, "uri: \"host=db user=joe password=*** dbname=mail\""));
    assert_non_null(strstr(out, "password_file: /etc/p"));
    assert_non_null(strstr(out, "password: \"***\""));
    assert_non_null(strstr(out, "user: ann"));
    assert_non_null(strstr(out, "url: \"https://h.test/?a=1&TOKEN=***&b=2\""));
    assert_non_null(strstr(out, "both: \"postgres://joe:***@db.test/mail?password=***\""));
    assert_non_null(
        strstr(out, "- \"password\\x09= ***\\x09user=j\"\n  - \"password=*** user=k\"\n  - \"password=*** user=l\"\n"));
    assert_non_null(strstr(out, "- \"password=*** user=m\"\n  - \"user=n password=***\"\n  - \"password=***\"\n"));
    assert_non_null(strstr(out, "web: \"https://h.test/?pwd=***&x=api_key\""));
    assert_null(strstr(diff("password: hush1\n", "password: hush2\n"), "hush"));
}

static void differences_are_lines(void **state) {
    (void)state;
    assert_string_equal(diff("a: 1\nb: 2\n", "b: \"2\" # said in other words\n"),
                        "--- in force\n+++ the file\n@@ -1,2 +1,1 @@\n-a: 1\n b: 2\n");
    assert_string_equal(diff("a: 1\n", "a: \"1 \"\n"),
                        "--- in force\n+++ the file\n@@ -1,1 +1,1 @@\n-a: 1\n+a: \"1 \"\n");
    assert_string_equal(diff("a: 1 # x\nb: {c: 2}\n", "a: 1\nb:\n  c: 2\n"), "");
    assert_string_equal(diff("a: 1\n", ""), "--- in force\n+++ the file\n@@ -1,1 +1,0 @@\n-a: 1\n");
    assert_string_equal(diff("", "a: 1\n"), "--- in force\n+++ the file\n@@ -1,0 +1,1 @@\n+a: 1\n");
    /* a secret that changed is a change, though both lines look alike */
    assert_string_equal(diff("x: 1\npassword: a\n", "x: 1\npassword: b\n"),
                        "--- in force\n+++ the file\n@@ -1,2 +1,2 @@\n x: 1\n-password: \"***\"\n+password: \"***\"\n");
    assert_string_equal(diff("uri: \"x://u:a@h\"\n", "uri: \"x://u:a@h\"\n"), "");
    /* far apart: two hunks, three lines around each */
    const char *out = diff("a0: 1\nb: 1\nc: 1\nd: 1\ne: 1\nf: 1\ng: 1\nh: 1\ni: 1\nj: 1\nk: 1\n",
                           "a1: 1\nb: 1\nc: 1\nd: 1\ne: 1\nf: 1\ng: 1\nh: 1\ni: 1\nj: 1\nk: 2\n");
    assert_non_null(strstr(out, "@@ -1,4 +1,4 @@\n-a0: 1\n+a1: 1\n b: 1\n c: 1\n d: 1\n@@ -8,4 +8,4 @@\n h: 1\n"));
}

static void very_long_ones_are_replaced_as_a_whole(void **state) {
    (void)state;
    struct buf a, b;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    buf_add_str(&a, "l:\n");
    buf_add_str(&b, "l:\n");
    for (int i = 0; i < 5000; i++) {
        buf_printf(&a, "  - a%d\n", i);
        buf_printf(&b, "  - b%d\n", i);
    }
    const char *out = diff(buf_cstr(&a), buf_cstr(&b));
    assert_non_null(strstr(out, "@@ -1,5001 +1,5001 @@\n l:\n-  - a0\n"));
    struct config_lines lines = lines_of(buf_cstr(&a), 0);
    struct buf small;
    buf_init(&small, 1000);
    assert_int_equal(config_text_show(&lines, &small), ERR_FULL);
    buf_deinit(&small);
    buf_deinit(&a);
    buf_deinit(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(it_is_the_same_document_again),
        TEST(secrets_are_blanked),
        TEST(differences_are_lines),
        TEST(very_long_ones_are_replaced_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
