/*
 * question_list: `queue list`: a row for each recipient that matches, in the order of shards, message ids and indexes,
 * by pages. A page ends when it has as many rows as were asked for or as a frame takes, or when so many recipients were
 * looked at that it is time to say so: then it may have few rows or none, and its cursor shows that there is more.
 *
 * The cursor names the last recipient that was looked at: shard (2 octets), id (8), index (4). So a walk goes on where
 * the last one ended, whatever has come and gone meanwhile.
 */
#include <stdlib.h>

#include "base/check.h"
#include "proto/id.h"
#include "scheduler/question_in.h"
#include "store/keys.h"
#include "store/queue_walk.h"

#define LOOK_MAX 200000u          /* recipients looked at for one page */
#define BYTES_MAX (1024u * 1024u) /* of the rows, packed: well under one frame */
#define MEMORY_MAX (32u * 1024u * 1024u)
#define CURSOR_LEN 14u

struct place { /* of the last recipient looked at */
    uint32_t shard;
    uint64_t id;
    uint32_t index;
    bool whole; /* index and all behind it in the message */
};
struct page {
    struct scheduler *sc;
    uint64_t correlation;
    struct question_match *match;
    size_t limit;
    struct place at;
    struct arena mem;
    Words__AdminRow **rows;
    size_t row_count, row_cap, bytes;
    uint32_t looked;
    bool full;
    int err;
};

static int read_cursor(struct place *at, struct span cursor) {
    *at = (struct place){.whole = true};
    if (cursor.len == 0)
        return ERR_OK;
    if (cursor.len != CURSOR_LEN)
        return ERR_INVALID;
    at->shard = key_get_u16(cursor, 0);
    at->id = key_get_u64(cursor, 2);
    at->index = key_get_u32(cursor, 10);
    at->whole = at->index == UINT32_MAX;
    return at->shard < KEY_SHARDS ? ERR_OK : ERR_INVALID;
}

static struct key write_cursor(const struct place *at) {
    struct key k = key_message(at->shard, at->id);
    key_u32(&k, at->whole ? UINT32_MAX : at->index);
    return k;
}

/* -- on the walk's thread -- */

static void keep(struct page *p, const Words__AdminRow *r) {
    Words__AdminRow *copy = question_copy(&p->mem, &r->base);
    if (!copy || !question_grow(&p->mem, &p->rows, &p->row_cap, p->row_count)) {
        p->err = ERR_NOMEM;
        return;
    }
    p->rows[p->row_count++] = copy;
    p->bytes += protobuf_c_message_get_packed_size(&r->base);
    p->full = p->row_count >= p->limit || p->bytes >= BYTES_MAX;
}

/* The recipients of one message from `first` on. */
static void look_at(struct page *p, const struct queue_walk *w, uint32_t first, struct arena *mem) {
    const Words__Envelope *e = frame_unpack(&words__envelope__descriptor, w->envelope, mem);
    uint32_t at = 0;
    p->err = e && e->n_recipients ? ERR_OK : ERR_CORRUPT;
    for (uint32_t i = first; p->err == ERR_OK && !p->full && i < e->n_recipients; i++) {
        struct span packed = queue_walk_state(w, i, &at);
        const Words__RecipientState *s =
            packed.len ? frame_unpack(&words__recipient_state__descriptor, packed, mem) : NULL;
        Words__AdminRow *r = packed.len && !s ? NULL : question_row(mem, w->id, i, e, s);
        if (!r)
            p->err = packed.len && !s ? ERR_CORRUPT : ERR_NOMEM;
        else if (question_matches(p->match, r))
            keep(p, r);
        p->at = (struct place){w->shard, w->id, i, false};
        p->looked++;
    }
    if (p->err == ERR_OK && p->at.index + 1 >= e->n_recipients)
        p->at.whole = true;
    p->full = p->full || p->looked >= LOOK_MAX;
}

static void walk_shard(struct page *p, uint32_t shard) {
    uint64_t only = question_match_id(p->match);
    uint64_t from = p->at.id + p->at.whole;
    uint32_t first = p->at.whole ? 0 : p->at.index + 1;
    struct queue_walk w;
    struct arena mem;
    if (only && (id_shard(only) != shard || only < from))
        return;
    if (only > from)
        first = 0;
    arena_init(&mem, 64 * 1024, 0);
    queue_walk_init(&w, p->sc->store, shard, only ? only : from);
    while (p->err == ERR_OK && !p->full && queue_walk_next(&w) && (!only || w.id == only)) {
        look_at(p, &w, w.id == (only ? only : from) ? first : 0, &mem);
        if (p->err == ERR_CORRUPT)
            p->err = queue_walk_corrupt(&w);
        if (walks_is_stopped(p->sc->walks))
            p->err = ERR_CANCELED;
        arena_reset(&mem);
    }
    if (p->err == ERR_OK)
        p->err = w.err;
    queue_walk_deinit(&w);
    arena_deinit(&mem);
}

static void walk_all(void *arg) {
    struct page *p = arg;
    for (uint32_t i = p->at.shard; i < p->sc->config.shards && p->err == ERR_OK && !p->full; i++) {
        walk_shard(p, i);
        if (!p->full)
            p->at = (struct place){.shard = i + 1, .whole = true};
    }
}

/* -- back on the loop -- */

static void page_free(struct page *p) {
    question_match_free(p->match);
    arena_deinit(&p->mem);
    free(p);
}

/* The sites as far as the cores remember them; they borrow from the cores, until the next step. */
static void add_sites(struct page *p) {
    for (size_t i = 0; i < p->row_count; i++) {
        Words__AdminRow *r = p->rows[i];
        struct shard *s = scheduler_shard_of(p->sc, r->message);
        struct span site = s && !r->has_site ? sched_site_of(shard_core(s), question_way(r)) : SPAN_EMPTY;
        if (!site.len)
            continue;
        r->has_site = true;
        r->site = frame_bytes(site);
    }
}

static void page_done(void *arg) {
    struct page *p = arg;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct key cursor = write_cursor(&p->at);
    if (p->err != ERR_OK) {
        question_error(p->sc, p->correlation, p->err, NULL);
        page_free(p);
        return;
    }
    add_sites(p);
    r.n_rows = p->row_count;
    r.rows = p->rows;
    r.has_count = true;
    r.count = p->row_count;
    r.has_cursor = p->full;
    r.cursor = frame_bytes(key_span(&cursor));
    question_reply(p->sc, p->correlation, &r, true);
    page_free(p);
}

void question_list(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    const char *problem = NULL;
    struct page *p = calloc(1, sizeof *p);
    CHECK(p);
    *p = (struct page){.sc = sc, .correlation = correlation, .limit = QUESTION_ROWS_MAX};
    if (m->has_limit && m->limit && m->limit < p->limit)
        p->limit = m->limit;
    arena_init(&p->mem, 64 * 1024, MEMORY_MAX);
    int err = read_cursor(&p->at, m->has_after ? frame_span(m->after) : SPAN_EMPTY);
    if (err != ERR_OK)
        problem = "not a cursor of this listing";
    else
        err = question_match_new(&p->match, sc, m->has_filter ? frame_span(m->filter) : SPAN_EMPTY, &problem);
    if (err == ERR_OK)
        err = walks_start(sc->walks, false, walk_all, page_done, p);
    if (err == ERR_OK)
        return;
    question_error(sc, correlation, err, err == ERR_AGAIN ? QUESTION_BUSY : problem);
    page_free(p);
}
