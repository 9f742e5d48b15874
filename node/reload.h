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
/* Reads the settings file and all tables again. A request during a reading is done after it. */
void reload_all(struct reload *r);
/* Also called by the watches on the files. */
void reload_files(struct reload *r);
/* Each line to the log, as an error or a warning. */
void reload_log_problems(const struct buf *problems);
bool reload_is_busy(const struct reload *r);
/* No callback comes after it. A reading that is under way ends with the loop (loop_free), and frees the rest then. */
void reload_free(struct reload *r);

#endif
