/*
 * tcp_addr: socket addresses as values: reading, writing, comparing, networks. Pure, except
 * for tcp_addr_is_local, which asks the kernel for the addresses of the interfaces once a
 * minute at most (mail must never be sent to ourselves by way of a stranger's MX).
 *
 * IPv4 and IPv4-mapped IPv6 are one: everything compares the 16-byte form.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/tcp.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void set_v4(struct tcp_addr *a, struct in_addr ip, uint16_t port) {
    struct sockaddr_in *sin = (struct sockaddr_in *)&a->storage;
    *sin = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = ip};
    a->len = sizeof *sin;
}

static void set_v6(struct tcp_addr *a, struct in6_addr ip, uint16_t port) {
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&a->storage;
    *sin6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = ip};
    a->len = sizeof *sin6;
}

static int set_unix(struct tcp_addr *a, struct span path) {
    struct sockaddr_un *sun = (struct sockaddr_un *)&a->storage;
    if (path.len == 0 || path.len >= sizeof sun->sun_path || span_find(path, '\0') >= 0)
        return ERR_INVALID;
    sun->sun_family = AF_UNIX;
    span_copy(path, sun->sun_path, sizeof sun->sun_path);
    a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    return ERR_OK;
}

int tcp_addr_parse(struct tcp_addr *a, struct span text, uint16_t port) {
    memset(a, 0, sizeof *a);
    if (span_starts_nocase(text, SPAN("unix:")))
        return set_unix(a, span_from(text, 5));
    if (text.len >= 2 && text.at[0] == '[' && text.at[text.len - 1] == ']') {
        text = span_first(span_from(text, 1), text.len - 2);
        if (span_find(text, ':') < 0)
            return ERR_INVALID;
    }
    char ip[INET6_ADDRSTRLEN];
    if (text.len >= sizeof ip || span_find(text, '\0') >= 0)
        return ERR_INVALID;
    span_copy(text, ip, sizeof ip);
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, ip, &v4) == 1)
        set_v4(a, v4, port);
    else if (inet_pton(AF_INET6, ip, &v6) == 1)
        set_v6(a, v6, port);
    else
        return ERR_INVALID;
    return ERR_OK;
}

int tcp_addr_parse_port(struct tcp_addr *a, struct span text) {
    if (span_starts_nocase(text, SPAN("unix:")))
        return tcp_addr_parse(a, text, 0);
    ptrdiff_t colon = span_rfind(text, ':');
    uint64_t port;
    if (colon <= 0 || !span_u64(span_from(text, (size_t)colon + 1), &port) || port > 65535)
        return ERR_INVALID;
    struct span host = span_first(text, (size_t)colon);
    if (host.at[0] != '[' && span_find(host, ':') >= 0)
        return ERR_INVALID; /* IPv6 without brackets: where the port begins would be a guess */
    return tcp_addr_parse(a, host, (uint16_t)port);
}

/* The 16-byte form; false for unix sockets. */
static bool ip_bytes(const struct tcp_addr *a, uint8_t to[16]) {
    if (a->storage.ss_family == AF_INET) {
        memcpy(to, mapped_prefix, 12);
        memcpy(to + 12, &((const struct sockaddr_in *)&a->storage)->sin_addr, 4);
        return true;
    }
    if (a->storage.ss_family == AF_INET6) {
        memcpy(to, &((const struct sockaddr_in6 *)&a->storage)->sin6_addr, 16);
        return true;
    }
    return false;
}

static bool is_mapped(const uint8_t ip[16]) {
    return memcmp(ip, mapped_prefix, 12) == 0;
}

static size_t format_unix(const struct tcp_addr *a, char *to, size_t size) {
    const struct sockaddr_un *sun = (const struct sockaddr_un *)&a->storage;
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t len = a->storage.ss_family == AF_UNIX && a->len > head ? strnlen(sun->sun_path, a->len - head) : 0;
    return (size_t)snprintf(to, size, "unix:%.*s", (int)len, sun->sun_path);
}

size_t tcp_addr_ip(const struct tcp_addr *a, char *to, size_t size) {
    uint8_t ip[16];
    CHECK(size >= 110);
    if (!ip_bytes(a, ip))
        return format_unix(a, to, size < 120 ? size : 120);
    bool v4 = is_mapped(ip);
    CHECK(inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip + 12 : ip, to, (socklen_t)size));
    return strlen(to);
}

