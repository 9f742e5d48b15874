/*
 * spf: see spf.h. libspf2 asks for names through a DNS layer of ours, which answers from resolver.c within the
 * message's deadline and counts: libspf2 counts the terms of each include anew, and void look-ups not at all. When a
 * limit is passed the layer says "try again" to end the evaluation, and the verdict becomes permerror here.
 */
#include "gateway/filter/spf.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>

#include <spf2/spf.h>

#include "base/clock.h"

#include "gateway/smtp/address.h"

struct spf {
    struct resolver *resolver;
    SPF_dns_server_t dns;
    SPF_server_t *server;
    /* of the check under way */
    struct arena *mem;
    uint64_t deadline_ms;
    unsigned terms, voids;
    bool first;                          /* the record of the domain itself does not count */
    bool over, broken, big;              /* a limit passed; a malformed record; a record longer than libspf2 keeps */
    bool temporary;                      /* the DNS had no answer */
    const struct resolver_answer *hosts; /* of the last MX or PTR: their addresses belong to that term */
    size_t hosts_next;
};

static void quiet(const char *file, int line, const char *text) {
    (void)file, (void)line, (void)text;
}

/* libspf2 writes to standard output and error by itself. */
static void hush(void) {
    SPF_warning_handler = quiet;
    SPF_info_handler = quiet;
    SPF_debug_handler = quiet;
}

static int herrno_of(enum resolver_status s) {
    return s == RESOLVER_FOUND      ? NETDB_SUCCESS
           : s == RESOLVER_NO_DATA  ? NO_DATA
           : s == RESOLVER_NXDOMAIN ? HOST_NOT_FOUND
                                    : TRY_AGAIN;
}

/* An address of a host that the last MX or PTR named: has limits of its own. */
static bool belongs_to_hosts(struct spf *s, const char *name, int type) {
    if ((type != ns_t_a && type != ns_t_aaaa) || !s->hosts || s->hosts_next >= s->hosts->count)
        return false;
    return span_eq(s->hosts->records[s->hosts_next++].text, span_of(name));
}

/* Counts a question before it is asked; false: one too many. */
static bool may_ask(struct spf *s, const char *name, int type, bool *counted) {
    *counted = false;
    if (s->first) {
        s->first = false;
        return true;
    }
    if (belongs_to_hosts(s, name, type))
        return true;
    s->hosts = NULL;
    *counted = true;
    return ++s->terms <= SPF_TERMS_MAX;
}

static SPF_dns_rr_t *add_text(SPF_dns_rr_t *rr, const void *at, size_t len) {
    if (SPF_dns_rr_buf_realloc(rr, rr->num_rr, len + 1) != SPF_E_SUCCESS)
        return rr;
    memcpy(rr->rr[rr->num_rr]->txt, at, len);
    rr->rr[rr->num_rr]->txt[len] = 0;
    rr->num_rr++;
    return rr;
}

/* Only SPF records matter, in the form that libspf2 reads rightly. */
static void add_record(struct spf *s, SPF_dns_rr_t *rr, struct span text) {
    struct buf tidy;
    bool big = false;
    if (!spf_record_is(text))
        return;
    buf_init(&tidy, 65536);
    if (spf_record_tidy(text, &tidy, &big))
        s->broken = true;
    else
        add_text(rr, buf_span(&tidy).at, buf_len(&tidy));
    s->big |= big;
    buf_deinit(&tidy);
}

static void add_answer(struct spf *s, SPF_dns_rr_t *rr, int type, const struct resolver_answer *a) {
    for (size_t i = 0; i < a->count; i++) {
        const struct resolver_record *r = &a->records[i];
        if (type == ns_t_a || type == ns_t_aaaa) {
            if (SPF_dns_rr_buf_realloc(rr, rr->num_rr, sizeof *rr->rr[0]) != SPF_E_SUCCESS)
                return;
            memcpy(rr->rr[rr->num_rr++], r->addr, type == ns_t_a ? 4 : 16);
        } else if (type == ns_t_txt)
            add_record(s, rr, r->text);
        else
            add_text(rr, r->text.at, r->text.len);
    }
}

static SPF_dns_rr_t *lookup(SPF_dns_server_t *dns, const char *name, ns_type type, int cache) {
    struct spf *s = dns->hook;
    struct resolver_answer *a = arena_calloc(s->mem, 1, sizeof *a);
    bool counted = false;
    (void)cache;
    if (type == ns_t_spf) /* obsolete since RFC 7208 */
        return SPF_dns_rr_new_init(dns, name, type, 0, NO_DATA);
    if (!s->over && !s->broken && !may_ask(s, name, (int)type, &counted))
        s->over = true;
    if (s->over || s->broken || !a)
        return SPF_dns_rr_new_init(dns, name, type, 0, TRY_AGAIN);
    resolver_ask(s->resolver, name, (enum resolver_type)type, s->deadline_ms, s->mem, a);
    if (a->status == RESOLVER_TEMPORARY)
        s->temporary = true;
    bool empty = a->status == RESOLVER_NO_DATA || a->status == RESOLVER_NXDOMAIN;
    if (counted && empty && ++s->voids > SPF_VOIDS_MAX)
        s->over = true;
    SPF_dns_rr_t *rr = SPF_dns_rr_new_init(dns, name, type, 0, s->over ? TRY_AGAIN : herrno_of(a->status));
    if (!rr)
        return NULL;
    if (type == ns_t_mx || type == ns_t_ptr) {
        s->hosts = a;
        s->hosts_next = 0;
    }
    add_answer(s, rr, (int)type, a);
    if (s->broken)
        rr->herrno = TRY_AGAIN;
    else if (a->status == RESOLVER_FOUND && !rr->num_rr)
        rr->herrno = NO_DATA;
    return rr;
}

