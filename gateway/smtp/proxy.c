/*
 * proxy: what a trusted balancer says about the client, as values. The form is strict: a header that is almost right
 * means that something else stands before us, and a guess at an address would open a relay.
 *
 * Version 1 is one line of text of at most 107 octets, version 2 a binary block with a length, whose TLVs are walked
 * to the last octet; a CRC32C among them must be right. The attributes of XCLIENT are checked one by one by a table.
 */
#include <arpa/inet.h>
#include <string.h>

#include "gateway/smtp/proxy.h"
#include "gateway/smtp/xtext.h"

enum {
    V1_MAX = 107,
    V2_HEAD = 16,
    TLV_AUTHORITY = 0x02,
    TLV_CRC32C = 0x03,
    TLV_UNIQUE_ID = 0x05,
    TLV_SSL = 0x20,
    SSL_CLIENT = 1,
};

static const struct span v1_mark = {"PROXY ", 6};
static const struct span v2_mark = {"\r\n\r\n\0\r\nQUIT\n", 12};

static bool is_prefix(struct span part, struct span whole) {
    return part.len <= whole.len && memcmp(part.at, whole.at, part.len) == 0;
}

/* -- version 1 -- */

static bool read_ip(struct span text, bool v6, uint8_t to[16]) {
    char ip[INET6_ADDRSTRLEN];
    if (text.len == 0 || text.len >= sizeof ip)
        return false;
    span_copy(text, ip, sizeof ip);
    return inet_pton(v6 ? AF_INET6 : AF_INET, ip, to) == 1;
}

static bool read_port(struct span text, uint16_t *to) {
    uint64_t port;
    if (text.len > 5 || !span_u64(text, &port) || port > 65535 || (text.len > 1 && text.at[0] == '0'))
        return false;
    *to = (uint16_t)port;
    return true;
}

/* The line without its CRLF. AGAIN: it may still end in time. */
static int cut_line(struct span in, struct span *line) {
    for (size_t i = 0; i < in.len && i < V1_MAX; i++) {
        unsigned char c = (unsigned char)in.at[i];
        if (c == '\r' && i + 1 == in.len && i + 1 < V1_MAX)
            return ERR_AGAIN;
        if (c == '\r' && i + 1 < in.len && i + 1 < V1_MAX && in.at[i + 1] == '\n') {
            *line = span_first(in, i);
            return ERR_OK;
        }
        if (c < 0x20 || c > 0x7e)
            return ERR_INVALID;
    }
    return in.len < V1_MAX ? ERR_AGAIN : ERR_INVALID;
}

static int read_v1(struct proxy_header *h, struct span in, size_t *used) {
    struct span line, rest, part[4];
    int err = cut_line(in, &line);
    if (err)
        return err;
    *used = line.len + 2;
    struct span family = span_cut(span_from(line, v1_mark.len), ' ', &rest);
    if (span_eq(family, SPAN("UNKNOWN"))) {
        h->local = true;
        return ERR_OK;
    }
    h->v6 = span_eq(family, SPAN("TCP6"));
    if (!h->v6 && !span_eq(family, SPAN("TCP4")))
        return ERR_INVALID;
    for (size_t i = 0; i < 3; i++)
        part[i] = span_cut(rest, ' ', &rest);
    part[3] = rest; /* a blank in it is no digit */
    if (!read_ip(part[0], h->v6, h->client) || !read_ip(part[1], h->v6, h->server) ||
        !read_port(part[2], &h->client_port) || !read_port(part[3], &h->server_port))
        return ERR_INVALID;
    return ERR_OK;
}

/* -- version 2 -- */

static unsigned number(struct span s, size_t at) {
    return (unsigned)(unsigned char)s.at[at] << 8 | (unsigned char)s.at[at + 1];
}

