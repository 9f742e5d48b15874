/*
 * tcp_tls: TLS on a connection of tcp.c: moves octets between the stream and the engine of tls.h. No OpenSSL here.
 *
 * Reading. Sealed octets come into the loop's lent memory and go to the engine at once; the same memory then takes the
 * opened ones, so that a busy connection costs no buffer of its own. No more is read than there is room for when it is
 * opened (a few KiB at least), and nothing while the owner's buffer is full or paused: what the engine still holds then
 * is less than two records, and is given out first when there is room again.
 *
 * Writing. Small pieces are gathered into one record. Sealed octets are queued by tcp_send; out_max bounds what the
 * owner may ask for, and the queue has a margin above it for what TLS adds.
 */
#include <string.h>

#include "base/check.h"
#include "base/net/tcp_in.h"

enum { RECORD_MAX = 16384, SEALED_READ_MIN = 4096, SEALED_WRITE_MAX = 4 * RECORD_MAX, HANDSHAKE_MAX = 128 * 1024 };

size_t tcp_tls_room(const struct tcp *c) {
    size_t room = c->in.max - buf_len(&c->in);
    if (room < SEALED_READ_MIN || !c->secured)
        return SEALED_READ_MIN;
    return room < LOOP_LENT_SIZE ? room : LOOP_LENT_SIZE;
}

/* -- what the engine has to say -- */

static int flush(struct tcp *c) {
    struct span out = tls_out(c->tls);
    if (out.len == 0)
        return ERR_OK;
    int err = c->broken ? ERR_CLOSED : tcp_send(c, &out, 1);
    tls_out_taken(c->tls, out.len);
    return err;
}

/* A failed write in between needs no answer: the reading side hears of the end, or the owner at its next write. */
static void flush_what_came(struct tcp *c) {
    if (flush(c))
        c->broken = true;
}

/* -- reading -- */

static void end_input(struct tcp *c) {
    c->eof = true;
    uv_read_stop(&c->uv.stream);
    tcp_emit(c, TCP_EOF, ERR_OK);
}

/* True: done, and the owner is still there. */
static bool shake(struct tcp *c, bool *alive) {
    int err = tls_handshake(c->tls);
    flush_what_came(c);
    *alive = false;
    if (err == ERR_AGAIN && !c->tls_ended) {
        *alive = true;
        return false;
    }
    if (err) {
        tcp_fail(c, ERR_DENIED);
        return false;
    }
    c->secured = true;
    *alive = tcp_emit(c, TCP_SECURED, ERR_OK);
    return *alive;
}

/* Opens as much as the read buffer takes. ERR_OK: it is full; else what stopped it. */
static int fill(struct tcp *c) {
    for (;;) {
        size_t room = tcp_in_is_lent(c) ? c->in.cap - c->in.end : c->in.max - buf_len(&c->in);
        if (room == 0)
            return ERR_OK;
        int err = tls_read(c->tls, &c->in, room < RECORD_MAX ? room : RECORD_MAX);
        if (err)
            return err;
    }
}

/* Fills the read buffer and shows it to the owner. False: nothing of c may be touched. */
static bool give(struct tcp *c, int *err) {
    size_t before = buf_len(&c->in);
    if (before == 0)
        tcp_in_borrow(c);
    *err = fill(c);
    flush_what_came(c);
    if (buf_len(&c->in) > before)
        tcp_emit(c, TCP_READ, ERR_OK);
    if (tcp_is_closing(c))
        return false;
    if (c->finishing) {
        tcp_in_drop(c);
        return false;
    }
    if (tcp_in_settle(c)) {
        tcp_fail(c, ERR_NOMEM);
        return false;
    }
    return true;
}

bool tcp_tls_pump(struct tcp *c) {
    bool alive = true;
    int err = ERR_OK;
    if (c->eof || c->paused)
        return !c->eof;
    if (!c->secured && !shake(c, &alive))
        return alive;
    while (!err && !c->paused && buf_len(&c->in) < c->in.max) {
        if (!give(c, &err))
            return false;
    }
    if (!err || c->paused)
        return true;
    if (err == ERR_CLOSED || (err == ERR_AGAIN && c->tls_ended)) {
        end_input(c);
        return false;
    }
    if (err == ERR_AGAIN)
        return true;
    tcp_fail(c, err);
    return false;
}

void tcp_tls_on_read(struct tcp *c, struct span sealed) {
    if (tls_put(c->tls, sealed)) {
        tcp_fail(c, ERR_NOMEM);
        return;
    }
    if (tcp_tls_pump(c) && !c->paused && buf_len(&c->in) >= c->in.max)
        tcp_start_reading(c); /* which finds it full, and lets it wait for room */
}

