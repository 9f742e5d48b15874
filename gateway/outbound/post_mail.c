/*
 * post_mail: see post_mail.h. Submissions wait in one short list, found by their correlation. An answer that does not
 * come in time counts as a refusal: the report may then go twice, which its reader sees by its id.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "gateway/smtp/address.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

#include "gateway/outbound/post_mail.h"

enum { HELLO_MS = 5000, ANSWER_MS = 5 * 60000, ANSWER_MEM = 4096, ID_LEN = 16, QUEUE_MAX = 8 << 20 };

METRIC_COUNTER(metric_bad, "posthouse_post_mail_frames_refused_total", "Frames from the scheduler that were malformed")

struct waiting {
    struct list_node node;
    uint64_t correlation, since_ms;
    tlsrpt_mailed_cb cb;
    void *arg;
};
struct post_mail {
    struct bus_peer *peer;
    struct loop *loop;
    char name[41];
    post_mail_sign sign;
    void *sign_arg;
    struct buf scratch;
    struct arena mem;    /* for what arrives, and for addresses */
    struct list waiting; /* the oldest first */
    uint64_t correlation, epoch, credit, lent, hello_ms;
};

static void say_hello(struct post_mail *p) {
    Words__Hello hello = WORDS__HELLO__INIT;
    hello.role = ROLE_GATEWAY;
    hello.name = frame_bytes(span_of(p->name));
    p->hello_ms = loop_now_ms(p->loop);
    int err = frame_send_peer(p->peer, FRAME_HELLO, 0, 0, &hello.base, NULL, &p->scratch);
    if (err)
        LOG_WARN("post_mail_hello_failed", LOG_ERR("why", err));
}

/* -- out -- */

static int write_body(struct post_mail *p, const struct tlsrpt_mail *m, struct bus_bytes **body) {
    struct buf whole;
    buf_init(&whole, FRAME_BODY_MAX);
    int err = p->sign ? p->sign(p->sign_arg, m->from, m->message, &whole) : ERR_OK;
    if (!err)
        err = buf_add(&whole, m->message);
    *body = err ? NULL : bus_bytes_copy(buf_span(&whole));
    if (!err && !*body)
        err = ERR_NOMEM;
    buf_deinit(&whole);
    return err == ERR_FULL ? ERR_RANGE : err;
}

static int send_submit(struct post_mail *p, const struct address *from, const struct address *to,
                       struct bus_bytes *body) {
    uint8_t id[ID_LEN], header[FRAME_HEADER_LEN];
    struct span octets = bus_bytes_span(body);
    Words__Recipient recipient = WORDS__RECIPIENT__INIT, *recipients[] = {&recipient};
    Words__Envelope envelope = WORDS__ENVELOPE__INIT;
    Words__Submit submit = WORDS__SUBMIT__INIT;
    rand_secure(id, sizeof id);
    recipient.address = frame_bytes(to->text);
    recipient.destination = frame_bytes(to->domain);
    recipient.has_notify = true;
    recipient.notify = NOTIFY_NEVER;
    envelope.sender = frame_bytes(from->text);
    envelope.n_recipients = 1;
    envelope.recipients = recipients;
    envelope.received_ms = clock_wall_ms();
    envelope.size = octets.len;
    envelope.has_priority = true; /* 0: bulk */
    /* The report may be about what hinders it (RFC 8460 section 3): its header says so too. */
    envelope.has_tls_required_no = envelope.tls_required_no = true;
    envelope.has_checksum = true;
    envelope.checksum = hash_checksum(octets.at, octets.len);
    submit.submission = frame_bytes(span_make(id, sizeof id));
    submit.envelope = &envelope;
    buf_clear(&p->scratch);
    int err = frame_pack(&submit.base, &p->scratch);
    if (err)
        return err;
    struct span meta = buf_span(&p->scratch);
    uint64_t cost = FRAME_COST(meta.len, octets.len);
    if (p->lent && p->lent + cost > p->credit) /* one over the whole credit may go alone */
        return ERR_AGAIN;
    frame_header(header, FRAME_SUBMIT, p->correlation, p->epoch, meta);
    err = bus_peer_send(p->peer, span_make(header, sizeof header), meta, body);
    p->lent += err ? 0 : cost;
    return err;
}

