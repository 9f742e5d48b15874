/* dns_parse: on bytes: what each kind of answer means, and that no broken one is believed or read beyond its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rand.h"
#include "tests/unit/base/net/dns_packet.h"

static struct packet p;
static struct dns_answer a;
static struct dns_record records[DNS_RECORDS_MAX];

/* Parses an exact copy, so that a sanitizer sees every byte read beyond it. */
static void parse_len(size_t len, const char *name, enum dns_type type) {
    char *copy = malloc(len ? len : 1);
    memcpy(copy, p.bytes, len);
    dns_parse(&a, records, span_make(copy, len), name, type);
    free(copy);
}

static void parse(const char *name, enum dns_type type) {
    parse_len(p.len, name, type);
}

static void mx_are_sorted(void **state) {
    (void)state;
    put_question(&p, 1, 0x0020, "Example.NET", DNS_MX);
    put_mx(&p, NULL, 300, 20, "b.example.net");
    put_mx(&p, "example.net", 200, 10, "MX2.example.net");
    put_mx(&p, NULL, 9999, 10, "mx1.example.net");
    put_mx(&p, "other.net", 1, 0, "stranger.example");
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_OK);
    assert_string_equal(a.why, "");
    assert_int_equal(a.count, 3);
    assert_string_equal(a.records[0].name, "mx1.example.net");
    assert_string_equal(a.records[1].name, "mx2.example.net");
    assert_string_equal(a.records[2].name, "b.example.net");
    assert_int_equal(a.records[2].preference, 20);
    assert_int_equal(a.ttl_s, 200);
    assert_true(a.authentic);
    assert_false(a.truncated);
}

static void null_mx_is_the_root(void **state) {
    (void)state;
    put_question(&p, 1, 0, "example.net", DNS_MX);
    put_mx(&p, NULL, 60, 0, "");
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.records[0].name, "");
    assert_false(a.authentic);
}

static void addresses_of_both_families(void **state) {
    (void)state;
    put_question(&p, 1, 0, "h.example", DNS_A);
    put_address(&p, NULL, 60, "\x7f\0\0\x1", 4);
    put_address(&p, NULL, 0x80000001, "\x7f\0\0\x2", 4); /* the top bit: 0 */
    parse("h.example", DNS_A);
    assert_int_equal(a.count, 2);
    assert_memory_equal(a.records[1].addr, "\x7f\0\0\x2", 4);
    assert_int_equal(a.ttl_s, 0);
    put_question(&p, 1, 0, "h.example", DNS_AAAA);
    put_address(&p, NULL, 99999999, "0123456789abcdef", 16);
    parse("h.example", DNS_AAAA);
    assert_int_equal(a.count, 1);
    assert_memory_equal(a.records[0].addr, "0123456789abcdef", 16);
    assert_int_equal(a.ttl_s, 7 * 24 * 3600);
}

static void aliases_are_followed_in_any_order(void **state) {
    (void)state;
    put_question(&p, 1, 0, "a.example", DNS_A);
    put_address(&p, "c.example", 60, "\x7f\0\0\x1", 4);
    put_alias(&p, "b.example", 30, "C.example");
    put_alias(&p, NULL, 50, "b.example");
    parse("a.example", DNS_A);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.ttl_s, 30);
    assert_string_equal(a.canonical, "c.example");
    put_question(&p, 1, 0, "a.example", DNS_A);
    put_address(&p, NULL, 60, "\x7f\0\0\x1", 4);
    parse("a.example", DNS_A);
    assert_string_equal(a.canonical, "");
    put_question(&p, 1, 0, "a.example", DNS_A); /* the end of the chain does not exist */
    p.bytes[3] |= 3;
    put_alias(&p, NULL, 50, "gone.other");
    put_soa(&p, "other", 40, 70);
    parse("a.example", DNS_A);
    assert_int_equal(a.status, DNS_NXDOMAIN);
    assert_int_equal(a.ttl_s, 40);
    assert_string_equal(a.canonical, "gone.other");
}

/* Asked for itself, an alias is a record and not followed. */
static void an_alias_may_be_asked_for(void **state) {
    (void)state;
    put_question(&p, 1, 0x0020, "a.example", DNS_CNAME);
    put_alias(&p, NULL, 50, "B.example");
    parse("a.example", DNS_CNAME);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.records[0].name, "b.example");
    assert_string_equal(a.canonical, "");
    assert_true(a.authentic);
    assert_int_equal(a.ttl_s, 50);
    put_question(&p, 1, 0, "a.example", DNS_CNAME);
    put_soa(&p, "example", 40, 70);
    parse("a.example", DNS_CNAME);
    assert_int_equal(a.status, DNS_NODATA);
}

