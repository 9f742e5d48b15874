/*
 * payload: see payload.h. Two kinds of short-lived memory of the scheduler, both bounded: pending
 * submissions (by count, their bytes by the credit that gateways were given) and the cache of
 * bodies for first attempts (by bytes).
 */
#include "scheduler/payload.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#define CACHED_OVERHEAD 160u

void payloads_init(struct payloads *p, uint64_t cache_max, uint32_t pending_max) {
    memset(p, 0, sizeof *p);
    map_init(&p->tokens);
    map_init(&p->submissions);
    map_init(&p->cache);
    list_init(&p->all);
    list_init(&p->lru);
    p->cache_max = cache_max;
    p->pending_max = pending_max;
}

static uint64_t hash_u64(uint64_t n) {
    return hash_bytes(&n, sizeof n, 0);
}

static bool match_token(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, struct payload, by_token)->token == *(const uint64_t *)key;
}

static bool match_submission(const struct map_node *n, const void *key) {
    return memcmp(LIST_ENTRY(n, struct payload, by_submission)->submission, key, PAYLOAD_SUBMISSION_LEN) == 0;
}

static bool match_id(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, struct cached, by_id)->id == *(const uint64_t *)key;
}

static bool has_submission(const struct payload *l) {
    static const uint8_t none[PAYLOAD_SUBMISSION_LEN];
    return memcmp(l->submission, none, sizeof none) != 0;
}

struct payload *payload_new(struct payloads *p, const uint8_t *submission) {
    if (p->all.count >= p->pending_max)
        return NULL;
    struct payload *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->token = ++p->last_token;
    if (map_insert(&p->tokens, &l->by_token, hash_u64(l->token)) != ERR_OK) {
        free(l);
        return NULL;
    }
    if (submission)
        memcpy(l->submission, submission, sizeof l->submission);
    if (has_submission(l) &&
        map_insert(&p->submissions, &l->by_submission, hash_bytes(l->submission, sizeof l->submission, 0)) != ERR_OK) {
        map_remove(&p->tokens, &l->by_token);
        free(l);
        return NULL;
    }
    list_push_back(&p->all, &l->link);
    return l;
}

struct payload *payload_by_token(const struct payloads *p, uint64_t token) {
    struct map_node *n = map_find(&p->tokens, hash_u64(token), match_token, &token);
    return n ? LIST_ENTRY(n, struct payload, by_token) : NULL;
}

struct payload *payload_by_submission(const struct payloads *p, const uint8_t *submission) {
    uint64_t hash = hash_bytes(submission, PAYLOAD_SUBMISSION_LEN, 0);
    struct map_node *n = map_find(&p->submissions, hash, match_submission, submission);
    return n ? LIST_ENTRY(n, struct payload, by_submission) : NULL;
}

void payload_free(struct payloads *p, struct payload *l) {
    map_remove(&p->tokens, &l->by_token);
    if (has_submission(l))
        map_remove(&p->submissions, &l->by_submission);
    list_remove(&p->all, &l->link);
    free(l->envelope);
    bus_bytes_free(l->body);
    free(l);
}

static size_t cached_cost(const struct cached *c) {
    return CACHED_OVERHEAD + c->envelope_len + bus_bytes_span(c->body).len;
}

static void cached_free(struct payloads *p, struct cached *c) {
    p->cache_bytes -= cached_cost(c);
    map_remove(&p->cache, &c->by_id);
    list_remove(&p->lru, &c->lru);
    free(c->envelope);
    bus_bytes_free(c->body);
    free(c);
}

void payload_keep(struct payloads *p, struct payload *l) {
    struct cached *c = l->envelope ? calloc(1, sizeof *c) : NULL;
    if (c) {
        *c = (struct cached){.id = l->id, .envelope = l->envelope, .envelope_len = l->envelope_len, .body = l->body};
        if (map_insert(&p->cache, &c->by_id, hash_u64(c->id)) != ERR_OK) {
            free(c);
        } else {
            l->envelope = NULL;
            l->body = NULL;
            list_push_back(&p->lru, &c->lru);
            p->cache_bytes += cached_cost(c);
        }
    }
    while (p->cache_bytes > p->cache_max && !list_is_empty(&p->lru))
        cached_free(p, LIST_ENTRY(list_first(&p->lru), struct cached, lru));
    payload_free(p, l);
}

struct cached *cached_get(struct payloads *p, uint64_t id) {
    struct map_node *n = map_find(&p->cache, hash_u64(id), match_id, &id);
    if (!n)
        return NULL;
    struct cached *c = LIST_ENTRY(n, struct cached, by_id);
    list_remove(&p->lru, &c->lru);
    list_push_back(&p->lru, &c->lru);
    return c;
}

void cached_drop(struct payloads *p, uint64_t id) {
    struct map_node *n = map_find(&p->cache, hash_u64(id), match_id, &id);
    if (n)
        cached_free(p, LIST_ENTRY(n, struct cached, by_id));
}

void payloads_deinit(struct payloads *p) {
    while (!list_is_empty(&p->all))
        payload_free(p, LIST_ENTRY(list_first(&p->all), struct payload, link));
    while (!list_is_empty(&p->lru))
        cached_free(p, LIST_ENTRY(list_first(&p->lru), struct cached, lru));
    map_deinit(&p->tokens);
    map_deinit(&p->submissions);
    map_deinit(&p->cache);
    CHECK(p->cache_bytes == 0);
}
