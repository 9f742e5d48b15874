/* What RCPT TO answers: relaying, own domains, aliases and forwards to their ends, loops and bounds, reloads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/directory/recipients.h"

static char dir[64], paths[3][100];
static struct buf problems, steps;
static struct arena mem;
static struct recipients *r;

static void write_file(int n, const char *text) {
    unlink(paths[n]);
    int fd = open(paths[n], O_CREAT | O_WRONLY | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int make(const char *postmaster) {
    struct recipients_domain_config domains[] = {
        {.name = "Example.NET", .table = paths[0]},
        {.name = "example.org", .table = paths[0]},
        {.name = "other.example", .table = paths[1]},
        {.name = "any.example", .directory = RECIPIENTS_ANY},
        {.name = "m\xc3\xbcnchen.example", .directory = RECIPIENTS_ANY},
    };
    struct recipients_config c = {.domains = domains, .count = 5, .postmaster = postmaster};
    recipients_unref(r);
    r = NULL;
    buf_clear(&problems);
    return recipients_new(&r, &c, &problems);
}

static int group_setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/recipients_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    for (int i = 0; i < 3; i++)
        snprintf(paths[i], sizeof paths[i], "%s/t%d", dir, i);
    buf_init(&problems, 1 << 16);
    buf_init(&steps, 1 << 20);
    arena_init(&mem, 4096, 0);
    return 0;
}

static int group_teardown(void **state) {
    (void)state;
    recipients_unref(r);
    for (int i = 0; i < 3; i++)
        unlink(paths[i]);
    rmdir(dir);
    buf_deinit(&problems);
    buf_deinit(&steps);
    arena_deinit(&mem);
    return 0;
}

/* "verdict enhanced target,target": targets of ours are marked '*' */
static const char *judged(const char *address, bool may_relay) {
    static char text[4000];
    static const char *const verdicts[] = {"local", "relay", "unknown", "no_relay", "unroutable", "forged", "tempfail"};
    struct address a;
    struct recipients_answer out;
    char path[400];
    size_t used;
    arena_reset(&mem);
    buf_clear(&steps);
    snprintf(path, sizeof path, "<%s>", address);
    assert_int_equal(address_parse_path(&a, span_of(path), false, true, &mem, &used), ERR_OK);
    assert_int_equal(recipients_judge(r, &a, may_relay, &mem, &out, &steps), ERR_OK);
    int len = snprintf(text, sizeof text, "%s %.*s", verdicts[out.verdict], SPAN_FMT(out.enhanced));
    assert_true(out.text.len > 0);
    for (size_t i = 0; i < out.count; i++) {
        const struct recipients_target *t = &out.targets[i];
        assert_true(t->destination.len && span_ends_nocase(t->address, t->destination));
        assert_int_equal(t->address.at[t->address.len - t->destination.len - 1], '@');
        len += snprintf(text + len, sizeof text - (size_t)len, "%c%s%.*s", i ? ',' : ' ', t->local ? "*" : "",
                        SPAN_FMT(t->address));
    }
    return text;
}

