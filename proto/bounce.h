/*
 * bounce: what kind of trouble a reply tells of, as one of a small fixed set of categories for logs, metrics and
 * people.
 *
 * Pure: three facts in, one category out. It decides nothing about mail: whether a reply is permanent is its first
 * digit's affair alone. The table and its order are explained in docs/reports.md.
 */
#ifndef PROTO_BOUNCE_H
#define PROTO_BOUNCE_H

#include "base/span.h"

enum bounce_category { /* names are labels of metrics: they stay */
                       BOUNCE_OTHER,
                       BOUNCE_UNKNOWN_RECIPIENT, /* there is no such mailbox */
                       BOUNCE_MAILBOX_FULL,
                       BOUNCE_INACTIVE, /* the mailbox is closed, disabled, or has moved */
                       BOUNCE_POLICY,   /* a rule of the other side: relaying, who may write to whom */
                       BOUNCE_SPAM,
                       BOUNCE_REPUTATION,     /* our address is listed, has a bad name or no name */
                       BOUNCE_AUTHENTICATION, /* SPF, DKIM, DMARC */
                       BOUNCE_CONTENT,        /* viruses, attachments, broken or unsupported form */
                       BOUNCE_SIZE,
                       BOUNCE_PROTOCOL,
                       BOUNCE_ROUTING,    /* DNS, no host, no such domain */
                       BOUNCE_CONNECTION, /* no connection, or it was lost, or the service is closed */
                       BOUNCE_TLS,
                       BOUNCE_RATE, /* slow down, come again */
                       BOUNCE_TIMEOUT,
                       BOUNCE_LOOP,
                       BOUNCE_EXPIRED, /* given up after all its time */
                       BOUNCE_CATEGORIES
};

/* code: three digits, 0: it is our own finding. enhanced: "5.1.1" or empty. text: of the reply, its enhanced code may
 * stand in front. */
enum bounce_category bounce_classify(uint32_t code, struct span enhanced, struct span text);
/* "mailbox_full"; "other" for unknown numbers. */
const char *bounce_name(enum bounce_category category);

#endif
