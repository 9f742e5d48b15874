/* Reloading: all or nothing, tables by themselves, and an end in the middle of a reading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/reload.h"

static char dir[64], file[128], table[128], fresh_table[128];

struct world {
    struct loop *loop;
    struct loop_timer *timer;
    struct reload *reload;
    struct parts *parts;
    struct settings *settings;
    unsigned calls, with_settings;
    bool stop_on_call;
};

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void replace_table(const char *text) {
    write_file(fresh_table, text);
    assert_int_equal(rename(fresh_table, table), 0);
}

static void write_settings(const char *hostname) {
    char text[400];
    snprintf(text, sizeof text,
             "node: {hostname: %s}\n"
             "domains:\n- {name: example.net, recipients: {table: users}, route: \"smtp:127.0.0.1:26\"}\n",
             hostname);
    write_file(file, text);
}

static void on_reload(void *arg, struct settings *settings, struct parts *parts) {
    struct world *w = arg;
    w->calls++;
    if (settings) {
        w->with_settings++;
        settings_free(w->settings);
        w->settings = settings;
    }
    assert_non_null(parts);
    parts_unref(w->parts);
    w->parts = parts;
    if (w->stop_on_call)
        loop_stop(w->loop);
}

static void on_timer(void *arg) {
    loop_stop(((struct world *)arg)->loop);
}

static void run_for(struct world *w, uint64_t ms) {
    loop_timer_set(w->timer, ms);
    loop_run(w->loop);
}

static bool knows(struct world *w, const char *address) {
    struct arena mem;
    struct address a;
    struct recipients_answer out;
    arena_init(&mem, 1024, 0);
    assert_int_equal(address_parse(&a, span_of(address), &mem), ERR_OK);
    assert_int_equal(recipients_judge(parts_recipients(w->parts), &a, false, &mem, &out, NULL), ERR_OK);
    bool known = out.verdict == RECIPIENTS_LOCAL;
    arena_deinit(&mem);
    return known;
}

static int set_up(void **state) {
    static struct world w;
    struct buf problems;
    snprintf(dir, sizeof dir, "/tmp/reload_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/posthouse.yaml", dir);
    snprintf(table, sizeof table, "%s/users", dir);
    snprintf(fresh_table, sizeof fresh_table, "%s/users.new", dir);
    replace_table("alice\n");
    write_settings("mx1.example.net");
    buf_init(&problems, 65536);
    w = (struct world){.loop = loop_new()};
    assert_int_equal(settings_load(&w.settings, file, &problems), ERR_OK);
    assert_int_equal(parts_new(&w.parts, w.settings, NULL, &problems), ERR_OK);
    buf_deinit(&problems);
    w.timer = loop_timer_new(w.loop, on_timer, &w);
    w.reload = reload_new(w.loop, w.settings, w.parts, on_reload, &w);
    assert_true(w.timer && w.reload);
    *state = &w;
    return 0;
}

static int tear_down(void **state) {
    struct world *w = *state;
    reload_free(w->reload);
    loop_timer_close(w->timer);
    loop_free(w->loop);
    parts_unref(w->parts);
    settings_free(w->settings);
    unlink(file);
    unlink(table);
    return rmdir(dir);
}

static void takes_new_settings_and_tables_together(void **state) {
    struct world *w = *state;
    write_settings("mx2.example.net");
    replace_table("bob\n");
    w->stop_on_call = true;
    reload_all(w->reload);
    assert_true(reload_is_busy(w->reload));
    run_for(w, 5000);
    assert_int_equal(w->with_settings, 1);
    assert_string_equal(w->settings->hostname, "mx2.example.net");
    assert_true(knows(w, "bob@example.net"));
    assert_false(knows(w, "alice@example.net"));
}

struct told {
    uint64_t reading;
    int err;
    bool named;
};
static struct told told[8];
static unsigned told_count;

static void on_told(void *arg, uint64_t reading, int err, const struct buf *problems) {
    struct span text = buf_span(problems);
    (void)arg;
    if (told_count < 8)
        told[told_count++] = (struct told){reading, err, text.len && memmem(text.at, text.len, "colour", 6)};
}

static void tells_how_each_reading_ended(void **state) {
    struct world *w = *state;
    told_count = 0;
    reload_tell(w->reload, on_told);
    write_file(file, "node: {hostname: mx3.example.net, colour: blue}\n");
    uint64_t first = reload_all(w->reload);
    assert_true(first > 0);
    assert_int_equal(told_count, 0); /* not inside the call */
    uint64_t second = reload_all(w->reload), third = reload_all(w->reload);
    assert_int_equal(second, first + 1); /* served by the reading after that which is under way */
    assert_int_equal(third, second);
    for (int i = 0; i < 50 && told_count < 2; i++)
        run_for(w, 100);
    assert_int_equal(told_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(told[i].reading, first + i);
        assert_int_equal(told[i].err, ERR_INVALID);
        assert_true(told[i].named);
    }
    write_settings("mx4.example.net");
    uint64_t fourth = reload_all(w->reload);
    for (int i = 0; i < 50 && told_count < 3; i++)
        run_for(w, 100);
    assert_int_equal(told[2].reading, fourth);
    assert_int_equal(told[2].err, ERR_OK);
    assert_string_equal(w->settings->hostname, "mx4.example.net");
    replace_table("bob\n"); /* files alone are no reading of all */
    reload_files(w->reload);
    run_for(w, 600);
    assert_int_equal(told_count, 3);
}

