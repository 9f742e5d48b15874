/*
 * main: the command line of `posthouse`: a table of verbs, each a request to the admin RPC and a way to print its
 * answer. Exit status is one of sysexits.h: 64 usage, 65 a filter or address is malformed, 66 no such message,
 * 69 no daemon, 75 try again.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/tool/tool.h"
#include "base/base32.h"
#include "base/ring.h"
#include "base/units.h"
#include "proto/filter.h"
#include "store/store.h"

#define SERVER_DEFAULT "ipc:///run/posthouse/admin"
#define LIVE_FILTER_MAX 1000u /* as the daemon takes */

static const char usage[] =
    "usage: posthouse [--server ENDPOINT] [--json] VERB [ARGUMENT ...]\n"
    "\n"
    "  status                     what this node does now\n"
    "  queue list [FILTER]        recipients in the queue (--limit N, default 1000)\n"
    "  queue summary [FILTER]     counts by destination\n"
    "  msg show ID                envelope and recipients of a message\n"
    "  msg trace ID               its history, also after delivery\n"
    "  msg why ID                 why it is not delivered yet, and what happens next\n"
    "  route ADDRESS              the hosts that are tried, in order, and why\n"
    "  tls probe DOMAIN           tries TLS with its hosts, and says what the policy makes of them\n"
    "  limits explain DOMAIN      what holds mail for it back now\n"
    "  verify ADDRESS             what RCPT TO would say, and why (--from IP: as if from that client)\n"
    "  retry FILTER [--dry-run]   makes deferred messages due now\n"
    "  watch [WORD ...]           live events of this node that hold all these words (--for DURATION: ends then)\n"
    "  trace smtp in|out [WORD ...]  live dialogues with clients or servers, secrets blanked\n"
    "  store verify DIR           checks a store that no daemon has open\n"
    "  table build TEXT CDB       compiles a recipients table for tens of millions of entries\n"
    "  version, help\n"
    "\n"
    "  FILTER   to: from: domain: site: state: older: id:, all must hold (state:deferred older:1h)\n"
    "  --server ENDPOINT   default $POSTHOUSE_SERVER or " SERVER_DEFAULT "\n"
    "  --json              the answer as one JSON object\n";

static int usage_error(const char *what, const char *which) {
    fprintf(stderr, "posthouse: %s%s%s (see: posthouse help)\n", what, which ? ": " : "", which ? which : "");
    return EX_USAGE;
}

/* -- verbs -- */

static int ask_and_print(struct tool *t, const Words__AdminRequest *q, uint64_t id,
                         void (*print)(const struct tool *t, const struct answer *a)) {
    struct answer a;
    int status = tool_ask(t, q, &a);
    if (status != EX_OK)
        return status;
    if (t->json)
        return json_print(&a, id);
    print(t, &a);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

static int verb_status(struct tool *t) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    q.verb = WORDS__ADMIN_VERB__ADMIN_STATUS;
    return ask_and_print(t, &q, 0, print_status);
}

/* The remaining words are one filter. */
static int set_filter(struct tool *t, Words__AdminRequest *q, char **words, int count) {
    struct buf text;
    struct filter *f;
    const char *problem;
    buf_init(&text, FILTER_TEXT_MAX);
    for (int i = 0; i < count; i++) {
        buf_add_str(&text, words[i]);
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

static int verb_queue(struct tool *t, char **words, int count) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    if (count < 1)
        return usage_error("queue needs list or summary", NULL);
    bool list = strcmp(words[0], "list") == 0;
    if (!list && strcmp(words[0], "summary") != 0)
        return usage_error("unknown verb: queue", words[0]);
    q.verb = list ? WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST : WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY;
    q.has_limit = t->limit != 0;
    q.limit = t->limit;
    int status = set_filter(t, &q, words + 1, count - 1);
    return status != EX_OK ? status : ask_and_print(t, &q, 0, list ? print_rows : print_summary);
}

static int verb_retry(struct tool *t, char **words, int count) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    struct answer a;
    if (count < 1)
        return usage_error("retry needs a filter", NULL);
    q.verb = WORDS__ADMIN_VERB__ADMIN_RETRY;
    q.has_dry_run = true;
    q.dry_run = t->dry_run;
    int status = set_filter(t, &q, words, count);
    if (status == EX_OK)
        status = tool_ask(t, &q, &a);
    if (status != EX_OK)
        return status;
    if (t->json)
        return json_print(&a, 0);
    printf("%llu message%s %s\n", (unsigned long long)a.r.count, a.r.count == 1 ? "" : "s",
           t->dry_run ? "would be retried now" : "due now");
    return EX_OK;
}

