/* Addresses: what is read, what is refused, and that nothing is read in two ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gateway/smtp/address.h"

#define A10 "aaaaaaaaaa"
#define A60 A10 A10 A10 A10 A10 A10
#define A63 A60 "aaa"

static struct arena mem;

static int setup(void **state) {
    (void)state;
    arena_init(&mem, 4096, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_deinit(&mem);
    return 0;
}

static void assert_span(struct span s, const char *text) {
    if (!span_eq(s, span_of(text)))
        fail_msg("got '%.*s', expected '%s'", SPAN_FMT(s), text);
}

static void good_addresses(void **state) {
    (void)state;
    static const struct {
        const char *in, *text, *key, *domain;
        bool literal, utf8;
    } t[] = {
        {"a@b", "a@b", "a", "b", false, false},
        {"John.Doe@Example.NET", "John.Doe@example.net", "John.Doe", "example.net", false, false},
        {"!#$%&'*+-/=?^_`{|}~@x.y", "!#$%&'*+-/=?^_`{|}~@x.y", "!#$%&'*+-/=?^_`{|}~", "x.y", false, false},
        {"\"john doe\"@x.y", "\"john doe\"@x.y", "john doe", "x.y", false, false},
        {"\"john\"@x.y", "john@x.y", "john", "x.y", false, false},
        {"\"jo\\hn\"@x.y", "john@x.y", "john", "x.y", false, false},
        {"\"a.b\"@x.y", "a.b@x.y", "a.b", "x.y", false, false},
        {"\"a..b\"@x.y", "\"a..b\"@x.y", "a..b", "x.y", false, false},
        {"\".a\"@x.y", "\".a\"@x.y", ".a", "x.y", false, false},
        {"\"a.\"@x.y", "\"a.\"@x.y", "a.", "x.y", false, false},
        {"\"\"@x.y", "\"\"@x.y", "", "x.y", false, false},
        {"\"a\\\"b\\\\c\"@x.y", "\"a\\\"b\\\\c\"@x.y", "a\"b\\c", "x.y", false, false},
        {"\"a@b\"@x.y", "\"a@b\"@x.y", "a@b", "x.y", false, false},
        {"\"a>b\"@x.y", "\"a>b\"@x.y", "a>b", "x.y", false, false},
        {"\"\\ \"@x.y", "\" \"@x.y", " ", "x.y", false, false},
        {"sh@x.y", "sh@x.y", "sh", "x.y", false, false},
        {"${run{x}}@x.y", "${run{x}}@x.y", "${run{x}}", "x.y", false, false},
        {"a@[127.0.0.1]", "a@[127.0.0.1]", "a", "[127.0.0.1]", true, false},
        {"a@[ipv6:2001:DB8:0:0::1]", "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]", true, false},
        {"a@[IPv6:::ffff:1.2.3.4]", "a@[IPv6:::ffff:1.2.3.4]", "a", "[IPv6:::ffff:1.2.3.4]", true, false},
        {"a@a--b.x-1.y", "a@a--b.x-1.y", "a", "a--b.x-1.y", false, false},
        {"a@1.2.3.example", "a@1.2.3.example", "a", "1.2.3.example", false, false},
        {"a@m\xc3\xbcnchen.example", "a@xn--mnchen-3ya.example", "a", "xn--mnchen-3ya.example", false, true},
        {"a@M\xc3\xbcnchen.EXAMPLE", "a@xn--mnchen-3ya.example", "a", "xn--mnchen-3ya.example", false, true},
        {"a@XN--mnchen-3YA.example", "a@xn--mnchen-3ya.example", "a", "xn--mnchen-3ya.example", false, false},
        {"a@stra\xc3\x9f"
         "e.example",
         "a@xn--strae-oqa.example", "a", "xn--strae-oqa.example", false, true},
        {"\xe7\x94\xa8\xe6\x88\xb7@x.y", "\xe7\x94\xa8\xe6\x88\xb7@x.y", "\xe7\x94\xa8\xe6\x88\xb7", "x.y", false,
         true},
        {"\"\xc3\xa4 b\"@x.y", "\"\xc3\xa4 b\"@x.y", "\xc3\xa4 b", "x.y", false, true},
        {"\"\xc3\xa4\"@x.y", "\xc3\xa4@x.y", "\xc3\xa4", "x.y", false, true},
        {"a\xef\xbc\xa0z@x.y", "a\xef\xbc\xa0z@x.y", "a\xef\xbc\xa0z", "x.y", false,
         true}, /* full-width @ is a letter */
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct address a;
        if (address_parse(&a, span_of(t[i].in), &mem) != ERR_OK)
            fail_msg("refused: %s", t[i].in);
        assert_span(a.text, t[i].text);
        assert_span(a.key, t[i].key);
        assert_span(a.domain, t[i].domain);
        assert_int_equal(a.literal, t[i].literal);
        assert_int_equal(a.utf8, t[i].utf8);
        assert_false(a.routed);
        /* the same as a path, with something behind it */
        char path[300];
        size_t used;
        int len = snprintf(path, sizeof path, "<%s> SIZE=1>", t[i].in);
        assert_int_equal(address_parse_path(&a, span_make(path, (size_t)len), false, false, &mem, &used), ERR_OK);
        assert_span(a.text, t[i].text);
        assert_int_equal(used, strlen(t[i].in) + 2);
        /* canonical text reads as itself */
        struct address again;
        assert_int_equal(address_parse(&again, a.text, &mem), ERR_OK);
        assert_true(span_eq(again.text, a.text) && span_eq(again.key, a.key));
    }
}

