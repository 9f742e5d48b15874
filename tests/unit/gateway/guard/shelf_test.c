/* shelf: bounded tables: what is kept, what makes room, and that threads may share one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>

#include "base/rand.h"
#include "gateway/guard/shelf.h"

static struct shelf_key key(uint64_t n) {
    return shelf_key_of(&n, sizeof n, 1);
}

static void put(struct shelf *s, uint64_t n) {
    uint64_t *value = shelf_enter(s, key(n), true);
    assert_non_null(value);
    *value = n;
    shelf_leave(s, key(n));
}

static bool has(struct shelf *s, uint64_t n) {
    const uint64_t *value = shelf_enter(s, key(n), false);
    bool found = value != NULL;
    if (found)
        assert_int_equal(*value, n);
    shelf_leave(s, key(n));
    return found;
}

static void entries_are_found_until_removed(void **state) {
    (void)state;
    struct shelf *s;
    assert_int_equal(shelf_new(&s, 100000, sizeof(uint64_t)), ERR_OK);
    for (uint64_t i = 0; i < 10000; i++)
        put(s, i);
    assert_int_equal(shelf_count(s), 10000);
    for (uint64_t i = 0; i < 10000; i += 2) {
        assert_non_null(shelf_enter(s, key(i), false));
        shelf_remove(s, key(i));
        shelf_leave(s, key(i));
    }
    for (uint64_t i = 0; i < 10000; i++)
        assert_int_equal(has(s, i), i % 2);
    for (uint64_t i = 0; i < 10000; i++) /* freed places are used again, and zeroed */
        put(s, i + 20000);
    assert_int_equal(shelf_count(s), 15000);
    const uint64_t *value = shelf_enter(s, key(77777), true);
    assert_int_equal(*value, 0);
    shelf_leave(s, key(77777));
    shelf_free(s);
}

static void the_oldest_makes_room(void **state) {
    (void)state;
    struct shelf *s;
    assert_int_equal(shelf_new(&s, 64 * 4, sizeof(uint64_t)), ERR_OK);
    put(s, 0);
    for (uint64_t i = 1; i < 20000; i++) {
        put(s, i);
        assert_true(has(s, 0)); /* touched all the time: never the oldest */
    }
    assert_true(shelf_count(s) <= 64 * 4);
    assert_true(has(s, 19999));
    assert_false(has(s, 1));
    shelf_set_most(s, 64);
    assert_true(shelf_count(s) <= 64);
    assert_true(has(s, 0));
    shelf_free(s);
}

static void keys_tell_texts_apart(void **state) {
    (void)state;
    struct shelf_key none = {{0}};
    struct shelf_key a = shelf_key_add(shelf_key_add(none, SPAN("ab"), 7), SPAN("c"), 7);
    struct shelf_key b = shelf_key_add(shelf_key_add(none, SPAN("a"), 7), SPAN("bc"), 7);
    struct shelf_key c = shelf_key_add(shelf_key_add(none, SPAN("AB"), 7), SPAN("C"), 7);
    struct shelf_key d = shelf_key_add(shelf_key_add(none, SPAN(""), 7), SPAN("abc"), 7);
    assert_memory_equal(&a, &c, sizeof a);
    assert_memory_not_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &d, sizeof a);
    assert_memory_not_equal(&b, &d, sizeof a);
    assert_int_not_equal(a.word[0], a.word[1]);
}

/* Against a plain array: entries with the same numbers, added and removed at random; none is ever evicted. */
static void it_agrees_with_a_plain_table(void **state) {
    (void)state;
    bool there[3000] = {false};
    size_t count = 0;
    struct shelf *s;
    struct rand r;
    rand_init(&r, 42);
    assert_int_equal(shelf_new(&s, 3000 * 64, sizeof(uint64_t)), ERR_OK);
    for (unsigned step = 0; step < 100000; step++) {
        uint64_t n = rand_below(&r, 3000);
        assert_int_equal(has(s, n), there[n]);
        if (rand_below(&r, 2)) {
            put(s, n);
            count += !there[n];
            there[n] = true;
        } else if (there[n]) {
            assert_non_null(shelf_enter(s, key(n), false));
            shelf_remove(s, key(n));
            shelf_leave(s, key(n));
            there[n] = false;
            count--;
        }
    }
    assert_int_equal(shelf_count(s), count);
    shelf_free(s);
}

static void *work(void *arg) {
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t *value = shelf_enter(arg, key(i % 50), true);
        if (value)
            ++*value;
        shelf_leave(arg, key(i % 50));
        (void)shelf_enter(arg, key(i), true);
        shelf_leave(arg, key(i));
    }
    return NULL;
}

static void threads_share_it(void **state) {
    (void)state;
    struct shelf *s;
    pthread_t threads[4];
    uint64_t sum = 0;
    assert_int_equal(shelf_new(&s, 1000000, sizeof(uint64_t)), ERR_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, s), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t i = 0; i < 50; i++) {
        sum += *(uint64_t *)shelf_enter(s, key(i), false);
        shelf_leave(s, key(i));
    }
    assert_int_equal(sum, 80000);
    assert_int_equal(shelf_count(s), 20000);
    shelf_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_found_until_removed),
        cmocka_unit_test(the_oldest_makes_room),
        cmocka_unit_test(keys_tell_texts_apart),
        cmocka_unit_test(it_agrees_with_a_plain_table),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