static void print_why(const struct tool *t, const struct answer *a) {
    (void)t;
    struct span rest = frame_span(a->r.text);
    while (rest.len) {
        struct span line = span_cut(rest, '\n', &rest);
        print_span(stdout, line);
        putchar('\n');
    }
}

static int verb_msg(struct tool *t, char **words, int count) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    struct answer a;
    uint64_t id;
    if (count != 2)
        return usage_error("msg needs show, trace or why, and a message id", NULL);
    if (strcmp(words[0], "show") == 0)
        q.verb = WORDS__ADMIN_VERB__ADMIN_MSG_SHOW;
    else if (strcmp(words[0], "trace") == 0)
        q.verb = WORDS__ADMIN_VERB__ADMIN_MSG_TRACE;
    else if (strcmp(words[0], "why") == 0)
        q.verb = WORDS__ADMIN_VERB__ADMIN_MSG_WHY;
    else
        return usage_error("unknown verb: msg", words[0]);
    if (!base32_decode(span_of(words[1]), &id)) {
        fputs("posthouse: not a message id (13 characters of base32)\n", stderr);
        return EX_DATAERR;
    }
    q.has_message = true;
    q.message = id;
    int status = tool_ask(t, &q, &a);
    if (status != EX_OK)
        return status;
    if (t->json)
        return json_print(&a, id);
    if (q.verb == WORDS__ADMIN_VERB__ADMIN_MSG_SHOW)
        print_message(t, &a, id);
    else if (q.verb == WORDS__ADMIN_VERB__ADMIN_MSG_TRACE)
        print_trace(t, &a, id);
    else
        print_why(t, &a);
    return EX_OK;
}

static int verb_address(struct tool *t, Words__AdminVerb verb, char **words, int count) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    if (count != 1)
        return usage_error("an address is needed", NULL);
    q.verb = verb;
    q.has_address = true;
    q.address = frame_bytes(span_of(words[0]));
    q.has_client = t->from_ip != NULL;
    q.client = frame_bytes(span_of(t->from_ip));
    return ask_and_print(t, &q, 0, print_steps);
}

/* The words as one filter. */
static int verb_live(struct tool *t, enum ring_kind ring, char **words, int count) {
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
    return filter.at ? verb_watch(t, ring, filter) : EX_OSERR;
}

/* "tls probe DOMAIN" and its kin. */
static int verb_second(struct tool *t, const char *second, Words__AdminVerb verb, char **words, int count) {
    if (count != 2 || strcmp(words[0], second) != 0)
        return usage_error("expected a second word and a domain", second);
    return verb_address(t, verb, words + 1, count - 1);
}

/* What delivery says of the way, and the scheduler of what waits for it. */
static int verb_limits(struct tool *t, char **words, int count) {
    char filter[400], summary[] = "summary";
    int status = verb_second(t, "explain", WORDS__ADMIN_VERB__ADMIN_LIMITS, words, count);
    if (status != EX_OK || t->json)
        return status;
    const char *at = strrchr(words[1], '@');
    snprintf(filter, sizeof filter, "domain:%.300s", at ? at + 1 : words[1]);
    char *both[] = {summary, filter};
    return verb_queue(t, both, 2);
}

static int verb_trace(struct tool *t, char **words, int count) {
    bool in = count >= 2 && strcmp(words[1], "in") == 0, out = count >= 2 && strcmp(words[1], "out") == 0;
    if (count < 2 || strcmp(words[0], "smtp") != 0 || !(in || out))
        return usage_error("trace needs: smtp in, or smtp out", NULL);
    return verb_live(t, in ? RING_SMTP_IN : RING_SMTP_OUT, words + 2, count - 2);
}