/* CRC-32C (Castagnoli) over the header, its own four octets taken as zero. */
static uint32_t crc32c(struct span s, size_t zero_at) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < s.len; i++) {
        crc ^= i - zero_at < 4 ? 0 : (unsigned char)s.at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static bool crc_is_right(struct span whole, struct span value) {
    uint32_t said = (uint32_t)number(value, 0) << 16 | number(value, 2);
    return crc32c(whole, (size_t)(value.at - whole.at)) == said;
}

/* Cuts one TLV off s. */
static bool cut_tlv(struct span *s, unsigned *type, struct span *value) {
    if (s->len < 3 || number(*s, 1) > s->len - 3)
        return false;
    *type = (unsigned char)s->at[0];
    *value = span_first(span_from(*s, 3), number(*s, 1));
    *s = span_from(*s, 3 + value->len);
    return true;
}

static bool is_name(struct span s) {
    if (s.len == 0 || s.len > 255)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.at[i] <= 0x20 || s.at[i] == 0x7f)
            return false;
    }
    return true;
}

static bool read_ssl(struct proxy_header *h, struct span value) {
    unsigned type;
    struct span inner, ignored;
    if (value.len < 5)
        return false;
    h->tls = value.at[0] & SSL_CLIENT;
    for (inner = span_from(value, 5); inner.len;) {
        if (!cut_tlv(&inner, &type, &ignored))
            return false;
    }
    return true;
}

static bool read_tlvs(struct proxy_header *h, struct span whole, struct span rest) {
    unsigned type, sums = 0;
    struct span value;
    while (rest.len) {
        if (!cut_tlv(&rest, &type, &value))
            return false;
        if (type == TLV_AUTHORITY) {
            if (!is_name(value))
                return false;
            h->sni = value;
        } else if (type == TLV_CRC32C) {
            if (value.len != 4 || ++sums > 1 || !crc_is_right(whole, value))
                return false;
        } else if ((type == TLV_UNIQUE_ID && value.len > 128) || (type == TLV_SSL && !read_ssl(h, value))) {
            return false;
        }
    }
    return true;
}

static void set_addresses(struct proxy_header *h, struct span block, size_t octets) {
    memcpy(h->client, block.at, octets);
    memcpy(h->server, block.at + octets, octets);
    h->client_port = (uint16_t)number(block, 2 * octets);
    h->server_port = (uint16_t)number(block, 2 * octets + 2);
}

static int read_v2(struct proxy_header *h, struct span in, size_t *used) {
    static const struct {
        uint8_t family, len; /* len: of the addresses */
    } known[] = {{0x00, 0}, {0x11, 12}, {0x21, 36}, {0x31, 216}};
    if (in.len < V2_HEAD)
        return ERR_AGAIN;
    unsigned command = (unsigned char)in.at[12], family = (unsigned char)in.at[13];
    size_t len = V2_HEAD + number(in, 14), i = 0;
    if ((command != 0x20 && command != 0x21) || len > PROXY_HEADER_MAX)
        return ERR_INVALID;
    if (in.len < len)
        return ERR_AGAIN;
    *used = len;
    h->local = true;
    if (command == 0x20) /* LOCAL: what follows is to be skipped unread */
        return ERR_OK;
    while (i < sizeof known / sizeof *known && known[i].family != family)
        i++;
    if (i == sizeof known / sizeof *known || len < V2_HEAD + (size_t)known[i].len)
        return ERR_INVALID;
    struct span whole = span_first(in, len), block = span_from(whole, V2_HEAD);
    h->v6 = family == 0x21;
    h->local = family != 0x11 && family != 0x21;
    if (!h->local)
        set_addresses(h, block, h->v6 ? 16 : 4);
    return read_tlvs(h, whole, span_from(block, known[i].len)) ? ERR_OK : ERR_INVALID;
}

int proxy_read(struct proxy_header *h, struct span in, size_t *used) {
    *h = (struct proxy_header){.local = false};
    *used = 0;
    if (in.len == 0)
        return ERR_AGAIN;
    int err = ERR_INVALID;
    if (is_prefix(v1_mark, in))
        err = read_v1(h, in, used);
    else if (is_prefix(v2_mark, in))
        err = read_v2(h, in, used);
    else if (is_prefix(in, v1_mark) || is_prefix(in, v2_mark))
        err = ERR_AGAIN;
    if (err) {
        *h = (struct proxy_header){.local = false};
        *used = 0;
    }
    return err;
}

