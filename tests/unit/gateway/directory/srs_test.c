/* srs: senders find their way back, and only what we signed, unaltered and young enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway/directory/srs.h"

#define DAY 86400000ull
#define NOW (20000 * DAY + 5000)

static const char *const one[] = {"a secret of sixteen octets"};
static const char *const other[] = {"another secret, as long as it"};
static const char *const both[] = {"another secret, as long as it", "a secret of sixteen octets"};
static const struct srs_config here = {"srs.here.example", one, 1, 21};
static const struct srs_config there = {"there.example", other, 1, 21};
static struct arena mem;

static int setup(void **state) {
    (void)state;
    arena_init(&mem, 4096, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_deinit(&mem);
    return 0;
}

static struct address parse(struct span text) {
    struct address a;
    assert_int_equal(address_parse(&a, text, &mem), ERR_OK);
    return a;
}

static struct span forward(const struct srs_config *c, struct span sender) {
    struct address a = parse(sender);
    struct span out;
    assert_int_equal(srs_forward(c, &a, NOW, &mem, &out), ERR_OK);
    assert_true(parse(out).local.len <= ADDRESS_LOCAL_MAX);
    return out;
}

static int reverse(const struct srs_config *c, struct span recipient, uint64_t now, struct span *out) {
    struct address a = parse(recipient);
    return srs_reverse(c, &a, now, &mem, out);
}

static void assert_back(const struct srs_config *c, struct span rewritten, struct span to) {
    struct span out;
    assert_int_equal(reverse(c, rewritten, NOW, &out), ERR_OK);
    assert_int_equal(out.len, to.len);
    assert_memory_equal(out.at, to.at, to.len);
}

static void test_round_trips(void **state) {
    static const char *const senders[] = {"user@origin.example", "a=b@origin.example",  "A.b+c@x.y.example",
                                          "SRS@origin.example",  "srs0@origin.example", "=@o.example"};
    (void)state;
    for (size_t i = 0; i < sizeof senders / sizeof *senders; i++) {
        struct span out = forward(&here, span_of(senders[i]));
        assert_true(span_starts_nocase(out, SPAN("SRS0=")));
        assert_true(span_ends_nocase(out, SPAN("@srs.here.example")));
        assert_back(&here, out, span_of(senders[i]));
    }
}

static void test_case_folded(void **state) {
    struct span out = forward(&here, SPAN("user@origin.example"));
    char text[200];
    (void)state;
    span_copy(out, text, sizeof text);
    for (char *p = text; *p; p++)
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p | 0x20 : *p);
    assert_back(&here, span_of(text), SPAN("user@origin.example"));
}

/* Each character of the local part but the mark, replaced by each of a few others. */
static void test_altered(void **state) {
    static const char others[] = "a7Q=.";
    struct span out = forward(&here, SPAN("user@origin.example")), back;
    char text[200];
    (void)state;
    size_t len = span_copy(out, text, sizeof text), local = (size_t)span_rfind(out, '@');
    assert_int_equal(len, out.len);
    for (size_t i = 5; i < local; i++) {
        for (const char *o = others; *o; o++) {
            char kept = text[i];
            struct address a;
            if ((kept | 0x20) == (*o | 0x20))
                continue;
            text[i] = *o;
            if (address_parse(&a, span_of(text), &mem) == ERR_OK)
                assert_int_equal(srs_reverse(&here, &a, NOW, &mem, &back), ERR_INVALID);
            text[i] = kept;
        }
    }
    assert_back(&here, span_of(text), SPAN("user@origin.example"));
}

static void test_expired(void **state) {
    struct span out = forward(&here, SPAN("user@origin.example")), back;
    (void)state;
    assert_int_equal(reverse(&here, out, NOW + 21 * DAY, &back), ERR_OK);
    assert_int_equal(reverse(&here, out, NOW + 22 * DAY, &back), ERR_TIMEOUT);
    assert_int_equal(reverse(&here, out, NOW + 900 * DAY, &back), ERR_TIMEOUT);
    assert_int_equal(reverse(&here, out, NOW - DAY, &back), ERR_OK);
    assert_int_equal(reverse(&here, out, NOW - 2 * DAY, &back), ERR_TIMEOUT);
    struct srs_config short_lived = here;
    short_lived.max_age_days = 1;
    assert_int_equal(reverse(&short_lived, out, NOW + DAY, &back), ERR_OK);
    assert_int_equal(reverse(&short_lived, out, NOW + 2 * DAY, &back), ERR_TIMEOUT);
    short_lived.max_age_days = 0;
    assert_int_equal(reverse(&short_lived, out, NOW + 21 * DAY, &back), ERR_OK);
}

static void test_secrets(void **state) {
    struct span out = forward(&here, SPAN("user@origin.example")), back;
    struct srs_config wrong = here, renewed = here;
    (void)state;
    wrong.secrets = other;
    assert_int_equal(reverse(&wrong, out, NOW, &back), ERR_INVALID);
    renewed.secrets = both;
    renewed.secret_count = 2;
    assert_back(&renewed, out, SPAN("user@origin.example"));
    /* What the new one signs, the old one alone does not know. */
    assert_int_equal(reverse(&here, forward(&renewed, SPAN("user@origin.example")), NOW, &back), ERR_INVALID);
}

