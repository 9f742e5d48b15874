/*
 * address: reads mail addresses in one pass: local part, '@', domain, each by its own small
 * scanner. What comes out is canonical: the local part with the least quoting, the domain in
 * lower-case A-labels, literals as the C library prints them. So two spellings of one address
 * compare equal, and what is sent on is parsed by the next server as it was parsed here.
 *
 * U-labels go through libidn2 one label at a time and without any mapping (no UTS 46), so that a
 * full-width '@', an ideographic full stop or a ligature is refused and never becomes syntax.
 * A domain that ends in a label of digits alone is refused: some program would read it as an
 * IPv4 address. Sizes are judged after the grammar, on what was given and on what comes out.
 *
 * This is the only file that includes libidn2. It keeps nothing and reads no locale.
 */
#include <arpa/inet.h>
#include <idn2.h>
#include <stdio.h>

#include "base/utf8.h"

#include "gateway/smtp/address.h"

enum { LABEL_MAX = 63, PATH_BRACKETS = 2 };

/* One address while it is read; copied to the arena at the end, when nothing can fail but memory. */
struct scan {
    struct span in;
    size_t at;
    char key[ADDRESS_LOCAL_MAX]; /* local part without its quoting */
    size_t key_len;
    size_t quoted_len; /* length of the canonical quoted form, quotes included */
    bool atoms;        /* the key can stand without quotes */
    bool too_long;
    char domain[ADDRESS_DOMAIN_MAX + 1];
    size_t domain_len;
    bool literal;
};

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* atext of RFC 5321 (ASCII part). */
static bool is_atext(char c) {
    return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Length of the UTF-8 character at the start of s when it may stand in a local part; 0 when not. C1 controls and the
 * line separators are valid UTF-8 and still never part of a name that people use. */
static size_t utf8_char(struct span s) {
    uint32_t cp;
    size_t len = utf8_next(s, &cp);
    bool control = (cp >= 0x80 && cp < 0xa0) || cp == 0x2028 || cp == 0x2029;
    return len > 1 && !control ? len : 0;
}

static void key_add(struct scan *sc, const char *bytes, size_t len) {
    sc->quoted_len += len + (len == 1 && (bytes[0] == '"' || bytes[0] == '\\'));
    if (len > sizeof sc->key - sc->key_len) {
        sc->too_long = true;
        return;
    }
    memcpy(sc->key + sc->key_len, bytes, len);
    sc->key_len += len;
}

static struct span rest_of(const struct scan *sc) {
    return span_from(sc->in, sc->at);
}

static bool next_is(const struct scan *sc, char c) {
    return sc->at < sc->in.len && sc->in.at[sc->at] == c;
}

/* Atom *("." Atom) */
static int scan_atoms(struct scan *sc) {
    for (;;) {
        size_t from = sc->at;
        while (sc->at < sc->in.len) {
            size_t len = is_atext(sc->in.at[sc->at]) ? 1 : utf8_char(rest_of(sc));
            if (len == 0)
                break;
            key_add(sc, sc->in.at + sc->at, len);
            sc->at += len;
        }
        if (sc->at == from)
            return ERR_INVALID;
        if (!next_is(sc, '.'))
            return ERR_OK;
        key_add(sc, ".", 1);
        sc->at++;
    }
}

/* DQUOTE *(qtext / quoted-pair) DQUOTE */
static int scan_quoted(struct scan *sc) {
    sc->at++;
    for (;;) {
        if (sc->at >= sc->in.len)
            return ERR_INVALID;
        char c = sc->in.at[sc->at];
        size_t len = 1;
        if (c == '"')
            break;
        if (c == '\\') {
            if (++sc->at >= sc->in.len)
                return ERR_INVALID;
            c = sc->in.at[sc->at];
            if (c < ' ' || c > '~')
                return ERR_INVALID;
        } else if (c < ' ' || c > '~') {
            len = utf8_char(rest_of(sc));
            if (len == 0)
                return ERR_INVALID;
        }
        key_add(sc, sc->in.at + sc->at, len);
        sc->at += len;
    }
    sc->at++;
    return ERR_OK;
}

/* Whether the key is a dot-string; its UTF-8 was checked when it was scanned. */
static bool key_is_atoms(const struct scan *sc) {
    bool atom = false;
    for (size_t i = 0; i < sc->key_len; i++) {
        char c = sc->key[i];
        if (c == '.' && !atom)
            return false;
        if (c != '.' && !is_atext(c) && !((unsigned char)c & 0x80))
            return false;
        atom = c != '.';
    }
    return atom;
}

static int scan_local(struct scan *sc) {
    size_t from = sc->at;
    bool quoted = next_is(sc, '"');
    sc->quoted_len = 2;
    int err = quoted ? scan_quoted(sc) : scan_atoms(sc);
    if (err)
        return err;
    sc->too_long |= sc->at - from > ADDRESS_LOCAL_MAX;
    sc->atoms = !quoted || key_is_atoms(sc);
    return ERR_OK;
}

/* One label to lower-case LDH in `to`. ERR_INVALID, ERR_NOMEM. */
static int label_canon(struct span label, char to[LABEL_MAX], size_t *len) {
    char given[ADDRESS_DOMAIN_MAX + 1];
    if (label.len == 0 || label.len >= sizeof given || label.at[0] == '-' || label.at[label.len - 1] == '-')
        return ERR_INVALID;
    for (size_t i = 0; i < label.len; i++)
        given[i] = lower(label.at[i]);
    struct span out = {given, label.len};
    uint8_t *ascii = NULL;
    if (!utf8_is_ascii(label)) {
        given[label.len] = '\0';
        if (!utf8_is_valid(label) || span_find(label, '\0') >= 0)
            return ERR_INVALID;
        int rc = idn2_lookup_u8((const uint8_t *)given, &ascii, IDN2_NO_TR46);
        if (rc != IDN2_OK)
            return rc == IDN2_MALLOC ? ERR_NOMEM : ERR_INVALID;
        out = span_of((const char *)ascii);
    }
    bool ok = out.len >= 1 && out.len <= LABEL_MAX && is_alnum(out.at[0]) && is_alnum(out.at[out.len - 1]);
    for (size_t i = 0; ok && i < out.len; i++) {
        ok = is_alnum(out.at[i]) || out.at[i] == '-';
        to[i] = lower(out.at[i]);
    }
    *len = out.len;
    idn2_free(ascii);
    return ok ? ERR_OK : ERR_INVALID;
}

static bool all_digits(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    }
    return true;
}

