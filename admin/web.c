/*
 * web: see web.h. A request becomes an exchange, finds its route, and is checked for who sends it: those who have
 * signed in by their cookie, others as guests. Guests of an open face (no users) may look at everything, but only under
 * a Host that no stranger's name can stand for: a page from elsewhere whose name was made to point at 127.0.0.1 is not
 * to read the mail queue.
 */
#include "admin/web.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include "admin/console.h"
#include "admin/web_in.h"

#define GUESS_ENTRIES 10000u
#define TYPE_JSON "application/json"
#define CONTENT_POLICY                                                                                                 \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "              \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

METRIC_COUNTER(metric_denied, "posthouse_http_denied_total", "Requests to the HTTP face that were not permitted")

/* -- answers -- */

void web_exchange_free(struct web_exchange *x) {
    if (x->ask)
        admin_ask_cancel(x->w->admin, x->ask);
    list_remove(&x->w->exchanges, &x->link);
    json_answer_free(x->json);
    free(x);
}

static void send_answer(struct web_exchange *x, unsigned status, const char *type, struct buf *body, struct span fixed,
                        const char *cookie) {
    const struct httpd_field fields[] = {
        {"Content-Type", type},
        {"Content-Security-Policy", CONTENT_POLICY},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cache-Control", body ? "no-store" : "no-cache"},
        {cookie ? "Set-Cookie" : NULL, cookie},
        {NULL, NULL},
    };
    httpd_answer(x->r, &(struct httpd_answer){.status = status, .fields = fields, .body = body, .fixed = fixed});
    web_exchange_free(x);
}

void web_answer(struct web_exchange *x, unsigned status, const char *type, struct buf *body, const char *cookie) {
    send_answer(x, status, type, body, SPAN_EMPTY, cookie);
}

void web_answer_fixed(struct web_exchange *x, const char *type, struct span body) {
    send_answer(x, 200, type, NULL, body, NULL);
}

void web_fail(struct web_exchange *x, unsigned status, const char *text) {
    struct buf b;
    buf_init(&b, 4096);
    buf_add_str(&b, "{\"error\":\"");
    buf_add_json(&b, span_of(text));
    buf_add_str(&b, "\"}\n");
    if (status == 401 || status == 403 || status == 421)
        metric_add(&metric_denied, 1);
    web_answer(x, status, TYPE_JSON, &b, NULL);
}

/* -- the pages that need nobody's name -- */

static void show_metrics(struct web_exchange *x, const char *path) {
    struct buf b;
    (void)path;
    buf_init(&b, HTTPD_ANSWER_MAX);
    if (metric_expose(&b) == ERR_OK) {
        web_answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", &b, NULL);
        return;
    }
    buf_deinit(&b);
    web_fail(x, 500, "no memory");
}

static void show_health(struct web_exchange *x, const char *path) {
    struct buf b;
    (void)path;
    buf_init(&b, 100);
    buf_add_str(&b, "{\"alive\":true}\n");
    web_answer(x, 200, TYPE_JSON, &b, NULL);
}

static void show_readiness(struct web_exchange *x, const char *path) {
    struct web_part parts[WEB_PARTS_MAX];
    size_t count = x->w->ready(x->w->ready_arg, parts);
    bool ready = true;
    struct buf b;
    (void)path;
    for (size_t i = 0; i < count; i++)
        ready = ready && parts[i].good;
    buf_init(&b, 4096);
    buf_printf(&b, "{\"ready\":%s,\"parts\":{", ready ? "true" : "false");
    for (size_t i = 0; i < count; i++)
        buf_printf(&b, "%s\"%s\":%s", i ? "," : "", parts[i].name, parts[i].good ? "true" : "false");
    buf_add_str(&b, "}}\n");
    web_answer(x, ready ? 200 : 503, TYPE_JSON, &b, NULL);
}

static void show_page(struct web_exchange *x, const char *path) {
    (void)path;
    web_answer_fixed(x, "text/html; charset=utf-8", span_make(console_index_html, console_index_html_len));
}

static void show_style(struct web_exchange *x, const char *path) {
    (void)path;
    web_answer_fixed(x, "text/css; charset=utf-8", span_make(console_console_css, console_console_css_len));
}

static void show_script(struct web_exchange *x, const char *path) {
    (void)path;
    web_answer_fixed(x, "text/javascript; charset=utf-8", span_make(console_console_js, console_console_js_len));
}

/* -- who is asking -- */

