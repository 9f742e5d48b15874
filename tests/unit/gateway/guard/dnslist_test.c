/*
 * dnslist: names and lists asked of a small DNS server on loopback, which says for each name what the table of the test
 * says; names that are not there do not exist.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/guard/guard.h"
#include "tests/unit/base/net/dns_packet.h"

struct saying {
    const char *name;
    enum dns_type type;
    const char *data; /* address, name or text; NULL: silence; "!": SERVFAIL */
};

struct world {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct loop_poll *poll;
    struct dns *dns;
    struct guard *guard;
    const struct saying *sayings;
    int fd;
    unsigned asked;
    /* the last visit */
    struct guard_client gc;
    unsigned answers;
    enum check_action action;
    unsigned code;
    char text[512], by[300];
    struct check_wait *cancel; /* from inside the server */
};

static struct packet packet;

static void put_saying(const struct saying *s) {
    struct tcp_addr a;
    size_t at;
    switch (s->type) {
    case DNS_A:
    case DNS_AAAA:
        assert_int_equal(tcp_addr_parse(&a, span_of(s->data), 0), ERR_OK);
        if (s->type == DNS_A)
            put_address(&packet, NULL, 60, &((struct sockaddr_in *)&a.storage)->sin_addr, 4);
        else
            put_address(&packet, NULL, 60, &((struct sockaddr_in6 *)&a.storage)->sin6_addr, 16);
        return;
    case DNS_PTR:
        at = put_head(&packet, SECTION_ANSWER, NULL, DNS_PTR, 60);
        put_name(&packet, s->data);
        break;
    default:
        at = put_head(&packet, SECTION_ANSWER, NULL, DNS_TXT, 60);
        put_number(&packet, (uint32_t)strlen(s->data), 1);
        memcpy(packet.bytes + packet.len, s->data, strlen(s->data));
        packet.len += strlen(s->data);
    }
    end_data(&packet, at);
}

/* False: silence. */
static bool make_answer(struct world *w, const char *name, uint16_t id, enum dns_type type) {
    unsigned found = 0, same = 0;
    put_question(&packet, id, 0, name, type);
    for (const struct saying *s = w->sayings; s && s->name; s++) {
        same += strcmp(s->name, name) == 0;
        if (strcmp(s->name, name) != 0 || s->type != type)
            continue;
        if (!s->data)
            return false;
        found++;
        if (strcmp(s->data, "!") == 0)
            packet.bytes[3] |= 2;
        else
            put_saying(s);
    }
    if (!found) {
        packet.bytes[3] |= same ? 0 : 3;
        put_soa(&packet, "example", 60, 60);
    }
    return true;
}

static void on_question(void *arg, int events, bool failed) {
    struct world *w = arg;
    unsigned char question[1500];
    char name[256];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    (void)events;
    (void)failed;
    ssize_t len = recvfrom(w->fd, question, sizeof question, 0, (struct sockaddr *)&from, &from_len);
    if (len < 17)
        return;
    size_t at = 12, used = 0;
    while (question[at]) {
        if (used)
            name[used++] = '.';
        memcpy(name + used, question + at + 1, question[at]);
        used += question[at];
        at += question[at] + 1u;
    }
    name[used] = '\0';
    w->asked++;
    if (w->cancel) {
        check_cancel(w->cancel);
        w->cancel = NULL;
        loop_timer_set(w->watchdog, 50); /* time for an answer that must not come */
    }
    if (make_answer(w, name, (uint16_t)(question[0] << 8 | question[1]), question[at + 1] << 8 | question[at + 2]))
        assert_true(sendto(w->fd, packet.bytes, packet.len, 0, (struct sockaddr *)&from, from_len) > 0);
}

static void on_watchdog(void *arg) {
    struct world *w = arg;
    loop_stop(w->loop);
}

static struct world *world_new(const struct guard_config *c, const struct saying *sayings) {
    struct world *w = calloc(1, sizeof *w);
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    char servers[32];
    assert_non_null(w->loop = loop_new());
    assert_true((w->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)) >= 0);
    assert_int_equal(bind(w->fd, (struct sockaddr *)&sin, len), 0);
    assert_int_equal(getsockname(w->fd, (struct sockaddr *)&sin, &len), 0);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(sin.sin_port));
    assert_non_null(w->poll = loop_poll_new(w->loop, w->fd, on_question, w));
    loop_poll_set(w->poll, LOOP_READABLE);
    assert_non_null(w->watchdog = loop_timer_new(w->loop, on_watchdog, w));
    assert_int_equal(dns_new(&w->dns, w->loop, servers, 20000, 1), ERR_OK);
    assert_int_equal(guard_new(&w->guard, c), ERR_OK);
    w->sayings = sayings;
    return w;
}

