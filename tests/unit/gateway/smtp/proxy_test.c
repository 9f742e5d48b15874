/* proxy: headers of both versions and the attributes of XCLIENT: what is read, what is refused, at every cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/arena.h"
#include "gateway/smtp/proxy.h"

static struct proxy_header h;
static size_t used;

/* An exact copy, so that a sanitizer sees every octet read beyond it. What sni points at is gone then. */
static int read_span(struct span in) {
    char *copy = malloc(in.len ? in.len : 1);
    memcpy(copy, in.at, in.len);
    int err = proxy_read(&h, span_make(copy, in.len), &used);
    free(copy);
    return err;
}

static int read_text(const char *text) {
    return read_span(span_of(text));
}

static void lines_are_read(void **state) {
    (void)state;
    assert_int_equal(read_text("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\nEHLO x\r\n"), ERR_OK);
    assert_int_equal(used, 44);
    assert_false(h.local || h.v6 || h.tls);
    assert_memory_equal(h.client, "\xc0\x00\x02\x01", 4);
    assert_memory_equal(h.server, "\xc6\x33\x64\x02", 4);
    assert_int_equal(h.client_port, 56324);
    assert_int_equal(h.server_port, 25);
    assert_int_equal(read_text("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"), ERR_OK);
    assert_true(h.v6);
    assert_memory_equal(h.client, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
    assert_int_equal(h.server_port, 65535);
    assert_int_equal(read_text("PROXY UNKNOWN\r\n"), ERR_OK);
    assert_true(h.local);
    assert_int_equal(read_text("PROXY UNKNOWN what ever\r\nEHLO"), ERR_OK);
    assert_true(h.local);
    assert_int_equal(used, 25);
}

static void wrong_lines_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "EHLO x\r\n",
        "PROXY\r\n",
        "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
        "PROXY UNKNOWN \x80\r\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(read_text(wrong[i]), ERR_INVALID);
        assert_int_equal(used, 0);
    }
}

static void lines_end_within_107_octets(void **state) {
    (void)state;
    char line[128];
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(read_span(span_make(line, 106)), ERR_AGAIN);
    assert_int_equal(read_span(span_make(line, 107)), ERR_INVALID);
    memcpy(line + 105, "\r\n", 2);
    assert_int_equal(read_span(span_make(line, 106)), ERR_AGAIN);
    assert_int_equal(read_span(span_make(line, 107)), ERR_OK);
    memcpy(line + 105, "x\r\n", 3);
    assert_int_equal(read_span(span_make(line, 107)), ERR_INVALID);
    assert_int_equal(read_span(span_make(line, 108)), ERR_INVALID);
}

/* -- version 2 -- */

static char block[4096];
static size_t block_len;

static void put(const void *bytes, size_t len) {
    memcpy(block + block_len, bytes, len);
    block_len += len;
    block[14] = (char)((block_len - 16) >> 8);
    block[15] = (char)(block_len - 16);
}

static void begin(unsigned command, unsigned family) {
    memcpy(block, "\r\n\r\n\0\r\nQUIT\n", 12);
    block[12] = (char)command;
    block[13] = (char)family;
    block_len = 16;
    put("", 0);
}

static void put_tlv(unsigned type, const void *value, size_t len) {
    char head[3] = {(char)type, (char)(len >> 8), (char)len};
    put(head, 3);
    put(value, len);
}

#define PUT(literal) put(literal, sizeof(literal) - 1)

static void begin_v4(void) {
    begin(0x21, 0x11);
    PUT("\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x00\x19");
}

static int read_block(void) {
    return read_span(span_make(block, block_len));
}

static void blocks_are_read(void **state) {
    (void)state;
    begin_v4();
    assert_int_equal(read_block(), ERR_OK);
    assert_int_equal(used, 28);
    assert_false(h.local || h.v6);
    assert_memory_equal(h.client, "\xc0\x00\x02\x01", 4);
    assert_memory_equal(h.server, "\xc6\x33\x64\x02", 4);
    assert_int_equal(h.client_port, 56324);
    assert_int_equal(h.server_port, 25);
    begin(0x21, 0x21);
    PUT("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x34\x00\x19");
    assert_int_equal(read_block(), ERR_OK);
    assert_true(h.v6);
    assert_int_equal(h.client_port, 0x1234);
    assert_int_equal(h.client[15], 1);
    begin(0x20, 0x00); /* LOCAL */
    assert_int_equal(read_block(), ERR_OK);
    assert_true(h.local);
    begin(0x20, 0x99);
    PUT("skipped unread");
    assert_int_equal(read_block(), ERR_OK);
    assert_true(h.local);
    assert_int_equal(used, block_len);
    begin(0x21, 0x00); /* UNSPEC */
    assert_int_equal(read_block(), ERR_OK);
    assert_true(h.local);
    begin(0x21, 0x31); /* unix */
    put(block + 1024, 216);
    assert_int_equal(read_block(), ERR_OK);
    assert_true(h.local);
}

