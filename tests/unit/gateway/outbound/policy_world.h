/*
 * policy_world: what the tests of sts and tlsrpt stand in: a loop with a guard, TXT records by script, a real HTTPS
 * server (tests/support/policy_server.py) with a certificate for *.ONE.test for the names in POLICY_HOSTS, and a
 * folder.
 */
#ifndef TESTS_UNIT_GATEWAY_OUTBOUND_POLICY_WORLD_H
#define TESTS_UNIT_GATEWAY_OUTBOUND_POLICY_WORLD_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/metrics.h"
#include "base/net/dns.h"
#include "base/net/http.h"
#include "base/net/loop.h"
#include "tests/support/child.h"

#define POLICY_HOSTS                                                                                                   \
    "subjectAltName=DNS:*.good.test,DNS:*.two.test,DNS:*.three.test,DNS:*.four.test,DNS:*.five.test,DNS:reports.test"

enum { TXT_MAX = 3, NAMES_MAX = 20, PENDING_MAX = 32 };

struct txt { /* the records of one name */
    char name[100];
    const char *text[TXT_MAX]; /* NULL: no more */
    enum dns_status status;
    uint32_t ttl_s;
};
struct policy_world {
    struct loop *loop;
    struct loop_timer *guard, *dns_timer, *pause;
    struct http *http;
    bool timed_out, running, dns_later;
    struct txt names[NAMES_MAX];
    size_t name_count, pending_count;
    struct {
        char name[300];
        dns_cb cb;
        void *arg;
    } pending[PENDING_MAX];
    unsigned queries;
};

static struct child policy_server;
static char policy_dir[64], policy_ca[128], policy_connect[64];

/* -- the DNS -- */

static inline void dns_tell(struct policy_world *w, const char *name, dns_cb cb, void *arg) {
    struct dns_record records[TXT_MAX];
    char packets[TXT_MAX][512];
    struct dns_answer a = {.status = DNS_NXDOMAIN, .why = "", .ttl_s = 300, .records = records};
    for (size_t i = 0; i < w->name_count; i++) {
        struct txt *t = &w->names[i];
        if (strcmp(t->name, name) != 0)
            continue;
        a.status = t->status;
        a.ttl_s = t->ttl_s;
        for (size_t n = 0; n < TXT_MAX && t->text[n] && a.status == DNS_OK; n++) {
            size_t len = strlen(t->text[n]), half = len / 2; /* in two strings, as long ones are */
            packets[n][0] = (char)half;
            memcpy(packets[n] + 1, t->text[n], half);
            packets[n][1 + half] = (char)(len - half);
            memcpy(packets[n] + 2 + half, t->text[n] + half, len - half);
            records[n] = (struct dns_record){.data = span_make(packets[n], len + 2)};
            a.count++;
        }
    }
    cb(arg, &a);
}

static inline void dns_script(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    struct policy_world *w = dns;
    assert_int_equal(type, DNS_TXT);
    w->queries++;
    if (!w->dns_later) {
        dns_tell(w, name, cb, arg);
        return;
    }
    assert_true(w->pending_count < PENDING_MAX);
    snprintf(w->pending[w->pending_count].name, sizeof w->pending[0].name, "%s", name);
    w->pending[w->pending_count].cb = cb;
    w->pending[w->pending_count++].arg = arg;
    loop_timer_set(w->dns_timer, 1);
}

static inline void on_dns_timer(void *arg) {
    struct policy_world *w = arg;
    while (w->pending_count) {
        w->pending_count--;
        dns_tell(w, w->pending[w->pending_count].name, w->pending[w->pending_count].cb,
                 w->pending[w->pending_count].arg);
    }
}

