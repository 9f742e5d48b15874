/*
 * main: `sendmail` as programs have called it for forty years: the options that mean something without a queue of its
 * own are honoured, those that only tune one are taken and ignored, and what cannot be done is refused.
 *
 * The gateway is 127.0.0.1 port 25, or what /etc/posthouse/submit or $POSTHOUSE_SUBMIT names (HOST:PORT, [V6]:PORT).
 */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/sendmail/sendmail.h"
#include "gateway/smtp/address.h"

#define SUBMIT_FILE "/etc/posthouse/submit"
#define MAILNAME_FILE "/etc/mailname"
#define NAME_MAX_OCTETS 256
#define COMPLAINT_MAX 1024u

struct command {
    struct message_options message;
    const char *sender; /* -f; NULL: the user */
    uint32_t notify, ret;
    const char *envid;
    bool verbose;
    char host[NAME_MAX_OCTETS], port[16], hostname[NAME_MAX_OCTETS], domain[NAME_MAX_OCTETS], user[NAME_MAX_OCTETS];
    char from[2 * NAME_MAX_OCTETS + 2];
};

/* What is told comes from the command line or the message, and may be a stranger's. */
static int refuse_span(int status, const char *what, struct span which) {
    struct buf text;
    buf_init(&text, COMPLAINT_MAX);
    buf_add_escaped(&text, span_first(which, COMPLAINT_MAX / 4)); /* an octet becomes four */
    struct span shown = buf_span(&text);
    fprintf(stderr, "sendmail: %s%s%.*s\n", what, shown.len ? ": " : "", SPAN_FMT(shown));
    buf_deinit(&text);
    return status;
}

static int refuse(int status, const char *what, const char *which) {
    return refuse_span(status, what, span_of(which));
}

/* The first line of a small file; false: there is none. */
static bool first_line(const char *path, char *to, size_t size) {
    FILE *f = fopen(path, "re");
    bool found = f && fgets(to, (int)size, f);
    if (f)
        fclose(f);
    if (found)
        to[strcspn(to, " \t\r\n")] = '\0';
    return found && *to;
}

static void find_names(struct command *c) {
    struct passwd *user = getpwuid(getuid());
    if (gethostname(c->hostname, sizeof c->hostname - 1) != 0 || !*c->hostname)
        snprintf(c->hostname, sizeof c->hostname, "localhost");
    if (!first_line(MAILNAME_FILE, c->domain, sizeof c->domain))
        memcpy(c->domain, c->hostname, sizeof c->domain);
    if (user)
        snprintf(c->user, sizeof c->user, "%s", user->pw_name);
    else
        snprintf(c->user, sizeof c->user, "%u", (unsigned)getuid());
    snprintf(c->from, sizeof c->from, "%s@%s", c->user, c->domain);
    c->message.hostname = c->hostname;
    c->message.domain = c->domain;
    c->message.userid = (unsigned)getuid();
    c->message.dot_ends = true;
}

/* "HOST:PORT", "[V6]:PORT", "HOST". */
static int take_gateway(struct command *c, const char *text) {
    struct span s = span_of(text), host = s, port = SPAN("25");
    ptrdiff_t colon = span_rfind(s, ':'), bracket = span_rfind(s, ']');
    if (colon > bracket) {
        host = span_first(s, (size_t)colon);
        port = span_from(s, (size_t)colon + 1);
    }
    if (host.len > 1 && host.at[0] == '[' && host.at[host.len - 1] == ']')
        host = span_make(host.at + 1, host.len - 2);
    if (!host.len || !port.len || host.len >= sizeof c->host || port.len >= sizeof c->port)
        return refuse(EX_CONFIG, "the gateway is named as HOST:PORT", text);
    span_copy(host, c->host, sizeof c->host);
    span_copy(port, c->port, sizeof c->port);
    return EX_OK;
}

static int find_gateway(struct command *c) {
    char line[NAME_MAX_OCTETS + 32];
    const char *named = getenv("POSTHOUSE_SUBMIT");
    if (named && *named)
        return take_gateway(c, named);
    return take_gateway(c, first_line(SUBMIT_FILE, line, sizeof line) ? line : "127.0.0.1:25");
}

/* -N: never, or success, failure, delay. */
static int take_notify(struct command *c, const char *text) {
    struct span rest = span_of(text);
    static const struct {
        const char *name;
        uint32_t bit;
    } words[] = {{"never", 1}, {"success", 2}, {"failure", 4}, {"delay", 8}};
    while (rest.len) {
        struct span word = span_cut(rest, ',', &rest);
        size_t i = 0;
        while (i < 4 && !span_eq_nocase(word, span_of(words[i].name)))
            i++;
        if (i == 4)
            return refuse(EX_USAGE, "-N takes never, or success, failure, delay", text);
        c->notify |= words[i].bit;
    }
    return c->notify > 1 && c->notify & 1 ? refuse(EX_USAGE, "-N never stands alone", text) : EX_OK;
}

static int take_ret(struct command *c, const char *text) {
    c->ret = span_eq_nocase(span_of(text), SPAN("full")) ? 1 : span_eq_nocase(span_of(text), SPAN("hdrs")) ? 2 : 0;
    return c->ret ? EX_OK : refuse(EX_USAGE, "-R takes full or hdrs", text);
}

static int list_queue(void) {
    execlp("mailq", "mailq", (char *)NULL);
    return refuse(EX_UNAVAILABLE, "mailq could not be run", strerror(errno));
}

/* -b: what to be. EX_OK: a mailer; < 0: done. */
static int take_mode(const char *mode) {
    switch (*mode) {
    case 'm':
        return EX_OK;
    case 'p':
        return list_queue();
    case 'i': /* the tables of aliases need no such step */
        return -1;
    default:
        return refuse(EX_USAGE, "this mode is the daemon's (posthoused), or not offered: -b", mode);
    }
}

