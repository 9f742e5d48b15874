/*
 * table: the text file of the recipients of one or several domains (docs/recipients.md has the
 * grammar): mailboxes, aliases, forwards with and without a copy, catch-alls.
 *
 * A loaded table is the file's bytes in one block and an open-addressing hash of line offsets, 8 bytes a
 * slot; a look-up reads the line that it finds. A table is immutable and reference-counted, so many
 * threads read one while the next is loaded. A file with one bad line is not loaded at all.
 */
#ifndef GATEWAY_INBOUND_TABLE_H
#define GATEWAY_INBOUND_TABLE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define TABLE_FILE_MAX 0xfffffff0u /* octets; offsets are 32 bits */
#define TABLE_TARGETS_MAX 1000     /* of one line */
#define TABLE_PROBLEMS_MAX 20      /* named; further ones are counted */

enum table_kind {
    TABLE_MAILBOX,      /* "user" */
    TABLE_ALIAS,        /* "user: a, b" */
    TABLE_FORWARD,      /* "user > a, b": no copy is kept */
    TABLE_FORWARD_KEEP, /* "user >> a, b": a copy is kept */
};
struct table_entry {
    enum table_kind kind;
    bool catch_all;      /* found by "@domain" */
    bool tagged;         /* "user+tag" was found as "user" */
    struct span targets; /* for table_next_target */
    size_t offset;       /* of the line, for table_line */
};

struct table;
/* Reads the file; domains are the canonical names of the domains that it serves (copied), at least one. Blocking.
 * problems gets "file:line: what" for each problem. ERR_INVALID: bad lines; ERR_NOT_FOUND, ERR_DENIED (not allowed, not
 * a regular file, writable by everyone), ERR_RANGE (too large), ERR_AGAIN (changed while it was read), ERR_IO,
 * ERR_NOMEM. */
int table_load(struct table **t, const char *path, const struct span *domains, size_t count,
               struct buf *problems) MUST_CHECK;
struct table *table_ref(struct table *t);
void table_unref(struct table *t);
/* The entry for a local part (quoting removed, any case) in a canonical domain: the full address, the name in any
 * domain of the table, the same without "+tag", the catch-all; in this order. False: unknown. */
bool table_find(const struct table *t, struct span key, struct span domain, struct table_entry *e);
/* Takes the next target off *targets: "user" or "user@domain" as written. False: none left. */
bool table_next_target(struct span *targets, struct span *target);
/* Whether the target names its own domain. */
bool table_target_has_domain(struct span target);
/* Whether the file is no longer the one that was read (replaced, written to, gone). Asks the file system. */
bool table_is_stale(const struct table *t);
const char *table_path(const struct table *t);
size_t table_count(const struct table *t);  /* entries */
size_t table_memory(const struct table *t); /* bytes, text included */
/* Number of the entry's line, from 1; counts lines, so only for people. */
size_t table_line(const struct table *t, const struct table_entry *e);

#endif