/* Says what a name has from now on; text NULL with DNS_OK is not allowed. */
static inline struct txt *dns_say(struct policy_world *w, const char *prefix, const char *domain,
                                  enum dns_status status, const char *text) {
    char name[100];
    struct txt *t = NULL;
    snprintf(name, sizeof name, "%s.%s", prefix, domain);
    for (size_t i = 0; i < w->name_count && !t; i++)
        t = strcmp(w->names[i].name, name) == 0 ? &w->names[i] : NULL;
    if (!t) {
        assert_true(w->name_count < NAMES_MAX);
        t = &w->names[w->name_count++];
    }
    *t = (struct txt){.text = {text}, .status = status, .ttl_s = 300};
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

/* -- files -- */

static inline const char *in_dir(const char *name) {
    static char path[4][400];
    static unsigned turn;
    char *to = path[turn++ % 4];
    snprintf(to, sizeof path[0], "%s/%s", policy_dir, name);
    return to;
}

static inline void put_file(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static inline bool has_file(const char *name) {
    return access(in_dir(name), F_OK) == 0;
}

static inline size_t get_file(const char *name, char *to, size_t size) {
    FILE *f = fopen(in_dir(name), "r");
    assert_non_null(f);
    size_t n = fread(to, 1, size - 1, f);
    to[n] = '\0';
    fclose(f);
    return n;
}

/* -- time -- */

static inline void on_world_guard(void *arg) {
    struct policy_world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static inline void on_world_pause(void *arg) {
    loop_stop(((struct policy_world *)arg)->loop);
}

/* Lets the loop run for a moment. */
static inline void world_pause(struct policy_world *w, uint64_t ms) {
    loop_timer_set(w->pause, ms);
    loop_run(w->loop);
    assert_false(w->timed_out);
}

static inline uint64_t metric_now(const char *name) {
    for (struct metric *m = metric_first(); m; m = m->next)
        if (strcmp(m->name, name) == 0)
            return metric_value(m);
    fail_msg("no metric %s", name);
    return 0;
}

static inline void world_start(struct policy_world *w, const char *ca_file) {
    *w = (struct policy_world){.loop = loop_new()};
    w->guard = loop_timer_new(w->loop, on_world_guard, w);
    w->dns_timer = loop_timer_new(w->loop, on_dns_timer, w);
    w->pause = loop_timer_new(w->loop, on_world_pause, w);
    loop_timer_set(w->guard, 60000);
    assert_int_equal(http_new(&w->http, w->loop, &(struct http_config){.ca_file = ca_file}), ERR_OK);
}

static inline void world_stop(struct policy_world *w) {
    http_free(w->http);
    loop_timer_close(w->guard);
    loop_timer_close(w->dns_timer);
    loop_timer_close(w->pause);
    loop_free(w->loop);
}

/* -- the server -- */

static inline int run_quietly(const char *const *argv) {
    pid_t pid = fork();
    int status = -1;
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

static inline int world_setup(void **state) {
    (void)state;
    static char key[128];
    snprintf(policy_dir, sizeof policy_dir, "/tmp/posthouse-policy-XXXXXX");
    if (!mkdtemp(policy_dir))
        return -1;
    snprintf(policy_ca, sizeof policy_ca, "%s", in_dir("cert.pem"));
    snprintf(key, sizeof key, "%s", in_dir("key.pem"));
    const char *const make[] = {
        "openssl", "req",   "-x509", "-newkey", "ec",       "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes",  "-days", "30",    "-subj",   "/CN=test", "-addext",  POLICY_HOSTS,
        "-keyout", key,     "-out",  policy_ca, NULL};
    const char *const serve[] = {"python3", SOURCE_DIR "/tests/support/policy_server.py", policy_ca, key, policy_dir,
                                 NULL};
    if (run_quietly(make) != 0 || !child_start(&policy_server, serve))
        return -1;
    snprintf(policy_connect, sizeof policy_connect, "127.0.0.1:%u", policy_server.port);
    return 0;
}

static inline int world_teardown(void **state) {
    (void)state;
    child_end(&policy_server);
    DIR *d = opendir(policy_dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlink(in_dir(e->d_name));
    if (d)
        closedir(d);
    return rmdir(policy_dir);
}

#endif
