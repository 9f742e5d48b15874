/* batv: tags are those of another implementation (tests/support/batv.py), and only ours, unaltered and young, are good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/net/batv.h"

#define DAY 86400000ull
#define TODAY 20000ull
#define NOW (TODAY * DAY + 5000)
#define FIRST "a secret of sixteen octets"
#define SECOND "another secret, as long as it"

static const struct {
    const char *secret, *address;
    unsigned until;
    const char *tagged;
} vectors[] = {
    {"a secret of sixteen octets", "user@here.example", 20007, "prvs=00074f1834=user@here.example"},
    {"a secret of sixteen octets", "user@here.example", 20999, "prvs=0999c589f5=user@here.example"},
    {"a secret of sixteen octets", "user@here.example", 20007, "prvs=7007251268=user@here.example"},
    {"a secret of sixteen octets", "Joe.User+x=far.example@Here.Example", 20007,
     "prvs=0007740287=Joe.User+x=far.example@Here.Example"},
    {"a secret of sixteen octets", "Joe.User+x=far.example@Here.Example", 20999,
     "prvs=099916df16=Joe.User+x=far.example@Here.Example"},
    {"a secret of sixteen octets", "Joe.User+x=far.example@Here.Example", 20007,
     "prvs=70078c45d0=Joe.User+x=far.example@Here.Example"},
    {"another secret, as long as it", "user@here.example", 20007, "prvs=00079b254d=user@here.example"},
    {"another secret, as long as it", "user@here.example", 20999, "prvs=0999a8fd0c=user@here.example"},
    {"another secret, as long as it", "user@here.example", 20007, "prvs=7007152a02=user@here.example"},
    {"another secret, as long as it", "Joe.User+x=far.example@Here.Example", 20007,
     "prvs=000762341a=Joe.User+x=far.example@Here.Example"},
    {"another secret, as long as it", "Joe.User+x=far.example@Here.Example", 20999,
     "prvs=09995c9fec=Joe.User+x=far.example@Here.Example"},
    {"another secret, as long as it", "Joe.User+x=far.example@Here.Example", 20007,
     "prvs=70075765d7=Joe.User+x=far.example@Here.Example"},
};

static const char *const domains[] = {"here.example", "other.example"};
static const char *const secrets[] = {FIRST, SECOND};
static const struct batv_config usual = {domains, 2, secrets, 1, 7, false};
static struct arena mem;
static struct batv *b;

static void make(const struct batv_config *c) {
    batv_unref(b);
    assert_int_equal(batv_new(&b, c), ERR_OK);
}

static int setup(void **state) {
    (void)state;
    arena_init(&mem, 4096, 0);
    make(&usual);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    batv_unref(b);
    b = NULL;
    arena_deinit(&mem);
    return 0;
}

static int check_on(const char *address, uint64_t wall_ms, const char *want) {
    struct span plain;
    int err = batv_check(b, span_of(address), wall_ms, &mem, &plain);
    if (want)
        assert_true(span_eq(plain, span_of(want)));
    return err;
}

static const char *sign(const char *sender) {
    struct span s = batv_sign(b, span_of(sender), NOW, &mem);
    return s.len ? arena_printf(&mem, "%.*s", SPAN_FMT(s)) : "";
}

static void test_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct batv_config c = usual;
        c.secrets = &vectors[i].secret;
        make(&c);
        uint64_t now = (vectors[i].until - 7) * DAY + 1000;
        assert_int_equal(check_on(vectors[i].tagged, now, vectors[i].address), ERR_OK);
        struct span made = batv_sign(b, span_of(vectors[i].address), now, &mem);
        if (vectors[i].tagged[5] == '0') /* we sign with key 0 */
            assert_true(span_eq(made, span_of(vectors[i].tagged)));
        make(&usual);
        assert_int_equal(check_on(vectors[i].tagged, now, vectors[i].address),
                         strcmp(vectors[i].secret, FIRST) == 0 ? ERR_OK : ERR_INVALID);
    }
}

