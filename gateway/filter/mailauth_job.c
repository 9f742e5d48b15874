/*
 * mailauth_job: one message that is verified or signed (see mailauth.h). Three parts that know where they run: begin
 * (on the session's loop: copies the facts), work (on a thread: reads the message, asks the DNS, writes down what it
 * found), and home (on the loop again: changes the message, says the verdict). Cancelling marks the job; it comes home
 * all the same and ends there.
 */
#include "gateway/filter/mailauth_job.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"

#define ARENA_MAX (4u << 20) /* answers of the DNS, names, results of one message */
#define RESULTS_FIELD SPAN("Authentication-Results")

METRIC_COUNTER(verified, "posthouse_mailauth_verified_total", "Messages whose sender was verified")
METRIC_COUNTER(unverified, "posthouse_mailauth_unverified_total", "Messages let pass unverified: too many waited")
METRIC_COUNTER(refused, "posthouse_mailauth_refused_total", "Messages refused by SPF or DMARC")
METRIC_COUNTER(signed_, "posthouse_mailauth_signed_total", "Messages signed by DKIM")
METRIC_COUNTER(unsigned_, "posthouse_mailauth_unsigned_total", "Messages that could not be signed")

struct job {
    struct check_wait wait;
    struct pool_job pool;
    struct post_letter letter;
    struct mailauth *m;
    struct post *home;
    struct held *held;
    check_cb cb;
    void *arg;
    atomic_bool canceled; /* by the loop */
    uint64_t deadline_ms;
    struct arena mem;
    /* facts */
    struct tcp_addr client;
    struct span id, client_ip, sender, helo, hostname;
    /* found */
    struct authres_spf spf;
    struct authres_dkim dkim[AUTHRES_DKIM_MAX];
    size_t dkim_count;
    struct authres_dmarc dmarc;
    struct dmarc_from from;
    struct buf value; /* DKIM-Signature */
    int err;          /* signing: why there is none */
};

static const struct check_verdict passed = {.action = CHECK_PASS, .by = {"mailauth", 8}};

static struct check_verdict refuse(uint16_t code, struct span enhanced, struct span text, struct span by) {
    return (struct check_verdict){.action = CHECK_REFUSE, .reply = {code, enhanced, text}, .by = by};
}

/* -- life -- */
static void job_free(struct job *j) {
    held_free(j->held);
    buf_deinit(&j->value);
    arena_deinit(&j->mem);
    mailauth_unref(j->m);
    free(j);
}

static void cancel(struct check_wait *w) {
    atomic_store(&CONTAINER_OF(w, struct job, wait)->canceled, true);
}

static bool copy(struct job *j, struct span from, struct span *to) {
    *to = arena_dup(&j->mem, from);
    return to->at != NULL;
}

static struct job *job_new(struct mailauth *m, struct post *home, const struct check_facts *f, struct held *h,
                           check_cb cb, void *arg) {
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->m = mailauth_ref(m);
    j->held = held_ref(h);
    j->wait.cancel = cancel;
    j->home = home;
    j->cb = cb;
    j->arg = arg;
    j->deadline_ms = clock_mono_ms() + m->timeout_ms;
    arena_init(&j->mem, 8192, ARENA_MAX);
    buf_init(&j->value, AUTHRES_MAX);
    if (f->client)
        j->client = *f->client;
    if (copy(j, f->id, &j->id) && copy(j, f->client_ip, &j->client_ip) && copy(j, f->sender, &j->sender) &&
        copy(j, f->helo, &j->helo) && copy(j, f->hostname, &j->hostname))
        return j;
    job_free(j);
    return NULL;
}

/* Sends it to the pool, or frees it. */
static int job_send(struct job *j, struct check_wait **wait) {
    int err = j->m->pool ? pool_send(j->m->pool, &j->pool) : ERR_CLOSED;
    if (err) {
        job_free(j);
        return err;
    }
    *wait = &j->wait;
    return ERR_AGAIN;
}

/* -- verifying: on a thread -- */
/* Nobody wants the answer: others wait for this thread. */
static bool is_moot(struct job *j) {
    return atomic_load_explicit(&j->m->stopping, memory_order_relaxed) ||
           atomic_load_explicit(&j->canceled, memory_order_relaxed);
}

static void check_spf(struct job *j, struct mailauth_thread *t) {
    struct spf_question q = {&j->client, j->sender, j->helo, j->hostname};
    spf_check(t->spf, &q, j->deadline_ms, &j->mem, &j->spf);
}

