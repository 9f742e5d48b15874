/* recipients: verdicts on own domains, aliases, forwards, relaying; tables that change; and what must never be accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/inbound/recipients.h"
#include "gateway/inbound/table.h"

static char dir[64], path[96];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/posthouse-recipients-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/table", dir);
    return 0;
}

static int drop_dir(void **state) {
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static void write_table(const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct recipients *make(const char *text) {
    static struct recipients_domain_config domains[3];
    domains[0] = (struct recipients_domain_config){"Our.Test", RECIPIENTS_TABLE, path};
    domains[1] = (struct recipients_domain_config){"any.test", RECIPIENTS_ANY, NULL};
    struct recipients_config c = {.domains = domains, .count = 2, .postmaster = "root@our.test", .hostname = "mx.our.test"};
    struct recipients *r;
    struct buf problems;
    buf_init(&problems, 65536);
    write_table(text);
    int err = recipients_new(&r, &c, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    buf_deinit(&problems);
    return r;
}

/* "VERDICT target target ..." for an address in brackets. */
static const char *judge(struct recipients *r, const char *text, bool may_relay) {
    static const char *const names[] = {"local", "relay", "unknown", "no-relay", "unroutable", "tempfail"};
    static char out[4096];
    struct arena mem;
    struct address a;
    struct recipients_answer answer;
    size_t used;
    arena_init(&mem, 4096, 0);
    int err = address_parse_path(&a, span_of(text), false, true, &mem, &used);
    if (err != ERR_OK) {
        snprintf(out, sizeof out, "syntax");
    } else {
        assert_int_equal(recipients_judge(r, &a, may_relay, &mem, &answer, NULL), ERR_OK);
        int n = snprintf(out, sizeof out, "%s", names[answer.verdict]);
        for (size_t i = 0; i < answer.count && n < 4000; i++)
            n += snprintf(out + n, sizeof out - (size_t)n, " %.*s", SPAN_FMT(answer.targets[i].address));
    }
    arena_deinit(&mem);
    return out;
}

static void knows_its_own(void **state) {
    (void)state;
    struct recipients *r = make("alice\n\"odd name\"\n# nobody is not here\n");
    assert_string_equal(judge(r, "<alice@our.test>", false), "local alice@our.test");
    assert_string_equal(judge(r, "<ALICE@OUR.TEST>", false), "local ALICE@our.test");
    assert_string_equal(judge(r, "<alice+tag@our.test>", false), "local alice+tag@our.test");
    assert_string_equal(judge(r, "<\"odd name\"@our.test>", false), "local \"odd name\"@our.test");
    assert_string_equal(judge(r, "<nobody@our.test>", false), "unknown");
    assert_string_equal(judge(r, "<x@any.test>", false), "local x@any.test");
    recipients_unref(r);
}

static void postmaster_is_always_there(void **state) {
    (void)state;
    struct recipients *r = make("alice\n");
    assert_string_equal(judge(r, "<Postmaster>", false), "local root@our.test");
    assert_string_equal(judge(r, "<POSTMASTER@our.test>", false), "local root@our.test");
    recipients_unref(r);
    r = make("postmaster: alice\nalice\nroot: alice\n");
    assert_string_equal(judge(r, "<postmaster@our.test>", false), "local alice@our.test");
    assert_string_equal(judge(r, "<Postmaster>", false), "local alice@our.test");
    recipients_unref(r);
}

static void relays_only_for_the_trusted(void **state) {
    (void)state;
    struct recipients *r = make("alice\n");
    assert_string_equal(judge(r, "<x@else.test>", false), "no-relay");
    assert_string_equal(judge(r, "<x@else.test>", true), "relay x@else.test");
    assert_string_equal(judge(r, "<x@[127.0.0.1]>", false), "no-relay");
    assert_string_equal(judge(r, "<user%else.test@our.test>", false), "no-relay");
    assert_string_equal(judge(r, "<else.test!user@our.test>", false), "no-relay");
    assert_string_equal(judge(r, "<\"user@else.test\"@our.test>", false), "no-relay");
    assert_string_equal(judge(r, "<user%else.test@any.test>", false), "no-relay");
    assert_string_equal(judge(r, "<@our.test:x@else.test>", false), "no-relay");
    assert_string_equal(judge(r, "<user@else.test@our.test>", false), "syntax");
    assert_string_equal(judge(r, "<alice@our.test.>", false), "syntax");
    recipients_unref(r);
}

static void expands_aliases_and_forwards(void **state) {
    (void)state;
    struct recipients *r = make("alice\nbob\nsales: alice, bob@else.test, all\nall: alice, bob\n"
                                "gone > new@else.test\nboth >> copy@else.test\n");
    assert_string_equal(judge(r, "<sales@our.test>", false), "local alice@our.test bob@else.test bob@our.test");
    assert_string_equal(judge(r, "<gone@our.test>", false), "local new@else.test");
    assert_string_equal(judge(r, "<both@our.test>", false), "local both@our.test copy@else.test");
    recipients_unref(r);
}

