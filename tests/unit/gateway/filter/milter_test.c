/*
 * milter: the codec, and sessions against scripted filters on sockets: every reply at every stage, changes, options,
 * and all the ways in which a filter can fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/filter/milter.h"
#include "gateway/filter/milter_packet.h"

/* -- a scripted filter in a thread -- */

enum { TRACE_MAX = 1 << 20, SCRIPT_MAX = 8 };
/* What it sends instead of CONTINUE; .at NULL: silence; len 0: it closes. */
struct line {
    char command;
    struct span reply;
};
#define SILENCE ((struct span){NULL, 1})
#define CLOSE ((struct span){"", 0})
/* One packet as octets. */
#define P(len, bytes) "\0\0\0" len bytes

struct fake {
    pthread_t thread;
    int listener;
    struct tcp_addr addr;
    uint32_t version, actions, protocol;
    struct span options; /* raw instead of the three above */
    struct span lists;
    struct line script[SCRIPT_MAX];
    bool chop;           /* sends octet by octet */
    atomic_int progress; /* so many are told before a message's end is answered, with a pause behind each */
    int close_after;     /* so many connections are closed behind the reply to the first CONNECT */
    pthread_mutex_t lock;
    char trace[TRACE_MAX]; /* "C:data\n" for each packet, NUL as '|' */
    size_t traced;
    int connections;
};

