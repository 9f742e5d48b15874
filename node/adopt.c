/*
 * adopt: what becomes of settings that were read again: each part takes what it can change while it runs, and what it
 * cannot stays as it was started, which is said.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#include "node/node_in.h"

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

static bool same_rpc(const struct settings_admin *a, const struct settings_admin *b) {
    if (a->rpc_count != b->rpc_count || strcmp(a->key.secret_key, b->key.secret_key) != 0)
        return false;
    for (size_t i = 0; i < a->rpc_count; i++)
        if (strcmp(a->rpc[i], b->rpc[i]) != 0)
            return false;
    return true;
}

static bool needs_restart(const struct settings *a, const struct settings *b) {
    return a->roles != b->roles || a->loops != b->loops || !same_listeners(&a->inbound, &b->inbound) ||
           a->shards != b->shards || a->memory != b->memory || strcmp(a->user, b->user) != 0 ||
           strcmp(a->data_dir, b->data_dir) != 0 || strcmp(a->name, b->name) != 0 || !same_rpc(&a->admin, &b->admin) ||
           !same_text(a->admin_http, b->admin_http) || !same_reports(&a->outbound.tls, &b->outbound.tls);
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

int adopt_hooks(struct node *n) {
    const struct settings *s = n->settings;
    char dir[4096];
    if (n->hooks)
        return hooks_reconfigure(n->hooks, s->hooks, s->hook_count);
    if (!s->hook_count)
        return ERR_OK;
    snprintf(dir, sizeof dir, "%s/hooks", s->data_dir);
    int err = hooks_open(&n->hooks, dir, s->name, s->hooks, s->hook_count);
    if (err == ERR_IO)
        LOG_ERROR("hooks_refused", LOG_STR("dir", dir), LOG_STR("why", strerror(errno)));
    return err;
}

static void take_settings(struct node *n, struct settings *s) {
    n->restart_needed = needs_restart(n->started, s);
    if (n->restart_needed)
        LOG_WARN("restart_needed", LOG_STR("why", "node name, roles, user, memory, data_dir, listeners, loops, shards, "
                                                  "the RPC endpoints or the node's key, admin.http, "
                                                  "delivery.tls.mta_sts or delivery.tls.reports changed"));
    keep_started(s, n->settings);
    n->log_level = s->log_level;
    log_setup(s->log_level, s->log_format);
    if (n->admin && admin_set_keys(n->admin, s->admin.keys, s->admin.key_count) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "admin.keys"));
    if (n->outbound && outbound_reconfigure(n->outbound, &s->outbound) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "delivery"));
    if (n->scheduler && scheduler_reconfigure(n->scheduler, &s->scheduler) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "scheduler"));
    if (n->web && web_reconfigure(n->web, &s->web) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "http"));
    if (n->settings != n->started)
        settings_free(n->settings);
    n->settings = s;
    if (adopt_hooks(n) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "hooks"));
}

void adopt_reloaded(void *arg, struct settings *s, struct parts *p) {
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
