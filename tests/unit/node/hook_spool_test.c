/* hook_spool: order and numbers across restarts, bounds, tails that a crash cut, records that no longer check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/hook_spool.h"

static char dir[64];
static struct hook_spool *s;
static struct buf got;
static uint64_t damaged, dropped, last;

/* The path of the n-th segment, in the order of numbers; returns how many there are. */
static size_t segment_path(size_t n, char path[512]) {
    struct dirent **names;
    int count = scandir(dir, &names, NULL, alphasort);
    size_t found = 0;
    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        if (strstr(names[i]->d_name, ".seg")) {
            if (found++ == n)
                snprintf(path, 512, "%s/%s", dir, names[i]->d_name);
        }
        free(names[i]);
    }
    free(names);
    return found;
}

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hook_spool_test.XXXXXX");
    buf_init(&got, 1 << 20);
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char path[512];
    hook_spool_close(s);
    s = NULL;
    while (segment_path(0, path))
        unlink(path);
    snprintf(path, sizeof path, "%s/taken", dir);
    unlink(path);
    buf_deinit(&got);
    return rmdir(dir);
}

static void reopen(uint64_t max) {
    hook_spool_close(s);
    assert_int_equal(hook_spool_open(&s, dir, max, &damaged), ERR_OK);
}

static void add(const char *line) {
    assert_int_equal(hook_spool_add(s, span_of(line), &dropped), ERR_OK);
}

static void add_number(uint64_t n, size_t len) {
    char line[HOOK_LINE_MAX];
    memset(line, '.', len);
    snprintf(line, len, "%llu", (unsigned long long)n);
    assert_int_equal(hook_spool_add(s, span_make(line, len), &dropped), ERR_OK);
}

static void expect(size_t max, const char *lines, uint64_t last_one) {
    assert_int_equal(hook_spool_peek(s, max, &got, &last), ERR_OK);
    assert_string_equal(buf_cstr(&got), lines);
    assert_int_equal(last, last_one);
}

static void keeps_order_and_numbers(void **state) {
    (void)state;
    reopen(1 << 20);
    expect(10, "", 0);
    assert_int_equal(hook_spool_next(s), 1);
    add("a");
    add("b");
    add("");
    expect(2, "a\nb\n", 2);
    expect(2, "a\nb\n", 2);
    hook_spool_take(s, 2);
    expect(9, "\n", 3);
    reopen(1 << 20);
    assert_int_equal(damaged, 0);
    assert_int_equal(hook_spool_count(s), 1);
    add("d");
    expect(9, "\nd\n", 4);
    hook_spool_take(s, 4);
    expect(9, "", 0);
    hook_spool_take(s, 3); /* an older number changes nothing */
    reopen(1 << 20);
    assert_int_equal(hook_spool_count(s), 0);
    assert_int_equal(hook_spool_next(s), 5);
    add("e");
    expect(9, "e\n", 5);
}

static void what_was_not_marked_comes_again(void **state) {
    (void)state;
    char path[512];
    reopen(1 << 20);
    add("a");
    add("b");
    hook_spool_take(s, 1);
    snprintf(path, sizeof path, "%s/taken", dir);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\xff", 1, 0), 1); /* torn */
    close(fd);
    reopen(1 << 20);
    expect(9, "a\nb\n", 2);
}

static void a_cut_tail_is_left_out(void **state) {
    (void)state;
    char path[512];
    struct stat st;
    reopen(1 << 20);
    add("first");
    add("second");
    assert_int_equal(segment_path(0, path), 1);
    assert_int_equal(stat(path, &st), 0);
    for (off_t cut = 1; cut < 16 + 6; cut++) { /* every place in the last record */
        assert_int_equal(truncate(path, st.st_size - cut), 0);
        reopen(1 << 20);
        assert_int_equal(damaged, 16 + 6 - cut);
        assert_int_equal(hook_spool_next(s), 2);
        add("second");
        expect(9, "first\nsecond\n", 2);
    }
}

static void a_torn_record_ends_its_segment(void **state) {
    (void)state;
    char path[512], begin[32];
    reopen(HOOK_SPOOL_MIN);
    for (uint64_t n = 1; n <= 12; n++) /* 16 KiB for each segment: 4 lines */
        add_number(n, 4000);
    assert_int_equal(segment_path(0, path), 3);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "X", 1, 4016 * 2 + 100), 1); /* in the third record */
    close(fd);
    reopen(HOOK_SPOOL_MIN);
    assert_int_equal(damaged, 2 * 4016);
    assert_int_equal(hook_spool_count(s), 10);
    static const uint64_t left[] = {1, 2, 5, 6, 7, 8, 9, 10, 11, 12};
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(hook_spool_peek(s, 1, &got, &last), ERR_OK);
        assert_int_equal(last, left[i]);
        int len = snprintf(begin, sizeof begin, "%llu", (unsigned long long)left[i]);
        assert_memory_equal(buf_span(&got).at, begin, len);
        hook_spool_take(s, last);
    }
    assert_int_equal(hook_spool_count(s), 0);
    assert_int_equal(hook_spool_next(s), 13);
}

