/*
 * identity: see identity.h. The record is text: the node's name, a line end, 32 hexadecimal digits drawn when the store
 * was made, so that two stores of one name can be told apart.
 *
 * The name is checked since a store that is opened by the wrong node would deliver mail a second time.
 */
#include "store/identity.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/rand.h"
#include "store/backend.h"
#include "store/keys.h"

#define RANDOM_LEN 16u
#define VALUE_MAX 4096u

static int refuse(struct store_report *report, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct store_report *report, int err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(report->damage, sizeof report->damage, format, args);
    va_end(args);
    return err;
}

static int read_value(struct store *s, enum key_tag tag, struct buf *value) {
    struct key k = key_meta(KEY_NODE, tag);
    buf_clear(value);
    return store_get(s, STORE_META, key_span(&k), value);
}

static int write_new(struct store *s, const char *node) {
    struct store_batch *b = store_batch_new();
    uint8_t random[RANDOM_LEN];
    struct buf text;
    struct key k = key_meta(KEY_NODE, KEY_TAG_IDENTITY);
    if (!b)
        return ERR_NOMEM;
    rand_secure(random, sizeof random);
    buf_init(&text, VALUE_MAX);
    buf_add_str(&text, node);
    buf_add_byte(&text, '\n');
    for (size_t i = 0; i < sizeof random; i++)
        buf_printf(&text, "%02x", random[i]);
    int err = text.err;
    store_put(b, STORE_META, key_span(&k), buf_span(&text));
    k = key_meta(KEY_NODE, KEY_TAG_SCHEMA);
    buf_clear(&text);
    buf_add_u64(&text, IDENTITY_SCHEMA);
    store_put(b, STORE_META, key_span(&k), buf_span(&text));
    if (err == ERR_OK)
        err = store_write(s, b, true);
    buf_deinit(&text);
    store_batch_free(b);
    return err;
}

static int check_schema(struct buf *value, struct store_report *report) {
    uint64_t schema = 0;
    if (!span_u64(buf_span(value), &schema) || schema == 0 || schema > UINT32_MAX)
        return refuse(report, ERR_CORRUPT, "meta: the schema's number does not decode");
    report->schema = (uint32_t)schema;
    if (schema > IDENTITY_SCHEMA)
        return refuse(report, ERR_VERSION, "schema %u is newer than this program, which knows %u", report->schema,
                      IDENTITY_SCHEMA);
    return ERR_OK;
}

static int check_owner(struct buf *value, const char *node, struct store_report *report) {
    struct span random, owner = span_cut(buf_span(value), '\n', &random);
    if (random.len != 2 * RANDOM_LEN)
        return refuse(report, ERR_CORRUPT, "meta: the store's identity does not decode");
    if (*node && !span_eq(owner, span_of(node)))
        return refuse(report, ERR_DENIED, "the store belongs to the node %.*s", SPAN_FMT(owner));
    return ERR_OK;
}

int identity_check(struct store *s, const char *node, bool fresh, struct store_report *report) {
    struct buf value;
    buf_init(&value, VALUE_MAX);
    int err = read_value(s, KEY_TAG_SCHEMA, &value);
    if (err == ERR_NOT_FOUND && fresh) {
        report->created = true;
        report->schema = IDENTITY_SCHEMA;
        err = write_new(s, node);
    } else if (err == ERR_OK) {
        err = check_schema(&value, report);
        if (err == ERR_OK)
            err = read_value(s, KEY_TAG_IDENTITY, &value);
        if (err == ERR_OK)
            err = check_owner(&value, node, report);
    }
    if (err == ERR_NOT_FOUND)
        err = refuse(report, ERR_CORRUPT, "meta: the store's identity is missing");
    if (err != ERR_OK && !report->damage[0])
        s->ops->why(s, report->damage, sizeof report->damage);
    buf_deinit(&value);
    return err;
}
