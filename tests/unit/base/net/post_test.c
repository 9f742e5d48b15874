/* post: order, threads, letters that write letters, the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/net/post.h"

enum { SENDERS = 4, LETTERS = 5000 };

struct world {
    struct loop *loop;
    struct post *post;
    pthread_t home;
    int next[SENDERS], got, wrong, rounds, turns;
};
struct letter {
    struct post_letter letter;
    struct world *world;
    int sender, number;
};
struct sender {
    struct world *world;
    int number;
};

static struct letter *letter_of(struct world *w, int sender, int number, void (*open)(struct post_letter *l)) {
    struct letter *l = calloc(1, sizeof *l);
    *l = (struct letter){{.open = open}, w, sender, number};
    return l;
}

static void count(struct post_letter *letter) {
    struct letter *l = (struct letter *)letter;
    struct world *w = l->world;
    w->wrong += !pthread_equal(w->home, pthread_self());
    w->wrong += l->number != w->next[l->sender]++;
    if (++w->got == SENDERS * LETTERS)
        loop_stop(w->loop);
    free(l);
}

static void *send_all(void *arg) {
    struct sender *s = arg;
    for (int i = 0; i < LETTERS; i++)
        post_send(s->world->post, &letter_of(s->world, s->number, i, count)->letter);
    return NULL;
}

static void begin(struct world *w) {
    *w = (struct world){.loop = loop_new(), .home = pthread_self()};
    w->post = post_new(w->loop);
    assert_non_null(w->post);
}

static void opens_in_order_on_the_loop(void **state) {
    (void)state;
    struct world w;
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    begin(&w);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&w, i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    loop_run(w.loop);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(w.got, SENDERS * LETTERS);
    assert_int_equal(w.wrong, 0);
    post_free(w.post);
    loop_free(w.loop);
}

/* Writes the next one for as long as the loop has not turned a few times. */
static void write_again(struct post_letter *letter) {
    struct letter *l = (struct letter *)letter;
    struct world *w = l->world;
    w->rounds++;
    if (w->turns < 5)
        post_send(w->post, &letter_of(w, 0, 0, write_again)->letter);
    else
        loop_stop(w->loop);
    free(l);
}

static void on_turn(void *arg) {
    ((struct world *)arg)->turns++;
}

static void letters_that_write_letters_let_the_loop_turn(void **state) {
    (void)state;
    struct world w;
    begin(&w);
    struct loop_hook *hook = loop_hook_new(w.loop, NULL, on_turn, &w);
    post_send(w.post, &letter_of(&w, 0, 0, write_again)->letter);
    loop_run(w.loop);
    assert_true(w.rounds >= 5);
    loop_hook_close(hook);
    post_free(w.post);
    loop_free(w.loop);
}

static void the_end_opens_what_has_come(void **state) {
    (void)state;
    struct world w;
    begin(&w);
    for (int i = 0; i < 10; i++)
        post_send(w.post, &letter_of(&w, 0, i, count)->letter);
    w.turns = 5;
    post_send(w.post, &letter_of(&w, 0, 0, write_again)->letter);
    post_free(w.post);
    assert_int_equal(w.got, 10);
    assert_int_equal(w.rounds, 1);
    assert_int_equal(w.wrong, 0);
    loop_free(w.loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_in_order_on_the_loop),
        cmocka_unit_test(letters_that_write_letters_let_the_loop_turn),
        cmocka_unit_test(the_end_opens_what_has_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