static void test_altered(void **state) {
    (void)state;
    const char *tagged = sign("user@here.example");
    size_t len = strlen(tagged);
    char text[200];
    assert_int_equal(len, 16 + strlen("user@here.example"));
    for (size_t i = 5; i < len - strlen("@here.example"); i++) { /* each octet behind the mark counts */
        snprintf(text, sizeof text, "%s", tagged);
        text[i] = text[i] == '1' ? '2' : '1';
        assert_true(check_on(text, NOW, NULL) != ERR_OK);
    }
    snprintf(text, sizeof text, "%.*sother.example", (int)(len - strlen("here.example")), tagged);
    assert_int_equal(check_on(text, NOW, "user@other.example"), ERR_INVALID);
    snprintf(text, sizeof text, "%s", tagged); /* hops that fold the case, one way or the other */
    for (char *c = text; *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    assert_int_equal(check_on(text, NOW, "USER@HERE.EXAMPLE"), ERR_OK);
}

static void test_age(void **state) {
    (void)state;
    const char *tagged = sign("user@here.example");
    for (unsigned day = 0; day <= 7; day++)
        assert_int_equal(check_on(tagged, NOW + day * DAY, NULL), ERR_OK);
    assert_int_equal(check_on(tagged, NOW + 8 * DAY, "user@here.example"), ERR_TIMEOUT);
    assert_int_equal(check_on(tagged, NOW + 900 * DAY, NULL), ERR_TIMEOUT);
    assert_int_equal(check_on(tagged, NOW - DAY, NULL), ERR_OK); /* a clock that is behind */
    assert_int_equal(check_on(tagged, NOW - 2 * DAY, NULL), ERR_TIMEOUT);
    struct batv_config c = usual;
    c.max_age_days = 0;
    make(&c);
    assert_string_equal(sign("user@here.example"), tagged); /* 7 is the default */
    c.max_age_days = 365;
    make(&c);
    tagged = sign("user@here.example"); /* the number of the day begins anew between */
    assert_int_equal(check_on(tagged, NOW + 365 * DAY, NULL), ERR_OK);
    assert_int_equal(check_on(tagged, NOW + 366 * DAY, NULL), ERR_TIMEOUT);
}

static void test_rotation(void **state) {
    (void)state;
    static const char *const turned[] = {SECOND, FIRST};
    const char *old = sign("user@here.example");
    struct batv_config c = usual;
    c.secrets = turned;
    c.secret_count = 2;
    make(&c);
    const char *new = sign("user@here.example");
    assert_string_not_equal(new, old);
    assert_int_equal(check_on(old, NOW, NULL), ERR_OK);
    assert_int_equal(check_on(new, NOW, NULL), ERR_OK);
    c.secret_count = 1;
    make(&c);
    assert_int_equal(check_on(old, NOW, NULL), ERR_INVALID);
    assert_int_equal(check_on(new, NOW, NULL), ERR_OK);
}

static void test_who_gets_one(void **state) {
    (void)state;
    char local[65], address[100];
    assert_string_equal(sign(""), "");
    assert_string_equal(sign("user"), "");
    assert_string_equal(sign("user@far.example"), "");
    assert_string_equal(sign("user@sub.here.example"), "");
    assert_string_equal(sign(sign("user@here.example")), "");
    assert_string_equal(sign("\"a b\"@here.example"), "");
    assert_string_equal(sign("gr\xc3\xbc\xc3\x9f@here.example"), "");
    assert_true(*sign("user@OTHER.example"));
    memset(local, 'x', sizeof local);
    for (int len = 47; len <= 50; len++) {
        snprintf(address, sizeof address, "%.*s@here.example", len, local);
        assert_int_equal(*sign(address) != 0, len <= 48);
    }
    make(&(struct batv_config){.domains = domains, .domain_count = 2});
    assert_null(b); /* without secrets there are none */
    assert_string_equal(sign("user@here.example"), "");
    assert_false(batv_is_tagged(b, SPAN("prvs=0007000000=user@here.example")));
    assert_false(batv_misses(b, SPAN("user@here.example")));
    assert_null(batv_ref(NULL));
}

static void test_no_tag(void **state) {
    (void)state;
    static const char *const plain[] = {
        "user@here.example",
        "prvs=user@here.example",
        "prvs=0007abcde=user@here.example",
        "prvs=0007abcdeg=user@here.example",
        "prvs=a007abcdef=user@here.example",
        "prvs=0007abcdef=@here.example",
        "prvs=0007abcdef@here.example",
        "prvs=0007abcdef-user@here.example",
        "xprvs=0007abcdef=user@here.example",
        "prvs=0007abcdef=user@far.example",
        "prvs=",
        "",
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        assert_false(batv_is_tagged(b, span_of(plain[i])));
        assert_int_equal(check_on(plain[i], NOW, plain[i]), ERR_UNSUPPORTED);
        assert_true(span_eq(batv_strip(b, span_of(plain[i]), &mem), span_of(plain[i])));
    }
    assert_true(batv_is_tagged(b, SPAN("PRVS=0007ABcdef=user@here.example")));
    assert_true(span_eq(batv_strip(b, SPAN("prvs=0007abcdef=user@here.example"), &mem), SPAN("user@here.example")));
}

static void test_required(void **state) {
    (void)state;
    struct batv_config c = usual;
    assert_false(batv_misses(b, SPAN("user@here.example")));
    c.require = true;
    make(&c);
    assert_true(batv_misses(b, SPAN("user@here.example")) && batv_misses(b, SPAN("user@Other.example")));
    assert_false(batv_misses(b, SPAN("user@far.example")));
    assert_false(batv_misses(b, SPAN("prvs=0007abcdef=user@here.example")));
    /* what we could not tag ourselves */
    assert_false(batv_misses(b, SPAN("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx@here.example")));
    assert_false(batv_misses(b, SPAN("\"a b\"@here.example")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vectors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_altered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_gets_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_required, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
