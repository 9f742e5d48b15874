/*
 * flood_client: offers RCPT TO of unknown recipients at a steady rate over many connections, in pipelined groups, and
 * measures how long each verdict takes. The time of a verdict begins when its group was due, not when it could be sent:
 * a server that falls behind cannot hide it.
 *
 *   flood_client PORT DOMAIN CONNECTIONS RATE SECONDS GROUP
 *
 * Loopback only. Prints one JSON object. Used by tests/bench/flood.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rand.h"

enum { CONNECTIONS_MAX = 1000, GROUP_MAX = 100, OUT_MAX = 256 * 1024, VERDICTS_MAX = 5000000, PENDING = 4096 };

struct client {
    int fd;
    char out[OUT_MAX];
    size_t out_len;
    char line[1024];
    size_t line_len;
    uint64_t due[PENDING]; /* of the groups that are sent, a ring */
    unsigned first, groups;
    unsigned left; /* verdicts missing of the oldest group */
    bool closed;
};
static struct client *clients;
static uint32_t *times;
static size_t verdicts, refused, other, dropped;
static unsigned group;

static void fail(const char *what) {
    fprintf(stderr, "flood_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void say_and_hear(int fd, const char *text) {
    char reply[4096];
    size_t len = 0;
    if (text && write(fd, text, strlen(text)) < 0)
        fail("write");
    for (;;) { /* until a line "ddd " has ended */
        ssize_t n = read(fd, reply + len, sizeof reply - 1 - len);
        if (n <= 0)
            fail("the server closed early");
        len += (size_t)n;
        reply[len] = '\0';
        if (reply[len - 1] != '\n')
            continue;
        char *last = reply + len - 1;
        while (last > reply && last[-1] != '\n')
            last--;
        if (strlen(last) > 3 && last[3] == ' ') {
            if (last[0] != '2')
                errno = EPROTO, fail(last);
            return;
        }
    }
}

static void connect_to(struct client *c, uint16_t port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    say_and_hear(c->fd, NULL);
    say_and_hear(c->fd, "EHLO flood.example\r\n");
    say_and_hear(c->fd, "MAIL FROM:<>\r\n");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static void flush(struct client *c) {
    while (c->out_len && !c->closed) {
        ssize_t n = write(c->fd, c->out, c->out_len);
        if (n <= 0) {
            c->closed = n < 0 && errno != EAGAIN && errno != EINTR;
            return;
        }
        memmove(c->out, c->out + n, c->out_len - (size_t)n);
        c->out_len -= (size_t)n;
    }
}

static void send_group(struct client *c, struct rand *r, const char *domain, uint64_t due) {
    if (c->closed || c->groups == PENDING || OUT_MAX - c->out_len < group * 300u) {
        dropped += group; /* it is so far behind that we cannot even offer it */
        return;
    }
    for (unsigned i = 0; i < group; i++)
        c->out_len += (size_t)snprintf(c->out + c->out_len, OUT_MAX - c->out_len, "RCPT TO:<unknown%016llx@%s>\r\n",
                                       (unsigned long long)rand_u64(r), domain);
    c->due[(c->first + c->groups++) % PENDING] = due;
    if (c->groups == 1)
        c->left = group;
    flush(c);
}

static void take_verdict(struct client *c, const char *line, uint64_t now) {
    if (!c->groups) {
        c->closed = true; /* 421 or the like */
        return;
    }
    uint64_t took = now - c->due[c->first];
    times[verdicts++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    if (strncmp(line, "550", 3) == 0)
        refused++;
    else
        other++;
    if (--c->left == 0) {
        c->first = (c->first + 1) % PENDING;
        c->groups--;
        c->left = group;
    }
}

static void hear(struct client *c) {
    char bytes[16384];
    ssize_t n;
    while ((n = read(c->fd, bytes, sizeof bytes)) > 0) {
        uint64_t now = clock_mono_us();
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] != '\n') {
                if (c->line_len < sizeof c->line - 1)
                    c->line[c->line_len++] = bytes[i];
                continue;
            }
            c->line[c->line_len] = '\0';
            if (c->line_len > 3 && c->line[3] == ' ' && verdicts < VERDICTS_MAX)
                take_verdict(c, c->line, now);
            c->line_len = 0;
        }
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->closed = true;
}

static bool is_pending(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        if (clients[i].groups && !clients[i].closed)
            return true;
    }
    return false;
}