static void world_free(struct world *w) {
    guard_free(w->guard);
    dns_free(w->dns); /* after guard: queries of ended visits may be under way */
    loop_timer_close(w->watchdog);
    loop_poll_close(w->poll);
    loop_free(w->loop);
    close(w->fd);
    free(w);
}

static void record(struct world *w, const struct check_verdict *v) {
    w->answers++;
    w->action = v->action;
    w->code = v->reply.code;
    span_copy(v->reply.text, w->text, sizeof w->text);
    span_copy(v->by, w->by, sizeof w->by);
}

static void on_verdict(void *arg, const struct check_verdict *v) {
    struct world *w = arg;
    record(w, v);
    loop_stop(w->loop);
}

/* One visit, to its end. */
static void visit_as(struct world *w, const char *ip, bool trusted) {
    struct tcp_addr addr;
    struct check_verdict v;
    struct check_wait *wait = NULL;
    char text[128];
    assert_int_equal(tcp_addr_parse(&addr, span_of(ip), 1025), ERR_OK);
    struct check_facts f = {.client = &addr, .trusted = trusted};
    f.client_ip = span_make(text, tcp_addr_ip(&addr, text, sizeof text));
    w->answers = w->asked = w->code = 0;
    w->text[0] = w->by[0] = '\0';
    int err = guard_connect(w->guard, w->dns, w->loop, &f, &w->gc, &v, &wait, on_verdict, w);
    if (err == ERR_OK) {
        record(w, &v);
        return;
    }
    assert_int_equal(err, ERR_AGAIN);
    assert_int_equal(w->answers, 0);
    assert_non_null(wait);
    loop_timer_set(w->watchdog, 15000);
    loop_run(w->loop);
    loop_timer_stop(w->watchdog);
    assert_int_equal(w->answers, 1);
}

static void visit(struct world *w, const char *ip) {
    visit_as(w, ip, false);
}

static const struct guard_dnslist one_list[] = {{.zone = "bl.example", .score = 10}};
static const struct guard_config one_config = {
    .dnslist_mode = GUARD_ENFORCE, .dnslists = one_list, .dnslist_count = 1, .refuse_score = 10, .slow_score = 5};

static void the_listed_are_refused(void **state) {
    (void)state;
    static const struct saying sayings[] = {
        {"1.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"1.2.0.192.bl.example", DNS_TXT, "see http://bl.example/192.0.2.1"},
        {"2.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"3.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"3.2.0.192.bl.example", DNS_TXT, "a\r\n250 OK\x1b[2J\xff"},
        {"f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example", DNS_A, "127.0.0.2"},
        {NULL, 0, NULL},
    };
    struct world *w = world_new(&one_config, sayings);
    visit(w, "192.0.2.1");
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_int_equal(w->code, 554);
    assert_string_equal(w->text, "Client host [192.0.2.1] is listed by bl.example: see http://bl.example/192.0.2.1");
    assert_string_equal(w->by, "dnslist bl.example");
    assert_int_equal(w->gc.score, 10);
    assert_true(w->gc.slow);
    assert_false(w->gc.good);
    visit(w, "192.0.2.2"); /* without a text */
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_string_equal(w->text, "Client host [192.0.2.2] is listed by bl.example");
    visit(w, "192.0.2.3");
    assert_string_equal(w->text, "Client host [192.0.2.3] is listed by bl.example: a??250 OK?[2J?");
    visit(w, "2001:db8::f");
    assert_int_equal(w->action, CHECK_REFUSE);
    visit(w, "192.0.2.4");
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->gc.score, 0);
    assert_false(w->gc.slow);
    assert_int_equal(w->asked, 1);
    visit_as(w, "192.0.2.1", true); /* trusted: not asked about */
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->asked, 0);
    visit(w, "unix:/x");
    assert_int_equal(w->action, CHECK_PASS);
    world_free(w);
}

static void modes_of_lists(void **state) {
    (void)state;
    static const struct saying sayings[] = {{"1.2.0.192.bl.example", DNS_A, "127.0.0.2"}, {NULL, 0, NULL}};
    struct guard_config c = one_config;
    c.dnslist_mode = GUARD_LOG;
    struct world *w = world_new(&c, sayings);
    visit(w, "192.0.2.1");
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->gc.score, 10);
    c.dnslist_mode = GUARD_OFF;
    assert_int_equal(guard_reconfigure(w->guard, &c), ERR_OK);
    visit(w, "192.0.2.1");
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->asked, 0);
    c.dnslist_mode = GUARD_ENFORCE;
    c.refuse_score = 0; /* never */
    assert_int_equal(guard_reconfigure(w->guard, &c), ERR_OK);
    visit(w, "192.0.2.1");
    assert_int_equal(w->action, CHECK_PASS);
    assert_true(w->gc.slow);
    world_free(w);
}

