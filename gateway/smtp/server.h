/*
 * server: the SMTP server protocol (RFC 5321 and the extensions that EHLO lists), without I/O and clock.
 *
 * Octets of the client go in through server_next, which consumes some, appends replies to `out`, and
 * returns at the first step that concerns the owner: a sender or recipient to judge, octets of the body,
 * the end of the message. Whatever the owner is asked it answers by server_answer, at once or later; until
 * then nothing more is consumed, so replies keep their order under pipelining. The owner writes `out` to the
 * client whenever server_next has nothing more to do. Called by gateway/inbound/session; it never
 * judges an address itself and never stores anything.
 *
 * Memory: one idle server owns its HELO name and nothing else. A transaction lives in the server's arena,
 * which the owner may use for what belongs to that transaction, and which is emptied when it is over.
 */
#ifndef GATEWAY_SMTP_SERVER_H
#define GATEWAY_SMTP_SERVER_H

#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "gateway/smtp/address.h"
#include "gateway/smtp/data.h"

#define SERVER_OUT_MAX 65536u       /* what `out` must be able to hold */
#define SERVER_ARENA_MAX (4u << 20) /* most memory of one transaction, without the body */
#define SERVER_IDLE_COMMANDS 100    /* NOOP, RSET and the like between two messages that are free; more are errors */
#define SERVER_BODY_TIMES 4          /* the size limit that is read of a refused body before the session ends */
#define SERVER_AUTH_TRIES 3         /* failed AUTH commands after which a session ends with 421 */

/* Extensions that a listener may leave out (or must ask for). */
enum server_extension {
    SERVER_EXT_PIPELINING = 1 << 0,
    SERVER_EXT_SIZE = 1 << 1,
    SERVER_EXT_8BITMIME = 1 << 2,
    SERVER_EXT_SMTPUTF8 = 1 << 3,
    SERVER_EXT_DSN = 1 << 4,
    SERVER_EXT_CHUNKING = 1 << 5,
    SERVER_EXT_LIMITS = 1 << 6,
    SERVER_EXT_STARTTLS = 1 << 7,
    SERVER_EXT_AUTH = 1 << 8,
    SERVER_EXT_REQUIRETLS = 1 << 9,
    SERVER_EXT_MT_PRIORITY = 1 << 10,
    SERVER_EXT_DELIVERBY = 1 << 11,
    SERVER_EXT_FUTURERELEASE = 1 << 12,
};
#define SERVER_EXT_BASIC 0x7fu /* PIPELINING to LIMITS */

struct server_config {
    const char *hostname;
    uint64_t message_size;     /* octets, > 0 */
    uint32_t recipients;       /* RCPT commands accepted in one transaction */
    uint32_t received_headers; /* so many hops are a loop */
    uint32_t commands_bad;     /* errors before 421; five times as many refused recipients */
    bool normalize;            /* bare newlines become CRLF instead of being refused */
    bool vrfy;                 /* ask the owner at VRFY */
    uint32_t extensions;       /* enum server_extension bits that this listener offers */
    bool tls_required;         /* MAIL and AUTH outside TLS: 530 5.7.0 */
    bool auth_required;        /* MAIL without AUTH: 530 5.7.0 */
    bool ask_helo, ask_data;   /* the owner is asked at EHLO and HELO, and before 354 */
    uint64_t release_max_ms;   /* FUTURERELEASE: longest wait */
    uint32_t deliverby_min_s;  /* DELIVERBY: shortest time that can be kept; 0: not said */
};
/* What all sessions between two reloads share: the configuration and the composed texts. */
struct server_settings {
    struct server_config config;
    struct span hostname, greeting;
    struct span ehlo; /* the lines that are the same in every state, each as "250-..." */
    struct arena mem;
};
int server_settings_init(struct server_settings *s, const struct server_config *c) MUST_CHECK; /* ERR_NOMEM */
void server_settings_deinit(struct server_settings *s);

/*
 * Transitions (server_state.c holds them as a table):
 *   START -> HELLO, REFUSED    the greeting
 *   HELLO -> READY             EHLO, HELO
 *   READY -> MAIL              MAIL
 *   MAIL  -> RCPT              first accepted RCPT
 *   RCPT  -> DATA              DATA
 *   DATA  -> READY             CRLF.CRLF and its answer
 *   any but START, REFUSED, DATA -> CHUNK   BDAT; out of order the chunk is read and refused
 *   CHUNK -> BDAT, READY, DEAD the chunk is over: more follow, message over, failed
 *            HELLO             a chunk out of order is over
 *   MAIL, RCPT, BDAT -> DEAD   malformed BDAT
 *   MAIL, RCPT, BDAT, DEAD -> READY   RSET, EHLO, HELO
 *   READY, MAIL, RCPT, BDAT, DEAD -> HELLO   STARTTLS, XCLIENT, HELO refused by the owner
 *   any   -> CLOSED            QUIT, 421, a bare newline
 */
