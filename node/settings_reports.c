/*
 * settings_reports: the words of delivery reports (language, templates per domain of the sender), and who wants return
 * paths of their own. A template is checked when it is read: a broken one is refused with its own file and line.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gateway/smtp/address.h"
#include "node/settings_schema.h"

enum { TEMPLATES_MAX = 10000, VERP_MAX = 10000 };

/* The whole file, NUL-terminated in the arena; NULL after a complaint. */
static const char *read_whole(struct settings_reading *r, const struct yaml *y, const char *file) {
    char *text = arena_alloc(&r->s->mem, DSN_TEMPLATE_MAX + 2);
    FILE *f = text ? fopen(file, "re") : NULL;
    size_t len = f ? fread(text, 1, DSN_TEMPLATE_MAX + 1, f) : 0;
    bool fine = f && !ferror(f);
    if (!fine && (!text || errno != ENOENT)) /* that was said when the key was read */
        settings_complain(r, y, "reports.templates.file: %s: %s", file, text ? strerror(errno) : err_text(ERR_NOMEM));
    if (f)
        fclose(f);
    if (!fine)
        return NULL;
    text[len] = '\0';
    if (strlen(text) == len && dsn_template_check(file, span_make(text, len), r->problems) == ERR_OK)
        return text;
    if (strlen(text) != len)
        settings_complain(r, y, "reports.templates.file: %s: a NUL octet", file);
    r->failed = true; /* problems tell */
    return NULL;
}

#define AT(member) offsetof(struct dsn_texts_rule, member)
static const struct schema_key template_keys[] = {
    {"domain", SCHEMA_TEXT, AT(domain), 1, 255, NULL, NULL, NULL,
     "Of the sender: `example.net`, `.example.net` for it and all below it, or `*`."},
    {"language", SCHEMA_WORD, AT(language), 0, 0, "en", "en|de|fr|es", NULL,
     "Of the built-in text, or of the file: advice and what the file lacks are in this language."},
    {"file", SCHEMA_FILE, AT(file), 0, 0, NULL, NULL, NULL,
     "Template; see reports.md. Default: the built-in text of the language."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static bool read_domain(struct settings_reading *r, const char **domain) {
    struct span name = span_of(*domain), out;
    bool below = name.len > 1 && name.at[0] == '.';
    if (span_eq(name, SPAN("*")))
        return true;
    if (address_parse_domain(&out, below ? span_from(name, 1) : name, &r->s->mem) != ERR_OK)
        return false;
    *domain = arena_printf(&r->s->mem, "%s%.*s", below ? "." : "", SPAN_FMT(out));
    return *domain != NULL;
}

void settings_read_templates(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct dsn_texts_config *to = &r->s->scheduler.reports;
    struct dsn_texts_rule *all =
        schema_objects(r, y, "reports.templates", template_keys, sizeof *all, TEMPLATES_MAX, &to->count);
    const struct yaml *c = all ? y->first : NULL;
    for (size_t i = 0; c && i < to->count; i++, c = c->next) {
        if (!all[i].domain)
            settings_complain(r, c, "reports.templates.domain: missing");
        else if (!read_domain(r, &all[i].domain))
            settings_complain(r, c, "reports.templates.domain: not a domain name");
        for (size_t before = 0; all[i].domain && before < i; before++)
            if (all[before].domain && strcmp(all[before].domain, all[i].domain) == 0)
                settings_complain(r, c, "reports.templates.domain: %s stands twice", all[i].domain);
        if (all[i].file)
            all[i].text = read_whole(r, c, all[i].file);
    }
    to->rules = all;
}

void settings_read_verp(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t n = settings_count_items(r, y, "delivery.verp", VERP_MAX), i = 0;
    const char **all = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *all);
    for (const struct yaml *c = all ? y->first : NULL; c; c = c->next) {
        struct address a;
        struct span domain;
        bool scalar = c->kind == YAML_SCALAR;
        if (scalar && span_find(c->text, '@') > 0 && address_parse(&a, c->text, &r->s->mem) == ERR_OK)
            all[i++] = a.text.at;
        else if (scalar && address_parse_domain(&domain, c->text, &r->s->mem) == ERR_OK)
            all[i++] = domain.at;
        else
            settings_complain(r, c, "delivery.verp: takes addresses and domains");
    }
    r->s->scheduler.verp = all;
    r->s->scheduler.verp_count = i;
}

int settings_reports_reference(struct buf *to) {
    return schema_object_reference(to, "## Each of `reports.templates`", template_keys);
}
