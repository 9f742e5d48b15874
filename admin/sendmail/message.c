/*
 * message: reads the message of a caller as it is written on this machine (lines end in LF, or CRLF), takes recipients
 * out of its header when asked, drops Bcc, and adds what a message must have and this one lacks: From, Date,
 * Message-ID. A Received field tells which user it came from.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/sendmail/sendmail.h"
#include "base/base32.h"
#include "base/clock.h"
#include "base/rand.h"

#define READ_SIZE 65536u
#define LINE_MAX_OCTETS (1024u * 1024u)

struct source {
    int fd;
    char mem[READ_SIZE];
    size_t at, end;
    int err;
};

static int next_octet(struct source *s) {
    if (s->at == s->end) {
        ssize_t n;
        do
            n = read(s->fd, s->mem, sizeof s->mem);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            s->err = ERR_IO;
        if (n <= 0)
            return EOF;
        s->at = 0;
        s->end = (size_t)n;
    }
    return (unsigned char)s->mem[s->at++];
}

/* One line without its end. False: there is none, or an error (s->err). A NUL is refused: no mail may hold one. */
static bool next_line(struct source *s, struct buf *line) {
    int c;
    buf_clear(line);
    while ((c = next_octet(s)) != EOF && c != '\n') {
        if (c == '\0' || buf_add_byte(line, (char)c) != ERR_OK) {
            s->err = c == '\0' ? ERR_INVALID : ERR_RANGE;
            return false;
        }
    }
    struct span text = buf_span(line);
    if (text.len && text.at[text.len - 1] == '\r' && c == '\n')
        buf_truncate(line, text.len - 1);
    return s->err == ERR_OK && (c != EOF || text.len);
}

/* -- the header -- */
struct fields {
    bool from, date, id, resent;
};

static struct span field_name(struct span field) {
    ptrdiff_t colon = span_find(field, ':');
    return colon > 0 ? span_trim(span_first(field, (size_t)colon)) : SPAN_EMPTY;
}

static bool is_named(struct span field, const char *name) {
    return span_eq_nocase(field_name(field), span_of(name));
}

/* A line that begins a field: a name of printable octets, and a colon. */
static bool begins_field(struct span line) {
    struct span name = field_name(line);
    if (line.at[0] == ' ' || line.at[0] == '\t') /* it would go on with a field that is added in front */
        return false;
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.at[i] <= 0x20 || (unsigned char)name.at[i] >= 0x7f)
            return false;
    return name.len > 0;
}

/* Calls each for every whole field of the header (lines end in CRLF). */
static int each_field(struct span header, int (*each)(void *arg, struct span field), void *arg) {
    int err = ERR_OK;
    for (size_t at = 0; at < header.len && err == ERR_OK;) {
        size_t end = at;
        do {
            const char *lf = memchr(header.at + end, '\n', header.len - end);
            end = lf ? (size_t)(lf - header.at) + 1 : header.len;
        } while (end < header.len && (header.at[end] == ' ' || header.at[end] == '\t'));
        err = each(arg, span_make(header.at + at, end - at));
        at = end;
    }
    return err;
}

static int note_field(void *arg, struct span field) {
    struct fields *f = arg;
    f->from |= is_named(field, "From");
    f->date |= is_named(field, "Date");
    f->id |= is_named(field, "Message-ID");
    f->resent |= is_named(field, "Resent-To") || is_named(field, "Resent-Cc") || is_named(field, "Resent-Bcc");
    return ERR_OK;
}

struct extraction {
    const struct message_options *o;
    const struct fields *fields;
    struct recipient_list *list;
    struct arena *mem;
    struct span *bad;
    struct buf *kept;
};

static int extract_field(void *arg, struct span field) {
    struct extraction *x = arg;
    const char *prefix = x->fields->resent ? "Resent-" : "";
    static const char *const names[] = {"To", "Cc", "Bcc"};
    for (size_t i = 0; i < 3 && x->o->wants_recipients; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s%s", prefix, names[i]);
        if (!is_named(field, name))
            continue;
        struct span value = span_from(field, (size_t)span_find(field, ':') + 1);
        int err = mailboxes_add(x->list, value, x->o->domain, x->mem, x->bad);
        if (err != ERR_OK)
            return err;
    }
    if (is_named(field, "Bcc") ||
        is_named(field, "Resent-Bcc")) /* nobody is to see them, whoever named the recipients */
        return ERR_OK;
    return buf_add(x->kept, field);
}

/* Display names of letters, digits and blanks need no quotes. */
static void add_name(struct buf *to, const char *name) {
    buf_add_byte(to, '"');
    for (const char *c = name; *c; c++) {
        if (*c == '"' || *c == '\\')
            buf_add_byte(to, '\\');
        if ((unsigned char)*c >= 0x20 && *c != 0x7f)
            buf_add_byte(to, *c);
    }
    buf_add_byte(to, '"');
}

