/*
 * front: copies what node/ lends at a reload, and counts who still uses it.
 */
#include <stdlib.h>

#include "gateway/inbound/front.h"

static int copy(struct front *f, const struct inbound_settings *s) {
    f->settings = *s;
    f->settings.hostname = arena_strdup(&f->mem, s->hostname);
    f->settings.name = arena_strdup(&f->mem, s->name);
    struct tcp_net *trusted = arena_calloc(&f->mem, s->trusted_count + 1, sizeof *trusted);
    if (!f->settings.hostname || !f->settings.name || !trusted)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->trusted_count; i++)
        trusted[i] = s->trusted[i];
    f->settings.trusted = trusted;
    struct server_config c = {.hostname = f->settings.hostname,
                              .message_size = s->limits.message_size,
                              .recipients = s->limits.recipients,
                              .received_headers = s->limits.received_headers,
                              .commands_bad = s->limits.commands_bad,
                              .normalize = s->bare_newline == INBOUND_BARE_NORMALIZE,
                              .vrfy = s->vrfy,
                              .extensions = SERVER_EXT_BASIC};
    return server_settings_init(&f->server, &c);
}

int front_new(struct front **out, const struct inbound_settings *s, struct recipients *r) {
    struct front *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    atomic_init(&f->references, 1);
    arena_init(&f->mem, 4096, 0);
    int err = copy(f, s);
    if (err) {
        arena_deinit(&f->mem);
        free(f);
        return err;
    }
    f->recipients = recipients_ref(r);
    *out = f;
    return ERR_OK;
}

struct front *front_ref(struct front *f) {
    atomic_fetch_add(&f->references, 1);
    return f;
}

void front_unref(struct front *f) {
    if (!f || atomic_fetch_sub(&f->references, 1) > 1)
        return;
    server_settings_deinit(&f->server);
    recipients_unref(f->recipients);
    arena_deinit(&f->mem);
    free(f);
}

bool front_trusts(const struct front *f, const struct tcp_addr *client) {
    for (size_t i = 0; i < f->settings.trusted_count; i++) {
        if (tcp_net_has(&f->settings.trusted[i], client))
            return true;
    }
    return false;
}
