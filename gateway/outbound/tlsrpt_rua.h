/*
 * tlsrpt_rua: the TXT record that says who wants TLS reports (RFC 8460 section 3). Pure.
 */
#ifndef GATEWAY_OUTBOUND_TLSRPT_RUA_H
#define GATEWAY_OUTBOUND_TLSRPT_RUA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

#define TLSRPT_RUA_MAX 4u       /* addresses of one record; more are not used */
#define TLSRPT_RUA_LEN_MAX 511u /* octets; longer ones are not used */

struct tlsrpt_rua {
    bool mail;
    char to[TLSRPT_RUA_LEN_MAX + 1]; /* an https URL, or an address without its "mailto:" and with nothing encoded */
};
/* ERR_OK: *count is 1 to TLSRPT_RUA_MAX. ERR_NOT_FOUND: not of TLS reports. ERR_INVALID: it is, and malformed or
 * without an address of a kind that we know. */
int tlsrpt_rua_parse(struct span txt, struct tlsrpt_rua rua[TLSRPT_RUA_MAX], size_t *count) MUST_CHECK;

#endif
