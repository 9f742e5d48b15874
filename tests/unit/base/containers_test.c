/* list, heap and map: each against a plain model over a row of seeded operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/rand.h"

enum { ITEMS = 1000 };
struct item {
    struct list_node in_list;
    struct heap_node in_heap;
    struct map_node in_map;
    uint64_t key;
    unsigned number;
    bool held;
};

static void list_keeps_order(void **state) {
    (void)state;
    struct item items[5] = {0};
    struct list l;
    list_init(&l);
    assert_true(list_is_empty(&l));
    assert_null(list_first(&l));
    assert_null(list_last(&l));
    assert_null(list_pop_front(&l));
    for (unsigned i = 0; i < 4; i++) {
        items[i].number = i;
        list_push_back(&l, &items[i].in_list);
    }
    items[4].number = 4;
    list_push_front(&l, &items[4].in_list);
    assert_int_equal(l.count, 5);
    list_remove(&l, &items[1].in_list);
    assert_false(list_is_linked(&items[1].in_list));
    assert_true(list_is_linked(&items[2].in_list));
    static const unsigned expected[] = {4, 0, 2, 3};
    size_t at = 0;
    LIST_FOREACH(node, next, &l) {
        struct item *it = LIST_ENTRY(node, struct item, in_list);
        assert_int_equal(it->number, expected[at++]);
        list_remove(&l, node);
    }
    assert_int_equal(at, 4);
    assert_true(list_is_empty(&l));
}

static bool less(const struct heap_node *a, const struct heap_node *b) {
    const struct item *x = CONTAINER_OF(a, struct item, in_heap), *y = CONTAINER_OF(b, struct item, in_heap);
    return x->key != y->key ? x->key < y->key : x->number < y->number;
}

static void heap_gives_the_least_after_any_change(void **state) {
    (void)state;
    struct item *items = calloc(ITEMS, sizeof *items);
    struct heap h;
    struct rand r;
    rand_init(&r, 42);
    heap_init(&h, less);
    assert_null(heap_pop(&h));
    for (int step = 0; step < 20000; step++) {
        struct item *it = &items[rand_below(&r, ITEMS)];
        it->number = (unsigned)(it - items);
        uint64_t what = rand_below(&r, 4);
        if (!it->held) {
            it->key = rand_below(&r, 500);
            assert_int_equal(heap_push(&h, &it->in_heap), ERR_OK);
            it->held = true;
        } else if (what == 0) {
            heap_remove(&h, &it->in_heap);
            it->held = false;
        } else {
            it->key = rand_below(&r, 500);
            heap_update(&h, &it->in_heap);
        }
        assert_int_equal(heap_is_linked(&it->in_heap), it->held);
    }
    size_t held = 0;
    for (int i = 0; i < ITEMS; i++)
        held += items[i].held;
    assert_int_equal(h.count, held);
    struct item *last = NULL;
    for (struct heap_node *n; (n = heap_pop(&h)); held--) {
        struct item *it = CONTAINER_OF(n, struct item, in_heap);
        assert_true(!last || less(&last->in_heap, n));
        last = it;
    }
    assert_int_equal(held, 0);
    heap_deinit(&h);
    free(items);
}

static bool same_key(const struct map_node *n, const void *key) {
    return CONTAINER_OF(n, struct item, in_map)->key == *(const uint64_t *)key;
}

static uint64_t weak_hash(uint64_t key) {
    return key % 100; /* many collisions, to walk chains */
}

static void map_finds_what_was_inserted(void **state) {
    (void)state;
    struct item *items = calloc(ITEMS, sizeof *items);
    struct map m;
    struct rand r;
    rand_init(&r, 7);
    map_init(&m);
    uint64_t none = 5;
    assert_null(map_find(&m, 5, same_key, &none));
    assert_null(map_next(&m, NULL));
    for (int step = 0; step < 20000; step++) {
        struct item *it = &items[rand_below(&r, ITEMS)];
        it->key = (uint64_t)(it - items);
        struct map_node *found = map_find(&m, weak_hash(it->key), same_key, &it->key);
        assert_ptr_equal(found, it->held ? &it->in_map : NULL);
        if (it->held)
            map_remove(&m, &it->in_map);
        else
            assert_int_equal(map_insert(&m, &it->in_map, weak_hash(it->key)), ERR_OK);
        it->held = !it->held;
    }
    size_t held = 0, seen = 0;
    for (int i = 0; i < ITEMS; i++)
        held += items[i].held;
    struct map_node *next;
    for (struct map_node *n = map_next(&m, NULL); n; n = next, seen++) {
        next = map_next(&m, n);
        assert_true(CONTAINER_OF(n, struct item, in_map)->held);
        map_remove(&m, n);
    }
    assert_int_equal(seen, held);
    assert_int_equal(m.count, 0);
    map_deinit(&m);
    free(items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_keeps_order),
        cmocka_unit_test(heap_gives_the_least_after_any_change),
        cmocka_unit_test(map_finds_what_was_inserted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
