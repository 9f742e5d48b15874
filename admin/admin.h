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

#endif
