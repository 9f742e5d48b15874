/*
 * access: see access.h. One line for each verb; a test goes over all verbs of the protocol, so that none is forgotten.
 */
#include "admin/access.h"

#include "base/ring.h"

#define VERB(x) WORDS__ADMIN_VERB__ADMIN_##x
#define VIEWER ADMIN_ROLE_VIEWER
#define OPERATOR ADMIN_ROLE_OPERATOR
#define ADMIN ADMIN_ROLE_ADMIN

static const struct access_verb verbs[] = {
    {VERB(STATUS), "status", VIEWER, false, false, ACCESS_ALL},
    {VERB(QUEUE_LIST), "queue list", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(QUEUE_SUMMARY), "queue summary", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(QUEUE_SHAPE), "queue shape", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(MSG_SHOW), "msg show", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(MSG_TRACE), "msg trace", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(MSG_WHY), "msg why", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(MSG_HEADERS), "msg headers", OPERATOR, false, false, ROLE_SCHEDULER},
    {VERB(MSG_BODY), "msg body", OPERATOR, false, false, ROLE_SCHEDULER},
    {VERB(ROUTE), "route", VIEWER, false, false, ROLE_DELIVERY},
    {VERB(VERIFY), "verify", VIEWER, false, false, ROLE_GATEWAY},
    {VERB(LIMITS), "limits explain", VIEWER, false, false, ROLE_DELIVERY},
    {VERB(TLS_PROBE), "tls probe", VIEWER, false, false, ROLE_DELIVERY},
    {VERB(WATCH), "watch", VIEWER, false, false, ACCESS_NODE},
    {VERB(SUSPENSIONS), "suspensions", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(SITES), "sites", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(NODES), "nodes", VIEWER, false, false, ACCESS_NODE},
    {VERB(SHARDS), "shards", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(AUDIT_LIST), "audit", VIEWER, false, false, ROLE_SCHEDULER},
    {VERB(RETRY), "retry", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(HOLD), "hold", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(RELEASE), "release", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(BOUNCE), "bounce", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(DELETE), "delete", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(REROUTE), "reroute", OPERATOR, true, true, ROLE_SCHEDULER},
    {VERB(SUSPEND), "suspend", OPERATOR, true, false, ROLE_SCHEDULER},
    {VERB(RESUME), "resume", OPERATOR, true, false, ROLE_SCHEDULER},
    {VERB(DRAIN), "drain", ADMIN, true, false, ACCESS_NODE},
    {VERB(UNDRAIN), "undrain", ADMIN, true, false, ACCESS_NODE},
    {VERB(CONFIG_RELOAD), "config reload", ADMIN, true, false, ACCESS_NODE},
    {VERB(CONFIG_SHOW), "config show", ADMIN, false, false, ACCESS_NODE},
    {VERB(CONFIG_DIFF), "config diff", ADMIN, false, false, ACCESS_NODE},
    {VERB(LOG_LEVEL), "log level", ADMIN, true, false, ACCESS_NODE},
    {VERB(AUDIT_PUT), "audit put", ADMIN_ROLE_NONE, false, false, ROLE_SCHEDULER}, /* the service alone */
};

const struct access_verb *access_verb(uint32_t verb) {
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if ((uint32_t)verbs[i].verb == verb)
            return &verbs[i];
    return NULL;
}

/* "log level" without one only asks. */
static bool only_asks(const Words__AdminRequest *q) {
    return q->verb == VERB(LOG_LEVEL) && (!q->has_target || q->target.len == 0);
}

enum admin_role access_needed(const Words__AdminRequest *q) {
    const struct access_verb *v = access_verb(q->verb);
    if (!v)
        return ADMIN_ROLE_NONE;
    if (only_asks(q))
        return VIEWER;
    if (q->verb == VERB(WATCH) && q->has_ring && q->ring != (uint32_t)RING_EVENTS)
        return OPERATOR; /* dialogues hold the words of mail */
    return v->role;
}

bool access_is_change(const Words__AdminRequest *q) {
    const struct access_verb *v = access_verb(q->verb);
    return v && v->change && !only_asks(q) && !(v->dry && q->has_dry_run && q->dry_run);
}

const char *access_stage_name(uint32_t stage) {
    static const char *const names[] = {"?", "begun", "done", "refused"};
    return stage < sizeof names / sizeof *names ? names[stage] : names[0];
}

const char *access_role_name(unsigned role) {
    static const char *const names[] = {"nobody", "viewer", "operator", "admin"};
    return role < sizeof names / sizeof *names ? names[role] : names[0];
}
