/* hygiene: adds what is missing, touches nothing that is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/filter/hygiene.h"
#include "tests/unit/gateway/filter/place.h"

static const struct check_facts facts = {.id = {"0123456789ABC", 13}, .hostname = {"mx.our.test", 11}};

static void test_adds_both(void **state) {
    (void)state;
    struct held *h = held_of_text("From: a@b.test\r\nBcc: secret@b.test\r\n\r\nhello\r\n");
    assert_int_equal(hygiene_apply(h, &facts, 1795594507000), ERR_OK);
    char *text = held_text(h);
    assert_non_null(strstr(text, "\r\nDate: Wed, 25 Nov 2026 08:15:07 +0000\r\n"));
    assert_non_null(strstr(text, "\r\nMessage-ID: <0123456789ABC."));
    assert_non_null(strstr(text, "@mx.our.test>\r\n\r\nhello\r\n"));
    assert_non_null(strstr(text, "Bcc: secret@b.test\r\n"));
    free(text);
    held_free(h);
}

static void test_ids_differ(void **state) {
    (void)state;
    char *texts[2];
    for (int i = 0; i < 2; i++) {
        struct held *h = held_of_text("Date: x\r\n\r\n");
        assert_int_equal(hygiene_apply(h, &facts, 0), ERR_OK);
        texts[i] = held_text(h);
        held_free(h);
    }
    assert_string_not_equal(texts[0], texts[1]);
    free(texts[0]);
    free(texts[1]);
}

static void test_leaves_what_is_there(void **state) {
    (void)state;
    const char *message = "date: nonsense\r\nMESSAGE-ID: broken\r\n\r\n\r\nbody";
    struct held *h = held_of_text(message);
    assert_int_equal(hygiene_apply(h, &facts, 0), ERR_OK);
    char *text = held_text(h);
    assert_string_equal(text, message);
    free(text);
    held_free(h);
}

static void test_full_header(void **state) {
    (void)state;
    struct held *h = held_of_text("Subject: x\r\n\r\n");
    int err = ERR_OK;
    while (!err)
        err = held_insert(h, 0, SPAN("X"), SPAN("y"));
    assert_int_equal(err, ERR_FULL);
    assert_int_equal(hygiene_apply(h, &facts, 0), ERR_FULL);
    held_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adds_both),
        cmocka_unit_test(test_ids_differ),
        cmocka_unit_test(test_leaves_what_is_there),
        cmocka_unit_test(test_full_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
