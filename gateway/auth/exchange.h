/*
 * exchange: one AUTH exchange on its loop, as a state machine: exchange.c owns it (auth_begin, auth_answer, auth_cancel
 * of auth.h), delivers its events and counts its tries; mechanism.c decides what comes next.
 */
#ifndef GATEWAY_AUTH_EXCHANGE_H
#define GATEWAY_AUTH_EXCHANGE_H

#include "gateway/auth/state.h"

/* FIRST, NAME, PASSWORD, PROOF, LAST, PASSED: a response is awaited. BUSY: a question or the timer is. */
enum step { STEP_BUSY, STEP_FIRST, STEP_NAME, STEP_PASSWORD, STEP_PROOF, STEP_LAST, STEP_PASSED };
struct auth_exchange {
    struct auth *auth;
    const struct auth_client *client;
    auth_cb cb;
    void *arg;
    struct loop_timer *timer;
    enum auth_mechanism mechanism;
    enum step step, next; /* next: after the challenge that is being delivered */
    struct auth_question *q;
    struct scram *scram;
    size_t backend;                           /* which is asked; count: the decoy */
    bool asking;                              /* q is away */
    bool begun;                               /* PASSED: the backend holds a conversation */
    bool client_open, account_open;           /* admitted by guess, */
    struct guess_key client_key, account_key; /* under these */
    bool counted;                             /* its end is in the metrics */
    bool binding;                             /* -PLUS is offered on this connection */
    uint64_t since_ms;                        /* when the response came that is judged */
    uint32_t admit_tries;
    void (*admitted)(struct auth_exchange *x); /* what waits for admission, or NULL: the timer delivers */
    enum auth_event event;
    struct buf text;
    char name[AUTH_MECHANISM_MAX + 1];
    char asked[AUTH_ACCOUNT_MAX + 1]; /* the account whose password is checked; q->account may become another */
};

/* -- exchange.c: each of these ends the judging of a response -- */
/* text goes to the client; its response is taken as next. */
void exchange_challenge(struct auth_exchange *x, struct span text, enum step next);
void exchange_malformed(struct auth_exchange *x);
void exchange_over_cap(struct auth_exchange *x);
void exchange_fail(struct auth_exchange *x, const char *why); /* the try is counted, the answer held back */
void exchange_succeed(struct auth_exchange *x);               /* q->account is the account */
void exchange_cannot_tell(struct auth_exchange *x, const char *why);
/* The response that came now is a try: go(x) when it may be judged, perhaps later. */
void exchange_admit(struct auth_exchange *x, void (*go)(struct auth_exchange *x));

/* The try is over. Returns the failures that count for the delay. */
uint32_t exchange_close_try(struct auth_exchange *x, bool bad);
enum guess_verdict exchange_open_key(struct auth_exchange *x, bool *open, struct guess_key key, uint32_t cap);
bool exchange_is_over(struct auth_exchange *x); /* the cap of the client's network or of q->account */

/* -- mechanism.c -- */
void mechanism_take(struct auth_exchange *x, struct span response); /* x->step is not BUSY */
void mechanism_answered(struct auth_exchange *x);                   /* q has come home */

#endif
