/*
 * settings_delivery: the lists of delivery: domains with TLS demands of their own.
 */
#include <string.h>

#include "node/settings_schema.h"

enum { RULES_MAX = 100000, TEXTS_MAX = 64, FINGERPRINT_LEN = 64 };

static void read_rule_domain(struct settings_reading *r, const struct yaml *y, void *object) {
    struct outbound_tls_rule *rule = object;
    if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("*")))
        rule->domain = "*";
    else if (y->kind == YAML_SCALAR)
        rule->domain = settings_domain(r, y, "delivery.tls.domains.domain", true);
    else
        settings_complain(r, y, "delivery.tls.domains.domain: takes one value");
}

static void read_rule_names(struct settings_reading *r, const struct yaml *y, void *object) {
    struct outbound_tls_rule *rule = object;
    rule->names = settings_texts(r, y, "delivery.tls.domains.names", TEXTS_MAX, &rule->name_count);
}

/* 64 hexadecimal digits, with or without colons. */
static bool is_fingerprint(const char *text) {
    size_t digits = 0;
    for (const char *c = text; *c; c++) {
        if (strchr("0123456789abcdefABCDEF", *c))
            digits++;
        else if (*c != ':')
            return false;
    }
    return digits == FINGERPRINT_LEN;
}

static void read_rule_fingerprints(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char what[] = "delivery.tls.domains.fingerprints";
    struct outbound_tls_rule *rule = object;
    rule->fingerprints = settings_texts(r, y, what, TEXTS_MAX, &rule->fingerprint_count);
    for (size_t i = 0; i < rule->fingerprint_count; i++) {
        if (!is_fingerprint(rule->fingerprints[i]))
            settings_complain(r, y, "%s: takes SHA-256 digests as 64 hexadecimal digits", what);
    }
}

#define AT(member) offsetof(struct outbound_tls_rule, member)
static const struct schema_key rule_keys[] = {
    {"domain", SCHEMA_CUSTOM, 0, 0, 0, NULL, "domain name, .NAME or *", read_rule_domain, "`.NAME`: it and all below."},
    {"level", SCHEMA_WORD, AT(level), 0, 0, "may", "none|may|encrypt|verify|dane|fingerprint", NULL,
     "What its servers must show."},
    {"names", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of host names", read_rule_names,
     "verify: names that the certificate may be good for. Default: the host's own."},
    {"fingerprints", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of SHA-256 digests", read_rule_fingerprints,
     "fingerprint: of the certificate or of its public key."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_tls_rules(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "delivery.tls.domains";
    struct outbound_tls *t = &r->s->outbound.tls;
    struct outbound_tls_rule *all = schema_objects(r, y, section, rule_keys, sizeof *all, RULES_MAX, &t->rule_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < t->rule_count; i++, c = c->next) {
        if (!schema_child(c, "domain"))
            settings_complain(r, c, "%s.domain: missing", section);
        if (all[i].level == TLS_LEVEL_FINGERPRINT && !all[i].fingerprint_count)
            settings_complain(r, c, "%s.fingerprints: missing", section);
        if (!all[i].domain)
            all[i].domain = "invalid.invalid"; /* complained of; the walk of rules needs a name */
    }
    t->rules = all;
}

int settings_delivery_reference(struct buf *to) {
    return schema_object_reference(to, "## Each of `delivery.tls.domains`", rule_keys);
}
