/*
 * dkimauth: verifying (see dkimauth.h). Keys are fetched by resolver.c in the library's key callback, on the thread
 * that verifies. What costs time is bounded before the library sees it: signatures by number and length, header fields
 * by number, since it compares every name of h= with every field.
 */
#include "gateway/filter/dkimauth.h"

#include <stdio.h>
#include <stdlib.h>

#include <opendkim/dkim.h>

struct dkimauth {
    DKIM_LIB *lib;
};
/* How long the canonical forms of the body are: the library counts only what it has hashed. */
struct extent {
    uint64_t octets, simple;   /* so far; up to the last line that is not empty */
    uint64_t written, relaxed; /* the same with blanks reduced */
    bool blank;
};
/* One message; the library's user context. */
struct work {
    struct resolver *resolver;
    uint64_t deadline_ms;
    struct arena *mem;
    DKIM_SIGINFO *unanswered[AUTHRES_DKIM_MAX]; /* signatures whose key the DNS could not tell now */
    size_t unanswered_count;
    struct extent extent;
};

static DKIM_CBSTAT fetch_key(DKIM *dkim, DKIM_SIGINFO *sig, u_char *to, size_t size) {
    struct work *w = dkim_get_user_context(dkim);
    struct resolver_answer a;
    char name[600];
    int len = snprintf(name, sizeof name, "%s._domainkey.%s", (char *)dkim_sig_getselector(sig),
                       (char *)dkim_sig_getdomain(sig));
    if (len < 0 || (size_t)len >= sizeof name)
        return DKIM_CBSTAT_NOTFOUND;
    switch (resolver_ask(w->resolver, name, RESOLVER_TXT, w->deadline_ms, w->mem, &a)) {
    case RESOLVER_FOUND:
        break;
    case RESOLVER_TEMPORARY:
        if (w->unanswered_count < AUTHRES_DKIM_MAX)
            w->unanswered[w->unanswered_count++] = sig;
        return DKIM_CBSTAT_ERROR;
    default:
        return DKIM_CBSTAT_NOTFOUND;
    }
    struct span key = a.records[0].text;
    /* Several records, or one that the library would cut: no key that can be trusted. */
    if (a.count != 1 || !key.len || key.len >= size || memchr(key.at, 0, key.len))
        return DKIM_CBSTAT_NOTFOUND;
    memcpy(to, key.at, key.len);
    to[key.len] = 0;
    return DKIM_CBSTAT_CONTINUE;
}

struct dkimauth *dkimauth_new(void) {
    struct dkimauth *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->lib = dkim_init(NULL, NULL);
    u_int flags = DKIM_LIBFLAGS_DELAYSIGPROC, bits = DKIMAUTH_KEY_BITS_MIN;
    if (d->lib && !dkim_options(d->lib, DKIM_OP_SETOPT, DKIM_OPTS_FLAGS, &flags, sizeof flags) &&
        !dkim_options(d->lib, DKIM_OP_SETOPT, DKIM_OPTS_MINKEYBITS, &bits, sizeof bits) &&
        !dkim_set_key_lookup(d->lib, fetch_key))
        return d;
    dkimauth_free(d);
    return NULL;
}

void dkimauth_free(struct dkimauth *d) {
    if (!d)
        return;
    if (d->lib)
        dkim_close(d->lib);
    free(d);
}

/* -- feeding -- */
static bool is_signature(struct span name) {
    return span_eq_nocase(span_trim(name), SPAN("DKIM-Signature"));
}

static DKIM_STAT feed_fields(DKIM *dkim, struct held *h, struct buf *line, size_t *signatures) {
    *signatures = 0;
    for (size_t n = 0; n < held_count(h); n++) {
        struct span name, value;
        held_field(h, n, &name, &value);
        if (is_signature(name)) {
            if (value.len > DKIMAUTH_SIGNATURE_MAX || *signatures == AUTHRES_DKIM_MAX)
                continue;
            ++*signatures;
        }
        buf_clear(line);
        buf_add(line, name);
        buf_add_byte(line, ':');
        buf_add(line, value);
        if (line->err)
            return DKIM_STAT_NORESOURCE;
        DKIM_STAT stat = dkim_header(dkim, (u_char *)line->mem + line->start, buf_len(line));
        if (stat == DKIM_STAT_SYNTAX && is_signature(name))
            continue; /* it does not count; the others do */
        if (stat != DKIM_STAT_OK)
            return stat;
    }
    return DKIM_STAT_OK;
}

