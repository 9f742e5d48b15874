/*
 * check: the words in which a session asks what it may not decide alone: facts about client and transaction in, a
 * verdict out, at once or later. Milters, policy services, DNS lists, greylisting and mail authentication speak it.
 *
 * A check never blocks a loop. It answers in the call (ERR_OK), or says ERR_AGAIN and calls back later on the same
 * loop, exactly once, never inside the call. The facts and what they point at stay until then; a session that ends
 * first calls check_cancel, and no callback comes.
 */
#ifndef GATEWAY_FILTER_CHECK_H
#define GATEWAY_FILTER_CHECK_H

#include "base/err.h"
#include "base/net/loop.h"
#include "base/net/tcp.h"
#include "base/net/tls.h"
#include "base/span.h"
#include "gateway/smtp/server.h"

enum check_stage { CHECK_CONNECT, CHECK_HELO, CHECK_MAIL, CHECK_RCPT, CHECK_DATA, CHECK_END };

struct check_facts {
    /* of the session */
    const struct tcp_addr *client, *local; /* the client's true address (PROXY, XCLIENT) and port; ours */
    struct span client_ip;                 /* text, as tcp_addr_ip */
    struct span client_name;               /* name by address, confirmed by address by name; empty: none */
    struct span reverse_name;              /* name by address, unconfirmed; empty: none */
    struct span helo;                      /* empty before HELO */
    bool esmtp;
    const struct tls_info *tls; /* NULL: plain */
    struct span mechanism;      /* of AUTH; empty: not authenticated */
    struct span account;        /* authenticated name; empty: not authenticated */
    bool trusted;               /* client in trusted_networks */
    bool submission;            /* the listener takes submissions */
    struct span hostname;       /* ours */
    /* of the transaction, from CHECK_MAIL on */
    struct span id;     /* name of the submission: 13 characters, the same for all of the transaction */
    struct span sender; /* local@domain; empty: the null path */
    uint64_t size;      /* declared (MAIL), counted (END); 0: not known */
    bool smtputf8, eight_bit_given;
    struct span recipient; /* CHECK_RCPT: address as given, canonical form */
    uint32_t recipients;   /* accepted so far */
};

enum check_action {
    CHECK_PASS,
    CHECK_REFUSE,  /* reply: 4yz or 5yz; close: the session ends behind it */
    CHECK_DISCARD, /* say yes, and drop (only where an operator's filter asks for it; logged) */
};
struct check_verdict {
    enum check_action action;
    bool close;
    struct server_reply reply; /* texts live as long as the check's own object, or are static; at least until the
                                * callback has returned */
    struct span by;            /* who said so, for the log: "milter rspamd", "dnsbl zen.example" */
};
typedef void (*check_cb)(void *arg, const struct check_verdict *v);

/* What waits. The first member of each check's own struct. */
struct check_wait {
    void (*cancel)(struct check_wait *w);
};
static inline void check_cancel(struct check_wait *w) {
    if (w)
        w->cancel(w);
}

#endif
