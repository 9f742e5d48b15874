/*
 * backend: what stands behind auth: file.c (in memory), ldap.c and postgres.c (threads with one connection each),
 * http.c and dovecot.c (on the loop of io.c). An exchange puts one question at a time; a backend answers each question
 * exactly once through auth_question_done, from any thread, within its deadline.
 *
 * A question lives until it is answered, also when its exchange was canceled meanwhile; who made it frees it.
 */
#ifndef GATEWAY_AUTH_BACKEND_H
#define GATEWAY_AUTH_BACKEND_H

#include <stdatomic.h>

#include "base/pool.h"

#include "gateway/auth/auth.h"

enum {
    AUTH_ACCOUNT_MAX = 255,
    AUTH_PASSWORD_MAX = 511, /* crypt(3) takes no more */
    AUTH_HASH_MAX = 511,
    AUTH_RESPONSE_MAX = 12288, /* RFC 4954 section 4.5 */
    AUTH_MECHANISM_MAX = 20,
    AUTH_WAITING_MAX = 1000, /* questions waiting at one backend */
};

enum auth_ask {
    AUTH_ASK_HASH,     /* the stored hash of an account */
    AUTH_ASK_PASSWORD, /* is this its password? */
    AUTH_ASK_START,    /* a whole mechanism is run by the backend: its beginning, */
    AUTH_ASK_CONTINUE, /* a further response, */
    AUTH_ASK_FORGET,   /* and its early end */
};
enum auth_reply {
    AUTH_REPLY_YES,     /* account may have been made canonical */
    AUTH_REPLY_NO,      /* wrong password, locked */
    AUTH_REPLY_UNKNOWN, /* no such account here */
    AUTH_REPLY_CANNOT,  /* cannot tell: why has one clean line */
    AUTH_REPLY_HASH,    /* hash is filled */
    AUTH_REPLY_MORE,    /* out is the next challenge */
};

struct auth_question {
    struct pool_job job;       /* for backends with a pool */
    struct post_letter letter; /* to the backend's loop, and home */
    struct list_node node;     /* the backend's own */
    enum auth_ask ask;
    char account[AUTH_ACCOUNT_MAX + 1]; /* normalised */
    char password[AUTH_PASSWORD_MAX + 1];
    char mechanism[AUTH_MECHANISM_MAX + 1];
    char client_ip[112], local_ip[112];
    uint16_t client_port, local_port;
    bool tls;
    struct buf in; /* START, CONTINUE: the client's response */
    bool has_in;
    uint64_t deadline_ms;         /* clock_mono_ms */
    struct auth_backend *backend; /* who is asked */
    uint64_t link;                /* the backend's: which connection holds the conversation, */
    uint32_t id;                  /* and under which number */
    bool sent;

    enum auth_reply reply;
    char hash[AUTH_HASH_MAX + 1];
    struct buf out;
    char why[200];

    struct auth *auth;
    struct post *home;
    struct auth_exchange *exchange;
    atomic_bool canceled; /* nobody waits for the answer: backends may skip the work, but must answer */
};
/* auth.c. Any thread; q may be gone afterwards. */
void auth_question_done(struct auth_question *q, enum auth_reply reply);
/* The same with CANNOT and a reason (any bytes; cleaned and cut). */
void auth_question_cannot(struct auth_question *q, struct span why);
struct auth_question *auth_question_new(void) MUST_CHECK;
void auth_question_free(struct auth_question *q); /* wipes */

/* Each backend defines its own, this first. */
struct auth_backend_ops {
    void (*ask)(struct auth_backend *b, struct auth_question *q); /* any thread, never blocks */
    void (*close)(struct auth_backend *b); /* joins threads, answers what is open, frees; on the loop of io.c when b
                                            * lives there */
    /* The others may be NULL. */
    bool (*has_verifiers)(const struct auth_backend *b); /* some of its hashes are for SCRAM */
    bool (*is_stale)(const struct auth_backend *b);
    /* A stored hash (verifier: one for SCRAM) to stand for an account that does not exist, so that it costs and looks
     * the same; false: has none. */
    bool (*decoy)(struct auth_backend *b, struct span account, bool verifier, char to[AUTH_HASH_MAX + 1]);
    /* Names of mechanisms that it runs by itself, one after the other; false: no more. */
    bool (*runs)(struct auth_backend *b, size_t index, char name[AUTH_MECHANISM_MAX + 1]);
};
struct auth_backend {
    const struct auth_backend_ops *ops;
    const char *name;
    enum auth_kind kind;
    bool gives_hashes; /* asked for HASH, else for PASSWORD */
    bool on_io;
    uint64_t timeout_ms;
};

/* Makers. c and its texts outlive the backend. problems: one line each. ERR_INVALID, ERR_NOMEM. */
struct auth_io;
/* realm: lines without '@' are meant with it; outlives the backend; or NULL. */
int auth_file_new(struct auth_backend **b, const struct auth_backend_config *c, const char *realm,
                  struct buf *problems) MUST_CHECK;
int auth_ldap_new(struct auth_backend **b, const struct auth_backend_config *c, struct buf *problems) MUST_CHECK;
/* scram: its hashes may serve SCRAM. */
int auth_postgres_new(struct auth_backend **b, const struct auth_backend_config *c, bool scram,
                      struct buf *problems) MUST_CHECK;
int auth_http_new(struct auth_backend **b, const struct auth_backend_config *c, struct auth_io *io,
                  struct buf *problems) MUST_CHECK;
int auth_dovecot_new(struct auth_backend **b, const struct auth_backend_config *c, struct auth_io *io,
                     struct buf *problems) MUST_CHECK;

#endif
