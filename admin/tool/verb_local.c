/*
 * verb_local: what needs no daemon: checking a store, compiling a table.
 */
#include <stdlib.h>
#include <sysexits.h>

#include "admin/tool/tool.h"
#include "store/store.h"

static void on_problem(void *arg, const char *problem) {
    unsigned *count = arg;
    ++*count;
    print_span(stdout, span_of(problem));
    putchar('\n');
}

int verb_store_verify(struct tool *t, const struct verb *v, char **args, int count) {
    unsigned problems = 0;
    uint64_t messages = 0;
    (void)v, (void)count;
    int err = store_verify(args[0], on_problem, &problems, &messages);
    if (err != ERR_OK) {
        fprintf(stderr, "posthouse: the store cannot be read: %s\n", err_text(err));
        return err == ERR_NOT_FOUND ? EX_NOINPUT : err == ERR_EXISTS ? EX_TEMPFAIL : EX_IOERR;
    }
    if (t->json)
        printf("{\"messages\": %llu, \"problems\": %u}\n", (unsigned long long)messages, problems);
    else
        printf("%llu messages, %u problem%s\n", (unsigned long long)messages, problems, problems == 1 ? "" : "s");
    return problems ? EX_DATAERR : EX_OK;
}

int verb_table_build(struct tool *t, const struct verb *v, char **args, int count) {
    (void)v, (void)count;
    return tool_table_build(t, args[0], args[1]);
}

int verb_key_new(struct tool *t, const struct verb *v, char **args, int count) {
    (void)v;
    (void)count;
    return tool_key_new(t, args[0]);
}
