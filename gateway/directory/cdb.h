/*
 * cdb: the door to tinycdb: a recipient table compiled into one constant file that is mapped, not loaded: tens of
 * millions of recipients at the cost of the pages that are touched. Made by `posthouse table build TEXT CDB`.
 *
 * The grammar and the order of look-ups are those of table.h; but the file does not know which domains will use it, so
 * "user" and "user@domain" are two entries here also where there is one domain. The file is replaced by rename, never
 * changed in place.
 */
#ifndef GATEWAY_DIRECTORY_CDB_H
#define GATEWAY_DIRECTORY_CDB_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "gateway/directory/table.h"

struct cdb_table;
/* Checks the trailer, the head and the tables' bounds (cdb_format.h); ERR_CORRUPT, ERR_NOT_FOUND, ERR_DENIED,
 * ERR_VERSION, ERR_IO, ERR_NOMEM. problems: "FILE: what". */
int cdb_table_open(struct cdb_table **t, const char *path, struct buf *problems) MUST_CHECK;
struct cdb_table *cdb_table_ref(struct cdb_table *t);
void cdb_table_unref(struct cdb_table *t);
/* As table_find. Thread-safe. ERR_OK found, ERR_NOT_FOUND, ERR_CORRUPT (451 for the client). e->targets lies in the
 * map, e->offset is the number of the line in the text. */
int cdb_table_find(const struct cdb_table *t, struct span key, struct span domain, struct table_entry *e) MUST_CHECK;
bool cdb_table_is_stale(const struct cdb_table *t);
const char *cdb_table_path(const struct cdb_table *t);
uint64_t cdb_table_count(const struct cdb_table *t);
/* Compiles a text table (grammar of docs/recipients.md; all bad lines are named in problems, then nothing is made;
 * ERR_INVALID). A line has at most 1 MiB, the file at most 4 GiB (ERR_RANGE); ERR_AGAIN: the text changed; others as
 * table_load, ERR_NO_SPACE. The file appears by rename with mode 0644. Memory does not grow with the text by more than
 * the line index that finds duplicates. */
int cdb_table_build(const char *text, const char *cdb, uint64_t *count, struct buf *problems) MUST_CHECK;

#endif
