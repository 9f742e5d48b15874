/*
 * Addresses out of the fields of a header, as senders write them, and what is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "admin/sendmail/sendmail.h"

/* "a@b c@d" of what was found, or "!" and the bad part. */
static void expect(const char *value, const char *want) {
    struct recipient_list l = {0};
    struct arena mem;
    struct buf got;
    struct span bad;
    arena_init(&mem, 4096, 0);
    buf_init(&got, 65536);
    int err = mailboxes_add(&l, span_of(value), "here.test", &mem, &bad);
    if (err != ERR_OK) {
        assert_int_equal(err, ERR_INVALID);
        buf_add_byte(&got, '!');
        buf_add(&got, bad);
    }
    for (size_t i = 0; i < l.count && err == ERR_OK; i++) {
        buf_add_str(&got, i ? " " : "");
        buf_add(&got, l.at[i]);
    }
    assert_string_equal(buf_cstr(&got), want);
    buf_deinit(&got);
    arena_deinit(&mem);
}

static void test_forms(void **state) {
    (void)state;
    expect("", "");
    expect(" \r\n ", "");
    expect("a@b.test", "a@b.test");
    expect("a", "a@here.test");
    expect("a@B.TEST, c@d.test", "a@b.test c@d.test");
    expect("a@b.test,\r\n\tc@d.test", "a@b.test c@d.test");
    expect("A Name <a@b.test>, \"Last, First\" <c@d.test>", "a@b.test c@d.test");
    expect("\"no <x@y.test> here\" <a@b.test>", "a@b.test");
    expect("a@b.test (A, Name (really)), (lonely) c@d.test", "a@b.test c@d.test");
    expect("<a@b.test>", "a@b.test");
    expect("\"odd name\"@b.test", "\"odd name\"@b.test");
    expect("\"a\\\"b\"@b.test", "\"a\\\"b\"@b.test");
    expect("friends: a@b.test, C <c@d.test>;, e@f.test", "a@b.test c@d.test e@f.test");
    expect("undisclosed-recipients:;", "");
    expect("a@[192.0.2.1]", "a@[192.0.2.1]");
    expect("X <a@[IPv6:2001:db8::1]>, b@c.test", "a@[IPv6:2001:db8::1] b@c.test");
    expect("a@b.test, , ,a@b.test,", "a@b.test");
    expect("=?utf-8?q?J=C3=B6rg?= <j@b.test>", "j@b.test");
}

static void test_none(void **state) {
    (void)state;
    expect("two words", "!two words@here.test");
    expect("<>", "!<>");
    expect("A <a@b.test", "!A <a@b.test");
    expect("a@@b.test", "!a@@b.test");
    expect("a@b.test c@d.test", "!a@b.test c@d.test");
    expect("a@-b.test", "!a@-b.test");
    expect("a@b.test (not closed, c@d.test", "!a@b.test (not closed, c@d.test");
    expect("a@b.test (ends in \\)", "!a@b.test (ends in \\)");
    expect("a@b.test, \"not closed, c@d.test", "!a@b.test, \"not closed, c@d.test");
}

static void test_bounds(void **state) {
    (void)state;
    struct recipient_list l = {0};
    struct arena mem;
    struct span bad;
    char text[3000];
    arena_init(&mem, 65536, 0);
    memset(text, 'a', sizeof text);
    assert_int_equal(mailboxes_add(&l, span_make(text, sizeof text), "here.test", &mem, &bad), ERR_INVALID);
    for (unsigned i = 0; i < SENDMAIL_RECIPIENTS_MAX; i++) {
        int len = snprintf(text, sizeof text, "u%u@b.test", i);
        assert_int_equal(recipient_list_add(&l, span_make(text, (size_t)len), &mem), ERR_OK);
    }
    assert_int_equal(recipient_list_add(&l, SPAN("u7@b.test"), &mem), ERR_OK); /* is there */
    assert_int_equal(recipient_list_add(&l, SPAN("more@b.test"), &mem), ERR_FULL);
    arena_deinit(&mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_none),
                                       cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
