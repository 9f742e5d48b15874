/* web_failures: lines of the log as JSON, whatever is in them; the newest are kept, and only those that are failures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "admin/web_failures.h"
#include "base/log.h"

static void line_is(const char *line, const char *json) {
    struct buf b;
    buf_init(&b, 65536);
    assert_int_equal(web_failure_line(span_of(line), &b), ERR_OK);
    assert_string_equal(buf_cstr(&b), json);
    buf_deinit(&b);
}

static void test_lines(void **state) {
    (void)state;
    line_is(
        "T info failed id=A to=b@c text=\"550 no such \\\"user\\\" here\" category=x",
        "{\"time\":\"T\",\"event\":\"failed\",\"id\":\"A\",\"to\":\"b@c\",\"text\":\"550 no such \\\"user\\\" here\","
        "\"category\":\"x\"}");
    line_is("T info failed text=\"a \\\\ b\" x=\"\" y=",
            "{\"time\":\"T\",\"event\":\"failed\",\"text\":\"a \\\\\\\\ b\",\"x\":\"\","
            "\"y\":\"\"}");
    line_is("T info failed text=\"<script>\\x1b\" x=1",
            "{\"time\":\"T\",\"event\":\"failed\",\"text\":\"<script>\\\\x1b\",\"x\":\"1\"}");
    line_is("T info failed text=\"never closed \\\"",
            "{\"time\":\"T\",\"event\":\"failed\",\"text\":\"never closed \\\"\"}");
    line_is("", "{\"time\":\"\",\"event\":\"\"}");
    line_is("T info failed =x", "{\"time\":\"T\",\"event\":\"failed\"}");
}

static void on_stop(void *arg) {
    loop_stop(arg);
}

static void test_ring(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct web_failures f;
    struct buf b;
    char to[40];
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_JSON);
    assert_int_equal(web_failures_init(&f, l), ERR_OK);
    LOG_INFO("delivered", LOG_STR("to", "failed"));
    for (unsigned i = 0; i < WEB_FAILURES_MAX + 5; i++) {
        snprintf(to, sizeof to, "user%u", i);
        LOG_INFO("failed", LOG_STR("to", to));
    }
    LOG_INFO("given_up", LOG_STR("id", "X"));
    struct loop_timer *t = loop_timer_new(l, on_stop, l);
    loop_timer_set(t, 4000); /* two looks */
    loop_run(l);
    loop_timer_close(t);
    assert_int_equal(f.count, WEB_FAILURES_MAX);
    buf_init(&b, 1 << 20);
    assert_int_equal(web_failures_dump(&f, 3, &b), ERR_OK);
    assert_null(strstr(buf_cstr(&b), "delivered"));
    buf_clear(&b);
    assert_int_equal(web_failures_dump(&f, WEB_FAILURES_MAX, &b), ERR_OK);
    assert_non_null(strstr(buf_cstr(&b), "\"to\":\"user204\""));
    assert_non_null(strstr(buf_cstr(&b), "\"event\":\"given_up\""));
    assert_null(strstr(buf_cstr(&b), "\"to\":\"user0\""));
    buf_deinit(&b);
    buf_init(&b, 100);
    assert_int_equal(web_failures_dump(&f, WEB_FAILURES_MAX, &b), ERR_FULL);
    buf_deinit(&b);
    web_failures_deinit(&f);
    loop_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_ring)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
