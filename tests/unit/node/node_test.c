/* The node as a whole, in a process of its own: it starts, reloads and drains; and with a damaged store it still
 * answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/node.h"

static char dir[64], file[128], queue[128], log_file[128];
static uint16_t port;
static pid_t child;

static uint16_t free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void write_settings(const char *user, const char *extra) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fprintf(f,
            "node: {hostname: mx1.example.net, name: t, data_dir: %s/data, user: %s}\n"
            "gateway: {loops: 1, listen: [{address: \"127.0.0.1:%u\"}]}\n"
            "admin: {rpc: \"ipc://%s/admin\"}\n"
            "domains: [{name: example.net, recipients: any, route: \"smtp:127.0.0.1:1\"}]\n%s",
            dir, user, port, dir, extra);
    assert_int_equal(fclose(f), 0);
}

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/node_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/posthouse.yaml", dir);
    snprintf(queue, sizeof queue, "%s/data/queue", dir);
    snprintf(log_file, sizeof log_file, "%s/log", dir);
    port = free_port();
    write_settings("root", "");
    child = 0;
    return 0;
}

static void remove_all(const char *path) {
    DIR *d = opendir(path);
    struct dirent *e;
    char inner[512];
    while (d && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        struct stat st;
        if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
            remove_all(inner);
        else
            unlink(inner);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static int tear_down(void **state) {
    (void)state;
    if (child) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    remove_all(dir);
    return 0;
}

static int run_node(void) {
    struct settings *s;
    struct node *n;
    struct buf problems;
    int fd = open(log_file, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        return EX_OSERR;
    buf_init(&problems, 65536);
    if (settings_load(&s, file, &problems) != ERR_OK)
        return EX_CONFIG;
    int status = node_open(&n, s);
    if (status != EX_OK)
        return status;
    status = node_run(n);
    node_close(n);
    return status;
}

static void start(void) {
    unlink(log_file);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(run_node());
}

/* Waits for at most 20 s; -1: still there. */
static int wait_end(void) {
    int status;
    for (int i = 0; i < 2000; i++, usleep(10000)) {
        if (waitpid(child, &status, WNOHANG) == child) {
            child = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        }
    }
    return -1;
}

static bool log_has(const char *text) {
    static char all[65536];
    FILE *f = fopen(log_file, "r");
    size_t len = f ? fread(all, 1, sizeof all - 1, f) : 0;
    if (f)
        fclose(f);
    all[len] = 0;
    return strstr(all, text) != NULL;
}

static void wait_log(const char *text) {
    for (int i = 0; i < 2000; i++, usleep(10000))
        if (log_has(text))
            return;
    fail_msg("the log never said: %s", text);
}

