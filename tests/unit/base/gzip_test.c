/* gzip: what it packs, gzip(1) unpacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/gzip.h"
#include "base/rand.h"

/* Through `gzip -dc`, with a file as its input. */
static void unpack(struct span packed, struct buf *to) {
    FILE *f = tmpfile();
    int out[2], status;
    assert_non_null(f);
    assert_int_equal(fwrite(packed.at, 1, packed.len, f), packed.len);
    rewind(f);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(f), 0);
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        execlp("gzip", "gzip", "-dc", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    char piece[4096];
    ssize_t n;
    while ((n = read(out[0], piece, sizeof piece)) > 0)
        buf_append(to, piece, (size_t)n);
    close(out[0]);
    fclose(f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_round(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 100, 70000, 1000000};
    struct rand r;
    rand_init(&r, 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int noise = 0; noise < 2; noise++) {
            struct buf in, packed, again, out;
            buf_init(&in, 2000000);
            buf_init(&packed, 2000000);
            buf_init(&again, 2000000);
            buf_init(&out, 2000000);
            for (size_t n = 0; n < sizes[i]; n++)
                buf_add_byte(&in, noise ? (char)rand_u64(&r) : "report"[n % 6]);
            assert_int_equal(gzip_pack(buf_span(&in), &packed), ERR_OK);
            assert_int_equal(gzip_pack(buf_span(&in), &again), ERR_OK);
            assert_true(span_eq(buf_span(&packed), buf_span(&again)));
            assert_true(noise || sizes[i] < 1000 || buf_len(&packed) < sizes[i] / 10);
            unpack(buf_span(&packed), &out);
            assert_true(span_eq(buf_span(&out), buf_span(&in)));
            buf_deinit(&in);
            buf_deinit(&packed);
            buf_deinit(&again);
            buf_deinit(&out);
        }
}

static void test_bounds(void **state) {
    (void)state;
    struct buf small;
    buf_init(&small, 10);
    assert_int_equal(gzip_pack(SPAN("some words"), &small), ERR_FULL);
    assert_int_equal(buf_len(&small), 0);
    assert_int_equal(gzip_pack(span_make("x", ((size_t)1 << 30) + 1), &small), ERR_RANGE);
    buf_deinit(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round), cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
