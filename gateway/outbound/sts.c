/*
 * sts: see sts.h. A map of entries; the idle ones in a list by last use, the busy ones apart, so that a look-up under
 * way is never thrown out. Answers are handed out from one queue, as in mxcache, so that a waiter may ask, cancel or
 * be cancelled while another is told.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/outbound/sts_in.h"

enum { SWEEP_MS = 60000, REFRESHES_MAX = 20, NAME_MAX_LEN = 245 /* "mta-sts." still fits before it */ };

METRIC_COUNTER(metric_late, "posthouse_sts_waits_over_total", "Mail that went on before a first MTA-STS policy came")

uint64_t sts_now(const struct sts *s) {
    return s->wall_ms + (loop_now_ms(s->loop) - s->mono_ms);
}

static void set_clock(struct sts *s, uint64_t wall_ms) {
    s->wall_ms = wall_ms;
    s->mono_ms = loop_now_ms(s->loop);
}

/* -- entries -- */

static bool match_name(const struct map_node *n, const void *key) {
    const struct span *domain = key;
    return span_eq_nocase(span_of(CONTAINER_OF(n, struct sts_entry, in_map)->name), *domain);
}

static struct sts_entry *find_span(const struct sts *s, struct span domain) {
    struct map_node *n = map_find(&s->entries, hash_span_nocase(domain, 0), match_name, &domain);
    return n ? CONTAINER_OF(n, struct sts_entry, in_map) : NULL;
}

struct sts_entry *sts_entry_find(const struct sts *s, const char *domain) {
    return find_span(s, span_of(domain));
}

struct sts_entry *sts_entry_add(struct sts *s, struct span domain) {
    struct sts_entry *e = calloc(1, sizeof *e + domain.len + 1);
    if (!e)
        return NULL;
    e->s = s;
    e->why = "";
    list_init(&e->waiters);
    for (size_t i = 0; i < domain.len; i++)
        e->name[i] = (char)(domain.at[i] >= 'A' && domain.at[i] <= 'Z' ? domain.at[i] + 32 : domain.at[i]);
    if (map_insert(&s->entries, &e->in_map, hash_span_nocase(domain, 0)) != ERR_OK) {
        free(e);
        return NULL;
    }
    list_push_back(&s->used, &e->link);
    return e;
}

void sts_entry_set_policy(struct sts_entry *e, struct sts_policy *p) {
    struct sts *s = e->s;
    bool kept = (e->policy && e->policy->mode != STS_NONE) || (p && p->mode != STS_NONE);
    s->bytes -= e->policy ? e->policy->bytes : 0;
    s->bytes += p ? p->bytes : 0;
    s->changed |= kept; /* those of mode none are not in the file */
    sts_policy_unref(e->policy);
    e->policy = p;
}

static void entry_free(struct sts_entry *e) {
    struct sts *s = e->s;
    struct list_node *n;
    while ((n = list_first(&e->waiters)))
        sts_cancel(LIST_ENTRY(n, struct sts_wait, node));
    if (e->request)
        http_cancel(e->request);
    if (e->timer)
        loop_timer_close(e->timer);
    if (e->state == STS_LINE)
        list_remove(&s->line, &e->in_line);
    list_remove(e->state == STS_IDLE ? &s->used : &s->busy, &e->link);
    map_remove(&s->entries, &e->in_map);
    sts_entry_set_policy(e, NULL);
    free(e);
}

/* For so many more entries. */
static void make_room(struct sts *s, size_t more) {
    struct list_node *n;
    while ((s->entries.count + more > s->entries_max || s->bytes > STS_BYTES) && (n = list_first(&s->used)))
        entry_free(LIST_ENTRY(n, struct sts_entry, link));
}

void sts_move(struct sts_entry *e, enum sts_state state) {
    struct sts *s = e->s;
    bool was_idle = e->state == STS_IDLE, is_idle = state == STS_IDLE;
    if (e->state == STS_LINE)
        list_remove(&s->line, &e->in_line);
    if (state == STS_LINE)
        list_push_back(&s->line, &e->in_line);
    s->fetches -= e->state == STS_FETCH;
    s->fetches += state == STS_FETCH;
    e->state = state;
    if (was_idle == is_idle)
        return;
    list_remove(was_idle ? &s->used : &s->busy, &e->link);
    list_push_back(is_idle ? &s->used : &s->busy, &e->link);
}

/* -- answers -- */

/* What a caller may be told of: in force, and asking for something. */
static struct sts_policy *in_force(const struct sts_entry *e, uint64_t wall_ms) {
    struct sts_policy *p = e->policy;
    return p && p->expires_ms > wall_ms && p->mode != STS_NONE ? p : NULL;
}