static void check_dmarc(struct job *j, struct mailauth_thread *t) {
    uint64_t chance;
    rand_secure(&chance, sizeof chance);
    struct dmarc_question q = {&j->from, &j->spf, j->dkim, j->dkim_count, (unsigned)(chance % 100)};
    j->dmarc.result = AUTHRES_TEMPERROR;
    if (dmarc_from(j->held, &j->mem, &j->from) == ERR_OK)
        dmarc_judge(j->m->dmarc, t->resolver, j->deadline_ms, &q, &j->mem, &j->dmarc);
}

/* Until it is known. */
static void presume(struct job *j) {
    bool by_helo = j->sender.len == 0;
    j->spf = (struct authres_spf){AUTHRES_TEMPERROR, by_helo, by_helo ? j->helo : j->sender, SPAN_EMPTY, NULL};
    j->dkim[0].result = AUTHRES_TEMPERROR;
    j->dkim_count = 1;
    j->dmarc.result = AUTHRES_TEMPERROR;
}

static void work_verify(struct pool_job *p, void *state) {
    struct job *j = CONTAINER_OF(p, struct job, pool);
    struct mailauth_thread *t = state;
    presume(j);
    if (t && t->resolver && t->spf) {
        if (j->m->use_spf && !is_moot(j))
            check_spf(j, t);
        if (j->m->dkim && !is_moot(j))
            dkimauth_verify(j->m->dkim, t->resolver, j->deadline_ms, j->held, &j->mem, j->dkim, &j->dkim_count);
        if (j->m->dmarc && !is_moot(j))
            check_dmarc(j, t);
    }
    post_send(j->home, &j->letter);
}

/* -- verifying: home -- */
/* Our own fields go, whatever else fails. */
static void show(struct mailauth *m, struct held *h, const struct authres *a, struct span id) {
    struct span us = span_of(m->authserv_id);
    struct buf value;
    authres_strip(h, us);
    buf_init(&value, AUTHRES_MAX);
    int err = authres_compose(&value, us, a);
    if (!err)
        err = held_insert(h, 0, RESULTS_FIELD, buf_span(&value));
    if (err)
        LOG_WARN("auth_results_not_shown", LOG_SPAN("id", id), LOG_ERR("reason", err));
    buf_deinit(&value);
}

static struct check_verdict decide(const struct job *j) {
    const struct mailauth *m = j->m;
    if (m->spf_reject && j->spf.result == AUTHRES_FAIL)
        return refuse(550, SPAN("5.7.23"), SPAN("the sender's domain does not let this host send (SPF)"), SPAN("spf"));
    if (m->mode != MAILAUTH_ENFORCE)
        return passed;
    if (j->dmarc.result == AUTHRES_FAIL && j->dmarc.disposition == AUTHRES_ASK_REJECT)
        return refuse(550, SPAN("5.7.26"), SPAN("the author's domain asks to reject unauthenticated mail (DMARC)"),
                      SPAN("dmarc"));
    if (j->from.several || (j->from.ambiguous && j->from.count))
        return refuse(550, SPAN("5.7.26"), SPAN("the From field does not name its author plainly"), SPAN("dmarc"));
    return passed;
}

static void log_verified(const struct job *j, const struct check_verdict *v) {
    struct span signer = j->dkim_count ? j->dkim[0].domain : SPAN_EMPTY;
    const char *dkim = j->dkim_count ? authres_text(j->dkim[0].result) : "none";
    for (size_t i = 0; i < j->dkim_count; i++) {
        if (j->dkim[i].result == AUTHRES_PASS) {
            dkim = "pass";
            signer = j->dkim[i].domain;
            break;
        }
    }
    LOG_INFO("sender_verified", LOG_SPAN("id", j->id), LOG_SPAN("client", j->client_ip),
             LOG_STR("spf", j->m->use_spf ? authres_text(j->spf.result) : "off"), LOG_SPAN("identity", j->spf.identity),
             LOG_STR("dkim", j->m->dkim ? dkim : "off"), LOG_SPAN("signer", signer),
             LOG_STR("dmarc", j->m->dmarc ? authres_text(j->dmarc.result) : "off"), LOG_SPAN("from", j->dmarc.from),
             LOG_STR("verdict", v->action == CHECK_REFUSE ? "refused" : "pass"));
}

