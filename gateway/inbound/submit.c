/*
 * submit: the gateway's end of the bus to the scheduler.
 *
 * A submission goes OPEN -> (QUEUED ->) SENT -> answered, or SENT -> DOUBTFUL when its answer is overdue. Those
 * that are QUEUED wait in one line for credit, in order; those SENT and DOUBTFUL stand in lists by age, so that a
 * tick looks at the oldest only. Frames of one submission leave in order because the line is served in order
 * and a chunk is only sent while its submission is OPEN.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/base32.h"
#include "base/check.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

#include "gateway/inbound/submit.h"

METRIC_COUNTER(metric_doubt, "posthouse_submissions_in_doubt_total",
               "Messages stored after their client was told to try again")
METRIC_COUNTER(metric_overdue, "posthouse_submissions_overdue_total",
               "Submissions that the scheduler did not answer in time")
METRIC_COUNTER(metric_orphans, "posthouse_submissions_orphaned_total",
               "Messages stored whose client was gone before it heard so")
METRIC_COUNTER(metric_bad_frames, "posthouse_submit_frames_refused_total",
               "Frames from the scheduler that were malformed")
METRIC_HISTOGRAM(metric_answer_us, "posthouse_submit_answer_seconds",
                 "Time from the last octet given to a scheduler to its answer")

enum { HELLO_MS = 5000, ANSWER_MEM = 4096 };
#define QUEUE_MAX ((size_t)64 << 20) /* of the bus; credit keeps us far below it */

enum phase { PHASE_OPEN, PHASE_QUEUED, PHASE_SENT, PHASE_DOUBTFUL };

struct submission {
    struct submit *submit;
    uint8_t id[SUBMIT_ID_LEN];
    uint64_t correlation;
    enum phase phase;
    uint32_t chunks;
    uint64_t since_ms;               /* in this phase */
    const Words__Envelope *envelope; /* borrowed, QUEUED only */
    struct bus_bytes *body;          /* QUEUED only */
    submit_answer_cb cb;             /* NULL: nobody waits */
    void *arg;
    struct map_node by_correlation; /* SENT, DOUBTFUL */
    struct list_node link;          /* of the phase's list */
};

struct submit {
    struct bus_peer *peer;
    struct loop *loop;
    char name[41];
    submit_room_cb room;
    void *arg;
    struct buf scratch;
    struct arena mem; /* for what arrives */
    uint8_t prefix[8];
    uint64_t counter, correlation;
    atomic_bool heard, welcome;
    bool starved;
    uint64_t epoch, credit, lent; /* lent: octets on the way */
    uint64_t hello_ms;
    struct map sent;
    struct list queued, waiting, doubtful;
};

/* -- frames out -- */

static void say_hello(struct submit *s) {
    Words__Hello hello = WORDS__HELLO__INIT;
    hello.role = ROLE_GATEWAY;
    hello.name = frame_bytes(span_of(s->name));
    s->hello_ms = loop_now_ms(s->loop);
    int err = frame_send_peer(s->peer, FRAME_HELLO, 0, 0, &hello.base, NULL, &s->scratch);
    if (err)
        LOG_WARN("submit_hello_failed", LOG_ERR("why", err));
}

/* Packs, and sends when there is credit for it. ERR_AGAIN: there is none. */
static int send_frame(struct submit *s, uint16_t kind, uint64_t correlation, const ProtobufCMessage *m,
                      struct bus_bytes *body) {
    uint8_t header[FRAME_HEADER_LEN];
    buf_clear(&s->scratch);
    int err = frame_pack(m, &s->scratch);
    if (err)
        return err;
    struct span meta = buf_span(&s->scratch);
    uint64_t cost = FRAME_COST(meta.len, bus_bytes_span(body).len);
    /* A frame over the whole credit may go when nothing else is on the way. */
    if (s->lent && s->lent + cost > s->credit) {
        s->starved = true;
        return ERR_AGAIN;
    }
    frame_header(header, kind, correlation, s->epoch, meta);
    err = bus_peer_send(s->peer, span_make(header, sizeof header), meta, body);
    if (err == ERR_OK)
        s->lent += cost;
    return err;
}

