/* bus_keys: files of keys: written once, closed to others, and refused when they are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/net/bus_keys.h"

static char dir[64], file[128];

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/bus_keys_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/key", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    return rmdir(dir);
}

static void write_text(const char *text, mode_t mode) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, mode), 0);
}

static void a_key_is_written_once_and_read_again(void **state) {
    (void)state;
    struct bus_key k, other, got;
    struct stat st;
    char public_key[BUS_KEY_LEN + 1];
    assert_int_equal(bus_key_new(&k), ERR_OK);
    assert_int_equal(bus_key_new(&other), ERR_OK);
    assert_string_not_equal(k.secret_key, other.secret_key);
    assert_int_equal(bus_key_write(file, &k), ERR_OK);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(bus_key_write(file, &other), ERR_EXISTS);
    assert_int_equal(bus_key_read(file, &got), ERR_OK);
    assert_memory_equal(&got, &k, sizeof k);
    assert_int_equal(bus_key_read_public(file, public_key), ERR_OK);
    assert_string_equal(public_key, k.public_key);
    assert_int_equal(bus_key_public(public_key, k.secret_key), ERR_OK);
    assert_string_equal(public_key, k.public_key);
    assert_int_equal(bus_key_write("/tmp/no/such/folder/key", &k), ERR_NOT_FOUND);
    bus_key_wipe(&got);
    assert_int_equal(got.secret_key[0] | got.public_key[0], 0);
}

static void a_link_is_not_written_through(void **state) {
    (void)state;
    struct bus_key k;
    char target[128];
    snprintf(target, sizeof target, "%s/target", dir);
    assert_int_equal(symlink(target, file), 0);
    assert_int_equal(bus_key_new(&k), ERR_OK);
    assert_int_equal(bus_key_write(file, &k), ERR_EXISTS);
    assert_int_equal(access(target, F_OK), -1);
}

static void secrets_that_others_could_read_are_refused(void **state) {
    (void)state;
    static const struct {
        mode_t mode;
        int err;
    } cases[] = {{0600, ERR_OK},     {0640, ERR_OK},     {0400, ERR_OK},    {0644, ERR_DENIED},
                 {0660, ERR_DENIED}, {0604, ERR_DENIED}, {0602, ERR_DENIED}};
    struct bus_key k, got;
    char text[256];
    assert_int_equal(bus_key_new(&k), ERR_OK);
    snprintf(text, sizeof text, "# mine\r\npublic %s\r\nsecret %s\n\n", k.public_key, k.secret_key);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(text, cases[i].mode);
        assert_int_equal(bus_key_read(file, &got), cases[i].err);
    }
    snprintf(text, sizeof text, "public %s\n", k.public_key);
    write_text(text, 0644);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    assert_int_equal(bus_key_read_public(file, got.public_key), ERR_OK);
    assert_string_equal(got.public_key, k.public_key);
    snprintf(text, sizeof text, "%s\n", k.public_key); /* as it was printed */
    write_text(text, 0644);
    memset(&got, 0, sizeof got);
    assert_int_equal(bus_key_read_public(file, got.public_key), ERR_OK);
    assert_string_equal(got.public_key, k.public_key);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
}

static void what_is_no_key_file_is_refused(void **state) {
    (void)state;
    struct bus_key a, b, got;
    char text[5000];
    assert_int_equal(bus_key_new(&a), ERR_OK);
    assert_int_equal(bus_key_new(&b), ERR_OK);
    assert_int_equal(bus_key_read(file, &got), ERR_NOT_FOUND);
    assert_int_equal(bus_key_read(dir, &got), ERR_INVALID);
    write_text("", 0600);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    write_text("secret short\n", 0600);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    snprintf(text, sizeof text, "public %s\nsecret %s\n", a.public_key, b.secret_key);
    write_text(text, 0600);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    snprintf(text, sizeof text, "secret %s\nnonsense\n", a.secret_key);
    write_text(text, 0600);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    memset(text, '#', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    write_text(text, 0600);
    assert_int_equal(bus_key_read(file, &got), ERR_INVALID);
    assert_int_equal(bus_key_read_public(file, text), ERR_INVALID);
}

static void forms_of_keys(void **state) {
    (void)state;
    struct bus_key k;
    char to[BUS_KEY_LEN + 1];
    assert_int_equal(bus_key_new(&k), ERR_OK);
    assert_true(bus_key_is_good(span_of(k.public_key)));
    assert_false(bus_key_is_good(SPAN_EMPTY));
    assert_false(bus_key_is_good(SPAN("#000000000000000000000000000000000000000"))); /* over 32 bits: a comment */
    assert_false(bus_key_is_good(span_first(span_of(k.public_key), BUS_KEY_LEN - 1)));
    assert_false(bus_key_is_good(SPAN("0123456789012345678901234567890123456789X")));
    assert_false(bus_key_is_good(SPAN("\"123456789012345678901234567890123456789")));
    assert_false(bus_key_is_good(span_make("0123456789\0001234567890123456789012345678", 40)));
    assert_int_equal(bus_key_public(to, "nonsense"), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_key_is_written_once_and_read_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_link_is_not_written_through, set_up, tear_down),
        cmocka_unit_test_setup_teardown(secrets_that_others_could_read_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_key_file_is_refused, set_up, tear_down),
        cmocka_unit_test(forms_of_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