int post_mail_send(void *arg, const struct tlsrpt_mail *m, tlsrpt_mailed_cb cb, void *cb_arg) {
    struct post_mail *p = arg;
    struct address from, to;
    struct bus_bytes *body = NULL;
    if (!p->credit)
        return ERR_AGAIN;
    if (p->waiting.count >= POST_MAIL_PENDING_MAX)
        return ERR_FULL;
    arena_reset(&p->mem);
    int err = address_parse(&from, span_of(m->from), &p->mem);
    err = err ? err : address_parse(&to, span_of(m->to), &p->mem);
    err = err ? err : write_body(p, m, &body);
    struct waiting *w = err ? NULL : calloc(1, sizeof *w);
    if (!err && !w)
        err = ERR_NOMEM;
    if (w) {
        p->correlation++;
        *w = (struct waiting){.correlation = p->correlation, .since_ms = loop_now_ms(p->loop), .cb = cb, .arg = cb_arg};
        err = send_submit(p, &from, &to, body);
    }
    if (err)
        free(w);
    else
        list_push_back(&p->waiting, &w->node);
    bus_bytes_free(body);
    return err;
}

/* -- in -- */

static void answer(struct post_mail *p, struct waiting *w, bool kept) {
    struct waiting last = *w;
    list_remove(&p->waiting, &w->node);
    free(w);
    last.cb(last.arg, kept);
}

static void give_back(struct post_mail *p, uint64_t octets) {
    p->lent = octets < p->lent ? p->lent - octets : 0;
}

static void on_answer(struct post_mail *p, const struct frame *f) {
    const Words__Answer *a = frame_unpack(&words__answer__descriptor, f->meta, &p->mem);
    if (!a) {
        metric_add(&metric_bad, 1);
        return;
    }
    bool kept = a->verdict == VERDICT_STORED;
    give_back(p, a->credit);
    LIST_FOREACH(n, next, &p->waiting) {
        struct waiting *w = LIST_ENTRY(n, struct waiting, node);
        if (w->correlation == f->correlation) {
            answer(p, w, kept);
            return;
        }
    }
}

static void on_welcome(struct post_mail *p, const struct frame *f) {
    const Words__Welcome *w = frame_unpack(&words__welcome__descriptor, f->meta, &p->mem);
    if (!w) {
        metric_add(&metric_bad, 1);
        return;
    }
    p->credit = w->credit;
    p->epoch = w->epoch;
}

static void on_message(void *arg, const struct bus_message *message) {
    struct post_mail *p = arg;
    struct frame f;
    arena_reset(&p->mem);
    if (frame_read(&f, message) != ERR_OK) {
        metric_add(&metric_bad, 1);
        return;
    }
    if (f.kind == FRAME_ANSWER) {
        on_answer(p, &f);
    } else if (f.kind == FRAME_WELCOME) {
        on_welcome(p, &f);
    } else if (f.kind == FRAME_CREDIT) {
        const Words__Credit *c = frame_unpack(&words__credit__descriptor, f.meta, &p->mem);
        give_back(p, c ? c->bytes : 0);
    } else {
        metric_add(&metric_bad, 1);
    }
}

/* -- life -- */

void post_mail_tick(struct post_mail *p) {
    struct list_node *n;
    uint64_t now = loop_now_ms(p->loop);
    if (!p->credit && now - p->hello_ms >= HELLO_MS)
        say_hello(p);
    while ((n = list_first(&p->waiting)) && now - LIST_ENTRY(n, struct waiting, node)->since_ms >= ANSWER_MS)
        answer(p, LIST_ENTRY(n, struct waiting, node), false);
}

int post_mail_open(struct post_mail **out, struct bus *bus, struct loop *l, const char *endpoint, const char *name,
                   post_mail_sign sign, void *sign_arg) {
    struct post_mail *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return ERR_NOMEM;
    p->loop = l;
    p->sign = sign;
    p->sign_arg = sign_arg;
    span_copy(span_of(name), p->name, sizeof p->name);
    buf_init(&p->scratch, FRAME_META_MAX);
    arena_init(&p->mem, ANSWER_MEM, FRAME_META_MAX);
    list_init(&p->waiting);
    int err = bus_peer_open(&p->peer, bus, l, endpoint, p->name, FRAME_PART_MAX, QUEUE_MAX, on_message, p);
    if (err) {
        post_mail_close(p);
        return err;
    }
    say_hello(p);
    *out = p;
    return ERR_OK;
}

void post_mail_close(struct post_mail *p) {
    struct list_node *n;
    if (!p)
        return;
    while ((n = list_pop_front(&p->waiting)))
        free(LIST_ENTRY(n, struct waiting, node));
    if (p->peer)
        bus_peer_close(p->peer);
    buf_deinit(&p->scratch);
    arena_deinit(&p->mem);
    free(p);
}
