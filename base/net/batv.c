/*
 * batv: see batv.h. A tag is read strictly: the mark in any case, one digit, three digits, six hex digits, a separator;
 * everything else is a local part like any other. All secrets are tried, and compared in constant time, before the date
 * is looked at.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/net/batv.h"
#include "base/net/secret.h"

enum { MARK_LEN = 5, KEY_AND_DAY = 4, DIGEST_LEN = 6, DAYS = 1000 };
enum { TAG_LEN = MARK_LEN + KEY_AND_DAY + DIGEST_LEN + 1 };
#define LOCAL_MAX 64u
#define ADDRESS_MAX 254u
#define DAY_MS 86400000u

struct batv {
    atomic_uint refs;
    struct arena mem;
    struct span *domains, *secrets;
    size_t domain_count, secret_count;
    uint32_t age;
    bool require;
};

/* -- life -- */

static struct span *copy_texts(struct batv *b, const char *const *texts, size_t count) {
    struct span *all = arena_calloc(&b->mem, count, sizeof *all);
    for (size_t i = 0; all && i < count; i++) {
        all[i] = arena_dup(&b->mem, span_of(texts[i]));
        if (!all[i].at)
            return NULL;
    }
    return all;
}

int batv_new(struct batv **out, const struct batv_config *c) {
    *out = NULL;
    if (!c->domain_count || !c->secret_count)
        return ERR_OK;
    struct batv *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    atomic_init(&b->refs, 1);
    arena_init(&b->mem, 1024, 0);
    b->domains = copy_texts(b, c->domains, c->domain_count);
    b->secrets = copy_texts(b, c->secrets, c->secret_count);
    b->domain_count = c->domain_count;
    b->secret_count = b->secrets ? c->secret_count : 0;
    b->age = c->max_age_days ? c->max_age_days : BATV_AGE_DEFAULT;
    b->age = b->age < BATV_AGE_MAX ? b->age : BATV_AGE_MAX;
    b->require = c->require;
    if (!b->domains || !b->secrets) {
        batv_unref(b);
        return ERR_NOMEM;
    }
    *out = b;
    return ERR_OK;
}

struct batv *batv_ref(struct batv *b) {
    if (b)
        atomic_fetch_add(&b->refs, 1);
    return b;
}

void batv_unref(struct batv *b) {
    if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    for (size_t i = 0; i < b->secret_count; i++)
        secret_wipe((char *)(uintptr_t)b->secrets[i].at, b->secrets[i].len);
    arena_deinit(&b->mem);
    free(b);
}

/* -- reading -- */

