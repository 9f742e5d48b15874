/* rocks: what RocksDB really does when files are damaged, and that nothing acknowledged is lost in silence. */
#include "tests/unit/store/place.h"

#include <sys/wait.h>

#include "base/hash.h"
#include "store/backend.h"
#include "store/keys.h"
#include "store/log_scan.h"
#include "store/mark.h"
#include "store/repeat.h"

/* -- the directory and the identity -- */

static void makes_a_directory_for_itself_alone(void **state) {
    struct place *p = *state;
    struct stat st;
    assert_int_equal(lstat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    char path[400];
    assert_true(find_file(p->path, ".log", true, path));
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
}

static void refuses_directories_that_others_reach(void **state) {
    struct place *p = *state;
    struct store_report report;
    char real[400];
    place_close(p);
    assert_int_equal(chmod(p->path, 0770), 0);
    assert_int_equal(place_try(p, &report), ERR_DENIED);
    assert_non_null(strstr(report.damage, "written by others"));
    assert_int_equal(chmod(p->path, 0700), 0);
    join(real, p->root, "real");
    assert_int_equal(rename(p->path, real), 0);
    assert_int_equal(symlink(real, p->path), 0);
    assert_int_equal(place_try(p, &report), ERR_DENIED);
    assert_non_null(strstr(report.damage, "symbolic link"));
    assert_int_equal(unlink(p->path), 0);
    int fd = open(p->path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    assert_int_equal(place_try(p, &report), ERR_DENIED);
    assert_int_equal(unlink(p->path), 0);
    assert_int_equal(rename(real, p->path), 0);
    place_open(p);
}

static void put_meta(struct store *s, enum key_tag tag, struct span value, bool remove) {
    struct store_batch *b = store_batch_new();
    struct key k = key_meta(KEY_NODE, tag);
    if (remove)
        store_delete(b, STORE_META, key_span(&k));
    else
        store_put(b, STORE_META, key_span(&k), value);
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_free(b);
}

static void checks_schema_and_identity(void **state) {
    struct place *p = *state;
    struct store_report report;
    put_meta(p->store, KEY_TAG_SCHEMA, SPAN("2"), false);
    place_close(p);
    assert_int_equal(place_try(p, &report), ERR_VERSION);
    assert_int_equal(report.schema, 2);
    assert_non_null(strstr(report.damage, "newer"));
    place_deinit(p);
    place_init(p);
    place_open(p);
    put_meta(p->store, KEY_TAG_SCHEMA, SPAN("one"), false);
    place_close(p);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    place_deinit(p);
    place_init(p);
    place_open(p);
    put_meta(p->store, KEY_TAG_SCHEMA, SPAN_EMPTY, true);
    place_close(p);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    assert_non_null(strstr(report.damage, "identity"));
}

static void two_stores_differ_in_identity(void **state) {
    struct place *p = *state, q;
    struct key k = key_meta(KEY_NODE, KEY_TAG_IDENTITY);
    struct buf a, b;
    buf_init(&a, 1000);
    buf_init(&b, 1000);
    place_init(&q);
    place_open(&q);
    assert_int_equal(store_get(p->store, STORE_META, key_span(&k), &a), ERR_OK);
    assert_int_equal(store_get(q.store, STORE_META, key_span(&k), &b), ERR_OK);
    assert_int_equal(buf_len(&a), 3 + 32);
    assert_false(span_eq(buf_span(&a), buf_span(&b)));
    buf_deinit(&a);
    buf_deinit(&b);
    place_deinit(&q);
}

static void another_process_is_kept_out(void **state) {
    struct place *p = *state;
    pid_t child = fork();
    if (child == 0) {
        struct store_config c = {.path = p->path, .node = "n1", .memory_bytes = 8u << 20};
        struct store_report report;
        struct store *s;
        uint64_t messages;
        bool kept_out = store_open(&s, &c, &report) == ERR_EXISTS && strstr(report.damage, "in use");
        bool not_verified = store_verify(p->path, NULL, NULL, &messages) == ERR_EXISTS;
        _exit(kept_out && not_verified ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    put(p->store, STORE_META, "still", "here");
}

/* -- every file, damaged in every way -- */

enum { OLD = 120, NEW = 40, LAST = 40, BIG = 30 };

/* Data in tables and blob files, in an older log that envelopes pin, and in the newest log. */
static void furnish(struct place *p) {
    fill_from(p->store, STORE_BODY, 0, OLD, 5000);
    fill_from(p->store, STORE_ENVELOPE, 0, OLD, 200);
    place_close(p);
    place_open(p); /* replays the log into tables */
    fill_from(p->store, STORE_ENVELOPE, OLD, NEW, 200);
    fill_from(p->store, STORE_BODY, OLD, BIG, 100000); /* fills the write buffer: a flush, and another log */
    fill_from(p->store, STORE_ENVELOPE, OLD + NEW, LAST, 200);
}

/* ERR_OK: every value is there and right. ERR_CORRUPT: the store says that something is wrong. 1: lost in silence. */
static int read_back(struct store *s, enum store_family f, int count, size_t usual, int big_from) {
    struct buf b;
    int result = ERR_OK;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < count && result == ERR_OK; i++) {
        char key[16], tells[16];
        snprintf(key, sizeof key, "k%06d", i);
        snprintf(tells, sizeof tells, "%08d-", i);
        buf_clear(&b);
        int err = store_get(s, f, span_of(key), &b);
        if (err == ERR_CORRUPT)
            result = ERR_CORRUPT;
        else if (err != ERR_OK || buf_len(&b) != (i >= big_from ? 100000 : usual) ||
                 memcmp(buf_span(&b).at, tells, 9) != 0)
            result = 1;
        for (size_t n = 9; result == ERR_OK && n < buf_len(&b); n++)
            if (buf_span(&b).at[n] != 'a' + i % 26)
                result = 1;
    }
    buf_deinit(&b);
    return result;
}

static int read_all_back(struct store *s) {
    int envelopes = read_back(s, STORE_ENVELOPE, OLD + NEW + LAST, 200, 1 << 30);
    int bodies = read_back(s, STORE_BODY, OLD + BIG, 5000, OLD);
    return envelopes == 1 || bodies == 1 ? 1 : envelopes != ERR_OK ? envelopes : bodies;
}

static void on_problem(void *arg, const char *problem) {
    uint64_t *all = arg;
    *all = hash_bytes(problem, strlen(problem), *all + 1);
}

/* What verify says of a store, as one number: the keys of this test are no mail, so it always says something. */
static uint64_t said_by_verify(const char *path) {
    uint64_t said = 0, messages;
    int err = store_verify(path, on_problem, &said, &messages);
    assert_true(err == ERR_OK || err == ERR_NOT_FOUND);
    return said + (err == ERR_NOT_FOUND);
}

/* Opens a damaged copy and reads everything. What is there must be all, or the damage be told of. */
static bool tells_of_damage(const char *copy, const char *file, const char *what, uint64_t said_before) {
    struct place p = {.store = NULL};
    struct store_report report;
    snprintf(p.path, sizeof p.path, "%s", copy);
    uint64_t said = said_by_verify(copy);
    int err = place_try(&p, &report);
    int result = err;
    if (err == ERR_OK)
        result = read_all_back(p.store);
    place_close(&p);
    if (result != ERR_OK && result != ERR_CORRUPT)
        print_error("%s of %s: open %d, read %d, %s\n", what, file, err, result, report.damage);
    assert_true(result == ERR_OK || result == ERR_CORRUPT);
    if (err == ERR_CORRUPT && !report.damage[0])
        fail_msg("%s of %s: damage has no name", what, file);
    if (result == ERR_CORRUPT && said == said_before)
        fail_msg("%s of %s: verify found nothing", what, file);
    return result == ERR_CORRUPT;
}

static void remove_it(const char *path) {
    assert_int_equal(unlink(path), 0);
}
static void cut_it(const char *path) {
    assert_int_equal(truncate(path, size_of(path) / 2), 0);
}
static void cut_a_little(const char *path) {
    assert_int_equal(truncate(path, size_of(path) - 1), 0);
}
static void flip_early(const char *path) {
    flip(path, size_of(path) / 10);
}
static void flip_middle(const char *path) {
    flip(path, size_of(path) / 2);
}
static void flip_late(const char *path) {
    flip(path, size_of(path) - 1);
}
static void empty_it(const char *path) {
    assert_int_equal(truncate(path, 0), 0);
}

static const struct damage {
    const char *name;
    void (*apply)(const char *path);
} damages[] = {{"removal", remove_it},         {"half", cut_it},
               {"a cut octet", cut_a_little},  {"an early flip", flip_early},
               {"a middle flip", flip_middle}, {"a late flip", flip_late},
               {"emptying", empty_it}};
enum { DAMAGES = sizeof damages / sizeof *damages };

static bool ends(const char *name, const char *end) {
    size_t a = strlen(name), b = strlen(end);
    return a >= b && strcmp(name + a - b, end) == 0;
}

static void no_damage_to_any_file_loses_mail_in_silence(void **state) {
    struct place *p = *state;
    unsigned told_logs = 0, told_tables = 0, told_blobs = 0, cases = 0;
    char original[400], copy[400];
    furnish(p);
    assert_int_equal(read_all_back(p->store), ERR_OK);
    place_close(p);
    join(original, p->root, "queue");
    join(copy, p->root, "copy");
    uint64_t said = said_by_verify(original);
    assert_true(said == said_by_verify(original) && said);
    DIR *d = opendir(original);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        char path[400];
        join(path, original, e->d_name);
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 2)
            continue;
        if (strcmp(e->d_name, "LOG") == 0 || strncmp(e->d_name, "LOG.old", 7) == 0)
            continue; /* RocksDB's own chatter */
        for (int i = 0; i < DAMAGES; i++) {
            if (strcmp(e->d_name, MARK_FILE) == 0 && damages[i].apply == empty_it)
                continue; /* means that the operator accepts a loss: tested below */
            copy_directory(original, copy);
            join(path, copy, e->d_name);
            damages[i].apply(path);
            bool told = tells_of_damage(copy, e->d_name, damages[i].name, said);
            told_logs += told && ends(e->d_name, ".log");
            told_tables += told && ends(e->d_name, ".sst");
            told_blobs += told && ends(e->d_name, ".blob");
            cases++;
            place_clear(copy);
            rmdir(copy);
        }
    }
    closedir(d);
    print_message("%u cases; told of: %u logs, %u tables, %u blob files\n", cases, told_logs, told_tables, told_blobs);
    assert_true(told_logs >= 2 * DAMAGES - 1 && told_tables >= 6 && told_blobs >= 6);
}

static int try_damaged(struct place *p, const char *end, bool newest, void (*apply)(const char *path), char name[64],
                       struct store_report *report) {
    char path[400];
    furnish(p);
    place_close(p);
    assert_true(find_file(p->path, end, newest, path));
    snprintf(name, 64, "%.60s", base_name(path));
    apply(path);
    int err = place_try(p, report);
    if (err == ERR_OK) {
        assert_int_equal(read_all_back(p->store), ERR_CORRUPT);
        p->store->ops->why(p->store, report->damage, sizeof report->damage);
        err = ERR_CORRUPT;
    }
    return err;
}

static void names_the_file(void **state) {
    struct place *p = *state;
    struct store_report report;
    static const struct {
        const char *end;
        bool newest;
        void (*apply)(const char *path);
    } cases[] = {{".log", false, remove_it}, {".log", false, cut_it},      {".log", false, flip_middle},
                 {".log", true, cut_it},     {".log", true, flip_middle},  {".sst", false, remove_it},
                 {".blob", false, cut_it},   {"CURRENT", true, remove_it}, {"MARK", true, remove_it},
                 {"MARK", true, cut_it}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        assert_int_equal(try_damaged(p, cases[i].end, cases[i].newest, cases[i].apply, name, &report), ERR_CORRUPT);
        char number[16];
        snprintf(number, sizeof number, "%d", atoi(name)); /* RocksDB gives the number of a missing log only */
        if (!strstr(report.damage, name) && !(atoi(name) && strstr(report.damage, number)))
            fail_msg("case %zu: %s is not named in: %s", i, name, report.damage);
        place_deinit(p);
        place_init(p);
        place_open(p);
    }
}

/* -- logs -- */

static void a_refused_store_is_left_as_it_was(void **state) {
    struct place *p = *state;
    struct store_report report;
    char path[400];
    furnish(p);
    place_close(p);
    assert_true(find_file(p->path, ".log", true, path));
    for (int i = 1; i < 10; i++) {
        off_t at = size_of(path) * i / 10;
        flip(path, at);
        assert_int_equal(place_try(p, &report), ERR_CORRUPT);
        flip(path, at);
    }
    assert_true(find_file(p->path, ".log", false, path));
    char aside[400];
    join(aside, p->root, "aside");
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    assert_int_equal(rename(aside, path), 0);
    assert_true(find_file(p->path, ".log", true, path));
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    assert_int_equal(rename(aside, path), 0);
    place_open(p);
    assert_int_equal(read_all_back(p->store), ERR_OK);
}

static void a_tail_that_was_never_acknowledged_is_dropped(void **state) {
    struct place *p = *state;
    char path[400], original[400], copy[400];
    fill_from(p->store, STORE_ENVELOPE, 0, 30, 300);
    place_close(p);
    join(original, p->root, "queue");
    join(copy, p->root, "copy");
    struct mark m;
    assert_int_equal(mark_open(&m, original, false, false), ERR_OK);
    uint64_t acknowledged = mark_get(&m);
    mark_set(&m, acknowledged - 1); /* as if the last write had not returned */
    mark_set(&m, acknowledged - 1);
    mark_close(&m);
    struct log_scan whole;
    assert_int_equal(log_scan(original, 0, &whole), ERR_OK);
    assert_int_equal(whole.last_sequence, acknowledged);
    assert_true(find_file(original, ".log", true, path));
    off_t size = size_of(path);
    for (off_t cut = 1; cut < 340; cut += 13) {
        struct place q = {.store = NULL};
        copy_directory(original, copy);
        snprintf(q.path, sizeof q.path, "%s", copy);
        assert_true(find_file(copy, ".log", true, path));
        if (cut < 300) {
            assert_int_equal(truncate(path, size - cut), 0);
            place_open(&q);
            assert_int_equal(get_err(q.store, STORE_ENVELOPE, "k000029"), ERR_NOT_FOUND);
            assert_int_equal(get_err(q.store, STORE_ENVELOPE, "k000028"), ERR_OK);
            place_close(&q);
            place_open(&q); /* and the next opening finds nothing wrong */
            put(q.store, STORE_META, "x", "y");
        } else { /* now an acknowledged one is gone, too */
            struct store_report report;
            assert_int_equal(truncate(path, size - cut - 60), 0);
            assert_int_equal(place_try(&q, &report), ERR_CORRUPT);
            assert_non_null(strstr(report.damage, ".log"));
        }
        place_close(&q);
        place_clear(copy);
        rmdir(copy);
    }
}

static void the_mark_outlives_the_process(void **state) {
#ifdef __SANITIZE_THREAD__
    skip(); /* a child of a process with threads may begin none there */
#endif
    struct place *p = *state;
    char path[400];
    struct store_report report;
    place_close(p);
    pid_t child = fork();
    if (child == 0) {
        place_open(p);
        fill_from(p->store, STORE_ENVELOPE, 0, 20, 300);
        _exit(0); /* closes nothing */
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(find_file(p->path, ".log", true, path));
    assert_int_equal(truncate(path, size_of(path) - 10), 0);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    assert_non_null(strstr(report.damage, base_name(path)));
}

static void an_operator_can_accept_a_loss(void **state) {
    struct place *p = *state;
    char path[400], mark[400];
    struct store_report report;
    fill_from(p->store, STORE_ENVELOPE, 0, 30, 300);
    place_close(p);
    assert_true(find_file(p->path, ".log", true, path));
    flip(path, size_of(path) / 2);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
    join(mark, p->path, MARK_FILE);
    assert_int_equal(truncate(mark, 0), 0);
    place_open(p);
    int left = count_keys(p->store, STORE_ENVELOPE);
    assert_true(left > 5 && left < 25);
    fill_from(p->store, STORE_ENVELOPE, 100, 10, 300);
    place_close(p);
    place_open(p); /* from now on as ever */
    assert_int_equal(count_keys(p->store, STORE_ENVELOPE), left + 10);
    place_close(p);
    assert_true(find_file(p->path, ".log", true, path));
    fill_from((place_open(p), p->store), STORE_ENVELOPE, 200, 5, 300);
    place_close(p);
    assert_true(find_file(p->path, ".log", true, path));
    flip(path, size_of(path) / 2);
    assert_int_equal(place_try(p, &report), ERR_CORRUPT);
}

/* -- writes -- */

static void single_deletes_meet_their_puts(void **state) {
    struct place *p = *state;
    struct store_batch *b = store_batch_new();
    fill_from(p->store, STORE_BODY, 0, 10, 5000);
    place_close(p);
    place_open(p); /* in tables and blob files now */
    for (int i = 0; i < 10; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%06d", i);
        store_single_delete(b, STORE_BODY, span_of(key));
    }
    assert_int_equal(store_write(p->store, b, true), ERR_OK);
    assert_int_equal(count_keys(p->store, STORE_BODY), 0);
    place_close(p);
    place_open(p);
    assert_int_equal(count_keys(p->store, STORE_BODY), 0);
    store_batch_free(b);
}

static int write_again(struct store *s, const struct store_batch *b) {
    struct store_batch *rest = store_batch_new();
    int err = repeat_batch(s, b, rest);
    if (err == ERR_OK && store_batch_count(rest))
        err = store_write(s, rest, true);
    store_batch_free(rest);
    return err;
}

static void a_repeated_write_brings_nothing_back(void **state) {
    struct place *p = *state;
    struct store_batch *enqueue = store_batch_new(), *settle = store_batch_new();
    store_put(enqueue, STORE_ENVELOPE, SPAN("m"), SPAN("envelope"));
    store_put(enqueue, STORE_META, SPAN("number"), SPAN("1"));
    store_single_delete(settle, STORE_ENVELOPE, SPAN("m"));
    for (int rounds = 0; rounds < 3; rounds++) {
        assert_int_equal(store_write(p->store, enqueue, true), ERR_OK);
        place_close(p);
        place_open(p); /* the put lies in a table; the same comes again, as after a failed write */
        assert_int_equal(write_again(p->store, enqueue), ERR_OK);
        assert_true(has(p->store, STORE_ENVELOPE, "m", "envelope"));
        assert_int_equal(store_write(p->store, settle, true), ERR_OK);
        assert_int_equal(write_again(p->store, settle), ERR_OK);
        assert_int_equal(get_err(p->store, STORE_ENVELOPE, "m"), ERR_NOT_FOUND);
        place_close(p);
        place_open(p); /* and again in tables: an older put would show now */
        assert_int_equal(get_err(p->store, STORE_ENVELOPE, "m"), ERR_NOT_FOUND);
    }
    store_batch_clear(settle);
    store_put(settle, STORE_BODY, SPAN("n"), SPAN("1")); /* both in one batch, in any state */
    store_single_delete(settle, STORE_BODY, SPAN("n"));
    store_put(settle, STORE_BODY, SPAN("o"), SPAN("1"));
    assert_int_equal(write_again(p->store, settle), ERR_OK);
    assert_int_equal(write_again(p->store, settle), ERR_OK);
    assert_int_equal(get_err(p->store, STORE_BODY, "n"), ERR_NOT_FOUND);
    assert_true(has(p->store, STORE_BODY, "o", "1"));
    store_batch_free(enqueue);
    store_batch_free(settle);
}

static void several_batches_are_one_write(void **state) {
    struct place *p = *state;
    struct store_batch *a = store_batch_new(), *b = store_batch_new();
    const struct store_batch *both[] = {a, b};
    store_put(a, STORE_META, SPAN("x"), SPAN("1"));
    store_put(b, STORE_META, SPAN("x"), SPAN("2"));
    store_put(b, STORE_DUE, SPAN("y"), SPAN_EMPTY);
    assert_int_equal(store_write_all(p->store, both, 2, true), ERR_OK);
    assert_true(has(p->store, STORE_META, "x", "2"));
    assert_true(has(p->store, STORE_DUE, "y", ""));
    store_batch_free(a);
    store_batch_free(b);
}

static void ranges_go_with_their_files(void **state) {
    struct place *p = *state;
    struct store_batch *b = store_batch_new();
    fill_from(p->store, STORE_TRACE, 0, 200, 2000);
    place_close(p);
    place_open(p);
    fill_from(p->store, STORE_TRACE, 200, 50, 2000);
    store_delete_range(b, STORE_TRACE, SPAN("k000000"), SPAN("k000220"));
    assert_int_equal(store_write(p->store, b, true), ERR_OK);
    assert_int_equal(count_keys(p->store, STORE_TRACE), 30);
    place_close(p);
    place_open(p);
    assert_int_equal(count_keys(p->store, STORE_TRACE), 30);
    store_batch_free(b);
}

static void iterators_see_a_snapshot(void **state) {
    struct place *p = *state;
    struct store_iter *it;
    struct span key;
    int count = 0;
    fill_from(p->store, STORE_DUE, 0, 10, 20);
    assert_int_equal(store_iter_open(&it, p->store, STORE_DUE, SPAN("k000002"), SPAN("k000008")), ERR_OK);
    struct store_batch *b = store_batch_new();
    store_delete(b, STORE_DUE, SPAN("k000005"));
    store_put(b, STORE_DUE, SPAN("k0000055"), SPAN("new"));
    assert_int_equal(store_write(p->store, b, true), ERR_OK);
    while (store_iter_next(it, &key, NULL))
        count++;
    assert_int_equal(count, 6);
    store_iter_seek(it, SPAN("k000005"));
    assert_true(store_iter_next(it, &key, NULL));
    assert_true(span_eq(key, SPAN("k000005")));
    store_iter_close(it);
    store_batch_free(b);
}

static void reserves_room(void **state) {
    struct place *p = *state;
    struct store_report report;
    assert_true(store_has_room(p->store, 1000));
    place_close(p);
    struct store_config c = {
        .path = p->path, .node = "n1", .memory_bytes = 8u << 20, .reserve_bytes = UINT64_C(1) << 60};
    assert_int_equal(store_open(&p->store, &c, &report), ERR_OK);
    assert_false(store_has_room(p->store, 1));
    struct store_stats stats;
    store_stats(p->store, &stats);
    assert_true(stats.disk_bytes > 0 && stats.memory_bytes > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(makes_a_directory_for_itself_alone, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(refuses_directories_that_others_reach, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(checks_schema_and_identity, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(two_stores_differ_in_identity, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(another_process_is_kept_out, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(no_damage_to_any_file_loses_mail_in_silence, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(names_the_file, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_refused_store_is_left_as_it_was, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_tail_that_was_never_acknowledged_is_dropped, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(the_mark_outlives_the_process, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(an_operator_can_accept_a_loss, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(single_deletes_meet_their_puts, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_repeated_write_brings_nothing_back, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(several_batches_are_one_write, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(ranges_go_with_their_files, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(iterators_see_a_snapshot, place_setup, place_teardown),
        cmocka_unit_test_setup_teardown(reserves_room, place_setup, place_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
