/* The RPC service between tools and a scheduler that is played here: who may what, that a change waits for its audit,
 * what is refused and recorded, and bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/access.h"
#include "admin/admin.h"
#include "admin/admin_in.h"
#include "base/log.h"
#include "base/net/bus_keys.h"
#include "base/net/bus_zap.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

#define VERB(x) WORDS__ADMIN_VERB__ADMIN_##x
enum { SEEN_MAX = 200, LONG_MS = 20000, QUIET_MS = 300 };
enum { BEGUN = 1, DONE = 2, REFUSED = 3 };

/* A request that came to the scheduler, or an answer that came to a tool. */
struct seen {
    uint64_t correlation;
    uint32_t verb, stage, error, role;
    uint64_t count;
    bool last;
    char actor[80], what[80], text[400], origin[80];
};
struct tool {
    struct world *w;
    struct bus_peer *peer;
    struct seen got[SEEN_MAX];
    size_t count;
};
struct world {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct admin *admin;
    struct bus_peer *scheduler;
    struct seen asked[SEEN_MAX];
    size_t asked_count;
    bool silent;       /* the scheduler does not answer changes and questions */
    bool audit_silent; /* nor the audit */
    int audit_error;
    struct bus_key server, key;
    char ipc[100], tcp[100];
    struct tool local, remote, other;
    uint64_t tickets[8];
    size_t ticket_count;
    size_t *until; /* stops when it reaches goal */
    size_t goal;
    bool timed_out;
    struct buf pack;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void check_goal(struct world *w) {
    if (w->until && *w->until >= w->goal)
        loop_stop(w->loop);
}

static void wait_for(struct world *w, size_t *what, size_t goal) {
    if (*what >= goal)
        return;
    w->until = what;
    w->goal = goal;
    w->timed_out = false;
    loop_timer_set(w->guard, LONG_MS);
    loop_run(w->loop);
    w->until = NULL;
    if (w->timed_out)
        fail_msg("only %zu of %zu came", *what, goal);
}

static void pass_time(struct world *w) {
    loop_timer_set(w->guard, QUIET_MS);
    loop_run(w->loop);
}

static void copy(char *to, size_t size, ProtobufCBinaryData b) {
    span_copy(frame_span(b), to, size);
}

/* -- the scheduler -- */

static void scheduler_answer(struct world *w, uint64_t correlation, int err, uint64_t count, bool last) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_last = true;
    r.last = last;
    r.has_error = err != ERR_OK;
    r.error = (uint32_t)-err;
    r.has_count = true;
    r.count = count;
    if (frame_send_peer(w->scheduler, FRAME_ADMIN_REPLY, correlation, 0, &r.base, NULL, &w->pack) != ERR_OK)
        loop_stop(w->loop);
}

static void on_scheduler(void *arg, const struct bus_message *m) {
    struct world *w = arg;
    struct frame f;
    struct arena mem;
    arena_init(&mem, 4096, 0);
    const Words__AdminRequest *q =
        frame_read(&f, m) == ERR_OK ? frame_unpack(&words__admin_request__descriptor, f.meta, &mem) : NULL;
    if (q && w->asked_count < SEEN_MAX) {
        struct seen *s = &w->asked[w->asked_count++];
        *s = (struct seen){.correlation = f.correlation, .verb = q->verb};
        copy(s->actor, sizeof s->actor, q->actor);
        if (q->audit) {
            s->stage = q->audit->stage;
            s->verb = q->audit->verb;
            s->error = q->audit->error;
            s->role = q->audit->role;
            s->count = q->audit->count;
            copy(s->actor, sizeof s->actor, q->audit->actor);
            copy(s->what, sizeof s->what, q->audit->what);
            copy(s->origin, sizeof s->origin, q->audit->origin);
        }
        if (q->audit ? !w->audit_silent : !w->silent)
            scheduler_answer(w, f.correlation, q->audit ? w->audit_error : ERR_OK, 7, true);
    }
    arena_deinit(&mem);
    check_goal(w);
}

