/* commit: each request is told once and in order; what must be kept is kept, what was refused is never found. */
#include "tests/unit/store/place.h"

#include <pthread.h>
#include <time.h>

#include "store/commit.h"
#include "store/memory.h"

struct post {
    struct commit_request request;
    struct room *room;
    int result, told;
    int thread, number;
};
struct room {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct store *store;
    struct commit *commit;
    int told;
    int last[8]; /* number told last, of each thread */
    bool in_order;
};

static int setup(void **state) {
    struct room *room = calloc(1, sizeof *room);
    assert_non_null(room);
    pthread_mutex_init(&room->lock, NULL);
    pthread_cond_init(&room->wake, NULL);
    room->in_order = true;
    *state = room;
    return store_memory_open(&room->store) || commit_new(&room->commit, room->store, 1 << 20, 64);
}

static int teardown(void **state) {
    struct room *room = *state;
    commit_free(room->commit);
    store_close(room->store);
    free(room);
    return 0;
}

static void on_done(struct commit_request *r, int result) {
    struct post *p = r->arg;
    struct room *room = p->room;
    pthread_mutex_lock(&room->lock);
    p->told++;
    p->result = result;
    room->told++;
    room->in_order = room->in_order && p->number == room->last[p->thread] + 1;
    room->last[p->thread] = p->number;
    pthread_cond_broadcast(&room->wake);
    pthread_mutex_unlock(&room->lock);
}

/* name: key of all that it writes; keep lies in meta, the submission in envelope. NULL: without that part. */
static struct post *post_new(struct room *room, const char *keep, const char *submission) {
    struct post *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->room = room;
    p->request.done = on_done;
    p->request.arg = p;
    if (keep) {
        p->request.keep = store_batch_new();
        store_put(p->request.keep, STORE_META, span_of(keep), SPAN("kept"));
    }
    if (submission) {
        p->request.refusable = store_batch_new();
        p->request.undo = store_batch_new();
        store_put(p->request.refusable, STORE_ENVELOPE, span_of(submission), SPAN("mail"));
        store_single_delete(p->request.undo, STORE_ENVELOPE, span_of(submission));
    }
    return p;
}

static void post_free(struct post *p) {
    store_batch_free(p->request.keep);
    store_batch_free(p->request.refusable);
    store_batch_free(p->request.undo);
    free(p);
}

static void submit(struct post *p) {
    p->number = p->room->last[0] + 1;
    commit_submit(p->room->commit, &p->request);
}

static int wait_for(struct post *p) {
    pthread_mutex_lock(&p->room->lock);
    while (!p->told)
        pthread_cond_wait(&p->room->wake, &p->room->lock);
    pthread_mutex_unlock(&p->room->lock);
    assert_int_equal(p->told, 1);
    return p->result;
}

static int post_one(struct room *room, const char *keep, const char *submission) {
    struct post *p = post_new(room, keep, submission);
    submit(p);
    int result = wait_for(p);
    post_free(p);
    return result;
}

static bool kept(struct room *room, const char *key) {
    return has(room->store, STORE_META, key, "kept");
}

static bool found(struct room *room, const char *key) {
    return has(room->store, STORE_ENVELOPE, key, "mail");
}

static void writes_both_parts_with_a_sync(void **state) {
    struct room *room = *state;
    assert_int_equal(post_one(room, "a", "a"), ERR_OK);
    assert_int_equal(post_one(room, "b", NULL), ERR_OK);
    assert_int_equal(post_one(room, NULL, "c"), ERR_OK);
    assert_int_equal(post_one(room, NULL, NULL), ERR_OK);
    assert_int_equal(store_memory_crash(room->store, 0), 0);
    assert_true(kept(room, "a") && found(room, "a") && kept(room, "b") && found(room, "c"));
    assert_true(commit_is_healthy(room->commit));
}

static void refuses_what_has_no_room(void **state) {
    struct room *room = *state;
    store_memory_set_room(room->store, false);
    assert_int_equal(post_one(room, "a", "a"), ERR_NO_SPACE);
    assert_int_equal(post_one(room, "b", NULL), ERR_OK);
    assert_true(kept(room, "a") && kept(room, "b"));
    assert_false(found(room, "a"));
    store_memory_set_room(room->store, true);
    assert_int_equal(post_one(room, "a", "a"), ERR_OK);
    assert_true(found(room, "a"));
}

