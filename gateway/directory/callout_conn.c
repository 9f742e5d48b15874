/*
 * callout_conn: one connection to the mailbox server (callout.h): a stream, the client core, the clock, and the batch
 * of questions that it has taken.
 *
 *   opened with a batch -> [the next address, while none has greeted us] -> asking -> idle -> asking ... -> QUIT
 *
 * What a reply means is decided here: 2yz to RCPT is found, 5yz unknown, everything else "cannot tell". A server that
 * does not let us ask at all (no connection, no greeting, MAIL refused) has failed. A question whose connection went
 * away before its reply is asked once more on another one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/metrics.h"
#include "base/rand.h"

#include "gateway/directory/callout.h"

enum {
    IN_MAX = 64 * 1024,
    OUT_MAX = 128 * 1024,
    IDLE_MS = 60 * 1000,
    FINISH_MS = 2000,
    TRANSACTIONS_MAX = 500,
    POSTMASTER_MS = 3600 * 1000,
    RANDOM_LEN = 20,
    WHY_MAX = 900,
    MEMORY_MAX = 64 * 1024,
};

METRIC_COUNTER(transactions, "posthouse_callout_transactions_total", "Transactions that only asked for recipients");
METRIC_COUNTER(connects, "posthouse_callout_connections_total", "Connections opened to ask for recipients");

struct slot {                   /* one RCPT TO */
    struct backend_question *q; /* NULL: the random address */
    struct callout_domain *domain;
};
struct callout_conn {
    struct list_node node;
    struct callout *c;
    struct tcp *tcp;
    struct loop_timer *timer;
    struct client client;
    size_t address;                                /* the one that is tried */
    struct backend_question *batch[CALLOUT_BATCH]; /* taken and not yet in a transaction */
    size_t batch_count;
    struct slot slots[CALLOUT_SLOTS]; /* of the transaction under way, a question is NULL once answered */
    bool probes[CALLOUT_SLOTS];
    struct client_recipient recipients[CALLOUT_SLOTS];
    uint32_t slot_count;
    struct client_mail mail;
    struct arena mem; /* of the transaction's texts */
    bool connected, greeted, idle, ready, postmaster;
    char remote[160];
};

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err);
static void on_timer(void *arg);

/* -- answers -- */

static void answer(struct callout_conn *k, struct backend_question *q, int err, enum directory_status status,
                   const char *stage, const char *what) {
    char why[WHY_MAX];
    snprintf(why, sizeof why, "%s %s%s%s", k->remote, stage, *stage ? " " : "", what);
    const struct backend_reply r = {.err = err, .status = status, .kind = TABLE_MAILBOX, .why = span_of(why)};
    backend_answer(q, &r);
}

static void fail_batch(struct callout_conn *k, int err, const char *stage, const char *what) {
    for (size_t i = 0; i < k->batch_count; i++)
        answer(k, k->batch[i], err, DIRECTORY_TEMPFAIL, stage, what);
    k->batch_count = 0;
}

/* Ends the slots: what has no answer goes back to those that wait, or hears `err` when it has been back before or
 * `final` is set. */
static void end_slots(struct callout_conn *k, bool final, int err, const char *what) {
    for (uint32_t i = k->slot_count; i-- > 0;) {
        struct slot *s = &k->slots[i];
        if (k->probes[i])
            callout_domain_learn(k->c, s->domain, CLIENT_ANSWER_LOST);
        callout_domain_leave(s->domain);
        if (!s->q)
            continue;
        if (backend_loop_left_ms(s->q) == 0) {
            answer(k, s->q, ERR_TIMEOUT, DIRECTORY_TEMPFAIL, "", "did not answer in time");
        } else if (final || s->q->backend_data) {
            answer(k, s->q, err, DIRECTORY_TEMPFAIL, "", what);
        } else {
            s->q->backend_data = k->c; /* it has been asked once */
            backend_loop_return(&k->c->run, s->q);
        }
    }
    k->slot_count = 0;
    arena_reset(&k->mem);
}

