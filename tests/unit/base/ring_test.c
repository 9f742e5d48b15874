/* ring: on only for a listener, the newest lines kept, the lost ones counted, from several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/ring.h"

static struct arena mem;
static struct ring_line lines[RING_LINES];
static struct ring_reading got;

static int set_up(void **state) {
    (void)state;
    arena_init(&mem, 65536, 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    arena_deinit(&mem);
    return 0;
}

static void add(enum ring_kind kind, const char *line) {
    ring_add(kind, span_of(line));
}

static void read_all(enum ring_kind kind, uint64_t after, const char *filter, size_t max) {
    assert_int_equal(ring_read(kind, after, span_of(filter), lines, max, &mem, &got), ERR_OK);
}

static void assert_line(size_t at, uint64_t number, const char *text) {
    assert_true(at < got.count);
    assert_int_equal(lines[at].number, number);
    assert_true(span_eq(lines[at].text, span_of(text)));
}

/* Runs first: the ring is the process's. */
static void off_until_asked(void **state) {
    (void)state;
    assert_false(ring_is_on(RING_EVENTS));
    add(RING_EVENTS, "nobody sees this");
    assert_int_equal(ring_newest(RING_EVENTS), 0);
    assert_true(ring_is_on(RING_EVENTS));
    assert_false(ring_is_on(RING_SMTP_IN));
    read_all(RING_EVENTS, 0, "", 10);
    assert_int_equal(got.count, 0);
    assert_int_equal(got.last, 0);
    add(RING_EVENTS, "one");
    add(RING_EVENTS, "");
    add(RING_EVENTS, "three");
    assert_int_equal(ring_newest(RING_EVENTS), 3);
    read_all(RING_EVENTS, 0, "", 10);
    assert_int_equal(got.count, 3);
    assert_line(0, 1, "one");
    assert_line(1, 2, "");
    assert_line(2, 3, "three");
    assert_true(got.last == 3 && !got.missed && !got.more);
    read_all(RING_EVENTS, 3, "", 10);
    assert_true(!got.count && got.last == 3);
    read_all(RING_EVENTS, 1, "", 1);
    assert_line(0, 2, "");
    assert_true(got.more && got.last == 2);
    read_all(RING_EVENTS, 900, "", 10); /* of another process */
    assert_int_equal(got.count, 3);
    assert_int_equal(got.missed, 0);
}

static void all_words_in_any_case(void **state) {
    (void)state;
    assert_true(ring_matches(SPAN("delivered id=0ABC to=<a@b>"), SPAN("")));
    assert_true(ring_matches(SPAN("delivered id=0ABC to=<a@b>"), SPAN("  0abc DELIVERED ")));
    assert_true(ring_matches(SPAN("x"), SPAN("x")));
    assert_false(ring_matches(SPAN("delivered id=0ABC"), SPAN("delivered 0ABD")));
    assert_false(ring_matches(SPAN("x"), SPAN("xx")));
    assert_false(ring_matches(SPAN(""), SPAN("x")));
    uint64_t from = ring_newest(RING_EVENTS);
    add(RING_EVENTS, "deferred to=<c@d>");
    add(RING_EVENTS, "delivered to=<a@b>");
    add(RING_EVENTS, "deferred to=<a@b>");
    read_all(RING_EVENTS, from, "a@b deferred", 10);
    assert_int_equal(got.count, 1);
    assert_line(0, from + 3, "deferred to=<a@b>");
    assert_int_equal(got.last, from + 3);
    read_all(RING_EVENTS, from, "nothing like it", 10);
    assert_true(!got.count && got.last == from + 3);
}

