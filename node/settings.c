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
#include "gateway/outbound/rules.h"
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

/* For messages: bytes as they are may hold control characters. */
static const char *shown(struct settings *s, const char *text) {
    struct buf b;
    buf_init(&b, 2000);
    buf_add_escaped(&b, span_of(text));
    const char *out = arena_strdup(&s->mem, buf_cstr(&b));
    buf_deinit(&b);
    return out ? out : "";
}

/* What is not set is taken from the host. */
static void fill_names(struct settings *s) {
    char short_name[256] = "localhost";
    if (!s->hostname)
        s->hostname = full_host_name(s);
    if (!s->name && gethostname(short_name, sizeof short_name - 1) == 0)
        s->name = arena_printf(&s->mem, "%.40s", short_name);
    if (!s->postmaster && s->hostname)
        s->postmaster = arena_printf(&s->mem, "postmaster@%s", s->hostname);
    CHECK(s->hostname && s->name && s->postmaster);
}

static void check_names(struct settings_reading *r) {
    struct settings *s = r->s;
    struct span name;
    struct address a;
    fill_names(s);
    bool named = address_parse_domain(&name, span_of(s->hostname), &s->mem) == ERR_OK;
    if (named)
        s->hostname = name.at; /* as A-labels, for protocols */
    else
        settings_complain_key(r, "node.hostname", "not a domain name: %s", shown(s, s->hostname));
    if (address_parse(&a, span_of(s->postmaster), &s->mem) == ERR_OK)
        s->postmaster = a.text.at;
    else if (named || schema_line(r, "node.postmaster")) /* else it is made of the bad host name */
        settings_complain_key(r, "node.postmaster", "not a mail address: %s", shown(s, s->postmaster));
    for (const char *c = s->name; *c; c++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *c)) {
            settings_complain_key(r, "node.name", "takes letters, digits, '-', '_' and '.'");
            break;
        }
    }
}

/* Complains where a line is to be changed: of the longer one's key when only the first wait is in the file. */
static void check_longer(struct settings_reading *r, const char *path, uint64_t ms) {
    static const char first[] = "delivery.retry.first";
    if (ms >= r->s->scheduler.retry.first_ms)
        return;
    if (schema_line(r, path) || !schema_line(r, first))
        settings_complain_key(r, path, "shorter than %s", first);
    else
        settings_complain_key(r, first, "longer than %s", path);
}

static void check_report_from(struct settings_reading *r) {
    struct outbound_tls_reports *t = &r->s->outbound.tls.reports;
    struct address a;
    if (!t->from)
        return;
    if (address_parse(&a, span_of(t->from), &r->s->mem) == ERR_OK)
        t->from = a.text.at;
    else
        settings_complain_key(r, "delivery.tls.reports.from", "not a mail address: %s", shown(r->s, t->from));
}

static void check_rest(struct settings_reading *r) {
    struct settings *s = r->s;
    check_report_from(r);
    check_longer(r, "delivery.retry.max", s->scheduler.retry.max_ms);
    check_longer(r, "delivery.retry.give_up", s->scheduler.retry.give_up_ms);
    settings_check_gateway(r);
    settings_check_pace(r);
    settings_check_http(r);
    if (s->data_dir[0] != '/')
        settings_complain_key(r, "node.data_dir", "takes an absolute path");
    settings_check_admin(r);
    if (!s->loops) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        s->loops = cores < 1 ? 1 : cores > LOOPS_DEFAULT_MAX ? LOOPS_DEFAULT_MAX : (uint32_t)cores;
    }
}

static void spread(struct settings *s) {
    const char **names = arena_calloc(&s->mem, 1, sizeof *names);
    CHECK(names);
    names[0] = s->hostname;
    s->inbound.hostname = s->outbound.hostname = s->scheduler.hostname = s->recipients.hostname = s->hostname;
    s->inbound.name = s->outbound.name = s->name;
    s->scheduler.postmaster = s->recipients.postmaster = s->postmaster;
    s->scheduler.per_site = s->outbound.per_site;
    s->scheduler.recipients_per_transaction = s->outbound.recipients_per_transaction;
    s->outbound.own_names = names;
    s->outbound.own_name_count = 1;
    struct tcp_addr *listen = arena_calloc(&s->mem, INBOUND_LISTENERS_MAX, sizeof *listen);
    CHECK(listen);
    for (size_t i = 0; i < s->inbound.listener_count; i++)
        listen[i] = s->inbound.listeners[i].address;
    s->outbound.own_listen = listen;
    s->outbound.own_listen_count = s->inbound.listener_count;
    s->recipients.srs = s->srs.domain ? &s->srs : NULL;
    s->recipients.batv = s->batv.domain_count ? &s->batv : NULL;
    s->scheduler.batv = s->batv;
    s->auth.hostname = s->mailauth.authserv_id = s->hostname;
    s->inbound.dns = s->mailauth.dns = s->outbound.dns;
    s->inbound.spool = s->data_dir;
    s->outbound.tls.sts_file = arena_printf(&s->mem, "%s/mta-sts", s->data_dir);
    s->outbound.tls.reports.file = arena_printf(&s->mem, "%s/tls-reports", s->data_dir);
    if (!s->outbound.tls.reports.contact)
        s->outbound.tls.reports.contact = s->postmaster;
    settings_finish_domains(s);
    s->inbound.guard.grey_file = arena_printf(&s->mem, "%s/greylist", s->data_dir);
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
    CHECK(s->file);
    map_init(&r.domains);
    map_init(&r.routes);
    outbound_defaults(&s->outbound);
    schema_defaults(&r);
    settings_default_admin(s);
    int err = yaml_load(&root, file, &s->mem, problems);
    if (err == ERR_OK || (err == ERR_INVALID && root)) { /* what could be read of a bad file is checked too */
        r.failed = err != ERR_OK;
        s->document = root;
        schema_read(&r, root);
        check_names(&r);
        check_rest(&r);
        spread(s);
        err = r.failed ? ERR_INVALID : ERR_OK;
    }
    map_deinit(&r.domains);
    map_deinit(&r.routes);
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
    rules_unref(s->outbound.rules);
    bus_key_wipe(&s->admin.key);
    arena_deinit(&s->mem);
    free(s);
}