/* -- a submission -- */

struct submission *submission_new(struct submit *s) {
    struct submission *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->submit = s;
    m->correlation = ++s->correlation;
    memcpy(m->id, s->prefix, 8);
    uint64_t n = s->counter++;
    for (int i = 15; i >= 8; i--, n >>= 8)
        m->id[i] = (uint8_t)n;
    return m;
}

void submission_name(const struct submission *m, char to[14]) {
    uint64_t n = 0;
    for (int i = 8; i < 16; i++)
        n = n << 8 | m->id[i];
    base32_encode(n, to);
}

static struct list *list_of(struct submit *s, enum phase phase) {
    return phase == PHASE_QUEUED ? &s->queued : phase == PHASE_SENT ? &s->waiting : &s->doubtful;
}

static void set_phase(struct submission *m, enum phase phase) {
    struct submit *s = m->submit;
    if (m->phase != PHASE_OPEN)
        list_remove(list_of(s, m->phase), &m->link);
    m->phase = phase;
    m->since_ms = loop_now_ms(s->loop);
    if (phase != PHASE_OPEN)
        list_push_back(list_of(s, phase), &m->link);
    if (phase != PHASE_QUEUED) {
        bus_bytes_free(m->body);
        m->body = NULL;
        m->envelope = NULL;
    }
}

static void submission_free(struct submission *m) {
    bool in_map = m->phase == PHASE_SENT || m->phase == PHASE_DOUBTFUL;
    if (in_map)
        map_remove(&m->submit->sent, &m->by_correlation);
    set_phase(m, PHASE_OPEN);
    free(m);
}

int submission_chunk(struct submission *m, struct bus_bytes *octets) {
    struct submit *s = m->submit;
    CHECK(m->phase == PHASE_OPEN);
    if (!list_is_empty(&s->queued)) { /* those in line come first */
        s->starved = true;
        return ERR_AGAIN;
    }
    Words__Chunk chunk = WORDS__CHUNK__INIT;
    chunk.submission = frame_bytes(span_make(m->id, sizeof m->id));
    chunk.number = m->chunks;
    int err = send_frame(s, FRAME_CHUNK, m->correlation, &chunk.base, octets);
    m->chunks += err == ERR_OK;
    return err;
}

static int send_submit(struct submission *m, const Words__Envelope *envelope, struct bus_bytes *body) {
    struct submit *s = m->submit;
    Words__Submit submit = WORDS__SUBMIT__INIT;
    submit.submission = frame_bytes(span_make(m->id, sizeof m->id));
    submit.has_chunked = submit.chunked = m->chunks > 0;
    submit.envelope = (Words__Envelope *)envelope;
    int err = map_insert(&s->sent, &m->by_correlation, m->correlation);
    if (err)
        return err;
    err = send_frame(s, FRAME_SUBMIT, m->correlation, &submit.base, body);
    if (err)
        map_remove(&s->sent, &m->by_correlation);
    else
        set_phase(m, PHASE_SENT);
    return err;
}

int submission_commit(struct submission *m, const Words__Envelope *envelope, struct bus_bytes *body,
                      submit_answer_cb cb, void *arg) {
    struct submit *s = m->submit;
    CHECK(m->phase == PHASE_OPEN);
    m->cb = cb;
    m->arg = arg;
    int err = list_is_empty(&s->queued) ? send_submit(m, envelope, body) : ERR_AGAIN;
    if (err != ERR_AGAIN)
        return err;
    set_phase(m, PHASE_QUEUED);
    m->envelope = envelope;
    m->body = bus_bytes_ref(body);
    return ERR_OK;
}

