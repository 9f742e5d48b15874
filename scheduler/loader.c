/*
 * loader: brings messages from the store back into the core: those that an earlier process left
 * (the start-up scan), and those whose time has come (the due index).
 *
 * It reads on helper threads, a bounded batch at a time, and only while the core has room: the length
 * of the queue never shows in memory. Mail is accepted while the scan is still going on. What the scan and the
 * due index bring twice, the core recognises; a due hint that no longer matches its recipient is passed over.
 *
 * The scan reads message ids in order up to the last one given out before this start. It brings what
 * is not waiting in the due index: fresh recipients, those that were under way (in doubt), those
 * whose report was not yet written, and those whose due bucket has been removed.
 *
 * The due index counts whole minutes and is read when a minute is over and all batches that may have written
 * into it are on disk; what is due sooner comes from shard_near_pop.
 */
#include "scheduler/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"

#define BATCH_MAX 256u /* messages of one reading */
#define BATCH_BYTES_MAX (8u * 1024u * 1024u)
#define MINUTE_MS 60000u
#define DUE_SETTLE_MS 2000u

struct flight { /* an attempt found under way at start */
    struct map_node by_message;
    uint64_t message, attempt;
    uint32_t count;
    uint32_t recipients[];
};

struct loaded {
    uint64_t id;
    int err;
    Words__Envelope *envelope;
    Words__RecipientState **states;
};

struct loader {
    struct shard_reading reading;
    struct scheduler *sc;
    struct shard *shard;
    bool busy; /* one reading is on a helper thread */
    bool scanned, flights_read;
    uint64_t scan_at; /* last id that the scan has handled */
    struct map flights;
    struct queue_due_cursor due_at;
    uint64_t due_read_ms;  /* everything due before this has been read */
    uint64_t watermark_ms; /* buckets before this are removed from the store */
    /* the reading under way */
    enum { READ_FLIGHTS, READ_SCAN, READ_DUE, READ_IDS } what;
    uint64_t until_ms;
    uint64_t *extra; /* attempts merged into another flight: their records go at the end of the scan */
    size_t extra_count;
    bool exhausted; /* it came to the end */
    int err;
    struct arena mem;
    uint64_t ids[BATCH_MAX];
    struct loaded loaded[BATCH_MAX];
    size_t count;
    size_t held; /* ids to be read again next */
    struct queue_due_cursor due_next;
    uint64_t trace_dropped_ms;
};

static bool match_message(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, struct flight, by_message)->message == *(const uint64_t *)key;
}

static struct flight *find_flight(const struct loader *l, uint64_t message) {
    struct map_node *n = map_find(&l->flights, hash_bytes(&message, sizeof message, 0), match_message, &message);
    return n ? LIST_ENTRY(n, struct flight, by_message) : NULL;
}

/* -- on the helper thread -- */

static void read_message(struct loader *l, uint64_t id) {
    struct loaded *to = &l->loaded[l->count++];
    uint32_t shard = shard_number(l->shard);
    *to = (struct loaded){.id = id};
    to->err = queue_get_message(l->sc->store, shard, id, &l->mem, &to->envelope, &to->states);
}

static void on_flight(void *arg, uint64_t attempt, const Words__Inflight *r) {
    struct loader *l = arg;
    struct flight *f = find_flight(l, r->message);
    /* Several attempts of one message: all their recipients are in doubt, under the last one. */
    size_t old = f ? f->count : 0;
    struct flight *grown = calloc(1, sizeof *grown + (old + r->n_recipients) * sizeof *grown->recipients);
    CHECK(grown);
    grown->message = r->message;
    grown->attempt = attempt;
    grown->count = (uint32_t)(old + r->n_recipients);
    if (f) {
        l->extra = realloc(l->extra, (l->extra_count + 1) * sizeof *l->extra);
        CHECK(l->extra);
        l->extra[l->extra_count++] = f->attempt;
        memcpy(grown->recipients, f->recipients, old * sizeof *f->recipients);
        map_remove(&l->flights, &f->by_message);
        free(f);
    }
    if (r->n_recipients)
        memcpy(grown->recipients + old, r->recipients, r->n_recipients * sizeof *r->recipients);
    CHECK(map_insert(&l->flights, &grown->by_message, hash_bytes(&r->message, sizeof r->message, 0)) == ERR_OK);
}

static void read_scan(struct loader *l) {
    size_t count = 0;
    l->err = queue_read_ids(l->sc->store, shard_number(l->shard), l->scan_at, shard_first_scan_end(l->shard), l->ids,
                            BATCH_MAX, &count);
    l->exhausted = count < BATCH_MAX;
    for (size_t i = 0; i < count && l->err == ERR_OK; i++) {
        if (l->mem.used > BATCH_BYTES_MAX) {
            l->exhausted = false;
            break;
        }
        read_message(l, l->ids[i]);
    }
}