static bool read_all(int fd, void *to, size_t len) {
    for (size_t got = 0; got < len;) {
        ssize_t n = recv(fd, (char *)to + got, len - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static void put(struct fake *f, int fd, struct span s) {
    size_t step = f->chop ? 1 : s.len;
    for (size_t at = 0; at < s.len; at += step) {
        if (send(fd, s.at + at, step, MSG_NOSIGNAL) < 0)
            return;
        if (f->chop)
            usleep(200);
    }
}

static void note(struct fake *f, char command, const char *data, size_t len) {
    pthread_mutex_lock(&f->lock);
    if (f->traced + len + 4 < TRACE_MAX) {
        f->trace[f->traced++] = command;
        f->trace[f->traced++] = ':';
        for (size_t i = 0; i < len; i++)
            f->trace[f->traced++] = data[i] ? data[i] : '|';
        f->trace[f->traced++] = '\n';
        f->trace[f->traced] = '\0';
    }
    pthread_mutex_unlock(&f->lock);
}

static void put_options(struct fake *f, int fd) {
    struct buf b;
    buf_init(&b, 4096);
    size_t place = milter_pack_begin(&b, 'O');
    milter_pack_u32(&b, f->version);
    milter_pack_u32(&b, f->actions);
    milter_pack_u32(&b, f->protocol);
    buf_add(&b, f->lists);
    milter_pack_end(&b, place);
    put(f, fd, f->options.at ? f->options : buf_span(&b));
    buf_deinit(&b);
}

static uint32_t no_reply_flag(char command) {
    switch (command) {
    case 'C':
        return MILTER_NR_CONNECT;
    case 'L':
        return MILTER_NR_HEADER;
    case 'N':
        return MILTER_NR_EOH;
    case 'B':
        return MILTER_NR_BODY;
    case 'H':
        return MILTER_NR_HELO;
    case 'M':
        return MILTER_NR_MAIL;
    case 'R':
        return MILTER_NR_RCPT;
    case 'T':
        return MILTER_NR_DATA;
    default:
        return 0;
    }
}

/* False: close. */
static bool answer(struct fake *f, int fd, char command) {
    for (size_t i = 0; i < SCRIPT_MAX && f->script[i].command; i++) {
        if (f->script[i].command != command)
            continue;
        if (!f->script[i].reply.at)
            return true;
        put(f, fd, f->script[i].reply);
        return f->script[i].reply.len > 0;
    }
    for (int i = 0; command == 'E' && i < f->progress; i++) {
        if (send(fd, P("\1", "p"), 5, MSG_NOSIGNAL) < 0)
            return false;
        usleep(100000);
    }
    if (command == 'O')
        put_options(f, fd);
    else if (!strchr("DAQ", command) && !(no_reply_flag(command) & f->protocol))
        put(f, fd, SPAN(P("\1", "c")));
    return true;
}

static void serve(struct fake *f, int fd) {
    unsigned char head[4];
    while (read_all(fd, head, 4)) {
        size_t len = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        char *data = malloc(len + 1);
        if (len == 0 || len > MILTER_CHUNK + 1 || !read_all(fd, data, len)) {
            note(f, '!', "bad packet", 10);
            free(data);
            return;
        }
        char command = data[0];
        note(f, command, data + 1, len - 1);
        free(data);
        if (command == 'Q' || !answer(f, fd, command))
            return;
        if (command == 'C' && f->close_after && f->close_after--)
            return;
    }
}

static void *run_fake(void *arg) {
    struct fake *f = arg;
    for (;;) {
        int fd = accept(f->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        pthread_mutex_lock(&f->lock);
        f->connections++;
        pthread_mutex_unlock(&f->lock);
        serve(f, fd);
        close(fd);
    }
}

static struct fake *fake_new(void) {
    struct fake *f = calloc(1, sizeof *f);
    f->version = 6;
    f->actions = MILTER_CAN_ADD_HEADERS | MILTER_CAN_CHANGE_BODY | MILTER_CAN_CHANGE_HEADERS;
    pthread_mutex_init(&f->lock, NULL);
    assert_int_equal(tcp_addr_parse_port(&f->addr, SPAN("127.0.0.1:0")), ERR_OK);
    f->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&f->addr.storage, f->addr.len), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&f->addr.storage, &f->addr.len), 0);
    assert_int_equal(listen(f->listener, 10), 0);
    return f;
}

static void fake_start(struct fake *f) {
    assert_int_equal(pthread_create(&f->thread, NULL, run_fake, f), 0);
}

static void fake_free(struct fake *f) {
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listener);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void assert_heard(struct fake *f, const char *what) {
    pthread_mutex_lock(&f->lock);
    if (!strstr(f->trace, what))
        fail_msg("not heard: %s\nbut:\n%.3000s", what, f->trace);
    pthread_mutex_unlock(&f->lock);
}

static size_t times_heard(struct fake *f, const char *what) {
    size_t n = 0;
    pthread_mutex_lock(&f->lock);
    for (const char *at = f->trace; (at = strstr(at, what)); at++)
        n++;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* -- a session -- */

struct session {
    struct loop *loop;
    struct loop_timer *guard;
    struct milter_config configs[MILTERS_MAX];
    struct milters *m;
    struct tcp_addr client;
    struct tls_info tls;
    struct check_facts facts;
    struct held *held;
    struct check_verdict v;
    char text[512];
    bool answered, in_call;
};

static void on_guard(void *arg) {
    (void)arg;
    fail_msg("no answer within 20 s");
}

static struct session *session_of(struct fake *const *fakes, size_t count, enum milter_failure failure) {
    static const char *const names[] = {"one", "two", "three"};
    struct session *s = calloc(1, sizeof *s);
    s->loop = loop_new();
    for (size_t i = 0; i < count; i++) {
        s->configs[i] = (struct milter_config){.name = names[i], .address = fakes[i]->addr, .failure = failure};
        s->configs[i].connect_ms = s->configs[i].command_ms = s->configs[i].end_ms = 10000;
    }
    s->guard = loop_timer_new(s->loop, on_guard, s);
    s->m = milters_new(s->loop, s->configs, count);
    assert_int_equal(tcp_addr_parse(&s->client, SPAN("192.0.2.7"), 4321), ERR_OK);
    s->facts = (struct check_facts){.client = &s->client,
                                    .local = &s->client,
                                    .client_ip = SPAN("192.0.2.7"),
                                    .client_name = SPAN("client.example"),
                                    .helo = SPAN("helo.example"),
                                    .esmtp = true,
                                    .hostname = SPAN("mx.example"),
                                    .id = SPAN("0123456789ABC"),
                                    .sender = SPAN("a@sender.example"),
                                    .recipient = SPAN("b@rcpt.example")};
    s->held = held_new("/tmp");
    assert_int_equal(held_append(s->held, SPAN("From: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\n\r\nbody\r\n")),
                     ERR_OK);
    assert_int_equal(held_finish(s->held), ERR_OK);
    return s;
}

static void session_free(struct session *s) {
    milters_free(s->m);
    held_free(s->held);
    loop_timer_close(s->guard);
    loop_run(s->loop); /* QUIT goes out */
    loop_free(s->loop);
    free(s);
}

static void on_verdict(void *arg, const struct check_verdict *v) {
    struct session *s = arg;
    assert_false(s->in_call);
    assert_false(s->answered);
    s->answered = true;
    s->v = *v;
    loop_stop(s->loop);
}

static enum check_action ask(struct session *s, enum check_stage stage) {
    struct check_wait *wait = NULL;
    s->answered = false;
    s->in_call = true;
    int err = milters_check(s->m, stage, &s->facts, s->held, &s->v, &wait, on_verdict, s);
    s->in_call = false;
    if (err == ERR_AGAIN) {
        assert_non_null(wait);
        loop_timer_set(s->guard, 20000);
        loop_run(s->loop);
        loop_timer_stop(s->guard);
        assert_true(s->answered);
    } else {
        assert_int_equal(err, ERR_OK);
    }
    return s->v.action;
}

/* All stages up to and with this one; the last verdict. */
static enum check_action ask_to(struct session *s, enum check_stage last) {
    for (enum check_stage stage = CHECK_CONNECT; stage < last; stage++)
        assert_int_equal(ask(s, stage), CHECK_PASS);
    return ask(s, last);
}

static void assert_message(struct session *s, const char *text) {
    char got[4096] = {0};
    ptrdiff_t len = held_read(s->held, 0, got, sizeof got - 1);
    assert_int_equal(len, held_size(s->held));
    assert_string_equal(got, text);
}
#define UNCHANGED "From: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\n\r\nbody\r\n"

/* -- the codec -- */

static void packets_are_unpacked_within_bounds(void **state) {
    (void)state;
    struct milter_packet p;
    size_t used = 0;
    const char whole[] = "\0\0\0\4abcdX";
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(milter_unpack(span_make(whole, n), &p, &used), ERR_AGAIN);
    assert_int_equal(milter_unpack(span_make(whole, 9), &p, &used), ERR_OK);
    assert_int_equal(used, 8);
    assert_int_equal(p.command, 'a');
    assert_true(span_eq(p.data, SPAN("bcd")));
    assert_int_equal(milter_unpack(SPAN("\0\0\0\0"), &p, &used), ERR_INVALID);
    assert_int_equal(milter_unpack(SPAN("\0\2\0\1"), &p, &used), ERR_INVALID);
    assert_int_equal(milter_unpack(SPAN("\xff\xff\xff\xff"), &p, &used), ERR_INVALID);
    assert_int_equal(milter_unpack(SPAN("\0\2\0\0"), &p, &used), ERR_AGAIN);
}

static void fields_are_unpacked_exactly(void **state) {
    (void)state;
    struct milter_field f;
    assert_int_equal(milter_unpack_field(SPAN("\0\0\0\2N\0v\0"), true, &f), ERR_OK);
    assert_int_equal(f.index, 2);
    assert_true(span_eq(f.name, SPAN("N")) && span_eq(f.value, SPAN("v")));
    assert_int_equal(milter_unpack_field(SPAN("N\0\0"), false, &f), ERR_OK);
    assert_int_equal(f.value.len, 0);
    static const struct span bad[] = {SPAN(""),     SPAN("N"),       SPAN("N\0"),
                                      SPAN("N\0v"), SPAN("N\0v\0x"), SPAN("N\0v\0\0")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(milter_unpack_field(bad[i], false, &f), ERR_INVALID);
    assert_int_equal(milter_unpack_field(SPAN("\0\0\2"), true, &f), ERR_INVALID);
}

static void options_are_unpacked_exactly(void **state) {
    (void)state;
    struct milter_options o;
#define OPTIONS "\0\0\0\6\0\0\0\1\0\0\0\2"
    assert_int_equal(milter_unpack_options(SPAN(OPTIONS), &o), ERR_OK);
    assert_true(o.version == 6 && o.actions == 1 && o.protocol == 2 && !o.lists[2].at);
    assert_int_equal(milter_unpack_options(SPAN(OPTIONS "\0\0\0\2i {x}\0"), &o), ERR_OK);
    assert_true(span_eq(o.lists[2], SPAN("i {x}")));
    assert_int_equal(milter_unpack_options(SPAN(OPTIONS "\0\0\0\2i"), &o), ERR_INVALID);
    assert_int_equal(milter_unpack_options(SPAN(OPTIONS "\0\0\0\7i\0"), &o), ERR_INVALID);
    assert_int_equal(milter_unpack_options(SPAN(OPTIONS "\0\0"), &o), ERR_INVALID);
    assert_int_equal(milter_unpack_options(SPAN("\0\0\0\6\0\0\0\1\0\0\0"), &o), ERR_INVALID);
}

static void answers_are_checked_and_cleaned(void **state) {
    (void)state;
    struct milter_answer a;
    assert_int_equal(milter_unpack_answer(SPAN("550 5.7.1 100%% no\0"), &a), ERR_OK);
    assert_int_equal(a.code, 550);
    assert_string_equal(a.enhanced, "5.7.1");
    assert_string_equal(a.text, "100% no");
    assert_int_equal(milter_unpack_answer(SPAN("451-4.7.1 one\r\n451-4.7.1 two\r\n451 4.7.1 \xc3\x1b[m\0"), &a),
                     ERR_OK);
    assert_string_equal(a.text, "one two ??[m");
    assert_int_equal(milter_unpack_answer(SPAN("550 4.7.1 other class\0"), &a), ERR_OK);
    assert_string_equal(a.enhanced, "");
    assert_int_equal(milter_unpack_answer(SPAN("550\0"), &a), ERR_OK);
    static const struct span bad[] = {
        SPAN(""),         SPAN("\0"),         SPAN("550 x"),          SPAN("250 ok\0"),
        SPAN("600 x\0"),  SPAN("55 x\0"),     SPAN("550x\0"),         SPAN("text\0"),
        SPAN("550 a\0b"), SPAN("+50 text\0"), SPAN("550 a\n451 b\0"), SPAN("550 a\n\nb\0")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (milter_unpack_answer(bad[i], &a) != ERR_INVALID)
            fail_msg("taken: %s", bad[i].at);
    }
    char text[1000] = "550 ";
    memset(text + 4, 'x', 995);
    text[999] = '\0';
    assert_int_equal(milter_unpack_answer(span_make(text, 1000), &a), ERR_OK);
    assert_int_equal(strlen(a.text), MILTER_TEXT_MAX);
}

static void strings_are_packed_for_filters(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    milter_pack_string(&b, SPAN("a\r\n b\0c\rd\n"), 100);
    assert_true(span_eq(buf_span(&b), SPAN("a\n b c\rd\n\0")));
    buf_clear(&b);
    milter_pack_string(&b, SPAN("abcdef"), 3);
    assert_true(span_eq(buf_span(&b), SPAN("abc\0")));
    buf_deinit(&b);
}

/* -- sessions -- */

static void a_filter_hears_all_of_a_session(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    snprintf(s->tls.version, sizeof s->tls.version, "TLSv1.3");
    snprintf(s->tls.cipher, sizeof s->tls.cipher, "AES");
    s->tls.bits = 256;
    s->facts.tls = &s->tls;
    s->facts.mechanism = SPAN("PLAIN");
    s->facts.account = SPAN("me");
    s->facts.size = 99;
    s->facts.eight_bit_given = s->facts.smtputf8 = true;
    assert_true(milters_want_message(s->m));
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, UNCHANGED);
    session_free(s);
    static const char *const heard[] = {
        "D:Cj|mx.example|{daemon_name}|MTA|v|Posthouse ",
        "|_|client.example [192.0.2.7]|{client_addr}|192.0.2.7|{client_name}|client.example|{client_ptr}|[192.0.2.7]|"
        "{client_port}|4321|\nC:client.example|4\x10\xe1"
        "192.0.2.7|\n",
        "D:H{tls_version}|TLSv1.3|{cipher}|AES|{cipher_bits}|256|\nH:helo.example|\n",
        "D:Mi|0123456789ABC|{auth_type}|PLAIN|{auth_authen}|me|{mail_addr}|a@sender.example|{mail_host}|sender.example|"
        "{mail_mailer}|smtp|\nM:<a@sender.example>|SIZE=99|BODY=8BITMIME|SMTPUTF8|\n",
        "D:R{rcpt_addr}|b@rcpt.example|{rcpt_host}|rcpt.example|{rcpt_mailer}|smtp|\nR:<b@rcpt.example>|\n",
        "D:Ti|0123456789ABC|\nT:\n",
        "L:From|a|\nL:Subject|hello\n "
        "world|\nL:X|1|\nL:x|2|\nD:Ni|0123456789ABC|\nN:\nB:body\r\n\nD:Ei|0123456789ABC|\n"
        "E:\nQ:\n",
    };
    for (size_t i = 0; i < sizeof heard / sizeof *heard; i++)
        assert_heard(f, heard[i]);
    assert_int_equal(f->connections, 1);
    fake_free(f);
}

static void what_it_does_not_want_it_does_not_hear(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->protocol = MILTER_NO_CONNECT | MILTER_NO_HELO | MILTER_NO_MAIL | MILTER_NO_RCPT | MILTER_NO_BODY |
                  MILTER_NO_HEADERS | MILTER_NO_EOH | MILTER_NO_DATA | MILTER_NO_UNKNOWN;
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_heard(f, "\nD:Ei|0123456789ABC|\nE:\nQ:\n");
    for (const char *c = "CHMRTLNB"; *c; c++) {
        char line[] = {'\n', *c, ':', 0};
        assert_int_equal(times_heard(f, line), 0);
    }
    fake_free(f);
}

static void what_it_does_not_answer_is_not_waited_for(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->protocol = MILTER_NR_CONNECT | MILTER_NR_HELO | MILTER_NR_MAIL | MILTER_NR_RCPT | MILTER_NR_DATA |
                  MILTER_NR_HEADER | MILTER_NR_EOH | MILTER_NR_BODY | MILTER_LEADING_SPACE;
    f->script[0] = (struct line){'M', SPAN(P("\1", "p"))}; /* progress is no answer */
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    char *body = malloc(700001); /* more than the write queue holds at once */
    memset(body, 'b', 700001);
    assert_int_equal(held_body_replace(s->held), ERR_OK);
    assert_int_equal(held_body_append(s->held, span_make(body, 700001)), ERR_OK);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_heard(f, "\nL:Subject| hello\n world|\nL:X| 1|\nL:x|2|\n");
    assert_int_equal(times_heard(f, "\nB:b"), 11);
    assert_int_equal(times_heard(f, "!:"), 0);
    free(body);
    fake_free(f);
}

static void old_filters_hear_no_data(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->version = 2;
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_int_equal(times_heard(f, "\nT:"), 0);
    assert_int_equal(times_heard(f, "\nR:"), 1);
    fake_free(f);
}

static void filters_name_their_macros(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->actions = MILTER_CAN_NAME_MACROS;
    f->lists = SPAN("\0\0\0\0{client_port} unknown\0\0\0\0\2i\0\0\0\0\3\0");
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_heard(f, "D:C{client_port}|4321|\nC:");
    assert_heard(f, "D:Mi|0123456789ABC|\nM:");
    assert_heard(f, "D:R\nR:");
    fake_free(f);
}

static void cut_packets_make_no_difference(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->chop = true;
    f->script[0] = (struct line){'E', SPAN(P("\7", "hX-A\0b\0") P("\1", "p") P("\1", "c"))};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, "From: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\nX-A: b\r\n\r\nbody\r\n");
    session_free(s);
    fake_free(f);
}

/* Every reply at every stage. */
static void every_reply_at_every_stage(void **state) {
    (void)state;
    static const struct {
        char command;
        enum check_stage stage;
    } stages[] = {{'C', CHECK_CONNECT}, {'H', CHECK_HELO}, {'M', CHECK_MAIL}, {'R', CHECK_RCPT}, {'T', CHECK_DATA},
                  {'L', CHECK_END},     {'N', CHECK_END},  {'B', CHECK_END},  {'E', CHECK_END}};
    static const struct {
        struct span reply;
        enum check_action action;
        int code; /* 0: any */
        bool close;
    } replies[] = {
        {SPAN(P("\1", "c")), CHECK_PASS, 0, false},
        {SPAN(P("\1", "a")), CHECK_PASS, 0, false},
        {SPAN(P("\1", "p") P("\1", "c")), CHECK_PASS, 0, false},
        {SPAN(P("\1", "r")), CHECK_REFUSE, 550, false},
        {SPAN(P("\1", "t")), CHECK_REFUSE, 451, false},
        {SPAN(P("\x12", "y452 4.2.2 no room")), CHECK_REFUSE, 499, false}, /* without NUL: a failure */
        {SPAN(P("\x13", "y452 4.2.2 no room\0")), CHECK_REFUSE, 452, false},
        {SPAN(P("\x0f", "y521 go away x\0")), CHECK_REFUSE, 521, false},
        {SPAN(P("\x0e", "y421 go away\0\0")), CHECK_REFUSE, 499, false},
        {SPAN(P("\x0d", "y421 go away\0")), CHECK_REFUSE, 421, true},
        {SPAN(P("\1", "d")), CHECK_DISCARD, 0, false},
        {SPAN(P("\1", "4")), CHECK_REFUSE, 421, true},
        {SPAN(P("\1", "f")), CHECK_REFUSE, 421, true},
        {SPAN(P("\1", "Z")), CHECK_REFUSE, 499, false},
    };
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        for (size_t n = 0; n < sizeof replies / sizeof *replies; n++) {
            struct fake *f = fake_new();
            f->script[0] = (struct line){stages[i].command, replies[n].reply};
            fake_start(f);
            struct session *s = session_of(&f, 1, MILTER_TEMPFAIL);
            enum check_action action = ask_to(s, stages[i].stage), want = replies[n].action;
            int code = replies[n].code == 499 ? 451 : replies[n].code;
            if (code == 550 && stages[i].command == 'C')
                code = 554;
            if (want == CHECK_DISCARD && stages[i].stage < CHECK_MAIL) {
                want = CHECK_REFUSE; /* there is nothing to discard: a failure */
                code = 451;
            }
            if (action != want || (want == CHECK_REFUSE && s->v.reply.code != code) || s->v.close != replies[n].close)
                fail_msg("%c reply %zu: action %d code %d", stages[i].command, n, (int)action, s->v.reply.code);
            if (want == CHECK_REFUSE) {
                assert_true(span_eq(s->v.by, SPAN("milter one")));
                assert_true(s->v.reply.enhanced.at[0] == '0' + code / 100);
            }
            assert_message(s, UNCHANGED);
            /* the session goes on: the next transaction is told anew, unless the filter has left or failed */
            if (want == CHECK_PASS)
                assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS);
            session_free(s);
            fake_free(f);
        }
    }
}

