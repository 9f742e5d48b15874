/*
 * config_text: see config_text.h. A secret is what stands under a key whose name ends in password, secret, secrets or
 * token, the headers of hooks, and the password of a URI; comments are gone with the reading of the file, and what
 * they held with them.
 */
#include "node/config_text.h"

#include <string.h>

#include "base/hash.h"

enum { INDENT = 2, LINE_MAX_LEN = 64 * 1024 };
static const char blank[] = "***";

struct writer {
    struct config_lines *to;
    struct arena *mem;
    struct buf line;   /* being written, as it is shown */
    struct buf secret; /* what its hash knows besides */
    unsigned indent;
    bool open; /* "- " was written: the next key stands behind it */
    int err;
};

/* -- scalars -- */

static bool ends_with(struct span s, struct span end) {
    return s.len >= end.len && span_eq(span_from(s, s.len - end.len), end);
}

static bool is_secret_key(struct span key) {
    return ends_with(key, SPAN("password")) || ends_with(key, SPAN("secret")) || ends_with(key, SPAN("secrets")) ||
           ends_with(key, SPAN("token")) || span_eq(key, SPAN("headers"));
}

static bool is_plain(struct span s) {
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:@+-";
    if (s.len == 0 || !memchr(first, s.at[0], sizeof first - 1) || s.at[s.len - 1] == ':')
        return false;
    for (size_t i = 1; i < s.len; i++)
        if (!memchr(rest, s.at[i], sizeof rest - 1))
            return false;
    return true;
}

static void add_quoted(struct buf *to, struct span s) {
    buf_add_byte(to, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c == '"' || c == '\\')
            buf_printf(to, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(to, "\\x%02x", c);
        else
            buf_add_byte(to, (char)c);
    }
    buf_add_byte(to, '"');
}

static ptrdiff_t find_text(struct span s, struct span text) {
    const char *at = s.len ? memmem(s.at, s.len, text.at, text.len) : NULL;
    return at ? at - s.at : -1;
}

