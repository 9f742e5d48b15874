/*
 * pg: see pg.h. The connection is made and used through libpq's non-blocking calls, with poll(2) against one deadline:
 * the blocking calls know no time-out for a query. Rows are taken one by one, so that a wrong query with a million rows
 * costs time and not memory.
 *
 * Names are resolved by the system's resolver, which has time-outs of its own.
 */
#include "base/net/pg.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "base/check.h"
#include "base/clock.h"

enum { ROWS_MAX = 1000, COLUMNS_MAX = 16, PARAMS_MAX = 16, TEXT_OID = 25 };

struct pg_link {
    PGconn *conn;
};

/* One clean line; libpq ends its own with line feeds and may write several. */
static int fail(struct buf *why, int err, const char *text) {
    struct span rest = span_of(text);
    bool first = true;
    while (why && rest.len) {
        struct span line = span_trim(span_cut(rest, '\n', &rest));
        if (!line.len)
            continue;
        if (!first)
            buf_add_str(why, "; ");
        buf_add_escaped(why, line);
        first = false;
    }
    return err;
}

/* ERR_TIMEOUT, ERR_IO, or ERR_OK with what is ready in *ready (may be NULL). */
static int wait_for(PGconn *conn, short events, uint64_t deadline, short *ready) {
    struct pollfd p = {.fd = PQsocket(conn), .events = events};
    if (p.fd < 0)
        return ERR_IO;
    for (;;) {
        uint64_t now = clock_mono_ms();
        if (now >= deadline)
            return ERR_TIMEOUT;
        uint64_t left = deadline - now;
        int n = poll(&p, 1, left > 1000000 ? 1000000 : (int)left);
        if (n > 0) {
            if (ready)
                *ready = p.revents;
            return ERR_OK;
        }
        if (n < 0 && errno != EINTR)
            return ERR_IO;
    }
}

/* -- opening -- */

static int connect_link(PGconn *conn, uint64_t deadline, struct buf *why) {
    bool talked = false; /* a server answered, so what fails now is its refusal */
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    while (want == PGRES_POLLING_READING || want == PGRES_POLLING_WRITING) {
        int err = wait_for(conn, want == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline, NULL);
        if (err == ERR_TIMEOUT)
            return fail(why, ERR_TIMEOUT, "no connection in time");
        if (err)
            return fail(why, ERR_UNREACHABLE, "the connection cannot be watched");
        want = PQconnectPoll(conn);
        ConnStatusType status = PQstatus(conn);
        if (status == CONNECTION_AWAITING_RESPONSE || status == CONNECTION_AUTH_OK)
            talked = true;
    }
    if (want == PGRES_POLLING_OK)
        return ERR_OK;
    return fail(why, talked ? ERR_DENIED : ERR_UNREACHABLE, PQerrorMessage(conn));
}

int pg_link_open(struct pg_link **out, const char *uri, uint64_t timeout_ms, struct buf *why) {
    static const char *const names[] = {"dbname", "client_encoding", "fallback_application_name", NULL};
    const char *const values[] = {uri, "UTF8", "posthouse", NULL};
    uint64_t deadline = clock_mono_ms() + timeout_ms;
    *out = NULL;
    /* what the parser says may quote the string, and so the password */
    PQconninfoOption *options = PQconninfoParse(uri, NULL);
    if (!options)
        return fail(why, ERR_INVALID, "the connection string cannot be read");
    PQconninfoFree(options);
    struct pg_link *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->conn = PQconnectStartParams(names, values, 1);
    int err = ERR_NOMEM;
    if (l->conn && PQstatus(l->conn) == CONNECTION_BAD)
        err = fail(why, ERR_UNREACHABLE, PQerrorMessage(l->conn));
    else if (l->conn)
        err = connect_link(l->conn, deadline, why);
    if (!err && PQsetnonblocking(l->conn, 1) != 0)
        err = fail(why, ERR_UNREACHABLE, PQerrorMessage(l->conn));
    if (err) {
        pg_link_close(l);
        return err;
    }
    *out = l;
    return ERR_OK;
}

void pg_link_close(struct pg_link *l) {
    if (!l)
        return;
    PQfinish(l->conn);
    free(l);
}

/* -- asking -- */

/* Sends what is still in the library's buffer. */
static int flush(PGconn *conn, uint64_t deadline) {
    int left;
    while ((left = PQflush(conn)) == 1) {
        short ready = 0;
        int err = wait_for(conn, POLLIN | POLLOUT, deadline, &ready);
        if (err)
            return err;
        if ((ready & POLLIN) && !PQconsumeInput(conn))
            return ERR_CLOSED;
    }
    return left == 0 ? ERR_OK : ERR_CLOSED;
}

