/*
 * main: the command line of `posthouse`: options, and the verb of the table (verbs.c) that is run. Called as `mailq` it
 * lists the queue. Exit status is one of sysexits.h: 64 usage, 65 a filter or address is malformed, 66 no such message,
 * 69 no daemon, 75 try again, 77 not permitted.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/tool/tool.h"
#include "base/units.h"

#define SERVER_DEFAULT "ipc:///run/posthouse/admin"
#define LIMIT_MAX 10000000u

int usage_error(const char *what, const char *which) {
    fprintf(stderr, "posthouse: %s%s%s (see: posthouse help)\n", what, which ? ": " : "", which ? which : "");
    return EX_USAGE;
}

static const char *from_environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int run(struct tool *t, char **words, int count) {
    int name_words;
    const struct verb *v = verb_find(words, count, &name_words);
    if (!v)
        return count ? usage_error("unknown verb", words[0]) : usage_error("a verb is needed", NULL);
    count -= name_words;
    if (count < v->least || (v->most >= 0 && count > v->most)) {
        char usage[96];
        snprintf(usage, sizeof usage, "%s %s", v->words, v->args);
        return usage_error("the verb's arguments are", usage);
    }
    return v->run(t, v, words + name_words, count);
}

enum { OPTION_KEY = 256, OPTION_SERVER_KEY, OPTION_ONCE, OPTION_TO, OPTION_REASON };

static const struct option options[] = {
    {"server", required_argument, NULL, 's'},
    {"key", required_argument, NULL, OPTION_KEY},
    {"server-key", required_argument, NULL, OPTION_SERVER_KEY},
    {"json", no_argument, NULL, 'j'},
    {"dry-run", no_argument, NULL, 'n'},
    {"yes", no_argument, NULL, 'y'},
    {"once", no_argument, NULL, OPTION_ONCE},
    {"limit", required_argument, NULL, 'l'},
    {"from", required_argument, NULL, 'f'},
    {"to", required_argument, NULL, OPTION_TO},
    {"reason", required_argument, NULL, OPTION_REASON},
    {"for", required_argument, NULL, 'd'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

static int take_limit(struct tool *t, const char *value) {
    uint64_t limit;
    if (!span_u64(span_of(value), &limit) || limit == 0 || limit > LIMIT_MAX)
        return usage_error("--limit takes a number from 1 to 10000000", value);
    t->limit = (uint32_t)limit;
    return EX_OK;
}

static int take_duration(struct tool *t, const char *value) {
    if (units_duration(span_of(value), &t->for_ms) != ERR_OK || t->for_ms == 0)
        return usage_error("--for takes a duration such as 30s", value);
    return EX_OK;
}

/* EX_OK: go on. */
static int take_option(struct tool *t, int option, const char *value) {
    switch (option) {
    case 's':
        t->server = value;
        return EX_OK;
    case OPTION_KEY:
        t->key = value;
        return EX_OK;
    case OPTION_SERVER_KEY:
        t->server_key = value;
        return EX_OK;
    case 'j':
        t->json = true;
        return EX_OK;
    case 'n':
        t->dry_run = true;
        return EX_OK;
    case 'y':
        t->yes = true;
        return EX_OK;
    case OPTION_ONCE:
        t->once = true;
        return EX_OK;
    case 'l':
        return take_limit(t, value);
    case 'f':
        t->from_ip = value;
        return EX_OK;
    case OPTION_TO:
        t->to = value;
        return EX_OK;
    case OPTION_REASON:
        t->reason = value;
        return EX_OK;
    case 'd':
        return take_duration(t, value);
    default:
        return EX_USAGE;
    }
}

int main(int argc, char **argv) {
    char queue[] = "queue", list[] = "list", help[] = "help", version[] = "version";
    char *mailq[] = {queue, list}, *asked[] = {help};
    struct tool t = {.server = from_environment("POSTHOUSE_SERVER"),
                     .key = from_environment("POSTHOUSE_KEY"),
                     .server_key = from_environment("POSTHOUSE_SERVER_KEY")};
    const char *slash = strrchr(argv[0] ? argv[0] : "", '/');
    int status = EX_OK;
    if (!t.server)
        t.server = SERVER_DEFAULT;
    t.colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    bool other = false;
    for (int c; status == EX_OK && (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h' || c == 'v') {
            asked[0] = c == 'h' ? help : version;
            other = true;
        } else {
            status = take_option(&t, c, optarg);
        }
    }
    if (status != EX_OK)
        return status;
    arena_init(&t.mem, 64 * 1024, 0);
    if (other)
        status = run(&t, asked, 1);
    else if (strcmp(slash ? slash + 1 : argv[0] ? argv[0] : "", "mailq") == 0)
        status = run(&t, mailq, 2);
    else
        status = run(&t, argv + optind, argc - optind);
    arena_deinit(&t.mem);
    return status;
}
