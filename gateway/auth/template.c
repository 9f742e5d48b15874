/*
 * template: see template.h. Checked when the settings are read, so that filling cannot meet an unknown letter.
 */
#include "gateway/auth/template.h"

int template_fill(const char *text, struct span account, int (*escape)(struct span s, struct buf *to), struct buf *to) {
    ptrdiff_t at = span_rfind(account, '@');
    struct span local = at < 0 ? account : span_first(account, (size_t)at);
    struct span domain = at < 0 ? SPAN_EMPTY : span_from(account, (size_t)at + 1);
    for (const char *p = text; *p && !to->err; p++) {
        if (*p != '%') {
            buf_add_byte(to, *p);
            continue;
        }
        p++;
        if (*p == '%')
            buf_add_byte(to, '%');
        else
            escape(*p == 's' ? account : *p == 'u' ? local : domain, to);
        if (!*p)
            break;
    }
    return to->err;
}

const char *template_problem(const char *text) {
    bool any = false;
    for (const char *p = text; *p; p++) {
        if (*p != '%')
            continue;
        p++;
        if (!*p || !strchr("sud%", *p))
            return "only %s, %u, %d and %% may follow a percent sign";
        any |= *p == 's' || *p == 'u';
    }
    return any ? NULL : "has no %s or %u for the account";
}