static void changes_are_made(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->script[0].command = 'E';
    f->script[0].reply = SPAN(P("\x0b", "i\0\0\0\0A\0top\0")    /* the top */
                              P("\x0e", "i\0\0\0\3B\0third!\0") /* behind our Received, A and From */
                              P("\x0b", "hLast\0l\n m\0")       /* folded with LF */
                              P("\x0a", "m\0\0\0\2X\0ch\0")     /* the second X */
                              P("\x0e", "m\0\0\0\1SUBJECT\0\0") /* removed */
                              P("\x0b", "m\0\0\0\7Y\0new\0")    /* there is none: added */
                              P("\x08", "m\0\0\0\1Z\0\0")       /* there is none: nothing to remove */
                              P("\5", "bnew ") P("\5", "btext") P("\1", "c"));
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_TEMPFAIL);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, "A: top\r\nFrom: a\r\nB: third!\r\nX: 1\r\nx: ch\r\nLast: l\r\n m\r\nY: new\r\n\r\nnew text");
    session_free(s);
    fake_free(f);
}

static void each_filter_sees_what_those_before_it_made(void **state) {
    (void)state;
    struct fake *f[2] = {fake_new(), fake_new()};
    f[0]->script[0] = (struct line){'E', SPAN(P("\x0b", "i\0\0\0\1A\0one\0") P("\4", "bnew") P("\1", "a"))};
    f[1]->script[0] = (struct line){'E', SPAN(P("\x0a", "m\0\0\0\1A\0tw\0") P("\1", "c"))};
    fake_start(f[0]);
    fake_start(f[1]);
    struct session *s = session_of(f, 2, MILTER_TEMPFAIL);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, "A: tw\r\nFrom: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\n\r\nnew");
    session_free(s);
    assert_heard(f[0], "B:body\r\n\n");
    assert_heard(f[1], "L:A|one|\nL:From|a|\n");
    assert_heard(f[1], "B:new\n");
    fake_free(f[0]);
    fake_free(f[1]);
}

