/*
 * core_bench: what the scheduler core costs, without store and bus: nanoseconds of one message from
 * submission over assignment to delivery.
 *
 *     core_bench [MESSAGES]
 *
 * Prints one line per scene: one at a time; with a full line before the nodes (deep queue, many
 * destinations); deferral and reading back; and the memory of a waiting message.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "scheduler/core/sched.h"

#define START_MS 1700000000000u

struct bench {
    struct sched *core;
    uint64_t now, token, steps;
    struct job {
        uint64_t attempt, id;
    } * jobs;
    size_t first, count, cap; /* a ring */
};

static uint64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void step(struct bench *b, const struct sched_event *e) {
    struct sched_actions acts;
    CHECK(sched_step(b->core, e, b->now, &acts) == ERR_OK);
    b->steps++;
    for (uint32_t i = 0; i < acts.count; i++) {
        if (acts.at[i].kind != SCHED_ASSIGN)
            continue;
        CHECK(b->count < b->cap);
        b->jobs[(b->first + b->count++) % b->cap] = (struct job){acts.at[i].attempt.attempt, acts.at[i].attempt.id};
    }
}

static void submit(struct bench *b, uint64_t n, uint64_t destinations, uint64_t senders) {
    char destination[32], fair[32];
    int len = snprintf(destination, sizeof destination, "domain%llu.test", (unsigned long long)(n % destinations));
    int fair_len = snprintf(fair, sizeof fair, "sender%llu.test", (unsigned long long)(n % senders));
    const struct sched_new_recipient r = {span_make(destination, (size_t)len), 0};
    struct sched_event e = {.kind = SCHED_SUBMITTED};
    e.submit = (struct sched_submit){.token = ++b->token,
                                     .sender = SPAN("a@sender.test"),
                                     .fair = span_make(fair, (size_t)fair_len),
                                     .priority = 1,
                                     .size = 4096,
                                     .received_ms = b->now,
                                     .recipients = &r,
                                     .count = 1};
    step(b, &e);
}

static void batch(struct bench *b) {
    struct sched_event e = {.kind = SCHED_DURABLE, .batch = sched_cut(b->core)};
    step(b, &e);
}

static void report(struct bench *b, uint32_t outcome) {
    CHECK(b->count);
    struct job j = b->jobs[b->first];
    b->first = (b->first + 1) % b->cap;
    b->count--;
    const uint32_t index = 0;
    const struct sched_result r = {.outcome = outcome,
                                   .scope = SCHED_SCOPE_RECIPIENT,
                                   .code = 250,
                                   .enhanced = SPAN("2.0.0"),
                                   .text = SPAN("2.0.0 Ok: queued as 4XyZ12abc"),
                                   .remote = SPAN("mx1.domain.test [192.0.2.25]")};
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){.worker = 1,
                                     .attempt = j.attempt,
                                     .message = j.id,
                                     .site = SPAN("mx.domain.test"),
                                     .site_ttl_ms = 3600000,
                                     .indexes = &index,
                                     .results = &r,
                                     .count = 1};
    step(b, &e);
}

static void open_bench(struct bench *b, uint32_t jobs_max) {
    *b = (struct bench){.now = START_MS, .cap = 1 << 20};
    const struct sched_config c = {.epoch = 1,
                                   .seed = 1,
                                   .active_max = 4000000,
                                   .retry = {300000, 14400000, 432000000, 14400000},
                                   .per_site = 1000000};
    b->core = sched_new(&c, 0, 0);
    b->jobs = calloc(b->cap, sizeof *b->jobs);
    CHECK(b->core && b->jobs);
    struct sched_event e = {.kind = SCHED_WORKER_UP};
    e.worker = (struct sched_worker){.worker = 1, .name = SPAN("node"), .jobs_max = jobs_max};
    step(b, &e);
}

static void close_bench(struct bench *b) {
    sched_free(b->core);
    free(b->jobs);
}

static void say(const char *scene, uint64_t ns, uint64_t messages) {
    printf("%-44s %7.0f ns a message\n", scene, (double)ns / (double)messages);
}

/* Groups of 32 messages a batch, as under load: all submitted, durable, all delivered. */
static void one_after_the_other(uint64_t messages) {
    struct bench b;
    open_bench(&b, 1000);
    for (uint64_t n = 0; n < 1000; n++) { /* until the site's window is wide */
        submit(&b, n, 1, 10);
        batch(&b);
        report(&b, SCHED_OUT_DELIVERED);
    }
    uint64_t begun = nanoseconds();
    for (uint64_t n = 0; n < messages; n += 32) {
        for (int i = 0; i < 32; i++)
            submit(&b, n + (uint64_t)i, 1, 10);
        batch(&b);
        while (b.count)
            report(&b, SCHED_OUT_DELIVERED);
        b.now++;
    }
    say("submit, assign, deliver; one destination", nanoseconds() - begun, messages);
    close_bench(&b);
}

/* The nodes are full: everything stands in line first. */
static void through_a_deep_queue(uint64_t messages, uint64_t destinations, const char *scene) {
    struct bench b;
    open_bench(&b, 100);
    uint64_t depth = messages < 50000 ? messages : 50000, left = messages;
    for (uint64_t n = 0; n < depth; n++)
        submit(&b, n, destinations, 100);
    batch(&b);
    uint64_t begun = nanoseconds();
    for (uint64_t n = 0; left; n++, left--) {
        submit(&b, n, destinations, 100);
        if (n % 32 == 0) {
            batch(&b);
            b.now++;
        }
        if (b.count)
            report(&b, SCHED_OUT_DELIVERED);
        if (b.count < 60)
            batch(&b);
    }
    say(scene, nanoseconds() - begun, messages);
    close_bench(&b);
}

static void memory_of_waiting(uint64_t messages) {
    struct bench b;
    open_bench(&b, 0);
    submit(&b, 0, 1, 1);
    struct mallinfo2 before = mallinfo2();
    for (uint64_t n = 0; n < messages; n++)
        submit(&b, n, 1000, 100);
    struct mallinfo2 after = mallinfo2();
    printf("%-44s %7.0f octets a message\n", "memory of a waiting message",
           (double)(after.uordblks - before.uordblks) / (double)messages);
    close_bench(&b);
}

int main(int argc, char **argv) {
    uint64_t messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    if (messages < 1000 || messages > 100000000) {
        fprintf(stderr, "core_bench: MESSAGES must be 1000..100000000\n");
        return 64;
    }
    one_after_the_other(messages);
    through_a_deep_queue(messages, 1, "behind 50,000 others; one destination");
    through_a_deep_queue(messages, 10000, "behind 50,000 others; 10,000 destinations");
    memory_of_waiting(messages < 200000 ? messages : 200000);
    return 0;
}
