/*
 * verb_queue: listings of the queue, of sites, nodes and shards, and of the audit log. A long one comes page by page
 * (proto/admin.proto), so that neither the daemon nor the tool holds it whole; as JSON it is one object, and is held.
 */
#include <string.h>
#include <sysexits.h>

#include "admin/json.h"
#include "admin/tool/tool.h"
#include "proto/filter.h"

#define PAGE 1000u
#define LIST_LIMIT_DEFAULT 1000u
#define AUDIT_LIMIT_DEFAULT 100u
#define CURSOR_MAX 512u

int tool_set_filter(struct tool *t, Words__AdminRequest *q, char **args, int count) {
    struct buf text;
    struct filter *f;
    const char *problem;
    bool all = count == 1 && strcmp(args[0], "all") == 0;
    buf_init(&text, FILTER_TEXT_MAX);
    for (int i = 0; i < count && !all; i++) {
        buf_add_str(&text, args[i]);
        buf_add_byte(&text, ' ');
    }
    int err = filter_parse(&f, buf_span(&text), &problem);
    if (err != ERR_OK) {
        fprintf(stderr, "posthouse: filter: %s\n", problem);
        buf_deinit(&text);
        return EX_DATAERR;
    }
    filter_free(f);
    q->has_filter = true;
    q->filter = frame_bytes(arena_dup(&t->mem, buf_span(&text)));
    buf_deinit(&text);
    return EX_OK;
}

/* -- by pages -- */

static int end_pages(struct json_answer *j, int status) {
    if (!j)
        return status != EX_OK || fflush(stdout) == 0 ? status : EX_IOERR;
    if (status == EX_OK)
        status = json_print_answer(j);
    json_answer_free(j);
    return status;
}

/* Asks for page after page until `limit` rows have come or there are no more. *rows: how many came. */
static int each_page(struct tool *t, Words__AdminRequest *q, uint32_t limit,
                     void (*print)(const struct tool *t, const struct answer *a), size_t *rows) {
    struct json_answer *j = t->json ? json_answer_new() : NULL;
    struct arena kept = t->mem; /* holds the filter */
    char cursor[CURSOR_MAX];
    int status = t->json && !j ? EX_OSERR : EX_OK;
    *rows = 0;
    arena_init(&t->mem, 64 * 1024, 0);
    for (bool more = true; more && status == EX_OK;) {
        struct answer page;
        q->has_limit = true;
        q->limit = limit - *rows < PAGE ? limit - (uint32_t)*rows : PAGE;
        status = tool_ask(t, q, &page);
        if (status != EX_OK)
            break;
        *rows += page.r.n_rows + page.r.n_audits;
        more = page.r.has_cursor && page.r.cursor.len && page.r.cursor.len <= sizeof cursor && *rows < limit;
        if (more)
            memcpy(cursor, page.r.cursor.data, page.r.cursor.len);
        q->has_after = more;
        q->after = frame_bytes(span_make(cursor, more ? page.r.cursor.len : 0));
        if (j)
            json_answer_add(j, &page.r);
        else
            print(t, &page);
        arena_reset(&t->mem);
    }
    arena_deinit(&t->mem);
    t->mem = kept;
    return end_pages(j, status);
}

int verb_queue_list(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    size_t rows;
    uint32_t limit = t->limit ? t->limit : LIST_LIMIT_DEFAULT;
    int status = tool_set_filter(t, &q, args, count);
    if (status != EX_OK)
        return status;
    status = each_page(t, &q, limit, print_rows, &rows);
    if (status == EX_OK && !t->json)
        printf("%zu recipient%s%s\n", rows, rows == 1 ? "" : "s", rows >= limit ? " (the limit; more may match)" : "");
    return status;
}

int verb_audit(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    struct buf words;
    size_t rows;
    buf_init(&words, FILTER_TEXT_MAX);
    for (int i = 0; i < count; i++) {
        buf_add_str(&words, i ? " " : "");
        buf_add_str(&words, args[i]);
    }
    q.has_filter = words.err == ERR_OK;
    q.filter = frame_bytes(arena_dup(&t->mem, buf_span(&words)));
    bool long_words = words.err != ERR_OK;
    buf_deinit(&words);
    if (long_words)
        return usage_error("too many words to look for", NULL);
    return each_page(t, &q, t->limit ? t->limit : AUDIT_LIMIT_DEFAULT, print_audits, &rows);
}

/* -- in one answer -- */

int verb_queue_counts(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    q.has_limit = t->limit != 0;
    q.limit = t->limit;
    int status = tool_set_filter(t, &q, args, count);
    if (status != EX_OK)
        return status;
    return tool_ask_and_print(t, &q, 0, v->rpc == WORDS__ADMIN_VERB__ADMIN_QUEUE_SHAPE ? print_shape : print_summary);
}

int verb_rows(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    (void)args, (void)count;
    q.has_limit = t->limit != 0;
    q.limit = t->limit;
    switch (v->rpc) {
    case WORDS__ADMIN_VERB__ADMIN_SITES:
        return tool_ask_and_print(t, &q, 0, print_sites);
    case WORDS__ADMIN_VERB__ADMIN_SUSPENSIONS:
        return tool_ask_and_print(t, &q, 0, print_suspensions);
    case WORDS__ADMIN_VERB__ADMIN_NODES:
        return tool_ask_and_print(t, &q, 0, print_nodes);
    default:
        return tool_ask_and_print(t, &q, 0, print_shards);
    }
}
