/*
 * tlsrpt: see tlsrpt.h. The day under way is a map of domains; each holds its policies, each policy its kinds of
 * failure. When the day ends the domains leave the map and wait in a heap for the time at which their report goes.
 *
 * Every octet is counted: over the bound a session of a new domain, policy or failure is not lost from the numbers
 * of what is there already, only from the details; what cannot be counted at all shows in a metric.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/outbound/tlsrpt_in.h"

enum { SAVE_MS = 5 * 60000, RETRY_FIRST_MS = 10 * 60000, TEXT_MAX = 255, LINES_MAX = 1000, LINES_BYTES_MAX = 65536 };

METRIC_COUNTER(metric_uncounted, "posthouse_tlsrpt_uncounted_total", "TLS sessions that found no room in the reports")
METRIC_COUNTER(metric_dropped, "posthouse_tlsrpt_reports_dropped_total", "TLS reports that were given up")

uint64_t tlsrpt_now(const struct tlsrpt *t) {
    return t->wall_ms + (loop_now_ms(t->loop) - t->mono_ms);
}

static void set_clock(struct tlsrpt *t, uint64_t wall_ms) {
    t->wall_ms = wall_ms;
    t->mono_ms = loop_now_ms(t->loop);
}

const char *tlsrpt_result_name(enum tlsrpt_result r) {
    static const char *const names[TLSRPT_RESULTS] = {"success",
                                                      "starttls-not-supported",
                                                      "certificate-host-mismatch",
                                                      "certificate-expired",
                                                      "certificate-not-trusted",
                                                      "validation-failure",
                                                      "tlsa-invalid",
                                                      "dnssec-invalid",
                                                      "dane-required",
                                                      "sts-policy-fetch-error",
                                                      "sts-policy-invalid",
                                                      "sts-webpki-invalid"};
    CHECK(r < TLSRPT_RESULTS);
    return names[r];
}

/* -- memory -- */

/* Zeroed; counted for the domain. NULL: over the bound, or no memory. */
static void *allocate(struct tlsrpt *t, struct tlsrpt_domain *d, size_t bytes) {
    void *at = t->bytes + bytes <= TLSRPT_BYTES ? calloc(1, bytes) : NULL;
    if (!at)
        return NULL;
    t->bytes += bytes;
    if (d)
        d->bytes += bytes;
    return at;
}

static bool match_name(const struct map_node *n, const void *key) {
    const struct span *name = key;
    return span_eq_nocase(span_of(CONTAINER_OF(n, struct tlsrpt_domain, in_map)->name), *name);
}

static struct tlsrpt_domain *find(const struct tlsrpt *t, struct span name) {
    struct map_node *n = map_find(&t->domains, hash_span_nocase(name, 0), match_name, &name);
    return n ? CONTAINER_OF(n, struct tlsrpt_domain, in_map) : NULL;
}

struct tlsrpt_domain *tlsrpt_domain_add(struct tlsrpt *t, struct span name, uint64_t start_ms, bool is_today) {
    size_t bytes = sizeof(struct tlsrpt_domain) + name.len + 1;
    struct tlsrpt_domain *d = t->domains.count < TLSRPT_DOMAINS ? allocate(t, NULL, bytes) : NULL;
    if (!d)
        return NULL;
    d->bytes = bytes;
    d->start_ms = start_ms;
    d->last_rules = &d->rules;
    for (size_t i = 0; i < name.len; i++)
        d->name[i] = (char)(name.at[i] >= 'A' && name.at[i] <= 'Z' ? name.at[i] + 32 : name.at[i]);
    if (is_today && map_insert(&t->domains, &d->in_map, hash_span_nocase(name, 0)) != ERR_OK) {
        tlsrpt_domain_free(t, d);
        return NULL;
    }
    if (is_today)
        list_push_back(&t->today, &d->link);
    return d;
}

void tlsrpt_domain_free(struct tlsrpt *t, struct tlsrpt_domain *d) {
    t->bytes -= d->bytes;
    while (d->rules) {
        struct tlsrpt_rules *r = d->rules;
        d->rules = r->next;
        while (r->rows) {
            struct tlsrpt_row *row = r->rows;
            r->rows = row->next;
            free(row);
        }
        free(r);
    }
    free(d);
}

/* -- counting -- */

static bool same_lines(const struct tlsrpt_rules *r, const char *const *lines, size_t line_count) {
    for (size_t i = 0; i < line_count && line_count == r->line_count; i++)
        if (strcmp(r->lines[i], lines[i]) != 0)
            return false;
    return line_count == r->line_count;
}

static struct tlsrpt_rules *rules_new(struct tlsrpt *t, struct tlsrpt_domain *d, enum tlsrpt_policy policy,
                                      const char *const *lines, size_t line_count) {
    size_t octets = 0;
    for (size_t i = 0; i < line_count; i++)
        octets += strlen(lines[i]) + 1;
    struct tlsrpt_rules *r =
        octets <= LINES_BYTES_MAX ? allocate(t, d, sizeof *r + line_count * sizeof(char *) + octets) : NULL;
    if (!r)
        return NULL;
    const char **to = (const char **)(r + 1);
    char *text = (char *)(to + line_count);
    r->policy = policy;
    r->lines = to;
    r->line_count = line_count;
    r->last_row = &r->rows;
    for (size_t i = 0; i < line_count; i++) {
        size_t len = strlen(lines[i]) + 1;
        memcpy(text, lines[i], len);
        to[i] = text;
        text += len;
    }
    *d->last_rules = r;
    d->last_rules = &r->next;
    d->rules_count++;
    return r;
}

