/*
 * verb_message: `posthouse msg …`: one message, by its id.
 */
#include <string.h>
#include <sysexits.h>

#include "admin/tool/tool.h"
#include "base/base32.h"

static int set_message(Words__AdminRequest *q, const char *id) {
    q->has_message = true;
    if (base32_decode(span_of(id), &q->message))
        return EX_OK;
    fputs("posthouse: not a message id (13 characters of base32)\n", stderr);
    return EX_DATAERR;
}

int verb_message(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    struct answer a;
    (void)count;
    int status = set_message(&q, args[0]);
    if (status == EX_OK)
        status = tool_ask(t, &q, &a);
    if (status != EX_OK)
        return status;
    if (t->json)
        return json_print(&a, q.message);
    if (v->rpc == WORDS__ADMIN_VERB__ADMIN_MSG_SHOW)
        print_message(t, &a, q.message);
    else if (v->rpc == WORDS__ADMIN_VERB__ADMIN_MSG_TRACE)
        print_trace(t, &a, q.message);
    else
        print_answer_text(t, &a);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* Octets as they are stored, also to a pipe; on a terminal what could steer it is replaced. */
static void write_part(struct tool *t, struct span part) {
    if (!t->colour) {
        fwrite(part.at ? part.at : "", 1, part.len, stdout);
        return;
    }
    for (size_t i = 0; i < part.len; i++) {
        unsigned char c = (unsigned char)part.at[i];
        if (c != '\r')
            putchar((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : c);
    }
}

int verb_message_text(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    struct answer a;
    (void)count;
    int status = set_message(&q, args[0]);
    if (status != EX_OK)
        return status;
    if (t->json)
        return usage_error("the text of a message is printed as it is", "--json");
    struct arena kept = t->mem; /* of the request */
    char cursor[sizeof a.next];
    arena_init(&t->mem, 64 * 1024, 0);
    do { /* a long text comes in several answers, so that a slow reader holds nobody up */
        status = tool_ask_text(t, &q, &a, write_part);
        memcpy(cursor, a.next, sizeof cursor);
        q.has_after = true;
        q.after = frame_bytes(span_make(cursor, a.next_len));
    } while (status == EX_OK && a.next_len && !ferror(stdout));
    arena_deinit(&t->mem);
    t->mem = kept;
    return status != EX_OK || (fflush(stdout) == 0 && !ferror(stdout)) ? status : EX_IOERR;
}