static void hello(struct world *w, uint32_t role) {
    Words__Hello h = WORDS__HELLO__INIT;
    h.role = role;
    h.name = frame_bytes(SPAN("played"));
    assert_int_equal(
        bus_peer_open(&w->scheduler, w->bus, w->loop, ADMIN_HUB, "played", FRAME_PART_MAX, 1u << 24, on_scheduler, w),
        ERR_OK);
    assert_int_equal(frame_send_peer(w->scheduler, FRAME_HELLO, 0, 0, &h.base, NULL, &w->pack), ERR_OK);
    pass_time(w);
}

/* -- tools -- */

static void keep(struct tool *t, uint64_t correlation, const Words__AdminReply *r) {
    if (t->count == SEEN_MAX)
        return;
    struct seen *s = &t->got[t->count++];
    *s = (struct seen){.correlation = correlation, .error = r->error, .count = r->count, .last = r->last};
    copy(s->text, sizeof s->text, r->text);
    check_goal(t->w);
}

static void on_tool(void *arg, const struct bus_message *m) {
    struct frame f;
    struct arena mem;
    arena_init(&mem, 4096, 0);
    const Words__AdminReply *r =
        frame_read(&f, m) == ERR_OK ? frame_unpack(&words__admin_reply__descriptor, f.meta, &mem) : NULL;
    if (r)
        keep(arg, f.correlation, r);
    arena_deinit(&mem);
}

static void open_local(struct world *w, struct tool *t) {
    t->w = w;
    assert_int_equal(bus_peer_open(&t->peer, w->bus, w->loop, w->ipc, "tool", FRAME_PART_MAX, 1u << 24, on_tool, t),
                     ERR_OK);
}

static void open_remote(struct world *w, struct tool *t) {
    struct bus_login login = {&w->key, w->server.public_key};
    t->w = w;
    assert_int_equal(
        bus_peer_open_curve(&t->peer, w->bus, w->loop, w->tcp, &login, "tool", FRAME_PART_MAX, 1u << 24, on_tool, t),
        ERR_OK);
}

static Words__AdminRequest request(Words__AdminVerb verb) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    q.verb = verb;
    q.has_actor = true;
    q.actor = frame_bytes(SPAN("eve"));
    q.has_filter = true;
    q.filter = frame_bytes(SPAN("domain:there.test "));
    return q;
}

static void send_request(struct tool *t, uint64_t correlation, const Words__AdminRequest *q) {
    assert_int_equal(frame_send_peer(t->peer, FRAME_ADMIN_REQUEST, correlation, 0, &q->base, NULL, &t->w->pack),
                     ERR_OK);
}

static void ask(struct tool *t, uint64_t correlation, Words__AdminVerb verb) {
    Words__AdminRequest q = request(verb);
    send_request(t, correlation, &q);
}

static void ask_node(void *arg, uint64_t ticket, const Words__AdminRequest *q) {
    struct world *w = arg;
    (void)q;
    if (w->ticket_count < 8)
        w->tickets[w->ticket_count++] = ticket;
    check_goal(w);
}

static int set_role(struct world *w, unsigned role) {
    struct admin_key k = {.name = "ops", .key = w->key.public_key, .role = role};
    return admin_set_keys(w->admin, &k, role != ADMIN_ROLE_NONE);
}

static int set_up(void **state) {
    struct world *w = calloc(1, sizeof *w);
    const char *failed;
    *state = w;
    buf_init(&w->pack, FRAME_META_MAX);
    w->bus = bus_new(1);
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    snprintf(w->ipc, sizeof w->ipc, "ipc:///tmp/admin_test.%d", (int)getpid());
    if (bus_key_new(&w->server) || bus_key_new(&w->key) || bus_zap_start(w->bus))
        return -1;
    const char *rpc[] = {w->ipc, "tcp://127.0.0.1:0"};
    struct admin_key k = {.name = "ops", .key = w->key.public_key, .role = ADMIN_ROLE_VIEWER};
    struct admin_config c = {.bus = w->bus,
                             .loop = w->loop,
                             .rpc = rpc,
                             .rpc_count = 2,
                             .key = &w->server,
                             .keys = &k,
                             .key_count = 1,
                             .name = "t1",
                             .version = "0",
                             .ask_node = ask_node,
                             .node_arg = w};
    if (admin_open(&w->admin, &c, &failed) || admin_endpoint(w->admin, 1, w->tcp, sizeof w->tcp))
        return -1;
    open_local(w, &w->local);
    return 0;
}