static void a_failed_write(struct room *room, int err, bool applied, unsigned writes, unsigned reopens) {
    store_memory_fail(room->store, writes, err, applied);
    store_memory_fail_reopen(room->store, reopens);
    assert_int_equal(post_one(room, "k", "s"), err);
    assert_true(commit_is_healthy(room->commit));
    store_memory_crash(room->store, 0); /* the repair was synced */
    assert_true(kept(room, "k"));
    assert_false(found(room, "s"));
    assert_int_equal(post_one(room, NULL, "s"), ERR_OK); /* the same id may be used again */
    assert_true(found(room, "s"));
    struct store_batch *b = store_batch_new();
    store_delete(b, STORE_META, SPAN("k"));
    store_single_delete(b, STORE_ENVELOPE, SPAN("s"));
    assert_int_equal(store_write(room->store, b, true), ERR_OK);
    store_batch_free(b);
    assert_int_equal(store_memory_rewrites(room->store), 0);
}

static void repairs_after_a_failed_write(void **state) {
    struct room *room = *state;
    a_failed_write(room, ERR_IO, false, 1, 0);
    a_failed_write(room, ERR_IO, true, 1, 0);
    a_failed_write(room, ERR_NO_SPACE, true, 1, 0);
    a_failed_write(room, ERR_NOMEM, false, 1, 0);
    a_failed_write(room, ERR_IO, true, 2, 0);  /* the repair fails, too */
    a_failed_write(room, ERR_IO, false, 2, 1); /* and the reopening */
}

static void sleep_ms(int ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static void waits_while_the_store_is_closed(void **state) {
    struct room *room = *state;
    store_memory_fail(room->store, 1, ERR_IO, true);
    store_memory_fail_reopen(room->store, 2);
    struct post *first = post_new(room, "a", "a"), *second = post_new(room, "b", "b");
    submit(first);
    for (int i = 0; i < 5000 && commit_is_healthy(room->commit); i++)
        sleep_ms(1);
    assert_false(commit_is_healthy(room->commit));
    second->number = 2;
    commit_submit(room->commit, &second->request);
    assert_int_equal(wait_for(first), ERR_IO);
    assert_int_equal(wait_for(second), ERR_OK); /* was never part of a failed write */
    assert_true(kept(room, "a") && kept(room, "b") && found(room, "b"));
    assert_false(found(room, "a"));
    assert_true(room->in_order && commit_is_healthy(room->commit));
    post_free(first);
    post_free(second);
}

static void ends_without_certainty(void **state) {
    struct room *room = *state;
    store_memory_fail(room->store, 1, ERR_IO, true);
    store_memory_fail_reopen(room->store, 1000);
    struct post *a = post_new(room, "a", "a"), *b = post_new(room, "b", NULL);
    submit(a);
    for (int i = 0; i < 5000 && commit_is_healthy(room->commit); i++)
        sleep_ms(1);
    b->number = 2;
    commit_submit(room->commit, &b->request);
    commit_free(room->commit);
    room->commit = NULL;
    assert_int_equal(a->told, 1);
    assert_int_equal(a->result, ERR_CANCELED);
    assert_int_equal(b->told, 1);
    assert_int_equal(b->result, ERR_CANCELED); /* also what must be kept is not on disk: nothing may be acknowledged */
    post_free(a);
    post_free(b);
}

/* A batch behind one that was lost may settle what that one should have made: it must not be written. */
static void writes_nothing_behind_a_gap(void **state) {
    struct room *room = *state;
    struct post *lost = post_new(room, "lost", NULL), *behind = post_new(room, "behind", "behind");
    store_memory_fail(room->store, 1, ERR_IO, false);
    store_memory_fail_reopen(room->store, 1);
    commit_stop_repair(room->commit);
    submit(lost);
    assert_int_equal(wait_for(lost), ERR_CANCELED);
    struct store_report report;
    assert_int_equal(store_reopen(room->store, &report), ERR_OK);
    behind->number = 2;
    commit_submit(room->commit, &behind->request);
    assert_int_equal(wait_for(behind), ERR_CANCELED);
    assert_false(kept(room, "lost") || kept(room, "behind") || found(room, "behind"));
    post_free(lost);
    post_free(behind);
}

static void stops_waiting_for_a_repair(void **state) {
    struct room *room = *state;
    struct post *p = post_new(room, "a", "a");
    store_memory_fail(room->store, 1, ERR_IO, true);
    store_memory_fail_reopen(room->store, 1000);
    submit(p);
    for (int i = 0; i < 5000 && commit_is_healthy(room->commit); i++)
        sleep_ms(1);
    commit_stop_repair(room->commit);
    assert_int_equal(wait_for(p), ERR_CANCELED);
    post_free(p);
}

static void what_is_kept_follows_what_is_new(void **state) {
    struct room *room = *state;
    struct post *p = post_new(room, "k", "o");
    store_single_delete(p->request.keep, STORE_ENVELOPE, SPAN("o"));
    submit(p);
    assert_int_equal(wait_for(p), ERR_OK);
    assert_false(found(room, "o"));
    post_free(p);
}

static void writes_what_is_queued_before_it_ends(void **state) {
    struct room *room = *state;
    struct post *posts[200];
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "q%d", i);
        posts[i] = post_new(room, key, key);
        posts[i]->number = i + 1;
        commit_submit(room->commit, &posts[i]->request);
    }
    commit_free(room->commit);
    room->commit = NULL;
    assert_int_equal(room->told, 200);
    assert_true(room->in_order);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(posts[i]->result, ERR_OK);
        post_free(posts[i]);
    }
    store_memory_crash(room->store, 0);
    assert_int_equal(store_memory_count(room->store, STORE_ENVELOPE), 200);
}