/* The next result; NULL in *result after the last. */
static int next_result(PGconn *conn, uint64_t deadline, PGresult **result) {
    *result = NULL;
    while (PQisBusy(conn)) {
        int err = wait_for(conn, POLLIN, deadline, NULL);
        if (err)
            return err == ERR_IO ? ERR_CLOSED : err;
        if (!PQconsumeInput(conn))
            return ERR_CLOSED;
    }
    *result = PQgetResult(conn);
    return ERR_OK;
}

static void give_row(const PGresult *r, pg_row_cb cb, void *arg) {
    struct span columns[COLUMNS_MAX];
    int count = PQnfields(r) < COLUMNS_MAX ? PQnfields(r) : COLUMNS_MAX;
    for (int i = 0; i < count; i++) {
        columns[i] = PQgetisnull(r, 0, i) ? SPAN_EMPTY : span_make(PQgetvalue(r, 0, i), (size_t)PQgetlength(r, 0, i));
    }
    cb(arg, columns, (size_t)count);
}

/* The server said no: is the link still good? Class 57P: it is going down; 08: the connection. */
static int err_of_refusal(PGconn *conn, const PGresult *r) {
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    if (PQstatus(conn) == CONNECTION_BAD || !state || strncmp(state, "57P", 3) == 0 || strncmp(state, "08", 2) == 0)
        return ERR_CLOSED;
    return strcmp(state, "57014") == 0 ? ERR_TIMEOUT : ERR_INVALID;
}

struct reading {
    PGconn *conn;
    pg_row_cb cb;
    void *arg;
    size_t rows;
    struct buf *why;
};

static int take_result(struct reading *q, PGresult *r) {
    int err = ERR_OK;
    switch (PQresultStatus(r)) {
    case PGRES_SINGLE_TUPLE:
        if (q->rows == ROWS_MAX)
            err = fail(q->why, ERR_FULL, "more than 1000 rows");
        else
            give_row(r, q->cb, q->arg);
        q->rows++;
        break;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        err = fail(q->why, ERR_CLOSED, "a COPY is not a question");
        break;
    default:
        err = fail(q->why, err_of_refusal(q->conn, r), PQresultErrorMessage(r));
    }
    return err;
}

/* Takes all results; the first failure is kept, and what can be read is read, so that the link stays usable. */
static int read_results(struct reading *q, uint64_t deadline) {
    int err = ERR_OK;
    for (;;) {
        PGresult *r;
        int bad = next_result(q->conn, deadline, &r);
        if (bad)
            return fail(err ? NULL : q->why, bad, bad == ERR_TIMEOUT ? "no answer in time" : PQerrorMessage(q->conn));
        if (!r)
            return err;
        if (!err)
            err = take_result(q, r);
        PQclear(r);
        if (err == ERR_CLOSED)
            return err;
    }
}

/* A parameter that the query does not use has no type that the server could find out. */
static Oid type_of(const char *query, size_t i) {
    char name[8];
    snprintf(name, sizeof name, "$%zu", i + 1);
    return strstr(query, name) ? 0 : TEXT_OID;
}

static int send_query(PGconn *conn, const char *query, const struct span *params, size_t count) {
    char *values[PARAMS_MAX] = {0};
    Oid types[PARAMS_MAX] = {0};
    int err = ERR_OK;
    CHECK(count <= PARAMS_MAX);
    for (size_t i = 0; i < count && !err; i++) {
        if (!params[i].at && !params[i].len)
            values[i] = strdup("");
        else
            values[i] = strndup(params[i].at, params[i].len);
        err = values[i] ? ERR_OK : ERR_NOMEM;
        types[i] = type_of(query, i);
    }
    if (!err && !PQsendQueryParams(conn, query, (int)count, types, (const char *const *)values, NULL, NULL, 0))
        err = ERR_CLOSED;
    if (!err)
        (void)PQsetSingleRowMode(conn);
    for (size_t i = 0; i < count; i++)
        free(values[i]);
    return err;
}

int pg_link_query(struct pg_link *l, const char *query, const struct span *params, size_t count, pg_row_cb cb,
                  void *arg, uint64_t timeout_ms, struct buf *why) {
    uint64_t deadline = clock_mono_ms() + timeout_ms;
    struct reading q = {.conn = l->conn, .cb = cb, .arg = arg, .why = why};
    for (size_t i = 0; i < count; i++) {
        if (span_find(params[i], '\0') >= 0)
            return fail(why, ERR_INVALID, "a NUL octet in the question");
    }
    int err = send_query(l->conn, query, params, count);
    if (!err)
        err = flush(l->conn, deadline);
    if (err == ERR_IO)
        err = ERR_CLOSED;
    if (err)
        return fail(why, err,
                    err == ERR_TIMEOUT ? "no answer in time"
                    : err == ERR_NOMEM ? "no memory"
                                       : PQerrorMessage(l->conn));
    return read_results(&q, deadline);
}
