/*
 * sasl: see sasl.h. The name in a SCRAM message is read here before the library sees it, since the account's verifier
 * has to be fetched first, which takes time, and the library wants it in the same step.
 */
#include "gateway/auth/sasl.h"

#include "base/utf8.h"

int sasl_parse_plain(struct sasl_plain *p, struct span message) {
    struct span rest, tail;
    ptrdiff_t nul = span_find(message, '\0');
    if (nul < 0)
        return ERR_INVALID;
    p->authorization = span_first(message, (size_t)nul);
    rest = span_from(message, (size_t)nul + 1);
    nul = span_find(rest, '\0');
    if (nul < 0)
        return ERR_INVALID;
    p->account = span_first(rest, (size_t)nul);
    tail = span_from(rest, (size_t)nul + 1);
    if (span_find(tail, '\0') >= 0 || p->account.len == 0)
        return ERR_INVALID;
    p->password = tail;
    bool fits =
        p->authorization.len <= AUTH_ACCOUNT_MAX && p->account.len <= AUTH_ACCOUNT_MAX && tail.len <= AUTH_PASSWORD_MAX;
    return fits ? ERR_OK : ERR_RANGE;
}

/* saslname: ',' and '=' are written =2C and =3D. */
static int unescape(struct span s, char *to) {
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (c == '=') {
            struct span code = span_first(span_from(s, i + 1), 2);
            if (span_eq(code, SPAN("2C")))
                c = ',';
            else if (!span_eq(code, SPAN("3D")))
                return ERR_INVALID;
            i += 2;
        }
        if (len == AUTH_ACCOUNT_MAX)
            return ERR_RANGE;
        to[len++] = c;
    }
    to[len] = '\0';
    return ERR_OK;
}

int sasl_parse_scram(struct sasl_scram *s, struct span message) {
    struct span rest, authorization, name;
    for (size_t i = 0; i < message.len; i++) {
        if ((unsigned char)message.at[i] < 0x20 || message.at[i] == 0x7f)
            return ERR_INVALID;
    }
    struct span binding = span_cut(message, ',', &rest);
    if (!span_eq(binding, SPAN("n")) && !span_eq(binding, SPAN("y")) &&
        (binding.len <= 2 || !span_eq(span_first(binding, 2), SPAN("p="))))
        return ERR_INVALID;
    authorization = span_cut(rest, ',', &rest);
    if (authorization.len && !span_eq(span_first(authorization, 2), SPAN("a=")))
        return ERR_INVALID;
    name = span_cut(rest, ',', &rest);
    if (name.len <= 2 || !span_eq(span_first(name, 2), SPAN("n=")) || !span_eq(span_first(rest, 2), SPAN("r=")))
        return ERR_INVALID;
    int err = unescape(span_from(authorization, 2), s->authorization);
    return err ? err : unescape(span_from(name, 2), s->account);
}

int sasl_account(struct span name, const char *realm, char to[AUTH_ACCOUNT_MAX + 1]) {
    to[0] = '\0';
    if (name.len == 0 || !utf8_is_valid(name))
        return ERR_INVALID;
    size_t realm_len = realm && span_find(name, '@') < 0 ? strlen(realm) + 1 : 0;
    if (name.len + realm_len > AUTH_ACCOUNT_MAX)
        return ERR_RANGE;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.at[i];
        bool c1 = c == 0xc2 && i + 1 < name.len && (unsigned char)name.at[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || c1) {
            to[0] = '\0';
            return ERR_INVALID;
        }
        to[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    size_t len = name.len;
    if (realm_len) {
        to[len] = '@';
        memcpy(to + len + 1, realm, realm_len - 1);
    }
    to[len + realm_len] = '\0';
    return ERR_OK;
}
