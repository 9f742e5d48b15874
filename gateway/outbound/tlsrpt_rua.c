/*
 * tlsrpt_rua: see tlsrpt_rua.h. What is found is taken only when it is made of octets that are harmless in a header, an
 * envelope and a request; the address itself is judged by the one parser of addresses, and the URL by the HTTP door.
 */
#include "gateway/outbound/tlsrpt_rua.h"

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-encoding undone: addresses may hold it for ",", ";" and "!". False: malformed, or not printable ASCII. */
static bool decode(struct span s, char *to) {
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (c == '%') {
            int high = i + 2 < s.len ? hex(s.at[i + 1]) : -1, low = i + 2 < s.len ? hex(s.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c <= 0x20 || c >= 0x7f)
            return false;
        to[n++] = c;
    }
    to[n] = '\0';
    return n > 0;
}

static bool is_url(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] <= 0x20 || s.at[i] >= 0x7f || strchr("\"<>\\^`{|}!", s.at[i]))
            return false;
    return s.len > 8;
}

static bool take(struct span uri, struct tlsrpt_rua *to) {
    struct span fields;
    if (uri.len > TLSRPT_RUA_LEN_MAX)
        return false;
    to->mail = span_starts_nocase(uri, SPAN("mailto:"));
    if (to->mail)
        return decode(span_cut(span_from(uri, 7), '?', &fields), to->to);
    if (!span_starts_nocase(uri, SPAN("https://")) || !is_url(uri))
        return false;
    span_copy(uri, to->to, sizeof to->to);
    return true;
}

static void take_list(struct span list, struct tlsrpt_rua rua[TLSRPT_RUA_MAX], size_t *count) {
    while (list.len && *count < TLSRPT_RUA_MAX) {
        struct span uri = span_trim(span_cut(list, ',', &list));
        *count += take(uri, &rua[*count]);
    }
}

int tlsrpt_rua_parse(struct span txt, struct tlsrpt_rua rua[TLSRPT_RUA_MAX], size_t *count) {
    struct span rest, version = span_cut(txt, ';', &rest);
    bool found = false;
    *count = 0;
    if (txt.len < 10 || memcmp(txt.at, "v=TLSRPTv1", 10) != 0 || version.len == txt.len ||
        span_trim(span_from(version, 10)).len)
        return ERR_NOT_FOUND;
    while (rest.len) {
        struct span value, field = span_trim(span_cut(rest, ';', &rest)), name = span_cut(field, '=', &value);
        if (field.len == 0 && rest.len == 0) /* one delimiter may end the record */
            break;
        if (name.len == field.len || name.len == 0)
            return ERR_INVALID;
        if (!span_eq(name, SPAN("rua")))
            continue;
        if (found)
            return ERR_INVALID;
        found = true;
        take_list(value, rua, count);
    }
    return *count ? ERR_OK : ERR_INVALID;
}
