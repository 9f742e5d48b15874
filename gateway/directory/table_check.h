/*
 * table_check: judges the parts of a line of a recipients table: is the name a good one, are the targets? Inner to
 * table.c, which loads tables, and cdb_build.c, which compiles them, so that both refuse the same lines.
 */
#ifndef GATEWAY_DIRECTORY_TABLE_CHECK_H
#define GATEWAY_DIRECTORY_TABLE_CHECK_H

#include "base/arena.h"

#include "gateway/directory/table_line.h"
#include "gateway/smtp/address.h"

#define TABLE_SCRATCH_MAX (64 * 1024)

struct table_check {
    void (*problem)(void *arg, const char *what, struct span subject);
    void *arg;
    struct arena *scratch; /* reset after every target */
};
/* The key of a local part that is not plain, in to; false: no good local part. */
bool table_unquote(struct span local, char to[ADDRESS_LOCAL_MAX], struct span *key, bool *indirect, struct arena *mem);
/* The key of the line's name (empty for a catch-all); memory holds it where it was quoted. */
bool table_check_key(struct table_check *c, const struct table_line *line, char memory[ADDRESS_LOCAL_MAX],
                     struct span *key);
/* own: the one domain that the name surely stands in, or empty. A target that is the name itself is a loop. */
void table_check_targets(struct table_check *c, struct span targets, struct span key, struct span own, bool catch_all);

#endif
