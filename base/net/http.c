/*
 * http: see http.h. libcurl's multi interface is driven by the loop: it names descriptors to watch and one time-out;
 * we tell it what happened and then collect what has ended. Callbacks run from that collecting only, so they may ask,
 * cancel and free as they like.
 *
 * Pieces of answers wait in the request for that collecting, too: libcurl may not be called from its own callbacks.
 *
 * The time of a question is kept by a timer of our own, since libcurl does not count the time that a question waits for
 * one of the few connections to its host. Answers are bounded in head and body, proxies of the environment are
 * ignored, redirects are answers like others, and certificates are always verified.
 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/list.h"
#include "base/metrics.h"

#include "base/net/http.h"

enum { CONNECTIONS_DEFAULT = 16, HEAD_MAX = 64 * 1024, WHY_MAX = 300, IDLE_S = 60, KEEPALIVE_S = 5 };

METRIC_COUNTER(asked, "posthouse_http_requests_total", "Questions to HTTP services");
METRIC_COUNTER(failed, "posthouse_http_requests_failed_total", "Questions to HTTP services without an answer");

struct watched { /* a descriptor of libcurl's */
    struct list_node node;
    struct http *h;
    struct loop_poll *poll;
    curl_socket_t fd;
};
struct http {
    struct loop *loop;
    struct loop_timer *timer;
    CURLM *multi;
    struct list requests, watched;
    struct list fed; /* requests that have a piece to hand over */
    char *ca_file, *certificate, *key;
    unsigned busy; /* callbacks on the stack */
    bool closing;
};
struct http_request {
    struct list_node node, fed;
    struct http *h;
    struct loop_timer *timer;
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    struct buf body;
    size_t head;
    bool full, once;
    unsigned sent; /* times that it went, or began to go, out */
    http_part_cb part;
    http_cb cb;
    void *arg;
    char error[CURL_ERROR_SIZE];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable;

static void set_up(void) {
    usable = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

/* -- ends -- */

static void request_free(struct http_request *r) {
    if (list_is_linked(&r->node)) {
        curl_multi_remove_handle(r->h->multi, r->easy);
        list_remove(&r->h->requests, &r->node);
    }
    if (list_is_linked(&r->fed))
        list_remove(&r->h->fed, &r->fed);
    if (r->timer)
        loop_timer_close(r->timer);
    if (r->easy)
        curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    curl_slist_free_all(r->connect_to);
    buf_deinit(&r->body);
    free(r);
}

static void free_parts(struct http *h) {
    struct list_node *n;
    while ((n = list_first(&h->requests)))
        request_free(LIST_ENTRY(n, struct http_request, node));
    if (h->multi)
        curl_multi_cleanup(h->multi);
    while ((n = list_pop_front(&h->watched))) {
        struct watched *w = LIST_ENTRY(n, struct watched, node);
        loop_poll_close(w->poll);
        free(w);
    }
    if (h->timer)
        loop_timer_close(h->timer);
    free(h->ca_file);
    free(h->certificate);
    free(h->key);
    free(h);
}

void http_free(struct http *h) {
    if (!h)
        return;
    h->closing = true;
    if (!h->busy)
        free_parts(h);
}

void http_cancel(struct http_request *r) {
    if (r)
        request_free(r);
}

static int err_of(const struct http_request *r, CURLcode code) {
    switch (code) {
    case CURLE_OK:
        return ERR_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
        return ERR_UNREACHABLE;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return ERR_DENIED;
    case CURLE_OUT_OF_MEMORY:
        return ERR_NOMEM;
    default:
        return r->full ? ERR_FULL : r->body.err == ERR_NOMEM ? ERR_NOMEM : ERR_IO;
    }
}

/* The last words of a request: its memory goes when the callback has returned. */
static void tell(struct http_request *r, int err, const char *why) {
    struct http *h = r->h;
    struct http_answer a = {.err = err, .why = "", .sent = r->sent > 0};
    struct buf line;
    long status = 0;
    const char *type = NULL;
    buf_init(&line, WHY_MAX);
    if (err) {
        metric_add(&failed, 1);
        buf_add_escaped(&line, span_of(*why ? why : err_text(err)));
        a.why = buf_cstr(&line);
    } else {
        curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(r->easy, CURLINFO_CONTENT_TYPE, &type);
        a.status = (uint32_t)status;
        a.body = r->part ? SPAN_EMPTY : buf_span(&r->body);
        a.content_type = span_of(type);
    }
    curl_multi_remove_handle(h->multi, r->easy);
    list_remove(&h->requests, &r->node);
    h->busy++;
    r->cb(r->arg, &a);
    h->busy--;
    buf_deinit(&line);
    request_free(r);
}

/* Whoever hears of a piece may end the request, so that its octets are taken out before. */
static void hand_over(struct http *h) {
    struct list_node *n;
    while (!h->closing && (n = list_pop_front(&h->fed))) {
        struct http_request *r = LIST_ENTRY(n, struct http_request, fed);
        struct buf octets = r->body;
        long status = 0;
        buf_init(&r->body, octets.max);
        curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
        h->busy++;
        r->part(r->arg, (uint32_t)status, buf_span(&octets));
        h->busy--;
        buf_deinit(&octets);
    }
}

/* Tells all that have ended; afterwards h may be gone. */
static void collect(struct http *h) {
    CURLMsg *m;
    int left;
    if (h->busy)
        return;
    hand_over(h);
    while (!h->closing && (m = curl_multi_info_read(h->multi, &left))) {
        struct http_request *r = NULL;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        int err = err_of(r, code);
        tell(r, err, err == ERR_FULL ? "the answer is too long" : r->error[0] ? r->error : curl_easy_strerror(code));
    }
    if (h->closing)
        free_parts(h);
}

static void on_deadline(void *arg) {
    struct http_request *r = arg;
    struct http *h = r->h;
    tell(r, ERR_TIMEOUT, "no answer in time");
    if (h->closing && !h->busy)
        free_parts(h);
}

/* -- between libcurl and the loop -- */

static void act(struct http *h, curl_socket_t fd, int events) {
    int running;
    curl_multi_socket_action(h->multi, fd, events, &running);
    collect(h);
}

static void on_poll(void *arg, int events, bool failed_) {
    struct watched *w = arg;
    int bits = (events & LOOP_READABLE ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITABLE ? CURL_CSELECT_OUT : 0);
    act(w->h, w->fd, failed_ ? CURL_CSELECT_ERR | CURL_CSELECT_IN | CURL_CSELECT_OUT : bits);
}

static void on_timer(void *arg) {
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void unwatch(struct http *h, struct watched *w) {
    list_remove(&h->watched, &w->node);
    loop_poll_close(w->poll);
    free(w);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg) {
    struct http *h = arg;
    struct watched *w = socket_arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            unwatch(h, w);
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w)
            return -1;
        *w = (struct watched){.h = h, .fd = fd, .poll = loop_poll_new(h->loop, fd, on_poll, w)};
        if (!w->poll) {
            free(w);
            return -1;
        }
        list_push_back(&h->watched, &w->node);
        curl_multi_assign(h->multi, fd, w);
    }
    loop_poll_set(w->poll, (what & CURL_POLL_IN ? LOOP_READABLE : 0) | (what & CURL_POLL_OUT ? LOOP_WRITABLE : 0));
    return 0;
}

static int on_timeout(CURLM *multi, long delay_ms, void *arg) {
    struct http *h = arg;
    (void)multi;
    if (delay_ms < 0)
        loop_timer_stop(h->timer);
    else
        loop_timer_set(h->timer, (uint64_t)delay_ms);
    return 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    struct http_request *r = arg;
    int err = buf_append(&r->body, bytes, size * count);
    r->full |= err == ERR_FULL;
    if (r->part && buf_len(&r->body) && !list_is_linked(&r->fed))
        list_push_back(&r->h->fed, &r->fed);
    return err == ERR_OK ? size * count : 0;
}

/* Before each sending, on a new connection or on a kept one. */
static int on_sending(void *arg, char *remote, char *local, int remote_port, int local_port) {
    struct http_request *r = arg;
    (void)remote, (void)local, (void)remote_port, (void)local_port;
    if (r->once && r->sent)
        return CURL_PREREQFUNC_ABORT;
    r->sent++;
    return CURL_PREREQFUNC_OK;
}

static size_t on_head(char *bytes, size_t size, size_t count, void *arg) {
    struct http_request *r = arg;
    (void)bytes;
    r->head += size * count;
    r->full |= r->head > HEAD_MAX;
    return r->full ? 0 : size * count;
}

/* -- beginning -- */

static bool copy_text(char **to, const char *text) {
    *to = text ? strdup(text) : NULL;
    return !text || *to;
}

int http_new(struct http **out, struct loop *l, const struct http_config *c) {
    *out = NULL;
    pthread_once(&once, set_up);
    struct http *h = usable ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return ERR_NOMEM;
    h->loop = l;
    list_init(&h->requests);
    list_init(&h->watched);
    list_init(&h->fed);
    h->multi = curl_multi_init();
    h->timer = loop_timer_new(l, on_timer, h);
    if (!h->multi || !h->timer || !copy_text(&h->ca_file, c->ca_file) || !copy_text(&h->certificate, c->certificate) ||
        !copy_text(&h->key, c->key)) {
        free_parts(h);
        return ERR_NOMEM;
    }
    long connections = c->connections_max ? (long)c->connections_max : CONNECTIONS_DEFAULT;
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, connections);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, connections);
    *out = h;
    return ERR_OK;
}

