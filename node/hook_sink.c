/*
 * hook_sink: see hook_sink.h. The HTTP sink is here, the other one in hook_socket.c. A question that libcurl does not
 * even begin fails a turn of the loop later, so that no callback comes inside the call.
 */
#include "node/hook_sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/net/http.h"

enum { HEADERS_MAX = 20, ANSWER_MAX = 64 * 1024, WHY_MAX = 300, WORDS_MAX = 150 };

struct hook_sink {
    const struct hook_target *target;
    hook_sink_cb cb;
    void *arg;
    struct hook_socket *socket; /* NULL: HTTP */
    struct http *http;
    struct http_request *request;
    struct loop_timer *failed;
    char *authorization;
};

static void on_answer(void *arg, const struct http_answer *a) {
    struct hook_sink *s = arg;
    char why[WHY_MAX];
    s->request = NULL;
    if (a->err == ERR_OK && a->status >= 200 && a->status < 300) {
        s->cb(s->arg, true, "");
        return;
    }
    struct buf words;
    buf_init(&words, WORDS_MAX);
    if (a->err == ERR_OK)
        buf_add_escaped(&words, span_first(a->body, WORDS_MAX));
    if (a->err == ERR_OK)
        snprintf(why, sizeof why, "answered %u %s", a->status, buf_cstr(&words));
    else
        snprintf(why, sizeof why, "%s", a->why);
    buf_deinit(&words);
    s->cb(s->arg, false, why);
}

static void on_failed(void *arg) {
    struct hook_sink *s = arg;
    s->cb(s->arg, false, "the request cannot be made");
}

static bool set_authorization(struct hook_sink *s) {
    static const char begin[] = "Authorization: Bearer ";
    const char *bearer = s->target->bearer;
    if (!bearer)
        return true;
    size_t size = sizeof begin + strlen(bearer);
    s->authorization = malloc(size);
    if (s->authorization)
        snprintf(s->authorization, size, "%s%s", begin, bearer);
    return s->authorization;
}

int hook_sink_new(struct hook_sink **out, struct loop *l, const struct hook_target *t, hook_sink_cb cb, void *arg) {
    struct hook_sink *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return ERR_NOMEM;
    *s = (struct hook_sink){.target = t, .cb = cb, .arg = arg};
    int err = ERR_OK;
    if (t->socket) {
        s->socket = hook_socket_new(l, t->socket, t->timeout_ms, cb, arg);
    } else {
        struct http_config c = {
            .ca_file = t->ca_file, .certificate = t->certificate, .key = t->key, .connections_max = 1};
        err = http_new(&s->http, l, &c);
        s->failed = loop_timer_new(l, on_failed, s);
    }
    if (err || !(s->socket || (s->failed && set_authorization(s)))) {
        hook_sink_free(s);
        return err ? err : ERR_NOMEM;
    }
    *out = s;
    return ERR_OK;
}

void hook_sink_send(struct hook_sink *s, struct span lines) {
    const char *headers[HEADERS_MAX + 3];
    size_t n = 0;
    if (s->socket) {
        hook_socket_send(s->socket, lines);
        return;
    }
    headers[n++] = "Content-Type: application/x-ndjson";
    if (s->authorization)
        headers[n++] = s->authorization;
    for (size_t i = 0; s->target->headers && s->target->headers[i] && i < HEADERS_MAX; i++)
        headers[n++] = s->target->headers[i];
    headers[n] = NULL;
    struct http_question q = {.method = "POST",
                              .url = s->target->url,
                              .headers = headers,
                              .body = lines,
                              .timeout_ms = s->target->timeout_ms,
                              .answer_max = ANSWER_MAX};
    s->request = http_ask(s->http, &q, on_answer, s);
    if (!s->request)
        loop_timer_set(s->failed, 1);
}

void hook_sink_free(struct hook_sink *s) {
    if (!s)
        return;
    hook_socket_free(s->socket);
    if (s->request)
        http_cancel(s->request);
    http_free(s->http);
    if (s->failed)
        loop_timer_close(s->failed);
    free(s->authorization);
    free(s);
}
