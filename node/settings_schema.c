/*
 * settings_schema: see settings_schema.h. A new key is a line in the table; the reference in docs/settings.md comes out
 * of it.
 */
#include "node/settings_schema.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/units.h"

#define AT(member) offsetof(struct settings, member)
#define MS_DAY 86400000u
#define GIB (1024ull * 1024u * 1024u)

static const struct schema_key keys[] = {
    {"node.name", SCHEMA_TEXT, AT(name), 1, 40, NULL, NULL, NULL,
     "Name of this node in logs and in the store. Default: the host name."},
    {"node.roles", SCHEMA_CUSTOM, 0, 0, 0, "[gateway, scheduler, delivery]", "list of gateway, scheduler, delivery",
     settings_read_roles, "What this process does. One machine does all three."},
    {"node.hostname", SCHEMA_TEXT, AT(hostname), 1, 255, NULL, NULL, NULL,
     "Full name in the greeting, EHLO, Received and reports. Default: the host's full name."},
    {"node.postmaster", SCHEMA_TEXT, AT(postmaster), 3, 320, NULL, NULL, NULL,
     "Where mail for `<Postmaster>` goes. Default: postmaster@HOSTNAME."},
    {"node.data_dir", SCHEMA_TEXT, AT(data_dir), 1, 1024, "/var/lib/posthouse", NULL, NULL,
     "Directory of the queue; made with mode 0700, never a symbolic link."},
    {"node.user", SCHEMA_TEXT, AT(user), 1, 32, "posthouse", NULL, NULL,
     "User to become after binding the ports, when started as root. root stays root."},
    {"node.memory", SCHEMA_SIZE, AT(memory), 32u << 20, 1024 * GIB, "192MiB", NULL, NULL,
     "Write buffers and cache of the queue together."},
    {"node.log.level", SCHEMA_WORD, AT(log_level), 0, 0, "info", "debug|info|warn|error", NULL,
     "Least level that is logged (to standard error)."},
    {"node.log.format", SCHEMA_WORD, AT(log_format), 0, 0, "text", "text|json", NULL,
     "One line for each event, as text or JSON."},
    {"gateway.listen", SCHEMA_CUSTOM, 0, 0, 0, "[{address: \"0.0.0.0:25\"}, {address: \"[::]:25\"}]",
     "list of {address}", settings_read_listen, "Addresses to listen on, at most 16."},
    {"gateway.loops", SCHEMA_COUNT, AT(loops), 1, 64, NULL, NULL, NULL,
     "Threads that serve SMTP sessions. Default: one for each processor, at most 16."},
    {"gateway.trusted_networks", SCHEMA_CUSTOM, 0, 0, 0, "[127.0.0.0/8, \"::1/128\"]", "list of networks",
     settings_read_trusted, "Clients that may relay anywhere."},
    {"gateway.limits.message_size", SCHEMA_SIZE, AT(inbound.limits.message_size), 65536, 4 * GIB, "50MiB", NULL, NULL,
     "Largest message, in octets (SIZE)."},
    {"gateway.limits.recipients", SCHEMA_COUNT, AT(inbound.limits.recipients), 100, 50000, "1000", NULL, NULL,
     "Recipients of one transaction; more get 452."},
    {"gateway.limits.connections", SCHEMA_COUNT, AT(inbound.limits.connections), 1, 1000000, "10000", NULL, NULL,
     "Sessions at once; more get 421."},
    {"gateway.limits.connections_per_client", SCHEMA_COUNT, AT(inbound.limits.connections_per_client), 1, 1000000,
     "100", NULL, NULL, "Sessions at once of one client: an IPv4 address or an IPv6 /64."},
    {"gateway.limits.received_headers", SCHEMA_COUNT, AT(inbound.limits.received_headers), 1, 1000, "50", NULL, NULL,
     "A message with so many Received headers is in a loop: 554."},
    {"gateway.limits.commands_bad", SCHEMA_COUNT, AT(inbound.limits.commands_bad), 1, 100000, "20", NULL, NULL,
     "Refused commands after which a session ends with 421."},
    {"gateway.limits.memory", SCHEMA_SIZE, AT(inbound.limits.memory), 1u << 20, 1024 * GIB, "256MiB", NULL, NULL,
     "Bodies of messages on their way in, all sessions together."},
    {"gateway.limits.idle", SCHEMA_DURATION, AT(inbound.limits.idle_ms), 10000, MS_DAY, "5m", NULL, NULL,
     "A session that says nothing for so long gets 421."},
    {"gateway.bare_newline", SCHEMA_WORD, AT(inbound.bare_newline), 0, 0, "reject", "reject|normalize", NULL,
     "What a CR or LF that stands alone does: refuse the message, or become CRLF. It is never passed on."},
    {"gateway.pregreet", SCHEMA_WORD, AT(inbound.pregreet), 0, 0, "refuse", "off|log|refuse", NULL,
     "What happens to a client that talks before our greeting."},
    {"gateway.pregreet_wait", SCHEMA_DURATION, AT(inbound.pregreet_ms), 0, 60000, "0", NULL, NULL,
     "How long the greeting waits for such a client; 0 only looks."},
    {"gateway.vrfy", SCHEMA_BOOL, AT(inbound.vrfy), 0, 0, "false", NULL, NULL,
     "Whether VRFY tells the truth; else 252."},
    {"domains", SCHEMA_CUSTOM, 0, 0, 0, "[]", "list of {name, recipients, route}", settings_read_domains,
     "Domains that we are the MX for: name, recipients ({table: FILE} or any), route."},
    {"routes", SCHEMA_CUSTOM, 0, 0, 0, "[]", "list of {domain, route}", settings_read_routes,
     "Where mail for other domains goes: domain (.NAME: all below it), route. Default: by MX."},
    {"delivery.dns", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of addresses", settings_read_dns,
     "DNS servers as ADDRESS:PORT. Default: the system's."},
    {"delivery.port", SCHEMA_COUNT, AT(outbound_port), 1, 65535, "25", NULL, NULL, "Port of MX hosts."},
    {"delivery.loopback_targets", SCHEMA_BOOL, AT(outbound.loopback_targets), 0, 0, "false", NULL, NULL,
     "Deliver to loopback addresses and to our own (for tests)."},
    {"delivery.prefer_ipv4", SCHEMA_BOOL, AT(outbound.prefer_ipv4), 0, 0, "false", NULL, NULL, "Try IPv4 before IPv6."},
    {"delivery.retry.first", SCHEMA_DURATION, AT(scheduler.retry.first_ms), 1, 7ull * MS_DAY, "5m", NULL, NULL,
     "Wait after the first deferral; it doubles each time, with jitter."},
    {"delivery.retry.max", SCHEMA_DURATION, AT(scheduler.retry.max_ms), 1, 30ull * MS_DAY, "4h", NULL, NULL,
     "Longest wait between two attempts."},
    {"delivery.retry.give_up", SCHEMA_DURATION, AT(scheduler.retry.give_up_ms), 1, 60ull * MS_DAY, "5d", NULL, NULL,
     "Age at which a message is returned."},
    {"delivery.retry.delay_notice", SCHEMA_DURATION, AT(scheduler.retry.delay_notice_ms), 0, 60ull * MS_DAY, "4h", NULL,
     NULL, "Age at which the sender is told of the delay; 0: never."},
    {"delivery.limits.connections", SCHEMA_COUNT, AT(outbound.connections), 1, 100000, "1000", NULL, NULL,
     "Connections to all servers together."},
    {"delivery.limits.per_site", SCHEMA_COUNT, AT(outbound.per_site), 1, 10000, "20", NULL, NULL,
     "Connections to one site (the servers of one MX set or route)."},
    {"delivery.limits.messages_per_connection", SCHEMA_COUNT, AT(outbound.messages_per_connection), 1, 1000000, "100",
     NULL, NULL, "Messages before a connection is closed."},
    {"delivery.limits.recipients_per_transaction", SCHEMA_COUNT, AT(outbound.recipients_per_transaction), 1, 10000,
     "100", NULL, NULL, "Recipients of one transaction, unless the server says less (LIMITS)."},
    {"delivery.timeouts.connect", SCHEMA_DURATION, AT(outbound.timeouts.connect_ms), 100, 3600000, "30s", NULL, NULL,
     "For a connection to open."},
    {"delivery.timeouts.greeting", SCHEMA_DURATION, AT(outbound.timeouts.greeting_ms), 100, 3600000, "5m", NULL, NULL,
     "For the 220."},
    {"delivery.timeouts.ehlo", SCHEMA_DURATION, AT(outbound.timeouts.ehlo_ms), 100, 3600000, "5m", NULL, NULL,
     "For the reply to EHLO or HELO."},
    {"delivery.timeouts.mail", SCHEMA_DURATION, AT(outbound.timeouts.mail_ms), 100, 3600000, "5m", NULL, NULL,
     "For the reply to MAIL."},
    {"delivery.timeouts.rcpt", SCHEMA_DURATION, AT(outbound.timeouts.rcpt_ms), 100, 3600000, "5m", NULL, NULL,
     "For the reply to RCPT."},
    {"delivery.timeouts.data", SCHEMA_DURATION, AT(outbound.timeouts.data_ms), 100, 3600000, "2m", NULL, NULL,
     "For the reply to DATA."},
    {"delivery.timeouts.block", SCHEMA_DURATION, AT(outbound.timeouts.block_ms), 100, 3600000, "3m", NULL, NULL,
     "For a block of the message to be taken."},
    {"delivery.timeouts.dot", SCHEMA_DURATION, AT(outbound.timeouts.dot_ms), 100, 7200000, "10m", NULL, NULL,
     "For the reply to the final dot."},
    {"delivery.timeouts.quit", SCHEMA_DURATION, AT(outbound.timeouts.quit_ms), 100, 3600000, "5s", NULL, NULL,
     "For the reply to QUIT."},
    {"delivery.timeouts.idle", SCHEMA_DURATION, AT(outbound.timeouts.idle_ms), 100, 3600000, "60s", NULL, NULL,
     "How long an unused connection is kept warm."},
    {"scheduler.shards", SCHEMA_COUNT, AT(shards), 1, 64, "1", NULL, NULL,
     "Parts of the queue, each with its own order. More only help very large machines."},
    {"scheduler.active_max", SCHEMA_COUNT, AT(scheduler.active_max), 1000, 10000000, "100000", NULL, NULL,
     "Recipients in memory for each shard; the rest waits on disk."},
    {"scheduler.trace_keep", SCHEMA_DURATION, AT(scheduler.trace_keep_ms), 3600000, 366ull * MS_DAY, "7d", NULL, NULL,
     "How long the history of a message is kept."},
    {"admin.rpc", SCHEMA_TEXT, AT(admin_rpc), 7, 100, "ipc:///run/posthouse/admin", NULL, NULL,
     "Where the operator's tool connects (ipc://PATH, mode 0600)."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
_Static_assert(sizeof keys / sizeof *keys <= SCHEMA_KEYS_MAX, "settings_reading has a line for each key");

/* Known to the design, not to this version: refused by name rather than as a typing error. */
static const char *const later[] = {"gateway.tls", "gateway.auth",    "cluster",      "admin.http",
                                    "admin.keys",  "gateway.milters", "delivery.tls", "delivery.retry.domains",
                                    NULL};

/* -- one value -- */

static int find_word(const char *words, struct span text) {
    struct span rest = span_of(words);
    for (int n = 0; rest.len; n++)
        if (span_eq(span_cut(rest, '|', &rest), text))
            return n;
    return -1;
}

static void format_bounds(const struct schema_key *k, char low[32], char high[32]) {
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

static void bounded(struct settings_reading *r, const struct yaml *y, const struct schema_key *k, uint64_t value,
                    bool wide) {
    if (value >= k->min && value <= k->max) {
        char *at = (char *)r->s + k->offset;
        if (wide)
            *(uint64_t *)(void *)at = value;
        else
            *(uint32_t *)(void *)at = (uint32_t)value;
        return;
    }
    char low[32], high[32];
    format_bounds(k, low, high);
    settings_complain(r, y, "%s: out of range, from %s to %s", k->path, low, high);
}

static void read_text(struct settings_reading *r, const struct yaml *y, const struct schema_key *k) {
    const char **to = (const char **)(void *)((char *)r->s + k->offset);
    if (y->text.len < k->min || y->text.len > k->max)
        settings_complain(r, y, "%s: takes %" PRIu64 " to %" PRIu64 " characters", k->path, k->min, k->max);
    else
        *to = y->text.at;
}

static void read_value(struct settings_reading *r, const struct yaml *y, const struct schema_key *k) {
    uint64_t value;
    char *at = (char *)r->s + k->offset;
    if (k->type == SCHEMA_CUSTOM) {
        k->read(r, y);
        return;
    }
    if (y->kind != YAML_SCALAR) {
        settings_complain(r, y, "%s: takes one value", k->path);
        return;
    }
    switch (k->type) {
    case SCHEMA_TEXT:
        read_text(r, y, k);
        return;
    case SCHEMA_SIZE:
        if (units_size(y->text, &value) == ERR_OK)
            bounded(r, y, k, value, true);
        else
            settings_complain(r, y, "%s: takes a size such as 64KiB or 50MiB", k->path);
        return;
    case SCHEMA_DURATION:
        if (units_duration(y->text, &value) == ERR_OK)
            bounded(r, y, k, value, true);
        else
            settings_complain(r, y, "%s: takes a duration such as 30s, 5m or 4h", k->path);
        return;
    case SCHEMA_COUNT:
        if (span_u64(y->text, &value))
            bounded(r, y, k, value, false);
        else
            settings_complain(r, y, "%s: takes a whole number", k->path);
        return;
    case SCHEMA_BOOL:
        if (span_eq(y->text, SPAN("true")) || span_eq(y->text, SPAN("false")))
            *(bool *)(void *)at = y->text.at[0] == 't';
        else
            settings_complain(r, y, "%s: takes true or false", k->path);
        return;
    default: {
        int n = find_word(k->words, y->text);
        if (n >= 0)
            memcpy(at, &n, sizeof n);
        else
            settings_complain(r, y, "%s: takes one of %s", k->path, k->words);
    }
    }
}

void schema_defaults(struct settings_reading *r) {
    for (const struct schema_key *k = keys; k->path; k++) {
        if (!k->fallback || k->type == SCHEMA_CUSTOM)
            continue;
        struct yaml y = {.kind = YAML_SCALAR, .text = span_of(k->fallback)};
        read_value(r, &y, k);
    }
    settings_default_lists(r);
}

/* -- the walk -- */

static bool is_section(const char *path) {
    size_t len = strlen(path);
    for (const struct schema_key *k = keys; k->path; k++)
        if (strncmp(k->path, path, len) == 0 && k->path[len] == '.')
            return true;
    return false;
}

static bool is_later(const char *path) {
    for (size_t i = 0; later[i]; i++)
        if (strcmp(later[i], path) == 0)
            return true;
    return false;
}

static const struct schema_key *find_key(const char *path) {
    for (const struct schema_key *k = keys; k->path; k++)
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
    return r->lines[k - keys];
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
            r->lines[k - keys] = y->line;
            read_value(r, y, k);
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

/* -- the reference -- */

/* What a key takes, with its bounds. */
static void add_takes(struct buf *to, const struct schema_key *k) {
    static const char *const names[] = {"text", "size", "duration", "number", "true or false"};
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
        format_bounds(k, low, high);
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

static const char reference_tail[] = "\n## Domains and routes\n\n"
                                     "Each of `domains` has `name` (U-labels may be written), `recipients` (`any`, or "
                                     "`{table: FILE}` with a path relative\n"
                                     "to the settings file, see recipients.md) and `route`. Each of `routes` has "
                                     "`domain` (`example.net`, `.example.net` for\n"
                                     "it and all below it, or `*`) and `route`:\n\n"
                                     "| route | mail goes |\n|---|---|\n"
                                     "| `mx` | to the MX hosts of the domain |\n"
                                     "| `mx:DOMAIN` | to the MX hosts of another domain |\n"
                                     "| `smtp:HOST[:PORT]` | to this host; IPv6 addresses in brackets |\n"
                                     "| `lmtp:HOST[:PORT]`, `lmtp:unix:/PATH` | to this host by LMTP |\n\n"
                                     "## What a reload does not change\n\n"
                                     "The name, roles, user, directory, memory, listeners, loops, shards and the RPC "
                                     "endpoint stay as they were until a\n"
                                     "restart; the log says so. Tables are also read again when their files change.\n";

int settings_reference(struct buf *to) {
    buf_add_str(to, reference_head);
    for (const struct schema_key *k = keys; k->path; k++) {
        buf_printf(to, "| `%s` | ", k->path);
        add_takes(to, k);
        if (k->fallback)
            buf_printf(to, " | `%s` | %s |\n", k->fallback, k->doc);
        else
            buf_printf(to, " |  | %s |\n", k->doc);
    }
    buf_add_str(to, reference_tail);
    return to->err;
}
