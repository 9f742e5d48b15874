/*
 * node: see node.h. It holds one of each part, starts them in order, passes reloads on, and runs the drain. No
 * mail passes through here.
 */
#include "node/node.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/web.h"
#include "base/check.h"
#include "base/clock.h"
#include "node/notify.h"
#include "node/privilege.h"
#include "node/reload.h"
#include "node/signer.h"

#define SCHEDULER_HUB "inproc://scheduler"
#define DRAIN_GATEWAY_MS 30000u
#define DRAIN_DELIVERY_MS 60000u
#define READY_POLL_MS 5u

enum phase { PHASE_RUNNING, PHASE_DRAIN_GATEWAY, PHASE_DRAIN_DELIVERY, PHASE_STOPPED };

struct node {
    struct settings *settings;
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *ready; /* until readiness is announced */
    struct loop_wake *wake;   /* a part has drained */
    struct loop_signal *signals[3];
    struct admin *admin;
    struct web *web; /* NULL: no HTTP face */
    int web_fd;      /* bound, until the face takes it; -1: none */
    struct store *store;
    struct scheduler *scheduler;
    bool scheduler_draining;
    struct outbound *outbound;
    struct inbound *inbound;
    struct parts *parts;
    struct signer *signer; /* of reports */
    struct reload *reload;
    int (*fds)[16]; /* of each gateway loop and listener; -1: none, or handed over */
    enum phase phase;
    atomic_uint drained; /* parts that have drained in this phase */
    int status;
};

/* -- start -- */

static void close_fds(struct node *n) {
    for (uint32_t i = 0; n->fds && i < n->settings->loops; i++)
        for (uint32_t k = 0; k < n->settings->inbound.listener_count; k++)
            if (n->fds[i][k] >= 0)
                close(n->fds[i][k]);
    free(n->fds);
    n->fds = NULL;
}

static int bind_all(struct node *n) {
    const struct settings *s = n->settings;
    n->fds = malloc(s->loops * sizeof *n->fds);
    if (!n->fds)
        return EX_OSERR;
    for (uint32_t i = 0; i < s->loops; i++)
        for (uint32_t k = 0; k < 16; k++)
            n->fds[i][k] = -1;
    for (uint32_t i = 0; i < s->loops; i++) {
        for (uint32_t k = 0; k < s->inbound.listener_count; k++) {
            char text[128];
            n->fds[i][k] = tcp_bind(&s->inbound.listeners[k].address, true);
            if (n->fds[i][k] >= 0)
                continue;
            tcp_addr_format(&s->inbound.listeners[k].address, text, sizeof text);
            LOG_ERROR("bind_failed", LOG_STR("address", text), LOG_ERR("why", n->fds[i][k]));
            n->fds[i][k] = -1;
            return EX_UNAVAILABLE;
        }
    }
    return EX_OK;
}

/* A store that is damaged does not stop the gateway: it answers 451, and the log names the damage. Nothing that was
 * acknowledged is dropped in silence. */
static int open_store(struct node *n) {
    char path[4096];
    struct store_report report = {0};
    snprintf(path, sizeof path, "%s/queue", n->settings->data_dir);
    struct store_config c = {.path = path,
                             .node = n->settings->name,
                             .memory_bytes = n->settings->memory,
                             .reserve_bytes = 64u * 1024u * 1024u};
    int err = store_open(&n->store, &c, &report);
    if (err == ERR_OK) {
        LOG_INFO("store_open", LOG_STR("path", path), LOG_U64("created", report.created));
        return EX_OK;
    }
    LOG_ERROR("store_refused", LOG_STR("path", path), LOG_ERR("why", err), LOG_STR("damage", report.damage));
    n->store = NULL;
    if (err != ERR_CORRUPT)
        return EX_IOERR;
    LOG_ERROR("queue_closed", LOG_STR("effect", "mail is answered 451 until the store is repaired"),
              LOG_STR("hint", "posthouse store verify"));
    return EX_OK;
}

static int start_scheduler(struct node *n) {
    if (!(n->settings->roles & SETTINGS_SCHEDULER))
        return EX_OK;
    int status = open_store(n);
    if (status != EX_OK || !n->store)
        return status;
    struct scheduler_config c = {.bus = n->bus,
                                 .endpoint = SCHEDULER_HUB,
                                 .admin = ADMIN_HUB,
                                 .shards = n->settings->shards,
                                 .sign = signer_sign,
                                 .sign_arg = n->signer};
    int err = scheduler_start(&n->scheduler, &c, &n->settings->scheduler, n->store);
    if (err == ERR_OK)
        return EX_OK;
    LOG_ERROR("scheduler_refused", LOG_ERR("why", err));
    return err == ERR_CORRUPT || err == ERR_IO ? EX_IOERR : EX_OSERR;
}

