/* payload: pending submissions by token and submission id, and the bounded cache of first attempts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/payload.h"

static struct payload *make(struct payloads *p, uint8_t name, size_t body) {
    uint8_t submission[PAYLOAD_SUBMISSION_LEN] = {name, 1};
    struct payload *l = payload_new(p, submission);
    assert_non_null(l);
    l->id = 1000u + name;
    l->envelope = strdup("envelope");
    l->envelope_len = 8;
    l->body = bus_bytes_new(body);
    assert_non_null(l->body);
    return l;
}

static void finds_by_token_and_submission(void **state) {
    (void)state;
    struct payloads p;
    payloads_init(&p, 1 << 20, 10);
    struct payload *l = make(&p, 3, 10);
    uint8_t submission[PAYLOAD_SUBMISSION_LEN] = {3, 1}, other[PAYLOAD_SUBMISSION_LEN] = {4, 1};
    assert_ptr_equal(payload_by_token(&p, l->token), l);
    assert_ptr_equal(payload_by_submission(&p, submission), l);
    assert_null(payload_by_submission(&p, other));
    uint64_t token = l->token;
    payload_free(&p, l);
    assert_null(payload_by_token(&p, token));
    assert_null(payload_by_submission(&p, submission));
    payloads_deinit(&p);
}

static void refuses_more_than_the_maximum(void **state) {
    (void)state;
    struct payloads p;
    payloads_init(&p, 1 << 20, 2);
    make(&p, 1, 1);
    make(&p, 2, 1);
    uint8_t submission[PAYLOAD_SUBMISSION_LEN] = {9};
    assert_null(payload_new(&p, submission));
    payloads_deinit(&p);
}

static void cache_is_bounded_and_drops_the_oldest(void **state) {
    (void)state;
    struct payloads p;
    payloads_init(&p, 3000, 10);
    for (uint8_t i = 1; i <= 4; i++)
        payload_keep(&p, make(&p, i, 900));
    assert_true(p.cache_bytes <= 3000);
    assert_null(cached_get(&p, 1001));
    assert_non_null(cached_get(&p, 1004));
    cached_get(&p, 1003); /* now the youngest */
    payload_keep(&p, make(&p, 5, 900));
    assert_null(cached_get(&p, 1004) && cached_get(&p, 1003) && cached_get(&p, 1005) ? (void *)1 : NULL);
    assert_non_null(cached_get(&p, 1003));
    cached_drop(&p, 1003);
    assert_null(cached_get(&p, 1003));
    payloads_deinit(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_token_and_submission),
        cmocka_unit_test(refuses_more_than_the_maximum),
        cmocka_unit_test(cache_is_bounded_and_drops_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
