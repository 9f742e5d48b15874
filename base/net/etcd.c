/*
 * etcd: see etcd.h. This file holds the client: its settings, its endpoints, and the look at them.
 *
 * While something is watched, the current endpoint is asked a small question when it was silent for a while: a member
 * that is frozen, cut off or without a majority would otherwise keep a silent watch for ever. The question is
 * linearizable, so a member that cannot reach the others fails it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#include "base/net/etcd_in.h"
#include "base/net/secret.h"

enum { ATTEMPTS = 3, TIMEOUT_MIN_MS = 100, TIMEOUT_MAX_MS = 600000, USER_MAX = 1024, PROBE_KEY_LEN = 1 };

/* -- endpoints -- */

void etcd_set_url(const struct etcd *e, size_t endpoint, const char *path, char *to, size_t size) {
    snprintf(to, size, "%s%s", e->endpoints[endpoint], path);
}

/* Without a leader a member says so at once, instead of after seven seconds. */
void etcd_set_headers(const struct etcd *e, bool with_token, const char **lines) {
    size_t n = 0;
    lines[n++] = "Content-Type: application/json";
    lines[n++] = "Grpc-Metadata-hasleader: true";
    if (with_token && e->authorization[0])
        lines[n++] = e->authorization;
    lines[n] = NULL;
}

void etcd_endpoint_failed(struct etcd *e, size_t endpoint, const char *why) {
    if (!e->failing[endpoint])
        LOG_WARN("etcd_failed", LOG_STR("endpoint", e->endpoints[endpoint]), LOG_STR("why", why));
    e->failing[endpoint] = true;
    if (endpoint == e->current) {
        snprintf(e->trouble, sizeof e->trouble, "%s: %s", e->endpoints[endpoint], why);
        e->up = false;
        e->current = (e->current + 1) % e->endpoints_count;
    }
    etcd_watches_move(e, endpoint);
}

void etcd_endpoint_heard(struct etcd *e, size_t endpoint) {
    if (e->failing[endpoint])
        LOG_INFO("etcd_answers", LOG_STR("endpoint", e->endpoints[endpoint]));
    e->failing[endpoint] = false;
    if (endpoint != e->current)
        return;
    e->up = true;
    e->heard_ms = loop_now_ms(e->loop);
    e->trouble[0] = 0;
}

bool etcd_is_our_cluster(struct etcd *e, uint64_t cluster) {
    if (!e->cluster)
        e->cluster = cluster;
    return !cluster || cluster == e->cluster;
}

void etcd_revision_heard(struct etcd *e, uint64_t revision, uint64_t floor) {
    if (revision < floor) {
        LOG_ERROR("etcd_went_back", LOG_U64("revision", revision), LOG_U64("before", e->revision_seen));
        e->revision_seen = revision;
        etcd_watches_go_back(e, revision);
    } else if (revision > e->revision_seen) {
        e->revision_seen = revision;
    }
}

bool etcd_is_up(const struct etcd *e) {
    return e->up;
}

const char *etcd_endpoint(const struct etcd *e) {
    return e->endpoints[e->current];
}

const char *etcd_trouble(const struct etcd *e) {
    return e->trouble;
}

/* -- the look -- */

static void on_probe(void *arg, const struct etcd_ask_result *r) {
    struct etcd *e = arg;
    (void)r; /* the ask told the endpoints apart */
    e->probe = NULL;
}

/* Whether the user may read that key does not matter: a refusal is an answer. */
static void probe(struct etcd *e) {
    static const struct etcd_ask_config config = {.path = "/v3/kv/range", .kind = ETCD_KIND_RANGE, .vital = true};
    const struct etcd_range range = {.key = span_make("\0", PROBE_KEY_LEN), .limit = 1, .count_only = true};
    struct buf body;
    buf_init(&body, 256);
    if (etcd_words_range(&range, &body) == ERR_OK)
        e->probe = etcd_ask_new(e, &config, &body, on_probe, e);
    else
        buf_deinit(&body);
}

static void on_probe_timer(void *arg) {
    struct etcd *e = arg;
    if (list_is_empty(&e->watches))
        return;
    if (!e->probe && loop_now_ms(e->loop) - e->heard_ms >= e->probe_ms)
        probe(e);
    loop_timer_set(e->probe_timer, e->probe_ms / 2);
}

void etcd_probe_begin(struct etcd *e) {
    if (e->watches.count == 1)
        loop_timer_set(e->probe_timer, e->probe_ms / 2);
}

/* -- opening and closing -- */

static void problem(struct buf *to, const char *what, const char *which) {
    if (!to)
        return;
    buf_printf(to, "etcd: %s", what);
    if (which) {
        buf_add_str(to, ": ");
        buf_add_escaped(to, span_first(span_of(which), ETCD_URL_MAX));
    }
    buf_add_byte(to, '\n');
}

