/* file: the new content is there or the old one, whatever went wrong; what a dead process left does not hinder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/little.h"

static char directory[] = "/tmp/posthouse-file-XXXXXX";
static char path[64], beside[64];

static int make(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return 1;
    snprintf(path, sizeof path, "%s/kept", directory);
    snprintf(beside, sizeof beside, "%s/kept.new", directory);
    return 0;
}

static int drop(void **state) {
    (void)state;
    unlink(path);
    return rmdir(directory); /* nothing else is left in it */
}

struct order {
    const char *text;
    int err;
};

static int fill(void *arg, int fd) {
    const struct order *o = arg;
    int err = file_write_all(fd, span_of(o->text));
    return err ? err : o->err;
}

static void expect(const char *text) {
    char found[64] = "";
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(read(fd, found, sizeof found - 1) >= 0);
    close(fd);
    assert_string_equal(found, text);
}

static void test_replaces_or_leaves(void **state) {
    (void)state;
    struct stat st;
    struct order first = {"first", ERR_OK}, second = {"second", ERR_OK}, bad = {"half", ERR_FULL};
    assert_int_equal(file_replace(path, fill, &first), ERR_OK);
    expect("first");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_replace(path, fill, &bad), ERR_FULL);
    expect("first");
    assert_int_equal(access(beside, F_OK), -1);
    int left = open(beside, O_WRONLY | O_CREAT, 0600); /* by a process that died */
    assert_int_equal(file_write_all(left, SPAN("longer than what comes")), ERR_OK);
    close(left);
    assert_int_equal(file_replace(path, fill, &second), ERR_OK);
    expect("second");
}

static void test_what_cannot_be(void **state) {
    (void)state;
    struct order o = {"text", ERR_OK};
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(file_replace("/nonexistent/folder/file", fill, &o), ERR_IO);
    assert_int_equal(file_replace(longest, fill, &o), ERR_IO);
    assert_int_equal(file_sync_folder("/nonexistent/folder/file"), ERR_IO);
    longest[sizeof longest - 2] = '/';
    assert_int_equal(file_sync_folder(longest), ERR_IO);
    assert_int_equal(file_sync_folder("beside"), ERR_OK);
    assert_int_equal(file_write_all(-1, SPAN("x")), ERR_IO);
    int full = open("/dev/full", O_WRONLY);
    assert_int_equal(file_write_all(full, SPAN("x")), ERR_NO_SPACE);
    close(full);
    assert_int_equal(mkdir(beside, 0700), 0); /* in the way */
    assert_int_equal(file_replace(path, fill, &o), ERR_IO);
    assert_int_equal(rmdir(beside), 0);
}

static void test_numbers(void **state) {
    (void)state;
    char octets[8];
    little_put(octets, 0x0102030405060708u, 8);
    assert_memory_equal(octets, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_true(little_get(octets, 8) == 0x0102030405060708u);
    assert_true(little_get(octets, 4) == 0x05060708u);
    little_put(octets, UINT64_MAX, 4);
    assert_true(little_get(octets, 4) == 0xffffffffu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaces_or_leaves),
        cmocka_unit_test(test_what_cannot_be),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
