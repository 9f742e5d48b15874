/*
 * held: a message that is kept whole in the gateway while filters judge it, and that they may change: header fields
 * as a list, the body as octets. Used only where a filter is configured; other mail streams through.
 *
 * Memory: header fields and HELD_MEMORY octets of the body; what is longer lies in an unlinked temporary file of mode
 * 0600 in the directory given (page cache, never synced: it need not outlive the process). Belongs to one session, and
 * for a while to a check that works on another thread (held_ref).
 */
#ifndef GATEWAY_FILTER_HELD_H
#define GATEWAY_FILTER_HELD_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define HELD_MEMORY (256u * 1024u)      /* octets of the body in memory */
#define HELD_HEADER_MAX (1024u * 1024u) /* octets of all header fields; more is refused with ERR_FULL */
#define HELD_FIELDS_MAX 10000u

struct held;
/* dir: for long bodies, or NULL: /tmp is never used, long bodies then give ERR_FULL. NULL: no memory. */
struct held *held_new(const char *dir) MUST_CHECK;
/* One more owner: helper threads read it while its session may end. Each owner frees it; the last one frees it truly.
 * The count is atomic; everything else belongs to one thread at a time. */
struct held *held_ref(struct held *h);
void held_free(struct held *h);
/* Octets of heap that it holds now (what lies in the file is not counted). */
size_t held_memory(const struct held *h);

/* -- filling: octets of the message in order, CRLF lines. ERR_NOMEM, ERR_FULL (header too large), ERR_NO_SPACE, ERR_IO
 */
int held_append(struct held *h, struct span octets) MUST_CHECK;
/* The message is whole; also gives the error of an append that failed before. Nothing below may be called earlier.
 * A message without an empty line is all header; a first line that is no header field begins the
 * body (RFC 5322 has no word for it; nothing is lost, and held_read gives back exactly what came in). */
int held_finish(struct held *h) MUST_CHECK;
uint64_t held_size(const struct held *h); /* octets that held_read will give */

/* -- fields, from 0, in order; removed ones are not counted -- */
size_t held_count(const struct held *h);
/* name without colon; value: raw octets behind the colon without the final CRLF: leading space and folds as they are.
 */
void held_field(const struct held *h, size_t n, struct span *name, struct span *value);
/* Index of the nth (from 0) field of this name (any case), or -1. */
ptrdiff_t held_find(const struct held *h, struct span name, size_t nth);
/* Whether held_insert would find name and value lawful. */
bool held_is_field(struct span name, struct span value);
/* Octets of all fields with their line ends. */
size_t held_header_size(const struct held *h);
/* value: text behind the colon; a leading space is added when there is none; LF or CRLF followed by a blank are folds
 * and become CRLF; other line breaks, NUL and bad names are ERR_INVALID. ERR_FULL, ERR_NOMEM. Positions: 0 is in front
 * of all; >= held_count appends. */
int held_insert(struct held *h, size_t at, struct span name, struct span value) MUST_CHECK;
int held_change(struct held *h, size_t n, struct span value) MUST_CHECK;
void held_remove(struct held *h, size_t n);

/* -- body -- */
uint64_t held_body_size(const struct held *h);
/* The octets from `at`, at most `max` (into the caller's memory). Bytes read, 0 at the end, or ERR_IO. */
ptrdiff_t held_body_read(struct held *h, uint64_t at, char *to, size_t max) MUST_CHECK;
/* The body is replaced by what follows: begin drops the old one at the first call. */
int held_body_replace(struct held *h) MUST_CHECK;
int held_body_append(struct held *h, struct span octets) MUST_CHECK; /* after held_body_replace only */

/* -- reading it out: header fields, an empty line, the body -- */
/* The octets from `at` of the whole message, at most max, into `to`. Bytes, 0 at the end, or ERR_IO. Sequential reading
 * is fast. The message must not change meanwhile. */
ptrdiff_t held_read(struct held *h, uint64_t at, char *to, size_t max) MUST_CHECK;
/* 8-bit octets in it (for BODY=8BITMIME onward); counts what filters changed. */
bool held_eight_bit(const struct held *h);

#endif
