/*
 * recipients_lookup: one local part in the sources of its domain.
 *
 * The forms of a local part are tried one after the other, and each of them in all sources: "user+tag" that a later
 * source knows counts more than "user" in an earlier one, and a catch-all counts only when nobody knows the name. A
 * source that cannot tell ends the look-up: what a later one says might be wrong.
 *
 * table_find has an order of its own for one table ('+' is its tag); where the domain is of that kind one look-up does
 * all, and else its answers for other forms than the asked one are put aside. An empty key asks for the catch-all.
 */
#include "base/check.h"

#include "gateway/directory/recipients_memo.h"

enum form { FORM_FULL, FORM_UNTAGGED, FORM_CATCH_ALL, FORMS };

struct search {
    const struct recipients_domain *d;
    const struct address *a;
    struct recipients_memo *memo;
    struct recipients_telling to;
    struct recipients_lookup *out;
    enum form form;
    struct span key; /* of this form */
};

/* -- saying -- */

static void begin(struct recipients_telling to, struct span address) {
    for (unsigned i = 0; i < to.depth; i++)
        buf_add_str(to.steps, "  ");
    buf_add_escaped(to.steps, address);
    buf_add_str(to.steps, ": ");
}

void recipients_tell(struct recipients_telling to, struct span address, const char *what) {
    if (!to.steps)
        return;
    begin(to, address);
    buf_printf(to.steps, "%s\n", what);
}

static void begin_entry(const struct search *s, const struct table_entry *e) {
    static const char *const kinds[] = {"mailbox", "alias", "forward", "forward that keeps a copy"};
    begin(s->to, s->a->text);
    buf_printf(s->to.steps, "%s%s%s", kinds[e->kind], e->catch_all ? " by the catch-all" : "",
               e->tagged ? " without its tag" : "");
}

static void tell_table(const struct search *s, const struct recipients_asked *from, const struct table_entry *e) {
    if (!s->to.steps)
        return;
    begin_entry(s, e);
    if (from->kind == RECIPIENTS_TABLE)
        buf_printf(s->to.steps, " (%s:%zu)\n", from->path, table_line(from->table, e));
    else
        buf_printf(s->to.steps, " (%s)\n", from->path);
}

/* "address: alias (directory staff: WHY, from the cache)" */
static void tell_directory(const struct search *s, const struct recipients_asked *from,
                           const struct directory_answer *a) {
    struct buf *to = s->to.steps;
    if (!to)
        return;
    if (a->status == DIRECTORY_FOUND) {
        begin_entry(s, &s->out->e);
    } else {
        begin(s->to, s->form == FORM_CATCH_ALL ? s->d->name : s->a->text);
        buf_add_str(to, a->status == DIRECTORY_TEMPFAIL ? "cannot be known now"
                        : s->form == FORM_CATCH_ALL     ? "no catch-all"
                        : s->form == FORM_UNTAGGED      ? "unknown without its tag too"
                                                        : "unknown");
    }
    buf_printf(to, " (directory %s", directory_name(from->directory));
    if (a->why.len) {
        buf_add_str(to, ": ");
        buf_add(to, a->why); /* clean already */
    }
    buf_printf(to, "%s)\n", a->stale ? "; answer of before it failed" : a->cached ? "; from the cache" : "");
}

/* -- asking -- */

static void take_entry(struct search *s, const struct table_entry *e) {
    s->out->found = FOUND_ENTRY;
    s->out->e = *e;
    s->out->e.catch_all = s->form == FORM_CATCH_ALL;
    s->out->e.tagged = s->form == FORM_UNTAGGED;
}

/* Whether the file has an answer for the key, of whatever form. */
static bool find_in_file(struct search *s, const struct recipients_asked *from, struct table_entry *e) {
    if (from->kind == RECIPIENTS_TABLE)
        return table_find(from->table, s->key, s->d->name, e);
    int err = cdb_table_find(from->cdb, s->key, s->d->name, e);
    if (err && err != ERR_NOT_FOUND) {
        s->out->found = FOUND_UNSURE;
        recipients_tell(s->to, s->a->text, "cannot be known: the CDB file is damaged");
    }
    return err == ERR_OK;
}

