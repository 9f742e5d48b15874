/* greylist: too early, in time, too late; networks that pass; the file, whole and damaged; reloads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/guard/greylist.h"
#include "gateway/guard/guard.h"

enum { MINUTE = 60 * 1000, START = 1000000 };
#define DAY (24ull * 60 * MINUTE)

static struct guard *g;
static struct check_verdict v;
static struct guard_config config;
static char folder[64], file[96], temporary[128];

/* Whether the client is let in. */
static bool tries(const char *ip, const char *from, const char *to, uint64_t wall_ms) {
    struct tcp_addr addr;
    struct guard_client gc = {.score = 0};
    assert_int_equal(tcp_addr_parse(&addr, span_of(ip), 25), ERR_OK);
    struct check_facts f = {
        .client = &addr, .client_ip = span_of(ip), .sender = span_of(from), .recipient = span_of(to)};
    guard_greylist(g, &f, &gc, wall_ms, &v);
    return v.action == CHECK_PASS;
}

static int set_up(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/greylist.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/grey", folder);
    snprintf(temporary, sizeof temporary, "%s.new", file);
    config = (struct guard_config){.greylist_mode = GUARD_ENFORCE};
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    unlink(temporary);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static void start(void) {
    assert_int_equal(guard_new(&g, &config), ERR_OK);
}

static void a_triplet_must_come_again_in_time(void **state) {
    (void)state;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    assert_int_equal(v.reply.code, 451);
    assert_true(span_eq(v.reply.enhanced, SPAN("4.7.1")));
    assert_true(span_eq(v.by, SPAN("greylist")));
    assert_false(v.close);
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE - 1));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE));
    assert_true(tries("192.0.2.254", "A@X.example", "b@y.example", START + 6 * MINUTE)); /* a host beside it */
    assert_false(tries("192.0.3.1", "a@x.example", "b@y.example", START + 6 * MINUTE));
    assert_false(tries("192.0.2.1", "a@x.example", "c@y.example", START + 6 * MINUTE));
    assert_false(tries("192.0.2.1", "c@x.example", "b@y.example", START + 6 * MINUTE));
    assert_true(tries("unix:/x", "c@x.example", "b@y.example", START));
    guard_free(g);
}

static void too_late_begins_anew(void **state) {
    (void)state;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + DAY + 1));
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + DAY + 2 * MINUTE));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 2 * DAY + 1)); /* the last moment */
    uint64_t passed = START + 2 * DAY + 1;
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", passed + 35 * DAY)); /* and remembered again */
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", passed + 70 * DAY));
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", passed + 105 * DAY + 1));
    guard_free(g);
}

static void a_clock_set_back_harms_nobody(void **state) {
    (void)state;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + DAY));
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    guard_free(g);
}

static void the_null_sender_is_a_sender(void **state) {
    (void)state;
    start();
    assert_false(tries("192.0.2.1", "", "b@y.example", START));
    assert_true(tries("192.0.2.1", "", "b@y.example", START + 5 * MINUTE));
    assert_false(tries("192.0.2.1", "", "c@y.example", START + 5 * MINUTE));
    guard_free(g);
}

static void a_network_that_passes_is_let_in(void **state) {
    (void)state;
    char to[32];
    start();
    for (int i = 0; i < 5; i++) {
        snprintf(to, sizeof to, "b%d@y.example", i);
        assert_false(tries("2001:db8::1", "a@x.example", to, START));
    }
    for (int i = 0; i < 5; i++) {
        assert_false(tries("2001:db8::2", "new@x.example", "n@y.example", START + i));
        snprintf(to, sizeof to, "b%d@y.example", i);
        assert_true(tries("2001:db8::1", "a@x.example", to, START + 5 * MINUTE));
    }
    assert_true(tries("2001:db8::ffff", "any@z.example", "b@y.example", START + 6 * MINUTE)); /* the same /64 */
    assert_false(tries("2001:db8:0:1::1", "any@z.example", "b@y.example", START + 6 * MINUTE));
    assert_false(tries("2001:db8::1", "late@z.example", "b@y.example", START + 40 * DAY));
    guard_free(g);
}

