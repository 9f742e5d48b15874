/*
 * etcd_words: see etcd_words.h. This file writes the questions. Everything but base64 text and decimal numbers is
 * fixed, so no JSON library is needed here; user and password are the only free text.
 *
 * A prefix is a range for etcd: its end is the prefix with its last octet raised by one. Octets 0xff at the end cannot
 * be raised and are left out; if nothing is left, the range has no end, which etcd writes as one zero octet.
 */
#include "base/base64.h"
#include "base/check.h"

#include "base/net/etcd_words.h"

static void add_base64(struct buf *to, const char *name, struct span octets) {
    buf_printf(to, "\"%s\":\"", name);
    base64_encode(octets, to);
    buf_add_byte(to, '"');
}

static void add_number(struct buf *to, const char *name, uint64_t n) {
    buf_printf(to, ",\"%s\":\"%llu\"", name, (unsigned long long)n);
}

int etcd_words_prefix_end(struct span prefix, struct buf *to) {
    while (prefix.len && (unsigned char)prefix.at[prefix.len - 1] == 0xff)
        prefix.len--;
    if (!prefix.len)
        return buf_add_byte(to, '\0');
    buf_add(to, span_first(prefix, prefix.len - 1));
    return buf_add_byte(to, (char)(prefix.at[prefix.len - 1] + 1));
}

static void add_prefix_end(struct buf *to, struct span prefix) {
    struct buf end;
    buf_init(&end, ETCD_KEY_MAX + 1);
    if (etcd_words_prefix_end(prefix, &end) == ERR_OK) {
        buf_add_byte(to, ',');
        add_base64(to, "range_end", buf_span(&end));
    } else {
        to->err = end.err;
    }
    buf_deinit(&end);
}

static bool is_key(struct span key) {
    return key.len > 0 && key.len <= ETCD_KEY_MAX;
}

/* The range that begins just behind `after`: that key and a zero octet. */
static void add_key_after(struct buf *to, struct span after) {
    struct buf key;
    buf_init(&key, ETCD_KEY_MAX + 1);
    buf_add(&key, after);
    buf_add_byte(&key, '\0');
    if (key.err)
        to->err = key.err;
    add_base64(to, "key", buf_span(&key));
    buf_deinit(&key);
}

int etcd_words_range(const struct etcd_range *r, struct buf *to) {
    if (!is_key(r->key) || r->after.len > ETCD_KEY_MAX)
        return ERR_INVALID;
    buf_add_byte(to, '{');
    if (r->after.len)
        add_key_after(to, r->after);
    else
        add_base64(to, "key", r->key);
    if (r->prefix)
        add_prefix_end(to, r->key);
    if (r->revision)
        add_number(to, "revision", r->revision);
    if (r->limit)
        add_number(to, "limit", r->limit);
    if (r->count_only)
        buf_add_str(to, ",\"count_only\":true");
    return buf_add_byte(to, '}');
}

/* -- transactions -- */

static bool add_compare(struct buf *to, const struct etcd_compare *c) {
    static const struct {
        const char *target, *member;
    } targets[] = {[ETCD_CREATE_REVISION] = {"CREATE", "create_revision"},
                   [ETCD_MOD_REVISION] = {"MOD", "mod_revision"},
                   [ETCD_VERSION] = {"VERSION", "version"},
                   [ETCD_VALUE] = {"VALUE", "value"}};
    static const char *const relations[] = {"EQUAL", "NOT_EQUAL", "GREATER", "LESS"};
    if (!is_key(c->key) || c->value.len > ETCD_VALUE_MAX || c->number > INT64_MAX)
        return false;
    buf_add_byte(to, '{');
    add_base64(to, "key", c->key);
    buf_printf(to, ",\"target\":\"%s\",\"result\":\"%s\"", targets[c->target].target, relations[c->relation]);
    if (c->target == ETCD_VALUE) {
        buf_add_byte(to, ',');
        add_base64(to, "value", c->value);
    } else {
        add_number(to, targets[c->target].member, c->number);
    }
    buf_add_byte(to, '}');
    return true;
}

static bool add_op(struct buf *to, const struct etcd_op *o) {
    static const char *const names[] = {
        [ETCD_GET] = "request_range", [ETCD_PUT] = "request_put", [ETCD_DELETE] = "request_delete_range"};
    if (!is_key(o->key) || o->value.len > ETCD_VALUE_MAX || o->lease > INT64_MAX)
        return false;
    buf_printf(to, "{\"%s\":{", names[o->verb]);
    add_base64(to, "key", o->key);
    if (o->verb == ETCD_PUT) {
        buf_add_byte(to, ',');
        add_base64(to, "value", o->value);
        if (o->lease)
            add_number(to, "lease", o->lease);
    } else if (o->prefix) {
        add_prefix_end(to, o->key);
    }
    buf_add_str(to, "}}");
    return true;
}

static bool touches(const struct etcd_op *deletion, struct span key) {
    return deletion->prefix ? key.len >= deletion->key.len && span_eq(span_first(key, deletion->key.len), deletion->key)
                            : span_eq(key, deletion->key);
}

/* etcd takes no key put twice in one branch, nor one that is put and deleted. */
static bool is_plain(const struct etcd_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            if (i != j && ops[i].verb == ETCD_PUT && ops[j].verb != ETCD_GET && touches(&ops[j], ops[i].key))
                return false;
    return true;
}

static bool add_branch(struct buf *to, const char *name, const struct etcd_op *ops, size_t count) {
    bool good = count <= ETCD_OPS_MAX && is_plain(ops, count);
    buf_printf(to, ",\"%s\":[", name);
    for (size_t i = 0; good && i < count; i++) {
        if (i)
            buf_add_byte(to, ',');
        good = add_op(to, &ops[i]);
    }
    buf_add_byte(to, ']');
    return good;
}

int etcd_words_txn(const struct etcd_txn *t, struct buf *to) {
    bool good = t->compares_count <= ETCD_OPS_MAX;
    buf_add_str(to, "{\"compare\":[");
    for (size_t i = 0; good && i < t->compares_count; i++) {
        if (i)
            buf_add_byte(to, ',');
        good = add_compare(to, &t->compares[i]);
    }
    buf_add_byte(to, ']');
    good = good && add_branch(to, "success", t->then, t->then_count) &&
           add_branch(to, "failure", t->otherwise, t->otherwise_count);
    buf_add_byte(to, '}');
    return good ? to->err : ERR_INVALID;
}

/* -- the others -- */

int etcd_words_grant(uint32_t ttl_s, struct buf *to) {
    return buf_printf(to, "{\"TTL\":\"%u\"}", ttl_s);
}

int etcd_words_lease(uint64_t id, struct buf *to) {
    return buf_printf(to, "{\"ID\":\"%llu\"}", (unsigned long long)id);
}

int etcd_words_watch(struct span prefix, uint64_t revision, struct buf *to) {
    if (!is_key(prefix))
        return ERR_INVALID;
    buf_add_str(to, "{\"create_request\":{");
    add_base64(to, "key", prefix);
    add_prefix_end(to, prefix);
    add_number(to, "start_revision", revision);
    return buf_add_str(to, ",\"progress_notify\":true,\"fragment\":true}}");
}

int etcd_words_login(const char *user, const char *password, struct buf *to) {
    buf_add_str(to, "{\"name\":\"");
    buf_add_json(to, span_of(user));
    buf_add_str(to, "\",\"password\":\"");
    buf_add_json(to, span_of(password));
    return buf_add_str(to, "\"}");
}
