/*
 * web_in: what the files of the HTTP face share: the exchange (one request until its answer), answers, and the state.
 */
#ifndef ADMIN_WEB_IN_H
#define ADMIN_WEB_IN_H

#include "admin/access.h"
#include "admin/json.h"
#include "admin/web.h"
#include "admin/web_failures.h"
#include "admin/web_session.h"
#include "base/net/guess.h"
#include "base/net/httpd.h"

#define WEB_COOKIE "posthouse"

struct web {
    struct loop *loop;
    struct admin *admin;
    struct httpd *http;
    web_ready_cb ready;
    void *ready_arg;
    struct arena mem; /* of the users */
    struct web_user *users;
    size_t user_count;
    bool loopback;         /* listens on a loopback address: may be open when there are no users */
    struct list exchanges; /* that wait for the RPC */
    struct list signs;     /* sign-ins under way (web_sign.c) */
    uint32_t verifying;    /* of them on helper threads */
    struct web_sessions sessions;
    struct guess *guess;
    struct web_failures failures;
};

struct web_exchange {
    struct list_node link;
    struct web *w;
    struct httpd_request *r;
    uint64_t ask; /* question to the RPC; 0: none yet */
    struct json_answer *json;
    int error; /* the first of the replies, with its text */
    char error_text[400];
    struct tcp_addr client; /* behind a proxy of this machine: whom it names */
    char origin[140];       /* "http 192.0.2.1" */
    const char *actor;
    struct web_session *session; /* valid until the handler returns; NULL: not signed in */
    unsigned role;               /* enum admin_role */
};

/* -- web.c: each ends the exchange -- */
void web_answer(struct web_exchange *x, unsigned status, const char *type, struct buf *body, const char *cookie);
void web_answer_fixed(struct web_exchange *x, const char *type, struct span body);
/* {"error": text} */
void web_fail(struct web_exchange *x, unsigned status, const char *text);
/* True: it is JSON of our own pages, or of a program; else it has failed, and is gone. */
bool web_is_own_post(struct web_exchange *x);
struct web_user *web_find_user(struct web *w, struct span name);
void web_exchange_free(struct web_exchange *x); /* when it is answered, or will not be */

/* -- web_api.c -- */
void web_api_get(struct web_exchange *x, const char *path);  /* behind /api/v1/ */
void web_api_post(struct web_exchange *x, const char *path); /* the caller has checked session and token */

/* -- web_sign.c -- */
void web_sign_in(struct web_exchange *x);
void web_sign_show(struct web_exchange *x); /* who is signed in */
void web_sign_out(struct web_exchange *x);
void web_sign_close(struct web *w);

#endif
