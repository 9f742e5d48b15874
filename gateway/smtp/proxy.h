/*
 * proxy: reads the header of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt), writes that of
 * version 2, and reads the attributes of XCLIENT (Postfix XCLIENT_README). Pure: octets in, values out.
 */
#ifndef GATEWAY_SMTP_PROXY_H
#define GATEWAY_SMTP_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define PROXY_HEADER_MAX 1024 /* v2 with TLVs; longer ones are refused */

struct proxy_header {
    bool local; /* LOCAL, UNKNOWN, or no IP family: the address of the connection itself stays */
    bool v6;
    uint8_t client[16], server[16]; /* network order; IPv4 in the first 4 */
    uint16_t client_port, server_port;
    struct span sni; /* PP2_TYPE_AUTHORITY, or empty; lies in the octets that were read */
    bool tls;        /* PP2_TYPE_SSL: the client spoke TLS to the balancer */
};
/* Reads it at the start of `in`. ERR_OK: *used octets were it; ERR_AGAIN: more octets are needed (never with
 * PROXY_HEADER_MAX octets or more); ERR_INVALID. */
int proxy_read(struct proxy_header *h, struct span in, size_t *used) MUST_CHECK;

#define PROXY_WRITTEN_MAX 52 /* IPv6, without TLVs */
/* Writes a header of version 2 with these addresses, or LOCAL; .sni and .tls are not told. Returns its length. */
size_t proxy_write_v2(const struct proxy_header *h, char to[PROXY_WRITTEN_MAX]);

/* One XCLIENT command: attributes that were given; .at NULL: not given; len 0: given as [UNAVAILABLE] or [TEMPUNAVAIL].
 */
struct xclient {
    struct span name, addr, port, proto, helo, login, destaddr, destport, reverse_name;
};
/* args: behind "XCLIENT ". Values are xtext, decoded into mem; addresses, ports, names and the protocol are checked,
 * and "IPV6:" is taken off addresses. ERR_INVALID (also when one is given twice, or unknown), ERR_NOMEM. */
struct arena;
int xclient_read(struct xclient *x, struct span args, struct arena *mem) MUST_CHECK;

#endif
