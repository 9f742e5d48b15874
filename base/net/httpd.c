/*
 * httpd: see httpd.h. Two threads meet here. That of the library reads and writes; when a request is whole it suspends
 * the connection and posts the request to the loop. The loop makes the response and resumes the connection, and the
 * library's thread queues it: only that thread may.
 *
 * A request has two owners, the connection and the loop, and goes with the last. `gate` guards what is suspended and
 * whether we are closing, so that nothing is suspended that nobody would resume; `lock` guards the list of connections,
 * whose time a timer of the loop watches. The library's own time-out counts from the last octet, which a patient
 * stranger can send for ever.
 */
#include "base/net/httpd.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/metrics.h"
#include "base/net/post.h"

#define SWEEP_MS 500u
#define IDLE_SECONDS 30u
#define VALUES_MAX 128u
#define BACKLOG 64

METRIC_COUNTER(metric_requests, "posthouse_http_requests_total", "Requests to the HTTP face")
METRIC_COUNTER(metric_cut, "posthouse_http_cut_total", "HTTP connections that were cut off for taking too long")

struct peer { /* a connection */
    struct list_node link;
    int fd;
    uint64_t until_ms; /* UINT64_MAX: has been cut */
};
struct value {
    enum MHD_ValueKind kind;
    const char *name;
    struct span text;
};
struct httpd_request {
    struct httpd *h;
    atomic_uint owners;
    struct post_letter letter;
    struct list_node link; /* of those suspended */
    struct MHD_Connection *connection;
    struct tcp_addr client;
    struct arena mem;
    const char *method, *path;
    struct value values[VALUES_MAX];
    size_t count;
    struct buf body, answer;
    bool too_large, answered, given;
    struct MHD_Response *response;
    unsigned status;
};
struct httpd {
    struct MHD_Daemon *daemon;
    struct post *post;
    struct loop_timer *timer;
    httpd_cb cb;
    void *arg;
    uint64_t read_ms, write_ms;
    pthread_mutex_t gate, lock;
    struct list suspended, peers;
    bool closing;
};

/* -- requests -- */

static void request_unref(struct httpd_request *r) {
    if (atomic_fetch_sub(&r->owners, 1) != 1)
        return;
    if (r->response)
        MHD_destroy_response(r->response);
    buf_deinit(&r->body);
    buf_deinit(&r->answer);
    arena_deinit(&r->mem);
    free(r);
}

static enum MHD_Result keep_value(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                  const char *text, size_t len) {
    struct httpd_request *r = arg;
    struct span copy = arena_dup(&r->mem, text ? span_make(text, len) : SPAN_EMPTY);
    const char *label = arena_strdup(&r->mem, name);
    if (r->count == VALUES_MAX || !label || strlen(name) != name_len || (len && !copy.at)) {
        r->too_large = true;
        return MHD_NO;
    }
    r->values[r->count++] = (struct value){.kind = kind, .name = label, .text = copy};
    return MHD_YES;
}

static void keep_client(struct httpd_request *r, const struct sockaddr *a) {
    r->client.len = a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (a->sa_family == AF_INET6 || a->sa_family == AF_INET)
        memcpy(&r->client.storage, a, r->client.len);
}

static struct httpd_request *request_new(struct httpd *h, struct MHD_Connection *c, const char *url,
                                         const char *method) {
    struct httpd_request *r = calloc(1, sizeof *r);
    const union MHD_ConnectionInfo *from = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!r)
        return NULL;
    r->h = h;
    r->connection = c;
    atomic_init(&r->owners, 1);
    arena_init(&r->mem, 4096, 4 * HTTPD_HEADER_MAX);
    buf_init(&r->body, HTTPD_BODY_MAX);
    buf_init(&r->answer, HTTPD_ANSWER_MAX);
    r->method = arena_strdup(&r->mem, method);
    r->path = arena_strdup(&r->mem, url);
    if (from && from->client_addr)
        keep_client(r, from->client_addr);
    MHD_get_connection_values_n(c, MHD_HEADER_KIND, keep_value, r);
    MHD_get_connection_values_n(c, MHD_GET_ARGUMENT_KIND, keep_value, r);
    if (r->method && r->path)
        return r;
    request_unref(r);
    return NULL;
}

