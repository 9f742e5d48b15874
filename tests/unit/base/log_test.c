/* log: the lines as they reach standard error: format, escapes, cuts, the brake on repeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static char text[1 << 20];
static int saved, catcher;

static void catch_lines(void) {
    fflush(stderr);
    saved = dup(2);
    FILE *f = tmpfile();
    catcher = dup(fileno(f));
    fclose(f);
    dup2(catcher, 2);
}

static const char *caught(void) {
    dup2(saved, 2);
    close(saved);
    ssize_t got = pread(catcher, text, sizeof text - 1, 0);
    close(catcher);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

/* Behind the time stamp of the first line. */
static const char *behind_time(const char *line) {
    assert_true(strlen(line) > 25);
    return line + 25;
}

static void writes_text(void **state) {
    (void)state;
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    catch_lines();
    LOG_INFO("delivered", LOG_STR("id", "0ABC"), LOG_U64("size", 12), LOG_I64("n", -5), LOG_SPAN("to", SPAN("<a@b>")),
             LOG_STR("said", "two \"words\"\r\nx"), LOG_STR("none", ""), LOG_I64("least", INT64_MIN),
             LOG_ERR("e", ERR_FULL));
    LOG_DEBUG("unseen");
    const char *out = caught();
    assert_int_equal(out[23], 'Z');
    assert_string_equal(behind_time(out),
                        "info delivered id=0ABC size=12 n=-5 to=<a@b> said=\"two \\\"words\\\"\\x0d\\x0ax\" none=\"\" "
                        "least=-9223372036854775808 e=\"limit reached\"\n");
}

static void writes_json(void **state) {
    (void)state;
    log_setup(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    catch_lines();
    LOG_DEBUG("tried", LOG_STR("said", "a\"b\n\xff"), LOG_U64("n", 3));
    LOG_WARN("bare");
    const char *out = caught();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    assert_non_null(strstr(
        out, "Z\",\"level\":\"debug\",\"event\":\"tried\",\"said\":\"a\\\"b\\n\xef\xbf\xbd\",\"n\":3}\n{\"time\":"));
    assert_non_null(strstr(out, "\"level\":\"warn\",\"event\":\"bare\"}\n"));
}

static void cuts_long_values_and_lines(void **state) {
    (void)state;
    static char big[3000];
    memset(big, 'x', sizeof big - 1);
    big[1023] = '\xc3'; /* a character over the cut */
    big[1024] = '\xbc';
    for (int json = 0; json < 2; json++) {
        log_setup(LOG_LEVEL_INFO, json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
        catch_lines();
        LOG_INFO("cut", LOG_STR("a", big), LOG_U64("b", 1));
        const char *out = caught();
        assert_non_null(strstr(out, json ? "xxx...\",\"b\":1}\n" : "xxx... b=1\n"));
        assert_null(strstr(out, "\xc3"));
        for (size_t trim = 0; trim < 60; trim++) { /* every place where the line may end */
            catch_lines();
            LOG_INFO("cut", LOG_STR("a", big), LOG_STR("b", big), LOG_STR("c", big), LOG_STR("d", big + 2020 + trim),
                     LOG_STR("e", "\n\n \n\n"), LOG_U64("f", 18446744073709551615u), LOG_U64("g", 1), LOG_U64("h", 1));
            out = caught();
            size_t len = strlen(out);
            if (len > 4096 || len <= 3980)
                fail_msg("%zu bytes with trim %zu, ending in %s", len, trim, out + (len > 40 ? len - 40 : 0));
            assert_string_equal(out + len - (json ? 2 : 1), json ? "}\n" : "\n");
            unsigned quotes = 0, escaped = 0;
            for (size_t i = 0; i < len; i++) {
                quotes += out[i] == '"' && !escaped;
                escaped = out[i] == '\\' && !escaped;
            }
            assert_int_equal(quotes % 2, 0);
        }
    }
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static unsigned count_of(const char *in, const char *what) {
    unsigned n = 0;
    for (const char *at = in; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static void holds_back_a_storm_and_counts_it(void **state) {
    (void)state;
    catch_lines();
    for (int i = 0; i < 1000; i++) {
        LOG_WARN("storm", LOG_U64("i", i));
        LOG_INFO("calm");
    }
    usleep(1100 * 1000);
    log_flush();
    const char *out = caught();
    unsigned written = count_of(out, "warn storm"), held = 0, counts = 0;
    for (const char *at = out; (at = strstr(at, "log_held_back held=storm count=")); at++, counts++) {
        unsigned n = 0;
        assert_int_equal(sscanf(at, "log_held_back held=storm count=%u", &n), 1);
        held += n;
    }
    assert_in_range(written, 100, 200); /* the loop may cross a second */
    assert_true(counts >= 1);
    assert_int_equal(written + held, 1000);
    assert_int_equal(count_of(out, "info calm"), 1000);
}

static void parses_levels(void **state) {
    (void)state;
    enum log_level level;
    assert_true(log_level_parse(SPAN("warn"), &level));
    assert_int_equal(level, LOG_LEVEL_WARN);
    assert_true(log_level_parse(SPAN("debug"), &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse(SPAN("WARN"), &level));
    assert_false(log_level_parse(SPAN(""), &level));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_text),
        cmocka_unit_test(writes_json),
        cmocka_unit_test(cuts_long_values_and_lines),
        cmocka_unit_test(holds_back_a_storm_and_counts_it),
        cmocka_unit_test(parses_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
