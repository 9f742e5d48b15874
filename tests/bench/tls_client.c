/*
 * tls_client: the client of tests/bench/tls. Some threads, each with one session after the other, against any server
 * that has STARTTLS:
 *
 *   plain     greeting, EHLO, EHLO, QUIT, without TLS: what a session costs apart from the handshake
 *   full      greeting, EHLO, STARTTLS, a full handshake, EHLO, QUIT
 *   resumed   the same with a ticket; each thread gets its first one before the clock starts
 *   bulk      the same as full with one message of SIZE octets, or with MESSAGES of them
 *   clear     bulk without TLS
 *
 * Prints one line of JSON when all have ended. It does not verify the server: that is the client's own cost.
 *
 * usage: tls_client PORT KIND KEY THREADS SESSIONS SIZE [MESSAGES]      KEY: rsa | ec | any (what the server must sign
 * with)
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "base/clock.h"

enum { THREADS_MAX = 64, SESSIONS_MAX = 1000000, SIZE_MAX_OCTETS = 64 * 1024 * 1024, PIECE = 64 * 1024, SECONDS = 60 };

static struct {
    uint16_t port;
    bool tls, resume;
    unsigned threads, sessions, messages;
    size_t size;
} options;
static SSL_CTX *context;
static pthread_barrier_t begin;
static atomic_uint resumed, handshakes;
static char message[PIECE], version[64];
static atomic_flag version_known = ATOMIC_FLAG_INIT;

struct line {
    int fd;
    SSL *tls; /* NULL: not yet */
};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "tls_client: %s\n", what);
    exit(1);
}

static void put(struct line *l, const char *octets, size_t len) {
    while (len) {
        int most = len > PIECE ? PIECE : (int)len;
        ssize_t n = l->tls ? SSL_write(l->tls, octets, most) : send(l->fd, octets, (size_t)most, MSG_NOSIGNAL);
        if (n <= 0)
            fail("cannot write");
        octets += n;
        len -= (size_t)n;
    }
}

