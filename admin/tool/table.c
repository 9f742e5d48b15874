/*
 * table: `posthouse table build TEXT CDB` compiles a recipients table. It needs no daemon: a running one sees the new
 * file and opens it.
 */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/buf.h"
#include "gateway/directory/cdb.h"

#include "admin/tool/tool.h"

enum { PROBLEMS_MAX = 64 * 1024 };

static int status_of(int err) {
    switch (err) {
    case ERR_OK:
        return EX_OK;
    case ERR_INVALID:
    case ERR_RANGE:
        return EX_DATAERR;
    case ERR_NOT_FOUND:
        return EX_NOINPUT;
    case ERR_DENIED:
        return EX_NOPERM;
    case ERR_AGAIN:
        return EX_TEMPFAIL;
    case ERR_NOMEM:
        return EX_OSERR;
    default:
        return EX_IOERR;
    }
}

static void print_problems(struct buf *problems) {
    struct span rest = buf_span(problems);
    while (rest.len) {
        print_span(stderr, span_cut(rest, '\n', &rest));
        fputc('\n', stderr);
    }
}

int tool_table_build(const struct tool *t, const char *text, const char *cdb) {
    struct buf problems;
    uint64_t count;
    buf_init(&problems, PROBLEMS_MAX);
    int err = cdb_table_build(text, cdb, &count, &problems);
    print_problems(&problems);
    buf_deinit(&problems);
    if (err) {
        fprintf(stderr, "posthouse: the table was not built: %s\n", err_text(err));
        return status_of(err);
    }
    if (t->json)
        printf("{\"entries\": %llu}\n", (unsigned long long)count);
    else
        printf("%llu entr%s\n", (unsigned long long)count, count == 1 ? "y" : "ies");
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}
