/*
 * Fuzzes what a mail filter sends: packets and their data. What is accepted lies inside the packet and inside the
 * stated bounds, and an answer that would go to a client is printable.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#include "gateway/filter/milter_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct span part, struct span whole) {
    CHECK(part.len == 0 || (part.at >= whole.at && part.at + part.len <= whole.at + whole.len));
}

static void judge_data(struct span data) {
    struct milter_options o;
    struct milter_field f;
    struct milter_answer a;
    if (milter_unpack_options(data, &o) == ERR_OK) {
        for (unsigned i = 0; i < MILTER_LISTS; i++)
            check_inside(o.lists[i], data);
    }
    for (int has_index = 0; has_index < 2; has_index++) {
        if (milter_unpack_field(data, has_index, &f) != ERR_OK)
            continue;
        check_inside(f.name, data);
        check_inside(f.value, data);
        CHECK(span_find(f.name, '\0') < 0 && span_find(f.value, '\0') < 0);
    }
    if (milter_unpack_answer(data, &a) == ERR_OK) {
        CHECK(a.code >= 400 && a.code <= 599);
        CHECK(strlen(a.enhanced) < sizeof a.enhanced && strlen(a.text) <= MILTER_TEXT_MAX);
        CHECK(a.enhanced[0] == '\0' || a.enhanced[0] == '0' + a.code / 100);
        for (const char *c = a.text; *c; c++)
            CHECK(*c >= 0x20 && *c <= 0x7e);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span in = span_make(data, size);
    struct milter_packet p;
    size_t used;
    judge_data(in);
    for (;;) {
        int err = milter_unpack(in, &p, &used);
        CHECK(err == ERR_OK || err == ERR_AGAIN || err == ERR_INVALID);
        CHECK(err != ERR_AGAIN || in.len < MILTER_PACKET_MAX + 4);
        if (err)
            break;
        CHECK(used >= 5 && used <= in.len && used == p.data.len + 5);
        check_inside(p.data, in);
        judge_data(p.data);
        in = span_from(in, used);
    }
    return 0;
}
