/*
 * dnslist: what the DNS knows of a client, asked at once before the greeting: the lists (RFC 5782), and the client's
 * name, which counts only when the name has the client's address too. One visit per client holds the questions under
 * way; one deadline ends all of them.
 *
 * A visit ends once (verdict, deadline, or cancel); answers that come later only let go of its memory. A list that is
 * silent or broken is no reason to refuse: what it could have said against the client counts as nothing, and what it
 * could have said for the client as said.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"

#include "gateway/guard/guard_inner.h"

enum {
    NAMES_MAX = 5, /* of one address that are looked at */
    ASK_PTR = GUARD_DNSLISTS_MAX,
    ASK_FORWARD,
    ASK_TXT = ASK_FORWARD + NAMES_MAX,
    ASKS,
    TELL_EVERY_MS = 3600 * 1000,
    TEXT_MAX = 256,
};

METRIC_COUNTER(lookups, "posthouse_guard_dnslist_lookups_total", "Questions to DNS lists.");
METRIC_COUNTER(list_errors, "posthouse_guard_dnslist_errors_total",
               "Answers of DNS lists that were errors or missing.");

struct visit;
struct ask {
    struct visit *visit;
    unsigned what;
};
struct visit {
    struct check_wait wait; /* first */
    struct guard_rules *rules;
    struct dns *dns;
    struct loop *loop;
    struct loop_timer *timer;
    struct guard_client *gc;
    check_cb cb;
    void *arg;
    struct tcp_addr client;
    unsigned pending;
    bool busy; /* questions are being sent, or an answer is being read: no end now */
    bool over;
    bool want_lists, txt_asked;
    bool listed[GUARD_DNSLISTS_MAX], unknown[GUARD_DNSLISTS_MAX];
    char names[NAMES_MAX][DNS_NAME_MAX + 1];
    unsigned name_count;
    bool confirmed[NAMES_MAX];
    char txt[TEXT_MAX + 1];
    struct ask asks[ASKS];
};

static void visit_free(struct visit *v) {
    guard_rules_release(v->rules);
    free(v);
}

static void on_answer(void *arg, const struct dns_answer *a);

static void ask(struct visit *v, unsigned what, const char *name, enum dns_type type) {
    v->asks[what] = (struct ask){v, what};
    v->pending++;
    dns_query(v->dns, name, type, on_answer, &v->asks[what]);
}

/* -- lists -- */

static void tell_error(struct visit *v, struct guard_list *l, const char *why) {
    uint64_t now = loop_now_ms(v->loop), until = atomic_load(&l->told_until);
    metric_add(&list_errors, 1);
    if (now >= until && atomic_compare_exchange_strong(&l->told_until, &until, now + TELL_EVERY_MS))
        LOG_WARN("dnslist_error", LOG_STR("list", l->zone), LOG_STR("why", why));
}

static struct tcp_addr address_of(const uint8_t ip[4]) {
    struct tcp_addr a = {.len = sizeof(struct sockaddr_in)};
    struct sockaddr_in *sin = (struct sockaddr_in *)&a.storage;
    sin->sin_family = AF_INET;
    memcpy(&sin->sin_addr, ip, 4);
    return a;
}

/* NULL, or what is wrong with the answer as one of a list. */
static const char *why_wrong(const struct dns_answer *a) {
    if (a->status == DNS_TEMPFAIL || a->status == DNS_LOOP)
        return a->why;
    for (size_t i = 0; a->status == DNS_OK && i < a->count; i++) {
        const uint8_t *ip = a->records[i].addr;
        if (ip[0] == 127 && ip[1] == 255 && ip[2] == 255)
            return "it answers with an error in 127.255.255.0/24; see its terms of use";
        if (ip[0] != 127)
            return "it answers outside of 127.0.0.0/8; it may no longer be a list";
    }
    return NULL;
}

static bool is_match(const struct guard_list *l, const struct dns_answer *a) {
    for (size_t i = 0; i < a->count; i++) {
        struct tcp_addr answer = address_of(a->records[i].addr);
        if (l->any || tcp_net_has(&l->answer, &answer))
            return true;
    }
    return false;
}

static void on_list(struct visit *v, unsigned first, const struct dns_answer *a) {
    const char *wrong = why_wrong(a);
    bool failed = a->status == DNS_TEMPFAIL || a->status == DNS_LOOP;
    for (unsigned i = first; i < v->rules->c.dnslist_count; i++) {
        if (v->rules->lists[i].first != first)
            continue;
        v->unknown[i] = failed;
        v->listed[i] = !wrong && a->status == DNS_OK && is_match(&v->rules->lists[i], a);
    }
    if (wrong)
        tell_error(v, &v->rules->lists[first], wrong);
}

