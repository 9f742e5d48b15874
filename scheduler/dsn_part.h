/*
 * dsn_part: what the files of the report composer share: cleaning of strangers' octets, and the parts.
 */
#ifndef SCHEDULER_DSN_PART_H
#define SCHEDULER_DSN_PART_H

#include "scheduler/dsn.h"

/* -- dsn_clean.c -- */
/* Appends s on one line: control octets, invalid UTF-8 and direction marks become visible; what is over
 * `most` octets of s is cut, with "..." behind. ascii: other than ASCII becomes visible too. */
void dsn_add_clean(struct buf *b, struct span s, size_t most, bool ascii);
/* Appends "name: value" CRLF, the value folded at spaces to lines of 76 and, where there is none, of 900. value
 * holds no CR or LF. */
void dsn_add_field(struct buf *b, const char *name, struct span value);
/* The same with the content of v, which is freed; an error that v met becomes one of b. */
void dsn_add_field_of(struct buf *b, const char *name, struct buf *v);
/* Appends text with CRLF line ends and no line over 998: bare CR or LF become CRLF, NUL a question mark. */
void dsn_add_lines(struct buf *b, struct span text);
/* Appends the octets as base64 in lines of 76, or as quoted-printable (for text with CRLF lines). */
void dsn_add_base64(struct buf *b, struct span octets);
void dsn_add_quoted(struct buf *b, struct span text);

/* -- dsn.c -- */
/* The original is returned whole. */
bool dsn_is_whole(const struct dsn *d);

/* -- dsn_text.c -- */
/* The part for people. */
void dsn_add_text(struct buf *b, const struct dsn *d);
/* The field "Subject"; utf8: as it is, else in encoded words where it is not ASCII. */
void dsn_add_subject(struct buf *b, const struct dsn *d, bool utf8);

/* -- dsn_status.c -- */
/* The part for programs, without its MIME header. global: as message/global-delivery-status, UTF-8 as it is. */
void dsn_add_status(struct buf *b, const struct dsn *d, bool global);
/* "5.1.1": the recipient's status when it is one, else the default of the kind. */
struct span dsn_status_of(const struct dsn *d, const struct dsn_recipient *r);

#endif
