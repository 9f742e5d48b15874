/* dane: which TLSA records count, by RFC 7672, over a resolver with a table: every row is a host and what the DNS says
 * of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "gateway/outbound/dane.h"

enum { SECURE = 1, FAILS = 2, MISSING = 4 /* NXDOMAIN */, LOOPS = 8 };

/* What the DNS says of one name and type. What is not in the table exists without such records, vouched for. */
struct fact {
    const char *name;
    enum dns_type type;
    unsigned flags;
    const char *canonical;
    const char *data; /* TLSA: usage, selector, matching as digits, then the length of the association: "311/32" */
    const char *more; /* a second record */
};
struct resolver {
    const struct fact *facts;
    size_t count;
    bool later; /* answers wait for answer_all */
    char asked[16][64];
    unsigned asked_count;
    struct {
        dns_cb cb;
        void *arg;
        char name[64];
        enum dns_type type;
    } open[16];
    unsigned open_count;
};

static void put_tlsa(struct dns_record *r, char *bytes, const char *data) {
    size_t len = (size_t)strtoul(strchr(data, '/') + 1, NULL, 10);
    for (int i = 0; i < 3; i++)
        bytes[i] = (char)(data[i] - '0');
    memset(bytes + 3, 'd', len);
    r->data = span_make(bytes, len + 3);
}

static void reply(struct resolver *r, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    static char bytes[2][300];
    struct dns_record records[2] = {0};
    struct dns_answer a = {.status = DNS_NODATA, .why = "", .ttl_s = 60, .authentic = true, .records = records};
    for (size_t i = 0; i < r->count; i++) {
        const struct fact *f = &r->facts[i];
        if (f->type != type || strcmp(f->name, name) != 0)
            continue;
        a.status = f->flags & FAILS ? DNS_TEMPFAIL : f->flags & LOOPS ? DNS_LOOP : DNS_OK;
        if (f->flags & MISSING)
            a.status = DNS_NXDOMAIN;
        a.authentic = f->flags & SECURE;
        a.count = a.status == DNS_OK ? f->more ? 2 : 1 : 0;
        snprintf(a.canonical, sizeof a.canonical, "%s", f->canonical ? f->canonical : "");
        if (type == DNS_CNAME)
            snprintf(records[0].name, sizeof records[0].name, "%s", f->data);
        if (type == DNS_TLSA && a.count)
            put_tlsa(&records[0], bytes[0], f->data);
        if (type == DNS_TLSA && a.count == 2)
            put_tlsa(&records[1], bytes[1], f->more);
    }
    cb(arg, &a);
}

static void query(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    struct resolver *r = dns;
    CHECK(r->asked_count < 16 && r->open_count < 16);
    snprintf(r->asked[r->asked_count++], 64, "%s %u", name, type);
    if (!r->later) {
        reply(r, name, type, cb, arg);
        return;
    }
    r->open[r->open_count].cb = cb;
    r->open[r->open_count].arg = arg;
    r->open[r->open_count].type = type;
    snprintf(r->open[r->open_count++].name, 64, "%s", name);
}

static void answer_one(struct resolver *r) {
    assert_true(r->open_count > 0);
    r->open_count--;
    unsigned at = r->open_count;
    char name[64];
    snprintf(name, sizeof name, "%s", r->open[at].name);
    reply(r, name, r->open[at].type, r->open[at].cb, r->open[at].arg);
}

struct got {
    struct dane_ask *cancel; /* in the callback */
    unsigned answers;
    enum dane_status status;
    size_t count;
    uint8_t usage, selector, matching;
    size_t len;
    char base[64];
};

static void on_dane(void *arg, const struct dane_answer *a) {
    struct got *g = arg;
    g->answers++;
    g->status = a->status;
    g->count = a->count;
    assert_string_not_equal(a->why, "");
    assert_int_equal(a->status == DANE_USABLE, a->count > 0);
    if (a->count) {
        g->usage = a->records[0].usage;
        g->selector = a->records[0].selector;
        g->matching = a->records[0].matching;
        g->len = a->records[0].len;
        assert_int_equal(a->records[0].data[0], 'd');
    }
    snprintf(g->base, sizeof g->base, "%s", a->base);
    if (g->cancel)
        dane_cancel(g->cancel);
}