enum server_state {
    SERVER_START,
    SERVER_REFUSED,
    SERVER_HELLO,
    SERVER_READY,
    SERVER_MAIL,
    SERVER_RCPT,
    SERVER_DATA,
    SERVER_CHUNK,
    SERVER_BDAT,
    SERVER_DEAD,
    SERVER_CLOSED,
};
enum server_wait {
    SERVER_WAIT_NONE,
    SERVER_WAIT_HELO,
    SERVER_WAIT_MAIL,
    SERVER_WAIT_RCPT,
    SERVER_WAIT_VRFY,
    SERVER_WAIT_DATA,
    SERVER_WAIT_END,
    SERVER_WAIT_AUTH,
    SERVER_WAIT_XCLIENT,
    SERVER_WAIT_TLS, /* the handshake: server_secured */
};
enum server_fault {
    SERVER_FAULT_NONE,
    SERVER_FAULT_BARE,
    SERVER_FAULT_LINE,
    SERVER_FAULT_SIZE,
    SERVER_FAULT_LOOP,
    SERVER_FAULT_ORDER, /* BDAT out of order */
    SERVER_FAULT_OWNER, /* server_fail_body */
};

/* texts of a reply; the text is made printable and cut to 400 octets. */
struct server_reply {
    uint16_t code;
    struct span enhanced; /* "2.1.5" */
    struct span text;
};
struct server_mail {
    struct address sender;
    struct span envid; /* decoded; .at NULL: not given */
    uint64_t size;     /* declared; 0: not */
    uint8_t ret;       /* 0 not given, 1 FULL, 2 HDRS */
    bool smtputf8, eight_bit;
    bool requiretls;
    bool has_priority;
    int8_t priority; /* MT-PRIORITY (RFC 6710), -9 to 9 */
    bool has_by;     /* DELIVERBY (RFC 2852) */
    bool by_notify;  /* mode N; else R */
    bool by_trace;
    int32_t by_s;           /* seconds from now; may be 0 or negative in mode N */
    uint64_t hold_for_ms;   /* FUTURERELEASE (RFC 4865): from now; 0: not given */
    uint64_t hold_until_ms; /* the same as wall clock; 0: not given */
};
struct server_rcpt {
    struct address address;
    struct span orcpt; /* "type;decoded"; .at NULL: not given */
    uint8_t notify;    /* bits of RFC 3461: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0: not given */
};

enum server_step_kind {
    SERVER_STEP_INPUT,    /* all that can be used was used: write `out`, come again with more */
    SERVER_STEP_FLUSH,    /* `out` is well filled: write it, come again */
    SERVER_STEP_ANSWER,   /* an answer is owed: nothing was consumed */
    SERVER_STEP_HELO,     /* step->span: the name. Answer below 300 lets it pass, with our own words; else a refusal */
    SERVER_STEP_MAIL,     /* judge server->mail; answer 250 or a refusal */
    SERVER_STEP_RCPT,     /* judge server->rcpt; answer 250 or a refusal */
    SERVER_STEP_VRFY,     /* judge step->span (the argument); answer anything */
    SERVER_STEP_DATA,     /* a body is about to begin: answer below 400 lets it, with our own words; else a refusal */
    SERVER_STEP_BEGIN,    /* the body begins: BODY steps, then END or ABORT */
    SERVER_STEP_BODY,     /* step->span: octets of the message, in the input or constant; may be empty */
    SERVER_STEP_END,      /* the message is complete; answer with its fate */
    SERVER_STEP_ABORT,    /* forget the transaction: body, recipients, sender */
    SERVER_STEP_CLOSE,    /* write `out`, then close; forget the transaction */
    SERVER_STEP_STARTTLS, /* write `out`, then begin TLS; input behind this step is an attack. Then server_secured */
    SERVER_STEP_AUTH,     /* server->auth: a mechanism; challenge or answer 235, 535, 454, 501, 504 */
    SERVER_STEP_RESPONSE, /* step->span: the decoded response to a challenge; the same answers */
    SERVER_STEP_CANCEL,   /* the exchange was given up; nothing is to be answered */
    SERVER_STEP_XCLIENT,  /* step->span: the attributes; answer below 300 greets anew */
};
struct server_step {
    enum server_step_kind kind;
    size_t used; /* octets of the input consumed */
    struct span span;
};

