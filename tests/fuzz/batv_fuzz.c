/*
 * Fuzzes tags of return paths: what a stranger writes is never taken for a tag of ours, losing a tag leaves an end of
 * the address, and what we sign ourselves is believed and comes back as it was.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/net/batv.h"

#define NOW (20000ull * 86400000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct batv *make(void) {
    static const char *const domains[] = {"a.example", "b.c"};
    static const char *const secrets[] = {"0123456789abcdef", "a secret of many characters"};
    const struct batv_config config = {domains, 2, secrets, 2, 7, true};
    struct batv *b;
    CHECK(batv_new(&b, &config) == ERR_OK);
    return b;
}

static void judge(const struct batv *b, struct span address, struct arena *mem) {
    struct span plain, again;
    bool tagged = batv_is_tagged(b, address);
    struct span stripped = batv_strip(b, address, mem), sent = batv_sign(b, address, NOW, mem);
    int err = batv_check(b, address, NOW, mem, &plain);
    CHECK(span_ends_nocase(address, stripped) && address.len - stripped.len == (tagged ? 16 : 0));
    CHECK((err == ERR_UNSUPPORTED) == !tagged && span_eq(plain, stripped));
    CHECK(!tagged || !batv_misses(b, address));
    if (!sent.len)
        return;
    CHECK(!tagged && batv_is_tagged(b, sent) && span_rfind(sent, '@') <= 64);
    CHECK(batv_check(b, sent, NOW, mem, &again) == ERR_OK && span_eq(again, address));
    CHECK(batv_check(b, sent, NOW + 9 * 86400000ull, mem, &again) == ERR_TIMEOUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[600];
    struct arena mem;
    struct batv *b = make();
    arena_init(&mem, 4096, 0);
    judge(b, span_make((const char *)data, size), &mem);
    if (size < 500) { /* an address of ours without luck */
        memcpy(text, data, size);
        memcpy(text + size, "@a.example", 10);
        judge(b, span_make(text, size + 10), &mem);
    }
    arena_deinit(&mem);
    batv_unref(b);
    return 0;
}
