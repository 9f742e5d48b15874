/*
 * tool: what the files of `posthouse` share: the options of the command line, one call to the admin RPC, and
 * how answers are printed. A verb asks, prints, and ends; nothing is kept.
 *
 *   main.c         options, and which verb
 *   verbs.c        the table of verbs; help, completion and the manual page are made of it
 *   verb_*.c       the verbs, by what they look at
 *   ask.c          one question to the daemon and all its answers
 *   print*.c       answers for people; admin/json.h: for programs
 */
#ifndef ADMIN_TOOL_TOOL_H
#define ADMIN_TOOL_TOOL_H

#include <stdio.h>

#include "base/arena.h"
#include "proto/admin.pb-c.h"
#include "proto/frame.h"

struct tool {
    const char *server;     /* endpoint of the admin RPC */
    const char *key;        /* file of our key, for tcp; NULL: none */
    const char *server_key; /* public key of the daemon, in Z85, or a file of it; NULL: none */
    bool json, dry_run, yes, once, colour;
    uint32_t limit;      /* 0: the daemon's own */
    const char *from_ip; /* verify --from */
    const char *reason;  /* of a change */
    const char *to;      /* reroute --to */
    uint64_t for_ms;     /* watch, top: ends then; suspend: so long; 0: without end */
    uint64_t told_ms;    /* when progress was last shown */
    bool progress;       /* a line of progress stands on the terminal */
    struct arena mem;    /* of everything that the answer needs */
};

/* All replies of one request, joined into one. */
struct answer {
    Words__AdminReply
        r; /* error, text, code, count, envelope, cursor of the last reply that had one; the arrays below */
    size_t row_cap, trace_cap, figure_cap, step_cap, line_cap, audit_cap;
    struct tool *tool;
    char next[16]; /* of a text: the cursor of its last reply */
    size_t next_len;
    void (*text)(struct tool *t, struct span part); /* called with each text instead of keeping it; NULL: kept */
    bool complete;
};

/* -- verbs.c -- */
enum { VERB_WORDS_MAX = 3 };
struct verb {
    const char *words;   /* "queue list" */
    const char *args;    /* "[FILTER]", for people */
    const char *help;    /* one line, no full stop */
    const char *options; /* of this verb, for people: "--limit N"; NULL: none */
    int least, most;     /* arguments; most < 0: any number */
    Words__AdminVerb rpc;
    int (*run)(struct tool *t, const struct verb *v, char **args, int count); /* an exit status */
};
/* The verb that the words begin with, and how many of them are its name; NULL: none. */
const struct verb *verb_find(char *const *words, int count, int *name_words);
void verb_usage(FILE *to);
int verb_version(struct tool *t, const struct verb *v, char **args, int count);
int verb_help(struct tool *t, const struct verb *v, char **args, int count);
int verb_completion(struct tool *t, const struct verb *v, char **args, int count);
int verb_manual(struct tool *t, const struct verb *v, char **args, int count);
/* Says what is wrong with the command line; EX_USAGE. */
int usage_error(const char *what, const char *which);

/* -- verb_queue.c: listings, page by page -- */
int verb_queue_list(struct tool *t, const struct verb *v, char **args, int count);
int verb_queue_counts(struct tool *t, const struct verb *v, char **args, int count); /* summary, shape */
int verb_rows(struct tool *t, const struct verb *v, char **args, int count); /* sites, suspensions, nodes, shards */
int verb_audit(struct tool *t, const struct verb *v, char **args, int count);
/* The arguments as one filter, checked. */
int tool_set_filter(struct tool *t, Words__AdminRequest *q, char **args, int count);

/* -- verb_message.c -- */
int verb_message(struct tool *t, const struct verb *v, char **args, int count);
int verb_message_text(struct tool *t, const struct verb *v, char **args, int count); /* headers, body */

/* -- verb_change.c -- */
int verb_change(struct tool *t, const struct verb *v, char **args, int count);  /* by filter */
int verb_suspend(struct tool *t, const struct verb *v, char **args, int count); /* and resume */

/* -- verb_node.c -- */
int verb_status(struct tool *t, const struct verb *v, char **args, int count);
int verb_address(struct tool *t, const struct verb *v, char **args, int count); /* route, verify, tls probe */
int verb_limits(struct tool *t, const struct verb *v, char **args, int count);
int verb_watch(struct tool *t, const struct verb *v, char **args, int count);
int verb_trace(struct tool *t, const struct verb *v, char **args, int count);
int verb_drain(struct tool *t, const struct verb *v, char **args, int count); /* and undrain */
int verb_config(struct tool *t, const struct verb *v, char **args, int count);
int verb_config_check(struct tool *t, const struct verb *v, char **args, int count);
int verb_log_level(struct tool *t, const struct verb *v, char **args, int count);