static void home_verify(struct post_letter *letter) {
    struct job *j = CONTAINER_OF(letter, struct job, letter);
    if (!atomic_load(&j->canceled)) {
        struct authres a = {.spf = j->m->use_spf ? &j->spf : NULL,
                            .dkim = j->dkim,
                            .dkim_count = j->m->dkim ? j->dkim_count : 0,
                            .dkim_asked = j->m->dkim != NULL,
                            .dmarc = j->m->dmarc ? &j->dmarc : NULL};
        show(j->m, j->held, &a, j->id);
        struct check_verdict v = decide(j);
        metric_add(&verified, 1);
        metric_add(&refused, v.action == CHECK_REFUSE);
        log_verified(j, &v);
        j->cb(j->arg, &v);
    }
    job_free(j);
}

/* No thread for it: passes, with what is true written on it. */
static int pass_unverified(struct mailauth *m, const struct check_facts *f, struct held *h, struct check_verdict *v,
                           int err) {
    struct authres_spf spf = {AUTHRES_TEMPERROR, !f->sender.len, f->sender.len ? f->sender : f->helo, SPAN_EMPTY, NULL};
    struct authres_dkim dkim = {.result = AUTHRES_TEMPERROR};
    struct authres_dmarc dmarc = {.result = AUTHRES_TEMPERROR};
    struct authres a = {.spf = m->use_spf ? &spf : NULL,
                        .dkim = &dkim,
                        .dkim_count = m->dkim ? 1 : 0,
                        .dkim_asked = m->dkim != NULL,
                        .dmarc = m->dmarc ? &dmarc : NULL};
    show(m, h, &a, f->id);
    metric_add(&unverified, 1);
    LOG_WARN("sender_not_verified", LOG_SPAN("id", f->id), LOG_ERR("reason", err));
    *v = passed;
    return ERR_OK;
}

int mailauth_verify(struct mailauth *m, struct post *home, const struct check_facts *f, struct held *held,
                    struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) {
    *wait = NULL;
    if (!mailauth_verifies(m)) {
        authres_strip(held, span_of(m->authserv_id));
        *v = passed;
        return ERR_OK;
    }
    struct job *j = job_new(m, home, f, held, cb, arg);
    if (!j)
        return pass_unverified(m, f, held, v, ERR_NOMEM);
    j->pool.run = work_verify;
    j->letter.open = home_verify;
    int err = job_send(j, wait);
    return err == ERR_AGAIN ? err : pass_unverified(m, f, held, v, err);
}

/* -- signing -- */
static void work_sign(struct pool_job *p, void *state) {
    struct job *j = CONTAINER_OF(p, struct job, pool);
    (void)state;
    j->err = is_moot(j) ? ERR_CLOSED : dmarc_from(j->held, &j->mem, &j->from);
    ptrdiff_t key = -1;
    if (!j->err && (j->from.ambiguous || j->from.count != 1))
        j->err = ERR_NOT_FOUND; /* no one author, nothing to sign for */
    if (!j->err && (key = dkimkeys_find(j->m->keys, j->from.domains[0])) < 0)
        j->err = ERR_NOT_FOUND;
    if (!j->err)
        j->err = dkimkeys_sign(j->m->keys, (size_t)key, j->held, &j->value);
    post_send(j->home, &j->letter);
}

static struct check_verdict unsigned_verdict(const struct mailauth *m, struct span id, int err) {
    metric_add(&unsigned_, 1);
    LOG_WARN("message_not_signed", LOG_SPAN("id", id), LOG_ERR("reason", err));
    if (!m->must_sign)
        return passed;
    return refuse(451, SPAN("4.7.0"), SPAN("the message cannot be signed now"), SPAN("dkim"));
}

static void home_sign(struct post_letter *letter) {
    struct job *j = CONTAINER_OF(letter, struct job, letter);
    if (!atomic_load(&j->canceled)) {
        struct check_verdict v = passed;
        if (!j->err)
            j->err = held_insert(j->held, 0, DKIM_FIELD, buf_span(&j->value));
        if (!j->err) {
            metric_add(&signed_, 1);
            LOG_DEBUG("message_signed", LOG_SPAN("id", j->id), LOG_SPAN("from", j->from.domains[0]));
        } else if (j->err != ERR_NOT_FOUND)
            v = unsigned_verdict(j->m, j->id, j->err);
        j->cb(j->arg, &v);
    }
    job_free(j);
}

int mailauth_sign(struct mailauth *m, struct post *home, const struct check_facts *f, struct held *held,
                  struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) {
    *wait = NULL;
    struct job *j = job_new(m, home, f, held, cb, arg);
    int err = ERR_NOMEM;
    if (j) {
        j->pool.run = work_sign;
        j->letter.open = home_sign;
        err = job_send(j, wait);
    }
    if (err != ERR_AGAIN) {
        *v = unsigned_verdict(m, f->id, err);
        return ERR_OK;
    }
    return ERR_AGAIN;
}
