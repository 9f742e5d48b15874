/*
 * dovecot: the backend behind Dovecot's auth socket, by its client protocol (version 1): lines of fields between tabs.
 * One connection carries all questions, told apart by their numbers. It verifies passwords, and runs the mechanisms
 * that Dovecot offers as a whole; a conversation that waits for the client holds nothing here but its number.
 *
 * Lives on the loop of io.c. A connection that ends takes its conversations along: questions that were asked over it
 * cannot be answered. The next question makes a new one.
 */
#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/net/secret.h"
#include "base/net/tcp.h"
#include "base/rand.h"

#include "gateway/auth/backend.h"
#include "gateway/auth/io.h"

enum { IN_MAX = 65536, OUT_MAX = 1 << 20, LINE_MAX = 32768, OFFERS_MAX = 16, TICK_MS = 200 };

enum link { LINK_DOWN, LINK_CONNECTING, LINK_READY }; /* DOWN -> CONNECTING -> READY; any -> DOWN */
struct offers {
    char names[OFFERS_MAX][AUTH_MECHANISM_MAX + 1];
    size_t count;
};
struct dovecot {
    struct auth_backend base;
    struct auth_io *io;
    struct loop *loop;
    struct tcp_addr addr;
    struct loop_timer *timer;
    struct tcp *tcp;
    enum link link;
    uint64_t number; /* of the connection */
    uint32_t last_id;
    uint64_t deadline_ms; /* of the handshake */
    struct list open;
    struct offers heard; /* in this handshake */
    pthread_mutex_t lock;
    struct offers offers; /* of the last good one; under the lock */
};

static void go_down(struct dovecot *d, const char *why) {
    struct list_node *n;
    if (d->tcp)
        tcp_close(d->tcp);
    d->tcp = NULL;
    d->link = LINK_DOWN;
    while ((n = list_pop_front(&d->open)))
        auth_question_cannot(CONTAINER_OF(n, struct auth_question, node), span_of(why));
}

static void give(struct dovecot *d, struct auth_question *q, enum auth_reply reply) {
    list_remove(&d->open, &q->node);
    auth_question_done(q, reply);
}

/* -- asking -- */
static bool put(struct dovecot *d, struct buf *line) {
    bool good = !line->err && tcp_write(d->tcp, buf_span(line).at, buf_len(line)) == ERR_OK;
    if (line->mem)
        secret_wipe(line->mem, line->cap);
    buf_deinit(line);
    return good;
}

static bool put_cancel(struct dovecot *d, uint32_t id) {
    struct buf line;
    buf_init(&line, LINE_MAX);
    buf_printf(&line, "CANCEL\t%u\n", id);
    return put(d, &line);
}

static void add_password(const struct auth_question *q, struct buf *line) {
    struct buf plain;
    buf_init(&plain, 1024);
    buf_add_byte(&plain, '\0');
    buf_add_str(&plain, q->account);
    buf_add_byte(&plain, '\0');
    buf_add_str(&plain, q->password);
    base64_encode(buf_span(&plain), line);
    if (plain.mem)
        secret_wipe(plain.mem, plain.cap);
    buf_deinit(&plain);
}

static void add_addresses(const struct auth_question *q, struct buf *line) {
    if (q->local_ip[0] && q->local_port)
        buf_printf(line, "\tlip=%s\tlport=%u", q->local_ip, q->local_port);
    if (q->client_ip[0] && q->client_port)
        buf_printf(line, "\trip=%s\trport=%u", q->client_ip, q->client_port);
}

static bool put_question(struct dovecot *d, struct auth_question *q) {
    struct buf line;
    buf_init(&line, LINE_MAX);
    if (q->ask == AUTH_ASK_CONTINUE) {
        buf_printf(&line, "CONT\t%u\t", q->id);
        base64_encode(buf_span(&q->in), &line);
    } else {
        bool password = q->ask == AUTH_ASK_PASSWORD;
        d->last_id = d->last_id == UINT32_MAX ? 1 : d->last_id + 1;
        q->id = d->last_id;
        q->link = d->number;
        /* no-penalty: Dovecot would let clients wait for the failures of their network, which is done here already */
        buf_printf(&line, "AUTH\t%u\t%s\tservice=smtp\tnologin\tno-penalty%s", q->id, password ? "PLAIN" : q->mechanism,
                   q->tls ? "\tsecured" : "");
        add_addresses(q, &line);
        if (password || q->has_in) /* the last one, whatever it holds */
            buf_add_str(&line, "\tresp=");
        if (password)
            add_password(q, &line);
        else
            base64_encode(buf_span(&q->in), &line);
    }
    buf_add_byte(&line, '\n');
    q->sent = true;
    return put(d, &line);
}

static void put_waiting(struct dovecot *d) {
    LIST_FOREACH(n, next, &d->open) {
        struct auth_question *q = CONTAINER_OF(n, struct auth_question, node);
        if (!q->sent && !put_question(d, q)) {
            go_down(d, "cannot write to Dovecot");
            return;
        }
    }
}

