/* settings of reports: languages, templates by domain, return paths; each error with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/settings.h"

#define HEAD "node: {hostname: mx.example.net}\n"

static char dir[64], path[128];

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/settings_reports_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/posthouse.yaml", dir);
    return 0;
}

static void write_file(const char *name, const char *text, size_t len) {
    char file[200];
    snprintf(file, sizeof file, "%s/%s", dir, name);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static int drop_dir(void **state) {
    (void)state;
    static const char *const names[] = {"posthouse.yaml", "good.txt", "bad.txt", "nul.txt", "large.txt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[200];
        snprintf(file, sizeof file, "%s/%s", dir, names[i]);
        unlink(file);
    }
    return rmdir(dir);
}

static int load(const char *text, struct settings **s, struct buf *problems) {
    write_file("posthouse.yaml", text, strlen(text));
    return settings_load(s, path, problems);
}

static void what_is_set_is_there(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    buf_init(&problems, 65536);
    write_file("good.txt", "[delay]\nSubject: late\nlate\n", 27);
    assert_int_equal(load(HEAD, &s, &problems), ERR_OK);
    assert_int_equal(s->scheduler.reports.language, DSN_ENGLISH);
    assert_true(s->scheduler.reports.count == 0 && s->scheduler.verp_count == 0);
    settings_free(s);
    assert_int_equal(load(HEAD "reports:\n"
                               "  language: es\n"
                               "  templates:\n"
                               "    - {domain: Example.NET, language: de}\n"
                               "    - {domain: .b\xc3\xbc"
                               "cher.test, file: good.txt, language: fr}\n"
                               "    - {domain: \"*\"}\n"
                               "delivery: {verp: [News@Example.NET, bulk.test]}\n",
                          &s, &problems),
                     ERR_OK);
    assert_int_equal(buf_len(&problems), 0);
    const struct dsn_texts_config *r = &s->scheduler.reports;
    assert_true(r->language == DSN_SPANISH && r->count == 3);
    assert_string_equal(r->rules[0].domain, "example.net");
    assert_true(r->rules[0].language == DSN_GERMAN && !r->rules[0].text);
    assert_string_equal(r->rules[1].domain, ".xn--bcher-kva.test");
    assert_string_equal(r->rules[1].text, "[delay]\nSubject: late\nlate\n");
    assert_string_equal(r->rules[2].domain, "*");
    assert_int_equal(s->scheduler.verp_count, 2);
    assert_string_equal(s->scheduler.verp[0], "News@example.net");
    assert_string_equal(s->scheduler.verp[1], "bulk.test");
    settings_free(s);
    buf_deinit(&problems);
}

static void errors_name_their_line(void **state) {
    (void)state;
    static char large[DSN_TEMPLATE_MAX + 10];
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"reports: {language: it}\n", "posthouse.yaml:2: reports.language: takes one of en|de|fr|es"},
        {"reports: {templates: x}\n", "posthouse.yaml:2: reports.templates: takes a list"},
        {"reports:\n  templates:\n    - {language: de}\n", "posthouse.yaml:4: reports.templates.domain: missing"},
        {"reports:\n  templates:\n    - {domain: \"a b\"}\n",
         "posthouse.yaml:4: reports.templates.domain: not a domain"},
        {"reports:\n  templates:\n    - {domain: a.test}\n    - {domain: A.test}\n",
         "posthouse.yaml:5: reports.templates.domain: a.test stands twice"},
        {"reports:\n  templates: [{domain: a.test, file: none.txt}]\n", "none.txt: No such file"},
        {"reports:\n  templates: [{domain: a.test, file: bad.txt}]\n", "bad.txt:3: no such variable"},
        {"reports:\n  templates: [{domain: a.test, file: nul.txt}]\n", "nul.txt: a NUL octet"},
        {"reports:\n  templates: [{domain: a.test, file: large.txt}]\n", "large.txt:0: longer than 64 KiB"},
        {"delivery:\n  verp: [\"a b\"]\n", "posthouse.yaml:3: delivery.verp: takes addresses and domains"},
        {"delivery:\n  verp: [a@]\n", "posthouse.yaml:3: delivery.verp: takes addresses and domains"},
        {"delivery:\n  verp: {a: b}\n", "delivery.verp: takes a list"},
    };
    memset(large, '\n', sizeof large);
    memcpy(large, "[delay]\nSubject: x\n", 19);
    write_file("bad.txt", "[delay]\nSubject: late\n{{what}}\n", 31);
    write_file("nul.txt", "[delay]\nSubject: late\n\0\n", 24);
    write_file("large.txt", large, sizeof large);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[600];
        struct settings *s;
        struct buf problems;
        buf_init(&problems, 65536);
        snprintf(text, sizeof text, HEAD "%s", cases[i].text);
        assert_int_equal(load(text, &s, &problems), ERR_INVALID);
        if (!strstr(buf_cstr(&problems), cases[i].problem))
            fail_msg("%s: %s", cases[i].problem, buf_cstr(&problems));
        buf_deinit(&problems);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_set_is_there),
        cmocka_unit_test(errors_name_their_line),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