static void take_chunks_back(struct submission *m) {
    struct submit *s = m->submit;
    if (m->chunks == 0)
        return;
    Words__Abort abort_chunks = WORDS__ABORT__INIT;
    abort_chunks.submission = frame_bytes(span_make(m->id, sizeof m->id));
    int err = frame_send_peer(s->peer, FRAME_ABORT, m->correlation, s->epoch, &abort_chunks.base, NULL, &s->scratch);
    if (err) /* the scheduler drops chunks that nobody submits, in time */
        LOG_WARN("submit_abort_failed", LOG_ERR("why", err));
}

void submission_drop(struct submission *m) {
    if (m->phase == PHASE_SENT) {
        m->cb = NULL;
        return;
    }
    CHECK(m->phase != PHASE_DOUBTFUL);
    take_chunks_back(m);
    submission_free(m);
}

/* Tells the owner, who may begin the next submission inside the callback. */
static void answer(struct submission *m, uint32_t verdict, uint64_t message, struct span text) {
    submit_answer_cb cb = m->cb;
    void *arg = m->arg;
    submission_free(m);
    if (cb)
        cb(arg, verdict, message, text);
}

/* -- credit -- */

static void give_credit(struct submit *s, uint64_t octets) {
    s->lent = octets < s->lent ? s->lent - octets : 0;
}

/* After credit came: the line first, then those who were refused. */
static void serve_line(struct submit *s) {
    struct list_node *node;
    while ((node = list_first(&s->queued))) {
        struct submission *m = LIST_ENTRY(node, struct submission, link);
        int err = send_submit(m, m->envelope, m->body);
        if (err == ERR_AGAIN)
            return;
        if (err) {
            take_chunks_back(m);
            answer(m, VERDICT_TEMPFAIL, 0, SPAN("cannot reach the queue"));
        }
    }
    if (s->starved) {
        s->starved = false;
        s->room(s->arg);
    }
}

/* -- frames in -- */

static bool match_correlation(const struct map_node *n, const void *key) {
    return CONTAINER_OF(n, struct submission, by_correlation)->correlation == *(const uint64_t *)key;
}

static void log_late(const struct submission *m, uint64_t message, const char *event) {
    char name[14], id[BASE32_ID_LEN + 1];
    submission_name(m, name);
    base32_encode(message, id);
    /* events: in_doubt, accepted_unheard */
    LOG_WARN(event, LOG_STR("submission", name), LOG_STR("id", id));
}

static void on_answer(struct submit *s, const struct frame *f) {
    const Words__Answer *a = frame_unpack(&words__answer__descriptor, f->meta, &s->mem);
    if (!a) {
        metric_add(&metric_bad_frames, 1);
        return;
    }
    give_credit(s, a->credit);
    struct map_node *node = map_find(&s->sent, f->correlation, match_correlation, &f->correlation);
    if (!node)
        return;
    struct submission *m = CONTAINER_OF(node, struct submission, by_correlation);
    bool stored = a->verdict == VERDICT_STORED;
    if (m->phase == PHASE_SENT)
        metric_observe(&metric_answer_us, (loop_now_ms(s->loop) - m->since_ms) * 1000);
    if (stored && m->phase == PHASE_DOUBTFUL) {
        metric_add(&metric_doubt, 1);
        log_late(m, a->message, "in_doubt");
    } else if (stored && !m->cb) {
        metric_add(&metric_orphans, 1);
        log_late(m, a->message, "accepted_unheard");
    }
    answer(m, a->verdict, a->message, a->has_text ? frame_span(a->text) : SPAN_EMPTY);
}

static void on_welcome(struct submit *s, const struct frame *f) {
    const Words__Welcome *w = frame_unpack(&words__welcome__descriptor, f->meta, &s->mem);
    if (!w) {
        metric_add(&metric_bad_frames, 1);
        return;
    }
    s->credit = w->credit;
    s->epoch = w->epoch;
    s->heard = true;
    s->welcome = w->credit > 0;
}

static void on_credit(struct submit *s, const struct frame *f) {
    const Words__Credit *c = frame_unpack(&words__credit__descriptor, f->meta, &s->mem);
    if (c)
        give_credit(s, c->bytes);
    else
        metric_add(&metric_bad_frames, 1);
}

