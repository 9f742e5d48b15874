/*
 * dns_parse: reads one DNS answer. Pure: bytes in, values out; no c-ares, no clock, no memory.
 *
 * It never reads out of bounds and its work is bounded by the size of the packet. Whatever is
 * malformed, cut or does not belong to the question gives DNS_TEMPFAIL: a broken answer must
 * never look like "no such domain".
 */
#ifndef BASE_NET_DNS_PARSE_H
#define BASE_NET_DNS_PARSE_H

#include "base/net/dns.h"

/* Fills *a from the answer to (name, type). records: room for DNS_RECORDS_MAX. name in any
 * case, without a final dot. type: one that dns_type_is_known. What TXT and TLSA records hold stays in the packet. */
void dns_parse(struct dns_answer *a, struct dns_record *records, struct span packet, const char *name,
               enum dns_type type);
/* A, AAAA, MX, PTR, TXT, TLSA and CNAME: what dns_parse collects. */
bool dns_type_is_known(enum dns_type type);
/* 1..253 bytes; labels of 1..63 letters, digits, '-' and '_'; no final dot. */
bool dns_name_is_good(struct span name);

#endif