static bool was_asked(const struct resolver *r, const char *what) {
    for (unsigned i = 0; i < r->asked_count; i++) {
        if (strcmp(r->asked[i], what) == 0)
            return true;
    }
    return false;
}

static bool was_tlsa_asked(const struct resolver *r) {
    for (unsigned i = 0; i < r->asked_count; i++) {
        if (r->asked[i][0] == '_')
            return true;
    }
    return false;
}

struct row {
    const char *what;
    struct fact facts[5];
    enum dane_status status;
    const char *base;
    size_t usable;
    bool asks_tlsa;
};
#define FACT(host, kind, how) .name = host, .type = kind, .flags = how
#define A_OF(host, how)                                                                                                \
    { FACT(host, DNS_A, how) }
#define AAAA_OF(host, how)                                                                                             \
    { FACT(host, DNS_AAAA, how) }
#define A_BEHIND(host, how, end)                                                                                       \
    { FACT(host, DNS_A, how), .canonical = end }
#define ALIAS_OF(host, how, target)                                                                                    \
    { FACT(host, DNS_CNAME, how), .data = target }
#define TLSA_OF(host, how, one, two)                                                                                   \
    { FACT("_25._tcp." host, DNS_TLSA, how), .data = one, .more = two }

static const struct row rows[] = {
    {"a record", {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, "311/32", NULL)}, DANE_USABLE, "mx.t", 1, true},
    {"IPv6 only", {AAAA_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, "201/32", NULL)}, DANE_USABLE, "mx.t", 1, true},
    {"addresses of nobody's word",
     {A_OF("mx.t", 0), TLSA_OF("mx.t", SECURE, "311/32", NULL)},
     DANE_NONE,
     "mx.t",
     0,
     false},
    {"one family of nobody's word",
     {A_OF("mx.t", SECURE), AAAA_OF("mx.t", 0), TLSA_OF("mx.t", SECURE, "311/32", NULL)},
     DANE_NONE,
     "mx.t",
     0,
     false},
    {"one family fails",
     {A_OF("mx.t", SECURE), AAAA_OF("mx.t", FAILS), TLSA_OF("mx.t", SECURE, "311/32", NULL)},
     DANE_USABLE,
     "mx.t",
     1,
     true},
    {"both fail", {A_OF("mx.t", FAILS), AAAA_OF("mx.t", FAILS)}, DANE_FAILED, "mx.t", 0, false},
    {"one fails, the other has none", {A_OF("mx.t", FAILS)}, DANE_FAILED, "mx.t", 0, false},
    {"aliases go round", {A_OF("mx.t", LOOPS), AAAA_OF("mx.t", LOOPS)}, DANE_FAILED, "mx.t", 0, false},
    {"no addresses", {A_OF("mx.t", MISSING | SECURE)}, DANE_NONE, "mx.t", 0, false},
    {"no TLSA", {A_OF("mx.t", SECURE)}, DANE_NONE, "mx.t", 0, true},
    {"no such name", {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE | MISSING, NULL, NULL)}, DANE_NONE, "mx.t", 0, true},
    {"no such name, nobody's word",
     {A_OF("mx.t", SECURE), TLSA_OF("mx.t", MISSING, NULL, NULL)},
     DANE_NONE,
     "mx.t",
     0,
     true},
    {"TLSA fails or is bogus",
     {A_OF("mx.t", SECURE), TLSA_OF("mx.t", FAILS, NULL, NULL)},
     DANE_FAILED,
     "mx.t",
     0,
     true},
    {"TLSA of nobody's word", {A_OF("mx.t", SECURE), TLSA_OF("mx.t", 0, "311/32", NULL)}, DANE_NONE, "mx.t", 0, true},
    {"an alias in one signed world: the end of the chain",
     {A_BEHIND("mx.t", SECURE, "real.t"), TLSA_OF("real.t", SECURE, "311/32", NULL),
      TLSA_OF("mx.t", SECURE, "201/32", NULL)},
     DANE_USABLE,
     "real.t",
     1,
     true},
    {"an alias whose end has no TLSA: the host",
     {A_BEHIND("mx.t", SECURE, "real.t"), TLSA_OF("mx.t", SECURE, "201/32", NULL)},
     DANE_USABLE,
     "mx.t",
     1,
     true},
    {"an alias whose end fails: no turning to the host",
     {A_BEHIND("mx.t", SECURE, "real.t"), TLSA_OF("real.t", FAILS, NULL, NULL),
      TLSA_OF("mx.t", SECURE, "201/32", NULL)},
     DANE_FAILED,
     "real.t",
     0,
     true},
    {"an alias whose end has records that cannot be used: no turning either",
     {A_BEHIND("mx.t", SECURE, "real.t"), TLSA_OF("real.t", SECURE, "111/32", NULL),
      TLSA_OF("mx.t", SECURE, "201/32", NULL)},
     DANE_UNUSABLE,
     "real.t",
     0,
     true},
    {"an alias that neither has TLSA for", {A_BEHIND("mx.t", SECURE, "real.t")}, DANE_NONE, "mx.t", 0, true},
    {"a signed alias into an unsigned zone: the host",
     {A_BEHIND("mx.t", 0, "real.u"), ALIAS_OF("mx.t", SECURE, "real.u"), TLSA_OF("mx.t", SECURE, "311/32", NULL)},
     DANE_USABLE,
     "mx.t",
     1,
     true},
    {"an unsigned alias into a signed zone",
     {A_BEHIND("mx.t", 0, "real.t"), ALIAS_OF("mx.t", 0, "real.t"), TLSA_OF("real.t", SECURE, "311/32", NULL)},
     DANE_NONE,
     "mx.t",
     0,
     false},
    {"an alias that cannot be looked up",
     {A_BEHIND("mx.t", 0, "real.u"), ALIAS_OF("mx.t", FAILS, NULL)},
     DANE_FAILED,
     "mx.t",
     0,
     false},
    {"usages of authorities of the web",
     {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, "011/32", "101/32")},
     DANE_UNUSABLE,
     "mx.t",
     0,
     true},
    {"one of two can be used",
     {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, "111/32", "311/32")},
     DANE_USABLE,
     "mx.t",
     1,
     true},
    {"both can be used",
     {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, "212/64", "311/32")},
     DANE_USABLE,
     "mx.t",
     2,
     true},
};

