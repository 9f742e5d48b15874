/*
 * etcd_watch: see etcd.h. A watch is an answer without an end: one JSON object a line. `next` is the first revision
 * whose events are not yet told, and of that revision `told` events are (an answer in fragments may break within a
 * revision). A new stream begins at `next` and passes over the first `told` events there, so nothing is missed or
 * told twice, whichever member it comes from: all members have the same events in the same order.
 *
 * A stream ends for many reasons; then another begins, at once when its endpoint was left, else after a growing pause.
 * Only compaction and a refusal end the watch itself.
 *
 * The owner may close the watch, or the client, in any of its callbacks: `gone` tells the function that is reading.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

#include "base/net/etcd_in.h"

enum {
    PAUSE_MS = 50,
    PAUSE_MAX_MS = 2000,
    TOKEN_PAUSE_MS = 100,
    LASTING_MS = 1000,
    QUESTION_MAX = 8192,
    PIECE_MAX = 4 * 1024 * 1024,
    DENIALS_MAX = 3
};

struct etcd_watch {
    struct list_node node;
    struct etcd *e;
    struct buf prefix;
    uint64_t next, told, seen;    /* seen: events of the revision `next` in this stream */
    struct http_request *request; /* the stream, or NULL */
    size_t endpoint;
    uint64_t token_number;
    bool went_back; /* the store did: ends in the next turn */
    bool live;      /* the stream has begun, at begun_ms */
    uint64_t begun_ms;
    unsigned failures;        /* since the last stream that lasted */
    unsigned denials;         /* by the token, since the last stream that began */
    struct loop_timer *timer; /* the next stream; with a stream: until it begins */
    struct buf line;          /* what has come and is no whole line yet */
    size_t scanned;           /* octets of it without a line's end */
    bool *gone;
    etcd_watch_cb cb;
    void *arg;
};

static void drop_stream(struct etcd_watch *w) {
    http_cancel(w->request);
    w->request = NULL;
    w->live = false;
    buf_clear(&w->line);
}

static void watch_free(struct etcd_watch *w) {
    if (w->gone)
        *w->gone = true;
    list_remove(&w->e->watches, &w->node);
    drop_stream(w);
    if (w->timer)
        loop_timer_close(w->timer);
    buf_deinit(&w->prefix);
    buf_deinit(&w->line);
    free(w);
}

void etcd_watch_close(struct etcd_watch *w) {
    if (w)
        watch_free(w);
}

void etcd_watches_drop(struct etcd *e) {
    struct list_node *n;
    while ((n = list_first(&e->watches)))
        watch_free(LIST_ENTRY(n, struct etcd_watch, node));
}

bool etcd_watch_is_live(const struct etcd_watch *w) {
    return w->live;
}

/* -- ends of a stream -- */

static void again(struct etcd_watch *w) {
    uint64_t pause = w->failures < 6 ? (uint64_t)PAUSE_MS << w->failures : PAUSE_MAX_MS;
    if (w->live && loop_now_ms(w->e->loop) - w->begun_ms >= LASTING_MS)
        w->failures = 0;
    drop_stream(w);
    loop_timer_set(w->timer, w->failures < w->e->endpoints_count ? 1 : pause);
    w->failures++;
}

/* With all others that are there. */
static void endpoint_failed(struct etcd_watch *w, const char *why) {
    bool moves = w->request;
    etcd_endpoint_failed(w->e, w->endpoint, why);
    if (!moves) /* its stream ended before */
        again(w);
}

void etcd_watches_move(struct etcd *e, size_t failed) {
    LIST_FOREACH(n, following, &e->watches) {
        struct etcd_watch *w = LIST_ENTRY(n, struct etcd_watch, node);
        if (w->request && w->endpoint == failed)
            again(w);
    }
}

static void end_watch(struct etcd_watch *w, int err, const char *why) {
    drop_stream(w);
    loop_timer_stop(w->timer);
    w->cb(w->arg, &(struct etcd_news){.err = err, .why = *why ? why : err_text(err), .revision = w->next - 1});
}