/* More lines than places, and more octets than there are: the newest stay, whole and in order. */
static void overwrites_the_oldest(void **state) {
    (void)state;
    static char long_line[RING_LINE_MAX + 100], expected[RING_LINE_MAX + 1];
    uint64_t from = ring_newest(RING_SMTP_IN);
    for (uint32_t i = 0; i < RING_LINES + 50; i++) {
        char text[32];
        snprintf(text, sizeof text, "line %u", i);
        add(RING_SMTP_IN, text);
    }
    read_all(RING_SMTP_IN, from, "", RING_LINES);
    assert_int_equal(got.count, RING_LINES);
    assert_int_equal(got.missed, 50);
    assert_line(0, from + 51, "line 50");
    assert_line(RING_LINES - 1, from + RING_LINES + 50, "line 4145");
    for (uint32_t round = 0; round < 3 * RING_BYTES / RING_LINE_MAX; round++) {
        uint64_t before = ring_newest(RING_SMTP_IN);
        size_t len = round % 7 ? (round * 977u) % (RING_LINE_MAX + 90) : 0;
        memset(long_line, 'a' + (int)(round % 26), len);
        long_line[len] = '\0';
        add(RING_SMTP_IN, long_line);
        read_all(RING_SMTP_IN, before ? before - 1 : 0, "", 10);
        memcpy(expected, long_line, RING_LINE_MAX);
        expected[len < RING_LINE_MAX ? len : RING_LINE_MAX] = '\0';
        assert_line(got.count - 1, before + 1, expected);
        arena_reset(&mem);
    }
    read_all(RING_SMTP_IN, 0, "", RING_LINES);
    size_t bytes = 0;
    for (size_t i = 0; i < got.count; i++) {
        assert_int_equal(lines[i].number, got.last - got.count + 1 + i);
        bytes += lines[i].text.len;
        for (size_t k = 1; k < lines[i].text.len && lines[i].text.at[0] != 'l'; k++)
            assert_int_equal(lines[i].text.at[k], lines[i].text.at[0]);
    }
    assert_true(bytes <= RING_BYTES && bytes > RING_BYTES - 4 * RING_LINE_MAX);
    assert_int_equal(got.missed + got.count, got.last);
}

static void without_memory(void **state) {
    struct arena tiny;
    (void)state;
    uint64_t from = ring_newest(RING_EVENTS);
    arena_init(&tiny, 64, 200);
    for (int i = 0; i < 40; i++)
        add(RING_EVENTS, "a line of some length");
    assert_int_equal(ring_read(RING_EVENTS, from, SPAN_EMPTY, lines, 100, &tiny, &got), ERR_NOMEM);
    assert_true(got.count < 40 && got.last == from + got.count);
    arena_deinit(&tiny);
}

static atomic_bool stop;

static void *feed(void *arg) {
    for (int i = 0; i < 20000; i++)
        add(RING_SMTP_IN, arg);
    return NULL;
}

static void *listen_in(void *arg) {
    struct arena own;
    static struct ring_line found[200];
    struct ring_reading r;
    uint64_t after = ring_newest(RING_SMTP_IN), *seen = arg, start = after;
    arena_init(&own, 65536, 0);
    do {
        bool last = atomic_load(&stop);
        do {
            assert_int_equal(ring_read(RING_SMTP_IN, after, SPAN_EMPTY, found, 200, &own, &r), ERR_OK);
            *seen += r.count + r.missed;
            for (size_t i = 0; i < r.count; i++)
                assert_true(span_eq(found[i].text, SPAN("first")) || span_eq(found[i].text, SPAN("the second one")));
            after = r.last;
            arena_reset(&own);
        } while (r.more);
        if (last)
            break;
    } while (true);
    assert_int_equal(*seen, after - start);
    arena_deinit(&own);
    return NULL;
}

static void threads_feed_and_read(void **state) {
    pthread_t feeders[2], reader;
    uint64_t seen = 0, from = ring_newest(RING_SMTP_IN);
    (void)state;
    char first[] = "first", second[] = "the second one";
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&reader, NULL, listen_in, &seen), 0);
    assert_int_equal(pthread_create(&feeders[0], NULL, feed, first), 0);
    assert_int_equal(pthread_create(&feeders[1], NULL, feed, second), 0);
    pthread_join(feeders[0], NULL);
    pthread_join(feeders[1], NULL);
    atomic_store(&stop, true);
    pthread_join(reader, NULL);
    assert_int_equal(ring_newest(RING_SMTP_IN) - from, 40000);
    assert_true(seen <= 40000);
}

/* The log feeds it from level info on, as text, also what standard error is not shown. */
static void the_log_feeds_it(void **state) {
    (void)state;
    int saved = dup(2), none = open("/dev/null", O_WRONLY);
    dup2(none, 2);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_JSON);
    uint64_t from = ring_newest(RING_EVENTS);
    assert_true(log_is_on(LOG_LEVEL_INFO));
    assert_false(log_is_on(LOG_LEVEL_DEBUG));
    LOG_DEBUG("unseen");
    LOG_INFO("delivered", LOG_STR("to", "<a@b>\r\nx"));
    LOG_ERROR("broken", LOG_U64("n", 7));
    dup2(saved, 2);
    close(saved);
    close(none);
    read_all(RING_EVENTS, from, "", 10);
    assert_int_equal(got.count, 2);
    assert_true(span_ends_nocase(lines[0].text, SPAN("Z info delivered to=<a@b>\\x0d\\x0ax")));
    assert_true(span_ends_nocase(lines[1].text, SPAN("Z error broken n=7")));
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(off_until_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_words_in_any_case, set_up, tear_down),
        cmocka_unit_test_setup_teardown(overwrites_the_oldest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_feed_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_log_feeds_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
