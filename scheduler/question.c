/*
 * question: the scheduler's answers to the admin RPC (proto/admin.proto): which file answers what, replies, and rows.
 * question_in.h lists the files; changes of the queue are in operator.c.
 *
 * Questions that walk over the queue run on threads of their own (walks.h), those about one message on helper threads;
 * what the cores know is asked on the loop.
 */
#include <string.h>

#include "base/log.h"
#include "scheduler/question_in.h"

/* -- replies -- */

void question_reply(struct scheduler *sc, uint64_t correlation, Words__AdminReply *r, bool last) {
    r->has_last = true;
    r->last = last;
    int err = frame_send_peer(sc->admin, FRAME_ADMIN_REPLY, correlation, 0, &r->base, NULL, &sc->pack);
    if (err == ERR_OK)
        return;
    LOG_WARN("admin_reply_unsent", LOG_ERR("why", err));
    if (!r->has_error) /* too long for one frame: a short answer gets through */
        question_error(sc, correlation, err, "the answer is too long to be shown");
}

void question_error(struct scheduler *sc, uint64_t correlation, int err, const char *text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = true;
    r.error = (uint32_t)-err;
    r.has_text = true;
    r.text = frame_bytes(span_of(text ? text : err_text(err)));
    question_reply(sc, correlation, &r, true);
}

/* -- rows -- */

bool question_grow(struct arena *mem, void *array_ptr, size_t *cap, size_t count) {
    if (count < *cap)
        return true;
    size_t bigger = *cap ? *cap * 2 : 64;
    void *old, *fresh = arena_alloc(mem, bigger * sizeof(uint64_t));
    if (!fresh)
        return false;
    memcpy(&old, array_ptr, sizeof old);
    if (count)
        memcpy(fresh, old, count * sizeof(uint64_t));
    memcpy(array_ptr, &fresh, sizeof fresh);
    *cap = bigger;
    return true;
}

Words__AdminRow *question_row(struct arena *mem, uint64_t id, uint32_t index, const Words__Envelope *e,
                              const Words__RecipientState *s) {
    Words__AdminRow *r = arena_alloc(mem, sizeof *r);
    if (!r)
        return NULL;
    words__admin_row__init(r);
    r->has_message = r->has_index = r->has_sender = r->has_recipient = r->has_destination = r->has_state = true;
    r->has_received_ms = r->has_size = true;
    r->message = id;
    r->index = index;
    r->sender = e->sender;
    r->recipient = e->recipients[index]->address;
    r->destination = e->recipients[index]->destination;
    r->state = s ? s->state : (uint32_t)SCHED_READY;
    r->received_ms = e->received_ms;
    r->size = e->size;
    if (s) {
        r->has_attempts = s->has_attempts;
        r->attempts = s->attempts;
        r->has_due_ms = s->has_due_ms;
        r->due_ms = s->due_ms;
        r->last = s->last;
        r->has_route = s->has_destination;
        r->route = s->destination;
        r->has_reason = s->has_note;
        r->reason = s->note;
    }
    return r;
}

void *question_copy(struct arena *mem, const ProtobufCMessage *m) {
    struct buf packed;
    buf_init(&packed, FRAME_META_MAX);
    void *copy = NULL;
    if (frame_pack(m, &packed) == ERR_OK) {
        struct span bytes = arena_dup(mem, buf_span(&packed));
        copy = bytes.at ? frame_unpack(m->descriptor, bytes, mem) : NULL;
    }
    buf_deinit(&packed);
    return copy;
}

/* -- requests -- */

static void ask(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    switch (m->verb) {
    case WORDS__ADMIN_VERB__ADMIN_STATUS:
        question_status(sc, correlation);
        return;
    case WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST:
        question_list(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY:
    case WORDS__ADMIN_VERB__ADMIN_QUEUE_SHAPE:
        question_count(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_MSG_SHOW:
    case WORDS__ADMIN_VERB__ADMIN_MSG_TRACE:
    case WORDS__ADMIN_VERB__ADMIN_MSG_WHY:
        question_message(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_MSG_HEADERS:
    case WORDS__ADMIN_VERB__ADMIN_MSG_BODY:
        question_text(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_SITES:
        question_sites(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_SHARDS:
        question_shards(sc, correlation);
        return;
    case WORDS__ADMIN_VERB__ADMIN_AUDIT_PUT:
        question_audit_put(sc, correlation, m);
        return;
    case WORDS__ADMIN_VERB__ADMIN_AUDIT_LIST:
        question_audit_list(sc, correlation, m);
        return;
    default:
        question_error(sc, correlation, ERR_UNSUPPORTED, NULL);
    }
}

void question_on_message(void *arg, const struct bus_message *msg) {
    struct scheduler *sc = arg;
    struct frame f;
    if (frame_read(&f, msg) != ERR_OK || f.kind != FRAME_ADMIN_REQUEST)
        return;
    struct arena mem;
    arena_init(&mem, 4096, FRAME_META_MAX * 2u);
    const Words__AdminRequest *m = frame_unpack(&words__admin_request__descriptor, f.meta, &mem);
    if (!m)
        question_error(sc, f.correlation, ERR_INVALID, NULL);
    else if (!operator_on_request(sc, f.correlation, m))
        ask(sc, f.correlation, m);
    arena_deinit(&mem);
}
