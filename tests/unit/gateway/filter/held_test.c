/* held: exact round trips whatever comes and however it is cut, changes of header and body, bounds, long bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rand.h"

#include "gateway/filter/held.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/held_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    return rmdir(dir); /* fails when a file was left behind */
}

static struct held *held_of(struct span text, size_t piece) {
    struct held *h = held_new(dir);
    assert_non_null(h);
    for (size_t at = 0; at < text.len; at += piece)
        assert_int_equal(held_append(h, span_first(span_from(text, at), piece)), ERR_OK);
    assert_int_equal(held_finish(h), ERR_OK);
    return h;
}

/* Reads all of it in pieces, from the heap, so that a read too far is seen by a sanitizer. */
static struct span all_of(struct held *h, size_t piece) {
    static char *whole;
    free(whole);
    whole = malloc(held_size(h) + 1);
    char *part = malloc(piece);
    size_t len = 0;
    for (;;) {
        ptrdiff_t got = held_read(h, len, part, piece);
        assert_true(got >= 0);
        if (got == 0)
            break;
        assert_true(len + (size_t)got <= held_size(h));
        memcpy(whole + len, part, (size_t)got);
        len += (size_t)got;
    }
    free(part);
    assert_int_equal(len, held_size(h));
    return span_make(whole, len);
}

static void assert_is(struct held *h, const char *text) {
    struct span got = all_of(h, 7);
    assert_int_equal(got.len, strlen(text));
    assert_memory_equal(got.at, text, got.len);
}

static void assert_field(struct held *h, size_t n, const char *name, const char *value) {
    struct span got_name, got_value;
    held_field(h, n, &got_name, &got_value);
    assert_true(span_eq(got_name, span_of(name)));
    assert_true(span_eq(got_value, span_of(value)));
}

static void exact_round_trips(void **state) {
    (void)state;
    static const struct {
        struct span text;
        size_t fields;
        uint64_t body;
    } cases[] = {
        {SPAN(""), 0, 0},
        {SPAN("\r\n"), 0, 0},
        {SPAN("\r\nbody\r\n"), 0, 6},
        {SPAN("A: b\r\n\r\nbody\r\n"), 1, 6},
        {SPAN("A: b\r\n\r\n"), 1, 0},
        {SPAN("A: b\r\n"), 1, 0},
        {SPAN("A: b"), 1, 0},
        {SPAN("A:"), 1, 0},
        {SPAN("A"), 0, 1},
        {SPAN("A: b\r"), 1, 0},
        {SPAN("A: b\r\n\r"), 1, 1},
        {SPAN("A: b\r\n c\r\n\td\r\nB:\r\n\r\nx"), 2, 1},
        {SPAN("A: b\r\n c"), 1, 0},
        {SPAN("A: b\r\n \r\n\r\nx"), 1, 1},
        {SPAN(" folded first\r\nA: b\r\n"), 0, 21},
        {SPAN("A: b\r\nno field here\r\nB: c\r\n"), 1, 21},
        {SPAN("A : b\r\nB\t:c\r\n\r\nx"), 2, 1},
        {SPAN(":\r\n\r\n"), 0, 5},
        {SPAN("A: b\nB: c\r\n\r\n"), 1, 0},
        {SPAN("A: b\rB: c\r\n\r\r\n\r\n"), 1, 5},
        {SPAN("A: b\0c\r\n\r\nx\0y"), 1, 3},
        {SPAN("\0A: b\r\n"), 0, 7},
        {SPAN("A\0: b\r\n"), 0, 7},
        {SPAN("\r\r\n\n\r\n"), 0, 6},
        {SPAN("A:b\r\n\r\n\r\n\r\n"), 1, 4},
        {SPAN("S\xc3\xbc: b\r\n\r\n"), 0, 10},
        {SPAN("A: \xc3\xbc\r\n\r\n"), 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t piece = 1; piece < 25; piece++) {
            struct held *h = held_of(cases[i].text, piece);
            struct span got = all_of(h, piece);
            if (held_count(h) != cases[i].fields || held_body_size(h) != cases[i].body)
                fail_msg("case %zu piece %zu: %zu fields, %u of body", i, piece, held_count(h),
                         (unsigned)held_body_size(h));
            assert_true(span_eq(got, cases[i].text));
            held_free(h);
        }
    }
}