size_t tcp_addr_format(const struct tcp_addr *a, char *to, size_t size) {
    char ip[128];
    CHECK(size >= 120);
    size_t len = tcp_addr_ip(a, ip, sizeof ip);
    if (a->storage.ss_family != AF_INET && a->storage.ss_family != AF_INET6)
        return span_copy(span_make(ip, len), to, size);
    return (size_t)snprintf(to, size, tcp_addr_is_v6(a) ? "[%s]:%u" : "%s:%u", ip, (unsigned)tcp_addr_port(a));
}

uint16_t tcp_addr_port(const struct tcp_addr *a) {
    if (a->storage.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&a->storage)->sin_port);
    if (a->storage.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&a->storage)->sin6_port);
    return 0;
}

bool tcp_addr_is_v6(const struct tcp_addr *a) {
    uint8_t ip[16];
    return ip_bytes(a, ip) && !is_mapped(ip);
}

bool tcp_addr_is_loopback(const struct tcp_addr *a) {
    static const uint8_t v6_loopback[16] = {[15] = 1};
    uint8_t ip[16];
    if (!ip_bytes(a, ip))
        return a->storage.ss_family == AF_UNIX;
    return is_mapped(ip) ? ip[12] == 127 : memcmp(ip, v6_loopback, 16) == 0;
}

bool tcp_addr_is_unusable(const struct tcp_addr *a) {
    static const uint8_t v6_any[16] = {0};
    uint8_t ip[16];
    if (!ip_bytes(a, ip))
        return false;
    if (is_mapped(ip))
        return ip[12] == 0 || ip[12] >= 224;
    return ip[0] == 0xff || memcmp(ip, v6_any, 16) == 0;
}

bool tcp_addr_same_ip(const struct tcp_addr *a, const struct tcp_addr *b) {
    uint8_t x[16], y[16];
    return ip_bytes(a, x) && ip_bytes(b, y) && memcmp(x, y, 16) == 0;
}

/* -- addresses of this machine -- */

enum { LOCAL_MAX = 256, LOCAL_FRESH_MS = 60000 };
static pthread_mutex_t local_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t read_ms;
    size_t count;
    bool known;
    uint8_t ips[LOCAL_MAX][16];
} local;

static void read_local(uint64_t now_ms) {
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return; /* what was read before stays good enough */
    local.count = 0;
    for (struct ifaddrs *i = all; i && local.count < LOCAL_MAX; i = i->ifa_next) {
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        struct tcp_addr a = {0};
        a.len = i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(&a.storage, i->ifa_addr, a.len);
        if (ip_bytes(&a, local.ips[local.count]))
            local.count++;
    }
    freeifaddrs(all);
    local.read_ms = now_ms;
    local.known = true;
}

bool tcp_addr_is_local(const struct tcp_addr *a) {
    uint8_t ip[16];
    if (!ip_bytes(a, ip) || tcp_addr_is_loopback(a))
        return true;
    uint64_t now_ms = clock_mono_ms();
    bool found = false;
    pthread_mutex_lock(&local_lock);
    if (!local.known || now_ms - local.read_ms >= LOCAL_FRESH_MS)
        read_local(now_ms);
    for (size_t i = 0; i < local.count && !found; i++)
        found = memcmp(local.ips[i], ip, 16) == 0;
    pthread_mutex_unlock(&local_lock);
    return found;
}

/* -- networks -- */

static bool bit_is_set(const uint8_t ip[16], unsigned bit) {
    return ip[bit / 8] & (0x80 >> bit % 8);
}

int tcp_net_parse(struct tcp_net *n, struct span text) {
    struct span bits_text, host = span_cut(text, '/', &bits_text);
    struct tcp_addr a;
    if (tcp_addr_parse(&a, host, 0) || !ip_bytes(&a, n->bytes))
        return ERR_INVALID;
    uint64_t most = a.storage.ss_family == AF_INET ? 32 : 128, bits = most;
    if (host.len < text.len && (!span_u64(bits_text, &bits) || bits > most))
        return ERR_INVALID;
    n->bits = (uint8_t)(bits + 128 - most);
    for (unsigned bit = n->bits; bit < 128; bit++) {
        if (bit_is_set(n->bytes, bit))
            return ERR_INVALID;
    }
    return ERR_OK;
}

bool tcp_net_has(const struct tcp_net *n, const struct tcp_addr *a) {
    uint8_t ip[16];
    if (!ip_bytes(a, ip) || memcmp(ip, n->bytes, n->bits / 8) != 0)
        return false;
    if (n->bits % 8 == 0)
        return true;
    uint8_t mask = (uint8_t)(0xff << (8 - n->bits % 8));
    return (ip[n->bits / 8] & mask) == n->bytes[n->bits / 8];
}