/* Counts for the owner's log and metrics. */
struct server_tally {
    uint32_t commands, syntax, order, unknown, refused;
};

/* What AUTH asked for; lives until the answer. */
struct server_auth {
    struct span mechanism; /* as given */
    struct span initial;   /* decoded; .at NULL: none */
};

struct server {
    const struct server_settings *settings; /* borrowed; the owner may change it with server_use */
    enum server_state state;
    enum server_wait wait;
    enum server_fault fault;
    bool esmtp, draining;
    bool open;         /* the owner has a transaction of ours */
    bool closing;      /* CLOSE is the next step */
    bool skipping;     /* an overlong command line is thrown away */
    bool abort_due;    /* ABORT is the next step */
    bool stale;        /* the arena holds what is over */
    uint16_t farewell; /* code of the reply that ended the dialogue */
    bool chunk_last;
    enum server_state chunk_back; /* state after a refused chunk */
    struct span helo;             /* heap; as given */
    bool tls, authenticated;
    bool xclient;   /* the owner allows XCLIENT to this client */
    bool in_auth;   /* the next line is a response */
    bool begin_due; /* BEGIN is the next step */
    bool bdat_due;  /* what waits at WAIT_DATA is a chunk */
    uint8_t auth_failures;
    struct span mechanisms; /* behind "250-AUTH "; the owner's memory; empty: AUTH is not offered now */
    struct server_auth auth;
    uint64_t wall_ms; /* set by the owner now and then, for FUTURERELEASE */
    struct arena mem; /* of the transaction */
    struct server_mail mail;
    struct server_rcpt rcpt;
    uint32_t rcpt_count; /* accepted */
    uint32_t errors, refusals;
    uint32_t idle_commands; /* since the last message */
    uint64_t skipped;       /* octets of the overlong line */
    uint64_t body_octets;   /* of the DATA or the chunk that is being read */
    uint64_t chunk_left, chunk_size;
    struct data data;
    struct server_reply owner_fault;
    char *owner_words; /* heap: its texts */
    struct server_tally tally;
};

void server_init(struct server *s, const struct server_settings *settings);
void server_deinit(struct server *s);
/* New settings from now on; only between transactions (server_is_idle) . */
void server_use(struct server *s, const struct server_settings *settings);

/* The greeting. refusal (may be NULL): a 554 with these words; then everything but QUIT is answered 503. */
void server_greet(struct server *s, const struct server_reply *refusal, struct buf *out);
/* A farewell at the owner's wish: appends this reply; CLOSE follows. */
void server_farewell(struct server *s, struct server_reply reply, struct buf *out);
/* From now on the next command is answered 421. A body under way is finished first. */
void server_drain(struct server *s);

/* Consumes and acts until a step concerns the owner. `in` is all input not yet consumed. */
void server_next(struct server *s, struct span in, struct buf *out, struct server_step *step);
/* The handshake is done: all is forgotten but that TLS is on (RFC 3207 section 4.2). mechanisms as in struct server. */
void server_secured(struct server *s, struct span mechanisms);
/* At a STEP_AUTH or STEP_RESPONSE: 334 and this text, encoded. */
void server_challenge(struct server *s, struct span text, struct buf *out);
/* The answer to what is waited for. */
void server_answer(struct server *s, struct server_reply reply, struct buf *out);
/* Between BEGIN and END: the owner cannot take this body. The rest is read and dropped, and this is the reply at its
 * end (the texts are copied). No ABORT follows. */
void server_fail_body(struct server *s, struct server_reply reply);

/* Between commands, with nothing owed: a farewell fits in. */
static inline bool server_is_between(const struct server *s) {
    return s->wait == SERVER_WAIT_NONE && s->state != SERVER_DATA && s->state != SERVER_CHUNK;
}
/* Between commands and outside a transaction. */
static inline bool server_is_idle(const struct server *s) {
    return server_is_between(s) && (s->state <= SERVER_READY || s->state == SERVER_CLOSED);
}
/* Octets of a body are expected. */
static inline bool server_is_reading_body(const struct server *s) {
    return s->state == SERVER_DATA || s->state == SERVER_CHUNK;
}

#endif
