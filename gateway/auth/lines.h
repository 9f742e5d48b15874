/*
 * lines: the two files of auth (passwords, sender_login): read at once with a maximum, cut into "name: rest" lines,
 * with problems told as "file:line: what", and a stamp that tells whether the file has changed since.
 */
#ifndef GATEWAY_AUTH_LINES_H
#define GATEWAY_AUTH_LINES_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct lines {
    char *path, *text; /* the names and texts of lines lie in text */
    size_t len, at, line;
    size_t problem_count;
    struct buf *problems;
    struct stat stamp;
};
/* secret: the file must not be readable by others (mode). problems is kept for lines_problem. ERR_NOT_FOUND,
 * ERR_DENIED, ERR_FULL (too big), ERR_IO, ERR_NOMEM; each has its problem line. */
int lines_open(struct lines *l, const char *path, bool secret, struct buf *problems) MUST_CHECK;
void lines_close(struct lines *l); /* wipes */
/* The next line that is no comment and not empty; both parts trimmed. A line without ':' is a problem and passed over.
 * False: no more. */
bool lines_next(struct lines *l, struct span *name, struct span *rest);
/* "file:line: what"; after 20 they are only counted. */
void lines_problem(struct lines *l, const char *what, struct span detail);
bool lines_is_stale(const struct lines *l);

#endif
