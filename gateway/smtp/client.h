/*
 * client: the client side of one SMTP or LMTP session, without I/O: octets of the server in,
 * events out; commands to be sent gather in .out.
 *
 * The owner (gateway/outbound/conn.c) moves octets, keeps time, streams the body and judges what
 * a reply means for a recipient. The core knows the order of the dialogue:
 *
 *     GREETING -> EHLO [-> HELO] -> READY
 *     EHLO -> STARTTLS -> SHAKING -> EHLO                          TLS, where .tls asks for it
 *     EHLO -> AUTH -> READY                                        where there is a .login
 *     READY -> XCLIENT -> EHLO -> READY                            client_introduce
 *     READY [-> XFORWARD] -> MAIL -> RCPT -> DATA -> BODY -> DOT -> READY       client_begin .. verdicts
 *     RCPT, DATA -> DRAIN -> RSET -> READY                         nobody was accepted, but 354 came
 *     MAIL, RCPT, DATA -> RSET -> READY                            the transaction failed and is still open there,
 *                                                                  or was only asking
 *     any -> QUIT -> END, any -> END
 *
 * With PIPELINING, MAIL, all RCPTs and DATA are sent at once, and the state is that of the oldest
 * reply that is missing.
 */
#ifndef GATEWAY_SMTP_CLIENT_H
#define GATEWAY_SMTP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "gateway/smtp/client_attrs.h"
#include "gateway/smtp/reply.h"

#define CLIENT_RCPT_MAX 1000u          /* recipients of one transaction */
#define CLIENT_RCPT_DEFAULT 100u       /* what a server takes that states no limit */
#define CLIENT_OUT_MAX (1024u * 1024u) /* most octets of commands on the way */

enum client_protocol { CLIENT_SMTP, CLIENT_LMTP };
enum client_stage {
    CLIENT_CONNECT, /* never the core's own state: for the owner's table */
    CLIENT_GREETING,
    CLIENT_EHLO,
    CLIENT_HELO,
    CLIENT_STARTTLS,
    CLIENT_SHAKING, /* the owner shakes hands: client_secured */
    CLIENT_AUTH,
    CLIENT_READY,
    CLIENT_XCLIENT,
    CLIENT_XFORWARD,
    CLIENT_MAIL,
    CLIENT_RCPT,
    CLIENT_DATA,
    CLIENT_BODY, /* the body is being sent: its final dot is not */
    CLIENT_DOT,  /* the final dot was sent */
    CLIENT_DRAIN,
    CLIENT_RSET,
    CLIENT_QUIT,
    CLIENT_END,
    CLIENT_STAGES
};
const char *client_stage_name(enum client_stage stage); /* "MAIL FROM", "the greeting", ... */

/* How a step was answered. */
enum client_answer {
    CLIENT_ANSWER_2,
    CLIENT_ANSWER_4,
    CLIENT_ANSWER_421, /* the server closes */
    CLIENT_ANSWER_5,
    CLIENT_ANSWER_BAD,  /* a complete reply that does not fit: 850, 354 to RCPT, 250 to DATA */
    CLIENT_ANSWER_NONE, /* no reply at all: garbage, mixed codes, endless */
    CLIENT_ANSWER_LOST, /* connection refused, reset or closed; the owner's finding, as the next one */
    CLIENT_ANSWER_TIMEOUT,
    CLIENT_ANSWERS
};

struct client_extensions {
    bool esmtp; /* EHLO or LHLO was answered 2yz */
    bool pipelining, eight_bit, smtputf8, dsn, chunking, starttls, size;
    uint64_t size_max;           /* 0: not stated */
    uint32_t rcpt_max, mail_max; /* LIMITS; 0: not stated */
    bool deliver_by, mt_priority, requiretls;
    char auth[200];             /* mechanisms, as offered; "" none */
    uint32_t xclient, xforward; /* attributes that it takes, as bits */
    uint64_t deliver_by_min_s;  /* least time that it takes a message with mode R for; 0: any */
};

struct client_recipient {
    struct span address; /* local@domain */
    struct span orcpt;   /* "rfc822;…", xtext decoded; or empty */
    uint32_t notify;     /* bits 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0: not given */
};
/* One transaction; all of it is borrowed until the transaction has ended (CLIENT_EV_READY or _END). */
struct client_mail {
    struct span sender;
    uint64_t size;  /* octets of the body as it will be sent, without stuffing */
    bool eight_bit; /* declare BODY=8BITMIME when the server has it */
    bool smtputf8;  /* say SMTPUTF8 */
    uint32_t ret;   /* 0, 1 FULL, 2 HDRS */
    struct span envid;
    /* said when the server offers it */
    bool requiretls, has_mt_priority, has_by;
    bool by_notify, by_trace;           /* BY: mode N, else R; modifier T */
    int64_t by_s;                       /* BY: seconds left */
    int32_t mt_priority;                /* -9 to 9 */
    const struct client_attrs *forward; /* told by XFORWARD before MAIL; or NULL */
    const struct client_recipient *recipients;
    uint32_t count; /* 1..CLIENT_RCPT_MAX */
    bool probe;     /* only asks: after the last RCPT comes RSET, and accepted recipients are told too */
};

