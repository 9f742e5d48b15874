/* log_scan: a torn tail is told from damage, wherever it lies. The logs are made here, octet by octet. */
#include "tests/unit/store/place.h"

#include "base/rand.h"
#include "store/crc32c.h"
#include "store/log_scan.h"

enum { BLOCK = 32768 };

struct maker {
    uint8_t *mem;
    size_t len, cap;
    uint64_t sequence; /* of the next record */
    size_t ends[256];  /* where each record ends */
    size_t count;
};

static void emit(struct maker *m, const void *bytes, size_t len) {
    if (m->len + len > m->cap) {
        m->cap = (m->len + len) * 2;
        m->mem = realloc(m->mem, m->cap);
        assert_non_null(m->mem);
    }
    memcpy(m->mem + m->len, bytes, len);
    m->len += len;
}

static void emit_piece(struct maker *m, uint8_t type, const uint8_t *payload, size_t len) {
    uint8_t head[7];
    uint32_t crc = crc32c_plain(crc32c_plain(0, &type, 1), payload, len);
    crc = (crc >> 15 | crc << 17) + 0xa282ead8u;
    for (int i = 0; i < 4; i++)
        head[i] = (uint8_t)(crc >> 8 * i);
    head[4] = (uint8_t)len;
    head[5] = (uint8_t)(len >> 8);
    head[6] = type;
    emit(m, head, sizeof head);
    emit(m, payload, len);
}

/* A record of `operations` operations and this many octets (at least 12), as RocksDB lays it out. */
static void add(struct maker *m, uint32_t operations, size_t len) {
    uint8_t *record = malloc(len), *at = record;
    assert_non_null(record);
    assert_true(len >= 12 && m->count < 256);
    memset(record, 'm', len);
    for (int i = 0; i < 8; i++)
        record[i] = (uint8_t)(m->sequence >> 8 * i);
    for (int i = 0; i < 4; i++)
        record[8 + i] = (uint8_t)(operations >> 8 * i);
    bool first = true;
    do {
        size_t room = BLOCK - m->len % BLOCK;
        if (room < 7) {
            emit(m, "\0\0\0\0\0\0", room);
            room = BLOCK;
        }
        size_t take = len < room - 7 ? len : room - 7;
        bool last = take == len;
        emit_piece(m, first ? last ? 1 : 2 : last ? 4 : 3, at, take);
        at += take;
        len -= take;
        first = false;
    } while (len);
    m->sequence += operations;
    m->ends[m->count++] = m->len;
    free(record);
}

static void save(const struct place *p, const char *name, const struct maker *m, size_t len) {
    char path[400];
    join(path, p->root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, m->mem, len), len);
    close(fd);
}

static int setup(void **state) {
    struct place *p = malloc(sizeof *p);
    assert_non_null(p);
    place_init(p);
    *state = p;
    return 0;
}

static void make(struct maker *m, uint64_t first, const size_t *sizes, size_t count) {
    *m = (struct maker){.sequence = first};
    for (size_t i = 0; i < count; i++)
        add(m, 3, sizes[i]);
}

static const size_t small[] = {40, 900, 12, 300, 4000, 77, 500, 33};
static const size_t large[] = {32761, 20, 32700, 65, 100000, 12, 32768 * 3, 4096, 32754, 200000};

static void the_checksum_is_castagnoli(void **state) {
    (void)state;
    uint8_t bytes[1000];
    struct rand r;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c_plain(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(0, "", 0), 0);
    rand_init(&r, 1);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)rand_u64(&r);
    for (size_t len = 0; len < sizeof bytes; len++) {
        assert_int_equal(crc32c(7, bytes, len), crc32c_plain(7, bytes, len));
        assert_int_equal(crc32c(crc32c(0, bytes, len), bytes + len, sizeof bytes - len),
                         crc32c(0, bytes, sizeof bytes));
    }
}

