/*
 * payload: what a submission carries while the core decides, and what the first attempt needs.
 *
 * A pending payload is named by its token from the first frame of a submission until it is answered.
 * Then it moves into the cache, named by its message id, so that a job for the first attempt is
 * made without reading the store. The cache is bounded by bytes: the least recently used goes first,
 * and whoever misses an entry reads the store instead.
 */
#ifndef SCHEDULER_PAYLOAD_H
#define SCHEDULER_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/net/bus.h"

#define PAYLOAD_SUBMISSION_LEN 16

struct hub_peer;

enum payload_phase {
    PAYLOAD_STAGING, /* chunks arrive; not yet submitted */
    PAYLOAD_PENDING, /* submitted to the core, its batch is not durable */
};
struct payload {
    uint64_t token;
    uint64_t id; /* message id: reserved for staged chunks, else set by the core */
    uint8_t submission[PAYLOAD_SUBMISSION_LEN];
    enum payload_phase phase;
    struct hub_peer *peer; /* who waits for the answer; NULL for our own reports */
    uint64_t correlation;
    uint64_t credit; /* bytes to give back with the answer */
    char *envelope;  /* packed Envelope, owned */
    size_t envelope_len;
    struct bus_bytes *body;  /* owned reference; NULL when chunked */
    uint32_t chunks;         /* staged so far */
    uint32_t chunks_waiting; /* of them not yet on disk: the submission waits for these */
    bool submitted;          /* the submission itself has arrived */
    bool aborted;            /* to be forgotten when no chunk is waiting any more */
    uint32_t recipients;
    uint64_t staged_bytes;
    uint64_t touched_ms;
    bool report; /* written by us */
    int failed;  /* a staged chunk could not be written: why */
    struct map_node by_token, by_submission;
    struct list_node link; /* of all, oldest first */
};

/* A stored message kept in memory for its first attempt. */
struct cached {
    uint64_t id;
    char *envelope;
    size_t envelope_len;
    struct bus_bytes *body;
    struct map_node by_id;
    struct list_node lru;
};

struct payloads {
    struct map tokens, submissions, cache;
    struct list all, lru;
    uint64_t last_token;
    uint64_t cache_bytes, cache_max;
    uint32_t pending_max;
};

/* cache_max in bytes. */
void payloads_init(struct payloads *p, uint64_t cache_max, uint32_t pending_max);
void payloads_deinit(struct payloads *p);
/* A new pending payload for this submission id (may be NULL: none). NULL: no memory or pending_max reached. */
struct payload *payload_new(struct payloads *p, const uint8_t *submission) MUST_CHECK;
struct payload *payload_by_token(const struct payloads *p, uint64_t token);
/* One that is still pending, or NULL. */
struct payload *payload_by_submission(const struct payloads *p, const uint8_t *submission);
void payload_free(struct payloads *p, struct payload *l);
/* Moves envelope and body into the cache under l->id (when they fit), and frees l. */
void payload_keep(struct payloads *p, struct payload *l);
/* The cached message, moved to the young end; NULL: read the store. */
struct cached *cached_get(struct payloads *p, uint64_t id);
void cached_drop(struct payloads *p, uint64_t id);

#endif
