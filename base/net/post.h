/*
 * post: hands work from any thread to the thread of a loop, in order. For backends that run on threads of their own
 * and answer sessions on the sessions' loop.
 */
#ifndef BASE_NET_POST_H
#define BASE_NET_POST_H

#include "base/err.h"
#include "base/list.h"
#include "base/net/loop.h"

struct post;
/* A letter lies in the sender's struct and is borrowed until it was opened. */
struct post_letter {
    struct list_node node;
    void (*open)(struct post_letter *letter); /* runs on the loop's thread */
};
struct post *post_new(struct loop *l) MUST_CHECK; /* NULL: no memory */
/* Any thread, never blocks for long, cannot fail. Not after post_free has begun. */
void post_send(struct post *p, struct post_letter *letter);
/* On the loop's thread: opens what has come, then frees. Who may still send must be stopped before. Not inside
 * a letter's open. */
void post_free(struct post *p);

#endif