/* -- beginning and end -- */

static void close_conn(struct callout_conn *k, bool gently) {
    if (k->tcp && gently)
        tcp_finish(k->tcp, FINISH_MS);
    else if (k->tcp)
        tcp_close(k->tcp);
    if (k->timer)
        loop_timer_close(k->timer);
    client_deinit(&k->client);
    arena_deinit(&k->mem);
    list_remove(&k->c->conns, &k->node);
    free(k);
}

static void close_and_pump(struct callout_conn *k, bool gently) {
    struct callout *c = k->c;
    close_conn(k, gently);
    callout_pump(c);
}

void callout_conns_close(struct callout *c) {
    struct list_node *n;
    while ((n = list_first(&c->conns)))
        close_conn(LIST_ENTRY(n, struct callout_conn, node), false);
}

static bool take_batch(struct callout_conn *k) {
    struct backend_question *q;
    while (k->batch_count < CALLOUT_BATCH && (q = backend_loop_take(&k->c->run)))
        k->batch[k->batch_count++] = q;
    return k->batch_count > 0;
}

static uint64_t least_left(const struct callout_conn *k) {
    uint64_t least = IDLE_MS;
    for (size_t i = 0; i < k->batch_count; i++) {
        uint64_t left = backend_loop_left_ms(k->batch[i]);
        least = left < least ? left : least;
    }
    for (uint32_t i = 0; i < k->slot_count; i++) {
        uint64_t left = k->slots[i].q ? backend_loop_left_ms(k->slots[i].q) : least;
        least = left < least ? left : least;
    }
    return least;
}

/* Connects to the next address that lets us. The time that is left is shared by the addresses that are left. */
static bool connect_next(struct callout_conn *k) {
    struct callout *c = k->c;
    for (; k->address < c->address_count; k->address++) {
        const struct tcp_addr *to = &c->addresses[k->address];
        char text[128];
        tcp_addr_format(to, text, sizeof text);
        snprintf(k->remote, sizeof k->remote, "%s", text);
        k->connected = false;
        k->tcp = tcp_connect(c->run.loop, to, NULL, IN_MAX, OUT_MAX, on_tcp, k);
        if (!k->tcp)
            continue;
        client_deinit(&k->client);
        client_init(&k->client, c->protocol, c->config->hostname);
        loop_timer_set(k->timer, least_left(k) / (c->address_count - k->address));
        metric_add(&connects, 1);
        return true;
    }
    return false;
}

bool callout_conn_open(struct callout *c) {
    struct callout_conn *k = calloc(1, sizeof *k);
    struct backend_question *q;
    if (!k) {
        while ((q = backend_loop_take(&c->run)))
            backend_fail(q, ERR_NOMEM, err_text(ERR_NOMEM));
        return false;
    }
    k->c = c;
    client_init(&k->client, c->protocol, c->config->hostname);
    arena_init(&k->mem, 8192, MEMORY_MAX);
    list_push_back(&c->conns, &k->node);
    k->timer = loop_timer_new(c->run.loop, on_timer, k);
    if (take_batch(k) && k->timer && connect_next(k))
        return true;
    fail_batch(k, ERR_NOMEM, "", "cannot be connected to: no memory or descriptors");
    close_conn(k, false);
    return false;
}

/* Before the server has greeted us: the next address, or the batch has failed. */
static void give_up_address(struct callout_conn *k, int err, const char *stage, const char *what) {
    tcp_close(k->tcp);
    k->tcp = NULL;
    k->address++;
    if (connect_next(k))
        return;
    fail_batch(k, err, stage, what);
    close_and_pump(k, false);
}

/* -- a transaction -- */

static bool is_ascii(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.at[i] > 0x7f)
            return false;
    }
    return true;
}

