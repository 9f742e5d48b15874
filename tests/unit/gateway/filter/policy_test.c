/*
 * policy: the words, and questions to scripted services on sockets: every action, kept connections, the bounded line,
 * and the ways in which a service can fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "gateway/filter/policy.h"
#include "gateway/filter/policy_words.h"

/* -- a scripted service on the same loop -- */

enum { PEERS_MAX = 64 };
struct service;
struct peer {
    struct service *service;
    struct tcp *c;
    int asked;
};
struct service {
    struct tcp_listener *listener;
    struct tcp_addr addr;
    const char *answer; /* NULL: silence; "": it closes */
    bool chop;
    int close_at; /* closes a connection instead of answering its nth question (from 1); 0: never */
    struct peer peers[PEERS_MAX];
    int connections, questions;
    int hold; /* answers nothing until this many questions wait */
    char last[POLICY_QUESTION_MAX];
};

static void answer(struct peer *p, const char *text) {
    size_t len = strlen(text);
    if (!len) {
        tcp_close(p->c);
        p->c = NULL;
        return;
    }
    for (size_t i = 0; p->service->chop && i + 1 < len; i++, text++)
        assert_int_equal(tcp_write(p->c, text, 1), ERR_OK);
    assert_int_equal(tcp_write(p->c, text, strlen(text)), ERR_OK);
}

static void on_peer(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct peer *p = arg;
    struct service *s = p->service;
    (void)err;
    if (event == TCP_EOF || event == TCP_FAILED) {
        tcp_close(c);
        p->c = NULL;
        return;
    }
    struct span in = buf_span(tcp_in(c));
    if (event != TCP_READ || in.len < 2 || memcmp(in.at + in.len - 2, "\n\n", 2) != 0)
        return;
    span_copy(in, s->last, sizeof s->last);
    buf_consume(tcp_in(c), in.len);
    s->questions++;
    p->asked++;
    if (s->close_at && p->asked == s->close_at) {
        answer(p, "");
    } else if (s->hold && s->questions < s->hold) {
        return;
    } else if (s->hold) {
        s->hold = 0;
        for (int i = 0; i < s->connections; i++)
            answer(&s->peers[i], s->answer);
    } else if (s->answer) {
        answer(p, s->answer);
    }
}

static void on_accept(void *arg, struct tcp *c, const struct tcp_addr *from) {
    struct service *s = arg;
    (void)from;
    assert_true(s->connections < PEERS_MAX);
    struct peer *p = &s->peers[s->connections++];
    *p = (struct peer){.service = s, .c = c};
    assert_int_equal(tcp_start(c, 65536, 65536, on_peer, p), ERR_OK);
}

/* -- a session -- */

struct world {
    struct loop *loop;
    struct loop_timer *guard;
    struct service services[2];
    struct policy_config configs[2];
    struct policies *p;
    struct tcp_addr client;
    struct check_facts facts;
    struct buf prepend;
    int due, answers;
    bool in_call;
    enum check_action action;
    int code;
    bool close;
    char text[600], enhanced[20], by[100];
};

static void on_guard(void *arg) {
    (void)arg;
    fail_msg("no answer within 20 s");
}

static void listen_at(struct world *w, struct service *s) {
    assert_int_equal(tcp_addr_parse_port(&s->addr, SPAN("127.0.0.1:0")), ERR_OK);
    int fd = tcp_bind(&s->addr, false);
    assert_true(fd >= 0);
    s->addr.len = sizeof s->addr.storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&s->addr.storage, &s->addr.len), 0);
    s->listener = tcp_listen(w->loop, fd, 128, on_accept, s);
    assert_non_null(s->listener);
}

static struct world *world_of(const char *answer_text, enum milter_failure failure) {
    static const char *const names[] = {"one", "two"};
    struct world *w = calloc(1, sizeof *w);
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    for (size_t i = 0; i < 2; i++) {
        listen_at(w, &w->services[i]);
        w->services[i].answer = i ? "action=DUNNO\n\n" : answer_text;
        w->configs[i] = (struct policy_config){.name = names[i],
                                               .address = w->services[i].addr,
                                               .stage = CHECK_RCPT,
                                               .failure = failure,
                                               .timeout_ms = 10000};
    }
    w->p = policies_new(w->loop, w->configs, 2);
    buf_init(&w->prepend, 1000);
    assert_int_equal(tcp_addr_parse(&w->client, SPAN("192.0.2.7"), 4321), ERR_OK);
    w->facts = (struct check_facts){.client = &w->client,
                                    .local = &w->client,
                                    .client_ip = SPAN("192.0.2.7"),
                                    .reverse_name = SPAN("reverse.example"),
                                    .helo = SPAN("helo.example"),
                                    .esmtp = true,
                                    .id = SPAN("0123456789ABC"),
                                    .sender = SPAN("a@sender.example"),
                                    .recipient = SPAN("b@rcpt.example"),
                                    .recipients = 3,
                                    .size = 99};
    return w;
}

