/*
 * queue_walk: see queue_walk.h. A merge of two iterators. The iterator over states is opened first: so no state is
 * newer than its message, and a message that ends in between is not taken for a fresh one whose states are gone.
 *
 * An iterator holds a snapshot and keeps the store from being opened again after a failed write, so both are closed and
 * opened anew every so many records.
 */
#include "store/queue_walk.h"

#include <stdlib.h>

#include "store/keys.h"

#define RECORDS_MAX 50000u /* read with one pair of iterators */
#define VALUES_MAX (1024u * 1024u * 1024u)
#define VALUES_KEEP (4u * 1024u * 1024u)

void queue_walk_init(struct queue_walk *w, struct store *s, uint32_t shard, uint64_t from) {
    *w = (struct queue_walk){.store = s, .shard = shard, .next_id = from};
    buf_init(&w->values, VALUES_MAX);
}

static void close_iterators(struct queue_walk *w) {
    store_iter_close(w->envelopes);
    store_iter_close(w->recipients);
    w->envelopes = w->recipients = NULL;
    w->has_key = w->states_end = false;
}

void queue_walk_deinit(struct queue_walk *w) {
    close_iterators(w);
    buf_deinit(&w->values);
    free(w->states);
    w->states = NULL;
}

static int corrupt(struct queue_walk *w, enum store_family f, struct span key) {
    return w->err = store_corrupt(w->store, f, key);
}

int queue_walk_corrupt(struct queue_walk *w) {
    struct key k = key_message(w->shard, w->id);
    return corrupt(w, STORE_ENVELOPE, key_span(&k));
}

static int open_iterators(struct queue_walk *w) {
    struct key from = key_message(w->shard, w->next_id), to = key_shard(w->shard + 1);
    w->records = 0;
    int err = store_iter_open_once(&w->recipients, w->store, STORE_RECIPIENT, key_span(&from), key_span(&to));
    if (err == ERR_OK)
        err = store_iter_open_once(&w->envelopes, w->store, STORE_ENVELOPE, key_span(&from), key_span(&to));
    return w->err = err;
}

/* Moves the iterator over states to the next record. False at its end. */
static bool next_state(struct queue_walk *w) {
    w->has_key = store_iter_next(w->recipients, &w->key, &w->value);
    w->records++;
    w->states_end = !w->has_key;
    if (!w->has_key)
        w->err = store_iter_error(w->recipients);
    else if (w->key.len != 14)
        corrupt(w, STORE_RECIPIENT, w->key);
    return w->has_key && w->err == ERR_OK;
}