static void what_the_dns_says_decides(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int later = 0; later < 2; later++) {
            struct resolver r = {.facts = rows[i].facts, .later = later};
            struct dane_ask ask = {0};
            struct got g = {0};
            while (r.count < 5 && rows[i].facts[r.count].name)
                r.count++;
            struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
            dane_start(&ask, c, "MX.t", 25, 1000, on_dane, &g);
            assert_int_equal(g.answers, !later);
            while (r.open_count)
                answer_one(&r);
            print_message("%s\n", rows[i].what);
            assert_int_equal(g.answers, 1);
            assert_int_equal(g.status, rows[i].status);
            assert_int_equal(g.count, rows[i].usable);
            assert_string_equal(g.base, rows[i].base);
            assert_int_equal(was_tlsa_asked(&r), rows[i].asks_tlsa);
            dane_cancel(&ask);
            dane_cancel(&ask);
            mxcache_free(c);
        }
    }
}

static void lengths_and_numbers_make_a_record_usable(void **state) {
    (void)state;
    for (int usage = 0; usage <= 4; usage++) {
        for (int selector = 0; selector <= 2; selector++) {
            for (int matching = 0; matching <= 3; matching++) {
                static const int lengths[] = {1, 31, 32, 33, 63, 64, 65, 200};
                for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                    char data[32];
                    snprintf(data, sizeof data, "%d%d%d/%d", usage, selector, matching, lengths[i]);
                    struct fact facts[] = {A_OF("mx.t", SECURE), TLSA_OF("mx.t", SECURE, data, NULL)};
                    struct resolver r = {.facts = facts, .count = 2};
                    struct dane_ask ask = {0};
                    struct got g = {0};
                    struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
                    bool good =
                        (usage == 2 || usage == 3) && selector <= 1 &&
                        (matching == 0 || (matching == 1 && lengths[i] == 32) || (matching == 2 && lengths[i] == 64));
                    dane_start(&ask, c, "mx.t", 25, 1000, on_dane, &g);
                    assert_int_equal(g.status, good ? DANE_USABLE : DANE_UNUSABLE);
                    if (good) {
                        assert_int_equal(g.usage, usage);
                        assert_int_equal(g.selector, selector);
                        assert_int_equal(g.matching, matching);
                        assert_int_equal(g.len, lengths[i]);
                    }
                    dane_cancel(&ask);
                    mxcache_free(c);
                }
            }
        }
    }
}