/* The explanation is the sender domain's text about itself: not fetched, not shown. */
static SPF_errcode_t no_explanation(SPF_server_t *server, const char *name, char **to, size_t *len) {
    (void)server, (void)name, (void)to, (void)len;
    return SPF_E_NOT_CONFIG;
}

struct spf *spf_new(struct resolver *r) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, hush);
    struct spf *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->resolver = r;
    s->dns = (SPF_dns_server_t){.lookup = lookup, .get_exp = no_explanation, .name = "posthouse", .hook = s};
    s->server = SPF_server_new_dns(&s->dns, 0);
    if (!s->server) {
        free(s);
        return NULL;
    }
    SPF_server_set_max_dns_mech(s->server, SPF_TERMS_MAX);
    return s;
}

void spf_free(struct spf *s) {
    if (!s)
        return;
    SPF_server_free(s->server);
    free(s);
}

static bool set_client(SPF_request_t *r, const struct tcp_addr *a) {
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&a->storage;
    struct in_addr four;
    if (a->storage.ss_family == AF_INET)
        return SPF_request_set_ipv4(r, ((const struct sockaddr_in *)&a->storage)->sin_addr) == SPF_E_SUCCESS;
    if (a->storage.ss_family != AF_INET6)
        return false;
    if (!IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
        return SPF_request_set_ipv6(r, six->sin6_addr) == SPF_E_SUCCESS;
    memcpy(&four, six->sin6_addr.s6_addr + 12, 4);
    return SPF_request_set_ipv4(r, four) == SPF_E_SUCCESS;
}

static enum authres_result result_of(const struct spf *s, const SPF_response_t *r) {
    if (s->over || s->broken)
        return AUTHRES_PERMERROR;
    if (s->big && r->result != SPF_RESULT_PASS)
        return AUTHRES_PERMERROR;
    switch (r->result) {
    case SPF_RESULT_NEUTRAL:
        return AUTHRES_NEUTRAL;
    case SPF_RESULT_PASS:
        return AUTHRES_PASS;
    case SPF_RESULT_FAIL:
        return AUTHRES_FAIL;
    case SPF_RESULT_SOFTFAIL:
        return AUTHRES_SOFTFAIL;
    case SPF_RESULT_NONE:
        return AUTHRES_NONE;
    case SPF_RESULT_TEMPERROR:
        return AUTHRES_TEMPERROR;
    case SPF_RESULT_INVALID:
    case SPF_RESULT_PERMERROR:
        break;
    }
    return s->temporary ? AUTHRES_TEMPERROR : AUTHRES_PERMERROR;
}

static const char *why_of(const struct spf *s, enum authres_result r) {
    if (s->over)
        return "too many DNS look-ups";
    if (s->broken)
        return "malformed record";
    return s->big && r == AUTHRES_PERMERROR ? "record too long" : NULL;
}

static void ask(struct spf *s, const struct spf_question *q, const char *sender, const char *helo,
                struct authres_spf *out) {
    SPF_request_t *request = SPF_request_new(s->server);
    SPF_response_t *response = NULL;
    out->result = AUTHRES_TEMPERROR;
    if (request && set_client(request, q->client) && !SPF_request_set_helo_dom(request, helo) &&
        !SPF_request_set_env_from(request, sender)) {
        SPF_request_query_mailfrom(request, &response);
        if (response) {
            out->result = result_of(s, response);
            out->why = why_of(s, out->result);
        }
    }
    if (response)
        SPF_response_free(response);
    if (request)
        SPF_request_free(request);
}

/* A name with two labels at least, no literal. */
static bool domain_is_checkable(struct span *domain, struct arena *mem) {
    struct span canonical;
    if (!domain->len || domain->at[0] == '[' || address_parse_domain(&canonical, *domain, mem))
        return false;
    *domain = canonical;
    return span_find(canonical, '.') > 0;
}

void spf_check(struct spf *s, const struct spf_question *q, uint64_t deadline_ms, struct arena *mem,
               struct authres_spf *out) {
    ptrdiff_t at = span_rfind(q->sender, '@');
    bool helo = !q->sender.len;
    *out = (struct authres_spf){.result = AUTHRES_NONE, .by_helo = helo, .identity = helo ? q->helo : q->sender};
    out->domain = helo ? q->helo : span_from(q->sender, (size_t)(at + 1));
    if (!domain_is_checkable(&out->domain, mem) || tcp_addr_is_loopback(q->client) ||
        (q->client->storage.ss_family != AF_INET && q->client->storage.ss_family != AF_INET6))
        return;
    struct span local = helo || at < 0 ? SPAN("postmaster") : span_first(q->sender, (size_t)at);
    char *sender = arena_printf(mem, "%.*s@%.*s", SPAN_FMT(local), SPAN_FMT(out->domain));
    struct span name = arena_dup(mem, q->helo.len ? q->helo : SPAN("unknown")), ours = arena_dup(mem, q->hostname);
    out->result = AUTHRES_TEMPERROR;
    if (!sender || !name.at || !ours.at || SPF_server_set_rec_dom(s->server, ours.at))
        return;
    s->mem = mem;
    s->deadline_ms = deadline_ms;
    s->terms = s->voids = 0;
    s->first = true;
    s->over = s->broken = s->big = s->temporary = false;
    s->hosts = NULL;
    ask(s, q, sender, name.at, out);
    s->mem = NULL;
}