static void long_and_circular_chains_are_loops(void **state) {
    (void)state;
    char from[16] = "a.example", to[16];
    for (int links = 8; links <= 9; links++) {
        put_question(&p, 1, 0, "n0.example", DNS_A);
        for (int i = 0; i < links; i++) {
            snprintf(from, sizeof from, "n%d.example", i);
            snprintf(to, sizeof to, "n%d.example", i + 1);
            put_alias(&p, from, 60, to);
        }
        put_address(&p, to, 60, "\x7f\0\0\x1", 4);
        parse("n0.example", DNS_A);
        assert_int_equal(a.status, links == 8 ? DNS_OK : DNS_LOOP);
    }
    put_question(&p, 1, 0, "a.example", DNS_A);
    put_alias(&p, "a.example", 60, "b.example");
    put_alias(&p, "b.example", 60, "a.example");
    parse("a.example", DNS_A);
    assert_int_equal(a.status, DNS_LOOP);
    assert_string_not_equal(a.why, "");
    assert_int_equal(a.count, 0);
}

static void negative_answers_carry_the_ttl_of_the_soa(void **state) {
    (void)state;
    put_question(&p, 1, 3, "no.example.net", DNS_MX);
    put_soa(&p, "example.net", 600, 300);
    parse("no.example.net", DNS_MX);
    assert_int_equal(a.status, DNS_NXDOMAIN);
    assert_int_equal(a.ttl_s, 300);
    put_question(&p, 1, 0, "no.example.net", DNS_MX);
    put_soa(&p, "", 100, 300);
    parse("no.example.net", DNS_MX);
    assert_int_equal(a.status, DNS_NODATA);
    assert_int_equal(a.ttl_s, 100);
    put_question(&p, 1, 3, "noexample.net", DNS_MX);
    put_soa(&p, "example.net", 600, 300); /* not the zone of this name */
    parse("noexample.net", DNS_MX);
    assert_int_equal(a.status, DNS_NXDOMAIN);
    assert_int_equal(a.ttl_s, 0);
    put_question(&p, 1, 0, "no.example.net", DNS_MX);
    size_t at = put_head(&p, SECTION_AUTHORITY, "net", 2, 60); /* a referral is no answer */
    put_name(&p, "ns.net");
    end_data(&p, at);
    parse("no.example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

static void failures_are_temporary(void **state) {
    (void)state;
    static const struct {
        unsigned flags;
        const char *why;
    } codes[] = {{1, "server error"}, {2, "server failure"},      {4, "server error"},
                 {5, "refused"},      {0x0200, "answer was cut"}, {0x0800, "malformed answer"}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        put_question(&p, 1, codes[i].flags, "example.net", DNS_MX);
        put_mx(&p, NULL, 60, 10, "mx.example.net");
        parse("example.net", DNS_MX);
        assert_int_equal(a.status, DNS_TEMPFAIL);
        assert_string_equal(a.why, codes[i].why);
        assert_int_equal(a.count, 0);
    }
    put_question(&p, 1, 0, "example.net", DNS_MX);
    put_mx(&p, NULL, 60, 10, "mx.example.net");
    parse("example.org", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
    parse("example.net", DNS_A);
    assert_int_equal(a.status, DNS_TEMPFAIL);
    p.bytes[2] &= 0x7f; /* a question is no answer */
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

static void odd_names_never_become_targets(void **state) {
    (void)state;
    put_question(&p, 1, 0, "example.net", DNS_MX);
    put_mx(&p, NULL, 60, 10, "mx\r\nRCPT.example.net");
    put_mx(&p, NULL, 60, 20, "m x.example.net");
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
    put_mx(&p, NULL, 60, 30, "good.example.net");
    size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_MX, 60); /* a dot inside a label */
    put_number(&p, 1, 2);
    put_number(&p, 3, 1);
    put_number(&p, 0x612e62, 3);
    put_number(&p, 0, 1);
    end_data(&p, at);
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.records[0].name, "good.example.net");
    put_question(&p, 1, 0, "example.net", DNS_MX);
    put_alias(&p, NULL, 60, "o\x01ther.example");
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

static void too_many_records_keep_the_best(void **state) {
    (void)state;
    char name[32];
    put_question(&p, 1, 0, "example.net", DNS_MX);
    for (unsigned i = 0; i < 1500; i++) {
        snprintf(name, sizeof name, "mx%u.example.net", i);
        put_mx(&p, NULL, 60, 1500 - i, name);
    }
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, DNS_RECORDS_MAX);
    assert_true(a.truncated);
    for (unsigned i = 0; i < DNS_RECORDS_MAX; i++)
        assert_int_equal(a.records[i].preference, i + 1);
}

static void pointers_never_lead_forward_or_round(void **state) {
    (void)state;
    static const unsigned targets[] = {0, 1, 2, 100, 0x3fff}; /* relative to the pointer itself; the last: absolute */
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        put_question(&p, 1, 0, "example.net", DNS_MX);
        size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_MX, 60);
        put_number(&p, 10, 2);
        put_number(&p, 0xc000 | ((targets[i] == 0x3fff ? 0x3fff : (unsigned)p.len + targets[i]) & 0x3fff), 2);
        end_data(&p, at);
        parse("example.net", DNS_MX);
        assert_int_equal(a.status, DNS_TEMPFAIL);
    }
    put_question(&p, 1, 0, "example.net", DNS_MX); /* a label, then back to that label */
    size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_MX, 60);
    put_number(&p, 10, 2);
    size_t label = p.len;
    put_number(&p, 0x0161, 2);
    put_number(&p, 0xc000 | (uint32_t)label, 2);
    end_data(&p, at);
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