static void relaying(void **state) {
    (void)state;
    write_file(0, "alice\n");
    write_file(1, "# none\n");
    assert_int_equal(make("postmaster@example.net"), ERR_OK);
    static const struct {
        const char *address;
        const char *stranger, *trusted;
    } t[] = {
        {"x@far.example", "no_relay 5.7.1", "relay 2.1.5 x@far.example"},
        {"a%b@far.example", "no_relay 5.7.1", "relay 2.1.5 a%b@far.example"},
        {"x@[192.0.2.1]", "no_relay 5.7.1", "relay 2.1.5 x@[192.0.2.1]"},
        {"x@[127.0.0.1]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@[127.3.2.1]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@[0.0.0.0]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@[IPv6:::1]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@[IPv6:::ffff:127.0.0.1]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@[224.0.0.1]", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"x@sub.example.net", "no_relay 5.7.1", "relay 2.1.5 x@sub.example.net"},
        {"user%far.example@example.net", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"far.example!user@example.net", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"\"user@far.example\"@example.net", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"user%far.example@any.example", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"\"a\\@b\"@any.example", "no_relay 5.7.1", "no_relay 5.7.1"},
        {"@far.example:alice@example.net", "local 2.1.5 *alice@example.net", "local 2.1.5 *alice@example.net"},
        {"@example.net:x@far.example", "no_relay 5.7.1", "relay 2.1.5 x@far.example"},
        {"Alice@EXAMPLE.net", "local 2.1.5 *Alice@example.net", "local 2.1.5 *Alice@example.net"},
        {"alice+tag@example.org", "local 2.1.5 *alice+tag@example.org", "local 2.1.5 *alice+tag@example.org"},
        {"bob@example.net", "unknown 5.1.1", "unknown 5.1.1"},
        {"alice@other.example", "unknown 5.1.1", "unknown 5.1.1"},
        {"ever@any.example", "local 2.1.5 *ever@any.example", "local 2.1.5 *ever@any.example"},
        {"x@M\xc3\xbcnchen.example", "local 2.1.5 *x@xn--mnchen-3ya.example", "local 2.1.5 *x@xn--mnchen-3ya.example"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_string_equal(judged(t[i].address, false), t[i].stranger);
        assert_string_equal(judged(t[i].address, true), t[i].trusted);
    }
}

static void expansion(void **state) {
    (void)state;
    write_file(0, "alice\nbob\n"
                  "sales: alice, bob@elsewhere.example, ALICE@example.net\n"
                  "all: sales, bob, sales, carol\n"
                  "carol > c@far.example, C@far.example, c@far.example\n"
                  "dave >> d@far.example\n"
                  "eve: x@other.example\n"
                  "quoted: \"a b\", \"a, b\"@far.example\n\"a b\"\n"
                  "toany: who@any.example\n");
    write_file(1, "x: alice@example.net, y\ny\n@other.example > catch@far.example\n");
    assert_int_equal(make("postmaster@example.net"), ERR_OK);
    assert_string_equal(judged("sales@example.net", false), "local 2.1.5 *alice@example.net,bob@elsewhere.example");
    assert_string_equal(judged("sales@example.org", false),
                        "local 2.1.5 *alice@example.org,bob@elsewhere.example,*ALICE@example.net");
    assert_string_equal(
        judged("all@example.net", false),
        "local 2.1.5 *alice@example.net,bob@elsewhere.example,*bob@example.net,c@far.example,C@far.example");
    assert_string_equal(judged("dave+in@example.net", false), "local 2.1.5 *dave+in@example.net,d@far.example");
    assert_string_equal(judged("eve@example.net", false), "local 2.1.5 *alice@example.net,*y@other.example");
    assert_string_equal(judged("quoted@example.net", false), "local 2.1.5 *\"a b\"@example.net,\"a, b\"@far.example");
    assert_string_equal(judged("toany@example.net", false), "local 2.1.5 *who@any.example");
    assert_string_equal(judged("nobody@other.example", false), "local 2.1.5 catch@far.example");
    judged("eve@example.net", false);
    char want[600];
    snprintf(want, sizeof want,
             "eve@example.net: alias (%s:7)\n  x@other.example: alias (%s:1)\n    alice@example.net: mailbox (%s:1)\n"
             "    y@other.example: mailbox (%s:2)\n",
             paths[0], paths[1], paths[0], paths[1]);
    assert_string_equal(buf_cstr(&steps), want);
}

static void dead_ends(void **state) {
    (void)state;
    write_file(0, "alice\n"
                  "one: two\ntwo: three\nthree: alice, one\n"
                  "other: back@other.example\n"
                  "gone: alice, nobody\n"
                  "gone2: nobody@other.example\n"
                  "pct: a%b@any.example\n"
                  "lit: x@[127.0.0.1]\n"
                  "keep1 >> keep2\nkeep2 >> keep1\n"
                  "half1 >> half2\nhalf2 > half1\n"
                  "loop1 > loop2\nloop2 > loop1\n"
                  "viatag: viatag2+x\nviatag2: viatag\n");
    write_file(1, "back: other@example.net\n");
    assert_int_equal(make("postmaster@example.net"), ERR_OK);
    assert_string_equal(judged("one@example.net", true), "unroutable 5.4.6");
    assert_non_null(strstr(buf_cstr(&steps), "one@example.net: a loop"));
    assert_string_equal(judged("other@example.net", true), "unroutable 5.4.6");
    assert_string_equal(judged("loop2@example.net", true), "unroutable 5.4.6");
    assert_string_equal(judged("viatag@example.net", true), "unroutable 5.4.6");
    assert_string_equal(judged("gone@example.net", true), "unroutable 5.1.1");
    assert_string_equal(judged("gone2@example.net", true), "unroutable 5.1.1");
    assert_string_equal(judged("pct@example.net", true), "unroutable 5.7.1");
    assert_string_equal(judged("lit@example.net", true), "unroutable 5.4.6");
    assert_string_equal(judged("keep1@example.net", true), "local 2.1.5 *keep1@example.net,*keep2@example.net");
    assert_string_equal(judged("keep2@example.net", true), "local 2.1.5 *keep2@example.net,*keep1@example.net");
    assert_string_equal(judged("half1@example.net", true), "local 2.1.5 *half1@example.net");
    assert_string_equal(judged("half2@example.net", true), "unroutable 5.4.6");
}

static void bounds(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 21; i++)
        buf_printf(&text, "deep%d: deep%d\n", i, i + 1);
    buf_add_str(&text, "deep21\n");
    for (int i = 0; i < 1001; i++)
        buf_printf(&text, "m%d\n", i);
    buf_add_str(&text, "wide: m0");
    for (int i = 1; i < 1000; i++)
        buf_printf(&text, ",m%d", i);
    buf_add_str(&text, "\nwider: wide, m1000\n");
    /* twelve lists of a thousand, all the same: little to deliver, much to walk */
    for (int k = 0; k < 12; k++) {
        buf_printf(&text, "list%d: m0", k);
        for (int i = 1; i < 1000; i++)
            buf_printf(&text, ",m%d", i);
        buf_add_str(&text, "\n");
    }
    buf_add_str(&text, "lists: list0, list1, list2\nbomb: list0");
    for (int k = 1; k < 12; k++)
        buf_printf(&text, ", list%d", k);
    buf_add_str(&text, "\n");
    write_file(0, buf_cstr(&text));
    write_file(1, "# none\n");
    buf_deinit(&text);
    assert_int_equal(make("postmaster@example.net"), ERR_OK);
    assert_string_equal(judged("deep1@example.net", false), "local 2.1.5 *deep21@example.net");
    assert_string_equal(judged("deep0@example.net", false), "unroutable 5.4.6");
    assert_string_equal(judged("wider@example.net", false), "unroutable 5.5.3");
    assert_string_equal(judged("bomb@example.net", false), "unroutable 5.4.6");
    static const char *const full[] = {"wide@example.net", "lists@example.net"};
    for (int i = 0; i < 2; i++) {
        struct address a;
        struct recipients_answer out;
        arena_reset(&mem);
        assert_int_equal(address_parse(&a, span_of(full[i]), &mem), ERR_OK);
        assert_int_equal(recipients_judge(r, &a, false, &mem, &out, NULL), ERR_OK);
        assert_int_equal(out.verdict, RECIPIENTS_LOCAL);
        assert_int_equal(out.count, 1000);
    }
    /* no memory is "try again", never a refusal and never an acceptance */
    struct arena small;
    struct address a;
    struct recipients_answer out;
    for (size_t max = 1; max < 40000; max += 997) {
        arena_init(&small, 256, max);
        assert_int_equal(address_parse(&a, SPAN("wide@example.net"), &mem), ERR_OK);
        assert_int_equal(recipients_judge(r, &a, false, &small, &out, NULL), ERR_NOMEM);
        assert_int_equal(out.verdict, RECIPIENTS_TEMPFAIL);
        assert_int_equal(out.count, 0);
        arena_deinit(&small);
    }
}

