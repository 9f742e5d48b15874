/*
 * report: a map by attempt and a list in the order of sending. Their number is bounded by the jobs that the
 * scheduler gives out: it gives no new ones while it does not acknowledge old ones.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/outbound/delivery.h"
#include "gateway/outbound/report.h"

struct report {
    struct map_node in_map;
    struct list_node in_list;
    uint64_t attempt, made_ms, sent_ms;
    size_t len;
    char packed[];
};

void reports_init(struct reports *r) {
    map_init(&r->by_attempt);
    list_init(&r->waiting);
}

void reports_deinit(struct reports *r) {
    struct list_node *n;
    while ((n = list_pop_front(&r->waiting)))
        free(LIST_ENTRY(n, struct report, in_list));
    map_deinit(&r->by_attempt);
}

static bool matches(const struct map_node *n, const void *key) {
    return CONTAINER_OF(n, struct report, in_map)->attempt == *(const uint64_t *)key;
}

static struct report *find(const struct reports *r, uint64_t attempt) {
    struct map_node *n = map_find(&r->by_attempt, delivery_hash(attempt), matches, &attempt);
    return n ? CONTAINER_OF(n, struct report, in_map) : NULL;
}

bool reports_has(const struct reports *r, uint64_t attempt) {
    return find(r, attempt) != NULL;
}

static void send_packed(struct outbound *o, uint64_t attempt, struct span packed) {
    uint8_t header[FRAME_HEADER_LEN];
    frame_header(header, FRAME_REPORT, attempt, o->epoch, packed);
    int err = bus_peer_send(o->scheduler, span_make(header, sizeof header), packed, NULL);
    if (err != ERR_OK)
        LOG_WARN("report_unsent", LOG_ERR("reason", err));
}

bool reports_add(struct outbound *o, uint64_t attempt, struct span packed) {
    struct reports *r = &o->reports;
    struct report *p = malloc(sizeof *p + packed.len);
    if (p) {
        *p = (struct report){.attempt = attempt, .len = packed.len};
        p->made_ms = p->sent_ms = loop_now_ms(o->loop);
        memcpy(p->packed, packed.at, packed.len);
        if (map_insert(&r->by_attempt, &p->in_map, delivery_hash(attempt)) == ERR_OK) {
            list_push_back(&r->waiting, &p->in_list);
        } else {
            free(p);
            p = NULL;
        }
    }
    send_packed(o, attempt, packed);
    return p != NULL;
}

bool reports_ack(struct reports *r, uint64_t attempt) {
    struct report *p = find(r, attempt);
    if (!p)
        return false;
    map_remove(&r->by_attempt, &p->in_map);
    list_remove(&r->waiting, &p->in_list);
    free(p);
    return true;
}

void reports_repeat(struct outbound *o, uint64_t age_ms) {
    struct reports *r = &o->reports;
    uint64_t now = loop_now_ms(o->loop);
    for (size_t n = r->waiting.count; n > 0; n--) {
        struct report *p = LIST_ENTRY(list_first(&r->waiting), struct report, in_list);
        if (now - p->sent_ms < age_ms)
            return;
        list_remove(&r->waiting, &p->in_list);
        list_push_back(&r->waiting, &p->in_list);
        p->sent_ms = now;
        send_packed(o, p->attempt, span_make(p->packed, p->len));
    }
}

uint64_t reports_oldest_ms(const struct reports *r) {
    uint64_t oldest = UINT64_MAX;
    LIST_FOREACH(n, next, &r->waiting) {
        uint64_t made = LIST_ENTRY(n, struct report, in_list)->made_ms;
        oldest = made < oldest ? made : oldest;
    }
    return oldest;
}

size_t reports_count(const struct reports *r) {
    return r->waiting.count;
}

void reports_list(const struct reports *r, uint64_t *to) {
    LIST_FOREACH(n, next, &r->waiting)
    *to++ = LIST_ENTRY(n, struct report, in_list)->attempt;
}