/* A packet with everything in it. */
static void put_all(void) {
    put_question(&p, 1, 0x0020, "example.net", DNS_MX);
    put_alias(&p, NULL, 60, "real.example.net");
    put_mx(&p, "real.example.net", 300, 10, "mx1.example.net");
    size_t at = put_head(&p, SECTION_ANSWER, "real.example.net", DNS_MX, 60);
    put_number(&p, 20, 2);
    put_number(&p, 0x03627831, 4); /* "bx1", then a pointer to the question */
    put_number(&p, 0xc00c, 2);
    end_data(&p, at);
    put_soa(&p, "example.net", 600, 300);
    at = put_head(&p, SECTION_ADDITIONAL, "", 41, 0); /* OPT */
    end_data(&p, at);
}

static void a_cut_packet_is_never_believed(void **state) {
    (void)state;
    put_all();
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 2);
    assert_string_equal(a.records[1].name, "bx1.example.net");
    for (size_t len = 0; len < p.len; len++) {
        parse_len(len, "example.net", DNS_MX);
        assert_int_equal(a.status, DNS_TEMPFAIL);
        assert_int_equal(a.count, 0);
    }
}

static void damage_is_survived(void **state) {
    (void)state;
    struct rand r;
    rand_init(&r, 1);
    for (int round = 0; round < 20000; round++) {
        put_all();
        for (uint64_t i = rand_below(&r, 4) + 1; i; i--)
            p.bytes[rand_below(&r, p.len)] = (unsigned char)rand_u64(&r);
        parse_len(rand_below(&r, 4) ? p.len : rand_below(&r, p.len), "example.net", DNS_MX);
        assert_true(a.count <= 2);
        assert_true(a.count == 0 || a.status == DNS_OK);
        for (size_t i = 0; i < a.count; i++)
            assert_true(a.records[i].name[0] == '\0' || dns_name_is_good(span_of(a.records[i].name)));
    }
}

static void names_are_checked(void **state) {
    (void)state;
    char longest[255];
    memset(longest, 'a', sizeof longest);
    for (size_t i = 63; i < sizeof longest; i += 64)
        longest[i] = '.';
    longest[254] = '\0';
    assert_false(dns_name_is_good(span_make(longest, 254)));
    assert_true(dns_name_is_good(span_make(longest, 253)));
    static const char *const good[] = {"a", "example.net", "_dmarc.example.net", "xn--bcher-kva.example", "1.2"};
    static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a b", "a\n", "b\xc3\xbc"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(dns_name_is_good(span_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(dns_name_is_good(span_of(bad[i])));
    memset(longest, 'a', 64);
    assert_false(dns_name_is_good(span_make(longest, 64)));
    put_question(&p, 1, 0, "example.net", DNS_MX); /* a name over 255 bytes in the packet */
    size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_MX, 60);
    put_number(&p, 10, 2);
    for (int i = 0; i < 130; i++)
        put_number(&p, 0x0161, 2);
    put_number(&p, 0, 1);
    end_data(&p, at);
    parse("example.net", DNS_MX);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

/* The parser gives no copy of what TXT and TLSA hold: the packet must stay. */
static void parse_here(const char *name, enum dns_type type) {
    dns_parse(&a, records, span_make(p.bytes, p.len), name, type);
}