/* The password of "scheme://user:password@host", or an empty span. */
static struct span find_password(struct span s) {
    ptrdiff_t scheme = find_text(s, SPAN("://"));
    struct span rest = scheme < 0 ? SPAN_EMPTY : span_from(s, (size_t)scheme + 3);
    ptrdiff_t slash = span_find(rest, '/');
    struct span authority = slash < 0 ? rest : span_first(rest, (size_t)slash);
    ptrdiff_t at = span_rfind(authority, '@');
    struct span user = at < 0 ? SPAN_EMPTY : span_first(authority, (size_t)at);
    ptrdiff_t colon = span_find(user, ':');
    return colon < 0 ? SPAN_EMPTY : span_from(user, (size_t)colon + 1);
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* "password=" or "password = ": how long, when the text begins with a word that a secret follows; else 0. */
static size_t secret_word(struct span s) {
    static const char *const words[] = {"password", "passwd", "pwd", "token", "secret", "apikey", "api_key"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t len = strlen(words[i]);
        if (!span_starts_nocase(s, span_of(words[i])))
            continue;
        while (len < s.len && is_blank(s.at[len]))
            len++;
        if (len == s.len || s.at[len++] != '=')
            continue;
        while (len < s.len && is_blank(s.at[len]))
            len++;
        return len;
    }
    return 0;
}

/* In a URI up to '&'; in a connection string of libpq 'in quotes', or a word, where a backslash takes an octet more. */
static size_t value_len(struct span s, bool in_uri) {
    bool quoted = !in_uri && s.len && s.at[0] == '\'';
    size_t len = quoted;
    while (len < s.len && !(in_uri ? s.at[len] == '&' : quoted ? s.at[len] == '\'' : is_blank(s.at[len])))
        len += !in_uri && s.at[len] == '\\' ? 2 : 1;
    return len < s.len ? len + quoted : s.len;
}

/* The text with what is secret in it blanked; that goes to `secret`. */
static void blank_parts(struct span s, struct buf *text, struct buf *secret) {
    struct span password = find_password(s);
    bool is_uri = find_text(s, SPAN("://")) >= 0;
    for (size_t i = 0; i < s.len;) {
        struct span rest = span_from(s, i);
        size_t word = secret_word(rest), len = 0;
        if (password.len && rest.at == password.at) {
            len = password.len;
        } else if (word) {
            buf_add(text, span_first(rest, word));
            i += word;
            rest = span_from(rest, word);
            len = value_len(rest, is_uri);
        } else {
            buf_add_byte(text, s.at[i++]);
            continue;
        }
        buf_add_str(text, blank);
        buf_add(secret, span_first(rest, len));
        buf_add_byte(secret, '\n');
        i += len;
    }
}

static void add_scalar(struct writer *w, const struct yaml *y, bool secret) {
    struct buf text;
    if (secret) {
        add_quoted(&w->line, span_of(blank));
        buf_add(&w->secret, y->text);
        return;
    }
    buf_init(&text, LINE_MAX_LEN * 2);
    blank_parts(y->text, &text, &w->secret);
    if (is_plain(buf_span(&text))) /* quotes mean nothing to us */
        buf_add(&w->line, buf_span(&text));
    else
        add_quoted(&w->line, buf_span(&text));
    if (text.err != ERR_OK)
        w->err = text.err;
    buf_deinit(&text);
}

/* -- lines -- */

static void end_line(struct writer *w) {
    struct config_lines *to = w->to;
    if (to->count == to->cap && w->err == ERR_OK) {
        size_t cap = to->cap ? to->cap * 2 : 256;
        struct config_line *more = cap > CONFIG_LINES_MAX ? NULL : arena_alloc(w->mem, cap * sizeof *more);
        if (more && to->count)
            memcpy(more, to->at, to->count * sizeof *more);
        w->err = more ? ERR_OK : ERR_FULL;
        to->at = more ? more : to->at;
        to->cap = more ? cap : to->cap;
    }
    struct span text = w->err == ERR_OK ? arena_dup(w->mem, buf_span(&w->line)) : SPAN_EMPTY;
    if (w->err == ERR_OK && (w->line.err != ERR_OK || w->secret.err != ERR_OK || !text.at))
        w->err = ERR_NOMEM;
    if (w->err == ERR_OK)
        to->at[to->count++] =
            (struct config_line){text, hash_span(buf_span(&w->secret), hash_span(text, to->seed) ^ to->seed)};
    buf_clear(&w->line);
    buf_clear(&w->secret);
    w->open = false;
}

static void begin_line(struct writer *w) {
    if (w->open)
        return;
    for (unsigned i = 0; i < w->indent; i++)
        buf_add_byte(&w->line, ' ');
}

static void write_node(struct writer *w, const struct yaml *y, bool secret);

static void write_map(struct writer *w, const struct yaml *map, bool secret) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        begin_line(w);
        if (is_plain(c->key))
            buf_add(&w->line, c->key);
        else
            add_quoted(&w->line, c->key);
        buf_add_byte(&w->line, ':');
        w->open = false;
        if (c->kind == YAML_SCALAR || !c->first) {
            buf_add_byte(&w->line, ' ');
            write_node(w, c, secret || is_secret_key(c->key));
            continue;
        }
        end_line(w);
        w->indent += INDENT;
        write_node(w, c, secret || is_secret_key(c->key));
        w->indent -= INDENT;
    }
}

static void write_list(struct writer *w, const struct yaml *list, bool secret) {
    for (const struct yaml *c = list->first; c; c = c->next) {
        begin_line(w);
        buf_add_str(&w->line, "- ");
        w->open = true;
        w->indent += INDENT;
        write_node(w, c, secret);
        w->indent -= INDENT;
    }
}

/* What is open is ended. */
static void write_node(struct writer *w, const struct yaml *y, bool secret) {
    if (y->kind == YAML_SCALAR)
        add_scalar(w, y, secret);
    else if (!y->first)
        buf_add_str(&w->line, y->kind == YAML_MAP ? "{}" : "[]");
    else if (y->kind == YAML_MAP)
        write_map(w, y, secret);
    else
        write_list(w, y, secret);
    if (y->kind == YAML_SCALAR || !y->first)
        end_line(w);
}

int config_lines_make(struct config_lines *to, const struct yaml *document, uint64_t seed, struct arena *mem) {
    struct writer w = {.to = to, .mem = mem};
    *to = (struct config_lines){.seed = seed};
    buf_init(&w.line, LINE_MAX_LEN * 8);
    buf_init(&w.secret, LINE_MAX_LEN * 8);
    if (document && document->first)
        write_node(&w, document, false);
    buf_deinit(&w.line);
    buf_deinit(&w.secret);
    return w.err;
}

int config_text_show(const struct config_lines *lines, struct buf *to) {
    for (size_t i = 0; i < lines->count; i++) {
        buf_add(to, lines->at[i].text);
        buf_add_byte(to, '\n');
    }
    return to->err;
}
