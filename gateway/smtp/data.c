/*
 * data: the scanner of message text. It walks line by line with memchr and yields runs of whole lines
 * as one span; a run is cut only where an octet is left out (a stuffing dot) or put in (a CRLF for a
 * bare newline, when those are normalised).
 *
 * Bare newlines are the root of SMTP smuggling: a next hop that takes LF.LF or CR.CR for the end of data
 * sees two messages where we saw one. So by default any CR without LF or LF without CR is a fault, and
 * the message is refused at its true end. When they are normalised, none is passed on, and a dot alone
 * on a line that begins or ends with one is text, never the end.
 *
 * After a fault the scanner goes on, because the true end must still be found.
 */
#include "gateway/smtp/data.h"

static const struct span crlf = {"\r\n", 2};
static const struct span hop = {"received:", 9};
/* RFC 8689 section 5: the sender would rather have it in the clear than not at all. */
static const struct span no_tls = {"TLS-Required: no\r", 17};

void data_init(struct data *d, enum data_mode mode, bool normalize) {
    *d = (struct data){.mode = mode, .normalize = normalize, .in_header = true, .true_start = true};
}

/* Any octet over 127. Eight at a time; four words together keep the loop free of dependencies. */
static bool has_high(const char *at, size_t len) {
    const uint64_t high = 0x8080808080808080u;
    uint64_t w[4];
    while (len >= sizeof w) {
        memcpy(w, at, sizeof w);
        if ((w[0] | w[1] | w[2] | w[3]) & high)
            return true;
        at += sizeof w;
        len -= sizeof w;
    }
    unsigned char any = 0;
    for (size_t i = 0; i < len; i++)
        any |= (unsigned char)at[i];
    return any & 0x80;
}

static struct span yield(struct data *d, const char *at, size_t len) {
    if (!d->eight_bit)
        d->eight_bit = has_high(at, len) || memchr(at, '\0', len);
    d->size += len;
    return span_make(at, len);
}

static void count(struct data *d, size_t len) {
    if (len > DATA_LINE_MAX - (size_t)d->line_len) {
        d->faults |= DATA_FAULT_LINE;
        d->line_len = DATA_LINE_MAX; /* saturates: what follows faults again, harmlessly */
    } else {
        d->line_len += (uint32_t)len;
    }
}

static void end_line(struct data *d, bool real) {
    d->line_len = 0;
    d->true_start = real;
    d->unstuffed = d->judged = false;
}

enum start { START_TEXT, START_DOT, START_END, START_WAIT };

/* What the first octets of a line are. */
static enum start look_at_dot(const struct data *d, struct span line) {
    if (d->mode != DATA_DOTS || d->unstuffed || line.at[0] != '.')
        return START_TEXT;
    if (line.len < 2)
        return START_WAIT;
    if (line.at[1] != '\r' && line.at[1] != '\n')
        return START_DOT;
    if (line.at[1] == '\n')
        return START_TEXT; /* .LF: a bare newline, not the end */
    if (line.len < 3)
        return START_WAIT;
    return line.at[2] == '\n' && d->true_start ? START_END : START_TEXT;
}

enum field { FIELD_NO, FIELD_WAIT, FIELD_YES };

static enum field match(struct span line, struct span field) {
    struct span seen = span_first(line, field.len);
    if (!span_starts_nocase(field, seen))
        return FIELD_NO;
    return seen.len < field.len ? FIELD_WAIT : FIELD_YES;
}

/* Counts hops and finds the end of the header. False: more octets are needed to tell. */
static bool look_at_header(struct data *d, struct span line, bool last) {
    if (!d->in_header || d->judged)
        return true;
    if (line.at[0] == '\r' || line.at[0] == '\n') {
        d->in_header = false;
    } else {
        enum field hops = match(line, hop), plain = match(line, no_tls);
        if ((hops == FIELD_WAIT || plain == FIELD_WAIT) && !last)
            return false;
        d->received += hops == FIELD_YES;
        d->tls_required_no |= plain == FIELD_YES;
    }
    d->judged = true;
    return true;
}

/* The first newline octet of a line that is not part of a CRLF, or the line's end. */
struct cut {
    size_t len;     /* octets before the newline octets, or all that are usable now */
    size_t newline; /* newline octets: 2 CRLF, 1 bare, 0 none yet */
};

/* to_lf: where the next LF is, or the length. */
static struct cut find_newline(struct span s, size_t to_lf, bool last) {
    const char *cr = to_lf ? memchr(s.at, '\r', to_lf) : NULL;
    size_t to_cr = cr ? (size_t)(cr - s.at) : to_lf;
    if (!cr)
        return (struct cut){to_lf, to_lf < s.len ? 1 : 0};
    if (to_cr + 1 == to_lf && to_lf < s.len)
        return (struct cut){to_cr, 2};
    if (to_cr + 1 == s.len && !last)
        return (struct cut){to_cr, 0}; /* the CR waits for what follows it */
    return (struct cut){to_cr, 1};
}

/* Index of the next LF at or behind `at`, or the length. `known`: what an earlier look found. Each octet is looked at
 * once, so that a flood of bare CRs costs no more than text. */
