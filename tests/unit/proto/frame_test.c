/* frame: what is written comes back; what is cut, too long, changed, of another version or malformed is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

static Words__Envelope envelope = WORDS__ENVELOPE__INIT;
static Words__Recipient recipients[3], *list[3];

static void make_envelope(void) {
    words__envelope__init(&envelope);
    for (int i = 0; i < 3; i++) {
        words__recipient__init(&recipients[i]);
        recipients[i].address = frame_bytes(SPAN("someone@example.net"));
        recipients[i].destination = frame_bytes(SPAN("example.net"));
        list[i] = &recipients[i];
    }
    recipients[1].has_orcpt = true;
    recipients[1].orcpt = frame_bytes(SPAN("rfc822;other@example.net"));
    envelope.sender = frame_bytes(SPAN("me@example.org"));
    envelope.n_recipients = 3;
    envelope.recipients = list;
    envelope.received_ms = UINT64_C(1790000000123);
    envelope.size = 4096;
}

static void pack_envelope(struct buf *to) {
    make_envelope();
    buf_init(to, FRAME_META_MAX);
    assert_int_equal(frame_pack(&envelope.base, to), ERR_OK);
}

static void a_frame_comes_back(void **state) {
    (void)state;
    uint8_t header[FRAME_HEADER_LEN];
    struct buf meta;
    struct frame f;
    struct arena mem;
    pack_envelope(&meta);
    frame_header(header, FRAME_SUBMIT, UINT64_C(0x1122334455667788), UINT64_C(0x99aabbccddeeff00), buf_span(&meta));
    struct bus_bytes *body = (struct bus_bytes *)header; /* only passed on */
    struct bus_message m = {.header = span_make(header, sizeof header), .meta = buf_span(&meta), .body = body};
    assert_int_equal(frame_read(&f, &m), ERR_OK);
    assert_int_equal(f.version, FRAME_VERSION);
    assert_int_equal(f.kind, FRAME_SUBMIT);
    assert_int_equal(f.correlation, UINT64_C(0x1122334455667788));
    assert_int_equal(f.epoch, UINT64_C(0x99aabbccddeeff00));
    assert_ptr_equal(f.body, body);
    arena_init(&mem, 1024, 0);
    Words__Envelope *e = frame_unpack(&words__envelope__descriptor, f.meta, &mem);
    assert_non_null(e);
    assert_int_equal(e->n_recipients, 3);
    assert_int_equal(e->received_ms, envelope.received_ms);
    assert_false(e->recipients[0]->has_orcpt);
    assert_true(span_eq(frame_span(e->recipients[1]->orcpt), SPAN("rfc822;other@example.net")));
    arena_deinit(&mem);
    buf_deinit(&meta);
}

static void the_header_is_little_endian_and_fixed(void **state) {
    (void)state;
    /* Recorded octets of version 1: a node of a later version must still read them. */
    static const uint8_t recorded[FRAME_HEADER_LEN] = {0x50, 0x48, 0x01, 0x00, 0x0b, 0x00, 0x00, 0x00, 0x08, 0x07,
                                                       0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x09, 0x00, 0x00, 0x00,
                                                       0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00};
    uint8_t header[FRAME_HEADER_LEN];
    frame_header(header, FRAME_CHUNK, UINT64_C(0x0102030405060708), 9, SPAN("abc"));
    assert_memory_equal(header, recorded, 28);
}

static int read_with(uint8_t *header, size_t header_len, struct span meta) {
    struct frame f;
    struct bus_message m = {.header = span_make(header, header_len), .meta = meta};
    return frame_read(&f, &m);
}

static void refuses_what_does_not_fit(void **state) {
    (void)state;
    uint8_t header[FRAME_HEADER_LEN + 1] = {0}, changed[FRAME_HEADER_LEN];
    struct span meta = SPAN("twelve octets");
    frame_header(header, FRAME_JOB, 1, 2, meta);
    assert_int_equal(read_with(header, FRAME_HEADER_LEN, meta), ERR_OK);
    for (size_t len = 0; len < FRAME_HEADER_LEN; len++)
        assert_int_equal(read_with(header, len, meta), ERR_INVALID);
    assert_int_equal(read_with(header, FRAME_HEADER_LEN + 1, meta), ERR_INVALID);
    memcpy(changed, header, sizeof changed);
    changed[0] ^= 1;
    assert_int_equal(read_with(changed, sizeof changed, meta), ERR_INVALID);
    for (unsigned version = 0; version < 65536; version++) {
        memcpy(changed, header, sizeof changed);
        changed[2] = (uint8_t)version;
        changed[3] = (uint8_t)(version >> 8);
        bool spoken = version == FRAME_VERSION || version + 1 == FRAME_VERSION;
        assert_int_equal(read_with(changed, sizeof changed, meta), spoken ? ERR_OK : ERR_VERSION);
    }
    for (size_t len = 0; len < meta.len; len++)
        assert_int_equal(read_with(header, FRAME_HEADER_LEN, span_first(meta, len)), ERR_CORRUPT);
    assert_int_equal(read_with(header, FRAME_HEADER_LEN, SPAN("twelve octetz")), ERR_CORRUPT);
    memcpy(changed, header, sizeof changed);
    changed[24]++; /* length */
    assert_int_equal(read_with(changed, sizeof changed, meta), ERR_CORRUPT);
}

