/*
 * etcd_read: reads the answers of etcd's JSON gateway, for etcd_words.h. The bytes are a stranger's: lengths, kinds of
 * members, base64, numbers and the order of revisions are judged here, so that the rest may trust what comes out.
 *
 * The number of JSON values is counted before the library builds its tree, since sixteen megabytes of "[[1,1,1" would
 * become gigabytes of memory.
 */
#include <jansson.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/check.h"
#include "base/utf8.h"

#include "base/net/etcd_words.h"

enum { WHY_MAX = 300 };

struct reader {
    struct arena *arena;
    struct etcd_reply *out;
    int err; /* the first */
};

static void refuse(struct reader *r, int err) {
    if (!r->err)
        r->err = err;
}

/* -- members -- */

/* The member if it is there and of the kind; none is well. */
static json_t *member(struct reader *r, json_t *object, const char *name, json_type type) {
    json_t *m = json_object_get(object, name);
    if (m && !json_is_null(m) && json_typeof(m) != type)
        refuse(r, ERR_CORRUPT);
    return m && json_typeof(m) == type ? m : NULL;
}

/* etcd's integers are signed: what does not fit is none of its own. Written as a string, or by others as a number. */
static uint64_t number(struct reader *r, json_t *object, const char *name) {
    json_t *m = json_object_get(object, name);
    uint64_t n = 0;
    if (!m || json_is_null(m))
        return 0;
    if (json_is_integer(m) && json_integer_value(m) >= 0)
        return (uint64_t)json_integer_value(m);
    if (!json_is_string(m) || !span_u64(span_make(json_string_value(m), json_string_length(m)), &n) || n > INT64_MAX)
        refuse(r, ERR_CORRUPT);
    return n;
}

/* Ids of clusters use all 64 bits. */
static uint64_t identity(struct reader *r, json_t *object, const char *name) {
    json_t *m = member(r, object, name, JSON_STRING);
    uint64_t n = 0;
    if (m && !span_u64(span_make(json_string_value(m), json_string_length(m)), &n))
        refuse(r, ERR_CORRUPT);
    return n;
}

static bool flag(struct reader *r, json_t *object, const char *name) {
    json_t *m = json_object_get(object, name);
    if (m && !json_is_boolean(m) && !json_is_null(m))
        refuse(r, ERR_CORRUPT);
    return json_is_true(m);
}

static struct span octets(struct reader *r, json_t *object, const char *name) {
    json_t *m = member(r, object, name, JSON_STRING);
    struct span s = SPAN_EMPTY;
    struct buf b;
    if (!m || r->err)
        return s;
    buf_init(&b, ETCD_ANSWER_MAX);
    int err = base64_decode(span_make(json_string_value(m), json_string_length(m)), &b);
    if (err)
        refuse(r, err == ERR_INVALID ? ERR_CORRUPT : err);
    else if (buf_len(&b))
        s = arena_dup(r->arena, buf_span(&b));
    if (!err && buf_len(&b) && !s.at)
        refuse(r, ERR_FULL);
    buf_deinit(&b);
    return s;
}

static void *rows(struct reader *r, size_t count, size_t size) {
    void *p = arena_calloc(r->arena, count ? count : 1, size);
    if (!p)
        refuse(r, ERR_FULL);
    return p;
}

static void header(struct reader *r, json_t *object) {
    json_t *h = member(r, object, "header", JSON_OBJECT);
    r->out->cluster = identity(r, h, "cluster_id");
    r->out->revision = number(r, h, "revision");
}

/* -- faults -- */

static bool says(struct span why, const char *words) {
    return why.len && memmem(why.at, why.len, words, strlen(words));
}

/* The numbers are gRPC's; some say too little, then the text decides. */
static int fault_of(uint64_t code, struct span why) {
    static const int errs[] = {[1] = ERR_AGAIN,       [2] = ERR_IO,           [3] = ERR_INVALID, [4] = ERR_TIMEOUT,
                               [5] = ERR_NOT_FOUND,   [6] = ERR_EXISTS,       [7] = ERR_DENIED,  [8] = ERR_AGAIN,
                               [9] = ERR_UNSUPPORTED, [10] = ERR_AGAIN,       [11] = ERR_RANGE,  [12] = ERR_UNSUPPORTED,
                               [13] = ERR_IO,         [14] = ERR_UNREACHABLE, [15] = ERR_IO,     [16] = ERR_DENIED};
    if (says(why, "authentication failed"))
        return ERR_DENIED;
    if (says(why, "database space exceeded"))
        return ERR_NO_SPACE;
    if (says(why, "timed out"))
        return ERR_TIMEOUT;
    return code > 0 && code < sizeof errs / sizeof *errs ? errs[code] : ERR_IO;
}

