/*
 * tlsrpt_send: the way of one report: ask the DNS who wants it, write it, hand it to each, try again later with those
 * who did not take it. A few are on their way at a time; the rest waits in the heap.
 *
 * Who has it is remembered by the hash of the address, so that a record that changes between two tries does no harm.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/gzip.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/outbound/tlsrpt_in.h"
#include "gateway/smtp/address.h"

enum { POST_MS = 60000, ANSWER_MAX = 65536, RECORD_MAX = 4096, RETRY_MAX_MS = 4 * 3600000 };

METRIC_COUNTER(metric_sent, "posthouse_tlsrpt_reports_sent_total", "TLS reports that were handed over")
METRIC_COUNTER(metric_failed, "posthouse_tlsrpt_reports_failed_total", "Tries to hand a TLS report over that failed")
METRIC_COUNTER(metric_lost, "posthouse_tlsrpt_reports_expired_total", "TLS reports that nobody took in a day")

struct post {
    struct tlsrpt_sending *s;
    struct http_request *request;
    uint64_t hash;
    char to[TLSRPT_RUA_LEN_MAX + 1];
};
struct tlsrpt_sending {
    struct tlsrpt *t;
    struct tlsrpt_domain *d;
    bool asking;      /* the DNS */
    bool failed;      /* somebody did not take it */
    unsigned pending; /* posts under way, and one while they are begun */
    unsigned count;
    struct post posts[TLSRPT_RUA_MAX];
};

/* -- the end of a try -- */

static struct tlsrpt_domain *take_back(struct tlsrpt_sending *s) {
    struct tlsrpt_domain *d = s->d;
    list_remove(&s->t->busy, &d->link);
    d->sending = NULL;
    s->t->changed = true;
    free(s);
    return d;
}

static void end(struct tlsrpt_sending *s) {
    struct tlsrpt *t = s->t;
    bool again = s->failed;
    struct tlsrpt_domain *d = take_back(s);
    uint64_t next = tlsrpt_now(t) + d->retry_ms;
    if (!again) {
        tlsrpt_domain_free(t, d);
    } else if (next >= d->give_up_ms) {
        metric_add(&metric_lost, 1);
        LOG_WARN("tlsrpt_expired", LOG_STR("domain", d->name));
        tlsrpt_domain_free(t, d);
    } else {
        d->next_ms = next;
        d->retry_ms = d->retry_ms * 2 < RETRY_MAX_MS ? d->retry_ms * 2 : RETRY_MAX_MS;
        tlsrpt_domain_queue(t, d);
    }
}

static void post_over(struct post *p, bool taken, const char *why) {
    struct tlsrpt_sending *s = p->s;
    struct tlsrpt_domain *d = s->d;
    if (taken) {
        metric_add(&metric_sent, 1);
        LOG_INFO("tlsrpt_sent", LOG_STR("domain", d->name), LOG_STR("to", p->to));
        if (d->told_count < TLSRPT_RUA_MAX)
            d->told[d->told_count++] = p->hash;
    } else {
        metric_add(&metric_failed, 1);
        LOG_WARN("tlsrpt_failed", LOG_STR("domain", d->name), LOG_STR("to", p->to), LOG_STR("why", why));
        s->failed = true;
    }
    if (--s->pending == 0)
        end(s);
}

static void on_posted(void *arg, const struct http_answer *a) {
    struct post *p = arg;
    char status[40];
    p->request = NULL;
    snprintf(status, sizeof status, "HTTP status %u", (unsigned)a->status);
    post_over(p, !a->err && a->status >= 200 && a->status < 300, a->err ? a->why : status);
}

static void on_mailed(void *arg, bool kept) {
    post_over(arg, kept, "the queue did not take it");
}

/* -- handing over -- */

static void post_by_http(struct post *p, struct span packed) {
    struct tlsrpt *t = p->s->t;
    static const char *const headers[] = {"Content-Type: application/tlsrpt+gzip", NULL};
    const struct http_question q = {.method = "POST",
                                    .url = p->to,
                                    .headers = headers,
                                    .body = packed,
                                    .timeout_ms = POST_MS,
                                    .answer_max = ANSWER_MAX,
                                    .connect_to = t->c.connect_to[0] ? t->c.connect_to : NULL};
    p->request = http_ask(t->http, &q, on_posted, p);
    if (!p->request)
        post_over(p, false, "a URL that cannot be used, or too many requests");
}

static void post_by_mail(struct post *p, struct span packed) {
    struct tlsrpt *t = p->s->t;
    struct buf message;
    buf_init(&message, 2 * TLSRPT_REPORT_MAX);
    int err = tlsrpt_mail_write(t, p->s->d, p->to, packed, tlsrpt_now(t), &message);
    const struct tlsrpt_mail mail = {.from = t->c.from, .to = p->to, .message = buf_span(&message)};
    if (!err)
        err = t->c.mailer(t->c.mailer_arg, &mail, on_mailed, p);
    if (err)
        post_over(p, false, err_text(err));
    buf_deinit(&message);
}

