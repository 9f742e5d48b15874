/*
 * world: what surrounds a delivery node in its tests: mail servers that follow a script, a name server with a
 * table, and a scheduler's hub that hands out jobs and collects reports. Servers are threads with
 * blocking sockets, so that they share nothing with what they test.
 */
#ifndef TESTS_UNIT_GATEWAY_OUTBOUND_WORLD_H
#define TESTS_UNIT_GATEWAY_OUTBOUND_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/outbound/outbound.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"
#include "tests/unit/base/net/dns_packet.h"

/* -- mail servers -- */

/* Replies by step; NULL: the usual one. Special ones: SILENT says nothing more, CLOSE closes, ENDLESS never ends a
 * reply. "a|b" answers a first and b from then on (in one connection). */
#define SILENT "\1"
#define CLOSE "\2"
#define ENDLESS "\3"
struct script {
    const char *greeting, *ehlo, *helo, *mail, *rcpt, *data, *dot, *rset;
    bool close_after_dot_reply; /* without a word, between transactions */
    uint32_t accept_max;        /* connections at a time; more get 421 */
    uint32_t ehlo_ms;           /* time it takes to answer EHLO */
    uint8_t refuse_from;        /* last octet of a client's address that gets 421; 0: none */
    const char *refuse_with;    /* what it gets instead */
    uint8_t few_from;           /* the same, of one that may have .few_max connections; more get 421 */
    uint32_t few_max;
    uint8_t slow_from; /* the same, of one whose MAIL gets 421 */
};
struct server {
    struct script script;
    int fd;
    pthread_t thread;
    pthread_mutex_t lock;
    _Atomic uint32_t connections, open, open_max, messages, transactions, resets;
    _Atomic uint32_t recipients; /* accepted by RCPT */
    _Atomic uint32_t from[256];  /* connections by the last octet of the client's address */
    uint32_t open_from[256], most_from[256];
    size_t body_len; /* of the last message, as on the wire without the final dot */
    char *body;
    char commands[65536]; /* all of them, each with its LF */
    size_t commands_len;
};
struct session {
    struct server *s;
    int fd;
    FILE *in;
    uint8_t from;
    uint32_t count[8]; /* times that each step came */
    bool mail;         /* MAIL was accepted */
};

static inline const char *pick(const char *script, uint32_t n, const char *usual, char *to, size_t size) {
    if (!script)
        return usual;
    struct span rest = span_of(script), part = SPAN_EMPTY;
    for (uint32_t i = 0; i <= n && (rest.len || i == 0); i++)
        part = span_cut(rest, '|', &rest);
    span_copy(part, to, size);
    return to;
}

/* False: the session is over. */
static inline bool say(struct session *t, const char *script, uint32_t step, const char *usual) {
    char text[4096];
    const char *reply = pick(script, t->count[step]++, usual, text, sizeof text);
    if (strcmp(reply, SILENT) == 0) {
        char c;
        while (recv(t->fd, &c, 1, 0) > 0)
            continue;
        return false;
    }
    if (strcmp(reply, CLOSE) == 0)
        return false;
    if (strcmp(reply, ENDLESS) == 0) {
        while (send(t->fd, "250-and so on\r\n", 15, MSG_NOSIGNAL) > 0)
            continue;
        return false;
    }
    char out[4200];
    int len = snprintf(out, sizeof out, "%s\r\n", reply);
    return send(t->fd, out, (size_t)len, MSG_NOSIGNAL) == len;
}

static inline char class_of(const char *script, uint32_t n, const char *usual) {
    char text[4096];
    return pick(script, n, usual, text, sizeof text)[0];
}

/* What a test reads with still() comes before what its next commands make the servers write: sockets do not say so. */
static _Atomic uint32_t turns;

static inline void next_turn(void) {
    turns++;
}

static inline bool read_body(struct session *t) {
    struct server *s = t->s;
    size_t len = 0, cap = 1 << 16;
    char *body = malloc(cap), line[8192];
    bool whole = false;
    while (fgets(line, sizeof line, t->in)) {
        size_t n = strlen(line);
        if (strcmp(line, ".\r\n") == 0) {
            whole = true;
            break;
        }
        if (len + n > cap)
            body = realloc(body, cap *= 2);
        memcpy(body + len, line, n);
        len += n;
    }
    (void)turns;
    pthread_mutex_lock(&s->lock);
    free(s->body);
    s->body = body;
    s->body_len = len;
    s->messages += whole;
    pthread_mutex_unlock(&s->lock);
    return whole;
}

