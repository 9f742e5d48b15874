/* RCPT TO with slow directories: the order of sources and forms, tags, case, catch-alls, what cannot be known, many
 * questions, cancels, SRS, warnings, and what a reload keeps. The directories are scripted here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "gateway/directory/backend.h"
#include "gateway/directory/recipients_set.h"
#include "gateway/directory/srs.h"

#define DAY_MS 86400000ull

/* -- directories that follow a script: "address answer targets", one a line -- */

struct fake {
    struct backend base;
    const char *script;
    bool holds;
    struct list held;
    int asked;
    char log[4000]; /* what was asked */
};
static struct fake *fakes[2];
static struct directory *directories[2];

static void answer(struct fake *f, struct backend_question *q) {
    struct backend_reply r = {.err = ERR_OK, .status = DIRECTORY_UNKNOWN, .why = SPAN("as scripted")};
    struct span rest = span_of(f->script);
    while (rest.len) {
        struct span line = span_cut(rest, '\n', &rest), word, targets, address = span_cut(line, ' ', &word);
        word = span_cut(word, ' ', &targets);
        if (!span_eq(address, q->address))
            continue;
        r.status = DIRECTORY_FOUND;
        r.targets = targets;
        if (span_eq(word, SPAN("down")))
            r.err = ERR_TIMEOUT;
        else if (span_eq(word, SPAN("unsure")))
            r.status = DIRECTORY_TEMPFAIL;
        else
            r.kind = span_eq(word, SPAN("alias"))     ? TABLE_ALIAS
                     : span_eq(word, SPAN("forward")) ? TABLE_FORWARD
                     : span_eq(word, SPAN("keep"))    ? TABLE_FORWARD_KEEP
                                                      : TABLE_MAILBOX;
        break;
    }
    if (strncmp(f->script, "chain", 5) == 0) { /* "N": an alias of "N+1" without end */
        static char next[40];
        uint64_t n;
        assert_true(span_u64(q->key, &n));
        snprintf(next, sizeof next, "%d", (int)n + 1);
        r = (struct backend_reply){.status = DIRECTORY_FOUND, .kind = TABLE_ALIAS, .targets = span_of(next)};
    }
    backend_answer(q, &r);
}

static void fake_ask(struct backend *b, struct backend_question *q) {
    struct fake *f = (struct fake *)b;
    size_t at = strlen(f->log);
    f->asked++;
    if (at + q->address.len + 2 < sizeof f->log)
        snprintf(f->log + at, sizeof f->log - at, "%.*s ", SPAN_FMT(q->address));
    if (f->holds)
        list_push_back(&f->held, &q->node);
    else
        answer(f, q);
}

static void fake_release(struct fake *f) {
    struct list_node *node;
    while ((node = list_pop_front(&f->held)))
        answer(f, LIST_ENTRY(node, struct backend_question, node));
}

static void fake_close(struct backend *b) {
    free(b);
}

static struct fake *made;

static int make_fake(struct backend **b, const struct directory_config *c, struct buf *problems) {
    static const struct backend_ops ops = {fake_ask, fake_close};
    (void)c;
    (void)problems;
    made = calloc(1, sizeof *made);
    made->base.ops = &ops;
    list_init(&made->held);
    *b = &made->base;
    return ERR_OK;
}

/* -- the set -- */

static struct recipients *r;
static struct loop *loop;
static struct post *home;
static struct arena mem;
static struct buf steps, problems;
static char path[100];

static void make_directory(int n, const char *script, bool catch_all) {
    struct directory_config c = {
        .kind = DIRECTORY_LDAP, .name = n ? "two" : "one", .breaker_failures = 1000, .catch_all = catch_all};
    directory_unref(directories[n]);
    assert_int_equal(directory_new_with(&directories[n], &c, make_fake, &problems), ERR_OK);
    fakes[n] = made;
    made->script = script;
}

static struct table *load(void *arg, const char *file, const struct span *names, size_t count) {
    struct table *t = NULL;
    (void)arg;
    assert_int_equal(table_load(&t, file, names, count, &problems), ERR_OK);
    return t;
}