/* Whatever goes wrong at the end, a filter that has not ended well has changed nothing. */
static void failed_ends_change_nothing(void **state) {
    (void)state;
#define ADD P("\7", "hX-A\0b\0")
    static const struct span ends[] = {
        SPAN(ADD P("\1", "r")),                            /* refused after all */
        SPAN(ADD P("\1", "d")),                            /* discarded */
        SPAN(ADD P("\x0a", "hX-A\0b\nc:\0") P("\1", "c")), /* a line break that would begin a field */
        SPAN(ADD P("\x07", "hX A\0b\0") P("\1", "c")),     /* no name */
        SPAN(ADD P("\x06", "hX-A\0b") P("\1", "c")),       /* no NUL */
        SPAN(ADD P("\x05", "+<a>\0") P("\1", "c")),        /* the envelope is not theirs */
        SPAN(ADD P("\x05", "-<a>\0") P("\1", "c")),
        SPAN(ADD P("\x05", "e<a>\0") P("\1", "c")),
        SPAN(ADD P("\x03", "qx\0") P("\1", "c")), /* nor a quarantine */
        SPAN(ADD P("\1", "s")),
        SPAN(ADD P("\1", "c") P("\1", "c")), /* speaks on */
        SPAN(ADD "\0\2\0\1"),                /* too long */
        SPAN(ADD "\0\0\0\0"),
    };
    for (int choice = MILTER_TEMPFAIL; choice <= MILTER_REJECT; choice++) {
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            struct fake *f = fake_new();
            f->script[0] = (struct line){'E', ends[i]};
            fake_start(f);
            struct session *s = session_of(&f, 1, (enum milter_failure)choice);
            enum check_action action = ask_to(s, CHECK_END);
            if (i >= 2) {
                assert_int_equal(action, choice == MILTER_ACCEPT ? CHECK_PASS : CHECK_REFUSE);
                if (choice != MILTER_ACCEPT)
                    assert_int_equal(s->v.reply.code, choice == MILTER_REJECT ? 550 : 451);
                assert_int_equal(ask(s, CHECK_MAIL), action); /* it stays away */
                assert_int_equal(milters_want_message(s->m), choice != MILTER_ACCEPT);
            }
            assert_message(s, UNCHANGED);
            session_free(s);
            assert_int_equal(f->connections, 1);
            fake_free(f);
        }
    }
}

