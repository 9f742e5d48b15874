/*
 * resolver: see resolver.h. The question goes through res_nquery with a state of its own, whose servers are ours and
 * whose patience is cut to the deadline (the C library counts in seconds). Truncated answers are asked again over TCP
 * here and not by the C library, because its TCP has no time-out at all.
 */
#include "base/net/resolver.h"

#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"

#include "base/net/tcp.h"

#define ANSWER_MAX 65535
#define HEADER_LEN 12

struct resolver {
    struct __res_state state;
    struct tcp_addr servers[RESOLVER_SERVERS_MAX];
    size_t count;
    unsigned char answer[ANSWER_MAX];
};

static int parse_server(struct tcp_addr *a, struct span text) {
    if (tcp_addr_parse_port(a, text) == ERR_OK && a->storage.ss_family != AF_UNIX)
        return ERR_OK;
    return tcp_addr_parse(a, text, 53) == ERR_OK && a->storage.ss_family != AF_UNIX ? ERR_OK : ERR_INVALID;
}

static int parse_servers(struct resolver *r, const char *servers) {
    struct span rest = span_of(servers);
    while (rest.len) {
        struct tcp_addr a;
        if (parse_server(&a, span_trim(span_cut(rest, ',', &rest))))
            return ERR_INVALID;
        if (r->count < RESOLVER_SERVERS_MAX)
            r->servers[r->count++] = a;
    }
    return r->count ? ERR_OK : ERR_INVALID;
}

/* IPv6 servers live in the extension of the state, where the first list has family 0; res_nclose frees them. */
static int use_servers(struct resolver *r) {
    struct __res_state *s = &r->state;
    for (size_t i = 0; i < r->count; i++) {
        const struct sockaddr *sa = (const struct sockaddr *)&r->servers[i].storage;
        memset(&s->nsaddr_list[i], 0, sizeof s->nsaddr_list[i]);
        if (sa->sa_family == AF_INET) {
            memcpy(&s->nsaddr_list[i], sa, sizeof s->nsaddr_list[i]);
            continue;
        }
        if (!s->_u._ext.nsaddrs[i])
            s->_u._ext.nsaddrs[i] = malloc(sizeof *s->_u._ext.nsaddrs[i]);
        if (!s->_u._ext.nsaddrs[i])
            return ERR_NOMEM;
        memcpy(s->_u._ext.nsaddrs[i], sa, sizeof *s->_u._ext.nsaddrs[i]);
    }
    s->nscount = (int)r->count;
    s->_u._ext.nscount = 0; /* looked up anew at the first question */
    return ERR_OK;
}

/* The system's servers, for our own TCP. */
static void copy_servers(struct resolver *r) {
    const struct __res_state *s = &r->state;
    for (int i = 0; i < s->nscount && i < RESOLVER_SERVERS_MAX; i++) {
        struct tcp_addr *a = &r->servers[r->count];
        memset(a, 0, sizeof *a);
        if (s->nsaddr_list[i].sin_family == AF_INET) {
            memcpy(&a->storage, &s->nsaddr_list[i], a->len = sizeof s->nsaddr_list[i]);
            r->count++;
        } else if (s->_u._ext.nsaddrs[i]) {
            memcpy(&a->storage, s->_u._ext.nsaddrs[i], a->len = sizeof *s->_u._ext.nsaddrs[i]);
            r->count++;
        }
    }
}

int resolver_new(struct resolver **out, const char *servers) {
    struct resolver *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    int err = servers ? parse_servers(r, servers) : ERR_OK;
    if (err || res_ninit(&r->state)) {
        free(r);
        return err ? err : ERR_NOMEM;
    }
    if (servers)
        err = use_servers(r);
    else
        copy_servers(r);
    if (err) {
        resolver_free(r);
        return err;
    }
    r->state.options &= ~(unsigned long)(RES_DEFNAMES | RES_DNSRCH);
    r->state.options |= RES_USE_EDNS0 | RES_IGNTC | RES_RECURSE;
    *out = r;
    return ERR_OK;
}

void resolver_free(struct resolver *r) {
    if (!r)
        return;
    res_nclose(&r->state);
    free(r);
}

static bool name_is_askable(const char *name) {
    size_t len = strlen(name), label = 0;
    if (len && name[len - 1] == '.')
        len--;
    if (!len || len > 253)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c <= 0x20 || c >= 0x7f || c == '\\')
            return false;
        if (c != '.')
            label++;
        else if (!label)
            return false;
        else
            label = 0;
        if (label > 63)
            return false;
    }
    return label > 0;
}