struct tlsrpt_rules *tlsrpt_rules_of(struct tlsrpt *t, struct tlsrpt_domain *d, enum tlsrpt_policy policy,
                                     const char *const *lines, size_t line_count) {
    if (policy == TLSRPT_NO_POLICY || line_count > LINES_MAX)
        line_count = 0;
    for (struct tlsrpt_rules *r = d->rules; r; r = r->next)
        if (r->policy == policy && same_lines(r, lines, line_count))
            return r;
    return d->rules_count < TLSRPT_POLICIES ? rules_new(t, d, policy, lines, line_count) : NULL;
}

static bool same(const char *ours, struct span text) {
    return span_eq(span_of(ours), span_first(text, TEXT_MAX));
}

static const char *put(char **at, struct span text) {
    char *to = *at;
    *at += span_copy(text, to, TEXT_MAX + 1) + 1;
    return to;
}

static struct tlsrpt_row *row_new(struct tlsrpt *t, struct tlsrpt_domain *d, enum tlsrpt_result result,
                                  const struct span texts[4]) {
    size_t octets = 0;
    for (int i = 0; i < 4; i++)
        octets += span_first(texts[i], TEXT_MAX).len + 1;
    struct tlsrpt_row *row = allocate(t, d, sizeof *row + octets);
    if (!row)
        return NULL;
    char *at = (char *)(row + 1);
    row->result = result;
    row->mx = put(&at, texts[0]);
    row->sending_ip = put(&at, texts[1]);
    row->receiving_ip = put(&at, texts[2]);
    row->reason = put(&at, texts[3]);
    return row;
}

static struct tlsrpt_row *row_of(struct tlsrpt *t, struct tlsrpt_domain *d, struct tlsrpt_rules *r,
                                 enum tlsrpt_result result, const struct span texts[4], unsigned rows_max) {
    for (struct tlsrpt_row *row = r->rows; row; row = row->next)
        if (row->result == result && same(row->mx, texts[0]) && same(row->sending_ip, texts[1]) &&
            same(row->receiving_ip, texts[2]) && same(row->reason, texts[3]))
            return row;
    struct tlsrpt_row *row = d->row_count < rows_max ? row_new(t, d, result, texts) : NULL;
    if (!row)
        return NULL;
    *r->last_row = row;
    r->last_row = &row->next;
    d->row_count++;
    return row;
}

void tlsrpt_add_failures(struct tlsrpt *t, struct tlsrpt_domain *d, struct tlsrpt_rules *r,
                         const struct tlsrpt_event *e, uint64_t count) {
    const struct span texts[4] = {span_of(e->mx), span_of(e->sending_ip), span_of(e->receiving_ip), span_of(e->reason)};
    static const struct span none[4];
    r->bad += count;
    struct tlsrpt_row *row = row_of(t, d, r, e->result, texts, TLSRPT_ROWS);
    if (!row) /* its kind, at least: one row for each policy and result */
        row = row_of(t, d, r, e->result, none, TLSRPT_ROWS + TLSRPT_POLICIES * TLSRPT_RESULTS);
    if (row)
        row->count += count;
}

static bool is_name(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (!(s.at[i] >= 'a' && s.at[i] <= 'z') && !(s.at[i] >= 'A' && s.at[i] <= 'Z') &&
            !(s.at[i] >= '0' && s.at[i] <= '9') && !strchr("-_.", s.at[i]))
            return false;
    return s.len >= 1 && s.len <= DNS_NAME_MAX - 11; /* "_smtp._tls." still fits before it */
}

static void end_day(struct tlsrpt *t, uint64_t wall_ms) {
    struct list_node *n;
    uint64_t day = wall_ms - wall_ms % TLSRPT_DAY_MS;
    if (t->day_ms == day || (t->day_ms > day && t->day_ms - day <= TLSRPT_DAY_MS))
        return; /* a clock that goes back a little counts for the day that has begun */
    while ((n = list_pop_front(&t->today))) {
        struct tlsrpt_domain *d = LIST_ENTRY(n, struct tlsrpt_domain, link);
        map_remove(&t->domains, &d->in_map);
        tlsrpt_domain_queue(t, d);
    }
    t->day_ms = day;
    t->changed = true;
}

void tlsrpt_count(struct tlsrpt *t, uint64_t wall_ms, const struct tlsrpt_event *e) {
    struct span name = span_of(e->domain);
    set_clock(t, wall_ms);
    end_day(t, wall_ms);
    if (!is_name(name)) /* an address literal: nobody publishes for it */
        return;
    struct tlsrpt_domain *d = find(t, name);
    if (!d)
        d = tlsrpt_domain_add(t, name, t->day_ms, true);
    struct tlsrpt_rules *r = d ? tlsrpt_rules_of(t, d, e->policy, e->lines, e->line_count) : NULL;
    if (!r) {
        metric_add(&metric_uncounted, 1);
        return;
    }
    t->changed = true;
    if (e->result == TLSRPT_SUCCESS)
        r->good++;
    else
        tlsrpt_add_failures(t, d, r, e, 1);
}