/* From `from` on; the count of values when there is none. */
static size_t find_from(const struct httpd_request *r, size_t from, enum MHD_ValueKind kind, const char *name) {
    for (; from < r->count; from++) {
        const struct value *v = &r->values[from];
        if (v->kind == kind && (kind == MHD_HEADER_KIND ? strcasecmp(v->name, name) : strcmp(v->name, name)) == 0)
            break;
    }
    return from;
}

static bool find(const struct httpd_request *r, enum MHD_ValueKind kind, const char *name, struct span *value) {
    size_t at = find_from(r, 0, kind, name);
    *value = at < r->count ? r->values[at].text : SPAN_EMPTY;
    return at < r->count;
}

bool httpd_header(const struct httpd_request *r, const char *name, struct span *value) {
    return find(r, MHD_HEADER_KIND, name, value);
}

bool httpd_header_last(const struct httpd_request *r, const char *name, struct span *value) {
    *value = SPAN_EMPTY;
    bool found = false;
    for (size_t at = 0; (at = find_from(r, at, MHD_HEADER_KIND, name)) < r->count; at++) {
        *value = r->values[at].text;
        found = true;
    }
    return found;
}

bool httpd_argument(const struct httpd_request *r, const char *name, struct span *value) {
    return find(r, MHD_GET_ARGUMENT_KIND, name, value);
}

/* -- answers -- */

static struct MHD_Response *plain(const char *text) {
    struct MHD_Response *p =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (p) {
        (void)MHD_add_response_header(p, "Content-Type", "text/plain; charset=utf-8");
        (void)MHD_add_response_header(p, "X-Content-Type-Options", "nosniff");
    }
    return p;
}

static void set_plain(struct httpd_request *r, unsigned status, const char *text) {
    r->status = status;
    r->response = plain(text);
    r->answered = true;
}

/* On the library's thread. Without a response the connection is closed. */
static enum MHD_Result queue(struct httpd_request *r) {
    return r->response ? MHD_queue_response(r->connection, r->status, r->response) : MHD_NO;
}

static void resume(struct httpd_request *r) {
    struct MHD_Connection *c = r->connection;
    pthread_mutex_lock(&r->h->gate);
    list_remove(&r->h->suspended, &r->link);
    pthread_mutex_unlock(&r->h->gate);
    MHD_resume_connection(c);
}

static void set_answer(struct httpd_request *r, const struct httpd_answer *a) {
    struct span body = a->fixed;
    if (a->body) {
        r->answer = *a->body;
        buf_init(a->body, r->answer.max);
        body = buf_span(&r->answer);
    }
    if (body.len > HTTPD_ANSWER_MAX || r->answer.err != ERR_OK) {
        set_plain(r, 500, "the answer is too large\n");
        return;
    }
    r->answered = true;
    r->status = a->status;
    /* the octets live as long as the request, which outlives the response's use */
    r->response =
        MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)(body.len ? body.at : ""), MHD_RESPMEM_PERSISTENT);
    for (const struct httpd_field *f = a->fields; r->response && f && f->name; f++)
        (void)MHD_add_response_header(r->response, f->name, f->value);
}

void httpd_answer(struct httpd_request *r, const struct httpd_answer *a) {
    CHECK(!r->answered);
    set_answer(r, a);
    resume(r);
    request_unref(r);
}

/* -- on the library's thread -- */

static void on_letter(struct post_letter *letter) { /* on the loop */
    struct httpd_request *r = CONTAINER_OF(letter, struct httpd_request, letter);
    if (r->h->closing) {
        request_unref(r);
        return;
    }
    r->given = true;
    metric_add(&metric_requests, 1);
    r->h->cb(r->h->arg, r);
}

