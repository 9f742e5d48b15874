/*
 * signer: signs mail of our own (reports on deliveries, reports on TLS) with the keys of the front end, which the
 * scheduler and the delivery node do not know. A reload changes the keys beneath.
 */
#ifndef NODE_SIGNER_H
#define NODE_SIGNER_H

#include "base/buf.h"
#include "gateway/filter/mailauth.h"

struct signer;
/* dir: for long bodies. NULL: no memory. */
struct signer *signer_new(const char *dir) MUST_CHECK;
/* Nobody may sign any more. */
void signer_free(struct signer *s);
/* The keys from now on; NULL: none. Any thread; takes a reference. */
void signer_use(struct signer *s, struct mailauth *keys);
/* A scheduler_sign and a post_mail_sign; arg is the signer. Appends a DKIM-Signature field, or nothing: without a key
 * for the domain of `from`, or when signing fails, which is counted and logged. A report is better unsigned than lost.
 * Always ERR_OK. Any thread; one at a time. */
int signer_sign(void *arg, const char *from, struct span message, struct buf *to);

#endif
