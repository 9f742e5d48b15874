/*
 * submit: hands a message to the gateway over one blocking connection, with the same client core that the delivery node
 * uses. Recipients that the server leaves for a next transaction go into a next one.
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/sendmail/sendmail.h"
#include "gateway/smtp/stuff.h"

#define IN_SIZE 16384u
#define PIECES 64u
#define WAIT_S 300 /* for each octet of the other side (RFC 5321 section 4.5.3.2) */

enum fate { WAITS, SENDING, TAKEN, REFUSED, NOT_NOW };

struct run {
    const struct submission *s;
    struct client client;
    int fd;
    uint8_t fate[SENDMAIL_RECIPIENTS_MAX];
    size_t of[CLIENT_RCPT_MAX]; /* recipients of the transaction */
    struct client_recipient rcpt[CLIENT_RCPT_MAX];
    struct client_mail mail;
    bool lost; /* the connection */
};

/* -- octets -- */
static int dial(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timeval wait = {.tv_sec = WAIT_S};
    int fd = -1;
    int err = getaddrinfo(host, port, &hints, &found);
    if (err != 0) {
        fprintf(stderr, "sendmail: %s: %s\n", host, gai_strerror(err));
        return -1;
    }
    int why = 0;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0)
        fprintf(stderr, "sendmail: no gateway at %s port %s: %s\n", host, port, strerror(why));
    return fd;
}

static void put(struct run *r, struct span s) {
    while (s.len && !r->lost) {
        ssize_t n = send(r->fd, s.at, s.len, MSG_NOSIGNAL);
        if (n > 0)
            s = span_from(s, (size_t)n);
        else if (errno != EINTR)
            r->lost = true;
    }
}

static void say(const struct run *r, const char *who, struct span text) {
    if (!r->s->verbose)
        return;
    while (text.len) {
        struct span line = span_cut(text, '\n', &text);
        fprintf(stderr, "%s %.*s\n", who, (int)(line.len && line.at[line.len - 1] == '\r' ? line.len - 1 : line.len),
                line.at);
    }
}

static void flush_commands(struct run *r) {
    struct span out = buf_span(&r->client.out);
    say(r, ">", out);
    put(r, out);
    buf_clear(&r->client.out);
}

static void put_stuffed(struct run *r, struct stuff *stuff, struct span s) {
    struct span pieces[PIECES];
    while (s.len && !r->lost) {
        size_t used, n = stuff_next(stuff, s, pieces, PIECES, &used);
        for (size_t i = 0; i < n; i++)
            put(r, pieces[i]);
        s = span_from(s, used);
    }
}

static void put_body(struct run *r) {
    char mem[65536];
    struct stuff stuff;
    off_t at = 0;
    ssize_t n;
    stuff_init(&stuff);
    put_stuffed(r, &stuff, buf_span(&r->s->message->header));
    while (!r->lost && (n = pread(r->s->message->fd, mem, sizeof mem, at)) != 0) {
        if (n < 0) { /* half a message must not end in a dot */
            r->lost = true;
            return;
        }
        put_stuffed(r, &stuff, span_make(mem, (size_t)n));
        at += n;
    }
    put(r, stuff_end(&stuff));
    client_body_sent(&r->client);
}

/* -- verdicts -- */
static void settle(struct run *r, size_t which, const struct client_event *e) {
    struct span who = r->s->recipients->at[which];
    if (e->answer == CLIENT_ANSWER_2) {
        r->fate[which] = TAKEN;
        return;
    }
    r->fate[which] = e->answer == CLIENT_ANSWER_5 ? REFUSED : NOT_NOW;
    struct span text = e->reply ? reply_text(e->reply) : SPAN("no answer");
    fprintf(stderr, "sendmail: %.*s: %u %.*s (%s)\n", (int)who.len, who.at, e->reply ? e->reply->code : 0,
            (int)text.len, text.at, client_stage_name(e->stage));
}