static void wrong_blocks_are_refused(void **state) {
    (void)state;
    static const uint8_t heads[][2] = {{0x11, 0x11}, {0x31, 0x11}, {0x22, 0x11}, {0x2f, 0x11}, {0x21, 0x12},
                                       {0x21, 0x10}, {0x21, 0x22}, {0x21, 0x41}, {0x21, 0x32}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        begin_v4();
        block[12] = (char)heads[i][0];
        block[13] = (char)heads[i][1];
        assert_int_equal(read_block(), ERR_INVALID);
    }
    begin_v4(); /* addresses that are too short for the family */
    block[13] = 0x21;
    assert_int_equal(read_block(), ERR_INVALID);
    begin(0x21, 0x11);
    put("abcdefghijk", 11);
    assert_int_equal(read_block(), ERR_INVALID);
    begin_v4(); /* a claim over the bound is refused before its octets come */
    block[14] = (char)0xff;
    assert_int_equal(read_block(), ERR_INVALID);
    begin_v4();
    put_tlv(4, block + 1100, PROXY_HEADER_MAX - 31);
    assert_int_equal(block_len, PROXY_HEADER_MAX);
    assert_int_equal(read_block(), ERR_OK);
    begin_v4();
    put_tlv(4, block + 1100, PROXY_HEADER_MAX - 30);
    assert_int_equal(read_block(), ERR_INVALID);
}

static void tlvs_are_walked(void **state) {
    (void)state;
    begin_v4();
    put_tlv(0x02, "mx.example.net", 14);
    put_tlv(0x20, "\x01\0\0\0\0\x21\0\x07TLSv1.3", 15);
    put_tlv(0xe0, "own", 3);
    assert_int_equal(proxy_read(&h, span_make(block, block_len), &used), ERR_OK);
    assert_true(span_eq(h.sni, SPAN("mx.example.net")));
    assert_true(h.tls);
    assert_int_equal(used, block_len);
    static const struct {
        uint8_t type, len;
        const char *value;
    } wrong[] = {{0x02, 0, ""},         {0x02, 3, "a b"}, {0x02, 3, "a\nb"},
                 {0x20, 4, "\x01\0\0"}, {0x03, 3, "abc"}, {0x20, 8, "\x01\0\0\0\0\x21\0\x01"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        begin_v4();
        put_tlv(wrong[i].type, wrong[i].value, wrong[i].len);
        assert_int_equal(read_block(), ERR_INVALID);
    }
    begin_v4();
    put_tlv(0x05, block + 1100, 128);
    assert_int_equal(read_block(), ERR_OK);
    begin_v4();
    put_tlv(0x05, block + 1100, 129);
    assert_int_equal(read_block(), ERR_INVALID);
    begin_v4(); /* a TLV that ends behind the block, and one cut in its head */
    PUT("\x04\x00\x02x");
    assert_int_equal(read_block(), ERR_INVALID);
    begin_v4();
    PUT("\x04\x00");
    assert_int_equal(read_block(), ERR_INVALID);
}

/* A second way to the same sum: by the table of the reflected polynomial, octet by octet. */
static uint32_t sum(const char *bytes, size_t len) {
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
    }
    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ table[(crc ^ (uint8_t)bytes[i]) & 255];
    return ~crc;
}

static void a_checksum_must_be_right(void **state) {
    (void)state;
    assert_int_equal(sum("123456789", 9), 0xe3069283u);
    begin_v4();
    put_tlv(0x03, "\0\0\0\0", 4);
    size_t at = block_len - 4;
    put_tlv(0x02, "mx.example", 10);
    uint32_t crc = sum(block, block_len);
    for (int i = 0; i < 4; i++)
        block[at + (size_t)i] = (char)(crc >> (24 - 8 * i));
    assert_int_equal(read_block(), ERR_OK);
    for (size_t i = 16; i < block_len; i++) { /* any flipped bit is found */
        block[i] ^= 1;
        assert_int_equal(read_block(), ERR_INVALID);
        block[i] ^= 1;
    }
    put_tlv(0x03, "\0\0\0\0", 4); /* two */
    assert_int_equal(read_block(), ERR_INVALID);
}

static void every_cut_asks_for_more(void **state) {
    (void)state;
    static const char line[] = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n";
    for (size_t len = 0; len < sizeof line - 1; len++)
        assert_int_equal(read_span(span_make(line, len)), ERR_AGAIN);
    begin_v4();
    put_tlv(0x02, "mx.example", 10);
    for (size_t len = 0; len < block_len; len++) {
        assert_int_equal(read_span(span_make(block, len)), ERR_AGAIN);
        assert_int_equal(used, 0);
    }
}