static void ask_lists(struct visit *v) {
    char name[DNS_NAME_MAX + 1];
    for (unsigned i = 0; i < v->rules->c.dnslist_count; i++) {
        v->unknown[i] = true;
        if (v->rules->lists[i].first != i || dns_reverse_name(&v->client, v->rules->lists[i].zone, name))
            continue;
        metric_add(&lookups, 1);
        ask(v, i, name, DNS_A);
    }
}

/* The sum of what is known, and of what the unknown might have said for the client. */
static int32_t sum(const struct visit *v, int32_t *doubt) {
    int64_t known = 0, favour = 0;
    for (unsigned i = 0; i < v->rules->c.dnslist_count; i++) {
        int32_t score = v->rules->lists[i].score;
        known += v->listed[i] ? score : 0;
        favour += v->unknown[i] && score < 0 ? score : 0;
    }
    favour += known;
    *doubt = favour < INT32_MIN ? INT32_MIN : favour > INT32_MAX ? INT32_MAX : (int32_t)favour;
    return known < INT32_MIN ? INT32_MIN : known > INT32_MAX ? INT32_MAX : (int32_t)known;
}

/* The list with the highest score among those that know the client, or NULL. */
static const struct guard_list *worst_list(const struct visit *v) {
    const struct guard_list *worst = NULL;
    for (unsigned i = 0; i < v->rules->c.dnslist_count; i++) {
        const struct guard_list *l = &v->rules->lists[i];
        if (v->listed[i] && l->score > 0 && (!worst || l->score > worst->score))
            worst = l;
    }
    return worst;
}

static bool is_refused(const struct visit *v) {
    int32_t doubt;
    sum(v, &doubt);
    return v->want_lists && v->rules->c.refuse_score > 0 && doubt >= v->rules->c.refuse_score;
}

/* Printable, and without what could be taken for the end of our own words. */
static void on_text(struct visit *v, const struct dns_answer *a) {
    if (a->status != DNS_OK)
        return;
    dns_record_text(&a->records[0], v->txt, sizeof v->txt);
    for (char *c = v->txt; *c; c++) {
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    }
}

/* -- names -- */

static void on_names(struct visit *v, const struct dns_answer *a) {
    if (a->status != DNS_OK)
        return;
    for (size_t i = 0; i < a->count && v->name_count < NAMES_MAX; i++) {
        if (a->records[i].name[0])
            memcpy(v->names[v->name_count++], a->records[i].name, DNS_NAME_MAX + 1);
    }
    /* a is not read any more: the records belong to the next answer as soon as a question is asked. */
    for (unsigned i = 0; i < v->name_count; i++)
        ask(v, ASK_FORWARD + i, v->names[i], tcp_addr_is_v6(&v->client) ? DNS_AAAA : DNS_A);
}

static void on_forward(struct visit *v, unsigned i, const struct dns_answer *a) {
    struct tcp_addr own = {.len = 0};
    bool v6 = tcp_addr_is_v6(&v->client);
    for (size_t r = 0; a->status == DNS_OK && r < a->count; r++) {
        if (v6) {
            struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&own.storage;
            sin6->sin6_family = AF_INET6;
            memcpy(&sin6->sin6_addr, a->records[r].addr, 16);
        } else {
            own = address_of(a->records[r].addr);
        }
        v->confirmed[i] |= tcp_addr_same_ip(&own, &v->client);
    }
}

/* -- the end -- */

static void set_names(struct visit *v) {
    if (v->name_count == 0)
        return;
    span_copy(span_of(v->names[0]), v->gc->reverse, sizeof v->gc->reverse);
    for (unsigned i = 0; i < v->name_count; i++) {
        if (v->confirmed[i]) {
            span_copy(span_of(v->names[i]), v->gc->name, sizeof v->gc->name);
            return;
        }
    }
}

static void set_scores(struct visit *v) {
    const struct guard_config *c = &v->rules->c;
    int32_t doubt;
    v->gc->score = sum(v, &doubt);
    v->gc->good = c->good_score < 0 && v->gc->score <= c->good_score;
    v->gc->slow = c->slow_score > 0 && doubt >= c->slow_score;
    v->gc->only_logged = c->dnslist_mode == GUARD_LOG;
}

/* What reply and by point at. */
struct words {
    char text[TEXT_MAX * 3], by[DNS_NAME_MAX + 16];
};

