/*
 * http: the door to libcurl: HTTP and HTTPS questions on a loop, without blocking. HTTP/1.1 with kept connections;
 * redirects are not followed; only http and https URLs; environment proxies are ignored.
 *
 * An answer is handed over whole, or piece by piece as it comes (`part`), for answers without an end.
 */
#ifndef BASE_NET_HTTP_H
#define BASE_NET_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/loop.h"
#include "base/span.h"

#define HTTP_PENDING_MAX 10000

struct http;
struct http_config {
    const char *ca_file;           /* NULL: the system's */
    const char *certificate, *key; /* of ours, or NULL */
    uint32_t connections_max;      /* to one host, default 16 */
};
/* One for each loop. */
int http_new(struct http **h, struct loop *l, const struct http_config *c) MUST_CHECK;
void http_free(struct http *h); /* pending questions are dropped without a callback; also from inside a callback */

/* Octets of the body of an answer with this status; valid in the callback, which may ask, cancel and free as others. */
typedef void (*http_part_cb)(void *arg, uint32_t status, struct span octets);
struct http_question {
    const char *method; /* "GET", "POST" */
    const char *url;
    const char *const *headers;  /* "Name: value", NULL at the end; or NULL */
    struct span body;            /* copied */
    uint64_t timeout_ms;         /* whole exchange; 0, with `part` only: without end */
    uint64_t connect_ms;         /* for the connection alone; 0: no less than the whole */
    size_t answer_max;           /* octets of the answer's body; more: ERR_FULL */
    const char *user, *password; /* basic authentication, or NULL */
    const char *connect_to;      /* "127.0.0.1:8443" instead of the URL's host and port, whose name stays; or NULL */
    /* Or NULL. The answer has no body then; answer_max bounds what comes between two turns of the loop. */
    http_part_cb part;
    /* Never repeated by itself. Otherwise it goes out again when a kept connection turns out to be closed. */
    bool once;
};
struct http_answer {
    int err; /* ERR_OK: status and body count; ERR_TIMEOUT, ERR_UNREACHABLE, ERR_DENIED (TLS), ERR_FULL, ERR_IO */
    const char *why;  /* one clean line for an err, else "" */
    bool sent;        /* false: no octet of the question left, so nobody acts on it */
    uint32_t status;  /* 200, 404, ... */
    struct span body; /* valid in the callback */
    struct span content_type;
};
/* Whether http_ask takes it: well-formed, of http or https. NULL is none. */
bool http_is_url(const char *text);
typedef void (*http_cb)(void *arg, const struct http_answer *a);
struct http_request;
/* cb exactly once, never inside this call, unless canceled. NULL: no memory, a malformed URL, or HTTP_PENDING_MAX are
 * pending. */
struct http_request *http_ask(struct http *h, const struct http_question *q, http_cb cb, void *arg) MUST_CHECK;
/* Not after its callback has begun. */
void http_cancel(struct http_request *r);

#endif
