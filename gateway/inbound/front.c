/*
 * front: copies what node/ lends at a reload, and counts who still uses it.
 */
#include <stdlib.h>

#include "gateway/inbound/front.h"

static void *copy_array(struct arena *mem, const void *from, size_t count, size_t size) {
    void *to = arena_calloc(mem, count + 1, size);
    if (to && count)
        memcpy(to, from, count * size);
    return to;
}

/* NULL stays NULL. *failed is set when memory is missing. */
static const char *copy_text(struct arena *mem, const char *text, bool *failed) {
    const char *copy = text ? arena_strdup(mem, text) : NULL;
    *failed |= text && !copy;
    return copy;
}

static int copy_filters(struct front *f, const struct inbound_settings *s) {
    bool failed = false;
    struct milter_config *milters = copy_array(&f->mem, s->milters, s->milter_count, sizeof *milters);
    struct policy_config *policies = copy_array(&f->mem, s->policies, s->policy_count, sizeof *policies);
    if (!milters || !policies)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->milter_count; i++)
        milters[i].name = copy_text(&f->mem, milters[i].name, &failed);
    for (size_t i = 0; i < s->policy_count; i++)
        policies[i].name = copy_text(&f->mem, policies[i].name, &failed);
    f->settings.milters = milters;
    f->settings.policies = policies;
    return failed ? ERR_NOMEM : ERR_OK;
}

static int copy_settings(struct front *f, const struct inbound_settings *s) {
    bool failed = false;
    f->settings = *s;
    f->settings.hostname = copy_text(&f->mem, s->hostname, &failed);
    f->settings.name = copy_text(&f->mem, s->name, &failed);
    f->settings.dns = copy_text(&f->mem, s->dns, &failed);
    f->settings.spool = copy_text(&f->mem, s->spool, &failed);
    f->settings.trusted = copy_array(&f->mem, s->trusted, s->trusted_count, sizeof *s->trusted);
    f->settings.balancers = copy_array(&f->mem, s->balancers, s->balancer_count, sizeof *s->balancers);
    if (failed || !f->settings.trusted || !f->settings.balancers)
        return ERR_NOMEM;
    /* The lists of guard are its own copy: nothing of a session needs them. */
    f->settings.guard.dnslists = NULL;
    f->settings.guard.grey_file = NULL;
    return copy_filters(f, s);
}

/* Whether an operator's filter wants to hear of these stages. */
static bool asks_at(const struct inbound_settings *s, enum check_stage stage) {
    if (s->milter_count)
        return true;
    for (size_t i = 0; i < s->policy_count; i++) {
        if (s->policies[i].stage == stage)
            return true;
    }
    return false;
}

static int make_server(struct front *f, const struct inbound_listener *l) {
    const struct inbound_settings *s = &f->settings;
    bool starttls = f->parts.tls && (l->tls == INBOUND_TLS_OFFERED || l->tls == INBOUND_TLS_REQUIRED);
    bool auth = f->parts.auth && l->auth != INBOUND_AUTH_OFF;
    struct server_config c = {.hostname = s->hostname,
                              .message_size = s->limits.message_size,
                              .recipients = s->limits.recipients,
                              .received_headers = s->limits.received_headers,
                              .commands_bad = s->limits.commands_bad,
                              .normalize = s->bare_newline == INBOUND_BARE_NORMALIZE,
                              .vrfy = s->vrfy,
                              .extensions =
                                  l->extensions | (starttls ? SERVER_EXT_STARTTLS : 0) | (auth ? SERVER_EXT_AUTH : 0),
                              .tls_required = l->tls == INBOUND_TLS_REQUIRED || l->tls == INBOUND_TLS_IMPLICIT,
                              .auth_required = l->auth == INBOUND_AUTH_REQUIRED,
                              .ask_helo = s->milter_count > 0,
                              .ask_data = asks_at(s, CHECK_DATA),
                              .release_max_ms = s->release_max_ms,
                              .deliverby_min_s = s->deliverby_min_s};
    int err = server_settings_init(&f->server[f->server_count], &c);
    f->server_count += err == ERR_OK;
    return err;
}

static int make_servers(struct front *f) {
    static const struct inbound_listener plain = {.extensions = SERVER_EXT_BASIC};
    if (f->settings.listener_count == 0)
        return make_server(f, &plain);
    for (size_t i = 0; i < f->settings.listener_count; i++) {
        int err = make_server(f, &f->settings.listeners[i]);
        if (err)
            return err;
    }
    return ERR_OK;
}

static void take_parts(struct front *f, const struct inbound_parts *parts) {
    f->parts = *parts;
    recipients_ref(parts->recipients);
    if (parts->tls)
        tls_server_ref(parts->tls);
    if (parts->auth)
        auth_ref(parts->auth);
    if (parts->mailauth)
        mailauth_ref(parts->mailauth);
}

static void front_free(struct front *f) {
    for (size_t i = 0; i < f->server_count; i++)
        server_settings_deinit(&f->server[i]);
    recipients_unref(f->parts.recipients);
    if (f->parts.tls)
        tls_server_unref(f->parts.tls);
    if (f->parts.auth)
        auth_unref(f->parts.auth);
    if (f->parts.mailauth)
        mailauth_unref(f->parts.mailauth);
    arena_deinit(&f->mem);
    free(f);
}

int front_new(struct front **out, const struct inbound_settings *s, const struct inbound_parts *parts) {
    struct front *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    atomic_init(&f->references, 1);
    arena_init(&f->mem, 4096, 0);
    take_parts(f, parts);
    int err = copy_settings(f, s);
    if (!err)
        err = make_servers(f);
    if (err) {
        front_free(f);
        return err;
    }
    *out = f;
    return ERR_OK;
}

struct front *front_ref(struct front *f) {
    atomic_fetch_add(&f->references, 1);
    return f;
}

void front_unref(struct front *f) {
    if (f && atomic_fetch_sub(&f->references, 1) == 1)
        front_free(f);
}

static bool is_in(const struct tcp_net *nets, size_t count, const struct tcp_addr *a) {
    for (size_t i = 0; i < count; i++) {
        if (tcp_net_has(&nets[i], a))
            return true;
    }
    return false;
}

bool front_trusts(const struct front *f, const struct tcp_addr *client) {
    return is_in(f->settings.trusted, f->settings.trusted_count, client);
}

bool front_believes(const struct front *f, const struct tcp_addr *peer) {
    return is_in(f->settings.balancers, f->settings.balancer_count, peer);
}