static void world_free(struct world *w) {
    policies_free(w->p);
    for (size_t i = 0; i < 2; i++) {
        if (w->services[i].listener)
            tcp_listener_close(w->services[i].listener);
        for (int n = 0; n < w->services[i].connections; n++) {
            if (w->services[i].peers[n].c)
                tcp_close(w->services[i].peers[n].c);
        }
    }
    loop_timer_close(w->guard);
    loop_free(w->loop);
    buf_deinit(&w->prepend);
    free(w);
}

static void on_verdict(void *arg, const struct check_verdict *v) {
    struct world *w = arg;
    assert_false(w->in_call);
    w->answers++;
    w->action = v->action;
    w->code = v->reply.code;
    w->close = v->close;
    span_copy(v->reply.text, w->text, sizeof w->text);
    span_copy(v->reply.enhanced, w->enhanced, sizeof w->enhanced);
    span_copy(v->by, w->by, sizeof w->by);
    if (w->answers == w->due)
        loop_stop(w->loop);
}

static struct check_wait *start(struct world *w, enum check_stage stage) {
    struct check_verdict v;
    struct check_wait *wait = NULL;
    w->in_call = true;
    int err = policies_check(w->p, stage, &w->facts, &w->prepend, &v, &wait, on_verdict, w);
    w->in_call = false;
    if (err == ERR_OK)
        on_verdict(w, &v);
    return wait;
}

static void run(struct world *w, int due) {
    w->due = due;
    if (w->answers >= due)
        return;
    loop_timer_set(w->guard, 20000);
    loop_run(w->loop);
    loop_timer_stop(w->guard);
    assert_int_equal(w->answers, due);
}

static enum check_action ask(struct world *w, enum check_stage stage) {
    w->answers = 0;
    (void)start(w, stage);
    run(w, 1);
    return w->action;
}

/* -- words -- */

static void a_question_says_all(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\n", MILTER_REJECT);
    struct tls_info tls = {.version = "TLSv1.3",
                           .cipher = "AES",
                           .bits = 256,
                           .has_peer = true,
                           .peer_verified = true,
                           .peer_subject = "CN=x",
                           .peer_issuer = "CN=y",
                           .peer_fingerprint = "ab"};
    w->facts.tls = &tls;
    w->facts.mechanism = SPAN("PLAIN");
    w->facts.account = SPAN("me");
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_string_equal(
        w->services[0].last,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=helo.example\n"
        "queue_id=0123456789ABC\nsender=a@sender.example\nrecipient=b@rcpt.example\nrecipient_count=0\n"
        "client_address=192.0.2.7\nclient_name=unknown\nreverse_client_name=reverse.example\n"
        "client_port=4321\ninstance=0123456789ABC\nsasl_method=PLAIN\nsasl_username=me\nsasl_sender=\n"
        "size=99\nccert_subject=CN=x\nccert_issuer=CN=y\nccert_fingerprint=ab\n"
        "encryption_protocol=TLSv1.3\nencryption_cipher=AES\nencryption_keysize=256\n"
        "server_address=192.0.2.7\nserver_port=4321\nstress=\netrn_domain=\npolicy_context=\n"
        "compatibility_level=3.6\n\n");
    assert_string_equal(w->services[0].last, w->services[1].last);
    world_free(w);
}

/* A stranger's line break adds no attribute and ends no question. */
static void strangers_add_no_attributes(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\n", MILTER_REJECT);
    w->facts.helo = SPAN("x\nsasl_username=root\r\n\n\0y");
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_non_null(strstr(w->services[0].last, "\nhelo_name=x?sasl_username=root????y\n"));
    assert_null(strstr(w->services[0].last, "\nsasl_username=root"));
    world_free(w);
}

