/* keep: written behind one's back and at the end, the newest content wins, damage is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/outbound/keep.h"

static char dir[] = "/tmp/posthouse-keep-XXXXXX", path[64], other[64];

static void wait_for(struct loop *l, struct keep *k) {
    while (!keep_is_ready(k))
        loop_run(l); /* nothing else is to be waited for */
}

static void assert_content(const struct keep *k, const char *text) {
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(keep_read(k, &b), ERR_OK);
    assert_string_equal(buf_cstr(&b), text);
    buf_deinit(&b);
}

static void test_rounds(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct keep *k = keep_new(l, path, "PHtest01");
    struct buf b;
    struct stat st;
    buf_init(&b, 1000);
    assert_int_equal(keep_read(k, &b), ERR_NOT_FOUND);
    assert_int_equal(keep_save_now(k, SPAN_EMPTY), ERR_OK);
    assert_content(k, "");
    buf_add_str(&b, "first");
    keep_save(k, &b);
    assert_int_equal(buf_len(&b), 0);
    assert_false(keep_is_ready(k));
    wait_for(l, k);
    assert_content(k, "first");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    buf_add_str(&b, "older");
    keep_save(k, &b);
    assert_int_equal(keep_save_now(k, SPAN("newer")), ERR_OK); /* waits for the older */
    assert_content(k, "newer");
    buf_add_str(&b, "last");
    keep_save(k, &b);
    keep_free(k); /* waits, too */
    k = keep_new(l, path, "PHtest01");
    assert_content(k, "last");
    keep_free(k);
    keep_free(NULL);
    buf_deinit(&b);
    loop_free(l);
}

static void test_trouble(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct keep *k = keep_new(l, path, "PHtest01"), *next = keep_new(l, path, "PHtest02");
    struct keep *stranger = keep_new(l, path, "PHelse01"), *nowhere = keep_new(l, "/nonexistent/x", "PHtest01");
    struct buf b, small;
    buf_init(&b, 1000);
    buf_init(&small, 3);
    assert_int_equal(keep_save_now(k, SPAN("content")), ERR_OK);
    assert_int_equal(keep_read(next, &b), ERR_VERSION);
    assert_int_equal(keep_read(stranger, &b), ERR_CORRUPT);
    assert_int_equal(keep_read(k, &small), ERR_FULL);
    assert_int_equal(keep_save_now(nowhere, SPAN("content")), ERR_IO);
    buf_add_str(&b, "content");
    keep_save(nowhere, &b); /* is logged */
    wait_for(l, nowhere);
    for (off_t len = 26; len >= 0; len--) {
        assert_int_equal(truncate(path, len), 0);
        assert_int_equal(keep_read(k, &b), ERR_CORRUPT);
    }
    assert_int_equal(keep_save_now(k, SPAN("content")), ERR_OK);
    FILE *f = fopen(path, "a");
    assert_int_equal(fputc('x', f), 'x');
    fclose(f);
    assert_int_equal(keep_read(k, &b), ERR_CORRUPT);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(keep_read(k, &b), ERR_IO); /* links are not followed */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(keep_read(k, &b), ERR_IO);
    assert_int_equal(keep_save_now(k, SPAN("content")), ERR_IO);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(buf_len(&b), 0);
    keep_free(k);
    keep_free(next);
    keep_free(stranger);
    keep_free(nowhere);
    buf_deinit(&b);
    buf_deinit(&small);
    loop_free(l);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/file", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    unlink(other);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds), cmocka_unit_test(test_trouble)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
