/*
 * mime: makes a message with 8-bit content fit for a server without 8BITMIME (RFC 6152 section 3),
 * part by part: quoted-printable or base64, with the Content-Transfer-Encoding rewritten.
 *
 * Pure: a whole message in, a whole message out. Parts without 8-bit octets are copied as
 * they are. What is signed or encrypted is never touched, and what is not well-formed MIME is
 * never guessed at: then the message cannot be converted, and the caller fails it (5.6.3).
 */
#ifndef GATEWAY_SMTP_MIME_H
#define GATEWAY_SMTP_MIME_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define MIME_DEPTH_MAX 32
#define MIME_MESSAGE_MAX (64u * 1024u * 1024u) /* longer messages are not converted */

/* Any octet over 127? */
bool mime_has_8bit(struct span s);
/* Any octet over 127 in the header of the message (up to the first empty line, or all of it)? */
bool mime_has_8bit_header(struct span message);
/* Appends the converted message to `to`. ERR_OK; ERR_UNSUPPORTED: signed, encrypted or of a kind that
 * must not be converted; ERR_INVALID: malformed; ERR_RANGE: over MIME_MESSAGE_MAX; ERR_FULL, ERR_NOMEM. *why tells
 * in words (static text) when not ERR_OK. */
int mime_to_7bit(struct span message, struct buf *to, const char **why) MUST_CHECK;

/* -- parts (mime_header.c, mime_encode.c) -- */
struct mime_type {
    struct span type, subtype; /* as written, no comments */
    char boundary[71];         /* of a multipart, unquoted; "" when absent */
    bool given;                /* there is a Content-Type field */
};
enum mime_encoding { MIME_NONE, MIME_7BIT, MIME_8BIT, MIME_BINARY, MIME_QP, MIME_BASE64, MIME_UNKNOWN };
struct mime_header {
    struct span fields; /* the header without the empty line */
    struct span body;
    struct span encoding_field; /* the whole Content-Transfer-Encoding field with its line ends; empty: absent */
    struct mime_type type;
    enum mime_encoding encoding;
    bool version; /* has MIME-Version */
};
/* Divides an entity and reads the fields that matter. ERR_INVALID and *why: malformed or doubled. */
int mime_read_header(struct mime_header *h, struct span entity, const char **why) MUST_CHECK;
/* Body encodings; line ends of the source are CRLF. Errors show in to->err. */
void mime_add_qp(struct buf *to, struct span body);
void mime_add_base64(struct buf *to, struct span body);
/* True when base64 is the shorter of the two. */
bool mime_prefers_base64(struct span body);

#endif
