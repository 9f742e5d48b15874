/*
 * server_inner: what the files of the server core share: changes of state, replies, the commands. Nobody
 * else includes it.
 */
#ifndef GATEWAY_SMTP_SERVER_INNER_H
#define GATEWAY_SMTP_SERVER_INNER_H

#include "gateway/smtp/server.h"

/* -- server_state.c -- */
/* The one place where a state changes. A transition that is not in the table is a bug. */
void server_set_state(struct server *s, enum server_state state);
/* The transaction is over: the owner hears ABORT if it has one; the arena goes when it has. */
void server_abort(struct server *s);
/* What the transaction left is removed. */
void server_clear(struct server *s);
/* Which fault the body has by now; the first one aborts. */
void server_find_fault(struct server *s);
/* The fault that the owner found, with a copy of its words: they are said at the end of the body only. */
void server_take_fault(struct server *s, struct server_reply reply);

/* -- server_reply.c -- */
void server_say(struct buf *out, unsigned code, const char *enhanced, const char *text);
void server_say_reply(struct buf *out, const struct server_reply *reply);
static inline struct server_reply server_reply_make(unsigned code, const char *enhanced, const char *text) {
    return (struct server_reply){(uint16_t)code, span_of(enhanced), span_of(text)};
}
/* The reply at the end of a body that has this fault. */
struct server_reply server_fault_reply(const struct server *s);

/* -- command.c -- */
/* One command line without its CRLF. */
void command_run(struct server *s, struct span line, struct buf *out, struct server_step *step);
/* Most octets of any command line with its CRLF: AUTH with an initial response (RFC 4954 section 4). */
#define COMMAND_LINE_MAX 12288u
/* Most octets of MAIL and RCPT with what their parameters add. */
#define COMMAND_PATH_MAX 2048u
/* The session begins anew: no name, no transaction. */
void command_forget(struct server *s);
/* The reply to EHLO or HELO. */
void command_hello(struct server *s, struct buf *out);
/* The body may begin, or not (answer.code >= 400). */
void command_begin(struct server *s, struct server_reply answer, struct buf *out);

/* -- command_auth.c -- */
void command_auth(struct server *s, struct span args, struct buf *out, struct server_step *step);
/* A line while a response is due. */
void command_response(struct server *s, struct span line, struct buf *out, struct server_step *step);
void command_auth_end(struct server *s, unsigned code);
void command_starttls(struct server *s, struct span args, struct buf *out, struct server_step *step);
void command_xclient(struct server *s, struct span args, struct buf *out, struct server_step *step);

/* -- command_mail.c -- */
void command_mail(struct server *s, struct span args, struct buf *out, struct server_step *step);
/* Why MAIL may not come yet: true, and *why. */
bool command_must_wait(const struct server *s, struct server_reply *why);
void command_rcpt(struct server *s, struct span args, struct buf *out, struct server_step *step);

#endif