static void tell(struct sts *s) {
    struct list_node *n;
    while ((n = list_pop_front(&s->told))) {
        struct sts_wait *w = LIST_ENTRY(n, struct sts_wait, node);
        struct sts_policy *p = w->policy;
        w->in = NULL;
        w->policy = NULL;
        w->cb(w->arg, p, w->why);
        sts_policy_unref(p);
    }
}

static void tell_later(struct sts_entry *e, struct sts_policy *p, const char *why) {
    struct sts *s = e->s;
    struct list_node *n;
    while ((n = list_pop_front(&e->waiters))) {
        struct sts_wait *w = LIST_ENTRY(n, struct sts_wait, node);
        w->policy = sts_policy_ref(p);
        w->why = p ? "" : why;
        w->in = &s->told;
        list_push_back(&s->told, n);
    }
}

/* A fetch that fails at once settles, too: one turn of this loop at a time. */
static void serve_line(struct sts *s) {
    if (s->serving)
        return;
    s->serving = true;
    while (s->fetches < STS_FETCHES_MAX && !list_is_empty(&s->line))
        sts_begin_fetch(LIST_ENTRY(list_first(&s->line), struct sts_entry, in_line));
    s->serving = false;
}

void sts_settle(struct sts_entry *e) {
    struct sts *s = e->s;
    sts_move(e, STS_IDLE);
    e->overdue = e->anew = false;
    if (e->timer)
        loop_timer_stop(e->timer);
    tell_later(e, in_force(e, sts_now(s)), e->why);
    make_room(s, 0);
    serve_line(s);
    tell(s);
}

/* Mail goes on; the fetch does, too. */
static void on_overdue(void *arg) {
    struct sts_entry *e = arg;
    metric_add(&metric_late, e->waiters.count);
    e->overdue = true;
    tell_later(e, NULL, "the MTA-STS policy did not come in time");
    tell(e->s);
}

static bool start_clock(struct sts_entry *e) {
    bool first = list_is_empty(&e->waiters);
    if (!e->timer)
        e->timer = loop_timer_new(e->s->loop, on_overdue, e);
    if (e->timer && first)
        loop_timer_set(e->timer, e->s->wait_ms);
    return e->timer;
}

/* -- asking -- */

/* Names that can stand in a URL and in the DNS. */
static bool is_domain(struct span d) {
    for (size_t i = 0; i < d.len; i++) {
        char c = d.at[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
            c != '.')
            return false;
    }
    return d.len >= 1 && d.len <= NAME_MAX_LEN && d.at[0] != '.' && d.at[d.len - 1] != '.';
}

/* Begins what is due. The entry stays: it was used just now. */
static void look_after(struct sts_entry *e, uint64_t wall_ms) {
    bool known = e->policy && e->policy->expires_ms > wall_ms;
    if (e->state != STS_IDLE)
        return;
    if (e->record_until_ms <= wall_ms)
        sts_begin_txt(e);
    else if (!known && e->id[0] && e->fetch_from_ms <= wall_ms)
        sts_begin_fetch(e);
}

void sts_ask(struct sts *s, struct sts_wait *w, const char *domain, uint64_t wall_ms, sts_cb cb, void *arg) {
    struct span d = span_of(domain);
    set_clock(s, wall_ms);
    struct sts_entry *e = is_domain(d) ? find_span(s, d) : NULL;
    if (!e && is_domain(d) && s->busy.count < s->entries_max) {
        make_room(s, 1);
        e = sts_entry_add(s, d);
    }
    CHECK(!w->in);
    if (!e) {
        cb(arg, NULL, is_domain(d) ? "no room to look for an MTA-STS policy" : "");
        return;
    }
    if (e->state == STS_IDLE) { /* the newest use */
        list_remove(&s->used, &e->link);
        list_push_back(&s->used, &e->link);
    }
    e->used_ms = wall_ms;
    w->cb = cb;
    w->arg = arg;
    look_after(e, wall_ms);
    e = find_span(s, d); /* one that is over all limits by itself is gone again */
    struct sts_policy *p = e ? sts_policy_ref(in_force(e, wall_ms)) : NULL;
    if (!p && e && e->state != STS_IDLE && !e->overdue && start_clock(e)) {
        w->in = &e->waiters;
        list_push_back(&e->waiters, &w->node);
        return;
    }
    cb(arg, p, p || !e ? "" : e->overdue ? "the MTA-STS policy did not come in time" : e->why);
    sts_policy_unref(p);
}

