/*
 * settings_schema: the table of all keys with a single value: name, type, bounds, default and what it is for; and the
 * walk that checks a file against it. Lists (roles, listen, domains, ...) are read by settings_lists.c.
 */
#ifndef NODE_SETTINGS_SCHEMA_H
#define NODE_SETTINGS_SCHEMA_H

#include "base/map.h"
#include "node/settings.h"
#include "node/yaml.h"

/* gateway.listen.tls was not given: OFFERED where there is a certificate, else OFF. */
#define SETTINGS_TLS_UNSAID ((enum inbound_tls)99)

/* One reading of a file: where values and complaints go. */
#define SCHEMA_KEYS_MAX 200
struct settings_reading {
    struct settings *s;
    struct buf *problems;
    struct map domains, routes;      /* what was listed, with its line */
    unsigned lines[SCHEMA_KEYS_MAX]; /* of each key of the table; 0: not in the file */
    bool failed;
};

enum schema_type {
    SCHEMA_TEXT,
    SCHEMA_FILE, /* a path, relative to the settings file; the file must be there */
    SCHEMA_SIZE,
    SCHEMA_DURATION,
    SCHEMA_COUNT,
    SCHEMA_SCORE, /* a number from -1000 to 1000 */
    SCHEMA_BOOL,
    SCHEMA_WORD,
    SCHEMA_CUSTOM,
};
struct schema_key {
    const char *path; /* "gateway.limits.recipients"; in an object its own name: "address" */
    enum schema_type type;
    size_t offset;        /* in struct settings or the object: const char * (TEXT, FILE), uint64_t, uint64_t, uint32_t,
                           * int32_t,        bool, int (WORD) */
    uint64_t min, max;    /* sizes, durations (ms), counts */
    const char *fallback; /* default as written in a file; NULL: none (explained in the text) */
    const char *words;    /* WORD: "off|log|refuse", the numbers from 0 on; CUSTOM: what it takes, for the reference */
    void (*read)(struct settings_reading *r, const struct yaml *y, void *object); /* CUSTOM; object as for offset */
    const char *doc;
};
/* All keys with a single value; ends with a NULL path (settings_keys.c). */
extern const struct schema_key schema_keys[];
/* Known to the design, not to this version: refused by name rather than as a typing error; ends with NULL. */
extern const char *const schema_later[];

/* -- objects: the items of lists, and maps that have their own table -- */

/* Checks the map against its table, which ends with a NULL path, and puts defaults and values into the object. section
 * is for complaints. False after a complaint. */
bool schema_object(struct settings_reading *r, const struct yaml *map, const char *section,
                   const struct schema_key *table, void *object);
/* Each item of a list of maps becomes an object of `size` octets in the arena. *count is set. NULL after a complaint
 * about the list itself. */
void *schema_objects(struct settings_reading *r, const struct yaml *list, const char *section,
                     const struct schema_key *table, size_t size, size_t max, size_t *count);
/* The child of a map by its key, of any kind, or NULL. */
const struct yaml *schema_child(const struct yaml *map, const char *name);
/* Adds the table of an object to the reference (settings_reference.c). */
int schema_object_reference(struct buf *to, const char *title, const struct schema_key *table);
/* A limit as written in a file. */
void schema_format_bounds(const struct schema_key *k, char low[32], char high[32]);

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

/* A list of texts in the arena. NULL after a complaint. */
const char *const *settings_texts(struct settings_reading *r, const struct yaml *y, const char *what, size_t max,
                                  size_t *count);
/* Canonical form of a domain in the arena (dotted: ".example" is fine), or NULL after a complaint. */
const char *settings_domain(struct settings_reading *r, const struct yaml *y, const char *section, bool dotted);
/* The number of items of a list, or SIZE_MAX after a complaint. */
size_t settings_count_items(struct settings_reading *r, const struct yaml *y, const char *what, size_t max);

/* -- settings_lists.c -- */
void settings_read_roles(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_trusted(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_balancers(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_dns(struct settings_reading *r, const struct yaml *y, void *object);
void settings_default_lists(struct settings_reading *r);

/* -- settings_domains.c -- */
void settings_read_domains(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_routes(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_secrets(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_batv_domains(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_batv_secrets(struct settings_reading *r, const struct yaml *y, void *object);
int settings_domains_reference(struct buf *to);
/* Directories get what the whole knows: our name, DNS servers. */
void settings_finish_domains(struct settings *s);

/* -- settings_delivery.c -- */
void settings_read_tls_rules(struct settings_reading *r, const struct yaml *y, void *object);
int settings_delivery_reference(struct buf *to);

/* -- settings_pace.c -- */
void settings_read_rates(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_sources(struct settings_reading *r, const struct yaml *y, void *object);
/* Reads the reply rules. */
void settings_check_pace(struct settings_reading *r);
int settings_pace_reference(struct buf *to);

/* -- settings_reports.c -- */
void settings_read_templates(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_verp(struct settings_reading *r, const struct yaml *y, void *object);
int settings_reports_reference(struct buf *to);

/* -- settings_http.c -- */
void settings_read_users(struct settings_reading *r, const struct yaml *y, void *object);
/* The address, and whether it is wise. */
void settings_check_http(struct settings_reading *r);
int settings_http_reference(struct buf *to);

/* -- settings_hooks.c -- */
void settings_read_hooks(struct settings_reading *r, const struct yaml *y, void *object);
int settings_hooks_reference(struct buf *to);

/* -- settings_gateway.c -- */
/* The first line of the file that y names. */
void settings_read_password(struct settings_reading *r, const struct yaml *y, const char *what, const char **to);
void settings_read_listen(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_certificates(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_backends(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_milters(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_policies(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_dnslists(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_keys(struct settings_reading *r, const struct yaml *y, void *object);
int settings_gateway_reference(struct buf *to);
/* What depends on several keys: TLS and AUTH of listeners, and what they need. */
void settings_check_gateway(struct settings_reading *r);

/* A path, relative to the settings file, that must be there. */
void schema_read_file(struct settings_reading *r, const struct yaml *y, const char *path, const char **to);

/* -- settings_admin.c -- */
void settings_default_admin(struct settings *s);
void settings_read_rpc(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_node_key(struct settings_reading *r, const struct yaml *y, void *object);
void settings_read_admin_keys(struct settings_reading *r, const struct yaml *y, void *object);
void settings_check_admin(struct settings_reading *r);
int settings_admin_reference(struct buf *to);

#endif
