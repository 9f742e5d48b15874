/*
 * mime_encode: quoted-printable and base64 as RFC 2045 sections 6.7 and 6.8 have them. Text lines stay
 * lines in quoted-printable; a CR or LF that is no part of a line end is encoded as an octet.
 */
#include "gateway/smtp/mime.h"

enum { QP_LINE_MAX = 76, BASE64_LINE_IN = 57 };

struct qp_line {
    char text[QP_LINE_MAX + 3];
    size_t len;
};

static void qp_put(struct buf *to, struct qp_line *line, const char *unit, size_t len) {
    if (line->len + len > QP_LINE_MAX - 1) { /* a place is kept for the soft line break */
        memcpy(line->text + line->len, "=\r\n", 3);
        buf_append(to, line->text, line->len + 3);
        line->len = 0;
    }
    memcpy(line->text + line->len, unit, len);
    line->len += len;
}

static bool at_line_end(struct span body, size_t i) {
    return i == body.len || (i + 1 < body.len && body.at[i] == '\r' && body.at[i + 1] == '\n');
}

void mime_add_qp(struct buf *to, struct span body) {
    static const char hex[] = "0123456789ABCDEF";
    struct qp_line line = {.len = 0};
    for (size_t i = 0; i < body.len; i++) {
        unsigned char c = (unsigned char)body.at[i];
        if (at_line_end(body, i)) {
            buf_append(to, line.text, line.len);
            buf_add(to, SPAN("\r\n"));
            line.len = 0;
            i++;
            continue;
        }
        bool space = c == ' ' || c == '\t';
        bool plain = space ? !at_line_end(body, i + 1) : (c > 0x20 && c < 0x7f && c != '=');
        if (plain) {
            qp_put(to, &line, body.at + i, 1);
        } else {
            const char coded[3] = {'=', hex[c >> 4], hex[c & 15]};
            qp_put(to, &line, coded, 3);
        }
    }
    buf_append(to, line.text, line.len);
}

void mime_add_base64(struct buf *to, struct span body) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while (body.len) {
        struct span part = span_first(body, BASE64_LINE_IN);
        char line[QP_LINE_MAX + 2];
        size_t len = 0;
        for (size_t i = 0; i < part.len; i += 3) {
            size_t n = part.len - i < 3 ? part.len - i : 3;
            uint32_t bits = (uint32_t)(unsigned char)part.at[i] << 16;
            bits |= n > 1 ? (uint32_t)(unsigned char)part.at[i + 1] << 8 : 0;
            bits |= n > 2 ? (uint32_t)(unsigned char)part.at[i + 2] : 0;
            line[len++] = alphabet[bits >> 18];
            line[len++] = alphabet[bits >> 12 & 63];
            line[len++] = n > 1 ? alphabet[bits >> 6 & 63] : '=';
            line[len++] = n > 2 ? alphabet[bits & 63] : '=';
        }
        line[len++] = '\r';
        line[len++] = '\n';
        buf_append(to, line, len);
        body = span_from(body, part.len);
    }
}

bool mime_prefers_base64(struct span body) {
    size_t coded = 0;
    for (size_t i = 0; i < body.len; i++) {
        unsigned char c = (unsigned char)body.at[i];
        coded += c > 0x7e || c == '=' || (c < 0x20 && c != '\t' && c != '\r' && c != '\n');
    }
    return coded * 6 > body.len; /* quoted-printable adds 2 for each, base64 a third of all */
}
