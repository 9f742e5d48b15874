/*
 * etcd_call: get, get a prefix, transact, revoke: what the owner asks and hears once.
 *
 * A prefix is read in pages, all as of the revision of the first. A page that is too long for one answer is asked for
 * again with fewer keys; when the revision is compacted under way, the reading begins anew, a few times. What was read
 * is copied into the arena of the call, and counted.
 */
#include <stdlib.h>

#include "base/check.h"

#include "base/net/etcd_in.h"

enum { PAGE = 1000, PAGE_STEP = 8, RESTARTS_MAX = 3, QUESTION_MAX = 2 * 1024 * 1024 };

struct etcd_call {
    struct list_node node;
    struct etcd *e;
    struct etcd_ask *ask;
    etcd_cb cb;
    void *arg;
    /* of a prefix */
    struct buf prefix;
    uint64_t revision;
    uint32_t page;
    unsigned restarts;
    struct arena arena;
    struct etcd_kv *kvs;
    size_t count, cap, octets;
};

static void call_free(struct etcd_call *c) {
    if (list_is_linked(&c->node))
        list_remove(&c->e->calls_open, &c->node);
    etcd_ask_cancel(c->ask);
    buf_deinit(&c->prefix);
    arena_deinit(&c->arena);
    free(c->kvs);
    free(c);
}

void etcd_cancel(struct etcd_call *c) {
    if (c)
        call_free(c);
}

void etcd_calls_drop(struct etcd *e) {
    struct list_node *n;
    while ((n = list_first(&e->calls_open)))
        call_free(LIST_ENTRY(n, struct etcd_call, node));
}

static struct etcd_call *call_new(struct etcd *e, etcd_cb cb, void *arg) {
    struct etcd_call *c = e->calls_open.count < ETCD_CALLS_MAX ? calloc(1, sizeof *c) : NULL;
    if (!c)
        return NULL;
    *c = (struct etcd_call){.e = e, .cb = cb, .arg = arg, .page = PAGE};
    buf_init(&c->prefix, ETCD_KEY_MAX);
    arena_init(&c->arena, ETCD_BLOCK, ETCD_ARENA_MAX);
    list_push_back(&e->calls_open, &c->node);
    return c;
}

static void finish(struct etcd_call *c, const struct etcd_answer *a) {
    list_remove(&c->e->calls_open, &c->node); /* the callback may close the client */
    if (c->cb)
        c->cb(c->arg, a);
    call_free(c);
}

static void fail(struct etcd_call *c, int err, const char *why, bool in_doubt) {
    finish(c, &(struct etcd_answer){.err = err, .why = *why ? why : err_text(err), .in_doubt = in_doubt});
}

const struct etcd_kv *etcd_find(const struct etcd_answer *a, struct span key) {
    for (size_t i = 0; i < a->count; i++)
        if (span_eq(a->kvs[i].key, key))
            return &a->kvs[i];
    return NULL;
}

/* -- one answer -- */

static void on_one(void *arg, const struct etcd_ask_result *r) {
    struct etcd_call *c = arg;
    c->ask = NULL;
    if (r->err) {
        fail(c, r->err, r->why, r->in_doubt);
        return;
    }
    finish(c, &(struct etcd_answer){.why = "",
                                    .revision = r->reply->revision,
                                    .succeeded = r->reply->succeeded,
                                    .kvs = r->reply->kvs,
                                    .count = r->reply->count});
}

static void on_get(void *arg, const struct etcd_ask_result *r) {
    struct etcd_call *c = arg;
    bool good =
        r->err || !r->reply->count || (r->reply->count == 1 && span_eq(r->reply->kvs[0].key, buf_span(&c->prefix)));
    if (good) {
        on_one(arg, r);
        return;
    }
    c->ask = NULL;
    fail(c, ERR_CORRUPT, "the answer has another key than the question", false);
}

/* body: moved, with the err of writing it. */
static struct etcd_call *begin(struct etcd_call *c, const struct etcd_ask_config *config, struct buf *body, int err,
                               etcd_ask_cb cb) {
    if (err)
        buf_deinit(body);
    else
        c->ask = etcd_ask_new(c->e, config, body, cb, c);
    if (c->ask)
        return c;
    call_free(c);
    return NULL;
}

struct etcd_call *etcd_get(struct etcd *e, struct span key, etcd_cb cb, void *arg) {
    static const struct etcd_ask_config config = {.path = "/v3/kv/range", .kind = ETCD_KIND_RANGE};
    struct etcd_call *c = call_new(e, cb, arg);
    struct buf body;
    if (!c)
        return NULL;
    buf_init(&body, QUESTION_MAX);
    int err = etcd_words_range(&(struct etcd_range){.key = key}, &body);
    if (!err)
        err = buf_add(&c->prefix, key);
    return begin(c, &config, &body, err, on_get);
}

struct etcd_call *etcd_txn(struct etcd *e, const struct etcd_txn *t, etcd_cb cb, void *arg) {
    static const struct etcd_ask_config config = {.path = "/v3/kv/txn", .kind = ETCD_KIND_TXN, .once = true};
    struct etcd_call *c = call_new(e, cb, arg);
    struct buf body;
    if (!c)
        return NULL;
    buf_init(&body, QUESTION_MAX);
    int err = etcd_words_txn(t, &body);
    return begin(c, &config, &body, err, on_one);
}

