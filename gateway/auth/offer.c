/*
 * offer: which mechanisms can be offered: those that the configuration names (or all) and that some backend can serve:
 * PLAIN and LOGIN any, SCRAM those with verifiers. What Dovecot runs is passed through, unless it needs what we cannot
 * give it (channel bindings, Kerberos, certificates). Nothing is offered outside TLS: PLAIN would show the password,
 * and what a listener hears of SCRAM is enough to guess it at home.
 *
 * Texts that were handed out are kept until the end: there are few different ones.
 */
#include <ctype.h>
#include <stdlib.h>

#include "base/check.h"

#include "gateway/auth/state.h"

static const char *const own[] = {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"};
static const char *const not_passed[] = {"EXTERNAL", "ANONYMOUS", "GSSAPI", "GSS-SPNEGO", "NTLM"};

static bool is_in(const char *const *list, size_t count, struct span name) {
    for (size_t i = 0; i < count; i++) {
        if (span_eq_nocase(span_of(list[i]), name))
            return true;
    }
    return false;
}
#define IS_IN(list, name) is_in(list, sizeof list / sizeof *list, name)

/* The next word of a list with single or more blanks. */
static struct span next_word(struct span *rest) {
    struct span word = {0};
    while (word.len == 0 && rest->len)
        word = span_cut(*rest, ' ', rest);
    return word;
}

static bool is_named(const struct auth *a, struct span name) {
    if (!a->config.mechanisms)
        return true;
    struct span word, rest = span_of(a->config.mechanisms);
    while ((word = next_word(&rest)).len) {
        if (span_eq_nocase(word, name))
            return true;
    }
    return false;
}

static bool has_verifiers(const struct auth *a) {
    for (size_t i = 0; i < a->count; i++) {
        const struct auth_backend *b = a->backends[i];
        if (b->ops->has_verifiers && b->ops->has_verifiers(b))
            return true;
    }
    return false;
}

static bool may_pass(struct span name) {
    return !IS_IN(not_passed, name) && !span_ends_nocase(name, SPAN("-PLUS")) && !span_eq(name, SPAN("PLAIN")) &&
           !span_eq(name, SPAN("LOGIN"));
}

static struct auth_backend *who_runs(const struct auth *a, struct span name) {
    char runs[AUTH_MECHANISM_MAX + 1];
    for (size_t i = 0; i < a->count && may_pass(name); i++) {
        struct auth_backend *b = a->backends[i];
        for (size_t n = 0; b->ops->runs && b->ops->runs(b, n, runs); n++) {
            if (span_eq_nocase(span_of(runs), name))
                return b;
        }
    }
    return NULL;
}

int auth_way_find(const struct auth *a, struct span name, bool tls, bool binding, struct auth_way *way) {
    *way = (struct auth_way){.mechanism = AUTH_PASSED, .needs_tls = !tls};
    if (a->count == 0 || !is_named(a, name))
        return ERR_UNSUPPORTED;
    if (span_eq(name, SPAN("PLAIN")) || span_eq(name, SPAN("LOGIN"))) {
        way->mechanism = name.at[0] == 'P' ? AUTH_PLAIN : AUTH_LOGIN;
        return ERR_OK;
    }
    if (span_eq(name, SPAN("SCRAM-SHA-256-PLUS"))) {
        way->mechanism = AUTH_SCRAM_PLUS;
        return binding && has_verifiers(a) ? ERR_OK : ERR_UNSUPPORTED;
    }
    if (span_eq(name, SPAN("SCRAM-SHA-256")) && has_verifiers(a)) {
        way->mechanism = AUTH_SCRAM;
        return ERR_OK;
    }
    way->backend = who_runs(a, name);
    return way->backend ? ERR_OK : ERR_UNSUPPORTED;
}

static void add_offer(const struct auth *a, struct span name, bool tls, bool binding, struct buf *to) {
    struct auth_way way;
    if (auth_way_find(a, name, tls, binding, &way) != ERR_OK || way.needs_tls)
        return;
    if (buf_len(to) + name.len + 1 > AUTH_OFFER_SIZE)
        return;
    if (buf_len(to))
        buf_add_byte(to, ' ');
    buf_add(to, name);
}

static void add_passed(const struct auth *a, bool tls, bool binding, struct buf *to) {
    char name[AUTH_MECHANISM_MAX + 1];
    for (size_t i = 0; i < a->count; i++) {
        struct auth_backend *b = a->backends[i];
        for (size_t n = 0; b->ops->runs && b->ops->runs(b, n, name); n++) {
            bool first = who_runs(a, span_of(name)) == b;
            if (first && !IS_IN(own, span_of(name)))
                add_offer(a, span_of(name), tls, binding, to);
        }
    }
}

/* The same text again, so that only different ones take memory. */
static struct span keep(struct auth *a, struct span text) {
    struct span kept = SPAN_EMPTY;
    pthread_mutex_lock(&a->lock);
    for (struct auth_offer *o = a->offers; o && !kept.at; o = o->next) {
        if (span_eq(text, span_make(o->text, o->len)))
            kept = span_make(o->text, o->len);
    }
    struct auth_offer *o = kept.at || a->offer_count >= AUTH_OFFERS_MAX ? NULL : calloc(1, sizeof *o);
    if (o) {
        memcpy(o->text, text.at, text.len);
        o->len = text.len;
        o->next = a->offers;
        a->offers = o;
        a->offer_count++;
        kept = span_make(o->text, o->len);
    }
    pthread_mutex_unlock(&a->lock);
    return kept;
}

struct span auth_mechanisms(const struct auth *a, bool tls, bool binding) {
    struct buf text;
    struct span word, rest = span_of(a->config.mechanisms);
    buf_init(&text, AUTH_OFFER_SIZE);
    if (a->config.mechanisms) {
        while ((word = next_word(&rest)).len)
            add_offer(a, word, tls, binding, &text);
    } else {
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            add_offer(a, span_of(own[i]), tls, binding, &text);
        add_passed(a, tls, binding, &text);
    }
    struct span kept = buf_len(&text) && !text.err ? keep((struct auth *)a, buf_span(&text)) : SPAN_EMPTY;
    buf_deinit(&text);
    return kept;
}

int auth_offer_check(struct auth *a, struct buf *problems) {
    int err = ERR_OK;
    bool dovecot = false;
    for (size_t i = 0; i < a->count; i++)
        dovecot |= a->backends[i]->kind == AUTH_DOVECOT;
    struct span word, rest = span_of(a->config.mechanisms);
    while ((word = next_word(&rest)).len) {
        bool good = word.len <= AUTH_MECHANISM_MAX;
        for (size_t i = 0; i < word.len; i++)
            good = good && (isupper((unsigned char)word.at[i]) || isdigit((unsigned char)word.at[i]) ||
                            word.at[i] == '-' || word.at[i] == '_');
        const char *why = NULL;
        if (!good)
            why = "not a name of a mechanism";
        else if (!IS_IN(own, word) && !(dovecot && may_pass(word)))
            why = dovecot ? "cannot be passed to Dovecot" : "only a Dovecot backend could offer it";
        else if (span_starts_nocase(word, SPAN("SCRAM-")) && IS_IN(own, word) && !dovecot && !has_verifiers(a))
            why = "no backend has verifiers for it";
        if (why) {
            buf_printf(problems, "auth mechanisms: ");
            buf_add_escaped(problems, span_first(word, 40));
            buf_printf(problems, ": %s\n", why);
            err = ERR_INVALID;
        }
    }
    return err;
}