static void ask_file(struct search *s, const struct recipients_asked *from) {
    struct table_entry e;
    if (!find_in_file(s, from, &e) || e.tagged || e.catch_all != (s->form == FORM_CATCH_ALL))
        return; /* nothing, or an answer to another form */
    take_entry(s, &e);
    tell_table(s, from, &s->out->e);
}

static int ask_directory(struct search *s, const struct recipients_asked *from) {
    char lower[ADDRESS_PATH_MAX];
    struct span key = s->key;
    const struct directory_answer *a;
    if (s->form == FORM_CATCH_ALL && !directory_has_catch_all(from->directory))
        return ERR_OK;
    if (!s->d->case_sensitive) {
        CHECK(key.len <= sizeof lower); /* a local part has at most 64 octets */
        for (size_t i = 0; i < key.len; i++)
            lower[i] = (char)(key.at[i] >= 'A' && key.at[i] <= 'Z' ? key.at[i] + 32 : key.at[i]);
        key.at = lower;
    }
    int err = recipients_memo_find(s->memo, from->directory, key, s->d->name, &a);
    if (err == ERR_AGAIN || err == ERR_FULL) {
        s->out->found = err == ERR_AGAIN ? FOUND_LATER : FOUND_TOO_MANY;
        return ERR_OK;
    }
    if (err)
        return err;
    if (a->status == DIRECTORY_FOUND)
        take_entry(s, &(struct table_entry){.kind = a->kind, .targets = a->targets});
    else if (a->status == DIRECTORY_TEMPFAIL)
        s->out->found = FOUND_UNSURE;
    tell_directory(s, from, a);
    return ERR_OK;
}

static int ask_all(struct search *s) {
    int err = ERR_OK;
    for (size_t i = 0; i < s->d->count && !err && s->out->found == FOUND_NOTHING; i++) {
        const struct recipients_asked *from = &s->d->sources[i];
        if (from->kind == RECIPIENTS_DIRECTORY) {
            err = ask_directory(s, from);
        } else if (from->kind != RECIPIENTS_ANY) {
            ask_file(s, from);
        } else if (s->form == FORM_CATCH_ALL) {
            s->out->found = FOUND_ENTRY;
            s->out->e = (struct table_entry){.kind = TABLE_MAILBOX};
            recipients_tell(s->to, s->a->text, "any recipient is taken in this domain of ours");
        }
    }
    return err;
}

static size_t tag_at(struct span key, struct span tag) {
    for (size_t i = 1; i < key.len; i++) {
        if (span_find(tag, key.at[i]) >= 0)
            return i;
    }
    return key.len;
}

/* The usual domain: one file, tags with '+'. */
static bool is_plain(const struct recipients_domain *d) {
    return d->count == 1 && d->sources->path && span_eq(d->tag, SPAN("+"));
}

int recipients_lookup(const struct recipients_domain *d, const struct address *a, struct recipients_memo *memo,
                      struct recipients_telling to, struct recipients_lookup *out) {
    struct search s = {.d = d, .a = a, .memo = memo, .to = to, .out = out};
    size_t tag = tag_at(a->key, d->tag);
    int err = ERR_OK;
    out->found = FOUND_NOTHING;
    if (is_plain(d)) {
        s.key = a->key;
        if (find_in_file(&s, d->sources, &out->e)) {
            out->found = FOUND_ENTRY;
            tell_table(&s, d->sources, &out->e);
        }
        return ERR_OK;
    }
    for (s.form = FORM_FULL; s.form < FORMS && !err && out->found == FOUND_NOTHING; s.form++) {
        if (s.form == FORM_UNTAGGED && tag == a->key.len)
            continue;
        s.key = s.form == FORM_FULL ? a->key : s.form == FORM_UNTAGGED ? span_first(a->key, tag) : SPAN("");
        err = ask_all(&s);
    }
    return err;
}