static void reads_whole_logs(void **state) {
    struct place *p = *state;
    struct log_scan scan;
    struct maker m;
    assert_int_equal(log_scan(p->root, 0, &scan), ERR_OK);
    assert_int_equal(scan.last_sequence, 0);
    assert_string_equal(scan.newest, "");
    make(&m, 1, large, 10);
    save(p, "000009.log", &m, m.len);
    assert_int_equal(log_scan(p->root, 30, &scan), ERR_OK);
    assert_int_equal(scan.records, 10);
    assert_int_equal(scan.last_sequence, 30);
    assert_int_equal(scan.bytes, m.len);
    assert_string_equal(scan.torn, "");
    free(m.mem);
    make(&m, 31, small, 8);
    save(p, "000010.log", &m, m.len);
    save(p, "1000000.log", &m, 0);
    save(p, "LOG", &m, 10);
    save(p, "x.log", &m, 10);
    assert_int_equal(log_scan(p->root, 54, &scan), ERR_OK);
    assert_int_equal(scan.last_sequence, 54);
    assert_string_equal(scan.newest, "1000000.log");
    free(m.mem);
}

static void cut(struct place *p, const size_t *sizes, size_t count, size_t step) {
    struct log_scan scan;
    struct maker m;
    make(&m, 1, sizes, count);
    for (size_t len = m.len - 1; len > 0; len = len > step ? len - step : 0) {
        size_t whole = 0;
        while (whole < m.count && m.ends[whole] <= len)
            whole++;
        save(p, "000001.log", &m, len);
        assert_int_equal(log_scan(p->root, 0, &scan), ERR_OK);
        assert_int_equal(scan.last_sequence, 3 * whole);
        assert_int_equal(scan.records, whole);
        bool at_end = whole && m.ends[whole - 1] == len;
        bool padding = whole && len - m.ends[whole - 1] < 7 && BLOCK - m.ends[whole - 1] % BLOCK < 7;
        if (!padding)
            assert_int_equal(scan.torn[0] == '\0', at_end);
        /* Cut inside of what was acknowledged. */
        int err = log_scan(p->root, 3 * count, &scan);
        assert_int_equal(err, scan.torn[0] && whole ? ERR_CORRUPT : ERR_OK);
        if (err == ERR_CORRUPT)
            assert_non_null(strstr(scan.damage, "000001.log"));
    }
    free(m.mem);
}

static void a_cut_tail_is_torn(void **state) {
    cut(*state, small, 8, 1);
    cut(*state, large, 10, 6007);
}

static void flip_all(struct place *p, const size_t *sizes, size_t count, size_t step) {
    struct log_scan scan;
    struct maker m;
    char path[400];
    make(&m, 1, sizes, count);
    save(p, "000001.log", &m, m.len);
    join(path, p->root, "000001.log");
    for (size_t at = 0; at < m.len; at += step) {
        flip(path, (off_t)at);
        bool in_last = at >= m.ends[count - 2];
        int err = log_scan(p->root, 0, &scan);
        assert_int_equal(err, in_last ? ERR_OK : ERR_CORRUPT);
        if (in_last) { /* nobody can tell it from a torn one, but by what was acknowledged */
            assert_string_equal(scan.torn, "000001.log");
            assert_int_equal(scan.last_sequence, 3 * (count - 1));
            assert_int_equal(log_scan(p->root, 3 * count, &scan), ERR_CORRUPT);
        }
        if (scan.damage[0])
            assert_non_null(strstr(scan.damage, "000001.log"));
        flip(path, (off_t)at);
    }
    assert_int_equal(log_scan(p->root, 3 * count, &scan), ERR_OK);
    free(m.mem);
}

static void a_flipped_octet_is_damage(void **state) {
    static const size_t middle[] = {12, 40000, 100, 70000, 13, 4096};
    flip_all(*state, small, 8, 1);
    flip_all(*state, middle, 6, 1009);
}

