/*
 * roles: the roles of this node, as peers of the inner hub: who they are, what they are asked, and what they answer.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "admin/admin_in.h"

static struct admin_role_peer *find_role(struct admin *a, struct span name) {
    for (size_t i = 0; i < a->peer_count; i++)
        if (span_eq(span_make(a->peers[i].name, a->peers[i].name_len), name))
            return &a->peers[i];
    return NULL;
}

bool roles_have(const struct admin *a, uint32_t role) {
    for (size_t i = 0; i < a->peer_count; i++)
        if (a->peers[i].role == role)
            return true;
    return false;
}

static void on_hello(struct admin *a, struct span name, const struct frame *f) {
    struct arena mem;
    arena_init(&mem, 1024, 65536);
    const Words__Hello *h = frame_unpack(&words__hello__descriptor, f->meta, &mem);
    struct admin_role_peer *p = find_role(a, name);
    if (h && !p && a->peer_count < ADMIN_ROLES_MAX && name.len <= BUS_PEER_MAX) {
        p = &a->peers[a->peer_count++];
        memcpy(p->name, name.at, name.len);
        p->name_len = name.len;
    }
    if (h && p)
        p->role = h->role;
    else
        LOG_WARN("admin_role_refused", LOG_SPAN("peer", name));
    arena_deinit(&mem);
}

static void on_reply(struct admin *a, const struct frame *f) {
    bool of_audit = f->correlation & ADMIN_AUDIT_BIT;
    struct call *c = of_audit ? NULL : calls_find(a, f->correlation);
    if (!of_audit && (!c || c->state != CALL_ASKED || c->waiting == 0))
        return; /* the tool was told of a time-out */
    struct arena mem;
    arena_init(&mem, 64 * 1024, FRAME_META_MAX * 8u);
    Words__AdminReply *r = frame_unpack(&words__admin_reply__descriptor, f->meta, &mem);
    Words__AdminReply bad = WORDS__ADMIN_REPLY__INIT;
    bad.has_error = true;
    bad.error = -ERR_CORRUPT;
    if (of_audit) {
        admin_audit_on_reply(a, f->correlation, r ? r : &bad);
    } else if (!r) {
        calls_fail(a, c, ERR_CORRUPT, "a role answered with a malformed reply");
    } else {
        if (!r->has_last || r->last)
            c->waiting--;
        c->until_ms = clock_mono_ms() + ADMIN_TIMEOUT_MS;
        calls_reply(a, c, r, c->waiting == 0);
    }
    arena_deinit(&mem);
}

void roles_on_message(void *arg, struct span peer, const struct bus_message *m) {
    struct admin *a = arg;
    struct frame f;
    int err = frame_read(&f, m);
    if (err == ERR_OK && f.kind == FRAME_HELLO)
        on_hello(a, peer, &f);
    else if (err == ERR_OK && f.kind == FRAME_ADMIN_REPLY && find_role(a, peer))
        on_reply(a, &f);
    else
        LOG_WARN("admin_frame_refused", LOG_SPAN("peer", peer), LOG_ERR("why", err));
}

uint32_t roles_ask(struct admin *a, uint32_t role, uint64_t correlation, const Words__AdminRequest *q) {
    uint32_t sent = 0;
    for (size_t i = 0; i < a->peer_count; i++) {
        struct admin_role_peer *p = &a->peers[i];
        if (role != ACCESS_ALL && p->role != role)
            continue;
        int err = frame_send_hub(a->roles, span_make(p->name, p->name_len), FRAME_ADMIN_REQUEST, correlation, 0,
                                 &q->base, NULL, &a->pack);
        if (err == ERR_OK)
            sent++;
        if (err == ERR_OK && role != ACCESS_ALL)
            break; /* one of them knows it all */
    }
    return sent;
}
