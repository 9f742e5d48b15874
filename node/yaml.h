/*
 * yaml: the door to libyaml: a file as a tree of maps, lists and scalars in which every node knows its line.
 *
 * Only what settings need: one document, no anchors, no tags, no duplicate keys; bounded in size and depth. A
 * value stands once where it counts, so that the line of an error is the line to change.
 */
#ifndef NODE_YAML_H
#define NODE_YAML_H

#include "base/arena.h"
#include "base/buf.h"

#define YAML_FILE_MAX (4u * 1024u * 1024u)
#define YAML_DEPTH_MAX 16
#define YAML_KEYS_MAX 1000 /* of one map; lists may be longer */

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };
struct yaml {
    enum yaml_kind kind;
    unsigned line;    /* from 1 */
    struct span key;  /* of a child of a map */
    struct span text; /* of a scalar; NUL-terminated in the arena */
    bool quoted;
    struct yaml *first, *next; /* children; siblings */
};

/* Reads a file. problems gets "file:line: what" for each error. ERR_INVALID; ERR_NOT_FOUND, ERR_IO, ERR_FULL,
 * ERR_NOMEM. An empty file is an empty map. */
int yaml_load(struct yaml **root, const char *file, struct arena *mem, struct buf *problems) MUST_CHECK;

#endif
