/*
 * rig: one replica under the hand of a test: steps, what they ask for, and where a test begins.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_RIG_H
#define TESTS_UNIT_SCHEDULER_REPLICA_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "scheduler/replica/replica.h"

#define SELF 1u
#define LEADER 7u /* another node, when we follow */

struct rig {
    struct replica *r;
    uint64_t now, write;
    struct replica_actions out;
    struct replica_record record;
    uint64_t probe[10];
};

static inline struct replica_config config(void) {
    struct replica_config c = REPLICA_CONFIG_DEFAULT;
    c.self = SELF;
    c.life = 100;
    c.window_count = 4;
    c.window_bytes = 1000;
    c.heartbeat_ms = 100;
    c.resend_ms = 50;
    c.slow_ms = 1000;
    return c;
}

static inline int step(struct rig *g, const struct replica_event *e) {
    int err = replica_step(g->r, e, g->now, &g->out);
    for (uint32_t i = 0; i < g->out.count; i++) {
        const struct replica_action *a = &g->out.at[i];
        if (a->kind <= REPLICA_WRITE_CHUNK)
            g->write = a->write.write;
        if (a->kind == REPLICA_SEND && a->send.message.kind == REPLICA_OPEN)
            g->probe[a->send.to] = a->send.message.probe;
    }
    return err;
}

/* The n-th action of this kind in the last step, or NULL. */
static const struct replica_action *act(const struct rig *g, enum replica_action_kind kind, uint32_t n) {
    for (uint32_t i = 0; i < g->out.count; i++)
        if (g->out.at[i].kind == kind && n-- == 0)
            return &g->out.at[i];
    return NULL;
}

static const struct replica_message *sent(const struct rig *g, uint32_t to, enum replica_message_kind kind) {
    for (uint32_t i = 0; i < g->out.count; i++)
        if (g->out.at[i].kind == REPLICA_SEND && g->out.at[i].send.to == to && g->out.at[i].send.message.kind == kind)
            return &g->out.at[i].send.message;
    return NULL;
}

static inline void tick(struct rig *g, uint64_t after_ms) {
    g->now += after_ms;
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_TICK}), ERR_OK);
}

static inline void written(struct rig *g) {
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_WRITTEN, .write = g->write}), ERR_OK);
}

static inline void lease(struct rig *g, uint64_t until_ms) {
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_LEASE, .until_ms = until_ms}), ERR_OK);
}

static inline void record(struct rig *g, uint64_t epoch, uint32_t leader, struct replica_set in_sync) {
    g->record.version++;
    g->record.epoch = epoch;
    g->record.leader = leader;
    g->record.in_sync = in_sync;
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_RECORD, .record = g->record}), ERR_OK);
}

static inline int message(struct rig *g, uint32_t from, const struct replica_message *m) {
    struct replica_event e = {.kind = REPLICA_MESSAGE};
    e.from = from;
    e.message = *m;
    return step(g, &e);
}

/* A member says where it is; the fields that matter here. */
static inline void position(struct rig *g, uint32_t from, uint64_t epoch, uint64_t at_epoch, uint64_t number) {
    struct replica_message m = {.kind = REPLICA_POSITION,
                                .epoch = epoch,
                                .probe = g->probe[from],
                                .life = 1,
                                .position = {at_epoch, number},
                                .complete = true};
    assert_int_equal(message(g, from, &m), ERR_OK);
}

static inline int batch(struct rig *g, size_t len, bool must) {
    static const char octets[2000];
    struct replica_event e = {.kind = REPLICA_BATCH};
    e.batch.octets = (struct span){octets, len};
    e.batch.must = must;
    return step(g, &e);
}

static inline struct rig begin(struct replica_config c, const struct replica_mark *mark) {
    struct rig g = {.now = 10000};
    g.record.replicas = (struct replica_set){4, {1, 2, 3, LEADER}};
    g.r = replica_new(&c, mark);
    assert_non_null(g.r);
    return g;
}

static const struct replica_mark at_five = {.promised = 3, .complete = true, .last = {3, 5}, .history = {1, {{3, 1}}}};

/* Leads epoch 4 with operations 1 to 5 of epoch 3; the members have been asked and have not answered. */
static inline struct rig leading_with(struct replica_config c, struct replica_set in_sync) {
    struct rig g = begin(c, &at_five);
    lease(&g, g.now + 100000);
    record(&g, 4, SELF, in_sync);
    assert_non_null(act(&g, REPLICA_WRITE_MARK, 0));
    assert_null(act(&g, REPLICA_SEND, 0)); /* not before the promise is on disk */
    written(&g);
    return g;
}

/* The same with members 2 and 3, who have all. */
static inline struct rig leading(void) {
    struct replica_config c = config();
    c.min_in_sync = 2;
    struct rig g = leading_with(c, (struct replica_set){3, {1, 2, 3}});
    assert_non_null(sent(&g, 2, REPLICA_OPEN));
    position(&g, 2, 4, 3, 5);
    assert_null(act(&g, REPLICA_LEAD, 0));
    position(&g, 3, 4, 3, 5);
    assert_int_equal(act(&g, REPLICA_LEAD, 0)->number, 5);
    assert_non_null(act(&g, REPLICA_ACCEPT, 0));
    return g;
}

static inline int operation(struct rig *g, uint32_t from, uint64_t leads, uint64_t epoch, uint64_t number,
                            uint64_t previous) {
    struct replica_operation *o = replica_operation_new(
        epoch, number, previous, replica_checksum(epoch, number, previous, SPAN("data")), SPAN("data"));
    struct replica_message m = {.kind = REPLICA_OPERATION, .epoch = leads, .operation = o};
    int err = message(g, from, &m);
    for (uint32_t i = 0; i < g->out.count; i++) /* as an owner who keeps it would */
        assert_true(g->out.at[i].kind != REPLICA_WRITE || g->out.at[i].write.operation == o);
    replica_operation_release(o);
    return err;
}

static inline struct rig following(void) {
    struct rig g = begin(config(), &at_five);
    struct replica_message m = {.kind = REPLICA_OPEN, .epoch = 4, .probe = 8};
    assert_int_equal(message(&g, LEADER, &m), ERR_OK);
    assert_null(act(&g, REPLICA_SEND, 0));
    written(&g);
    const struct replica_message *p = sent(&g, LEADER, REPLICA_POSITION);
    assert_int_equal(p->epoch, 4);
    assert_int_equal(p->probe, 8);
    assert_int_equal(p->life, 100);
    assert_int_equal(p->position.epoch, 3);
    assert_int_equal(p->position.number, 5);
    assert_true(p->complete);
    return g;
}

#endif
