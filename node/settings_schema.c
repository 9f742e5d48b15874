/*
 * settings_schema: see settings_schema.h. Reads one value against its row, and walks maps against their tables.
 */
#include "node/settings_schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/units.h"

enum { SCORE_MAX = 1000 };

/* -- one value -- */

static int find_word(const char *words, struct span text) {
    struct span rest = span_of(words);
    for (int n = 0; rest.len; n++)
        if (span_eq(span_cut(rest, '|', &rest), text))
            return n;
    return -1;
}

void schema_format_bounds(const struct schema_key *k, char low[32], char high[32]) {
    if (k->type == SCHEMA_DURATION) {
        units_format_duration(k->min, low, 32);
        units_format_duration(k->max, high, 32);
    } else if (k->type == SCHEMA_SIZE) {
        units_format_size(k->min, low, 32);
        units_format_size(k->max, high, 32);
    } else {
        snprintf(low, 32, "%" PRIu64, k->min);
        snprintf(high, 32, "%" PRIu64, k->max);
    }
}

static void bounded(struct settings_reading *r, const struct yaml *y, const struct schema_key *k, const char *path,
                    void *at, uint64_t value, bool wide) {
    if (value >= k->min && value <= k->max) {
        if (wide)
            *(uint64_t *)at = value;
        else
            *(uint32_t *)at = (uint32_t)value;
        return;
    }
    char low[32], high[32];
    schema_format_bounds(k, low, high);
    settings_complain(r, y, "%s: out of range, from %s to %s", path, low, high);
}

static void read_text(struct settings_reading *r, const struct yaml *y, const struct schema_key *k, const char *path,
                      void *at) {
    if (y->text.len < k->min || y->text.len > k->max)
        settings_complain(r, y, "%s: takes %" PRIu64 " to %" PRIu64 " characters", path, k->min, k->max);
    else
        *(const char **)at = y->text.at;
}

/* Relative to the settings file; what cannot be found is told now and not at night. */
void schema_read_file(struct settings_reading *r, const struct yaml *y, const char *path, const char **to) {
    const char *file = y->text.at, *slash = strrchr(r->s->file, '/');
    struct stat st;
    if (y->text.len == 0) {
        settings_complain(r, y, "%s: takes a path", path);
        return;
    }
    if (file[0] != '/' && slash)
        file = arena_printf(&r->s->mem, "%.*s/%s", (int)(slash - r->s->file), r->s->file, file);
    if (!file)
        settings_complain(r, y, "%s: %s", path, err_text(ERR_NOMEM));
    else if (stat(file, &st) != 0)
        settings_complain(r, y, "%s: %s: %s", path, file, strerror(errno));
    *to = file;
}

static void read_score(struct settings_reading *r, const struct yaml *y, const char *path, void *at) {
    bool minus = y->text.len && y->text.at[0] == '-';
    uint64_t n;
    if (!span_u64(span_from(y->text, minus), &n) || n > SCORE_MAX)
        settings_complain(r, y, "%s: takes a number from -%d to %d", path, SCORE_MAX, SCORE_MAX);
    else
        *(int32_t *)at = minus ? -(int32_t)n : (int32_t)n;
}

static void read_value(struct settings_reading *r, const struct yaml *y, const struct schema_key *k, const char *path,
                       void *base) {
    uint64_t value;
    void *at = (char *)base + k->offset;
    if (k->type == SCHEMA_CUSTOM) {
        k->read(r, y, base);
        return;
    }
    if (y->kind != YAML_SCALAR) {
        settings_complain(r, y, "%s: takes one value", path);
        return;
    }
    switch (k->type) {
    case SCHEMA_TEXT:
        read_text(r, y, k, path, at);
        return;
    case SCHEMA_FILE:
        schema_read_file(r, y, path, at);
        return;
    case SCHEMA_SIZE:
        if (units_size(y->text, &value) == ERR_OK)
            bounded(r, y, k, path, at, value, true);
        else
            settings_complain(r, y, "%s: takes a size such as 64KiB or 50MiB", path);
        return;
    case SCHEMA_DURATION:
        if (units_duration(y->text, &value) == ERR_OK)
            bounded(r, y, k, path, at, value, true);
        else
            settings_complain(r, y, "%s: takes a duration such as 30s, 5m or 4h", path);
        return;
    case SCHEMA_COUNT:
        if (span_u64(y->text, &value))
            bounded(r, y, k, path, at, value, false);
        else
            settings_complain(r, y, "%s: takes a whole number", path);
        return;
    case SCHEMA_SCORE:
        read_score(r, y, path, at);
        return;
    case SCHEMA_BOOL:
        if (span_eq(y->text, SPAN("true")) || span_eq(y->text, SPAN("false")))
            *(bool *)at = y->text.at[0] == 't';
        else
            settings_complain(r, y, "%s: takes true or false", path);
        return;
    default: {
        int n = find_word(k->words, y->text);
        if (n >= 0)
            memcpy(at, &n, sizeof n);
        else
            settings_complain(r, y, "%s: takes one of %s", path, k->words);
    }
    }
}

