/*
 * verbs: the table of what `posthouse` can do. Dispatch, help, shell completion and the manual page are all made of
 * it, so that none of them can fall behind.
 */
#include <string.h>
#include <sysexits.h>

#include "admin/tool/tool.h"

#define RPC(name) WORDS__ADMIN_VERB__ADMIN_##name
#define NONE ((Words__AdminVerb)0)

static const struct verb verbs[] = {
    {"status", "", "what this node does now", NULL, 0, 0, RPC(STATUS), verb_status},
    {"top", "", "the same, live: rates, queue by age, busiest sites, errors", "--for DURATION, --once", 0, 0, NONE,
     verb_top},
    {"nodes", "", "the nodes and their state", NULL, 0, 0, RPC(NODES), verb_rows},
    {"shards", "", "the shards of the queue", NULL, 0, 0, RPC(SHARDS), verb_rows},
    {"sites", "", "the busiest sites", "--limit N", 0, 0, RPC(SITES), verb_rows},
    {"queue list", "[FILTER]", "recipients in the queue, one a line", "--limit N", 0, -1, RPC(QUEUE_LIST),
     verb_queue_list},
    {"queue summary", "[FILTER]", "counts and age by destination", "--limit N", 0, -1, RPC(QUEUE_SUMMARY),
     verb_queue_counts},
    {"queue shape", "[FILTER]", "ages by destination, as qshape shows them", "--limit N", 0, -1, RPC(QUEUE_SHAPE),
     verb_queue_counts},
    {"msg show", "ID", "envelope and recipients of a message", NULL, 1, 1, RPC(MSG_SHOW), verb_message},
    {"msg trace", "ID", "its history, also after delivery", NULL, 1, 1, RPC(MSG_TRACE), verb_message},
    {"msg why", "ID", "why it is not delivered yet, and what happens next", NULL, 1, 1, RPC(MSG_WHY), verb_message},
    {"msg headers", "ID", "its header section", NULL, 1, 1, RPC(MSG_HEADERS), verb_message_text},
    {"msg body", "ID", "the whole message, as it is stored", NULL, 1, 1, RPC(MSG_BODY), verb_message_text},
    {"route", "ADDRESS", "the hosts that are tried, in order, and why", NULL, 1, 1, RPC(ROUTE), verb_address},
    {"verify", "ADDRESS", "what RCPT TO would say, and why", "--from IP", 1, 1, RPC(VERIFY), verb_address},
    {"tls probe", "DOMAIN", "tries TLS with its hosts, and says what the policy makes of them", NULL, 1, 1,
     RPC(TLS_PROBE), verb_address},
    {"limits explain", "DOMAIN", "what holds mail for it back now", NULL, 1, 1, RPC(LIMITS), verb_limits},
    {"retry", "FILTER", "makes deferred recipients due now", "--limit N, --dry-run", 1, -1, RPC(RETRY), verb_change},
    {"hold", "FILTER", "keeps recipients from being tried", "--reason R, --limit N, --dry-run", 1, -1, RPC(HOLD),
     verb_change},
    {"release", "FILTER", "lets held ones go, now", "--limit N, --dry-run", 1, -1, RPC(RELEASE), verb_change},
    {"bounce", "FILTER", "fails recipients, with a report to the sender", "--reason R, --limit N, --dry-run, --yes", 1,
     -1, RPC(BOUNCE), verb_change},
    {"delete", "FILTER", "removes recipients, without a report", "--reason R, --limit N, --dry-run, --yes", 1, -1,
     RPC(DELETE), verb_change},
    {"reroute", "FILTER", "sends recipients by another route; --to \"\" gives their own back",
     "--to ROUTE, --reason R, --limit N, --dry-run, --yes", 1, -1, RPC(REROUTE), verb_change},
    {"suspend domain", "NAME", "nothing goes to this domain", "--reason R, --for DURATION", 1, 1, RPC(SUSPEND),
     verb_suspend},
    {"suspend site", "NAME", "nothing goes to this site", "--reason R, --for DURATION", 1, 1, RPC(SUSPEND),
     verb_suspend},
    {"resume domain", "NAME", "ends its suspension", NULL, 1, 1, RPC(RESUME), verb_suspend},
    {"resume site", "NAME", "ends its suspension", NULL, 1, 1, RPC(RESUME), verb_suspend},
    {"suspensions", "", "what operators have suspended", NULL, 0, 0, RPC(SUSPENSIONS), verb_rows},
    {"audit", "[WORD ...]", "who changed what, newest first", "--limit N", 0, -1, RPC(AUDIT_LIST), verb_audit},
    {"watch", "[WORD ...]", "live events of this node that hold all these words", "--for DURATION", 0, -1, RPC(WATCH),
     verb_watch},
    {"trace smtp in", "[WORD ...]", "live dialogues with clients, secrets blanked", "--for DURATION", 0, -1, RPC(WATCH),
     verb_trace},
    {"trace smtp out", "[WORD ...]", "live dialogues with servers, secrets blanked", "--for DURATION", 0, -1,
     RPC(WATCH), verb_trace},
    {"drain", "[NODE]", "finishes what is under way, takes nothing new", "--reason R", 0, 1, RPC(DRAIN), verb_drain},
    {"undrain", "[NODE]", "takes work again", NULL, 0, 1, RPC(UNDRAIN), verb_drain},
    {"config check", "[FILE]", "checks a settings file", NULL, 0, 1, NONE, verb_config_check},
    {"config show", "", "the settings in force, secrets blanked", NULL, 0, 0, RPC(CONFIG_SHOW), verb_config},
    {"config diff", "", "the file beside the settings in force", NULL, 0, 0, RPC(CONFIG_DIFF), verb_config},
    {"config reload", "", "takes the file's settings", NULL, 0, 0, RPC(CONFIG_RELOAD), verb_config},
    {"log level", "[LEVEL]", "says or sets it (until the next reload): debug, info, warn, error", NULL, 0, 1,
     RPC(LOG_LEVEL), verb_log_level},
    {"store verify", "DIR", "checks a store that no daemon has open", NULL, 1, 1, NONE, verb_store_verify},
    {"table build", "TEXT CDB", "compiles a recipients table for tens of millions of entries", NULL, 2, 2, NONE,
     verb_table_build},
    {"key new", "FILE", "makes a key for calls over tcp, and prints its public half", NULL, 1, 1, NONE, verb_key_new},
    {"completion", "bash|zsh", "prints a completion script for the shell", NULL, 1, 1, NONE, verb_completion},
    {"manual", "", "prints the manual page", NULL, 0, 0, NONE, verb_manual},
    {"version", "", "prints the version", NULL, 0, 0, NONE, verb_version},
    {"help", "[VERB ...]", "prints this", NULL, 0, -1, NONE, verb_help},
};
enum { VERBS = sizeof verbs / sizeof *verbs };

