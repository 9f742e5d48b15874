/*
 * reply: reads the replies of an SMTP or LMTP server (RFC 5321 section 4.2, RFC 2034).
 *
 * Bytes in, one reply at a time out. Nothing that a server sends makes it hold more than
 * one struct: long lines are cut, and a reply of more than REPLY_OCTETS_MAX octets is no
 * reply. What is kept of the text is one clean line of printable ASCII, fit for logs,
 * reports and traces.
 */
#ifndef GATEWAY_SMTP_REPLY_H
#define GATEWAY_SMTP_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define REPLY_TEXT_MAX 512u            /* octets of the clean text */
#define REPLY_LINE_MAX 512u            /* octets of a line that are looked at; the rest is dropped */
#define REPLY_OCTETS_MAX (64u * 1024u) /* of a whole reply with its line ends */
#define REPLY_ENHANCED_MAX 11u         /* "5.999.999" and some room */

enum reply_status {
    REPLY_MORE,   /* the reply has not ended yet */
    REPLY_DONE,   /* .reply is complete; its code may still be outside of 200..599 */
    REPLY_BROKEN, /* not a reply: .reply.text tells what came; the stream is out of step, close it */
};

struct reply {
    uint16_t code; /* three digits as sent, 0..999; 0 when broken */
    uint16_t text_len;
    char enhanced[REPLY_ENHANCED_MAX + 1]; /* "5.1.1"; "" when absent, malformed or of another class */
    char text[REPLY_TEXT_MAX + 1];         /* all lines joined by a space, without the code; NUL-terminated */
};
static inline struct span reply_text(const struct reply *r) {
    return span_make(r->text, r->text_len);
}
/* The first digit: 2..5 decide, anything else is no answer. */
static inline unsigned reply_class(const struct reply *r) {
    return r->code / 100u;
}

/* Called for each line as it is complete, text without code and line end, as the server sent it. */
typedef void (*reply_line_cb)(void *arg, uint32_t number, struct span text);

struct reply_parser {
    struct reply reply;
    reply_line_cb on_line; /* may be NULL */
    void *arg;
    uint32_t octets, lines;
    bool ended; /* the next octet begins a new reply */
    uint16_t line_len;
    char line[REPLY_LINE_MAX];
};

void reply_init(struct reply_parser *p);
/* Takes octets up to the end of one reply and returns how many it took. Call again with the
 * rest for the next reply. After REPLY_BROKEN the parser starts anew, but the stream should be closed. */
size_t reply_feed(struct reply_parser *p, struct span in, enum reply_status *status);

/* An enhanced status code at the start of text, of the class of `code`: true and its length. */
bool reply_enhanced(struct span text, unsigned code, size_t *len);

#endif
