/*
 * convert: makes the 7-bit form of a message that an attempt needs for its server (smtp-rules line 49). The whole
 * message is gathered, converted on a helper thread, and kept with the attempt for its next hosts. What is being
 * converted at one time is bounded over all attempts; who finds no room is deferred.
 */
#include <stdlib.h>

#include "gateway/outbound/attempt.h"
#include "gateway/smtp/mime.h"

METRIC_COUNTER(converted_total, "posthouse_delivery_conversions_total", "Messages converted to 7 bit");

struct conversion {
    struct attempt *attempt; /* NULL: nobody waits for it any more */
    struct outbound *o;
    struct bus_bytes *whole; /* the message, or */
    struct buf in;           /* gathered from chunks */
    struct buf out;
    size_t size; /* counted in o->converting */
    bool running;
    int err;
    const char *why;
};

static void release(struct conversion *v) {
    v->o->converting -= v->size;
    bus_bytes_free(v->whole);
    buf_deinit(&v->in);
    buf_deinit(&v->out);
    free(v);
}

/* Gives the connection back when the attempt has no more use for it. */
static void release_conn(struct conn *c) {
    if (!c->attempt && !c->gone)
        site_conn_ready(c->site, c);
}

/* The attempt cannot be converted; what it has of recipients is judged, and the connection is free again. */
static void refuse(struct attempt *a, enum outcome_local what, const char *why) {
    struct conn *c = a->conn;
    struct attempt_result r = attempt_local_result(what);
    if (why) {
        const char *text = arena_printf(&a->mem, "%s: %s", r.verdict.text, why);
        r.text = span_of(text ? text : r.verdict.text);
    }
    r.remote = arena_dup(&a->mem, span_of(c->remote));
    attempt_judge_all(a, &r);
    c->attempt = NULL;
    a->conn = NULL;
    attempt_finish(a);
}

static void work(void *arg) {
    struct conversion *v = arg;
    v->err = mime_to_7bit(v->whole ? bus_bytes_span(v->whole) : buf_span(&v->in), &v->out, &v->why);
}

static void done(void *arg) {
    struct conversion *v = arg;
    struct attempt *a = v->attempt;
    if (!a) {
        release(v);
        return;
    }
    struct conn *c = a->conn;
    a->conversion = NULL;
    if (v->err == ERR_OK) {
        metric_add(&converted_total, 1);
        buf_deinit(&a->body.converted);
        a->body.converted = v->out;
        buf_init(&v->out, 0);
        a->converted = true;
        transact_begin(a);
    } else {
        bool memory = v->err == ERR_NOMEM || v->err == ERR_FULL;
        refuse(a, memory ? OUTCOME_NO_MEMORY : OUTCOME_NOT_CONVERTIBLE, memory ? NULL : v->why);
    }
    release(v);
    release_conn(c);
}

/* False: there was no memory to run it, the attempt has ended. */
static void run(struct attempt *a) {
    struct conversion *v = a->conversion;
    v->running = true;
    if (loop_work(a->o->loop, work, done, v) == ERR_OK)
        return;
    a->conversion = NULL;
    release(v);
    refuse(a, OUTCOME_NO_MEMORY, NULL);
}

/* Takes what has come; true: all of it is there, or there is no room for it. */
static bool gather(struct attempt *a) {
    struct conversion *v = a->conversion;
    struct span at;
    while ((at = content_at(&a->body, loop_now_ms(a->o->loop))).len) {
        buf_add(&v->in, at);
        content_take(&a->body, at.len, loop_now_ms(a->o->loop));
    }
    return content_is_end(&a->body) || v->in.err;
}

void convert_on_chunk(struct attempt *a) {
    struct conn *c = a->conn;
    if (a->conversion->running || !gather(a))
        return;
    if (a->conversion->in.err) {
        struct conversion *v = a->conversion;
        a->conversion = NULL;
        release(v);
        refuse(a, OUTCOME_NO_MEMORY, NULL);
    } else {
        run(a);
    }
    release_conn(c);
}

void convert_start(struct attempt *a) {
    struct outbound *o = a->o;
    if (a->body.size > MIME_MESSAGE_MAX) {
        refuse(a, OUTCOME_NOT_CONVERTIBLE, "it is too long");
        return;
    }
    size_t size = (size_t)a->body.size;
    struct conversion *v = o->converting + size <= DELIVERY_CONVERTING_MAX ? calloc(1, sizeof *v) : NULL;
    if (!v) {
        refuse(a, OUTCOME_NO_MEMORY, NULL);
        return;
    }
    *v = (struct conversion){.attempt = a, .o = o, .size = size};
    o->converting += size;
    buf_init(&v->in, size);
    buf_init(&v->out, size * 3 + 64 * 1024);
    a->conversion = v;
    if (a->body.chunked) {
        content_rewind(&a->body, false, loop_now_ms(o->loop)); /* the chunks come to convert_on_chunk */
    } else {
        v->whole = bus_bytes_ref(a->body.whole);
        run(a);
    }
}

void convert_cancel(struct attempt *a) {
    struct conversion *v = a->conversion;
    a->conversion = NULL;
    v->attempt = NULL;
    if (!v->running)
        release(v);
}
