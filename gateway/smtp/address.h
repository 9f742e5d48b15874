/*
 * address: the one parser of mail addresses: reverse-paths, forward-paths and table entries
 * (RFC 5321 section 4.1.2, RFC 6531 for UTF-8, RFC 5890 for domains).
 *
 * Pure: spans in, spans out of the caller's arena. Anything that is not exactly the grammar is
 * refused; nothing is ever repaired, so that two parts of the program cannot read one address in
 * two ways. Domains come out in lower case, as A-labels (U-labels are converted by IDNA2008), without
 * a final dot; a domain with a final dot is refused.
 */
#ifndef GATEWAY_SMTP_ADDRESS_H
#define GATEWAY_SMTP_ADDRESS_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

#define ADDRESS_LOCAL_MAX 64
#define ADDRESS_DOMAIN_MAX 255
#define ADDRESS_PATH_MAX 256

struct address {
    struct span text;   /* canonical local@domain for RCPT TO / MAIL FROM; empty: the null path */
    struct span local;  /* local part as given, quotes kept when the grammar needs them */
    struct span key;    /* local part with quoting removed: for look-ups (case as given) */
    struct span domain; /* lower-case A-labels, or "[1.2.3.4]" / "[IPv6:…]"; empty for <Postmaster> and <> */
    bool literal;       /* domain is an address literal */
    bool utf8;          /* non-ASCII local part or U-label domain as given: needs SMTPUTF8 */
    bool routed;        /* a source route was stripped */
};

/* Parses "<…>" (with brackets) at the start of s; *used octets were consumed, up to and with '>'.
 * null_ok allows "<>". postmaster_ok allows "<Postmaster>" without a domain. ERR_INVALID: syntax;
 * ERR_RANGE: over 64/255/256 octets; ERR_NOMEM. */
int address_parse_path(struct address *a, struct span s, bool null_ok, bool postmaster_ok, struct arena *mem,
                       size_t *used) MUST_CHECK;
/* The whole span is local@domain (tables, tools). Same errors. */
int address_parse(struct address *a, struct span s, struct arena *mem) MUST_CHECK;
/* The whole span is a domain name or a U-label name: *out canonical. ERR_INVALID, ERR_RANGE, ERR_NOMEM. */
int address_parse_domain(struct span *out, struct span s, struct arena *mem) MUST_CHECK;
/* Local parts that smell of relaying through us when the domain is ours: contain '%', '!' or '@'
 * (smtp-rules.md line 12). */
bool address_is_indirect(const struct address *a);

#endif
