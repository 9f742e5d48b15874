/* log: the lines as they reach standard error: format, escapes, cuts, the brake on repeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* -- hostile octets -- */

static uint64_t seed = 0x5eed;

static uint64_t draw(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Any octets, with a liking for those that could break a line, a text or a character. */
static struct span hostile(char *mem, size_t max) {
    static const char liked[] = "\"\\\n\r\t\x1b\x7f\xc2\x9b\xe2\x80\xae\xf0\x9f\x98\x80\xed\xa0\x80\xc0\x80{}[]:,=. ";
    size_t len = draw() % (max + 1);
    bool any = draw() % 2;
    for (size_t i = 0; i < len; i++)
        mem[i] = any ? (char)draw() : liked[draw() % sizeof liked];
    return span_make(mem, len);
}

static void every_line_is_valid_whatever_it_holds(void **state) {
    (void)state;
    static char values[4][3000];
    for (int round = 0; round < 3000; round++) {
        size_t max = round % 3 ? 60 : sizeof values[0];
        struct span v[4];
        for (int i = 0; i < 4; i++)
            v[i] = hostile(values[i], max);
        struct log_field fields[] = {LOG_SPAN("a", v[0]), LOG_U64("n", draw() >> 1), LOG_SPAN("b", v[1]),
                                     LOG_SPAN("c", v[2]), LOG_I64("m", draw()), LOG_SPAN("d", v[3])};
        char mem[LOG_LINE_MAX];
        struct span line = log_compose_json(mem, LOG_LEVEL_INFO, "hostile", fields, sizeof fields / sizeof *fields);
        assert_in_range(line.len, 2, LOG_LINE_MAX);
        assert_ptr_equal(memchr(line.at, '\n', line.len), line.at + line.len - 1);
        for (size_t i = 0; i + 1 < line.len; i++)
            assert_true((unsigned char)line.at[i] >= 0x20);
        json_error_t error;
        json_t *j = json_loadb(line.at, line.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
        if (!j)
            fail_msg("round %d: %s: %.*s", round, error.text, SPAN_FMT(line));
        const char *event = json_string_value(json_object_get(j, "event"));
        assert_string_equal(event, "hostile");
        if (round % 3) /* short ones are whole */
            assert_int_equal(json_object_size(j), 3 + 6);
        json_decref(j);
    }
}

/* -- who listens -- */

static unsigned heard[4];
static char heard_line[LOG_LINE_MAX + 1];

static void listen_to(enum log_level level, const char *event, const struct log_field *fields, size_t count) {
    char mem[LOG_LINE_MAX];
    struct span line = log_compose_json(mem, level, event, fields, count);
    heard[level]++;
    span_copy(line, heard_line, sizeof heard_line);
}

static void a_tap_hears_all_from_info_on(void **state) {
    (void)state;
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    assert_false(log_is_on(LOG_LEVEL_WARN));
    log_set_tap(listen_to);
    assert_true(log_is_on(LOG_LEVEL_INFO));
    assert_false(log_is_on(LOG_LEVEL_DEBUG));
    catch_lines();
    LOG_DEBUG("quiet");
    for (int i = 0; i < 500; i++) { /* also what is held back in the log */
        LOG_INFO("calm", LOG_U64("i", i));
        LOG_ERROR("tapped_storm");
    }
    log_set_tap(NULL);
    LOG_INFO("unheard");
    LOG_ERROR("unheard");
    const char *out = caught();
    assert_int_equal(count_of(out, "calm"), 0); /* the log keeps its level */
    assert_int_equal(heard[LOG_LEVEL_DEBUG], 0);
    assert_int_equal(heard[LOG_LEVEL_INFO], 500);
    assert_int_equal(heard[LOG_LEVEL_ERROR], 500);
    assert_non_null(strstr(heard_line, "\"level\":\"error\",\"event\":\"tapped_storm\"}\n"));
    assert_false(log_is_on(LOG_LEVEL_WARN));
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

/* -- the journal -- */

static const char *lines_of_all_levels(const char *stream, enum log_format format) {
    struct stat st;
    char own[64];
    catch_lines();
    assert_int_equal(fstat(2, &st), 0);
    snprintf(own, sizeof own, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream ? stream : own, 1);
    log_setup(LOG_LEVEL_DEBUG, format);
    LOG_DEBUG("d");
    LOG_INFO("i");
    LOG_WARN("w");
    LOG_ERROR("e");
    unsetenv("JOURNAL_STREAM");
    const char *out = caught();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    return out;
}

static void the_journal_gets_priorities(void **state) {
    (void)state;
    for (int json = 0; json < 2; json++) {
        enum log_format format = json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT;
        const char *out = lines_of_all_levels(NULL, format);
        static const char marks[] = "7643";
        for (int i = 0; i < 4; i++) {
            assert_int_equal(out[0], '<');
            assert_int_equal(out[1], marks[i]);
            assert_int_equal(out[2], '>');
            assert_int_equal(out[3], json ? '{' : '2');
            out = strchr(out, '\n') + 1;
        }
        assert_string_equal(out, "");
    }
    static const char *const others[] = {"1:1", "", "8:", "words", "99999999999999999999:5"};
    for (size_t i = 0; i < 5; i++)
        assert_null(strchr(lines_of_all_levels(others[i], LOG_FORMAT_TEXT), '<'));
}

static void a_line_of_full_length_keeps_its_priority(void **state) {
    (void)state;
    static char big[1100];
    struct stat st;
    char own[64];
    memset(big, 'x', sizeof big - 1);
    catch_lines();
    assert_int_equal(fstat(2, &st), 0);
    snprintf(own, sizeof own, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", own, 1);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    LOG_INFO("long", LOG_STR("a", big), LOG_STR("b", big), LOG_STR("c", big), LOG_STR("d", big), LOG_STR("e", big));
    unsetenv("JOURNAL_STREAM");
    const char *out = caught();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    assert_memory_equal(out, "<6>2", 4);
    assert_in_range(strlen(out), 3980, 4096 + 3);
    assert_int_equal(out[strlen(out) - 1], '\n');
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
        cmocka_unit_test(every_line_is_valid_whatever_it_holds),
        cmocka_unit_test(a_tap_hears_all_from_info_on),
        cmocka_unit_test(the_journal_gets_priorities),
        cmocka_unit_test(a_line_of_full_length_keeps_its_priority),
        cmocka_unit_test(parses_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
