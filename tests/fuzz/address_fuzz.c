/*
 * Fuzzes the parser of addresses. Whatever was accepted must be within its bounds, must parse
 * again to itself (two readings of one address are how filters are passed), and must hold no
 * byte that ends a line or a path.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#include "gateway/smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct address *a, struct arena *mem) {
    struct address again;
    if (a->text.len == 0 || a->domain.len == 0)
        return;
    CHECK(a->local.len <= ADDRESS_LOCAL_MAX && a->domain.len <= ADDRESS_DOMAIN_MAX);
    CHECK(a->text.len + 2 <= ADDRESS_PATH_MAX && a->text.len == a->local.len + 1 + a->domain.len);
    for (size_t i = 0; i < a->text.len; i++)
        CHECK((unsigned char)a->text.at[i] >= 0x20 && a->text.at[i] != 0x7f);
    for (size_t i = 0; i < a->domain.len; i++)
        CHECK(!((unsigned char)a->domain.at[i] & 0x80) && a->domain.at[i] != '@' && a->domain.at[i] != '>');
    CHECK(address_parse(&again, a->text, mem) == ERR_OK);
    CHECK(span_eq(again.text, a->text) && span_eq(again.key, a->key) && span_eq(again.domain, a->domain));
    CHECK(again.literal == a->literal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena mem;
    struct address a;
    struct span in = span_make(data, size), name, again;
    size_t used;
    arena_init(&mem, 2048, 1 << 20);
    if (address_parse_path(&a, in, size & 1, size & 2, &mem, &used) == ERR_OK) {
        CHECK(used <= size && used >= 2 && in.at[0] == '<' && in.at[used - 1] == '>');
        judge(&a, &mem);
    }
    if (address_parse(&a, in, &mem) == ERR_OK)
        judge(&a, &mem);
    if (address_parse_domain(&name, in, &mem) == ERR_OK) {
        CHECK(name.len <= ADDRESS_DOMAIN_MAX && address_parse_domain(&again, name, &mem) == ERR_OK);
        CHECK(span_eq(name, again));
    }
    arena_deinit(&mem);
    return 0;
}
