/*
 * web_sign: signing in and out. Passwords are checked on helper threads, two at a time, so that guessing does not take
 * the threads from others; what is wrong is answered late, and after some failures of a client, or for an account, no
 * more until the window is over. A name that is not known costs as much time as one that is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/net/password.h"
#include "base/net/secret.h"

#include "admin/web_in.h"

#define VERIFYING_MAX 2u
#define PASSWORD_MAX 512u
#define HASH_MAX 512u
#define CLIENT_FAILURES 10u
#define ACCOUNT_FAILURES 50u
#define WINDOW_MS (15u * 60u * 1000u)
#define DELAY_MS 500u
#define TYPE_JSON "application/json"

METRIC_COUNTER_L(metric_good, "posthouse_http_sign_ins_total", "result=\"good\"", "Sign-ins to the console")
METRIC_COUNTER_L(metric_bad, "posthouse_http_sign_ins_total", "result=\"bad\"", "Sign-ins to the console")
METRIC_COUNTER_L(metric_refused, "posthouse_http_sign_ins_total", "result=\"refused\"", "Sign-ins to the console")

enum sign_state { SIGN_WAITING, SIGN_VERIFYING, SIGN_DELAYED };
struct sign {
    struct list_node link;
    struct web *w; /* NULL: it has closed; the helper thread still works */
    struct web_exchange *x;
    enum sign_state state;
    struct loop_timer *timer; /* of the late answer */
    struct guess_key client, account;
    char name[WEB_NAME_MAX + 1], password[PASSWORD_MAX + 1], hash[HASH_MAX];
    bool known;
    unsigned role;
    int result;
};

static void sign_free(struct sign *s) {
    if (s->w)
        list_remove(&s->w->signs, &s->link);
    if (s->timer)
        loop_timer_close(s->timer);
    secret_wipe(s, sizeof *s);
    free(s);
}

static void show_session(struct web_exchange *x, const struct web_session *session, const char *cookie) {
    struct buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "{\"signed_in\":%s,\"users\":%s", session ? "true" : "false", x->w->user_count ? "true" : "false");
    if (session) {
        buf_add_str(&b, ",\"name\":\"");
        buf_add_json(&b, span_of(session->name));
        buf_printf(&b, "\",\"role\":\"%s\",\"csrf\":\"%s\"", access_role_name(session->role), session->csrf);
    }
    buf_add_str(&b, "}\n");
    web_answer(x, 200, TYPE_JSON, &b, cookie);
}

void web_sign_show(struct web_exchange *x) {
    show_session(x, x->session, NULL);
}