static void write_table(const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* sources: letters t (table), 1, 2 (directories), a (any) */
static void make_set(const char *sources, const char *tag, bool case_sensitive) {
    static const char *const secrets[] = {"0123456789abcdef"};
    const struct srs_config srs = {.domain = "example.net", .secrets = secrets, .secret_count = 1, .max_age_days = 21};
    const struct recipients_files files = {.table = load};
    struct recipients_asked s[8];
    struct recipients_domain d = {.name = SPAN("example.net"),
                                  .sources = s,
                                  .count = strlen(sources),
                                  .tag = span_of(tag),
                                  .case_sensitive = case_sensitive};
    for (size_t i = 0; i < d.count; i++) {
        s[i] = (struct recipients_asked){0};
        switch (sources[i]) {
        case 't':
            s[i].kind = RECIPIENTS_TABLE;
            s[i].path = path;
            break;
        case 'a':
            s[i].kind = RECIPIENTS_ANY;
            break;
        default:
            s[i].kind = RECIPIENTS_DIRECTORY;
            s[i].directory = directories[sources[i] - '1'];
        }
    }
    recipients_unref(r);
    r = recipients_set_new(1, d.count);
    assert_non_null(r);
    assert_int_equal(recipients_set_add(r, &d), ERR_OK);
    assert_int_equal(address_parse(&r->postmaster, SPAN("pm@far.example"), &r->mem), ERR_OK);
    assert_int_equal(recipients_set_srs(r, &srs), ERR_OK);
    assert_int_equal(recipients_set_open(r, &files), ERR_OK);
}

static int setup(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/recipients_ask.XXXXXX");
    int fd = mkstemp(path);
    close(fd);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    loop = loop_new();
    home = post_new(loop);
    arena_init(&mem, 4096, 0);
    buf_init(&steps, 1 << 20);
    buf_init(&problems, 1 << 16);
    return fd >= 0 && home ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    recipients_unref(r);
    directory_unref(directories[0]);
    directory_unref(directories[1]);
    directory_settle();
    post_free(home);
    loop_free(loop);
    arena_deinit(&mem);
    buf_deinit(&steps);
    buf_deinit(&problems);
    unlink(path);
    return 0;
}

/* -- asking -- */

struct asked {
    struct recipients_wait *wait;
    char text[4000];
    int calls;
};

static void write_answer(struct asked *q, const struct recipients_answer *a) {
    static const char *const verdicts[] = {"local", "relay", "unknown", "no_relay", "unroutable", "forged", "tempfail"};
    int len = snprintf(q->text, sizeof q->text, "%s %.*s", verdicts[a->verdict], SPAN_FMT(a->enhanced));
    for (size_t i = 0; i < a->count; i++) {
        const struct recipients_target *t = &a->targets[i];
        len += snprintf(q->text + len, sizeof q->text - (size_t)len, "%c%s%.*s%s", i ? ',' : ' ', t->local ? "*" : "",
                        SPAN_FMT(t->address), t->return_path.len ? "!" : "");
        assert_true(!t->return_path.len || span_starts_nocase(t->return_path, SPAN("SRS0=")));
    }
}

static void on_answer(void *arg, const struct recipients_answer *a) {
    struct asked *q = arg;
    q->calls++;
    q->wait = NULL;
    write_answer(q, a);
    loop_stop(loop);
}

static const char *sender = "s@origin.example";
static uint64_t now_ms = 20000 * DAY_MS;

static int begin(struct asked *q, const char *address) {
    char copy[400];
    struct address a, from = {0};
    struct arena own; /* what is asked may go at once */
    struct recipients_answer out;
    arena_init(&own, 512, 0);
    snprintf(copy, sizeof copy, "%s", address);
    memset(q, 0, sizeof *q);
    assert_int_equal(address_parse(&a, span_of(copy), &own), ERR_OK);
    if (sender && *sender) /* empty: the null path */
        assert_int_equal(address_parse(&from, span_of(sender), &own), ERR_OK);
    struct recipients_caller who = {.wall_ms = now_ms, .sender = sender ? &from : NULL};
    int err = recipients_ask(r, home, &a, &who, &mem, &out, &q->wait, on_answer, q, &steps);
    arena_deinit(&own);
    memset(copy, 'x', sizeof copy);
    assert_int_equal(q->calls, 0);
    assert_true((err == ERR_AGAIN) == (q->wait != NULL));
    if (err == ERR_OK)
        write_answer(q, &out);
    return err;
}

static const char *ask(const char *address) {
    static struct asked q;
    arena_reset(&mem);
    buf_clear(&steps);
    int err = begin(&q, address);
    if (err == ERR_AGAIN) {
        loop_run(loop);
        assert_int_equal(q.calls, 1);
    } else {
        assert_int_equal(err, ERR_OK);
    }
    return q.text;
}

static bool told(const char *words) {
    return strstr(buf_cstr(&steps), words) != NULL;
}

/* -- tests -- */

/* The return path of mail that we forward for this sender. */
static const char *rewritten(const char *from) {
    static char text[400];
    struct address a;
    struct span path_back;
    struct arena own;
    arena_init(&own, 1024, 0);
    assert_int_equal(address_parse(&a, span_of(from), &own), ERR_OK);
    assert_int_equal(srs_forward(&r->srs, &a, now_ms, &own, &path_back), ERR_OK);
    span_copy(path_back, text, sizeof text);
    arena_deinit(&own);
    return text;
}

static const char *tagged(const char *address, uint64_t wall_ms) {
    static char text[400];
    struct arena own;
    arena_init(&own, 512, 0);
    struct span t = batv_sign(r->batv, span_of(address), wall_ms, &own);
    assert_true(t.len > 0);
    span_copy(t, text, sizeof text);
    arena_deinit(&own);
    return text;
}

/* The directory is asked for the plain address, whatever the tag is like, and what it says comes first. */
static void tags(void **state) {
    (void)state;
    static const char *const domains[] = {"example.net"}, *const words[] = {"a secret of sixteen octets"};
    const struct batv_config config = {domains, 1, words, 1, 7, true};
    make_directory(0, "dora@example.net mailbox\nout@example.net forward x@far.example\nshaky@example.net unsure",
                   false);
    make_set("1", "+", false);
    assert_int_equal(batv_new(&r->batv, &config), ERR_OK);
    sender = "";
    assert_string_equal(ask(tagged("dora@example.net", now_ms)), "local 2.1.5 *dora@example.net");
    assert_true(told("a return path with a BATV tag of ours\n") && told("dora@example.net: mailbox (directory one"));
    assert_string_equal(ask(tagged("dora+x@example.net", now_ms)), "local 2.1.5 *dora+x@example.net");
    assert_string_equal(ask(tagged("out@example.net", now_ms)), "local 2.1.5 x@far.example");
    assert_string_equal(ask(tagged("dora@example.net", now_ms - 8 * DAY_MS)), "forged 5.7.1");
    assert_true(told("a BATV tag that has expired\n"));
    assert_string_equal(ask("prvs=0000000000=dora@example.net"), "forged 5.7.1");
    assert_string_equal(ask("prvs=0000000000=out@example.net"), "forged 5.7.1");
    assert_true(told("a BATV tag that we did not make\n"));
    assert_string_equal(ask("prvs=0000000000=nobody@example.net"), "unknown 5.1.1");
    assert_string_equal(ask(tagged("nobody@example.net", now_ms)), "unknown 5.1.1");
    assert_string_equal(ask("prvs=0000000000=shaky@example.net"), "tempfail 4.3.0");
    assert_string_equal(ask("prvs=0000000000=a%b@example.net"), "no_relay 5.7.1");
    assert_string_equal(ask("prvs=0000000000=prvs=0000000000=dora@example.net"), "forged 5.7.1");
    assert_string_equal(ask("dora@example.net"), "forged 5.7.1"); /* it needs one */
    assert_string_equal(ask("nobody@example.net"), "unknown 5.1.1");
    assert_string_equal(ask("postmaster@example.net"), "local 2.1.5 pm@far.example");
    assert_string_equal(ask(rewritten("s@origin.example")), "local 2.1.5 s@origin.example"); /* has proof of its own */
    assert_string_equal(ask("SRS0=AAAAAAAA=AA=origin.example=s@example.net"), "unknown 5.1.1");
    sender = "s@origin.example";
    assert_string_equal(ask("dora@example.net"), "local 2.1.5 *dora@example.net");
    assert_string_equal(ask("prvs=0000000000=dora@example.net"), "forged 5.7.1");
    sender = NULL;
    assert_string_equal(ask("dora@example.net"), "local 2.1.5 *dora@example.net");
    assert_true(told("from the null sender it would need a BATV tag\n"));
    sender = "s@origin.example";
}

static void order(void **state) {
    (void)state;
    write_table("tom\nlist: tom, dora, elsa\n@example.net > catch@far.example\n");
    make_directory(0,
                   "dora@example.net mailbox\ntom@example.net forward t@far.example\n"
                   "shaky@example.net unsure\nbroken@example.net down",
                   false);
    make_directory(1, "elsa@example.net alias dora\nshaky@example.net mailbox\ntom+x@example.net keep x@far.example",
                   false);
    make_set("t12", "+", false);
    assert_string_equal(ask("Tom@example.net"), "local 2.1.5 *Tom@example.net"); /* the first that knows */
    assert_int_equal(fakes[0]->asked + fakes[1]->asked, 0);
    assert_string_equal(ask("dora@example.net"), "local 2.1.5 *dora@example.net");
    assert_int_equal(fakes[1]->asked, 0);
    assert_true(told("dora@example.net: mailbox (directory one: as scripted)\n"));
    assert_string_equal(ask("dora@example.net"), "local 2.1.5 *dora@example.net");
    assert_true(told("(directory one: as scripted; from the cache)\n"));
    assert_string_equal(ask("elsa@example.net"), "local 2.1.5 *dora@example.net");
    assert_true(told("elsa@example.net: unknown (directory one: as scripted)\n"
                     "elsa@example.net: alias (directory two: as scripted)\n"
                     "  dora@example.net: mailbox (directory one"));
    assert_string_equal(ask("list@example.net"), "local 2.1.5 *tom@example.net,*dora@example.net");
    /* one that cannot tell, though a later one would know */
    assert_string_equal(ask("shaky@example.net"), "tempfail 4.3.0");
    assert_true(told("shaky@example.net: cannot be known now (directory one: as scripted)\n"));
    assert_string_equal(ask("broken@example.net"), "tempfail 4.3.0");
    /* a name that a later one knows with its tag, before the name that an earlier one knows without */
    assert_string_equal(ask("tom+x@example.net"), "local 2.1.5 *tom+x@example.net,x@far.example!");
    assert_string_equal(ask("tom+y@example.net"), "local 2.1.5 *tom+y@example.net");
    /* the catch-all of the first comes after what the others know */
    assert_string_equal(ask("nobody@example.net"), "local 2.1.5 catch@far.example!");
    make_set("21t", "+", false);
    assert_string_equal(ask("shaky@example.net"), "local 2.1.5 *shaky@example.net"); /* an earlier one knew */
    assert_string_equal(ask("broken@example.net"), "tempfail 4.3.0"); /* and the catch-all does not swallow this */
    make_set("1a", "+", false);
    assert_string_equal(ask("tom@example.net"), "local 2.1.5 t@far.example!");
    assert_string_equal(ask("tom+z@example.net"), "local 2.1.5 t@far.example!");
    assert_string_equal(ask("whoever@example.net"), "local 2.1.5 *whoever@example.net");
}

static void forms(void **state) {
    (void)state;
    write_table("tom\n@example.net: rest\nrest\n");
    make_directory(0, "anna@example.net mailbox\na-b@example.net mailbox\n@example.net alias anna", true);
    make_set("1", "-+", false);
    assert_string_equal(ask("ANNA@example.net"), "local 2.1.5 *ANNA@example.net");
    assert_string_equal(ask("anna-x@example.net"), "local 2.1.5 *anna-x@example.net");
    assert_string_equal(ask("anna+x-y@example.net"), "local 2.1.5 *anna+x-y@example.net");
    assert_string_equal(ask("a-b@example.net"), "local 2.1.5 *a-b@example.net");
    assert_string_equal(ask("a-c@example.net"), "local 2.1.5 *anna@example.net");
    assert_true(told("a-c@example.net: unknown (directory one: as scripted)\n"
                     "a-c@example.net: unknown without its tag too (directory one: as scripted)\n"
                     "a-c@example.net: alias by the catch-all (directory one: as scripted)\n"));
    assert_string_equal(fakes[0]->log, "anna@example.net anna-x@example.net anna+x-y@example.net a-b@example.net "
                                       "a-c@example.net a@example.net @example.net ");
    make_directory(0, "anna@example.net mailbox\nBert@example.net mailbox\nbert@example.net forward Bert", false);
    make_set("1", "", true);
    assert_string_equal(ask("anna+x@example.net"), "unknown 5.1.1"); /* no tags, no catch-all */
    assert_string_equal(ask("Anna@example.net"), "unknown 5.1.1");
    assert_string_equal(ask("bert@example.net"), "local 2.1.5 *Bert@example.net"); /* two names, no loop */
    assert_string_equal(fakes[0]->log, "anna+x@example.net Anna@example.net bert@example.net Bert@example.net ");
    /* a table with other tags than its own */
    make_set("t", "", false);
    assert_string_equal(ask("tom@example.net"), "local 2.1.5 *tom@example.net");
    assert_string_equal(ask("tom+x@example.net"), "local 2.1.5 *rest@example.net");
    make_set("t", "-", false);
    assert_string_equal(ask("tom-x@example.net"), "local 2.1.5 *tom-x@example.net");
    assert_string_equal(ask("-x@example.net"), "local 2.1.5 *rest@example.net");
}

static void many_questions(void **state) {
    (void)state;
    struct buf script, line;
    buf_init(&script, 1 << 20);
    buf_init(&line, 1 << 20);
    buf_add_str(&line, "wide: m0");
    for (int i = 0; i < 250; i++) {
        buf_printf(&script, "m%d@example.net mailbox\n", i);
        if (i > 0 && i < 150)
            buf_printf(&line, ", m%d", i);
    }
    buf_add_str(&line, "\nwider: wide");
    for (int i = 150; i < 250; i++)
        buf_printf(&line, ", m%d", i);
    buf_add_str(&line, "\ndead: m0, m1, gone, m2\nshaky: m3, unsure, m4\n");
    buf_add_str(&script, "unsure@example.net unsure\n");
    write_table(buf_cstr(&line));
    make_directory(0, buf_cstr(&script), false);
    make_set("t1", "+", false);
    const char *got = ask("wide@example.net");
    size_t count = 0;
    for (const char *p = got; (p = strchr(p, '*')); p++)
        count++;
    assert_int_equal(count, 150);
    assert_int_equal(fakes[0]->asked, 150);
    assert_string_equal(ask("wider@example.net"), "unroutable 5.4.6"); /* more than 200, cached or not */
    assert_string_equal(ask("dead@example.net"), "unroutable 5.1.1");
    assert_string_equal(ask("shaky@example.net"), "tempfail 4.3.0");
    make_directory(0, "chain", false);
    make_set("1", "+", false);
    assert_string_equal(ask("1@example.net"), "unroutable 5.4.6");
    assert_int_equal(fakes[0]->asked, 21); /* too deep */
    assert_string_equal(ask("postmaster@far.example"), "no_relay 5.7.1");
    buf_deinit(&script);
    buf_deinit(&line);
}

static void hostile_answers(void **state) {
    (void)state;
    make_directory(0,
                   "bad@example.net alias not an address\nloop@example.net alias loop2\n"
                   "loop2@example.net forward loop\nhole@example.net alias a,,b\na@example.net mailbox\n"
                   "pct@example.net alias x%y@example.net",
                   false);
    make_set("1", "+", false);
    assert_string_equal(ask("bad@example.net"), "unroutable 5.1.3");
    assert_string_equal(ask("hole@example.net"), "unroutable 5.1.3");
    assert_string_equal(ask("loop@example.net"), "unroutable 5.4.6");
    assert_string_equal(ask("pct@example.net"), "unroutable 5.7.1");
    char script[2000] = "long@example.net alias ";
    memset(script + strlen(script), 'x', 1500);
    make_directory(0, script, false);
    make_set("1", "+", false);
    assert_string_equal(ask("long@example.net"), "unroutable 5.1.3");
}

static void the_postmaster(void **state) {
    (void)state;
    make_directory(0, "x@example.net mailbox", false);
    make_set("1", "+", false);
    sender = NULL;
    assert_string_equal(ask("postmaster@example.net"), "local 2.1.5 pm@far.example");
    make_directory(0, "postmaster@example.net down", false);
    make_set("1", "+", false);
    assert_string_equal(ask("postmaster@example.net"), "tempfail 4.3.0"); /* may be an alias: not knowable */
    sender = "s@origin.example";
}

static void waits(void **state) {
    (void)state;
    struct asked q[3];
    write_table("list: m1, m2\n");
    make_directory(0, "m1@example.net mailbox\nm2@example.net mailbox", false);
    fakes[0]->holds = true;
    make_set("t1", "+", false);
    arena_reset(&mem);
    buf_clear(&steps);
    assert_int_equal(begin(&q[0], "list@example.net"), ERR_AGAIN);
    assert_int_equal(begin(&q[1], "list@example.net"), ERR_AGAIN);
    assert_int_equal(begin(&q[2], "m1@example.net"), ERR_AGAIN);
    assert_int_equal(fakes[0]->asked, 2); /* both at once, and once for all */
    recipients_cancel(q[0].wait);
    recipients_cancel(NULL);
    recipients_unref(r); /* those who wait hold the set */
    r = NULL;
    fake_release(fakes[0]);
    recipients_cancel(q[2].wait); /* its answer is on the way */
    loop_run(loop);
    assert_int_equal(q[0].calls, 0);
    assert_int_equal(q[1].calls, 1);
    assert_int_equal(q[2].calls, 0);
    assert_string_equal(q[1].text, "local 2.1.5 *m1@example.net,*m2@example.net");
    /* who cannot wait gets "not now", and no question goes out */
    make_directory(0, "m1@example.net mailbox", false);
    make_set("t1", "+", false);
    struct address a;
    struct recipients_answer out;
    assert_int_equal(address_parse(&a, SPAN("m1@example.net"), &mem), ERR_OK);
    assert_int_equal(recipients_judge(r, &a, false, &mem, &out, NULL), ERR_OK);
    assert_int_equal(out.verdict, RECIPIENTS_TEMPFAIL);
    assert_int_equal(fakes[0]->asked, 0);
}

static void rewrites_senders(void **state) {
    (void)state;
    char path_back[200], bent[200];
    write_table("moved > m@far.example, kept\nkept\nout: o@far.example\n");
    make_set("t", "+", false);
    assert_string_equal(ask("moved@example.net"), "local 2.1.5 m@far.example!,*kept@example.net");
    assert_string_equal(ask("out@example.net"), "local 2.1.5 o@far.example!");
    static const char *const plain[] = {"x@example.net", NULL}; /* ours, and the null path */
    for (int i = 0; i < 2; i++) {
        sender = plain[i];
        assert_string_equal(ask("moved@example.net"), "local 2.1.5 m@far.example,*kept@example.net");
    }
    sender = "s@origin.example";
    struct address a, from;
    struct recipients_answer out;
    struct recipients_wait *wait;
    assert_int_equal(address_parse(&from, span_of(sender), &mem), ERR_OK);
    assert_int_equal(address_parse(&a, SPAN("out@example.net"), &mem), ERR_OK);
    struct recipients_caller who = {.wall_ms = now_ms, .sender = &from};
    assert_int_equal(recipients_ask(r, home, &a, &who, &mem, &out, &wait, on_answer, NULL, NULL), ERR_OK);
    span_copy(out.targets[0].return_path, path_back, sizeof path_back);
    assert_true(span_ends_nocase(span_of(path_back), SPAN("=origin.example=s@example.net")));
    /* its bounce finds back, for anybody, without a right to relay */
    sender = NULL;
    assert_string_equal(ask(path_back), "local 2.1.5 s@origin.example");
    assert_true(told(": a return path of SRS\n"));
    memcpy(bent, path_back, sizeof bent);
    bent[6] = bent[6] == 'A' ? 'B' : 'A';
    assert_string_equal(ask(bent), "unknown 5.1.1");
    assert_string_equal(ask("srs0=x@example.net"), "unknown 5.1.1");
    now_ms += 40 * DAY_MS;
    assert_string_equal(ask(path_back), "unknown 5.1.1");
    assert_true(told("too old"));
    now_ms -= 40 * DAY_MS;
    sender = "s@origin.example";
}

static void settings(void **state) {
    (void)state;
    static const char *const secrets[] = {"0123456789abcdef", "short"};
    const struct directory_config dir = {.kind = DIRECTORY_LDAP, .name = "staff", .uri = "ldap://h", .base = "dc=x"};
    struct directory_config twin = dir, other = dir;
    const struct recipients_source both[] = {{.kind = RECIPIENTS_DIRECTORY, .directory = &dir},
                                             {.kind = RECIPIENTS_ANY},
                                             {.kind = RECIPIENTS_TABLE, .table = path}},
                                   file_too[] = {{.kind = RECIPIENTS_DIRECTORY, .directory = &twin},
                                                 {.kind = RECIPIENTS_TABLE, .table = path}},
                                   clash[] = {{.kind = RECIPIENTS_DIRECTORY, .directory = &other}},
                                   bad[] = {{.kind = RECIPIENTS_CDB, .table = "/nonexistent/x.cdb"}};
    struct recipients_domain_config domains[] = {
        {.name = "a.example", .sources = both, .source_count = 3},
        {.name = "b.example", .sources = file_too, .source_count = 2, .case_sensitive = true},
        {.name = "c.example", .sources = clash, .source_count = 1},
        {.name = "d.example", .sources = bad, .source_count = 1},
        {.name = "e.example", .sources = bad},
    };
    const char *tag_domains[] = {"b.example"};
    struct srs_config srs = {.domain = "B.Example", .secrets = secrets, .secret_count = 1};
    struct batv_config batv = {.domains = tag_domains, .domain_count = 1, .secrets = secrets, .secret_count = 1};
    struct recipients_config c = {.domains = domains, .count = 2, .postmaster = "x@y", .srs = &srs, .batv = &batv};
    struct recipients *set, *next, *fresh;
    write_table("alice\n");
    buf_clear(&problems);
    assert_int_equal(recipients_new(&set, &c, &problems), ERR_OK);
    const struct directory *staff = recipients_directory_at(set, 0);
    assert_string_equal(directory_name(staff), "staff");
    assert_null(recipients_directory_at(set, 1)); /* one for both domains */
    assert_string_equal(set->srs.domain, "b.example");
    assert_int_equal(recipients_warnings(set, &problems), 3);
    assert_non_null(strstr(buf_cstr(&problems), "domains: a.example: any recipient is accepted"));
    assert_non_null(strstr(buf_cstr(&problems), "domains: a.example: sources behind"));
    assert_non_null(strstr(buf_cstr(&problems), "domains: b.example: tables do not mind"));
    /* new settings keep the living directory, and so do changed tables */
    assert_int_equal(recipients_renew(&next, &c, set, &problems), ERR_OK);
    assert_ptr_equal(recipients_directory_at(next, 0), staff);
    recipients_unref(set);
    unlink(path);
    write_table("bob\n");
    assert_int_equal(recipients_reload(next, &fresh, &problems), ERR_OK);
    assert_non_null(fresh);
    assert_ptr_equal(recipients_directory_at(fresh, 0), staff);
    assert_string_equal(fresh->srs.domain, "b.example");
    assert_true(batv_is_tagged(fresh->batv, SPAN("prvs=0000000000=x@b.example"))); /* after a reload of tables too */
    assert_string_equal(recipients_file(fresh, 0), path);
    assert_null(recipients_file(fresh, 1));
    recipients_unref(next);
    /* others are new ones, also under the same name, which is told */
    other.timeout_ms = 7;
    c.count = 3;
    buf_clear(&problems);
    assert_int_equal(recipients_renew(&next, &c, fresh, &problems), ERR_OK);
    assert_ptr_equal(recipients_directory_at(next, 0), staff);
    assert_ptr_not_equal(recipients_directory_at(next, 1), staff);
    assert_int_equal(recipients_warnings(next, &problems), 4);
    assert_non_null(strstr(buf_cstr(&problems), "directories: staff: two different ones have this name"));
    recipients_unref(fresh);
    recipients_unref(next);
    /* all that is wrong, at once */
    tag_domains[0] = "elsewhere.example";
    srs = (struct srs_config){.domain = "elsewhere.example", .secrets = secrets, .secret_count = 1};
    c.count = 5;
    buf_clear(&problems);
    assert_int_equal(recipients_new(&set, &c, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "/nonexistent/x.cdb"));
    assert_non_null(strstr(buf_cstr(&problems), "domains: e.example: no recipients are named\n"));
    assert_non_null(strstr(buf_cstr(&problems), "srs: elsewhere.example: not one of domains\n"));
    assert_non_null(strstr(buf_cstr(&problems), "batv: elsewhere.example: not one of domains\n"));
    c.batv = NULL;
    srs.domain = "a.example";
    srs.secret_count = 2;
    c.count = 1;
    buf_clear(&problems);
    assert_int_equal(recipients_new(&set, &c, &problems), ERR_INVALID);
    assert_string_equal(buf_cstr(&problems), "srs: a.example: a secret shorter than 16 octets\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order),
        cmocka_unit_test(forms),
        cmocka_unit_test(many_questions),
        cmocka_unit_test(hostile_answers),
        cmocka_unit_test(the_postmaster),
        cmocka_unit_test(waits),
        cmocka_unit_test(rewrites_senders),
        cmocka_unit_test(tags),
        cmocka_unit_test(settings),
    };
    return cmocka_run_group_tests_name("recipients_ask", tests, setup, teardown);
}
