/*
 * settings_admin: where operators' tools come in (admin.rpc), and the keys that open the door over tcp. A door to the
 * network without keys, or keys that nobody could use as they stand, are refused when the settings are read.
 */
#include <string.h>

#include "admin/access.h"
#include "node/settings_schema.h"

enum { KEYS_MAX = 1000, NAME_LEN_MAX = 40 };

static const char *const rpc_default[] = {"ipc:///run/posthouse/admin"};

static bool is_ipc(const char *endpoint) {
    return strncmp(endpoint, "ipc:///", 7) == 0 && endpoint[7] != '\0' && strlen(endpoint) <= 100;
}

static bool is_tcp(const char *endpoint) {
    struct tcp_addr a;
    return strncmp(endpoint, "tcp://", 6) == 0 && tcp_addr_parse_port(&a, span_of(endpoint + 6)) == ERR_OK &&
           a.storage.ss_family != AF_UNIX;
}

void settings_default_admin(struct settings *s) {
    s->admin.rpc = rpc_default;
    s->admin.rpc_count = 1;
}

void settings_read_rpc(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct settings_admin *to = &r->s->admin;
    struct yaml one = *y, list = {.kind = YAML_LIST, .line = y->line, .first = &one};
    one.next = NULL;
    const char *const *all =
        settings_texts(r, y->kind == YAML_SCALAR ? &list : y, "admin.rpc", ADMIN_DOORS_MAX, &to->rpc_count);
    if (!all || !to->rpc_count) {
        settings_default_admin(r->s);
        if (all && y->kind == YAML_LIST && !y->first)
            settings_complain(r, y, "admin.rpc: takes at least one endpoint");
        return;
    }
    to->rpc = all;
    for (size_t i = 0; i < to->rpc_count; i++) {
        if (!is_ipc(all[i]) && !is_tcp(all[i]))
            settings_complain(r, y, "admin.rpc: takes ipc:///PATH and tcp://ADDRESS:PORT");
        for (size_t k = 0; k < i; k++)
            if (strcmp(all[i], all[k]) == 0)
                settings_complain(r, y, "admin.rpc: the same endpoint twice");
    }
}

/* A node that is told where its key is has it; whoever reads the settings of another machine need not. */
void settings_read_node_key(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct settings_admin *to = &r->s->admin;
    if (y->kind != YAML_SCALAR) {
        settings_complain(r, y, "admin.key: takes one value");
        return;
    }
    bool before = r->failed;
    r->failed = false;
    schema_read_file(r, y, "admin.key", &to->key_file);
    if (!r->failed) {
        int err = bus_key_read(to->key_file, &to->key);
        if (err == ERR_DENIED)
            settings_complain(r, y, "admin.key: %s: cannot be read, or others can read it (chmod 600)", to->key_file);
        else if (err != ERR_OK)
            settings_complain(r, y, "admin.key: %s: not a key file (see: posthouse key new)", to->key_file);
    }
    r->failed |= before;
}

#define AT(member) offsetof(struct admin_key, member)
static const struct schema_key key_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, NAME_LEN_MAX, NULL, NULL, NULL,
     "Who holds it: the name in the audit. Letters, digits, `-`, `_`, `.` and `@`."},
    {"key", SCHEMA_TEXT, AT(key), BUS_KEY_LEN, BUS_KEY_LEN, NULL, NULL, NULL,
     "The public key that `posthouse key new` printed, in quotes."},
    {"role", SCHEMA_WORD, AT(role), 0, 0, "viewer", "viewer|operator|admin", NULL,
     "viewer: questions. operator: and changes of the queue, and the words of messages. admin: and the node itself."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static bool is_name(const char *text) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@";
    return strspn(text, good) == strlen(text);
}

static void check_key(struct settings_reading *r, const struct yaml *y, const struct admin_key *all, size_t n) {
    static const char section[] = "admin.keys";
    const struct admin_key *k = &all[n];
    const char *missing = !schema_child(y, "name")   ? "name"
                          : !schema_child(y, "key")  ? "key"
                          : !schema_child(y, "role") ? "role"
                                                     : NULL;
    if (missing)
        settings_complain(r, y, "%s.%s: missing", section, missing);
    if (k->name && !is_name(k->name))
        settings_complain(r, y, "%s.name: takes letters, digits, '-', '_', '.' and '@'", section);
    if (k->key && !bus_key_is_good(span_of(k->key)))
        settings_complain(r, y, "%s.key: not a public key (40 characters, as posthouse key new prints them)", section);
    for (size_t i = 0; i < n; i++) {
        if (k->name && all[i].name && strcmp(k->name, all[i].name) == 0)
            settings_complain(r, y, "%s.name: %s: the same name twice", section, k->name);
        if (k->key && all[i].key && strcmp(k->key, all[i].key) == 0)
            settings_complain(r, y, "%s.key: the same key twice", section);
    }
}

void settings_read_admin_keys(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct settings_admin *to = &r->s->admin;
    struct admin_key *all = schema_objects(r, y, "admin.keys", key_keys, sizeof *all, KEYS_MAX, &to->key_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < to->key_count; i++, c = c->next) {
        all[i].role += ADMIN_ROLE_VIEWER; /* the words begin at the first role */
        check_key(r, c, all, i);
    }
    to->keys = all;
}

bool settings_has_tcp_rpc(const struct settings *s) {
    for (size_t i = 0; i < s->admin.rpc_count; i++)
        if (strncmp(s->admin.rpc[i], "tcp:", 4) == 0)
            return true;
    return false;
}

void settings_check_admin(struct settings_reading *r) {
    const struct settings *s = r->s;
    if (!settings_has_tcp_rpc(s))
        return;
    if (!schema_line(r, "admin.key"))
        settings_complain_key(r, "admin.rpc", "tcp:// needs admin.key, the node's key file (see: posthouse key new)");
    if (!s->admin.key_count)
        settings_complain_key(r, "admin.rpc", "tcp:// needs admin.keys: who may come in");
}

int settings_admin_reference(struct buf *to) {
    return schema_object_reference(to, "## Each of `admin.keys`", key_keys);
}