void web_sign_out(struct web_exchange *x) {
    LOG_INFO("http_signed_out", LOG_STR("user", x->session->name), LOG_STR("origin", x->origin));
    web_session_end(&x->w->sessions, x->session);
    show_session(x, NULL, WEB_COOKIE "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
}

/* -- the end of a try -- */

static void answer_good(struct sign *s) {
    struct web_exchange *x = s->x;
    struct span proto;
    char cookie[200];
    struct web_session *session = web_session_begin(&s->w->sessions, s->name, s->role, clock_mono_ms());
    metric_add(&metric_good, 1);
    LOG_INFO("http_signed_in", LOG_STR("user", s->name), LOG_STR("origin", x->origin));
    sign_free(s);
    if (!session) {
        web_fail(x, 503, "no memory");
        return;
    }
    bool tls = httpd_header(x->r, "X-Forwarded-Proto", &proto) && span_eq_nocase(proto, SPAN("https"));
    snprintf(cookie, sizeof cookie, WEB_COOKIE "=%s; Path=/; HttpOnly; SameSite=Strict%s", session->token,
             tls ? "; Secure" : "");
    show_session(x, session, cookie);
}

static void on_late(void *arg) {
    struct sign *s = arg;
    struct web_exchange *x = s->x;
    sign_free(s);
    web_fail(x, 401, "the name or the password is wrong");
}

static void answer_bad(struct sign *s, uint32_t failures) {
    metric_add(&metric_bad, 1);
    LOG_WARN("http_sign_in_failed", LOG_STR("user", s->name), LOG_STR("origin", s->x->origin));
    s->state = SIGN_DELAYED;
    s->timer = loop_timer_new(s->w->loop, on_late, s);
    if (s->timer)
        loop_timer_set(s->timer, guess_delay_ms(failures, DELAY_MS));
    else
        on_late(s);
}

static void start_next(struct web *w);

/* A reload may have removed or changed the user meanwhile. */
static bool is_as_it_was(const struct sign *s) {
    const struct web_user *u = web_find_user(s->w, span_of(s->name));
    return u && s->role == (unsigned)u->role + 1 && strcmp(s->hash, u->password) == 0;
}

static void on_verified(void *arg) {
    struct sign *s = arg;
    struct web *w = s->w;
    if (!w) {
        sign_free(s);
        return;
    }
    w->verifying--;
    bool good = s->known && s->result == ERR_OK && is_as_it_was(s);
    uint64_t now_ms = clock_mono_ms();
    uint32_t failures = guess_end(w->guess, s->client, !good, WINDOW_MS, now_ms);
    (void)guess_end(w->guess, s->account, !good, WINDOW_MS, now_ms);
    if (good)
        answer_good(s);
    else
        answer_bad(s, failures);
    start_next(w);
}

static void verify(void *arg) { /* on a helper thread: nothing of web */
    struct sign *s = arg;
    void *scratch = password_scratch_new();
    s->result = scratch ? password_verify(s->hash, s->password, scratch) : ERR_NOMEM;
    password_scratch_free(scratch);
}

static void start_next(struct web *w) {
    LIST_FOREACH(it, next, &w->signs) {
        struct sign *s = LIST_ENTRY(it, struct sign, link);
        if (w->verifying >= VERIFYING_MAX)
            return;
        if (s->state != SIGN_WAITING)
            continue;
        s->state = SIGN_VERIFYING;
        w->verifying++;
        if (loop_work(w->loop, verify, on_verified, s) == ERR_OK)
            continue;
        w->verifying--;
        struct web_exchange *x = s->x;
        (void)guess_end(w->guess, s->client, false, WINDOW_MS, clock_mono_ms());
        (void)guess_end(w->guess, s->account, false, WINDOW_MS, clock_mono_ms());
        sign_free(s);
        web_fail(x, 503, "no memory");
    }
}

/* -- the beginning -- */

static bool is_admitted(struct sign *s) {
    struct guess *g = s->w->guess;
    uint64_t now_ms = clock_mono_ms();
    s->client = guess_key_client(g, &s->x->client);
    s->account = guess_key_account(g, span_of(s->name));
    if (guess_admit(g, s->client, CLIENT_FAILURES, WINDOW_MS, now_ms) != GUESS_GO)
        return false;
    if (guess_admit(g, s->account, ACCOUNT_FAILURES, WINDOW_MS, now_ms) == GUESS_GO)
        return true;
    (void)guess_end(g, s->client, false, WINDOW_MS, now_ms);
    return false;
}

/* What a name that cannot sign in is tried against, for nothing: it takes as long as that of a name that can. */
static const char *decoy_of(const struct web *w) {
    for (size_t i = 0; i < w->user_count; i++)
        if (password_kind(w->users[i].password) != PASSWORD_LOCKED)
            return w->users[i].password;
    return w->users[0].password;
}

/* False: not a name and a password. */
static bool read_try(struct sign *s, struct web_exchange *x) {
    struct json_fields f;
    struct arena mem;
    bool good = false;
    arena_init(&mem, 4096, 4u * HTTPD_BODY_MAX);
    if (json_fields_read(&f, httpd_body(x->r), &mem) == ERR_OK) {
        struct span name = json_fields_get(&f, "name"), password = json_fields_get(&f, "password");
        struct web_user *u = web_find_user(x->w, name);
        good = name.len && name.len <= WEB_NAME_MAX && password.len && password.len <= PASSWORD_MAX;
        if (good) {
            span_copy(name, s->name, sizeof s->name);
            span_copy(password, s->password, sizeof s->password);
            s->known = u && password_kind(u->password) != PASSWORD_LOCKED;
            s->role = u ? (unsigned)u->role + 1 : 0;
            span_copy(span_of(s->known ? u->password : decoy_of(x->w)), s->hash, sizeof s->hash);
        }
        secret_wipe((void *)(uintptr_t)password.at, password.len);
    }
    arena_deinit(&mem);
    return good;
}

void web_sign_in(struct web_exchange *x) {
    struct sign *s = x->w->user_count ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        web_fail(x, x->w->user_count ? 503 : 403, "there are no users (admin.users), or no memory");
        return;
    }
    if (!read_try(s, x)) {
        free(s);
        web_fail(x, 400, "takes a name and a password");
        return;
    }
    s->w = x->w;
    s->x = x;
    list_push_back(&x->w->signs, &s->link);
    if (is_admitted(s)) {
        start_next(x->w);
        return;
    }
    metric_add(&metric_refused, 1);
    sign_free(s);
    web_fail(x, 429, "too many failures; try again later");
}

void web_sign_close(struct web *w) {
    LIST_FOREACH(it, next, &w->signs) {
        struct sign *s = LIST_ENTRY(it, struct sign, link);
        if (s->state == SIGN_VERIFYING) {
            list_remove(&w->signs, &s->link);
            s->w = NULL; /* freed when the thread is done */
        } else
            sign_free(s);
    }
}
