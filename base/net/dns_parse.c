/*
 * dns_parse: from the bytes of a stranger to records that can be trusted in form.
 *
 * First every record of the packet is walked once, so that nothing is believed of a packet
 * that is broken anywhere. Then the CNAME chain is followed from the name asked for, and the
 * records of its last name are collected. Names are compared and kept in lower-case text; one
 * with bytes that no host name has (a dot inside a label, CR, NUL ...) is "odd" and equals
 * nothing: it cannot become a target. Only the chain of a PTR question may pass through names
 * with a slash, since reverse zones smaller than an octet are delegated so (RFC 2317).
 */
#include <stdlib.h>
#include <string.h>

#include "base/net/dns_parse.h"

enum {
    HEADER_LEN = 12,
    CLASS_IN = 1,
    TYPE_NS = 2,
    RCODE_OK = 0,
    RCODE_SERVFAIL = 2,
    RCODE_NXDOMAIN = 3,
    RCODE_REFUSED = 5,
    CHAIN_MAX = 8,
    TTL_MAX = 7 * 24 * 3600,
};

/* A place in the packet; once anything did not fit, bad stays set and all reads give 0. */
struct cursor {
    const unsigned char *bytes;
    size_t len, at;
    bool bad;
};

struct name {
    char text[DNS_NAME_MAX + 1];
    size_t len;
    bool odd;
    bool slash;
};

struct record {
    struct name owner;
    uint16_t type, class;
    uint32_t ttl_s;
    size_t data, data_len; /* place in the packet, within bounds */
};

struct packet {
    struct cursor start; /* at the first record */
    uint16_t flags;
    unsigned answers, authorities, additionals;
};

static uint32_t read_number(struct cursor *c, unsigned size) {
    uint32_t n = 0;
    if (c->bad || size > c->len - c->at) {
        c->bad = true;
        return 0;
    }
    while (size--)
        n = n << 8 | c->bytes[c->at++];
    return n;
}

static bool is_host_byte(unsigned char b) {
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '-' || b == '_';
}

static void add_label(struct name *n, const unsigned char *label, size_t len) {
    if (n->len)
        n->text[n->len++] = '.';
    for (size_t i = 0; i < len; i++) {
        unsigned char b = label[i];
        n->odd |= !is_host_byte(b) && b != '/';
        n->slash |= b == '/';
        n->text[n->len++] = (char)(b >= 'A' && b <= 'Z' ? b | 0x20 : b);
    }
    n->text[n->len] = '\0';
}

/* Reads a name, following pointers; the cursor ends behind it. A pointer must lead to before
 * the place where the last one led, so that the walk ends. */
static void read_name(struct cursor *c, struct name *n) {
    size_t at = c->at, limit = c->at, wire = 0;
    bool jumped = false;
    *n = (struct name){.len = 0};
    while (!c->bad) {
        if (at >= c->len)
            break;
        unsigned kind = c->bytes[at];
        if (kind == 0) {
            if (!jumped)
                c->at = at + 1;
            return;
        }
        if (kind >= 0xc0) {
            if (c->len - at < 2)
                break;
            size_t to = (kind & 0x3fu) << 8 | c->bytes[at + 1];
            if (to >= limit)
                break;
            if (!jumped)
                c->at = at + 2;
            jumped = true;
            at = limit = to;
            continue;
        }
        wire += kind + 1;
        if (kind > 63 || wire > DNS_NAME_MAX - 1 || kind >= c->len - at)
            break;
        add_label(n, c->bytes + at + 1, kind);
        at += kind + 1;
    }
    c->bad = true;
}

static void read_record(struct cursor *c, struct record *r) {
    read_name(c, &r->owner);
    r->type = (uint16_t)read_number(c, 2);
    r->class = (uint16_t)read_number(c, 2);
    r->ttl_s = read_number(c, 4);
    if (r->ttl_s > INT32_MAX) /* RFC 2181: the top bit set means 0 */
        r->ttl_s = 0;
    if (r->ttl_s > TTL_MAX)
        r->ttl_s = TTL_MAX;
    r->data_len = read_number(c, 2);
    r->data = c->at;
    if (c->bad || r->data_len > c->len - c->at)
        c->bad = true;
    else
        c->at += r->data_len;
}

/* A cursor over the data of a record; names in it may point anywhere before. */
static struct cursor data_of(const struct packet *p, const struct record *r) {
    return (struct cursor){.bytes = p->start.bytes, .len = r->data + r->data_len, .at = r->data};
}

