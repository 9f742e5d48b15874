/*
 * ask: questions to the operators' RPC from inside this process (the HTTP face). To the service such a question is a
 * call like a tool's, under the empty peer name; its replies wait here for the next turn of the loop, so that no
 * callback comes inside the call that asks.
 *
 * All on the main loop. At most ASK_MAX questions at once, and ASK_BYTES_MAX octets of replies for each.
 */
#ifndef ADMIN_ASK_H
#define ADMIN_ASK_H

#include <stdint.h>

#include "base/err.h"
#include "base/net/loop.h"
#include "proto/admin.pb-c.h"

#define ASK_MAX 64u
#define ASK_BYTES_MAX (16u * 1024u * 1024u)

/* Who asks; the service decides what they may, and keeps changes in the audit. */
struct admin_caller {
    const char *actor;  /* name of the user */
    unsigned role;      /* admin/access.h: enum admin_role */
    const char *origin; /* "http 192.0.2.1" */
};
/* A reply, valid in the callback; r->last tells the last one. */
typedef void (*admin_answer_cb)(void *arg, const Words__AdminReply *r);

/* -- for the service -- */
struct ask_desk;
int ask_desk_new(struct ask_desk **d, struct loop *l) MUST_CHECK; /* ERR_NOMEM */
void ask_desk_free(struct ask_desk *d);                           /* questions end without a callback; NULL is fine */
/* The number of a new question, or 0: too many, or no memory. */
uint64_t ask_begin(struct ask_desk *d, admin_answer_cb cb, void *arg) MUST_CHECK;
/* A reply to question `number`; after the last one the question is gone. Unknown numbers are ignored. */
void ask_put(struct ask_desk *d, uint64_t number, const Words__AdminReply *r);
/* No callback comes any more. Unknown numbers are ignored. */
void ask_cancel(struct ask_desk *d, uint64_t number);

#endif
