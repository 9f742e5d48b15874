/*
 * tls_sink: the receiving server of tests/bench/relay_tls. It demands STARTTLS, takes every message and forgets it.
 * One thread for each connection, blocking calls: the systems under test open a few dozen
 * connections at most, and what it costs must be little beside what they cost.
 *
 * Prints one line of JSON when it has so many MESSAGES: connections, handshakes, and how many of these were resumed. It
 * goes on, for those that say QUIT yet, and ends when its standard input does.
 *
 * usage: tls_sink PORT CERTIFICATE KEY MESSAGES
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <openssl/ssl.h>

enum { THREADS_MAX = 256, INPUT = 64 * 1024, OUTPUT = 4096, SECONDS = 60, STACK = 256 * 1024 };

struct peer {
    int fd;
    SSL *tls;             /* NULL: not yet */
    size_t at, len, said; /* read up to here; of in; of out */
    char in[INPUT], out[OUTPUT];
};

static SSL_CTX *context;
static unsigned wanted;
static atomic_uint messages, connections, handshakes, resumed, threads;

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "tls_sink: %s\n", what);
    exit(1);
}

static bool flush(struct peer *p) {
    for (size_t done = 0; done < p->said;) {
        ssize_t n = p->tls ? SSL_write(p->tls, p->out + done, (int)(p->said - done))
                           : send(p->fd, p->out + done, p->said - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    p->said = 0;
    return true;
}

static bool say(struct peer *p, const char *text) {
    size_t len = strlen(text);
    if (p->said + len > OUTPUT && !flush(p))
        return false;
    memcpy(p->out + p->said, text, len);
    p->said += len;
    return true;
}

/* More input behind what is there. Replies go out first, since the client may be waiting for them. */
static bool more(struct peer *p) {
    if (p->at) {
        memmove(p->in, p->in + p->at, p->len - p->at);
        p->len -= p->at;
        p->at = 0;
    }
    if (p->len == INPUT || !flush(p))
        return false;
    int most = (int)(INPUT - p->len);
    ssize_t n = p->tls ? SSL_read(p->tls, p->in + p->len, most) : read(p->fd, p->in + p->len, (size_t)most);
    if (n <= 0)
        return false;
    p->len += (size_t)n;
    return true;
}

/* One line with its end, in the buffer until the next call; NULL: the connection is over. */
static const char *next_line(struct peer *p) {
    for (;;) {
        char *lf = memchr(p->in + p->at, '\n', p->len - p->at);
        if (lf) {
            const char *line = p->in + p->at;
            p->at = (size_t)(lf - p->in) + 1;
            return line;
        }
        if (!more(p))
            return NULL;
    }
}

/* The whole of a message, up to and with its final dot. */
static bool take_message(struct peer *p) {
    bool start = true; /* of a line */
    for (;;) {
        while (p->at < p->len) {
            const char *from = p->in + p->at;
            if (start && *from == '.') {
                if (p->len - p->at < 3)
                    break;
                if (memcmp(from, ".\r\n", 3) == 0) {
                    p->at += 3;
                    return true;
                }
            }
            const char *lf = memchr(from, '\n', p->len - p->at);
            p->at = lf ? (size_t)(lf - p->in) + 1 : p->len;
            start = lf != NULL;
        }
        if (!more(p))
            return false;
    }
}

static bool secure(struct peer *p) {
    if (p->tls || p->at != p->len || !say(p, "220 go on\r\n") || !flush(p))
        return false;
    p->at = p->len = 0;
    p->tls = SSL_new(context);
    if (!p->tls || SSL_set_fd(p->tls, p->fd) != 1 || SSL_accept(p->tls) != 1)
        return false;
    atomic_fetch_add(&handshakes, 1);
    atomic_fetch_add(&resumed, SSL_session_reused(p->tls) == 1);
    return true;
}

static void tell_if_last(void) {
    if (atomic_fetch_add(&messages, 1) + 1 != wanted)
        return;
    printf("{\"connections\": %u, \"handshakes\": %u, \"resumed\": %u}\n", atomic_load(&connections),
           atomic_load(&handshakes), atomic_load(&resumed));
    fflush(stdout);
}

static bool data(struct peer *p) {
    if (!say(p, "354 go on\r\n") || !take_message(p) || !say(p, "250 taken\r\n") || !flush(p))
        return false;
    tell_if_last();
    return true;
}

static bool obey(struct peer *p, const char *line) {
    if (strncasecmp(line, "EHLO", 4) == 0)
        return say(p, p->tls ? "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"
                             : "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250 STARTTLS\r\n");
    if (strncasecmp(line, "STARTTLS", 8) == 0)
        return secure(p);
    if (strncasecmp(line, "QUIT", 4) == 0) {
        if (say(p, "221 bye\r\n"))
            (void)flush(p);
        return false;
    }
    if (strncasecmp(line, "MAIL", 4) == 0 && !p->tls)
        return say(p, "530 5.7.0 STARTTLS first\r\n");
    if (strncasecmp(line, "DATA", 4) == 0)
        return p->tls && data(p);
    return say(p, "250 fine\r\n");
}

static void *serve(void *arg) {
    struct peer *p = arg;
    if (say(p, "220 sink.test ESMTP\r\n") && flush(p)) {
        atomic_fetch_add(&connections, 1);
        for (const char *line; (line = next_line(p)) && obey(p, line);)
            ;
    }
    if (p->tls) { /* else its session could not be resumed */
        SSL_set_shutdown(p->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(p->tls);
    }
    close(p->fd);
    free(p);
    atomic_fetch_sub(&threads, 1);
    return NULL;
}

static void welcome(int fd, const pthread_attr_t *attributes) {
    struct timeval most = {SECONDS, 0};
    pthread_t thread;
    int on = 1;
    struct peer *p = atomic_load(&threads) < THREADS_MAX ? malloc(sizeof *p) : NULL;
    if (!p) {
        close(fd);
        return;
    }
    p->fd = fd;
    p->tls = NULL;
    p->at = p->len = p->said = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    atomic_fetch_add(&threads, 1);
    if (pthread_create(&thread, attributes, serve, p) != 0)
        fail("no thread");
}

int main(int argc, char **argv) {
    pthread_attr_t attributes;
    int on = 1;
    if (argc != 5)
        fail("usage: tls_sink PORT CERTIFICATE KEY MESSAGES");
    wanted = (unsigned)strtoul(argv[4], NULL, 10);
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1)
        fail("no certificate");
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"sink", 4);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 1000) != 0)
        fail("cannot listen");
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    struct pollfd watched[] = {{.fd = listener, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    while (poll(watched, 2, -1) > 0 && !watched[1].revents) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            welcome(fd, &attributes);
    }
    _exit(0); /* with the threads that are left */
}
