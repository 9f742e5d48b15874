/*
 * settings: see settings.h. Defaults first, then the file over them, then what depends on several keys.
 */
#include "node/settings.h"

#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "node/settings_schema.h"

#define MEMORY_MAX (256u * 1024u * 1024u)
#define LOOPS_DEFAULT_MAX 16

void settings_complain(struct settings_reading *r, const struct yaml *y, const char *format, ...) {
    va_list args;
    r->failed = true;
    buf_add_str(r->problems, r->s->file);
    if (y && y->line)
        buf_printf(r->problems, ":%u", y->line);
    buf_add_str(r->problems, ": ");
    va_start(args, format);
    buf_vprintf(r->problems, format, args);
    va_end(args);
    buf_add_byte(r->problems, '\n');
}

/* The host's full name, as the resolver's canonical form of its short name. */
static const char *full_host_name(struct settings *s) {
    char name[256] = "localhost";
    struct addrinfo hints = {.ai_flags = AI_CANONNAME}, *found = NULL;
    if (gethostname(name, sizeof name - 1) != 0)
        return "localhost";
    if (strchr(name, '.') || getaddrinfo(name, NULL, &hints, &found) != 0)
        return arena_strdup(&s->mem, name);
    const char *full = arena_strdup(&s->mem, found->ai_canonname ? found->ai_canonname : name);
    freeaddrinfo(found);
    return full;
}

static void check_names(struct settings_reading *r) {
    struct settings *s = r->s;
    struct span out;
    struct address a;
    char short_name[256] = "localhost";
    if (!s->hostname)
        s->hostname = full_host_name(s);
    if (!s->name && gethostname(short_name, sizeof short_name - 1) == 0)
        s->name = arena_printf(&s->mem, "%.40s", short_name);
    if (!s->postmaster)
        s->postmaster = arena_printf(&s->mem, "postmaster@%s", s->hostname);
    if (address_parse_domain(&out, span_of(s->hostname), &s->mem) != ERR_OK)
        settings_complain(r, NULL, "node.hostname: not a domain name: %s", s->hostname);
    if (address_parse(&a, span_of(s->postmaster), &s->mem) != ERR_OK)
        settings_complain(r, NULL, "node.postmaster: not an address: %s", s->postmaster);
    for (const char *c = s->name; c && *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *c) && *c != '.') {
            settings_complain(r, NULL, "node.name: takes letters, digits, '-', '_' and '.'");
            break;
        }
}

static void check_rest(struct settings_reading *r) {
    struct settings *s = r->s;
    if (s->scheduler.retry.max_ms < s->scheduler.retry.first_ms)
        settings_complain(r, NULL, "delivery.retry.max: shorter than delivery.retry.first");
    if (s->scheduler.retry.give_up_ms < s->scheduler.retry.first_ms)
        settings_complain(r, NULL, "delivery.retry.give_up: shorter than delivery.retry.first");
    if (s->data_dir[0] != '/')
        settings_complain(r, NULL, "node.data_dir: takes an absolute path");
    if (strncmp(s->admin_rpc, "ipc:///", 7) != 0)
        settings_complain(r, NULL, "admin.rpc: takes ipc:///PATH; tcp:// is not supported by this version");
    if ((s->roles & SETTINGS_GATEWAY) && s->listen_count == 0)
        settings_complain(r, NULL, "gateway.listen: at least one address");
    if (!s->loops) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        s->loops = cores < 1 ? 1 : cores > LOOPS_DEFAULT_MAX ? LOOPS_DEFAULT_MAX : (uint32_t)cores;
    }
}

/* Paths of tables are relative to the settings file. */
static void resolve_tables(struct settings_reading *r) {
    struct settings *s = r->s;
    const char *slash = strrchr(s->file, '/');
    struct recipients_domain_config *d = (struct recipients_domain_config *)(uintptr_t)s->recipients.domains;
    for (size_t i = 0; i < s->recipients.count && slash; i++)
        if (d[i].table && d[i].table[0] != '/')
            d[i].table = arena_printf(&s->mem, "%.*s/%s", (int)(slash - s->file), s->file, d[i].table);
}

static void spread(struct settings *s) {
    const char **names = arena_calloc(&s->mem, 1, sizeof *names);
    CHECK(names);
    names[0] = s->hostname;
    s->inbound.hostname = s->outbound.hostname = s->scheduler.hostname = s->recipients.hostname = s->hostname;
    s->inbound.name = s->outbound.name = s->name;
    s->scheduler.postmaster = s->recipients.postmaster = s->postmaster;
    s->scheduler.per_site = s->outbound.per_site;
    s->outbound.own_names = names;
    s->outbound.own_name_count = 1;
    s->outbound.own_listen = s->listen;
    s->outbound.own_listen_count = s->listen_count;
    s->outbound.port = (uint16_t)s->outbound_port;
}

int settings_load(struct settings **out, const char *file, struct buf *problems) {
    struct settings *s = calloc(1, sizeof *s);
    struct settings_reading r = {.s = s, .problems = problems};
    struct yaml *root;
    *out = NULL;
    if (!s)
        return ERR_NOMEM;
    arena_init(&s->mem, 16 * 1024, MEMORY_MAX);
    s->file = arena_strdup(&s->mem, file);
    outbound_defaults(&s->outbound);
    schema_defaults(&r);
    int err = yaml_load(&root, file, &s->mem, problems);
    if (err == ERR_OK) {
        schema_read(&r, root);
        check_names(&r);
        check_rest(&r);
        resolve_tables(&r);
        spread(s);
        err = r.failed ? ERR_INVALID : ERR_OK;
    }
    if (err != ERR_OK) {
        settings_free(s);
        return err;
    }
    *out = s;
    return ERR_OK;
}

void settings_free(struct settings *s) {
    if (!s)
        return;
    arena_deinit(&s->mem);
    free(s);
}
