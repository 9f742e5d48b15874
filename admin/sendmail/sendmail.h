/*
 * sendmail: the command that programs of a machine call to send mail: reads a message, and submits it over SMTP to a
 * Posthouse gateway. It keeps no queue: what the gateway has not taken is the caller's again, with exit status 75 (try
 * again) or the refusal.
 *
 *   main.c      the options of old, and what they mean here
 *   message.c   the message from standard input: its header in memory, its body in an unnamed file
 *   mailboxes.c addresses out of To, Cc and Bcc
 *   submit.c    the dialogue with the gateway (gateway/smtp/client.h), blocking
 */
#ifndef ADMIN_SENDMAIL_SENDMAIL_H
#define ADMIN_SENDMAIL_SENDMAIL_H

#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "gateway/smtp/client.h"

#define SENDMAIL_RECIPIENTS_MAX 10000u
#define SENDMAIL_HEADER_MAX (1024u * 1024u)
#define SENDMAIL_BODY_MAX (1024ull * 1024u * 1024u)

struct recipient_list {
    struct span *at; /* local@domain, in the arena */
    size_t count, cap;
};
/* Appends one, unless it is there. ERR_FULL, ERR_NOMEM. */
int recipient_list_add(struct recipient_list *l, struct span address, struct arena *mem) MUST_CHECK;

/* -- mailboxes.c -- */
/* Adds the addresses of one field's value (RFC 5322 section 3.4: names, comments, groups, quoted strings). An address
 * without a domain gets `domain`. ERR_INVALID and *bad: the part that is no address; ERR_FULL, ERR_NOMEM. */
int mailboxes_add(struct recipient_list *l, struct span value, const char *domain, struct arena *mem,
                  struct span *bad) MUST_CHECK;

/* -- message.c -- */
struct message_options {
    bool dot_ends;         /* a line that holds one dot is the end */
    bool wants_recipients; /* -t: out of the header */
    const char *from;      /* address for a missing From field */
    const char *name;      /* full name for it, or NULL */
    const char *hostname;  /* for a missing Message-ID, and Received */
    const char *domain;    /* for addresses without one */
    unsigned userid;       /* for Received */
};
struct message {
    struct buf header; /* lines end in CRLF; with the empty line behind it */
    int fd;            /* the rest */
    uint64_t size;     /* of both */
    bool eight_bit;
};
/* Reads all of `in`. ERR_INVALID and *bad (an address in a header field); ERR_RANGE: too long; ERR_NOT_FOUND: no
 * recipient where the header was to name them; ERR_IO; ERR_NOMEM. */
int message_read(struct message *m, int in, const struct message_options *o, struct recipient_list *l,
                 struct arena *mem, struct span *bad) MUST_CHECK;
void message_close(struct message *m);

/* -- submit.c -- */
struct submission {
    const char *host, *port; /* of the gateway */
    const char *hostname;    /* for EHLO */
    struct span sender;
    const struct recipient_list *recipients;
    const struct message *message;
    uint32_t notify, ret;
    struct span envid;
    bool verbose; /* the dialogue to standard error */
};
/* Sends it, in as many transactions as the gateway's limits ask for. Refusals are printed. An exit status: 0; 67 some
 * recipients were refused (the others have it); 69 refused for good; 75 not now; 76 no SMTP. */
int submit(const struct submission *s) MUST_CHECK;

#endif
