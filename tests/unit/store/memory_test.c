/* memory: crashes lose exactly the unsynced end, iterators see a snapshot, failures are as asked for. */
#include "tests/unit/store/place.h"

#include <pthread.h>

#include "base/rand.h"
#include "store/memory.h"

static int setup(void **state) {
    return store_memory_open((struct store **)state);
}

static int teardown(void **state) {
    store_close(*state);
    return 0;
}

/* A model of small keys: value[k] is 0 (absent) or a number; one picture for each batch since the last sync. */
enum { KEYS = 24, PICTURES = 64 };
struct model {
    int value[PICTURES][KEYS];
    size_t synced_behind; /* picture 0 is synced; later ones are not */
};

static void key_text(int k, char to[8]) {
    snprintf(to, 8, "k%02u", (unsigned)k % 100);
}

static void check_against(struct store *s, const int *value) {
    struct store_iter *it;
    struct span key, at;
    int k = 0, live = 0;
    assert_int_equal(store_iter_open(&it, s, STORE_META, SPAN("k"), SPAN("l")), ERR_OK);
    for (; store_iter_next(it, &key, &at); k++, live++) {
        char name[8];
        uint64_t n;
        while (k < KEYS && !value[k])
            k++;
        assert_true(k < KEYS);
        key_text(k, name);
        assert_true(span_eq(key, span_of(name)));
        assert_true(span_u64(at, &n));
        assert_int_equal(n, value[k]);
    }
    for (; k < KEYS; k++)
        assert_int_equal(value[k], 0);
    store_iter_close(it);
    assert_int_equal(store_memory_count(s, STORE_META), live);
}

static void random_batch(struct rand *r, struct store_batch *b, int *value) {
    for (uint64_t n = 1 + rand_below(r, 6); n; n--) {
        int k = (int)rand_below(r, KEYS);
        char name[8], other[8], text[16];
        key_text(k, name);
        uint64_t what = rand_below(r, 10);
        if (what < 6) {
            value[k] = (int)(1 + rand_below(r, 1000000));
            snprintf(text, sizeof text, "%d", value[k]);
            store_put(b, STORE_META, span_of(name), span_of(text));
        } else if (what < 9) {
            value[k] = 0;
            store_delete(b, STORE_META, span_of(name));
        } else {
            int end = k + (int)rand_below(r, 5);
            key_text(end, other);
            store_delete_range(b, STORE_META, span_of(name), span_of(other));
            for (int i = k; i < end && i < KEYS; i++)
                value[i] = 0;
        }
    }
}

static void follows_a_model_over_crashes(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    static struct model m;
    size_t now = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct rand r;
        rand_init(&r, seed);
        if (now + 1 == PICTURES || rand_below(&r, 12) == 0) { /* crash */
            size_t keep = (size_t)rand_below(&r, now + 2);
            assert_int_equal(store_memory_unsynced(s), now);
            assert_int_equal(store_memory_crash(s, keep), now);
            memmove(m.value[0], m.value[keep < now ? keep : now], sizeof m.value[0]);
            now = 0;
        } else {
            memcpy(m.value[now + 1], m.value[now], sizeof m.value[0]);
            now++;
            store_batch_clear(b);
            random_batch(&r, b, m.value[now]);
            bool sync = rand_below(&r, 5) == 0;
            assert_int_equal(store_write(s, b, sync), ERR_OK);
            if (sync) {
                memmove(m.value[0], m.value[now], sizeof m.value[0]);
                now = 0;
            }
        }
        check_against(s, m.value[now]);
    }
    store_batch_free(b);
}

static void loses_by_seed(void **state) {
    struct store *s = *state;
    bool kept_some = false, lost_some = false;
    for (uint64_t seed = 0; seed < 50; seed++) {
        char key[16];
        for (int i = 0; i < 4; i++) {
            snprintf(key, sizeof key, "s%02d-%d", (int)seed, i);
            assert_int_equal(put_err(s, STORE_META, key, "1", false), ERR_OK);
        }
        size_t lost = store_memory_crash_seeded(s, seed);
        assert_true(lost <= 4);
        for (size_t i = 0; i < 4; i++) {
            snprintf(key, sizeof key, "s%02d-%d", (int)seed, (int)i);
            assert_int_equal(has(s, STORE_META, key, "1"), i < 4 - lost);
        }
        kept_some |= lost < 4;
        lost_some |= lost > 0;
    }
    assert_true(kept_some && lost_some);
}