/* -- hearing -- */
static bool hear_mechanism(struct dovecot *d, struct span fields) {
    struct span name = span_cut(fields, '\t', &fields);
    bool use = name.len > 0 && name.len <= AUTH_MECHANISM_MAX && d->heard.count < OFFERS_MAX;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.at[i];
        use = use && (isupper(c) || isdigit(c) || c == '-' || c == '_');
    }
    while (fields.len) {
        struct span field = span_cut(fields, '\t', &fields);
        use = use && !span_eq(field, SPAN("private")) && !span_eq(field, SPAN("anonymous"));
    }
    if (use)
        span_copy(name, d->heard.names[d->heard.count++], AUTH_MECHANISM_MAX + 1);
    return true;
}

static bool hear_handshake(struct dovecot *d, struct span word, struct span fields) {
    if (span_eq(word, SPAN("VERSION")))
        return span_eq(span_cut(fields, '\t', &fields), SPAN("1"));
    if (span_eq(word, SPAN("MECH")))
        return hear_mechanism(d, fields);
    if (!span_eq(word, SPAN("DONE")))
        return true; /* SPID, CUID, COOKIE, and what later versions add */
    pthread_mutex_lock(&d->lock);
    d->offers = d->heard;
    pthread_mutex_unlock(&d->lock);
    d->link = LINK_READY;
    put_waiting(d);
    return true;
}

static struct auth_question *find(struct dovecot *d, uint64_t id) {
    LIST_FOREACH(n, next, &d->open) {
        struct auth_question *q = CONTAINER_OF(n, struct auth_question, node);
        if (q->sent && q->id == id)
            return q;
    }
    return NULL;
}

/* The value of name= among the fields; .at NULL: none. A bare word gives an empty value. */
static struct span field_of(struct span fields, struct span name) {
    while (fields.len) {
        struct span value, field = span_cut(fields, '\t', &fields);
        if (span_eq(span_cut(field, '=', &value), name))
            return value.at ? value : span_from(field, field.len);
    }
    return SPAN_EMPTY;
}

static void hear_end(struct dovecot *d, struct auth_question *q, bool good, struct span fields) {
    struct span user = field_of(fields, SPAN("user"));
    bool temporary =
        !good && (field_of(fields, SPAN("temp")).at || span_eq(field_of(fields, SPAN("code")), SPAN("temp_fail")));
    if (user.len > 0 && user.len <= AUTH_ACCOUNT_MAX)
        span_copy(user, q->account, sizeof q->account);
    if (temporary) {
        list_remove(&d->open, &q->node);
        auth_question_cannot(q, SPAN("Dovecot has a temporary failure"));
        return;
    }
    give(d, q, good ? AUTH_REPLY_YES : AUTH_REPLY_NO);
}

static bool hear_more(struct dovecot *d, struct auth_question *q, struct span text) {
    bool unwanted = atomic_load(&q->canceled) || q->ask == AUTH_ASK_PASSWORD;
    buf_clear(&q->out);
    if (!unwanted && base64_decode(text, &q->out) == ERR_OK) {
        give(d, q, AUTH_REPLY_MORE);
        return true;
    }
    bool good = put_cancel(d, q->id);
    list_remove(&d->open, &q->node);
    auth_question_cannot(q, SPAN("Dovecot sent a challenge that cannot be used"));
    return good;
}

/* False: the line breaks the protocol, or the connection. */
static bool hear(struct dovecot *d, struct span line) {
    struct span fields, word = span_cut(line, '\t', &fields);
    uint64_t id;
    if (d->link == LINK_CONNECTING)
        return hear_handshake(d, word, fields);
    bool good = span_eq(word, SPAN("OK")), more = span_eq(word, SPAN("CONT"));
    if (!good && !more && !span_eq(word, SPAN("FAIL")))
        return true;
    if (!span_u64(span_cut(fields, '\t', &fields), &id))
        return false;
    struct auth_question *q = find(d, id);
    if (!q)
        return true; /* given up meanwhile */
    if (more)
        return hear_more(d, q, fields);
    hear_end(d, q, good, fields);
    return true;
}

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err) {
    struct dovecot *d = arg;
    if (event == TCP_FAILED || event == TCP_EOF) {
        go_down(d, event == TCP_EOF ? "Dovecot closed the connection" : err_text(err));
        return;
    }
    if (event == TCP_CONNECTED) {
        struct buf line;
        uint32_t client;
        rand_secure(&client, sizeof client); /* a process id by name; has to be another one for each connection */
        buf_init(&line, LINE_MAX);
        buf_printf(&line, "VERSION\t1\t1\nCPID\t%u\n", (client >> 1) + 1);
        if (!put(d, &line))
            go_down(d, "cannot write to Dovecot");
        return;
    }
    ptrdiff_t end;
    while (d->tcp == t && (end = span_find(buf_span(tcp_in(t)), '\n')) >= 0) {
        if (!hear(d, span_first(buf_span(tcp_in(t)), (size_t)end)))
            go_down(d, "Dovecot does not speak its protocol");
        else if (d->tcp == t)
            buf_consume(tcp_in(t), (size_t)end + 1);
    }
    if (d->tcp == t && buf_len(tcp_in(t)) > LINE_MAX)
        go_down(d, "a line of Dovecot is too long");
}

