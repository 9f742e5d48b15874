/* A loop, a post and a client for tests of auth: one exchange at a time, event by event. */
#ifndef TESTS_UNIT_GATEWAY_AUTH_RIG_H
#define TESTS_UNIT_GATEWAY_AUTH_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <argon2.h>
#include <crypt.h>
#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/metrics.h"

#include "gateway/auth/auth.h"

enum { RIG_GIVE_UP_MS = 30000 };

struct rig {
    char dir[64], path[128];
    struct loop *loop;
    struct post *post;
    struct loop_timer *guard;
    struct tcp_addr addr, local;
    struct auth_client client;
    struct buf problems;
    struct auth *auth;
    struct auth_exchange *x;
    bool inside; /* a call of auth is on the stack */
    int events;
    enum auth_event event;
    char text[16384];
    size_t len;
};

static void rig_on_guard(void *arg) {
    (void)arg;
    fail_msg("no event came");
}

static void rig_on_event(void *arg, enum auth_event event, struct span text) {
    struct rig *r = arg;
    assert_false(r->inside);
    r->events++;
    r->event = event;
    r->len = span_copy(text, r->text, sizeof r->text);
    if (event != AUTH_CHALLENGE)
        r->x = NULL;
    loop_stop(r->loop);
}

static void rig_client(struct rig *r, const char *ip) {
    assert_int_equal(tcp_addr_parse(&r->addr, span_of(ip), 40000), ERR_OK);
    r->client.client_ip = span_of(ip);
}

static void rig_open(struct rig *r) {
    memset(r, 0, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "/tmp/auth_test.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/passwd", r->dir);
    r->loop = loop_new();
    r->post = post_new(r->loop);
    r->guard = loop_timer_new(r->loop, rig_on_guard, r);
    assert_non_null(r->guard);
    buf_init(&r->problems, 1 << 16);
    r->client = (struct auth_client){.loop = r->loop, .client = &r->addr, .local = &r->local, .tls = true};
    rig_client(r, "192.0.2.1");
    assert_int_equal(tcp_addr_parse(&r->local, SPAN("127.0.0.1"), 587), ERR_OK);
}

static void rig_close(struct rig *r) {
    auth_unref(r->auth);
    loop_timer_close(r->guard);
    post_free(r->post);
    loop_free(r->loop);
    buf_deinit(&r->problems);
    unlink(r->path);
    rmdir(r->dir);
}

static void rig_turn(struct rig *r) {
    loop_timer_set(r->guard, RIG_GIVE_UP_MS);
    loop_run(r->loop);
    loop_timer_stop(r->guard);
}

/* Until the next event. */
__attribute__((unused)) static enum auth_event rig_wait(struct rig *r) {
    int before = r->events;
    while (r->events == before)
        rig_turn(r);
    return r->event;
}

static void rig_stop(void *arg) {
    loop_stop(((struct rig *)arg)->loop);
}

/* Lets the loop turn for a while, during which no event may come. */
__attribute__((unused)) static void rig_rest(struct rig *r, uint64_t ms) {
    int before = r->events;
    struct loop_timer *t = loop_timer_new(r->loop, rig_stop, r);
    loop_timer_set(t, ms);
    rig_turn(r);
    loop_timer_close(t);
    assert_int_equal(r->events, before);
}

__attribute__((unused)) static int rig_begin(struct rig *r, const char *mechanism, struct span initial) {
    r->inside = true;
    int err = auth_begin(&r->x, r->auth, r->post, &r->client, span_of(mechanism), initial, rig_on_event, r);
    r->inside = false;
    return err;
}

__attribute__((unused)) static enum auth_event rig_answer(struct rig *r, struct span response) {
    assert_int_equal(r->event, AUTH_CHALLENGE);
    r->inside = true;
    auth_answer(r->x, response);
    r->inside = false;
    return rig_wait(r);
}

/* PLAIN with an initial response; the event that ends it. */
__attribute__((unused)) static enum auth_event rig_plain(struct rig *r, const char *account, const char *password) {
    char message[2048];
    size_t len = (size_t)snprintf(message, sizeof message, "%c%s%c%s", 0, account, 0, password);
    assert_int_equal(rig_begin(r, "PLAIN", span_make(message, len)), ERR_OK);
    return rig_wait(r);
}

__attribute__((unused)) static void rig_write(const char *path, const char *text, mode_t mode) {
    unlink(path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) >= 0, 1);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

__attribute__((unused)) static const char *rig_crypt(const char *password, const char *prefix, unsigned long cost) {
    static struct crypt_data data;
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    assert_non_null(crypt_gensalt_rn(prefix, cost, "0123456789abcdef", 16, setting, sizeof setting));
    return crypt_rn(password, setting, &data, sizeof data);
}

__attribute__((unused)) static const char *rig_argon2(const char *password) {
    static char out[256];
    assert_int_equal(argon2id_hash_encoded(1, 64, 1, password, strlen(password), "saltsalt", 8, 32, out, sizeof out),
                     ARGON2_OK);
    return out;
}

__attribute__((unused)) static const char *rig_scram(const char *password, unsigned iterations) {
    static char out[512];
    char salted[32], client[32], server[32], stored[32];
    struct buf b;
    buf_init(&b, sizeof out);
    assert_int_equal(gsasl_scram_secrets_from_password(GSASL_HASH_SHA256, password, iterations, "0123456789abcdef", 16,
                                                       salted, client, server, stored),
                     GSASL_OK);
    buf_printf(&b, "SCRAM-SHA-256$%u:", iterations);
    base64_encode(SPAN("0123456789abcdef"), &b);
    buf_add_byte(&b, '$');
    base64_encode(span_make(stored, 32), &b);
    buf_add_byte(&b, ':');
    base64_encode(span_make(server, 32), &b);
    span_copy(buf_span(&b), out, sizeof out);
    buf_deinit(&b);
    return out;
}

/* The value of a metric by its name and labels. */
__attribute__((unused)) static uint64_t rig_metric(const char *name, const char *labels) {
    for (struct metric *m = metric_first(); m; m = m->next) {
        if (strcmp(m->name, name) == 0 && (!labels || strcmp(m->labels, labels) == 0))
            return metric_value(m);
    }
    fail_msg("no metric %s", name);
    return 0;
}

#endif