static void refuses_a_batch_that_ran_out_of_memory(void **state) {
    struct room *room = *state;
    struct post *good = post_new(room, "g", "g"), *bad = post_new(room, "b", "b");
    static char much[64 << 20];
    for (int i = 0; i < 5; i++) /* more than a batch may hold */
        store_put(bad->request.refusable, STORE_BODY, SPAN("x"), span_make(much, sizeof much));
    commit_submit(room->commit, &(good->number = 1, good)->request);
    commit_submit(room->commit, &(bad->number = 2, bad)->request);
    assert_int_equal(wait_for(good), ERR_OK);
    assert_int_equal(wait_for(bad), ERR_NOMEM);
    assert_true(kept(room, "g") && found(room, "g") && kept(room, "b"));
    assert_false(found(room, "b"));
    post_free(good);
    post_free(bad);
}

/* -- many threads -- */

enum { THREADS = 6, POSTS = 400 };
struct sender {
    struct room *room;
    int thread;
    struct post *posts[POSTS];
};

static void *send_all(void *arg) {
    struct sender *s = arg;
    for (int i = 0; i < POSTS; i++) {
        char key[24];
        snprintf(key, sizeof key, "t%d-%04d", s->thread, i);
        struct post *p = s->posts[i] = post_new(s->room, i % 3 ? key : NULL, i % 4 ? key : NULL);
        p->thread = s->thread;
        p->number = i + 1;
        commit_submit(s->room->commit, &p->request);
    }
    return NULL;
}

static void send_from_many_threads(struct room *room) {
    static struct sender senders[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        senders[i] = (struct sender){.room = room, .thread = i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_lock(&room->lock);
    while (room->told < THREADS * POSTS)
        pthread_cond_wait(&room->wake, &room->lock);
    pthread_mutex_unlock(&room->lock);
    assert_true(room->in_order);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < POSTS; k++) {
            struct post *p = senders[i].posts[k];
            char key[24];
            snprintf(key, sizeof key, "t%d-%04d", i, k);
            assert_int_equal(p->told, 1);
            assert_true(p->result == ERR_OK || (p->result == ERR_IO && p->request.refusable));
            assert_int_equal(kept(room, key), p->request.keep != NULL);
            assert_int_equal(found(room, key), p->request.refusable && p->result == ERR_OK);
            post_free(p);
        }
}

static void many_threads_are_each_told_once(void **state) {
    send_from_many_threads(*state);
}

static void many_threads_over_failing_writes(void **state) {
    struct room *room = *state;
    store_memory_fail(room->store, 3, ERR_IO, true);
    store_memory_fail_reopen(room->store, 1);
    send_from_many_threads(room);
    assert_int_equal(store_memory_rewrites(room->store), 0);
}

static void many_threads_on_rocksdb(void **state) {
    struct room *room = *state;
    struct place p;
    commit_free(room->commit);
    store_close(room->store);
    place_init(&p);
    place_open(&p);
    room->store = p.store;
    assert_int_equal(commit_new(&room->commit, room->store, 1 << 20, 64), ERR_OK);
    send_from_many_threads(room);
    commit_free(room->commit);
    room->commit = NULL;
    place_deinit(&p);
    assert_int_equal(store_memory_open(&room->store), ERR_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_both_parts_with_a_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_has_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(repairs_after_a_failed_write, setup, teardown),
        cmocka_unit_test_setup_teardown(waits_while_the_store_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_without_certainty, setup, teardown),
        cmocka_unit_test_setup_teardown(writes_nothing_behind_a_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(stops_waiting_for_a_repair, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_kept_follows_what_is_new, setup, teardown),
        cmocka_unit_test_setup_teardown(writes_what_is_queued_before_it_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_batch_that_ran_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(many_threads_are_each_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(many_threads_over_failing_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(many_threads_on_rocksdb, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
