/*
 * settings_http: the HTTP face: where it listens and who may sign in. Users are the only thing between strangers and
 * the queue, so an address that others reach is refused without any.
 */
#include <string.h>

#include "base/net/password.h"
#include "node/settings_schema.h"

#define AT(member) offsetof(struct web_user, member)
static const struct schema_key user_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, 64, NULL, NULL, NULL, "What the user types; letters, digits and `-_.@`."},
    {"password", SCHEMA_TEXT, AT(password), 1, 500, NULL, NULL, NULL,
     "Hash of crypt(3) (`mkpasswd`) or argon2id; never the password itself. `*` locks the user out."},
    {"role", SCHEMA_WORD, AT(role), 0, 0, "viewer", "viewer|operator|admin", NULL,
     "A viewer sees all; an operator may suspend, hold and release too; an admin may do everything."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static void check_user(struct settings_reading *r, const struct yaml *y, const struct web_user *u,
                       const struct web_user *before, size_t count) {
    if (!u->name || !u->password) {
        settings_complain(r, y, "admin.users: takes name and password");
        return;
    }
    if (strspn(u->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@") != strlen(u->name))
        settings_complain(r, y, "admin.users.name: takes letters, digits, '-', '_', '.' and '@'");
    if (password_kind(u->password) == PASSWORD_BAD)
        settings_complain(r, y, "admin.users.password: not a hash of crypt(3) (bcrypt, yescrypt, SHA-2) or argon2id");
    for (size_t i = 0; i < count; i++)
        if (before[i].name && strcmp(before[i].name, u->name) == 0)
            settings_complain(r, y, "admin.users.name: listed twice");
}

void settings_read_users(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t i = 0;
    struct web_settings *w = &r->s->web;
    const struct web_user *users =
        schema_objects(r, y, "admin.users", user_keys, sizeof *users, WEB_USERS_MAX, &w->user_count);
    w->users = users;
    for (const struct yaml *item = users ? y->first : NULL; item; item = item->next, i++)
        check_user(r, item, &users[i], users, i);
}

void settings_check_http(struct settings_reading *r) {
    struct web_settings *w = &r->s->web;
    const char *text = r->s->admin_http;
    w->on = text && *text;
    if (!w->on)
        return;
    if (strncmp(text, "unix:", 5) == 0 || tcp_addr_parse_port(&w->address, span_of(text)) != ERR_OK) {
        settings_complain_key(r, "admin.http", "takes ADDRESS:PORT with numbers, such as 127.0.0.1:8025");
        return;
    }
    if (tcp_addr_is_loopback(&w->address))
        return;
    if (!w->user_count)
        settings_complain_key(r, "admin.http", "an address that others reach needs admin.users");
    else
        buf_printf(
            r->problems,
            "%s:%u: warning: admin.http: passwords and mail addresses go over the network in the clear; listen on "
            "127.0.0.1 and put a proxy with TLS in front\n",
            r->s->file, schema_line(r, "admin.http"));
}

int settings_http_reference(struct buf *to) {
    return schema_object_reference(to,
                                   "## Users of the HTTP face\n\nEach of `admin.users`, at most 200. Without users the "
                                   "HTTP face is open on its loopback\naddress, and read-only. See console.md.",
                                   user_keys);
}
