/*
 * message: messages in memory: how they come in (loaded.c has those from the store), how their recipients change
 * state, and how they leave (dropped when all is settled, forgotten when nothing is to be done now).
 *
 * A submission's writes may be refused by the disk. Until its batch has ended such a message is pinned:
 * it neither leaves memory nor is dropped nor reported on, so that a rejection finds all of it.
 *
 * Records of changed recipients are gathered in the dirty list of the step and written by
 * core_message_check, which must follow every change before another message is touched: a
 * message that turns out to be finished is dropped without them.
 */
#include <stdlib.h>

#include "scheduler/core/core.h"
#include "scheduler/core/retry.h"

#define TEXT_MAX 512u
#define REMOTE_MAX 300u
#define ENHANCED_MAX 16u

/* -- results -- */

void core_set_result(struct recipient *r, const struct sched_result *from) {
    struct span enhanced = span_first(from->enhanced, ENHANCED_MAX);
    struct span text = span_first(from->text, TEXT_MAX), remote = span_first(from->remote, REMOTE_MAX);
    struct result *to = core_must_alloc(sizeof *to + enhanced.len + text.len + remote.len);
    to->code = from->code;
    to->outcome = (uint8_t)from->outcome;
    to->scope = (uint8_t)from->scope;
    to->hop = (uint8_t)from->hop;
    to->enhanced_len = (uint8_t)enhanced.len;
    to->text_len = (uint16_t)text.len;
    to->remote_len = (uint16_t)remote.len;
    char *at = to->bytes;
    const struct span parts[] = {enhanced, text, remote};
    for (int i = 0; i < 3; i++) {
        if (parts[i].len)
            memcpy(at, parts[i].at, parts[i].len);
        at += parts[i].len;
    }
    free(r->last);
    r->last = to;
}

bool core_view_result(const struct recipient *r, struct sched_result *to) {
    const struct result *l = r->last;
    if (!l)
        return false;
    *to = (struct sched_result){
        .outcome = l->outcome,
        .scope = l->scope,
        .code = l->code,
        .hop = l->hop,
        .enhanced = {l->bytes, l->enhanced_len},
        .text = {l->bytes + l->enhanced_len, l->text_len},
        .remote = {l->bytes + l->enhanced_len + l->text_len, l->remote_len},
    };
    return true;
}

/* -- in the map -- */

static bool match_id(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, const struct message, by_id)->id == *(const uint64_t *)key;
}

struct message *core_message_find(const struct sched *s, uint64_t id) {
    struct map_node *n = map_find(&s->messages, core_mix(id), match_id, &id);
    return n ? LIST_ENTRY(n, struct message, by_id) : NULL;
}

struct message *core_message_new(struct sched *s, uint64_t id, struct span fair, uint32_t count) {
    struct message *m = calloc(1, sizeof *m + count * sizeof *m->at);
    if (!m)
        return NULL;
    m->fair = core_fair_take(s, fair);
    if (m->fair && map_insert(&s->messages, &m->by_id, core_mix(id)) != ERR_OK) {
        core_fair_drop(s, m->fair);
        m->fair = NULL;
    }
    if (!m->fair) {
        free(m);
        return NULL;
    }
    m->id = id;
    m->count = count;
    for (uint32_t i = 0; i < count; i++)
        m->at[i].index = i;
    s->active += count;
    s->counts.messages++;
    return m;
}

bool core_message_set_times(struct sched *s, struct message *m, uint64_t received_ms, const struct sched_wish *wish) {
    m->held = wish->release_ms > received_ms;
    m->from_ms = m->held ? wish->release_ms : received_ms;
    m->by_ms = wish->by_ms;
    m->by_notify = wish->by_notify;
    return m->by_ms <= s->now || heap_push(&s->deadlines, &m->deadline) == ERR_OK;
}

/* What a recipient in this state adds to the books of the core. */
static void count(struct sched *s, enum sched_state state, int by) {
    if (state == SCHED_READY)
        s->counts.ready += (uint64_t)by;
    else if (state == SCHED_ASSIGNED)
        s->counts.assigned += (uint64_t)by;
    else if (state == SCHED_DEFERRED)
        s->counts.deferred_here += (uint64_t)by;
    else if (state == SCHED_FAILED)
        s->counts.failed_waiting += (uint64_t)by;
}

