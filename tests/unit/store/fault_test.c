/*
 * fault: the real store under failing syncs and writes, a full disk, and sudden death at any of them. What was answered
 * ERR_OK is found, what was refused is not.
 *
 * The program runs itself again with libfault_io.so preloaded (tests/support/fault_io.c).
 */
#include "tests/unit/store/place.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store/commit.h"

static char control[80], done_file[96];

/* Gives the library its orders; NULL: none. */
static void order(const char *lines) {
    char next[100];
    unlink(done_file);
    if (!lines) {
        unlink(control);
        return;
    }
    snprintf(next, sizeof next, "%s.next", control);
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, lines, strlen(lines)), strlen(lines));
    close(fd);
    assert_int_equal(rename(next, control), 0);
}

static int faults_done(void) {
    char text[8192];
    int count = 0, fd = open(done_file, O_RDONLY);
    ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof text);
    for (ssize_t i = 0; i < len; i++)
        count += text[i] == '\n';
    if (fd >= 0)
        close(fd);
    return count;
}

/* -- one request after the other -- */

struct line {
    struct place place;
    struct commit *commit;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool told;
    int result;
};

static int setup(void **state) {
    struct line *l = calloc(1, sizeof *l);
    assert_non_null(l);
    order(NULL);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    place_init(&l->place);
    *state = l;
    return 0;
}

static void open_line(struct line *l) {
    place_open(&l->place);
    assert_int_equal(commit_new(&l->commit, l->place.store, 1 << 20, 64), ERR_OK);
}

static void close_line(struct line *l) {
    commit_free(l->commit);
    l->commit = NULL;
    place_close(&l->place);
}

static int teardown(void **state) {
    struct line *l = *state;
    order(NULL);
    commit_free(l->commit);
    place_deinit(&l->place);
    free(l);
    return 0;
}

static void on_done(struct commit_request *r, int result) {
    struct line *l = r->arg;
    pthread_mutex_lock(&l->lock);
    l->told = true;
    l->result = result;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

/* Submits envelope and body of this number, and settles (keeps) a state of the same number. */
static int post(struct line *l, int number, size_t len) {
    struct commit_request r = {store_batch_new(), store_batch_new(), store_batch_new(), on_done, l, NULL, 0};
    char key[16], *body = malloc(len);
    assert_non_null(body);
    memset(body, 'a' + number % 26, len);
    snprintf(key, sizeof key, "k%06d", number);
    store_put(r.keep, STORE_RECIPIENT, span_of(key), SPAN("state"));
    store_put(r.refusable, STORE_ENVELOPE, span_of(key), SPAN("envelope"));
    store_put(r.refusable, STORE_BODY, span_of(key), span_make(body, len));
    store_single_delete(r.undo, STORE_ENVELOPE, span_of(key));
    store_single_delete(r.undo, STORE_BODY, span_of(key));
    l->told = false;
    commit_submit(l->commit, &r);
    pthread_mutex_lock(&l->lock);
    while (!l->told)
        pthread_cond_wait(&l->wake, &l->lock);
    pthread_mutex_unlock(&l->lock);
    store_batch_free(r.keep);
    store_batch_free(r.refusable);
    store_batch_free(r.undo);
    free(body);
    return l->result;
}

enum presence { ABSENT, PRESENT, BROKEN };
static enum presence look(struct store *s, int number, size_t len) {
    char key[16];
    struct buf b;
    snprintf(key, sizeof key, "k%06d", number);
    buf_init(&b, 4 << 20);
    int envelope = get_err(s, STORE_ENVELOPE, key), body = store_get(s, STORE_BODY, span_of(key), &b);
    bool whole = buf_len(&b) == len;
    for (size_t i = 0; whole && i < len; i++)
        whole = buf_span(&b).at[i] == 'a' + number % 26;
    buf_deinit(&b);
    if (envelope == ERR_NOT_FOUND && body == ERR_NOT_FOUND)
        return ABSENT;
    return envelope == ERR_OK && body == ERR_OK && whole ? PRESENT : BROKEN;
}

static bool is_kept(struct store *s, int number) {
    char key[16];
    snprintf(key, sizeof key, "k%06d", number);
    return has(s, STORE_RECIPIENT, key, "state");
}

/* -- failing calls -- */

static void under(struct line *l, const char *orders, int least_refused, int err_a, int err_b) {
    int results[12], refused = 0;
    open_line(l);
    for (int i = 0; i < 12; i++) {
        if (i == 4)
            order(orders);
        results[i] = post(l, i, 20000);
        if (results[i] != ERR_OK && results[i] != err_a && results[i] != err_b)
            fail_msg("%s: post %d: %s", orders, i, err_text(results[i]));
        refused += results[i] != ERR_OK;
    }
    assert_true(faults_done() > 0);
    assert_true(refused >= least_refused && refused < 8);
    assert_true(commit_is_healthy(l->commit));
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < 12; i++) {
            assert_int_equal(look(l->place.store, i, 20000), results[i] == ERR_OK ? PRESENT : ABSENT);
            assert_true(is_kept(l->place.store, i));
        }
        order(NULL);
        close_line(l);
        open_line(l);
    }
    close_line(l);
    place_clear(l->place.root);
}

