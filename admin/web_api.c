/*
 * web_api: the JSON API: a path and its arguments become a question to the operators' RPC, and its replies one JSON
 * object. Errors of the RPC become statuses of HTTP.
 */
#include <stdio.h>
#include <string.h>

#include "base/base32.h"
#include "base/units.h"
#include "proto/frame.h"

#include "admin/web_in.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX 1000u
#define TEXT_MAX 2048u
#define REASON_MAX 500u
#define TYPE_JSON "application/json"

enum { FILTER = 1, AFTER = 2, LIMIT = 4, ADDRESS = 8, DOMAIN_NAME = 16, CLIENT = 32 };

static const struct question {
    const char *path;
    Words__AdminVerb verb;
    unsigned takes, needs;
} questions[] = {
    {"status", WORDS__ADMIN_VERB__ADMIN_STATUS, 0, 0},
    {"nodes", WORDS__ADMIN_VERB__ADMIN_NODES, 0, 0},
    {"shards", WORDS__ADMIN_VERB__ADMIN_SHARDS, 0, 0},
    {"queue", WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST, FILTER | AFTER | LIMIT, 0},
    {"queue/summary", WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY, FILTER | AFTER | LIMIT, 0},
    {"queue/shape", WORDS__ADMIN_VERB__ADMIN_QUEUE_SHAPE, FILTER | AFTER | LIMIT, 0},
    {"sites", WORDS__ADMIN_VERB__ADMIN_SITES, LIMIT, 0},
    {"suspensions", WORDS__ADMIN_VERB__ADMIN_SUSPENSIONS, AFTER | LIMIT, 0},
    {"route", WORDS__ADMIN_VERB__ADMIN_ROUTE, ADDRESS, ADDRESS},
    {"verify", WORDS__ADMIN_VERB__ADMIN_VERIFY, ADDRESS | CLIENT, ADDRESS},
    {"limits", WORDS__ADMIN_VERB__ADMIN_LIMITS, DOMAIN_NAME, DOMAIN_NAME},
    {"audit", WORDS__ADMIN_VERB__ADMIN_AUDIT_LIST, AFTER | LIMIT, 0},
};
static const struct {
    const char *path; /* behind msg/ID */
    Words__AdminVerb verb;
} of_message[] = {
    {"", WORDS__ADMIN_VERB__ADMIN_MSG_SHOW},
    {"/trace", WORDS__ADMIN_VERB__ADMIN_MSG_TRACE},
    {"/why", WORDS__ADMIN_VERB__ADMIN_MSG_WHY},
    {"/headers", WORDS__ADMIN_VERB__ADMIN_MSG_HEADERS},
};

/* -- replies -- */

static unsigned status_of(int err) {
    switch (err) {
    case ERR_NOT_FOUND:
        return 404;
    case ERR_INVALID:
    case ERR_RANGE:
        return 400;
    case ERR_DENIED:
        return 403;
    case ERR_TIMEOUT:
        return 504;
    case ERR_UNSUPPORTED:
        return 501;
    case ERR_UNREACHABLE:
    case ERR_FULL:
    case ERR_AGAIN:
        return 503;
    default:
        return 500;
    }
}

static void finish(struct web_exchange *x) {
    struct buf b;
    if (x->error) {
        web_fail(x, status_of(x->error), x->error_text);
        return;
    }
    buf_init(&b, HTTPD_ANSWER_MAX);
    if (json_answer_dump(x->json, false, &b) == ERR_OK && buf_add_byte(&b, '\n') == ERR_OK) {
        web_answer(x, 200, TYPE_JSON, &b, NULL);
        return;
    }
    buf_deinit(&b);
    web_fail(x, 500, "the answer is too long; ask for less");
}

static void on_reply(void *arg, const Words__AdminReply *r) {
    struct web_exchange *x = arg;
    bool last = !r->has_last || r->last;
    if (r->has_error && r->error && !x->error) {
        x->error = -(int)r->error;
        span_copy(r->has_text ? frame_span(r->text) : span_of(err_text(x->error)), x->error_text, sizeof x->error_text);
    } else if (!x->error)
        json_answer_add(x->json, r);
    if (!last)
        return;
    x->ask = 0; /* the question has ended by itself */
    finish(x);
}