static bool is_dot_string(struct span s) {
    char last = '.';
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        bool atom = c > 0x7f || (c > ' ' && c < 0x7f && !strchr("()<>[]:;@\\,\"", c));
        if (!atom || (c == '.' && last == '.'))
            return false;
        last = s.at[i];
    }
    return last != '.';
}

/* key@domain with the quotes that the key needs. */
static struct span written(struct arena *mem, struct span key, struct span domain) {
    char text[2 * ADDRESS_PATH_MAX + ADDRESS_DOMAIN_MAX + 8];
    size_t len = 0;
    bool quoted = !is_dot_string(key);
    if (key.len > ADDRESS_PATH_MAX || domain.len > ADDRESS_DOMAIN_MAX)
        return SPAN_EMPTY;
    if (quoted)
        text[len++] = '"';
    for (size_t i = 0; i < key.len; i++) {
        if (quoted && (key.at[i] == '"' || key.at[i] == '\\'))
            text[len++] = '\\';
        text[len++] = key.at[i];
    }
    if (quoted)
        text[len++] = '"';
    text[len++] = '@';
    memcpy(text + len, domain.at, domain.len);
    return arena_dup(mem, span_make(text, len + domain.len));
}

static struct span random_key(char to[RANDOM_LEN]) {
    static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
    unsigned char bytes[RANDOM_LEN];
    rand_secure(bytes, sizeof bytes);
    for (size_t i = 0; i < RANDOM_LEN; i++)
        to[i] = letters[bytes[i] % 32];
    return span_make(to, RANDOM_LEN);
}

static bool add_slot(struct callout_conn *k, struct backend_question *q, struct callout_domain *d, struct span key,
                     struct span domain) {
    struct span address = written(&k->mem, key, domain);
    if (!address.len)
        return false;
    k->slots[k->slot_count] = (struct slot){q, d};
    k->probes[k->slot_count] = !q;
    k->recipients[k->slot_count++] = (struct client_recipient){.address = address};
    return true;
}

/* Puts the question, and before it the random address of its domain when that is due, into the transaction. False: it
 * is full. */
static bool add_question(struct callout_conn *k, struct backend_question *q, uint32_t limit) {
    bool ascii = is_ascii(q->key);
    char random[RANDOM_LEN];
    if (!q->key.len) { /* a catch-all is no address */
        answer(k, q, ERR_OK, DIRECTORY_UNKNOWN, "", "is not asked for catch-alls");
        return true;
    }
    if (!ascii && !k->client.ext.smtputf8) {
        answer(k, q, ERR_OK, DIRECTORY_UNKNOWN, "", "takes no addresses beyond ASCII");
        return true;
    }
    if (k->slot_count + 1 > limit)
        return false;
    struct callout_domain *d = callout_domain_use(k->c, q->domain);
    if (d && callout_domain_is_due(k->c, d)) {
        struct callout_domain *again = callout_domain_use(k->c, q->domain);
        if (!add_slot(k, NULL, again, random_key(random), q->domain)) {
            callout_domain_leave(again);
            callout_domain_learn(k->c, d, CLIENT_ANSWER_LOST);
        }
    }
    if (k->slot_count + 1 > limit) {
        callout_domain_leave(d);
        return false;
    }
    if (!add_slot(k, q, d, q->key, q->domain)) {
        callout_domain_leave(d);
        answer(k, q, ERR_NOMEM, DIRECTORY_TEMPFAIL, "", err_text(ERR_NOMEM));
    }
    k->mail.smtputf8 |= !ascii;
    return true;
}

static bool is_worn(const struct callout_conn *k) {
    uint32_t max = k->client.ext.mail_max;
    return k->client.transactions >= (max && max < TRANSACTIONS_MAX ? max : TRANSACTIONS_MAX);
}

static void quit(struct callout_conn *k) {
    if (tcp_write(k->tcp, "QUIT\r\n", 6) == ERR_OK)
        close_conn(k, true);
    else
        close_conn(k, false);
}