static void every_action(void **state) {
    (void)state;
    static const struct {
        const char *answer;
        enum check_action action;
        int code;
        const char *enhanced, *text, *prepended;
    } cases[] = {
        {"action=OK\n\n", CHECK_PASS, 0, "", "", ""},
        {"action=dunno\n\n", CHECK_PASS, 0, "", "", ""},
        {"action=DUNNO\r\n\r\n", CHECK_PASS, 0, "", "", ""},
        {"other=1\naction=DUNNO with a remark\n\n", CHECK_PASS, 0, "", "", ""},
        {"action=WARN strange\n\n", CHECK_PASS, 0, "", "", ""},
        {"action=INFO fine\n\n", CHECK_PASS, 0, "", "", ""},
        {"action=REJECT\n\n", CHECK_REFUSE, 554, "5.7.1", "Access denied", ""},
        {"action=REJECT 5.7.23 go away\n\n", CHECK_REFUSE, 554, "5.7.23", "go away", ""},
        {"action=DEFER_IF_PERMIT Greylisted\n\n", CHECK_REFUSE, 450, "4.7.1", "Greylisted", ""},
        {"action=DEFER_IF_REJECT\n\n", CHECK_REFUSE, 450, "4.7.1", "Access denied for now, try again later", ""},
        {"action=DEFER 4.2.0 later\n\n", CHECK_REFUSE, 450, "4.2.0", "later", ""},
        {"action=451 4.3.0 wait\n\n", CHECK_REFUSE, 451, "4.3.0", "wait", ""},
        {"action=550 4.3.0 wrong class\n\n", CHECK_REFUSE, 550, "5.7.1", "4.3.0 wrong class", ""},
        {"action=421 bye\n\n", CHECK_REFUSE, 421, "4.7.1", "bye", ""},
        {"action=DISCARD secretly\n\n", CHECK_DISCARD, 0, "", "", ""},
        {"action=PREPEND X-A: b\n\n", CHECK_PASS, 0, "", "", "X-A: b\r\n"},
        /* failures of the service */
        {"action=PREPEND no field\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=PREPEND X A: b\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=PREPEND X-A: b\rX-B: c\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=FILTER smtp:x\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=250 fine\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"no attribute\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
        {"action=OK\naction=REJECT\n\n", CHECK_REFUSE, 451, "4.7.1", NULL, ""},
    };
    for (int chop = 0; chop < 2; chop++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct world *w = world_of(cases[i].answer, MILTER_TEMPFAIL);
            w->services[0].chop = chop;
            enum check_action action = ask(w, CHECK_RCPT);
            if (action != cases[i].action || w->code != cases[i].code)
                fail_msg("%s: %d %d", cases[i].answer, (int)action, w->code);
            if (action == CHECK_REFUSE) {
                assert_string_equal(w->enhanced, cases[i].enhanced);
                assert_string_equal(w->by, "policy one");
                if (cases[i].text)
                    assert_string_equal(w->text, cases[i].text);
            }
            assert_int_equal(w->close, w->code == 421);
            assert_int_equal(w->services[1].questions, action == CHECK_PASS);
            assert_string_equal(buf_cstr(&w->prepend), cases[i].prepended);
            world_free(w);
        }
    }
}

static void answers_that_never_end_are_bounded(void **state) {
    (void)state;
    struct policy_action a;
    size_t used;
    char *text = malloc(POLICY_ANSWER_MAX);
    memset(text, 'x', POLICY_ANSWER_MAX);
    assert_int_equal(policy_answer(span_make(text, POLICY_ANSWER_MAX - 1), &a, &used), ERR_AGAIN);
    assert_int_equal(policy_answer(span_make(text, POLICY_ANSWER_MAX), &a, &used), ERR_INVALID);
    char *answer_text = malloc(2 * POLICY_ANSWER_MAX + 1);
    memset(answer_text, 'y', 2 * POLICY_ANSWER_MAX);
    answer_text[2 * POLICY_ANSWER_MAX] = '\0';
    struct world *w = world_of(answer_text, MILTER_REJECT);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_REFUSE);
    assert_int_equal(w->code, 550);
    world_free(w);
    free(answer_text);
    free(text);
}

/* -- connections -- */

static void only_services_of_the_stage_are_asked(void **state) {
    (void)state;
    struct world *w = world_of("action=REJECT\n\n", MILTER_REJECT);
    w->configs[1].stage = CHECK_END;
    assert_int_equal(ask(w, CHECK_DATA), CHECK_PASS);
    assert_int_equal(w->services[0].questions + w->services[1].questions, 0);
    assert_int_equal(ask(w, CHECK_END), CHECK_PASS);
    assert_non_null(strstr(w->services[1].last, "\nprotocol_state=END-OF-MESSAGE\n"));
    assert_non_null(strstr(w->services[1].last, "\nrecipient=\nrecipient_count=3\n"));
    assert_int_equal(w->services[0].questions, 0);
    world_free(w);
}

static void connections_are_kept(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\n", MILTER_REJECT);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(w->services[0].connections, 1);
    assert_int_equal(w->services[0].questions, 5);
    world_free(w);
}