/* -- TCP -- */
static bool set_patience(int fd, uint64_t deadline_ms) {
    uint64_t now = clock_mono_ms();
    if (now >= deadline_ms)
        return false;
    uint64_t left = deadline_ms - now;
    struct timeval t = {.tv_sec = (time_t)(left / 1000), .tv_usec = (suseconds_t)(left % 1000 * 1000)};
    return !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) &&
           !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

static bool receive(int fd, unsigned char *to, size_t len, uint64_t deadline_ms) {
    for (size_t got = 0; got < len;) {
        if (!set_patience(fd, deadline_ms))
            return false;
        ssize_t n = recv(fd, to + got, len - got, 0);
        if (n > 0)
            got += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return false;
    }
    return true;
}

/* Length of the answer, 0: none. */
static size_t ask_tcp(struct resolver *r, const struct tcp_addr *server, const unsigned char *query, size_t len,
                      uint64_t deadline_ms) {
    unsigned char frame[2 + 512], head[2];
    if (len > sizeof frame - 2)
        return 0;
    frame[0] = (unsigned char)(len >> 8);
    frame[1] = (unsigned char)len;
    memcpy(frame + 2, query, len);
    int fd = socket(server->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    size_t got = 0;
    if (set_patience(fd, deadline_ms) && !connect(fd, (const struct sockaddr *)&server->storage, server->len) &&
        send(fd, frame, len + 2, MSG_NOSIGNAL) == (ssize_t)(len + 2) && receive(fd, head, 2, deadline_ms)) {
        size_t want = (size_t)head[0] << 8 | head[1];
        if (want >= HEADER_LEN && receive(fd, r->answer, want, deadline_ms) && !memcmp(r->answer, query, 2))
            got = want;
    }
    close(fd);
    return got;
}

static size_t ask_again(struct resolver *r, const char *name, int type, uint64_t deadline_ms) {
    unsigned char query[512];
    int len = res_nmkquery(&r->state, ns_o_query, name, ns_c_in, type, NULL, 0, NULL, query, sizeof query);
    for (size_t i = 0; len > 0 && i < r->count; i++) {
        size_t got = ask_tcp(r, &r->servers[i], query, (size_t)len, deadline_ms);
        if (got)
            return got;
    }
    return 0;
}

/* -- the answer -- */
static bool same_name(const char *a, const char *b) {
    size_t la = strlen(a), lb = strlen(b);
    la -= la && a[la - 1] == '.';
    lb -= lb && b[lb - 1] == '.';
    return la == lb && !strncasecmp(a, b, la);
}

static bool read_name(ns_msg *m, const unsigned char *at, char *to, size_t size) {
    return ns_name_uncompress(ns_msg_base(*m), ns_msg_end(*m), at, to, size) >= 0;
}

static bool keep_name(ns_msg *m, const unsigned char *at, struct arena *mem, struct resolver_record *to) {
    char name[NS_MAXDNAME];
    if (!read_name(m, at, name, sizeof name) || strchr(name, '\\'))
        return false;
    struct span s = span_of(name);
    if (s.len && s.at[s.len - 1] == '.')
        s.len--;
    to->text = arena_dup(mem, s);
    return to->text.at != NULL;
}

static bool keep_text(const unsigned char *data, size_t len, struct arena *mem, struct resolver_record *to) {
    char *text = arena_alloc(mem, len + 1);
    size_t used = 0;
    if (!text)
        return false;
    for (size_t i = 0; i < len;) {
        size_t part = data[i++];
        if (part > len - i)
            return false;
        memcpy(text + used, data + i, part);
        used += part;
        i += part;
    }
    text[used] = 0;
    to->text = span_make(text, used);
    return true;
}

static bool keep(ns_msg *m, ns_rr *rr, enum resolver_type type, struct arena *mem, struct resolver_record *to) {
    const unsigned char *data = ns_rr_rdata(*rr);
    size_t len = ns_rr_rdlen(*rr);
    memset(to, 0, sizeof *to);
    switch (type) {
    case RESOLVER_A:
    case RESOLVER_AAAA:
        if (len != (type == RESOLVER_A ? 4u : 16u))
            return false;
        memcpy(to->addr, data, len);
        return true;
    case RESOLVER_MX:
        if (len < 3)
            return false;
        to->preference = (uint16_t)(data[0] << 8 | data[1]);
        return keep_name(m, data + 2, mem, to);
    case RESOLVER_PTR:
        return len > 0 && keep_name(m, data, mem, to);
    case RESOLVER_TXT:
        return len > 0 && keep_text(data, len, mem, to);
    }
    return false;
}

static enum resolver_status parse(const unsigned char *bytes, size_t len, const char *name, enum resolver_type type,
                                  struct arena *mem, struct resolver_answer *a) {
    ns_msg m;
    char owner[NS_MAXDNAME];
    if (ns_initparse(bytes, (int)len, &m) < 0 || !ns_msg_getflag(m, ns_f_qr) || ns_msg_getflag(m, ns_f_tc))
        return RESOLVER_TEMPORARY;
    if (ns_msg_getflag(m, ns_f_rcode) == ns_r_nxdomain)
        return RESOLVER_NXDOMAIN;
    if (ns_msg_getflag(m, ns_f_rcode) != ns_r_noerror)
        return RESOLVER_TEMPORARY;
    size_t total = ns_msg_count(m, ns_s_an);
    if (!total)
        return RESOLVER_NO_DATA;
    size_t room = total < RESOLVER_RECORDS_MAX ? total : RESOLVER_RECORDS_MAX;
    a->records = arena_calloc(mem, room, sizeof *a->records);
    if (!a->records)
        return RESOLVER_TEMPORARY;
    span_copy(span_of(name), owner, sizeof owner);
    for (size_t i = 0; i < total && a->count < room; i++) {
        ns_rr rr;
        if (ns_parserr(&m, ns_s_an, (int)i, &rr) < 0)
            return RESOLVER_TEMPORARY;
        if (ns_rr_class(rr) != ns_c_in || !same_name(ns_rr_name(rr), owner))
            continue;
        if (ns_rr_type(rr) == ns_t_cname && !read_name(&m, ns_rr_rdata(rr), owner, sizeof owner))
            return RESOLVER_TEMPORARY;
        if (ns_rr_type(rr) == (unsigned)type && keep(&m, &rr, type, mem, &a->records[a->count]))
            a->count++;
    }
    return a->count ? RESOLVER_FOUND : RESOLVER_NO_DATA;
}

/* The C library waits retrans seconds for each server, retry times. */
static void set_tries(struct resolver *r, uint64_t left_ms) {
    uint64_t seconds = (left_ms + 999) / 1000, servers = r->count ? r->count : 1;
    r->state.retry = seconds >= 2 * servers ? 2 : 1;
    uint64_t each = seconds / ((uint64_t)r->state.retry * servers);
    r->state.retrans = each < 1 ? 1 : each > 5 ? 5 : (int)each;
}

static enum resolver_status ask(struct resolver *r, const char *name, enum resolver_type type, uint64_t deadline_ms,
                                struct arena *mem, struct resolver_answer *a) {
    uint64_t now = clock_mono_ms();
    if (!name_is_askable(name))
        return RESOLVER_NXDOMAIN;
    if (now >= deadline_ms)
        return RESOLVER_TEMPORARY;
    set_tries(r, deadline_ms - now);
    memset(r->answer, 0, HEADER_LEN);
    int len = res_nquery(&r->state, name, ns_c_in, (int)type, r->answer, sizeof r->answer);
    bool cut = r->answer[2] & 2; /* an empty answer that was cut looks like no data */
    if (len < 0 && !cut) {
        int why = r->state.res_h_errno;
        return why == HOST_NOT_FOUND ? RESOLVER_NXDOMAIN : why == NO_DATA ? RESOLVER_NO_DATA : RESOLVER_TEMPORARY;
    }
    size_t size = cut ? ask_again(r, name, (int)type, deadline_ms) : (size_t)len;
    if (!size || size > sizeof r->answer)
        return RESOLVER_TEMPORARY;
    return parse(r->answer, size, name, type, mem, a);
}

enum resolver_status resolver_ask(struct resolver *r, const char *name, enum resolver_type type, uint64_t deadline_ms,
                                  struct arena *mem, struct resolver_answer *a) {
    memset(a, 0, sizeof *a);
    a->status = ask(r, name, type, deadline_ms, mem, a);
    if (a->status != RESOLVER_FOUND)
        a->count = 0;
    return a->status;
}