static bool is_endpoint(const char *url) {
    struct span rest = span_of(url);
    if (!http_is_url(url) || rest.len >= ETCD_URL_MAX || strpbrk(url, "@?# \\"))
        return false;
    rest = span_from(rest, span_starts_nocase(rest, SPAN("https://")) ? 8 : 7);
    ptrdiff_t slash = span_find(rest, '/');
    return slash < 0 || (size_t)slash + 1 == rest.len;
}

static bool is_time(uint64_t ms) {
    return !ms || (ms >= TIMEOUT_MIN_MS && ms <= TIMEOUT_MAX_MS);
}

static int judge(const struct etcd_config *c, struct buf *problems) {
    bool good = true, tls = false, plain = false;
    for (size_t i = 0; i < c->endpoints_count && i < ETCD_ENDPOINTS_MAX; i++) {
        bool fits = is_endpoint(c->endpoints[i]);
        if (!fits)
            problem(problems, "no endpoint of the kind https://host:2379", c->endpoints[i]);
        good &= fits;
        tls |= fits && span_starts_nocase(span_of(c->endpoints[i]), SPAN("https://"));
        plain |= fits && !span_starts_nocase(span_of(c->endpoints[i]), SPAN("https://"));
    }
    const struct {
        bool wrong;
        const char *what;
    } rules[] = {
        {!c->endpoints_count, "needs an endpoint"},
        {c->endpoints_count > ETCD_ENDPOINTS_MAX, "too many endpoints"},
        {tls && plain, "some endpoints are https, some are not"},
        {!c->certificate != !c->key, "certificate and key belong together"},
        {plain && (c->ca_file || c->certificate), "certificates need endpoints of https"},
        {!c->user != !c->password, "user and password belong together"},
        {c->user && c->password && (!*c->user || strlen(c->user) > USER_MAX || strlen(c->password) > USER_MAX),
         "user or password is empty or too long"},
        {!is_time(c->timeout_ms) || !is_time(c->probe_ms), "a time is out of bounds"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].wrong)
            problem(problems, rules[i].what, NULL);
        good &= !rules[i].wrong;
    }
    return good ? ERR_OK : ERR_INVALID;
}

static bool copy_settings(struct etcd *e, const struct etcd_config *c) {
    e->endpoints = calloc(c->endpoints_count, sizeof *e->endpoints);
    e->user = c->user ? strdup(c->user) : NULL;
    e->password = c->password ? strdup(c->password) : NULL;
    if (!e->endpoints || (c->user && (!e->user || !e->password)))
        return false;
    for (size_t i = 0; i < c->endpoints_count; i++) {
        struct span url = span_of(c->endpoints[i]);
        if (url.at[url.len - 1] == '/')
            url.len--;
        span_copy(url, e->endpoints[i], ETCD_URL_MAX);
    }
    size_t attempts = c->endpoints_count < ATTEMPTS ? c->endpoints_count : ATTEMPTS;
    e->endpoints_count = c->endpoints_count;
    e->current = c->first % c->endpoints_count;
    e->timeout_ms = c->timeout_ms ? c->timeout_ms : ETCD_TIMEOUT_MS;
    e->attempt_ms = e->timeout_ms / attempts;
    e->probe_ms = c->probe_ms ? c->probe_ms : ETCD_PROBE_MS;
    return true;
}

int etcd_open(struct etcd **out, struct loop *l, const struct etcd_config *c, struct buf *problems) {
    *out = NULL;
    int err = judge(c, problems);
    if (err)
        return err;
    struct etcd *e = calloc(1, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    e->loop = l;
    list_init(&e->asks);
    list_init(&e->calls_open);
    list_init(&e->leases);
    list_init(&e->watches);
    struct http_config calls = {c->ca_file, c->certificate, c->key, ETCD_UNDER_WAY_MAX}, vital = calls;
    vital.connections_max = ETCD_LEASES_MAX + ETCD_WATCHES_MAX + ETCD_UNDER_WAY_MAX;
    e->probe_timer = loop_timer_new(l, on_probe_timer, e);
    e->login_timer = loop_timer_new(l, etcd_on_login_timer, e);
    if (!copy_settings(e, c) || !e->probe_timer || !e->login_timer || http_new(&e->calls, l, &calls) ||
        http_new(&e->vital, l, &vital)) {
        etcd_close(e);
        return ERR_NOMEM;
    }
    *out = e;
    return ERR_OK;
}

void etcd_close(struct etcd *e) {
    if (!e)
        return;
    etcd_calls_drop(e);
    etcd_leases_drop(e);
    etcd_watches_drop(e);
    etcd_asks_drop(e); /* logins, looks, revocations */
    http_free(e->calls);
    http_free(e->vital);
    if (e->probe_timer)
        loop_timer_close(e->probe_timer);
    if (e->login_timer)
        loop_timer_close(e->login_timer);
    if (e->password)
        secret_wipe(e->password, strlen(e->password));
    secret_wipe(e->authorization, sizeof e->authorization);
    free(e->user);
    free(e->password);
    free(e->endpoints);
    free(e);
}
