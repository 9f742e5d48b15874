/*
 * hook_sink: where a hook's lines go: an HTTP endpoint (POST, application/x-ndjson), or a unix socket. A batch is taken
 * as a whole or not at all; what "taken" means is the sink's affair:
 *
 * - HTTP: an answer of 2xx to the whole batch.
 * - unix socket of a stream: every octet was read by the other side. Of datagrams (one for each line, without its end):
 *   the same, but who closes the socket with datagrams unread loses those.
 *
 * One batch at a time. On a loop.
 */
#ifndef NODE_HOOK_SINK_H
#define NODE_HOOK_SINK_H

#include "base/err.h"
#include "base/net/loop.h"
#include "base/span.h"

struct hook_target {
    const char *url;            /* or NULL */
    const char *socket;         /* path, or NULL */
    const char *const *headers; /* NULL at the end; or NULL */
    const char *bearer;         /* or NULL */
    const char *ca_file, *certificate, *key;
    uint64_t timeout_ms; /* for a batch */
};
/* why: one clean line, when it was not taken. It may send the next batch; it must not free the sink. */
typedef void (*hook_sink_cb)(void *arg, bool taken, const char *why);

struct hook_sink;
/* target is borrowed. ERR_NOMEM. */
int hook_sink_new(struct hook_sink **s, struct loop *l, const struct hook_target *t, hook_sink_cb cb,
                  void *arg) MUST_CHECK;
/* Lines with their ends, which stay until cb, which comes once and never inside this call. */
void hook_sink_send(struct hook_sink *s, struct span lines);
/* No callback comes after it. */
void hook_sink_free(struct hook_sink *s);

/* -- hook_socket.c -- */
struct hook_socket;
struct hook_socket *hook_socket_new(struct loop *l, const char *path, uint64_t timeout_ms, hook_sink_cb cb,
                                    void *arg) MUST_CHECK;
void hook_socket_send(struct hook_socket *s, struct span lines);
void hook_socket_free(struct hook_socket *s);

#endif