void core_message_free(struct sched *s, struct message *m) {
    for (uint32_t i = 0; i < m->count; i++) {
        struct recipient *r = &m->at[i];
        if (r->state == SCHED_READY && r->lane)
            core_ready_take(s, r);
        count(s, r->state, -1);
        core_order_drop(s, r);
        if (r->dest)
            core_dest_drop(s, r->dest);
        free(r->last);
    }
    if (m->news)
        core_report_close(s, m);
    if (list_is_linked(&m->pin))
        list_remove(&s->pins, &m->pin);
    if (s->visitor == m)
        s->visitor = NULL;
    if (heap_is_linked(&m->deadline))
        heap_remove(&s->deadlines, &m->deadline);
    map_remove(&s->messages, &m->by_id);
    core_fair_drop(s, m->fair);
    s->active -= m->count;
    s->counts.messages--;
    free(m);
}

/* -- states -- */

#define TO(state) (1u << (state))
static const uint8_t allowed[] = {
    [0] = TO(SCHED_READY) | TO(SCHED_DEFERRED) | TO(SCHED_DELIVERED) | TO(SCHED_FAILED) | TO(SCHED_SETTLED) |
          TO(SCHED_HELD),
    [SCHED_READY] = TO(SCHED_ASSIGNED) | TO(SCHED_DEFERRED),
    [SCHED_ASSIGNED] = TO(SCHED_READY) | TO(SCHED_DEFERRED) | TO(SCHED_DELIVERED) | TO(SCHED_FAILED),
    [SCHED_DEFERRED] = TO(SCHED_READY) | TO(SCHED_DEFERRED) | TO(SCHED_FAILED) | TO(SCHED_HELD) | TO(SCHED_SETTLED),
    [SCHED_DELIVERED] = TO(SCHED_SETTLED),
    [SCHED_FAILED] = TO(SCHED_SETTLED),
    [SCHED_SETTLED] = 0,
    [SCHED_HELD] = TO(SCHED_READY) | TO(SCHED_DEFERRED) | TO(SCHED_FAILED) | TO(SCHED_SETTLED),
};

void core_set_state(struct sched *s, struct message *m, struct recipient *r, enum sched_state to) {
    enum sched_state from = r->state;
    CHECK(allowed[from] & TO(to));
    m->work += (to == SCHED_READY || to == SCHED_ASSIGNED);
    m->work -= (from == SCHED_READY || from == SCHED_ASSIGNED);
    m->waiting += (to == SCHED_FAILED || to == SCHED_DELIVERED);
    m->waiting -= (from == SCHED_FAILED || from == SCHED_DELIVERED);
    m->settled += to == SCHED_SETTLED;
    count(s, from, -1);
    count(s, to, 1);
    r->state = to & 7u;
}

void core_mark_dirty(struct sched *s, struct recipient *r) {
    if (r->dirty)
        return;
    if (s->dirty_count == s->dirty_cap) {
        uint32_t cap = s->dirty_cap ? s->dirty_cap * 2 : 64;
        void *grown = realloc(s->dirty, cap * sizeof *s->dirty);
        CHECK(grown);
        s->dirty = grown;
        s->dirty_cap = cap;
    }
    r->dirty = 1;
    s->dirty[s->dirty_count++] = r;
}

