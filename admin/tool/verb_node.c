/*
 * verb_node: what a node does and would do: status, routes and verdicts, live lines, drain, settings, log level.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/tool/tool.h"
#include "base/ring.h"

#define LIVE_FILTER_MAX 1000u /* as the daemon takes */

int verb_status(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    (void)args, (void)count;
    return tool_ask_and_print(t, &q, 0, print_status);
}

/* -- explanations -- */

static void set_address(const struct tool *t, Words__AdminRequest *q, const char *address) {
    q->has_address = true;
    q->address = frame_bytes(span_of(address));
    q->has_client = t->from_ip != NULL;
    q->client = frame_bytes(span_of(t->from_ip));
}

int verb_address(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    (void)count;
    set_address(t, &q, args[0]);
    return tool_ask_and_print(t, &q, 0, print_steps);
}

/* What delivery says of the way, and the scheduler of what was suspended of it (as rows of one answer), and of what
 * waits for it (as text alone). */
int verb_limits(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc), stops_q = tool_request(t, WORDS__ADMIN_VERB__ADMIN_SUSPENSIONS);
    struct answer way, stops;
    char filter[400];
    const char *at = strrchr(args[0], '@');
    (void)count;
    snprintf(filter, sizeof filter, "domain:%.300s", at ? at + 1 : args[0]);
    set_address(t, &q, args[0]);
    set_address(t, &stops_q, filter + strlen("domain:"));
    int status = tool_ask(t, &q, &way);
    if (status == EX_OK)
        status = tool_ask(t, &stops_q, &stops);
    if (status != EX_OK)
        return status;
    if (t->json) {
        way.r.n_rows = stops.r.n_rows;
        way.r.rows = stops.r.rows;
        return json_print(&way, 0);
    }
    print_steps(t, &way);
    if (stops.r.n_rows)
        print_suspensions(t, &stops);
    char *words[] = {filter};
    const struct verb summary = {.words = "queue summary", .rpc = WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY};
    return verb_queue_counts(t, &summary, words, 1);
}

/* -- live -- */

static int live(struct tool *t, enum ring_kind ring, char **words, int count) {
    struct buf text;
    buf_init(&text, LIVE_FILTER_MAX);
    for (int i = 0; i < count; i++) {
        buf_add_str(&text, i ? " " : "");
        buf_add_str(&text, words[i]);
    }
    if (text.err != ERR_OK) {
        fputs("posthouse: too many words to look for\n", stderr);
        buf_deinit(&text);
        return EX_DATAERR;
    }
    struct span filter = arena_dup(&t->mem, buf_span(&text));
    buf_deinit(&text);
    return filter.at ? tool_watch(t, ring, filter) : EX_OSERR;
}

int verb_watch(struct tool *t, const struct verb *v, char **args, int count) {
    (void)v;
    return live(t, RING_EVENTS, args, count);
}

int verb_trace(struct tool *t, const struct verb *v, char **args, int count) {
    return live(t, strstr(v->words, " in") ? RING_SMTP_IN : RING_SMTP_OUT, args, count);
}

/* -- changes of the node -- */

static void set_target(Words__AdminRequest *q, char **args, int count) {
    q->has_target = count > 0;
    q->target = frame_bytes(span_of(count > 0 ? args[0] : NULL));
}

int verb_drain(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    set_target(&q, args, count);
    q.has_reason = t->reason != NULL;
    q.reason = frame_bytes(span_of(t->reason));
    return tool_ask_and_print(t, &q, 0, print_answer_text);
}

int verb_config(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    (void)args, (void)count;
    return tool_ask_and_print(t, &q, 0, print_answer_text);
}

int verb_log_level(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    set_target(&q, args, count);
    return tool_ask_and_print(t, &q, 0, print_answer_text);
}

/* The daemon's program checks: it alone knows all that the settings name. It is the one beside this tool, else the one
 * on the path. */
int verb_config_check(struct tool *t, const struct verb *v, char **args, int count) {
    char path[PATH_MAX], daemon[] = "posthoused", check[] = "--check", config[] = "--config";
    char *words[] = {daemon, check, count > 0 ? config : NULL, count > 0 ? args[0] : NULL, NULL};
    (void)t, (void)v;
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - sizeof daemon);
    char *slash = len > 0 ? memrchr(path, '/', (size_t)len) : NULL;
    if (slash) {
        memcpy(slash + 1, daemon, sizeof daemon);
        execv(path, words);
    }
    execvp(daemon, words);
    fprintf(stderr, "posthouse: posthoused, which checks settings, could not be run: %s\n", strerror(errno));
    return EX_UNAVAILABLE;
}
