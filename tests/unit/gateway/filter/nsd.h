/*
 * nsd: a real authoritative DNS server on loopback for unit tests: one process in the foreground, its zones from texts,
 * everything in a temporary directory. And a port that never answers.
 */
#ifndef TESTS_UNIT_GATEWAY_FILTER_NSD_H
#define TESTS_UNIT_GATEWAY_FILTER_NSD_H

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/net/resolver.h"

struct zone {
    const char *name, *records; /* a zone file without SOA and NS */
};
struct nsd {
    pid_t pid;
    char directory[64], servers[32];
    const struct zone *zones;
    size_t count;
};

/* A UDP socket on loopback, bound; port in *port. */
static inline int nsd_socket(int kind, uint16_t *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(*port)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || getsockname(fd, (struct sockaddr *)&a, &len)) {
        close(fd);
        return -1;
    }
    *port = ntohs(a.sin_port);
    return fd;
}

static inline FILE *nsd_file(const struct nsd *n, const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", n->directory, name);
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    return f;
}

static inline void nsd_write(struct nsd *n, uint16_t port) {
    FILE *conf = nsd_file(n, "nsd.conf");
    fprintf(conf,
            "server:\n  ip-address: 127.0.0.1@%u\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"%s\"\n"
            "  database: \"\"\n  pidfile: \"\"\n  logfile: \"%s/nsd.log\"\n  xfrdfile: \"%s/xfrd.state\"\n"
            "  zonelistfile: \"%s/zone.list\"\n  server-count: 1\nremote-control:\n  control-enable: no\n",
            port, n->directory, n->directory, n->directory, n->directory);
    for (size_t i = 0; i < n->count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%zu.zone", i);
        FILE *zone = nsd_file(n, name);
        fprintf(zone, "$ORIGIN %s.\n$TTL 60\n@ SOA ns root 1 3600 600 86400 5\n@ NS ns\nns A 127.0.0.1\n%s\n",
                n->zones[i].name, n->zones[i].records);
        fclose(zone);
        fprintf(conf, "zone:\n  name: \"%s\"\n  zonefile: \"%s\"\n", n->zones[i].name, name);
    }
    fclose(conf);
}

static inline bool nsd_answers(const struct nsd *n) {
    struct resolver *r;
    struct arena mem;
    struct resolver_answer a;
    char name[300];
    snprintf(name, sizeof name, "ns.%s", n->zones[0].name);
    arena_init(&mem, 1024, 0);
    if (resolver_new(&r, n->servers))
        abort();
    bool found = resolver_ask(r, name, RESOLVER_A, clock_mono_ms() + 1000, &mem, &a) == RESOLVER_FOUND;
    resolver_free(r);
    arena_deinit(&mem);
    return found;
}

/* Ends the test program when there is no nsd. */
static inline void nsd_start(struct nsd *n, const struct zone *zones, size_t count) {
    *n = (struct nsd){.directory = "/tmp/posthouse-nsd-XXXXXX", .zones = zones, .count = count};
    if (!mkdtemp(n->directory))
        abort();
    for (int attempt = 0; attempt < 20; attempt++) {
        uint16_t port = 0;
        int udp = nsd_socket(SOCK_DGRAM, &port), tcp = nsd_socket(SOCK_STREAM, &port);
        close(udp);
        close(tcp);
        if (tcp < 0)
            continue;
        nsd_write(n, port);
        snprintf(n->servers, sizeof n->servers, "127.0.0.1:%u", port);
        n->pid = fork();
        if (n->pid == 0) {
            char conf[96];
            setpgid(0, 0);
            snprintf(conf, sizeof conf, "%s/nsd.conf", n->directory);
            execl("/usr/sbin/nsd", "nsd", "-d", "-c", conf, (char *)NULL);
            _exit(127);
        }
        for (int i = 0; i < 200; i++) {
            if (waitpid(n->pid, NULL, WNOHANG) == n->pid)
                break;
            if (nsd_answers(n))
                return;
            usleep(50000);
        }
        kill(-n->pid, SIGKILL);
    }
    fprintf(stderr, "nsd does not start\n");
    abort();
}

static inline void nsd_stop(struct nsd *n) {
    kill(-n->pid, SIGTERM);
    waitpid(n->pid, NULL, 0);
    const char *names[] = {"nsd.conf", "nsd.log", "xfrd.state", "zone.list"};
    char path[160];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", n->directory, names[i]);
        unlink(path);
    }
    for (size_t i = 0; i < n->count; i++) {
        snprintf(path, sizeof path, "%s/%zu.zone", n->directory, i);
        unlink(path);
    }
    rmdir(n->directory);
}

#endif