static void dial(struct dovecot *d) {
    d->number++;
    d->heard.count = 0;
    d->deadline_ms = clock_mono_ms() + d->base.timeout_ms;
    d->link = LINK_CONNECTING;
    d->tcp = tcp_connect(d->loop, &d->addr, NULL, IN_MAX, OUT_MAX, on_tcp, d);
    if (!d->tcp)
        go_down(d, "no memory or descriptors");
    else
        loop_timer_set(d->timer, TICK_MS);
}

static void on_tick(void *arg) {
    struct dovecot *d = arg;
    uint64_t now = clock_mono_ms();
    if (d->number == 0) { /* the first time: to hear what it offers */
        dial(d);
        return;
    }
    if (d->link == LINK_CONNECTING && now >= d->deadline_ms)
        go_down(d, "Dovecot does not answer");
    bool good = true;
    LIST_FOREACH(n, next, &d->open) {
        struct auth_question *q = CONTAINER_OF(n, struct auth_question, node);
        if (now < q->deadline_ms)
            continue;
        good = good && (!q->sent || put_cancel(d, q->id));
        list_remove(&d->open, n);
        auth_question_cannot(q, SPAN("no answer in time"));
    }
    if (!good)
        go_down(d, "cannot write to Dovecot");
    if (d->link == LINK_CONNECTING || !list_is_empty(&d->open))
        loop_timer_set(d->timer, TICK_MS);
}

static void forget(struct dovecot *d, struct auth_question *q) {
    if (q->link == d->number && d->link == LINK_READY && !put_cancel(d, q->id))
        go_down(d, "cannot write to Dovecot");
    auth_question_done(q, AUTH_REPLY_NO);
}

static void on_letter(struct post_letter *letter) {
    struct auth_question *q = CONTAINER_OF(letter, struct auth_question, letter);
    struct dovecot *d = CONTAINER_OF(q->backend, struct dovecot, base);
    if (q->ask == AUTH_ASK_FORGET) {
        forget(d, q);
        return;
    }
    if (atomic_load(&q->canceled) && q->ask == AUTH_ASK_CONTINUE) {
        forget(d, q);
        return;
    }
    bool lost = q->ask == AUTH_ASK_CONTINUE && (q->link != d->number || d->link != LINK_READY);
    if (atomic_load(&q->canceled) || lost || d->open.count >= AUTH_WAITING_MAX) {
        auth_question_cannot(q, lost ? SPAN("the connection to Dovecot was lost") : SPAN("too many questions wait"));
        return;
    }
    q->sent = false;
    list_push_back(&d->open, &q->node);
    if (d->link == LINK_DOWN)
        dial(d);
    else if (d->link == LINK_READY)
        put_waiting(d);
    if (!list_is_empty(&d->open))
        loop_timer_set(d->timer, TICK_MS);
}

static void ask(struct auth_backend *base, struct auth_question *q) {
    CHECK(q->ask != AUTH_ASK_HASH);
    q->letter.open = on_letter;
    auth_io_send(CONTAINER_OF(base, struct dovecot, base)->io, &q->letter);
}

static void close_dovecot(struct auth_backend *base) {
    struct dovecot *d = CONTAINER_OF(base, struct dovecot, base);
    go_down(d, "closed");
    loop_timer_close(d->timer);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static bool runs(struct auth_backend *base, size_t index, char name[AUTH_MECHANISM_MAX + 1]) {
    struct dovecot *d = CONTAINER_OF(base, struct dovecot, base);
    pthread_mutex_lock(&d->lock);
    bool has = index < d->offers.count;
    if (has)
        span_copy(span_of(d->offers.names[index]), name, AUTH_MECHANISM_MAX + 1);
    pthread_mutex_unlock(&d->lock);
    return has;
}

static const struct auth_backend_ops ops = {.ask = ask, .close = close_dovecot, .runs = runs};

int auth_dovecot_new(struct auth_backend **out, const struct auth_backend_config *c, struct auth_io *io,
                     struct buf *problems) {
    struct dovecot *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    struct span uri = span_of(c->uri);
    int err =
        span_starts_nocase(uri, SPAN("unix:")) ? tcp_addr_parse(&d->addr, uri, 0) : tcp_addr_parse_port(&d->addr, uri);
    if (err) {
        buf_printf(problems, "auth %s: needs an uri unix:/PATH or ADDRESS:PORT\n", c->name);
        free(d);
        return ERR_INVALID;
    }
    d->base = (struct auth_backend){.ops = &ops, .on_io = true, .timeout_ms = c->timeout_ms};
    d->io = io;
    d->loop = auth_io_loop(io);
    list_init(&d->open);
    CHECK(pthread_mutex_init(&d->lock, NULL) == 0);
    d->timer = loop_timer_new(d->loop, on_tick, d);
    if (!d->timer) {
        pthread_mutex_destroy(&d->lock);
        free(d);
        return ERR_NOMEM;
    }
    loop_timer_set(d->timer, 0);
    *out = &d->base;
    return ERR_OK;
}
