/*
 * bus_zap: see bus_zap.h. A REP socket at inproc://zeromq.zap.01 on a thread of its own, which the I/O threads of
 * ZeroMQ ask; it is bound before any server is. What it lets in it calls by the public key, not by the name: hubs look
 * the name up for each message, so that neither a removed key nor a name that has got another key lives on in an old
 * connection.
 */
#include "base/net/bus_zap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/net/bus_keys.h"
#include "base/net/bus_zmq.h"

#define ENDPOINT "inproc://zeromq.zap.01"
enum { PARTS = 7, BINARY_LEN = 32, REQUEST_ID_MAX = 255, VALUE_MAX = 1024 };
enum { VERSION, REQUEST_ID, DOMAIN, ADDRESS, ROUTING_ID, MECHANISM, CREDENTIALS };

METRIC_COUNTER(metric_let_in, "posthouse_bus_keys_let_in_total", "Handshakes of known keys")
METRIC_COUNTER(metric_refused, "posthouse_bus_keys_refused_total", "Handshakes of unknown keys, or malformed ones")

struct entry {
    char domain[BUS_ZAP_DOMAIN_MAX + 1];
    char key[BUS_KEY_LEN + 1];
    char user[BUS_ZAP_USER_MAX + 1];
};

struct bus_zap {
    void *socket;
    int stop; /* eventfd */
    pthread_t thread;
    bool started;
    atomic_bool running;
    pthread_rwlock_t lock; /* of the list */
    struct entry *list;    /* by domain and key */
    size_t count;
};

/* -- the list -- */

static int compare(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int order = strcmp(x->domain, y->domain);
    return order ? order : strcmp(x->key, y->key);
}

static bool put(char *to, size_t max, struct span s) {
    if (s.len == 0 || s.len > max || memchr(s.at, 0, s.len))
        return false;
    memcpy(to, s.at, s.len);
    to[s.len] = '\0';
    return true;
}

/* Appends the grants; false: one is malformed. */
static bool add_grants(struct entry *list, size_t *count, const char *domain, const struct bus_grant *grants,
                       size_t grant_count) {
    for (size_t i = 0; i < grant_count; i++) {
        struct entry *e = &list[(*count)++];
        if (!bus_key_is_good(span_of(grants[i].key)) || !put(e->key, BUS_KEY_LEN, span_of(grants[i].key)) ||
            !put(e->user, BUS_ZAP_USER_MAX, span_of(grants[i].user)) ||
            !put(e->domain, BUS_ZAP_DOMAIN_MAX, span_of(domain)))
            return false;
    }
    return true;
}

static bool has_twice(const struct entry *list, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (compare(&list[i - 1], &list[i]) == 0)
            return true;
    return false;
}

/* Under the write lock. */
static int replace(struct bus_zap *z, const char *domain, const struct bus_grant *grants, size_t count) {
    if (z->count + count > BUS_ZAP_GRANTS_MAX)
        return ERR_FULL;
    struct entry *fresh = calloc(z->count + count + 1, sizeof *fresh);
    size_t n = 0;
    if (!fresh)
        return ERR_NOMEM;
    for (size_t i = 0; i < z->count; i++)
        if (strcmp(z->list[i].domain, domain) != 0)
            fresh[n++] = z->list[i];
    bool good = add_grants(fresh, &n, domain, grants, count);
    if (good)
        qsort(fresh, n, sizeof *fresh, compare);
    if (!good || has_twice(fresh, n)) {
        free(fresh);
        return ERR_INVALID;
    }
    free(z->list);
    z->list = fresh;
    z->count = n;
    return ERR_OK;
}

int bus_zap_allow(struct bus *b, const char *domain, const struct bus_grant *grants, size_t count) {
    struct bus_zap *z = b->zap;
    if (!z || !atomic_load(&z->running))
        return ERR_CLOSED;
    pthread_rwlock_wrlock(&z->lock);
    int err = count > BUS_ZAP_GRANTS_MAX ? ERR_FULL : replace(z, domain, grants, count);
    pthread_rwlock_unlock(&z->lock);
    return err;
}

bool bus_zap_user(struct bus *b, const char *domain, struct span key, char user[BUS_ZAP_USER_MAX + 1]) {
    struct bus_zap *z = b->zap;
    struct entry wanted = {.user = ""};
    user[0] = '\0';
    if (!z || !atomic_load(&z->running) || !put(wanted.domain, BUS_ZAP_DOMAIN_MAX, span_of(domain)) ||
        !put(wanted.key, BUS_KEY_LEN, key))
        return false;
    pthread_rwlock_rdlock(&z->lock);
    const struct entry *e = z->count ? bsearch(&wanted, z->list, z->count, sizeof *z->list, compare) : NULL;
    if (e)
        memcpy(user, e->user, sizeof e->user);
    pthread_rwlock_unlock(&z->lock);
    return e != NULL;
}

/* -- the handler -- */

static struct span part_span(zmq_msg_t *m) {
    return span_make(zmq_msg_data(m), zmq_msg_size(m));
}

