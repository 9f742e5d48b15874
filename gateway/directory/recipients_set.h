/*
 * recipients_set: the inside of a set of own domains, tables and directories, shared by recipients.c, which makes
 * sets, recipients_reload.c, which renews them, and recipients_judge.c and recipients_lookup.c, which read them.
 * Immutable once made.
 */
#ifndef GATEWAY_DIRECTORY_RECIPIENTS_SET_H
#define GATEWAY_DIRECTORY_RECIPIENTS_SET_H

#include <stdatomic.h>

#include "base/map.h"

#include "gateway/directory/cdb.h"
#include "gateway/directory/recipients.h"
#include "gateway/directory/table.h"

struct recipients_asked {
    enum recipients_directory kind;
    const char *path;            /* of the table or CDB file, or NULL */
    struct table *table;         /* borrowed from the set, each for its kind */
    struct cdb_table *cdb;       /* */
    struct directory *directory; /* */
};
struct recipients_domain {
    struct map_node node;
    struct span name;                 /* canonical */
    struct recipients_asked *sources; /* in order; at most one RECIPIENTS_ANY, the last */
    size_t count;
    struct span tag;     /* octets that begin a tag */
    bool case_sensitive; /* for directories */
    bool cut;            /* sources behind RECIPIENTS_ANY were left out */
};
struct recipients {
    atomic_uint refs;
    struct arena mem;
    struct map map; /* of domains, by name */
    struct recipients_domain *domains;
    size_t count;
    size_t source_count;   /* of all domains */
    struct table **tables; /* one for each file; a reference each, as of those below */
    size_t table_count;
    struct cdb_table **cdbs;
    size_t cdb_count;
    struct directory **directories;
    size_t directory_count;
    struct address postmaster;
    struct srs_config srs; /* with its texts; domain NULL: none */
    struct batv *batv;     /* a reference, or NULL */
};

/* The own domain of this canonical name, or NULL. */
const struct recipients_domain *recipients_domain_of(const struct recipients *r, struct span name);

/* -- making, for recipients.c and recipients_reload.c -- */

/* An empty set with room for so many domains and sources. NULL: no memory. */
struct recipients *recipients_set_new(size_t domains, size_t sources);
/* Adds a domain; its texts are copied, directories get a reference of the set. ERR_EXISTS, ERR_NOMEM. */
int recipients_set_add(struct recipients *r, const struct recipients_domain *d) MUST_CHECK;
/* ERR_NOMEM. */
int recipients_set_srs(struct recipients *r, const struct srs_config *c) MUST_CHECK;
/* Where the files of a set come from; NULL: it cannot be had. */
struct recipients_files {
    struct table *(*table)(void *arg, const char *path, const struct span *names, size_t count);
    struct cdb_table *(*cdb)(void *arg, const char *path);
    void *arg;
};
/* Asks for each file of the set once. ERR_INVALID: one or more could not be had. */
int recipients_set_open(struct recipients *r, const struct recipients_files *from) MUST_CHECK;

#endif