static void read_due(struct loader *l) {
    struct queue_due due[BATCH_MAX];
    size_t count = 0;
    l->due_next = l->due_at;
    l->err =
        queue_read_due(l->sc->store, shard_number(l->shard), l->until_ms - 1, &l->due_next, due, BATCH_MAX, &count);
    l->exhausted = count < BATCH_MAX;
    for (size_t i = 0; i < count && l->err == ERR_OK; i++)
        if (i == 0 || due[i].id != due[i - 1].id)
            read_message(l, due[i].id);
}

/* A store that cannot be read at the moment says nothing of the messages: the whole reading fails, and is repeated.
 * Not so for a message that is damaged: the others do not wait for it. */
static void judge_reading(struct loader *l) {
    for (size_t i = 0; i < l->count && l->err == ERR_OK; i++) {
        int err = l->loaded[i].err;
        if (err == ERR_NOMEM || (err == ERR_IO && !commit_is_healthy(l->sc->commit)))
            l->err = err;
    }
}

static void work(void *arg) {
    struct loader *l = arg;
    l->err = ERR_OK;
    if (l->what == READ_FLIGHTS) {
        l->err = queue_each_inflight(l->sc->store, shard_number(l->shard), on_flight, l);
        if (l->err == ERR_OK)
            l->err = queue_get_number(l->sc->store, shard_number(l->shard), QUEUE_DUE_WATERMARK, &l->watermark_ms);
        if (l->err == ERR_NOT_FOUND)
            l->err = ERR_OK;
    } else if (l->what == READ_SCAN) {
        read_scan(l);
    } else if (l->what == READ_DUE) {
        read_due(l);
    } else {
        for (size_t i = 0, n = l->count; i < n; i++) {
            l->count = i;
            read_message(l, l->ids[i]);
        }
    }
    judge_reading(l);
}

/* -- back on the loop -- */

static void flights_free(struct loader *l) {
    for (struct map_node *n = map_next(&l->flights, NULL), *next; n; n = next) {
        next = map_next(&l->flights, n);
        map_remove(&l->flights, n);
        free(LIST_ENTRY(n, struct flight, by_message));
    }
    free(l->extra);
    l->extra = NULL;
    l->extra_count = 0;
}

/* Whether the due index will bring every unfinished recipient of the message in its time (held ones have none). */
static bool only_waits(const struct loader *l, const struct loaded *m) {
    for (size_t i = 0; i < m->envelope->n_recipients; i++) {
        const Words__RecipientState *s = m->states[i];
        if (!s || (s->state != SCHED_DEFERRED && s->state != SCHED_SETTLED && s->state != SCHED_HELD))
            return false;
        if (s->state == SCHED_DEFERRED && s->due_ms < l->watermark_ms)
            return false;
    }
    return true;
}

/* Into the core, with the attempt that was under way when the last process died, whichever reading finds it first. */
int loader_take(struct loader *l, const struct shard_reading *reading, uint64_t id, const Words__Envelope *e,
                Words__RecipientState *const *states, const struct sched_operator *change) {
    struct flight *f = find_flight(l, id);
    int err = shard_load(l->shard, reading, id, e, states, f ? f->attempt : 0, f ? f->recipients : NULL,
                         f ? f->count : 0, change, scheduler_now(l->sc));
    if (f && err == ERR_OK) {
        map_remove(&l->flights, &f->by_message);
        free(f);
    }
    return err;
}

static void log_unreadable(uint64_t id, int why) {
    char name[BASE32_ID_LEN + 1];
    base32_encode(id, name);
    LOG_ERROR("message_unreadable", LOG_STR("id", name), LOG_ERR("why", why));
}

/* The message left memory while it was read, and what brought it here (a due hint that is about to be removed) may have
 * come for a recipient that waits: it is read again. */
static void look_again(struct loader *l, uint64_t id) {
    if (!shard_was_dropped(l->shard, id) && !shard_near_again(l->shard, id, scheduler_now(l->sc)))
        l->ids[l->held++] = id;
}

static void take(struct loader *l, const struct loaded *m, bool scan) {
    if (m->err == ERR_NOT_FOUND)
        return; /* a hint of a message that is gone */
    if (m->err != ERR_OK) {
        log_unreadable(m->id, m->err);
        return;
    }
    if (scan) {
        struct shard_totals *t = shard_totals(l->shard);
        t->messages += !shard_was_dropped(l->shard, m->id); /* it may have ended while it was read */
        t->counted_to = m->id;
    }
    if (scan && !find_flight(l, m->id) && only_waits(l, m))
        return;
    int err = loader_take(l, &l->reading, m->id, m->envelope, m->states, NULL);
    if (err == ERR_AGAIN || err == ERR_NOMEM)
        look_again(l, m->id);
    else if (err != ERR_OK)
        LOG_ERROR("load_refused", LOG_U64("message", m->id), LOG_ERR("why", err));
}