static inline void keep_command(struct server *s, const char *line) {
    (void)turns;
    pthread_mutex_lock(&s->lock);
    size_t len = strlen(line);
    if (s->commands_len + len < sizeof s->commands) {
        memcpy(s->commands + s->commands_len, line, len + 1);
        s->commands_len += len;
    }
    pthread_mutex_unlock(&s->lock);
}

/* One command; false: the session is over. */
static inline bool serve_line(struct session *t, const char *line, uint32_t *accepted, bool *lmtp) {
    struct server *s = t->s;
    const struct script *x = &s->script;
    if (strncmp(line, "LHLO", 4) == 0)
        *lmtp = true;
    if (strncmp(line, "EHLO", 4) == 0 || strncmp(line, "LHLO", 4) == 0) {
        usleep(x->ehlo_ms * 1000);
        return say(t, x->ehlo, 1,
                   "250-server\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250-DSN\r\n250 SMTPUTF8");
    }
    if (strncmp(line, "HELO", 4) == 0)
        return say(t, x->helo, 2, "250 server");
    if (strncmp(line, "MAIL", 4) == 0) {
        *accepted = 0;
        s->transactions++;
        if (x->slow_from && t->from == x->slow_from)
            return say(t, "421 4.7.0 slow down", 3, NULL) && false;
        t->mail = class_of(x->mail, t->count[3], "250") == '2';
        return say(t, x->mail, 3, "250 2.1.0 sender ok");
    }
    if (strncmp(line, "RCPT", 4) == 0) {
        if (!t->mail)
            return say(t, NULL, 4, "503 5.5.1 no sender");
        bool fine = class_of(x->rcpt, t->count[4], "250") == '2';
        *accepted += fine;
        s->recipients += fine;
        return say(t, x->rcpt, 4, "250 2.1.5 recipient ok");
    }
    if (strncmp(line, "DATA", 4) == 0) {
        if (!t->mail || (*accepted == 0 && !x->data))
            return say(t, NULL, 5, "503 5.5.1 no recipients");
        bool go = class_of(x->data, t->count[5], "354") == '3';
        if (!say(t, x->data, 5, "354 go on"))
            return false;
        if (!go)
            return true;
        if (!read_body(t))
            return false;
        for (uint32_t i = 0; i < (*lmtp ? *accepted : 1); i++) {
            if (!say(t, x->dot, 6, "250 2.0.0 taken"))
                return false;
        }
        return !x->close_after_dot_reply;
    }
    if (strncmp(line, "RSET", 4) == 0) {
        s->resets++;
        return say(t, x->rset, 7, "250 2.0.0 reset");
    }
    if (strncmp(line, "QUIT", 4) == 0) {
        (void)!send(t->fd, "221 2.0.0 bye\r\n", 15, MSG_NOSIGNAL);
        return false;
    }
    return say(t, NULL, 0, "500 5.5.2 what");
}

static inline void *serve(void *arg) {
    struct session *t = arg;
    struct server *s = t->s;
    char line[8192];
    uint32_t accepted = 0;
    bool lmtp = false;
    pthread_mutex_lock(&s->lock);
    s->connections++;
    s->open++;
    bool full = s->script.accept_max && s->open > s->script.accept_max;
    if (!full && s->open > s->open_max)
        s->open_max = s->open;
    uint32_t mine = ++s->open_from[t->from];
    full |= s->script.few_from && t->from == s->script.few_from && mine > s->script.few_max;
    if (!full && mine > s->most_from[t->from])
        s->most_from[t->from] = mine;
    const char *refusal = s->script.refuse_with ? s->script.refuse_with : "421 4.7.0 try again later";
    pthread_mutex_unlock(&s->lock);
    s->from[t->from]++;
    if (full)
        (void)!send(t->fd, "421 4.7.0 too many connections\r\n", 32, MSG_NOSIGNAL);
    else if (t->from && t->from == s->script.refuse_from)
        say(t, refusal, 0, NULL);
    else if (say(t, s->script.greeting, 0, "220 server ready"))
        while (fgets(line, sizeof line, t->in)) {
            keep_command(s, line);
            if (!serve_line(t, line, &accepted, &lmtp))
                break;
        }
    pthread_mutex_lock(&s->lock);
    s->open--;
    s->open_from[t->from]--;
    pthread_mutex_unlock(&s->lock);
    fclose(t->in);
    free(t);
    return NULL;
}

static inline void *accept_all(void *arg) {
    struct server *s = arg;
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    int fd;
    for (; (fd = accept(s->fd, (struct sockaddr *)&peer, &len)) >= 0; len = sizeof peer) {
        struct session *t = calloc(1, sizeof *t);
        pthread_t thread;
        *t = (struct session){.s = s, .fd = fd, .in = fdopen(fd, "r")};
        if (peer.ss_family == AF_INET)
            t->from = ((const uint8_t *)&((const struct sockaddr_in *)&peer)->sin_addr)[3];
        if (pthread_create(&thread, NULL, serve, t) == 0)
            pthread_detach(thread);
    }
    return NULL;
}