static void refuses_what_is_too_long(void **state) {
    (void)state;
    uint8_t header[FRAME_HEADER_LEN];
    char *much = calloc(1, FRAME_META_MAX + 1);
    assert_non_null(much);
    struct span most = span_make(much, FRAME_META_MAX), over = span_make(much, FRAME_META_MAX + 1);
    frame_header(header, FRAME_SUBMIT, 1, 2, most);
    assert_int_equal(read_with(header, sizeof header, most), ERR_OK);
    frame_header(header, FRAME_SUBMIT, 1, 2, over);
    assert_int_equal(read_with(header, sizeof header, over), ERR_RANGE);
    free(much);
}

static void an_empty_meta_part_is_a_frame(void **state) {
    (void)state;
    uint8_t header[FRAME_HEADER_LEN];
    frame_header(header, FRAME_HELLO, 0, 0, SPAN_EMPTY);
    assert_int_equal(read_with(header, sizeof header, SPAN_EMPTY), ERR_OK);
    assert_int_equal(read_with(header, sizeof header, SPAN("x")), ERR_CORRUPT);
}

static void refuses_malformed_messages(void **state) {
    (void)state;
    struct buf meta;
    struct arena mem;
    struct rand r;
    pack_envelope(&meta);
    struct span whole = buf_span(&meta);
    char *copy = malloc(whole.len);
    assert_non_null(copy);
    arena_init(&mem, 4096, 1 << 20);
    int refused = 0;
    for (size_t len = 0; len < whole.len; len++) {
        Words__Envelope *e = frame_unpack(&words__envelope__descriptor, span_first(whole, len), &mem);
        refused += !e;
        assert_true(!e || e->n_recipients <= 3);
        arena_reset(&mem);
    }
    assert_true(refused > (int)whole.len / 2);
    assert_null(frame_unpack(&words__envelope__descriptor, SPAN_EMPTY, &mem)); /* required fields are missing */
    assert_null(
        frame_unpack(&words__envelope__descriptor, SPAN("\x0a\xff\xff\xff\xff\x0f"), &mem)); /* a length of 4 GiB */
    assert_null(frame_unpack(&words__envelope__descriptor, SPAN("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), &mem));
    rand_init(&r, 3);
    for (int i = 0; i < 20000; i++) { /* nothing that arrives may do harm */
        memcpy(copy, whole.at, whole.len);
        for (uint64_t n = 1 + rand_below(&r, 4); n; n--)
            copy[rand_below(&r, whole.len)] = (char)rand_u64(&r);
        (void)frame_unpack(&words__envelope__descriptor, span_make(copy, whole.len), &mem);
        arena_reset(&mem);
    }
    arena_deinit(&mem);
    free(copy);
    buf_deinit(&meta);
}

static void memory_is_bounded_by_the_arena(void **state) {
    (void)state;
    struct buf meta;
    struct arena mem;
    pack_envelope(&meta);
    arena_init(&mem, 256, 300);
    assert_null(frame_unpack(&words__envelope__descriptor, buf_span(&meta), &mem));
    assert_true(mem.used <= 300);
    arena_deinit(&mem);
    buf_deinit(&meta);
}

static void packing_respects_the_buffer(void **state) {
    (void)state;
    struct buf small;
    make_envelope();
    buf_init(&small, 20);
    assert_int_equal(buf_add_str(&small, "before"), ERR_OK);
    assert_int_equal(frame_pack(&envelope.base, &small), ERR_FULL);
    assert_true(span_eq(buf_span(&small), SPAN("before")));
    buf_deinit(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back),
        cmocka_unit_test(the_header_is_little_endian_and_fixed),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(an_empty_meta_part_is_a_frame),
        cmocka_unit_test(refuses_malformed_messages),
        cmocka_unit_test(memory_is_bounded_by_the_arena),
        cmocka_unit_test(packing_respects_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
