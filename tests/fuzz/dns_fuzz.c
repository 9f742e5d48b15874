/*
 * Fuzzes answers of the DNS: the first octet chooses the type that was asked, the rest is the packet, for example.net.
 * Whatever comes: names that come out are clean, records lie within the packet and in order, and an answer that could
 * not be read says why instead of "no such domain".
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"

#include "base/net/dns_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Letters, digits, "-", "_" in lower case, or the root; what else a name may hold must not reach a log or a dialogue. */
static void judge_name(const char *name) {
    CHECK(!*name || dns_name_is_good(span_of(name)));
    for (const char *c = name; *c; c++)
        CHECK(*c < 'A' || *c > 'Z');
}

static void judge_record(const struct dns_answer *a, size_t i, enum dns_type type, struct span packet) {
    const struct dns_record *r = &a->records[i];
    char text[256];
    if (type == DNS_MX || type == DNS_CNAME || type == DNS_PTR)
        judge_name(r->name);
    if (type == DNS_MX && i)
        CHECK(r[-1].preference <= r->preference);
    if (type != DNS_TXT && type != DNS_TLSA)
        return;
    CHECK(r->data.at >= packet.at && r->data.at + r->data.len <= packet.at + packet.len);
    if (type == DNS_TXT) {
        size_t len = dns_record_text(r, text, sizeof text);
        CHECK(len < r->data.len && text[len < sizeof text ? len : sizeof text - 1] == '\0');
    } else {
        struct dns_tlsa t = dns_record_tlsa(r);
        CHECK(t.association.len > 0 && t.association.at + t.association.len == r->data.at + r->data.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const enum dns_type types[] = {DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT, DNS_TLSA, DNS_CNAME};
    static struct dns_record records[DNS_RECORDS_MAX];
    struct dns_answer a;
    if (!size)
        return 0;
    enum dns_type type = types[data[0] % (sizeof types / sizeof *types)];
    struct span packet = span_make(data + 1, size - 1);
    dns_parse(&a, records, packet, "example.net", type);
    CHECK((a.status == DNS_OK) == (a.count > 0));
    CHECK(a.count <= DNS_RECORDS_MAX && a.ttl_s <= 7 * 86400);
    CHECK((a.status == DNS_TEMPFAIL || a.status == DNS_LOOP) == (*a.why != '\0'));
    judge_name(a.canonical);
    for (size_t i = 0; i < a.count; i++)
        judge_record(&a, i, type, packet);
    return 0;
}
