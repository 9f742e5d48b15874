/*
 * settings_lists: the settings that are plain lists: roles, networks, DNS servers.
 */
#include <stdio.h>
#include <string.h>

#include "node/settings_schema.h"

#define NETWORKS_MAX 4096u

size_t settings_count_items(struct settings_reading *r, const struct yaml *y, const char *what, size_t max) {
    size_t n = 0;
    if (y->kind != YAML_LIST) {
        settings_complain(r, y, "%s: takes a list", what);
        return SIZE_MAX;
    }
    for (const struct yaml *c = y->first; c; c = c->next)
        n++;
    if (n <= max)
        return n;
    settings_complain(r, y, "%s: at most %zu", what, max);
    return SIZE_MAX;
}

const char *const *settings_texts(struct settings_reading *r, const struct yaml *y, const char *what, size_t max,
                                  size_t *count) {
    size_t n = settings_count_items(r, y, what, max);
    const char **all = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *all);
    *count = 0;
    if (!all)
        return NULL;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_SCALAR || c->text.len == 0)
            settings_complain(r, c, "%s: takes a list of texts", what);
        else
            all[(*count)++] = c->text.at;
    }
    return all;
}

void settings_read_roles(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char *const names[] = {"gateway", "scheduler", "delivery"};
    size_t n = settings_count_items(r, y, "node.roles", 3);
    if (n == SIZE_MAX)
        return;
    r->s->roles = 0;
    for (const struct yaml *c = y->first; c; c = c->next) {
        unsigned role = 0;
        for (unsigned i = 0; i < 3 && c->kind == YAML_SCALAR; i++)
            if (span_eq(c->text, span_of(names[i])))
                role = 1u << i;
        if (!role)
            settings_complain(r, c, "node.roles: takes gateway, scheduler and delivery");
        r->s->roles |= role;
    }
    if (!r->failed && r->s->roles != (SETTINGS_GATEWAY | SETTINGS_SCHEDULER | SETTINGS_DELIVERY))
        settings_complain(r, y, "node.roles: one machine needs all three; a cluster is not supported by this version");
}

static const struct tcp_net *read_networks(struct settings_reading *r, const struct yaml *y, const char *what,
                                           size_t *count) {
    size_t n = settings_count_items(r, y, what, NETWORKS_MAX);
    struct tcp_net *nets = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *nets);
    *count = 0;
    if (!nets)
        return NULL;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_SCALAR || tcp_net_parse(&nets[*count], c->text) != ERR_OK)
            settings_complain(r, c, "%s: takes networks such as 192.0.2.0/24 or 2001:db8::/32", what);
        else
            ++*count;
    }
    return nets;
}

void settings_read_trusted(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    r->s->inbound.trusted = read_networks(r, y, "gateway.trusted_networks", &r->s->inbound.trusted_count);
}

void settings_read_balancers(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    r->s->inbound.balancers = read_networks(r, y, "gateway.balancers", &r->s->inbound.balancer_count);
}

void settings_read_dns(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct buf servers;
    struct tcp_addr address;
    if (settings_count_items(r, y, "delivery.dns", 16) == SIZE_MAX)
        return;
    buf_init(&servers, 4096);
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_SCALAR || tcp_addr_parse_port(&address, c->text) != ERR_OK)
            settings_complain(r, c, "delivery.dns: takes ADDRESS:PORT with numbers, such as 127.0.0.1:53");
        else
            buf_printf(&servers, "%s%.*s", buf_len(&servers) ? "," : "", SPAN_FMT(c->text));
    }
    r->s->outbound.dns = buf_len(&servers) ? arena_strdup(&r->s->mem, buf_cstr(&servers)) : NULL;
    buf_deinit(&servers);
}

void settings_default_lists(struct settings_reading *r) {
    struct settings *s = r->s;
    struct tcp_net *nets = arena_calloc(&s->mem, 2, sizeof *nets);
    s->roles = SETTINGS_GATEWAY | SETTINGS_SCHEDULER | SETTINGS_DELIVERY;
    bool fine = nets && tcp_net_parse(&nets[0], SPAN("127.0.0.0/8")) == ERR_OK &&
                tcp_net_parse(&nets[1], SPAN("::1/128")) == ERR_OK &&
                tcp_addr_parse_port(&s->inbound.listeners[0].address, SPAN("0.0.0.0:25")) == ERR_OK &&
                tcp_addr_parse_port(&s->inbound.listeners[1].address, SPAN("[::]:25")) == ERR_OK;
    if (!fine)
        settings_complain(r, NULL, "no memory for the defaults");
    s->inbound.trusted = nets;
    s->inbound.trusted_count = 2;
    s->inbound.listener_count = 2;
    for (size_t i = 0; i < 2; i++) {
        s->inbound.listeners[i].extensions = SERVER_EXT_BASIC;
        s->inbound.listeners[i].tls = SETTINGS_TLS_UNSAID;
        s->inbound.listeners[i].sign = true;
    }
}