static void keeps_the_old_when_anything_is_wrong(void **state) {
    struct world *w = *state;
    write_file(file, "node: {hostname: mx3.example.net, colour: blue}\n");
    reload_all(w->reload);
    run_for(w, 300);
    assert_false(reload_is_busy(w->reload));
    assert_int_equal(w->calls, 0);
    write_settings("mx3.example.net"); /* good, but its table is not */
    replace_table("bad line\n");
    reload_all(w->reload);
    run_for(w, 300);
    assert_int_equal(w->with_settings, 0);
    unlink(file);
    reload_all(w->reload);
    run_for(w, 300);
    assert_int_equal(w->calls, 0);
    assert_string_equal(w->settings->hostname, "mx1.example.net");
    assert_true(knows(w, "alice@example.net"));
}

static void sees_a_changed_table_by_itself(void **state) {
    struct world *w = *state;
    run_for(w, 700); /* the watch has seen the file as it was */
    w->stop_on_call = true;
    replace_table("alice\nnewcomer\n");
    run_for(w, 10000);
    assert_int_equal(w->calls, 1);
    assert_int_equal(w->with_settings, 0);
    assert_true(knows(w, "newcomer@example.net"));
    replace_table("alice\nnew comer\n"); /* broken: told, not taken */
    w->stop_on_call = false;
    run_for(w, 3000);
    assert_int_equal(w->calls, 1);
    assert_true(knows(w, "newcomer@example.net"));
    w->stop_on_call = true;
    replace_table("zoe\n"); /* and the next good one is seen */
    run_for(w, 10000);
    assert_int_equal(w->calls, 2);
    assert_true(knows(w, "zoe@example.net"));
}

static void a_request_in_a_reading_is_done_after_it(void **state) {
    struct world *w = *state;
    reload_all(w->reload);
    reload_all(w->reload);
    reload_all(w->reload);
    run_for(w, 500);
    assert_int_equal(w->with_settings, 2);
}

static void ends_in_the_middle_of_a_reading(void **state) {
    struct world *w = *state;
    reload_all(w->reload);
    assert_true(reload_is_busy(w->reload));
    /* tear_down frees it now; no callback may come, nothing may leak */
    w->calls = 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_new_settings_and_tables_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_how_each_reading_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_the_old_when_anything_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sees_a_changed_table_by_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_request_in_a_reading_is_done_after_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ends_in_the_middle_of_a_reading, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}
