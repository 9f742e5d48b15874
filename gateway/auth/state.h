/*
 * state: what one auth holds, for auth.c (which makes and ends it), offer.c (what it offers) and exchange.c (which uses
 * it). Everything but the counters of guess and remember is fixed once it was made.
 */
#ifndef GATEWAY_AUTH_STATE_H
#define GATEWAY_AUTH_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/net/guess.h"
#include "base/pool.h"

#include "gateway/auth/auth.h"
#include "gateway/auth/backend.h"
#include "gateway/auth/io.h"
#include "gateway/auth/remember.h"
#include "gateway/auth/scram.h"
#include "gateway/auth/sender.h"

enum { AUTH_OFFERS_MAX = 32, AUTH_OFFER_SIZE = 512 };

struct auth_offer { /* a text that was handed out; lives as long as the auth */
    struct auth_offer *next;
    size_t len;
    char text[AUTH_OFFER_SIZE];
};
struct auth {
    atomic_uint refs;
    atomic_uint in_flight; /* questions at backends or at the hash threads */
    pthread_mutex_t lock;  /* of questions that come home, of offers */
    struct arena mem;      /* texts of the configuration */
    struct auth_config config;
    struct auth_backend *backends[AUTH_BACKENDS_MAX];
    size_t count;
    struct auth_io *io; /* or NULL */
    struct pool *hashes;
    struct guess *guess;
    struct remember *good; /* NULL: no cache */
    struct sender_login *senders;
    struct scram_context *scram;
    bool scram_named;              /* the configuration names SCRAM */
    uint8_t fake[32];              /* secret of fake salts */
    char decoy[AUTH_HASH_MAX + 1]; /* for accounts that no backend knows and none has a decoy for */
    struct auth_offer *offers;
    size_t offer_count;
};

/* Puts q to the backend; takes it until auth_question_done. */
void auth_question_send(struct auth_question *q, struct auth_backend *b);
/* Verifies q->password against q->hash on a thread: YES, NO or CANNOT. */
void auth_question_verify(struct auth_question *q);

/* offer.c. Who runs this mechanism on such a connection. */
enum auth_mechanism { AUTH_PLAIN, AUTH_LOGIN, AUTH_SCRAM, AUTH_SCRAM_PLUS, AUTH_PASSED };
struct auth_way {
    enum auth_mechanism mechanism;
    struct auth_backend *backend; /* PASSED */
    bool needs_tls;               /* it is offered, but not here */
};
/* name: upper case. ERR_UNSUPPORTED: nobody. */
int auth_way_find(const struct auth *a, struct span name, bool tls, bool binding, struct auth_way *way) MUST_CHECK;
/* Checks config.mechanisms. */
int auth_offer_check(struct auth *a, struct buf *problems) MUST_CHECK;

/* metrics of the end of exchanges */
enum auth_result {
    AUTH_RESULT_OK,
    AUTH_RESULT_FAILED,
    AUTH_RESULT_TEMPFAIL,
    AUTH_RESULT_REFUSED,
    AUTH_RESULT_MALFORMED,
    AUTH_RESULT_CANCELED
};
void auth_count(enum auth_result result);
/* A backend could not answer. */
void auth_backend_failed(const struct auth_backend *b, const char *why);

#endif
