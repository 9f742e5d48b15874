/*
 * node: see node.h. It holds one of each part, starts them in order, passes reloads on, and runs the drain. No
 * mail passes through here.
 */
#include "node/node_in.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/bus_zap.h"
#include "node/notify.h"
#include "node/privilege.h"

#define SCHEDULER_HUB "inproc://scheduler"
#define READY_POLL_MS 5u

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

/* -- signals -- */

static void on_signal(void *arg, int signum) {
    struct node *n = arg;
    if (signum != SIGHUP)
        drain_on_signal(n, signum);
    else if (n->phase == PHASE_RUNNING)
        (void)reload_all(n->reload);
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
    n->wake = loop_wake_new(n->loop, drain_on_wake, n);
    n->ready = loop_timer_new(n->loop, announce_ready, n);
    for (size_t i = 0; i < 3; i++)
        n->signals[i] = loop_signal_new(n->loop, wanted[i], on_signal, n);
    n->reload = reload_new(n->loop, n->settings, n->parts, adopt_reloaded, n);
    if (n->reload)
        reload_tell(n->reload, operate_told);
    return n->wake && n->ready && n->signals[0] && n->signals[1] && n->signals[2] && n->reload ? EX_OK : EX_OSERR;
}

/* What it takes to accept mail. */
static size_t ready_parts(void *arg, struct web_part parts[WEB_PARTS_MAX]) {
    const struct node *n = arg;
    parts[0] = (struct web_part){"gateway", n->inbound && inbound_is_ready(n->inbound)};
    parts[1] = (struct web_part){"scheduler", n->scheduler != NULL};
    parts[2] = (struct web_part){"delivery", n->outbound != NULL};
    parts[3] = (struct web_part){"running", n->phase == PHASE_RUNNING && !n->paused};
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
    const struct settings_admin *s = &n->settings->admin;
    const char *failed = NULL;
    struct admin_config c = {.bus = n->bus,
                             .loop = n->loop,
                             .rpc = s->rpc,
                             .rpc_count = s->rpc_count,
                             .key = &s->key,
                             .keys = s->keys,
                             .key_count = s->key_count,
                             .name = n->settings->name,
                             .version = POSTHOUSE_VERSION,
                             .ask_node = operate_ask,
                             .node_arg = n};
    int err = settings_has_tcp_rpc(n->settings) ? bus_zap_start(n->bus) : ERR_OK;
    if (err == ERR_OK)
        err = admin_open(&n->admin, &c, &failed);
    if (err != ERR_OK)
        LOG_ERROR("admin_refused", LOG_STR("endpoint", failed ? failed : s->rpc[0]), LOG_ERR("why", err));
    return err == ERR_OK ? EX_OK : EX_UNAVAILABLE;
}

static void make_socket_dirs(const struct node *n) {
    const struct settings_admin *s = &n->settings->admin;
    for (size_t i = 0; i < s->rpc_count; i++)
        if (strncmp(s->rpc[i], "ipc://", strlen("ipc://")) == 0)
            privilege_socket_dir(s->rpc[i] + strlen("ipc://"), n->settings->user);
}

/* What root has read at the start, the user must read at a reload. */
static void warn_of_unreadable(const struct node *n) {
    const char *file;
    for (size_t i = 0; (file = parts_file(n->parts, i)); i++) {
        if (access(file, R_OK) != 0)
            LOG_WARN("file_not_readable", LOG_STR("file", file), LOG_STR("user", n->settings->user),
                     LOG_STR("hint", "a reload will fail; give it to a group of the user"));
    }
    const char *const others[] = {n->settings->file, n->settings->admin.key_file};
    for (size_t i = 0; i < 2; i++)
        if (others[i] && access(others[i], R_OK) != 0)
            LOG_WARN("file_not_readable", LOG_STR("file", others[i]), LOG_STR("user", n->settings->user),
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
        make_socket_dirs(n);
    if (status == EX_OK && privilege_drop(n->settings->user) != ERR_OK)
        status = EX_NOPERM;
    if (status == EX_OK)
        warn_of_unreadable(n);
    if (status == EX_OK)
        status = open_loop(n);
    if (status == EX_OK && adopt_hooks(n) != ERR_OK)
        status = EX_OSERR;
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
    n->settings = n->started = s;
    n->log_level = s->log_level;
    n->started_ms = clock_wall_ms();
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
    n->admin = NULL; /* a reading under way may still end */
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
    hooks_close(n->hooks);
    signer_free(n->signer);
    parts_unref(n->parts);
    directory_settle();
    close_fds(n);
    if (n->settings != n->started)
        settings_free(n->settings);
    settings_free(n->started);
    free(n);
}