static void ask_rpc(struct web_exchange *x, const Words__AdminRequest *q) {
    const struct admin_caller who = {.actor = x->actor, .role = x->role, .origin = x->origin};
    x->json = json_answer_new();
    if (!x->json || admin_ask(x->w->admin, q, &who, on_reply, x, &x->ask) != ERR_OK) {
        x->ask = 0;
        web_fail(x, 503, "too many questions at once");
        return;
    }
    if (q->has_message)
        json_answer_message(x->json, q->message);
}

/* -- questions -- */

static bool take_text(struct web_exchange *x, const char *name, bool needed, protobuf_c_boolean *has,
                      ProtobufCBinaryData *to) {
    struct span value;
    char text[100];
    bool given = httpd_argument(x->r, name, &value) && value.len;
    if ((needed && !given) || value.len > TEXT_MAX) {
        snprintf(text, sizeof text, needed && !given ? "%s= is needed" : "%s= is too long", name);
        web_fail(x, 400, text);
        return false;
    }
    *has = given;
    *to = frame_bytes(value);
    return true;
}

static bool take_limit(struct web_exchange *x, Words__AdminRequest *q) {
    struct span value;
    uint64_t n = LIMIT_DEFAULT;
    if (httpd_argument(x->r, "limit", &value) && (!span_u64(value, &n) || n == 0 || n > LIMIT_MAX)) {
        web_fail(x, 400, "limit= takes a number from 1 to 1000");
        return false;
    }
    q->has_limit = true;
    q->limit = (uint32_t)n;
    return true;
}

static bool take_cursor(struct web_exchange *x, Words__AdminRequest *q, struct buf *cursor) {
    if (!take_text(x, "after", false, &q->has_after, &q->after))
        return false;
    if (!json_cursor_read(frame_span(q->after), cursor)) {
        web_fail(x, 400, "after= takes the cursor of an answer");
        return false;
    }
    q->after = frame_bytes(buf_span(cursor));
    return true;
}

static void ask_question(struct web_exchange *x, const struct question *s, struct buf *cursor) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    q.verb = s->verb;
    if ((s->takes & FILTER) && !take_text(x, "filter", false, &q.has_filter, &q.filter))
        return;
    if ((s->takes & AFTER) && !take_cursor(x, &q, cursor))
        return;
    if ((s->takes & ADDRESS) && !take_text(x, "address", s->needs & ADDRESS, &q.has_address, &q.address))
        return;
    if ((s->takes & DOMAIN_NAME) && !take_text(x, "domain", s->needs & DOMAIN_NAME, &q.has_address, &q.address))
        return;
    if ((s->takes & CLIENT) && !take_text(x, "client", false, &q.has_client, &q.client))
        return;
    if ((s->takes & LIMIT) && !take_limit(x, &q))
        return;
    ask_rpc(x, &q);
}

static void ask_message(struct web_exchange *x, const char *path) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    size_t len = strcspn(path, "/");
    if (!base32_decode(span_make(path, len), &q.message)) {
        web_fail(x, 400, "not a message id");
        return;
    }
    q.has_message = true;
    for (size_t i = 0; i < sizeof of_message / sizeof *of_message; i++) {
        if (strcmp(path + len, of_message[i].path) != 0)
            continue;
        q.verb = of_message[i].verb;
        ask_rpc(x, &q);
        return;
    }
    web_fail(x, 404, "there is nothing here");
}

static void show_failures(struct web_exchange *x) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    struct buf b;
    if (!take_limit(x, &q))
        return;
    buf_init(&b, HTTPD_ANSWER_MAX);
    if (web_failures_dump(&x->w->failures, q.limit, &b) == ERR_OK) {
        web_answer(x, 200, TYPE_JSON, &b, NULL);
        return;
    }
    buf_deinit(&b);
    web_fail(x, 500, "no memory");
}

