/*
 * walk_bench: what it costs to count or list a long queue: fills a store with deferred recipients, once, and walks over
 * it as `queue summary` and the first page of `queue list` do.
 *
 *     walk_bench DIR [MESSAGES [RECIPIENTS_OF_EACH [DESTINATIONS [BODY_OCTETS]]]]
 *
 * DIR is filled when it is absent, and left behind, so that a second run shows it after a restart, and so that a daemon
 * whose node is named "bench" can have it as its queue (tests/bench/operator). Every other message is from example.com.
 * All came an hour ago, and are due in six.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/frame.h"
#include "scheduler/core/sched.h"
#include "scheduler/tally.h"
#include "store/queue.h"
#include "store/queue_walk.h"

enum { SHARD = 0, IN_A_BATCH = 500, PAGE = 1000, HOUR_MS = 3600000 };

struct queue_size {
    uint64_t messages, recipients, destinations, body, start_ms;
};

static uint64_t id_of(const struct queue_size *q, uint64_t n) {
    return ((q->start_ms + n / 16) << 22) | (n % 16);
}

static void put_message(struct store_batch *b, const struct queue_size *q, uint64_t n, struct span body) {
    uint64_t recipients = q->recipients, destinations = q->destinations, due_ms = q->start_ms + 7 * HOUR_MS + n / 16;
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    Words__Recipient *r = calloc(recipients, sizeof *r), **list = calloc(recipients, sizeof *list);
    char(*names)[64] = calloc(recipients, sizeof *names);
    struct buf packed;
    CHECK(r && list && names);
    for (uint64_t i = 0; i < recipients; i++) {
        words__recipient__init(&r[i]);
        int at = snprintf(names[i], sizeof names[i], "user%" PRIu64 "@", i);
        snprintf(names[i] + at, sizeof names[i] - (size_t)at, "d%" PRIu64 ".example.net",
                 (n * recipients + i) % destinations);
        r[i].address = frame_bytes(span_of(names[i]));
        r[i].destination = frame_bytes(span_of(names[i] + at));
        list[i] = &r[i];
    }
    e.sender = frame_bytes(n % 2 ? SPAN("a.sender@example.com") : SPAN("a.sender@example.org"));
    e.n_recipients = recipients;
    e.recipients = list;
    e.received_ms = q->start_ms + n / 16;
    e.size = body.len;
    e.has_client = e.has_helo = e.has_protocol = e.has_checksum = true;
    e.client = frame_bytes(SPAN("192.0.2.17"));
    e.helo = frame_bytes(SPAN("client.example.org"));
    e.protocol = frame_bytes(SPAN("ESMTP"));
    buf_init(&packed, FRAME_META_MAX);
    CHECK(frame_pack(&e.base, &packed) == ERR_OK);
    queue_put_message(b, SHARD, id_of(q, n), buf_span(&packed), body, SPAN_EMPTY, q->start_ms);
    buf_deinit(&packed);
    for (uint32_t i = 0; i < recipients; i++) {
        Words__RecipientState s = WORDS__RECIPIENT_STATE__INIT;
        Words__Result last = WORDS__RESULT__INIT;
        s.state = SCHED_DEFERRED;
        s.has_attempts = s.has_due_ms = true;
        s.attempts = 1;
        s.due_ms = due_ms;
        s.last = &last;
        last.outcome = SCHED_OUT_DEFERRED;
        last.has_code = last.has_text = last.has_remote = true;
        last.code = 451;
        last.text = frame_bytes(SPAN("4.3.0 try again later"));
        last.remote = frame_bytes(SPAN("mx.example.net (192.0.2.25)"));
        queue_put_recipient(b, SHARD, id_of(q, n), i, &s);
        queue_put_due(b, SHARD, due_ms, frame_span(r[i].destination), id_of(q, n), i);
    }
    free(r);
    free(list);
    free(names);
}

static void fill(struct store *s, const struct queue_size *q) {
    struct store_batch *b = store_batch_new();
    char *body = calloc(1, q->body + 1);
    CHECK(b && body);
    memset(body, 'x', q->body);
    queue_put_number(b, SHARD, QUEUE_LAST_ID, id_of(q, q->messages));
    for (uint64_t n = 0; n < q->messages; n++) {
        put_message(b, q, n, span_make(body, q->body));
        if ((n + 1) % IN_A_BATCH && n + 1 < q->messages)
            continue;
        CHECK(store_write(s, b, n + 1 == q->messages) == ERR_OK);
        store_batch_clear(b);
    }
    store_batch_free(b);
    free(body);
}

static void count_all(struct store *s) {
    struct queue_walk w;
    struct queue_glance g = {0};
    struct tally t;
    uint64_t begun_us = clock_mono_us();
    tally_init(&t, clock_wall_ms());
    queue_walk_init(&w, s, SHARD, 0);
    while (queue_walk_next(&w)) {
        uint32_t at = 0;
        CHECK(queue_glance_envelope(&g, w.envelope) == ERR_OK);
        for (uint32_t i = 0; i < g.count; i++) {
            struct span state = queue_walk_state(&w, i, &at);
            uint32_t number = state.len ? queue_glance_state(state, &g.destinations[i]) : SCHED_READY;
            CHECK(tally_add(&t, g.destinations[i], number, g.received_ms) == ERR_OK);
        }
    }
    CHECK(w.err == ERR_OK && tally_sort(&t) == ERR_OK);
    printf("counted %" PRIu64 " recipients at %u destinations: ms %.0f\n", t.total.count, t.row_count,
           (double)(clock_mono_us() - begun_us) / 1000.0);
    queue_glance_deinit(&g);
    queue_walk_deinit(&w);
    tally_deinit(&t);
}

static void list_first_page(struct store *s) {
    struct queue_walk w;
    struct arena mem;
    uint64_t begun_us = clock_mono_us(), rows = 0;
    arena_init(&mem, 64 * 1024, 0);
    queue_walk_init(&w, s, SHARD, 0);
    while (rows < PAGE && queue_walk_next(&w)) {
        const Words__Envelope *e = frame_unpack(&words__envelope__descriptor, w.envelope, &mem);
        CHECK(e);
        rows += e->n_recipients;
        arena_reset(&mem);
    }
    printf("first page of %d: ms %.1f\n", PAGE, (double)(clock_mono_us() - begun_us) / 1000.0);
    queue_walk_deinit(&w);
    arena_deinit(&mem);
}

static uint64_t argument(int argc, char **argv, int n, uint64_t otherwise) {
    uint64_t value = 0;
    if (n >= argc)
        return otherwise;
    if (!span_u64(span_of(argv[n]), &value) || value == 0) {
        fprintf(stderr, "walk_bench: not a number: %s\n", argv[n]);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    struct store_report opened;
    struct store *s;
    if (argc < 2) {
        fprintf(stderr, "usage: walk_bench DIR [MESSAGES [RECIPIENTS_OF_EACH [DESTINATIONS [BODY_OCTETS]]]]\n");
        return 2;
    }
    struct store_config c = {.path = argv[1], .node = "bench"};
    int err = store_open(&s, &c, &opened);
    if (err != ERR_OK) {
        fprintf(stderr, "walk_bench: %s %s\n", err_text(err), opened.damage);
        return 1;
    }
    if (opened.created)
        fill(s, &(struct queue_size){.messages = argument(argc, argv, 2, 10000),
                                     .recipients = argument(argc, argv, 3, 100),
                                     .destinations = argument(argc, argv, 4, 10000),
                                     .body = argument(argc, argv, 5, 1),
                                     .start_ms = clock_wall_ms() - HOUR_MS});
    for (int i = 0; i < 3; i++)
        count_all(s);
    list_first_page(s);
    store_close(s);
    return 0;
}