static void on_revoked(void *arg, const struct etcd_ask_result *r) {
    struct etcd_call *c = arg;
    c->ask = NULL;
    if (r->err && r->err != ERR_NOT_FOUND)
        fail(c, r->err, r->why, r->in_doubt);
    else
        finish(c, &(struct etcd_answer){.why = ""});
}

struct etcd_call *etcd_revoke_id(struct etcd *e, uint64_t id, etcd_cb cb, void *arg) {
    static const struct etcd_ask_config config = {.path = "/v3/lease/revoke", .kind = ETCD_KIND_LEASE, .vital = true};
    struct etcd_call *c = call_new(e, cb, arg);
    struct buf body;
    if (!c)
        return NULL;
    buf_init(&body, 64);
    int err = etcd_words_lease(id, &body);
    return begin(c, &config, &body, err, on_revoked);
}

/* -- a prefix -- */

static void on_page(void *arg, const struct etcd_ask_result *r);

static int ask_page(struct etcd_call *c) {
    static const struct etcd_ask_config config = {.path = "/v3/kv/range", .kind = ETCD_KIND_RANGE};
    struct etcd_range range = {.key = buf_span(&c->prefix),
                               .prefix = true,
                               .after = c->count ? c->kvs[c->count - 1].key : SPAN_EMPTY,
                               .revision = c->revision,
                               .limit = c->page};
    struct buf body;
    buf_init(&body, QUESTION_MAX);
    int err = etcd_words_range(&range, &body);
    if (err)
        buf_deinit(&body);
    else
        c->ask = etcd_ask_new(c->e, &config, &body, on_page, c);
    return err ? err : c->ask ? ERR_OK : ERR_NOMEM;
}

static int make_room(struct etcd_call *c, size_t more) {
    if (more > ETCD_PREFIX_KEYS_MAX - c->count)
        return ERR_FULL;
    if (c->count + more <= c->cap)
        return ERR_OK;
    size_t cap = 2 * c->cap > c->count + more ? 2 * c->cap : c->count + more;
    struct etcd_kv *kvs = realloc(c->kvs, cap * sizeof *kvs);
    if (!kvs)
        return ERR_NOMEM;
    c->kvs = kvs;
    c->cap = cap;
    return ERR_OK;
}

static bool copy_span(struct etcd_call *c, struct span *s) {
    struct span copy = s->len ? arena_dup(&c->arena, *s) : SPAN_EMPTY;
    bool copied = !s->len || copy.at;
    *s = copy;
    return copied;
}

/* The keys must lie in what was asked for, behind those of the pages before. */
static int take_page(struct etcd_call *c, const struct etcd_reply *reply) {
    struct span prefix = buf_span(&c->prefix);
    int err = make_room(c, reply->count);
    for (size_t i = 0; i < reply->count && !err; i++) {
        struct etcd_kv kv = reply->kvs[i];
        bool behind = !c->count || span_cmp(c->kvs[c->count - 1].key, kv.key) < 0;
        c->octets += kv.key.len + kv.value.len;
        if (!behind || !span_eq(span_first(kv.key, prefix.len), prefix))
            err = ERR_CORRUPT;
        else if (c->octets > ETCD_ANSWER_MAX)
            err = ERR_FULL;
        else if (!copy_span(c, &kv.key) || !copy_span(c, &kv.value))
            err = ERR_NOMEM;
        else
            c->kvs[c->count++] = kv;
    }
    return err;
}

static void restart(struct etcd_call *c) {
    c->count = c->octets = 0;
    c->revision = 0;
    c->restarts++;
    arena_reset(&c->arena);
}

static void on_page(void *arg, const struct etcd_ask_result *r) {
    struct etcd_call *c = arg;
    int err = r->err;
    const char *why = r->why;
    c->ask = NULL;
    if (err == ERR_FULL && c->page > 1) {
        c->page = c->page / PAGE_STEP ? c->page / PAGE_STEP : 1;
        err = ask_page(c);
    } else if (err == ERR_RANGE && c->revision && c->restarts < RESTARTS_MAX) {
        restart(c);
        err = ask_page(c);
    } else if (!err) {
        if (!c->revision)
            c->revision = r->reply->revision;
        err = take_page(c, r->reply);
        why = err == ERR_FULL ? "too much has this prefix" : "";
        if (!err && !r->reply->more) {
            finish(c, &(struct etcd_answer){.why = "", .revision = c->revision, .kvs = c->kvs, .count = c->count});
            return;
        }
        err = err ? err : ask_page(c);
    }
    if (err)
        fail(c, err, why, false);
}

struct etcd_call *etcd_get_prefix(struct etcd *e, struct span prefix, etcd_cb cb, void *arg) {
    struct etcd_call *c = call_new(e, cb, arg);
    if (!c)
        return NULL;
    int err = buf_add(&c->prefix, prefix);
    if (!err)
        err = ask_page(c);
    if (!err)
        return c;
    call_free(c);
    return NULL;
}