static void failing_syncs_are_told_and_repaired(void **state) {
    under(*state, "fdatasync EIO 1 0 .log\n", 1, ERR_IO, ERR_IO);
    under(*state, "fdatasync EIO 1 1 .log\n", 1, ERR_IO, ERR_IO);
    under(*state, "sync EIO 5\n", 1, ERR_IO, ERR_IO);
    under(*state, "fdatasync ENOSPC 2 0 .log\n", 1, ERR_NO_SPACE, ERR_NO_SPACE);
}

static void failing_writes_are_told_and_repaired(void **state) {
    under(*state, "write EIO 1 0 .log\n", 1, ERR_IO, ERR_IO);
    under(*state, "write HALF 1 0 .log\nwrite ENOSPC 1 0 .log\n", 1, ERR_NO_SPACE, ERR_NO_SPACE);
    under(*state, "write HALF 3 0 .log\n", 0, ERR_OK, ERR_OK);
    under(*state, "write EINTR 2 0 .log\n", 0, ERR_OK, ERR_OK);
    under(*state, "output ENOSPC 6\n", 1, ERR_NO_SPACE, ERR_NO_SPACE);
    under(*state, "output EDQUOT 2\n", 1, ERR_NO_SPACE, ERR_NO_SPACE);
}

static void a_failing_flush_is_told_and_repaired(void **state) {
    struct line *l = *state;
    int refused = 0, results[60];
    open_line(l);
    order("output EIO 1 0 .sst\noutput EIO 1 0 .blob\n");
    for (int i = 0; i < 60; i++) {
        results[i] = post(l, i, 100000);
        refused += results[i] != ERR_OK;
    }
    assert_true(faults_done() > 0);
    assert_true(refused < 10);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(look(l->place.store, i, 100000), results[i] == ERR_OK ? PRESENT : ABSENT);
        assert_true(is_kept(l->place.store, i));
    }
}

/* -- sudden death -- */

enum { DEATH_POSTS = 80, DEATH_LEN = 60000, DEATHS = 60 };
static bool acknowledged[DEATHS * (DEATH_POSTS + 2)];

/* Posts until it dies; writes down the number of each post that was answered ERR_OK. */
static void live_until_killed(struct line *l, int from, int to) {
    open_line(l);
    for (int i = from; i < from + DEATH_POSTS; i++)
        if (post(l, i, DEATH_LEN) == ERR_OK && write(to, &i, sizeof i) != sizeof i)
            _exit(1);
    close_line(l);
    _exit(0);
}