static void bad_addresses(void **state) {
    (void)state;
#define BAD(literal)                                                                                                   \
    { literal, sizeof(literal) - 1 }
    static const struct span t[] = {
        BAD(""),
        BAD("a"),
        BAD("@"),
        BAD("a@"),
        BAD("@x.y"),
        BAD(".a@x.y"),
        BAD("a.@x.y"),
        BAD("a..b@x.y"),
        BAD("a b@x.y"),
        BAD(" a@x.y"),
        BAD("a@x.y "),
        BAD("a@ x.y"),
        BAD("a @x.y"),
        BAD("a@x.y."),
        BAD("a@.x.y"),
        BAD("a@x..y"),
        BAD("a@."),
        BAD("a@-x.y"),
        BAD("a@x-.y"),
        BAD("a@x_y.z"),
        BAD("a@b@c"),
        BAD("a@x.y>"),
        BAD("<a@x.y"),
        BAD("a,b@x.y"),
        BAD("a;b@x.y"),
        BAD("a:b@x.y"),
        BAD("a(c)@x.y"),
        BAD("a[b@x.y"),
        BAD("a\\b@x.y"),
        BAD("a\"b@x.y"),
        BAD("\"a@x.y"),
        BAD("\"a\"b@x.y"),
        BAD("\"a\\\"@x.y"),
        BAD("\"a\"\"b\"@x.y"),
        BAD("\"a\".b@x.y"),
        BAD("a.\"b\"@x.y"),
        BAD("\"a\rb\"@x.y"),
        BAD("\"a\nb\"@x.y"),
        BAD("\"a\\\nb\"@x.y"),
        BAD("\"a\\\0b\"@x.y"),
        BAD("\"a\0b\"@x.y"),
        BAD("\"\tb\"@x.y"),
        BAD("\"\x7f\"@x.y"),
        BAD("a\0@x.y"),
        BAD("a@x\0.y"),
        BAD("a@x.y\0"),
        BAD("a@x.y\r"),
        BAD("a@x.y\n"),
        BAD("a\x7f@x.y"),
        BAD("a@[1.2.3]"),
        BAD("a@[1.2.3.256]"),
        BAD("a@[1.2.3.4"),
        BAD("a@1.2.3.4]"),
        BAD("a@[01.2.3.4]"),
        BAD("a@[1.2.3.4].x"),
        BAD("a@[]"),
        BAD("a@["),
        BAD("a@[IPv6:]"),
        BAD("a@[IPv6:1.2.3.4]"),
        BAD("a@[IPv6:fe80::1%lo]"),
        BAD("a@[::1]"),
        BAD("a@[x:y]"),
        BAD("a@[ 1.2.3.4]"),
        BAD("a@[1.2.3.4\0]"),
        BAD("a@1.2.3.4"),
        BAD("a@x.123"),
        BAD("a@7"),
        BAD("\xc3@x.y"),
        BAD("\xc0\x80@x.y"),
        BAD("\xed\xa0\x80@x.y"),
        BAD("\xc2\x85@x.y"),
        BAD("\"\xc2\x9b\"@x.y"),
        BAD("\xe2\x80\xa8@x.y"),
        BAD("\"\\\xc3\xa4\"@x.y"),
        BAD("a@\xc3.y"),
        BAD("a@x\xef\xbc\x8ey"),
        BAD("a@x\xe3\x80\x82y"),
        BAD("a@x\xef\xbc\xa0y.z"),
        BAD("a@\xef\xbd\x81.y"),
        BAD("a@\xef\xac\x80.y"),
        BAD("a@u\xcc\x88.y"),
        BAD("a@\xe2\x80\xae.y"),
        BAD("a@M\xc3\x9cNCHEN.y"),
        BAD("a@" A63 "a.y"),
        BAD("a@\xc3\xa4-.y"),
        BAD("a@\xc3\xa4_x.y"),
        BAD("Postmaster"),
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct address a;
        if (address_parse(&a, t[i], &mem) != ERR_INVALID)
            fail_msg("not refused as invalid: number %zu, '%.*s'", i, SPAN_FMT(t[i]));
        char path[400] = "<";
        size_t used;
        memcpy(path + 1, t[i].at, t[i].len);
        path[1 + t[i].len] = '>';
        if (i > 0 && span_find(t[i], '>') < 0 &&
            address_parse_path(&a, span_make(path, t[i].len + 2), true, false, &mem, &used) != ERR_INVALID)
            fail_msg("path not refused as invalid: number %zu, '%.*s'", i, SPAN_FMT(t[i]));
    }
}