static bool same_name(const struct name *a, const struct name *b) {
    return !a->odd && !b->odd && a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

/* True when the zone holds the name: equal to it or a parent of it, at a dot. */
static bool is_within(const struct name *n, const struct name *zone) {
    if (n->odd || zone->odd || zone->len > n->len)
        return false;
    size_t from = n->len - zone->len;
    return memcmp(n->text + from, zone->text, zone->len) == 0 &&
           (zone->len == 0 || from == 0 || n->text[from - 1] == '.');
}

/* One or more strings with their lengths, up to the end. */
static bool strings_are_good(struct cursor c) {
    do {
        size_t len = read_number(&c, 1);
        if (c.bad || len > c.len - c.at)
            return false;
        c.at += len;
    } while (c.at < c.len);
    return true;
}

/* Whether the data of the known types is well-formed to its last byte. */
static bool data_is_good(const struct packet *p, const struct record *r) {
    struct cursor c = data_of(p, r);
    struct name ignored;
    switch (r->type) {
    case DNS_A:
        return r->data_len == 4;
    case DNS_AAAA:
        return r->data_len == 16;
    case DNS_MX:
        read_number(&c, 2);
        read_name(&c, &ignored);
        break;
    case DNS_CNAME:
    case DNS_PTR:
        read_name(&c, &ignored);
        break;
    case DNS_TXT:
        return strings_are_good(c);
    case DNS_TLSA:
        return r->data_len > 3;
    case DNS_SOA:
        read_name(&c, &ignored);
        read_name(&c, &ignored);
        for (int i = 0; i < 5; i++)
            read_number(&c, 4);
        break;
    default:
        return true;
    }
    return !c.bad && c.at == c.len;
}

/* -- the packet as a whole -- */

static void set_name(struct name *n, const char *text) {
    *n = (struct name){.len = 0};
    for (; *text && n->len < DNS_NAME_MAX; text++)
        n->text[n->len++] = (char)(*text >= 'A' && *text <= 'Z' ? *text | 0x20 : *text);
}

/* NULL, or why the packet is no answer to the question. */
static const char *open_packet(struct packet *p, struct span bytes, const struct name *asked, enum dns_type type) {
    struct cursor c = {.bytes = (const unsigned char *)bytes.at, .len = bytes.len};
    struct name question;
    read_number(&c, 2);
    p->flags = (uint16_t)read_number(&c, 2);
    unsigned questions = read_number(&c, 2);
    p->answers = read_number(&c, 2);
    p->authorities = read_number(&c, 2);
    p->additionals = read_number(&c, 2);
    if (c.bad)
        return "malformed answer";
    if (!(p->flags & 0x8000) || (p->flags & 0x7800) || questions != 1)
        return "malformed answer";
    read_name(&c, &question);
    unsigned asked_type = read_number(&c, 2), class = read_number(&c, 2);
    if (c.bad || !same_name(&question, asked) || asked_type != (unsigned)type || class != CLASS_IN)
        return "answer to another question";
    if (p->flags & 0x0200)
        return "answer was cut";
    p->start = c;
    return NULL;
}

static bool walk_all(const struct packet *p) {
    struct cursor c = p->start;
    struct record r;
    for (unsigned i = 0; i < p->answers + p->authorities + p->additionals; i++) {
        read_record(&c, &r);
        if (c.bad || (i < p->answers + p->authorities && !data_is_good(p, &r)))
            return false;
    }
    return true;
}

static void lower_ttl(struct dns_answer *a, uint32_t ttl_s) {
    if (ttl_s < a->ttl_s)
        a->ttl_s = ttl_s;
}

/* -- answers -- */

/* Finds the alias of *name; true when there is one, and *name is then its target. */
static bool step_alias(struct dns_answer *a, const struct packet *p, struct name *name) {
    struct cursor c = p->start;
    struct record r;
    for (unsigned i = 0; i < p->answers; i++) {
        read_record(&c, &r);
        if (r.type != DNS_CNAME || r.class != CLASS_IN || !same_name(&r.owner, name))
            continue;
        struct cursor data = data_of(p, &r);
        read_name(&data, name);
        lower_ttl(a, r.ttl_s);
        return true;
    }
    return false;
}

static int by_preference(const void *x, const void *y) {
    const struct dns_record *a = x, *b = y;
    if (a->preference != b->preference)
        return a->preference < b->preference ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Where a new record goes: the next free place or, when all are taken, that of the worst if it is worse. */
static void keep(struct dns_answer *a, const struct dns_record *fresh) {
    if (a->count < DNS_RECORDS_MAX) {
        a->records[a->count++] = *fresh;
        return;
    }
    struct dns_record *worst = a->records;
    a->truncated = true;
    for (size_t i = 1; i < a->count; i++) {
        if (by_preference(&a->records[i], worst) > 0)
            worst = &a->records[i];
    }
    if (by_preference(fresh, worst) < 0)
        *worst = *fresh;
}

/* Reads what the type holds; false: its target is no host name. */
static bool fill(struct dns_record *to, const struct packet *p, const struct record *r) {
    struct cursor data = data_of(p, r);
    struct name target;
    switch (r->type) {
    case DNS_MX:
        to->preference = (uint16_t)read_number(&data, 2);
        /* fall through */
    case DNS_PTR:
    case DNS_CNAME:
        read_name(&data, &target);
        if (target.odd || target.slash)
            return false;
        memcpy(to->name, target.text, target.len);
        return true;
    case DNS_TXT:
    case DNS_TLSA:
        to->data = span_make(p->start.bytes + r->data, r->data_len);
        return true;
    default: /* data_is_good has seen the length */
        memcpy(to->addr, p->start.bytes + r->data, r->data_len);
        return true;
    }
}

/* Collects the records of the name; returns how many had a target that is no host name. */
static unsigned collect(struct dns_answer *a, const struct packet *p, const struct name *name, enum dns_type type) {
    struct cursor c = p->start;
    struct record r;
    unsigned odd = 0;
    for (unsigned i = 0; i < p->answers; i++) {
        read_record(&c, &r);
        if (r.type != (unsigned)type || r.class != CLASS_IN || !same_name(&r.owner, name))
            continue;
        struct dns_record fresh = {.preference = 0};
        if (!fill(&fresh, p, &r)) {
            odd++;
            continue;
        }
        lower_ttl(a, r.ttl_s);
        keep(a, &fresh);
    }
    return odd;
}

/* The negative TTL of RFC 2308 from the authority section; false without a SOA that fits. */
static bool negative_ttl(struct dns_answer *a, const struct packet *p, const struct name *name, bool *delegated) {
    struct cursor c = p->start;
    struct record r;
    for (unsigned i = 0; i < p->answers + p->authorities; i++) {
        read_record(&c, &r);
        if (i < p->answers || r.class != CLASS_IN)
            continue;
        *delegated |= r.type == TYPE_NS;
        if (r.type != DNS_SOA || !is_within(name, &r.owner))
            continue;
        struct cursor data = data_of(p, &r);
        data.at = data.len - 4; /* the last field; data_is_good has seen all five */
        uint32_t minimum = read_number(&data, 4);
        lower_ttl(a, r.ttl_s);
        lower_ttl(a, minimum);
        return true;
    }
    return false;
}

static void fail(struct dns_answer *a, enum dns_status status, const char *why) {
    a->status = status;
    a->why = why;
    a->ttl_s = 0;
    a->count = 0;
}

static void answer_negative(struct dns_answer *a, const struct packet *p, const struct name *name) {
    bool delegated = false;
    bool exists = (p->flags & 15) == RCODE_OK;
    a->status = exists ? DNS_NODATA : DNS_NXDOMAIN;
    if (negative_ttl(a, p, name, &delegated))
        return;
    if (exists && delegated && !(p->flags & 0x0400))
        fail(a, DNS_TEMPFAIL, "server does not resolve, it refers to others");
    a->ttl_s = 0; /* no SOA: known for this once only */
}

static const char *why_of_rcode(unsigned rcode) {
    switch (rcode) {
    case RCODE_OK:
    case RCODE_NXDOMAIN:
        return NULL;
    case RCODE_SERVFAIL:
        return "server failure";
    case RCODE_REFUSED:
        return "refused";
    default:
        return "server error";
    }
}

void dns_parse(struct dns_answer *a, struct dns_record *records, struct span packet, const char *name,
               enum dns_type type) {
    struct packet p;
    struct name at;
    *a = (struct dns_answer){.why = "", .ttl_s = TTL_MAX, .records = records};
    set_name(&at, name);
    const char *why = open_packet(&p, packet, &at, type);
    if (!why)
        why = why_of_rcode(p.flags & 15);
    if (!why && !walk_all(&p))
        why = "malformed answer";
    if (why) {
        fail(a, DNS_TEMPFAIL, why);
        return;
    }
    a->authentic = p.flags & 0x0020;
    for (unsigned links = 0; type != DNS_CNAME && step_alias(a, &p, &at); links++) {
        if (links == CHAIN_MAX) {
            fail(a, DNS_LOOP, "CNAME chain loops or is too long");
            return;
        }
        if (at.odd || (at.slash && type != DNS_PTR)) {
            fail(a, DNS_TEMPFAIL, "CNAME target is no host name");
            return;
        }
        span_copy(span_make(at.text, at.len), a->canonical, sizeof a->canonical);
    }
    unsigned odd = collect(a, &p, &at, type);
    if (a->count) {
        a->status = DNS_OK;
        qsort(a->records, type == DNS_MX ? a->count : 0, sizeof *a->records, by_preference);
    } else if (odd) {
        fail(a, DNS_TEMPFAIL, "no target is a host name");
    } else {
        answer_negative(a, &p, &at);
    }
}

bool dns_type_is_known(enum dns_type type) {
    return type == DNS_A || type == DNS_AAAA || type == DNS_MX || type == DNS_PTR || type == DNS_TXT ||
           type == DNS_TLSA || type == DNS_CNAME;
}

bool dns_name_is_good(struct span name) {
    size_t label = 0;
    if (name.len == 0 || name.len > 253)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        if (name.at[i] == '.' && label > 0) {
            label = 0;
        } else if (!is_host_byte((unsigned char)name.at[i]) || ++label > 63) {
            return false;
        }
    }
    return label > 0;
}