/* -o: the old ways to say -i; all else tunes a queue. */
static void take_tuning(struct command *c, const char *text) {
    if (*text == 'i')
        c->message.dot_ends = false;
}

static int take_option(struct command *c, int option, const char *value) {
    switch (option) {
    case 'b':
        return take_mode(value);
    case 'f':
    case 'r':
        c->sender = value;
        return EX_OK;
    case 'F':
        c->message.name = value;
        return EX_OK;
    case 'i':
        c->message.dot_ends = false;
        return EX_OK;
    case 'o':
        take_tuning(c, value);
        return EX_OK;
    case 't':
        c->message.wants_recipients = true;
        return EX_OK;
    case 'v':
        c->verbose = true;
        return EX_OK;
    case 'N':
        return take_notify(c, value);
    case 'R':
        return take_ret(c, value);
    case 'V':
        c->envid = value;
        return EX_OK;
    case 'q': /* the daemon runs its queue by itself */
        return -1;
    case 'X': /* whatever is to be written there, it is not ours to write */
        return refuse(EX_USAGE, "not offered: -X", value);
    case 'A':
    case 'B':
    case 'C':
    case 'G':
    case 'h':
    case 'L':
    case 'm':
    case 'n':
    case 'O':
    case 'p':
    case 'U':
    case 'd':
    case 'x':
        return EX_OK;
    default:
        return EX_USAGE;
    }
}

/* Addresses of the command line. */
static int take_recipients(struct command *c, struct recipient_list *l, char **words, int count, struct arena *mem) {
    struct span bad;
    for (int i = 0; i < count; i++) {
        int err = mailboxes_add(l, span_of(words[i]), c->domain, mem, &bad);
        if (err == ERR_INVALID)
            return refuse(EX_USAGE, "not an address", words[i]);
        if (err != ERR_OK)
            return refuse(EX_OSERR, "recipients", err_text(err));
    }
    return EX_OK;
}

/* The reverse-path. "<>" and "" are the null path. */
static int take_sender(struct command *c, struct span *sender, struct arena *mem) {
    struct recipient_list one = {0};
    struct span bad;
    const char *text = c->sender ? c->sender : c->from;
    *sender = SPAN_EMPTY;
    if (c->sender && (!*c->sender || strcmp(c->sender, "<>") == 0))
        return EX_OK;
    if (mailboxes_add(&one, span_of(text), c->domain, mem, &bad) != ERR_OK || one.count != 1)
        return refuse(EX_USAGE, "not a sender", text);
    *sender = one.at[0];
    return EX_OK;
}

static int status_of_reading(int err, struct span bad) {
    switch (err) {
    case ERR_OK:
        return EX_OK;
    case ERR_INVALID:
        return refuse_span(EX_DATAERR, "the message has a NUL, or a field an address that is none", bad);
    case ERR_NOT_FOUND:
        return refuse(EX_USAGE, "no recipient in the header or on the command line", NULL);
    case ERR_RANGE:
    case ERR_FULL:
        return refuse(EX_DATAERR, "the message is too long, or has too many recipients", NULL);
    case ERR_IO:
        return refuse(EX_IOERR, "the message could not be read or kept", strerror(errno));
    default:
        return refuse(EX_OSERR, "the message", err_text(err));
    }
}

static int send_message(struct command *c, char **words, int count, struct arena *mem) {
    struct recipient_list list = {0};
    struct message m;
    struct span sender = SPAN_EMPTY, bad;
    int status = take_recipients(c, &list, words, count, mem);
    if (status == EX_OK && !list.count && !c->message.wants_recipients)
        return refuse(EX_USAGE, "a recipient is needed, or -t", NULL);
    if (status == EX_OK)
        status = take_sender(c, &sender, mem);
    if (status == EX_OK)
        status = find_gateway(c);
    if (status != EX_OK)
        return status;
    c->message.from = c->sender && sender.len ? arena_printf(mem, "%.*s", (int)sender.len, sender.at) : c->from;
    if (!c->message.from)
        return refuse(EX_OSERR, err_text(ERR_NOMEM), NULL);
    status = status_of_reading(message_read(&m, STDIN_FILENO, &c->message, &list, mem, &bad), bad);
    struct submission s = {.host = c->host,
                           .port = c->port,
                           .hostname = c->hostname,
                           .sender = sender,
                           .recipients = &list,
                           .message = &m,
                           .notify = c->notify,
                           .ret = c->ret,
                           .envid = span_of(c->envid),
                           .verbose = c->verbose};
    if (status == EX_OK)
        status = submit(&s);
    message_close(&m);
    return status;
}

int main(int argc, char **argv) {
    struct command c = {0};
    struct arena mem;
    const char *called = argv[0] ? argv[0] : "", *slash = strrchr(called, '/');
    if (strcmp(slash ? slash + 1 : called, "newaliases") == 0)
        return EX_OK;
    find_names(&c);
    /* '+': the first word that is no option ends them, so that no recipient behind it becomes one */
    for (int o; (o = getopt(argc, argv, "+A:B:C:F:GL:N:O:R:UV:X:b:d:f:h:imno:p:q::r:tvx")) != -1;) {
        int status = take_option(&c, o, optarg);
        if (status != EX_OK)
            return status < 0 ? EX_OK : status;
    }
    arena_init(&mem, 64 * 1024, 256u * 1024u * 1024u);
    int status = send_message(&c, argv + optind, argc - optind, &mem);
    arena_deinit(&mem);
    return status;
}
