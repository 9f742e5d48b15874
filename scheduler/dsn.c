/*
 * dsn: the frame of a report: its header, its three parts and what lies between them.
 *
 * Parts are made first and the boundary after them, so that it can be one that none of them holds.
 * A report stays 7-bit whenever it can: then any next hop takes it. It needs SMTPUTF8 only when the
 * return path is not ASCII, and 8BITMIME only when an original with 8-bit content is returned whole.
 * Whoever sent a message with SMTPUTF8 from an ASCII address gets the UTF-8 forms, encoded so that they pass
 * anywhere; other senders get addresses as RFC 6533 writes them in ASCII.
 */
#include "scheduler/dsn.h"

#include "base/base32.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "scheduler/dsn_part.h"
#include "scheduler/dsn_words.h"

#define SENDER_MAX 320u
#define PART_MAX (64u * 1024u * 1024u)

struct part {
    const char *type;     /* Content-Type and what follows it */
    const char *encoding; /* Content-Transfer-Encoding */
    const char *language; /* NULL: none */
    struct buf body;
};
struct report {
    const struct dsn *d;
    bool utf8;   /* SMTPUTF8 is needed: 8-bit as it is */
    bool global; /* the sender knows UTF-8 forms, and there is something to say in them */
    struct part text, status, original;
};

static bool is_valid(const struct dsn *d) {
    if (!d->sender.len || d->sender.len > SENDER_MAX || !d->count || !d->hostname.len)
        return false;
    for (size_t i = 0; i < d->sender.len; i++) {
        unsigned char c = (unsigned char)d->sender.at[i];
        if (c < 32 || c == 127 || c == '<' || c == '>')
            return false;
    }
    return utf8_is_valid(d->sender);
}

/* -- parts -- */

static int make_text(struct report *r) {
    struct buf plain;
    buf_init(&plain, PART_MAX);
    dsn_add_text(&plain, r->d);
    bool ascii = utf8_is_ascii(buf_span(&plain));
    r->text.language = dsn_words(r->d->template.language)->tag;
    r->text.type = ascii ? "text/plain; charset=us-ascii" : "text/plain; charset=utf-8";
    r->text.encoding = ascii ? "7bit" : r->utf8 ? "8bit" : "quoted-printable";
    if (ascii || r->utf8)
        buf_add(&r->text.body, buf_span(&plain));
    else
        dsn_add_quoted(&r->text.body, buf_span(&plain));
    int err = plain.err != ERR_OK ? plain.err : r->text.body.err;
    buf_deinit(&plain);
    return err;
}

static int make_status(struct report *r) {
    struct buf plain;
    buf_init(&plain, PART_MAX);
    dsn_add_status(&plain, r->d, r->global);
    bool ascii = utf8_is_ascii(buf_span(&plain));
    r->status.type = r->global ? "message/global-delivery-status" : "message/delivery-status";
    r->status.encoding = ascii ? "7bit" : r->utf8 ? "8bit" : "quoted-printable"; /* as RFC 6532 section 3.5 allows */
    if (ascii || r->utf8)
        buf_add(&r->status.body, buf_span(&plain));
    else
        dsn_add_quoted(&r->status.body, buf_span(&plain));
    int err = plain.err != ERR_OK ? plain.err : r->status.body.err;
    buf_deinit(&plain);
    return err;
}

/* Where the header ends: after its last line, before the empty one. */
static size_t header_len(struct span content) {
    if (content.len >= 2 && content.at[0] == '\r' && content.at[1] == '\n')
        return 0;
    for (size_t i = 0; i + 3 < content.len; i++)
        if (memcmp(content.at + i, "\r\n\r\n", 4) == 0)
            return i + 2;
    return content.len;
}

/* The header, cut at a line's end when it is too long. */
static struct span header_of(struct span content) {
    struct span header = span_first(content, header_len(content));
    if (header.len <= DSN_FULL_MAX)
        return header;
    header.len = DSN_FULL_MAX;
    while (header.len && header.at[header.len - 1] != '\n')
        header.len--;
    return header;
}

static void make_headers(struct part *p, struct span header, bool utf8) {
    if (utf8_is_ascii(header)) {
        p->type = "text/rfc822-headers";
        p->encoding = "7bit";
        dsn_add_lines(&p->body, header);
    } else if (!utf8_is_valid(header)) { /* no mail by any standard; still worth showing */
        p->type = "text/rfc822-headers; charset=unknown-8bit";
        p->encoding = "quoted-printable";
        dsn_add_quoted(&p->body, header);
    } else if (utf8) {
        p->type = "message/global-headers";
        p->encoding = "8bit";
        dsn_add_lines(&p->body, header);
    } else {
        p->type = "message/global-headers";
        p->encoding = "base64";
        dsn_add_base64(&p->body, header);
    }
}

bool dsn_is_whole(const struct dsn *d) {
    return d->kind == DSN_FAILED && d->ret == DSN_RET_FULL && d->size <= DSN_FULL_MAX && d->content.len == d->size &&
           utf8_is_valid(header_of(d->content));
}

