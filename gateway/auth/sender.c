/*
 * sender: see sender.h. Lines "account: address, @domain, ..."; "*" stands for every address. Addresses are brought
 * into the form that the envelope has (domains as lower-case A-labels) once, here; local parts are compared without
 * regard to the case of ASCII letters, as recipients are.
 */
#include "gateway/auth/sender.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"

#include "gateway/auth/lines.h"
#include "gateway/auth/sasl.h"
#include "gateway/smtp/address.h"

enum { TERMS_MAX = 1000, MEMORY_MAX = 512 << 20 };

struct login {
    struct map_node node;
    struct span account;
    struct span *terms; /* "a@b", "@b", "*" */
    size_t count;
};
struct sender_login {
    struct lines lines;
    struct arena mem;
    struct map map;
};

static bool match(const struct map_node *n, const void *key) {
    return span_eq(CONTAINER_OF(n, struct login, node)->account, *(const struct span *)key);
}

static const struct login *find(const struct sender_login *s, struct span account) {
    const struct map_node *n = map_find(&s->map, hash_span(account, 0), match, &account);
    return n ? CONTAINER_OF(n, struct login, node) : NULL;
}

static int add_term(struct sender_login *s, struct login *l, struct span word) {
    struct span term = SPAN("*");
    struct address a;
    int err = ERR_OK;
    if (word.len && word.at[0] == '@') {
        struct span domain;
        err = address_parse_domain(&domain, span_from(word, 1), &s->mem);
        term.at = err ? NULL : arena_printf(&s->mem, "@%.*s", SPAN_FMT(domain));
        term.len = err ? 0 : domain.len + 1;
    } else if (!span_eq(word, term)) {
        err = address_parse(&a, word, &s->mem);
        term = a.text;
    }
    if (err == ERR_NOMEM || (!err && !term.at))
        return ERR_NOMEM;
    if (err)
        lines_problem(&s->lines, "not an address, @domain or *", word);
    else
        l->terms[l->count++] = term;
    return ERR_OK;
}

static int add_line(struct sender_login *s, const char *realm, struct span name, struct span rest) {
    char account[AUTH_ACCOUNT_MAX + 1];
    if (sasl_account(name, realm, account) != ERR_OK) {
        lines_problem(&s->lines, "not a name of an account", name);
        return ERR_OK;
    }
    if (find(s, span_of(account))) {
        lines_problem(&s->lines, "this account has a line already", name);
        return ERR_OK;
    }
    size_t words = 1;
    for (size_t i = 0; i < rest.len; i++)
        words += rest.at[i] == ',';
    if (words > TERMS_MAX) {
        lines_problem(&s->lines, "more than 1000 addresses", name);
        return ERR_OK;
    }
    struct login *l = arena_calloc(&s->mem, 1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->account = arena_dup(&s->mem, span_of(account));
    l->terms = arena_calloc(&s->mem, words, sizeof *l->terms);
    if (!l->account.at || !l->terms)
        return ERR_NOMEM;
    int err = map_insert(&s->map, &l->node, hash_span(l->account, 0));
    while (!err && words--)
        err = add_term(s, l, span_trim(span_cut(rest, ',', &rest)));
    return err;
}

int sender_login_new(struct sender_login **out, const char *path, const char *realm, struct buf *problems) {
    struct sender_login *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    struct span name, rest;
    map_init(&s->map);
    arena_init(&s->mem, 1 << 16, MEMORY_MAX);
    int err = lines_open(&s->lines, path, false, problems);
    while (!err && lines_next(&s->lines, &name, &rest))
        err = add_line(s, realm, name, rest);
    if (!err && s->lines.problem_count)
        err = ERR_INVALID;
    s->lines.problems = NULL;
    if (err)
        sender_login_free(s);
    else
        *out = s;
    return err;
}

void sender_login_free(struct sender_login *s) {
    if (!s)
        return;
    lines_close(&s->lines);
    map_deinit(&s->map);
    arena_deinit(&s->mem);
    free(s);
}

bool sender_login_is_stale(const struct sender_login *s) {
    return lines_is_stale(&s->lines);
}

bool sender_login_may(const struct sender_login *s, struct span account, struct span sender) {
    if (sender.len == 0)
        return true;
    const struct login *l = s ? find(s, account) : NULL;
    if (!l)
        return span_eq_nocase(account, sender);
    ptrdiff_t at = span_rfind(sender, '@');
    for (size_t i = 0; i < l->count; i++) {
        struct span term = l->terms[i];
        struct span part = term.at[0] == '@' && at >= 0 ? span_from(sender, (size_t)at) : sender;
        if (span_eq(term, SPAN("*")) || span_eq_nocase(term, part))
            return true;
    }
    return false;
}