struct option_text {
    const char *name, *arg, *help;
};
static const struct option_text options[] = {
    {"--server", "ENDPOINT",
     "the daemon's admin.rpc: ipc:///PATH or tcp://HOST:PORT (default $POSTHOUSE_SERVER, or "
     "ipc:///run/posthouse/admin)"},
    {"--key", "FILE", "our key, for tcp (see: key new)"},
    {"--server-key", "KEY", "the daemon's public key, or a file that holds it, for tcp"},
    {"--json", NULL, "the answer as one JSON object"},
    {"--limit", "N", "most rows, or most recipients of a change"},
    {"--dry-run", NULL, "only counts what would change"},
    {"--yes", NULL, "does not ask before a change that cannot be undone"},
    {"--reason", "TEXT", "why, for the audit log and for those who ask"},
    {"--to", "ROUTE", "of reroute: smtp:HOST[:PORT], lmtp:HOST[:PORT], mx:DOMAIN"},
    {"--for", "DURATION", "of suspend, watch, trace and top: ends then (90s, 2h)"},
    {"--from", "IP", "of verify: as if from this client"},
    {"--once", NULL, "of top: one look"},
};
enum { OPTIONS = sizeof options / sizeof *options };

/* How many words of the command line are this verb's name; 0: it is another one. */
static int name_of(const struct verb *v, char *const *words, int count) {
    struct span rest = span_of(v->words);
    int n = 0;
    while (rest.len) {
        struct span word = span_cut(rest, ' ', &rest);
        if (n == count || !span_eq(word, span_of(words[n])))
            return 0;
        n++;
    }
    return n;
}

const struct verb *verb_find(char *const *words, int count, int *name_words) {
    for (size_t i = 0; i < VERBS; i++)
        if ((*name_words = name_of(&verbs[i], words, count)) > 0)
            return &verbs[i];
    return NULL;
}

/* -- help -- */
static void print_verb(FILE *to, const struct verb *v) {
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", v->words, *v->args ? " " : "", v->args);
    fprintf(to, "  %-28s %s%s%s%s\n", name, v->help, v->options ? " (" : "", v->options ? v->options : "",
            v->options ? ")" : "");
}

void verb_usage(FILE *to) {
    fputs("usage: posthouse [OPTION ...] VERB [ARGUMENT ...]\n\n", to);
    for (size_t i = 0; i < VERBS; i++)
        print_verb(to, &verbs[i]);
    fputs("\n  FILTER   to: from: domain: site: state: older: id:, all must hold (state:deferred older:1h); all: every "
          "one\n\n",
          to);
    for (size_t i = 0; i < OPTIONS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s%s", options[i].name, options[i].arg ? " " : "",
                 options[i].arg ? options[i].arg : "");
        fprintf(to, "  %-22s %s\n", name, options[i].help);
    }
}