static void peer_time(struct httpd *h, struct MHD_Connection *c, uint64_t ms) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct peer *p = info ? info->socket_context : NULL;
    pthread_mutex_lock(&h->lock);
    if (p && p->until_ms != UINT64_MAX)
        p->until_ms = clock_mono_ms() + ms;
    pthread_mutex_unlock(&h->lock);
}

/* The request is whole. */
static enum MHD_Result hand_over(struct httpd *h, struct httpd_request *r) {
    pthread_mutex_lock(&h->gate);
    bool closing = h->closing;
    if (!closing) {
        atomic_fetch_add(&r->owners, 1);
        list_push_back(&h->suspended, &r->link);
        MHD_suspend_connection(r->connection);
        r->letter.open = on_letter;
        post_send(h->post, &r->letter);
    }
    pthread_mutex_unlock(&h->gate);
    if (!closing)
        return MHD_YES;
    set_plain(r, 503, "closing\n");
    return queue(r);
}

static bool declares_too_much(struct httpd_request *r) {
    struct span length;
    uint64_t n;
    return httpd_header(r, "Content-Length", &length) && (!span_u64(length, &n) || n > HTTPD_BODY_MAX);
}

/* A proxy in front may read it otherwise, and take what follows for another request, or another's host. */
static bool is_ambiguous(const struct httpd_request *r) {
    struct span length, coding;
    size_t host = find_from(r, 0, MHD_HEADER_KIND, "Host");
    return find_from(r, host + 1, MHD_HEADER_KIND, "Host") < r->count ||
           (httpd_header(r, "Content-Length", &length) && httpd_header(r, "Transfer-Encoding", &coding));
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **context) {
    struct httpd *h = arg;
    struct httpd_request *r = *context;
    (void)version;
    if (!r) {
        *context = r = request_new(h, c, url, method);
        if (!r)
            return MHD_NO;
        if (declares_too_much(r) || r->too_large)
            set_plain(r, 413, "the request is too large\n");
        else if (is_ambiguous(r))
            set_plain(r, 400, "two hosts, or two lengths\n");
        return r->answered ? queue(r) : MHD_YES;
    }
    if (*upload_len) { /* what is over the bound is read and forgotten */
        if (buf_append(&r->body, upload, *upload_len) != ERR_OK)
            r->too_large = true;
        *upload_len = 0;
        return MHD_YES;
    }
    if (r->answered)
        return queue(r);
    peer_time(h, c, h->write_ms);
    if (!r->too_large)
        return hand_over(h, r);
    set_plain(r, 413, "the request is too large\n");
    return queue(r);
}

static void on_completed(void *arg, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode code) {
    struct httpd *h = arg;
    (void)code;
    peer_time(h, c, h->read_ms);
    if (*context)
        request_unref(*context);
    *context = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    struct httpd *h = arg;
    struct peer *p = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = p = calloc(1, sizeof *p);
        if (!p || !info) {
            free(p);
            *context = NULL;
            return;
        }
        p->fd = info->connect_fd;
        p->until_ms = clock_mono_ms() + h->read_ms;
        pthread_mutex_lock(&h->lock);
        list_push_back(&h->peers, &p->link);
        pthread_mutex_unlock(&h->lock);
    } else if (p) {
        pthread_mutex_lock(&h->lock); /* before its descriptor is closed: the timer never meets another's */
        list_remove(&h->peers, &p->link);
        pthread_mutex_unlock(&h->lock);
        free(p);
        *context = NULL;
    }
}

