/* settings of the operators' RPC: endpoints, the node's key, and the keys that may come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/access.h"
#include "node/settings.h"

static char dir[64], file[128], key_file[128];
static struct bus_key node_key, ops;

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/settings_admin_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/posthouse.yaml", dir);
    snprintf(key_file, sizeof key_file, "%s/node.key", dir);
    return bus_key_new(&node_key) || bus_key_new(&ops) || bus_key_write(key_file, &node_key);
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    unlink(key_file);
    return rmdir(dir);
}

/* KEY in the text becomes the public key of ops. */
static int load(const char *admin, struct settings **s, struct buf *problems) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("node: {hostname: mx.example.net}\nadmin:\n", f);
    for (const char *at = admin; *at; at++) {
        if (strncmp(at, "KEY", 3) == 0) {
            fputs(ops.public_key, f);
            at += 2;
        } else {
            fputc(*at, f);
        }
    }
    assert_int_equal(fclose(f), 0);
    buf_init(problems, 65536);
    return settings_load(s, file, problems);
}

static void accepts(const char *admin, struct settings **s) {
    struct buf problems;
    int err = load(admin, s, &problems);
    if (err != ERR_OK)
        fail_msg("%s: %s", admin, buf_cstr(&problems));
    buf_deinit(&problems);
}

static void complains(const char *admin, const char *expected) {
    struct settings *s;
    struct buf problems;
    assert_int_equal(load(admin, &s, &problems), ERR_INVALID);
    if (!strstr(buf_cstr(&problems), expected))
        fail_msg("%s: \"%s\" is not in:\n%s", admin, expected, buf_cstr(&problems));
    buf_deinit(&problems);
}

static void endpoints_are_one_or_several(void **state) {
    (void)state;
    struct settings *s;
    accepts("  {}\n", &s);
    assert_int_equal(s->admin.rpc_count, 1);
    assert_string_equal(s->admin.rpc[0], "ipc:///run/posthouse/admin");
    assert_false(settings_has_tcp_rpc(s));
    settings_free(s);
    accepts("  rpc: \"ipc:///tmp/x\"\n", &s);
    assert_int_equal(s->admin.rpc_count, 1);
    assert_string_equal(s->admin.rpc[0], "ipc:///tmp/x");
    settings_free(s);
    accepts("  rpc: [\"ipc:///tmp/x\", \"tcp://127.0.0.1:7026\", \"tcp://[::1]:7026\"]\n  key: node.key\n"
            "  keys:\n    - {name: ops@example, key: \"KEY\", role: operator}\n",
            &s);
    assert_int_equal(s->admin.rpc_count, 3);
    assert_true(settings_has_tcp_rpc(s));
    assert_string_equal(s->admin.key.secret_key, node_key.secret_key);
    assert_int_equal(s->admin.key_count, 1);
    assert_string_equal(s->admin.keys[0].name, "ops@example");
    assert_string_equal(s->admin.keys[0].key, ops.public_key);
    assert_int_equal(s->admin.keys[0].role, ADMIN_ROLE_OPERATOR);
    settings_free(s);
}

static void roles_are_those_of_the_service(void **state) {
    (void)state;
    static const char *const names[] = {"viewer", "operator", "admin"};
    for (unsigned i = 0; i < 3; i++) {
        struct settings *s;
        char text[200];
        snprintf(text, sizeof text, "  keys: [{name: a, key: \"KEY\", role: %s}]\n", names[i]);
        accepts(text, &s);
        assert_string_equal(access_role_name(s->admin.keys[0].role), names[i]);
        settings_free(s);
    }
}

static void a_door_to_the_network_needs_keys(void **state) {
    (void)state;
    complains("  rpc: \"tcp://127.0.0.1:7026\"\n", ":3: admin.rpc: tcp:// needs admin.key");
    complains("  rpc: \"tcp://127.0.0.1:7026\"\n", ":3: admin.rpc: tcp:// needs admin.keys");
    complains("  rpc: \"tcp://127.0.0.1:7026\"\n  key: node.key\n  keys: []\n", "needs admin.keys");
    complains("  rpc: \"tcp://127.0.0.1:7026\"\n  key: no.key\n", ":4: admin.key: ");
    assert_int_equal(chmod(key_file, 0644), 0);
    complains("  key: node.key\n", "others can read it");
    assert_int_equal(chmod(key_file, 0600), 0);
    complains("  key: posthouse.yaml\n", "not a key file");
}

static void endpoints_are_checked(void **state) {
    (void)state;
    static const char *const bad[] = {
        "ipc://relative", "ipc:///", "tcp://*:1",     "tcp://host.test:1", "tcp://127.0.0.1",
        "inproc://admin", "udp://1", "tcp://unix:/x", "tcp://127.0.0.1:x", "tcp://127.0.0.1:70000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[200];
        snprintf(text, sizeof text, "  rpc: \"%s\"\n", bad[i]);
        complains(text, ":3: admin.rpc: takes ipc:///PATH and tcp://ADDRESS:PORT");
    }
    complains("  rpc: []\n", "takes at least one endpoint");
    complains("  rpc: {a: b}\n", "admin.rpc: takes a list");
    complains("  rpc: [\"ipc:///tmp/x\", \"ipc:///tmp/x\"]\n", "the same endpoint twice");
    complains(
        "  rpc: [\"ipc:///1\", \"ipc:///2\", \"ipc:///3\", \"ipc:///4\", \"ipc:///5\", \"ipc:///6\", \"ipc:///7\", "
        "\"ipc:///8\", \"ipc:///9\"]\n",
        "admin.rpc: at most 8");
}

static void keys_are_checked(void **state) {
    (void)state;
    complains("  keys: [{key: \"KEY\", role: admin}]\n", "admin.keys.name: missing");
    complains("  keys: [{name: a, role: admin}]\n", "admin.keys.key: missing");
    complains("  keys: [{name: a, key: \"KEY\"}]\n", "admin.keys.role: missing");
    complains("  keys: [{name: a, key: \"KEY\", role: root}]\n", "takes one of viewer|operator|admin");
    complains("  keys: [{name: a, key: \"KEY\", role: nobody}]\n", "takes one of viewer|operator|admin");
    complains("  keys: [{name: a, key: short, role: admin}]\n", "admin.keys.key: takes 40 to 40 characters");
    complains("  keys: [{name: a, key: \"________________________________________\", role: admin}]\n",
              "not a public key");
    complains("  keys: [{name: \"a b\", key: \"KEY\", role: admin}]\n", "admin.keys.name: takes letters");
    complains("  keys:\n    - {name: a, key: \"KEY\", role: admin}\n    - {name: b, key: \"KEY\", role: viewer}\n",
              ":5: admin.keys.key: the same key twice");
    complains("  keys:\n    - {name: a, key: \"KEY\", role: admin}\n    - {name: a, key: \"KEY\", role: viewer}\n",
              ":5: admin.keys.name: a: the same name twice");
    complains("  keys: none\n", "admin.keys: takes a list");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(endpoints_are_one_or_several),
        TEST(roles_are_those_of_the_service),
        TEST(a_door_to_the_network_needs_keys),
        TEST(endpoints_are_checked),
        TEST(keys_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
