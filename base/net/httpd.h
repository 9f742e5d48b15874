/*
 * httpd: the door to libmicrohttpd: a small HTTP/1.1 server. It reads requests on a thread of its own and hands each,
 * whole, to its owner on the owner's loop; the owner answers there, at once or later. The connection rests meanwhile.
 *
 * Everything is bounded: connections (half of them at most from one client), header and body, the answer, and time: a
 * connection that has not sent its next request in read_ms, or not taken its answer in write_ms, is cut off. No TLS:
 * for loopback addresses, and behind proxies.
 */
#ifndef BASE_NET_HTTPD_H
#define BASE_NET_HTTPD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/loop.h"
#include "base/net/tcp.h"

#define HTTPD_CONNECTIONS_MAX 100u
#define HTTPD_BODY_MAX (64u * 1024u)   /* more: 413 */
#define HTTPD_HEADER_MAX (64u * 1024u) /* with the request line; more: 431 or 414 */
#define HTTPD_ANSWER_MAX (16u * 1024u * 1024u)
#define HTTPD_READ_MS 30000u
#define HTTPD_WRITE_MS 120000u /* from the whole request to the end of the answer */

struct httpd;
struct httpd_request;
/* Runs on the loop; httpd_answer must follow, inside or later. */
typedef void (*httpd_cb)(void *arg, struct httpd_request *r);
struct httpd_config {
    struct loop *loop;
    int fd;                     /* bound, not yet listening (tcp_bind); taken, also on failure */
    uint32_t connections_max;   /* 0: HTTPD_CONNECTIONS_MAX */
    uint64_t read_ms, write_ms; /* 0: as above */
    httpd_cb cb;
    void *arg;
};
/* ERR_NOMEM, ERR_IO. */
int httpd_open(struct httpd **h, const struct httpd_config *c) MUST_CHECK;
/* Requests without an answer get 503; they are not to be used any more. Not inside the callback. */
void httpd_close(struct httpd *h);

/* -- a request; all is valid until it is answered -- */
const char *httpd_method(const struct httpd_request *r); /* "GET", "POST", ... */
const char *httpd_path(const struct httpd_request *r);   /* escapes decoded, except %00 */
const struct tcp_addr *httpd_client(const struct httpd_request *r);
struct span httpd_body(const struct httpd_request *r);
/* Of a header field (any case), or of an argument behind '?' (escapes decoded). False: not there. */
bool httpd_header(const struct httpd_request *r, const char *name, struct span *value);
/* Of the last of several fields of that name: a proxy that adds one of its own puts it behind those of the client. */
bool httpd_header_last(const struct httpd_request *r, const char *name, struct span *value);
bool httpd_argument(const struct httpd_request *r, const char *name, struct span *value);

struct httpd_field {
    const char *name, *value; /* copied */
};
struct httpd_answer {
    unsigned status;
    const struct httpd_field *fields; /* a NULL name ends them; or NULL */
    struct buf *body;                 /* moved: empty afterwards. Over HTTPD_ANSWER_MAX: becomes a 500. NULL: fixed */
    struct span fixed;                /* outlives the server */
};
/* On the loop's thread; r is gone then. */
void httpd_answer(struct httpd_request *r, const struct httpd_answer *a);

#endif