/* A domain name to sc->domain. */
static int domain_canon(struct scan *sc, struct span name) {
    char label[LABEL_MAX];
    size_t label_len = 0;
    bool too_long = name.len > ADDRESS_DOMAIN_MAX;
    sc->domain_len = 0;
    for (;;) {
        ptrdiff_t dot = span_find(name, '.');
        int err = label_canon(dot < 0 ? name : span_first(name, (size_t)dot), label, &label_len);
        if (err)
            return err;
        if (label_len + 1 > sizeof sc->domain - sc->domain_len) {
            too_long = true;
            sc->domain_len = 0; /* the grammar is read to the end, the result is not wanted */
        }
        if (sc->domain_len)
            sc->domain[sc->domain_len++] = '.';
        memcpy(sc->domain + sc->domain_len, label, label_len);
        sc->domain_len += label_len;
        if (dot < 0)
            break;
        name = span_from(name, (size_t)dot + 1);
    }
    if (all_digits(span_make(label, label_len)))
        return ERR_INVALID;
    return too_long || sc->domain_len > ADDRESS_DOMAIN_MAX ? ERR_RANGE : ERR_OK;
}

/* "[1.2.3.4]" or "[IPv6:...]" to sc->domain. */
static int literal_canon(struct scan *sc, struct span text) {
    char ip[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    if (text.len < 2 || text.at[text.len - 1] != ']')
        return ERR_INVALID;
    struct span inner = span_first(span_from(text, 1), text.len - 2);
    bool is_v6 = span_starts_nocase(inner, SPAN("IPv6:"));
    if (is_v6)
        inner = span_from(inner, 5);
    if (inner.len >= sizeof ip || span_find(inner, '\0') >= 0)
        return ERR_INVALID;
    span_copy(inner, ip, sizeof ip);
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, ip, is_v6 ? (void *)&v6 : (void *)&v4) != 1)
        return ERR_INVALID;
    if (!inet_ntop(is_v6 ? AF_INET6 : AF_INET, is_v6 ? (void *)&v6 : (void *)&v4, ip, sizeof ip))
        return ERR_INVALID;
    sc->domain_len = (size_t)snprintf(sc->domain, sizeof sc->domain, is_v6 ? "[IPv6:%s]" : "[%s]", ip);
    sc->literal = true;
    return ERR_OK;
}

static int scan_domain(struct scan *sc, struct span text) {
    bool literal = text.len > 0 && text.at[0] == '[';
    int err = literal ? literal_canon(sc, text) : domain_canon(sc, text);
    if (err == ERR_RANGE) {
        sc->too_long = true;
        err = ERR_OK;
    }
    return err;
}

