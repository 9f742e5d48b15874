/*
 * socks5: see socks5.h. One message of ours and one of the proxy's take turns, so each call answers at most one.
 *
 * The codes of the reply are judged by whose fault they name. Those about the way to the server are the server's, as a
 * failed connect would be. The others may still be about this one server (a rule of the proxy against its address, or
 * an error that has no code), which a stranger's MX record can bring about, so they do not speak for other servers.
 *
 * A refusal is complete with its code: some proxies close without the address that should follow.
 */
#include <string.h>

#include "base/check.h"

#include "gateway/smtp/socks5.h"

enum {
    VERSION = 5,
    LOGIN_VERSION = 1,
    METHOD_NONE = 0x00,
    METHOD_PASSWORD = 0x02,
    METHOD_REFUSED = 0xff,
    COMMAND_CONNECT = 1,
    ADDRESS_V4 = 1,
    ADDRESS_NAME = 3,
    ADDRESS_V6 = 4,
    REPLY_HEAD = 4,
};

static const struct {
    enum socks5_verdict verdict;
    const char *why;
} codes[] = {
    [1] = {SOCKS5_REFUSED, "the proxy has failed"},
    [2] = {SOCKS5_REFUSED, "the rules of the proxy do not allow it"},
    [3] = {SOCKS5_TARGET, "network unreachable"},
    [4] = {SOCKS5_TARGET, "host unreachable"},
    [5] = {SOCKS5_TARGET, "connection refused"},
    [6] = {SOCKS5_TARGET, "no answer to the connection"}, /* TTL expired: what proxies say of a time-out */
    [7] = {SOCKS5_REFUSED, "the proxy does not know the command"},
    [8] = {SOCKS5_REFUSED, "the proxy does not know the family of the address"},
};

void socks5_init(struct socks5 *s, const char *user, const char *password, bool v6, const uint8_t *ip, uint16_t port) {
    CHECK(!user == !password);
    *s = (struct socks5){.user = user, .password = password, .v6 = v6, .port = port};
    memcpy(s->ip, ip, v6 ? 16 : 4);
}

static enum socks5_verdict end(struct socks5 *s, enum socks5_verdict verdict, const char *why) {
    s->state = verdict == SOCKS5_OPEN ? SOCKS5_UP : SOCKS5_FAILED;
    s->verdict = verdict;
    s->why = why;
    return verdict;
}

/* -- what we say -- */

static size_t offer(const struct socks5 *s, char *out) {
    out[0] = VERSION;
    out[1] = 1;
    out[2] = s->user ? METHOD_PASSWORD : METHOD_NONE;
    return 3;
}

static size_t put_text(const char *text, char *to) {
    size_t len = strlen(text);
    CHECK(len > 0 && len <= SOCKS5_TEXT_MAX);
    to[0] = (char)(unsigned char)len;
    memcpy(to + 1, text, len);
    return 1 + len;
}

static size_t login(const struct socks5 *s, char *out) {
    size_t len = 1;
    out[0] = LOGIN_VERSION;
    len += put_text(s->user, out + len);
    return len + put_text(s->password, out + len);
}

static size_t request(const struct socks5 *s, char *out) {
    size_t octets = s->v6 ? 16 : 4;
    out[0] = VERSION;
    out[1] = COMMAND_CONNECT;
    out[2] = 0;
    out[3] = s->v6 ? ADDRESS_V6 : ADDRESS_V4;
    memcpy(out + 4, s->ip, octets);
    out[4 + octets] = (char)(s->port >> 8);
    out[5 + octets] = (char)(s->port & 0xff);
    return 6 + octets;
}

/* -- what we hear -- */

static unsigned octet(struct span in, size_t at) {
    return (unsigned char)in.at[at];
}

static enum socks5_verdict read_method(struct socks5 *s, struct span *in, char *out, size_t *out_len) {
    unsigned expected = s->user ? METHOD_PASSWORD : METHOD_NONE;
    if (octet(*in, 0) != VERSION)
        return end(s, SOCKS5_PROXY, "it does not speak SOCKS5");
    if (in->len < 2)
        return SOCKS5_MORE;
    unsigned method = octet(*in, 1);
    *in = span_from(*in, 2);
    if (method == METHOD_REFUSED)
        return end(s, SOCKS5_PROXY, s->user ? "it takes no user and password" : "it takes nobody without a login");
    if (method != expected)
        return end(s, SOCKS5_PROXY, "it chose a way to log in that was not offered");
    s->state = s->user ? SOCKS5_LOGIN : SOCKS5_REPLY;
    *out_len = s->user ? login(s, out) : request(s, out);
    return SOCKS5_MORE;
}

static enum socks5_verdict read_login(struct socks5 *s, struct span *in, char *out, size_t *out_len) {
    if (octet(*in, 0) != LOGIN_VERSION)
        return end(s, SOCKS5_PROXY, "its answer to the login makes no sense");
    if (in->len < 2)
        return SOCKS5_MORE;
    bool fine = octet(*in, 1) == 0;
    *in = span_from(*in, 2);
    if (!fine)
        return end(s, SOCKS5_PROXY, "it refuses the user or the password");
    s->state = SOCKS5_REPLY;
    *out_len = request(s, out);
    return SOCKS5_MORE;
}

static enum socks5_verdict read_refusal(struct socks5 *s, unsigned code) {
    if (code < sizeof codes / sizeof *codes)
        return end(s, codes[code].verdict, codes[code].why);
    return end(s, SOCKS5_REFUSED, "the proxy refuses with an unknown code");
}

/* The address that it connects from follows, and is of no use: proxies fill in anything. */
static enum socks5_verdict read_reply(struct socks5 *s, struct span *in) {
    if (octet(*in, 0) != VERSION)
        return end(s, SOCKS5_REFUSED, "the reply of the proxy makes no sense");
    if (in->len < 2)
        return SOCKS5_MORE;
    if (octet(*in, 1) != 0)
        return read_refusal(s, octet(*in, 1));
    if (in->len < REPLY_HEAD + 1)
        return SOCKS5_MORE;
    size_t len = octet(*in, 3) == ADDRESS_V4     ? REPLY_HEAD + 4
                 : octet(*in, 3) == ADDRESS_V6   ? REPLY_HEAD + 16
                 : octet(*in, 3) == ADDRESS_NAME ? REPLY_HEAD + 1 + octet(*in, 4)
                                                 : 0;
    if (!len)
        return end(s, SOCKS5_REFUSED, "the reply of the proxy makes no sense");
    if (in->len < len + 2)
        return SOCKS5_MORE;
    *in = span_from(*in, len + 2);
    return end(s, SOCKS5_OPEN, NULL);
}

enum socks5_verdict socks5_next(struct socks5 *s, struct span *in, char out[SOCKS5_OUT_MAX], size_t *out_len) {
    *out_len = 0;
    if (s->state == SOCKS5_START) {
        s->state = SOCKS5_METHOD;
        *out_len = offer(s, out);
        return SOCKS5_MORE;
    }
    if (s->state == SOCKS5_UP || s->state == SOCKS5_FAILED)
        return s->verdict;
    if (!in->len)
        return SOCKS5_MORE;
    if (s->state == SOCKS5_METHOD)
        return read_method(s, in, out, out_len);
    if (s->state == SOCKS5_LOGIN)
        return read_login(s, in, out, out_len);
    return read_reply(s, in);
}