static void bounds(void **state) {
    (void)state;
    struct address a;
    size_t used;
    char text[600];
    /* local part: 64 octets, quotes counted as given and as they come out */
    assert_int_equal(address_parse(&a, SPAN(A60 "aaaa@x.y"), &mem), ERR_OK);
    assert_int_equal(address_parse(&a, SPAN(A60 "aaaaa@x.y"), &mem), ERR_RANGE);
    assert_int_equal(address_parse(&a, SPAN("\"" A60 " a\"@x.y"), &mem), ERR_OK);
    assert_int_equal(address_parse(&a, SPAN("\"" A60 " aa\"@x.y"), &mem), ERR_RANGE);
    assert_int_equal(address_parse(&a, SPAN("\"" A60 "aaa\"@x.y"), &mem), ERR_RANGE);
    /* domain: 255; a name of four labels of 63 is 255 long, and needs a path of its own to be judged */
    struct span out;
    assert_int_equal(address_parse_domain(&out, SPAN(A63 "." A63 "." A63 "." A63), &mem), ERR_OK);
    assert_int_equal(out.len, 255);
    assert_int_equal(address_parse_domain(&out, SPAN(A63 "." A63 "." A63 "." A63 ".b"), &mem), ERR_RANGE);
    assert_int_equal(address_parse_domain(&out, SPAN(A63 "." A63 "." A63 "." A63 "." A63 "." A63 "._"), &mem),
                     ERR_INVALID);
    /* path: 256 with its brackets */
    int len = snprintf(text, sizeof text, "<%s@%s.%s.%s>", A60, A63, A63, A63);
    assert_int_equal(len, 254);
    assert_int_equal(address_parse_path(&a, span_of(text), false, false, &mem, &used), ERR_OK);
    snprintf(text, sizeof text, "<%s@%s.%s.%s.b>", A60, A63, A63, A63);
    assert_int_equal(strlen(text), 256);
    assert_int_equal(address_parse_path(&a, span_of(text), false, false, &mem, &used), ERR_OK);
    assert_int_equal(address_parse(&a, span_first(span_of(text + 1), 254), &mem), ERR_OK);
    snprintf(text, sizeof text, "<%s@%s.%s.%s.bb>", A60, A63, A63, A63);
    assert_int_equal(address_parse_path(&a, span_of(text), false, false, &mem, &used), ERR_RANGE);
    assert_int_equal(address_parse(&a, span_first(span_of(text + 1), 255), &mem), ERR_RANGE);
    snprintf(text, sizeof text, "<@%s.%s.%s:a@%s.y>", A63, A63, A63, A63);
    assert_int_equal(address_parse_path(&a, span_of(text), false, false, &mem, &used), ERR_RANGE);
    /* a U-label whose A-label form is over 63 */
    len = 0;
    for (int i = 0; i < 40; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "%c\xb8%c", i % 2 ? 0xe4 : 0xe9, 0x80 + i);
    snprintf(text + len, sizeof text - (size_t)len, ".y");
    assert_int_equal(address_parse_domain(&out, span_of(text), &mem), ERR_INVALID);
}

