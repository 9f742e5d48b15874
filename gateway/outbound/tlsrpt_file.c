/*
 * tlsrpt_file: the counts as a file, through keep. Lines of fields apart by a blank, and texts by their length:
 *
 *   D start next give_up retry name [told ...]     a domain; next 0: of a day under way
 *   P policy good bad lines                        its policy; then each line: length, blank, text
 *   F result count, then four texts                its failures
 *
 * Written every few minutes when something changed; what was counted since is lost with a crash, and so is the news
 * that a report went out (it goes again, with the same id).
 */
#include <stdlib.h>

#include "base/log.h"

#include "gateway/outbound/tlsrpt_in.h"

#define FILE_MAX (2 * TLSRPT_BYTES)
enum { LINES_MAX = 1000, TEXT_LEN_MAX = 65536 };

/* -- writing -- */

static void add_number(struct buf *to, uint64_t n) {
    buf_add_byte(to, ' ');
    buf_add_u64(to, n);
}

static void add_text(struct buf *to, const char *text) {
    size_t len = strlen(text);
    buf_add_u64(to, len);
    buf_add_byte(to, ' ');
    buf_append(to, text, len);
    buf_add_byte(to, '\n');
}

static void add_row(struct buf *to, const struct tlsrpt_row *row) {
    buf_add_byte(to, 'F');
    add_number(to, row->result);
    add_number(to, row->count);
    buf_add_byte(to, '\n');
    add_text(to, row->mx);
    add_text(to, row->sending_ip);
    add_text(to, row->receiving_ip);
    add_text(to, row->reason);
}

static void add_domain(struct buf *to, const struct tlsrpt_domain *d) {
    const uint64_t numbers[] = {d->start_ms, d->next_ms, d->give_up_ms, d->retry_ms};
    buf_add_byte(to, 'D');
    for (size_t i = 0; i < 4; i++)
        add_number(to, numbers[i]);
    buf_printf(to, " %s", d->name);
    for (unsigned i = 0; i < d->told_count; i++)
        add_number(to, d->told[i]);
    buf_add_byte(to, '\n');
    for (const struct tlsrpt_rules *r = d->rules; r; r = r->next) {
        buf_add_byte(to, 'P');
        add_number(to, r->policy);
        add_number(to, r->good);
        add_number(to, r->bad);
        add_number(to, r->line_count);
        buf_add_byte(to, '\n');
        for (size_t i = 0; i < r->line_count; i++)
            add_text(to, r->lines[i]);
        for (const struct tlsrpt_row *row = r->rows; row; row = row->next)
            add_row(to, row);
    }
}

static void write_all(struct buf *to, struct tlsrpt *t) {
    buf_init(to, FILE_MAX);
    for (size_t i = 0; i < t->out.count; i++)
        add_domain(to, CONTAINER_OF(t->out.nodes[i], struct tlsrpt_domain, in_out));
    LIST_FOREACH(n, next, &t->busy)
    add_domain(to, LIST_ENTRY(n, struct tlsrpt_domain, link));
    LIST_FOREACH(n, next, &t->today)
    add_domain(to, LIST_ENTRY(n, struct tlsrpt_domain, link));
    t->changed = false;
}

void tlsrpt_file_save(struct tlsrpt *t, bool at_end) {
    struct buf content;
    if (!t->keep || (!at_end && !keep_is_ready(t->keep)))
        return;
    write_all(&content, t);
    int err = content.err;
    if (!err && at_end)
        err = keep_save_now(t->keep, buf_span(&content));
    else if (!err)
        keep_save(t->keep, &content);
    if (err)
        LOG_WARN("tlsrpt_file_failed", LOG_ERR("why", err));
    buf_deinit(&content);
}

/* -- reading -- */

struct reader {
    struct tlsrpt *t;
    struct span rest;
    struct tlsrpt_domain *d; /* NULL: the one that is read is not kept */
    struct tlsrpt_rules *r;
    char *texts; /* of one policy or one failure: TEXT_LEN_MAX, with a NUL behind each */
    size_t used;
    const char *lines[LINES_MAX];
};

static bool next_number(struct span *line, uint64_t *n) {
    return span_u64(span_cut(*line, ' ', line), n);
}

