/*
 * body: the octets of one message as an attempt reads them: from the job's frame, from chunks that
 * are fetched from the scheduler with two on the way at most, or from a converted copy.
 */
#ifndef GATEWAY_OUTBOUND_BODY_H
#define GATEWAY_OUTBOUND_BODY_H

#include "base/buf.h"
#include "base/net/bus.h"
#include "base/span.h"

#define BODY_AHEAD 2          /* chunks held or asked for */
#define BODY_WAIT_MS 60000    /* without an answer to a fetch the body is given up */
#define BODY_REPEAT_MS 10000  /* a fetch is repeated */

struct body;
/* Asks the scheduler for one chunk. */
typedef void (*body_fetch)(void *arg, uint32_t number);
struct body {
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
    body_fetch fetch;
    void *arg;
};
/* References `whole` (NULL and size > 0: chunked). */
void body_init(struct body *b, uint64_t size, struct bus_bytes *whole, bool chunked, body_fetch fetch, void *arg);
void body_deinit(struct body *b);
/* From the first octet again; which of the two forms. */
void body_rewind(struct body *b, bool converted, uint64_t now_ms);
/* Octets at hand, borrowed until body_take; empty: at the end, or chunks are on the way. */
struct span body_at(struct body *b, uint64_t now_ms);
void body_take(struct body *b, size_t len, uint64_t now_ms);
bool body_is_end(const struct body *b);
uint64_t body_size(const struct body *b); /* of the form in use */
/* A chunk has come. ERR_OK; ERR_NOT_FOUND: not one that is awaited (a repeat: ignore it); ERR_CORRUPT: of a wrong length. */
int body_on_chunk(struct body *b, uint32_t number, struct bus_bytes *bytes, uint64_t now_ms) MUST_CHECK;
/* Repeats what is overdue. False: nothing came for BODY_WAIT_MS, give it up. */
bool body_tick(struct body *b, uint64_t now_ms);

#endif
