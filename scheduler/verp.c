/*
 * verp: see verp.h. Joins only what is joined without quoting: dot-atoms of ASCII, and a local part of at most 64
 * octets. Whoever cannot be joined is sent to with the plain return path rather than not at all.
 */
#include "scheduler/verp.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define LOCAL_MAX 64u
#define PATH_MAX_LEN 254u

struct verp {
    struct arena mem;
    struct span *senders;
    size_t count;
};

int verp_new(struct verp **out, const char *const *senders, size_t count) {
    struct verp *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v)
        return ERR_NOMEM;
    arena_init(&v->mem, 1024, 0);
    v->senders = arena_calloc(&v->mem, count + 1, sizeof *v->senders);
    while (v->senders && v->count < count) {
        v->senders[v->count] = arena_dup(&v->mem, span_of(senders[v->count]));
        if (!v->senders[v->count].at)
            break;
        v->count++;
    }
    if (!v->senders || v->count < count) {
        verp_free(v);
        return ERR_NOMEM;
    }
    *out = v;
    return ERR_OK;
}

void verp_free(struct verp *v) {
    if (!v)
        return;
    arena_deinit(&v->mem);
    free(v);
}

static bool is_listed(const struct verp *v, struct span sender, struct span domain) {
    for (size_t i = 0; i < v->count; i++)
        if (span_eq_nocase(v->senders[i], span_find(v->senders[i], '@') < 0 ? domain : sender))
            return true;
    return false;
}

static bool is_plain(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c <= 32 || c >= 127 || strchr("\"\\()<>[]:;,@", c))
            return false;
    }
    return s.len > 0;
}

struct span verp_return_path(const struct verp *v, struct span sender, struct span recipient, struct arena *mem) {
    ptrdiff_t at = span_rfind(sender, '@'), to = span_rfind(recipient, '@');
    if (!v || !v->count || at <= 0 || to <= 0)
        return SPAN_EMPTY;
    struct span local = span_first(sender, (size_t)at), domain = span_from(sender, (size_t)at + 1);
    struct span user = span_first(recipient, (size_t)to), host = span_from(recipient, (size_t)to + 1);
    if (!is_listed(v, sender, domain) || !is_plain(local) || !is_plain(user) || !is_plain(host) ||
        !utf8_is_ascii(domain))
        return SPAN_EMPTY;
    size_t len = local.len + 1 + user.len + 1 + host.len;
    if (len > LOCAL_MAX || len + 1 + domain.len > PATH_MAX_LEN)
        return SPAN_EMPTY;
    const char *path =
        arena_printf(mem, "%.*s+%.*s=%.*s@%.*s", SPAN_FMT(local), SPAN_FMT(user), SPAN_FMT(host), SPAN_FMT(domain));
    return path ? span_of(path) : SPAN_EMPTY;
}
