/*
 * post_mail: the delivery node's own way to submit mail that it writes itself (TLS reports): one peer at the
 * scheduler's hub, speaking as a gateway does. Short mails only (one frame); no line: what finds no credit or no room
 * is refused and tried again by its owner. Belongs to one loop.
 */
#ifndef GATEWAY_OUTBOUND_POST_MAIL_H
#define GATEWAY_OUTBOUND_POST_MAIL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/bus.h"
#include "gateway/outbound/tlsrpt.h"

#define POST_MAIL_PENDING_MAX 64u

/* Appends what goes before the message, whole header fields with CRLF: a DKIM signature. */
typedef int (*post_mail_sign)(void *arg, const char *from, struct span message, struct buf *to);

struct post_mail;
/* name: for the hub's log. sign may be NULL. ERR_NOMEM and the bus's errors. */
int post_mail_open(struct post_mail **p, struct bus *bus, struct loop *l, const char *endpoint, const char *name,
                   post_mail_sign sign, void *sign_arg) MUST_CHECK;
/* Forgets what waits without calling back. */
void post_mail_close(struct post_mail *p);
/* Repeats the hello while there is no welcome; gives up answers that are overdue. About once a second. */
void post_mail_tick(struct post_mail *p);
/* A tlsrpt_mailer; arg is the post_mail. The mail is one of low priority that never makes a report to its sender. cb
 * once, from the loop, true when it is durable in the queue. Errors without a cb: ERR_AGAIN (no welcome or no credit
 * now), ERR_FULL (POST_MAIL_PENDING_MAX wait), ERR_RANGE (over FRAME_BODY_MAX), ERR_INVALID (an address), ERR_NOMEM,
 * what sign returned. */
int post_mail_send(void *arg, const struct tlsrpt_mail *m, tlsrpt_mailed_cb cb, void *cb_arg) MUST_CHECK;

#endif