static void run(unsigned count, const char *domain, double rate, uint64_t seconds) {
    static struct pollfd fds[CONNECTIONS_MAX];
    struct rand r;
    rand_init(&r, 7);
    uint64_t start = clock_mono_us(), end = start + seconds * 1000000, sent = 0;
    for (;;) {
        uint64_t now = clock_mono_us(), due = start;
        while ((due = start + (uint64_t)((double)sent * group * 1e6 / rate)) <= now && due < end)
            send_group(&clients[sent++ % count], &r, domain, due);
        if (now >= end && (!is_pending(count) || now > end + 30000000))
            return;
        for (unsigned i = 0; i < count; i++)
            fds[i] = (struct pollfd){.fd = clients[i].closed ? -1 : clients[i].fd,
                                     .events = (short)(POLLIN | (clients[i].out_len ? POLLOUT : 0))};
        struct timespec wait = {0, due > now && due < end ? (long)(due - now) * 1000 : 1000000};
        if (wait.tv_nsec > 1000000)
            wait.tv_nsec = 1000000;
        if (ppoll(fds, count, &wait, NULL) < 0 && errno != EINTR)
            fail("poll");
        for (unsigned i = 0; i < count; i++) {
            if (fds[i].revents & POLLOUT)
                flush(&clients[i]);
            if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
                hear(&clients[i]);
        }
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static unsigned long long percentile(double p) {
    return verdicts ? times[(size_t)((double)(verdicts - 1) * p)] : 0;
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fputs("usage: flood_client PORT DOMAIN CONNECTIONS RATE SECONDS GROUP\n", stderr);
        return 64;
    }
    unsigned count = (unsigned)strtoul(argv[3], NULL, 10);
    double rate = strtod(argv[4], NULL);
    uint64_t seconds = strtoull(argv[5], NULL, 10);
    group = (unsigned)strtoul(argv[6], NULL, 10);
    if (count < 1 || count > CONNECTIONS_MAX || group < 1 || group > GROUP_MAX || rate < 1 || seconds < 1 ||
        rate * (double)seconds > VERDICTS_MAX) {
        fputs("flood_client: a number is out of bounds\n", stderr);
        return 64;
    }
    clients = calloc(count, sizeof *clients);
    times = calloc(VERDICTS_MAX, sizeof *times);
    if (!clients || !times)
        fail("memory");
    for (unsigned i = 0; i < count; i++)
        connect_to(&clients[i], (uint16_t)strtoul(argv[1], NULL, 10));
    puts("ready"); /* the driver reads the CPU time now */
    fflush(stdout);
    if (getchar() == EOF)
        return 1;
    uint64_t start = clock_mono_us();
    run(count, argv[2], rate, seconds);
    uint64_t took = clock_mono_us() - start;
    qsort(times, verdicts, sizeof *times, compare);
    unsigned closed = 0;
    for (unsigned i = 0; i < count; i++)
        closed += clients[i].closed;
    printf("{\"verdicts\": %zu, \"refused\": %zu, \"other\": %zu, \"not_offered\": %zu, \"closed\": %u, \"took_us\": "
           "%llu, "
           "\"p50_us\": %llu, \"p99_us\": %llu, \"max_us\": %llu}\n",
           verdicts, refused, other, dropped, closed, (unsigned long long)took, percentile(0.5), percentile(0.99),
           percentile(1.0));
    return 0;
}
