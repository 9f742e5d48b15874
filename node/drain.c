/*
 * drain: how the node ends, and how it pauses. The end: the gateway first, then scheduler and delivery, so that what
 * was accepted is settled as far as it goes; then the process. A pause, which operators ask for: the gateway answers
 * 421, the delivery node finishes what is on a connection and is given nothing more; the queue stays open to operators,
 * and the process stays.
 */
#include "base/log.h"
#include "base/metrics.h"

#include "node/node_in.h"
#include "node/notify.h"

#define DRAIN_GATEWAY_MS 30000u
#define DRAIN_DELIVERY_MS 60000u

METRIC_GAUGE(metric_paused, "posthouse_node_drained", "1 while an operator has drained this node")

static void on_part_drained(void *arg) { /* on a part's thread */
    struct node *n = arg;
    atomic_fetch_add(&n->drained, 1);
    loop_wake_send(n->wake);
}

static void stop(struct node *n) {
    n->phase = PHASE_STOPPED;
    loop_stop(n->loop);
}

static void drain_delivery(struct node *n) {
    n->phase = PHASE_DRAIN_DELIVERY;
    atomic_store(&n->drained, 0);
    /* The scheduler first: it stops assigning what the delivery node hands back. */
    n->scheduler_draining = n->scheduler != NULL;
    if (n->scheduler)
        scheduler_drain(n->scheduler, DRAIN_DELIVERY_MS, on_part_drained, n);
    else
        on_part_drained(n);
    if (n->outbound)
        outbound_drain(n->outbound, DRAIN_DELIVERY_MS, on_part_drained, n);
    else
        on_part_drained(n);
}

void drain_on_wake(void *arg) {
    struct node *n = arg;
    unsigned drained = atomic_load(&n->drained);
    if (n->phase == PHASE_DRAIN_GATEWAY && drained >= 1)
        drain_delivery(n);
    else if (n->phase == PHASE_DRAIN_DELIVERY && drained >= 2)
        stop(n);
}

void drain_on_signal(struct node *n, int signum) {
    if (n->phase != PHASE_RUNNING) {
        LOG_WARN("stop_at_once", LOG_U64("signal", signum));
        stop(n);
        return;
    }
    LOG_INFO("drain", LOG_U64("signal", signum));
    notify_state(NOTIFY_STATE_STOPPING);
    n->phase = PHASE_DRAIN_GATEWAY;
    atomic_store(&n->drained, 0);
    if (n->inbound)
        inbound_drain(n->inbound, DRAIN_GATEWAY_MS, on_part_drained, n);
    else
        on_part_drained(n);
}

bool drain_pause(struct node *n, bool paused) {
    if (n->phase != PHASE_RUNNING || n->paused == paused)
        return false;
    n->paused = paused;
    metric_set(&metric_paused, paused);
    if (n->inbound)
        inbound_pause(n->inbound, paused);
    if (n->outbound)
        outbound_pause(n->outbound, paused);
    notify_state(paused ? NOTIFY_STATE_PAUSED : NOTIFY_STATE_RESUMED);
    if (paused)
        LOG_WARN("node_drained", LOG_STR("effect", "new mail is answered 421, and nothing new is delivered"));
    else
        LOG_INFO("node_undrained");
    return true;
}
