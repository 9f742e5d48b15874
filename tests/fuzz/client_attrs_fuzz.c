/*
 * Fuzzes what servers are told of clients: whatever a client called itself, XCLIENT and XFORWARD stay commands of at
 * most 512 octets of printable ASCII, few of them, each value one word. The texts stand between octets of zero.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "gateway/smtp/client_attrs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(struct span said, const char *verb) {
    size_t commands = 0;
    while (said.len) {
        ptrdiff_t end = span_find(said, '\r');
        CHECK(end > 0 && (size_t)end + 2 <= said.len && said.at[end + 1] == '\n' && end + 2 <= 512);
        struct span line = span_first(said, (size_t)end), word;
        for (size_t i = 0; i < line.len; i++)
            CHECK(line.at[i] >= 0x20 && line.at[i] < 0x7f);
        CHECK(span_eq(span_cut(line, ' ', &line), span_of(verb)) && line.len);
        while (line.len) {
            word = span_cut(line, ' ', &line);
            CHECK(span_find(word, '=') > 0 && span_find(word, '=') == span_rfind(word, '='));
        }
        said = span_from(said, (size_t)end + 2);
        commands++;
    }
    CHECK(commands <= 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span texts[6], rest = span_make((const char *)data, size);
    for (int i = 0; i < 6; i++)
        texts[i] = span_cut(rest, '\0', &rest);
    const struct client_attrs a = {.addr = texts[0],
                                   .name = texts[1],
                                   .helo = texts[2],
                                   .protocol = texts[3],
                                   .login = texts[4],
                                   .ident = texts[5],
                                   .port = (uint32_t)size};
    (void)client_attrs_is_hello(texts[2]);
    for (int verb = 0; verb < 2; verb++) {
        static const char *const verbs[] = {"XCLIENT", "XFORWARD"};
        const struct span all = SPAN("NAME ADDR PORT PROTO HELO LOGIN SOURCE IDENT");
        uint32_t offered = client_attrs_offered((enum client_attrs_verb)verb, size % 3 ? all : rest), group = 0;
        struct buf out;
        buf_init(&out, 8192);
        while (client_attrs_put(&out, (enum client_attrs_verb)verb, offered, &a, &group))
            continue;
        CHECK(out.err == ERR_OK);
        judge(buf_span(&out), verbs[verb]);
        buf_deinit(&out);
    }
    return 0;
}
