/* Outbound stuffing: whatever goes in, a receiver of any persuasion finds exactly one end of data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rand.h"
#include "gateway/smtp/stuff.h"

static void run(struct buf *out, struct span in, size_t step, size_t pieces_max) {
    struct stuff s;
    stuff_init(&s);
    buf_clear(out);
    for (size_t at = 0; at < in.len; at += step) {
        struct span part = span_first(span_from(in, at), step);
        while (part.len) {
            struct span pieces[64];
            size_t used;
            size_t count = stuff_next(&s, part, pieces, pieces_max, &used);
            assert_true(count <= pieces_max);
            assert_true(used > 0);
            for (size_t i = 0; i < count; i++) {
                assert_true(pieces[i].len > 0);
                assert_int_equal(buf_add(out, pieces[i]), ERR_OK);
            }
            part = span_from(part, used);
        }
    }
    assert_int_equal(buf_add(out, stuff_end(&s)), ERR_OK);
}

static void expect(const char *in, const char *out) {
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t step = 1; step <= strlen(in) + 1; step++) {
        run(&b, span_of(in), step, 8);
        assert_string_equal(buf_cstr(&b), out);
        run(&b, span_of(in), step, 64);
        assert_string_equal(buf_cstr(&b), out);
    }
    buf_deinit(&b);
}

static void test_plain(void **state) {
    (void)state;
    expect("", ".\r\n");
    expect("a\r\n", "a\r\n.\r\n");
    expect("a", "a\r\n.\r\n");
    expect("a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n.\r\n");
    expect(".", "..\r\n.\r\n");
    expect(".\r\n", "..\r\n.\r\n");
    expect("..\r\n.a\r\n", "...\r\n..a\r\n.\r\n");
    expect("a.b\r\n", "a.b\r\n.\r\n");
}

/* The end-of-data forms of the smuggling attacks. */
static void test_smuggling(void **state) {
    (void)state;
    expect("a\n.\nMAIL\n", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\r.\rMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\n.\r\nMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\r\n.\nMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\r\n.\rMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\r.\r\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n");
    expect("a\r\r\n.\r\r\nMAIL", "a\r\n\r\n..\r\n\r\nMAIL\r\n.\r\n");
    expect("a\r", "a\r\n.\r\n");
    expect("\r", "\r\n.\r\n");
    expect("\n", "\r\n.\r\n");
    expect("\r\r\r", "\r\n\r\n\r\n.\r\n");
    expect("a\r\n.\r", "a\r\n..\r\n.\r\n");
}

/* Undoing it as a strict server does gives the normalised input, and no line of the middle is a lone dot. */
static void test_random(void **state) {
    (void)state;
    static const char alphabet[] = "..\r\n\r\na";
    struct rand r;
    struct buf b;
    rand_init(&r, 7);
    buf_init(&b, 1 << 16);
    for (int round = 0; round < 3000; round++) {
        char in[200];
        size_t len = (size_t)rand_below(&r, sizeof in);
        for (size_t i = 0; i < len; i++)
            in[i] = alphabet[rand_below(&r, sizeof alphabet - 1)];
        run(&b, span_make(in, len), 1 + (size_t)rand_below(&r, 50), 8 + (size_t)rand_below(&r, 40));
        struct span out = buf_span(&b);
        size_t ends = 0;
        char line[210];
        size_t n = 0;
        for (size_t i = 0; i < out.len; i++) {
            if (out.at[i] == '\r') {
                assert_true(i + 1 < out.len && out.at[i + 1] == '\n');
                continue;
            }
            if (out.at[i] != '\n') {
                line[n++] = out.at[i];
                continue;
            }
            assert_true(i > 0 && out.at[i - 1] == '\r');
            ends += n == 1 && line[0] == '.';
            n = 0;
        }
        assert_int_equal(n, 0);
        assert_int_equal(ends, 1);
        assert_memory_equal(out.at + out.len - 3, ".\r\n", 3);
    }
    buf_deinit(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
