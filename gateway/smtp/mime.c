/*
 * mime: walks the parts of a message and decides for each what is to be done. The walk is
 * recursive with a bounded depth; each level looks over its own octets once more, so the work
 * is at most depth times length.
 */
#include "gateway/smtp/mime.h"

struct walk {
    struct buf *to;
    const char *why;
};

bool mime_has_8bit(struct span s) {
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t word;
        memcpy(&word, s.at + i, 8);
        if (word & UINT64_C(0x8080808080808080))
            return true;
    }
    for (; i < s.len; i++) {
        if ((unsigned char)s.at[i] > 0x7f)
            return true;
    }
    return false;
}

bool mime_has_8bit_header(struct span message) {
    const char *end = memmem(message.at ? message.at : "", message.len, "\r\n\r\n", 4);
    if (message.len >= 2 && memcmp(message.at, "\r\n", 2) == 0)
        return false;
    return mime_has_8bit(end ? span_first(message, (size_t)(end - message.at)) : message);
}

static int fail(struct walk *w, int err, const char *why) {
    w->why = why;
    return err;
}

static bool is_type(const struct mime_header *h, const char *type, const char *subtype) {
    return span_eq_nocase(h->type.type, span_of(type)) &&
           (!subtype || span_eq_nocase(h->type.subtype, span_of(subtype)));
}

/* Conversion would break the seal, or what was meant to be opaque. */
static bool is_sealed(const struct mime_header *h) {
    return is_type(h, "multipart", "signed") || is_type(h, "multipart", "encrypted") ||
           is_type(h, "application", "pkcs7-mime") || is_type(h, "application", "x-pkcs7-mime");
}

static bool is_identity(enum mime_encoding e) {
    return e == MIME_NONE || e == MIME_7BIT || e == MIME_8BIT || e == MIME_BINARY;
}

/* The header with its Content-Transfer-Encoding replaced by `encoding` (NULL: left out), behind `label`. */
static void put_header(struct walk *w, const struct mime_header *h, struct span label, const char *encoding) {
    struct span fields = h->fields, old = h->encoding_field;
    size_t before = old.len ? (size_t)(old.at - fields.at) : fields.len;
    buf_add(w->to, span_first(fields, before));
    if (encoding) {
        if (before && fields.at[before - 1] != '\n')
            buf_add(w->to, SPAN("\r\n"));
        buf_add(w->to, label);
        buf_add(w->to, SPAN("Content-Transfer-Encoding: "));
        buf_add_str(w->to, encoding);
        buf_add(w->to, SPAN("\r\n"));
    }
    buf_add(w->to, span_from(fields, before + old.len));
}

/* -- a part without parts -- */

static int walk_leaf(struct walk *w, const struct mime_header *h, bool whole) {
    if (!is_identity(h->encoding))
        return fail(w, ERR_INVALID, "an encoded part holds 8-bit octets");
    bool base64 = mime_prefers_base64(h->body);
    struct span label = SPAN_EMPTY;
    if (whole && !h->version) { /* not MIME yet: label it (RFC 1428) */
        if (h->type.given || h->encoding_field.len)
            return fail(w, ERR_INVALID, "MIME fields without MIME-Version");
        label = SPAN("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n");
    }
    put_header(w, h, label, base64 ? "base64" : "quoted-printable");
    buf_add(w->to, SPAN("\r\n"));
    if (base64)
        mime_add_base64(w->to, h->body);
    else
        mime_add_qp(w->to, h->body);
    return w->to->err;
}

/* -- parts in parts -- */

struct delimiter {
    size_t start; /* of the line end before it */
    size_t end;   /* after its own line end */
    bool last;
};

/* The next line of `body` from `at` (the start of a line) that is a delimiter of this boundary. */
static bool find_delimiter(struct span body, size_t at, struct span boundary, struct delimiter *d) {
    while (at < body.len) {
        struct span rest = span_from(body, at);
        ptrdiff_t lf = span_find(rest, '\n');
        size_t len = lf < 0 ? rest.len : (size_t)lf + 1;
        struct span line = span_first(rest, len);
        if (line.len >= 2 + boundary.len && line.at[0] == '-' && line.at[1] == '-' &&
            memcmp(line.at + 2, boundary.at, boundary.len) == 0) {
            struct span tail = span_from(line, 2 + boundary.len);
            d->last = tail.len >= 2 && tail.at[0] == '-' && tail.at[1] == '-';
            if (d->last)
                tail = span_from(tail, 2);
            size_t i = 0;
            while (i < tail.len && strchr(" \t\r\n", tail.at[i]) && tail.at[i])
                i++;
            if (i == tail.len) {
                d->start = at >= 2 && body.at[at - 1] == '\n' && body.at[at - 2] == '\r' ? at - 2 : at;
                d->end = at + len;
                return true;
            }
        }
        at += len;
    }
    return false;
}