static int tear_down(void **state) {
    struct world *w = *state;
    bus_peer_close(w->local.peer);
    bus_peer_close(w->remote.peer);
    bus_peer_close(w->other.peer);
    bus_peer_close(w->scheduler);
    admin_close(w->admin);
    loop_free(w->loop);
    bus_free(w->bus);
    unlink(w->ipc + strlen("ipc://"));
    buf_deinit(&w->pack);
    free(w);
    return 0;
}

/* -- the audit -- */

static void a_change_waits_until_its_audit_is_durable(void **state) {
    struct world *w = *state;
    w->audit_silent = true;
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 5, VERB(RETRY));
    wait_for(w, &w->asked_count, 1);
    pass_time(w);
    assert_int_equal(w->asked_count, 1); /* nothing but the audit */
    assert_int_equal(w->asked[0].stage, BEGUN);
    assert_int_equal(w->asked[0].verb, VERB(RETRY));
    assert_string_equal(w->asked[0].actor, "unix:eve");
    assert_string_equal(w->asked[0].what, "domain:there.test");
    assert_string_equal(w->asked[0].origin, "ipc");
    assert_int_equal(w->local.count, 0);
    w->audit_silent = false;
    scheduler_answer(w, w->asked[0].correlation, ERR_OK, 0, true);
    wait_for(w, &w->local.count, 1);
    wait_for(w, &w->asked_count, 3);
    assert_int_equal(w->asked[1].stage, 0);
    assert_int_equal(w->asked[1].verb, VERB(RETRY));
    assert_string_equal(w->asked[1].actor, "unix:eve");
    assert_int_equal(w->asked[2].stage, DONE);
    assert_int_equal(w->asked[2].count, 7);
    assert_int_equal(w->local.got[0].correlation, 5);
    assert_int_equal(w->local.got[0].error, 0);
    assert_int_equal(w->local.got[0].count, 7);
    assert_true(w->local.got[0].last);
}

static void without_its_audit_nothing_is_changed(void **state) {
    struct world *w = *state;
    w->audit_error = ERR_IO;
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 1, VERB(DELETE));
    wait_for(w, &w->local.count, 1);
    assert_int_equal(w->local.got[0].error, -ERR_IO);
    assert_non_null(strstr(w->local.got[0].text, "nothing was changed"));
    pass_time(w);
    for (size_t i = 0; i < w->asked_count; i++)
        assert_int_not_equal(w->asked[i].stage, 0); /* it was never passed on */
    assert_int_equal(w->asked[w->asked_count - 1].stage, REFUSED);
    ask(&w->local, 2, VERB(DRAIN)); /* the node's own changes neither */
    wait_for(w, &w->local.count, 2);
    assert_int_equal(w->local.got[1].error, -ERR_IO);
    assert_int_equal(w->ticket_count, 0);
}

static void a_failed_change_says_so_in_the_audit(void **state) {
    struct world *w = *state;
    w->silent = true;
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 1, VERB(HOLD));
    wait_for(w, &w->asked_count, 2);
    scheduler_answer(w, w->asked[1].correlation, ERR_OK, 3, false); /* how far it is */
    wait_for(w, &w->local.count, 1);
    assert_false(w->local.got[0].last);
    assert_int_equal(w->asked_count, 2);
    scheduler_answer(w, w->asked[1].correlation, ERR_FULL, 4, true);
    wait_for(w, &w->asked_count, 3);
    assert_int_equal(w->asked[2].stage, DONE);
    assert_int_equal(w->asked[2].count, 4);
    assert_int_equal(w->asked[2].error, -ERR_FULL);
}

