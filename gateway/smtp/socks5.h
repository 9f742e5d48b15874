/*
 * socks5: the client's side of SOCKS 5 (RFC 1928) with no login or with user and password (RFC 1929), up to the reply
 * to CONNECT. Pure: octets in, octets out and a verdict. What follows the reply is not touched: it is of the server
 * behind the proxy.
 *
 *     START -> METHOD -> [LOGIN ->] REPLY -> UP            any of them -> FAILED
 */
#ifndef GATEWAY_SMTP_SOCKS5_H
#define GATEWAY_SMTP_SOCKS5_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define SOCKS5_TEXT_MAX 255 /* octets of a user or a password, at least 1 */
#define SOCKS5_OUT_MAX 513  /* the longest message of ours */

enum socks5_state {
    SOCKS5_START,
    SOCKS5_METHOD, /* which way to log in it takes */
    SOCKS5_LOGIN,
    SOCKS5_REPLY, /* it has been asked to connect */
    SOCKS5_UP,
    SOCKS5_FAILED,
};
enum socks5_verdict {
    SOCKS5_MORE,    /* wait for more octets, after sending what is to be sent */
    SOCKS5_OPEN,    /* the server is at the other end */
    SOCKS5_TARGET,  /* the proxy is fine, the server could not be reached */
    SOCKS5_REFUSED, /* the proxy would not, or could not, connect to this server; others may be no matter */
    SOCKS5_PROXY,   /* it will do nothing for us, or is no SOCKS5 proxy */
};
struct socks5 {
    enum socks5_state state;
    enum socks5_verdict verdict; /* MORE until it is over */
    const char *user, *password; /* borrowed; NULL: no login */
    bool v6;
    uint8_t ip[16]; /* network order; IPv4 in the first 4 */
    uint16_t port;
    const char *why; /* after TARGET, REFUSED, PROXY: in words, static */
};
/* user and password: both, of 1 to SOCKS5_TEXT_MAX octets, or NULL. With them no proxy is used that does not ask for
 * them: it might go by the user in which address it connects from. */
void socks5_init(struct socks5 *s, const char *user, const char *password, bool v6, const uint8_t *ip, uint16_t port);
/* Takes what has come off `in`, and writes what is to be sent now, *out_len octets of it. The first call is with an
 * empty `in`. To be called again with the rest of `in` and more, until the verdict is another than MORE. */
enum socks5_verdict socks5_next(struct socks5 *s, struct span *in, char out[SOCKS5_OUT_MAX], size_t *out_len);

#endif