static void dies_at(struct line *l, const char *orders, int *next, int *killed) {
    int fds[2], number, last = *next - 1, status = 0;
    assert_int_equal(pipe(fds), 0);
    order(orders);
    pid_t child = fork();
    if (child == 0)
        live_until_killed(l, *next, fds[1]);
    close(fds[1]);
    while (read(fds[0], &number, sizeof number) == sizeof number) {
        assert_int_equal(number, last + 1);
        acknowledged[number] = true;
        last = number;
    }
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    order(NULL);
    if (WIFEXITED(status))
        assert_int_equal(WEXITSTATUS(status), 0);
    else
        assert_int_equal(WTERMSIG(status), SIGKILL);
    *killed += WIFSIGNALED(status);
    place_open(&l->place);
    for (int i = 0; i <= last; i++)
        if (acknowledged[i] && (look(l->place.store, i, DEATH_LEN) != PRESENT || !is_kept(l->place.store, i)))
            fail_msg("%s: post %d of %d was acknowledged and is lost", orders, i, last);
    /* The one under way is there as a whole or not at all. */
    enum presence under_way = look(l->place.store, last + 1, DEATH_LEN);
    assert_int_not_equal(under_way, BROKEN);
    assert_int_equal(is_kept(l->place.store, last + 1), under_way == PRESENT);
    assert_int_equal(look(l->place.store, last + 2, DEATH_LEN), ABSENT);
    place_close(&l->place);
    *next = last + 2;
}

static void sudden_death_loses_nothing(void **state) {
#ifdef __SANITIZE_THREAD__
    skip(); /* a child of a process with threads may begin none there */
#endif
    static const char *const where[] = {"fdatasync KILL 1 %d .log\n", "fdatasync KILLAFTER 1 %d .log\n",
                                        "write KILLAFTER 1 %d .log\n", "output KILL 1 %d\n", "sync KILL 1 %d\n"};
    struct line *l = *state;
    int next = 0, killed = 0;
    for (int round = 0; round < DEATHS; round++) {
        char orders[64];
        int kind = round % 5, depth = round / 5;
        snprintf(orders, sizeof orders, where[kind], kind < 3 ? depth * 7 : depth * depth);
        dies_at(l, orders, &next, &killed);
    }
    assert_true(killed >= 50);
    print_message("%d kills, %d posts\n", killed, next);
}

/* -- a full disk -- */

struct filler {
    char path[120];
    int fd;
};

/* Takes all room that is left. */
static void fill_disk(struct filler *f, const char *root) {
    static char zeros[1 << 16];
    snprintf(f->path, sizeof f->path, "%s/filler", root);
    f->fd = open(f->path, O_WRONLY | O_CREAT, 0600);
    assert_true(f->fd >= 0);
    while (write(f->fd, zeros, sizeof zeros) > 0) {
    }
    while (write(f->fd, zeros, 1) > 0) {
    }
}

static void empty_disk(struct filler *f) {
    close(f->fd);
    assert_int_equal(unlink(f->path), 0);
}

static void *empty_later(void *filler) {
    usleep(400000);
    empty_disk(filler);
    return NULL;
}

static bool mount_small(struct line *l) {
    if (mount("tmpfs", l->place.root, "tmpfs", 0, "size=40m,mode=0700") == 0)
        return true;
    print_message("skipped: mounting a tmpfs is not permitted here: %s\n", strerror(errno));
    return false;
}

static void unmount_small(struct line *l) {
    close_line(l);
    assert_int_equal(umount(l->place.root), 0);
}

static int open_with_reserve(struct line *l, uint64_t reserve) {
    struct store_config c = {.path = l->place.path, .node = "n1", .memory_bytes = 8u << 20, .reserve_bytes = reserve};
    struct store_report report;
    int err = store_open(&l->place.store, &c, &report);
    return err == ERR_OK ? commit_new(&l->commit, l->place.store, 1 << 20, 64) : err;
}