static void iterators_see_a_snapshot(void **state) {
    struct store *s = *state;
    struct store_iter *it, *later;
    struct span key, value;
    char seen[64] = "";
    put(s, STORE_DUE, "b", "1");
    put(s, STORE_DUE, "d", "1");
    put(s, STORE_DUE, "f", "1");
    assert_int_equal(store_iter_open(&it, s, STORE_DUE, SPAN("a"), SPAN("z")), ERR_OK);
    put(s, STORE_DUE, "c", "2"); /* new */
    put(s, STORE_DUE, "d", "2"); /* changed */
    struct store_batch *b = store_batch_new();
    store_delete(b, STORE_DUE, SPAN("b"));
    store_delete(b, STORE_DUE, SPAN("f"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_int_equal(store_iter_open(&later, s, STORE_DUE, SPAN("a"), SPAN("z")), ERR_OK);
    while (store_iter_next(it, &key, &value)) {
        strncat(seen, key.at, key.len);
        strncat(seen, value.at, value.len);
    }
    assert_string_equal(seen, "b1d1f1");
    store_iter_seek(it, SPAN("c"));
    assert_true(store_iter_next(it, &key, &value));
    assert_true(span_eq(key, SPAN("d")) && span_eq(value, SPAN("1")));
    store_iter_close(it);
    seen[0] = '\0';
    while (store_iter_next(later, &key, &value)) {
        strncat(seen, key.at, key.len);
        strncat(seen, value.at, value.len);
    }
    assert_string_equal(seen, "c2d2");
    store_iter_close(later);
    store_batch_free(b);
    assert_int_equal(store_memory_count(s, STORE_DUE), 2);
}

static void fails_as_asked_for(void **state) {
    struct store *s = *state;
    struct store_report report;
    store_memory_fail(s, 1, ERR_NOMEM, false);
    assert_int_equal(put_err(s, STORE_META, "n", "1", true), ERR_NOMEM);
    assert_int_equal(get_err(s, STORE_META, "n"), ERR_NOT_FOUND); /* it goes on */
    store_memory_fail(s, 2, ERR_NO_SPACE, false);
    assert_int_equal(put_err(s, STORE_META, "a", "1", true), ERR_NO_SPACE);
    assert_int_equal(get_err(s, STORE_META, "a"), ERR_IO);
    assert_int_equal(put_err(s, STORE_META, "a", "1", true), ERR_IO);
    store_memory_fail_reopen(s, 1);
    assert_int_equal(store_reopen(s, &report), ERR_IO);
    assert_int_equal(get_err(s, STORE_META, "a"), ERR_IO);
    assert_int_equal(store_reopen(s, &report), ERR_OK);
    assert_int_equal(get_err(s, STORE_META, "a"), ERR_NOT_FOUND);
    assert_int_equal(put_err(s, STORE_META, "a", "1", true), ERR_NO_SPACE); /* the second */
    assert_int_equal(store_reopen(s, &report), ERR_OK);
    store_memory_fail(s, 1, ERR_IO, true);
    assert_int_equal(put_err(s, STORE_META, "a", "1", true), ERR_IO);
    assert_int_equal(store_reopen(s, &report), ERR_OK);
    assert_true(has(s, STORE_META, "a", "1"));
    assert_int_equal(store_memory_unsynced(s), 1); /* written, never synced */
    store_memory_crash(s, 0);
    assert_int_equal(get_err(s, STORE_META, "a"), ERR_NOT_FOUND);
    assert_true(store_has_room(s, 1));
    store_memory_set_room(s, false);
    assert_false(store_has_room(s, 1));
}

static void counts_what_rocksdb_would_bring_back(void **state) {
    struct store *s = *state;
    put(s, STORE_META, "a", "1");
    put(s, STORE_META, "a", "2");
    put(s, STORE_BODY, "a", "1");
    assert_int_equal(store_memory_rewrites(s), 0);
    put(s, STORE_BODY, "a", "1");
    assert_int_equal(store_memory_rewrites(s), 1);
}

static void takes_a_hundred_thousand_keys(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct rand r;
    rand_init(&r, 5);
    for (int i = 0; i < 100000; i++) {
        char key[24];
        snprintf(key, sizeof key, "%016llx", (unsigned long long)rand_u64(&r));
        store_put(b, STORE_DUE, span_of(key), SPAN("v"));
        if (i % 100 == 99) {
            assert_int_equal(store_write(s, b, i % 1000 == 999), ERR_OK);
            store_batch_clear(b);
        }
    }
    assert_int_equal(store_memory_count(s, STORE_DUE), 100000);
    store_delete_range(b, STORE_DUE, SPAN("0"), SPAN("g"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_int_equal(store_memory_count(s, STORE_DUE), 0);
    store_batch_free(b);
}

static void *write_many(void *arg) {
    for (int i = 0; i < 2000; i++) {
        char key[32];
        snprintf(key, sizeof key, "%p-%d", (void *)&key, i);
        if (put_err(arg, STORE_TRACE, key, "v", i % 7 == 0) != ERR_OK)
            return arg;
    }
    return NULL;
}

static void threads_share_it(void **state) {
    struct store *s = *state;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, s), 0);
    for (int i = 0; i < 50; i++) {
        struct store_iter *it;
        struct span key, value;
        assert_int_equal(store_iter_open(&it, s, STORE_TRACE, SPAN("0"), SPAN("z")), ERR_OK);
        while (store_iter_next(it, &key, &value))
            assert_int_equal(value.len, 1);
        store_iter_close(it);
    }
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(store_memory_count(s, STORE_TRACE), 6000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(follows_a_model_over_crashes, setup, teardown),
        cmocka_unit_test_setup_teardown(loses_by_seed, setup, teardown),
        cmocka_unit_test_setup_teardown(iterators_see_a_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_as_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(counts_what_rocksdb_would_bring_back, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_a_hundred_thousand_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_share_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
