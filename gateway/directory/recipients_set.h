/*
 * recipients_set: the inside of a set of own domains and tables, shared by recipients.c, which makes
 * sets, and recipients_judge.c, which reads them. Immutable once made.
 */
#ifndef GATEWAY_DIRECTORY_RECIPIENTS_SET_H
#define GATEWAY_DIRECTORY_RECIPIENTS_SET_H

#include <stdatomic.h>

#include "base/map.h"

#include "gateway/directory/recipients.h"
#include "gateway/directory/table.h"

struct recipients_domain {
    struct map_node node;
    struct span name; /* canonical */
    enum recipients_directory directory;
    const char *path;    /* of the table file, or NULL */
    struct table *table; /* borrowed from tables, or NULL */
};
struct recipients {
    atomic_uint refs;
    struct arena mem;
    struct map map; /* of domains, by name */
    struct recipients_domain *domains;
    size_t count;
    struct table **tables; /* one for each file; a reference each */
    size_t table_count;
    struct address postmaster;
};

/* The own domain of this canonical name, or NULL. */
const struct recipients_domain *recipients_domain_of(const struct recipients *r, struct span name);

#endif