static void known_clients_are_let_in(void **state) {
    (void)state;
    struct tcp_addr addr;
    struct guard_client gc = {.good = false};
    start();
    assert_int_equal(tcp_addr_parse(&addr, SPAN("192.0.2.1"), 25), ERR_OK);
    struct check_facts f = {.client = &addr, .client_ip = SPAN("192.0.2.1"), .recipient = SPAN("b@y.example")};
    gc.good = true;
    guard_greylist(g, &f, &gc, START, &v);
    assert_int_equal(v.action, CHECK_PASS);
    gc.good = false;
    f.trusted = true;
    guard_greylist(g, &f, &gc, START, &v);
    assert_int_equal(v.action, CHECK_PASS);
    f.trusted = false;
    f.account = SPAN("joe");
    guard_greylist(g, &f, &gc, START, &v);
    assert_int_equal(v.action, CHECK_PASS);
    f.account = SPAN("");
    guard_greylist(g, &f, &gc, START, &v);
    assert_int_equal(v.action, CHECK_REFUSE);
    guard_free(g);
}

static void modes_and_reloads(void **state) {
    (void)state;
    config.greylist_mode = GUARD_LOG;
    start();
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    config.greylist_mode = GUARD_OFF;
    assert_int_equal(guard_reconfigure(g, &config), ERR_OK);
    assert_true(tries("192.0.2.1", "a@x.example", "c@y.example", START));
    config.greylist_mode = GUARD_ENFORCE;
    config.grey_delay_ms = 10 * MINUTE;
    assert_int_equal(guard_reconfigure(g, &config), ERR_OK);
    assert_false(tries("192.0.2.1", "a@x.example", "c@y.example", START + 5 * MINUTE)); /* not seen while off */
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE)); /* seen while logging */
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 10 * MINUTE));
    config.grey_delay_ms = 2 * DAY; /* longer than a retry may take: nobody would ever pass */
    assert_int_equal(guard_reconfigure(g, &config), ERR_INVALID);
    assert_false(tries("192.0.2.1", "a@x.example", "d@y.example", START));
    assert_true(tries("192.0.2.1", "a@x.example", "d@y.example", START + 10 * MINUTE)); /* the old rules stay */
    guard_free(g);
}

static void a_flood_forgets_no_triplet_that_passed(void **state) {
    (void)state;
    char from[32];
    config.grey_entries = 800;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE));
    assert_false(tries("192.0.2.1", "w@x.example", "b@y.example", START + 5 * MINUTE));
    for (int i = 0; i < 10000; i++) {
        snprintf(from, sizeof from, "a%d@z.example", i);
        assert_false(tries("198.51.100.1", from, "b@y.example", START + 6 * MINUTE));
    }
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 20 * MINUTE));
    assert_false(tries("192.0.2.1", "w@x.example", "b@y.example", START + 20 * MINUTE)); /* waited, and was forgotten */
    guard_free(g);
}

/* -- the file -- */

static void make_file(void) {
    config.grey_file = file;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 5 * MINUTE));
    assert_false(tries("192.0.2.1", "w@x.example", "b@y.example", START + 5 * MINUTE));
    guard_free(g);
}

static void memory_outlives_the_process(void **state) {
    (void)state;
    struct stat st;
    int fd = open(temporary, O_WRONLY | O_CREAT, 0666); /* left by one that died */
    close(fd);
    make_file();
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 8 + 3 * 32 + 12);
    assert_int_equal(access(temporary, F_OK), -1);
    start();
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 6 * MINUTE));
    assert_false(tries("192.0.2.1", "w@x.example", "b@y.example", START + 9 * MINUTE));
    assert_true(tries("192.0.2.1", "w@x.example", "b@y.example", START + 10 * MINUTE));
    guard_free(g);
}

static void reloads_read_another_file(void **state) {
    (void)state;
    make_file();
    config.grey_file = NULL;
    start();
    config.grey_file = file;
    assert_int_equal(guard_reconfigure(g, &config), ERR_OK);
    guard_free(g); /* joins the helper thread */
    start();
    assert_true(tries("192.0.2.1", "a@x.example", "b@y.example", START + 6 * MINUTE));
    guard_free(g);
}

