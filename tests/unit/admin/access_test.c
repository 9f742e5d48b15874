/* access: every verb of the protocol has a role, the harmless ones are for viewers, and what changes the node is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "admin/access.h"
#include "base/ring.h"

#define VERB(x) WORDS__ADMIN_VERB__ADMIN_##x

static Words__AdminRequest request(Words__AdminVerb verb) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    q.verb = verb;
    return q;
}

static void every_verb_has_a_role(void **state) {
    (void)state;
    const ProtobufCEnumDescriptor *d = &words__admin_verb__descriptor;
    assert_true(d->n_values >= 34);
    for (unsigned i = 0; i < d->n_values; i++) {
        const struct access_verb *v = access_verb((uint32_t)d->values[i].value);
        if (!v)
            fail_msg("%s stands in no line of admin/access.c", d->values[i].name);
        assert_int_equal(v->verb, d->values[i].value);
        assert_true(v->name && *v->name);
        Words__AdminRequest q = request(v->verb);
        if (v->verb == VERB(AUDIT_PUT))
            assert_int_equal(access_needed(&q), ADMIN_ROLE_NONE);
        else if (v->verb != VERB(LOG_LEVEL))
            assert_int_equal(access_needed(&q), v->role);
        if (v->change)
            assert_true(v->role >= ADMIN_ROLE_OPERATOR);
        if (v->change && v->answers == ACCESS_NODE)
            assert_int_equal(v->role, ADMIN_ROLE_ADMIN);
        assert_true(v->answers == ACCESS_ALL || v->answers == ACCESS_NODE || v->answers <= ROLE_DELIVERY);
        assert_true(!v->dry || v->change);
    }
}

static void unknown_verbs_are_for_nobody(void **state) {
    (void)state;
    static const uint32_t numbers[] = {0, 999, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        Words__AdminRequest q = request((Words__AdminVerb)numbers[i]);
        assert_null(access_verb(numbers[i]));
        assert_int_equal(access_needed(&q), ADMIN_ROLE_NONE);
        assert_false(access_is_change(&q));
    }
}

static void a_request_may_need_more_or_less_than_its_verb(void **state) {
    (void)state;
    Words__AdminRequest q = request(VERB(WATCH));
    assert_int_equal(access_needed(&q), ADMIN_ROLE_VIEWER);
    q.has_ring = true;
    q.ring = RING_EVENTS;
    assert_int_equal(access_needed(&q), ADMIN_ROLE_VIEWER);
    q.ring = RING_SMTP_IN;
    assert_int_equal(access_needed(&q), ADMIN_ROLE_OPERATOR);
    q.ring = RING_SMTP_OUT;
    assert_int_equal(access_needed(&q), ADMIN_ROLE_OPERATOR);
    q = request(VERB(LOG_LEVEL));
    assert_int_equal(access_needed(&q), ADMIN_ROLE_VIEWER);
    assert_false(access_is_change(&q));
    q.has_target = true;
    q.target = frame_bytes(SPAN("debug"));
    assert_int_equal(access_needed(&q), ADMIN_ROLE_ADMIN);
    assert_true(access_is_change(&q));
}

static void only_a_dry_run_that_exists_is_no_change(void **state) {
    (void)state;
    static const Words__AdminVerb dry[] = {VERB(RETRY),  VERB(HOLD),   VERB(RELEASE),
                                           VERB(BOUNCE), VERB(DELETE), VERB(REROUTE)};
    static const Words__AdminVerb wet[] = {VERB(SUSPEND), VERB(RESUME), VERB(DRAIN), VERB(UNDRAIN),
                                           VERB(CONFIG_RELOAD)};
    for (size_t i = 0; i < sizeof dry / sizeof *dry; i++) {
        Words__AdminRequest q = request(dry[i]);
        assert_true(access_is_change(&q));
        q.has_dry_run = true;
        assert_true(access_is_change(&q));
        q.dry_run = true;
        assert_false(access_is_change(&q));
    }
    for (size_t i = 0; i < sizeof wet / sizeof *wet; i++) {
        Words__AdminRequest q = request(wet[i]);
        q.has_dry_run = q.dry_run = true;
        assert_true(access_is_change(&q));
    }
}

static void roles_have_names(void **state) {
    (void)state;
    assert_string_equal(access_role_name(ADMIN_ROLE_VIEWER), "viewer");
    assert_string_equal(access_role_name(ADMIN_ROLE_OPERATOR), "operator");
    assert_string_equal(access_role_name(ADMIN_ROLE_ADMIN), "admin");
    assert_string_equal(access_role_name(17), "nobody");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_has_a_role),
        cmocka_unit_test(unknown_verbs_are_for_nobody),
        cmocka_unit_test(a_request_may_need_more_or_less_than_its_verb),
        cmocka_unit_test(only_a_dry_run_that_exists_is_no_change),
        cmocka_unit_test(roles_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
