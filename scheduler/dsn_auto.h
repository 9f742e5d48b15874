/*
 * dsn_auto: recognises mail that no person wrote to be answered, by its header: reports, feedback from mailbox
 * providers (RFC 5965), automatic mail (RFC 3834), and mail in bulk. What follows from it is decided in compose.c and
 * told in docs/reports.md.
 */
#ifndef SCHEDULER_DSN_AUTO_H
#define SCHEDULER_DSN_AUTO_H

#include "base/span.h"

enum dsn_auto {
    DSN_AUTO_NONE,
    DSN_AUTO_FEEDBACK,   /* multipart/report with report-type=feedback-report */
    DSN_AUTO_REPORT,     /* any other multipart/report */
    DSN_AUTO_SUBMITTED,  /* Auto-Submitted other than "no" */
    DSN_AUTO_PRECEDENCE, /* Precedence: bulk, list or junk */
    DSN_AUTO_KINDS
};

/* content: the message from its first octet, at least its header. The first kind of the list above that fits. */
enum dsn_auto dsn_recognise(struct span content);
/* "feedback", "report", "auto_submitted", "precedence"; "none". */
const char *dsn_auto_name(enum dsn_auto kind);

#endif