struct web_user *web_find_user(struct web *w, struct span name) {
    for (size_t i = 0; i < w->user_count; i++)
        if (span_eq(span_of(w->users[i].name), name))
            return &w->users[i];
    return NULL;
}

/* Behind a proxy of this machine the client is whom the proxy names, at the end of the list. */
static void set_client(struct web_exchange *x) {
    struct span header, last;
    char ip[128];
    x->client = *httpd_client(x->r);
    if (tcp_addr_is_loopback(&x->client) && httpd_header_last(x->r, "X-Forwarded-For", &header)) {
        ptrdiff_t comma = span_rfind(header, ',');
        last = span_trim(comma < 0 ? header : span_from(header, (size_t)comma + 1));
        struct tcp_addr named;
        if (last.len && !span_starts_nocase(last, SPAN("unix:")) && tcp_addr_parse(&named, last, 0) == ERR_OK)
            x->client = named;
    }
    tcp_addr_ip(&x->client, ip, sizeof ip);
    snprintf(x->origin, sizeof x->origin, "http %s", ip);
}

static void set_session(struct web_exchange *x) {
    struct span cookies, poll;
    bool keys = !httpd_header(x->r, "X-Poll", &poll); /* a page that refreshes itself is nobody at the keys */
    if (httpd_header(x->r, "Cookie", &cookies))
        x->session = web_session_find(&x->w->sessions, web_cookie(cookies, WEB_COOKIE), keys, clock_mono_ms());
    if (x->session) {
        x->role = x->session->role;
        x->actor = x->session->name;
    } else {
        x->role = x->w->user_count || !x->w->loopback ? 0 : ADMIN_ROLE_VIEWER;
        x->actor = "guest";
    }
}

/* An address or localhost, with or without a port. */
static bool is_plain_host(struct span host) {
    struct tcp_addr a;
    uint64_t port;
    ptrdiff_t colon = span_rfind(host, ':'), bracket = span_rfind(host, ']');
    if (colon >= 0 && colon > bracket) {
        if (!span_u64(span_from(host, (size_t)colon + 1), &port))
            return false;
        host = span_first(host, (size_t)colon);
    }
    return span_eq_nocase(host, SPAN("localhost")) ||
           (!span_starts_nocase(host, SPAN("unix:")) && tcp_addr_parse(&a, host, 0) == ERR_OK);
}

bool web_is_own_post(struct web_exchange *x) {
    struct span type, origin, host, rest;
    if (!httpd_header(x->r, "Content-Type", &type) ||
        !span_eq_nocase(span_trim(span_cut(type, ';', &rest)), SPAN(TYPE_JSON))) {
        web_fail(x, 415, "takes application/json");
        return false;
    }
    httpd_header(x->r, "Host", &host);
    if (!httpd_header(x->r, "Origin", &origin))
        return true;
    (void)span_cut(origin, '/', &rest);
    (void)span_cut(rest, '/', &rest);
    if (span_eq_nocase(rest, host))
        return true;
    web_fail(x, 403, "a page of another origin may not ask this");
    return false;
}

/* -- routes -- */

static void api_read(struct web_exchange *x, const char *path) {
    struct span host;
    if (!x->role)
        web_fail(x, 401, "sign in first");
    else if (!x->w->user_count && (!httpd_header(x->r, "Host", &host) || !is_plain_host(host)))
        web_fail(x, 421, "without admin.users only localhost or an address may be asked, not a name");
    else
        web_api_get(x, path);
}

static void api_change(struct web_exchange *x, const char *path) {
    struct span token;
    if (!web_is_own_post(x))
        return;
    if (!x->session)
        web_fail(x, 401, x->w->user_count ? "sign in first" : "changes need users (admin.users)");
    else if (!httpd_header(x->r, "X-CSRF-Token", &token) || !span_eq(token, span_of(x->session->csrf)))
        web_fail(x, 403, "the token of the session is missing or wrong");
    else if (strcmp(path, "session/end") == 0)
        web_sign_out(x);
    else
        web_api_post(x, path); /* the service asks for the role, and has refusals in the audit */
}

static void sign_in(struct web_exchange *x, const char *path) {
    (void)path;
    if (web_is_own_post(x))
        web_sign_in(x);
}

static void sign_show(struct web_exchange *x, const char *path) {
    (void)path;
    web_sign_show(x);
}

