/*
 * settings_reference: docs/settings.md, made of the tables that check the settings, so that the two cannot differ.
 */
#include "node/settings_schema.h"

/* What a key takes, with its bounds. */
static void add_takes(struct buf *to, const struct schema_key *k) {
    static const char *const names[] = {"text", "file", "size", "duration", "number", "score", "true or false"};
    char low[32], high[32];
    if (k->type == SCHEMA_WORD) {
        struct span rest = span_of(k->words);
        for (bool first = true; rest.len; first = false) {
            struct span word = span_cut(rest, '|', &rest);
            buf_printf(to, "%s%.*s", first ? "" : rest.len ? ", " : " or ", SPAN_FMT(word));
        }
        return;
    }
    buf_add_str(to, k->type == SCHEMA_CUSTOM ? k->words : names[k->type]);
    if (k->type == SCHEMA_SIZE || k->type == SCHEMA_DURATION || k->type == SCHEMA_COUNT) {
        schema_format_bounds(k, low, high);
        buf_printf(to, ", %s to %s", low, high);
    }
}

static const char reference_head[] =
    "# Settings\n\n"
    "One YAML file, by default `/etc/posthouse/posthouse.yaml`. `posthoused --check` checks all of it, and the tables\n"
    "that it names, and lists every error as `file:line: key: what`; unknown keys are refused. SIGHUP reloads it as a\n"
    "whole or not at all. Every key has a default: a file with only `node.hostname` runs.\n\n"
    "Sizes: `64KiB`, `50MiB`, `2GiB`. Durations: `500ms`, `30s`, `5m`, `4h`, `5d`. Anchors, tags and a second document "
    "are\n"
    "not taken.\n\n"
    "This page is printed by `posthoused --print-settings-reference`.\n\n"
    "| key | takes | default | what it is for |\n|---|---|---|---|\n";

static const char reference_tail[] =
    "\n## Routes\n\n"
    "Each of `routes` has `domain` (`example.net`, `.example.net` for it and all "
    "below it, or `*`) and `route`; each of\n"
    "`domains` has a `route` too:\n\n"
    "| route | mail goes |\n|---|---|\n"
    "| `mx` | to the MX hosts of the domain |\n"
    "| `mx:DOMAIN` | to the MX hosts of another domain |\n"
    "| `smtp:HOST[:PORT]` | to this host; IPv6 addresses in brackets |\n"
    "| `smtp:HOST[*WEIGHT],HOST...[:PORT]` | to these hosts, in an order drawn by weight; the port is for all |\n"
    "| `lmtp:HOST[:PORT]`, `lmtp:unix:/PATH` | to this host by LMTP |\n\n"
    "`credentials`, `xclient` and `xforward` may stand beside every `smtp:` and `lmtp:` route, of `routes` too.\n\n"
    "## What a reload does not change\n\n"
    "The name, roles, user, memory, directory, addresses of listeners, loops, shards, the RPC endpoints, the address\n"
    "of the HTTP face, whether MTA-STS is heeded and `delivery.tls.reports` stay as they were until a restart, and so "
    "do the DNS servers that\n"
    "the gateway itself asks; the log says so. What a listener offers may change. Tables, certificates, password\n"
    "files and keys are also read again when their files change. A session keeps the settings of its transaction,\n"
    "and one that milters hear keeps them to its end.\n";

static void add_rows(struct buf *to, const struct schema_key *table) {
    for (const struct schema_key *k = table; k->path; k++) {
        buf_printf(to, "| `%s` | ", k->path);
        add_takes(to, k);
        if (k->fallback)
            buf_printf(to, " | `%s` | %s |\n", k->fallback, k->doc);
        else
            buf_printf(to, " |  | %s |\n", k->doc);
    }
}

int schema_object_reference(struct buf *to, const char *title, const struct schema_key *table) {
    buf_printf(to, "\n%s\n\n| key | takes | default | what it is for |\n|---|---|---|---|\n", title);
    add_rows(to, table);
    return to->err;
}

int settings_reference(struct buf *to) {
    buf_add_str(to, reference_head);
    add_rows(to, schema_keys);
    settings_gateway_reference(to);
    settings_domains_reference(to);
    settings_delivery_reference(to);
    settings_pace_reference(to);
    settings_reports_reference(to);
    settings_admin_reference(to);
    settings_http_reference(to);
    settings_hooks_reference(to);
    buf_add_str(to, reference_tail);
    return to->err;
}
