/* From DNS answers to targets: smtp-rules lines 32 to 39, each by its number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/outbound/mx.h"

static bool never_local(const struct tcp_addr *a) {
    (void)a;
    return false;
}

static bool is_ten_one(const struct tcp_addr *a) {
    char ip[128];
    tcp_addr_ip(a, ip, sizeof ip);
    return strcmp(ip, "10.0.0.1") == 0;
}

static const char *const own_names[] = {"me.example", "me2.example"};
static const struct mx_policy plain = {
    .own_names = own_names, .own_name_count = 2, .is_local = never_local, .port = 25};

/* "10 mx1.example,20 mx2.example"; "" as a name is the root. */
static struct mxset *mx_set(enum dns_status status, const char *text) {
    struct mxset *s = calloc(1, sizeof *s + 300 * sizeof(struct mxrecord));
    s->refs = 1;
    s->status = status;
    s->why = "";
    static char names[16384];
    snprintf(names, sizeof names, "%s", text);
    struct span rest = span_of(names);
    while (rest.len) {
        struct span entry = span_cut(rest, ',', &rest), name;
        uint64_t preference;
        assert_true(span_u64(span_cut(entry, ' ', &name), &preference));
        s->records[s->count].preference = (uint16_t)preference;
        names[name.at - names + (ptrdiff_t)name.len] = '\0';
        s->records[s->count++].name = name.at;
    }
    return s;
}

/* The list as text, or the reason why there is none: "!number". */
static const char *list_of(enum dns_status status, const char *text, struct mx_list *l) {
    static char out[4096];
    enum outcome_local what;
    struct mxset *s = mx_set(status, text);
    size_t len = 0;
    out[0] = '\0';
    if (mx_list_init(l, s, "d.example", &plain, &what) != ERR_OK)
        snprintf(out, sizeof out, "!%d", what);
    for (uint32_t i = 0; i < l->count; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%u %s", i ? "," : "", l->hosts[i].preference,
                                l->hosts[i].name);
    mxset_free(s);
    return out;
}

static void expect_list(enum dns_status status, const char *in, const char *out) {
    struct mx_list l;
    assert_string_equal(list_of(status, in, &l), out);
    mx_list_deinit(&l);
}

static void expect_none(enum dns_status status, const char *in, enum outcome_local what) {
    char want[16];
    snprintf(want, sizeof want, "!%d", what);
    expect_list(status, in, want);
}

static void test_lists(void **state) {
    (void)state;
    expect_list(DNS_OK, "10 a.example,10 b.example,20 c.example", "10 a.example,10 b.example,20 c.example"); /* 32 */
    expect_list(DNS_OK, "10 a.example,20 a.example", "10 a.example");
    expect_list(DNS_NODATA, "", "0 d.example");                                     /* 34 */
    expect_none(DNS_NXDOMAIN, "", OUTCOME_NXDOMAIN);                                /* 35 */
    expect_none(DNS_TEMPFAIL, "", OUTCOME_DNS_TEMPFAIL);                            /* 35 */
    expect_none(DNS_LOOP, "", OUTCOME_CNAME_LOOP);                                  /* 36 */
    expect_list(DNS_OK, "10 a.example,20 ME.example,30 c.example", "10 a.example"); /* 37 */
    expect_list(DNS_OK, "10 a.example,20 b.example,20 me2.example,20 z.example", "10 a.example");
    expect_none(DNS_OK, "10 me.example", OUTCOME_OWN_HOST);
    expect_none(DNS_OK, "10 a.example,10 me.example,20 b.example", OUTCOME_OWN_HOST);
    expect_none(DNS_OK, "0 ", OUTCOME_NULL_MX); /* 38 */
    expect_list(DNS_OK, "0 ,10 a.example", "10 a.example");
    expect_none(DNS_OK, "0 ,10 ", OUTCOME_MX_NOWHERE); /* 34: no fallback */
    struct mx_list l;
    enum outcome_local what;
    assert_int_equal(mx_list_init(&l, NULL, "d.example", &plain, &what), ERR_NOMEM);
    assert_int_equal(what, OUTCOME_NO_MEMORY);
    mx_list_deinit(&l);
    /* the domain itself is us */
    struct mxset *s = mx_set(DNS_NODATA, "");
    assert_int_equal(mx_list_init(&l, s, "me.example", &plain, &what), ERR_NOT_FOUND);
    assert_int_equal(what, OUTCOME_OWN_HOST);
    mx_list_deinit(&l);
    mxset_free(s);
}