/* "@a,@b:" is checked and left behind. */
static int scan_route(struct scan *sc, bool *routed) {
    while (next_is(sc, '@')) {
        size_t end = ++sc->at;
        while (end < sc->in.len && sc->in.at[end] != ',' && sc->in.at[end] != ':')
            end++;
        if (end >= sc->in.len)
            return ERR_INVALID;
        int err = domain_canon(sc, span_first(rest_of(sc), end - sc->at));
        if (err && err != ERR_RANGE)
            return err;
        sc->too_long |= err == ERR_RANGE;
        sc->at = end + 1;
        *routed = true;
        if (sc->in.at[end] == ':')
            return ERR_OK;
        if (!next_is(sc, '@'))
            return ERR_INVALID;
    }
    return ERR_OK;
}

static size_t write_quoted(const struct scan *sc, char *to) {
    size_t n = 0;
    to[n++] = '"';
    for (size_t i = 0; i < sc->key_len; i++) {
        if (sc->key[i] == '"' || sc->key[i] == '\\')
            to[n++] = '\\';
        to[n++] = sc->key[i];
    }
    to[n++] = '"';
    return n;
}

/* Copies what was scanned; one allocation for the text, one more for the key of a quoted local part. */
static int finish(struct address *a, const struct scan *sc, struct arena *mem) {
    size_t local_len = sc->atoms ? sc->key_len : sc->quoted_len;
    size_t len = local_len + 1 + sc->domain_len;
    if (sc->too_long || local_len > ADDRESS_LOCAL_MAX || len + PATH_BRACKETS > ADDRESS_PATH_MAX)
        return ERR_RANGE;
    char *text = arena_alloc(mem, len + 1);
    if (!text)
        return ERR_NOMEM;
    if (sc->atoms)
        memcpy(text, sc->key, sc->key_len);
    else
        write_quoted(sc, text);
    text[local_len] = '@';
    memcpy(text + local_len + 1, sc->domain, sc->domain_len);
    text[len] = '\0';
    a->text = span_make(text, len);
    a->local = span_make(text, local_len);
    a->domain = span_make(text + local_len + 1, sc->domain_len);
    a->literal = sc->literal;
    a->key = a->local;
    if (!sc->atoms)
        a->key = arena_dup(mem, span_make(sc->key, sc->key_len));
    return a->key.at ? ERR_OK : ERR_NOMEM;
}

static int postmaster(struct address *a, struct span word, struct arena *mem) {
    a->text = arena_dup(mem, word);
    a->local = a->key = a->text;
    return a->text.at ? ERR_OK : ERR_NOMEM;
}

int address_parse_path(struct address *a, struct span s, bool null_ok, bool postmaster_ok, struct arena *mem,
                       size_t *used) {
    static const struct span bare = {"<Postmaster>", 12};
    struct scan sc = {.in = s, .at = 1};
    *a = (struct address){0};
    *used = 0;
    if (s.len < 2 || s.at[0] != '<')
        return ERR_INVALID;
    if (s.at[1] == '>') {
        *used = 2;
        return null_ok ? ERR_OK : ERR_INVALID;
    }
    if (postmaster_ok && span_starts_nocase(s, bare)) {
        *used = bare.len;
        return postmaster(a, span_first(span_from(s, 1), bare.len - 2), mem);
    }
    int err = scan_route(&sc, &a->routed);
    if (!err)
        err = scan_local(&sc);
    if (err)
        return err;
    ptrdiff_t end = span_find(rest_of(&sc), '>');
    if (end < 0 || !next_is(&sc, '@'))
        return ERR_INVALID;
    sc.at++;
    err = scan_domain(&sc, span_first(rest_of(&sc), (size_t)end - 1));
    if (err)
        return err;
    sc.at += (size_t)end;
    *used = sc.at;
    sc.too_long |= sc.at > ADDRESS_PATH_MAX;
    a->utf8 = !utf8_is_ascii(span_first(s, sc.at));
    return finish(a, &sc, mem);
}

int address_parse(struct address *a, struct span s, struct arena *mem) {
    struct scan sc = {.in = s};
    *a = (struct address){0};
    int err = scan_local(&sc);
    if (err)
        return err;
    if (!next_is(&sc, '@'))
        return ERR_INVALID;
    sc.at++;
    err = scan_domain(&sc, rest_of(&sc));
    if (err)
        return err;
    sc.too_long |= s.len + PATH_BRACKETS > ADDRESS_PATH_MAX;
    a->utf8 = !utf8_is_ascii(s);
    return finish(a, &sc, mem);
}

int address_parse_domain(struct span *out, struct span s, struct arena *mem) {
    struct scan sc = {.in = s};
    int err = domain_canon(&sc, s);
    if (err)
        return err;
    *out = arena_dup(mem, span_make(sc.domain, sc.domain_len));
    return out->at ? ERR_OK : ERR_NOMEM;
}

bool address_is_indirect(const struct address *a) {
    return span_find(a->key, '%') >= 0 || span_find(a->key, '!') >= 0 || span_find(a->key, '@') >= 0;
}
