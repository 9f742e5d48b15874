/*
 * pg: the door to libpq, blocking with deadlines: for threads of a pool, never for a loop.
 */
#ifndef BASE_NET_PG_H
#define BASE_NET_PG_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct pg_link; /* one connection; belongs to one thread */
/* uri: a libpq connection string. why: one clean line on failure, without the password. ERR_UNREACHABLE, ERR_TIMEOUT,
 * ERR_DENIED, ERR_INVALID, ERR_NOMEM. */
int pg_link_open(struct pg_link **l, const char *uri, uint64_t timeout_ms, struct buf *why) MUST_CHECK;
void pg_link_close(struct pg_link *l);
/* One query with text parameters ($1, ...), at most 1000 rows. columns[i].at NULL: SQL NULL. ERR_INVALID: the server
 * refused the query (the link stays good); ERR_FULL: more rows; ERR_CLOSED, ERR_TIMEOUT: the link is to be closed.
 * Parameters with NUL give ERR_INVALID. */
typedef void (*pg_row_cb)(void *arg, const struct span *columns, size_t count);
int pg_link_query(struct pg_link *l, const char *query, const struct span *params, size_t count, pg_row_cb cb,
                  void *arg, uint64_t timeout_ms, struct buf *why) MUST_CHECK;

#endif