/* As the library does, but %00 stays as it is: no text ends early. */
static size_t on_unescape(void *arg, struct MHD_Connection *c, char *text) {
    size_t to = 0, from = 0;
    (void)arg;
    (void)c;
    while (text[from]) {
        char hex[3] = {text[from + 1], text[from + 1] ? text[from + 2] : '\0', '\0'}, *end;
        long value =
            text[from] == '%' && hex[0] && strchr("0123456789abcdefABCDEF", hex[0]) ? strtol(hex, &end, 16) : 0;
        if (value > 0 && end == hex + 2) {
            text[to++] = (char)value;
            from += 3;
        } else
            text[to++] = text[from++];
    }
    text[to] = '\0';
    return to;
}

/* -- on the loop -- */

static void on_timer(void *arg) {
    struct httpd *h = arg;
    uint64_t now_ms = clock_mono_ms();
    pthread_mutex_lock(&h->lock);
    LIST_FOREACH(it, next, &h->peers) {
        struct peer *p = LIST_ENTRY(it, struct peer, link);
        if (now_ms < p->until_ms)
            continue;
        shutdown(p->fd, SHUT_RDWR); /* the library sees the end and closes it */
        p->until_ms = UINT64_MAX;
        metric_add(&metric_cut, 1);
    }
    pthread_mutex_unlock(&h->lock);
    loop_timer_set(h->timer, SWEEP_MS);
}

const char *httpd_method(const struct httpd_request *r) {
    return r->method;
}

const char *httpd_path(const struct httpd_request *r) {
    return r->path;
}

const struct tcp_addr *httpd_client(const struct httpd_request *r) {
    return &r->client;
}

struct span httpd_body(const struct httpd_request *r) {
    return buf_span(&r->body);
}

/* -- life -- */

static int start(struct httpd *h, int fd, uint32_t connections) {
    /* not epoll: it waits in vain for the end of who says half a request and closes */
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    if (listen(fd, BACKLOG) != 0) {
        close(fd);
        return ERR_IO;
    }
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (connections + 1) / 2, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTPD_HEADER_MAX, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, h, MHD_OPTION_END);
    if (h->daemon)
        return ERR_OK;
    close(fd);
    return ERR_IO;
}

int httpd_open(struct httpd **out, const struct httpd_config *c) {
    struct httpd *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) {
        close(c->fd);
        return ERR_NOMEM;
    }
    list_init(&h->suspended);
    list_init(&h->peers);
    h->cb = c->cb;
    h->arg = c->arg;
    h->read_ms = c->read_ms ? c->read_ms : HTTPD_READ_MS;
    h->write_ms = c->write_ms ? c->write_ms : HTTPD_WRITE_MS;
    CHECK(pthread_mutex_init(&h->gate, NULL) == 0 && pthread_mutex_init(&h->lock, NULL) == 0);
    h->post = post_new(c->loop);
    h->timer = loop_timer_new(c->loop, on_timer, h);
    int err = ERR_NOMEM;
    if (h->post && h->timer)
        err = start(h, c->fd, c->connections_max ? c->connections_max : HTTPD_CONNECTIONS_MAX);
    else
        close(c->fd);
    if (err != ERR_OK) {
        httpd_close(h);
        return err;
    }
    loop_timer_set(h->timer, SWEEP_MS);
    *out = h;
    return ERR_OK;
}

/* Nothing may stay suspended when the library stops. */
static void refuse_suspended(struct httpd *h) {
    pthread_mutex_lock(&h->gate);
    h->closing = true;
    for (struct list_node *node; (node = list_pop_front(&h->suspended));) {
        struct httpd_request *r = LIST_ENTRY(node, struct httpd_request, link);
        bool given = r->given;
        set_plain(r, 503, "closing\n");
        MHD_resume_connection(r->connection);
        if (given) /* else its letter is still to be opened */
            request_unref(r);
    }
    pthread_mutex_unlock(&h->gate);
}

void httpd_close(struct httpd *h) {
    refuse_suspended(h);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    if (h->post)
        post_free(h->post);
    if (h->timer)
        loop_timer_close(h->timer);
    pthread_mutex_destroy(&h->gate);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