static void a_kept_connection_that_dies_is_replaced_once(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\n", MILTER_REJECT);
    w->services[0].close_at = 2; /* each connection answers once */
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(w->services[0].connections, 2);
    assert_int_equal(w->services[0].questions, 3);
    w->services[0].answer = ""; /* now fresh ones die too */
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_REFUSE);
    assert_int_equal(w->services[0].connections, 3);
    world_free(w);
}

static void who_speaks_on_loses_its_connection(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\naction=OK\n\n", MILTER_REJECT);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(w->services[0].connections, 2);
    world_free(w);
}

static void questions_wait_for_a_connection(void **state) {
    (void)state;
    struct world *w = world_of("action=DUNNO\n\n", MILTER_REJECT);
    w->services[0].hold = 16;
    for (int i = 0; i < 50; i++)
        (void)start(w, CHECK_RCPT);
    run(w, 50);
    assert_int_equal(w->action, CHECK_PASS);
    assert_int_equal(w->services[0].connections, 16);
    assert_int_equal(w->services[0].questions, 50);
    world_free(w);
}

static void the_line_is_bounded(void **state) {
    (void)state;
    struct world *w = world_of(NULL, MILTER_REJECT);
    for (int i = 0; i < 16 + 1000 + 5; i++)
        (void)start(w, CHECK_RCPT);
    run(w, 5);
    assert_int_equal(w->code, 550);
    world_free(w); /* with a thousand questions open */
}

/* -- failures -- */

static void failures_are_answered_as_the_operator_chose(void **state) {
    (void)state;
    static const int codes[] = {451, 0, 550};
    for (int choice = MILTER_TEMPFAIL; choice <= MILTER_REJECT; choice++) {
        enum check_action want = choice == MILTER_ACCEPT ? CHECK_PASS : CHECK_REFUSE;
        struct world *w = world_of(NULL, (enum milter_failure)choice); /* silence */
        w->configs[0].timeout_ms = 100;
        assert_int_equal(ask(w, CHECK_RCPT), want);
        assert_int_equal(w->code, codes[choice]);
        assert_int_equal(w->services[1].questions, choice == MILTER_ACCEPT);
        w->services[0].answer = ""; /* closes */
        assert_int_equal(ask(w, CHECK_RCPT), want);
        tcp_listener_close(w->services[0].listener); /* nobody listens */
        w->services[0].listener = NULL;
        assert_int_equal(ask(w, CHECK_RCPT), want);
        assert_int_equal(w->code, codes[choice]);
        world_free(w);
    }
}

static void those_who_wait_time_out_too(void **state) {
    (void)state;
    struct world *w = world_of(NULL, MILTER_TEMPFAIL);
    w->configs[0].timeout_ms = 100;
    for (int i = 0; i < 40; i++)
        (void)start(w, CHECK_RCPT);
    run(w, 40);
    assert_int_equal(w->code, 451);
    world_free(w);
}

static void too_much_is_not_prepended(void **state) {
    (void)state;
    char text[1100] = "action=PREPEND X-Long: ";
    size_t len = strlen(text);
    memset(text + len, 'x', 1000);
    memcpy(text + len + 1000, "\n\n", 3);
    struct world *w = world_of(text, MILTER_REJECT);
    buf_init(&w->prepend, 100);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_REFUSE);
    assert_int_equal(buf_len(&w->prepend), 0);
    world_free(w);
}

static void questions_can_be_canceled(void **state) {
    (void)state;
    struct world *w = world_of(NULL, MILTER_REJECT);
    struct check_wait *waits[20];
    for (int i = 0; i < 20; i++)
        waits[i] = start(w, CHECK_RCPT);
    for (int i = 19; i > 0; i--) /* those that wait in line, and those that have been asked */
        check_cancel(waits[i]);
    w->services[0].answer = "action=REJECT\n\n";
    run(w, 1);
    assert_int_equal(w->action, CHECK_REFUSE);
    assert_int_equal(ask(w, CHECK_RCPT), CHECK_REFUSE);
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_says_all),
        cmocka_unit_test(strangers_add_no_attributes),
        cmocka_unit_test(every_action),
        cmocka_unit_test(answers_that_never_end_are_bounded),
        cmocka_unit_test(only_services_of_the_stage_are_asked),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(a_kept_connection_that_dies_is_replaced_once),
        cmocka_unit_test(who_speaks_on_loses_its_connection),
        cmocka_unit_test(questions_wait_for_a_connection),
        cmocka_unit_test(the_line_is_bounded),
        cmocka_unit_test(failures_are_answered_as_the_operator_chose),
        cmocka_unit_test(those_who_wait_time_out_too),
        cmocka_unit_test(too_much_is_not_prepended),
        cmocka_unit_test(questions_can_be_canceled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
