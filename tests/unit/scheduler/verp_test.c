/* verp: who gets a return path of its own, and what cannot be joined. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "scheduler/verp.h"

static void joins_what_can_be_joined(void **state) {
    (void)state;
    static const char *const listed[] = {"news@list.test", "bulk.test"};
    static const struct {
        const char *sender, *recipient, *path;
    } cases[] = {
        {"news@list.test", "bob@example.net", "news+bob=example.net@list.test"},
        {"NEWS@list.test", "Bob+x@example.net", "NEWS+Bob+x=example.net@list.test"},
        {"other@list.test", "bob@example.net", ""},
        {"any@bulk.test", "bob@example.net", "any+bob=example.net@bulk.test"},
        {"any@sub.bulk.test", "bob@example.net", ""},
        {"", "bob@example.net", ""},
        {"any@bulk.test", "", ""},
        {"any@bulk.test", "postmaster", ""},
        {"any@bulk.test", "\"a b\"@example.net", ""},
        {"any@bulk.test", "bob@[192.0.2.1]", ""},
        {"\"a b\"@bulk.test", "bob@example.net", ""},
        {"any@bulk.test", "j\xc3\xbcrgen@example.net", ""},
        {"any@bulk.test", "a0123456789012345678901234567890123456789012345@example.nets",
         "any+a0123456789012345678901234567890123456789012345=example.nets@bulk.test"},
        {"any@bulk.test", "a01234567890123456789012345678901234567890123458@example.nets", ""},
    };
    struct verp *v;
    struct arena mem;
    arena_init(&mem, 1024, 0);
    assert_int_equal(verp_new(&v, listed, 2), ERR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span path = verp_return_path(v, span_of(cases[i].sender), span_of(cases[i].recipient), &mem);
        assert_true(span_eq(path, span_of(cases[i].path)));
        assert_int_equal(verp_return_path(NULL, span_of(cases[i].sender), span_of(cases[i].recipient), &mem).len, 0);
    }
    verp_free(v);
    assert_int_equal(verp_new(&v, NULL, 0), ERR_OK);
    assert_int_equal(verp_return_path(v, SPAN("news@list.test"), SPAN("bob@example.net"), &mem).len, 0);
    verp_free(v);
    verp_free(NULL);
    arena_deinit(&mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(joins_what_can_be_joined)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
