/*
 * tool: what the files of `posthouse` share: the options of the command line, one call to the admin RPC, and
 * how answers are printed. A verb asks once, prints, and ends; nothing is kept.
 */
#ifndef ADMIN_TOOL_TOOL_H
#define ADMIN_TOOL_TOOL_H

#include <stdio.h>

#include "base/arena.h"
#include "proto/admin.pb-c.h"
#include "proto/frame.h"

struct tool {
    const char *server; /* endpoint of the admin RPC */
    bool json, dry_run, colour;
    uint32_t limit;      /* 0: the daemon's own */
    const char *from_ip; /* verify --from */
    uint64_t for_ms;     /* watch --for; 0: until interrupted */
    struct arena mem;    /* of everything that the answer needs */
};

/* All replies of one request, joined into one. */
struct answer {
    Words__AdminReply r; /* error, text, code, count, envelope of the last reply that had one; the arrays below */
    size_t row_cap, trace_cap, figure_cap, step_cap, line_cap;
    struct tool *tool;
    bool complete;
};

/* Asks and waits. Returns an exit status (sysexits.h): EX_OK with *a filled, or EX_UNAVAILABLE (no daemon), EX_NOINPUT
 * (no such message), EX_TEMPFAIL, EX_PROTOCOL, EX_DATAERR; the reason has been printed to standard error. */
int tool_ask(struct tool *t, const Words__AdminRequest *q, struct answer *a) MUST_CHECK;

/* -- print.c -- human text to standard output; hostile bytes escaped -- */
void print_status(const struct tool *t, const struct answer *a);
void print_rows(const struct tool *t, const struct answer *a);
void print_summary(const struct tool *t, const struct answer *a);
void print_message(const struct tool *t, const struct answer *a, uint64_t id);
void print_trace(const struct tool *t, const struct answer *a, uint64_t id);
void print_steps(const struct tool *t, const struct answer *a);
/* Escaped and cut to the terminal's liking. */
void print_span(FILE *to, struct span s);
/* For what was escaped when it was made: control octets become '?', all else stays. */
void print_text(FILE *to, struct span s);

/* -- watch.c -- live lines of a ring (base/ring.h) that hold all words of the filter, until the user has enough */
int verb_watch(struct tool *t, uint32_t ring, struct span filter) MUST_CHECK;

/* -- table.c -- compiles a recipients table, without a daemon; an exit status */
int tool_table_build(const struct tool *t, const char *text, const char *cdb) MUST_CHECK;

/* -- json.c -- the same as one JSON value -- */
int json_print(const struct answer *a, uint64_t id) MUST_CHECK; /* an exit status */
int json_print_lines(const struct answer *a) MUST_CHECK;        /* one object a line */

#endif
