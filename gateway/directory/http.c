/*
 * http: the directory that asks an HTTP service, one POST of JSON for each recipient (docs/directory-http.md).
 *
 * On a thread with a loop of its own, so that parsing a long answer never holds up a session. At most `connections`
 * questions are under way; the rest waits. Whatever is not exactly one of the documented answers is a failure of the
 * service, not a verdict: a broken service must make 451, never 550.
 */
#include <jansson.h>
#include <stdlib.h>

#include "base/net/http.h"

#include "gateway/directory/backend_loop.h"
#include "gateway/smtp/address.h"

enum {
    CONNECTIONS_DEFAULT = 16,
    ANSWER_MAX = 512 * 1024,
    TARGETS_TEXT_MAX = TABLE_TARGETS_MAX * (ADDRESS_PATH_MAX + 2),
    WHY_MAX = 400,
};

struct http_backend {
    struct backend base;
    const struct directory_config *config;
    struct backend_loop run;
    struct http *http;
    uint32_t under_way, most;
};
struct asked {
    struct http_backend *b;
    struct backend_question *q;
};

/* -- the answer -- */

/* Appends one target in its canonical form. NULL, or what is wrong. */
static const char *take_target(struct buf *to, const json_t *value) {
    struct arena mem;
    struct address a;
    if (!json_is_string(value))
        return "a target is not a string";
    arena_init(&mem, 1024, 64 * 1024);
    int err = address_parse(&a, span_make(json_string_value(value), json_string_length(value)), &mem);
    if (err == ERR_OK) {
        if (buf_len(to))
            buf_add(to, SPAN(", "));
        buf_add(to, a.text);
    }
    arena_deinit(&mem);
    return err == ERR_NOMEM || to->err ? err_text(ERR_NOMEM) : err ? "a target is not a mail address" : NULL;
}

static const char *take_targets(struct buf *to, const json_t *value) {
    size_t count = json_array_size(value);
    if (!json_is_array(value) || count == 0)
        return "\"targets\" is not a list of addresses";
    if (count > TABLE_TARGETS_MAX)
        return "more than 1000 targets";
    for (size_t i = 0; i < count; i++) {
        const char *problem = take_target(to, json_array_get(value, i));
        if (problem)
            return problem;
    }
    return NULL;
}

static const char *take_result(struct backend_reply *r, struct buf *targets, const json_t *root) {
    const char *result = json_string_value(json_object_get(root, "result"));
    const json_t *keep = json_object_get(root, "keep");
    r->status = DIRECTORY_FOUND;
    if (!result)
        return "the answer has no \"result\"";
    if (strcmp(result, "mailbox") == 0) {
        r->kind = TABLE_MAILBOX;
        return NULL;
    }
    if (strcmp(result, "unknown") == 0) {
        r->status = DIRECTORY_UNKNOWN;
        return NULL;
    }
    if (strcmp(result, "alias") != 0 && strcmp(result, "forward") != 0)
        return "the \"result\" is none of mailbox, alias, forward, unknown";
    if (keep && !json_is_boolean(keep))
        return "\"keep\" is neither true nor false";
    r->kind = result[0] == 'a' ? TABLE_ALIAS : json_is_true(keep) ? TABLE_FORWARD_KEEP : TABLE_FORWARD;
    return take_targets(targets, json_object_get(root, "targets"));
}

static const char *status_name(const struct backend_reply *r) {
    static const char *const kinds[] = {"mailbox", "alias", "forward", "forward with a copy"};
    return r->status == DIRECTORY_UNKNOWN ? "unknown" : kinds[r->kind];
}

/* Judges what came. NULL, or what is wrong with it. */
static const char *judge(struct backend_reply *r, struct buf *targets, const struct http_answer *a) {
    json_error_t error;
    if (a->status == 404) {
        r->status = DIRECTORY_UNKNOWN;
        return NULL;
    }
    if (a->status != 200)
        return "";
    json_t *root = json_loadb(a->body.at ? a->body.at : "", a->body.len, JSON_REJECT_DUPLICATES, &error);
    const char *problem = root ? take_result(r, targets, root) : "the answer is not JSON";
    json_decref(root);
    return problem;
}