static void the_port_is_part_of_the_name(void **state) {
    (void)state;
    struct fact facts[] = {A_OF("mx.t", SECURE), {FACT("_2525._tcp.mx.t", DNS_TLSA, SECURE), .data = "311/32"}};
    struct resolver r = {.facts = facts, .count = 2};
    struct dane_ask ask = {0};
    struct got g = {0};
    struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
    dane_start(&ask, c, "mx.t", 2525, 1000, on_dane, &g);
    assert_int_equal(g.status, DANE_USABLE);
    assert_true(was_asked(&r, "_2525._tcp.mx.t 52"));
    dane_cancel(&ask);
    unsigned asked = r.asked_count;
    dane_start(&ask, c, "mx.t", 2525, 2000, on_dane, &g); /* the cache knows it all */
    assert_int_equal(g.status, DANE_USABLE);
    assert_int_equal(r.asked_count, asked);
    dane_cancel(&ask);
    mxcache_free(c);
}

static void names_without_room_have_no_records(void **state) {
    (void)state;
    char host[400];
    memset(host, 'a', sizeof host);
    for (size_t len = 240; len < 300; len += 10) {
        host[len] = '\0';
        struct fact facts[] = {A_OF(host, SECURE)};
        struct resolver r = {.facts = facts, .count = 1};
        struct dane_ask ask = {0};
        struct got g = {0};
        struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
        dane_start(&ask, c, host, 25, 1000, on_dane, &g);
        assert_int_equal(g.answers, 1);
        assert_int_equal(g.status, DANE_NONE);
        assert_int_equal(was_tlsa_asked(&r), len + strlen("_25._tcp.") <= DNS_NAME_MAX);
        dane_cancel(&ask);
        mxcache_free(c);
        host[len] = 'a';
    }
}

/* At every stage, and in the callback: nothing comes afterwards. */
static void may_be_canceled_at_any_time(void **state) {
    (void)state;
    struct fact facts[] = {A_BEHIND("mx.t", 0, "real.u"), ALIAS_OF("mx.t", SECURE, "real.u"),
                           TLSA_OF("mx.t", SECURE, "311/32", NULL)};
    for (int steps = 0; steps <= 4; steps++) {
        struct resolver r = {.facts = facts, .count = 3, .later = true};
        struct dane_ask ask = {0};
        struct got g = {.cancel = &ask};
        struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
        dane_start(&ask, c, "mx.t", 25, 1000, on_dane, &g);
        for (int i = 0; i < steps; i++)
            answer_one(&r);
        dane_cancel(&ask);
        while (r.open_count)
            answer_one(&r);
        assert_int_equal(g.answers, steps == 4);
        assert_int_equal(g.status, steps == 4 ? DANE_USABLE : DANE_NONE);
        mxcache_free(c);
    }
}

static void every_status_has_a_word(void **state) {
    (void)state;
    assert_string_equal(dane_status_text(DANE_NONE), "none");
    assert_string_equal(dane_status_text(DANE_USABLE), "usable");
    assert_string_equal(dane_status_text(DANE_UNUSABLE), "unusable");
    assert_string_equal(dane_status_text(DANE_FAILED), "failed");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_dns_says_decides),    cmocka_unit_test(lengths_and_numbers_make_a_record_usable),
        cmocka_unit_test(the_port_is_part_of_the_name), cmocka_unit_test(names_without_room_have_no_records),
        cmocka_unit_test(may_be_canceled_at_any_time),  cmocka_unit_test(every_status_has_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