void web_api_get(struct web_exchange *x, const char *path) {
    if (strcmp(path, "failures") == 0) {
        show_failures(x);
        return;
    }
    if (strncmp(path, "msg/", 4) == 0) {
        ask_message(x, path + 4);
        return;
    }
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        if (strcmp(path, questions[i].path) != 0)
            continue;
        struct buf cursor;
        buf_init(&cursor, JSON_CURSOR_MAX);
        ask_question(x, &questions[i], &cursor);
        buf_deinit(&cursor);
        return;
    }
    web_fail(x, 404, "there is nothing here");
}

/* -- changes -- */

static const struct change {
    const char *path;
    Words__AdminVerb verb;
    bool place, reason; /* domain or site; a reason must be given */
} changes[] = {
    {"suspend", WORDS__ADMIN_VERB__ADMIN_SUSPEND, true, true},
    {"resume", WORDS__ADMIN_VERB__ADMIN_RESUME, true, false},
    {"hold", WORDS__ADMIN_VERB__ADMIN_HOLD, false, true},
    {"release", WORDS__ADMIN_VERB__ADMIN_RELEASE, false, false},
    {"retry", WORDS__ADMIN_VERB__ADMIN_RETRY, false, false},
};

/* Each gives NULL, or what is wrong. */
static const char *read_place(const struct json_fields *f, Words__AdminRequest *q) {
    struct span domain = json_fields_get(f, "domain"), site = json_fields_get(f, "site"),
                wait = json_fields_get(f, "for");
    if (!domain.len == !site.len)
        return "takes either domain or site";
    q->has_scope = q->has_address = true;
    q->scope = site.len ? WORDS__ADMIN_SCOPE__ADMIN_SITE : WORDS__ADMIN_SCOPE__ADMIN_DOMAIN;
    q->address = frame_bytes(site.len ? site : domain);
    if (!wait.len)
        return NULL;
    q->has_for_ms = true;
    return units_duration(wait, &q->for_ms) == ERR_OK ? NULL : "for: takes a duration such as 30m or 4h";
}

/* Everything is never meant by saying nothing. */
static const char *read_messages(const struct json_fields *f, Words__AdminRequest *q) {
    struct span id = json_fields_get(f, "message"), filter = span_trim(json_fields_get(f, "filter"));
    if (!id.len == !filter.len)
        return "takes either filter or message";
    q->has_message = id.len != 0;
    q->has_filter = filter.len != 0;
    q->filter = frame_bytes(filter);
    return !id.len || base32_decode(id, &q->message) ? NULL : "not a message id";
}

static const char *read_change(const struct change *c, const struct json_fields *f, Words__AdminRequest *q) {
    struct span reason = span_trim(json_fields_get(f, "reason"));
    q->verb = c->verb;
    q->has_reason = reason.len != 0;
    q->reason = frame_bytes(reason);
    q->has_dry_run = true;
    q->dry_run = span_eq(json_fields_get(f, "dry_run"), SPAN("true"));
    if (reason.len > REASON_MAX)
        return "the reason is too long";
    if (c->reason && !reason.len && !q->dry_run)
        return "a reason is needed";
    return c->place ? read_place(f, q) : read_messages(f, q);
}

void web_api_post(struct web_exchange *x, const char *path) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    struct json_fields f;
    struct arena mem;
    const struct change *c = NULL;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (strcmp(path, changes[i].path) == 0)
            c = &changes[i];
    if (!c) {
        web_fail(x, 404, "there is nothing here");
        return;
    }
    arena_init(&mem, 4096, 4u * HTTPD_BODY_MAX);
    const char *wrong = json_fields_read(&f, httpd_body(x->r), &mem) == ERR_OK ? read_change(c, &f, &q)
                                                                               : "not a JSON object of plain values";
    if (wrong)
        web_fail(x, 400, wrong);
    else
        ask_rpc(x, &q);
    arena_deinit(&mem);
}