static int start_delivery(struct node *n) {
    if (!(n->settings->roles & SETTINGS_DELIVERY))
        return EX_OK;
    struct outbound_config c = {.bus = n->bus,
                                .scheduler = SCHEDULER_HUB,
                                .admin = ADMIN_HUB,
                                .jobs_max = 2000,
                                .bytes_max = 64u * 1024u * 1024u,
                                .sign = signer_sign,
                                .sign_arg = n->signer};
    int err = outbound_start(&n->outbound, &c, &n->settings->outbound);
    if (err != ERR_OK)
        LOG_ERROR("delivery_refused", LOG_ERR("why", err));
    return err == ERR_OK ? EX_OK : EX_OSERR;
}

static int start_gateway(struct node *n) {
    if (!(n->settings->roles & SETTINGS_GATEWAY))
        return EX_OK;
    struct inbound_config c = {.bus = n->bus,
                               .scheduler = SCHEDULER_HUB,
                               .admin = ADMIN_HUB,
                               .loops = n->settings->loops,
                               .fds = (const int(*)[16])n->fds,
                               .listeners = (uint32_t)n->settings->inbound.listener_count};
    struct inbound_parts parts = parts_inbound(n->parts);
    int err = inbound_start(&n->inbound, &c, &n->settings->inbound, &parts);
    if (err != ERR_OK) {
        LOG_ERROR("gateway_refused", LOG_ERR("why", err));
        return EX_OSERR;
    }
    free(n->fds); /* the sockets are the gateway's now */
    n->fds = NULL;
    return EX_OK;
}

static int make_parts(struct node *n) {
    struct buf problems;
    buf_init(&problems, 65536);
    int err = parts_new(&n->parts, n->settings, NULL, &problems);
    reload_log_problems(&problems);
    buf_deinit(&problems);
    if (err != ERR_OK)
        return EX_CONFIG;
    n->signer = signer_new(n->settings->data_dir);
    if (!n->signer)
        return EX_OSERR;
    signer_use(n->signer, parts_inbound(n->parts).mailauth);
    return EX_OK;
}

/* -- reload -- */

static bool same_listeners(const struct inbound_settings *a, const struct inbound_settings *b) {
    if (a->listener_count != b->listener_count)
        return false;
    for (size_t i = 0; i < a->listener_count; i++) {
        const struct tcp_addr *x = &a->listeners[i].address, *y = &b->listeners[i].address;
        if (!tcp_addr_same_ip(x, y) || tcp_addr_port(x) != tcp_addr_port(y))
            return false;
    }
    return true;
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_reports(const struct outbound_tls *a, const struct outbound_tls *b) {
    return a->mta_sts == b->mta_sts && same_text(a->reports.organization, b->reports.organization) &&
           same_text(a->reports.contact, b->reports.contact) && same_text(a->reports.from, b->reports.from) &&
           a->reports.spread_ms == b->reports.spread_ms;
}

static bool needs_restart(const struct settings *a, const struct settings *b) {
    return a->roles != b->roles || a->loops != b->loops || !same_listeners(&a->inbound, &b->inbound) ||
           a->shards != b->shards || a->memory != b->memory || strcmp(a->user, b->user) != 0 ||
           strcmp(a->data_dir, b->data_dir) != 0 || strcmp(a->name, b->name) != 0 ||
           strcmp(a->admin_rpc, b->admin_rpc) != 0 || !same_text(a->admin_http, b->admin_http) ||
           !same_reports(&a->outbound.tls, &b->outbound.tls);
}

/* What cannot change without a restart stays as it was started. The listeners above all: by them the delivery node
 * knows which addresses are ours, and mail must not come back to us. What a listener offers may change. */
static void keep_started(struct settings *s, const struct settings *started) {
    s->loops = started->loops;
    if (same_listeners(&s->inbound, &started->inbound))
        return;
    memcpy(s->inbound.listeners, started->inbound.listeners, sizeof s->inbound.listeners);
    s->inbound.listener_count = started->inbound.listener_count;
    struct tcp_addr *listen = (struct tcp_addr *)(uintptr_t)s->outbound.own_listen;
    for (size_t i = 0; i < s->inbound.listener_count; i++)
        listen[i] = s->inbound.listeners[i].address;
    s->outbound.own_listen_count = s->inbound.listener_count;
}

static void take_settings(struct node *n, struct settings *s) {
    if (needs_restart(n->settings, s))
        LOG_WARN(
            "restart_needed",
            LOG_STR("why",
                    "node name, roles, user, memory, data_dir, listeners, loops, shards, the RPC endpoint, admin.http, "
                    "delivery.tls.mta_sts or delivery.tls.reports changed"));
    keep_started(s, n->settings);
    log_setup(s->log_level, s->log_format);
    if (n->outbound && outbound_reconfigure(n->outbound, &s->outbound) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "delivery"));
    if (n->scheduler && scheduler_reconfigure(n->scheduler, &s->scheduler) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "scheduler"));
    if (n->web && web_reconfigure(n->web, &s->web) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "http"));
    settings_free(n->settings);
    n->settings = s;
}

