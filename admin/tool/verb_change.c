/*
 * verb_change: what changes the queue: retry, hold, release, bounce, delete and reroute by filter; suspend and resume
 * of a domain or a site.
 *
 * What cannot be undone (bounce, delete) or sends mail elsewhere (reroute) is counted first and asked for, unless --yes
 * was given; where nobody can be asked it is refused. The daemon keeps who, what and why in its audit log.
 */
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/tool/tool.h"

struct change {
    Words__AdminVerb rpc;
    bool asks, needs_reason;
    const char *would, *done, *question;
};
static const struct change changes[] = {
    {WORDS__ADMIN_VERB__ADMIN_RETRY, false, false, "would be retried now", "due now", NULL},
    {WORDS__ADMIN_VERB__ADMIN_HOLD, false, true, "would be held", "held", NULL},
    {WORDS__ADMIN_VERB__ADMIN_RELEASE, false, false, "would be released", "released", NULL},
    {WORDS__ADMIN_VERB__ADMIN_BOUNCE, true, true, "would be bounced", "bounced", "Bounce"},
    {WORDS__ADMIN_VERB__ADMIN_DELETE, true, true, "would be deleted", "deleted", "Delete"},
    {WORDS__ADMIN_VERB__ADMIN_REROUTE, true, true, "would be rerouted", "rerouted", "Reroute"},
};

static const struct change *change_of(Words__AdminVerb rpc) {
    size_t i = 0;
    while (changes[i].rpc != rpc)
        i++;
    return &changes[i];
}

static void set_reason(const struct tool *t, Words__AdminRequest *q) {
    q->has_reason = t->reason != NULL;
    q->reason = frame_bytes(span_of(t->reason));
}

static int report(const struct tool *t, const struct answer *a, const char *what) {
    if (t->json)
        return json_print(a, 0);
    printf("%llu recipient%s %s\n", (unsigned long long)a->r.count, a->r.count == 1 ? "" : "s", what);
    if (a->r.has_text && a->r.text.len)
        print_answer_text(t, a);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* Counts what matches, and asks. EX_OK: go on. */
static int confirm(struct tool *t, Words__AdminRequest *q, const struct change *c) {
    struct answer a;
    char line[16];
    q->has_dry_run = q->dry_run = true;
    int status = tool_ask(t, q, &a);
    q->dry_run = false;
    if (status != EX_OK)
        return status;
    fprintf(stderr, "%s %llu recipient%s? [y/N] ", c->question, (unsigned long long)a.r.count,
            a.r.count == 1 ? "" : "s");
    if (fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y'))
        return EX_OK;
    fputs("posthouse: nothing was changed\n", stderr);
    return EX_USAGE;
}

int verb_change(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    const struct change *c = change_of(v->rpc);
    struct answer a;
    if (c->needs_reason && !t->reason && !t->dry_run)
        return usage_error("a reason is needed: --reason TEXT; verb", v->words);
    if (v->rpc == WORDS__ADMIN_VERB__ADMIN_REROUTE && !t->to)
        return usage_error("reroute needs --to ROUTE, or --to \"\" for their own route", NULL);
    q.has_target = t->to != NULL;
    q.target = frame_bytes(span_of(t->to));
    q.has_limit = t->limit != 0;
    q.limit = t->limit;
    set_reason(t, &q);
    int status = tool_set_filter(t, &q, args, count);
    if (status == EX_OK && c->asks && !t->yes && !t->dry_run) {
        if (!isatty(STDIN_FILENO))
            return usage_error("nobody can be asked here: say --yes, or --dry-run to count; verb", v->words);
        status = confirm(t, &q, c);
    }
    q.has_dry_run = true;
    q.dry_run = t->dry_run;
    if (status == EX_OK)
        status = tool_ask(t, &q, &a);
    return status != EX_OK ? status : report(t, &a, t->dry_run ? c->would : c->done);
}

int verb_suspend(struct tool *t, const struct verb *v, char **args, int count) {
    Words__AdminRequest q = tool_request(t, v->rpc);
    struct answer a;
    (void)count;
    bool suspends = v->rpc == WORDS__ADMIN_VERB__ADMIN_SUSPEND;
    if (suspends && !t->reason)
        return usage_error("a reason is needed: --reason TEXT; verb", v->words);
    q.has_scope = q.has_address = true;
    q.scope = strstr(v->words, "site") ? WORDS__ADMIN_SCOPE__ADMIN_SITE : WORDS__ADMIN_SCOPE__ADMIN_DOMAIN;
    q.address = frame_bytes(span_of(args[0]));
    q.has_for_ms = t->for_ms != 0;
    q.for_ms = t->for_ms;
    q.has_dry_run = true;
    q.dry_run = t->dry_run;
    set_reason(t, &q);
    int status = tool_ask(t, &q, &a);
    if (status != EX_OK)
        return status;
    return report(t, &a, t->dry_run ? "would be concerned" : suspends ? "wait now" : "may go");
}
