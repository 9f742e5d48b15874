/*
 * config_diff: how two documents differ, line by line, as a unified diff: the longest common subsequence of what is
 * left between their common beginning and end. Where that is too much to compare, all of it counts as replaced.
 */
#include <stdlib.h>

#include "node/config_text.h"

enum { CONTEXT = 3, CELLS_MAX = 8 * 1024 * 1024 };

struct op {
    char kind; /* ' ', '-' of a, '+' of b */
    const struct config_line *line;
};
struct script {
    struct op *ops;
    size_t count;
};

static bool same(const struct config_line *x, const struct config_line *y) {
    return x->hash == y->hash && span_eq(x->text, y->text);
}

static void add_op(struct script *s, char kind, const struct config_line *line) {
    s->ops[s->count++] = (struct op){kind, line};
}

/* length[i * (m + 1) + j]: of the longest common subsequence of a from i on and b from j on. */
static void compare(struct script *s, const struct config_line *a, size_t n, const struct config_line *b, size_t m,
                    uint32_t *length) {
    size_t row = m + 1, i = 0, j = 0;
    for (size_t x = n; x-- > 0;)
        for (size_t y = m; y-- > 0;) {
            uint32_t down = length[(x + 1) * row + y], right = length[x * row + y + 1];
            length[x * row + y] =
                same(&a[x], &b[y]) ? length[(x + 1) * row + y + 1] + 1 : (down > right ? down : right);
        }
    while (i < n || j < m) {
        if (i < n && j < m && same(&a[i], &b[j])) {
            add_op(s, ' ', &a[i++]);
            j++;
        } else if (i < n && (j == m || length[(i + 1) * row + j] >= length[i * row + j + 1])) {
            add_op(s, '-', &a[i++]);
        } else {
            add_op(s, '+', &b[j++]);
        }
    }
}

static int compare_middle(struct script *s, const struct config_line *a, size_t n, const struct config_line *b,
                          size_t m) {
    uint32_t *length = NULL;
    if (n && m && (n + 1) <= CELLS_MAX / (m + 1)) {
        length = calloc((n + 1) * (m + 1), sizeof *length);
        if (!length)
            return ERR_NOMEM;
        compare(s, a, n, b, m, length);
        free(length);
        return ERR_OK;
    }
    for (size_t i = 0; i < n; i++)
        add_op(s, '-', &a[i]);
    for (size_t j = 0; j < m; j++)
        add_op(s, '+', &b[j]);
    return ERR_OK;
}

static bool is_near_change(const struct script *s, size_t i) {
    size_t first = i < CONTEXT ? 0 : i - CONTEXT;
    for (size_t k = first; k <= i + CONTEXT && k < s->count; k++)
        if (s->ops[k].kind != ' ')
            return true;
    return false;
}

static void write_hunk(const struct script *s, size_t from, size_t to, size_t a_line, size_t b_line, struct buf *out) {
    size_t a_count = 0, b_count = 0;
    for (size_t i = from; i < to; i++) {
        a_count += s->ops[i].kind != '+';
        b_count += s->ops[i].kind != '-';
    }
    buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", a_line, a_count, b_line, b_count);
    for (size_t i = from; i < to; i++) {
        buf_add_byte(out, s->ops[i].kind);
        buf_add(out, s->ops[i].line->text);
        buf_add_byte(out, '\n');
    }
}

static void write_script(const struct script *s, struct buf *out) {
    size_t a_line = 1, b_line = 1;
    for (size_t i = 0; i < s->count;) {
        size_t end = i;
        while (end < s->count && is_near_change(s, end))
            end++;
        if (end > i)
            write_hunk(s, i, end, a_line, b_line, out);
        end = end > i ? end : i + 1;
        for (; i < end; i++) {
            a_line += s->ops[i].kind != '+';
            b_line += s->ops[i].kind != '-';
        }
    }
}

int config_text_diff(const struct config_lines *a, const struct config_lines *b, struct buf *to) {
    size_t head = 0, tail = 0, least = a->count < b->count ? a->count : b->count;
    while (head < least && same(&a->at[head], &b->at[head]))
        head++;
    while (tail < least - head && same(&a->at[a->count - 1 - tail], &b->at[b->count - 1 - tail]))
        tail++;
    if (head == a->count && head == b->count)
        return ERR_OK;
    struct script s = {.ops = calloc(a->count + b->count + 1, sizeof *s.ops)};
    if (!s.ops)
        return ERR_NOMEM;
    for (size_t i = 0; i < head; i++)
        add_op(&s, ' ', &a->at[i]);
    int err = compare_middle(&s, a->at + head, a->count - head - tail, b->at + head, b->count - head - tail);
    for (size_t i = a->count - tail; i < a->count; i++)
        add_op(&s, ' ', &a->at[i]);
    if (err == ERR_OK) {
        buf_add_str(to, "--- in force\n+++ the file\n");
        write_script(&s, to);
        err = to->err;
    }
    free(s.ops);
    return err;
}
