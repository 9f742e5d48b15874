/*
 * audit: who changed what, when and why. A change is first recorded as begun, and made only when the scheduler has
 * answered that the record is durable; its end is recorded when it is known. Refused requests are recorded too, but
 * neither a storm nor a steady rain of them must push the changes out, of which the store keeps a bounded number: it
 * gets so many in a second and in an hour, the log of events a count.
 *
 * Each record is also an event `audit` of the log, which is all there is where no scheduler runs.
 */
#include <string.h>

#include "base/base32.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include "admin/admin_in.h"

enum { BEGUN = 1, DONE = 2, REFUSED = 3 };
enum { REFUSED_PER_SECOND = 5, REFUSED_PER_HOUR = 500, HOUR_S = 3600, TEXT_MAX = 2000 };

METRIC_COUNTER(metric_changes, "posthouse_admin_changes_total", "Changes by operators that were begun")
METRIC_COUNTER(metric_refused, "posthouse_admin_refused_total", "Requests of operators that were refused")
METRIC_COUNTER(metric_unkept, "posthouse_admin_audit_unkept_total", "Records of the audit that the store did not take")

static struct span text_of(bool has, ProtobufCBinaryData b) {
    return has ? span_first(frame_span(b), TEXT_MAX) : SPAN_EMPTY;
}

/* What the request is about, in a word; borrowed from it, or from id. */
static struct span what_of(const Words__AdminRequest *q, char id[32]) {
    if (q->has_address)
        return text_of(true, q->address);
    if (q->has_filter && q->filter.len)
        return span_trim(text_of(true, q->filter));
    if (!q->has_message)
        return SPAN_EMPTY;
    memcpy(id, "id:", 3);
    base32_encode(q->message, id + 3);
    return span_make(id, 3 + BASE32_ID_LEN);
}

static void set(protobuf_c_boolean *has, ProtobufCBinaryData *to, struct span s) {
    *has = s.len > 0;
    *to = frame_bytes(s);
}

static void fill(Words__AdminAudit *u, const struct admin_asker *asker, const Words__AdminRequest *q, uint32_t stage,
                 char id[32]) {
    words__admin_audit__init(u);
    u->at_ms = clock_wall_ms();
    u->actor = frame_bytes(span_of(asker->actor));
    u->role = asker->role;
    u->verb = q ? (uint32_t)q->verb : 0;
    u->stage = stage;
    if (q) {
        set(&u->has_what, &u->what, what_of(q, id));
        set(&u->has_reason, &u->reason, text_of(q->has_reason, q->reason));
        set(&u->has_target, &u->target, text_of(q->has_target, q->target));
    }
    set(&u->has_origin, &u->origin, span_of(asker->origin));
}

/* What the log alone keeps is in it whatever its level is. */
static void log_record(const struct admin *a, const Words__AdminAudit *u) {
    const char *stage = access_stage_name(u->stage);
    const struct access_verb *v = access_verb(u->verb);
    const char *verb = v ? v->name : "unknown", *error = u->error ? err_text(-(int)u->error) : "";
    struct span actor = frame_span(u->actor), what = frame_span(u->what), target = frame_span(u->target),
                reason = frame_span(u->reason), origin = frame_span(u->origin);
    if (roles_have(a, ROLE_SCHEDULER))
        LOG_INFO("audit", LOG_STR("stage", stage), LOG_SPAN("actor", actor), LOG_STR("role", access_role_name(u->role)),
                 LOG_STR("verb", verb), LOG_SPAN("what", what), LOG_SPAN("target", target), LOG_SPAN("reason", reason),
                 LOG_U64("count", u->count), LOG_STR("error", error), LOG_SPAN("origin", origin));
    else
        LOG_ERROR("audit", LOG_STR("stage", stage), LOG_SPAN("actor", actor),
                  LOG_STR("role", access_role_name(u->role)), LOG_STR("verb", verb), LOG_SPAN("what", what),
                  LOG_SPAN("target", target), LOG_SPAN("reason", reason), LOG_U64("count", u->count),
                  LOG_STR("error", error), LOG_SPAN("origin", origin));
}