static int send_commands(struct callout_conn *k) {
    struct buf *out = &k->client.out;
    int err = out->err;
    if (err == ERR_OK && buf_len(out))
        err = tcp_write(k->tcp, buf_span(out).at, buf_len(out));
    buf_clear(out);
    return err;
}

/* Makes slots of the batch; what does not fit goes back. */
static void fill_slots(struct callout_conn *k) {
    uint32_t limit =
        k->client.ext.rcpt_max && k->client.ext.rcpt_max < CALLOUT_SLOTS ? k->client.ext.rcpt_max : CALLOUT_SLOTS;
    size_t used = 0;
    k->mail = (struct client_mail){.recipients = k->recipients, .probe = true};
    while (used < k->batch_count && add_question(k, k->batch[used], limit))
        used++;
    while (k->batch_count > used)
        backend_loop_return(&k->c->run, k->batch[--k->batch_count]);
    k->batch_count = 0;
    k->mail.count = k->slot_count;
}

/* READY: asks the batch, or the next one, or rests. k may be gone afterwards. */
static void go_on(struct callout_conn *k) {
    struct callout *c = k->c;
    k->idle = false;
    while (k->slot_count == 0) {
        if (k->batch_count == 0 && (is_worn(k) || !take_batch(k))) {
            if (is_worn(k)) {
                quit(k);
                callout_pump(c);
                return;
            }
            k->idle = true;
            loop_timer_set(k->timer, IDLE_MS);
            return;
        }
        fill_slots(k);
    }
    k->postmaster = callout_needs_postmaster(c);
    if (k->postmaster)
        k->mail.sender = span_of(arena_printf(&k->mem, "postmaster@%s", c->config->hostname));
    int begun = client_begin(&k->client, &k->mail);
    int err = begun == ERR_OK ? send_commands(k) : begun;
    if (err != ERR_OK) { /* on a broken stream others may have more luck */
        end_slots(k, begun != ERR_OK, err, err_text(err));
        close_and_pump(k, false);
        return;
    }
    metric_add(&transactions, 1);
    loop_timer_set(k->timer, least_left(k));
}

bool callout_conn_reuse(struct callout *c) {
    LIST_FOREACH(n, next, &c->conns) {
        struct callout_conn *k = LIST_ENTRY(n, struct callout_conn, node);
        if (!k->idle)
            continue;
        go_on(k);
        return true;
    }
    return false;
}

/* -- hearing -- */

static void on_recipient(struct callout_conn *k, const struct client_event *e) {
    struct slot *s = &k->slots[e->index];
    struct backend_question *q = s->q;
    char what[REPLY_TEXT_MAX + 100];
    if (k->probes[e->index]) {
        callout_domain_learn(k->c, s->domain, e->answer);
        k->probes[e->index] = false;
        return;
    }
    if (!q)
        return;
    bool found = e->answer == CLIENT_ANSWER_2;
    bool worthless = found && s->domain && s->domain->accepts_all;
    snprintf(what, sizeof what, "%u %s%s", e->reply->code, e->reply->text,
             worthless ? " (the server accepts every address)" : "");
    s->q = NULL;
    enum directory_status status = found                          ? DIRECTORY_FOUND
                                   : e->answer == CLIENT_ANSWER_5 ? DIRECTORY_UNKNOWN
                                                                  : DIRECTORY_TEMPFAIL;
    answer(k, q, ERR_OK, status, "said to RCPT TO:", what);
}

