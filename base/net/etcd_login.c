/*
 * etcd_login: the token that etcd gives for user and password. It is asked for when the first question needs it, and
 * again when etcd does not know it any more: tokens end after some minutes without use, and each member counts for
 * itself. Questions wait meanwhile; a wrong password ends them, and is not tried again within a second: etcd's hash of
 * passwords is costly.
 *
 * An etcd without authentication says so, and is taken as it is.
 */
#include <stdio.h>

#include "base/check.h"

#include "base/net/etcd_in.h"

enum { REFUSED_PAUSE_MS = 1000, FAILED_PAUSE_MS = 200 };

static void on_login(void *arg, const struct etcd_ask_result *r) {
    struct etcd *e = arg;
    bool open_door = r->err == ERR_UNSUPPORTED;
    e->login = NULL;
    if (r->err && !open_door) {
        snprintf(e->trouble, sizeof e->trouble, "%s", r->why);
        bool refused = r->err == ERR_DENIED || r->err == ERR_INVALID;
        uint64_t pause = refused ? REFUSED_PAUSE_MS : FAILED_PAUSE_MS;
        e->login_not_before_ms = loop_now_ms(e->loop) + pause;
        if (refused)
            etcd_ask_wake(e, ERR_DENIED, r->why);
        else
            loop_timer_set(e->login_timer, pause);
        return;
    }
    e->token_number++;
    e->open_door = open_door;
    if (!open_door)
        snprintf(e->authorization, sizeof e->authorization, "Authorization: %s", r->reply->token);
    etcd_ask_wake(e, ERR_OK, "");
}

static void begin(struct etcd *e) {
    static const struct etcd_ask_config config = {
        .path = "/v3/auth/authenticate", .kind = ETCD_KIND_TOKEN, .vital = true, .login = true};
    uint64_t now = loop_now_ms(e->loop);
    struct buf body;
    if (now < e->login_not_before_ms) {
        loop_timer_set(e->login_timer, e->login_not_before_ms - now);
        return;
    }
    buf_init(&body, 8192);
    if (etcd_words_login(e->user, e->password, &body) == ERR_OK)
        e->login = etcd_ask_new(e, &config, &body, on_login, e);
    else
        buf_deinit(&body);
    if (!e->login) { /* no memory: later */
        e->login_not_before_ms = now + REFUSED_PAUSE_MS;
        loop_timer_set(e->login_timer, REFUSED_PAUSE_MS);
    }
}

void etcd_on_login_timer(void *arg) {
    struct etcd *e = arg;
    if (!e->login && !e->authorization[0] && !e->open_door)
        begin(e);
}

bool etcd_may_ask(struct etcd *e) {
    if (!e->user || e->authorization[0] || e->open_door)
        return true;
    if (!e->login)
        begin(e);
    return false;
}

void etcd_token_failed(struct etcd *e, uint64_t token_number) {
    if (token_number != e->token_number)
        return;
    e->authorization[0] = 0;
    e->open_door = false;
}