static void the_reserve_keeps_settlements_going(void **state) {
    struct line *l = *state;
    int results[1000], count = 0, refused = 0;
    if (!mount_small(l))
        skip();
    assert_int_equal(open_with_reserve(l, 12 << 20), ERR_OK);
    for (; count < 1000 && refused < 20; count++) {
        results[count] = post(l, count, 100000);
        assert_true(results[count] == ERR_OK || results[count] == ERR_NO_SPACE);
        refused += results[count] == ERR_NO_SPACE;
    }
    assert_int_equal(refused, 20);
    assert_true(commit_is_healthy(l->commit)); /* no write has failed: it was refused before */
    for (int i = 0; i < count; i++) {
        assert_int_equal(look(l->place.store, i, 100000), results[i] == ERR_OK ? PRESENT : ABSENT);
        assert_true(is_kept(l->place.store, i));
    }
    unmount_small(l);
}

static void service_returns_when_room_returns(void **state) {
    struct line *l = *state;
    struct filler filler;
    int results[60], refused = 0;
    if (!mount_small(l))
        skip();
    assert_int_equal(open_with_reserve(l, 0), ERR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(results[i] = post(l, i, 50000), ERR_OK);
    fill_disk(&filler, l->place.root);
    pthread_t helper; /* without a reserve, what must be kept waits until somebody makes room */
    assert_int_equal(pthread_create(&helper, NULL, empty_later, &filler), 0);
    for (int i = 20; i < 60; i++) {
        results[i] = post(l, i, 50000);
        refused += results[i] == ERR_NO_SPACE;
        assert_true(results[i] == ERR_OK || results[i] == ERR_NO_SPACE);
        usleep(20000);
    }
    pthread_join(helper, NULL);
    assert_true(refused > 0);
    assert_int_equal(results[59], ERR_OK);
    assert_true(commit_is_healthy(l->commit));
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < 60; i++) {
            assert_int_equal(look(l->place.store, i, 50000), results[i] == ERR_OK ? PRESENT : ABSENT);
            assert_true(is_kept(l->place.store, i));
        }
        close_line(l);
        assert_int_equal(open_with_reserve(l, 0), ERR_OK);
    }
    unmount_small(l);
}

/* -- running under the library -- */

static void run_preloaded(char **argv) {
    char self[400], library[500];
    const char *given = getenv("FAULT_IO_LIBRARY");
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0)
        exit(1);
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(library, sizeof library, "%s/support/libfault_io.so", self);
    if (access(given ? given : library, R_OK) != 0) {
        fprintf(stderr, "%s is not there: build the target fault_io\n", given ? given : library);
        exit(1);
    }
    char root[] = "/tmp/posthouse-store-XXXXXX", path[64];
    if (!mkdtemp(root))
        exit(1);
    snprintf(path, sizeof path, "%s/control", root);
    setenv("LD_PRELOAD", given ? given : library, 1);
    setenv("FAULT_IO_CONTROL", path, 1);
    setenv("FAULT_IO_PREFIX", "/tmp/posthouse-store-", 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    /* RocksDB forgets a write buffer when its own attempt to go on after a full disk fails. */
    snprintf(path, sizeof path, "%s/leaks", root);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || dprintf(fd, "leak:rocksdb::ErrorHandler::RecoverFromBGError\n") < 0)
        exit(1);
    close(fd);
    snprintf(library, sizeof library, "suppressions=%s", path);
    setenv("LSAN_OPTIONS", library, 0);
    pid_t child = fork();
    if (child == 0) {
        execv("/proc/self/exe", argv);
        _exit(1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    place_clear(root);
    rmdir(root);
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failing_syncs_are_told_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_writes_are_told_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failing_flush_is_told_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(sudden_death_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_reserve_keeps_settlements_going, setup, teardown),
        cmocka_unit_test_setup_teardown(service_returns_when_room_returns, setup, teardown),
    };
    (void)argc;
    if (!getenv("FAULT_IO_CONTROL"))
        run_preloaded(argv);
    snprintf(control, sizeof control, "%s", getenv("FAULT_IO_CONTROL"));
    snprintf(done_file, sizeof done_file, "%s.done", control);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