static int put(struct admin *a, uint64_t correlation, Words__AdminAudit *u) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    if (!roles_have(a, ROLE_SCHEDULER))
        return ERR_NOT_FOUND;
    q.verb = WORDS__ADMIN_VERB__ADMIN_AUDIT_PUT;
    q.audit = u;
    return roles_ask(a, ROLE_SCHEDULER, correlation | ADMIN_AUDIT_BIT, &q) ? ERR_OK : ERR_UNREACHABLE;
}

int admin_audit_begun(struct admin *a, const struct call *c, const Words__AdminRequest *q) {
    Words__AdminAudit u;
    char id[32];
    fill(&u, &c->asker, q, BEGUN, id);
    log_record(a, &u);
    metric_add(&metric_changes, 1);
    return put(a, c->correlation, &u);
}

/* Nothing waits for this one; what becomes of it is seen in admin_audit_on_reply. */
static void put_and_go_on(struct admin *a, Words__AdminAudit *u) {
    int err = put(a, ++a->last_correlation, u);
    if (err == ERR_OK || err == ERR_NOT_FOUND)
        return;
    metric_add(&metric_unkept, 1);
    LOG_ERROR("audit_unkept", LOG_ERR("why", err));
}

void admin_audit_done(struct admin *a, const struct call *c) {
    Words__AdminAudit u;
    struct arena mem;
    char id[32];
    arena_init(&mem, 4096, ADMIN_REQUEST_MAX * 4u);
    const Words__AdminRequest *q =
        frame_unpack(&words__admin_request__descriptor, span_make(c->request, c->request_len), &mem);
    fill(&u, &c->asker, q, DONE, id);
    u.verb = (uint32_t)c->verb->verb;
    u.has_count = c->has_count;
    u.count = c->count;
    u.has_error = c->error != ERR_OK;
    u.error = (uint32_t)-c->error;
    log_record(a, &u);
    put_and_go_on(a, &u);
    arena_deinit(&mem);
}

bool admin_audit_has_room(struct admin *a, uint64_t now_ms) {
    uint64_t second = now_ms / 1000, hour = second / HOUR_S;
    if (hour != a->refused_hour) {
        a->refused_hour = hour;
        a->refused_in_hour = 0;
    }
    if (second != a->refused_second) {
        if (a->refused_unkept)
            LOG_WARN("audit_refusals_unkept", LOG_U64("count", a->refused_unkept));
        a->refused_second = second;
        a->refused_in_second = a->refused_unkept = 0;
    }
    if (a->refused_in_second == REFUSED_PER_SECOND || a->refused_in_hour == REFUSED_PER_HOUR) {
        a->refused_unkept++;
        return false;
    }
    a->refused_in_second++;
    a->refused_in_hour++;
    return true;
}

void admin_audit_refused(struct admin *a, const struct admin_asker *asker, const Words__AdminRequest *q, int err) {
    Words__AdminAudit u;
    char id[32];
    metric_add(&metric_refused, 1);
    if (!admin_audit_has_room(a, clock_mono_ms()))
        return;
    fill(&u, asker, q, REFUSED, id);
    u.has_error = true;
    u.error = (uint32_t)-err;
    log_record(a, &u);
    put_and_go_on(a, &u);
}

void admin_audit_on_reply(struct admin *a, uint64_t correlation, const Words__AdminReply *r) {
    struct call *c = calls_find(a, correlation & ~ADMIN_AUDIT_BIT);
    int err = r->has_error ? -(int)r->error : ERR_OK;
    if (r->has_last && !r->last)
        return;
    if (err != ERR_OK) {
        metric_add(&metric_unkept, 1);
        LOG_ERROR("audit_unkept", LOG_ERR("why", err));
    }
    if (!c || c->state != CALL_AUDITING)
        return;
    if (err == ERR_OK)
        calls_go_on(a, c);
    else
        calls_fail(a, c, err, "the audit cannot be kept, so nothing was changed");
}