static void what_was_not_agreed_on_is_refused(void **state) {
    (void)state;
    static const struct span packets[] = {
        SPAN(P("\7", "hX-A\0b\0") P("\1", "c")), SPAN(P("\x0b", "i\0\0\0\0A\0top\0") P("\1", "c")),
        SPAN(P("\x0b", "m\0\0\0\1X\0top\0") P("\1", "c")), SPAN(P("\4", "bnew") P("\1", "c"))};
    for (size_t i = 0; i < 4; i++) {
        struct fake *f = fake_new();
        f->actions = 0;
        f->script[0] = (struct line){'E', packets[i]};
        fake_start(f);
        struct session *s = session_of(&f, 1, MILTER_REJECT);
        assert_int_equal(ask_to(s, CHECK_END), CHECK_REFUSE);
        assert_message(s, UNCHANGED);
        session_free(s);
        fake_free(f);
    }
}

static void changes_before_the_end_are_refused(void **state) {
    (void)state;
    for (const char *c = "CHMRTLNB"; *c; c++) {
        struct fake *f = fake_new();
        f->script[0] = (struct line){*c, SPAN(P("\7", "hX-A\0b\0") P("\1", "c"))};
        fake_start(f);
        struct session *s = session_of(&f, 1, MILTER_ACCEPT);
        assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
        assert_false(milters_want_message(s->m));
        assert_message(s, UNCHANGED);
        session_free(s);
        fake_free(f);
    }
}

