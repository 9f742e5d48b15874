/*
 * settings_hooks: the list `hooks`: who else is told of events (node/hook.h). A name that no event has is refused, as a
 * typing error would otherwise be a hook that is never called.
 */
#include <string.h>

#include "base/net/http.h"
#include "node/event_names.h"
#include "node/hook_spool.h"
#include "node/settings_schema.h"

enum { EVENTS_MAX = 400, HEADERS_MAX = 20, SOCKET_PATH_MAX = 107 };

static const char section[] = "hooks";
static const char *const events_default[] = {"accepted", "delivered", "deferred", "failed",   "given_up",
                                             "bounced",  "deleted",   "in_doubt", "discarded"};

static void read_events(struct settings_reading *r, const struct yaml *y, void *object) {
    struct hook_config *h = object;
    struct yaml one = *y, list = {.kind = YAML_LIST, .line = y->line, .first = &one};
    one.next = NULL;
    const struct yaml *from = y->kind == YAML_SCALAR ? &list : y;
    const char *const *all = settings_texts(r, from, "hooks.events", EVENTS_MAX, &h->event_count);
    h->events = all;
    if (all && !h->event_count)
        settings_complain(r, y, "hooks.events: takes at least one event, or \"*\" for all");
    for (size_t i = 0; i < h->event_count; i++)
        if (strcmp(all[i], "*") != 0 && !event_is_known(span_of(all[i])))
            settings_complain(r, y, "hooks.events: no such event: %s (see events.md)", all[i]);
}

static void read_headers(struct settings_reading *r, const struct yaml *y, void *object) {
    struct hook_config *h = object;
    size_t count;
    const char *const *all = settings_texts(r, y, "hooks.headers", HEADERS_MAX, &count);
    h->target.headers = all;
    for (size_t i = 0; all && i < count; i++) {
        size_t name = strcspn(all[i], ":");
        if (!name || all[i][name] != ':' || strpbrk(all[i], "\r\n") || strcspn(all[i], " \t") < name)
            settings_complain(r, y, "hooks.headers: takes a list of \"Name: value\"");
    }
}

static void read_bearer(struct settings_reading *r, const struct yaml *y, void *object) {
    settings_read_password(r, y, "hooks.bearer_file", &((struct hook_config *)object)->target.bearer);
}

#define AT(member) offsetof(struct hook_config, member)
static const struct schema_key hook_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, 40, NULL, NULL, NULL,
     "Its name in events and metrics, and of its folder in `data_dir/hooks`: letters, digits, `-` and `_`."},
    {"url", SCHEMA_TEXT, AT(target.url), 1, 2000, NULL, NULL, NULL,
     "`http://` or `https://`: each batch is a POST of `application/x-ndjson`, one event on each line."},
    {"socket", SCHEMA_TEXT, AT(target.socket), 1, SOCKET_PATH_MAX, NULL, NULL, NULL,
     "Or the absolute path of a unix socket, of a stream or of datagrams, that a program of yours listens on."},
    {"events", SCHEMA_CUSTOM, 0, 0, 0,
     "[accepted, delivered, deferred, failed, given_up, bounced, deleted, in_doubt, discarded]",
     "list of names, or `\"*\"`", read_events, "Which events. See events.md."},
    {"batch", SCHEMA_COUNT, AT(batch), 1, 10000, "100", NULL, NULL, "Events of one batch; at most 1 MiB."},
    {"wait", SCHEMA_DURATION, AT(wait_ms), 1, 3600000, "1s", NULL, NULL,
     "A batch that is not full goes after so long."},
    {"spool", SCHEMA_SIZE, AT(spool), HOOK_SPOOL_MIN, 1ull << 40, "64MiB", NULL, NULL,
     "Disk for events that wait. When it is full the oldest are dropped, and counted."},
    {"timeout", SCHEMA_DURATION, AT(target.timeout_ms), 100, 600000, "30s", NULL, NULL, "For one batch."},
    {"retry_max", SCHEMA_DURATION, AT(retry_ms), 100, 86400000, "60s", NULL, NULL,
     "Longest pause after failures; the first one is 1s, and each doubles."},
    {"bearer_file", SCHEMA_CUSTOM, 0, 0, 0, NULL, "file", read_bearer,
     "url: a file whose first line is the token of `Authorization: Bearer`."},
    {"headers", SCHEMA_CUSTOM, 0, 0, 0, "[]", "list of `\"Name: value\"`", read_headers,
     "url: more headers, at most 20."},
    {"ca_file", SCHEMA_FILE, AT(target.ca_file), 0, 0, NULL, NULL, NULL,
     "url: authorities of its certificate. Default: the system's."},
    {"certificate", SCHEMA_FILE, AT(target.certificate), 0, 0, NULL, NULL, NULL, "url: certificate of ours to show."},
    {"key", SCHEMA_FILE, AT(target.key), 0, 0, NULL, NULL, NULL, "url: its private key."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static void check_target(struct settings_reading *r, const struct yaml *y, const struct hook_target *t) {
    if (!t->url == !t->socket)
        settings_complain(r, y, "%s: takes either url or socket", section);
    if (t->url && !http_is_url(t->url))
        settings_complain(r, y, "%s.url: takes http://... or https://...", section);
    if (t->socket && t->socket[0] != '/')
        settings_complain(r, y, "%s.socket: takes an absolute path", section);
    if (t->socket && (t->headers || t->bearer || t->ca_file || t->certificate || t->key))
        settings_complain(r, y, "%s: headers, bearer_file, ca_file, certificate and key go with url", section);
    if (t->key && !t->certificate)
        settings_complain(r, y, "%s.key: needs certificate", section);
}

static void check_hook(struct settings_reading *r, const struct yaml *y, struct hook_config *all, size_t n) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    struct hook_config *h = &all[n];
    if (!h->name)
        settings_complain(r, y, "%s: needs a name", section);
    else if (strspn(h->name, good) != strlen(h->name))
        settings_complain(r, y, "%s.name: takes letters, digits, '-' and '_'", section);
    for (size_t i = 0; h->name && i < n; i++)
        if (all[i].name && strcmp(all[i].name, h->name) == 0)
            settings_complain(r, y, "%s.name: %s: the same name twice", section, h->name);
    if (!schema_child(y, "events")) {
        h->events = events_default;
        h->event_count = sizeof events_default / sizeof *events_default;
    }
    check_target(r, y, &h->target);
}

void settings_read_hooks(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct hook_config *all = schema_objects(r, y, section, hook_keys, sizeof *all, HOOKS_MAX, &r->s->hook_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; all && i < r->s->hook_count; i++, c = c->next)
        check_hook(r, c, all, i);
    r->s->hooks = all;
}

int settings_hooks_reference(struct buf *to) {
    return schema_object_reference(
        to,
        "## Hooks\n\nEach of `hooks`, at most 16: programs that are told of events, in order "
        "and at least once. See events.md.",
        hook_keys);
}