static int keep_state(struct queue_walk *w) {
    if (w->state_count == w->state_cap) {
        uint32_t cap = w->state_cap ? w->state_cap * 2 : 64;
        struct queue_state *grown = realloc(w->states, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        w->states = grown;
        w->state_cap = cap;
    }
    w->states[w->state_count++] = (struct queue_state){key_get_u32(w->key, 10), buf_len(&w->values), w->value.len};
    return buf_add(&w->values, w->value);
}

/* Gathers the states of message w->id; those before it belong to messages that are gone. */
static void gather_states(struct queue_walk *w) {
    w->state_count = 0;
    if (buf_len(&w->values) > VALUES_KEEP)
        buf_deinit(&w->values);
    else
        buf_clear(&w->values);
    if (w->states_end || (!w->has_key && !next_state(w)))
        return;
    do {
        uint64_t id = key_get_u64(w->key, 2);
        if (id > w->id)
            return;
        if (id == w->id)
            w->err = keep_state(w);
    } while (w->err == ERR_OK && next_state(w));
}

bool queue_walk_next(struct queue_walk *w) {
    struct span key;
    if (w->err != ERR_OK)
        return false;
    if (w->records >= RECORDS_MAX)
        close_iterators(w);
    if (!w->envelopes && open_iterators(w) != ERR_OK)
        return false;
    w->records++;
    if (!store_iter_next(w->envelopes, &key, &w->envelope)) {
        w->err = store_iter_error(w->envelopes);
        return false;
    }
    if (key.len != 10) {
        corrupt(w, STORE_ENVELOPE, key);
        return false;
    }
    w->id = key_get_u64(key, 2);
    w->next_id = w->id + 1;
    gather_states(w);
    return w->err == ERR_OK;
}

struct span queue_walk_state(const struct queue_walk *w, uint32_t index, uint32_t *at) {
    while (*at < w->state_count && w->states[*at].index < index)
        ++*at;
    if (*at == w->state_count || w->states[*at].index != index)
        return SPAN_EMPTY;
    return span_first(span_from(buf_span(&w->values), w->states[*at].at), w->states[*at].len);
}

/* -- glances: the wire format of protobuf, as far as it is needed -- */

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
struct wire_field {
    uint32_t number;
    uint64_t value; /* of a varint */
    struct span bytes;
};

static bool take_varint(struct span *s, uint64_t *value) {
    if (s->len && !(s->at[0] & 0x80)) { /* most are one octet */
        *value = (uint8_t)s->at[0];
        *s = span_from(*s, 1);
        return true;
    }
    *value = 0;
    for (unsigned i = 0; i < 10 && i < s->len; i++) {
        uint8_t c = (uint8_t)s->at[i];
        *value |= (uint64_t)(c & 0x7f) << (7 * i);
        if (!(c & 0x80)) {
            *s = span_from(*s, i + 1);
            return true;
        }
    }
    return false;
}

static bool take_bytes(struct span *s, uint64_t len, struct span *bytes) {
    if (len > s->len)
        return false;
    *bytes = span_first(*s, (size_t)len);
    *s = span_from(*s, (size_t)len);
    return true;
}

/* Cuts the next field off. False: malformed (the caller has seen that something is left). */
static bool take_field(struct span *s, struct wire_field *f) {
    uint64_t tag, len;
    if (!take_varint(s, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *f = (struct wire_field){.number = (uint32_t)(tag >> 3)};
    switch (tag & 7) {
    case WIRE_VARINT:
        return take_varint(s, &f->value);
    case WIRE_BYTES:
        return take_varint(s, &len) && take_bytes(s, len, &f->bytes);
    case WIRE_FIXED64:
        return take_bytes(s, 8, &f->bytes);
    case WIRE_FIXED32:
        return take_bytes(s, 4, &f->bytes);
    default:
        return false;
    }
}

enum {
    ENVELOPE_RECIPIENTS = 2,
    ENVELOPE_RECEIVED = 3,
    RECIPIENT_DESTINATION = 5,
    STATE_STATE = 1,
    STATE_DESTINATION = 10
};

static int add_destination(struct queue_glance *g, struct span recipient) {
    struct span destination = SPAN_EMPTY;
    struct wire_field f;
    while (recipient.len) {
        if (!take_field(&recipient, &f))
            return ERR_CORRUPT;
        if (f.number == RECIPIENT_DESTINATION)
            destination = f.bytes;
    }
    if (g->count == g->cap) {
        uint32_t cap = g->cap ? g->cap * 2 : 64;
        struct span *grown = realloc(g->destinations, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        g->destinations = grown;
        g->cap = cap;
    }
    g->destinations[g->count++] = destination;
    return ERR_OK;
}

int queue_glance_envelope(struct queue_glance *g, struct span packed) {
    struct wire_field f;
    int err = ERR_OK;
    g->count = 0;
    g->received_ms = 0;
    while (packed.len && err == ERR_OK) {
        if (!take_field(&packed, &f))
            return ERR_CORRUPT;
        if (f.number == ENVELOPE_RECIPIENTS)
            err = add_destination(g, f.bytes);
        else if (f.number == ENVELOPE_RECEIVED)
            g->received_ms = f.value;
    }
    return err == ERR_OK && g->count == 0 ? ERR_CORRUPT : err;
}

uint32_t queue_glance_state(struct span packed, struct span *destination) {
    struct wire_field f;
    uint64_t state = 0;
    while (packed.len) {
        if (!take_field(&packed, &f))
            return 0;
        if (f.number == STATE_STATE)
            state = f.value;
        else if (f.number == STATE_DESTINATION)
            *destination = f.bytes;
    }
    return state <= UINT32_MAX ? (uint32_t)state : 0;
}

void queue_glance_deinit(struct queue_glance *g) {
    free(g->destinations);
    *g = (struct queue_glance){0};
}