static void questions_and_dry_runs_are_not_audited(void **state) {
    struct world *w = *state;
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 1, VERB(QUEUE_LIST));
    wait_for(w, &w->local.count, 1);
    Words__AdminRequest q = request(VERB(BOUNCE));
    q.has_dry_run = q.dry_run = true;
    send_request(&w->local, 2, &q);
    wait_for(w, &w->local.count, 2);
    assert_int_equal(w->asked_count, 2);
    assert_int_equal(w->asked[0].stage | w->asked[1].stage, 0);
    q.verb = VERB(DRAIN); /* there is no such thing */
    send_request(&w->local, 3, &q);
    wait_for(w, &w->local.count, 3);
    assert_int_equal(w->local.got[2].error, -ERR_UNSUPPORTED);
    assert_int_equal(w->ticket_count, 0);
}

static int audit_levels[LOG_LEVEL_ERROR + 1];

static void on_event(enum log_level level, const char *event, const struct log_field *fields, size_t count) {
    (void)fields;
    (void)count;
    audit_levels[level] += strcmp(event, "audit") == 0;
}

static void without_a_scheduler_the_log_is_the_audit(void **state) {
    struct world *w = *state;
    memset(audit_levels, 0, sizeof audit_levels);
    log_set_tap(on_event);
    ask(&w->local, 1, VERB(DRAIN));
    wait_for(w, &w->ticket_count, 1);
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_text = true;
    r.text = frame_bytes(SPAN("fine"));
    admin_node_reply(w->admin, w->tickets[0], &r);
    admin_node_reply(w->admin, w->tickets[0], &r); /* it is over */
    wait_for(w, &w->local.count, 1);
    assert_string_equal(w->local.got[0].text, "fine");
    ask(&w->local, 2, VERB(RETRY));
    wait_for(w, &w->local.count, 2);
    assert_int_equal(w->local.got[1].error, -ERR_UNREACHABLE);
    pass_time(w);
    assert_int_equal(w->local.count, 2);
    assert_int_equal(audit_levels[LOG_LEVEL_ERROR], 4); /* whatever the level of the log is */
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 3, VERB(RETRY));
    wait_for(w, &w->local.count, 3);
    log_set_tap(NULL);
    assert_int_equal(audit_levels[LOG_LEVEL_ERROR], 4);
    assert_int_equal(audit_levels[LOG_LEVEL_INFO], 2);
}

/* -- keys and roles -- */

static void a_key_has_its_role_and_its_name(void **state) {
    struct world *w = *state;
    hello(w, ROLE_SCHEDULER);
    open_remote(w, &w->remote);
    ask(&w->remote, 1, VERB(QUEUE_LIST));
    wait_for(w, &w->remote.count, 1);
    assert_int_equal(w->remote.got[0].error, 0);
    assert_string_equal(w->asked[0].actor, "ops"); /* whatever the tool says */
    ask(&w->remote, 2, VERB(RETRY));
    wait_for(w, &w->remote.count, 2);
    assert_int_equal(w->remote.got[1].error, -ERR_DENIED);
    assert_string_equal(w->remote.got[1].text, "the key ops (viewer) may not retry: it takes the role operator");
    wait_for(w, &w->asked_count, 2);
    assert_int_equal(w->asked[1].stage, REFUSED);
    assert_int_equal(w->asked[1].verb, VERB(RETRY));
    assert_int_equal(w->asked[1].error, -ERR_DENIED);
    assert_int_equal(w->asked[1].role, ADMIN_ROLE_VIEWER);
    assert_string_equal(w->asked[1].actor, "ops");
    assert_string_equal(w->asked[1].origin, "tcp");
}

