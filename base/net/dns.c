/*
 * dns: questions through c-ares, answers through dns_parse. c-ares brings retries, several
 * servers, TCP after a cut answer and the matching of answers to questions; it is given whole
 * queries (with EDNS, and AD set so that a validating resolver says so), and gives back whole
 * packets.
 *
 * c-ares tells which descriptors it waits for; each gets a watch on the loop. One timer serves
 * all its deadlines.
 */
#include <ares.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/net/dns.h"
#include "base/net/dns_parse.h"
#include "base/net/tcp.h"
#include "base/rand.h"

enum { EDNS_SIZE = 1232, CLASS_IN = 1, SERVERS_TEXT_MAX = 1024 };

struct dns {
    struct loop *loop;
    ares_channel channel;
    struct loop_timer *timer;
    struct list queries, watches;
    bool closing;
    struct dns_record records[DNS_RECORDS_MAX]; /* of the answer that is being handed out */
};

/* A descriptor that c-ares waits for. */
struct watch {
    struct list_node node;
    struct dns *dns;
    struct loop_poll *poll;
    ares_socket_t fd;
    int events;
};

struct query {
    struct list_node node;
    struct dns *dns;
    dns_cb cb; /* NULL when abandoned */
    void *arg;
    enum dns_type type;
    char name[DNS_NAME_MAX + 1];
};

/* -- descriptors and time -- */

static struct watch *watch_find(struct dns *d, ares_socket_t fd) {
    LIST_FOREACH(node, next, &d->watches) {
        struct watch *w = LIST_ENTRY(node, struct watch, node);
        if (w->fd == fd)
            return w;
    }
    return NULL;
}

static void watch_free(struct watch *w) {
    list_remove(&w->dns->watches, &w->node);
    loop_poll_close(w->poll);
    free(w);
}

static void set_timer(struct dns *d) {
    struct timeval left;
    if (!ares_timeout(d->channel, NULL, &left)) {
        loop_timer_stop(d->timer);
        return;
    }
    /* One more, so that the deadline has passed when the timer fires. */
    loop_timer_set(d->timer, (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 + 1);
}

static void on_timer(void *arg) {
    struct dns *d = arg;
    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timer(d);
}

static void on_ready(void *arg, int events, bool failed) {
    struct watch *w = arg;
    struct dns *d = w->dns;
    ares_socket_t fd = w->fd;
    ares_process_fd(d->channel, failed || (events & LOOP_READABLE) ? fd : ARES_SOCKET_BAD,
                    failed || (events & LOOP_WRITABLE) ? fd : ARES_SOCKET_BAD);
    /* The error has been read; c-ares may still want the descriptor, or has closed it. */
    if (failed && (w = watch_find(d, fd)))
        loop_poll_set(w->poll, w->events);
    set_timer(d);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable) {
    struct dns *d = arg;
    struct watch *w = watch_find(d, fd);
    if (!readable && !writable) {
        if (w)
            watch_free(w);
        return;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        struct loop_poll *poll = w ? loop_poll_new(d->loop, fd, on_ready, w) : NULL;
        if (!poll) { /* the query then ends by its timeout */
            free(w);
            return;
        }
        *w = (struct watch){.dns = d, .poll = poll, .fd = fd};
        list_push_back(&d->watches, &w->node);
    }
    w->events = (readable ? LOOP_READABLE : 0) | (writable ? LOOP_WRITABLE : 0);
    loop_poll_set(w->poll, w->events);
}

/* -- making -- */

static void init_library(void) {
    ares_library_init(ARES_LIB_INIT_ALL);
}

static bool servers_are_good(struct span text) {
    struct span rest;
    if (text.len == 0 || text.len > SERVERS_TEXT_MAX)
        return false;
    do {
        struct tcp_addr a;
        struct span one = span_cut(text, ',', &rest);
        if (tcp_addr_parse(&a, one, 53) && tcp_addr_parse_port(&a, one))
            return false;
        if (a.storage.ss_family != AF_INET && a.storage.ss_family != AF_INET6)
            return false;
        if (one.len < text.len && rest.len == 0)
            return false; /* a comma at the end */
        text = rest;
    } while (text.len);
    return true;
}

static size_t count_servers(ares_channel channel) {
    struct ares_addr_port_node *all = NULL;
    size_t count = 0;
    if (ares_get_servers_ports(channel, &all) != ARES_SUCCESS)
        return 0;
    for (struct ares_addr_port_node *one = all; one; one = one->next)
        count++;
    ares_free_data(all);
    return count;
}

static int open_with(struct dns *d, const char *servers, struct ares_options *options) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&d->channel, options, mask);
    if (status != ARES_SUCCESS) {
        d->channel = NULL;
        return status == ARES_ENOMEM ? ERR_NOMEM : ERR_IO;
    }
    if (servers && ares_set_servers_ports_csv(d->channel, servers) != ARES_SUCCESS)
        return ERR_INVALID;
    return ERR_OK;
}