static void postmaster(void **state) {
    (void)state;
    write_file(0, "alice\n");
    write_file(1, "postmaster: x@far.example\nabuse: postmaster@example.net\n");
    assert_int_equal(make("Alice@example.net"), ERR_OK);
    assert_string_equal(judged("PostMaster", false), "local 2.1.5 *Alice@example.net");
    assert_string_equal(judged("POSTMASTER@example.net", false), "local 2.1.5 *Alice@example.net");
    assert_string_equal(judged("postmaster@any.example", false), "local 2.1.5 *postmaster@any.example");
    assert_string_equal(judged("postmaster@other.example", false), "local 2.1.5 x@far.example");
    assert_string_equal(judged("abuse@other.example", false), "local 2.1.5 *Alice@example.net");
    assert_string_equal(judged("postmaster@far.example", false), "no_relay 5.7.1");
    assert_int_equal(make("postmaster@example.net"), ERR_OK); /* of ours, in no table: taken as a mailbox */
    assert_string_equal(judged("Postmaster", false), "local 2.1.5 *postmaster@example.net");
    assert_string_equal(judged("postmaster@example.net", false), "local 2.1.5 *postmaster@example.net");
    assert_string_equal(judged("postmaster@example.org", false), "local 2.1.5 *postmaster@example.net");
    assert_int_equal(make("root@example.net"), ERR_OK);
    assert_string_equal(judged("Postmaster", false), "local 2.1.5 *root@example.net");
    assert_string_equal(judged("Root@example.net", false), "local 2.1.5 *Root@example.net");
    assert_string_equal(judged("root@example.org", false), "unknown 5.1.1");
    assert_int_equal(make("root@elsewhere.example"), ERR_OK);
    assert_string_equal(judged("postmaster", false), "local 2.1.5 root@elsewhere.example");
    /* where its way leads nowhere, the address itself is kept; nothing of the dead way is */
    write_file(0, "alice\npm >> list\nlist: alice, nobody\nabuse: postmaster, list2\nlist2: alice\n");
    assert_int_equal(make("pm@example.net"), ERR_OK);
    assert_string_equal(judged("postmaster@example.net", false), "local 2.1.5 *pm@example.net");
    assert_string_equal(judged("abuse@example.net", false), "local 2.1.5 *pm@example.net,*alice@example.net");
    assert_string_equal(judged("pm@example.net", false), "unroutable 5.1.1");
    write_file(0, "pm: postmaster@example.org\n");
    assert_int_equal(make("pm@example.net"), ERR_OK);
    assert_string_equal(judged("postmaster", false), "local 2.1.5 *postmaster@example.org");
}

