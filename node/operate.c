/*
 * operate: what operators ask of the node itself (proto/admin.proto): drain and undrain, settings, log level, and who
 * it is. Who may ask, and the audit, are the admin service's affair; what comes here is done.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rand.h"
#include "base/units.h"
#include "proto/frame.h"

#include "node/config_text.h"
#include "node/node_in.h"

static void reply_text(struct node *n, uint64_t ticket, int err, struct span text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = err != ERR_OK;
    r.error = (uint32_t)-err;
    r.has_text = true;
    r.text = frame_bytes(text);
    if (n->admin)
        admin_node_reply(n->admin, ticket, &r);
}

static void reply_str(struct node *n, uint64_t ticket, int err, const char *text) {
    reply_text(n, ticket, err, span_of(text));
}

static struct span target_of(const Words__AdminRequest *q) {
    return q->has_target ? frame_span(q->target) : SPAN_EMPTY;
}

/* -- drain -- */

static void on_drain(struct node *n, uint64_t ticket, const Words__AdminRequest *q, bool paused) {
    struct span target = target_of(q);
    if (target.len && !span_eq(target, span_of(n->settings->name)))
        reply_str(n, ticket, ERR_NOT_FOUND, "no such node here");
    else if (n->phase != PHASE_RUNNING)
        reply_str(n, ticket, ERR_CLOSED, "the node is ending");
    else if (!drain_pause(n, paused))
        reply_str(n, ticket, ERR_OK, paused ? "it is drained already" : "it was not drained");
    else
        reply_str(n, ticket, ERR_OK,
                  paused ? "draining: new mail is answered 421, what is under way is finished; undrain ends it"
                         : "it takes and delivers mail again");
}

/* -- settings -- */

static void on_config_reload(struct node *n, uint64_t ticket) {
    struct node_waiter *w = NULL;
    for (size_t i = 0; i < NODE_WAITERS_MAX && !w; i++)
        w = n->waiters[i].ticket ? NULL : &n->waiters[i];
    if (n->phase != PHASE_RUNNING) {
        reply_str(n, ticket, ERR_CLOSED, "the node is ending");
    } else if (!w) {
        reply_str(n, ticket, ERR_FULL, "too many wait for a reload");
    } else {
        *w = (struct node_waiter){ticket, reload_all(n->reload)};
        if (w->reading)
            return;
        w->ticket = 0;
        reply_str(n, ticket, ERR_NOMEM, "no helper thread");
    }
}

void operate_told(void *arg, uint64_t reading, int err, const struct buf *problems) {
    struct node *n = arg;
    struct buf text;
    buf_init(&text, CONFIG_TEXT_MAX);
    buf_add_str(&text, err != ERR_OK ? "the old settings stay in force\n" : "reloaded\n");
    if (err == ERR_OK && n->restart_needed)
        buf_add_str(&text, "some of it waits for a restart (see restart_needed in the log)\n");
    buf_add(&text, span_first(buf_span(problems), CONFIG_TEXT_MAX / 2));
    for (size_t i = 0; i < NODE_WAITERS_MAX; i++) {
        struct node_waiter w = n->waiters[i];
        if (!w.ticket || w.reading > reading)
            continue;
        n->waiters[i].ticket = 0;
        reply_text(n, w.ticket, err, buf_span(&text));
    }
    buf_deinit(&text);
}

static void on_config_show(struct node *n, uint64_t ticket) {
    struct config_lines lines;
    struct arena mem;
    struct buf text;
    arena_init(&mem, 64 * 1024, 0);
    buf_init(&text, CONFIG_TEXT_MAX);
    buf_printf(&text, "# %s, secrets blanked; all else has its default\n", n->settings->file);
    if (n->restart_needed)
        buf_add_str(&text, "# some of it waits for a restart (see restart_needed in the log)\n");
    int err = config_lines_make(&lines, n->settings->document, 0, &mem);
    if (err == ERR_OK)
        err = config_text_show(&lines, &text);
    if (err == ERR_OK)
        reply_text(n, ticket, err, buf_span(&text));
    else
        reply_str(n, ticket, err, err == ERR_FULL ? "the settings are too long to be shown" : err_text(err));
    buf_deinit(&text);
    arena_deinit(&mem);
}

/* The file is read on a helper thread. */
struct comparison {
    struct node *node;
    uint64_t ticket;
    struct arena mem;
    const char *file;
    struct config_lines in_force;
    struct buf text, problems;
    int err;
};

static void compare_work(void *arg) {
    struct comparison *c = arg;
    struct config_lines now;
    struct yaml *root = NULL;
    c->err = yaml_load(&root, c->file, &c->mem, &c->problems);
    if (c->err == ERR_OK)
        c->err = config_lines_make(&now, root, c->in_force.seed, &c->mem);
    if (c->err == ERR_OK)
        c->err = config_text_diff(&c->in_force, &now, &c->text);
}

