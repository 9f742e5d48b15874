/* Privileges: the data directory is ours alone, root is given up for good, no core files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/privilege.h"

static char base[64], path[128], other[128];

static int set_up(void **state) {
    (void)state;
    snprintf(base, sizeof base, "/tmp/privilege_test.XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(path, sizeof path, "%s/data", base);
    snprintf(other, sizeof other, "%s/other", base);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    rmdir(path);
    rmdir(other);
    return rmdir(base);
}

static unsigned mode_of(const char *p) {
    struct stat st;
    assert_int_equal(lstat(p, &st), 0);
    return st.st_mode & 07777;
}

static void makes_a_closed_directory(void **state) {
    (void)state;
    mode_t before = umask(0);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_OK);
    umask(before);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_OK);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_OK);
    assert_int_equal(mode_of(path), 0700);
}

static void follows_no_link(void **state) {
    (void)state;
    assert_int_equal(mkdir(other, 0755), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_DENIED);
    assert_int_equal(mode_of(other), 0755); /* and touches nothing behind it */
    unlink(path);
    assert_int_equal(symlink("/nonexistent", path), 0);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_DENIED);
}

static void takes_no_file_and_no_missing_parent(void **state) {
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(privilege_data_dir(path, NULL), ERR_DENIED);
    assert_int_equal(privilege_data_dir("/nonexistent/data", NULL), ERR_IO);
}

static void refuses_what_belongs_to_another(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chown(path, 12345, 12345), 0);
    assert_int_equal(privilege_data_dir(path, "root"), ERR_DENIED);
    assert_int_equal(privilege_data_dir(path, "no-such-user-here"), ERR_NOT_FOUND);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(privilege_data_dir(path, "nobody"), ERR_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_not_equal(st.st_uid, 0);
}

/* In a child, since there is no way back: 0 when all is as it should be, else the number of the question. */
static int in_child(int (*question)(void)) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(question());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static int drop(void) {
    if (privilege_drop("no-such-user-here") != ERR_NOT_FOUND || geteuid() != 0)
        return 1;
    if (privilege_drop("root") != ERR_OK || geteuid() != 0)
        return 2;
    if (privilege_drop("nobody") != ERR_OK || geteuid() == 0 || getuid() == 0 || getegid() == 0)
        return 3;
    if (setuid(0) == 0 || setgid(0) == 0)
        return 4;
    gid_t groups[64];
    int n = getgroups(64, groups);
    for (int i = 0; i < n; i++)
        if (groups[i] == 0)
            return 5;
    if (prctl(PR_GET_DUMPABLE) != 0)
        return 6;
    return privilege_drop("nobody") == ERR_OK ? 0 : 7; /* not root: nothing to do */
}

static void gives_root_up_for_good(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(in_child(drop), 0);
}

static int harden(void) {
    struct rlimit core, files;
    privilege_harden();
    if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_cur != 0 || core.rlim_max != 0)
        return 1;
    if (prctl(PR_GET_DUMPABLE) != 0)
        return 2;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur != files.rlim_max)
        return 3;
    return umask(0) == 077 ? 0 : 4;
}

static void leaves_no_core_and_no_open_mode(void **state) {
    (void)state;
    assert_int_equal(in_child(harden), 0);
}

static void makes_the_directory_of_the_socket(void **state) {
    (void)state;
    char socket_path[160];
    snprintf(socket_path, sizeof socket_path, "%s/admin", path);
    privilege_socket_dir(socket_path, "root");
    assert_int_equal(mode_of(path), 0755);
    assert_int_equal(chmod(path, 0700), 0);
    privilege_socket_dir(socket_path, "root"); /* what is there is left alone */
    assert_int_equal(mode_of(path), 0700);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(makes_a_closed_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(follows_no_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(takes_no_file_and_no_missing_parent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_belongs_to_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gives_root_up_for_good, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leaves_no_core_and_no_open_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(makes_the_directory_of_the_socket, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("privilege", tests, NULL, NULL);
}