static void test_dropped_are_remembered(void **state) {
    (void)state;
    struct mx_list l;
    list_of(DNS_OK, "10 a.example,20 b.example,20 me.example,30 c.example", &l);
    assert_true(l.own);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.dropped, 3);
    assert_string_equal(l.hosts[3].name, "c.example");
    mx_list_deinit(&l);
}

/* -- addresses -- */

static struct tcp_addr addr(const char *text, uint16_t port) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, span_of(text), port), ERR_OK);
    return a;
}

static enum mx_address judge(const struct mx_policy *p, const char *text, uint16_t port) {
    struct tcp_addr a = addr(text, port);
    return mx_judge_address(p, &a);
}

/* Line 39, and 37 by address. */
static void test_addresses(void **state) {
    (void)state;
    static const char *const unusable[] = {"0.0.0.0", "0.1.2.3",        "::", "224.0.0.1", "239.255.255.255",
                                           "ff02::1", "255.255.255.255"};
    struct mx_policy p = plain;
    for (int loopback = 0; loopback < 2; loopback++) {
        p.loopback_targets = loopback;
        for (size_t i = 0; i < sizeof unusable / sizeof *unusable; i++)
            assert_int_equal(judge(&p, unusable[i], 25), MX_ADDRESS_UNUSABLE);
        enum mx_address want = loopback ? MX_ADDRESS_GOOD : MX_ADDRESS_LOOPBACK;
        assert_int_equal(judge(&p, "127.0.0.1", 25), want);
        assert_int_equal(judge(&p, "127.255.0.9", 25), want);
        assert_int_equal(judge(&p, "::1", 25), want);
        assert_int_equal(judge(&p, "::ffff:127.0.0.1", 25), want);
        assert_int_equal(judge(&p, "192.0.2.1", 25), MX_ADDRESS_GOOD);
    }
    struct tcp_addr one = addr("192.0.2.1", 2525), any = addr("0.0.0.0", 25), any6 = addr("::", 25);
    p = plain;
    p.own_listen = &one;
    p.own_listen_count = 1;
    assert_int_equal(judge(&p, "192.0.2.1", 25), MX_ADDRESS_OWN);
    assert_int_equal(judge(&p, "192.0.2.2", 25), MX_ADDRESS_GOOD);
    p.loopback_targets = true; /* tests: ours at the same port only */
    assert_int_equal(judge(&p, "192.0.2.1", 25), MX_ADDRESS_GOOD);
    assert_int_equal(judge(&p, "192.0.2.1", 2525), MX_ADDRESS_OWN);
    p.loopback_targets = false;
    p.is_local = is_ten_one;
    for (int v6 = 0; v6 < 2; v6++) {
        p.own_listen = v6 ? &any6 : &any;
        assert_int_equal(judge(&p, "10.0.0.1", 25), MX_ADDRESS_OWN);
        assert_int_equal(judge(&p, "10.0.0.2", 25), MX_ADDRESS_GOOD);
    }
}

/* "192.0.2.1 192.0.2.2", or "!" for a failing query; heap. */
static struct mxset *a_set(const char *text, bool v6) {
    struct mxset *s = calloc(1, sizeof *s + 100 * sizeof(struct mxrecord));
    s->refs = 1;
    s->status = text[0] == '!' ? DNS_TEMPFAIL : text[0] ? DNS_OK : DNS_NODATA;
    struct span rest = s->status == DNS_OK ? span_of(text) : SPAN_EMPTY;
    while (rest.len) {
        struct span word = span_cut(rest, ' ', &rest);
        struct tcp_addr a;
        assert_int_equal(tcp_addr_parse(&a, word, 0), ERR_OK);
        if (v6)
            memcpy(s->records[s->count++].addr, (const char *)&a.storage + 8, 16); /* sin6_addr */
        else
            memcpy(s->records[s->count++].addr, (const char *)&a.storage + 4, 4); /* sin_addr */
    }
    return s;
}

struct host {
    const char *name, *a, *aaaa;
};