bool etcd_words_is_token_fault(struct span why) {
    static const char *const texts[] = {"invalid auth token", "user name is empty", "revision of auth store is old"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (says(why, texts[i]))
            return true;
    return false;
}

bool etcd_words_is_undone(int fault, struct span why) {
    if (fault == ERR_UNREACHABLE)
        return says(why, "no leader");
    return fault != ERR_TIMEOUT && fault != ERR_IO && !(fault == ERR_AGAIN && !says(why, "too many"));
}

static void set_why(struct reader *r, struct span text) {
    struct buf line;
    buf_init(&line, WHY_MAX);
    buf_add_escaped(&line, span_first(text, WHY_MAX));
    r->out->why = arena_dup(r->arena, span_of(buf_cstr(&line)));
    if (!r->out->why.at)
        refuse(r, ERR_FULL);
    buf_deinit(&line);
}

/* {"error": text, "code": n}, or in a stream {"error": {"message": text, "grpc_code": n}}. */
static bool read_fault(struct reader *r, json_t *root) {
    json_t *error = json_object_get(root, "error");
    json_t *from = json_is_object(error) ? error : root;
    json_t *text = json_object_get(from, "message");
    if (!error && !json_object_get(root, "code"))
        return false;
    if (!json_is_string(text))
        text = error;
    uint64_t code = number(r, from, json_object_get(from, "grpc_code") ? "grpc_code" : "code");
    set_why(r, json_is_string(text) ? span_make(json_string_value(text), json_string_length(text))
                                    : SPAN("a fault without a text"));
    r->out->fault = fault_of(code, r->out->why);
    return true;
}

/* -- what was asked for -- */

static void read_kv(struct reader *r, json_t *object, struct etcd_kv *kv) {
    if (!json_is_object(object)) {
        refuse(r, ERR_CORRUPT);
        return;
    }
    kv->key = octets(r, object, "key");
    kv->value = octets(r, object, "value");
    kv->create_revision = number(r, object, "create_revision");
    kv->mod_revision = number(r, object, "mod_revision");
    kv->version = number(r, object, "version");
    kv->lease = number(r, object, "lease");
    if (!kv->key.len || !kv->mod_revision)
        refuse(r, ERR_CORRUPT);
}

static void read_kvs(struct reader *r, json_t *object, struct etcd_kv *to, size_t count) {
    json_t *list = member(r, object, "kvs", JSON_ARRAY);
    for (size_t i = 0; i < count && !r->err; i++)
        read_kv(r, json_array_get(list, i), &to[i]);
}

static void read_range(struct reader *r, json_t *root) {
    r->out->count = json_array_size(member(r, root, "kvs", JSON_ARRAY));
    r->out->kvs = rows(r, r->out->count, sizeof *r->out->kvs);
    r->out->more = flag(r, root, "more");
    if (!r->err)
        read_kvs(r, root, r->out->kvs, r->out->count);
    for (size_t i = 1; !r->err && i < r->out->count; i++)
        if (span_cmp(r->out->kvs[i - 1].key, r->out->kvs[i].key) >= 0)
            refuse(r, ERR_CORRUPT);
    if (!r->out->revision || (r->out->more && !r->out->count))
        refuse(r, ERR_CORRUPT);
}

static void read_txn(struct reader *r, json_t *root) {
    json_t *list = member(r, root, "responses", JSON_ARRAY);
    size_t count = 0, at = 0;
    r->out->succeeded = flag(r, root, "succeeded");
    for (size_t i = 0; i < json_array_size(list) && !r->err; i++) {
        json_t *range = member(r, json_array_get(list, i), "response_range", JSON_OBJECT);
        count += json_array_size(member(r, range, "kvs", JSON_ARRAY));
    }
    r->out->kvs = rows(r, count, sizeof *r->out->kvs);
    for (size_t i = 0; i < json_array_size(list) && !r->err; i++) {
        json_t *range = json_object_get(json_array_get(list, i), "response_range");
        size_t here = json_array_size(json_object_get(range, "kvs"));
        read_kvs(r, range, r->out->kvs + at, here);
        at += here;
    }
    r->out->count = count;
    if (!r->out->revision)
        refuse(r, ERR_CORRUPT);
}

static void read_lease(struct reader *r, json_t *root) {
    uint64_t ttl_s = number(r, root, "TTL");
    r->out->lease = number(r, root, "ID");
    r->out->ttl_s = ttl_s > UINT32_MAX ? UINT32_MAX : (uint32_t)ttl_s;
    if (ttl_s && !r->out->lease)
        refuse(r, ERR_CORRUPT);
}

/* It becomes a field of the header, so nothing but visible ASCII. */
static void read_token(struct reader *r, json_t *root) {
    json_t *token = member(r, root, "token", JSON_STRING);
    size_t len = token ? json_string_length(token) : 0;
    const char *text = token ? json_string_value(token) : "";
    if (!len || len > ETCD_TOKEN_MAX)
        refuse(r, ERR_CORRUPT);
    for (size_t i = 0; i < len; i++)
        if (text[i] < '!' || text[i] > '~')
            refuse(r, ERR_CORRUPT);
    if (!r->err)
        r->out->token = arena_strdup(r->arena, text);
    if (!r->err && !r->out->token)
        refuse(r, ERR_FULL);
}

static void read_event(struct reader *r, json_t *object, struct etcd_event *e) {
    json_t *type = member(r, object, "type", JSON_STRING);
    const char *name = type ? json_string_value(type) : "PUT";
    e->deleted = strcmp(name, "DELETE") == 0;
    if (!json_is_object(object) || (!e->deleted && strcmp(name, "PUT") != 0))
        refuse(r, ERR_CORRUPT);
    if (!r->err)
        read_kv(r, json_object_get(object, "kv"), &e->kv);
}

static void read_watch(struct reader *r, json_t *root) {
    json_t *list = member(r, root, "events", JSON_ARRAY);
    json_t *reason = member(r, root, "cancel_reason", JSON_STRING);
    r->out->created = flag(r, root, "created");
    r->out->canceled = flag(r, root, "canceled");
    r->out->fragment = flag(r, root, "fragment");
    r->out->compact_revision = number(r, root, "compact_revision");
    r->out->events_count = json_array_size(list);
    r->out->events = rows(r, r->out->events_count, sizeof *r->out->events);
    for (size_t i = 0; i < r->out->events_count && !r->err; i++) {
        read_event(r, json_array_get(list, i), &r->out->events[i]);
        if (i && r->out->events[i].kv.mod_revision < r->out->events[i - 1].kv.mod_revision)
            refuse(r, ERR_CORRUPT);
    }
    if (reason)
        set_why(r, span_make(json_string_value(reason), json_string_length(reason)));
}

/* -- the whole -- */

/* An upper bound: strings hold no values, whatever they look like. */
static size_t values_of(struct span text) {
    size_t n = 1;
    bool quoted = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == ',' || c == '[' || c == '{'))
            n++;
    }
    return n;
}

