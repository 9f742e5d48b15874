/*
 * etcd_lease: see etcd.h. A lease is in one of four states:
 *
 *   ASKING -> HELD -> LOST            ASKING: a grant is asked for, or a pause lies before the next try
 *
 * HELD has an end (`until_ms`, by the clock that goes on in sleep): the moment before the last good question went out,
 * plus the time that etcd gave, minus a margin for clocks that run at different speeds. Every third of that time a
 * question renews it; the question repeats itself at the endpoints until the end. What comes after the end is too
 * late, even if etcd still has the lease: somebody may have looked in between and seen that it does not hold.
 *
 * The timer may be late when the process stood still, so every look compares with the clock itself.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"

#include "base/net/etcd_in.h"

enum { PAUSE_MS = 500, PAUSE_MAX_MS = 5000, MARGIN_MIN_MS = 200, ATTEMPT_MIN_MS = 200 };

enum lease_state { LEASE_ASKING, LEASE_HELD, LEASE_LOST };
struct etcd_lease {
    struct list_node node;
    struct etcd *e;
    uint32_t ttl_s;
    enum lease_state state;
    uint64_t id;
    uint64_t until_ms, ttl_ms; /* HELD; until_ms by clock_boot_ms */
    unsigned failures;
    struct etcd_ask *ask;
    struct loop_timer *timer; /* ASKING: the next try; HELD: the next question */
    struct loop_timer *end;   /* HELD: the end */
    etcd_lease_cb cb;
    void *arg;
};

static void lease_free(struct etcd_lease *l) {
    if (list_is_linked(&l->node))
        list_remove(&l->e->leases, &l->node);
    etcd_ask_cancel(l->ask);
    if (l->timer)
        loop_timer_close(l->timer);
    if (l->end)
        loop_timer_close(l->end);
    free(l);
}

void etcd_lease_close(struct etcd_lease *l) {
    if (l)
        lease_free(l);
}

void etcd_leases_drop(struct etcd *e) {
    struct list_node *n;
    while ((n = list_first(&e->leases)))
        lease_free(LIST_ENTRY(n, struct etcd_lease, node));
}

uint64_t etcd_lease_left_ms(const struct etcd_lease *l) {
    uint64_t now = clock_boot_ms();
    return l->state == LEASE_HELD && l->until_ms > now ? l->until_ms - now : 0;
}

uint64_t etcd_lease_id(const struct etcd_lease *l) {
    return etcd_lease_left_ms(l) ? l->id : 0;
}

/* -- the end -- */

static void lose(struct etcd_lease *l, const char *why) {
    l->state = LEASE_LOST;
    etcd_ask_cancel(l->ask);
    l->ask = NULL;
    loop_timer_stop(l->timer);
    loop_timer_stop(l->end);
    l->cb(l->arg, ETCD_LEASE_LOST, why);
}

static void on_end(void *arg) {
    struct etcd_lease *l = arg;
    uint64_t left = etcd_lease_left_ms(l);
    if (left)
        loop_timer_set(l->end, left);
    else
        lose(l, l->e->trouble[0] ? l->e->trouble : "its time passed without a renewal");
}

/* From the answer to a question that went out at sent_ms. Holding it for less than etcd does is always right. */
static void hold(struct etcd_lease *l, uint64_t sent_ms, uint32_t ttl_s) {
    uint64_t margin;
    l->ttl_ms = (uint64_t)(ttl_s < l->ttl_s ? ttl_s : l->ttl_s) * 1000;
    margin = l->ttl_ms / 10 > MARGIN_MIN_MS ? l->ttl_ms / 10 : MARGIN_MIN_MS;
    l->until_ms = sent_ms + l->ttl_ms - margin;
    loop_timer_set(l->timer, l->ttl_ms / 3);
    loop_timer_set(l->end, etcd_lease_left_ms(l));
}

/* -- renewing -- */