static struct mx_group_result order(const struct host *hosts, uint32_t count, const struct mx_policy *p,
                                    uint64_t seed) {
    struct mx_found found[MX_GROUP_LOOKED_AT];
    struct mx_group_result out;
    struct rand r;
    rand_init(&r, seed);
    for (uint32_t i = 0; i < count; i++)
        found[i] = (struct mx_found){hosts[i].name, a_set(hosts[i].a, false), a_set(hosts[i].aaaa, true)};
    mx_order(found, count, p, &r, &out);
    for (uint32_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)found[i].a);
        free((void *)(uintptr_t)found[i].aaaa);
    }
    return out;
}

static void expect_targets(const struct mx_group_result *g, const char *want) {
    char text[1024] = "", ip[128];
    size_t len = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        tcp_addr_ip(&g->targets[i].addr, ip, sizeof ip);
        assert_int_equal(tcp_addr_port(&g->targets[i].addr), 25);
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s/%s", i ? " " : "", g->targets[i].host, ip);
    }
    assert_string_equal(text, want);
}

/* Line 33. */
static void test_families(void **state) {
    (void)state;
    static const struct host both = {"a", "192.0.2.1", "2001:db8::1"};
    struct mx_policy p = plain;
    struct mx_group_result g = order(&both, 1, &p, 1);
    expect_targets(&g, "a/2001:db8::1 a/192.0.2.1");
    assert_false(g.cut || g.bad || g.own || g.tempfail);
    p.prefer_ipv4 = true;
    g = order(&both, 1, &p, 1);
    expect_targets(&g, "a/192.0.2.1 a/2001:db8::1");
    static const struct host four = {"a", "192.0.2.1", ""};
    g = order(&four, 1, &p, 1);
    expect_targets(&g, "a/192.0.2.1");
    /* one family failing does not hide the other */
    static const struct host half = {"a", "192.0.2.1", "!"};
    g = order(&half, 1, &p, 1);
    expect_targets(&g, "a/192.0.2.1");
    assert_false(g.tempfail);
}

static bool has(const struct mx_group_result *g, bool v6) {
    for (uint32_t i = 0; i < g->count; i++) {
        if (tcp_addr_is_v6(&g->targets[i].addr) == v6)
            return true;
    }
    return false;
}