void etcd_watches_go_back(struct etcd *e, uint64_t revision) {
    LIST_FOREACH(n, following, &e->watches) {
        struct etcd_watch *w = LIST_ENTRY(n, struct etcd_watch, node);
        if (w->next - 1 <= revision && !w->told)
            continue;
        drop_stream(w);
        w->went_back = true;
        loop_timer_set(w->timer, 0);
    }
}

/* -- what comes -- */

static bool is_ours(const struct etcd_watch *w, const struct etcd_event *e) {
    struct span prefix = buf_span(&w->prefix);
    return span_eq(span_first(e->kv.key, prefix.len), prefix);
}

/* Moves `next` and `told` over one event; whether it is news. */
static bool take_event(struct etcd_watch *w, uint64_t revision) {
    if (revision < w->next)
        return false;
    if (revision > w->next) {
        w->next = revision;
        w->told = w->seen = 0;
    }
    if (++w->seen <= w->told)
        return false;
    w->told++;
    return true;
}

/* False: the watch is gone, or its stream. */
static bool tell_events(struct etcd_watch *w, const struct etcd_reply *r) {
    bool gone = false;
    size_t first = 0;
    for (size_t i = 0; i < r->events_count; i++) {
        if (!is_ours(w, &r->events[i]) || r->events[i].kv.mod_revision > r->revision) {
            endpoint_failed(w, "an event is not as agreed");
            return false;
        }
    }
    for (size_t i = 0; i < r->events_count; i++)
        if (!take_event(w, r->events[i].kv.mod_revision))
            first = i + 1;
    if (!r->fragment) { /* the revision is complete; without events, all up to the present is */
        uint64_t whole = r->events_count ? r->events[r->events_count - 1].kv.mod_revision
                         : r->created    ? 0
                                         : r->revision;
        if (whole >= w->next) {
            w->next = whole + 1;
            w->told = w->seen = 0;
        }
    }
    if (w->next - 1 > w->e->revision_seen)
        w->e->revision_seen = w->next - 1;
    if (first == r->events_count)
        return true;
    w->gone = &gone;
    w->cb(w->arg,
          &(struct etcd_news){
              .why = "", .events = r->events + first, .count = r->events_count - first, .revision = w->next - 1});
    if (gone)
        return false;
    w->gone = NULL;
    return w->request;
}

/* Why etcd ended the stream: always the end of it, sometimes of the watch. */
static void on_refusal(struct etcd_watch *w, int fault, struct span text) {
    const char *why = text.at ? text.at : "the watch was canceled";
    if (etcd_words_is_token_fault(text)) {
        if (!w->e->user || ++w->denials > DENIALS_MAX) {
            end_watch(w, ERR_DENIED, why);
            return;
        }
        etcd_token_failed(w->e, w->token_number);
        again(w);
    } else if (fault == ERR_DENIED || strstr(why, "permission denied")) {
        end_watch(w, ERR_DENIED, why);
    } else {
        endpoint_failed(w, why);
    }
}

static bool on_line(struct etcd_watch *w, struct span line, struct arena *arena) {
    struct etcd_reply r;
    int err = etcd_words_read(line, ETCD_KIND_WATCH, arena, &r);
    if (err) {
        endpoint_failed(w, err == ERR_FULL ? "the answer is too long" : "the answer is not as agreed");
        return false;
    }
    if (!etcd_is_our_cluster(w->e, r.cluster)) {
        endpoint_failed(w, "the answer is from another cluster");
        return false;
    }
    if (r.compact_revision) {
        end_watch(w, ERR_RANGE, "the revisions to go on from are compacted");
        return false;
    }
    if (r.fault || r.canceled) {
        on_refusal(w, r.fault, r.why);
        return false;
    }
    if (r.created) {
        w->live = true;
        w->denials = 0;
        w->begun_ms = loop_now_ms(w->e->loop);
        loop_timer_stop(w->timer);
    }
    etcd_endpoint_heard(w->e, w->endpoint);
    return tell_events(w, &r);
}

/* The next whole line of what has come; false: none yet. */
static bool next_line(struct etcd_watch *w, struct buf *line) {
    struct span all = buf_span(&w->line);
    ptrdiff_t end = span_find(span_from(all, w->scanned), '\n');
    if (end < 0) {
        w->scanned = all.len;
        return false;
    }
    size_t len = w->scanned + (size_t)end;
    buf_clear(line);
    buf_add(line, span_first(all, len));
    buf_consume(&w->line, len + 1);
    w->scanned = 0;
    return true;
}

