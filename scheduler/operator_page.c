/*
 * operator_page: reads the messages that an operator's change looks at next, as they are in the store: one page of the
 * walk over a shard, without those that cannot match; or the messages that were stale in an earlier page; or the one
 * message that the change is about.
 *
 * Runs on a helper thread. The loop leaves the change alone meanwhile.
 */
#include <string.h>

#include "scheduler/operator_in.h"
#include "store/queue_walk.h"

#define PAGE_BYTES (8u * 1024u * 1024u)
#define PAGE_SEEN 65536u /* messages looked at for one page */

static bool may_match(const struct change *c, uint64_t id, const Words__Envelope *e) {
    for (size_t i = 0; c->filter && i < e->n_recipients; i++) {
        struct filter_subject s = {
            .message = id,
            .sender = frame_span(e->sender),
            .recipient = frame_span(e->recipients[i]->address),
            .destination = frame_span(e->recipients[i]->destination),
            .received_ms = e->received_ms,
        };
        if (filter_may_match(c->filter, &s, c->now_ms))
            return true;
    }
    return !c->filter;
}

static void read_one(struct change *c, uint64_t id) {
    struct page_message *m = &c->page[c->count];
    *m = (struct page_message){.id = id};
    int err = queue_get_message(c->sc->store, c->shard, id, &c->mem, &m->envelope, &m->states);
    if (err == ERR_OK && may_match(c, id, m->envelope))
        c->count++;
    else if (err == ERR_NOT_FOUND && c->must_be)
        c->err = err;
    else if (err != ERR_OK && err != ERR_NOT_FOUND)
        c->err = err;
}

static void unpack_walked(struct change *c, struct queue_walk *w) {
    struct page_message *m = &c->page[c->count];
    uint32_t at = 0;
    *m = (struct page_message){.id = w->id};
    arena_reset(&c->look);
    const Words__Envelope *e = frame_unpack(&words__envelope__descriptor, w->envelope, &c->look);
    if (!e) {
        c->err = queue_walk_corrupt(w);
        return;
    }
    if (!may_match(c, m->id, e))
        return;
    m->envelope = frame_unpack(&words__envelope__descriptor, w->envelope, &c->mem);
    if (!m->envelope) {
        c->err = ERR_NOMEM;
        return;
    }
    m->states = arena_calloc(&c->mem, m->envelope->n_recipients + 1, sizeof(Words__RecipientState *));
    if (!m->states) {
        c->err = ERR_NOMEM;
        return;
    }
    for (uint32_t i = 0; i < m->envelope->n_recipients; i++) {
        struct span packed = queue_walk_state(w, i, &at);
        if (!packed.len)
            continue;
        m->states[i] = frame_unpack(&words__recipient_state__descriptor, packed, &c->mem);
        if (!m->states[i]) {
            c->err = queue_walk_corrupt(w);
            return;
        }
    }
    c->count++;
}

static void read_walked(struct change *c) {
    struct queue_walk w;
    queue_walk_init(&w, c->sc->store, c->shard, c->next_id);
    uint32_t seen = 0;
    c->shard_over = true;
    while (c->err == ERR_OK && queue_walk_next(&w) && w.id <= c->last_id) {
        unpack_walked(c, &w);
        c->next_id = w.id + 1;
        if (c->count == PAGE_MESSAGES || c->mem.used > PAGE_BYTES || ++seen == PAGE_SEEN) {
            c->shard_over = false;
            break;
        }
    }
    if (c->err == ERR_OK)
        c->err = w.err;
    queue_walk_deinit(&w);
}

static void read_again(struct change *c) {
    size_t n = 0;
    while (n < c->again_count && c->err == ERR_OK && c->mem.used <= PAGE_BYTES)
        read_one(c, c->again[n++]);
    c->again_count -= n;
    memmove(c->again, c->again + n, c->again_count * sizeof *c->again);
}

void operator_read_page(void *change) {
    struct change *c = change;
    if (c->again_count) {
        read_again(c);
    } else if (c->only) {
        c->shard_over = true;
        read_one(c, c->only);
    } else {
        read_walked(c);
    }
}
