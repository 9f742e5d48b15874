/*
 * Fuzzes the answers of etcd: the first octet chooses the kind of question, the rest is the answer. Whatever comes:
 * what is taken keeps the promises of etcd_words.h, that is, keys are there, ranges and events are in order, a token
 * can stand in a header, a fault has one clean line; what is refused leaves nothing behind.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"

#include "base/net/etcd_words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_kvs(const struct etcd_reply *r, bool sorted) {
    for (size_t i = 0; i < r->count; i++) {
        CHECK(r->kvs[i].key.len && r->kvs[i].key.at && r->kvs[i].mod_revision && r->kvs[i].mod_revision <= INT64_MAX);
        CHECK(!sorted || !i || span_cmp(r->kvs[i - 1].key, r->kvs[i].key) < 0);
    }
}

static void judge_events(const struct etcd_reply *r) {
    for (size_t i = 0; i < r->events_count; i++) {
        const struct etcd_kv *kv = &r->events[i].kv;
        CHECK(kv->key.len && kv->mod_revision && (!i || r->events[i - 1].kv.mod_revision <= kv->mod_revision));
    }
}

static void judge_fault(const struct etcd_reply *r) {
    if (r->fault)
        CHECK(r->why.at && !r->count && !r->events_count && !r->token);
    for (size_t i = 0; i < r->why.len; i++)
        CHECK((unsigned char)r->why.at[i] >= ' ' && r->why.at[i] != 0x7f);
    (void)etcd_words_is_token_fault(r->why);
    (void)etcd_words_is_undone(r->fault, r->why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct etcd_reply nothing;
    struct etcd_reply r;
    struct arena arena;
    if (!size)
        return 0;
    enum etcd_kind kind = (enum etcd_kind)(data[0] % (ETCD_KIND_WATCH + 1));
    arena_init(&arena, 4096, 8 * 1024 * 1024);
    int err = etcd_words_read(span_make(data + 1, size - 1), kind, &arena, &r);
    CHECK(err == ERR_OK || err == ERR_CORRUPT || err == ERR_FULL);
    if (err) {
        CHECK(memcmp(&r, &nothing, sizeof r) == 0);
    } else {
        judge_fault(&r);
        judge_kvs(&r, kind == ETCD_KIND_RANGE);
        judge_events(&r);
        CHECK(r.fault || kind != ETCD_KIND_TOKEN || (r.token && *r.token && strlen(r.token) <= ETCD_TOKEN_MAX));
        CHECK(r.fault || kind > ETCD_KIND_TXN || r.revision);
    }
    arena_deinit(&arena);
    return 0;
}
