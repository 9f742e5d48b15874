/*
 * directory_kind: which backend stands behind which kind of directory. Apart from the engine, which knows none of them.
 */
#include "gateway/directory/backend.h"

int directory_new(struct directory **d, const struct directory_config *c, struct buf *problems) {
    static const backend_maker makers[] = {
        [DIRECTORY_LDAP] = backend_ldap_new,
        [DIRECTORY_POSTGRES] = backend_postgres_new,
        [DIRECTORY_HTTP] = backend_http_new,
        [DIRECTORY_CALLOUT] = backend_callout_new,
    };
    return directory_new_with(d, c, makers[c->kind], problems);
}