static void scores_are_added(void **state) {
    (void)state;
    static const struct guard_dnslist lists[] = {
        {.zone = "a.example", .answer = "127.0.0.2", .score = 3},
        {.zone = "A.example", .answer = "127.0.0.8/29", .score = 6}, /* the same zone: asked once */
        {.zone = "b.example", .score = 5},
        {.zone = "wl.example", .answer = "127.0.0.0/16", .score = -4},
    };
    static const struct saying sayings[] = {
        {"1.2.0.192.a.example", DNS_A, "127.0.0.2"},  {"1.2.0.192.b.example", DNS_A, "127.0.0.9"},
        {"2.2.0.192.a.example", DNS_A, "127.0.0.2"},  {"2.2.0.192.a.example", DNS_A, "127.0.0.10"},
        {"3.2.0.192.a.example", DNS_A, "127.0.0.2"},  {"3.2.0.192.b.example", DNS_A, "127.0.0.9"},
        {"3.2.0.192.wl.example", DNS_A, "127.0.3.1"}, {"4.2.0.192.wl.example", DNS_A, "127.0.3.1"},
        {"5.2.0.192.a.example", DNS_A, "127.0.0.16"}, {NULL, 0, NULL},
    };
    struct guard_config c = {.dnslist_mode = GUARD_ENFORCE,
                             .dnslists = lists,
                             .dnslist_count = 4,
                             .refuse_score = 8,
                             .slow_score = 4,
                             .good_score = -4};
    struct world *w = world_new(&c, sayings);
    visit(w, "192.0.2.1");
    assert_int_equal(w->gc.score, 8);
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_string_equal(w->by, "dnslist b.example"); /* the heaviest */
    assert_int_equal(w->asked, 4);                   /* three zones, and the text */
    visit(w, "192.0.2.2");
    assert_int_equal(w->gc.score, 9);
    assert_string_equal(w->by, "dnslist A.example");
    visit(w, "192.0.2.3");
    assert_int_equal(w->gc.score, 4);
    assert_int_equal(w->action, CHECK_PASS);
    assert_true(w->gc.slow);
    assert_false(w->gc.good);
    visit(w, "192.0.2.4");
    assert_int_equal(w->gc.score, -4);
    assert_true(w->gc.good);
    visit(w, "192.0.2.5");
    assert_int_equal(w->gc.score, 0);
    assert_false(w->gc.good);
    world_free(w);
}

