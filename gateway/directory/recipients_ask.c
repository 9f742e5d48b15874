/*
 * recipients_ask: the driver of the walk: it puts the questions that a walk wants, up to twenty at once, and walks
 * again when all have their answers. A walk is pure and cheap beside a question, so nothing of it is kept but the
 * answers.
 *
 * All of a wait happens on the home loop: the directories bring their answers there. What is found in tables and
 * caches needs no wait and no heap.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"

#include "gateway/directory/recipients_memo.h"

enum { MEMO_BLOCK = 2048, MEMO_MAX = 64 * 1024 * 1024 };

struct recipients_wait {
    struct recipients *r;
    struct post *home;
    struct arena own; /* of the copies below */
    struct address address, sender;
    struct recipients_caller who;
    struct recipients_memo memo;
    size_t open; /* questions at directories */
    struct arena *mem;
    struct buf *steps;
    size_t steps_from;
    recipients_cb cb;
    void *arg;
};

/* -- the memo -- */

int recipients_memo_find(struct recipients_memo *m, struct directory *d, struct span key, struct span domain,
                         const struct directory_answer **a) {
    static const struct directory_answer closed = {.status = DIRECTORY_TEMPFAIL, .why = {"not asked", 9}};
    *a = &closed;
    if (m->closed)
        return ERR_OK;
    for (struct recipients_asking *q = m->first; q; q = q->next) {
        if (q->directory == d && span_eq(q->key, key) && span_eq(q->domain, domain)) {
            *a = &q->answer;
            return q->answered ? ERR_OK : ERR_AGAIN;
        }
    }
    if (m->wanted >= RECIPIENTS_ROUND_MAX)
        return ERR_AGAIN; /* the next round asks it */
    if (m->count >= RECIPIENTS_QUESTIONS_MAX)
        return ERR_FULL;
    struct recipients_asking *q = arena_calloc(&m->mem, 1, sizeof *q);
    if (!q)
        return ERR_NOMEM;
    *q = (struct recipients_asking){.directory = d, .key = arena_dup(&m->mem, key), .domain = domain};
    if (!q->key.at)
        return ERR_NOMEM;
    if (m->last)
        m->last->next = q;
    else
        m->first = q;
    m->last = q;
    m->count++;
    m->wanted++;
    return ERR_AGAIN;
}

/* -- the wait -- */

static bool copy_address(struct address *to, const struct address *from, struct arena *mem) {
    *to = *from;
    to->text = arena_dup(mem, from->text);
    to->local = arena_dup(mem, from->local);
    to->key = arena_dup(mem, from->key);
    to->domain = arena_dup(mem, from->domain);
    return to->text.at && to->local.at && to->key.at && to->domain.at;
}

static void wait_free(struct recipients_wait *w) {
    arena_deinit(&w->memo.mem);
    arena_deinit(&w->own);
    recipients_unref(w->r);
    free(w);
}

/* Takes the memo over. NULL: no memory, the memo is as it was. */
static struct recipients_wait *wait_new(struct recipients *r, struct post *home, const struct address *a,
                                        const struct recipients_caller *who, struct recipients_memo *memo) {
    struct recipients_wait *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    arena_init(&w->own, 1024, 0);
    w->who = *who;
    w->who.sender = who->sender ? &w->sender : NULL;
    if (!copy_address(&w->address, a, &w->own) || (who->sender && !copy_address(&w->sender, who->sender, &w->own))) {
        arena_deinit(&w->own);
        free(w);
        return NULL;
    }
    w->r = recipients_ref(r);
    w->home = home;
    w->memo = *memo;
    return w;
}

static int walk(struct recipients_wait *w, struct recipients_answer *out) {
    if (w->steps)
        buf_truncate(w->steps, w->steps_from);
    return recipients_walk(w->r, &w->address, &w->who, &w->memo, w->mem, out, w->steps);
}

static void on_answer(void *arg, const struct directory_answer *a);

