/*
 * reload: SIGHUP, and changed tables, certificates, password files and keys. The reading is done on a helper thread;
 * the new settings replace the old ones as a whole or not at all.
 */
#ifndef NODE_RELOAD_H
#define NODE_RELOAD_H

#include "base/net/loop.h"
#include "node/parts.h"

struct reload;
/* What the node does with what was read. settings is NULL when only files that they name have changed. Takes both. */
typedef void (*reload_cb)(void *arg, struct settings *settings, struct parts *parts);
/* settings: those in force, borrowed; those given to cb later are in force then. */
struct reload *reload_new(struct loop *l, const struct settings *settings, struct parts *current, reload_cb cb,
                          void *arg) MUST_CHECK;
/* Reads the settings file and all tables again. A request during a reading is done after it. Returns the number of the
 * reading that serves this request, for reload_tell; 0: it could not be begun. */
uint64_t reload_all(struct reload *r);
/* Who is told how each reading of all ended: ERR_OK, or why the old settings stay; problems has its lines, also
 * warnings. One for each reload; NULL: nobody. */
typedef void (*reload_told_cb)(void *arg, uint64_t reading, int err, const struct buf *problems);
void reload_tell(struct reload *r, reload_told_cb told);
/* Also called by the watches on the files. */
void reload_files(struct reload *r);
/* Each line to the log, as an error or a warning. */
void reload_log_problems(const struct buf *problems);
bool reload_is_busy(const struct reload *r);
/* No callback comes after it. A reading that is under way ends with the loop (loop_free), and frees the rest then. */
void reload_free(struct reload *r);

#endif