static void on_problem(void *arg, const char *problem) {
    unsigned *count = arg;
    ++*count;
    print_span(stdout, span_of(problem));
    putchar('\n');
}

static int verb_store(struct tool *t, char **words, int count) {
    unsigned problems = 0;
    uint64_t messages = 0;
    if (count != 2 || strcmp(words[0], "verify") != 0)
        return usage_error("store verify needs the directory of a store (data_dir/queue)", NULL);
    int err = store_verify(words[1], on_problem, &problems, &messages);
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

static int run(struct tool *t, char **words, int count) {
    const char *verb = count > 0 ? words[0] : "";
    char **rest = words + 1;
    if (strcmp(verb, "status") == 0 && count == 1)
        return verb_status(t);
    if (strcmp(verb, "queue") == 0)
        return verb_queue(t, rest, count - 1);
    if (strcmp(verb, "msg") == 0)
        return verb_msg(t, rest, count - 1);
    if (strcmp(verb, "route") == 0)
        return verb_address(t, WORDS__ADMIN_VERB__ADMIN_ROUTE, rest, count - 1);
    if (strcmp(verb, "tls") == 0)
        return verb_second(t, "probe", WORDS__ADMIN_VERB__ADMIN_TLS_PROBE, rest, count - 1);
    if (strcmp(verb, "limits") == 0)
        return verb_limits(t, rest, count - 1);
    if (strcmp(verb, "verify") == 0)
        return verb_address(t, WORDS__ADMIN_VERB__ADMIN_VERIFY, rest, count - 1);
    if (strcmp(verb, "retry") == 0)
        return verb_retry(t, rest, count - 1);
    if (strcmp(verb, "watch") == 0)
        return verb_live(t, RING_EVENTS, rest, count - 1);
    if (strcmp(verb, "trace") == 0)
        return verb_trace(t, rest, count - 1);
    if (strcmp(verb, "store") == 0)
        return verb_store(t, rest, count - 1);
    if (strcmp(verb, "table") == 0)
        return count == 4 && strcmp(rest[0], "build") == 0
                   ? tool_table_build(t, rest[1], rest[2])
                   : usage_error("table build needs the text and the place of the CDB file", NULL);
    if (strcmp(verb, "version") == 0) {
        puts("posthouse " POSTHOUSE_VERSION);
        return EX_OK;
    }
    if (strcmp(verb, "help") == 0) {
        fputs(usage, stdout);
        return EX_OK;
    }
    return count ? usage_error("unknown verb", verb) : usage_error("a verb is needed", NULL);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"server", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'j'},
        {"dry-run", no_argument, NULL, 'n'},
        {"limit", required_argument, NULL, 'l'},
        {"from", required_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {"for", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct tool t = {.server = getenv("POSTHOUSE_SERVER")};
    uint64_t limit;
    if (!t.server || !*t.server)
        t.server = SERVER_DEFAULT;
    t.colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            t.server = optarg;
            break;
        case 'j':
            t.json = true;
            break;
        case 'n':
            t.dry_run = true;
            break;
        case 'l':
            if (!span_u64(span_of(optarg), &limit) || limit == 0 || limit > 10000000)
                return usage_error("--limit takes a number from 1 to 10000000", optarg);
            t.limit = (uint32_t)limit;
            break;
        case 'f':
            t.from_ip = optarg;
            break;
        case 'd':
            if (units_duration(span_of(optarg), &t.for_ms) != ERR_OK || t.for_ms == 0)
                return usage_error("--for takes a duration such as 30s", optarg);
            break;
        case 'h':
            fputs(usage, stdout);
            return EX_OK;
        case 'v':
            puts("posthouse " POSTHOUSE_VERSION);
            return EX_OK;
        default:
            return EX_USAGE;
        }
    }
    arena_init(&t.mem, 64 * 1024, 0);
    int status = run(&t, argv + optind, argc - optind);
    arena_deinit(&t.mem);
    return status;
}
