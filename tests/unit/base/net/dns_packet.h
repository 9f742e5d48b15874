/*
 * dns_packet: builds DNS answers byte by byte for the tests of the parser and of the resolver.
 */
#ifndef TESTS_UNIT_BASE_NET_DNS_PACKET_H
#define TESTS_UNIT_BASE_NET_DNS_PACKET_H

#include <string.h>

#include "base/net/dns_parse.h"

struct packet {
    unsigned char bytes[65536];
    size_t len;
};

static inline void put_number(struct packet *p, uint32_t n, unsigned size) {
    while (size--)
        p->bytes[p->len++] = (unsigned char)(n >> 8 * size);
}

/* "a.b" as labels; "" is the root. */
static inline void put_name(struct packet *p, const char *name) {
    struct span rest = span_of(name);
    while (rest.len) {
        struct span label = span_cut(rest, '.', &rest);
        p->bytes[p->len++] = (unsigned char)label.len;
        memcpy(p->bytes + p->len, label.at, label.len);
        p->len += label.len;
    }
    p->bytes[p->len++] = 0;
}

/* Header and question. The name of the question is at byte 12. */
static inline void put_question(struct packet *p, uint16_t id, unsigned flags, const char *name, enum dns_type type) {
    p->len = 0;
    put_number(p, id, 2);
    put_number(p, 0x8180 | flags, 2);
    put_number(p, 1, 2);
    put_number(p, 0, 2);
    put_number(p, 0, 2);
    put_number(p, 0, 2);
    put_name(p, name);
    put_number(p, type, 2);
    put_number(p, 1, 2);
}

enum { SECTION_ANSWER = 6, SECTION_AUTHORITY = 8, SECTION_ADDITIONAL = 10 };

static inline void count_record(struct packet *p, unsigned section) {
    unsigned count = (unsigned)p->bytes[section] << 8 | p->bytes[section + 1];
    count++;
    p->bytes[section] = (unsigned char)(count >> 8);
    p->bytes[section + 1] = (unsigned char)count;
}

/* owner NULL: a pointer to the name of the question. Returns where the data length is. */
static inline size_t put_head(struct packet *p, unsigned section, const char *owner, unsigned type, uint32_t ttl_s) {
    count_record(p, section);
    if (owner)
        put_name(p, owner);
    else
        put_number(p, 0xc00c, 2);
    put_number(p, type, 2);
    put_number(p, 1, 2);
    put_number(p, ttl_s, 4);
    put_number(p, 0, 2);
    return p->len - 2;
}

static inline void end_data(struct packet *p, size_t length_at) {
    size_t len = p->len - length_at - 2;
    p->bytes[length_at] = (unsigned char)(len >> 8);
    p->bytes[length_at + 1] = (unsigned char)len;
}

static inline void put_mx(struct packet *p, const char *owner, uint32_t ttl_s, unsigned preference,
                          const char *target) {
    size_t at = put_head(p, SECTION_ANSWER, owner, DNS_MX, ttl_s);
    put_number(p, preference, 2);
    put_name(p, target);
    end_data(p, at);
}

static inline void put_alias(struct packet *p, const char *owner, uint32_t ttl_s, const char *target) {
    size_t at = put_head(p, SECTION_ANSWER, owner, DNS_CNAME, ttl_s);
    put_name(p, target);
    end_data(p, at);
}

static inline void put_address(struct packet *p, const char *owner, uint32_t ttl_s, const void *ip, unsigned len) {
    size_t at = put_head(p, SECTION_ANSWER, owner, len == 4 ? DNS_A : DNS_AAAA, ttl_s);
    memcpy(p->bytes + p->len, ip, len);
    p->len += len;
    end_data(p, at);
}

static inline void put_soa(struct packet *p, const char *zone, uint32_t ttl_s, uint32_t minimum_s) {
    size_t at = put_head(p, SECTION_AUTHORITY, zone, DNS_SOA, ttl_s);
    put_name(p, "ns.example");
    put_name(p, "root.example");
    for (unsigned i = 0; i < 4; i++)
        put_number(p, 1000 + i, 4);
    put_number(p, minimum_s, 4);
    end_data(p, at);
}

#endif