/* -- XCLIENT -- */

static struct arena mem;
static struct xclient x;

static int xclient(const char *args) {
    arena_reset(&mem);
    return xclient_read(&x, span_of(args), &mem);
}

static void attributes_are_read(void **state) {
    (void)state;
    arena_init(&mem, 1024, 65536);
    assert_int_equal(xclient("NAME=mail.example ADDR=192.0.2.1 PORT=1234 PROTO=ESMTP HELO=[192.0.2.1] LOGIN=a+2Bb+3D"
                             " DESTADDR=IPV6:2001:db8::1 DESTPORT=25 REVERSE_NAME=[TEMPUNAVAIL]"),
                     ERR_OK);
    assert_true(span_eq(x.name, SPAN("mail.example")));
    assert_true(span_eq(x.addr, SPAN("192.0.2.1")));
    assert_true(span_eq(x.port, SPAN("1234")));
    assert_true(span_eq(x.proto, SPAN("ESMTP")));
    assert_true(span_eq(x.helo, SPAN("[192.0.2.1]")));
    assert_true(span_eq(x.login, SPAN("a+b=")));
    assert_true(span_eq(x.destaddr, SPAN("2001:db8::1")));
    assert_true(span_eq(x.destport, SPAN("25")));
    assert_non_null(x.reverse_name.at);
    assert_int_equal(x.reverse_name.len, 0);
    assert_int_equal(xclient(" name=[unavailable]  addr=ipv6:::1 "), ERR_OK);
    assert_non_null(x.name.at);
    assert_int_equal(x.name.len, 0);
    assert_true(span_eq(x.addr, SPAN("::1")));
    assert_null(x.helo.at);
    assert_null(x.login.at);
    static const char *const wrong[] = {
        "",           " ",          "ADDR",       "ADDR=",      "ADDR=192.0.2.1 ADDR=192.0.2.2",
        "FOO=bar",    "ADDR=mail",  "PORT=0x19",  "PORT=65536", "ADDR=IPV6:192.0.2.1",
        "PROTO=LMTP", "HELO=a+0Ab", "HELO=a+0ab", "LOGIN=a=b",  "NAME=a+20b",
        "NAME=a/b",   "HELO=\x80",  "HELO=a+00b", "ADDR=127.1", "DESTPORT=",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(xclient(wrong[i]), ERR_INVALID);
    arena_deinit(&mem);
    arena_init(&mem, 16, 16); /* no memory */
    assert_int_equal(xclient_read(&x, SPAN("HELO=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), &mem), ERR_NOMEM);
    arena_deinit(&mem);
}

/* What is written is read back as it was, at every cut. */
static void written_headers_are_read(void **state) {
    (void)state;
    static const struct proxy_header table[] = {
        {.client = {192, 0, 2, 10}, .server = {198, 51, 100, 25}, .client_port = 0, .server_port = 25},
        {.client = {10, 255, 0, 1}, .server = {1, 2, 3, 4}, .client_port = 65535, .server_port = 2587},
        {.v6 = true, .client = {0x20, 1, 0xd, 0xb8, [15] = 10}, .server = {0x20, 1, [15] = 0xff}, .server_port = 465},
        {.local = true},
    };
    static const size_t lengths[] = {28, 28, 52, 16};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char text[PROXY_WRITTEN_MAX + 4];
        memset(text, '2', sizeof text);
        size_t len = proxy_write_v2(&table[i], text);
        assert_int_equal(len, lengths[i]);
        for (size_t cut = 0; cut < len; cut++)
            assert_int_equal(read_span(span_make(text, cut)), ERR_AGAIN);
        assert_int_equal(read_span(span_make(text, len + 4)), ERR_OK);
        assert_int_equal(used, len);
        assert_true(h.local == table[i].local && h.v6 == table[i].v6);
        assert_memory_equal(h.client, table[i].client, 16);
        assert_memory_equal(h.server, table[i].server, 16);
        assert_int_equal(h.client_port, table[i].client_port);
        assert_int_equal(h.server_port, table[i].server_port);
    }
    char text[PROXY_WRITTEN_MAX];
    assert_int_equal(proxy_write_v2(&table[0], text), 28);
    assert_memory_equal(text, "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x0a\xc6\x33\x64\x19\0\0\0\x19", 28);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_headers_are_read), cmocka_unit_test(lines_are_read),
        cmocka_unit_test(wrong_lines_are_refused),  cmocka_unit_test(lines_end_within_107_octets),
        cmocka_unit_test(blocks_are_read),          cmocka_unit_test(wrong_blocks_are_refused),
        cmocka_unit_test(tlvs_are_walked),          cmocka_unit_test(a_checksum_must_be_right),
        cmocka_unit_test(every_cut_asks_for_more),  cmocka_unit_test(attributes_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
