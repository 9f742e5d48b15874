/* check: a broken promise names its place and aborts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

static void a_failed_check_aborts_with_its_place(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], 2);
        CHECK(fds[0] < 0);
        _exit(0);
    }
    close(fds[1]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    char text[512] = "";
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    close(fds[0]);
    assert_non_null(strstr(text, "check_test.c:"));
    assert_non_null(strstr(text, "check failed: fds[0] < 0"));
}

static void a_true_check_goes_on(void **state) {
    (void)state;
    int n = 1;
    CHECK(n == 1);
    assert_int_equal(n, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_check_aborts_with_its_place),
        cmocka_unit_test(a_true_check_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
