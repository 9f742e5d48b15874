/*
 * Fuzzes the texts of MTA-STS and of the record that asks for TLS reports. A policy that was accepted must be within
 * its bounds, must parse again to itself from its own lines, and every pattern of it must allow a host made from it and
 * no host of one label more.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/check.h"

#include "gateway/outbound/tlsrpt_rua.h"
#include "gateway/smtp/sts_policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_mx(const struct sts_policy *p, const char *pattern, bool alone) {
    char host[300];
    size_t len = span_of(pattern).len;
    CHECK(len > 0 && len < 256);
    memcpy(host + 2, pattern, len + 1);
    if (pattern[0] == '*')
        host[2] = 'a';
    CHECK(sts_allows(p, host + 2));
    host[0] = 'x';
    host[1] = '.';
    CHECK(!alone || !sts_allows(p, host));
}

static void judge(struct sts_policy *p) {
    struct sts_policy *again;
    const char *why;
    struct buf text;
    buf_init(&text, 2 * STS_TEXT_MAX);
    CHECK(p->mx_count <= STS_MX_MAX && p->line_count <= STS_LINES_MAX && p->max_age_s <= STS_MAX_AGE_S_MAX);
    CHECK(p->mode == STS_NONE || p->mx_count > 0);
    for (size_t i = 0; i < p->mx_count; i++)
        judge_mx(p, p->mx[i], p->mx_count == 1);
    for (size_t i = 0; i < p->line_count; i++) {
        buf_add_str(&text, p->lines[i]);
        buf_add_byte(&text, '\n');
    }
    int err = sts_policy_parse(&again, buf_span(&text), span_of(p->id), p->fetched_ms, &why);
    CHECK(err == ERR_OK || err == ERR_RANGE); /* the last line may have had no end of its own */
    if (again) {
        CHECK(again->mode == p->mode && again->max_age_s == p->max_age_s && again->mx_count == p->mx_count);
        for (size_t i = 0; i < p->mx_count; i++)
            CHECK(span_eq(span_of(p->mx[i]), span_of(again->mx[i])));
        CHECK(again->bytes == p->bytes);
    }
    sts_policy_unref(again);
    buf_deinit(&text);
}

/* Nothing that ends a line or is not ASCII may come out. */
static void judge_rua(struct span in) {
    struct tlsrpt_rua rua[TLSRPT_RUA_MAX];
    size_t count;
    if (tlsrpt_rua_parse(in, rua, &count) != ERR_OK)
        return;
    CHECK(count >= 1 && count <= TLSRPT_RUA_MAX);
    for (size_t i = 0; i < count; i++) {
        CHECK(rua[i].to[0] && (rua[i].mail || span_starts_nocase(span_of(rua[i].to), SPAN("https://"))));
        for (const char *c = rua[i].to; *c; c++)
            CHECK(*c > 0x20 && *c < 0x7f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sts_policy *p;
    struct span in = span_make(data, size), id;
    const char *why;
    if (sts_record_parse(in, &id) == ERR_OK) {
        CHECK(id.len >= 1 && id.len <= STS_ID_MAX && id.at >= in.at && id.at + id.len <= in.at + in.len);
    }
    judge_rua(in);
    if (sts_policy_parse(&p, in, SPAN("fuzz"), 1, &why) == ERR_OK)
        judge(p);
    else
        CHECK(*why);
    sts_policy_unref(p);
    return 0;
}