static void measure(struct extent *e, const char *at, size_t len) {
    for (size_t i = 0; i < len; i++) {
        char c = at[i];
        e->octets++;
        if (c == ' ' || c == '\t') {
            e->blank = true;
            e->simple = e->octets;
            continue;
        }
        bool content = c != '\r' && c != '\n';
        e->written += 1 + (content && e->blank);
        e->blank = false;
        if (content) {
            e->simple = e->octets;
            e->relaxed = e->written;
        }
    }
}

static DKIM_STAT feed_body(DKIM *dkim, struct held *h, struct extent *e) {
    char *piece = malloc(DKIMAUTH_BODY_PIECE), last = '\n';
    u_char end[] = "\r\n";
    DKIM_STAT stat = piece ? DKIM_STAT_OK : DKIM_STAT_NORESOURCE;
    for (uint64_t at = 0; stat == DKIM_STAT_OK && at < held_body_size(h);) {
        ptrdiff_t n = held_body_read(h, at, piece, DKIMAUTH_BODY_PIECE);
        if (n <= 0) {
            stat = DKIM_STAT_INTERNAL;
            break;
        }
        measure(e, piece, (size_t)n);
        stat = dkim_body(dkim, (u_char *)piece, (size_t)n);
        last = piece[n - 1];
        at += (size_t)n;
    }
    if (stat == DKIM_STAT_OK && last != '\n') /* the library wants whole lines */
        stat = dkim_body(dkim, end, 2);
    free(piece);
    return stat;
}

/* -- judging -- */
static bool is_unanswered(const struct work *w, const DKIM_SIGINFO *sig) {
    for (size_t i = 0; i < w->unanswered_count; i++) {
        if (w->unanswered[i] == sig)
            return true;
    }
    return false;
}

static enum authres_result result_of_error(int error) {
    switch (error) {
    case DKIM_SIGERROR_KEYTOOSMALL:
        return AUTHRES_POLICY;
    case DKIM_SIGERROR_KEYFAIL:
        return AUTHRES_TEMPERROR;
    case DKIM_SIGERROR_OK:
    case DKIM_SIGERROR_BADSIG:
    case DKIM_SIGERROR_EXPIRED:
    case DKIM_SIGERROR_FUTURE:
        return AUTHRES_FAIL;
    default:
        return AUTHRES_PERMERROR;
    }
}

/* A body longer than l= says carries words that nobody signed. */
static bool is_partly_signed(DKIM *dkim, DKIM_SIGINFO *sig, const struct extent *e) {
    ssize_t signed_len = 0;
    dkim_canon_t header, body;
    if (!dkim_sig_gettagvalue(sig, false, (u_char *)"l"))
        return false;
    if (dkim_sig_getcanonlen(dkim, sig, NULL, NULL, &signed_len) != DKIM_STAT_OK ||
        dkim_sig_getcanons(sig, &header, &body) != DKIM_STAT_OK || signed_len < 0)
        return true;
    uint64_t content = body == DKIM_CANON_RELAXED ? e->relaxed : e->simple;
    return content > (uint64_t)signed_len;
}

static void judge(DKIM *dkim, DKIM_SIGINFO *sig, const struct work *w, struct authres_dkim *out) {
    int error = dkim_sig_geterror(sig);
    bool passed = (dkim_sig_getflags(sig) & DKIM_SIGFLAG_PASSED) && dkim_sig_getbh(sig) == DKIM_SIGBH_MATCH;
    if (is_unanswered(w, sig)) {
        out->result = AUTHRES_TEMPERROR;
        out->why = "no answer for the key";
    } else if (passed && span_eq_nocase(out->algorithm, SPAN("rsa-sha1"))) {
        out->result = AUTHRES_POLICY; /* RFC 8301 */
        out->why = "rsa-sha1 is not accepted";
    } else if (passed && is_partly_signed(dkim, sig, &w->extent)) {
        out->result = AUTHRES_POLICY;
        out->why = "body is only partly signed";
    } else if (passed)
        out->result = AUTHRES_PASS;
    else if (error == DKIM_SIGERROR_OK || dkim_sig_getbh(sig) == DKIM_SIGBH_MISMATCH) {
        out->result = AUTHRES_FAIL;
        out->why = "body hash does not match";
    } else {
        out->result = result_of_error(error);
        out->why = dkim_sig_geterrorstr(error);
    }
}