/* Until the last line of a reply, which must begin with `code`. */
static void expect(struct line *l, const char *code) {
    char text[8192];
    size_t len = 0, line = 0;
    int on = 1;
    for (;;) { /* no late acknowledgements: a server that waits for one would be measured asleep */
        setsockopt(l->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
        ssize_t n = l->tls ? SSL_read(l->tls, text + len, (int)(sizeof text - len))
                           : read(l->fd, text + len, sizeof text - len);
        if (n <= 0)
            fail("cannot read");
        len += (size_t)n;
        for (char *lf; (lf = memchr(text + line, '\n', len - line)); line = (size_t)(lf - text) + 1) {
            if (lf - (text + line) < 3 || text[line + 3] == '-')
                continue;
            if (strncmp(text + line, code, 3) != 0)
                fail("an unexpected reply");
            return;
        }
        if (len == sizeof text)
            fail("a reply is too long");
    }
}

static void say(struct line *l, const char *command, const char *code) {
    put(l, command, strlen(command));
    expect(l, code);
}

static void reach(struct line *l) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(options.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval most = {SECONDS, 0};
    int on = 1;
    *l = (struct line){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("cannot connect");
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    expect(l, "220");
    say(l, "EHLO tls.example\r\n", "250");
}

static void note_version(SSL *tls) {
    if (!atomic_flag_test_and_set(&version_known))
        snprintf(version, sizeof version, "%s %s", SSL_get_version(tls), SSL_get_cipher(tls));
}

/* A copy of the thread's ticket is offered, since the library lets none be used twice; one that the server gives is
 * the next one. Servers that give none to a resumed session get the old one again. */
static void secure(struct line *l, SSL_SESSION **ticket) {
    SSL_SESSION *offered = *ticket ? SSL_SESSION_dup(*ticket) : NULL;
    say(l, "STARTTLS\r\n", "220");
    l->tls = SSL_new(context);
    if (!l->tls || SSL_set_fd(l->tls, l->fd) != 1 || (*ticket && (!offered || SSL_set_session(l->tls, offered) != 1)))
        fail("no memory");
    SSL_SESSION_free(offered);
    if (SSL_connect(l->tls) != 1)
        fail("the handshake failed");
    note_version(l->tls);
    atomic_fetch_add(&resumed, SSL_session_reused(l->tls) == 1);
    atomic_fetch_add(&handshakes, 1);
    say(l, "EHLO tls.example\r\n", "250"); /* with TLS 1.3 the ticket comes in front of the reply */
    if (options.resume && SSL_SESSION_is_resumable(SSL_get_session(l->tls))) {
        SSL_SESSION_free(*ticket);
        *ticket = SSL_get1_session(l->tls);
    }
}

static void send_message(struct line *l) {
    say(l, "MAIL FROM:<a@client.test>\r\n", "250");
    say(l, "RCPT TO:<b@sink.test>\r\n", "250");
    say(l, "DATA\r\n", "354");
    for (size_t left = options.size; left;) {
        size_t n = left < PIECE ? left : PIECE;
        put(l, message, n);
        left -= n;
    }
    say(l, "\r\n.\r\n", "250");
}

static void one_session(SSL_SESSION **ticket) {
    struct line l;
    reach(&l);
    if (options.tls)
        secure(&l, ticket);
    else
        say(&l, "EHLO tls.example\r\n", "250");
    for (unsigned i = 0; options.size && i < options.messages; i++)
        send_message(&l);
    say(&l, "QUIT\r\n", "221");
    if (l.tls) /* else its session could not be resumed */
        SSL_set_shutdown(l.tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(l.tls);
    close(l.fd);
}

static void *run(void *arg) {
    SSL_SESSION *ticket = NULL;
    (void)arg;
    if (options.resume)
        one_session(&ticket);
    pthread_barrier_wait(&begin); /* the driver reads CPU times between the two */
    pthread_barrier_wait(&begin);
    for (unsigned i = 0; i < options.sessions / options.threads; i++)
        one_session(&ticket);
    SSL_SESSION_free(ticket);
    return NULL;
}

static void set_up(const char *key) {
    context = SSL_CTX_new(TLS_client_method());
    if (!context)
        fail("no TLS");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    const char *algorithms = strcmp(key, "rsa") == 0  ? "RSA-PSS+SHA256:RSA+SHA256"
                             : strcmp(key, "ec") == 0 ? "ECDSA+SHA256"
                                                      : NULL;
    if (algorithms && SSL_CTX_set1_sigalgs_list(context, algorithms) != 1)
        fail("no such algorithms");
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : 'x';
    memcpy(message + sizeof message - 2, "\r\n", 2); /* so that pieces join at ends of lines */
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS_MAX];
    if (argc != 7 && argc != 8)
        fail("usage: tls_client PORT KIND KEY THREADS SESSIONS SIZE [MESSAGES]");
    options.port = (uint16_t)strtoul(argv[1], NULL, 10);
    options.tls = strcmp(argv[2], "plain") != 0 && strcmp(argv[2], "clear") != 0;
    options.resume = strcmp(argv[2], "resumed") == 0;
    options.threads = (unsigned)strtoul(argv[4], NULL, 10);
    options.sessions = (unsigned)strtoul(argv[5], NULL, 10);
    options.size = strtoul(argv[6], NULL, 10);
    options.messages = argc == 8 ? (unsigned)strtoul(argv[7], NULL, 10) : 1;
    if (options.threads < 1 || options.threads > THREADS_MAX || options.sessions < options.threads ||
        options.sessions > SESSIONS_MAX || options.messages > SESSIONS_MAX || options.size > SIZE_MAX_OCTETS)
        fail("a number is out of bounds");
    set_up(argv[3]);
    pthread_barrier_init(&begin, NULL, options.threads + 1);
    for (unsigned i = 0; i < options.threads; i++) {
        if (pthread_create(&threads[i], NULL, run, NULL))
            fail("no thread");
    }
    pthread_barrier_wait(&begin);
    unsigned before = atomic_load(&handshakes);
    atomic_store(&resumed, 0);
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;
    uint64_t start = clock_mono_us();
    pthread_barrier_wait(&begin);
    for (unsigned i = 0; i < options.threads; i++)
        pthread_join(threads[i], NULL);
    printf("{\"took_us\": %llu, \"sessions\": %u, \"handshakes\": %u, \"resumed\": %u, \"version\": \"%s\"}\n",
           (unsigned long long)(clock_mono_us() - start), options.sessions / options.threads * options.threads,
           atomic_load(&handshakes) - before, atomic_load(&resumed), version);
    SSL_CTX_free(context);
    return 0;
}
