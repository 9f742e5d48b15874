/*
 * question_text: the text of one message: `msg headers` (its header section, from its first chunk) and `msg body` (all
 * of it, chunk by chunk).
 *
 * One chunk is in memory at a time, and the next one is read when its reply was handed over. A request brings at most
 * WINDOW chunks; the last reply then has a cursor, which the next request names: so a reader that is slow, or gone,
 * never has more than a window on its way. Only a few are read at once.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/id.h"
#include "scheduler/question_in.h"

#define WINDOW 4u
#define TEXTS_MAX 4u
#define CURSOR_LEN 4u

struct text {
    struct scheduler *sc;
    uint64_t correlation, id;
    bool header;
    uint32_t next, end; /* chunks: the one to be read; where this request ends */
    uint64_t size;      /* of the message; known after the first reading */
    bool has_size;
    struct buf chunk;
    int err;
};

/* -- on a helper thread -- */

static int read_size(struct text *t) {
    struct arena mem;
    Words__Envelope *e;
    arena_init(&mem, 64 * 1024, 0);
    int err = queue_get_envelope(t->sc->store, id_shard(t->id), t->id, &mem, &e);
    if (err == ERR_OK) {
        t->size = e->size;
        t->has_size = true;
    }
    arena_deinit(&mem);
    return err;
}

static uint32_t chunks_in(uint64_t size) {
    return (uint32_t)((size + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX);
}

static void read_chunk(void *arg) {
    struct text *t = arg;
    buf_clear(&t->chunk);
    t->err = t->has_size ? ERR_OK : read_size(t);
    if (t->err == ERR_OK && t->next < chunks_in(t->size))
        t->err = queue_get_chunk(t->sc->store, id_shard(t->id), t->id, t->next, &t->chunk);
}

/* -- on the loop -- */

static void text_free(struct text *t) {
    t->sc->readings--;
    buf_deinit(&t->chunk);
    free(t);
}

/* Up to the empty line and with it; without one the whole chunk. */
static struct span header_of(struct span chunk) {
    for (size_t i = 0; i + 1 < chunk.len; i++) {
        if (chunk.at[i] != '\n')
            continue;
        if (chunk.at[i + 1] == '\n')
            return span_first(chunk, i + 2);
        if (i + 2 < chunk.len && chunk.at[i + 1] == '\r' && chunk.at[i + 2] == '\n')
            return span_first(chunk, i + 3);
    }
    return chunk;
}

static void text_read(void *arg);

static void go_on(struct text *t) {
    if (!t->sc->stopping && scheduler_work(t->sc, read_chunk, text_read, t))
        return;
    question_error(t->sc, t->correlation, t->sc->stopping ? ERR_CANCELED : ERR_NOMEM, NULL);
    text_free(t);
}

static void text_read(void *arg) {
    struct text *t = arg;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct span chunk = buf_span(&t->chunk);
    uint8_t cursor[CURSOR_LEN];
    if (t->err != ERR_OK) {
        bool gone = t->err == ERR_NOT_FOUND;
        question_error(t->sc, t->correlation, t->err, gone ? "the message is not in the queue (any more)" : NULL);
        text_free(t);
        return;
    }
    t->next++;
    bool more = !t->header && t->next < chunks_in(t->size);
    bool last = !more || t->next >= t->end;
    r.has_text = true;
    r.text = frame_bytes(t->header ? header_of(chunk) : chunk);
    r.has_count = true;
    r.count = t->size;
    r.has_cursor = more && last;
    for (size_t i = 0; i < CURSOR_LEN; i++)
        cursor[i] = (uint8_t)(t->next >> (8 * i));
    r.cursor = frame_bytes(span_make(cursor, sizeof cursor));
    question_reply(t->sc, t->correlation, &r, last);
    if (last)
        text_free(t);
    else
        go_on(t);
}

static int read_cursor(struct text *t, struct span cursor) {
    if (cursor.len && cursor.len != CURSOR_LEN)
        return ERR_INVALID;
    for (size_t i = 0; i < cursor.len; i++)
        t->next |= (uint32_t)(uint8_t)cursor.at[i] << (8 * i);
    return t->next <= 0xffffu ? ERR_OK : ERR_INVALID;
}

void question_text(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    struct text *t = sc->readings < TEXTS_MAX ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        question_error(sc, correlation, ERR_AGAIN, "too many messages are read at once; ask again in a moment");
        return;
    }
    sc->readings++;
    *t = (struct text){.sc = sc, .correlation = correlation, .id = m->has_message ? m->message : 0};
    t->header = m->verb == WORDS__ADMIN_VERB__ADMIN_MSG_HEADERS;
    buf_init(&t->chunk, FRAME_BODY_MAX + 1u);
    int err = scheduler_shard_of(sc, t->id) ? ERR_OK : ERR_NOT_FOUND;
    if (err == ERR_OK)
        err = read_cursor(t, m->has_after ? frame_span(m->after) : SPAN_EMPTY);
    t->end = t->next + WINDOW;
    if (err == ERR_OK) {
        go_on(t);
        return;
    }
    question_error(sc, correlation, err, err == ERR_INVALID ? "not a cursor of this text" : NULL);
    text_free(t);
}