int verb_help(struct tool *t, const struct verb *v, char **args, int count) {
    bool found = false;
    (void)t, (void)v;
    for (size_t i = 0; count && i < VERBS; i++) {
        struct span first = span_cut(span_of(verbs[i].words), ' ', &(struct span){0});
        if (!span_eq(first, span_of(args[0])))
            continue;
        print_verb(stdout, &verbs[i]);
        found = true;
    }
    if (count && !found)
        return usage_error("unknown verb", args[0]);
    if (!count)
        verb_usage(stdout);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

int verb_version(struct tool *t, const struct verb *v, char **args, int count) {
    (void)t, (void)v, (void)args, (void)count;
    puts("posthouse " POSTHOUSE_VERSION);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* -- completion -- */

/* Words that may follow the words of `before` ("" for the first), once each, with a blank between. */
static void print_next_words(const char *before) {
    size_t len = strlen(before);
    struct span last = SPAN_EMPTY;
    bool first = true;
    for (size_t i = 0; i < VERBS; i++) {
        struct span words = span_of(verbs[i].words);
        if (len && (!span_starts_nocase(words, span_of(before)) || words.len <= len || words.at[len] != ' '))
            continue;
        struct span next = span_cut(len ? span_from(words, len + 1) : words, ' ', &(struct span){0});
        if (span_eq(next, last))
            continue;
        printf("%s%.*s", first ? "" : " ", (int)next.len, next.at);
        last = next;
        first = false;
    }
}

/* Calls each with every beginning of a verb that has several words: "queue", "trace", "trace smtp". */
static void each_beginning(void (*each)(const char *beginning)) {
    char seen[VERBS * VERB_WORDS_MAX][32];
    size_t count = 0;
    for (size_t i = 0; i < VERBS; i++) {
        for (const char *blank = strchr(verbs[i].words, ' '); blank; blank = strchr(blank + 1, ' ')) {
            char beginning[32];
            size_t k = 0;
            snprintf(beginning, sizeof beginning, "%.*s", (int)(blank - verbs[i].words), verbs[i].words);
            while (k < count && strcmp(seen[k], beginning) != 0)
                k++;
            if (k < count)
                continue;
            memcpy(seen[count++], beginning, sizeof beginning);
            each(beginning);
        }
    }
}

static void print_options(void) {
    for (size_t i = 0; i < OPTIONS; i++)
        printf("%s%s", i ? " " : "", options[i].name);
}

static void bash_case(const char *beginning) {
    printf("    \"%s\") words=\"", beginning);
    print_next_words(beginning);
    puts("\" ;;");
}

static const char filters[] = "to: from: domain: site: state: older: id: all";

static void print_bash(void) {
    puts("# bash completion of posthouse; made by: posthouse completion bash\n"
         "_posthouse() {\n"
         "    local current=${COMP_WORDS[COMP_CWORD]} before= words= i\n"
         "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "        case ${COMP_WORDS[i]} in\n"
         "        -*) ;;\n"
         "        *) before=\"${before:+$before }${COMP_WORDS[i]}\" ;;\n"
         "        esac\n"
         "    done\n"
         "    if [[ $current == -* ]]; then");
    fputs("        COMPREPLY=($(compgen -W \"", stdout);
    print_options();
    puts("\" -- \"$current\"))\n"
         "        return\n"
         "    fi\n"
         "    case $before in");
    fputs("    \"\") words=\"", stdout);
    print_next_words("");
    puts("\" ;;");
    each_beginning(bash_case);
    printf("    queue\\ *|retry*|hold*|release*|bounce*|delete*|reroute*) words=\"%s\"; compopt -o nospace ;;\n",
           filters);
    puts("    \"log level\") words=\"debug info warn error\" ;;\n"
         "    completion) words=\"bash zsh\" ;;\n"
         "    \"config check\"|\"key new\"|\"store verify\"|table\\ build*) COMPREPLY=($(compgen -f -- \"$current\")); "
         "return ;;\n"
         "    esac\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -F _posthouse posthouse");
}

static void zsh_case(const char *beginning) {
    printf("    (%c%s%c) compadd ", '"', beginning, '"');
    print_next_words(beginning);
    puts(" ;;");
}

static void print_zsh(void) {
    puts("#compdef posthouse\n"
         "# zsh completion of posthouse; made by: posthouse completion zsh\n"
         "_posthouse() {\n"
         "    local -a plain\n"
         "    plain=(${${words[2,CURRENT-1]}:#-*})\n"
         "    if [[ $words[CURRENT] == -* ]]; then");
    fputs("        compadd -- ", stdout);
    print_options();
    puts("\n        return\n"
         "    fi\n"
         "    case \"${(j: :)plain}\" in");
    fputs("    (\"\") compadd ", stdout);
    print_next_words("");
    puts(" ;;");
    each_beginning(zsh_case);
    printf("    (queue\\ *|retry*|hold*|release*|bounce*|delete*|reroute*) compadd -S '' -- %s ;;\n", filters);
    puts("    (\"log level\") compadd debug info warn error ;;\n"
         "    (completion) compadd bash zsh ;;\n"
         "    (*) _files ;;\n"
         "    esac\n"
         "}\n"
         "_posthouse \"$@\"");
}

int verb_completion(struct tool *t, const struct verb *v, char **args, int count) {
    (void)t, (void)v, (void)count;
    if (strcmp(args[0], "bash") == 0)
        print_bash();
    else if (strcmp(args[0], "zsh") == 0)
        print_zsh();
    else
        return usage_error("there is completion for bash and zsh", args[0]);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* -- the manual page, posthouse(1) -- */

/* Text of a manual page: '-' and '\' are escaped, and no line begins with a dot. */
static void roff(const char *text) {
    for (const char *c = text; *c; c++) {
        if (*c == '-' || *c == '\\')
            putchar('\\');
        if (*c == '\\')
            putchar('e');
        else
            putchar(*c);
    }
}

static void roff_verb(const struct verb *v) {
    fputs(".TP\n.B ", stdout);
    roff(v->words);
    if (*v->args) {
        fputs(" \\fI", stdout);
        roff(v->args);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    roff(v->help);
    if (v->options) {
        fputs("\n.br\nOptions: ", stdout);
        roff(v->options);
    }
    putchar('\n');
}

int verb_manual(struct tool *t, const struct verb *v, char **args, int count) {
    (void)t, (void)v, (void)args, (void)count;
    puts(
        ".TH POSTHOUSE 1 \"\" \"posthouse " POSTHOUSE_VERSION "\" \"Posthouse\"\n"
        ".SH NAME\nposthouse \\- operates a Posthouse mail gateway\n"
        ".SH SYNOPSIS\n.B posthouse\n[\\fIOPTION\\fR ...] \\fIVERB\\fR [\\fIARGUMENT\\fR ...]\n"
        ".SH DESCRIPTION\n"
        "Asks the daemon over its admin RPC, prints the answer, and ends. Verbs that change something are kept in the\n"
        "daemon's audit log with who asked and why.\n"
        ".SH VERBS");
    for (size_t i = 0; i < VERBS; i++)
        roff_verb(&verbs[i]);
    puts(".SH OPTIONS");
    for (size_t i = 0; i < OPTIONS; i++) {
        fputs(".TP\n.B ", stdout);
        roff(options[i].name);
        if (options[i].arg) {
            fputs(" \\fI", stdout);
            roff(options[i].arg);
            fputs("\\fR", stdout);
        }
        putchar('\n');
        roff(options[i].help);
        putchar('\n');
    }
    puts(".SH FILTERS\n"
         "Terms with a colon; all must hold. The word\n.B all\nmatches everything.\n"
         ".TP\n.B to:a@b.example\\fR, \\fBto:@b.example\nthe recipient, or all of its domain\n"
         ".TP\n.B from:a@b.example\\fR, \\fBfrom:<>\nthe reverse\\-path; <> is the null path\n"
         ".TP\n.B domain:b.example\\fR, \\fBdomain:.b.example\nthe routing domain; with a dot, all below it\n"
         ".TP\n.B site:mx.b.example\nthe site, where it is known\n"
         ".TP\n.B state:deferred\nready, assigned, deferred, delivered, failed, held\n"
         ".TP\n.B older:4h\nreceived at least so long ago\n"
         ".TP\n.B id:6H0SXZPK80000\none message\n"
         ".SH EXIT STATUS\n"
         ".TP\n.B 0\ndone\n"
         ".TP\n.B 64\nthe command line is wrong\n"
         ".TP\n.B 65\na filter, an id or an address is malformed; a check found problems\n"
         ".TP\n.B 66\nno such message, store or file\n"
         ".TP\n.B 69\nthe daemon does not answer, or the role that knows is not running\n"
         ".TP\n.B 74\na file could not be read or written\n"
         ".TP\n.B 75\ntry again\n"
         ".TP\n.B 77\nnot permitted\n"
         ".SH ENVIRONMENT\n"
         ".TP\n.B POSTHOUSE_SERVER\\fR, \\fBPOSTHOUSE_KEY\\fR, \\fBPOSTHOUSE_SERVER_KEY\nas the options\n"
         ".TP\n.B NO_COLOR\nno colours on a terminal\n"
         ".SH SEE ALSO\n.BR posthoused (8),\n.BR mailq (1),\n.BR sendmail (1)");
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}