static void a_header_made_too_large_is_a_failure(void **state) {
    (void)state;
    enum { LEN = 100000, TIMES = 12 };
    struct buf b;
    buf_init(&b, 2 * 1024 * 1024);
    for (int i = 0; i < TIMES; i++) {
        size_t place = milter_pack_begin(&b, 'h');
        milter_pack_string(&b, SPAN("X-Long"), 10);
        char *value = malloc(LEN);
        memset(value, 'x', LEN);
        milter_pack_string(&b, span_make(value, LEN), LEN);
        free(value);
        milter_pack_end(&b, place);
    }
    milter_pack_plain(&b, 'c');
    struct fake *f = fake_new();
    f->script[0] = (struct line){'E', buf_span(&b)};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_ACCEPT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, UNCHANGED);
    session_free(s);
    fake_free(f);
    buf_deinit(&b);
}

static void bad_options_are_a_failure(void **state) {
    (void)state;
    static const struct span bad[] = {
        SPAN(P("\1", "O")),
        SPAN(P("\1", "c")),
        SPAN(P("\x0d", "O\0\0\0\1\0\0\0\0\0\0\0\0")),              /* too old */
        SPAN(P("\x0d", "O\0\0\0\7\0\0\0\0\0\0\0\0")),              /* newer than what was offered */
        SPAN(P("\x0d", "O\0\0\0\6\0\0\0\0\0\0\x08\0")),            /* refused recipients too */
        SPAN(P("\x0d", "O\0\0\0\6\0\0\0\0\x80\0\0\0")),            /* unknown */
        SPAN(P("\x0e", "O\0\0\0\6\0\0\0\0\0\0\0\0\0")),            /* a list cut short */
        SPAN(P("\x0d", "O\0\0\0\6\0\0\0\0\0\0\0\0") P("\1", "c")), /* speaks on */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fake *f = fake_new();
        f->options = bad[i];
        fake_start(f);
        struct session *s = session_of(&f, 1, MILTER_REJECT);
        if (ask(s, CHECK_CONNECT) != CHECK_REFUSE)
            fail_msg("options %zu taken", i);
        assert_int_equal(s->v.reply.code, 550);
        session_free(s);
        fake_free(f);
    }
}

/* Rspamd names all actions there are; only doing what is not offered is a failure. */
static void what_a_filter_merely_names_is_no_failure(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->actions = 0xffff;
    f->script[0] = (struct line){'E', SPAN(P("\7", "hX-A\0b\0") P("\1", "c"))};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_message(s, "From: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\nX-A: b\r\n\r\nbody\r\n");
    session_free(s);
    fake_free(f);
}

