/*
 * xtext: the encoding of DSN parameters (RFC 3461 section 4): printable US-ASCII, where "+HH" stands
 * for one octet. Pure; memory from the caller's arena.
 */
#ifndef GATEWAY_SMTP_XTEXT_H
#define GATEWAY_SMTP_XTEXT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

/* Decodes the whole of s. Refused with ERR_INVALID: what is no xtext, and what decodes to a control or to an octet
 * over 126, because the result is written into headers of reports. raw_utf8 lets valid UTF-8 of more than one octet
 * stand as it is (RFC 6533, in a transaction with SMTPUTF8). ERR_NOMEM. */
int xtext_decode(struct span s, bool raw_utf8, struct arena *mem, struct span *out) MUST_CHECK;

#endif