/* Rows of the octets that matter, from a seed. */
static void random_round_trips(void **state) {
    (void)state;
    static const char octets[] = {'A', ':', ' ', '\t', '\r', '\n', 0, 'b', '\r', '\n', 'c', ':'};
    struct rand r;
    rand_init(&r, 7);
    for (int run = 0; run < 3000; run++) {
        char text[64];
        size_t len = rand_below(&r, sizeof text);
        for (size_t i = 0; i < len;) {
            text[i++] = octets[rand_below(&r, sizeof octets)];
            if (text[i - 1] == '\r' && i < len && rand_below(&r, 4))
                text[i++] = '\n';
        }
        struct held *h = held_of(span_make(text, len), 1 + rand_below(&r, 9));
        assert_true(span_eq(all_of(h, 1 + rand_below(&r, 9)), span_make(text, len)));
        if (held_count(h)) { /* a change and a change back of the same kind keep the rest */
            held_remove(h, rand_below(&r, held_count(h)));
            assert_int_equal(held_insert(h, 0, SPAN("New"), SPAN("x")), ERR_OK);
            assert_true(span_starts_nocase(all_of(h, 5), SPAN("New: x\r\n")));
        }
        held_free(h);
    }
}

static void fields_are_found_and_named(void **state) {
    (void)state;
    struct held *h = held_of(SPAN("Subject: one\r\nReceived: a\r\n b\r\nsubject:two\r\nX :  y\r\n\r\nbody"), 5);
    assert_int_equal(held_count(h), 4);
    assert_field(h, 0, "Subject", " one");
    assert_field(h, 1, "Received", " a\r\n b");
    assert_field(h, 2, "subject", "two");
    assert_field(h, 3, "X", "  y");
    assert_int_equal(held_find(h, SPAN("SUBJECT"), 0), 0);
    assert_int_equal(held_find(h, SPAN("SUBJECT"), 1), 2);
    assert_int_equal(held_find(h, SPAN("SUBJECT"), 2), -1);
    assert_int_equal(held_find(h, SPAN("Sub"), 0), -1);
    held_free(h);
}

static void changes_show(void **state) {
    (void)state;
    struct held *h = held_of(SPAN("A: 1\r\nB : 2\r\nC: 3\r\n\r\nbody"), 100);
    assert_int_equal(held_insert(h, 0, SPAN("First"), SPAN("x")), ERR_OK);
    assert_int_equal(held_insert(h, 99, SPAN("Last"), SPAN(" y\n z\r\n\tw")), ERR_OK);
    assert_int_equal(held_change(h, 2, SPAN("two")), ERR_OK);
    assert_is(h, "First: x\r\nA: 1\r\nB : two\r\nC: 3\r\nLast: y\r\n z\r\n\tw\r\n\r\nbody");
    held_remove(h, 1);
    held_remove(h, 0);
    assert_int_equal(held_insert(h, 1, SPAN("M"), SPAN("")), ERR_OK);
    assert_is(h, "B : two\r\nM:\r\nC: 3\r\nLast: y\r\n z\r\n\tw\r\n\r\nbody");
    assert_int_equal(held_body_replace(h), ERR_OK);
    assert_is(h, "B : two\r\nM:\r\nC: 3\r\nLast: y\r\n z\r\n\tw\r\n\r\n");
    assert_int_equal(held_body_append(h, SPAN("new ")), ERR_OK);
    assert_int_equal(held_body_append(h, SPAN("text")), ERR_OK);
    while (held_count(h))
        held_remove(h, 0);
    assert_is(h, "\r\nnew text");
    held_free(h);
}