/* A filter that tells progress may take longer than the time-out, but not for ever. */
static void progress_extends_the_time_out(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->progress = 4;
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    s->configs[0].end_ms = 300;
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    f->progress = 1000;
    s->configs[0].end_ms = 120;
    for (enum check_stage stage = CHECK_MAIL; stage <= CHECK_DATA; stage++)
        assert_int_equal(ask(s, stage), CHECK_PASS);
    assert_int_equal(ask(s, CHECK_END), CHECK_REFUSE);
    session_free(s);
    fake_free(f);
}

static void silence_runs_into_a_time_out(void **state) {
    (void)state;
    for (const char *c = "OCHMRTLNBE"; *c; c++) {
        struct fake *f = fake_new();
        f->script[0] = (struct line){*c, SILENCE};
        fake_start(f);
        struct session *s = session_of(&f, 1, MILTER_TEMPFAIL);
        s->configs[0].command_ms = s->configs[0].end_ms = 100;
        enum check_action action = CHECK_PASS;
        for (enum check_stage stage = CHECK_CONNECT; stage <= CHECK_END && action == CHECK_PASS; stage++)
            action = ask(s, stage);
        assert_int_equal(action, CHECK_REFUSE);
        assert_int_equal(s->v.reply.code, 451);
        assert_message(s, UNCHANGED);
        session_free(s);
        fake_free(f);
    }
}

static void a_filter_that_dies_is_a_failure_at_any_stage(void **state) {
    (void)state;
    for (const char *c = "OCHMRTLNBE"; *c; c++) {
        struct fake *f[2] = {fake_new(), fake_new()};
        f[0]->script[0] = (struct line){*c, CLOSE};
        f[1]->script[0] = (struct line){'E', SPAN(P("\7", "hX-A\0b\0") P("\1", "c"))};
        fake_start(f[0]);
        fake_start(f[1]);
        struct session *s = session_of(f, 2, MILTER_ACCEPT);
        assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
        assert_message(s, "From: a\r\nSubject: hello\r\n world\r\nX: 1\r\nx:2\r\nX-A: b\r\n\r\nbody\r\n");
        session_free(s);
        fake_free(f[0]);
        fake_free(f[1]);
    }
}

static void nobody_listens(void **state) {
    (void)state;
    struct fake *f = fake_new();
    struct session *s = session_of(&f, 1, MILTER_TEMPFAIL);
    close(f->listener);
    assert_int_equal(ask(s, CHECK_CONNECT), CHECK_REFUSE);
    assert_int_equal(s->v.reply.code, 451);
    assert_int_equal(ask(s, CHECK_RCPT), CHECK_REFUSE);
    session_free(s);
    s = session_of(&f, 1, MILTER_ACCEPT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    free(f);
}

static void who_accepts_hears_no_more(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->script[0] = (struct line){'R', SPAN(P("\1", "a"))};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_RCPT), CHECK_PASS);
    assert_false(milters_want_message(s->m));
    assert_int_equal(ask(s, CHECK_DATA), CHECK_PASS);
    assert_int_equal(ask(s, CHECK_END), CHECK_PASS);
    assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS); /* the next message is another matter */
    assert_true(milters_want_message(s->m));
    session_free(s);
    assert_int_equal(times_heard(f, "\nT:"), 0);
    assert_int_equal(times_heard(f, "\nE:"), 0);
    assert_int_equal(times_heard(f, "\nA:\n"), 1);
    assert_int_equal(times_heard(f, "\nM:"), 2);
    fake_free(f);

    f = fake_new();
    f->script[0] = (struct line){'H', SPAN(P("\1", "a"))};
    fake_start(f);
    s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_false(milters_want_message(s->m));
    session_free(s);
    assert_int_equal(times_heard(f, "\nM:"), 0);
    assert_int_equal(times_heard(f, "\nQ:"), 1);
    fake_free(f);
}

/* What was streamed cannot be judged: fine where nobody wanted it, refused for now where somebody did. */
static void a_message_that_was_not_held(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->script[0] = (struct line){'T', SPAN(P("\1", "a"))};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    struct check_wait *wait = NULL;
    assert_int_equal(ask_to(s, CHECK_RCPT), CHECK_PASS);
    assert_int_equal(milters_check(s->m, CHECK_END, &s->facts, NULL, &s->v, &wait, on_verdict, s), ERR_OK);
    assert_int_equal(s->v.action, CHECK_REFUSE);
    assert_int_equal(s->v.reply.code, 451);
    assert_int_equal(ask(s, CHECK_DATA), CHECK_PASS);
    assert_int_equal(milters_check(s->m, CHECK_END, &s->facts, NULL, &s->v, &wait, on_verdict, s), ERR_OK);
    assert_int_equal(s->v.action, CHECK_PASS);
    session_free(s);
    fake_free(f);
}

static void skip_ends_the_body(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->protocol = MILTER_SKIP;
    f->script[0] = (struct line){'B', SPAN(P("\1", "s"))};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    static char body[200000];
    assert_int_equal(held_body_replace(s->held), ERR_OK);
    assert_int_equal(held_body_append(s->held, span_make(body, sizeof body)), ERR_OK);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_int_equal(times_heard(f, "\nB:"), 1);
    assert_int_equal(times_heard(f, "\nE:"), 1);
    fake_free(f);
}