static void test_cut(void **state) {
    (void)state;
    static const struct host rows[][5] = {
        {{"a", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7", "2001:db8::1"}},
        {{"a", "", "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6"}, {"b", "192.0.2.1", ""}},
        {{"a", "", "2001:db8::1 2001:db8::2 2001:db8::3"},
         {"b", "", "2001:db8::4 2001:db8::5"},
         {"c", "192.0.2.1", "2001:db8::6"}},
        {{"a", "192.0.2.1", ""},
         {"b", "192.0.2.2", ""},
         {"c", "192.0.2.3", ""},
         {"d", "192.0.2.4", ""},
         {"e", "192.0.2.5", ""}},
    };
    for (uint64_t seed = 0; seed < 200; seed++) {
        for (size_t i = 0; i < 4; i++) {
            uint32_t count = 0, hosts = 0;
            while (count < 5 && rows[i][count].name)
                count++;
            struct mx_group_result g = order(rows[i], count, &plain, seed);
            assert_true(g.cut);
            assert_true(g.count <= MX_TARGETS_MAX);
            assert_true(has(&g, false));
            assert_int_equal(has(&g, true), i < 3);
            for (uint32_t t = 0; t < g.count; t++) {
                hosts += t == 0 || strcmp(g.targets[t].host, g.targets[t - 1].host) != 0; /* host by host */
                for (uint32_t u = 0; u < t; u++)
                    assert_false(tcp_addr_same_ip(&g.targets[t].addr, &g.targets[u].addr));
            }
            assert_true(hosts <= MX_GROUP_HOSTS);
        }
    }
}

/* Line 32: each of two equal hosts comes first about half of the time. */
static void test_shuffle(void **state) {
    (void)state;
    static const struct host rows[] = {{"a", "192.0.2.1", ""}, {"b", "192.0.2.2", ""}};
    int first = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        struct mx_group_result g = order(rows, 2, &plain, seed);
        assert_int_equal(g.count, 2);
        first += g.targets[0].host[0] == 'a';
    }
    assert_in_range(first, 400, 600);
    /* the same chance, the same order */
    struct mx_group_result one = order(rows, 2, &plain, 5), two = order(rows, 2, &plain, 5);
    assert_string_equal(one.targets[0].host, two.targets[0].host);
}

/* Line 32: equal hosts share evenly, in the daemon's own way (one stream of chance): chi-square over 3,000 attempts. */
static void test_equal_hosts_share_evenly(void **state) {
    (void)state;
    enum { HOSTS = 12, ATTEMPTS = 3000 };
    static const double bound = 31.26; /* p = 0.001 at 11 degrees of freedom */
    char text[1024];
    uint32_t first[HOSTS] = {0}, tried[HOSTS] = {0}, total = 0;
    struct mx_list l;
    struct rand r;
    size_t len = 0;
    for (int i = 0; i < HOSTS; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s10 h%02d.example", i ? "," : "", i);
    list_of(DNS_OK, text, &l);
    rand_init(&r, 20);
    struct mxset *none = a_set("", true);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint32_t out[MX_GROUP_LOOKED_AT], looked_at;
        struct mx_found found[MX_GROUP_LOOKED_AT];
        struct mx_group_result g;
        mx_group(&l, 0, &r, out, &looked_at);
        for (uint32_t i = 0; i < looked_at; i++) {
            struct mxset *a = a_set("192.0.2.1", false);
            a->records[0].addr[3] = (uint8_t)(out[i] + 1); /* two hosts never share an address */
            found[i] = (struct mx_found){l.hosts[out[i]].name, a, none};
        }
        mx_order(found, looked_at, &plain, &r, &g);
        assert_int_equal(g.count, MX_GROUP_HOSTS);
        for (uint32_t t = 0; t < g.count; t++, total++) {
            int host = atoi(g.targets[t].host + 1);
            tried[host]++;
            first[host] += t == 0;
        }
        for (uint32_t i = 0; i < looked_at; i++)
            free((void *)(uintptr_t)found[i].a);
    }
    double chi_first = 0, chi_tried = 0, mean = (double)ATTEMPTS / HOSTS, mean_tried = (double)total / HOSTS;
    for (int i = 0; i < HOSTS; i++) {
        chi_first += (first[i] - mean) * (first[i] - mean) / mean;
        chi_tried += (tried[i] - mean_tried) * (tried[i] - mean_tried) / mean_tried;
    }
    assert_true(chi_first < bound);
    assert_true(chi_tried < bound);
    free(none);
    mx_list_deinit(&l);
}

/* The hosts of a route come first as often as their weights say. */
static void test_weights_are_kept(void **state) {
    (void)state;
    enum { HOSTS = 3, ATTEMPTS = 3000 };
    static const char *const names[HOSTS] = {"a.example", "b.example", "c.example"};
    static const uint32_t weights[HOSTS] = {6, 3, 1};
    static const double bound = 13.82; /* p = 0.001 at 2 degrees of freedom */
    uint32_t first[HOSTS] = {0};
    struct rand r;
    double chi = 0;
    rand_init(&r, 21);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct mx_list l;
        assert_int_equal(mx_list_weighted(&l, names, weights, HOSTS, &r), ERR_OK);
        assert_int_equal(l.count, HOSTS);
        first[l.hosts[0].name[0] - 'a']++;
        mx_list_deinit(&l);
    }
    for (int i = 0; i < HOSTS; i++) {
        double mean = ATTEMPTS * weights[i] / 10.0;
        chi += (first[i] - mean) * (first[i] - mean) / mean;
    }
    assert_true(chi < bound);
}