enum client_tls {
    CLIENT_TLS_NEVER,
    CLIENT_TLS_OFFERED, /* when the server has it */
    CLIENT_TLS_MUST,    /* else the session ends at CLIENT_STARTTLS */
};
/* Who logs in (gateway/outbound/login.c); the core only carries lines. Appends what follows "AUTH " (the mechanism and,
 * after a blank, the initial response in base64) for the mechanisms offered, or the base64 line that answers a
 * challenge (decoded). False: it cannot be done; the session ends at CLIENT_AUTH. */
struct client_login {
    bool (*begin)(struct client_login *l, struct span mechanisms, struct buf *line);
    bool (*respond)(struct client_login *l, struct span challenge, struct buf *line);
};

enum client_event_kind {
    CLIENT_EV_MORE,      /* nothing more to tell from these octets */
    CLIENT_EV_READY,     /* a transaction may begin, and the last one is over */
    CLIENT_EV_RECIPIENT, /* .answer for one recipient: refused at RCPT (a probe: any answer), or (LMTP) any after the
                            dot */
    CLIENT_EV_LATER,     /* the server takes no more recipients in this transaction: this one goes into the next */
    CLIENT_EV_ALL,       /* .answer at .stage for all recipients that have no verdict yet */
    CLIENT_EV_BODY,      /* send the body and the final dot, then call client_body_sent */
    CLIENT_EV_END,       /* close; .answer at .stage holds for all recipients without verdict */
    CLIENT_EV_SECURE,    /* begin TLS when nothing is left in the input; then client_secured */
};
struct client_event {
    enum client_event_kind kind;
    enum client_stage stage;
    enum client_answer answer;
    uint32_t index;            /* EV_RECIPIENT, EV_LATER */
    const struct reply *reply; /* valid until the next call; NULL: none */
};

struct client {
    enum client_protocol protocol;
    enum client_stage state;
    const char *hostname; /* borrowed: our name for EHLO */
    struct client_extensions ext;
    enum client_tls tls;        /* set by the owner before the greeting */
    struct client_login *login; /* the same; or NULL */
    bool secured;
    struct buf out; /* the owner sends and consumes it */
    struct reply_parser parser;
    const struct client_mail *mail; /* under way */
    /* XCLIENT and XFORWARD */
    const struct client_attrs *attrs;       /* those that are being told */
    uint32_t attrs_offered;                 /* of XCLIENT, when the telling began */
    uint32_t attrs_group;                   /* next to be told */
    bool attrs_taken;                       /* a command of the telling under way was accepted */
    bool attrs_bad;                         /* every refusal of the telling under way was 501 */
    bool xclient_refused, xforward_refused; /* not tried again in this session */
    struct buf introduced;                  /* the XCLIENT commands that hold; empty: we are ourselves */
    struct buf declined;                    /* those whose values were refused last, with nothing taken */
    uint32_t next_rcpt;                     /* the recipient whose reply is due next */
    uint32_t accepted;
    uint32_t transactions; /* begun */
    bool announce;         /* EV_READY is due */
    bool failed;           /* MAIL was refused: the replies behind it mean nothing */
    bool ehlo_lines;       /* the parser's lines are those of EHLO */
    uint64_t accepted_bits[(CLIENT_RCPT_MAX + 63) / 64];
};

void client_init(struct client *c, enum client_protocol protocol, const char *hostname);
void client_deinit(struct client *c);
/* Takes octets from *in and tells the next event. Call until CLIENT_EV_MORE (then *in is empty) or
 * CLIENT_EV_END. Events that wait need no octets: call it with an empty span too. */
void client_next(struct client *c, struct span *in, struct client_event *e);
/* State SHAKING: the handshake is done. The server's first words in the clear are forgotten. */
void client_secured(struct client *c);
/* State READY: sends MAIL. ERR_INVALID: an address that cannot be sent (control characters); ERR_FULL,
 * ERR_NOMEM. The session is as before then. */
int client_begin(struct client *c, const struct client_mail *m) MUST_CHECK;
/* What XCLIENT can do for a message of this client. */
enum client_speaks {
    CLIENT_SPEAKS_FOR_IT,  /* the session stands for it already */
    CLIENT_SPEAKS_MAY_ASK, /* client_introduce */
    CLIENT_SPEAKS_PLAIN,   /* the server does not have XCLIENT or has refused it: the session is our own */
    CLIENT_SPEAKS_OTHER,   /* it stands for another client and cannot be made to stand for this one */
};
/* a NULL: a message without a client. */
enum client_speaks client_speaks_for(const struct client *c, const struct client_attrs *a);
/* State READY, SPEAKS_MAY_ASK: XCLIENT, and EHLO in the name of that client; EV_READY follows, also when the server
 * refused and the session was our own before; else EV_END. We do not log in again. *a is borrowed until then. */
void client_introduce(struct client *c, const struct client_attrs *a);
/* After EV_BODY: body and final dot were handed to the connection. */
void client_body_sent(struct client *c);
/* State READY: QUIT. EV_END follows its reply. */
void client_quit(struct client *c);
/* True while nothing of the transaction under way was answered. */
static inline bool client_is_untouched(const struct client *c) {
    return c->state == CLIENT_MAIL;
}

/* -- parts -- */
/* One line of the EHLO reply (client_ehlo.c). */
void client_ehlo_line(struct client_extensions *ext, struct span line);
/* The commands of a transaction, with their CRLF (client_command.c). */
int client_put_mail(struct buf *out, const struct client_extensions *ext, const struct client_mail *m) MUST_CHECK;
int client_put_rcpt(struct buf *out, const struct client_extensions *ext, const struct client_mail *m,
                    const struct client_recipient *r) MUST_CHECK;

#endif
