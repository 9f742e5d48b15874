/*
 * Fuzzes the header of the PROXY protocol. What is accepted must be so at no earlier cut, whatever follows it, and must
 * stay inside the input; no input may ask for more without end.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"

#include "gateway/smtp/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An exact copy, so that every octet read beyond it is seen. */
static int read_copy(struct proxy_header *h, const uint8_t *data, size_t size, size_t *used) {
    char *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, data, size);
    int err = proxy_read(h, span_make(copy, size), used);
    if (h->sni.len) {
        CHECK(h->sni.at >= copy && h->sni.at + h->sni.len <= copy + *used && h->sni.len <= 255);
        for (size_t i = 0; i < h->sni.len; i++)
            CHECK((unsigned char)h->sni.at[i] > 0x20 && h->sni.at[i] != 0x7f);
    }
    h->sni = SPAN_EMPTY; /* its memory goes */
    free(copy);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct proxy_header whole, cut;
    size_t used, cut_used;
    int err = read_copy(&whole, data, size, &used);
    CHECK(err == ERR_OK || err == ERR_AGAIN || err == ERR_INVALID);
    CHECK(err != ERR_AGAIN || size < PROXY_HEADER_MAX);
    CHECK(err == ERR_OK ? used > 0 && used <= size : used == 0);
    size_t end = err == ERR_OK ? used : size < PROXY_HEADER_MAX ? size : PROXY_HEADER_MAX;
    bool refused = false;
    for (size_t len = 0; len < end; len++) {
        int early = read_copy(&cut, data, len, &cut_used);
        CHECK(early != ERR_OK); /* else the octets behind it would change what it says */
        CHECK(err == ERR_INVALID || early == ERR_AGAIN);
        CHECK(!refused || early == ERR_INVALID); /* more octets never repair it */
        refused = early == ERR_INVALID;
    }
    if (err == ERR_OK) {
        CHECK(read_copy(&cut, data, used, &cut_used) == ERR_OK && cut_used == used);
        CHECK(cut.local == whole.local && cut.v6 == whole.v6 && cut.tls == whole.tls);
        CHECK(memcmp(cut.client, whole.client, 16) == 0 && cut.client_port == whole.client_port);
    }
    return 0;
}
