/*
 * srs: writes and reads rewritten senders. Pure but for the door to HMAC: time, secrets and memory are arguments.
 *
 * A rewritten local part is cut at '=' from the left: mark, digest, date, domain; what is left is the original local
 * part, which may hold '=' itself. The first separator may also be '+' or '-', as other implementations write; ours is
 * '='. The digest covers what it protects in lower case, since some hops fold the case of local parts; and each secret
 * in turn is tried with all digests computed and compared in constant time.
 *
 * Wrong in doubt: what cannot be read, or has another digest, is refused as altered, before its date is looked at.
 */
#include <stdio.h>

#include "base/net/secret.h"

#include "gateway/directory/srs.h"

enum { DIGEST_LEN = 8, DATE_LEN = 2, DATE_CYCLE = 1024, MARK_LEN = 5 };
#define DAY_MS 86400000u

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static int digit_of(char c) {
    if (c >= 'a' && c <= 'z')
        return c - 'a';
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    return c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

/* 40 bits in lower case: digests are compared folded. */
static void digest(const char *secret, struct span what, char to[DIGEST_LEN]) {
    uint8_t hash[32];
    uint64_t bits = 0;
    secret_hmac_sha256(span_of(secret), what, hash);
    for (int i = 0; i < 5; i++)
        bits = bits << 8 | hash[i];
    for (int i = DIGEST_LEN - 1; i >= 0; i--, bits >>= 5)
        to[i] = lower(alphabet[bits & 31]);
}

/* What a digest covers, in lower case: the kind, then the rest of the local part behind the digest. */
static struct span covered(char kind, struct span rest, struct arena *mem) {
    char *at = arena_alloc(mem, rest.len + 1);
    if (!at)
        return SPAN_EMPTY;
    at[0] = kind;
    for (size_t i = 0; i < rest.len; i++)
        at[i + 1] = lower(rest.at[i]);
    return span_make(at, rest.len + 1);
}

bool srs_is_srs(struct span key) {
    return key.len > MARK_LEN && span_starts_nocase(key, SPAN("SRS")) && (key.at[3] == '0' || key.at[3] == '1') &&
           (key.at[4] == '=' || key.at[4] == '+' || key.at[4] == '-');
}

/* -- forward -- */

/* Signed: SRSk=digest=rest@domain. */
static int sign(const struct srs_config *c, char kind, struct span rest, struct arena *mem, struct span *out) {
    char sum[DIGEST_LEN];
    if (MARK_LEN + DIGEST_LEN + 1 + rest.len > ADDRESS_LOCAL_MAX)
        return ERR_RANGE;
    struct span what = covered(kind, rest, mem);
    if (!what.at)
        return ERR_NOMEM;
    digest(c->secrets[0], what, sum);
    for (int i = 0; i < DIGEST_LEN; i++)
        sum[i] = (char)(sum[i] >= 'a' ? sum[i] - 0x20 : sum[i]);
    const char *text = arena_printf(mem, "SRS%c=%.*s=%.*s@%s", kind, DIGEST_LEN, sum, SPAN_FMT(rest), c->domain);
    if (!text)
        return ERR_NOMEM;
    *out = span_of(text);
    return out->len + 2 > ADDRESS_PATH_MAX ? ERR_RANGE : ERR_OK;
}

/* Someone else's rewritten sender: its first hop stays the only one that is remembered. */
static int forward_again(const struct srs_config *c, const struct address *sender, struct arena *mem,
                         struct span *out) {
    struct span hop = sender->domain, tail = span_from(sender->key, 4); /* with its separator */
    if (sender->key.at[3] == '1') {
        struct span rest;
        span_cut(span_from(sender->key, MARK_LEN), '=', &rest); /* the digest of the hop before us */
        hop = span_cut(rest, '=', &tail);
        if (!hop.len || !tail.len)
            return ERR_RANGE;
    }
    char *rest = arena_printf(mem, "%.*s=%.*s", SPAN_FMT(hop), SPAN_FMT(tail));
    return rest ? sign(c, '1', span_of(rest), mem, out) : ERR_NOMEM;
}

int srs_forward(const struct srs_config *c, const struct address *sender, uint64_t wall_ms, struct arena *mem,
                struct span *out) {
    *out = SPAN_EMPTY;
    if (!c->domain || !c->secret_count || !sender->domain.len || span_eq_nocase(sender->domain, span_of(c->domain)))
        return ERR_UNSUPPORTED;
    if (sender->utf8 || sender->literal || !span_eq(sender->local, sender->key))
        return ERR_RANGE;
    if (srs_is_srs(sender->key))
        return forward_again(c, sender, mem, out);
    uint32_t day = (uint32_t)(wall_ms / DAY_MS % DATE_CYCLE);
    char *rest = arena_printf(mem, "%c%c=%.*s=%.*s", alphabet[day >> 5], alphabet[day & 31], SPAN_FMT(sender->domain),
                              SPAN_FMT(sender->key));
    return rest ? sign(c, '0', span_of(rest), mem, out) : ERR_NOMEM;
}

/* -- reverse -- */

static int check_digest(const struct srs_config *c, char kind, struct span given, struct span rest, struct arena *mem) {
    char sum[DIGEST_LEN], folded[DIGEST_LEN];
    bool good = false;
    if (given.len != DIGEST_LEN)
        return ERR_INVALID;
    struct span what = covered(kind, rest, mem);
    if (!what.at)
        return ERR_NOMEM;
    for (int i = 0; i < DIGEST_LEN; i++)
        folded[i] = lower(given.at[i]);
    for (size_t i = 0; i < c->secret_count; i++) {
        digest(c->secrets[i], what, sum);
        good |= secret_equal(span_make(sum, DIGEST_LEN), span_make(folded, DIGEST_LEN));
    }
    secret_wipe(sum, sizeof sum);
    return good ? ERR_OK : ERR_INVALID;
}

/* A date of tomorrow may come from a gateway whose clock is a little ahead. */
static int check_date(const struct srs_config *c, struct span date, uint64_t wall_ms) {
    int high = date.len == DATE_LEN ? digit_of(date.at[0]) : -1, low = high >= 0 ? digit_of(date.at[1]) : -1;
    if (low < 0)
        return ERR_INVALID;
    uint32_t today = (uint32_t)(wall_ms / DAY_MS % DATE_CYCLE), day = (uint32_t)(high << 5 | low);
    uint32_t age = (today + 1 + DATE_CYCLE - day) % DATE_CYCLE,
             max = c->max_age_days ? c->max_age_days : SRS_AGE_DEFAULT;
    max = max < SRS_AGE_MAX ? max : SRS_AGE_MAX;
    return age <= max + 1 ? ERR_OK : ERR_TIMEOUT;
}

static int join(struct span local, struct span domain, struct arena *mem, struct span *out) {
    struct address parsed;
    if (!local.len || !domain.len)
        return ERR_INVALID;
    char *text = arena_printf(mem, "%.*s@%.*s", SPAN_FMT(local), SPAN_FMT(domain));
    if (!text)
        return ERR_NOMEM;
    int err = address_parse(&parsed, span_of(text), mem);
    if (err != ERR_OK)
        return err == ERR_NOMEM ? err : ERR_INVALID;
    *out = parsed.text;
    return ERR_OK;
}

int srs_reverse(const struct srs_config *c, const struct address *recipient, uint64_t wall_ms, struct arena *mem,
                struct span *out) {
    *out = SPAN_EMPTY;
    if (!c->domain || !srs_is_srs(recipient->key) || !span_eq_nocase(recipient->domain, span_of(c->domain)))
        return ERR_INVALID;
    char kind = recipient->key.at[3];
    struct span rest, sum = span_cut(span_from(recipient->key, MARK_LEN), '=', &rest);
    int err = check_digest(c, kind, sum, rest, mem);
    if (err != ERR_OK)
        return err;
    struct span tail, first = span_cut(rest, '=', &tail);
    if (kind == '1') {
        char *local = tail.len ? arena_printf(mem, "SRS0%.*s", SPAN_FMT(tail)) : NULL;
        if (!local)
            return tail.len ? ERR_NOMEM : ERR_INVALID;
        return srs_is_srs(span_of(local)) ? join(span_of(local), first, mem, out) : ERR_INVALID;
    }
    err = check_date(c, first, wall_ms);
    if (err != ERR_OK)
        return err;
    struct span user, origin = span_cut(tail, '=', &user);
    return join(user, origin, mem, out);
}