/* -- time -- */

static bool goes_first(const struct heap_node *a, const struct heap_node *b) {
    const struct tlsrpt_domain *x = CONTAINER_OF(a, struct tlsrpt_domain, in_out);
    const struct tlsrpt_domain *y = CONTAINER_OF(b, struct tlsrpt_domain, in_out);
    int names = strcmp(x->name, y->name);
    return x->next_ms != y->next_ms ? x->next_ms < y->next_ms : names ? names < 0 : x->start_ms < y->start_ms;
}

void tlsrpt_domain_queue(struct tlsrpt *t, struct tlsrpt_domain *d) {
    if (!d->next_ms) {
        d->next_ms = d->start_ms + TLSRPT_DAY_MS + t->c.offset_ms;
        d->next_ms += t->c.jitter_ms ? rand_below(&t->rand, t->c.jitter_ms) : 0;
        d->give_up_ms = d->next_ms + TLSRPT_RETRY_MS;
        d->retry_ms = t->c.retry_first_ms;
    }
    bool fits = t->out.count < 2 * TLSRPT_DOMAINS && d->next_ms < d->give_up_ms;
    if (fits && heap_push(&t->out, &d->in_out) == ERR_OK)
        return;
    metric_add(&metric_dropped, 1);
    LOG_WARN("tlsrpt_dropped", LOG_STR("domain", d->name));
    tlsrpt_domain_free(t, d);
}

void tlsrpt_tick(struct tlsrpt *t, uint64_t wall_ms) {
    set_clock(t, wall_ms);
    end_day(t, wall_ms);
    tlsrpt_send_due(t);
    if (t->changed && wall_ms - t->saved_ms >= SAVE_MS) { /* also when the clock went back */
        t->saved_ms = wall_ms;
        tlsrpt_file_save(t, false);
    }
}

size_t tlsrpt_domains(const struct tlsrpt *t) {
    return t->domains.count;
}

size_t tlsrpt_pending(const struct tlsrpt *t) {
    return t->out.count + t->busy.count;
}

void tlsrpt_set_dns(struct tlsrpt *t, void *dns) {
    t->c.dns = dns;
}

/* -- life -- */

static bool copy_text(const char **text) {
    *text = strdup(*text ? *text : "");
    return *text;
}

static bool copy_texts(struct tlsrpt_config *c) {
    const char **texts[] = {&c->organization, &c->contact, &c->hostname, &c->name, &c->from, &c->connect_to};
    bool good = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        good &= copy_text(texts[i]);
    return good;
}

int tlsrpt_new(struct tlsrpt **out, struct loop *l, struct http *http, const struct tlsrpt_config *c,
               uint64_t wall_ms) {
    struct tlsrpt *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ERR_NOMEM;
    *t = (struct tlsrpt){.loop = l, .http = http, .c = *c};
    map_init(&t->domains);
    list_init(&t->today);
    list_init(&t->busy);
    heap_init(&t->out, goes_first);
    rand_init(&t->rand, c->seed);
    set_clock(t, wall_ms);
    t->saved_ms = wall_ms;
    t->day_ms = wall_ms - wall_ms % TLSRPT_DAY_MS;
    t->c.retry_first_ms = c->retry_first_ms ? c->retry_first_ms : RETRY_FIRST_MS;
    t->keep = c->file ? keep_new(l, c->file, "PHtls_01") : NULL;
    if (!copy_texts(&t->c) || (c->file && !t->keep)) {
        tlsrpt_free(t);
        return ERR_NOMEM;
    }
    if (t->keep)
        tlsrpt_file_read(t);
    t->changed = false;
    *out = t;
    return ERR_OK;
}

void tlsrpt_free(struct tlsrpt *t) {
    struct list_node *n;
    struct heap_node *h;
    if (!t)
        return;
    LIST_FOREACH(node, next, &t->busy)
    tlsrpt_send_stop(t, LIST_ENTRY(node, struct tlsrpt_domain, link));
    if (t->keep && (t->changed || t->busy.count))
        tlsrpt_file_save(t, true);
    while ((n = list_pop_front(&t->today)) || (n = list_pop_front(&t->busy)))
        tlsrpt_domain_free(t, LIST_ENTRY(n, struct tlsrpt_domain, link));
    while ((h = heap_pop(&t->out)))
        tlsrpt_domain_free(t, CONTAINER_OF(h, struct tlsrpt_domain, in_out));
    heap_deinit(&t->out);
    map_deinit(&t->domains);
    keep_free(t->keep);
    const char *texts[] = {t->c.organization, t->c.contact, t->c.hostname, t->c.name, t->c.from, t->c.connect_to};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free((void *)(uintptr_t)texts[i]);
    free(t);
}
