/*
 * http: the backend that asks a web service: POST of {"account", "password", "client", "mechanism"}; the answer is 200
 * with {"ok": true, "account": "canonical"} or {"ok": false}. 404 means that the service does not know the account, 403
 * that the password is wrong; every other answer, and none, means that it cannot tell.
 *
 * Lives on the loop of io.c. Questions over the bound are refused at once; the library keeps the number of connections.
 */
#include <jansson.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/http.h"
#include "base/net/secret.h"
#include "base/utf8.h"

#include "gateway/auth/backend.h"
#include "gateway/auth/io.h"

enum { BODY_MAX = 8192, ANSWER_MAX = 16384, URI_MAX = 2048 };

struct http_backend {
    struct auth_backend base;
    const struct auth_backend_config *config;
    struct auth_io *io;
    struct http *http;
    struct list open; /* questions asked */
};
struct asking {
    struct list_node node;
    struct http_backend *b;
    struct auth_question *q;
    struct http_request *request;
};

/* {"ok":false} is both: the service does not tell, and the password counts as wrong. */
static enum auth_reply judge(struct auth_question *q, const struct http_answer *a, const char **why) {
    json_error_t error;
    enum auth_reply reply = AUTH_REPLY_CANNOT;
    *why = "the answer is not as agreed";
    json_t *root = json_loadb(a->body.at ? a->body.at : "", a->body.len, JSON_REJECT_DUPLICATES, &error);
    json_t *good = json_object_get(root, "ok"), *account = json_object_get(root, "account");
    if (json_is_false(good)) {
        reply = AUTH_REPLY_NO;
    } else if (json_is_true(good) && !account) {
        reply = AUTH_REPLY_YES;
    } else if (json_is_true(good) && json_is_string(account) && json_string_length(account) <= AUTH_ACCOUNT_MAX) {
        span_copy(span_make(json_string_value(account), json_string_length(account)), q->account, sizeof q->account);
        reply = AUTH_REPLY_YES;
    }
    json_decref(root);
    return reply;
}

static void on_answer(void *arg, const struct http_answer *a) {
    struct asking *k = arg;
    struct auth_question *q = k->q;
    char text[64];
    const char *why = a->why;
    enum auth_reply reply = AUTH_REPLY_CANNOT;
    list_remove(&k->b->open, &k->node);
    free(k);
    if (!a->err && a->status == 200) {
        reply = judge(q, a, &why);
    } else if (!a->err && (a->status == 403 || a->status == 404)) {
        reply = a->status == 403 ? AUTH_REPLY_NO : AUTH_REPLY_UNKNOWN;
    } else if (!a->err) {
        snprintf(text, sizeof text, "status %u", a->status);
        why = text;
    }
    if (reply == AUTH_REPLY_CANNOT)
        auth_question_cannot(q, span_of(why && *why ? why : err_text(a->err)));
    else
        auth_question_done(q, reply);
}

static void add_member(struct buf *to, const char *name, const char *value) {
    buf_printf(to, "%s\"%s\":\"", buf_len(to) ? "," : "{", name);
    buf_add_json(to, span_of(value));
    buf_add_byte(to, '"');
}

static struct http_request *send_question(struct asking *k) {
    static const char *const headers[] = {"Content-Type: application/json", "Accept: application/json", NULL};
    const struct auth_backend_config *c = k->b->config;
    struct auth_question *q = k->q;
    struct buf body;
    buf_init(&body, BODY_MAX);
    add_member(&body, "account", q->account);
    add_member(&body, "password", q->password);
    add_member(&body, "client", q->client_ip);
    add_member(&body, "mechanism", q->mechanism);
    buf_add_byte(&body, '}');
    struct http_question question = {.method = "POST",
                                     .url = c->uri,
                                     .headers = headers,
                                     .body = buf_span(&body),
                                     .timeout_ms = c->timeout_ms,
                                     .answer_max = ANSWER_MAX,
                                     .user = c->user,
                                     .password = c->password};
    struct http_request *r = body.err ? NULL : http_ask(k->b->http, &question, on_answer, k);
    if (body.mem)
        secret_wipe(body.mem, body.cap);
    buf_deinit(&body);
    return r;
}

static void on_letter(struct post_letter *letter) {
    struct auth_question *q = CONTAINER_OF(letter, struct auth_question, letter);
    struct http_backend *b = CONTAINER_OF(q->backend, struct http_backend, base);
    if (atomic_load(&q->canceled)) {
        auth_question_done(q, AUTH_REPLY_CANNOT);
        return;
    }
    if (!utf8_is_valid(span_of(q->password))) { /* cannot be said in JSON, so nobody has it */
        auth_question_done(q, AUTH_REPLY_NO);
        return;
    }
    struct asking *k = b->open.count < AUTH_WAITING_MAX ? calloc(1, sizeof *k) : NULL;
    if (!k) {
        auth_question_cannot(q, SPAN("too many questions wait"));
        return;
    }
    k->b = b;
    k->q = q;
    list_push_back(&b->open, &k->node);
    k->request = send_question(k);
    if (k->request)
        return;
    list_remove(&b->open, &k->node);
    free(k);
    auth_question_cannot(q, SPAN("the question could not be sent"));
}

static void ask(struct auth_backend *base, struct auth_question *q) {
    CHECK(q->ask == AUTH_ASK_PASSWORD);
    q->letter.open = on_letter;
    auth_io_send(CONTAINER_OF(base, struct http_backend, base)->io, &q->letter);
}

static void close_http(struct auth_backend *base) {
    struct http_backend *b = CONTAINER_OF(base, struct http_backend, base);
    struct list_node *n;
    while ((n = list_first(&b->open))) {
        struct asking *k = CONTAINER_OF(n, struct asking, node);
        http_cancel(k->request);
        list_remove(&b->open, n);
        auth_question_done(k->q, AUTH_REPLY_CANNOT);
        free(k);
    }
    http_free(b->http);
    free(b);
}

static const struct auth_backend_ops ops = {.ask = ask, .close = close_http};

int auth_http_new(struct auth_backend **out, const struct auth_backend_config *c, struct auth_io *io,
                  struct buf *problems) {
    struct span uri = span_of(c->uri);
    if ((!span_starts_nocase(uri, SPAN("http://")) && !span_starts_nocase(uri, SPAN("https://"))) ||
        uri.len > URI_MAX) {
        buf_printf(problems, "auth %s: needs an uri http:// or https://\n", c->name);
        return ERR_INVALID;
    }
    struct http_backend *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    b->base = (struct auth_backend){.ops = &ops, .on_io = true};
    b->config = c;
    b->io = io;
    list_init(&b->open);
    struct http_config h = {.ca_file = c->ca_file, .connections_max = c->connections};
    int err = http_new(&b->http, auth_io_loop(io), &h);
    if (err)
        free(b);
    else
        *out = &b->base;
    return err;
}