static int open_channel(struct dns *d, const char *servers, uint32_t timeout_ms, uint32_t tries) {
    struct ares_options options = {
        .flags = ARES_FLAG_EDNS, /* c-ares itself then takes UDP answers of this size */
        .ednspsz = EDNS_SIZE,
        .timeout = (int)timeout_ms,
        .tries = (int)tries,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = d,
    };
    int err = open_with(d, servers, &options);
    if (err || count_servers(d->channel) != 1)
        return err;
    /* After SERVFAIL or REFUSED c-ares asks the next server and forgets the reason. Of an only
     * server we want to hear it. */
    ares_destroy(d->channel);
    options.flags |= ARES_FLAG_NOCHECKRESP;
    return open_with(d, servers, &options);
}

int dns_new(struct dns **to, struct loop *l, const char *servers, uint32_t timeout_ms, uint32_t tries) {
    if ((servers && !servers_are_good(span_of(servers))) || timeout_ms == 0 || tries == 0 || timeout_ms > INT32_MAX ||
        tries > 100)
        return ERR_INVALID;
    struct dns *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    d->loop = l;
    list_init(&d->queries);
    list_init(&d->watches);
    d->timer = loop_timer_new(l, on_timer, d);
    int err = d->timer ? open_channel(d, servers, timeout_ms, tries) : ERR_NOMEM;
    if (err) {
        dns_free(d);
        return err;
    }
    *to = d;
    return ERR_OK;
}

void dns_free(struct dns *d) {
    if (!d)
        return;
    d->closing = true; /* the callbacks of ended queries may ask again */
    if (d->channel)
        ares_destroy(d->channel); /* ends all queries, closes all descriptors */
    while (!list_is_empty(&d->watches))
        watch_free(LIST_ENTRY(list_first(&d->watches), struct watch, node));
    if (d->timer)
        loop_timer_close(d->timer);
    free(d);
}

/* -- questions -- */

static void answer_at_once(dns_cb cb, void *arg, enum dns_status status, const char *why) {
    struct dns_answer a = {.status = status, .why = why};
    cb(arg, &a);
}

static const char *why_of_status(int status) {
    switch (status) {
    case ARES_ETIMEOUT:
        return "timeout";
    case ARES_ESERVFAIL:
        return "server failure";
    case ARES_EREFUSED:
        return "refused";
    case ARES_ECONNREFUSED: /* also when each of several answered with a failure */
        return "no server answered";
    case ARES_ENOTIMP:
    case ARES_EFORMERR:
        return "server error";
    case ARES_EBADRESP:
        return "malformed answer";
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
        return "canceled";
    case ARES_ENOMEM:
        return "out of memory";
    default:
        return "query failed";
    }
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *packet, int len) {
    struct query *q = arg;
    struct dns *d = q->dns;
    (void)timeouts;
    list_remove(&d->queries, &q->node);
    if (q->cb && status == ARES_SUCCESS && packet && len > 0) {
        struct dns_answer a;
        dns_parse(&a, d->records, span_make(packet, (size_t)len), q->name, q->type);
        q->cb(q->arg, &a);
    } else if (q->cb) {
        answer_at_once(q->cb, q->arg, DNS_TEMPFAIL, why_of_status(status));
    }
    free(q);
}

static void send_query(struct dns *d, struct query *q) {
    unsigned char *packet = NULL;
    int len = 0;
    uint16_t id;
    rand_secure(&id, sizeof id); /* must not be guessed by who wants to forge an answer */
    int status = ares_create_query(q->name, CLASS_IN, q->type, id, 1, &packet, &len, EDNS_SIZE);
    if (status != ARES_SUCCESS) {
        on_answer(q, status, 0, NULL, 0);
        return;
    }
    packet[3] |= 0x20; /* AD: we want to know whether the answer was validated */
    ares_send(d->channel, packet, len, on_answer, q);
    ares_free_string(packet);
    set_timer(d);
}

void dns_query(struct dns *d, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    struct span text = span_of(name);
    if (!dns_name_is_good(text)) {
        answer_at_once(cb, arg, DNS_NXDOMAIN, "bad name");
        return;
    }
    if (d->closing) {
        answer_at_once(cb, arg, DNS_TEMPFAIL, "canceled");
        return;
    }
    if (!dns_type_is_known(type)) {
        answer_at_once(cb, arg, DNS_TEMPFAIL, "type is not supported");
        return;
    }
    struct query *q = d->queries.count < DNS_PENDING_MAX ? calloc(1, sizeof *q) : NULL;
    if (!q) {
        answer_at_once(cb, arg, DNS_TEMPFAIL, "too many queries");
        return;
    }
    q->dns = d;
    q->cb = cb;
    q->arg = arg;
    q->type = type;
    span_copy(text, q->name, sizeof q->name);
    list_push_back(&d->queries, &q->node);
    send_query(d, q);
}

void dns_cancel(struct dns *d, void *arg) {
    LIST_FOREACH(node, next, &d->queries) {
        struct query *q = LIST_ENTRY(node, struct query, node);
        if (q->arg == arg)
            q->cb = NULL;
    }
}