static bool add_line(struct curl_slist **list, const char *line) {
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer;
}

bool http_is_url(const char *text) {
    if (!text)
        return false;
    CURLU *u = curl_url();
    bool good = u && curl_url_set(u, CURLUPART_URL, text, 0) == CURLUE_OK;
    curl_url_cleanup(u);
    return good && (strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0);
}

static void set_safety(const struct http *h, CURL *e) {
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)IDLE_S);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (h->ca_file) { /* only these */
        curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
    }
    if (h->certificate) {
        curl_easy_setopt(e, CURLOPT_SSLCERT, h->certificate);
        curl_easy_setopt(e, CURLOPT_SSLKEY, h->key ? h->key : h->certificate);
    }
}

static bool set_lists(struct http_request *r, const struct http_question *q) {
    bool ok = add_line(&r->headers, "Expect:") && add_line(&r->headers, "User-Agent: posthouse");
    for (size_t i = 0; ok && q->headers && q->headers[i]; i++)
        ok = !strpbrk(q->headers[i], "\r\n") && add_line(&r->headers, q->headers[i]);
    if (ok && q->connect_to) {
        struct buf to;
        buf_init(&to, 512);
        buf_add_str(&to, "::"); /* whatever host and port the URL has */
        buf_add_str(&to, q->connect_to);
        ok = to.err == ERR_OK && add_line(&r->connect_to, buf_cstr(&to));
        buf_deinit(&to);
    }
    return ok;
}