static void errors_of_a_list_refuse_nobody(void **state) {
    (void)state;
    static const struct saying sayings[] = {
        {"1.2.0.192.bl.example", DNS_A, "127.255.255.254"},
        {"2.2.0.192.bl.example", DNS_A, "192.0.2.77"},
        {"3.2.0.192.bl.example", DNS_A, "!"},
        {"4.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"4.2.0.192.bl.example", DNS_A, "127.255.255.1"},
        {"5.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"5.2.0.192.bl.example", DNS_TXT, "!"},
        {NULL, 0, NULL},
    };
    struct world *w = world_new(&one_config, sayings);
    for (int i = 1; i <= 4; i++) {
        char ip[16];
        snprintf(ip, sizeof ip, "192.0.2.%d", i);
        visit(w, ip);
        assert_int_equal(w->action, CHECK_PASS);
        assert_int_equal(w->gc.score, 0);
    }
    visit(w, "192.0.2.5"); /* only its text fails */
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_string_equal(w->text, "Client host [192.0.2.5] is listed by bl.example");
    world_free(w);
}

static void the_deadline_lets_in(void **state) {
    (void)state;
    static const struct guard_dnslist lists[] = {
        {.zone = "bl.example", .score = 10}, {.zone = "b.example", .score = 10}, {.zone = "wl.example", .score = -5}};
    static const struct saying sayings[] = {
        {"1.2.0.192.bl.example", DNS_A, NULL},   {"2.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"2.2.0.192.wl.example", DNS_A, NULL},   {"3.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"3.2.0.192.b.example", DNS_A, NULL},    {"4.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"4.2.0.192.bl.example", DNS_TXT, NULL}, {"5.2.0.192.bl.example", DNS_A, "127.0.0.2"},
        {"5.2.0.192.wl.example", DNS_A, "!"},    {NULL, 0, NULL},
    };
    struct guard_config c = {
        .dnslist_mode = GUARD_ENFORCE, .dnslists = lists, .dnslist_count = 3, .refuse_score = 10, .dns_ms = 150};
    struct world *w = world_new(&c, sayings);
    visit(w, "192.0.2.1"); /* what is silent says nothing against the client */
    assert_int_equal(w->action, CHECK_PASS);
    visit(w, "192.0.2.2"); /* and all that it could say for it */
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->gc.score, 10);
    visit(w, "192.0.2.3"); /* so what is known can suffice */
    assert_int_equal(w->action, CHECK_REFUSE);
    visit(w, "192.0.2.4"); /* the text is not waited for */
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_string_equal(w->text, "Client host [192.0.2.4] is listed by bl.example");
    visit(w, "192.0.2.5"); /* one that fails is as one that is silent */
    assert_int_equal(w->action, CHECK_PASS);
    world_free(w);
}

static void names_are_confirmed(void **state) {
    (void)state;
    static const struct saying sayings[] = {
        {"1.2.0.192.in-addr.arpa", DNS_PTR, "Mail.example"},
        {"mail.example", DNS_A, "192.0.2.9"},
        {"mail.example", DNS_A, "192.0.2.1"},
        {"2.2.0.192.in-addr.arpa", DNS_PTR, "mail.example"}, /* a name of others */
        {"3.2.0.192.in-addr.arpa", DNS_PTR, "liar.example"},
        {"3.2.0.192.in-addr.arpa", DNS_PTR, "true.example"},
        {"true.example", DNS_A, "192.0.2.3"},
        {"f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", DNS_PTR, "six.example"},
        {"six.example", DNS_AAAA, "2001:db8::f"},
        {"5.2.0.192.in-addr.arpa", DNS_PTR, "e\nvil.example"},
        {"6.2.0.192.in-addr.arpa", DNS_PTR, NULL},
        {"7.2.0.192.in-addr.arpa", DNS_PTR, "slow.example"},
        {"slow.example", DNS_A, NULL},
        {NULL, 0, NULL},
    };
    struct guard_config c = {.names = true, .dns_ms = 150};
    static const struct {
        const char *ip, *name, *reverse;
    } cases[] = {
        {"192.0.2.1", "mail.example", "mail.example"},
        {"192.0.2.2", "", "mail.example"},
        {"192.0.2.3", "true.example", "liar.example"},
        {"192.0.2.4", "", ""},
        {"2001:db8::f", "six.example", "six.example"},
        {"192.0.2.5", "", ""},
        {"192.0.2.6", "", ""},
        {"192.0.2.7", "", "slow.example"},
        {"::ffff:192.0.2.1", "mail.example", "mail.example"},
    };
    struct world *w = world_new(&c, sayings);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        visit_as(w, cases[i].ip, i % 2); /* the trusted are named too */
        assert_int_equal(w->action, CHECK_PASS);
        assert_string_equal(w->gc.name, cases[i].name);
        assert_string_equal(w->gc.reverse, cases[i].reverse);
    }
    world_free(w);
}

static void a_canceled_visit_says_nothing(void **state) {
    (void)state;
    static const struct saying sayings[] = {
        {"1.2.0.192.bl.example", DNS_A, "127.0.0.2"}, {"2.2.0.192.bl.example", DNS_A, NULL}, {NULL, 0, NULL}};
    struct world *w = world_new(&one_config, sayings);
    for (int i = 1; i <= 2; i++) {
        struct tcp_addr addr;
        struct check_verdict v;
        char ip[16];
        snprintf(ip, sizeof ip, "192.0.2.%d", i);
        assert_int_equal(tcp_addr_parse(&addr, span_of(ip), 1025), ERR_OK);
        struct check_facts f = {.client = &addr, .client_ip = span_of(ip)};
        struct guard_client *gc = calloc(1, sizeof *gc);
        w->answers = w->asked = 0;
        assert_int_equal(guard_connect(w->guard, w->dns, w->loop, &f, gc, &v, &w->cancel, on_verdict, w), ERR_AGAIN);
        loop_timer_set(w->watchdog, 15000);
        loop_run(w->loop);
        free(gc); /* with the session */
        assert_int_equal(w->asked, 1);
        assert_int_equal(w->answers, 0);
    }
    assert_int_equal(guard_reconfigure(w->guard, &one_config), ERR_OK); /* under the question that waits */
    world_free(w);
}

static void no_resolver_is_no_refusal(void **state) {
    (void)state;
    struct guard_config c = one_config;
    c.names = true;
    struct world *w = world_new(&c, NULL);
    dns_free(w->dns);
    int fd = socket(AF_INET, SOCK_DGRAM, 0); /* a port where nobody answers: refused at once */
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    char servers[32];
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    close(fd);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(sin.sin_port));
    assert_int_equal(dns_new(&w->dns, w->loop, servers, 1000, 1), ERR_OK);
    visit(w, "192.0.2.1");
    assert_int_equal(w->action, CHECK_PASS);
    assert_string_equal(w->gc.name, "");
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_listed_are_refused),
        cmocka_unit_test(modes_of_lists),
        cmocka_unit_test(scores_are_added),
        cmocka_unit_test(errors_of_a_list_refuse_nobody),
        cmocka_unit_test(the_deadline_lets_in),
        cmocka_unit_test(names_are_confirmed),
        cmocka_unit_test(a_canceled_visit_says_nothing),
        cmocka_unit_test(no_resolver_is_no_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