static void roles_change_at_once(void **state) {
    struct world *w = *state;
    hello(w, ROLE_SCHEDULER);
    open_remote(w, &w->remote);
    assert_int_equal(set_role(w, ADMIN_ROLE_OPERATOR), ERR_OK);
    ask(&w->remote, 1, VERB(RETRY));
    wait_for(w, &w->remote.count, 1);
    assert_int_equal(w->remote.got[0].error, 0);
    ask(&w->remote, 2, VERB(DRAIN));
    wait_for(w, &w->remote.count, 2);
    assert_int_equal(w->remote.got[1].error, -ERR_DENIED);
    assert_int_equal(set_role(w, ADMIN_ROLE_ADMIN), ERR_OK);
    ask(&w->remote, 3, VERB(DRAIN));
    wait_for(w, &w->ticket_count, 1);
    assert_int_equal(set_role(w, ADMIN_ROLE_NONE), ERR_OK); /* removed */
    ask(&w->remote, 4, VERB(QUEUE_LIST));
    pass_time(w);
    assert_int_equal(w->remote.count, 2);
}

static void bad_lists_of_keys_leave_the_old_one(void **state) {
    struct world *w = *state;
    struct admin_key bad[] = {{"ops", w->key.public_key, ADMIN_ROLE_ADMIN}, {"two", w->key.public_key, 1}};
    hello(w, ROLE_SCHEDULER);
    assert_int_equal(admin_set_keys(w->admin, bad, 2), ERR_INVALID);
    open_remote(w, &w->remote);
    ask(&w->remote, 1, VERB(RETRY));
    wait_for(w, &w->remote.count, 1);
    assert_int_equal(w->remote.got[0].error, -ERR_DENIED); /* still a viewer */
}

static void on_inside(void *arg, const Words__AdminReply *r) {
    keep(arg, 0, r);
}

static void questions_from_inside_have_a_role_too(void **state) {
    struct world *w = *state;
    struct admin_caller who = {.actor = "ann", .role = ADMIN_ROLE_VIEWER, .origin = "http 192.0.2.1"};
    Words__AdminRequest q = request(VERB(HOLD));
    uint64_t number;
    hello(w, ROLE_SCHEDULER);
    w->other.w = w;
    assert_int_equal(admin_ask(w->admin, &q, &who, on_inside, &w->other, &number), ERR_OK);
    wait_for(w, &w->other.count, 1);
    assert_int_equal(w->other.got[0].error, -ERR_DENIED);
    who.role = ADMIN_ROLE_OPERATOR;
    assert_int_equal(admin_ask(w->admin, &q, &who, on_inside, &w->other, &number), ERR_OK);
    wait_for(w, &w->other.count, 2);
    assert_int_equal(w->other.got[1].error, 0);
    wait_for(w, &w->asked_count, 4);
    assert_int_equal(w->asked[1].stage, BEGUN);
    assert_string_equal(w->asked[1].actor, "ann");
    assert_string_equal(w->asked[1].origin, "http 192.0.2.1");
}

/* -- what is malformed, too much, or too often -- */

static void send_raw(struct tool *t, struct span header, struct span meta) {
    assert_int_equal(bus_peer_send(t->peer, header, meta, NULL), ERR_OK);
}

static void what_is_malformed_is_refused_and_recorded(void **state) {
    struct world *w = *state;
    static char big[70000];
    uint8_t h[FRAME_HEADER_LEN];
    hello(w, ROLE_SCHEDULER);
    send_raw(&w->local, SPAN("nonsense"), SPAN("x")); /* no frame: no answer */
    frame_header(h, FRAME_JOB, 1, 0, SPAN("x"));
    send_raw(&w->local, span_make(h, sizeof h), SPAN("x")); /* another kind: no answer */
    frame_header(h, FRAME_ADMIN_REQUEST, 3, 0, SPAN("x"));
    send_raw(&w->local, span_make(h, sizeof h), SPAN("y")); /* wrong checksum: no answer */
    wait_for(w, &w->asked_count, 3);
    frame_header(h, FRAME_ADMIN_REQUEST, 4, 0, SPAN("\xff\xff"));
    send_raw(&w->local, span_make(h, sizeof h), SPAN("\xff\xff")); /* no request */
    wait_for(w, &w->local.count, 1);
    assert_int_equal(w->local.got[0].correlation, 4);
    assert_int_equal(w->local.got[0].error, -ERR_INVALID);
    frame_header(h, FRAME_ADMIN_REQUEST, 5, 0, SPAN("x"));
    h[2] = FRAME_VERSION + 1;
    send_raw(&w->local, span_make(h, sizeof h), SPAN("x")); /* another version */
    wait_for(w, &w->local.count, 2);
    assert_int_equal(w->local.got[1].error, -ERR_VERSION);
    pass_time(w);
    for (size_t i = 0; i < w->asked_count; i++)
        assert_int_equal(w->asked[i].stage, REFUSED);
    Words__AdminRequest q = request(VERB(QUEUE_LIST));
    q.filter = frame_bytes(span_make(big, sizeof big));
    send_request(&w->local, 6, &q); /* too long */
    wait_for(w, &w->local.count, 3);
    assert_int_equal(w->local.got[2].error, -ERR_RANGE);
}