static void on_answer(void *arg, const struct http_answer *a) {
    struct asked *asked = arg;
    struct http_backend *b = asked->b;
    struct backend_reply r = {.err = a->err};
    struct buf targets, why;
    buf_init(&targets, TARGETS_TEXT_MAX);
    buf_init(&why, WHY_MAX);
    buf_printf(&why, "%.200s ", b->config->uri);
    if (a->err) {
        buf_printf(&why, "failed: %.150s", a->why);
    } else {
        const char *problem = judge(&r, &targets, a);
        buf_printf(&why, "answered %u", a->status);
        if (problem) {
            r = (struct backend_reply){.err = ERR_INVALID};
            buf_printf(&why, "%s%s", *problem ? ": " : "", problem);
        } else {
            buf_printf(&why, ": %s", status_name(&r));
        }
    }
    if (r.err)
        r.status = DIRECTORY_TEMPFAIL;
    r.targets = buf_span(&targets);
    r.why = buf_span(&why);
    b->under_way--;
    backend_answer(asked->q, &r);
    buf_deinit(&targets);
    buf_deinit(&why);
    free(asked);
    b->run.work(b);
}

/* -- the question -- */

static char *question_text(const struct backend_question *q) {
    json_t *root = json_object();
    bool ok = root && json_object_set_new(root, "address", json_stringn(q->address.at, q->address.len)) == 0 &&
              json_object_set_new(root, "local", json_stringn(q->key.at, q->key.len)) == 0 &&
              json_object_set_new(root, "domain", json_stringn(q->domain.at, q->domain.len)) == 0;
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

static void ask_one(struct http_backend *b, struct backend_question *q) {
    static const char *const headers[] = {"Content-Type: application/json", "Accept: application/json", NULL};
    char *text = question_text(q);
    struct asked *asked = text ? malloc(sizeof *asked) : NULL;
    if (!asked) {
        free(text);
        backend_fail(q, ERR_NOMEM, err_text(ERR_NOMEM));
        return;
    }
    *asked = (struct asked){b, q};
    const struct http_question h = {
        .method = "POST",
        .url = b->config->uri,
        .headers = headers,
        .body = span_of(text),
        .timeout_ms = backend_loop_left_ms(q),
        .answer_max = ANSWER_MAX,
        .user = b->config->user,
        .password = b->config->password,
    };
    if (http_ask(b->http, &h, on_answer, asked)) {
        b->under_way++;
    } else {
        free(asked);
        backend_fail(q, ERR_NOMEM, err_text(ERR_NOMEM));
    }
    free(text);
}

static void work(void *arg) {
    struct http_backend *b = arg;
    struct backend_question *q;
    while (b->under_way < b->most && (q = backend_loop_take(&b->run)))
        ask_one(b, q);
}

/* -- the backend -- */

static void http_backend_ask(struct backend *base, struct backend_question *q) {
    struct http_backend *b = CONTAINER_OF(base, struct http_backend, base);
    backend_loop_ask(&b->run, q);
}

static void on_end(void *arg) {
    struct http_backend *b = arg;
    http_free(b->http);
    b->http = NULL;
}

static void http_backend_free(struct http_backend *b) {
    http_free(b->http);
    backend_loop_deinit(&b->run);
    free(b);
}

static void http_backend_close(struct backend *base) {
    struct http_backend *b = CONTAINER_OF(base, struct http_backend, base);
    backend_loop_stop(&b->run);
    http_backend_free(b);
}

static const struct backend_ops ops = {http_backend_ask, http_backend_close};

/* A password in the URL would be shown wherever the URL is. */
static bool has_userinfo(const char *uri) {
    const char *host = strstr(uri, "://") + 3;
    return memchr(host, '@', strcspn(host, "/?#")) != NULL;
}

int backend_http_new(struct backend **out, const struct directory_config *c, struct buf *problems) {
    *out = NULL;
    if (!http_is_url(c->uri)) {
        buf_printf(problems, "%s: not an http or https URL: %.200s\n", c->name, c->uri ? c->uri : "");
        return ERR_INVALID;
    }
    if (has_userinfo(c->uri)) {
        buf_printf(problems, "%s: user and password do not belong into the URL\n", c->name);
        return ERR_INVALID;
    }
    struct http_backend *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    b->base.ops = &ops;
    b->config = c;
    b->most = c->connections ? c->connections : CONNECTIONS_DEFAULT;
    int err = backend_loop_init(&b->run);
    b->run.work = work;
    b->run.end = on_end;
    b->run.arg = b;
    if (!err)
        err = http_new(&b->http, b->run.loop, &(struct http_config){.ca_file = c->ca_file, .connections_max = b->most});
    if (!err)
        err = backend_loop_start(&b->run);
    if (err) {
        http_backend_free(b);
        return err;
    }
    *out = &b->base;
    return ERR_OK;
}