static size_t next_lf(struct span in, size_t at, size_t known) {
    if (at <= known)
        return known;
    const char *lf = memchr(in.at + at, '\n', in.len - at);
    return lf ? (size_t)(lf - in.at) : in.len;
}

static size_t first_lf(const struct data *d, struct span in) {
    size_t clear = d->clear_of_lf < in.len ? d->clear_of_lf : in.len;
    const char *lf = in.len > clear ? memchr(in.at + clear, '\n', in.len - clear) : NULL;
    return lf ? (size_t)(lf - in.at) : in.len;
}

/* The octets of a chunk end in CR: the next chunk decides. */
static bool hold_cr(struct data *d, struct span rest, struct cut cut, bool last) {
    if (!last || d->mode != DATA_OCTETS || cut.newline != 1 || cut.len + 1 != rest.len || rest.at[cut.len] != '\r')
        return false;
    d->held_cr = true;
    return true;
}

/* With a held CR, the first octet of the next chunk tells what it was. */
static enum data_event release_cr(struct data *d, struct span in, size_t *used, struct span *body) {
    bool real = in.at[0] == '\n';
    d->held_cr = false;
    if (!real && !d->normalize)
        d->faults |= DATA_FAULT_BARE;
    count(d, 2);
    end_line(d, real);
    *used = real ? 1 : 0;
    *body = yield(d, crlf.at, crlf.len);
    return DATA_BODY;
}

/* Where the walk is: the run [from, at) is text that was not yielded yet. */
struct walk {
    struct span in;
    size_t from, at, lf;
    bool last;
};

static enum data_event stop(struct data *d, struct walk *w, size_t skip, enum data_event event, size_t *used,
                            struct span *body) {
    size_t len = w->at - w->from;
    *used = w->at + skip;
    d->clear_of_lf = w->lf > *used ? w->lf - *used : 0;
    if (len == 0)
        return event;
    *body = yield(d, w->in.at + w->from, len);
    return DATA_BODY;
}

/* The first octets of a line: a dot to remove, the end, a header to count. */
enum begin { BEGIN_TEXT, BEGIN_AGAIN, BEGIN_STOP, BEGIN_END };

static enum begin begin_line(struct data *d, struct walk *w) {
    struct span rest = span_from(w->in, w->at);
    enum start start = look_at_dot(d, rest);
    if (start == START_WAIT)
        return BEGIN_STOP;
    if (start != START_TEXT && w->at > w->from)
        return BEGIN_STOP; /* first yield what is before the dot */
    if (start == START_END)
        return BEGIN_END;
    if (start == START_DOT) {
        d->unstuffed = true;
        w->from = ++w->at;
        return BEGIN_AGAIN;
    }
    return look_at_header(d, rest, w->last) ? BEGIN_TEXT : BEGIN_STOP;
}

/* From line to line while nothing has to be left out or put in. */
static enum data_event walk_lines(struct data *d, struct walk *w, size_t *used, struct span *body) {
    while (w->at < w->in.len) {
        if (d->line_len == 0) {
            enum begin begin = begin_line(d, w);
            if (begin == BEGIN_AGAIN)
                continue;
            if (begin == BEGIN_STOP)
                break;
            if (begin == BEGIN_END)
                return stop(d, w, 3, DATA_END, used, body);
        }
        struct span rest = span_from(w->in, w->at);
        w->lf = next_lf(w->in, w->at, w->lf);
        struct cut cut = find_newline(rest, w->lf - w->at, w->last);
        w->at += cut.len;
        count(d, cut.len + (cut.newline == 2 ? 2 : 0));
        if (cut.newline == 2) {
            w->at += 2;
            end_line(d, true);
            continue;
        }
        if (cut.newline == 0)
            break;
        if (hold_cr(d, rest, cut, w->last))
            return stop(d, w, 1, DATA_MORE, used, body);
        if (d->normalize) {
            d->owe_crlf = true;
            count(d, 2);
            end_line(d, false);
            return stop(d, w, 1, DATA_AGAIN, used, body);
        }
        d->faults |= DATA_FAULT_BARE;
        w->at++;
        end_line(d, false);
    }
    return stop(d, w, 0, DATA_MORE, used, body);
}

enum data_event data_next(struct data *d, struct span in, bool last, size_t *used, struct span *body) {
    *used = 0;
    if (d->owe_crlf) {
        d->owe_crlf = false;
        *body = yield(d, crlf.at, crlf.len);
        return DATA_BODY;
    }
    if (in.len == 0)
        return DATA_MORE;
    if (d->held_cr)
        return release_cr(d, in, used, body);
    struct walk w = {.in = in, .lf = first_lf(d, in), .last = last};
    return walk_lines(d, &w, used, body);
}

struct span data_finish(struct data *d) {
    if (d->held_cr && !d->normalize)
        d->faults |= DATA_FAULT_BARE;
    bool lacks = d->held_cr || d->line_len > 0;
    d->held_cr = false;
    if (!lacks)
        return SPAN_EMPTY;
    count(d, 2);
    end_line(d, true);
    return yield(d, crlf.at, crlf.len);
}
