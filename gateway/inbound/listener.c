/*
 * listener: takes new connections, applies the limits, and greets.
 *
 * A client that speaks before it is greeted is no mail server. To find it, greeting waits: for
 * pregreet_ms, or, when that is 0, for the next turn of the loop, which reads what has come with the
 * connection and costs no timer.
 */
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/inbound/session.h"

METRIC_COUNTER(metric_sessions, "posthouse_smtp_sessions_total", "Connections accepted")
METRIC_COUNTER_L(metric_total, "posthouse_smtp_connections_refused_total", "limit=\"total\"",
                 "Connections over a limit")
METRIC_COUNTER_L(metric_client, "posthouse_smtp_connections_refused_total", "limit=\"client\"",
                 "Connections over a limit")

enum { REFUSE_OUT_MAX = 256, REFUSE_MS = 2000 };

static void ignore(void *arg, struct tcp *c, enum tcp_event event, int err) {
    (void)arg;
    (void)c;
    (void)event;
    (void)err;
}

static void turn_away(struct tcp *c, const char *text) {
    if (tcp_start(c, REFUSE_OUT_MAX, REFUSE_OUT_MAX, ignore, NULL) != ERR_OK ||
        tcp_write(c, text, strlen(text)) != ERR_OK)
        tcp_close(c);
    else
        tcp_finish(c, REFUSE_MS);
}

static void refuse(struct tcp *c, enum limits_verdict verdict) {
    if (verdict == LIMITS_TOTAL)
        metric_add(&metric_total, 1);
    else if (verdict == LIMITS_CLIENT)
        metric_add(&metric_client, 1);
    turn_away(c, verdict == LIMITS_CLIENT ? "421 4.7.0 too many connections from your network\r\n"
                                          : "421 4.3.2 too many connections, try again later\r\n");
}

static void log_refused(const struct tcp_addr *peer, enum limits_verdict verdict) {
    static const char *const names[] = {"", "total", "client", "memory"};
    char ip[128];
    struct span from = span_make(ip, tcp_addr_ip(peer, ip, sizeof ip));
    LOG_WARN("connection_refused", LOG_SPAN("client", from), LOG_STR("limit", names[verdict]));
}

/* The last slots are for those whom we know. */
static enum limits_verdict enter(struct worker *w, const struct tcp_addr *peer, struct limits_client **client) {
    const struct inbound_limits *l = &w->front->settings.limits;
    uint32_t used = limits_connections(&w->in->limits);
    if (!guard_may_enter(w->in->guard, peer, front_trusts(w->front, peer), used, l->connections, loop_now_ms(w->loop)))
        return LIMITS_TOTAL;
    return limits_enter(&w->in->limits, peer, l->connections, l->connections_per_client, client);
}

void listener_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct worker_listener *place = arg;
    struct worker *w = place->worker;
    const struct inbound_settings *settings = &w->front->settings;
    bool proxy = place->index < settings->listener_count && settings->listeners[place->index].proxy;
    struct limits_client *client = NULL;
    if (w->paused) {
        turn_away(c, "421 4.3.2 this host takes no mail now, try again or another host\r\n");
        return;
    }
    /* Who comes by a balancer is counted when its header has said who it is. */
    enum limits_verdict verdict =
        proxy && front_believes(w->front, peer)
            ? limits_enter(&w->in->limits, peer, settings->limits.connections, settings->limits.connections, &client)
            : enter(w, peer, &client);
    if (verdict != LIMITS_WELCOME) {
        log_refused(peer, verdict);
        refuse(c, verdict);
        return;
    }
    struct session *s = session_new(w, place->index, c, peer, client);
    if (!s) {
        limits_leave(&w->in->limits, client);
        refuse(c, LIMITS_NO_MEMORY);
        return;
    }
    metric_add(&metric_sessions, 1);
    session_open(s);
}

void listener_greet(struct worker *w) {
    uint64_t wait_ms = w->front->settings.pregreet_ms;
    struct list_node *node;
    while ((node = list_first(&w->greeting))) {
        struct session *s = LIST_ENTRY(node, struct session, link);
        bool due = wait_ms ? loop_now_ms(w->loop) - s->opened_ms >= wait_ms : w->turn > s->opened_turn;
        if (!due)
            return;
        session_greet(s);
    }
}
