/*
 * directory_config: see directory_config.h. The texts stand in a table, so that a copy and a comparison cannot forget
 * one; a number that is added to the struct must be added to directory_config_eq.
 */
#include "gateway/directory/directory_config.h"

#include <stddef.h>
#include <string.h>

static const size_t texts[] = {
    offsetof(struct directory_config, name),
    offsetof(struct directory_config, uri),
    offsetof(struct directory_config, user),
    offsetof(struct directory_config, password),
    offsetof(struct directory_config, ca_file),
    offsetof(struct directory_config, base),
    offsetof(struct directory_config, filter),
    offsetof(struct directory_config, forward_attribute),
    offsetof(struct directory_config, alias_attribute),
    offsetof(struct directory_config, query),
    offsetof(struct directory_config, dns),
    offsetof(struct directory_config, hostname),
};

static const char **text_at(struct directory_config *c, size_t i) {
    return (const char **)(void *)((char *)c + texts[i]);
}

static const char *text_of(const struct directory_config *c, size_t i) {
    return *(const char *const *)(const void *)((const char *)c + texts[i]);
}

static void put64(uint64_t *value, uint64_t usual) {
    if (*value == 0)
        *value = usual;
}

static void put32(uint32_t *value, uint32_t usual) {
    if (*value == 0)
        *value = usual;
}

void directory_config_default(struct directory_config *c) {
    put64(&c->timeout_ms, 5 * 1000);
    put64(&c->positive_ms, 5 * 60 * 1000);
    put64(&c->negative_ms, 60 * 1000);
    put64(&c->stale_ms, 60 * 60 * 1000);
    put32(&c->cache_entries, 100 * 1000);
    put32(&c->connections, c->kind == DIRECTORY_HTTP ? 16 : 4);
    put32(&c->waiting, 10 * 1000);
    put32(&c->breaker_failures, 5);
    put64(&c->breaker_ms, 5 * 1000);
}

int directory_config_copy(struct directory_config *to, const struct directory_config *from, struct arena *mem) {
    *to = *from;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = text_of(from, i);
        if (text && !(*text_at(to, i) = arena_strdup(mem, text)))
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static bool text_eq(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool directory_config_eq(const struct directory_config *a, const struct directory_config *b) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!text_eq(text_of(a, i), text_of(b, i)))
            return false;
    }
    return a->kind == b->kind && a->timeout_ms == b->timeout_ms && a->positive_ms == b->positive_ms &&
           a->negative_ms == b->negative_ms && a->stale_ms == b->stale_ms && a->cache_entries == b->cache_entries &&
           a->connections == b->connections && a->waiting == b->waiting && a->breaker_failures == b->breaker_failures &&
           a->breaker_ms == b->breaker_ms && a->catch_all == b->catch_all && a->starttls == b->starttls &&
           a->sender_postmaster == b->sender_postmaster;
}
