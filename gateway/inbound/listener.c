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

static void refuse(struct tcp *c, enum limits_verdict verdict) {
    const char *text = verdict == LIMITS_CLIENT ? "421 4.7.0 too many connections from your network\r\n"
                                                : "421 4.3.2 too many connections, try again later\r\n";
    if (verdict == LIMITS_TOTAL)
        metric_add(&metric_total, 1);
    else if (verdict == LIMITS_CLIENT)
        metric_add(&metric_client, 1);
    if (tcp_start(c, REFUSE_OUT_MAX, REFUSE_OUT_MAX, ignore, NULL) != ERR_OK ||
        tcp_write(c, text, strlen(text)) != ERR_OK)
        tcp_close(c);
    else
        tcp_finish(c, REFUSE_MS);
}

void listener_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct worker *w = arg;
    const struct inbound_settings *settings = &w->front->settings;
    struct limits_client *client;
    enum limits_verdict verdict = limits_enter(&w->in->limits, peer, settings->limits.connections,
                                               settings->limits.connections_per_client, &client);
    if (verdict != LIMITS_WELCOME) {
        char ip[128];
        struct span from = span_make(ip, tcp_addr_ip(peer, ip, sizeof ip));
        LOG_WARN("connection_refused", LOG_SPAN("client", from),
                 LOG_STR("limit", verdict == LIMITS_CLIENT  ? "client"
                                  : verdict == LIMITS_TOTAL ? "total"
                                                            : "memory"));
        refuse(c, verdict);
        return;
    }
    struct session *s = session_new(w, c, client);
    if (!s) {
        limits_leave(&w->in->limits, client);
        refuse(c, LIMITS_NO_MEMORY);
        return;
    }
    metric_add(&metric_sessions, 1);
    if (settings->pregreet == INBOUND_PREGREET_OFF)
        session_greet(s);
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
