/*
 * admin: the RPC service of a node: operators' tools connect over ipc://; the roles of this node
 * connect to its inner hub, answer what it asks, and so need no door of their own.
 *
 * Runs on the main loop. A request is checked, passed to the role that knows (proto/admin.proto), and its
 * replies are passed back in order; a role that does not answer in time is an error, not a hang.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/err.h"
#include "base/net/bus.h"

#include "admin/ask.h"

#define ADMIN_HUB "inproc://admin"

struct admin_config {
    struct bus *bus;
    struct loop *loop;
    const char *rpc;  /* endpoint for tools: "ipc:///run/posthouse/admin" */
    const char *name; /* node */
    const char *version;
};
struct admin;
int admin_open(struct admin **a, const struct admin_config *c) MUST_CHECK;
void admin_close(struct admin *a);

/* Asks as a tool would, from the main loop. *number is for admin_ask_cancel. The replies come in later turns, the last
 * one always (also a refusal). q and who are not kept. ERR_FULL: too many questions at once. */
int admin_ask(struct admin *a, const Words__AdminRequest *q, const struct admin_caller *who, admin_answer_cb cb,
              void *arg, uint64_t *number) MUST_CHECK;
/* No callback comes any more; not for questions that have ended. */
void admin_ask_cancel(struct admin *a, uint64_t number);

#endif