static inline int listen_at(const char *ip, uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128)) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline uint16_t port_of(int fd) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    getsockname(fd, (struct sockaddr *)&a, &len);
    return ntohs(a.sin_port);
}

static inline struct server *server_on(int fd, struct script script) {
    struct server *s = calloc(1, sizeof *s);
    assert_true(fd >= 0);
    s->script = script;
    s->fd = fd;
    pthread_mutex_init(&s->lock, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, accept_all, s), 0);
    return s;
}

/* A server at 127.0.0.2 and up, all at one port, which the first one finds. */
static inline struct server *server_start(const char *ip, uint16_t *port, struct script script) {
    struct server *s = server_on(listen_at(ip, *port), script);
    *port = port_of(s->fd);
    return s;
}

static inline struct server *server_start_unix(const char *path, struct script script) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 8), 0);
    return server_on(fd, script);
}

/* What the server has, once it stands still: the lock orders it behind the server's thread. */
static inline struct server *still(struct server *s) {
    pthread_mutex_lock(&s->lock);
    pthread_mutex_unlock(&s->lock);
    return s;
}

static inline void server_stop(struct server *s) {
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&s->lock);
        bool quiet = s->open == 0;
        pthread_mutex_unlock(&s->lock);
        if (quiet)
            break;
        usleep(10000);
    }
    free(s->body);
    free(s);
}

/* -- the name server -- */

/* "MX d.example 10 mx1.example", "A mx1.example 127.0.0.2", "FAIL d.example"; other names do not exist; names that
 * have a row of another type have no data. */
struct names {
    const char *const *rows;
    int fd;
    uint16_t port;
    pthread_t thread;
    _Atomic uint32_t asked;
};

static inline void answer_query(struct names *n, const unsigned char *query, struct packet *p) {
    char name[300];
    size_t len = 0, at = 12;
    while (query[at]) {
        memcpy(name + len, query + at + 1, query[at]);
        len += query[at];
        name[len++] = '.';
        at += query[at] + 1u;
    }
    name[len ? len - 1 : 0] = '\0';
    unsigned type = (unsigned)query[at + 1] << 8 | query[at + 2];
    bool exists = false, fails = false;
    put_question(p, (uint16_t)(query[0] << 8 | query[1]), 0, name, (enum dns_type)type);
    for (const char *const *row = n->rows; *row; row++) {
        char kind[16], owner[300], third[300], target[300] = "";
        int fields = sscanf(*row, "%15s %299s %299s %299s", kind, owner, third, target);
        if (fields < 2 || strcmp(owner, name) != 0)
            continue;
        exists = true;
        fails |= strcmp(kind, "FAIL") == 0;
        if (strcmp(kind, "MX") == 0 && type == DNS_MX) {
            put_mx(p, NULL, 300, (unsigned)atoi(third), strcmp(target, ".") == 0 ? "" : target);
        } else if (strcmp(kind, "A") == 0 && type == DNS_A) {
            size_t data = put_head(p, SECTION_ANSWER, NULL, DNS_A, 300);
            inet_pton(AF_INET, third, p->bytes + p->len);
            p->len += 4;
            end_data(p, data);
        }
    }
    if (!exists || fails)
        p->bytes[3] = (unsigned char)(p->bytes[3] | (fails ? 2 : 3));
}

static inline void *answer_all(void *arg) {
    struct names *n = arg;
    unsigned char query[1500];
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    ssize_t got;
    struct packet *p = malloc(sizeof *p);
    while ((got = recvfrom(n->fd, query, sizeof query, 0, (struct sockaddr *)&from, &len)) > 1) {
        n->asked++;
        answer_query(n, query, p);
        (void)!sendto(n->fd, p->bytes, p->len, 0, (struct sockaddr *)&from, len);
        len = sizeof from;
    }
    free(p);
    return NULL;
}

static inline void names_start(struct names *n, const char *const *rows) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    *n = (struct names){.rows = rows, .fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(n->fd, (struct sockaddr *)&a, sizeof a), 0);
    getsockname(n->fd, (struct sockaddr *)&a, &len);
    n->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&n->thread, NULL, answer_all, n), 0);
}

static inline void names_stop(struct names *n) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(n->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)!sendto(n->fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a); /* one octet ends it */
    pthread_join(n->thread, NULL);
    close(n->fd);
}

#endif
