/* json: replies joined into one object that is always valid; small objects read, and nothing else taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "admin/json.h"
#include "proto/frame.h"

static void test_answer(void **state) {
    (void)state;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    Words__AdminRow row = WORDS__ADMIN_ROW__INIT, *rows[] = {&row};
    Words__AdminFigure figure = WORDS__ADMIN_FIGURE__INIT, *figures[] = {&figure};
    Words__AdminAudit audit = WORDS__ADMIN_AUDIT__INIT, *audits[] = {&audit};
    uint64_t ages[] = {3, 0, 1};
    struct buf b;
    row.has_recipient = row.has_held = row.has_scope = row.has_reason = true;
    row.recipient = frame_bytes(SPAN("a\"<b>\x01\xff@c"));
    row.held = 2;
    row.scope = WORDS__ADMIN_SCOPE__ADMIN_SITE;
    row.reason = frame_bytes(SPAN("gr\xc3\xbc\xc3\x9f"
                                  "e"));
    row.n_ages = 3;
    row.ages = ages;
    figure.name = frame_bytes(SPAN("x"));
    figure.value = 2;
    audit.actor = frame_bytes(SPAN("otto"));
    audit.verb = WORDS__ADMIN_VERB__ADMIN_CONFIG_RELOAD;
    audit.stage = 3;
    r.rows = rows;
    r.n_rows = 1;
    r.figures = figures;
    r.n_figures = 1;
    r.audits = audits;
    r.n_audits = 1;
    r.has_count = r.has_text = true;
    r.count = 5;
    r.text = frame_bytes(SPAN("first"));
    struct json_answer *a = json_answer_new();
    assert_non_null(a);
    json_answer_message(a, 1);
    json_answer_add(a, &r);
    r.text = frame_bytes(SPAN("second"));
    json_answer_add(a, &r);
    buf_init(&b, 65536);
    assert_int_equal(json_answer_dump(a, false, &b), ERR_OK);
    const char *text = buf_cstr(&b);
    for (const char *c = text; *c; c++)
        assert_true((unsigned char)*c >= 32);
    static const char *const parts[] = {"\"message\":\"0000000000001\"",
                                        "\"text\":\"first\"",
                                        "\"count\":10",
                                        "\"x\":4",
                                        "a\\\"<b>\\\\x01\\\\xff@c",
                                        "\"held\":2",
                                        "\"scope\":\"site\"",
                                        ("gr\xc3\xbc\xc3\x9f"
                                         "e"),
                                        "\"ages\":[3,0,1]",
                                        "\"verb\":\"config_reload\"",
                                        "\"stage\":\"refused\""};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(text, parts[i]))
            fail_msg("%s is not in %s", parts[i], text);
    buf_deinit(&b);
    buf_init(&b, 50);
    assert_int_equal(json_answer_dump(a, false, &b), ERR_FULL);
    buf_deinit(&b);
    json_answer_free(a);
    json_answer_free(NULL);
}

static void test_fields(void **state) {
    (void)state;
    struct json_fields f;
    struct arena mem;
    arena_init(&mem, 4096, 65536);
    assert_int_equal(json_fields_read(&f, SPAN("{\"a\":\"x y\",\"n\":-7,\"t\":true,\"f\":false,\"z\":null}"), &mem),
                     ERR_OK);
    assert_true(span_eq(json_fields_get(&f, "a"), SPAN("x y")));
    assert_true(span_eq(json_fields_get(&f, "n"), SPAN("-7")));
    assert_true(span_eq(json_fields_get(&f, "t"), SPAN("true")));
    assert_true(span_eq(json_fields_get(&f, "f"), SPAN("false")));
    assert_int_equal(json_fields_get(&f, "z").len, 0);
    assert_int_equal(json_fields_get(&f, "missing").len, 0);
    assert_int_equal(json_fields_read(&f, SPAN("{}"), &mem), ERR_OK);
    static const struct span bad[] = {{"", sizeof "" - 1},
                                      {"[]", sizeof "[]" - 1},
                                      {"\"x\"", sizeof "\"x\"" - 1},
                                      {"{", sizeof "{" - 1},
                                      {"{\"a\":{}}", sizeof "{\"a\":{}}" - 1},
                                      {"{\"a\":[1]}", sizeof "{\"a\":[1]}" - 1},
                                      {"{\"a\":1.5}", sizeof "{\"a\":1.5}" - 1},
                                      {"{\"a\":1,\"a\":2}", sizeof "{\"a\":1,\"a\":2}" - 1},
                                      {"{\"a\":\"b\\u0000c\"}", sizeof "{\"a\":\"b\\u0000c\"}" - 1},
                                      {"{\"a\":\"\xff\"}", sizeof "{\"a\":\"\xff\"}" - 1},
                                      {"{} {}", sizeof "{} {}" - 1},
                                      {"{\"a\":99999999999999999999}", sizeof "{\"a\":99999999999999999999}" - 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(json_fields_read(&f, bad[i], &mem), ERR_INVALID);
    char many[400] = "{\"k0\":1";
    for (unsigned i = 1; i <= JSON_FIELDS_MAX; i++)
        snprintf(many + strlen(many), 20, ",\"k%u\":1", i);
    strncat(many, "}", 2);
    assert_int_equal(json_fields_read(&f, span_of(many), &mem), ERR_INVALID);
    arena_deinit(&mem);
}

static void test_cursor(void **state) {
    (void)state;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct json_answer *a = json_answer_new();
    struct buf b;
    r.has_cursor = true;
    r.cursor = frame_bytes(SPAN("\0\x01\xff z"));
    json_answer_add(a, &r);
    buf_init(&b, 1000);
    assert_int_equal(json_answer_dump(a, false, &b), ERR_OK);
    assert_non_null(strstr(buf_cstr(&b), "\"cursor\":\"0001ff207a\""));
    buf_clear(&b);
    assert_true(json_cursor_read(SPAN("0001ff207a"), &b));
    assert_true(span_eq(buf_span(&b), SPAN("\0\x01\xff z")));
    static const char *const bad[] = {"0", "0G", "FF", "0 ", "-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(json_cursor_read(span_of(bad[i]), &b));
    buf_deinit(&b);
    json_answer_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answer), cmocka_unit_test(test_fields),
                                       cmocka_unit_test(test_cursor)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