static const struct {
    const char *method, *path; /* one that ends in '/' stands for all below it */
    void (*handler)(struct web_exchange *x, const char *rest);
} routes[] = {
    {"GET", "/", show_page},
    {"GET", "/console.css", show_style},
    {"GET", "/console.js", show_script},
    {"GET", "/metrics", show_metrics},
    {"GET", "/healthz", show_health},
    {"GET", "/readyz", show_readiness},
    {"GET", "/api/v1/session", sign_show},
    {"POST", "/api/v1/session", sign_in},
    {"GET", "/api/v1/", api_read},
    {"POST", "/api/v1/", api_change},
};

static bool is_route(const char *route, const char *path) {
    size_t len = strlen(route);
    return strcmp(route, path) == 0 || (len > 1 && route[len - 1] == '/' && strncmp(route, path, len) == 0);
}

static void run_route(struct web_exchange *x) {
    const char *path = httpd_path(x->r), *method = httpd_method(x->r);
    bool known = false;
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!is_route(routes[i].path, path))
            continue;
        known = true;
        if (strcmp(routes[i].method, method) != 0)
            continue;
        routes[i].handler(x, path + strlen(routes[i].path));
        return;
    }
    if (known)
        web_fail(x, 405, "this is not done here");
    else
        web_fail(x, 404, "there is nothing here");
}

static void on_http(void *arg, struct httpd_request *r) {
    struct web *w = arg;
    struct web_exchange *x = calloc(1, sizeof *x);
    if (!x) {
        httpd_answer(r, &(struct httpd_answer){.status = 503, .fixed = SPAN("no memory\n")});
        return;
    }
    x->w = w;
    x->r = r;
    list_push_back(&w->exchanges, &x->link);
    set_client(x);
    set_session(x);
    run_route(x);
}

/* -- life -- */

/* The users as copies of our own. */
static int copy_users(struct arena *mem, const struct web_settings *s, struct web_user **users) {
    *users = arena_calloc(mem, s->user_count + 1, sizeof **users);
    if (!*users)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->user_count; i++) {
        struct web_user *u = &(*users)[i];
        u->name = arena_strdup(mem, s->users[i].name);
        u->password = arena_strdup(mem, s->users[i].password);
        u->role = s->users[i].role;
        if (!u->name || !u->password)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static bool same_user(const struct web_user *a, const struct web_user *b) {
    return b && a->role == b->role && strcmp(a->password, b->password) == 0;
}

int web_reconfigure(struct web *w, const struct web_settings *s) {
    struct arena mem;
    struct web_user *users;
    arena_init(&mem, 4096, 1024 * 1024);
    if (copy_users(&mem, s, &users) != ERR_OK) {
        arena_deinit(&mem);
        return ERR_NOMEM;
    }
    struct web_user *old = w->users;
    size_t old_count = w->user_count;
    w->users = users;
    w->user_count = s->user_count;
    for (size_t i = 0; i < old_count; i++)
        if (!same_user(&old[i], web_find_user(w, span_of(old[i].name))))
            web_session_end_user(&w->sessions, old[i].name);
    arena_deinit(&w->mem);
    w->mem = mem;
    return ERR_OK;
}

int web_open(struct web **out, const struct web_config *c, const struct web_settings *s) {
    struct web *w = calloc(1, sizeof *w);
    struct httpd_config http = {.loop = c->loop, .fd = c->fd, .cb = on_http, .arg = w};
    CHECK(w);
    w->loop = c->loop;
    w->admin = c->admin;
    w->ready = c->ready;
    w->loopback = tcp_addr_is_loopback(&s->address);
    w->ready_arg = c->arg;
    list_init(&w->exchanges);
    list_init(&w->signs);
    web_sessions_init(&w->sessions);
    arena_init(&w->mem, 4096, 1024 * 1024);
    w->guess = guess_new(GUESS_ENTRIES);
    int err = web_failures_init(&w->failures, c->loop);
    if (err == ERR_OK)
        err = w->guess ? web_reconfigure(w, s) : ERR_NOMEM;
    int opened = httpd_open(&w->http, &http); /* takes the socket in any case */
    if (err == ERR_OK)
        err = opened;
    if (err != ERR_OK) {
        web_close(w);
        return err;
    }
    *out = w;
    return ERR_OK;
}

void web_close(struct web *w) {
    if (!w)
        return;
    web_sign_close(w);
    while (!list_is_empty(&w->exchanges))
        web_exchange_free(LIST_ENTRY(list_first(&w->exchanges), struct web_exchange, link));
    if (w->http)
        httpd_close(w->http);
    web_failures_deinit(&w->failures);
    web_sessions_deinit(&w->sessions);
    guess_unref(w->guess);
    arena_deinit(&w->mem);
    free(w);
}
