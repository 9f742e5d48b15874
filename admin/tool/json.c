/*
 * json: the answers of the RPC on standard output as JSON (admin/json.h).
 */
#include <stdio.h>
#include <sysexits.h>

#include "admin/json.h"
#include "admin/tool/tool.h"

#define TEXT_MAX (1024u * 1024u * 1024u)

static int print_out(struct buf *text, int err) {
    struct span s = buf_span(text);
    bool good = err == ERR_OK && fwrite(s.at ? s.at : "", 1, s.len, stdout) == s.len;
    buf_deinit(text);
    return good ? EX_OK : EX_IOERR;
}

int json_print_lines(const struct answer *a) {
    struct buf text;
    int err = ERR_OK;
    buf_init(&text, TEXT_MAX);
    for (size_t i = 0; i < a->r.n_lines && err == ERR_OK; i++) {
        err = json_line_dump(a->r.lines[i], i == 0 ? a->r.missed : 0, &text);
        if (err == ERR_OK)
            err = buf_add_byte(&text, '\n');
    }
    return print_out(&text, err);
}

int json_print_answer(const struct json_answer *j) {
    struct buf text;
    buf_init(&text, TEXT_MAX);
    int err = json_answer_dump(j, true, &text);
    if (err == ERR_OK)
        err = buf_add_byte(&text, '\n');
    int status = print_out(&text, err);
    return status == EX_OK && fflush(stdout) != 0 ? EX_IOERR : status;
}

int json_print(const struct answer *a, uint64_t id) {
    struct json_answer *j = json_answer_new();
    if (!j)
        return EX_OSERR;
    json_answer_message(j, id);
    json_answer_add(j, &a->r);
    int status = json_print_answer(j);
    json_answer_free(j);
    return status;
}