static bool has_it(const struct tlsrpt_domain *d, uint64_t hash) {
    for (unsigned i = 0; i < d->told_count; i++)
        if (d->told[i] == hash)
            return true;
    return false;
}

/* What cannot work is not tried for a day. */
static bool can_be_told(const struct tlsrpt *t, const struct tlsrpt_rua *r) {
    struct address a;
    struct arena mem;
    if (!r->mail)
        return http_is_url(r->to);
    if (!t->c.mailer || !t->c.from[0])
        return false;
    arena_init(&mem, 2048, 16384);
    bool good = address_parse(&a, span_of(r->to), &mem) == ERR_OK && span_eq(a.text, span_of(r->to)) && !a.literal;
    arena_deinit(&mem);
    return good;
}

static void begin_posts(struct tlsrpt_sending *s, const struct tlsrpt_rua *rua, size_t count, struct span packed) {
    for (size_t i = 0; i < count; i++) {
        struct post *p = &s->posts[s->count];
        uint64_t hash = hash_span(span_of(rua[i].to), rua[i].mail);
        if (has_it(s->d, hash) || !can_be_told(s->t, &rua[i]))
            continue;
        *p = (struct post){.s = s, .hash = hash};
        span_copy(span_of(rua[i].to), p->to, sizeof p->to);
        s->count++;
        s->pending++;
        if (rua[i].mail)
            post_by_mail(p, packed);
        else
            post_by_http(p, packed);
    }
}

static void hand_over(struct tlsrpt_sending *s, const struct tlsrpt_rua *rua, size_t count) {
    struct buf text, packed;
    buf_init(&text, TLSRPT_REPORT_MAX);
    buf_init(&packed, TLSRPT_REPORT_MAX);
    tlsrpt_json(s->t, s->d, &text);
    int err = text.err ? text.err : gzip_pack(buf_span(&text), &packed);
    s->pending = 1;
    if (err) {
        LOG_WARN("tlsrpt_not_written", LOG_STR("domain", s->d->name), LOG_ERR("why", err));
        s->failed = err == ERR_NOMEM;
    } else {
        begin_posts(s, rua, count, buf_span(&packed));
    }
    buf_deinit(&text);
    buf_deinit(&packed);
    if (--s->pending == 0)
        end(s);
}

/* -- who wants it -- */

/* Several records are none (RFC 8460 section 3). */
static size_t read_records(const struct dns_answer *a, struct tlsrpt_rua rua[TLSRPT_RUA_MAX]) {
    unsigned found = 0;
    size_t count = 0;
    for (size_t i = 0; i < a->count; i++) {
        char text[RECORD_MAX];
        struct tlsrpt_rua one[TLSRPT_RUA_MAX];
        size_t n, len = dns_record_text(&a->records[i], text, sizeof text);
        int err = tlsrpt_rua_parse(span_make(text, len < sizeof text ? len : sizeof text - 1), one, &n);
        if (err == ERR_NOT_FOUND)
            continue;
        found++;
        count = err || len >= sizeof text ? 0 : n;
        memcpy(rua, one, count * sizeof *rua);
    }
    return found == 1 ? count : 0;
}

static void on_txt(void *arg, const struct dns_answer *a) {
    struct tlsrpt_sending *s = arg;
    struct tlsrpt_rua rua[TLSRPT_RUA_MAX];
    size_t count = a->status == DNS_OK ? read_records(a, rua) : 0;
    s->asking = false;
    s->failed = a->status == DNS_TEMPFAIL || a->status == DNS_LOOP;
    if (count)
        hand_over(s, rua, count);
    else
        end(s);
}

static bool begin(struct tlsrpt *t, struct tlsrpt_domain *d) {
    char name[300];
    struct tlsrpt_sending *s = calloc(1, sizeof *s);
    if (!s)
        return false;
    *s = (struct tlsrpt_sending){.t = t, .d = d, .asking = true};
    d->sending = s;
    list_push_back(&t->busy, &d->link);
    snprintf(name, sizeof name, "_smtp._tls.%s", d->name);
    t->c.query(t->c.dns, name, DNS_TXT, on_txt, s);
    return true;
}

void tlsrpt_send_due(struct tlsrpt *t) {
    uint64_t now = tlsrpt_now(t);
    struct heap_node *n;
    for (unsigned begun = 0; begun < TLSRPT_BUSY_MAX && t->busy.count < TLSRPT_BUSY_MAX; begun++) {
        struct tlsrpt_domain *d = (n = heap_first(&t->out)) ? CONTAINER_OF(n, struct tlsrpt_domain, in_out) : NULL;
        if (!d || d->next_ms > now)
            return;
        heap_remove(&t->out, n);
        if (!begin(t, d)) {
            d->next_ms = now + d->retry_ms;
            tlsrpt_domain_queue(t, d);
        }
    }
}

void tlsrpt_send_stop(struct tlsrpt *t, struct tlsrpt_domain *d) {
    struct tlsrpt_sending *s = d->sending;
    (void)t;
    CHECK(!s->asking);
    for (unsigned i = 0; i < s->count; i++)
        if (s->posts[i].request)
            http_cancel(s->posts[i].request);
    d->sending = NULL;
    free(s);
}