/* Puts what is wanted to the directories; some answer at once. */
static void put_questions(struct recipients_wait *w) {
    w->memo.wanted = 0;
    for (struct recipients_asking *q = w->memo.first; q; q = q->next) {
        if (q->asked)
            continue;
        q->asked = true;
        q->owner = w;
        int err =
            directory_find(q->directory, w->home, q->key, q->domain, &w->memo.mem, &q->answer, &q->wait, on_answer, q);
        if (err == ERR_AGAIN) {
            w->open++;
            continue;
        }
        q->wait = NULL;
        q->answered = true;
        if (err)
            q->answer = (struct directory_answer){.status = DIRECTORY_TEMPFAIL, .why = span_of(err_text(err))};
    }
}

/* Until questions are open (ERR_AGAIN), or the answer is there. */
static int proceed(struct recipients_wait *w, struct recipients_answer *out) {
    int err = ERR_AGAIN;
    while (err == ERR_AGAIN) {
        put_questions(w);
        if (w->open > 0)
            return ERR_AGAIN;
        err = walk(w, out);
    }
    return err;
}

static bool keep_answer(struct recipients_asking *q, const struct directory_answer *a) {
    struct arena *mem = &q->owner->memo.mem;
    q->answer = *a;
    q->answer.targets = arena_dup(mem, a->targets);
    q->answer.why = arena_dup(mem, a->why);
    return q->answer.targets.at && q->answer.why.at;
}

static void on_answer(void *arg, const struct directory_answer *a) {
    struct recipients_asking *q = arg;
    struct recipients_wait *w = q->owner;
    struct recipients_answer answer;
    q->wait = NULL;
    q->answered = true;
    if (!keep_answer(q, a))
        q->answer = (struct directory_answer){.status = DIRECTORY_TEMPFAIL, .why = SPAN("no memory")};
    if (--w->open > 0)
        return;
    int err = walk(w, &answer);
    if (err == ERR_AGAIN)
        err = proceed(w, &answer);
    if (err == ERR_AGAIN)
        return;
    recipients_cb cb = w->cb;
    void *cb_arg = w->arg;
    wait_free(w);
    cb(cb_arg, &answer); /* after an error the walk has left TEMPFAIL there */
}

void recipients_cancel(struct recipients_wait *w) {
    if (!w)
        return;
    for (struct recipients_asking *q = w->memo.first; q; q = q->next) {
        if (q->wait)
            directory_cancel(q->wait);
    }
    wait_free(w);
}

/* -- the doors -- */

int recipients_ask(struct recipients *r, struct post *home, const struct address *a,
                   const struct recipients_caller *who, struct arena *mem, struct recipients_answer *out,
                   struct recipients_wait **wait, recipients_cb cb, void *arg, struct buf *steps) {
    struct recipients_memo memo = {0};
    size_t from = steps ? buf_len(steps) : 0;
    *wait = NULL;
    arena_init(&memo.mem, MEMO_BLOCK, MEMO_MAX);
    int err = recipients_walk(r, a, who, &memo, mem, out, steps); /* leaves TEMPFAIL in out where it fails */
    if (err != ERR_AGAIN) {
        arena_deinit(&memo.mem);
        return err;
    }
    struct recipients_wait *w = wait_new(r, home, a, who, &memo);
    if (!w) {
        arena_deinit(&memo.mem);
        return ERR_NOMEM;
    }
    w->mem = mem;
    w->steps = steps;
    w->steps_from = from;
    w->cb = cb;
    w->arg = arg;
    err = proceed(w, out);
    if (err == ERR_AGAIN)
        *wait = w;
    else
        wait_free(w);
    return err;
}

int recipients_judge(struct recipients *r, const struct address *a, bool may_relay, struct arena *mem,
                     struct recipients_answer *out, struct buf *steps) {
    struct recipients_memo memo = {.closed = true};
    const struct recipients_caller who = {.may_relay = may_relay, .wall_ms = clock_wall_ms()};
    int err = recipients_walk(r, a, &who, &memo, mem, out, steps);
    CHECK(err != ERR_AGAIN);
    return err;
}