static void put_number(char *to, unsigned n) {
    to[0] = (char)(n >> 8);
    to[1] = (char)(n & 0xff);
}

size_t proxy_write_v2(const struct proxy_header *h, char to[PROXY_WRITTEN_MAX]) {
    size_t octets = h->local ? 0 : h->v6 ? 16 : 4, len = h->local ? 0 : 2 * octets + 4;
    memcpy(to, v2_mark.at, v2_mark.len);
    to[12] = h->local ? 0x20 : 0x21;
    to[13] = h->local ? 0x00 : h->v6 ? 0x21 : 0x11;
    put_number(to + 14, (unsigned)len);
    if (h->local)
        return V2_HEAD;
    memcpy(to + V2_HEAD, h->client, octets);
    memcpy(to + V2_HEAD + octets, h->server, octets);
    put_number(to + V2_HEAD + 2 * octets, h->client_port);
    put_number(to + V2_HEAD + 2 * octets + 2, h->server_port);
    return V2_HEAD + len;
}

/* -- XCLIENT -- */

static bool is_ip(struct span s) {
    uint8_t ignored[16];
    return read_ip(s, false, ignored) || read_ip(s, true, ignored);
}

static bool is_port(struct span s) {
    uint16_t ignored;
    return read_port(s, &ignored);
}

static bool is_protocol(struct span s) {
    return span_eq_nocase(s, SPAN("SMTP")) || span_eq_nocase(s, SPAN("ESMTP"));
}

static bool is_host(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                    c == '_' || c == '.';
        if (!good)
            return false;
    }
    return s.len <= 255;
}

static bool is_text(struct span s) {
    return s.len <= 255;
}

static const struct attribute {
    const char *name;
    size_t offset;
    bool (*is_good)(struct span s);
    bool ip;
} attributes[] = {
    {"NAME", offsetof(struct xclient, name), is_host, false},
    {"ADDR", offsetof(struct xclient, addr), is_ip, true},
    {"PORT", offsetof(struct xclient, port), is_port, false},
    {"PROTO", offsetof(struct xclient, proto), is_protocol, false},
    {"HELO", offsetof(struct xclient, helo), is_text, false},
    {"LOGIN", offsetof(struct xclient, login), is_text, false},
    {"DESTADDR", offsetof(struct xclient, destaddr), is_ip, true},
    {"DESTPORT", offsetof(struct xclient, destport), is_port, false},
    {"REVERSE_NAME", offsetof(struct xclient, reverse_name), is_host, false},
};

static const struct attribute *find_attribute(struct span name) {
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        if (span_eq_nocase(name, span_of(attributes[i].name)))
            return &attributes[i];
    }
    return NULL;
}

static int read_attribute(struct xclient *x, struct span one, struct arena *mem) {
    struct span text, value, name = span_cut(one, '=', &text);
    const struct attribute *a = find_attribute(name);
    if (!a || text.len == 0)
        return ERR_INVALID;
    struct span *to = (struct span *)((char *)x + a->offset);
    if (to->at)
        return ERR_INVALID; /* twice: which one is true? */
    if (span_eq_nocase(text, SPAN("[UNAVAILABLE]")) || span_eq_nocase(text, SPAN("[TEMPUNAVAIL]"))) {
        *to = SPAN("");
        return ERR_OK;
    }
    int err = xtext_decode(text, false, mem, &value);
    if (err)
        return err;
    if (a->ip && span_starts_nocase(value, SPAN("IPV6:"))) {
        value = span_from(value, 5);
        if (span_find(value, ':') < 0)
            return ERR_INVALID;
    }
    if (!a->is_good(value))
        return ERR_INVALID;
    *to = value;
    return ERR_OK;
}

int xclient_read(struct xclient *x, struct span args, struct arena *mem) {
    *x = (struct xclient){.name = SPAN_EMPTY};
    args = span_trim(args);
    if (args.len == 0)
        return ERR_INVALID;
    while (args.len) {
        struct span one = span_cut(args, ' ', &args);
        int err = one.len ? read_attribute(x, one, mem) : ERR_OK;
        if (err)
            return err;
    }
    return ERR_OK;
}