static FILE *talk(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {20, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    FILE *f = fdopen(fd, "r+");
    assert_non_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    return f;
}

/* Sends a line (none when NULL) and returns the code of the reply. */
static int say(FILE *f, const char *line) {
    static char reply[1024];
    if (line)
        fprintf(f, "%s\r\n", line);
    do {
        if (!fgets(reply, sizeof reply, f))
            return 0;
    } while (reply[3] == '-');
    return (int)strtol(reply, NULL, 10);
}

static void starts_reloads_and_drains(void **state) {
    (void)state;
    start();
    wait_log(" ready ");
    struct stat st;
    assert_int_equal(stat(queue, &st), 0);
    FILE *f = talk();
    assert_int_equal(say(f, NULL), 220);
    assert_int_equal(say(f, "HELO c"), 250);
    for (int i = 0, code = 0; i < 500 && code != 250; i++, usleep(10000))
        code = say(f, "MAIL FROM:<a@b.example>"); /* 451 until the queue is there */
    assert_int_equal(say(f, "RCPT TO:<x@example.net>"), 250);
    assert_int_equal(say(f, "DATA"), 354);
    assert_int_equal(say(f, "Subject: x\r\n\r\nhello\r\n."), 250);
    write_settings("root", "colour: blue\n");
    assert_int_equal(kill(child, SIGHUP), 0);
    wait_log("colour: unknown key");
    wait_log("reload_refused");
    write_settings("root", "scheduler: {active_max: 5000}\n");
    assert_int_equal(kill(child, SIGHUP), 0);
    wait_log("reloaded");
    assert_int_equal(say(f, "NOOP"), 250);
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(say(f, NULL), 421); /* the session is told */
    fclose(f);
    assert_int_equal(wait_end(), EX_OK);
    assert_true(log_has("stopped"));
}

static void a_second_signal_ends_at_once(void **state) {
    (void)state;
    start();
    wait_log(" ready ");
    FILE *f = talk();
    assert_int_equal(say(f, NULL), 220);
    assert_int_equal(say(f, "HELO c"), 250);
    fprintf(f, "NO"); /* in the middle of a command: the drain would wait */
    assert_int_equal(kill(child, SIGTERM), 0);
    wait_log("drain");
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(wait_end(), EX_OK);
    fclose(f);
}

/* Turns one octet in the middle of every log and manifest. */
static void damage(void) {
    DIR *d = opendir(queue);
    struct dirent *e;
    char path[512];
    int files = 0;
    assert_non_null(d);
    while ((e = readdir(d))) {
        struct stat st;
        char c;
        size_t len = strlen(e->d_name);
        snprintf(path, sizeof path, "%s/%s", queue, e->d_name);
        bool wanted = strncmp(e->d_name, "MANIFEST", 8) == 0 || (len > 4 && strcmp(e->d_name + len - 4, ".log") == 0);
        if (!wanted || stat(path, &st) != 0 || st.st_size < 64)
            continue;
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &c, 1, st.st_size / 3), 1);
        c = (char)~c;
        assert_int_equal(pwrite(fd, &c, 1, st.st_size / 3), 1);
        close(fd);
        files++;
    }
    closedir(d);
    assert_true(files > 0);
}

static void a_damaged_store_is_named_and_mail_put_off(void **state) {
    (void)state;
    start();
    wait_log(" ready ");
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(wait_end(), EX_OK);
    damage();
    start();
    wait_log(" ready ");
    assert_true(log_has("store_refused"));
    assert_true(log_has("damage="));
    assert_true(log_has("queue_closed"));
    FILE *f = talk();
    assert_int_equal(say(f, NULL), 220);
    assert_int_equal(say(f, "HELO c"), 250);
    assert_int_equal(say(f, "MAIL FROM:<a@b.example>"), 451);
    assert_int_equal(say(f, "RCPT TO:<x@example.net>"), 503);
    assert_int_equal(say(f, "QUIT"), 221);
    fclose(f);
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(wait_end(), EX_OK);
}

static void says_why_it_does_not_start(void **state) {
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    start();
    assert_int_equal(wait_end(), EX_UNAVAILABLE); /* somebody else has the port */
    assert_true(log_has("bind_failed"));
    close(fd);
    if (geteuid() == 0) {
        write_settings("no-such-user-here", "");
        start();
        assert_int_equal(wait_end(), EX_NOPERM);
        assert_true(log_has("user_unknown"));
        write_settings("root", "");
    }
    char data[128], elsewhere[128];
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", dir);
    assert_int_equal(mkdir(elsewhere, 0700), 0);
    assert_int_equal(symlink(elsewhere, data), 0);
    start();
    assert_int_equal(wait_end(), EX_NOPERM);
    assert_true(log_has("symbolic links are not followed"));
    unlink(data);
    start();
    wait_log(" ready ");
    pid_t first = child;
    write_settings("root", ""); /* a second one beside it: same store, same socket */
    start();
    assert_int_equal(wait_end(), EX_UNAVAILABLE);
    child = first;
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(wait_end(), EX_OK);
}

/* Root reads everything at the start; what its user cannot read would fail at the first reload. */
static void warns_of_what_its_user_cannot_read(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    write_settings("nobody", "");
    assert_int_equal(chmod(file, 0600), 0);
    assert_int_equal(chmod(dir, 0711), 0);
    start();
    wait_log("file_not_readable");
    assert_true(log_has("posthouse.yaml"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(warns_of_what_its_user_cannot_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(starts_reloads_and_drains, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_signal_ends_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_store_is_named_and_mail_put_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_why_it_does_not_start, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