static void settle_rest(struct run *r, const struct client_event *e) {
    for (uint32_t i = 0; i < r->mail.count; i++)
        if (r->fate[r->of[i]] == SENDING)
            settle(r, r->of[i], e);
}

/* All that nothing was said of. */
static void settle_all(struct run *r, const struct client_event *e) {
    for (size_t i = 0; i < r->s->recipients->count; i++)
        if (r->fate[i] == WAITS || r->fate[i] == SENDING)
            settle(r, i, e);
}

/* -- transactions -- */
static void begin(struct run *r) {
    uint32_t most = r->client.ext.rcpt_max ? r->client.ext.rcpt_max : CLIENT_RCPT_DEFAULT, count = 0;
    if (most > CLIENT_RCPT_MAX)
        most = CLIENT_RCPT_MAX;
    for (size_t i = 0; i < r->s->recipients->count && count < most; i++) {
        if (r->fate[i] != WAITS)
            continue;
        r->fate[i] = SENDING;
        r->of[count] = i;
        r->rcpt[count++] = (struct client_recipient){.address = r->s->recipients->at[i], .notify = r->s->notify};
    }
    if (!count) {
        r->mail.count = 0;
        client_quit(&r->client);
        return;
    }
    r->mail = (struct client_mail){.sender = r->s->sender,
                                   .size = r->s->message->size,
                                   .eight_bit = r->s->message->eight_bit,
                                   .ret = r->s->ret,
                                   .envid = r->s->envid,
                                   .recipients = r->rcpt,
                                   .count = count};
    struct client_event e = {.stage = CLIENT_MAIL, .answer = CLIENT_ANSWER_5};
    if (client_begin(&r->client, &r->mail) != ERR_OK) {
        settle_rest(r, &e);
        client_quit(&r->client);
    }
}

static void on_event(struct run *r, const struct client_event *e) {
    switch (e->kind) {
    case CLIENT_EV_READY:
        begin(r);
        break;
    case CLIENT_EV_RECIPIENT:
        settle(r, r->of[e->index], e);
        break;
    case CLIENT_EV_LATER:
        r->fate[r->of[e->index]] = WAITS;
        break;
    case CLIENT_EV_ALL:
        settle_rest(r, e);
        break;
    case CLIENT_EV_BODY:
        flush_commands(r);
        put_body(r);
        break;
    case CLIENT_EV_END:
        settle_all(r, e);
        break;
    default:
        break;
    }
}

static void talk(struct run *r) {
    char mem[IN_SIZE];
    struct client_event e = {0};
    for (;;) {
        flush_commands(r);
        ssize_t n = r->lost ? 0 : recv(r->fd, mem, sizeof mem, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        struct span in = span_make(mem, (size_t)n);
        say(r, "<", in);
        do {
            client_next(&r->client, &in, &e);
            on_event(r, &e);
        } while (e.kind != CLIENT_EV_MORE && e.kind != CLIENT_EV_END);
        if (e.kind == CLIENT_EV_END)
            return;
    }
    e = (struct client_event){.stage = r->client.state, .answer = CLIENT_ANSWER_LOST};
    settle_all(r, &e);
}

static int status_of(const struct run *r) {
    size_t taken = 0, refused = 0, later = 0;
    for (size_t i = 0; i < r->s->recipients->count; i++) {
        taken += r->fate[i] == TAKEN;
        refused += r->fate[i] == REFUSED;
        later += r->fate[i] != TAKEN && r->fate[i] != REFUSED;
    }
    if (later)
        return EX_TEMPFAIL;
    return !refused ? EX_OK : taken ? EX_NOUSER : EX_UNAVAILABLE;
}

int submit(const struct submission *s) {
    static struct run r; /* too large for the stack; one a process */
    r = (struct run){.s = s, .fd = dial(s->host, s->port)};
    if (r.fd < 0)
        return EX_TEMPFAIL;
    client_init(&r.client, CLIENT_SMTP, s->hostname);
    r.client.tls = CLIENT_TLS_NEVER;
    talk(&r);
    client_deinit(&r.client);
    close(r.fd);
    return status_of(&r);
}
