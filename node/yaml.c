/*
 * yaml: see yaml.h. libyaml's document is copied into our own small tree, so that nothing else knows the library.
 */
#include "node/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <yaml.h>

struct reading {
    const char *file;
    yaml_document_t document;
    struct arena *mem;
    struct buf *problems;
    bool *seen; /* by number of the library's nodes: a second visit means an alias */
    int err;
};

static void complain(struct reading *r, size_t line, const char *what) {
    buf_printf(r->problems, "%s:%zu: %s\n", r->file, line + 1, what);
    if (r->err == ERR_OK)
        r->err = ERR_INVALID;
}

static void complain_key(struct reading *r, size_t line, struct span key, const char *what) {
    buf_printf(r->problems, "%s:%zu: ", r->file, line + 1);
    buf_add_escaped(r->problems, span_first(key, 100));
    buf_printf(r->problems, ": %s\n", what);
    if (r->err == ERR_OK)
        r->err = ERR_INVALID;
}

static struct yaml *copy_node(struct reading *r, int index, int depth);

static struct yaml *new_node(struct reading *r, enum yaml_kind kind, size_t line) {
    struct yaml *y = arena_calloc(r->mem, 1, sizeof *y);
    if (!y) {
        r->err = ERR_NOMEM;
        return NULL;
    }
    y->kind = kind;
    y->line = (unsigned)line + 1;
    return y;
}

static bool has_key(const struct yaml *map, struct span key) {
    for (const struct yaml *c = map->first; c; c = c->next)
        if (span_eq(c->key, key))
            return true;
    return false;
}

static void copy_pairs(struct reading *r, struct yaml *map, const yaml_node_t *n, int depth) {
    struct yaml **end = &map->first;
    if (n->data.mapping.pairs.top - n->data.mapping.pairs.start > YAML_KEYS_MAX) {
        complain(r, n->start_mark.line, "too many keys in one map");
        return;
    }
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = yaml_document_get_node(&r->document, p->key);
        if (k->type != YAML_SCALAR_NODE) {
            complain(r, k->start_mark.line, "a key must be a plain word");
            continue;
        }
        struct span key = arena_dup(r->mem, span_make(k->data.scalar.value, k->data.scalar.length));
        if (!key.at) {
            r->err = ERR_NOMEM;
            return;
        }
        if (has_key(map, key)) {
            complain_key(r, k->start_mark.line, key, "the same key twice");
            continue;
        }
        struct yaml *child = copy_node(r, p->value, depth + 1);
        if (!child)
            continue;
        child->key = key;
        child->line = (unsigned)k->start_mark.line + 1;
        *end = child;
        end = &child->next;
    }
}

static void copy_items(struct reading *r, struct yaml *list, const yaml_node_t *n, int depth) {
    struct yaml **end = &list->first;
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        struct yaml *child = copy_node(r, *i, depth + 1);
        if (!child)
            continue;
        *end = child;
        end = &child->next;
    }
}

static bool has_own_tag(const yaml_node_t *n) {
    static const char usual[] = "tag:yaml.org,2002:"; /* those that the library gives where none is written */
    return n->tag && strncmp((const char *)n->tag, usual, sizeof usual - 1) != 0;
}

static struct yaml *copy_node(struct reading *r, int index, int depth) {
    const yaml_node_t *n = yaml_document_get_node(&r->document, index);
    if (r->seen[index]) {
        complain(r, n->start_mark.line, "anchors and aliases are not taken");
        return NULL;
    }
    r->seen[index] = true;
    if (has_own_tag(n)) {
        complain(r, n->start_mark.line, "tags are not taken");
        return NULL;
    }
    if (depth > YAML_DEPTH_MAX) {
        complain(r, n->start_mark.line, "nested too deep");
        return NULL;
    }
    enum yaml_kind kind = n->type == YAML_SCALAR_NODE     ? YAML_SCALAR
                          : n->type == YAML_SEQUENCE_NODE ? YAML_LIST
                                                          : YAML_MAP;
    struct yaml *y = new_node(r, kind, n->start_mark.line);
    if (!y)
        return NULL;
    if (kind == YAML_SCALAR) {
        y->text = arena_dup(r->mem, span_make(n->data.scalar.value, n->data.scalar.length));
        if (!y->text.at) {
            r->err = ERR_NOMEM;
            return NULL;
        }
        y->quoted = n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        if (memchr(y->text.at, 0, y->text.len))
            complain(r, n->start_mark.line, "a value holds a NUL");
    } else if (kind == YAML_LIST) {
        copy_items(r, y, n, depth);
    } else {
        copy_pairs(r, y, n, depth);
    }
    return y;
}

static struct yaml *copy_root(struct reading *r) {
    if (!yaml_document_get_root_node(&r->document))
        return new_node(r, YAML_MAP, 0);
    r->seen = calloc((size_t)(r->document.nodes.top - r->document.nodes.start) + 1, sizeof *r->seen);
    if (!r->seen) {
        r->err = ERR_NOMEM;
        return NULL;
    }
    struct yaml *root = copy_node(r, 1, 0);
    free(r->seen);
    if (root && root->kind == YAML_SCALAR && root->text.len == 0)
        root->kind = YAML_MAP;
    if (root && root->kind != YAML_MAP)
        complain(r, root->line - 1, "the file must be a map of sections");
    return root;
}

static bool next_document(struct reading *r, yaml_parser_t *parser) {
    char what[256];
    if (yaml_parser_load(parser, &r->document))
        return true;
    snprintf(what, sizeof what, "not YAML: %s", parser->problem ? parser->problem : "unreadable");
    complain(r, parser->problem_mark.line, what);
    return false;
}

static void parse(struct reading *r, FILE *f, struct yaml **root) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        r->err = ERR_NOMEM;
        return;
    }
    yaml_parser_set_input_file(&parser, f);
    if (next_document(r, &parser)) {
        bool empty = !yaml_document_get_root_node(&r->document);
        *root = copy_root(r);
        yaml_document_delete(&r->document);
        if (!empty && next_document(r, &parser)) {
            const yaml_node_t *second = yaml_document_get_root_node(&r->document);
            if (second)
                complain(r, second->start_mark.line, "a second document is not taken");
            yaml_document_delete(&r->document);
        }
    }
    yaml_parser_delete(&parser);
}

/* A regular file of bounded size; a FIFO in its place must not hold us up. NULL: told in problems. */
static FILE *open_file(struct reading *r) {
    struct stat st;
    int fd = open(r->file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    FILE *f = NULL;
    if (fd < 0 || fstat(fd, &st) != 0) {
        r->err = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
        buf_printf(r->problems, "%s: %s\n", r->file, strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size > (off_t)YAML_FILE_MAX) {
        r->err = S_ISREG(st.st_mode) ? ERR_FULL : ERR_IO;
        buf_printf(r->problems, "%s: not a regular file of at most %u octets\n", r->file, YAML_FILE_MAX);
    } else {
        f = fdopen(fd, "rb");
        if (!f)
            r->err = ERR_NOMEM;
    }
    if (!f && fd >= 0)
        close(fd);
    return f;
}

int yaml_load(struct yaml **root, const char *file, struct arena *mem, struct buf *problems) {
    struct reading r = {.file = file, .mem = mem, .problems = problems};
    *root = NULL;
    FILE *f = open_file(&r);
    if (f) {
        parse(&r, f, root);
        fclose(f);
    }
    if (r.err == ERR_NOMEM)
        buf_printf(problems, "%s: %s\n", file, err_text(ERR_NOMEM));
    return r.err;
}
