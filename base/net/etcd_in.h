/*
 * etcd_in: what the files of the door to etcd share: the client, and the ask, which is one question with its
 * repetitions at the endpoints.
 */
#ifndef BASE_NET_ETCD_IN_H
#define BASE_NET_ETCD_IN_H

#include "base/list.h"

#include "base/net/etcd.h"
#include "base/net/http.h"

enum {
    ETCD_AUTHORIZATION_MAX = ETCD_TOKEN_MAX + 32,
    ETCD_WHY_MAX = 400,
    ETCD_URL_MAX = 512,
    ETCD_UNDER_WAY_MAX = 8, /* gets and transactions at a time */
    ETCD_BLOCK = 16 * 1024,
    ETCD_ARENA_MAX = 64 * 1024 * 1024 /* of what was read from one answer */
};

struct etcd_ask;
struct etcd {
    struct loop *loop;
    struct http *calls;              /* gets and transactions */
    struct http *vital;              /* leases, watches, logins: never behind the others in a queue */
    char (*endpoints)[ETCD_URL_MAX]; /* no slash at the end */
    size_t endpoints_count, current;
    char *user, *password;
    char authorization[ETCD_AUTHORIZATION_MAX]; /* the header with the token, or "" */
    bool open_door;                             /* a user is set, but etcd asks for none */
    uint64_t token_number;                      /* so that a late fault does not end a newer token */
    struct etcd_ask *login;                     /* on its way, or NULL */
    struct loop_timer *login_timer;             /* the next one, after one that was refused */
    uint64_t login_not_before_ms;
    uint64_t timeout_ms, attempt_ms, probe_ms;
    uint64_t cluster;                 /* 0: not known yet */
    uint64_t revision_seen;           /* of the store: whatever is asked from now on must know it */
    bool failing[ETCD_ENDPOINTS_MAX]; /* was logged, and has not answered since */
    struct list asks, calls_open, leases, watches;
    unsigned under_way;
    struct loop_timer *probe_timer;
    struct etcd_ask *probe;
    uint64_t heard_ms; /* when the current endpoint last answered (loop_now_ms) */
    bool up;
    char trouble[ETCD_WHY_MAX];
};

/* -- etcd.c -- */

/* If it is the current one, the next becomes so, and the watches at it move. */
void etcd_endpoint_failed(struct etcd *e, size_t endpoint, const char *why);
void etcd_endpoint_heard(struct etcd *e, size_t endpoint);
/* False: from another cluster than before. */
bool etcd_is_our_cluster(struct etcd *e, uint64_t cluster);
/* A linearizable answer whose question went out when the store had come to `floor`: an older revision means that the
 * store was restored from a copy, and that watches behind it must end. */
void etcd_revision_heard(struct etcd *e, uint64_t revision, uint64_t floor);
/* lines: room for five; what it points to stays until the token changes. */
void etcd_set_headers(const struct etcd *e, bool with_token, const char **lines);
/* "URL/path" of an endpoint. */
void etcd_set_url(const struct etcd *e, size_t endpoint, const char *path, char *to, size_t size);
/* Sees to it that the current endpoint is looked after; for the first watch. */
void etcd_probe_begin(struct etcd *e);

/* -- etcd_ask.c -- */

struct etcd_ask_config {
    const char *path; /* static */
    enum etcd_kind kind;
    bool once;           /* must not be done twice: not repeated when it may have been done */
    bool vital;          /* not in the queue of gets and transactions */
    bool login;          /* goes without a token */
    uint64_t timeout_ms; /* with repetitions; 0: the client's */
    uint64_t attempt_ms; /* one repetition; 0: the client's */
};
struct etcd_ask_result {
    int err;
    const char *why;
    bool in_doubt;
    uint64_t sent_ms;               /* clock_boot_ms before the question that was answered went out */
    const struct etcd_reply *reply; /* with ERR_OK; valid in the callback */
};
typedef void (*etcd_ask_cb)(void *arg, const struct etcd_ask_result *r);
/* body: moved, also on failure. NULL: no memory. cb once, not inside, unless canceled. */
struct etcd_ask *etcd_ask_new(struct etcd *e, const struct etcd_ask_config *c, struct buf *body, etcd_ask_cb cb,
                              void *arg) MUST_CHECK;
void etcd_ask_cancel(struct etcd_ask *a); /* NULL is none; not after its callback has begun */
void etcd_asks_drop(struct etcd *e);      /* all that are left */
/* Lets those that wait for a token go on; with an err it ends them, in a later turn. */
void etcd_ask_wake(struct etcd *e, int err, const char *why);

/* -- etcd_login.c -- */

/* Whether a question may go now; otherwise a token is on its way, and etcd_ask_wake follows. */
bool etcd_may_ask(struct etcd *e);
/* The token of this number is no good any more. */
void etcd_token_failed(struct etcd *e, uint64_t token_number);
void etcd_on_login_timer(void *arg);

/* -- etcd_call.c, etcd_lease.c, etcd_watch.c -- */

/* Ends a lease; cb may be NULL. */
struct etcd_call *etcd_revoke_id(struct etcd *e, uint64_t id, etcd_cb cb, void *arg) MUST_CHECK;
void etcd_calls_drop(struct etcd *e);
void etcd_leases_drop(struct etcd *e);
void etcd_watches_drop(struct etcd *e);
void etcd_watches_go_back(struct etcd *e, uint64_t revision); /* those that heard of later ones end */
void etcd_watches_move(struct etcd *e, size_t failed);        /* those at this endpoint begin anew */

#endif
