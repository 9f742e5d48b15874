/*
 * settings: the one YAML file, checked whole, as the structs that the roles take.
 *
 * Every error is "file:line: key: what", and all of them are listed at once. Unknown keys are refused; keys
 * that belong to a later version are refused by that name, never ignored. Every key has a safe default: a
 * file with only node.hostname runs.
 */
#ifndef NODE_SETTINGS_H
#define NODE_SETTINGS_H

#include "admin/admin.h"
#include "admin/web.h"
#include "base/arena.h"
#include "base/log.h"
#include "base/net/bus_keys.h"
#include "gateway/inbound/inbound.h"
#include "gateway/outbound/outbound.h"
#include "node/hook.h"
#include "scheduler/scheduler.h"

enum settings_role { SETTINGS_GATEWAY = 1, SETTINGS_SCHEDULER = 2, SETTINGS_DELIVERY = 4 };

struct yaml;
struct settings {
    struct arena mem; /* owns everything below */
    const char *file;
    const char *name, *hostname, *postmaster, *data_dir, *user;
    unsigned roles; /* enum settings_role bits */
    enum log_level log_level;
    enum log_format log_format;
    uint64_t memory; /* of the store: write buffers and cache, bytes */

    uint32_t loops; /* gateway threads */
    struct inbound_settings inbound;
    struct recipients_config recipients;
    struct settings_tls {
        const char *certificate, *key, *client_ca, *ticket_keys;
        int profile; /* enum of the words of gateway.tls.profile */
        uint64_t ticket_rotate_ms;
        struct tls_pair *pairs; /* certificate and key, and more of them */
        size_t pair_count;      /* 0: no TLS */
    } tls;
    struct auth_config auth;         /* count 0: no AUTH */
    struct mailauth_config mailauth; /* nothing on and no keys: none */
    struct srs_config srs;           /* domain NULL: none */
    struct batv_config batv;         /* domain_count 0: none */
    uint64_t rate_window_ms;
    uint32_t v4_bits, v6_bits;

    struct outbound_settings outbound;
    const char *reply_rules; /* the file; read into .outbound.rules */
    uint32_t outbound_port;  /* as read; outbound.port is narrower */
    struct scheduler_settings scheduler;
    uint32_t shards;
    struct settings_admin {
        const char *const *rpc; /* endpoints for tools */
        size_t rpc_count;
        const char *key_file; /* of the node */
        struct bus_key key;
        const struct admin_key *keys;
        size_t key_count;
    } admin;
    const char *admin_http; /* as written; read into .web */
    struct web_settings web;
    const struct hook_config *hooks;
    size_t hook_count;
    const struct yaml *document; /* the file, as it was read */
};

/* Reads and checks the file. problems gets one line for each error. ERR_INVALID: problems tell; ERR_NOT_FOUND, ERR_IO,
 * ERR_NOMEM: the file itself (also told in problems). */
int settings_load(struct settings **s, const char *file, struct buf *problems) MUST_CHECK;
void settings_free(struct settings *s);
/* May operators come in by tcp? */
bool settings_has_tcp_rpc(const struct settings *s);
/* The reference of all keys in Markdown, from the table that checks them (docs/settings.md). */
int settings_reference(struct buf *to) MUST_CHECK;

#endif