static void pages_of_the_last_write_may_come_in_any_order(void **state) {
    struct place *p = *state;
    static const size_t sizes[] = {500, 400, 300000};
    struct log_scan scan;
    struct maker m;
    make(&m, 1, sizes, 3);
    size_t from = m.ends[1];
    for (size_t page = 0; page + 4096 < m.len; page += 4096) { /* this page did not reach the disk */
        uint8_t kept[4096];
        size_t at = page > from ? page : from;
        size_t len = page + 4096 - at;
        if (page + 4096 <= from)
            continue;
        memcpy(kept, m.mem + at, len);
        memset(m.mem + at, 0, len);
        save(p, "000001.log", &m, m.len);
        assert_int_equal(log_scan(p->root, 6, &scan), ERR_OK);
        assert_int_equal(scan.last_sequence, 6);
        assert_string_equal(scan.torn, "000001.log");
        memcpy(m.mem + at, kept, len);
    }
    memset(m.mem + from, 0, m.len - from); /* the length reached the disk and nothing else */
    save(p, "000001.log", &m, m.len);
    assert_int_equal(log_scan(p->root, 6, &scan), ERR_OK);
    assert_int_equal(scan.last_sequence, 6);
    memset(m.mem + 100, 0, 4096); /* here an acknowledged record is gone, too */
    save(p, "000001.log", &m, m.len);
    assert_int_equal(log_scan(p->root, 6, &scan), ERR_OK); /* no whole record at all: RocksDB's number decides */
    assert_int_equal(scan.last_sequence, 0);
    free(m.mem);
}

static void an_older_log_must_be_followed_without_a_gap(void **state) {
    struct place *p = *state;
    struct log_scan scan;
    struct maker old, new;
    make(&old, 1, small, 8); /* 1 to 24, the last record 22 to 24 */
    save(p, "000004.log", &old, old.len - 5);
    make(&new, 22, small, 4);
    save(p, "000007.log", &new, new.len);
    assert_int_equal(log_scan(p->root, 33, &scan), ERR_OK); /* died twice: the torn record was never acknowledged */
    assert_int_equal(scan.last_sequence, 33);
    assert_string_equal(scan.torn, "000004.log");
    free(new.mem);
    make(&new, 25, small, 4);
    save(p, "000007.log", &new, new.len);
    assert_int_equal(log_scan(p->root, 0, &scan), ERR_CORRUPT);
    assert_non_null(strstr(scan.damage, "000004.log"));
    assert_non_null(strstr(scan.damage, "000007.log"));
    save(p, "000004.log", &old, old.len);
    assert_int_equal(log_scan(p->root, 36, &scan), ERR_OK);
    char path[400];
    join(path, p->root, "000007.log");
    flip(path, 9);
    assert_int_equal(log_scan(p->root, 0, &scan), ERR_CORRUPT);
    assert_non_null(strstr(scan.damage, "000007.log"));
    free(old.mem);
    free(new.mem);
}

static void a_forged_record_in_a_body_proves_nothing(void **state) {
    struct place *p = *state;
    struct log_scan scan;
    struct maker m, inner;
    static const size_t sizes[] = {100, 200, 3000};
    make(&m, 1000, sizes, 3);
    inner = (struct maker){.sequence = UINT64_C(1) << 40}; /* a sender cannot know the number of the day */
    add(&inner, 1, 50);
    memcpy(m.mem + m.ends[1] + 500, inner.mem, inner.len);
    save(p, "000001.log", &m, m.len);
    assert_int_equal(log_scan(p->root, 1005, &scan), ERR_OK);
    assert_int_equal(scan.last_sequence, 1005);
    free(m.mem);
    free(inner.mem);
}

static void random_octets_do_no_harm(void **state) {
    struct place *p = *state;
    struct log_scan scan;
    struct rand r;
    static uint8_t noise[3 * BLOCK];
    struct maker m = {.mem = noise, .len = sizeof noise};
    for (uint64_t seed = 0; seed < 20; seed++) {
        rand_init(&r, seed);
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)(seed & 1 ? rand_below(&r, 5) : rand_u64(&r));
        save(p, "000001.log", &m, sizeof noise - seed);
        int err = log_scan(p->root, 0, &scan);
        assert_true(err == ERR_OK || err == ERR_CORRUPT);
    }
    assert_int_equal(log_scan("/nonexistent/directory", 0, &scan), ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_castagnoli),
        cmocka_unit_test_setup_teardown(reads_whole_logs, setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_cut_tail_is_torn, setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_flipped_octet_is_damage, setup, place_teardown),
        cmocka_unit_test_setup_teardown(pages_of_the_last_write_may_come_in_any_order, setup, place_teardown),
        cmocka_unit_test_setup_teardown(an_older_log_must_be_followed_without_a_gap, setup, place_teardown),
        cmocka_unit_test_setup_teardown(a_forged_record_in_a_body_proves_nothing, setup, place_teardown),
        cmocka_unit_test_setup_teardown(random_octets_do_no_harm, setup, place_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