/* All parts of a request; those over PARTS are read and dropped. Returns how many came, or 0. */
static unsigned receive(void *socket, zmq_msg_t parts[PARTS]) {
    unsigned count = 0;
    for (bool more = true; more; count++) {
        zmq_msg_t extra, *m = count < PARTS ? &parts[count] : &extra;
        zmq_msg_init(m);
        if (zmq_msg_recv(m, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(m);
            break;
        }
        more = zmq_msg_more(m);
        if (m == &extra)
            zmq_msg_close(m);
    }
    return count;
}

static void answer(void *socket, struct span request_id, const char *status, const char *text, struct span user) {
    const struct span parts[] = {SPAN("1.0"), request_id, span_of(status), span_of(text), user, SPAN_EMPTY};
    enum { COUNT = sizeof parts / sizeof *parts };
    for (unsigned i = 0; i < COUNT; i++) {
        int more = i + 1 < COUNT ? ZMQ_SNDMORE : 0;
        if (zmq_send(socket, parts[i].len ? parts[i].at : "", parts[i].len, more) < 0)
            return; /* who asked has gone */
    }
}

static const char *flaw_of(zmq_msg_t *parts, unsigned count) {
    if (count != PARTS)
        return "malformed request";
    for (unsigned i = 0; i < PARTS; i++)
        if (zmq_msg_size(&parts[i]) > VALUE_MAX)
            return "oversize request";
    if (!span_eq(part_span(&parts[VERSION]), SPAN("1.0")))
        return "unknown version";
    if (!span_eq(part_span(&parts[MECHANISM]), SPAN("CURVE")))
        return "not CURVE";
    if (zmq_msg_size(&parts[CREDENTIALS]) != BINARY_LEN)
        return "malformed key";
    return NULL;
}

static void judge(struct bus *b, zmq_msg_t *parts, unsigned count) {
    struct bus_zap *z = b->zap;
    char key[BUS_KEY_LEN + 1] = "", domain[BUS_ZAP_DOMAIN_MAX + 1] = "", user[BUS_ZAP_USER_MAX + 1] = "";
    struct span id = count > REQUEST_ID ? span_first(part_span(&parts[REQUEST_ID]), REQUEST_ID_MAX) : SPAN_EMPTY;
    const char *flaw = flaw_of(parts, count);
    if (!flaw && !zmq_z85_encode(key, zmq_msg_data(&parts[CREDENTIALS]), BINARY_LEN))
        flaw = "malformed key";
    if (!flaw && !put(domain, BUS_ZAP_DOMAIN_MAX, part_span(&parts[DOMAIN])))
        flaw = "unknown domain";
    if (!flaw && !bus_zap_user(b, domain, span_of(key), user))
        flaw = "unknown key";
    if (flaw) {
        metric_add(&metric_refused, 1);
        LOG_WARN("bus_key_refused", LOG_STR("why", flaw), LOG_STR("domain", domain), LOG_STR("key", key),
                 LOG_SPAN("address", count > ADDRESS ? span_first(part_span(&parts[ADDRESS]), 100) : SPAN_EMPTY));
        answer(z->socket, id, "400", flaw, SPAN_EMPTY);
        return;
    }
    metric_add(&metric_let_in, 1);
    LOG_DEBUG("bus_key_let_in", LOG_STR("domain", domain), LOG_STR("user", user),
              LOG_SPAN("address", part_span(&parts[ADDRESS])));
    answer(z->socket, id, "200", "OK", span_of(key));
}

static void serve_one(struct bus *b) {
    zmq_msg_t parts[PARTS];
    unsigned count = receive(b->zap->socket, parts);
    if (count)
        judge(b, parts, count);
    for (unsigned i = 0; i < count && i < PARTS; i++)
        zmq_msg_close(&parts[i]);
}

static void *serve(void *arg) {
    struct bus *b = arg;
    struct bus_zap *z = b->zap;
    BUS_TAKE_OVER();
    for (;;) {
        zmq_pollitem_t items[] = {{.socket = z->socket, .events = ZMQ_POLLIN}, {.fd = z->stop, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
            break;
        if (items[1].revents)
            break;
        if (items[0].revents)
            serve_one(b);
    }
    atomic_store(&z->running, false); /* whatever the reason: nobody is heard */
    zmq_close(z->socket);
    return NULL;
}

/* -- life -- */

static int open_socket(struct bus *b) {
    int zero = 0;
    b->zap->socket = zmq_socket(b->context, ZMQ_REP);
    if (!b->zap->socket)
        return ERR_NOMEM;
    if (zmq_setsockopt(b->zap->socket, ZMQ_LINGER, &zero, sizeof zero) == 0 && zmq_bind(b->zap->socket, ENDPOINT) == 0)
        return ERR_OK;
    int err = errno == EADDRINUSE ? ERR_EXISTS : ERR_IO;
    zmq_close(b->zap->socket);
    return err;
}

int bus_zap_start(struct bus *b) {
    if (!zmq_has("curve"))
        return ERR_UNSUPPORTED;
    if (b->zap)
        return ERR_EXISTS;
    struct bus_zap *z = calloc(1, sizeof *z);
    if (!z)
        return ERR_NOMEM;
    z->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (z->stop < 0 || pthread_rwlock_init(&z->lock, NULL)) {
        if (z->stop >= 0)
            close(z->stop);
        free(z);
        return ERR_NOMEM;
    }
    b->zap = z;
    int err = open_socket(b);
    BUS_HAND_OVER();
    atomic_store(&z->running, err == ERR_OK);
    if (err == ERR_OK && pthread_create(&z->thread, NULL, serve, b)) {
        zmq_close(z->socket);
        err = ERR_NOMEM;
    }
    z->started = err == ERR_OK;
    if (err != ERR_OK)
        bus_zap_free(b);
    return err;
}

void bus_zap_stop(struct bus *b) {
    struct bus_zap *z = b->zap;
    uint64_t one = 1;
    if (!z || !z->started)
        return;
    z->started = false;
    atomic_store(&z->running, false);
    while (write(z->stop, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_join(z->thread, NULL);
}

void bus_zap_free(struct bus *b) {
    struct bus_zap *z = b->zap;
    if (!z)
        return;
    bus_zap_stop(b);
    pthread_rwlock_destroy(&z->lock);
    close(z->stop);
    free(z->list);
    free(z);
    b->zap = NULL;
}

bool bus_zap_is_running(const struct bus *b) {
    return b->zap && atomic_load(&b->zap->running);
}