static void set_verdict(struct visit *v, struct check_verdict *verdict, struct words *w) {
    const struct guard_list *worst = worst_list(v);
    *verdict = (struct check_verdict){.action = CHECK_PASS};
    set_names(v);
    if (!v->want_lists)
        return;
    set_scores(v);
    if (!worst || !is_refused(v))
        return;
    enum guard_mode mode = v->rules->c.dnslist_mode;
    snprintf(w->by, sizeof w->by, "dnslist %s", worst->zone);
    snprintf(w->text, sizeof w->text, "Client host [%s] is listed by %s%s%s", v->gc->ip, worst->zone,
             v->txt[0] ? ": " : "", v->txt);
    guard_tally(GUARD_BY_DNSLIST, mode == GUARD_ENFORCE);
    LOG_INFO("client_refused", LOG_STR("client", v->gc->ip), LOG_STR("name", v->gc->name), LOG_STR("why", w->text),
             LOG_STR("by", w->by), LOG_I64("score", v->gc->score), LOG_STR("action", guard_action(mode)));
    if (mode != GUARD_ENFORCE)
        return;
    verdict->action = CHECK_REFUSE;
    verdict->reply = (struct server_reply){554, SPAN("5.7.1"), span_of(w->text)};
    verdict->by = span_of(w->by);
}

static void finish(struct visit *v) {
    struct check_verdict verdict;
    struct words words;
    v->over = true;
    loop_timer_close(v->timer);
    set_verdict(v, &verdict, &words);
    v->cb(v->arg, &verdict);
    if (v->pending == 0)
        visit_free(v);
}

/* All answers are there. */
static void advance(struct visit *v) {
    char name[DNS_NAME_MAX + 1];
    const struct guard_list *worst = worst_list(v);
    if (!v->txt_asked && worst && is_refused(v) && dns_reverse_name(&v->client, worst->zone, name) == ERR_OK) {
        v->txt_asked = true;
        v->busy = true;
        ask(v, ASK_TXT, name, DNS_TXT);
        v->busy = false;
        if (v->pending)
            return;
    }
    finish(v);
}

static void read_answer(struct visit *v, unsigned what, const struct dns_answer *a) {
    if (what < ASK_PTR)
        on_list(v, what, a);
    else if (what == ASK_PTR)
        on_names(v, a);
    else if (what == ASK_TXT)
        on_text(v, a);
    else
        on_forward(v, what - ASK_FORWARD, a);
}

static void on_answer(void *arg, const struct dns_answer *a) {
    struct ask *asked = arg;
    struct visit *v = asked->visit;
    bool outermost = !v->busy;
    if (!v->over) {
        v->busy = true;
        read_answer(v, asked->what, a);
        v->busy = !outermost;
    }
    v->pending--;
    if (v->pending || !outermost)
        return;
    if (v->over)
        visit_free(v);
    else
        advance(v);
}

/* The deadline. */
static void on_late(void *arg) {
    struct visit *v = arg;
    for (unsigned i = 0; v->want_lists && i < v->rules->c.dnslist_count; i++) {
        if (v->unknown[i] && v->rules->lists[i].first == i)
            tell_error(v, &v->rules->lists[i], "no answer in time");
    }
    finish(v);
}

static void on_cancel(struct check_wait *w) {
    struct visit *v = (struct visit *)w;
    CHECK(!v->over && v->pending);
    v->over = true;
    loop_timer_close(v->timer);
}

/* -- the beginning -- */

static void ask_all(struct visit *v, bool names) {
    char name[DNS_NAME_MAX + 1];
    v->busy = true;
    if (v->want_lists)
        ask_lists(v);
    if (names && dns_reverse_name(&v->client, NULL, name) == ERR_OK)
        ask(v, ASK_PTR, name, DNS_PTR);
    v->busy = false;
}

static struct visit *visit_new(struct guard *g, struct loop *l) {
    struct visit *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    v->timer = loop_timer_new(l, on_late, v);
    if (!v->timer) {
        free(v);
        return NULL;
    }
    v->loop = l;
    v->rules = guard_rules_take(g);
    v->wait.cancel = on_cancel;
    return v;
}

int guard_connect(struct guard *g, struct dns *dns, struct loop *l, const struct check_facts *f,
                  struct guard_client *gc, struct check_verdict *verdict, struct check_wait **wait, check_cb cb,
                  void *arg) {
    unsigned on = atomic_load_explicit(&g->on, memory_order_relaxed);
    *gc = (struct guard_client){.score = 0};
    *verdict = (struct check_verdict){.action = CHECK_PASS};
    span_copy(f->client_ip, gc->ip, sizeof gc->ip);
    if (f->trusted)
        on &= ~(unsigned)GUARD_ON_LISTS;
    if (!(on & (GUARD_ON_LISTS | GUARD_ON_NAMES)))
        return ERR_OK;
    struct visit *v = visit_new(g, l);
    if (!v)
        return ERR_OK;
    v->dns = dns;
    v->client = *f->client;
    v->gc = gc;
    v->cb = cb;
    v->arg = arg;
    v->want_lists = on & GUARD_ON_LISTS;
    ask_all(v, on & GUARD_ON_NAMES);
    if (v->pending == 0) { /* nothing could be asked: nothing is known against the client */
        loop_timer_close(v->timer);
        visit_free(v);
        return ERR_OK;
    }
    loop_timer_set(v->timer, v->rules->c.dns_ms);
    *wait = &v->wait;
    return ERR_AGAIN;
}