static int make_original(struct report *r) {
    const struct dsn *d = r->d;
    struct part *p = &r->original;
    struct span header = header_of(d->content);
    if (!dsn_is_whole(d)) {
        make_headers(p, header, r->utf8);
    } else if (utf8_is_ascii(header)) {
        p->type = "message/rfc822";
        p->encoding = utf8_is_ascii(d->content) ? "7bit" : "8bit";
        dsn_add_lines(&p->body, d->content);
    } else if (r->utf8) {
        p->type = "message/global";
        p->encoding = "8bit";
        dsn_add_lines(&p->body, d->content);
    } else {
        p->type = "message/global";
        p->encoding = "base64";
        dsn_add_base64(&p->body, d->content);
    }
    return p->body.err;
}

/* -- the whole -- */

static bool holds(const struct buf *b, const char *text, size_t len) {
    struct span s = buf_span(b);
    return s.len && memmem(s.at, s.len, text, len) != NULL;
}

/* A boundary that no part holds; to takes 32 octets. */
static void choose_boundary(const struct report *r, char *to, size_t size) {
    for (uint64_t n = r->d->number;; n = hash_bytes(&n, sizeof n, 1)) {
        char id[BASE32_ID_LEN + 1];
        uint64_t mixed = hash_bytes(&n, sizeof n, r->d->now_ms);
        base32_encode(mixed, id);
        size_t len = span_copy(SPAN("=_report_"), to, size);
        len += span_copy(span_make(id, BASE32_ID_LEN), to + len, size - len);
        if (!holds(&r->text.body, to, len) && !holds(&r->status.body, to, len) && !holds(&r->original.body, to, len))
            return;
    }
}

static void add_header(struct buf *to, const struct report *r, const char *boundary) {
    const struct dsn *d = r->d;
    char date[32], id[BASE32_ID_LEN + 1];
    clock_rfc5322(d->now_ms, date, sizeof date);
    base32_encode(d->number, id);
    buf_printf(to, "Date: %s\r\n", date);
    buf_printf(to, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\r\n", SPAN_FMT(d->hostname));
    buf_add_str(to, "To: <");
    buf_add(to, d->sender);
    buf_add_str(to, ">\r\n");
    dsn_add_subject(to, d, r->utf8);
    buf_printf(to, "Message-ID: <%s.report@%.*s>\r\n", id, SPAN_FMT(d->hostname));
    buf_add_str(to, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    buf_printf(to, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"\r\n", boundary);
    bool eight = strcmp(r->text.encoding, "8bit") == 0 || strcmp(r->status.encoding, "8bit") == 0 ||
                 strcmp(r->original.encoding, "8bit") == 0;
    buf_printf(to, "Content-Transfer-Encoding: %s\r\n\r\n", eight ? "8bit" : "7bit");
    buf_add_str(to, "This is a report of a mail system, in MIME format.\r\n");
}

static void add_part(struct buf *to, const struct part *p, const char *boundary, const char *description) {
    buf_printf(to, "\r\n--%s\r\nContent-Type: %s\r\nContent-Description: %s\r\nContent-Transfer-Encoding: %s\r\n",
               boundary, p->type, description, p->encoding);
    if (p->language)
        buf_printf(to, "Content-Language: %s\r\n", p->language);
    buf_add_str(to, "\r\n");
    buf_add(to, buf_span(&p->body));
}

static bool names_utf8(const struct dsn *d) {
    for (uint32_t i = 0; i < d->count; i++) {
        const struct dsn_recipient *r = &d->recipients[i];
        if (!utf8_is_ascii(r->address) || !utf8_is_ascii(r->orcpt) || !utf8_is_ascii(r->original))
            return true;
        if (span_starts_nocase(r->orcpt, SPAN("utf-8;")) && memmem(r->orcpt.at, r->orcpt.len, "\\x{", 3))
            return true;
    }
    return false;
}

int dsn_compose(const struct dsn *d, struct buf *to, struct dsn_form *form) {
    if (!is_valid(d))
        return ERR_INVALID;
    struct report r = {.d = d, .utf8 = !utf8_is_ascii(d->sender)};
    r.global = r.utf8 || (d->smtputf8 && names_utf8(d));
    struct part *parts[] = {&r.text, &r.status, &r.original};
    for (int i = 0; i < 3; i++)
        buf_init(&parts[i]->body, PART_MAX);
    int err = make_text(&r);
    if (err == ERR_OK)
        err = make_status(&r);
    if (err == ERR_OK)
        err = make_original(&r);
    if (err != ERR_OK)
        goto out;
    char boundary[32];
    choose_boundary(&r, boundary, sizeof boundary);
    size_t before = buf_len(to);
    add_header(to, &r, boundary);
    add_part(to, &r.text, boundary, "What happened");
    add_part(to, &r.status, boundary, "Delivery report");
    bool whole = span_starts_nocase(span_of(r.original.type), SPAN("message/rfc822")) ||
                 span_eq(span_of(r.original.type), SPAN("message/global"));
    add_part(to, &r.original, boundary, whole ? "Your message" : "Header of your message");
    buf_printf(to, "\r\n--%s--\r\n", boundary);
    err = to->err;
    form->smtputf8 = r.utf8;
    form->eight_bit = !utf8_is_ascii(span_from(buf_span(to), before));
out:
    for (int i = 0; i < 3; i++)
        buf_deinit(&parts[i]->body);
    return err;
}