static void nobody_but_the_service_writes_the_audit(void **state) {
    struct world *w = *state;
    Words__AdminAudit u = WORDS__ADMIN_AUDIT__INIT;
    Words__AdminRequest q = request(VERB(AUDIT_PUT));
    hello(w, ROLE_SCHEDULER);
    u.actor = frame_bytes(SPAN("forged"));
    q.audit = &u;
    send_request(&w->local, 1, &q);
    wait_for(w, &w->local.count, 1);
    assert_int_equal(w->local.got[0].error, -ERR_UNSUPPORTED);
    q.verb = (Words__AdminVerb)999;
    send_request(&w->local, 2, &q);
    wait_for(w, &w->local.count, 2);
    assert_int_equal(w->local.got[1].error, -ERR_UNSUPPORTED);
    q.verb = VERB(QUEUE_LIST);
    send_request(&w->local, 3, &q);
    wait_for(w, &w->local.count, 3);
    for (size_t i = 0; i < w->asked_count; i++)
        assert_string_not_equal(w->asked[i].actor, "forged");
}

static void a_repeated_request_is_not_done_twice(void **state) {
    struct world *w = *state;
    w->silent = true;
    hello(w, ROLE_SCHEDULER);
    ask(&w->local, 9, VERB(DELETE));
    ask(&w->local, 9, VERB(DELETE));
    wait_for(w, &w->asked_count, 3); /* begun, refused, and the one change */
    pass_time(w);
    size_t changes = 0, refused = 0;
    for (size_t i = 0; i < w->asked_count; i++) {
        changes += w->asked[i].stage == 0;
        refused += w->asked[i].stage == REFUSED;
    }
    assert_int_equal(changes, 1);
    assert_int_equal(refused, 1);
    assert_int_equal(w->local.count, 0);
}