static void transactions_follow_each_other(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS); /* behind an end no ABORT is needed */
    milters_abort(s->m);
    milters_abort(s->m);
    assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS);
    assert_int_equal(ask(s, CHECK_RCPT), CHECK_PASS);
    milters_reset(s->m);
    assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS); /* hears HELO first */
    assert_int_equal(ask(s, CHECK_HELO), CHECK_PASS); /* a second EHLO ends the transaction */
    session_free(s);
    assert_int_equal(times_heard(f, "\nA:"), 3);
    assert_int_equal(times_heard(f, "\nH:"), 3);
    assert_int_equal(times_heard(f, "\nM:"), 4);
    assert_int_equal(times_heard(f, "\nC:"), 1);
    fake_free(f);
}

static void lost_between_transactions_it_is_called_again(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->close_after = 1;
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask(s, CHECK_CONNECT), CHECK_PASS);
    loop_timer_set(s->guard, 20000);
    struct loop_timer *pause = loop_timer_new(s->loop, (loop_timer_cb)loop_stop, s->loop);
    loop_timer_set(pause, 200); /* the end of the connection is noticed */
    loop_run(s->loop);
    loop_timer_close(pause);
    assert_int_equal(ask(s, CHECK_MAIL), CHECK_PASS);
    session_free(s);
    assert_int_equal(f->connections, 2);
    assert_int_equal(times_heard(f, "\nC:"), 2);
    assert_int_equal(times_heard(f, "\nH:"), 1);
    fake_free(f);
}

static void skipped_clients_trouble_no_filter(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    s->configs[0].skip_trusted = true;
    s->facts.trusted = true;
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    assert_false(milters_want_message(s->m));
    session_free(s);
    s = session_of(&f, 1, MILTER_REJECT);
    s->configs[0].skip_authenticated = true;
    s->facts.account = SPAN("me");
    assert_int_equal(ask_to(s, CHECK_END), CHECK_PASS);
    session_free(s);
    assert_int_equal(f->connections, 0);
    fake_free(f);
}

static void a_check_can_be_canceled(void **state) {
    (void)state;
    for (const char *c = "OCE"; *c; c++) {
        struct fake *f = fake_new();
        f->script[0] = (struct line){*c, SILENCE};
        fake_start(f);
        struct session *s = session_of(&f, 1, MILTER_REJECT);
        enum check_stage stage = *c == 'E' ? CHECK_END : CHECK_CONNECT;
        if (stage == CHECK_END)
            assert_int_equal(ask_to(s, CHECK_DATA), CHECK_PASS);
        struct check_wait *wait = NULL;
        s->answered = true; /* a callback would be seen */
        int err = milters_check(s->m, stage, &s->facts, s->held, &s->v, &wait, on_verdict, s);
        assert_int_equal(err, ERR_AGAIN);
        struct loop_timer *pause = loop_timer_new(s->loop, (loop_timer_cb)loop_stop, s->loop);
        loop_timer_set(pause, 50);
        loop_run(s->loop);
        check_cancel(wait);
        loop_timer_set(pause, 50);
        loop_run(s->loop);
        loop_timer_close(pause);
        session_free(s);
        fake_free(f);
    }
}

static void a_session_may_end_in_the_middle(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->script[0] = (struct line){'M', SILENCE};
    fake_start(f);
    struct session *s = session_of(&f, 1, MILTER_REJECT);
    assert_int_equal(ask_to(s, CHECK_HELO), CHECK_PASS);
    struct check_wait *wait = NULL;
    assert_int_equal(milters_check(s->m, CHECK_MAIL, &s->facts, NULL, &s->v, &wait, on_verdict, s), ERR_AGAIN);
    session_free(s);
    fake_free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_are_unpacked_within_bounds),
        cmocka_unit_test(fields_are_unpacked_exactly),
        cmocka_unit_test(options_are_unpacked_exactly),
        cmocka_unit_test(answers_are_checked_and_cleaned),
        cmocka_unit_test(strings_are_packed_for_filters),
        cmocka_unit_test(a_filter_hears_all_of_a_session),
        cmocka_unit_test(what_it_does_not_want_it_does_not_hear),
        cmocka_unit_test(what_it_does_not_answer_is_not_waited_for),
        cmocka_unit_test(old_filters_hear_no_data),
        cmocka_unit_test(filters_name_their_macros),
        cmocka_unit_test(cut_packets_make_no_difference),
        cmocka_unit_test(every_reply_at_every_stage),
        cmocka_unit_test(changes_are_made),
        cmocka_unit_test(each_filter_sees_what_those_before_it_made),
        cmocka_unit_test(failed_ends_change_nothing),
        cmocka_unit_test(what_was_not_agreed_on_is_refused),
        cmocka_unit_test(changes_before_the_end_are_refused),
        cmocka_unit_test(a_header_made_too_large_is_a_failure),
        cmocka_unit_test(bad_options_are_a_failure),
        cmocka_unit_test(what_a_filter_merely_names_is_no_failure),
        cmocka_unit_test(progress_extends_the_time_out),
        cmocka_unit_test(silence_runs_into_a_time_out),
        cmocka_unit_test(a_filter_that_dies_is_a_failure_at_any_stage),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(who_accepts_hears_no_more),
        cmocka_unit_test(a_message_that_was_not_held),
        cmocka_unit_test(skip_ends_the_body),
        cmocka_unit_test(transactions_follow_each_other),
        cmocka_unit_test(lost_between_transactions_it_is_called_again),
        cmocka_unit_test(skipped_clients_trouble_no_filter),
        cmocka_unit_test(a_check_can_be_canceled),
        cmocka_unit_test(a_session_may_end_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
