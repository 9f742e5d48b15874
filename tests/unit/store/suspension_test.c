/* Records of suspensions: put, replaced, dropped, found again after a crash; a damaged one is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "store/keys.h"
#include "store/memory.h"
#include "store/suspension.h"

struct found {
    char text[512];
};

static void on_found(void *arg, const Words__Suspension *r) {
    struct found *f = arg;
    size_t len = strlen(f->text);
    snprintf(f->text + len, sizeof f->text - len, "%u %.*s %llu %.*s;", r->scope, (int)r->name.len,
             (const char *)r->name.data, (unsigned long long)(r->has_until_ms ? r->until_ms : 0), (int)r->reason.len,
             (const char *)r->reason.data);
}

static void put(struct store_batch *b, uint32_t scope, const char *name, uint64_t until_ms, const char *reason) {
    Words__Suspension r = WORDS__SUSPENSION__INIT;
    r.scope = scope;
    r.name = frame_bytes(span_of(name));
    r.at_ms = 1;
    r.has_until_ms = until_ms != 0;
    r.until_ms = until_ms;
    r.has_reason = true;
    r.reason = frame_bytes(span_of(reason));
    suspension_put(b, &r);
}

static void are_kept(void **state) {
    (void)state;
    struct store *s;
    struct found f = {""};
    struct store_batch *b = store_batch_new();
    assert_int_equal(store_memory_open(&s), ERR_OK);
    assert_int_equal(suspension_each(s, on_found, &f), ERR_OK);
    assert_string_equal(f.text, "");
    put(b, 1, "a.test", 0, "one");
    put(b, 2, "a.test", 7, "site");
    put(b, 1, "a.test", 9, "two");
    put(b, 1, ".b.test", 0, "below");
    char longest[SUSPENSION_NAME_MAX + 1];
    memset(longest, 'x', SUSPENSION_NAME_MAX);
    longest[SUSPENSION_NAME_MAX] = 0;
    put(b, 1, longest, 0, "");
    suspension_drop(b, 1, span_of(longest));
    suspension_drop(b, 1, SPAN("never.test"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_clear(b);
    suspension_drop(b, 1, SPAN(".b.test"));
    assert_int_equal(store_write(s, b, false), ERR_OK);
    store_memory_crash(s, 0);
    assert_int_equal(suspension_each(s, on_found, &f), ERR_OK);
    assert_string_equal(f.text, "1 .b.test 0 below;1 a.test 9 two;2 a.test 7 site;");
    store_batch_free(b);
    store_close(s);
}

static void a_damaged_one_is_named(void **state) {
    (void)state;
    struct store *s;
    struct found f = {""};
    struct store_batch *b = store_batch_new();
    struct key k = key_meta(KEY_NODE, KEY_TAG_SUSPENSION);
    key_u8(&k, 1);
    assert_int_equal(store_memory_open(&s), ERR_OK);
    store_put(b, STORE_META, key_span(&k), SPAN("\xff\xff"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_int_equal(suspension_each(s, on_found, &f), ERR_CORRUPT);
    store_batch_free(b);
    store_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(are_kept),
        cmocka_unit_test(a_damaged_one_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