static void one_tool_does_not_starve_the_others(void **state) {
    struct world *w = *state;
    w->silent = true;
    hello(w, ROLE_SCHEDULER);
    for (uint64_t i = 1; i <= 40; i++)
        ask(&w->local, i, VERB(QUEUE_LIST));
    wait_for(w, &w->local.count, 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(w->local.got[i].error, -ERR_FULL);
    w->silent = false;
    open_local(w, &w->other);
    ask(&w->other, 1, VERB(QUEUE_LIST));
    wait_for(w, &w->other.count, 1);
    assert_int_equal(w->other.got[0].error, 0);
}

/* The store keeps so many records: who may change nothing must not push out those of changes. */
static void nor_does_a_rain_of_them(void **state) {
    (void)state;
    static struct admin a;
    unsigned kept[2] = {0, 0};
    for (uint64_t second = 1; second < 7200; second += 10) {
        unsigned in_second = 0;
        for (unsigned i = 0; i < 8; i++)
            in_second += admin_audit_has_room(&a, second * 1000 + i);
        assert_true(in_second <= 5);
        kept[second / 3600] += in_second;
    }
    assert_int_equal(kept[0], 500);
    assert_int_equal(kept[1], 500);
}

static void a_storm_of_refusals_does_not_fill_the_audit(void **state) {
    struct world *w = *state;
    hello(w, ROLE_SCHEDULER);
    open_remote(w, &w->remote);
    for (uint64_t i = 1; i <= 60; i++)
        ask(&w->remote, i, VERB(DELETE));
    wait_for(w, &w->remote.count, 60);
    pass_time(w);
    assert_in_range(w->asked_count, 1, 30);
}

static void the_end_of_a_change_is_recorded_though_its_tool_has_gone(void **state) {
    struct world *w = *state;
    w->silent = true;
    hello(w, ROLE_SCHEDULER);
    open_remote(w, &w->remote);
    assert_int_equal(set_role(w, ADMIN_ROLE_OPERATOR), ERR_OK);
    ask(&w->remote, 1, VERB(RETRY));
    wait_for(w, &w->asked_count, 2);
    ask(&w->remote, 2, VERB(QUEUE_LIST));
    wait_for(w, &w->asked_count, 3);
    bus_peer_close(w->remote.peer);
    w->remote.peer = NULL;
    pass_time(w);
    for (int i = 0; i < 3; i++) { /* as long as it speaks to nobody */
        scheduler_answer(w, w->asked[2].correlation, ERR_OK, 1, false);
        scheduler_answer(w, w->asked[1].correlation, ERR_OK, 2, false);
    }
    scheduler_answer(w, w->asked[1].correlation, ERR_OK, 3, true);
    wait_for(w, &w->asked_count, 4);
    assert_int_equal(w->asked[3].stage, DONE);
    assert_int_equal(w->asked[3].count, 3);
}

static void what_a_role_says_unasked_is_ignored(void **state) {
    struct world *w = *state;
    hello(w, ROLE_SCHEDULER);
    scheduler_answer(w, 12345, ERR_OK, 1, true);
    scheduler_answer(w, UINT64_C(1) << 63 | 999, ERR_IO, 1, true);
    ask(&w->local, 1, VERB(RETRY));
    wait_for(w, &w->asked_count, 3);
    scheduler_answer(w, w->asked[0].correlation, ERR_OK, 1, true); /* the audit, again */
    scheduler_answer(w, w->asked[1].correlation, ERR_OK, 1, true); /* the answer, again */
    pass_time(w);
    assert_int_equal(w->local.count, 1);
    assert_int_equal(w->asked_count, 3);
}

static void doors_that_cannot_be_opened_are_named(void **state) {
    struct world *w = *state;
    struct bus *bus = bus_new(1);
    struct admin *a = NULL;
    const char *failed, *rpc[] = {"tcp://127.0.0.1:0"};
    struct admin_config c = {
        .bus = bus, .loop = w->loop, .rpc = rpc, .rpc_count = 1, .key = &w->server, .name = "t2", .version = "0"};
    assert_int_equal(admin_open(&a, &c, &failed), ERR_CLOSED); /* no handler of keys: it would be open to all */
    assert_string_equal(failed, rpc[0]);
    assert_null(a);
    pass_time(w); /* what was opened is closed on the loop */
    bus_free(bus);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_change_waits_until_its_audit_is_durable),
        TEST(without_its_audit_nothing_is_changed),
        TEST(a_failed_change_says_so_in_the_audit),
        TEST(questions_and_dry_runs_are_not_audited),
        TEST(without_a_scheduler_the_log_is_the_audit),
        TEST(a_key_has_its_role_and_its_name),
        TEST(roles_change_at_once),
        TEST(bad_lists_of_keys_leave_the_old_one),
        TEST(questions_from_inside_have_a_role_too),
        TEST(what_is_malformed_is_refused_and_recorded),
        TEST(nobody_but_the_service_writes_the_audit),
        TEST(a_repeated_request_is_not_done_twice),
        TEST(one_tool_does_not_starve_the_others),
        TEST(a_storm_of_refusals_does_not_fill_the_audit),
        TEST(nor_does_a_rain_of_them),
        TEST(the_end_of_a_change_is_recorded_though_its_tool_has_gone),
        TEST(what_a_role_says_unasked_is_ignored),
        TEST(doors_that_cannot_be_opened_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
