/*
 * data: the body scanner against a plain automaton that reads octet by octet, on random text made of the
 * octets that matter, cut at random places; and its pace on hostile input.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/rand.h"
#include "gateway/smtp/data.h"

enum { TEXT_MAX = 400 };

struct result {
    char body[2 * TEXT_MAX];
    size_t len, used;
    bool ended, bare;
    uint32_t received;
};

static void put(struct result *r, const char *at, size_t len) {
    memcpy(r->body + r->len, at, len);
    r->len += len;
}

/* What the rules say, one octet at a time, with no regard for speed. */
static void oracle(struct span in, bool normalize, struct result *r) {
    bool start = true, real = true;
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < in.len;) {
        struct span rest = span_from(in, i);
        if (start && rest.at[0] == '.') {
            if (real && rest.len >= 3 && memcmp(rest.at, ".\r\n", 3) == 0) {
                r->ended = true;
                r->used = i + 3;
                return;
            }
            if (rest.len > 1 && rest.at[1] != '\r' && rest.at[1] != '\n') {
                put(r, rest.at + 1, 1);
                start = false;
                i += 2;
                continue;
            }
        }
        bool cr = rest.at[0] == '\r', lf = rest.at[0] == '\n';
        bool crlf = cr && rest.len > 1 && rest.at[1] == '\n';
        if (crlf || cr || lf) {
            r->bare = r->bare || !crlf;
            put(r, crlf || normalize ? "\r\n" : rest.at, crlf || normalize ? 2 : 1);
            start = true;
            real = crlf;
            i += crlf ? 2 : 1;
            continue;
        }
        put(r, rest.at, 1);
        start = false;
        i++;
    }
    r->used = in.len;
}

static void scan(struct span in, bool normalize, struct rand *rand, struct result *r) {
    struct data d;
    size_t at = 0, given = 0;
    memset(r, 0, sizeof *r);
    data_init(&d, DATA_DOTS, normalize);
    while (!r->ended) {
        struct span body;
        size_t used;
        enum data_event event = data_next(&d, span_make(in.at + at, given - at), false, &used, &body);
        at += used;
        if (event == DATA_BODY)
            put(r, body.at, body.len);
        r->ended = event == DATA_END;
        if (event == DATA_MORE && given == in.len)
            break;
        if (event == DATA_MORE) {
            given += 1 + rand_below(rand, 9);
            given = given < in.len ? given : in.len;
        }
    }
    assert_int_equal(d.size, r->len);
    r->used = at;
    r->bare = d.faults & DATA_FAULT_BARE;
    r->received = d.received;
}

static void test_against_oracle(void **state) {
    static const char octets[] = "\r\n.\r\n.ab";
    struct rand rand;
    (void)state;
    rand_init(&rand, 20261124);
    for (int round = 0; round < 200000; round++) {
        char text[TEXT_MAX];
        struct result want, got;
        size_t len = 1 + rand_below(&rand, 60);
        bool pairs = rand_below(&rand, 2);
        for (size_t i = 0; i < len; i++) {
            text[i] = octets[rand_below(&rand, sizeof octets - 1)];
            if (pairs && i && text[i - 1] == '\r')
                text[i] = '\n';
        }
        memcpy(text + len, "xx\r\n.\r\n", 7); /* a true end, so that nothing is left waiting */
        struct span in = span_make(text, len + 7);
        bool normalize = rand_below(&rand, 2);
        oracle(in, normalize, &want);
        scan(in, normalize, &rand, &got);
        assert_true(want.ended && got.ended);
        assert_int_equal(want.used, got.used);
        assert_int_equal(want.bare && !normalize, got.bare);
        assert_int_equal(want.len, got.len);
        assert_memory_equal(want.body, got.body, got.len);
    }
}

static void test_headers_are_counted_in_the_header_only(void **state) {
    static const char text[] = "Received: a\r\n\tReceived: folded\r\nreCEived:b\r\nReceive: c\r\n.Received: dotted\r\n"
                               "\r\nReceived: body\r\n.\r\n";
    struct rand rand;
    struct result got;
    (void)state;
    rand_init(&rand, 1);
    for (int i = 0; i < 1000; i++) {
        scan(SPAN(text), false, &rand, &got);
        assert_int_equal(got.received, 3);
    }
}

/* A flood of one octet must not cost more than its length: quadratic scanning would take minutes. */
static void test_pace(void **state) {
    static const char *const floods[] = {"\r", "\n", "\r\n", ".", "x", "\r\n.", "Received:"};
    static char block[32768];
    (void)state;
    for (size_t f = 0; f < sizeof floods / sizeof *floods; f++) {
        size_t unit = strlen(floods[f]);
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = floods[f][i % unit];
        for (int normalize = 0; normalize < 2; normalize++) {
            struct data d;
            size_t at = 0;
            data_init(&d, DATA_DOTS, normalize);
            uint64_t start = clock_mono_ms();
            for (int round = 0; round < 64; round++) {
                enum data_event event = DATA_AGAIN;
                for (at = 0; event != DATA_MORE && event != DATA_END;) {
                    struct span body;
                    size_t used;
                    event = data_next(&d, span_from(span_make(block, sizeof block), at), false, &used, &body);
                    at += used;
                }
            }
            assert_true(clock_mono_ms() - start < 5000);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_oracle),
        cmocka_unit_test(test_headers_are_counted_in_the_header_only),
        cmocka_unit_test(test_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
