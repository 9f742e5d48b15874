/* arena: alignment, big pieces, the maximum, reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/arena.h"

static void hands_out_aligned_pieces_that_do_not_overlap(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 1024, 0);
    unsigned char *pieces[300];
    for (size_t i = 0; i < 300; i++) {
        size_t size = i * 13 % 700;
        pieces[i] = arena_alloc(&a, size);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i & 255), size);
    }
    for (size_t i = 0; i < 300; i++) {
        for (size_t k = 0; k < i * 13 % 700; k++)
            assert_int_equal(pieces[i][k], i & 255);
    }
    assert_true(a.used > 0);
    arena_deinit(&a);
    assert_int_equal(a.used, 0);
}

static void keeps_to_its_maximum(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 1024, 4096);
    size_t got = 0;
    while (arena_alloc(&a, 64))
        got += 64;
    assert_true(got > 2048 && got <= 4096);
    assert_true(a.used <= 4096);
    assert_null(arena_alloc(&a, 5000));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    arena_reset(&a);
    assert_true(a.used <= 1024);
    assert_non_null(arena_alloc(&a, 64));
    assert_non_null(arena_alloc(&a, 2000)); /* a block of its own */
    struct arena_block *head = a.head;
    assert_non_null(arena_alloc(&a, 64)); /* the old block is still in use */
    assert_ptr_equal(a.head, head);
    arena_deinit(&a);
}

static void copies_texts(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0, 0);
    struct span s = arena_dup(&a, SPAN("a\0b"));
    assert_int_equal(s.len, 3);
    assert_memory_equal(s.at, "a\0b", 4);
    assert_non_null(arena_dup(&a, SPAN_EMPTY).at);
    assert_string_equal(arena_strdup(&a, "text"), "text");
    assert_string_equal(arena_printf(&a, "%s %d", "n", 5), "n 5");
    unsigned char *zero = arena_calloc(&a, 10, 10);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zero[i], 0);
    arena_deinit(&a);
    arena_init(&a, 128, 200);
    char big[300];
    memset(big, 'x', sizeof big);
    assert_null(arena_dup(&a, span_make(big, sizeof big)).at);
    assert_null(arena_printf(&a, "%300d", 1));
    arena_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_out_aligned_pieces_that_do_not_overlap),
        cmocka_unit_test(keeps_to_its_maximum),
        cmocka_unit_test(copies_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