static void put_text(const char *owner, const char *const *pieces, size_t count) {
    size_t at = put_head(&p, SECTION_ANSWER, owner, DNS_TXT, 60);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(pieces[i]);
        put_number(&p, (uint32_t)len, 1);
        memcpy(p.bytes + p.len, pieces[i], len);
        p.len += len;
    }
    end_data(&p, at);
}

static void text_is_joined_and_cut(void **state) {
    (void)state;
    static const char *const pieces[] = {"listed, ", "", "see\r\nthere"};
    char text[64];
    put_question(&p, 1, 0, "x.example", DNS_TXT);
    put_text(NULL, pieces, 3);
    put_text(NULL, pieces + 1, 1);
    put_text("y.example", pieces, 3);
    parse_here("x.example", DNS_TXT);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 2);
    assert_int_equal(dns_record_text(&a.records[0], text, sizeof text), 18);
    assert_string_equal(text, "listed, see\r\nthere");
    assert_int_equal(dns_record_text(&a.records[0], text, 10), 18);
    assert_string_equal(text, "listed, s");
    assert_int_equal(dns_record_text(&a.records[0], text, 1), 18);
    assert_string_equal(text, "");
    assert_int_equal(dns_record_text(&a.records[1], text, sizeof text), 0);
}

static void text_beyond_its_record_is_malformed(void **state) {
    (void)state;
    static const unsigned char data[][3] = {{5, 'a', 'b'}, {1, 'a', 1}, {3, 'a', 'b'}};
    for (size_t i = 0; i < 3; i++) {
        put_question(&p, 1, 0, "x.example", DNS_TXT);
        size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_TXT, 60);
        memcpy(p.bytes + p.len, data[i], 3);
        p.len += 3;
        end_data(&p, at);
        parse("x.example", DNS_TXT);
        assert_int_equal(a.status, DNS_TEMPFAIL);
    }
    put_question(&p, 1, 0, "x.example", DNS_TXT); /* no string at all */
    end_data(&p, put_head(&p, SECTION_ANSWER, NULL, DNS_TXT, 60));
    parse("x.example", DNS_TXT);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

static void tlsa_has_its_fields(void **state) {
    (void)state;
    put_question(&p, 1, 0x0020, "_25._tcp.mx.example", DNS_TLSA);
    size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_TLSA, 60);
    put_number(&p, 0x030101, 3);
    put_number(&p, 0xabcdef01, 4);
    end_data(&p, at);
    parse_here("_25._tcp.mx.example", DNS_TLSA);
    assert_int_equal(a.status, DNS_OK);
    assert_true(a.authentic);
    assert_int_equal(a.count, 1);
    struct dns_tlsa t = dns_record_tlsa(&a.records[0]);
    assert_int_equal(t.usage, 3);
    assert_int_equal(t.selector, 1);
    assert_int_equal(t.matching, 1);
    assert_int_equal(t.association.len, 4);
    assert_memory_equal(t.association.at, "\xab\xcd\xef\x01", 4);
    put_question(&p, 1, 0, "_25._tcp.mx.example", DNS_TLSA); /* nothing to compare with */
    at = put_head(&p, SECTION_ANSWER, NULL, DNS_TLSA, 60);
    put_number(&p, 0x030101, 3);
    end_data(&p, at);
    parse("_25._tcp.mx.example", DNS_TLSA);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

static void put_pointer(const char *owner, const char *target) {
    size_t at = put_head(&p, SECTION_ANSWER, owner, DNS_PTR, 60);
    put_name(&p, target);
    end_data(&p, at);
}

static void names_of_addresses_are_found_behind_small_delegations(void **state) {
    (void)state;
    put_question(&p, 1, 0, "1.2.0.192.in-addr.arpa", DNS_PTR);
    put_alias(&p, NULL, 60, "1.0/25.2.0.192.in-addr.arpa");
    put_pointer("1.0/25.2.0.192.in-addr.arpa", "Mail.Example.NET");
    put_pointer("1.0/25.2.0.192.in-addr.arpa", "a/b.example.net");
    put_pointer("1.0/25.2.0.192.in-addr.arpa", "e vil.example.net");
    parse("1.2.0.192.in-addr.arpa", DNS_PTR);
    assert_int_equal(a.status, DNS_OK);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.records[0].name, "mail.example.net");
    put_question(&p, 1, 0, "x.example", DNS_A); /* not for other questions */
    put_alias(&p, NULL, 60, "a/b.example");
    put_address(&p, "a/b.example", 60, "\x7f\0\0\x1", 4);
    parse("x.example", DNS_A);
    assert_int_equal(a.status, DNS_TEMPFAIL);
}