static void numbers_go_on_when_the_last_segment_is_lost(void **state) {
    (void)state;
    char path[512];
    reopen(1 << 20);
    for (int i = 0; i < 5; i++)
        add("x");
    hook_spool_take(s, 5);
    assert_int_equal(segment_path(0, path), 1);
    assert_int_equal(truncate(path, 3), 0);
    reopen(1 << 20);
    assert_int_equal(damaged, 3);
    assert_int_equal(hook_spool_next(s), 6);
    add("y");
    expect(9, "y\n", 6);
}

static uint64_t size_on_disk(void) {
    char path[512];
    struct stat st;
    uint64_t size = 0;
    for (size_t i = 0; i < segment_path(i, path); i++) {
        assert_int_equal(stat(path, &st), 0);
        size += (uint64_t)st.st_size;
    }
    return size;
}

static void a_full_spool_drops_the_oldest(void **state) {
    (void)state;
    uint64_t lost = 0;
    reopen(HOOK_SPOOL_MIN);
    for (uint64_t n = 1; n <= 2000; n++) {
        add_number(n, 1000);
        lost += dropped;
        assert_true(size_on_disk() <= HOOK_SPOOL_MIN);
        if (n == 1000)
            reopen(HOOK_SPOOL_MIN);
    }
    uint64_t count = hook_spool_count(s);
    assert_int_equal(lost + count, 2000);
    assert_true(count * 1016 > HOOK_SPOOL_MIN / 16 * 14);  /* no more than needed */
    for (uint64_t n = lost + 1; n <= 2000; n = last + 1) { /* what is left is the newest, without a gap */
        assert_int_equal(hook_spool_peek(s, 7, &got, &last), ERR_OK);
        assert_int_equal(strtoull(buf_cstr(&got), NULL, 10), n);
        hook_spool_take(s, last);
    }
    assert_int_equal(hook_spool_count(s), 0);
}

static void a_batch_under_way_may_lose_its_lines(void **state) {
    (void)state;
    uint64_t lost = 0, n = 1;
    reopen(HOOK_SPOOL_MIN);
    for (; n <= 10; n++)
        add_number(n, 1000);
    assert_int_equal(hook_spool_peek(s, 10, &got, &last), ERR_OK);
    assert_int_equal(last, 10);
    for (; lost < 30; n++) {
        add_number(n, 1000);
        lost += dropped;
    }
    hook_spool_take(s, last);
    assert_int_equal(hook_spool_count(s), n - 1 - lost);
    assert_int_equal(hook_spool_peek(s, 1, &got, &last), ERR_OK);
    assert_int_equal(last, lost + 1);
}

static void a_smaller_bound_holds_from_the_next_line_on(void **state) {
    (void)state;
    reopen(4 * HOOK_SPOOL_MIN);
    for (uint64_t n = 1; n <= 900; n++)
        add_number(n, 1000);
    hook_spool_set_max(s, HOOK_SPOOL_MIN);
    add_number(901, 1000);
    assert_true(dropped > 0);
    assert_true(size_on_disk() <= HOOK_SPOOL_MIN);
    hook_spool_set_max(s, 1u << 30);
    add_number(902, 1000);
    assert_int_equal(dropped, 0);
}

static void batches_end_where_the_buffer_does(void **state) {
    (void)state;
    buf_deinit(&got);
    buf_init(&got, 2500);
    reopen(1 << 20);
    for (uint64_t n = 1; n <= 3; n++)
        add_number(n, 1000);
    assert_int_equal(hook_spool_peek(s, 100, &got, &last), ERR_OK);
    assert_int_equal(last, 2);
    hook_spool_take(s, 2);
    assert_int_equal(hook_spool_peek(s, 100, &got, &last), ERR_OK);
    assert_int_equal(last, 3);
}

static void refuses_what_it_cannot_keep(void **state) {
    (void)state;
    char line[HOOK_LINE_MAX + 1] = "", file[128];
    struct hook_spool *none;
    reopen(1 << 20);
    assert_int_equal(hook_spool_add(s, span_make(line, sizeof line), &dropped), ERR_FULL);
    assert_int_equal(hook_spool_add(s, span_make(line, sizeof line - 1), &dropped), ERR_OK);
    snprintf(file, sizeof file, "%s/taken/x", dir);
    assert_int_equal(hook_spool_open(&none, file, 1 << 20, &damaged), ERR_IO);
    assert_null(none);
}

/* RLIMIT_FSIZE stands for a full disk: the write is cut in the middle of a record, and then fails. */
static void a_write_that_fails_costs_the_line_alone(void **state) {
    (void)state;
    struct rlimit before, small = {0};
    reopen(1 << 20);
    add("first");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 40, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int err = hook_spool_add(s, SPAN("a line that is cut"), &dropped);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(err, ERR_IO);
    assert_int_equal(hook_spool_next(s), 2);
    add("second");
    expect(9, "first\nsecond\n", 2);
    reopen(1 << 20);
    assert_int_equal(damaged, 0);
    expect(9, "first\nsecond\n", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_order_and_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_not_marked_comes_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cut_tail_is_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_torn_record_ends_its_segment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_go_on_when_the_last_segment_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_spool_drops_the_oldest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_batch_under_way_may_lose_its_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_smaller_bound_holds_from_the_next_line_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(batches_end_where_the_buffer_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_it_cannot_keep, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_write_that_fails_costs_the_line_alone, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
