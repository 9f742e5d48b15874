/*
 * admin: the RPC service of a node: operators' tools connect over ipc:// or, with keys, over tcp://; the roles of
 * this node connect to its inner hub, answer what it asks, and so need no door of their own.
 *
 * Runs on the main loop. A request is checked (admin/access.h: may this asker?), a change is put into the audit, then
 * it is passed to the role that knows (proto/admin.proto), and its replies are passed back in order; a role that does
 * not answer in time is an error, not a hang.
 *
 * Who asks: over tcp the name of the key, whatever the tool says. Over ipc whoever can open the socket (mode 0600) is
 * an admin, and "unix:NAME" in the audit is what the tool said: a claim, not a proof.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/err.h"
#include "base/net/bus.h"

#include "admin/ask.h"

#define ADMIN_HUB "inproc://admin"
#define ADMIN_DOORS_MAX 8
#define ADMIN_DOMAIN "admin" /* of the keys that may enter (base/net/bus_zap.h) */

struct admin_key {
    const char *name;
    const char *key; /* public, Z85 */
    unsigned role;   /* admin/access.h: enum admin_role */
};
struct admin_config {
    struct bus *bus;
    struct loop *loop;
    const char *const *rpc;       /* endpoints for tools: "ipc:///run/posthouse/admin", "tcp://192.0.2.1:7026" */
    size_t rpc_count;             /* at most ADMIN_DOORS_MAX */
    const struct bus_key *key;    /* of the node; for tcp, where the handler of keys must run (bus_zap_start) */
    const struct admin_key *keys; /* who may enter by tcp; copied */
    size_t key_count;
    const char *name; /* node */
    const char *version;
    /* A verb that the node itself answers (access.h), by admin_node_reply, at once or later; NULL: none. q is valid for
     * the call. */
    void (*ask_node)(void *arg, uint64_t ticket, const Words__AdminRequest *q);
    void *node_arg;
};
struct admin;
/* *failed is the endpoint that could not be opened, or NULL. Errors of bus_hub_open_curve. */
int admin_open(struct admin **a, const struct admin_config *c, const char **failed) MUST_CHECK;
void admin_close(struct admin *a);
/* New keys and roles, from now on. ERR_INVALID, ERR_FULL, ERR_NOMEM: the old ones stay. */
int admin_set_keys(struct admin *a, const struct admin_key *keys, size_t count) MUST_CHECK;
/* One more reply to a verb of the node; the last one ends it (r->last; absent: it is). A ticket that is over is
 * ignored. */
void admin_node_reply(struct admin *a, uint64_t ticket, Words__AdminReply *r);
/* Where a door is really (its port, when the settings said 0). ERR_NOT_FOUND: no such door. */
int admin_endpoint(const struct admin *a, size_t door, char *to, size_t size) MUST_CHECK;

/* Asks as a tool would, from the main loop. *number is for admin_ask_cancel. The replies come in later turns, the last
 * one always (also a refusal). q and who are not kept. ERR_FULL: too many questions at once. */
int admin_ask(struct admin *a, const Words__AdminRequest *q, const struct admin_caller *who, admin_answer_cb cb,
              void *arg, uint64_t *number) MUST_CHECK;
/* No callback comes any more; not for questions that have ended. */
void admin_ask_cancel(struct admin *a, uint64_t number);

#endif