/* Inflight records whose message is gone: an attempt that was settled in a batch written before. */
static void drop_stray_flights(struct loader *l) {
    for (size_t i = 0; i < l->extra_count; i++)
        queue_drop_inflight(shard_keep(l->shard), shard_number(l->shard), l->extra[i]);
    for (struct map_node *n = map_next(&l->flights, NULL); n; n = map_next(&l->flights, n))
        queue_drop_inflight(shard_keep(l->shard), shard_number(l->shard),
                            LIST_ENTRY(n, struct flight, by_message)->attempt);
    flights_free(l);
}

static void scan_over(struct loader *l) {
    l->scanned = true;
    drop_stray_flights(l);
    LOG_INFO("scan_over", LOG_U64("shard", shard_number(l->shard)),
             LOG_U64("messages", shard_totals(l->shard)->messages),
             LOG_U64("ms", scheduler_now(l->sc) - l->sc->started_ms));
}

static void due_over(struct loader *l) {
    l->due_at = l->due_next;
    if (!l->exhausted)
        return;
    l->due_read_ms = l->until_ms;
    /* Only buckets whose recipients have all been handed to the core, and only once the scan has looked at
     * everything against the watermark that it knows. */
    uint64_t minute_ms = l->until_ms - l->until_ms % MINUTE_MS;
    if (l->scanned && minute_ms > l->watermark_ms) {
        queue_drop_due(shard_keep(l->shard), shard_number(l->shard), minute_ms);
        l->watermark_ms = minute_ms;
        l->due_at.len = 0;
    }
}

/* Nothing of the reading was taken; the next tick reads it again. */
static void reading_failed(struct loader *l) {
    LOG_ERROR("queue_unreadable", LOG_U64("shard", shard_number(l->shard)), LOG_ERR("why", l->err));
    if (l->what == READ_FLIGHTS)
        flights_free(l);
    if (l->what == READ_IDS)
        l->held = l->count;
}

static void done(void *arg) {
    struct loader *l = arg;
    l->busy = false;
    if (l->err != ERR_OK) {
        reading_failed(l);
    } else if (l->what == READ_FLIGHTS) {
        l->flights_read = true;
    } else {
        for (size_t i = 0; i < l->count; i++)
            take(l, &l->loaded[i], l->what == READ_SCAN);
        if (l->what == READ_SCAN && l->count)
            l->scan_at = l->loaded[l->count - 1].id;
        if (l->what == READ_SCAN && l->exhausted)
            scan_over(l);
        if (l->what == READ_DUE)
            due_over(l);
    }
    shard_reading_end(l->shard, &l->reading);
    arena_reset(&l->mem);
    l->count = 0;
    if (l->err == ERR_OK && !l->held)
        loader_poll(l, scheduler_now(l->sc));
}

static void start(struct loader *l) {
    shard_reading_begin(l->shard, &l->reading);
    l->busy = scheduler_work(l->sc, work, done, l);
    if (l->busy)
        return;
    shard_reading_end(l->shard, &l->reading);
    if (l->what == READ_IDS)
        l->held = l->count;
}

static void poll_near(struct loader *l, uint64_t now_ms) {
    l->count = l->held;
    l->held = 0;
    while (l->count < BATCH_MAX) {
        uint64_t id = shard_near_pop(l->shard, now_ms);
        if (!id)
            break;
        l->ids[l->count++] = id;
    }
    if (l->count) {
        l->what = READ_IDS;
        start(l);
    }
}

void loader_poll(struct loader *l, uint64_t now_ms) {
    if (l->busy || l->sc->draining)
        return;
    if (!l->flights_read) {
        l->what = READ_FLIGHTS;
        start(l);
        return;
    }
    if (sched_room(shard_core(l->shard)) == 0)
        return;
    poll_near(l, now_ms);
    if (l->busy)
        return;
    uint64_t oldest = shard_oldest_open_ms(l->shard);
    uint64_t safe_ms = (oldest < now_ms ? oldest : now_ms) - DUE_SETTLE_MS;
    uint64_t until_ms = safe_ms - safe_ms % MINUTE_MS;
    if (until_ms > l->due_read_ms) {
        l->what = READ_DUE;
        l->until_ms = until_ms;
        start(l);
    } else if (!l->scanned) {
        l->what = READ_SCAN;
        start(l);
    } else if (now_ms - l->trace_dropped_ms > 15 * MINUTE_MS) {
        l->trace_dropped_ms = now_ms;
        queue_drop_trace(shard_keep(l->shard), shard_number(l->shard), now_ms - l->sc->settings.trace_keep_ms);
    }
}

/* -- life -- */

struct loader *loader_new(struct scheduler *sc, struct shard *s) {
    struct loader *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->sc = sc;
    l->shard = s;
    map_init(&l->flights);
    arena_init(&l->mem, 64 * 1024, 0);
    return l;
}

void loader_free(struct loader *l) {
    if (!l)
        return;
    CHECK(!l->busy);
    flights_free(l);
    map_deinit(&l->flights);
    arena_deinit(&l->mem);
    free(l);
}

bool loader_is_busy(const struct loader *l) {
    return l->busy;
}

bool loader_has_scanned(const struct loader *l) {
    return l->scanned;
}

bool loader_knows_flights(const struct loader *l) {
    return l->flights_read;
}