static void test_two_hops(void **state) {
    struct span first = forward(&there, SPAN("user@o.example"));
    struct span second = forward(&here, first), back;
    (void)state;
    assert_true(span_starts_nocase(second, SPAN("SRS1=")));
    assert_back(&here, second, first);
    assert_back(&there, first, SPAN("user@o.example"));
    /* A third hop points at the first, not at the second. */
    static const struct srs_config third = {"third.example", both, 1, 21};
    struct span again = forward(&third, second);
    assert_true(span_starts_nocase(again, SPAN("SRS1=")));
    assert_back(&third, again, first);
    /* An SRS0 digest does not vouch for an SRS1 and the other way round. */
    char text[200];
    span_copy(second, text, sizeof text);
    text[3] = '0';
    assert_int_equal(reverse(&here, span_of(text), NOW, &back), ERR_INVALID);
}

static void test_other_separators(void **state) {
    struct span second = forward(&here, SPAN("SRS0+abcd=TT=o.example=user@there.example"));
    (void)state;
    assert_back(&here, second, SPAN("SRS0+abcd=TT=o.example=user@there.example"));
    assert_true(srs_is_srs(SPAN("srs1-x")));
    assert_true(srs_is_srs(SPAN("SRS0=x")));
    assert_false(srs_is_srs(SPAN("SRS2=x")));
    assert_false(srs_is_srs(SPAN("SRS0=")));
    assert_false(srs_is_srs(SPAN("SRS0x=")));
    assert_false(srs_is_srs(SPAN("user")));
}

static void test_needs_none(void **state) {
    struct address null = {0}, ours = parse(SPAN("x@SRS.here.example")), a = parse(SPAN("x@o.example"));
    struct srs_config off = here;
    struct span out;
    (void)state;
    assert_int_equal(srs_forward(&here, &null, NOW, &mem, &out), ERR_UNSUPPORTED);
    assert_int_equal(srs_forward(&here, &ours, NOW, &mem, &out), ERR_UNSUPPORTED);
    off.domain = NULL;
    assert_int_equal(srs_forward(&off, &a, NOW, &mem, &out), ERR_UNSUPPORTED);
    assert_int_equal(srs_reverse(&off, &a, NOW, &mem, &out), ERR_INVALID);
}

/* 64 = "SRS0=" 8 "=" 2 "=" domain "=" user: 46 octets are left for domain and user. */
static void test_lengths(void **state) {
    char text[100];
    struct span out;
    (void)state;
    for (int user = 30; user < 50; user++) {
        snprintf(text, sizeof text, "%0*d@o.example", user, 0);
        struct address a = parse(span_of(text));
        int err = srs_forward(&here, &a, NOW, &mem, &out);
        assert_int_equal(err, user + 9 <= 46 ? ERR_OK : ERR_RANGE);
        if (err == ERR_OK)
            assert_back(&here, out, span_of(text));
    }
}

static void test_refused(void **state) {
    struct span back;
    (void)state;
    assert_int_equal(reverse(&here, SPAN("user@srs.here.example"), NOW, &back), ERR_INVALID);
    assert_int_equal(reverse(&here, SPAN("SRS0=x@srs.here.example"), NOW, &back), ERR_INVALID);
    assert_int_equal(reverse(&here, SPAN("SRS1=abcdefgh=@srs.here.example"), NOW, &back), ERR_INVALID);
    assert_int_equal(reverse(&here, SPAN("SRS0=abcdefgh=AA=o.example=u@srs.here.example"), NOW, &back), ERR_INVALID);
    /* Ours, but another domain's. */
    struct span out = forward(&here, SPAN("user@o.example"));
    char text[200];
    size_t at = (size_t)span_rfind(out, '@');
    snprintf(text, sizeof text, "%.*s@o.example", (int)at, out.at);
    assert_int_equal(reverse(&here, span_of(text), NOW, &back), ERR_INVALID);
    struct address quoted = parse(SPAN("\"a b\"@o.example")), literal = parse(SPAN("u@[192.0.2.1]"));
    assert_int_equal(srs_forward(&here, &quoted, NOW, &mem, &out), ERR_RANGE);
    assert_int_equal(srs_forward(&here, &literal, NOW, &mem, &out), ERR_RANGE);
}

static void test_no_memory(void **state) {
    struct address a = parse(SPAN("user@o.example"));
    struct arena tiny;
    struct span out;
    (void)state;
    arena_init(&tiny, 16, 1);
    assert_int_equal(srs_forward(&here, &a, NOW, &tiny, &out), ERR_NOMEM);
    a = parse(forward(&here, SPAN("user@o.example")));
    assert_int_equal(srs_reverse(&here, &a, NOW, &tiny, &out), ERR_NOMEM);
    arena_deinit(&tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trips, setup, teardown),
        cmocka_unit_test_setup_teardown(test_case_folded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_altered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expired, setup, teardown),
        cmocka_unit_test_setup_teardown(test_secrets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_hops, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_separators, setup, teardown),
        cmocka_unit_test_setup_teardown(test_needs_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