static const char *next_text(struct reader *in) {
    uint64_t len;
    struct span length = span_cut(in->rest, ' ', &in->rest);
    if (!span_u64(length, &len) || len >= in->rest.len || in->rest.at[len] != '\n' ||
        in->used + len + 1 > TEXT_LEN_MAX + LINES_MAX)
        return NULL;
    char *to = in->texts + in->used;
    memcpy(to, in->rest.at, (size_t)len);
    to[len] = '\0';
    in->used += (size_t)len + 1;
    in->rest = span_from(in->rest, (size_t)len + 1);
    return to;
}

static bool read_domain(struct reader *in, struct span line) {
    struct tlsrpt *t = in->t;
    uint64_t start, next, give_up, retry;
    if (!next_number(&line, &start) || !next_number(&line, &next) || !next_number(&line, &give_up) ||
        !next_number(&line, &retry) || start % TLSRPT_DAY_MS)
        return false;
    struct span name = span_cut(line, ' ', &line);
    in->d = NULL;
    in->r = NULL;
    /* A day to come is of a clock that was wrong; one long past interests nobody. */
    if (start > t->day_ms || t->day_ms - start > 3 * TLSRPT_DAY_MS)
        return true;
    in->d = tlsrpt_domain_add(t, name, start, start == t->day_ms);
    if (!in->d || start == t->day_ms)
        return true;
    in->d->next_ms = next;
    in->d->give_up_ms = give_up < start + 4 * TLSRPT_DAY_MS ? give_up : start + 4 * TLSRPT_DAY_MS;
    in->d->retry_ms = retry;
    while (line.len && in->d->told_count < TLSRPT_RUA_MAX && next_number(&line, &in->d->told[in->d->told_count]))
        in->d->told_count++;
    return true;
}

static bool read_rules(struct reader *in, struct span line) {
    uint64_t policy, good, bad, count;
    if (!next_number(&line, &policy) || !next_number(&line, &good) || !next_number(&line, &bad) ||
        !span_u64(line, &count) || policy > TLSRPT_TLSA || count > LINES_MAX)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!(in->lines[i] = next_text(in)))
            return false;
    in->r = in->d ? tlsrpt_rules_of(in->t, in->d, (enum tlsrpt_policy)policy, in->lines, (size_t)count) : NULL;
    if (in->r) {
        in->r->good += good;
        in->r->bad += bad;
    }
    return true;
}

static bool read_row(struct reader *in, struct span line) {
    uint64_t result, count;
    if (!next_number(&line, &result) || !span_u64(line, &count) || result == TLSRPT_SUCCESS || result >= TLSRPT_RESULTS)
        return false;
    struct tlsrpt_event e = {.result = (enum tlsrpt_result)result};
    const char **texts[] = {&e.mx, &e.sending_ip, &e.receiving_ip, &e.reason};
    for (size_t i = 0; i < 4; i++)
        if (!(*texts[i] = next_text(in)))
            return false;
    if (in->r) {
        in->r->bad -= count < in->r->bad ? count : in->r->bad; /* it was in the sum already */
        tlsrpt_add_failures(in->t, in->d, in->r, &e, count);
    }
    return true;
}

/* Of a day that is over: to its turn. */
static void put_away(struct reader *in) {
    if (in->d && in->d->start_ms != in->t->day_ms)
        tlsrpt_domain_queue(in->t, in->d);
    in->d = NULL;
}

static bool read_one(struct reader *in) {
    struct span line = span_cut(in->rest, '\n', &in->rest);
    struct span kind = span_cut(line, ' ', &line);
    in->used = 0;
    if (span_eq(kind, SPAN("D"))) {
        put_away(in);
        return read_domain(in, line);
    }
    return span_eq(kind, SPAN("P")) ? read_rules(in, line) : span_eq(kind, SPAN("F")) && read_row(in, line);
}

void tlsrpt_file_read(struct tlsrpt *t) {
    struct buf content;
    struct reader *in = calloc(1, sizeof *in);
    buf_init(&content, FILE_MAX);
    int err = in && (in->texts = malloc(TEXT_LEN_MAX + LINES_MAX)) ? keep_read(t->keep, &content) : ERR_NOMEM;
    if (in) {
        in->t = t;
        in->rest = buf_span(&content);
        while (!err && in->rest.len)
            err = read_one(in) ? ERR_OK : ERR_CORRUPT;
        put_away(in);
        free(in->texts);
    }
    free(in);
    if (err && err != ERR_NOT_FOUND)
        LOG_WARN("tlsrpt_file_not_read", LOG_ERR("why", err));
    LOG_INFO("tlsrpt_file", LOG_U64("domains", t->domains.count), LOG_U64("reports", t->out.count));
    buf_deinit(&content);
}