static void on_reload(void *arg, struct settings *s, struct parts *p) {
    struct node *n = arg;
    struct inbound_parts parts = parts_inbound(p);
    if (s)
        take_settings(n, s);
    parts_unref(n->parts);
    n->parts = p;
    signer_use(n->signer, parts.mailauth);
    if (n->inbound && inbound_reconfigure(n->inbound, &n->settings->inbound, &parts) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "gateway"));
}

/* -- drain -- */

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

static void on_wake(void *arg) {
    struct node *n = arg;
    unsigned drained = atomic_load(&n->drained);
    if (n->phase == PHASE_DRAIN_GATEWAY && drained >= 1)
        drain_delivery(n);
    else if (n->phase == PHASE_DRAIN_DELIVERY && drained >= 2)
        stop(n);
}

static void on_signal(void *arg, int signum) {
    struct node *n = arg;
    if (signum == SIGHUP) {
        if (n->phase == PHASE_RUNNING)
            reload_all(n->reload);
        return;
    }
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

/* -- life -- */

/* Ready is who can accept mail: every gateway loop has been answered by the scheduler. With a damaged store there is no
 * scheduler, or one that takes nothing, and ready means: answers 451. */
static void announce_ready(void *arg) {
    struct node *n = arg;
    if (n->inbound && n->scheduler && !inbound_is_ready(n->inbound)) {
        loop_timer_set(n->ready, READY_POLL_MS);
        return;
    }
    LOG_INFO("ready", LOG_STR("name", n->settings->name), LOG_STR("version", POSTHOUSE_VERSION),
             LOG_U64("pid", getpid()));
    notify_state(NOTIFY_STATE_READY);
}

static int open_loop(struct node *n) {
    static const int wanted[3] = {SIGTERM, SIGINT, SIGHUP};
    signal(SIGPIPE, SIG_IGN);
    n->bus = bus_new(1);
    n->loop = loop_new();
    if (!n->bus || !n->loop)
        return EX_OSERR;
    n->wake = loop_wake_new(n->loop, on_wake, n);
    n->ready = loop_timer_new(n->loop, announce_ready, n);
    for (size_t i = 0; i < 3; i++)
        n->signals[i] = loop_signal_new(n->loop, wanted[i], on_signal, n);
    n->reload = reload_new(n->loop, n->settings, n->parts, on_reload, n);
    return n->wake && n->ready && n->signals[0] && n->signals[1] && n->signals[2] && n->reload ? EX_OK : EX_OSERR;
}

/* What it takes to accept mail. */
static size_t ready_parts(void *arg, struct web_part parts[WEB_PARTS_MAX]) {
    const struct node *n = arg;
    parts[0] = (struct web_part){"gateway", n->inbound && inbound_is_ready(n->inbound)};
    parts[1] = (struct web_part){"scheduler", n->scheduler != NULL};
    parts[2] = (struct web_part){"delivery", n->outbound != NULL};
    parts[3] = (struct web_part){"running", n->phase == PHASE_RUNNING};
    return 4;
}

static int bind_web(struct node *n) {
    if (!n->settings->web.on)
        return EX_OK;
    n->web_fd = tcp_bind(&n->settings->web.address, false);
    if (n->web_fd >= 0)
        return EX_OK;
    LOG_ERROR("bind_failed", LOG_STR("address", n->settings->admin_http), LOG_ERR("why", n->web_fd));
    n->web_fd = -1;
    return EX_UNAVAILABLE;
}

static int open_web(struct node *n) {
    if (n->web_fd < 0)
        return EX_OK;
    struct web_config c = {.loop = n->loop, .admin = n->admin, .fd = n->web_fd, .ready = ready_parts, .arg = n};
    n->web_fd = -1;
    int err = web_open(&n->web, &c, &n->settings->web);
    if (err != ERR_OK)
        LOG_ERROR("http_refused", LOG_STR("address", n->settings->admin_http), LOG_ERR("why", err));
    else
        LOG_INFO("http_open", LOG_STR("address", n->settings->admin_http),
                 LOG_U64("users", n->settings->web.user_count));
    return err == ERR_OK ? EX_OK : EX_UNAVAILABLE;
}

static int open_admin(struct node *n) {
    struct admin_config c = {.bus = n->bus,
                             .loop = n->loop,
                             .rpc = n->settings->admin_rpc,
                             .name = n->settings->name,
                             .version = POSTHOUSE_VERSION};
    int err = admin_open(&n->admin, &c);
    if (err != ERR_OK)
        LOG_ERROR("admin_refused", LOG_STR("endpoint", n->settings->admin_rpc), LOG_ERR("why", err));
    return err == ERR_OK ? EX_OK : EX_UNAVAILABLE;
}

/* What root has read at the start, the user must read at a reload. */
static void warn_of_unreadable(const struct node *n) {
    const char *file;
    for (size_t i = 0; (file = parts_file(n->parts, i)); i++) {
        if (access(file, R_OK) != 0)
            LOG_WARN("file_not_readable", LOG_STR("file", file), LOG_STR("user", n->settings->user),
                     LOG_STR("hint", "a reload will fail; give it to a group of the user"));
    }
    if (access(n->settings->file, R_OK) != 0)
        LOG_WARN("file_not_readable", LOG_STR("file", n->settings->file), LOG_STR("user", n->settings->user),
                 LOG_STR("hint", "a reload will fail; give it to a group of the user"));
}

static int open_parts(struct node *n) {
    int status = make_parts(n);
    if (status == EX_OK && (n->settings->roles & SETTINGS_GATEWAY))
        status = bind_all(n);
    if (status == EX_OK)
        status = bind_web(n);
    if (status == EX_OK && privilege_data_dir(n->settings->data_dir, n->settings->user) != ERR_OK)
        status = EX_NOPERM;
    if (status == EX_OK)
        privilege_socket_dir(n->settings->admin_rpc + strlen("ipc://"), n->settings->user);
    if (status == EX_OK && privilege_drop(n->settings->user) != ERR_OK)
        status = EX_NOPERM;
    if (status == EX_OK)
        warn_of_unreadable(n);
    if (status == EX_OK)
        status = open_loop(n);
    if (status == EX_OK)
        status = open_admin(n);
    if (status == EX_OK)
        status = open_web(n);
    if (status == EX_OK)
        status = start_scheduler(n);
    if (status == EX_OK)
        status = start_delivery(n);
    if (status == EX_OK)
        status = start_gateway(n);
    return status;
}

int node_open(struct node **out, struct settings *s) {
    struct node *n = calloc(1, sizeof *n);
    CHECK(n);
    n->settings = s;
    n->web_fd = -1;
    log_setup(s->log_level, s->log_format);
    privilege_harden();
    int status = open_parts(n);
    if (status != EX_OK) {
        node_close(n);
        return status;
    }
    *out = n;
    return EX_OK;
}

int node_run(struct node *n) {
    announce_ready(n);
    loop_run(n->loop);
    LOG_INFO("stopped", LOG_I64("status", n->status));
    return n->status;
}

static void nobody_waits(void *arg) {
    (void)arg;
}

/* A scheduler is drained before it is stopped, also when there is no time for it. */
static void stop_scheduler(struct node *n) {
    if (!n->scheduler)
        return;
    if (!n->scheduler_draining)
        scheduler_drain(n->scheduler, 0, nobody_waits, NULL);
    scheduler_stop(n->scheduler);
}

void node_close(struct node *n) {
    web_close(n->web);
    if (n->web_fd >= 0)
        close(n->web_fd);
    if (n->inbound)
        inbound_stop(n->inbound);
    if (n->outbound)
        outbound_stop(n->outbound);
    stop_scheduler(n);
    if (n->store)
        store_close(n->store);
    if (n->admin)
        admin_close(n->admin);
    if (n->reload)
        reload_free(n->reload);
    for (size_t i = 0; i < 3; i++)
        if (n->signals[i])
            loop_signal_close(n->signals[i]);
    if (n->wake)
        loop_wake_close(n->wake);
    if (n->ready)
        loop_timer_close(n->ready);
    if (n->loop)
        loop_free(n->loop);
    if (n->bus)
        bus_free(n->bus);
    signer_free(n->signer);
    parts_unref(n->parts);
    directory_settle();
    close_fds(n);
    settings_free(n->settings);
    free(n);
}