/* -- verb_local.c: what needs no daemon -- */
int verb_store_verify(struct tool *t, const struct verb *v, char **args, int count);
int verb_table_build(struct tool *t, const struct verb *v, char **args, int count);
int verb_key_new(struct tool *t, const struct verb *v, char **args, int count);

/* -- top.c -- */
int verb_top(struct tool *t, const struct verb *v, char **args, int count);

/* -- ask.c -- */
/* Asks and waits. Returns an exit status (sysexits.h): EX_OK with *a filled, or EX_UNAVAILABLE (no daemon), EX_NOINPUT
 * (no such message), EX_NOPERM, EX_TEMPFAIL, EX_PROTOCOL, EX_DATAERR; the reason has been printed to standard error. */
int tool_ask(struct tool *t, const Words__AdminRequest *q, struct answer *a) MUST_CHECK;
/* The same, and gives the text of each reply to text(), in order, as it comes. */
int tool_ask_text(struct tool *t, const Words__AdminRequest *q, struct answer *a,
                  void (*text)(struct tool *t, struct span part)) MUST_CHECK;
/* Asks, and prints as JSON or with print. id: of the message asked for; 0: none. */
int tool_ask_and_print(struct tool *t, const Words__AdminRequest *q, uint64_t id,
                       void (*print)(const struct tool *t, const struct answer *a)) MUST_CHECK;
/* A request with its verb, and the user's name as actor (what the daemon makes of it: admin/access.h). */
Words__AdminRequest tool_request(struct tool *t, Words__AdminVerb verb);

/* -- print.c, print_queue.c -- human text to standard output; hostile bytes escaped -- */
void print_status(const struct tool *t, const struct answer *a);
void print_rows(const struct tool *t, const struct answer *a);
void print_summary(const struct tool *t, const struct answer *a);
void print_shape(const struct tool *t, const struct answer *a);
void print_sites(const struct tool *t, const struct answer *a);
void print_suspensions(const struct tool *t, const struct answer *a);
void print_nodes(const struct tool *t, const struct answer *a);
void print_shards(const struct tool *t, const struct answer *a);
void print_audits(const struct tool *t, const struct answer *a);
void print_message(const struct tool *t, const struct answer *a, uint64_t id);
void print_trace(const struct tool *t, const struct answer *a, uint64_t id);
void print_steps(const struct tool *t, const struct answer *a);
void print_answer_text(const struct tool *t, const struct answer *a); /* line by line, escaped */
const char *print_state_colour(const struct tool *t, uint32_t state);
void print_result(const Words__Result *r);
/* The sum of the figures of this name. */
double print_figure(const struct answer *a, const char *name);
/* Escaped and cut to the terminal's liking. */
void print_span(FILE *to, struct span s);
void print_bytes(ProtobufCBinaryData b);
void print_age(uint64_t since_ms); /* how long ago */
void print_due(uint64_t due_ms);   /* "now", "in 5m" */
void print_id(uint64_t id);
/* For what was escaped when it was made: control octets become '?', all else stays. */
void print_text(FILE *to, struct span s);

/* -- watch.c -- live lines of a ring (base/ring.h) that hold all words of the filter, until the user has enough */
int tool_watch(struct tool *t, uint32_t ring, struct span filter) MUST_CHECK;

/* -- table.c -- compiles a recipients table, without a daemon; an exit status */
int tool_table_build(const struct tool *t, const char *text, const char *cdb) MUST_CHECK;

/* -- json.c -- the same as one JSON value -- */
int json_print(const struct answer *a, uint64_t id) MUST_CHECK; /* an exit status */
int json_print_lines(const struct answer *a) MUST_CHECK;        /* one object a line */
struct json_answer;
int json_print_answer(const struct json_answer *j) MUST_CHECK;

/* -- key.c -- */
/* A new key file; prints its public key. An exit status. */
int tool_key_new(struct tool *t, const char *file) MUST_CHECK;
/* One message and its answers, with our key where the server is at tcp://. An exit status; the reason of a failure has
 * been printed. */
int tool_call(struct tool *t, struct span header, struct span meta, uint64_t timeout_ms, bus_more_cb more,
              void *arg) MUST_CHECK;

#endif
