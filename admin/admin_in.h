/*
 * admin_in: the admin service as its own files see it. admin.c holds doors, keys and life; calls.c what becomes of a
 * request; roles.c the roles of this node and what they say; audit.c the record of changes. All on the main loop.
 */
#ifndef ADMIN_ADMIN_IN_H
#define ADMIN_ADMIN_IN_H

#include "base/buf.h"
#include "base/list.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

#include "admin/access.h"
#include "admin/admin.h"

#define ADMIN_CALLS_MAX 256u   /* at once */
#define ADMIN_CALLS_OF_ONE 32u /* of one key, or of one connection over ipc */
#define ADMIN_REQUEST_MAX (64u * 1024u)
#define ADMIN_TIMEOUT_MS 60000u
#define ADMIN_ROLES_MAX 64u
#define ADMIN_ACTOR_MAX 100u
#define ADMIN_ORIGIN_MAX 160u
#define ADMIN_AUDIT_BIT (UINT64_C(1) << 63) /* of the correlation of all that goes to the audit */

/* Where tools come in. */
struct admin_door {
    struct admin *admin;
    struct bus_hub *hub;
    bool tcp;
};

struct admin_role_peer {
    char name[BUS_PEER_MAX];
    size_t name_len;
    uint32_t role;
};

/* Who asks, as the audit has it. */
struct admin_asker {
    char actor[ADMIN_ACTOR_MAX + 1];
    char origin[ADMIN_ORIGIN_MAX + 1];
    unsigned role; /* enum admin_role */
};

/* AUDITING -> ASKED; a question is ASKED at once. */
enum call_state { CALL_AUDITING, CALL_ASKED };
struct call {
    struct list_node link;
    enum call_state state;
    struct admin_door *door; /* NULL: asked from inside (ask.h) */
    char tool[BUS_PEER_MAX];
    size_t tool_len;
    uint64_t tool_correlation;
    struct admin_asker asker;
    const struct access_verb *verb;
    uint64_t correlation; /* ours, to the roles; to the audit with ADMIN_AUDIT_BIT */
    uint64_t until_ms;
    uint32_t waiting; /* roles that have not finished */
    bool change;      /* its end goes to the audit */
    bool has_count;
    uint64_t count; /* of the last reply: what was changed */
    int error;
    size_t request_len;
    char *request; /* as it is passed on: with the actor that it is known by */
};

struct admin_key_role {
    char name[ADMIN_ACTOR_MAX + 1];
    unsigned role;
};

struct admin {
    struct admin_door doors[ADMIN_DOORS_MAX];
    size_t door_count;
    struct bus *bus;
    struct bus_hub *roles;
    struct loop_timer *timer;
    struct admin_role_peer peers[ADMIN_ROLES_MAX];
    size_t peer_count;
    struct list calls;
    uint64_t last_correlation;
    char *name, *version;
    uint64_t started_ms;
    struct buf pack;
    struct ask_desk *desk;
    void (*ask_node)(void *arg, uint64_t ticket, const Words__AdminRequest *q);
    void *node_arg;
    struct admin_key_role *keys;
    size_t key_count;
    uint64_t refused_second, refused_hour; /* audit.c: how many refusals were recorded in which */
    uint32_t refused_in_second, refused_in_hour, refused_unkept;
};

/* -- calls.c -- */
/* What a tool has sent; user: whose key, over tcp. */
void calls_on_tool(void *door, struct span peer, const struct bus_message *m);
void calls_begin_inside(struct admin *a, uint64_t number, const Words__AdminRequest *q, const struct admin_caller *who);
struct call *calls_find(struct admin *a, uint64_t correlation);
/* The audit has it, or there is no audit: passes the request on. */
void calls_go_on(struct admin *a, struct call *c);
/* Ends with an error that the tool and the audit are told. */
void calls_fail(struct admin *a, struct call *c, int err, const char *text);
/* A reply on its way to the tool; with `ends` the call is over. */
void calls_reply(struct admin *a, struct call *c, Words__AdminReply *r, bool ends);
void calls_sweep(struct admin *a, uint64_t now_ms);
void calls_drop_all(struct admin *a);

/* -- roles.c -- */
void roles_on_message(void *admin, struct span peer, const struct bus_message *m);
/* To one peer of this role (ACCESS_ALL: to all peers); how many got it. */
uint32_t roles_ask(struct admin *a, uint32_t role, uint64_t correlation, const Words__AdminRequest *q);
bool roles_have(const struct admin *a, uint32_t role);

/* -- audit.c -- */
/* Records what is about to change. ERR_OK: the answer comes under the call's correlation with ADMIN_AUDIT_BIT;
 * ERR_NOT_FOUND: there is no scheduler here to keep it, the log has it; others: it cannot be kept. */
int admin_audit_begun(struct admin *a, const struct call *c, const Words__AdminRequest *q) MUST_CHECK;
/* The end of a change. */
void admin_audit_done(struct admin *a, const struct call *c);
/* What was not done; only so many of a second are kept in the store. q may be NULL: malformed. */
void admin_audit_refused(struct admin *a, const struct admin_asker *asker, const Words__AdminRequest *q, int err);
/* May one more refusal be recorded? Counts it. */
bool admin_audit_has_room(struct admin *a, uint64_t now_ms);
/* The scheduler's answer to a record. */
void admin_audit_on_reply(struct admin *a, uint64_t correlation, const Words__AdminReply *r);

#endif