/* The value as it is when the file says nothing. */
static void read_default(struct settings_reading *r, const struct schema_key *k, void *base) {
    struct yaml y = {.kind = YAML_SCALAR, .text = span_of(k->fallback)};
    if (k->fallback && k->type != SCHEMA_CUSTOM)
        read_value(r, &y, k, k->path, base);
}

void schema_defaults(struct settings_reading *r) {
    for (const struct schema_key *k = schema_keys; k->path; k++)
        read_default(r, k, r->s);
    settings_default_lists(r);
}

/* -- objects -- */

const struct yaml *schema_child(const struct yaml *map, const char *name) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        if (span_eq(c->key, span_of(name)))
            return c;
    }
    return NULL;
}

static void complain_unknown(struct settings_reading *r, const struct yaml *y, const char *section) {
    struct buf name;
    buf_init(&name, 400);
    buf_add_escaped(&name, span_first(y->key, 80));
    settings_complain(r, y, "%s.%s: unknown key", section, buf_cstr(&name));
    buf_deinit(&name);
}

bool schema_object(struct settings_reading *r, const struct yaml *map, const char *section,
                   const struct schema_key *table, void *object) {
    char path[256];
    bool before = r->failed;
    r->failed = false;
    for (const struct schema_key *k = table; k->path; k++)
        read_default(r, k, object);
    if (map->kind != YAML_MAP)
        settings_complain(r, map, "%s: takes a map of keys", section);
    for (const struct yaml *y = map->kind == YAML_MAP ? map->first : NULL; y; y = y->next) {
        const struct schema_key *k = table;
        while (k->path && !span_eq(span_of(k->path), y->key))
            k++;
        snprintf(path, sizeof path, "%s.%s", section, k->path ? k->path : "");
        if (k->path)
            read_value(r, y, k, path, object);
        else
            complain_unknown(r, y, section);
    }
    bool fine = !r->failed;
    r->failed |= before;
    return fine;
}

void *schema_objects(struct settings_reading *r, const struct yaml *list, const char *section,
                     const struct schema_key *table, size_t size, size_t max, size_t *count) {
    size_t n = settings_count_items(r, list, section, max), i = 0;
    char *all = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, size);
    *count = 0;
    if (!all)
        return NULL;
    for (const struct yaml *y = list->first; y; y = y->next, i++)
        schema_object(r, y, section, table, all + i * size);
    *count = n;
    return all;
}

/* -- the walk -- */

static bool is_section(const char *path) {
    size_t len = strlen(path);
    for (const struct schema_key *k = schema_keys; k->path; k++)
        if (strncmp(k->path, path, len) == 0 && k->path[len] == '.')
            return true;
    return false;
}

static bool is_later(const char *path) {
    for (size_t i = 0; schema_later[i]; i++)
        if (strcmp(schema_later[i], path) == 0)
            return true;
    return false;
}

static const struct schema_key *find_key(const char *path) {
    for (const struct schema_key *k = schema_keys; k->path; k++)
        if (strcmp(k->path, path) == 0)
            return k;
    return NULL;
}

/* A key may hold anything; what is shown is escaped, and so is what is compared: no key of ours needs it. */
static void path_of(const char *prefix, struct span key, char *to, size_t size) {
    struct buf name;
    buf_init(&name, 400);
    buf_add_escaped(&name, span_first(key, 80));
    snprintf(to, size, "%s%s%s", prefix, *prefix ? "." : "", buf_cstr(&name));
    buf_deinit(&name);
}

unsigned schema_line(const struct settings_reading *r, const char *path) {
    const struct schema_key *k = find_key(path);
    CHECK(k);
    return r->lines[k - schema_keys];
}

void settings_complain_key(struct settings_reading *r, const char *path, const char *format, ...) {
    char what[1024];
    va_list args;
    struct yaml place = {.line = schema_line(r, path)};
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    settings_complain(r, &place, "%s: %s", path, what);
}

static void walk(struct settings_reading *r, const struct yaml *map, const char *prefix) {
    for (const struct yaml *y = map->first; y; y = y->next) {
        char path[512];
        path_of(prefix, y->key, path, sizeof path);
        const struct schema_key *k = find_key(path);
        if (k) {
            r->lines[k - schema_keys] = y->line;
            read_value(r, y, k, k->path, r->s);
        } else if (is_later(path))
            settings_complain(r, y, "%s: not supported by this version", path);
        else if (!is_section(path))
            settings_complain(r, y, "%s: unknown key", path);
        else if (y->kind == YAML_MAP)
            walk(r, y, path);
        else if (y->kind != YAML_SCALAR || y->text.len)
            settings_complain(r, y, "%s: takes a map of keys", path);
    }
}

void schema_read(struct settings_reading *r, const struct yaml *root) {
    walk(r, root, "");
}