void tcp_tls_on_eof(struct tcp *c) {
    c->tls_ended = true;
    uv_read_stop(&c->uv.stream);
    if (!c->secured)
        tls_cut(c->tls);
    if (tcp_tls_pump(c) && !c->paused && buf_len(&c->in) >= c->in.max)
        tcp_start_reading(c);
}

/* -- writing -- */

static int seal(struct tcp *c, struct span plain) {
    int err = tls_write(c->tls, plain);
    if (!err && tls_out(c->tls).len >= SEALED_WRITE_MAX)
        err = flush(c);
    return err;
}

/* Small pieces are joined, so that each does not become a record; `held` octets of `record` wait. */
static int seal_all(struct tcp *c, const struct span *pieces, size_t count) {
    char record[RECORD_MAX];
    size_t held = 0;
    int err = ERR_OK;
    for (size_t i = 0; i < count; i++) {
        struct span left = pieces[i];
        while (left.len && !err) {
            struct span part = span_first(left, RECORD_MAX - held);
            left = span_from(left, part.len);
            if (held == 0 && part.len == RECORD_MAX) {
                err = seal(c, part);
                continue;
            }
            memcpy(record + held, part.at, part.len);
            held += part.len;
            if (held == RECORD_MAX) {
                err = seal(c, span_make(record, held));
                held = 0;
            }
        }
    }
    return err || held == 0 ? err : seal(c, span_make(record, held));
}

int tcp_tls_write(struct tcp *c, const struct span *pieces, size_t count) {
    int err = seal_all(c, pieces, count);
    if (!err)
        err = flush(c);
    if (!err)
        return ERR_OK;
    c->broken = true;
    return err == ERR_NOMEM ? ERR_NOMEM : ERR_CLOSED;
}

void tcp_tls_end(struct tcp *c) {
    tls_end(c->tls);
    flush_what_came(c);
}

/* -- beginning -- */

static int may_secure(const struct tcp *c) {
    if (c->tls || buf_len(&c->in))
        return ERR_INVALID;
    return c->eof || c->broken || c->failed || c->finishing || tcp_is_closing(c) ? ERR_CLOSED : ERR_OK;
}

static int secure(struct tcp *c, struct tls *t) {
    if (!t)
        return ERR_NOMEM;
    c->tls = t;
    c->out.max = c->flying.max = c->out_max + c->out_max / 64 + HANDSHAKE_MAX;
    return ERR_OK;
}

int tcp_secure_server(struct tcp *c, struct tls_server *t) {
    CHECK(c->cb);
    int err = may_secure(c);
    return err ? err : secure(c, tls_accept(t));
}

int tcp_secure_server_early(struct tcp *c, struct tls_server *t) {
    struct span sealed = buf_span(&c->in);
    CHECK(c->cb);
    if (c->tls || c->eof || c->broken || c->failed || c->finishing || tcp_is_closing(c))
        return c->tls ? ERR_INVALID : ERR_CLOSED;
    int err = secure(c, tls_accept(t));
    if (!err && sealed.len)
        err = tls_put(c->tls, sealed);
    if (err)
        return err;
    buf_consume(&c->in, sealed.len);
    if (sealed.len)
        tcp_wait_for_turn(c, WAITING_RESUMED);
    return ERR_OK;
}

static int secure_client(struct tcp *c, struct tls *t) {
    int err = secure(c, t);
    if (err)
        return err;
    if (tls_handshake(c->tls) != ERR_AGAIN) {
        c->pending_err = ERR_DENIED;
        tcp_wait_for_turn(c, WAITING_RESUMED);
    }
    flush_what_came(c);
    return ERR_OK;
}

int tcp_secure_client(struct tcp *c, struct tls_client *t, const char *name) {
    CHECK(c->cb);
    int err = may_secure(c);
    return err ? err : secure_client(c, tls_connect(t, name));
}

int tcp_secure_client_with(struct tcp *c, struct tls_client *t, const struct tls_wish *w) {
    CHECK(c->cb);
    int err = may_secure(c);
    return err ? err : secure_client(c, tls_connect_with(t, w));
}

/* -- asking -- */

const struct tls_info *tcp_tls_info(const struct tcp *c) {
    return c->secured ? tls_info(c->tls) : NULL;
}

const char *tcp_tls_why(const struct tcp *c) {
    return c->tls ? tls_why(c->tls) : "";
}

int tcp_tls_fault(const struct tcp *c) {
    return c->tls ? (int)tls_fault_of(c->tls) : TLS_FAULT_NONE;
}

bool tcp_tls_binding(struct tcp *c, const char **type, uint8_t to[64], size_t *len) {
    return c->secured && tls_binding(c->tls, type, to, len);
}