/* Damaged packets with every kind of record, each an exact copy that stays while the records are read. */
static void damaged_texts_stay_inside_the_packet(void **state) {
    (void)state;
    static const enum dns_type types[] = {DNS_TXT, DNS_TLSA, DNS_PTR};
    static const char *const pieces[] = {"listed, ", "", "see there"};
    struct rand r;
    rand_init(&r, 3);
    for (int round = 0; round < 20000; round++) {
        enum dns_type type = types[round % 3];
        put_question(&p, 1, 0, "1.example", type);
        put_text(NULL, pieces, 3);
        size_t at = put_head(&p, SECTION_ANSWER, NULL, DNS_TLSA, 60);
        put_number(&p, 0x03010100, 4);
        end_data(&p, at);
        put_pointer(NULL, "mail.example");
        for (uint64_t i = rand_below(&r, 4); i; i--)
            p.bytes[rand_below(&r, p.len)] = (unsigned char)rand_u64(&r);
        size_t len = rand_below(&r, 4) ? p.len : rand_below(&r, p.len);
        char *copy = malloc(len ? len : 1), text[16];
        memcpy(copy, p.bytes, len);
        dns_parse(&a, records, span_make(copy, len), "1.example", type);
        assert_true(a.count == 0 || a.status == DNS_OK);
        for (size_t i = 0; i < a.count; i++) {
            if (type == DNS_TXT)
                assert_true(dns_record_text(&a.records[i], text, sizeof text) < len);
            else if (type == DNS_TLSA)
                assert_true(dns_record_tlsa(&a.records[i]).association.len > 0);
            else
                assert_true(a.records[i].name[0] == '\0' || dns_name_is_good(span_of(a.records[i].name)));
        }
        free(copy);
    }
}

static void addresses_have_names_in_reverse_zones(void **state) {
    (void)state;
    static const struct {
        const char *ip, *zone, *name;
    } cases[] = {
        {"192.0.2.99", NULL, "99.2.0.192.in-addr.arpa"},
        {"192.0.2.99", "bl.example", "99.2.0.192.bl.example"},
        {"::ffff:192.0.2.99", "bl.example", "99.2.0.192.bl.example"},
        {"2001:db8::af", NULL, "f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
    };
    char name[DNS_NAME_MAX + 1], zone[DNS_REVERSE_ZONE_MAX + 2];
    struct tcp_addr addr;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tcp_addr_parse(&addr, span_of(cases[i].ip), 0), ERR_OK);
        assert_int_equal(dns_reverse_name(&addr, cases[i].zone, name), ERR_OK);
        assert_string_equal(name, cases[i].name);
    }
    memset(zone, 'a', sizeof zone);
    for (size_t i = 60; i < sizeof zone; i += 60)
        zone[i] = '.';
    zone[DNS_REVERSE_ZONE_MAX] = '\0';
    assert_int_equal(dns_reverse_name(&addr, zone, name), ERR_OK);
    assert_true(dns_name_is_good(span_of(name)));
    assert_int_equal(strlen(name), 253);
    zone[DNS_REVERSE_ZONE_MAX] = 'a';
    zone[DNS_REVERSE_ZONE_MAX + 1] = '\0';
    assert_int_equal(dns_reverse_name(&addr, zone, name), ERR_RANGE);
    assert_int_equal(tcp_addr_parse(&addr, SPAN("unix:/x"), 0), ERR_OK);
    assert_int_equal(dns_reverse_name(&addr, NULL, name), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mx_are_sorted),
        cmocka_unit_test(null_mx_is_the_root),
        cmocka_unit_test(addresses_of_both_families),
        cmocka_unit_test(aliases_are_followed_in_any_order),
        cmocka_unit_test(an_alias_may_be_asked_for),
        cmocka_unit_test(long_and_circular_chains_are_loops),
        cmocka_unit_test(negative_answers_carry_the_ttl_of_the_soa),
        cmocka_unit_test(failures_are_temporary),
        cmocka_unit_test(odd_names_never_become_targets),
        cmocka_unit_test(too_many_records_keep_the_best),
        cmocka_unit_test(pointers_never_lead_forward_or_round),
        cmocka_unit_test(a_cut_packet_is_never_believed),
        cmocka_unit_test(damage_is_survived),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(text_is_joined_and_cut),
        cmocka_unit_test(text_beyond_its_record_is_malformed),
        cmocka_unit_test(tlsa_has_its_fields),
        cmocka_unit_test(names_of_addresses_are_found_behind_small_delegations),
        cmocka_unit_test(damaged_texts_stay_inside_the_packet),
        cmocka_unit_test(addresses_have_names_in_reverse_zones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