static void on_part(void *arg, uint32_t status, struct span octets) {
    struct etcd_watch *w = arg;
    struct buf line;
    bool on = true;
    if (buf_add(&w->line, octets)) {
        endpoint_failed(w, "the answer is too long");
        return;
    }
    buf_init(&line, ETCD_ANSWER_MAX);
    while (on && status == 200 && next_line(w, &line)) {
        struct arena arena;
        arena_init(&arena, ETCD_BLOCK, ETCD_ARENA_MAX);
        if (line.err)
            endpoint_failed(w, err_text(line.err));
        on = !line.err && (!buf_len(&line) || on_line(w, buf_span(&line), &arena));
        arena_deinit(&arena);
    }
    buf_deinit(&line);
}

/* The stream ended by itself. */
static void on_http(void *arg, const struct http_answer *h) {
    struct etcd_watch *w = arg;
    struct arena arena;
    struct etcd_reply r;
    char why[64] = "the stream ended";
    w->request = NULL;
    if (h->err) {
        endpoint_failed(w, h->why);
        return;
    }
    arena_init(&arena, ETCD_BLOCK, ETCD_ARENA_MAX);
    if (h->status != 200)
        snprintf(why, sizeof why, "status %u", h->status);
    if (h->status != 200 && etcd_words_read(buf_span(&w->line), ETCD_KIND_WATCH, &arena, &r) == ERR_OK && r.fault)
        on_refusal(w, r.fault, r.why);
    else
        endpoint_failed(w, why);
    arena_deinit(&arena);
}

/* -- beginning -- */

static void begin(struct etcd_watch *w) {
    struct etcd *e = w->e;
    char url[ETCD_URL_MAX + 64];
    const char *headers[5];
    struct buf body;
    if (!etcd_may_ask(e)) {
        loop_timer_set(w->timer, TOKEN_PAUSE_MS);
        return;
    }
    w->endpoint = e->current;
    w->token_number = e->token_number;
    w->seen = w->scanned = 0;
    etcd_set_url(e, w->endpoint, "/v3/watch", url, sizeof url);
    etcd_set_headers(e, true, headers);
    buf_init(&body, QUESTION_MAX);
    struct http_question q = {.method = "POST",
                              .url = url,
                              .headers = headers,
                              .connect_ms = e->attempt_ms,
                              .answer_max = PIECE_MAX,
                              .part = on_part};
    if (etcd_words_watch(buf_span(&w->prefix), w->next, &body) == ERR_OK) {
        q.body = buf_span(&body);
        w->request = http_ask(e->vital, &q, on_http, w);
    }
    buf_deinit(&body);
    loop_timer_set(w->timer, w->request ? e->attempt_ms : PAUSE_MAX_MS);
}

static void on_timer(void *arg) {
    struct etcd_watch *w = arg;
    if (w->went_back)
        end_watch(w, ERR_RANGE, "the store went back to an older revision");
    else if (w->request)
        endpoint_failed(w, "the watch did not begin in time");
    else
        begin(w);
}

struct etcd_watch *etcd_watch_open(struct etcd *e, struct span prefix, uint64_t revision, etcd_watch_cb cb, void *arg) {
    bool may = revision && revision < INT64_MAX && prefix.len && prefix.len <= ETCD_KEY_MAX &&
               e->watches.count < ETCD_WATCHES_MAX;
    struct etcd_watch *w = may ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return NULL;
    *w = (struct etcd_watch){.e = e, .next = revision, .cb = cb, .arg = arg};
    buf_init(&w->prefix, ETCD_KEY_MAX);
    buf_init(&w->line, ETCD_ANSWER_MAX);
    w->timer = loop_timer_new(e->loop, on_timer, w);
    list_push_back(&e->watches, &w->node);
    if (!w->timer || buf_add(&w->prefix, prefix)) {
        watch_free(w);
        return NULL;
    }
    if (revision - 1 > e->revision_seen) /* the owner saw it */
        e->revision_seen = revision - 1;
    etcd_probe_begin(e);
    begin(w);
    return w;
}
