/*
 * reload: SIGHUP and changed tables. The reading is done on a helper thread; the new settings replace the old ones as
 * a whole or not at all.
 */
#ifndef NODE_RELOAD_H
#define NODE_RELOAD_H

#include "base/net/loop.h"
#include "node/settings.h"

struct reload;
/* What the node does with what was read. settings is NULL when only tables have changed. Takes both. */
typedef void (*reload_cb)(void *arg, struct settings *settings, struct recipients *recipients);
struct reload *reload_new(struct loop *l, const char *file, struct recipients *current, reload_cb cb,
                          void *arg) MUST_CHECK;
/* Reads the settings file and all tables again. A request during a reading is done after it. */
void reload_all(struct reload *r);
/* Also called by the watches on the table files. */
void reload_tables(struct reload *r);
bool reload_is_busy(const struct reload *r);
/* No callback comes after it. A reading that is under way ends with the loop (loop_free), and frees the rest then. */
void reload_free(struct reload *r);

#endif