static void refuses_what_leads_nowhere(void **state) {
    (void)state;
    struct recipients *r = make("loop1: loop2\nloop2: loop3\nloop3: loop1\nlost: alice, nobody\nalice\n");
    assert_string_equal(judge(r, "<loop1@our.test>", false), "unroutable");
    assert_string_equal(judge(r, "<lost@our.test>", false), "unroutable");
    recipients_unref(r);
}

static void bounds_the_expansion(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 30; i++)
        buf_printf(&text, "deep%d: deep%d\n", i, i + 1);
    buf_add_str(&text, "deep30\nw0: w1, w2\n");
    for (int i = 1; i < 3; i++) {
        buf_printf(&text, "w%d: ", i);
        for (int k = 0; k < 600; k++)
            buf_printf(&text, "%sx%d-%d@else.test", k ? ", " : "", i, k);
        buf_add_byte(&text, '\n');
    }
    struct recipients *r = make(buf_cstr(&text));
    assert_string_equal(judge(r, "<deep0@our.test>", false), "unroutable");
    assert_string_equal(judge(r, "<deep20@our.test>", false), "local deep30@our.test");
    assert_string_equal(judge(r, "<w0@our.test>", false), "unroutable");
    recipients_unref(r);
    buf_deinit(&text);
}

static void catch_all_takes_the_rest(void **state) {
    (void)state;
    struct recipients *r = make("alice\n@our.test\n");
    assert_string_equal(judge(r, "<whoever@our.test>", false), "local whoever@our.test");
    assert_string_equal(judge(r, "<a%b@our.test>", false), "no-relay");
    recipients_unref(r);
}

static void a_changed_table_makes_a_fresh_set(void **state) {
    (void)state;
    struct recipients *r = make("alice\n"), *fresh;
    struct buf problems;
    buf_init(&problems, 65536);
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_null(fresh);
    unlink(path);
    write_table("alice\nnewcomer\n");
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_non_null(fresh);
    assert_string_equal(judge(fresh, "<newcomer@our.test>", false), "local newcomer@our.test");
    assert_string_equal(judge(r, "<newcomer@our.test>", false), "unknown"); /* sessions keep what they hold */
    unlink(path);
    write_table("alice\nbad line: :\n");
    struct recipients *none;
    assert_int_equal(recipients_reload(fresh, &none, &problems), ERR_INVALID);
    assert_null(none); /* the old table stays */
    assert_non_null(strstr(buf_cstr(&problems), "table:2:"));
    recipients_unref(r);
    recipients_unref(fresh);
    buf_deinit(&problems);
}

static void names_every_bad_line(void **state) {
    (void)state;
    const struct span domains[] = {SPAN("our.test")};
    struct table *t;
    struct buf problems;
    buf_init(&problems, 65536);
    write_table("good\nx@@y\nfine: a, b\nempty:\nlonely > \nself: self, good\nper%cent\n");
    assert_int_equal(table_load(&t, path, domains, 1, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "table:2:"));
    assert_non_null(strstr(buf_cstr(&problems), "table:4:"));
    assert_non_null(strstr(buf_cstr(&problems), "table:5:"));
    assert_non_null(strstr(buf_cstr(&problems), "table:6:"));
    assert_non_null(strstr(buf_cstr(&problems), "table:7:"));
    assert_null(strstr(buf_cstr(&problems), "table:1:"));
    buf_deinit(&problems);
}

static void explains_its_steps(void **state) {
    (void)state;
    struct recipients *r = make("sales: alice\nalice\n");
    struct arena mem;
    struct address a;
    struct recipients_answer answer;
    struct buf steps;
    buf_init(&steps, 65536);
    arena_init(&mem, 4096, 0);
    assert_int_equal(address_parse(&a, SPAN("sales@our.test"), &mem), ERR_OK);
    assert_int_equal(recipients_judge(r, &a, false, &mem, &answer, &steps), ERR_OK);
    assert_string_equal(buf_cstr(&steps), "<sales@our.test> is an alias of:\n  <alice@our.test> is a mailbox\n");
    arena_deinit(&mem);
    buf_deinit(&steps);
    recipients_unref(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_its_own),
        cmocka_unit_test(postmaster_is_always_there),
        cmocka_unit_test(relays_only_for_the_trusted),
        cmocka_unit_test(expands_aliases_and_forwards),
        cmocka_unit_test(refuses_what_leads_nowhere),
        cmocka_unit_test(bounds_the_expansion),
        cmocka_unit_test(catch_all_takes_the_rest),
        cmocka_unit_test(a_changed_table_makes_a_fresh_set),
        cmocka_unit_test(names_every_bad_line),
        cmocka_unit_test(explains_its_steps),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
