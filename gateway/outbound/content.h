/*
 * content: the octets of one message as an attempt reads them: from the job's frame, from chunks that
 * are fetched from the scheduler with two on the way at most, or from a converted copy.
 */
#ifndef GATEWAY_OUTBOUND_CONTENT_H
#define GATEWAY_OUTBOUND_CONTENT_H

#include "base/buf.h"
#include "base/net/bus.h"
#include "base/span.h"

#define BODY_AHEAD 2         /* chunks held or asked for */
#define BODY_WAIT_MS 60000   /* without an answer to a fetch the body is given up */
#define BODY_REPEAT_MS 10000 /* a fetch is repeated */

struct content;
/* Asks the scheduler for one chunk. */
typedef void (*content_fetch)(void *arg, uint32_t number);
struct content {
    uint64_t size;
    bool chunked;
    struct bus_bytes *whole;             /* referenced; not chunked */
    struct bus_bytes *ahead[BODY_AHEAD]; /* chunk n is in n % BODY_AHEAD */
    uint32_t chunks, current;            /* number of chunks; the one that is read */
    uint32_t asked;                      /* chunks below this were asked for */
    uint64_t read;                       /* octets taken */
    uint64_t asked_ms, moved_ms;         /* last fetch sent; last progress */
    struct buf converted;
    bool use_converted;
    content_fetch fetch;
    void *arg;
};
/* References `whole` (NULL and size > 0: chunked). */
void content_init(struct content *b, uint64_t size, struct bus_bytes *whole, bool chunked, content_fetch fetch,
                  void *arg);
void content_deinit(struct content *b);
/* From the first octet again; which of the two forms. */
void content_rewind(struct content *b, bool converted, uint64_t now_ms);
/* Octets at hand, borrowed until content_take; empty: at the end, or chunks are on the way. */
struct span content_at(struct content *b, uint64_t now_ms);
void content_take(struct content *b, size_t len, uint64_t now_ms);
bool content_is_end(const struct content *b);
uint64_t content_size(const struct content *b); /* of the form in use */
/* A chunk has come. ERR_OK; ERR_NOT_FOUND: not one that is awaited (a repeat: ignore it); ERR_CORRUPT: of a wrong
 * length. */
int content_on_chunk(struct content *b, uint32_t number, struct bus_bytes *bytes, uint64_t now_ms) MUST_CHECK;
/* Repeats what is overdue. False: nothing came for BODY_WAIT_MS, give it up. */
bool content_tick(struct content *b, uint64_t now_ms);

#endif