static void read_root(struct reader *r, json_t *root, enum etcd_kind kind) {
    static void (*const readers[])(struct reader *, json_t *) = {[ETCD_KIND_RANGE] = read_range,
                                                                 [ETCD_KIND_TXN] = read_txn,
                                                                 [ETCD_KIND_LEASE] = read_lease,
                                                                 [ETCD_KIND_TOKEN] = read_token,
                                                                 [ETCD_KIND_WATCH] = read_watch};
    json_t *result = json_object_get(root, "result"); /* streams wrap their answers */
    if (!json_is_object(root) || (result && !json_is_object(result))) {
        refuse(r, ERR_CORRUPT);
        return;
    }
    if (read_fault(r, root))
        return;
    if (kind == ETCD_KIND_WATCH && !result)
        refuse(r, ERR_CORRUPT);
    header(r, result ? result : root);
    if (!r->err)
        readers[kind](r, result ? result : root);
}

int etcd_words_read(struct span text, enum etcd_kind kind, struct arena *a, struct etcd_reply *reply) {
    struct reader r = {.arena = a, .out = reply};
    json_error_t error;
    *reply = (struct etcd_reply){0};
    if (text.len > ETCD_ANSWER_MAX || values_of(text) > ETCD_VALUES_MAX)
        return ERR_FULL;
    json_t *root = json_loadb(text.at ? text.at : "", text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root)
        return ERR_CORRUPT;
    read_root(&r, root, kind);
    json_decref(root);
    if (r.err)
        *reply = (struct etcd_reply){0};
    return r.err;
}