static void put_recipient(struct sched *s, struct message *m, struct recipient *r) {
    struct sched_action *a = core_act(s, SCHED_PUT_RECIPIENT);
    struct sched_result last;
    a->recipient.id = m->id;
    a->recipient.index = r->index;
    /* What is under way is read back as READY; the attempt's own record tells of the doubt. */
    a->recipient.state = r->state == SCHED_ASSIGNED ? SCHED_READY : (enum sched_state)r->state;
    a->recipient.attempts = r->attempts;
    a->recipient.due_ms = r->state == SCHED_DEFERRED || r->state == SCHED_HELD ? r->due_ms : 0;
    a->recipient.delay_notified = r->delay_notified;
    const struct order *o = r->order;
    a->recipient.destination = core_dest_name(o && o->dest ? o->dest : r->dest);
    a->recipient.routed = o && o->dest ? o->routed : r->routed;
    a->recipient.wish = o ? o->wish : 0;
    a->recipient.note = core_keep_span(s, core_order_note(r));
    a->recipient.has_result = r->state != SCHED_SETTLED && core_view_result(r, &last);
    if (a->recipient.has_result)
        a->recipient.last = core_copy_result(s, &last);
    m->states = true;
    m->late = m->late || list_is_linked(&m->pin);
}

static void write_dirty(struct sched *s, struct message *m, bool drop) {
    for (uint32_t i = 0; i < s->dirty_count; i++) {
        struct recipient *r = s->dirty[i];
        CHECK(core_message_of(r) == m);
        r->dirty = 0;
        if (!drop)
            put_recipient(s, m, r);
    }
    s->dirty_count = 0;
}

static void forget(struct sched *s, struct message *m) {
    core_act(s, SCHED_FORGET)->id = m->id;
    core_message_free(s, m);
}

void core_message_check(struct sched *s, struct message *m) {
    bool pinned = list_is_linked(&m->pin);
    bool over = m->settled == m->count && !pinned;
    write_dirty(s, m, over);
    if (over) {
        if (m->count > 1)
            core_trace(s, m, SCHED_TRACE_DONE, UINT32_MAX, 0, 0, SPAN_EMPTY, NULL);
        struct sched_action *a = core_act(s, SCHED_DROP_MESSAGE);
        a->drop.id = m->id;
        a->drop.size = m->size;
        a->drop.count = m->count;
        a->drop.states = m->states;
        core_message_free(s, m);
        return;
    }
    if (pinned)
        return;
    if (m->news)
        core_report_check(s, m);
    if (!m->work && !m->waiting && !m->news && s->visitor != m)
        forget(s, m);
}

/* -- admission -- */

/* When a destination that has its share of the hot set can take more: about when what it has will be done. */
static uint64_t after_backlog(struct sched *s, struct dest *d, uint32_t share) {
    uint64_t wait = d->wait_ms, idle = d->assigned_ms ? s->now - d->assigned_ms : 60000;
    wait = wait > idle ? wait : idle;
    wait = wait < 5000 ? 5000 : wait;
    wait += wait * (d->spilled++ / share);
    wait = wait < 900000 ? wait : 900000;
    return s->now + wait + rand_below(&s->rand, wait / 4 + 1);
}

void core_admit(struct sched *s, struct message *m, struct recipient *r, enum core_admission how) {
    struct dest *d = r->dest;
    uint32_t share = s->config.active_max / 2 + 1;
    bool loaded = !m->batch;
    core_site_refresh(s, d);
    if (d->ready < share / 2)
        d->spilled = 0;
    if (core_message_is_overdue(s, m)) {
        core_overdue(s, m, r);
        return;
    }
    if (m->by_ms && m->by_ms <= s->now)
        core_report_delay(s, m, r);
    if (m->held && m->from_ms > s->now && how != CORE_ADMIT_FORCED) {
        core_put_off(s, m, r, m->from_ms, CORE_WANT_RELEASE);
        return;
    }
    if (how == CORE_ADMIT_FULL) {
        /* What was read although there was no room comes back a little later, else it would turn in a circle. */
        uint64_t later = loaded ? 5000 + rand_below(&s->rand, 5000) : 0;
        core_put_off(s, m, r, s->now + later, CORE_WANT_ROOM);
    } else if (how == CORE_ADMIT && core_site_is_stuffed(s, d, false)) {
        core_put_off(s, m, r, core_site_back_ms(s, d), CORE_WANT_SITE);
    } else if (how == CORE_ADMIT && d->ready >= share) {
        core_put_off(s, m, r, after_backlog(s, d, share), CORE_WANT_ROOM);
    } else {
        core_set_state(s, m, r, SCHED_READY);
        core_ready_put(s, m, r, false);
    }
}

/* -- submitted -- */