/* An endless answer may be silent for long: the connection is looked after by the system. */
static void set_times(CURL *e, const struct http_question *q) {
    if (q->connect_ms)
        curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)q->connect_ms);
    if (!q->part)
        return;
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S);
}

static bool set_question(struct http_request *r, const struct http_question *q) {
    CURL *e = r->easy;
    bool ok = set_lists(r, q) && curl_easy_setopt(e, CURLOPT_URL, q->url) == CURLE_OK;
    bool posts = q->body.len || strcmp(q->method, "POST") == 0;
    if (posts) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body.len);
        ok = ok && curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, q->body.len ? q->body.at : "") == CURLE_OK;
    }
    if (strcmp(q->method, posts ? "POST" : "GET") != 0)
        ok = ok && curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method) == CURLE_OK;
    if (q->user) {
        curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        ok = ok && curl_easy_setopt(e, CURLOPT_USERNAME, q->user) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_PASSWORD, q->password ? q->password : "") == CURLE_OK;
    }
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(e, CURLOPT_CONNECT_TO, r->connect_to);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->error);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_sending);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, r);
    curl_easy_setopt(e, CURLOPT_PRIVATE, r);
    return ok;
}

struct http_request *http_ask(struct http *h, const struct http_question *q, http_cb cb, void *arg) {
    CHECK(!h->closing);
    bool may = h->requests.count < HTTP_PENDING_MAX && http_is_url(q->url);
    struct http_request *r = may ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return NULL;
    *r = (struct http_request){.h = h, .cb = cb, .arg = arg, .part = q->part, .once = q->once};
    buf_init(&r->body, q->answer_max);
    r->easy = curl_easy_init();
    r->timer = loop_timer_new(h->loop, on_deadline, r);
    if (!r->easy || !r->timer || !set_question(r, q)) {
        request_free(r);
        return NULL;
    }
    set_safety(h, r->easy);
    set_times(r->easy, q);
    if (curl_multi_add_handle(h->multi, r->easy) != CURLM_OK) { /* only sets the timer: nothing runs in here */
        request_free(r);
        return NULL;
    }
    list_push_back(&h->requests, &r->node);
    if (q->timeout_ms || !q->part)
        loop_timer_set(r->timer, q->timeout_ms);
    metric_add(&asked, 1);
    return r;
}