/* Where there is no empty line a change must not let header and body run into each other. */
static void a_change_divides_header_and_body(void **state) {
    (void)state;
    struct held *h = held_of(SPAN(" looks like a fold\r\n"), 100);
    assert_int_equal(held_insert(h, 0, SPAN("A"), SPAN("b")), ERR_OK);
    assert_is(h, "A: b\r\n\r\n looks like a fold\r\n");
    held_free(h);
    h = held_of(SPAN("A: b"), 100);
    assert_int_equal(held_insert(h, 1, SPAN("B"), SPAN("c")), ERR_OK);
    assert_is(h, "A: b\r\nB: c\r\n");
    assert_int_equal(held_body_replace(h), ERR_OK);
    assert_int_equal(held_body_append(h, SPAN("C: no field")), ERR_OK);
    assert_is(h, "A: b\r\nB: c\r\n\r\nC: no field");
    held_free(h);
}

static void bad_fields_are_refused(void **state) {
    (void)state;
    static const struct span values[] = {SPAN("a\nb"),    SPAN("a\r\nB: c"), SPAN("a\n"),      SPAN("a\r\n"),
                                         SPAN("a\r b"),   SPAN("a\0b"),      SPAN("\r\n"),     SPAN("a\r\n\r\n b"),
                                         SPAN("a\n\n b"), SPAN("\r"),        SPAN("a\r\r\n b")};
    static const struct span names[] = {SPAN(""), SPAN("a b"), SPAN("a:"), SPAN("a\n"), SPAN("\xc3\xbc"), SPAN("a\0")};
    struct held *h = held_of(SPAN("A: 1\r\n\r\nbody"), 100);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_int_equal(held_insert(h, 0, SPAN("X"), values[i]), ERR_INVALID);
        assert_int_equal(held_change(h, 0, values[i]), ERR_INVALID);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(held_insert(h, 0, names[i], SPAN("x")), ERR_INVALID);
    char name[1200];
    memset(name, 'n', sizeof name);
    assert_int_equal(held_insert(h, 0, span_make(name, sizeof name), SPAN("x")), ERR_INVALID);
    assert_is(h, "A: 1\r\n\r\nbody");
    held_free(h);
}

static void the_header_has_a_maximum(void **state) {
    (void)state;
    size_t len = HELD_HEADER_MAX + 100;
    char *text = malloc(len);
    memset(text, 'x', len);
    memcpy(text, "A: ", 3);
    struct held *h = held_new(dir);
    assert_int_equal(held_append(h, span_make(text, len)), ERR_FULL);
    assert_int_equal(held_append(h, SPAN("x")), ERR_FULL);
    assert_int_equal(held_finish(h), ERR_FULL);
    assert_true(held_memory(h) < 3 * HELD_HEADER_MAX);
    held_free(h);

    h = held_of(span_make(text, HELD_HEADER_MAX - 10), 100000); /* one very long field */
    assert_int_equal(held_count(h), 1);
    assert_int_equal(held_insert(h, 0, SPAN("B"), SPAN("0123456789")), ERR_FULL);
    assert_int_equal(held_insert(h, 0, SPAN("B"), SPAN("0")), ERR_OK);
    assert_int_equal(held_change(h, 1, span_make(text, HELD_HEADER_MAX)), ERR_FULL);
    assert_int_equal(held_change(h, 1, SPAN("short")), ERR_OK);
    assert_is(h, "B: 0\r\nA: short\r\n");
    held_free(h);

    h = held_new(dir); /* a line that can be no field is body at once, however long */
    assert_int_equal(held_append(h, span_make(text + 3, HELD_HEADER_MAX)), ERR_OK);
    assert_int_equal(held_append(h, span_make(text + 3, HELD_HEADER_MAX)), ERR_OK);
    assert_int_equal(held_finish(h), ERR_OK);
    assert_int_equal(held_body_size(h), 2 * HELD_HEADER_MAX);
    held_free(h);
    free(text);

    h = held_new(dir);
    int err = ERR_OK;
    for (size_t i = 0; i < HELD_FIELDS_MAX; i++)
        assert_int_equal(held_append(h, SPAN("A: b\r\n")), ERR_OK);
    err = held_append(h, SPAN("A: b\r\n"));
    assert_int_equal(err, ERR_FULL);
    held_free(h);
}

