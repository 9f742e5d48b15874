/*
 * settings_schema: the table of all keys with a single value: name, type, bounds, default and what it is for; and the
 * walk that checks a file against it. Lists (roles, listen, domains, ...) are read by settings_lists.c.
 */
#ifndef NODE_SETTINGS_SCHEMA_H
#define NODE_SETTINGS_SCHEMA_H

#include "base/map.h"
#include "node/settings.h"
#include "node/yaml.h"

/* One reading of a file: where values and complaints go. */
#define SCHEMA_KEYS_MAX 100
struct settings_reading {
    struct settings *s;
    struct buf *problems;
    struct map domains, routes;      /* what was listed, with its line */
    unsigned lines[SCHEMA_KEYS_MAX]; /* of each key of the table; 0: not in the file */
    bool failed;
};

enum schema_type { SCHEMA_TEXT, SCHEMA_SIZE, SCHEMA_DURATION, SCHEMA_COUNT, SCHEMA_BOOL, SCHEMA_WORD, SCHEMA_CUSTOM };
struct schema_key {
    const char *path; /* "gateway.limits.recipients" */
    enum schema_type type;
    size_t offset;        /* in struct settings: const char *, uint64_t, uint64_t, uint32_t, bool, int (WORD) */
    uint64_t min, max;    /* sizes, durations (ms), counts */
    const char *fallback; /* default as written in a file; NULL: none (explained in the text) */
    const char *words;    /* WORD: "off|log|refuse", the numbers from 0 on; CUSTOM: what it takes, for the reference */
    void (*read)(struct settings_reading *r, const struct yaml *y); /* CUSTOM */
    const char *doc;
};

/* Puts all defaults into r->s. */
void schema_defaults(struct settings_reading *r);
/* Checks the tree and puts its values into r->s; everything wrong is complained of. */
void schema_read(struct settings_reading *r, const struct yaml *root);

/* The line of a key in the file; 0: it is not there. */
unsigned schema_line(const struct settings_reading *r, const char *path);

/* "file:line: key: what" for a place in the file. */
void settings_complain(struct settings_reading *r, const struct yaml *y, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a key of the table, which is named in front; without a line when the value is the default. */
void settings_complain_key(struct settings_reading *r, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* -- settings_lists.c -- */
void settings_read_roles(struct settings_reading *r, const struct yaml *y);
void settings_read_listen(struct settings_reading *r, const struct yaml *y);
void settings_read_trusted(struct settings_reading *r, const struct yaml *y);
void settings_read_domains(struct settings_reading *r, const struct yaml *y);
void settings_read_routes(struct settings_reading *r, const struct yaml *y);
void settings_read_dns(struct settings_reading *r, const struct yaml *y);
void settings_default_lists(struct settings_reading *r);

#endif