static void paths(void **state) {
    (void)state;
    struct address a;
    size_t used;
    assert_int_equal(address_parse_path(&a, SPAN("<>"), true, false, &mem, &used), ERR_OK);
    assert_int_equal(a.text.len, 0);
    assert_int_equal(used, 2);
    assert_int_equal(address_parse_path(&a, SPAN("<>"), false, true, &mem, &used), ERR_INVALID);
    assert_int_equal(address_parse_path(&a, SPAN("<pOSTmaster> X"), false, true, &mem, &used), ERR_OK);
    assert_int_equal(used, 12);
    assert_span(a.key, "pOSTmaster");
    assert_int_equal(a.domain.len, 0);
    assert_int_equal(address_parse_path(&a, SPAN("<Postmaster>"), true, false, &mem, &used), ERR_INVALID);
    assert_int_equal(address_parse_path(&a, SPAN("<Postmasterx>"), true, true, &mem, &used), ERR_INVALID);
    assert_int_equal(address_parse_path(&a, SPAN("<Postmaster@X.y>"), true, true, &mem, &used), ERR_OK);
    assert_span(a.domain, "x.y");

    assert_int_equal(address_parse_path(&a, SPAN("<@One.example,@two.example:a@x.y>z"), false, false, &mem, &used),
                     ERR_OK);
    assert_true(a.routed);
    assert_span(a.text, "a@x.y");
    assert_int_equal(used, 33);
    assert_int_equal(address_parse_path(&a, SPAN("<@m\xc3\xbcnchen.example:a@x.y>"), false, false, &mem, &used),
                     ERR_OK);
    assert_true(a.utf8);
    static const char *const bad[] = {
        "<@one.example>",
        "<@one.example:>",
        "<@:a@x.y>",
        "<@one,two:a@x.y>",
        "<@one,:a@x.y>",
        "<@one@two:a@x.y>",
        "<@one:@two:a@x.y>",
        "<@one.:a@x.y>",
        "<@[1.2.3.4]:a@x.y>",
        "<:a@x.y>",
        "<one:a@x.y>",
        "<@one,@two>",
        "<a@x.y",
        "a@x.y>",
        "<",
        "",
        "<<a@x.y>>",
        "<a@x.y >",
        "< a@x.y>",
        " <a@x.y>",
        "<a@>",
        "<a>",
        "<a@b@c>",
        "<\"a@x.y>",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (address_parse_path(&a, span_of(bad[i]), true, true, &mem, &used) != ERR_INVALID)
            fail_msg("not refused: %s", bad[i]);
    }
}

static void indirect(void **state) {
    (void)state;
    static const struct {
        const char *in;
        bool is;
    } t[] = {{"a%b@x.y", true},       {"b!a@x.y", true},  {"\"a@b\"@x.y", true}, {"\"a\\@b\"@x.y", true},
             {"\"a\\%b\"@x.y", true}, {"a+b@x.y", false}, {"\"a b\"@x.y", false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct address a;
        assert_int_equal(address_parse(&a, span_of(t[i].in), &mem), ERR_OK);
        assert_int_equal(address_is_indirect(&a), t[i].is);
    }
}

static void memory_ends(void **state) {
    (void)state;
    struct arena none;
    struct address a;
    struct span out;
    size_t used;
    arena_init(&none, 128, 1);
    assert_int_equal(address_parse(&a, SPAN("a@x.y"), &none), ERR_NOMEM);
    assert_int_equal(address_parse_path(&a, SPAN("<Postmaster>"), true, true, &none, &used), ERR_NOMEM);
    assert_int_equal(address_parse_domain(&out, SPAN("x.y"), &none), ERR_NOMEM);
    arena_deinit(&none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_addresses), cmocka_unit_test(bad_addresses), cmocka_unit_test(bounds),
        cmocka_unit_test(paths),          cmocka_unit_test(indirect),      cmocka_unit_test(memory_ends),
    };
    return cmocka_run_group_tests_name("address", tests, setup, teardown);
}