static void on_renewed(void *arg, const struct etcd_ask_result *r) {
    struct etcd_lease *l = arg;
    l->ask = NULL;
    if (!etcd_lease_left_ms(l)) {
        lose(l, "its time passed without a renewal");
    } else if (r->err == ERR_NOT_FOUND || (!r->err && !r->reply->ttl_s)) {
        lose(l, "etcd ended it");
    } else if (r->err || r->reply->lease != l->id) { /* the end comes if no other question succeeds */
        loop_timer_set(l->timer, PAUSE_MS);
    } else {
        hold(l, r->sent_ms, r->reply->ttl_s);
    }
}

static void renew(struct etcd_lease *l) {
    struct etcd_ask_config config = {.path = "/v3/lease/keepalive", .kind = ETCD_KIND_LEASE, .vital = true};
    struct buf body;
    config.timeout_ms = etcd_lease_left_ms(l);
    if (!config.timeout_ms) {
        lose(l, "its time passed without a renewal");
        return;
    }
    config.attempt_ms = l->ttl_ms / 6 < l->e->attempt_ms ? l->ttl_ms / 6 : l->e->attempt_ms;
    if (config.attempt_ms < ATTEMPT_MIN_MS)
        config.attempt_ms = ATTEMPT_MIN_MS;
    buf_init(&body, 64);
    if (etcd_words_lease(l->id, &body) == ERR_OK)
        l->ask = etcd_ask_new(l->e, &config, &body, on_renewed, l);
    else
        buf_deinit(&body);
    if (!l->ask)
        loop_timer_set(l->timer, PAUSE_MS);
}

/* -- being granted -- */

/* An answer that came so late that the time is over is as none; etcd ends that lease by itself. */
static void on_granted(void *arg, const struct etcd_ask_result *r) {
    struct etcd_lease *l = arg;
    l->ask = NULL;
    if (!r->err && r->reply->lease && r->reply->ttl_s) {
        l->id = r->reply->lease;
        l->state = LEASE_HELD;
        hold(l, r->sent_ms, r->reply->ttl_s);
        if (etcd_lease_left_ms(l)) {
            l->cb(l->arg, ETCD_LEASE_GRANTED, "");
            return;
        }
        l->state = LEASE_ASKING;
        loop_timer_stop(l->end);
    }
    uint64_t pause = l->failures < 4 ? (uint64_t)PAUSE_MS << l->failures : PAUSE_MAX_MS;
    l->failures++;
    loop_timer_set(l->timer, pause);
}

static void ask_grant(struct etcd_lease *l) {
    static const struct etcd_ask_config config = {.path = "/v3/lease/grant", .kind = ETCD_KIND_LEASE, .vital = true};
    struct buf body;
    buf_init(&body, 64);
    if (etcd_words_grant(l->ttl_s, &body) == ERR_OK)
        l->ask = etcd_ask_new(l->e, &config, &body, on_granted, l);
    else
        buf_deinit(&body);
    if (!l->ask)
        loop_timer_set(l->timer, PAUSE_MS);
}

static void on_timer(void *arg) {
    struct etcd_lease *l = arg;
    if (l->state == LEASE_ASKING)
        ask_grant(l);
    else if (l->state == LEASE_HELD && !l->ask)
        renew(l);
}

struct etcd_lease *etcd_lease_open(struct etcd *e, uint32_t ttl_s, etcd_lease_cb cb, void *arg) {
    bool may = ttl_s >= ETCD_TTL_MIN_S && ttl_s <= ETCD_TTL_MAX_S && e->leases.count < ETCD_LEASES_MAX;
    struct etcd_lease *l = may ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return NULL;
    *l = (struct etcd_lease){.e = e, .ttl_s = ttl_s, .cb = cb, .arg = arg};
    list_push_back(&e->leases, &l->node);
    l->timer = loop_timer_new(e->loop, on_timer, l);
    l->end = loop_timer_new(e->loop, on_end, l);
    if (!l->timer || !l->end) {
        lease_free(l);
        return NULL;
    }
    ask_grant(l);
    return l;
}

int etcd_lease_revoke(struct etcd_lease *l, etcd_cb cb, void *arg) {
    struct etcd *e = l->e;
    uint64_t id = l->id;
    lease_free(l);
    return etcd_revoke_id(e, id, cb, arg) ? ERR_OK : ERR_FULL;
}
