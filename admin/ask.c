/*
 * ask: see ask.h. Replies are kept packed: the one who made them owns what is in them. A question that brings more than
 * it may is ended with an error, as its last reply.
 */
#include "admin/ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "proto/frame.h"

struct packed {
    struct list_node link;
    size_t len;
    char octets[];
};
struct ask {
    struct list_node link;
    uint64_t number;
    admin_answer_cb cb;
    void *arg;
    struct list replies;
    size_t bytes;
    bool complete; /* the last reply is here */
};
struct ask_desk {
    struct list asks;
    struct loop_wake *wake;
    uint64_t last_number;
    struct buf pack;
};

static struct ask *find_ask(struct ask_desk *d, uint64_t number) {
    LIST_FOREACH(it, next, &d->asks) {
        struct ask *a = LIST_ENTRY(it, struct ask, link);
        if (a->number == number)
            return a;
    }
    return NULL;
}

static void ask_free(struct ask_desk *d, struct ask *a) {
    for (struct list_node *node; (node = list_pop_front(&a->replies));)
        free(LIST_ENTRY(node, struct packed, link));
    list_remove(&d->asks, &a->link);
    free(a);
}

/* The question may be gone when its callback returns. False: it is, or nothing is left to tell. */
static bool tell_next(struct ask_desk *d, struct ask *a) {
    struct list_node *node = list_pop_front(&a->replies);
    if (!node)
        return false;
    struct packed *p = LIST_ENTRY(node, struct packed, link);
    struct arena mem;
    uint64_t number = a->number;
    arena_init(&mem, 64 * 1024, ASK_BYTES_MAX * 4u);
    Words__AdminReply *r = frame_unpack(&words__admin_reply__descriptor, span_make(p->octets, p->len), &mem);
    Words__AdminReply bad = WORDS__ADMIN_REPLY__INIT;
    bad.has_error = bad.has_last = bad.last = true;
    bad.error = -ERR_NOMEM;
    admin_answer_cb cb = a->cb;
    void *arg = a->arg;
    bool last = !r || r->last;
    if (last)
        ask_free(d, a);
    cb(arg, r ? r : &bad);
    arena_deinit(&mem);
    free(p);
    return !last && find_ask(d, number) == a;
}

static void on_ask_wake(void *arg) {
    struct ask_desk *d = arg;
    uint64_t numbers[ASK_MAX];
    size_t n = 0;
    LIST_FOREACH(it, next, &d->asks)
    numbers[n++] = LIST_ENTRY(it, struct ask, link)->number;
    for (size_t i = 0; i < n; i++) { /* a callback may end any of them, and begin others */
        struct ask *a = find_ask(d, numbers[i]);
        while (a && tell_next(d, a))
            continue;
    }
}

int ask_desk_new(struct ask_desk **out, struct loop *l) {
    struct ask_desk *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    list_init(&d->asks);
    buf_init(&d->pack, ASK_BYTES_MAX);
    d->wake = loop_wake_new(l, on_ask_wake, d);
    if (!d->wake) {
        free(d);
        return ERR_NOMEM;
    }
    *out = d;
    return ERR_OK;
}

void ask_desk_free(struct ask_desk *d) {
    if (!d)
        return;
    while (!list_is_empty(&d->asks))
        ask_free(d, LIST_ENTRY(list_first(&d->asks), struct ask, link));
    loop_wake_close(d->wake);
    buf_deinit(&d->pack);
    free(d);
}

uint64_t ask_begin(struct ask_desk *d, admin_answer_cb cb, void *arg) {
    struct ask *a = d->asks.count < ASK_MAX ? calloc(1, sizeof *a) : NULL;
    if (!a)
        return 0;
    a->number = ++d->last_number;
    a->cb = cb;
    a->arg = arg;
    list_init(&a->replies);
    list_push_back(&d->asks, &a->link);
    return a->number;
}

static bool keep(struct ask_desk *d, struct ask *a, const Words__AdminReply *r) {
    buf_clear(&d->pack);
    if (frame_pack(&r->base, &d->pack) != ERR_OK || a->bytes + buf_len(&d->pack) > ASK_BYTES_MAX)
        return false;
    struct packed *p = malloc(sizeof *p + buf_len(&d->pack));
    if (!p)
        return false;
    p->len = buf_len(&d->pack);
    memset(&p->link, 0, sizeof p->link);
    memcpy(p->octets, buf_span(&d->pack).at, p->len);
    a->bytes += p->len;
    list_push_back(&a->replies, &p->link);
    return true;
}

void ask_put(struct ask_desk *d, uint64_t number, const Words__AdminReply *r) {
    struct ask *a = find_ask(d, number);
    if (!a || a->complete)
        return;
    a->complete = r->last;
    if (!keep(d, a, r)) {
        Words__AdminReply full = WORDS__ADMIN_REPLY__INIT;
        full.has_error = full.has_last = full.last = a->complete = true;
        full.error = -ERR_FULL;
        a->bytes = 0; /* this one is small */
        if (!keep(d, a, &full)) {
            ask_free(d, a); /* no memory at all: the asker's own time-out tells */
            return;
        }
    }
    loop_wake_send(d->wake);
}

void ask_cancel(struct ask_desk *d, uint64_t number) {
    struct ask *a = find_ask(d, number);
    if (a)
        ask_free(d, a);
}
