/*
 * sts_file: the policies as a file, through keep. For each policy in force one line: domain, id, when it was fetched,
 * when it was used last, and the length of its text; then the text itself, which is parsed again like one that was
 * just fetched. Mode none is not kept. Least recently used first, so that reading keeps their order.
 */
#include "base/log.h"

#include "gateway/outbound/sts_in.h"

#define FILE_MAX (2 * STS_BYTES)

static void add_policy(struct buf *to, const struct sts_entry *e) {
    const struct sts_policy *p = e->policy;
    size_t len = 0;
    for (size_t i = 0; i < p->line_count; i++)
        len += span_of(p->lines[i]).len + 1;
    buf_printf(to, "%s %s %llu %llu %zu\n", e->name, p->id, (unsigned long long)p->fetched_ms,
               (unsigned long long)e->used_ms, len);
    for (size_t i = 0; i < p->line_count; i++) {
        buf_add_str(to, p->lines[i]);
        buf_add_byte(to, '\n');
    }
}

static void write_list(struct buf *to, const struct sts *s, const struct list *l) {
    LIST_FOREACH(n, next, l) {
        const struct sts_entry *e = LIST_ENTRY(n, struct sts_entry, link);
        if (e->policy && e->policy->mode != STS_NONE && e->policy->expires_ms > sts_now(s))
            add_policy(to, e);
    }
}

static bool write_all(struct buf *to, struct sts *s) {
    buf_init(to, FILE_MAX);
    write_list(to, s, &s->used);
    write_list(to, s, &s->busy);
    s->changed = false;
    if (to->err)
        LOG_WARN("sts_file_failed", LOG_ERR("why", to->err));
    return to->err == ERR_OK;
}

void sts_file_save(struct sts *s) {
    struct buf content;
    if (!s->keep || !keep_is_ready(s->keep))
        return;
    if (write_all(&content, s))
        keep_save(s->keep, &content);
    buf_deinit(&content);
}

void sts_file_end(struct sts *s) {
    struct buf content;
    int err = write_all(&content, s) ? keep_save_now(s->keep, buf_span(&content)) : content.err;
    if (err)
        LOG_WARN("sts_file_failed", LOG_ERR("why", err));
    buf_deinit(&content);
}

/* -- reading -- */

static bool read_one(struct sts *s, struct span *rest) {
    struct span line = span_cut(*rest, '\n', rest), numbers, more;
    struct span domain = span_cut(line, ' ', &line), id = span_cut(line, ' ', &numbers);
    uint64_t fetched, used, len;
    const char *why;
    struct sts_policy *p;
    bool good = span_u64(span_cut(numbers, ' ', &more), &fetched) && span_u64(span_cut(more, ' ', &numbers), &used) &&
                span_u64(numbers, &len) && len <= rest->len && domain.len >= 1 && domain.len <= DNS_NAME_MAX;
    if (!good)
        return false;
    struct span text = span_first(*rest, (size_t)len);
    *rest = span_from(*rest, (size_t)len);
    if (sts_policy_parse(&p, text, id, fetched, &why) != ERR_OK)
        return false;
    /* A time to come is of a clock that was wrong: such a policy might never end. */
    struct sts_entry *e = p->expires_ms > s->wall_ms && fetched <= s->wall_ms ? sts_entry_add(s, domain) : NULL;
    if (!e) {
        sts_policy_unref(p);
        return true;
    }
    e->used_ms = used < s->wall_ms ? used : s->wall_ms;
    span_copy(id, e->id, sizeof e->id);
    sts_entry_set_policy(e, p);
    return true;
}

void sts_file_read(struct sts *s) {
    struct buf content;
    buf_init(&content, FILE_MAX);
    int err = keep_read(s->keep, &content);
    struct span rest = buf_span(&content);
    while (!err && rest.len)
        err = read_one(s, &rest) ? ERR_OK : ERR_CORRUPT;
    if (err && err != ERR_NOT_FOUND)
        LOG_WARN("sts_file_not_read", LOG_ERR("why", err));
    LOG_INFO("sts_file", LOG_U64("policies", s->entries.count));
    buf_deinit(&content);
}
