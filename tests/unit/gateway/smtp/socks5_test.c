/* socks5: what is sent in each turn, octet by octet; all replies at every cut; every code; proxies that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/smtp/socks5.h"

static const uint8_t v4[4] = {192, 0, 2, 25};
static const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 0x25};
#define CONNECT_V4 "\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"
#define CONNECT_V6 "\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x25\x0a\x1b"
#define FINE "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"

static struct socks5 s;
static char sent[3000];
static size_t sent_len, rest_len;

/* Everything that the proxy says, `step` octets at a time, each piece an exact copy. Returns the last verdict. */
static enum socks5_verdict feed(const char *all, size_t len, size_t step) {
    char out[SOCKS5_OUT_MAX];
    size_t out_len, used = 0, have = 0;
    struct span none = SPAN_EMPTY;
    enum socks5_verdict v = socks5_next(&s, &none, out, &out_len);
    memcpy(sent, out, out_len);
    sent_len = out_len;
    while (v == SOCKS5_MORE && have < len) {
        have = have + step < len ? have + step : len;
        do {
            char *copy = malloc(have - used + 1);
            memcpy(copy, all + used, have - used);
            struct span in = span_make(copy, have - used);
            v = socks5_next(&s, &in, out, &out_len);
            used = have - in.len;
            free(copy);
            memcpy(sent + sent_len, out, out_len);
            sent_len += out_len;
        } while (v == SOCKS5_MORE && out_len);
    }
    rest_len = len - used;
    return v;
}

static void init(bool login, bool six) {
    socks5_init(&s, login ? "joe" : NULL, login ? "secret" : NULL, six, six ? v6 : v4, six ? 2587 : 25);
}

static void expect_sent(const char *text, size_t len) {
    assert_int_equal(sent_len, len);
    assert_memory_equal(sent, text, len);
}
#define EXPECT_SENT(text) expect_sent(text, sizeof(text) - 1)
#define FEED(text, step) feed(text, sizeof(text) - 1, step)

static void opens_without_login(void **state) {
    (void)state;
    for (size_t step = 1; step < 20; step++) {
        init(false, false);
        assert_int_equal(FEED("\x05\x00" FINE "220 x", step), SOCKS5_OPEN);
        EXPECT_SENT("\x05\x01\x00" CONNECT_V4);
        assert_int_equal(s.state, SOCKS5_UP);
        if (step >= 17)
            assert_int_equal(rest_len, 5); /* of the mail server */
        init(false, true);
        assert_int_equal(FEED("\x05\x00" FINE, step), SOCKS5_OPEN);
        EXPECT_SENT("\x05\x01\x00" CONNECT_V6);
        assert_int_equal(rest_len, 0);
    }
}

static void opens_with_login(void **state) {
    (void)state;
    for (size_t step = 1; step < 20; step++) {
        init(true, false);
        assert_int_equal(FEED("\x05\x02\x01\x00" FINE, step), SOCKS5_OPEN);
        EXPECT_SENT("\x05\x01\x02"
                    "\x01\x03joe\x06secret" CONNECT_V4);
    }
    char text[SOCKS5_TEXT_MAX + 1];
    memset(text, 'x', SOCKS5_TEXT_MAX);
    text[SOCKS5_TEXT_MAX] = '\0';
    socks5_init(&s, text, text, false, v4, 25);
    assert_int_equal(FEED("\x05\x02\x01\x00" FINE, 1), SOCKS5_OPEN);
    assert_int_equal(sent_len, 3 + SOCKS5_OUT_MAX + 10);
    assert_int_equal((unsigned char)sent[4], 255);
}

/* The address in the reply may be of any kind; every cut of it asks for more. */
static void replies_of_every_length(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } table[] = {
        {"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06", 12},
        {"\x05\x00\x05\x00\x00\x04"
         "0123456789abcdef"
         "\x05\x06",
         24},
        {"\x05\x00\x05\x00\x00\x03\x07"
         "a.proxy"
         "\x05\x06",
         16},
        {"\x05\x00\x05\x00\x00\x03\x00\x05\x06", 9},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (size_t cut = 0; cut < table[i].len; cut++) {
            init(false, false);
            assert_int_equal(feed(table[i].text, cut, 1), SOCKS5_MORE);
            init(false, false);
            assert_int_equal(feed(table[i].text, cut, 100), SOCKS5_MORE);
        }
        init(false, false);
        assert_int_equal(feed(table[i].text, table[i].len, 1), SOCKS5_OPEN);
        assert_int_equal(rest_len, 0);
    }
}

static void codes(void **state) {
    (void)state;
    for (int code = 1; code < 256; code++) {
        char text[] = "\x05\x00\x05?";
        text[3] = (char)code;
        init(false, false);
        assert_int_equal(feed(text, 3, 1), SOCKS5_MORE);
        init(false, false);
        assert_int_equal(feed(text, 4, 1), code >= 3 && code <= 6 ? SOCKS5_TARGET : SOCKS5_REFUSED);
        assert_int_equal(s.state, SOCKS5_FAILED);
        assert_non_null(s.why);
        char out[SOCKS5_OUT_MAX]; /* it stays so */
        size_t out_len;
        struct span in = SPAN(FINE);
        assert_int_equal(socks5_next(&s, &in, out, &out_len), s.verdict);
        assert_int_equal(out_len, 0);
    }
}

static void proxies_that_do_nothing_for_us(void **state) {
    (void)state;
    static const struct {
        bool login;
        const char *text;
        size_t len;
        const char *why;
    } table[] = {
        {false, "HTTP/1.1 400 no\r\n", 17, "it does not speak SOCKS5"},
        {false, "\x04\x5a", 2, "it does not speak SOCKS5"},
        {false, "\x05\xff", 2, "it takes nobody without a login"},
        {true, "\x05\xff", 2, "it takes no user and password"},
        {false, "\x05\x02", 2, "it chose a way to log in that was not offered"},
        {false, "\x05\x01", 2, "it chose a way to log in that was not offered"},
        {true, "\x05\x00", 2, "it chose a way to log in that was not offered"},
        {true, "\x05\x02\x01\x01", 4, "it refuses the user or the password"},
        {true, "\x05\x02\x01\xff", 4, "it refuses the user or the password"},
        {true, "\x05\x02\x05\x00", 4, "its answer to the login makes no sense"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (size_t step = 1; step < 5; step++) {
            init(table[i].login, false);
            assert_int_equal(feed(table[i].text, table[i].len, step), SOCKS5_PROXY);
            assert_string_equal(s.why, table[i].why);
        }
        assert_null(memchr(sent, '\xc0', sent_len)); /* it was not told whom we want */
    }
    init(false, false);
    assert_int_equal(FEED("\x05\x00\x04\x00", 1), SOCKS5_REFUSED);
    init(false, false);
    assert_int_equal(FEED("\x05\x00\x05\x00\x00\x02\x01", 1), SOCKS5_REFUSED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_without_login),
        cmocka_unit_test(opens_with_login),
        cmocka_unit_test(replies_of_every_length),
        cmocka_unit_test(codes),
        cmocka_unit_test(proxies_that_do_nothing_for_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