void sts_cancel(struct sts_wait *w) {
    if (!w->in)
        return;
    list_remove(w->in, &w->node);
    w->in = NULL;
    sts_policy_unref(w->policy);
    w->policy = NULL;
}

struct sts_policy *sts_peek(struct sts *s, const char *domain, uint64_t wall_ms) {
    struct sts_entry *e = sts_entry_find(s, domain);
    return e ? in_force(e, wall_ms) : NULL;
}

size_t sts_count(const struct sts *s) {
    return s->entries.count;
}

void sts_set_dns(struct sts *s, void *dns) {
    s->dns = dns;
}

/* -- time -- */

static bool is_refresh_due(const struct sts_entry *e, uint64_t wall_ms) {
    const struct sts_policy *p = e->policy;
    if (!p || p->expires_ms <= wall_ms || e->fetch_from_ms > wall_ms || e->used_ms + STS_IN_USE_MS <= wall_ms)
        return false;
    uint64_t half = p->max_age_s * (uint64_t)500;
    return p->fetched_ms + (half < STS_REFRESH_MS ? half : STS_REFRESH_MS) <= wall_ms;
}

static void sweep(struct sts *s, uint64_t wall_ms) {
    unsigned refreshed = 0;
    size_t left = s->used.count; /* those that end their look-up at once come in at the back */
    while (left-- && !list_is_empty(&s->used)) {
        struct sts_entry *e = LIST_ENTRY(list_first(&s->used), struct sts_entry, link);
        list_remove(&s->used, &e->link);
        list_push_back(&s->used, &e->link);
        if (e->policy && e->policy->expires_ms <= wall_ms)
            sts_entry_set_policy(e, NULL);
        if (!e->policy && e->record_until_ms <= wall_ms && e->fetch_from_ms <= wall_ms) {
            entry_free(e);
        } else if (refreshed < REFRESHES_MAX && is_refresh_due(e, wall_ms)) {
            refreshed++;
            e->anew = true;
            sts_begin_txt(e);
        }
    }
}

void sts_tick(struct sts *s, uint64_t wall_ms) {
    set_clock(s, wall_ms);
    if (wall_ms - s->swept_ms >= SWEEP_MS) { /* also when the clock went back */
        s->swept_ms = wall_ms;
        sweep(s, wall_ms);
    }
    if (s->changed && wall_ms - s->saved_ms >= SWEEP_MS) {
        s->saved_ms = wall_ms;
        sts_file_save(s);
    }
}

/* -- life -- */

int sts_new(struct sts **out, struct loop *l, struct http *http, const struct sts_config *c, uint64_t wall_ms) {
    struct sts *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return ERR_NOMEM;
    *s = (struct sts){.loop = l,
                      .http = http,
                      .query = c->query,
                      .dns = c->dns,
                      .failed = c->failed,
                      .failed_arg = c->failed_arg,
                      .wait_ms = c->fetch_timeout_ms ? c->fetch_timeout_ms : STS_WAIT_MS,
                      .failure_ms = c->failure_ms ? c->failure_ms : STS_FAILURE_MS,
                      .entries_max = c->entries ? c->entries : STS_ENTRIES};
    map_init(&s->entries);
    list_init(&s->used);
    list_init(&s->busy);
    list_init(&s->line);
    list_init(&s->told);
    set_clock(s, wall_ms);
    s->swept_ms = s->saved_ms = wall_ms;
    s->connect_to = c->connect_to ? strdup(c->connect_to) : NULL;
    s->keep = c->file ? keep_new(l, c->file, "PHsts_01") : NULL;
    if ((c->connect_to && !s->connect_to) || (c->file && !s->keep)) {
        sts_free(s);
        return ERR_NOMEM;
    }
    if (s->keep)
        sts_file_read(s);
    make_room(s, 0);
    s->changed = false;
    *out = s;
    return ERR_OK;
}

void sts_free(struct sts *s) {
    struct list_node *n;
    if (!s)
        return;
    LIST_FOREACH(node, next, &s->busy)
    CHECK(LIST_ENTRY(node, struct sts_entry, link)->state != STS_TXT);
    if (s->keep && s->changed)
        sts_file_end(s);
    while ((n = list_first(&s->told)))
        sts_cancel(LIST_ENTRY(n, struct sts_wait, node));
    while ((n = list_first(&s->used)) || (n = list_first(&s->busy)))
        entry_free(LIST_ENTRY(n, struct sts_entry, link));
    map_deinit(&s->entries);
    keep_free(s->keep);
    free(s->connect_to);
    free(s);
}
