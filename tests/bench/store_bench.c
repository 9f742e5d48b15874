/*
 * store_bench: what the store costs: messages a second, CPU microseconds a message and bytes written, for mail that is
 * enqueued and settled soon after, through the commit thread, as a shard does it.
 *
 *     store_bench DIR [MESSAGES [BODY_OCTETS [MESSAGES_IN_A_BATCH [BATCHES_BEHIND]]]]
 *
 * A batch enqueues some messages (envelope, body, submission, trace, attempt under way) and settles those that
 * were enqueued BATCHES_BEHIND batches ago. DIR must be empty or absent; it is left behind.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/frame.h"
#include "store/commit.h"
#include "store/queue.h"

enum { SHARD = 0, REQUESTS = 4, BEHIND_MAX = 64 };

struct bench {
    struct store *store;
    struct commit *commit;
    uint64_t messages, in_batch, behind;
    char *body;
    size_t body_len;
    struct buf envelope;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct commit_request requests[REQUESTS], *unused;
    unsigned busy;
    int failed;
    uint64_t numbers;
};

static void on_done(struct commit_request *r, int result) {
    struct bench *b = r->arg;
    pthread_mutex_lock(&b->lock);
    if (result != ERR_OK)
        b->failed = result;
    r->next = b->unused;
    b->unused = r;
    b->busy--;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
}

static struct commit_request *take_request(struct bench *b) {
    pthread_mutex_lock(&b->lock);
    while (!b->unused)
        pthread_cond_wait(&b->wake, &b->lock);
    struct commit_request *r = b->unused;
    b->unused = r->next;
    b->busy++;
    pthread_mutex_unlock(&b->lock);
    store_batch_clear(r->keep);
    store_batch_clear(r->refusable);
    return r;
}

static uint64_t id_of(uint64_t n) {
    return ((UINT64_C(1790000000000) + n / 16) << 22) | (n % 16);
}

static void put_trace(struct bench *b, struct store_batch *to, uint64_t n, uint32_t kind) {
    Words__Trace t = WORDS__TRACE__INIT;
    uint32_t index = 0;
    t.at_ms = UINT64_C(1790000000000) + n / 16;
    t.message = id_of(n);
    t.kind = kind;
    t.n_recipients = 1;
    t.recipients = &index;
    queue_put_trace(to, SHARD, &t, (uint32_t)b->numbers++);
}

static void enqueue(struct bench *b, struct commit_request *r, uint64_t n) {
    Words__Inflight flight = WORDS__INFLIGHT__INIT;
    uint32_t index = 0;
    char submission[16] = {0};
    memcpy(submission, &n, sizeof n);
    memcpy(b->body, &n, sizeof n);
    queue_put_message(r->refusable, SHARD, id_of(n), buf_span(&b->envelope), span_make(b->body, b->body_len),
                      span_make(submission, sizeof submission), UINT64_C(1790000000000) + n / 16);
    put_trace(b, r->refusable, n, 1);
    flight.message = id_of(n);
    flight.n_recipients = 1;
    flight.recipients = &index;
    queue_put_inflight(r->keep, SHARD, n, &flight);
}

static void settle(struct bench *b, struct commit_request *r, uint64_t n) {
    queue_drop_inflight(r->keep, SHARD, n);
    queue_drop_message(r->keep, SHARD, id_of(n), b->body_len, 1, false);
    put_trace(b, r->keep, n, 3);
}

static void run(struct bench *b) {
    uint64_t batches = b->messages / b->in_batch;
    for (uint64_t k = 0; k < batches + b->behind; k++) {
        struct commit_request *r = take_request(b);
        for (uint64_t i = 0; k < batches && i < b->in_batch; i++)
            enqueue(b, r, k * b->in_batch + i);
        for (uint64_t i = 0; k >= b->behind && i < b->in_batch; i++)
            settle(b, r, (k - b->behind) * b->in_batch + i);
        commit_submit(b->commit, r);
    }
    pthread_mutex_lock(&b->lock);
    while (b->busy)
        pthread_cond_wait(&b->wake, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static void make_envelope(struct bench *b) {
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    Words__Recipient r = WORDS__RECIPIENT__INIT, *list[] = {&r};
    r.address = frame_bytes(SPAN("somebody@example.net"));
    r.destination = frame_bytes(SPAN("example.net"));
    e.sender = frame_bytes(SPAN("a.sender@example.org"));
    e.n_recipients = 1;
    e.recipients = list;
    e.received_ms = UINT64_C(1790000000000);
    e.size = b->body_len;
    e.has_client = e.has_helo = e.has_protocol = e.has_checksum = true;
    e.client = frame_bytes(SPAN("192.0.2.17"));
    e.helo = frame_bytes(SPAN("client.example.org"));
    e.protocol = frame_bytes(SPAN("ESMTP"));
    buf_init(&b->envelope, 4096);
    CHECK(frame_pack(&e.base, &b->envelope) == ERR_OK);
}

static uint64_t io_figure(const char *name) {
    FILE *f = fopen("/proc/self/io", "r");
    char line[128];
    uint64_t value = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name), NULL, 10);
    if (f)
        fclose(f);
    return value;
}

static double cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static uint64_t argument(int argc, char **argv, int n, uint64_t otherwise) {
    uint64_t value = 0;
    if (n >= argc)
        return otherwise;
    if (!span_u64(span_of(argv[n]), &value) || value == 0) {
        fprintf(stderr, "store_bench: not a number: %s\n", argv[n]);
        exit(2);
    }
    return value;
}

static int report(struct bench *b, uint64_t start_us, double start_cpu, uint64_t start_written) {
    double seconds = (double)(clock_mono_us() - start_us) / 1e6, n = (double)b->messages;
    double cpu = cpu_us() - start_cpu;
    uint64_t log_bytes = io_figure("write_bytes:") - start_written;
    struct store_stats stats;
    store_stats(b->store, &stats);
    printf("messages %" PRIu64 " of %zu octets, %" PRIu64 " a batch, settled %" PRIu64 " batches later\n", b->messages,
           b->body_len, b->in_batch, b->behind);
    printf("messages/s %.0f\ncpu us/message %.1f\nwritten/accepted %.3f\nmemory MiB %.1f\ndisk MiB %.1f\n", n / seconds,
           cpu / n, (double)log_bytes / (n * (double)b->body_len), (double)stats.memory_bytes / 1048576.0,
           (double)stats.disk_bytes / 1048576.0);
    return b->failed == ERR_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    struct store_report opened;
    if (argc < 2) {
        fprintf(stderr, "usage: store_bench DIR [MESSAGES [BODY_OCTETS [MESSAGES_IN_A_BATCH [BATCHES_BEHIND]]]]\n");
        return 2;
    }
    b.messages = argument(argc, argv, 2, 100000);
    b.body_len = argument(argc, argv, 3, 4096);
    b.in_batch = argument(argc, argv, 4, 16);
    b.behind = argument(argc, argv, 5, 4);
    struct store_config c = {.path = argv[1], .node = "bench"};
    int err = store_open(&b.store, &c, &opened);
    if (err == ERR_OK)
        err = commit_new(&b.commit, b.store, 1u << 20, 64);
    b.body = calloc(1, b.body_len + 8);
    if (err != ERR_OK || !b.body) {
        fprintf(stderr, "store_bench: %s %s\n", err_text(err), opened.damage);
        return 1;
    }
    memset(b.body, 'x', b.body_len);
    make_envelope(&b);
    for (int i = 0; i < REQUESTS; i++) {
        b.requests[i] = (struct commit_request){
            .keep = store_batch_new(), .refusable = store_batch_new(), .done = on_done, .arg = &b, .next = b.unused};
        CHECK(b.requests[i].keep && b.requests[i].refusable);
        b.unused = &b.requests[i];
    }
    uint64_t written = io_figure("write_bytes:"), start = clock_mono_us();
    double cpu = cpu_us();
    run(&b);
    int status = report(&b, start, cpu, written);
    commit_free(b.commit);
    store_close(b.store);
    for (int i = 0; i < REQUESTS; i++) {
        store_batch_free(b.requests[i].keep);
        store_batch_free(b.requests[i].refusable);
    }
    buf_deinit(&b.envelope);
    free(b.body);
    return status;
}