static void compare_free(struct comparison *c) {
    buf_deinit(&c->text);
    buf_deinit(&c->problems);
    arena_deinit(&c->mem);
    free(c);
}

static void compare_done(void *arg) {
    struct comparison *c = arg;
    if (c->err == ERR_OK && buf_len(&c->text) == 0)
        reply_str(c->node, c->ticket, ERR_OK, "no difference");
    else if (c->err == ERR_OK)
        reply_text(c->node, c->ticket, ERR_OK, buf_span(&c->text));
    else if (buf_len(&c->problems))
        reply_text(c->node, c->ticket, c->err, buf_span(&c->problems));
    else
        reply_str(c->node, c->ticket, c->err, c->err == ERR_FULL ? "too long to be shown" : err_text(c->err));
    compare_free(c);
}

static void on_config_diff(struct node *n, uint64_t ticket) {
    struct comparison *c = calloc(1, sizeof *c);
    uint64_t seed; /* hashes of secrets must not be guessed from outside */
    if (!c) {
        reply_str(n, ticket, ERR_NOMEM, err_text(ERR_NOMEM));
        return;
    }
    rand_secure(&seed, sizeof seed);
    c->node = n;
    c->ticket = ticket;
    arena_init(&c->mem, 64 * 1024, 0);
    buf_init(&c->text, CONFIG_TEXT_MAX);
    buf_init(&c->problems, 65536);
    c->file = arena_strdup(&c->mem, n->settings->file);
    int err = c->file ? config_lines_make(&c->in_force, n->settings->document, seed, &c->mem) : ERR_NOMEM;
    if (err == ERR_OK)
        err = loop_work(n->loop, compare_work, compare_done, c);
    if (err == ERR_OK)
        return;
    reply_str(n, ticket, err, err_text(err));
    compare_free(c);
}

/* -- log level, and who it is -- */

static void on_log_level(struct node *n, uint64_t ticket, const Words__AdminRequest *q) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct span target = target_of(q);
    if (target.len && !log_level_parse(target, &n->log_level)) {
        reply_str(n, ticket, ERR_INVALID, "takes debug, info, warn or error");
        return;
    }
    log_setup(n->log_level, n->settings->log_format);
    reply_str(n, ticket, ERR_OK, names[n->log_level]);
}

static void on_nodes(struct node *n, uint64_t ticket) {
    const struct settings *s = n->settings;
    uint64_t up_ms = clock_wall_ms() - n->started_ms;
    char up[32], text[200];
    units_format_duration(up_ms / 1000 * 1000, up, sizeof up);
    snprintf(text, sizeof text, "%s, %s%s%sversion %s, up %s",
             n->phase != PHASE_RUNNING ? "ending"
             : n->paused               ? "draining"
                                       : "running",
             s->roles & SETTINGS_GATEWAY ? "gateway, " : "", s->roles & SETTINGS_SCHEDULER ? "scheduler, " : "",
             s->roles & SETTINGS_DELIVERY ? "delivery, " : "", POSTHOUSE_VERSION, up);
    Words__AdminRow row = WORDS__ADMIN_ROW__INIT, *rows[] = {&row};
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    row.has_destination = row.has_reason = row.has_received_ms = true;
    row.destination = frame_bytes(span_of(s->name));
    row.reason = frame_bytes(span_of(text));
    row.received_ms = n->started_ms;
    r.rows = rows;
    r.n_rows = 1;
    if (n->admin)
        admin_node_reply(n->admin, ticket, &r);
}

void operate_ask(void *arg, uint64_t ticket, const Words__AdminRequest *q) {
    struct node *n = arg;
    switch (q->verb) {
    case WORDS__ADMIN_VERB__ADMIN_DRAIN:
    case WORDS__ADMIN_VERB__ADMIN_UNDRAIN:
        on_drain(n, ticket, q, q->verb == WORDS__ADMIN_VERB__ADMIN_DRAIN);
        break;
    case WORDS__ADMIN_VERB__ADMIN_CONFIG_RELOAD:
        on_config_reload(n, ticket);
        break;
    case WORDS__ADMIN_VERB__ADMIN_CONFIG_SHOW:
        on_config_show(n, ticket);
        break;
    case WORDS__ADMIN_VERB__ADMIN_CONFIG_DIFF:
        on_config_diff(n, ticket);
        break;
    case WORDS__ADMIN_VERB__ADMIN_LOG_LEVEL:
        on_log_level(n, ticket, q);
        break;
    case WORDS__ADMIN_VERB__ADMIN_NODES:
        on_nodes(n, ticket);
        break;
    default:
        reply_str(n, ticket, ERR_UNSUPPORTED, "not answered by this node");
    }
}
