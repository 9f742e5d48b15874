/* secret: published vectors, comparison, wiping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/net/secret.h"

static const char *hex(const uint8_t digest[32]) {
    static char text[65];
    for (int i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return text;
}

static void digests_as_published(void **state) {
    (void)state;
    uint8_t d[32];
    secret_sha256(SPAN_EMPTY, d);
    assert_string_equal(hex(d), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    secret_sha256(SPAN("abc"), d); /* FIPS 180-2 */
    assert_string_equal(hex(d), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void hmac_as_published(void **state) {
    (void)state;
    uint8_t d[32];
    char key[131];
    secret_hmac_sha256(SPAN("Jefe"), SPAN("what do ya want for nothing?"), d); /* RFC 4231, 2 */
    assert_string_equal(hex(d), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key); /* RFC 4231, 6: a key longer than a block */
    secret_hmac_sha256(span_make(key, sizeof key), SPAN("Test Using Larger Than Block-Size Key - Hash Key First"), d);
    assert_string_equal(hex(d), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    secret_hmac_sha256(SPAN_EMPTY, SPAN_EMPTY, d);
    assert_string_equal(hex(d), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void compares_all_octets(void **state) {
    (void)state;
    assert_true(secret_equal(SPAN_EMPTY, SPAN("")));
    assert_true(secret_equal(SPAN("a\0b"), SPAN("a\0b")));
    assert_false(secret_equal(SPAN("a\0b"), SPAN("a\0c")));
    assert_false(secret_equal(SPAN("abc"), SPAN("abcd")));
    assert_false(secret_equal(SPAN("abc"), SPAN("xbc")));
}

static void wipes(void **state) {
    (void)state;
    char text[] = "password";
    secret_wipe(text, 4);
    assert_memory_equal(text, "\0\0\0\0word", 8);
    secret_wipe(text, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_as_published),
        cmocka_unit_test(hmac_as_published),
        cmocka_unit_test(compares_all_octets),
        cmocka_unit_test(wipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