static void ticks_write_it(void **state) {
    (void)state;
    config.grey_file = file;
    start();
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START));
    guard_tick(g, 1000);
    guard_tick(g, 1000 + 5 * MINUTE - 1);
    assert_int_equal(access(file, F_OK), -1);
    guard_tick(g, 1000 + 5 * MINUTE);
    for (int i = 0; i < 10000 && access(file, F_OK); i++)
        usleep(1000);
    assert_int_equal(access(file, F_OK), 0);
    guard_free(g);
}

static size_t read_whole(char *to, size_t size) {
    int fd = open(file, O_RDONLY);
    ssize_t n = read(fd, to, size);
    close(fd);
    assert_true(n > 0);
    return (size_t)n;
}

static void write_whole(const char *bytes, size_t len) {
    unlink(file);
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

static void a_damaged_file_is_ignored(void **state) {
    (void)state;
    char bytes[256], copy[256];
    struct greylist *l;
    make_file();
    size_t len = read_whole(bytes, sizeof bytes);
    assert_int_equal(greylist_new(&l, 1000), ERR_OK);
    for (size_t i = 0; i < len; i++) { /* any octet */
        memcpy(copy, bytes, len);
        copy[i] ^= 4;
        write_whole(copy, len);
        assert_int_equal(greylist_read(l, file), i == 6 || i == 7 ? ERR_VERSION : ERR_CORRUPT);
        assert_int_equal(greylist_count(l), 0);
    }
    for (size_t i = 0; i < len; i++) { /* any length */
        write_whole(bytes, i);
        assert_int_equal(greylist_read(l, file), ERR_CORRUPT);
        assert_int_equal(greylist_count(l), 0);
    }
    memcpy(copy, bytes, len);
    copy[len] = 0;
    write_whole(copy, len + 1);
    assert_int_equal(greylist_read(l, file), ERR_CORRUPT);
    unlink(file);
    assert_int_equal(greylist_read(l, file), ERR_NOT_FOUND);
    assert_int_equal(symlink("/dev/zero", file), 0); /* no link is followed */
    assert_int_equal(greylist_read(l, file), ERR_IO);
    write_whole(bytes, len);
    assert_int_equal(greylist_read(l, file), ERR_OK);
    assert_int_equal(greylist_count(l), 3);
    greylist_free(l);
    write_whole(bytes, len - 1);
    start(); /* with a damaged one: empty, and written anew at the end */
    assert_false(tries("192.0.2.1", "a@x.example", "b@y.example", START + 6 * MINUTE));
    guard_free(g);
    assert_int_equal(read_whole(bytes, sizeof bytes), 8 + 32 + 12);
}

static void a_file_that_cannot_be_written_stays(void **state) {
    (void)state;
    struct greylist *l;
    char bytes[256];
    make_file();
    assert_int_equal(greylist_new(&l, 1000), ERR_OK);
    assert_int_equal(mkdir(temporary, 0700), 0); /* in its way */
    assert_int_equal(greylist_write(l, file), ERR_IO);
    assert_true(greylist_is_changed(l)); /* tried again */
    assert_int_equal(rmdir(temporary), 0);
    assert_int_equal(read_whole(bytes, sizeof bytes), 8 + 3 * 32 + 12);
    assert_int_equal(greylist_write(l, "/nowhere/at/all"), ERR_IO);
    assert_int_equal(greylist_write(l, file), ERR_OK);
    assert_int_equal(read_whole(bytes, sizeof bytes), 8 + 12);
    greylist_free(l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_triplet_must_come_again_in_time),
        TEST(too_late_begins_anew),
        TEST(a_clock_set_back_harms_nobody),
        TEST(the_null_sender_is_a_sender),
        TEST(a_network_that_passes_is_let_in),
        TEST(known_clients_are_let_in),
        TEST(modes_and_reloads),
        TEST(a_flood_forgets_no_triplet_that_passed),
        TEST(memory_outlives_the_process),
        TEST(reloads_read_another_file),
        TEST(ticks_write_it),
        TEST(a_damaged_file_is_ignored),
        TEST(a_file_that_cannot_be_written_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