static bool has_domain(const struct batv *b, struct span address) {
    ptrdiff_t at = span_rfind(address, '@');
    for (size_t i = 0; b && at > 0 && i < b->domain_count; i++) {
        if (span_eq_nocase(b->domains[i], span_from(address, (size_t)at + 1)))
            return true;
    }
    return false;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool batv_is_tagged(const struct batv *b, struct span address) {
    if (!has_domain(b, address) || address.len <= TAG_LEN || !span_starts_nocase(address, SPAN("prvs=")))
        return false;
    for (int i = MARK_LEN; i < TAG_LEN - 1; i++) {
        char c = address.at[i];
        bool hex = i >= MARK_LEN + KEY_AND_DAY && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'));
        if (!is_digit(c) && !hex)
            return false;
    }
    return address.at[TAG_LEN - 1] == '=' && address.at[TAG_LEN] != '@';
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* What is hashed: the key's number and the day, and the address in lower case. */
static struct span source(struct span key_and_day, struct span plain, struct arena *mem) {
    char *to = arena_alloc(mem, key_and_day.len + plain.len + 1);
    if (!to)
        return SPAN_EMPTY;
    memcpy(to, key_and_day.at, key_and_day.len);
    for (size_t i = 0; i < plain.len; i++)
        to[key_and_day.len + i] = lower(plain.at[i]);
    return span_make(to, key_and_day.len + plain.len);
}

static void digest(struct span secret, struct span what, char to[DIGEST_LEN]) {
    static const char hex[] = "0123456789abcdef";
    uint8_t hash[20];
    secret_hmac_sha1(secret, what, hash);
    for (int i = 0; i < DIGEST_LEN; i++)
        to[i] = hex[i % 2 ? hash[i / 2] & 15 : hash[i / 2] >> 4];
}

struct span batv_strip(const struct batv *b, struct span address, struct arena *mem) {
    return batv_is_tagged(b, address) ? arena_dup(mem, span_from(address, TAG_LEN)) : address;
}

/* -- signing -- */

/* A dot-atom of ASCII, as a tag can be put before without quotes, and short enough for one. */
static bool can_be_tagged(struct span sender) {
    ptrdiff_t at = span_rfind(sender, '@');
    if (at <= 0 || (size_t)at + TAG_LEN > LOCAL_MAX || sender.len + TAG_LEN > ADDRESS_MAX)
        return false;
    for (size_t i = 0; i < sender.len; i++) {
        unsigned char c = (unsigned char)sender.at[i];
        if (c <= 32 || c >= 127 || (i < (size_t)at && strchr("\"\\()<>[]:;,@", c)))
            return false;
    }
    return true;
}

struct span batv_sign(const struct batv *b, struct span sender, uint64_t wall_ms, struct arena *mem) {
    char sum[DIGEST_LEN], day[KEY_AND_DAY + 1];
    if (!has_domain(b, sender) || batv_is_tagged(b, sender) || !can_be_tagged(sender))
        return SPAN_EMPTY;
    uint32_t until = (uint32_t)((wall_ms / DAY_MS + b->age) % DAYS);
    for (int i = KEY_AND_DAY - 1; i >= 0; i--, until /= 10)
        day[i] = (char)('0' + until % 10); /* the number of the key is the 0 in front */
    day[KEY_AND_DAY] = '\0';
    struct span what = source(span_make(day, KEY_AND_DAY), sender, mem);
    if (!what.at)
        return SPAN_EMPTY;
    digest(b->secrets[0], what, sum);
    const char *tagged = arena_printf(mem, "prvs=%s%.*s=%.*s", day, DIGEST_LEN, sum, SPAN_FMT(sender));
    return tagged ? span_of(tagged) : SPAN_EMPTY;
}

/* -- checking -- */

static int check_day(const struct batv *b, struct span day, uint64_t wall_ms) {
    uint32_t until = 0, today = (uint32_t)(wall_ms / DAY_MS % DAYS);
    for (size_t i = 0; i < day.len; i++)
        until = until * 10 + (uint32_t)(day.at[i] - '0');
    uint32_t left = (until + DAYS - today) % DAYS;
    /* one more day than a tag of today has: the clock that made it may be a little ahead */
    return left <= b->age + 1 ? ERR_OK : ERR_TIMEOUT;
}

int batv_check(const struct batv *b, struct span address, uint64_t wall_ms, struct arena *mem, struct span *plain) {
    char sum[DIGEST_LEN], given[DIGEST_LEN];
    bool good = false;
    *plain = address;
    if (!batv_is_tagged(b, address))
        return ERR_UNSUPPORTED;
    struct span key_and_day = span_first(span_from(address, MARK_LEN), KEY_AND_DAY);
    *plain = arena_dup(mem, span_from(address, TAG_LEN));
    struct span what = plain->at ? source(key_and_day, *plain, mem) : SPAN_EMPTY;
    if (!what.at)
        return ERR_NOMEM;
    for (int i = 0; i < DIGEST_LEN; i++)
        given[i] = lower(address.at[MARK_LEN + KEY_AND_DAY + i]);
    for (size_t i = 0; i < b->secret_count; i++) {
        digest(b->secrets[i], what, sum);
        good |= secret_equal(span_make(sum, DIGEST_LEN), span_make(given, DIGEST_LEN));
    }
    secret_wipe(sum, sizeof sum);
    return good ? check_day(b, span_from(key_and_day, 1), wall_ms) : ERR_INVALID;
}

bool batv_misses(const struct batv *b, struct span address) {
    return b && b->require && has_domain(b, address) && !batv_is_tagged(b, address) && can_be_tagged(address);
}
