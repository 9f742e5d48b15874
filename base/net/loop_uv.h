/*
 * loop_uv: what loop.c and tcp.c share of libuv. No other file includes this or uv.h.
 *
 * Every handle has its close callback in handle->data, so that loop_free can close what its
 * owner left open; the callback releases the memory around the handle.
 */
#ifndef BASE_NET_LOOP_UV_H
#define BASE_NET_LOOP_UV_H

#include <uv.h>

#include "base/list.h"
#include "base/net/loop.h"

enum { LOOP_LENT_SIZE = 64 * 1024 };

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle; /* active while a hook has work pending, so that the loop does not block */
    struct list hooks;
    bool in_hooks, in_timer;
    /* for tcp.c */
    struct loop_hook *tcp_hook;
    struct list tcp_resumed; /* connections to look at in the next turn */
    struct list tcp_full;    /* connections whose read buffer is full */
    char *lent;              /* LOOP_LENT_SIZE + 1 bytes that a connection reads into while it holds none of its own */
};

static inline void loop_set_release(uv_handle_t *h, uv_close_cb release) {
    h->data = (void *)release;
}
/* Closes a handle whose release was set; fine when it is closing already. */
static inline void loop_close_handle(uv_handle_t *h) {
    if (!uv_is_closing(h))
        uv_close(h, (uv_close_cb)h->data);
}
/* Makes the coming turn run without blocking, and the loop stay alive for it. */
void loop_turn_soon(struct loop *l);

#endif
