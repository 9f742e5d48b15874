/*
 * hygiene: see hygiene.h.
 */
#include "gateway/filter/hygiene.h"

#include "base/base32.h"
#include "base/clock.h"
#include "base/rand.h"

static int add_date(struct held *h, uint64_t wall_ms) {
    char date[40];
    size_t len = clock_rfc5322(wall_ms, date, sizeof date);
    return held_insert(h, held_count(h), SPAN("Date"), span_make(date, len));
}

static int add_id(struct held *h, const struct check_facts *f) {
    char chance[BASE32_ID_LEN + 1];
    uint64_t n;
    struct buf value;
    rand_secure(&n, sizeof n);
    base32_encode(n, chance);
    buf_init(&value, 998);
    buf_add_byte(&value, '<');
    buf_add(&value, f->id);
    buf_add_byte(&value, '.');
    buf_add_str(&value, chance);
    buf_add_byte(&value, '@');
    buf_add(&value, f->hostname);
    buf_add_byte(&value, '>');
    int err = value.err ? value.err : held_insert(h, held_count(h), SPAN("Message-ID"), buf_span(&value));
    buf_deinit(&value);
    return err;
}

int hygiene_apply(struct held *h, const struct check_facts *f, uint64_t wall_ms) {
    int err = ERR_OK;
    if (held_find(h, SPAN("Date"), 0) < 0)
        err = add_date(h, wall_ms);
    if (!err && held_find(h, SPAN("Message-ID"), 0) < 0)
        err = add_id(h, f);
    return err;
}