static void test_nowhere(void **state) {
    (void)state;
    static const struct host none = {"a", "", ""}, fails = {"a", "!", ""}, fails6 = {"a", "", "!"},
                             bad = {"a", "127.0.0.1", "::"};
    struct mx_group_result g = order(&none, 1, &plain, 1);
    assert_true(g.count == 0 && !g.tempfail && !g.bad && !g.own);
    g = order(&fails, 1, &plain, 1);
    assert_true(g.count == 0 && g.tempfail);
    g = order(&fails6, 1, &plain, 1);
    assert_true(g.count == 0 && g.tempfail);
    g = order(&bad, 1, &plain, 1);
    assert_true(g.count == 0 && g.bad && !g.tempfail);
    static const struct host mixed[] = {{"a", "0.0.0.0 192.0.2.1", ""}, {"b", "!", "!"}};
    g = order(mixed, 2, &plain, 1);
    assert_true(g.count == 1 && g.bad && g.tempfail);
    /* one address of ours ends the group, whichever host it is */
    struct tcp_addr own = addr("192.0.2.9", 25);
    struct mx_policy p = plain;
    p.own_listen = &own;
    p.own_listen_count = 1;
    static const struct host with_own[] = {
        {"a", "192.0.2.1", ""}, {"b", "192.0.2.2", ""}, {"c", "192.0.2.3", ""}, {"d", "192.0.2.4 192.0.2.9", ""}};
    for (uint64_t seed = 0; seed < 50; seed++) {
        g = order(with_own, 4, &p, seed);
        assert_true(g.own && g.count == 0);
    }
}

static void test_groups(void **state) {
    (void)state;
    struct mx_list l;
    struct rand r;
    uint32_t out[MX_GROUP_LOOKED_AT], looked_at, seen = 0;
    char text[8192];
    size_t len = (size_t)snprintf(text, sizeof text, "5 first.example");
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, ",10 h%02d.example", i);
    snprintf(text + len, sizeof text - len, ",20 last.example");
    list_of(DNS_OK, text, &l);
    rand_init(&r, 3);
    assert_int_equal(mx_group(&l, 0, &r, out, &looked_at), 1);
    assert_int_equal(looked_at, 1);
    for (int round = 0; round < 200; round++) {
        assert_int_equal(mx_group(&l, 1, &r, out, &looked_at), 60);
        assert_int_equal(looked_at, MX_GROUP_LOOKED_AT);
        for (uint32_t i = 0; i < looked_at; i++) {
            assert_in_range(out[i], 1, 60);
            for (uint32_t j = 0; j < i; j++)
                assert_int_not_equal(out[i], out[j]);
            seen += out[i] == 60;
        }
    }
    assert_in_range(seen, 10, 80); /* the last of sixty is drawn as often as any */
    assert_int_equal(mx_group(&l, 61, &r, out, &looked_at), 1);
    mx_list_deinit(&l);
}

static void test_site_names(void **state) {
    (void)state;
    struct mx_list l;
    char to[MX_SITE_MAX + 1], other[MX_SITE_MAX + 1];
    list_of(DNS_OK, "10 b.example,20 a.example", &l);
    assert_int_equal(mx_site_name(&l, to), strlen("a.example+b.example"));
    assert_string_equal(to, "a.example+b.example");
    mx_list_deinit(&l);
    list_of(DNS_NODATA, "", &l);
    mx_site_name(&l, to);
    assert_string_equal(to, "d.example");
    mx_list_deinit(&l);
    /* long ones: bounded, and different when their ends are */
    char text[8192];
    size_t len = 0;
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s10 h%02d.example", i ? "," : "", i);
    list_of(DNS_OK, text, &l);
    len = mx_site_name(&l, to);
    assert_int_equal(len, strlen(to));
    assert_true(strlen(to) <= MX_SITE_MAX);
    assert_memory_equal(to, "h00.example+h01.example", 23);
    l.count--;
    mx_site_name(&l, other);
    assert_string_not_equal(to, other);
    mx_list_deinit(&l);
    /* and nobody can make a list that has the site of another one: these two were found for a hash that is not of
     * cryptography */
    len = 0;
    for (int i = 0; i < 58; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "10 h%02d.example,", i);
    snprintf(text + len, sizeof text - len, "10 h58x172154.evil.example,10 wpoycvyu");
    list_of(DNS_OK, text, &l);
    mx_site_name(&l, other);
    assert_string_not_equal(to, other);
    mx_list_deinit(&l);
    memset(text, 'x', 255);
    memcpy(text, "10 ", 3);
    text[255] = '\0';
    list_of(DNS_OK, text, &l);
    len = mx_site_name(&l, to);
    assert_int_equal(len, strlen(to));
    mx_list_deinit(&l);
    assert_int_equal(mx_list_single(&l, "one.example"), ERR_OK);
    mx_site_name(&l, to);
    assert_string_equal(to, "one.example");
    mx_list_deinit(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_dropped_are_remembered),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_equal_hosts_share_evenly),
        cmocka_unit_test(test_weights_are_kept),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_site_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