static void add_missing(struct buf *to, const struct message_options *o, const struct fields *f) {
    char date[64], left[BASE32_ID_LEN + 1], right[BASE32_ID_LEN + 1];
    uint64_t chance[2], now_ms = clock_wall_ms();
    clock_rfc5322(now_ms, date, sizeof date);
    rand_secure(chance, sizeof chance);
    base32_encode(chance[0], left);
    base32_encode(chance[1], right);
    buf_printf(to, "Received: by %s (posthouse sendmail, from userid %u); %s\r\n", o->hostname, o->userid, date);
    if (!f->date)
        buf_printf(to, "Date: %s\r\n", date);
    if (!f->id)
        buf_printf(to, "Message-ID: <%s%s@%s>\r\n", left, right, o->hostname);
    if (f->from)
        return;
    buf_add_str(to, "From: ");
    if (o->name && *o->name) {
        add_name(to, o->name);
        buf_printf(to, " <%s>\r\n", o->from);
    } else {
        buf_printf(to, "%s\r\n", o->from);
    }
}

/* Reads up to the empty line, or to what is no field any more: *body then holds that line. */
static int read_header(struct source *s, const struct message_options *o, struct buf *raw, struct buf *line,
                       bool *body) {
    *body = false;
    while (next_line(s, line)) {
        struct span text = buf_span(line);
        if (!text.len || (o->dot_ends && span_eq(text, SPAN(".")))) {
            *body = text.len > 0;
            return ERR_OK;
        }
        if (span_starts_nocase(text, SPAN("From ")) && !buf_len(raw))
            continue; /* the first line of a mailbox file */
        bool continues = buf_len(raw) && (text.at[0] == ' ' || text.at[0] == '\t');
        if (!continues && !begins_field(text)) {
            *body = true;
            return ERR_OK;
        }
        buf_add(raw, text);
        if (buf_add_str(raw, "\r\n") != ERR_OK)
            return ERR_RANGE;
    }
    return s->err;
}

/* -- the body -- */
static int write_all(int fd, struct span s) {
    while (s.len) {
        ssize_t n = write(fd, s.at, s.len);
        if (n < 0 && errno != EINTR)
            return ERR_IO;
        if (n > 0)
            s = span_from(s, (size_t)n);
    }
    return ERR_OK;
}

static bool has_8bit(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.at[i] > 127)
            return true;
    return false;
}

static int flush_out(struct message *m, struct buf *out, size_t least) {
    if (buf_len(out) < least)
        return out->err;
    int err = out->err != ERR_OK ? out->err : write_all(m->fd, buf_span(out));
    buf_clear(out);
    return err;
}

static int read_body(struct message *m, struct source *s, const struct message_options *o, struct buf *line,
                     bool first) {
    struct buf out;
    int err = ERR_OK;
    buf_init(&out, READ_SIZE + LINE_MAX_OCTETS + 2);
    while (err == ERR_OK && (first || next_line(s, line))) {
        struct span text = buf_span(line);
        first = false;
        if (o->dot_ends && span_eq(text, SPAN(".")))
            break;
        m->eight_bit |= has_8bit(text);
        m->size += text.len + 2;
        if (m->size > SENDMAIL_BODY_MAX) {
            err = ERR_RANGE;
            break;
        }
        buf_add(&out, text);
        buf_add_str(&out, "\r\n");
        err = flush_out(m, &out, READ_SIZE);
    }
    if (err == ERR_OK)
        err = flush_out(m, &out, 1);
    buf_deinit(&out);
    return err != ERR_OK ? err : s->err;
}

/* A file without a name: nothing is left behind, however this ends. */
static int open_unnamed(void) {
    FILE *f = tmpfile();
    if (!f)
        return -1;
    int fd = dup(fileno(f));
    fclose(f);
    return fd;
}

int message_read(struct message *m, int in, const struct message_options *o, struct recipient_list *l,
                 struct arena *mem, struct span *bad) {
    struct source *s = calloc(1, sizeof *s);
    struct buf raw, line;
    struct fields f = {0};
    bool first = false;
    *m = (struct message){.fd = open_unnamed()};
    *bad = SPAN_EMPTY;
    buf_init(&m->header, SENDMAIL_HEADER_MAX + 4096);
    buf_init(&raw, SENDMAIL_HEADER_MAX);
    buf_init(&line, LINE_MAX_OCTETS);
    int err = !s ? ERR_NOMEM : m->fd < 0 ? ERR_IO : ERR_OK;
    if (s)
        s->fd = in;
    if (err == ERR_OK)
        err = read_header(s, o, &raw, &line, &first);
    if (err == ERR_OK)
        err = each_field(buf_span(&raw), note_field, &f);
    if (err == ERR_OK) {
        struct extraction x = {.o = o, .fields = &f, .list = l, .mem = mem, .bad = bad, .kept = &m->header};
        add_missing(&m->header, o, &f);
        err = each_field(buf_span(&raw), extract_field, &x);
    }
    if (err == ERR_OK && o->wants_recipients && !l->count)
        err = ERR_NOT_FOUND;
    buf_add_str(&m->header, "\r\n");
    m->eight_bit = has_8bit(buf_span(&m->header));
    m->size = buf_len(&m->header);
    if (err == ERR_OK)
        err = m->header.err != ERR_OK ? m->header.err : read_body(m, s, o, &line, first);
    buf_deinit(&raw);
    buf_deinit(&line);
    free(s);
    return err;
}

void message_close(struct message *m) {
    buf_deinit(&m->header);
    if (m->fd >= 0)
        close(m->fd);
}
