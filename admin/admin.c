/*
 * admin: see admin.h. The doors for tools (ipc://, tcp://), the keys that open them, the inner hub of the roles, and
 * the life of all of it, on the main loop. What becomes of a request is in calls.c.
 */
#include "admin/admin.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/bus_zap.h"

#include "admin/admin_in.h"

#define SWEEP_MS 1000u
#define QUEUE_MAX (64u * 1024u * 1024u)

/* -- keys -- */

static int allow(struct admin *a, const struct admin_key *keys, size_t count) {
    struct bus_grant *grants = calloc(count + 1, sizeof *grants);
    if (!grants)
        return ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        grants[i] = (struct bus_grant){keys[i].key, keys[i].name};
    int err = bus_zap_allow(a->bus, ADMIN_DOMAIN, grants, count);
    free(grants);
    return err;
}

int admin_set_keys(struct admin *a, const struct admin_key *keys, size_t count) {
    struct admin_key_role *fresh = calloc(count + 1, sizeof *fresh);
    if (!fresh)
        return ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        span_copy(span_of(keys[i].name), fresh[i].name, sizeof fresh[i].name);
        fresh[i].role = keys[i].role;
    }
    int err = allow(a, keys, count);
    if (err == ERR_CLOSED)
        err = ERR_OK; /* without a handler no door can open that would need keys */
    if (err != ERR_OK) {
        free(fresh);
        return err;
    }
    free(a->keys);
    a->keys = fresh;
    a->key_count = count;
    return ERR_OK;
}

/* -- asked from inside -- */

int admin_ask(struct admin *a, const Words__AdminRequest *q, const struct admin_caller *who, admin_answer_cb cb,
              void *arg, uint64_t *number) {
    *number = ask_begin(a->desk, cb, arg);
    if (!*number)
        return ERR_FULL;
    calls_begin_inside(a, *number, q, who);
    return ERR_OK;
}

void admin_ask_cancel(struct admin *a, uint64_t number) {
    ask_cancel(a->desk, number);
}

void admin_node_reply(struct admin *a, uint64_t ticket, Words__AdminReply *r) {
    struct call *c = calls_find(a, ticket);
    if (c && c->state == CALL_ASKED && c->verb->answers == ACCESS_NODE)
        calls_reply(a, c, r, !r->has_last || r->last);
}

/* -- life -- */

static void on_timer(void *arg) {
    struct admin *a = arg;
    calls_sweep(a, clock_mono_ms());
    loop_timer_set(a->timer, SWEEP_MS);
}

static int open_door(struct admin *a, const struct admin_config *c, const char *endpoint) {
    struct admin_door *door = &a->doors[a->door_count];
    struct bus_curve curve = {.key = c->key,
                              .domain = ADMIN_DOMAIN,
                              .receive_max = ADMIN_REQUEST_MAX + 1024u,
                              .waiting_max = 4u * QUEUE_MAX,
                              .messages_max = 16};
    *door = (struct admin_door){.admin = a, .tcp = strncmp(endpoint, "tcp:", 4) == 0};
    int err = bus_hub_open_curve(&door->hub, c->bus, c->loop, endpoint, door->tcp ? &curve : NULL, FRAME_PART_MAX,
                                 QUEUE_MAX, calls_on_tool, door);
    if (err == ERR_OK)
        a->door_count++;
    return err;
}

static int open_doors(struct admin *a, const struct admin_config *c, const char **failed) {
    for (size_t i = 0; i < c->rpc_count; i++) {
        int err = open_door(a, c, c->rpc[i]);
        if (err != ERR_OK) {
            *failed = c->rpc[i];
            return err;
        }
    }
    return ERR_OK;
}

int admin_open(struct admin **out, const struct admin_config *c, const char **failed) {
    CHECK(c->rpc_count <= ADMIN_DOORS_MAX);
    struct admin *a = calloc(1, sizeof *a);
    *failed = NULL;
    if (!a)
        return ERR_NOMEM;
    list_init(&a->calls);
    buf_init(&a->pack, FRAME_META_MAX);
    a->bus = c->bus;
    a->ask_node = c->ask_node;
    a->node_arg = c->node_arg;
    a->name = strdup(c->name);
    a->version = strdup(c->version);
    a->started_ms = clock_mono_ms();
    a->timer = loop_timer_new(c->loop, on_timer, a);
    int err = a->name && a->version && a->timer ? ERR_OK : ERR_NOMEM;
    if (err == ERR_OK)
        err = ask_desk_new(&a->desk, c->loop);
    if (err == ERR_OK)
        err = bus_hub_open(&a->roles, c->bus, c->loop, ADMIN_HUB, FRAME_PART_MAX, QUEUE_MAX, roles_on_message, a);
    if (err == ERR_OK)
        err = admin_set_keys(a, c->keys, c->key_count); /* before the doors open */
    if (err == ERR_OK)
        err = open_doors(a, c, failed);
    if (err != ERR_OK) {
        admin_close(a);
        return err;
    }
    loop_timer_set(a->timer, SWEEP_MS);
    *out = a;
    return ERR_OK;
}

int admin_endpoint(const struct admin *a, size_t door, char *to, size_t size) {
    return door < a->door_count ? bus_hub_endpoint(a->doors[door].hub, to, size) : ERR_NOT_FOUND;
}

void admin_close(struct admin *a) {
    if (!a)
        return;
    calls_drop_all(a);
    for (size_t i = 0; i < a->door_count; i++)
        bus_hub_close(a->doors[i].hub);
    if (a->roles)
        bus_hub_close(a->roles);
    if (a->timer)
        loop_timer_close(a->timer);
    ask_desk_free(a->desk);
    buf_deinit(&a->pack);
    free(a->keys);
    free(a->name);
    free(a->version);
    free(a);
}
