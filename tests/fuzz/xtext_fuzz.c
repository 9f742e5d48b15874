/*
 * Fuzzes xtext and the attributes of XCLIENT that are written in it: nothing that ends a line, starts one or changes
 * its direction leaves the decoder; attributes are what their names say.
 */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/utf8.h"

#include "gateway/smtp/proxy.h"
#include "gateway/smtp/xtext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_text(struct span s, bool utf8) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        CHECK(c >= 0x20 && c != 0x7f && (utf8 || c < 0x80));
    }
    for (struct span rest = s; rest.len;) {
        uint32_t cp;
        size_t used = utf8_next(rest, &cp);
        CHECK(used > 0 && !(cp >= 0x80 && cp <= 0x9f) && !(cp >= 0x202a && cp <= 0x202e));
        rest = span_from(rest, used);
    }
}

static void judge_ip(struct span s) {
    char text[64];
    uint8_t ip[16];
    if (s.len == 0)
        return;
    CHECK(s.len < sizeof text);
    span_copy(s, text, sizeof text);
    CHECK(inet_pton(AF_INET, text, ip) == 1 || inet_pton(AF_INET6, text, ip) == 1);
}

static void judge_port(struct span s) {
    uint64_t port;
    CHECK(s.len == 0 || (span_u64(s, &port) && port <= 65535));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena mem;
    struct xclient x;
    struct span in = span_make(data, size), out;
    arena_init(&mem, 2048, 1 << 22);
    for (int utf8 = 0; utf8 < 2; utf8++) {
        int err = xtext_decode(in, utf8, &mem, &out);
        CHECK(err == ERR_OK || err == ERR_INVALID);
        if (err)
            continue;
        CHECK(out.len <= size);
        judge_text(out, utf8);
    }
    int err = xclient_read(&x, in, &mem);
    CHECK(err == ERR_OK || err == ERR_INVALID);
    if (err == ERR_OK) {
        const struct span all[] = {x.name,  x.addr,     x.port,     x.proto,       x.helo,
                                   x.login, x.destaddr, x.destport, x.reverse_name};
        unsigned given = 0;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            given += all[i].at != NULL;
            CHECK(all[i].at || all[i].len == 0);
            judge_text(all[i], false);
        }
        CHECK(given > 0);
        judge_ip(x.addr);
        judge_ip(x.destaddr);
        judge_port(x.port);
        judge_port(x.destport);
    }
    arena_deinit(&mem);
    return 0;
}
