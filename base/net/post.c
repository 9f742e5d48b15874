/*
 * post: see post.h. A list under a lock, and one wake-up for all that gathered.
 */
#include "base/net/post.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"

struct post {
    pthread_mutex_t lock;
    struct list letters;
    struct loop_wake *wake;
};

static struct post_letter *take(struct post *p) {
    pthread_mutex_lock(&p->lock);
    struct list_node *node = list_first(&p->letters);
    if (node)
        list_remove(&p->letters, node);
    pthread_mutex_unlock(&p->lock);
    return node ? LIST_ENTRY(node, struct post_letter, node) : NULL;
}

/* Opens the letters that are here now; those that they bring forth wait for the next turn, so that the loop goes on. */
static size_t open_those_here(struct post *p) {
    pthread_mutex_lock(&p->lock);
    size_t count = p->letters.count;
    pthread_mutex_unlock(&p->lock);
    for (size_t n = count; n; n--) {
        struct post_letter *letter = take(p);
        letter->open(letter);
    }
    return count;
}

static void on_wake(void *arg) {
    struct post *p = arg;
    (void)open_those_here(p);
    pthread_mutex_lock(&p->lock);
    bool more = !list_is_empty(&p->letters);
    pthread_mutex_unlock(&p->lock);
    if (more)
        loop_wake_send(p->wake);
}

struct post *post_new(struct loop *l) {
    struct post *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    list_init(&p->letters);
    CHECK(pthread_mutex_init(&p->lock, NULL) == 0);
    p->wake = loop_wake_new(l, on_wake, p);
    if (p->wake)
        return p;
    pthread_mutex_destroy(&p->lock);
    free(p);
    return NULL;
}

void post_send(struct post *p, struct post_letter *letter) {
    pthread_mutex_lock(&p->lock);
    bool first = list_is_empty(&p->letters);
    list_push_back(&p->letters, &letter->node);
    pthread_mutex_unlock(&p->lock);
    if (first)
        loop_wake_send(p->wake);
}

void post_free(struct post *p) {
    while (open_those_here(p) > 0)
        continue;
    loop_wake_close(p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
