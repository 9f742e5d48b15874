/*
 * dns_record: what records and addresses say in the words of DNS: the text of TXT, the fields of TLSA, and the name
 * under which an address stands in a reverse zone or in a DNS list. Pure; the parser has checked the form of records.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/net/dns.h"

size_t dns_record_text(const struct dns_record *r, char *to, size_t size) {
    struct span rest = r->data;
    size_t len = 0, kept = 0;
    CHECK(size > 0);
    while (rest.len) {
        struct span piece = span_first(span_from(rest, 1), (unsigned char)rest.at[0]);
        size_t fits = piece.len < size - 1 - kept ? piece.len : size - 1 - kept;
        if (fits)
            memcpy(to + kept, piece.at, fits);
        kept += fits;
        len += piece.len;
        rest = span_from(rest, 1 + piece.len);
    }
    to[kept] = '\0';
    return len;
}

struct dns_tlsa dns_record_tlsa(const struct dns_record *r) {
    CHECK(r->data.len > 3);
    return (struct dns_tlsa){
        .usage = (uint8_t)r->data.at[0],
        .selector = (uint8_t)r->data.at[1],
        .matching = (uint8_t)r->data.at[2],
        .association = span_from(r->data, 3),
    };
}

/* The octets in network order; 4, 16, or 0 for what is no IP address. */
static size_t address_octets(const struct tcp_addr *a, uint8_t to[16]) {
    if (a->storage.ss_family == AF_INET) {
        memcpy(to, &((const struct sockaddr_in *)&a->storage)->sin_addr, 4);
        return 4;
    }
    if (a->storage.ss_family != AF_INET6)
        return 0;
    const struct in6_addr *ip = &((const struct sockaddr_in6 *)&a->storage)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(ip)) {
        memcpy(to, ip->s6_addr + 12, 4);
        return 4;
    }
    memcpy(to, ip->s6_addr, 16);
    return 16;
}

int dns_reverse_name(const struct tcp_addr *a, const char *zone, char to[DNS_NAME_MAX + 1]) {
    uint8_t ip[16];
    size_t len = address_octets(a, ip), at = 0;
    if (len == 0)
        return ERR_INVALID;
    if (!zone)
        zone = len == 4 ? "in-addr.arpa" : "ip6.arpa";
    if (strlen(zone) > DNS_REVERSE_ZONE_MAX)
        return ERR_RANGE;
    for (size_t i = len; i-- > 0;) {
        unsigned octet = ip[i];
        if (len == 4)
            at += (size_t)snprintf(to + at, DNS_NAME_MAX + 1 - at, "%u.", octet);
        else
            at += (size_t)snprintf(to + at, DNS_NAME_MAX + 1 - at, "%x.%x.", octet & 15, octet >> 4);
    }
    snprintf(to + at, DNS_NAME_MAX + 1 - at, "%s", zone);
    return ERR_OK;
}