/* A tag without blanks and folds, at most max octets; in mem. */
static struct span tag(DKIM_SIGINFO *sig, const char *name, size_t max, struct arena *mem) {
    const char *value = (const char *)dkim_sig_gettagvalue(sig, false, (u_char *)(uintptr_t)name);
    char *to = value ? arena_alloc(mem, max + 1) : NULL;
    size_t len = 0;
    if (!to)
        return SPAN_EMPTY;
    for (; *value && len < max; value++) {
        if (*value > ' ')
            to[len++] = *value;
    }
    to[len] = 0;
    return span_make(to, len);
}

static size_t judge_all(DKIM *dkim, const struct work *w, struct authres_dkim *results) {
    DKIM_SIGINFO **sigs = NULL;
    int count = 0;
    if (dkim_getsiglist(dkim, &sigs, &count) != DKIM_STAT_OK)
        return 0;
    size_t n = 0;
    for (; n < (size_t)count && n < AUTHRES_DKIM_MAX; n++) {
        results[n] = (struct authres_dkim){.domain = tag(sigs[n], "d", 255, w->mem),
                                           .selector = tag(sigs[n], "s", 255, w->mem),
                                           .algorithm = tag(sigs[n], "a", 32, w->mem),
                                           .hash = tag(sigs[n], "b", 8, w->mem)};
        judge(dkim, sigs[n], w, &results[n]);
    }
    return n;
}

static void give_up(struct authres_dkim *results, size_t *count, enum authres_result r, const char *why) {
    results[0] = (struct authres_dkim){.result = r, .why = why};
    *count = 1;
}

static void run(DKIM *dkim, struct held *h, struct work *w, struct authres_dkim *results, size_t *count) {
    struct buf line;
    size_t signatures;
    buf_init(&line, HELD_HEADER_MAX + 2);
    DKIM_STAT stat = feed_fields(dkim, h, &line, &signatures);
    buf_deinit(&line);
    if (stat == DKIM_STAT_OK)
        stat = dkim_eoh(dkim);
    if (stat == DKIM_STAT_OK)
        stat = feed_body(dkim, h, &w->extent);
    bool whole = stat == DKIM_STAT_OK;
    if (whole)
        stat = dkim_eom(dkim, NULL);
    *count = whole ? judge_all(dkim, w, results) : 0;
    if (*count || !signatures)
        return;
    if (stat == DKIM_STAT_NORESOURCE || stat == DKIM_STAT_INTERNAL)
        give_up(results, count, AUTHRES_TEMPERROR, "verification failed");
    else
        give_up(results, count, AUTHRES_PERMERROR, "no usable signature");
}

static bool is_signed(struct held *h) {
    for (size_t n = 0; n < held_count(h); n++) {
        struct span name, value;
        held_field(h, n, &name, &value);
        if (is_signature(name))
            return true;
    }
    return false;
}

void dkimauth_verify(struct dkimauth *d, struct resolver *r, uint64_t deadline_ms, struct held *h, struct arena *mem,
                     struct authres_dkim *results, size_t *count) {
    struct work w = {.resolver = r, .deadline_ms = deadline_ms, .mem = mem};
    DKIM_STAT stat;
    *count = 0;
    if (!is_signed(h))
        return;
    if (held_count(h) > DKIMAUTH_FIELDS_MAX) {
        give_up(results, count, AUTHRES_PERMERROR, "too many header fields");
        return;
    }
    DKIM *dkim = dkim_verify(d->lib, (const u_char *)"posthouse", NULL, &stat);
    if (!dkim || dkim_set_user_context(dkim, &w) != DKIM_STAT_OK)
        give_up(results, count, AUTHRES_TEMPERROR, "no memory");
    else
        run(dkim, h, &w, results, count);
    if (dkim)
        dkim_free(dkim);
}