static void long_bodies_lie_in_a_file_without_a_name(void **state) {
    (void)state;
    size_t len = 3 * HELD_MEMORY + 17;
    char *text = malloc(len + 6);
    memcpy(text, "A:\r\n\r\n", 6);
    for (size_t i = 0; i < len; i++)
        text[6 + i] = (char)('a' + (i * 7 + i / 251) % 26);
    struct span whole = span_make(text, len + 6);
    struct held *h = held_of(whole, 10007);
    assert_true(span_eq(all_of(h, 8191), whole));
    assert_true(span_eq(all_of(h, 1 << 20), whole));
    assert_true(held_memory(h) < 2 * HELD_MEMORY);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        assert_int_equal(e->d_name[0], '.');
    closedir(d);
    char some[10];
    assert_int_equal(held_body_read(h, len - 4, some, 10), 4);
    assert_memory_equal(some, text + 6 + len - 4, 4);
    assert_int_equal(held_body_read(h, len, some, 10), 0);
    assert_int_equal(held_body_read(h, len + 1000, some, 10), 0);
    assert_int_equal(held_read(h, held_size(h), some, 10), 0);
    assert_int_equal(held_read(h, 2, some, 6), 6); /* back again */
    assert_memory_equal(some, text + 2, 6);
    assert_int_equal(held_body_replace(h), ERR_OK);
    assert_int_equal(held_body_append(h, span_make(text, len)), ERR_OK);
    assert_int_equal(held_body_size(h), len);
    assert_int_equal(held_size(h), len + 6);
    held_free(h);
    free(text);
}

static void without_a_place_long_bodies_are_refused(void **state) {
    (void)state;
    static char octets[HELD_MEMORY];
    struct held *h = held_new(NULL);
    assert_int_equal(held_append(h, SPAN("\r\n")), ERR_OK);
    assert_int_equal(held_append(h, span_make(octets, sizeof octets)), ERR_OK);
    assert_int_equal(held_append(h, SPAN("x")), ERR_FULL);
    held_free(h);
    h = held_new("/nonexistent/place");
    assert_int_equal(held_append(h, SPAN("\r\n")), ERR_OK);
    assert_int_equal(held_append(h, span_make(octets, sizeof octets)), ERR_OK);
    assert_int_equal(held_append(h, SPAN("x")), ERR_IO);
    assert_int_equal(held_finish(h), ERR_IO);
    held_free(h);
    h = held_new("/dev/full"); /* no directory */
    assert_int_equal(held_append(h, SPAN("\r\n")), ERR_OK);
    assert_int_equal(held_append(h, span_make(octets, sizeof octets)), ERR_OK);
    assert_int_equal(held_append(h, SPAN("x")), ERR_IO);
    held_free(h);
}

static void eight_bit_octets_are_noticed(void **state) {
    (void)state;
    struct held *h = held_of(SPAN("A: b\r\n\r\nbody"), 3);
    assert_false(held_eight_bit(h));
    assert_int_equal(held_insert(h, 0, SPAN("X"), SPAN("\xc3\xbc")), ERR_OK);
    assert_true(held_eight_bit(h));
    held_remove(h, 0);
    assert_false(held_eight_bit(h));
    assert_int_equal(held_body_replace(h), ERR_OK);
    assert_int_equal(held_body_append(h, SPAN("\xe9")), ERR_OK);
    assert_true(held_eight_bit(h));
    assert_int_equal(held_body_replace(h), ERR_OK);
    assert_false(held_eight_bit(h));
    held_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_round_trips),
        cmocka_unit_test(random_round_trips),
        cmocka_unit_test(fields_are_found_and_named),
        cmocka_unit_test(changes_show),
        cmocka_unit_test(a_change_divides_header_and_body),
        cmocka_unit_test(bad_fields_are_refused),
        cmocka_unit_test(the_header_has_a_maximum),
        cmocka_unit_test(long_bodies_lie_in_a_file_without_a_name),
        cmocka_unit_test(without_a_place_long_bodies_are_refused),
        cmocka_unit_test(eight_bit_octets_are_noticed),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