static bool is_valid_submit(const struct sched_submit *e) {
    if (!e->count || e->count > CORE_RECIPIENTS_MAX || !e->recipients || e->priority >= CORE_CLASSES)
        return false;
    for (uint32_t i = 0; i < e->count; i++) {
        size_t len = e->recipients[i].destination.len;
        if (!len || len > CORE_NAME_MAX || e->recipients[i].notify > 15)
            return false;
    }
    return true;
}

static bool fill_submitted(struct sched *s, struct message *m, const struct sched_submit *e, bool report) {
    m->size = e->size;
    m->priority = (uint8_t)e->priority;
    m->report = report;
    m->null_sender = e->sender.len == 0;
    m->batch = s->batch;
    if (!core_message_set_times(s, m, e->received_ms, &e->wish))
        return false;
    for (uint32_t i = 0; i < e->count; i++) {
        m->at[i].notify = e->recipients[i].notify & 15u;
        m->at[i].dest = core_dest_take(s, e->recipients[i].destination);
        if (!m->at[i].dest)
            return false;
    }
    return true;
}

int core_enqueue_message(struct sched *s, const struct sched_submit *e, bool composed, uint64_t *id) {
    if (!is_valid_submit(e) || (e->id && core_message_find(s, e->id)))
        return ERR_INVALID;
    bool full = s->active >= s->config.active_max;
    *id = e->id ? e->id : sched_reserve_id(s, s->now);
    struct message *m = core_message_new(s, *id, e->fair, e->count);
    if (!m)
        return ERR_NOMEM;
    if (!fill_submitted(s, m, e, composed || e->report)) {
        core_message_free(s, m);
        return ERR_NOMEM;
    }
    struct sched_action *a = core_act(s, SCHED_PUT_MESSAGE);
    a->put.id = *id;
    a->put.token = e->token;
    core_trace(s, m, SCHED_TRACE_ACCEPTED, UINT32_MAX, 0, 0, SPAN_EMPTY, NULL);
    for (uint32_t i = 0; i < m->count; i++)
        core_admit(s, m, &m->at[i], full ? CORE_ADMIT_FULL : CORE_ADMIT);
    a = core_act(s, SCHED_ANSWER);
    a->answer.token = e->token;
    a->answer.id = *id;
    write_dirty(s, m, false);
    if (!composed && (m->work || m->waiting || m->settled || m->news))
        list_push_back(&s->pins, &m->pin);
    core_message_check(s, m);
    return ERR_OK;
}

int core_on_submit(struct sched *s, const struct sched_submit *e) {
    uint64_t id;
    return core_enqueue_message(s, e, false, &id);
}

void core_on_durable(struct sched *s) {
    for (struct list_node *n; (n = list_first(&s->pins));) {
        struct message *m = LIST_ENTRY(n, struct message, pin);
        if (m->batch > s->done)
            return;
        list_remove(&s->pins, &m->pin);
        if (!m->work || m->news)
            core_message_check(s, m);
    }
}

/* Takes the message back as if it had never come. Records that were written apart from it go too. */
static void reject(struct sched *s, struct message *m) {
    for (uint32_t i = 0; i < m->count; i++) {
        struct recipient *r = &m->at[i];
        if (r->state != SCHED_ASSIGNED)
            continue;
        struct attempt *a = r->attempt;
        for (uint32_t k = 0; k < a->count; k++) {
            m->at[a->indexes[k]].attempt = NULL;
            core_set_state(s, m, &m->at[a->indexes[k]], SCHED_DEFERRED);
        }
        core_attempt_end(s, a);
    }
    if (m->late) {
        struct sched_action *a = core_act(s, SCHED_DROP_MESSAGE);
        a->drop.id = m->id;
        a->drop.size = m->size;
        a->drop.count = m->count;
        a->drop.states = true;
    }
    forget(s, m);
}

void core_on_rejected(struct sched *s) {
    for (struct list_node *n; (n = list_first(&s->pins));) {
        struct message *m = LIST_ENTRY(n, struct message, pin);
        if (m->batch > s->done)
            return;
        reject(s, m);
    }
}