static void bad_sets(void **state) {
    (void)state;
    write_file(0, "bad line\n");
    write_file(1, "# none\n");
    assert_int_equal(make("nobody"), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "postmaster: nobody: not a mail address\n"));
    assert_non_null(strstr(buf_cstr(&problems), "/t0:1: bad line: behind the name"));
    assert_null(r);
    unlink(paths[1]);
    assert_int_equal(make("a@b"), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "/t1: No such file or directory\n"));
    struct recipients_domain_config domains[] = {{.name = "a.example", .directory = RECIPIENTS_ANY},
                                                 {.name = "A.Example", .directory = RECIPIENTS_ANY},
                                                 {.name = "bad_name", .directory = RECIPIENTS_ANY},
                                                 {.name = "b.example"}};
    struct recipients_config c = {.domains = domains, .count = 4, .postmaster = "x@y"};
    buf_clear(&problems);
    assert_int_equal(recipients_new(&r, &c, &problems), ERR_INVALID);
    assert_string_equal(buf_cstr(&problems), "domains: A.Example: listed twice\ndomains: bad_name: not a domain name\n"
                                             "domains: b.example: no table file\n");
    c = (struct recipients_config){.postmaster = "x@y"};
    assert_int_equal(recipients_new(&r, &c, &problems), ERR_OK);
    assert_string_equal(judged("a@b.example", false), "no_relay 5.7.1");
}

static void reload(void **state) {
    (void)state;
    struct recipients *fresh;
    write_file(0, "alice\n");
    write_file(1, "bob\n");
    assert_int_equal(make("postmaster@example.net"), ERR_OK);
    assert_string_equal(recipients_file(r, 0), paths[0]);
    assert_string_equal(recipients_file(r, 1), paths[1]);
    assert_null(recipients_file(r, 2));
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_null(fresh);
    /* one broken, one good: the old table of the first, the new one of the second */
    write_file(0, "carol\nbad line\n");
    write_file(1, "dave\n");
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_non_null(fresh);
    assert_non_null(strstr(buf_cstr(&problems), "/t0:2: bad line"));
    assert_string_equal(judged("bob@other.example", false),
                        "local 2.1.5 *bob@other.example"); /* the old set is as it was */
    recipients_unref(r);
    r = fresh;
    assert_string_equal(judged("alice@example.org", false), "local 2.1.5 *alice@example.org");
    assert_string_equal(judged("carol@example.net", false), "unknown 5.1.1");
    assert_string_equal(judged("dave@other.example", false), "local 2.1.5 *dave@other.example");
    assert_string_equal(judged("bob@other.example", false), "unknown 5.1.1");
    assert_string_equal(judged("x@any.example", false), "local 2.1.5 *x@any.example");
    assert_string_equal(judged("postmaster", false), "local 2.1.5 *postmaster@example.net");
    /* still broken, or gone: no new set, and it is told */
    buf_clear(&problems);
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_null(fresh);
    assert_non_null(strstr(buf_cstr(&problems), "/t0:2: bad line"));
    unlink(paths[0]);
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_null(fresh);
    assert_non_null(strstr(buf_cstr(&problems), "/t0: No such file"));
    write_file(0, "carol\n");
    assert_int_equal(recipients_reload(r, &fresh, &problems), ERR_OK);
    assert_non_null(fresh);
    recipients_unref(r);
    r = fresh;
    assert_string_equal(judged("carol@example.net", false), "local 2.1.5 *carol@example.net");
    assert_ptr_equal(recipients_ref(r), r);
    recipients_unref(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relaying), cmocka_unit_test(expansion),  cmocka_unit_test(dead_ends),
        cmocka_unit_test(bounds),   cmocka_unit_test(postmaster), cmocka_unit_test(bad_sets),
        cmocka_unit_test(reload),
    };
    return cmocka_run_group_tests_name("recipients", tests, group_setup, group_teardown);
}