static void on_message(void *arg, const struct bus_message *message) {
    struct submit *s = arg;
    struct frame f;
    arena_reset(&s->mem);
    int err = frame_read(&f, message);
    if (err) {
        metric_add(&metric_bad_frames, 1);
        LOG_WARN("submit_frame_refused", LOG_ERR("why", err));
        return;
    }
    if (f.kind == FRAME_ANSWER)
        on_answer(s, &f);
    else if (f.kind == FRAME_CREDIT)
        on_credit(s, &f);
    else if (f.kind == FRAME_WELCOME)
        on_welcome(s, &f);
    else
        metric_add(&metric_bad_frames, 1);
    serve_line(s);
}

/* -- time -- */

/* The oldest of a list when it is older than `age`. */
static struct submission *overdue(struct submit *s, const struct list *l, uint64_t age) {
    struct list_node *node = list_first(l);
    struct submission *m = node ? LIST_ENTRY(node, struct submission, link) : NULL;
    return m && loop_now_ms(s->loop) - m->since_ms >= age ? m : NULL;
}

static void give_up_waiting(struct submission *m) {
    char name[14];
    submit_answer_cb cb = m->cb;
    void *arg = m->arg;
    submission_name(m, name);
    LOG_WARN("submission_overdue", LOG_STR("submission", name));
    metric_add(&metric_overdue, 1);
    m->cb = NULL;
    set_phase(m, PHASE_DOUBTFUL);
    if (cb)
        cb(arg, VERDICT_TEMPFAIL, 0, SPAN("no answer from the queue"));
}

void submit_tick(struct submit *s) {
    struct submission *m;
    if (!s->welcome && loop_now_ms(s->loop) - s->hello_ms >= HELLO_MS)
        say_hello(s);
    while ((m = overdue(s, &s->queued, SUBMIT_QUEUE_MS))) {
        take_chunks_back(m);
        answer(m, VERDICT_TEMPFAIL, 0, SPAN("the queue is busy"));
    }
    while ((m = overdue(s, &s->waiting, SUBMIT_ANSWER_MS)))
        give_up_waiting(m);
    while ((m = overdue(s, &s->doubtful, SUBMIT_DOUBT_MS)))
        submission_free(m);
}

/* -- life -- */

int submit_open(struct submit **out, struct bus *bus, struct loop *l, const char *endpoint, const char *name,
                submit_room_cb room, void *arg) {
    struct submit *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->loop = l;
    s->room = room;
    s->arg = arg;
    span_copy(span_of(name), s->name, sizeof s->name);
    buf_init(&s->scratch, FRAME_META_MAX);
    arena_init(&s->mem, ANSWER_MEM, FRAME_META_MAX);
    map_init(&s->sent);
    list_init(&s->queued);
    list_init(&s->waiting);
    list_init(&s->doubtful);
    rand_secure(s->prefix, sizeof s->prefix);
    rand_secure(&s->counter, sizeof s->counter);
    int err = bus_peer_open(&s->peer, bus, l, endpoint, s->name, FRAME_PART_MAX, QUEUE_MAX, on_message, s);
    if (err) {
        submit_close(s);
        return err;
    }
    say_hello(s);
    *out = s;
    return ERR_OK;
}

void submit_close(struct submit *s) {
    struct list *lists[] = {&s->queued, &s->waiting, &s->doubtful};
    for (size_t i = 0; i < 3; i++) {
        struct list_node *node;
        while ((node = list_first(lists[i])))
            submission_free(LIST_ENTRY(node, struct submission, link));
    }
    if (s->peer)
        bus_peer_close(s->peer);
    map_deinit(&s->sent);
    buf_deinit(&s->scratch);
    arena_deinit(&s->mem);
    free(s);
}

bool submit_is_ready(const struct submit *s) {
    return s->welcome;
}

bool submit_was_heard(const struct submit *s) {
    return s->heard;
}

size_t submit_pending(const struct submit *s) {
    return s->queued.count + s->waiting.count;
}
