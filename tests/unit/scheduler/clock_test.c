/* clock: time in the scheduler goes on, and never back, whatever is done to the wall clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "scheduler/shell.h"
#include "store/memory.h"

static void goes_on_while_the_wall_clock_is_behind(void **state) {
    (void)state;
    static struct scheduler sc; /* as it is when the wall clock has been set back by an hour */
    uint64_t begun_ms = sc.now_ms = clock_wall_ms() + 3600000;
    sc.mono_ms = clock_mono_ms();
    assert_true(scheduler_now(&sc) >= begun_ms);
    nanosleep(&(struct timespec){.tv_nsec = 30000000L}, NULL);
    uint64_t after_ms = scheduler_now(&sc);
    assert_true(after_ms >= begun_ms + 20 && after_ms < begun_ms + 60000);
}

static void follows_the_wall_clock(void **state) {
    (void)state;
    static struct scheduler sc;
    uint64_t before_ms = clock_wall_ms();
    sc.mono_ms = clock_mono_ms();
    uint64_t now_ms = scheduler_now(&sc);
    assert_true(now_ms >= before_ms && now_ms <= clock_wall_ms() + 1);
}

static void begins_behind_what_has_been_read(void **state) {
    (void)state;
    static struct scheduler sc;
    uint64_t read_ms = clock_wall_ms() / 60000 * 60000 + 3600000; /* then the clock was set back by an hour */
    struct store_batch *b = store_batch_new();
    assert_non_null(b);
    assert_int_equal(store_memory_open(&sc.store), ERR_OK);
    sc.config.shards = 2;
    sc.mono_ms = clock_mono_ms();
    assert_int_equal(scheduler_begin_time(&sc), ERR_OK); /* a new store */
    assert_true(scheduler_now(&sc) < read_ms);
    queue_drop_due(b, 1, read_ms);
    assert_int_equal(store_write(sc.store, b, true), ERR_OK);
    assert_int_equal(scheduler_begin_time(&sc), ERR_OK);
    assert_true(scheduler_now(&sc) >= read_ms);
    store_batch_free(b);
    store_close(sc.store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_while_the_wall_clock_is_behind),
        cmocka_unit_test(follows_the_wall_clock),
        cmocka_unit_test(begins_behind_what_has_been_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
