/*
 * Settings that come faster than the scheduler's thread takes them over: each is taken once, the last one stays, and
 * none is taken that is not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "scheduler/scheduler.h"
#include "store/memory.h"

enum { RELOADS = 300000 };

static void drained(void *arg) {
    (void)arg;
}

static void test_many_at_once(void **state) {
    (void)state;
    char hostname[64] = "mx.test";
    struct store *store;
    struct scheduler *sc;
    struct bus *bus = bus_new(1);
    struct scheduler_settings s = {.hostname = hostname,
                                   .postmaster = "postmaster@mx.test",
                                   .retry = {.first_ms = 1000, .max_ms = 4000, .give_up_ms = 60000},
                                   .per_site = 5,
                                   .active_max = 1000,
                                   .trace_keep_ms = 3600000};
    struct scheduler_config c = {.bus = bus, .endpoint = "inproc://scheduler", .shards = 1};
    assert_non_null(bus);
    assert_int_equal(store_memory_open(&store), ERR_OK);
    assert_int_equal(scheduler_start(&sc, &c, &s, store), ERR_OK);
    for (unsigned i = 0; i < RELOADS; i++) {
        snprintf(hostname, sizeof hostname, "mx%u.test", i);
        assert_int_equal(scheduler_reconfigure(sc, &s), ERR_OK);
    }
    scheduler_drain(sc, 1000, drained, NULL);
    scheduler_stop(sc);
    store_close(store);
    bus_free(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
