/*
 * web: the HTTP face of a node: metrics for Prometheus, health, the JSON API (the operators' RPC for browsers and
 * programs) and the console, one static page. See docs/console.md.
 *
 * Runs on the main loop. It knows no more than the RPC: every question of the API is asked there, in the name of who
 * signed in. Without users it is open, and read-only, to whoever reaches its loopback address.
 */
#ifndef ADMIN_WEB_H
#define ADMIN_WEB_H

#include "admin/admin.h"
#include "base/net/tcp.h"

#define WEB_USERS_MAX 200u
#define WEB_PARTS_MAX 8u

struct web_user {
    const char *name, *password; /* a hash of base/net/password.h */
    int role;                    /* enum admin_role - 1: viewer, operator, admin */
};
struct web_settings {
    bool on;
    struct tcp_addr address;
    const struct web_user *users;
    size_t user_count;
};
struct web_part { /* of readiness */
    const char *name;
    bool good;
};
/* Fills what is needed to accept mail; returns how many. */
typedef size_t (*web_ready_cb)(void *arg, struct web_part parts[WEB_PARTS_MAX]);
struct web_config {
    struct loop *loop;
    struct admin *admin;
    int fd; /* bound to the address; taken, also on failure */
    web_ready_cb ready;
    void *arg;
};
struct web;
int web_open(struct web **w, const struct web_config *c, const struct web_settings *s) MUST_CHECK;
/* New users; the sessions of those who changed end. ERR_NOMEM: the old ones stay. */
int web_reconfigure(struct web *w, const struct web_settings *s) MUST_CHECK;
void web_close(struct web *w); /* before the admin service; NULL is fine */

#endif