/* MAIL was refused. A server that takes no null sender may take the postmaster. */
static void on_refused(struct callout_conn *k, const struct client_event *e) {
    char what[REPLY_TEXT_MAX + 100];
    struct callout *c = k->c;
    if (e->answer == CLIENT_ANSWER_5 && !k->postmaster && c->config->sender_postmaster) {
        c->postmaster_until_ms = loop_now_ms(c->run.loop) + POSTMASTER_MS;
        for (uint32_t i = 0; i < k->slot_count; i++) {
            if (k->slots[i].q)
                k->slots[i].q->backend_data = NULL; /* this was no try of the question itself */
        }
        end_slots(k, false, ERR_DENIED, "");
        return;
    }
    snprintf(what, sizeof what, "%u %s", e->reply->code, e->reply->text);
    for (uint32_t i = 0; i < k->slot_count; i++) {
        if (k->slots[i].q)
            answer(k, k->slots[i].q, ERR_DENIED, DIRECTORY_TEMPFAIL,
                   k->postmaster ? "refused MAIL FROM:<postmaster@...>:" : "refused MAIL FROM:<>:", what);
        k->slots[i].q = NULL;
    }
}

/* The dialogue has ended, by the server's word (e) or because the stream has. k is gone afterwards, or connects again.
 */
static void on_end(struct callout_conn *k, const struct client_event *e, int err) {
    char what[REPLY_TEXT_MAX + 100];
    if (e && e->reply)
        snprintf(what, sizeof what, "%u %s", e->reply->code, e->reply->text);
    else
        snprintf(what, sizeof what, "%s", err == ERR_OK ? "closed the connection" : err_text(err));
    if (!k->greeted) {
        enum client_stage at = e ? e->stage : k->client.state;
        const char *stage = !k->connected           ? "cannot be connected to:"
                            : at == CLIENT_GREETING ? "did not greet:"
                                                    : "refused to talk:";
        give_up_address(k, k->connected && e ? ERR_DENIED : err == ERR_OK ? ERR_CLOSED : err, stage, what);
        return;
    }
    end_slots(k, false, ERR_OK, what);
    close_and_pump(k, true);
}

static void hear(struct callout_conn *k) {
    struct client_event e;
    struct span in = buf_span(tcp_in(k->tcp));
    size_t len = in.len;
    for (;;) {
        client_next(&k->client, &in, &e);
        if (e.kind == CLIENT_EV_MORE || e.kind == CLIENT_EV_END)
            break;
        if (e.kind == CLIENT_EV_READY)
            k->ready = true;
        else if (e.kind == CLIENT_EV_RECIPIENT)
            on_recipient(k, &e);
        else if (e.kind == CLIENT_EV_ALL)
            on_refused(k, &e);
    }
    int err = send_commands(k);
    if (e.kind == CLIENT_EV_END || err != ERR_OK) {
        on_end(k, e.kind == CLIENT_EV_END ? &e : NULL, err);
        return;
    }
    buf_consume(tcp_in(k->tcp), len);
    if (!k->ready)
        return;
    k->ready = false;
    k->greeted = true;
    for (uint32_t i = 0; i < k->slot_count; i++) {
        if (k->slots[i].q) /* the server took no more in this transaction */
            k->slots[i].q->backend_data = NULL;
    }
    end_slots(k, false, ERR_OK, "");
    go_on(k);
}

static void on_timer(void *arg) {
    struct callout_conn *k = arg;
    if (k->idle) {
        quit(k);
    } else if (!k->greeted) {
        give_up_address(k, ERR_TIMEOUT,
                        k->connected ? "did not greet:" : "cannot be connected to:", "no answer in time");
    } else { /* replies are missing: nobody may ask on this stream */
        end_slots(k, false, ERR_TIMEOUT, "did not answer in time");
        close_and_pump(k, false);
    }
}

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err) {
    struct callout_conn *k = arg;
    (void)t;
    switch (event) {
    case TCP_CONNECTED:
        k->connected = true;
        return;
    case TCP_READ:
        hear(k);
        return;
    case TCP_DRAINED:
    case TCP_SECURED:
        return;
    case TCP_EOF:
    case TCP_FAILED:
        on_end(k, NULL, event == TCP_EOF ? ERR_OK : err);
        return;
    }
}