static int walk_entity(struct walk *w, struct span entity, bool whole, bool digest, int depth);

static int walk_multipart(struct walk *w, const struct mime_header *h, int depth) {
    struct span boundary = span_of(h->type.boundary), body = h->body;
    struct delimiter at, next;
    if (!is_identity(h->encoding))
        return fail(w, ERR_INVALID, "a multipart is encoded as a whole");
    if (!boundary.len || !find_delimiter(body, 0, boundary, &at) || at.last)
        return fail(w, ERR_INVALID, "a multipart lacks its boundary");
    if (mime_has_8bit(span_first(body, at.start)))
        return fail(w, ERR_INVALID, "8-bit octets before the first part");
    put_header(w, h, SPAN_EMPTY, h->encoding_field.len ? "7bit" : NULL);
    buf_add(w->to, SPAN("\r\n"));
    buf_add(w->to, span_first(body, at.end));
    bool digest = is_type(h, "multipart", "digest");
    while (!at.last) {
        if (!find_delimiter(body, at.end, boundary, &next))
            return fail(w, ERR_INVALID, "a multipart lacks its last boundary");
        size_t stop = next.start > at.end ? next.start : at.end;
        int err = walk_entity(w, span_first(span_from(body, at.end), stop - at.end), false, digest, depth + 1);
        if (err != ERR_OK)
            return err;
        buf_add(w->to, span_first(span_from(body, stop), next.end - stop));
        at = next;
    }
    if (mime_has_8bit(span_from(body, at.end)))
        return fail(w, ERR_INVALID, "8-bit octets behind the last part");
    return buf_add(w->to, span_from(body, at.end));
}

static int walk_message(struct walk *w, const struct mime_header *h, int depth) {
    if (!is_identity(h->encoding))
        return fail(w, ERR_INVALID, "a message part is encoded as a whole");
    put_header(w, h, SPAN_EMPTY, h->encoding_field.len ? "7bit" : NULL);
    buf_add(w->to, SPAN("\r\n"));
    return walk_entity(w, h->body, true, false, depth + 1);
}

static int walk_entity(struct walk *w, struct span entity, bool whole, bool digest, int depth) {
    struct mime_header h;
    if (depth > MIME_DEPTH_MAX)
        return fail(w, ERR_INVALID, "parts are nested too deep");
    if (!mime_has_8bit(entity))
        return buf_add(w->to, entity);
    int err = mime_read_header(&h, entity, &w->why);
    if (err != ERR_OK)
        return err;
    if (mime_has_8bit(h.fields))
        return fail(w, ERR_INVALID, "a header holds 8-bit octets");
    bool mime = !whole || h.version; /* without MIME-Version a message's fields mean nothing */
    if (mime && is_sealed(&h))
        return fail(w, ERR_UNSUPPORTED, "a signed or encrypted part holds 8-bit octets");
    if (mime && is_type(&h, "multipart", NULL))
        return walk_multipart(w, &h, depth);
    if (mime && (is_type(&h, "message", "rfc822") || (digest && !h.type.given)))
        return walk_message(w, &h, depth);
    if (mime && is_type(&h, "message", NULL))
        return fail(w, ERR_UNSUPPORTED, "a message part of a kind that cannot be converted");
    return walk_leaf(w, &h, whole);
}

int mime_to_7bit(struct span message, struct buf *to, const char **why) {
    struct walk w = {.to = to, .why = ""};
    int err = message.len > MIME_MESSAGE_MAX ? fail(&w, ERR_RANGE, "too long to be converted")
                                             : walk_entity(&w, message, true, false, 0);
    if (err == ERR_OK)
        err = to->err;
    *why = err == ERR_OK || w.why[0] ? w.why : err_text(err);
    return err;
}
