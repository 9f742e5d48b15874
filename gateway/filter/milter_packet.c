/*
 * milter_packet: packs and unpacks what passes between us and a mail filter. Numbers are big-endian, strings end with
 * NUL. What a filter sends is taken only in exactly its form: a string without its NUL, octets behind the last one, a
 * length beyond the bounds make the packet invalid, and the owner then ends the connection.
 */
#include "gateway/filter/milter_packet.h"

#include "gateway/smtp/reply.h"

enum { LENGTH_LEN = 4 };

/* -- packing -- */

void milter_pack_u32(struct buf *to, uint32_t n) {
    const char octets[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    buf_append(to, octets, sizeof octets);
}

size_t milter_pack_begin(struct buf *to, char command) {
    size_t place = buf_len(to);
    milter_pack_u32(to, 0);
    buf_add_byte(to, command);
    return place;
}

void milter_pack_end(struct buf *to, size_t place) {
    if (to->err)
        return;
    size_t len = buf_len(to) - place - LENGTH_LEN;
    char *at = to->mem + to->start + place;
    for (size_t i = 0; i < LENGTH_LEN; i++)
        at[i] = (char)(len >> (8 * (LENGTH_LEN - 1 - i)));
}

void milter_pack_string(struct buf *to, struct span s, size_t most) {
    s = span_first(s, most);
    for (size_t i = 0; i < s.len; i++) {
        bool fold = s.at[i] == '\r' && i + 1 < s.len && s.at[i + 1] == '\n';
        if (!fold)
            buf_add_byte(to, s.at[i] == '\0' ? ' ' : s.at[i]);
    }
    buf_add_byte(to, '\0');
}

void milter_pack_plain(struct buf *to, char command) {
    milter_pack_end(to, milter_pack_begin(to, command));
}

void milter_pack_options(struct buf *to, uint32_t version, uint32_t actions, uint32_t protocol) {
    size_t place = milter_pack_begin(to, MILTER_OPTNEG);
    milter_pack_u32(to, version);
    milter_pack_u32(to, actions);
    milter_pack_u32(to, protocol);
    milter_pack_end(to, place);
}

void milter_pack_connect(struct buf *to, struct span host, char family, uint16_t port, struct span address) {
    size_t place = milter_pack_begin(to, MILTER_CONNECT);
    milter_pack_string(to, host, MILTER_CHUNK / 2);
    buf_add_byte(to, family);
    if (family != 'U') {
        buf_add_byte(to, (char)(port >> 8));
        buf_add_byte(to, (char)port);
        milter_pack_string(to, address, MILTER_CHUNK / 4);
    }
    milter_pack_end(to, place);
}

/* -- unpacking -- */

static bool take_u32(struct span *s, uint32_t *n) {
    if (s->len < 4)
        return false;
    *n = 0;
    for (size_t i = 0; i < 4; i++)
        *n = *n << 8 | (unsigned char)s->at[i];
    *s = span_from(*s, 4);
    return true;
}

static bool take_string(struct span *s, struct span *text) {
    ptrdiff_t end = span_find(*s, '\0');
    if (end < 0)
        return false;
    *text = span_first(*s, (size_t)end);
    *s = span_from(*s, (size_t)end + 1);
    return true;
}

int milter_unpack(struct span in, struct milter_packet *p, size_t *used) {
    uint32_t len;
    struct span rest = in;
    if (!take_u32(&rest, &len))
        return ERR_AGAIN;
    if (len == 0 || len > MILTER_PACKET_MAX)
        return ERR_INVALID;
    if (rest.len < len)
        return ERR_AGAIN;
    p->command = rest.at[0];
    p->data = span_make(rest.at + 1, len - 1);
    *used = LENGTH_LEN + len;
    return ERR_OK;
}

int milter_unpack_options(struct span data, struct milter_options *o) {
    *o = (struct milter_options){0};
    if (!take_u32(&data, &o->version) || !take_u32(&data, &o->actions) || !take_u32(&data, &o->protocol))
        return ERR_INVALID;
    while (data.len) {
        uint32_t stage;
        struct span names;
        if (!take_u32(&data, &stage) || !take_string(&data, &names) || stage >= MILTER_LISTS)
            return ERR_INVALID;
        o->lists[stage] = names;
    }
    return ERR_OK;
}

int milter_unpack_field(struct span data, bool has_index, struct milter_field *f) {
    f->index = 0;
    if (has_index && !take_u32(&data, &f->index))
        return ERR_INVALID;
    if (!take_string(&data, &f->name) || !take_string(&data, &f->value) || data.len)
        return ERR_INVALID;
    return ERR_OK;
}

/* "550", "550 text", "550-text": the code and what follows it. */
static bool take_code(struct span line, uint16_t *code, struct span *text) {
    uint64_t n;
    if (!span_u64(span_first(line, 3), &n) || n < 400 || n > 599)
        return false;
    if (line.len > 3 && line.at[3] != ' ' && line.at[3] != '-')
        return false;
    *code = (uint16_t)n;
    *text = span_from(line, 4);
    return true;
}

/* Appends printable octets; "%%" is the protocol's way to write "%". */
static void add_text(struct milter_answer *a, size_t *len, struct span text) {
    if (*len && *len < MILTER_TEXT_MAX && text.len)
        a->text[(*len)++] = ' ';
    for (size_t i = 0; i < text.len && *len < MILTER_TEXT_MAX; i++) {
        char c = text.at[i];
        if (c == '%' && i + 1 < text.len && text.at[i + 1] == '%')
            i++;
        a->text[(*len)++] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    a->text[*len] = '\0';
}

int milter_unpack_answer(struct span data, struct milter_answer *a) {
    struct span all;
    size_t len = 0;
    *a = (struct milter_answer){0};
    if (!take_string(&data, &all) || data.len || !all.len)
        return ERR_INVALID;
    while (all.len) {
        uint16_t code;
        struct span line = span_cut(all, '\n', &all), text;
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        if (!take_code(line, &code, &text) || (a->code && code != a->code))
            return ERR_INVALID;
        size_t enhanced;
        if (reply_enhanced(text, code, &enhanced)) {
            if (!a->enhanced[0])
                span_copy(span_first(text, enhanced), a->enhanced, sizeof a->enhanced);
            text = span_trim(span_from(text, enhanced));
        }
        a->code = code;
        add_text(a, &len, text);
    }
    return ERR_OK;
}
