/*
 * Fuzzes the file of reply rules and the match of a stranger's reply. The input is a digit for the stage, three for the
 * code, the rules, and behind NULs the server's name and the reply's text. A file is refused with a line for each
 * problem, or taken; rules that are found must be within their bounds, be for that server and stage, and, read
 * alone, match too; those before them must not. No expression may make a match endless.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"

#include "gateway/outbound/rules.h"

enum {
    ALONE_MAX = 40, /* lines of a file that are read alone too */
    COSTLY = 3,     /* so many rules given up end the match */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const enum client_stage stages[] = {CLIENT_GREETING, CLIENT_EHLO, CLIENT_STARTTLS, CLIENT_AUTH, CLIENT_MAIL,
                                           CLIENT_RCPT,     CLIENT_DATA, CLIENT_BODY,     CLIENT_DOT,  CLIENT_QUIT};

static struct rules *parse(struct span text, int *err) {
    struct rules *r;
    struct buf problems;
    buf_init(&problems, 4u << 20);
    *err = rules_parse(&r, "f", text, &problems);
    struct span rest = buf_span(&problems);
    CHECK(*err == ERR_OK || *err == ERR_INVALID);
    CHECK((*err == ERR_OK) == (r != NULL) && (*err == ERR_OK) == (rest.len == 0));
    CHECK(problems.err == ERR_OK && (!rest.len || rest.at[rest.len - 1] == '\n'));
    while (rest.len) {
        struct span number, line = span_cut(rest, '\n', &rest);
        uint64_t n;
        CHECK(span_starts_nocase(line, SPAN("f:")));
        number = span_cut(span_from(line, 2), ':', &line);
        CHECK(span_u64(number, &n) && n >= 1 && line.len > 1);
        for (size_t i = 0; i < line.len; i++)
            CHECK((unsigned char)line.at[i] >= 0x20 && line.at[i] != 0x7f);
    }
    buf_deinit(&problems);
    return r;
}

static void judge_status(const char *status) {
    struct span detail, subject = span_cut(span_of(status), '.', &detail);
    uint64_t n;
    CHECK(!*status || (subject.len >= 1 && subject.len <= 3 && span_u64(subject, &n)));
    CHECK(!*status || (detail.len >= 1 && detail.len <= 3 && span_u64(detail, &n)));
}

static void judge(const struct rule *one, const struct rules_question *q) {
    bool pauses = one->action == RULE_SUSPEND || one->action == RULE_SLOW;
    CHECK(!one->stages || one->stages & 1u << q->stage);
    CHECK(!one->site || rules_pattern(one->site, span_of(q->host)));
    CHECK(!one->domain || rules_pattern(one->domain, span_of(q->domain)));
    CHECK(pauses ? one->for_ms >= 1000 && one->for_ms <= RULES_FOR_MAX_MS : one->for_ms == 0);
    CHECK(one->percent < 100 && one->connections <= 10000);
    CHECK((one->action == RULE_SLOW) == (one->percent || one->connections) && !(one->percent && one->connections));
    CHECK(!pauses || (!one->status[0] && !one->has_category));
    judge_status(one->status);
}

/* The found rule is the first line that matches by itself. One that is given up decides nothing, unless it is one of
 * many. */
static void judge_alone(struct span text, size_t count, const struct rule *found, const struct rules_question *q) {
    unsigned line = 0;
    int err;
    while (text.len && ++line <= ALONE_MAX) {
        struct rules *r = parse(span_cut(text, '\n', &text), &err);
        CHECK(r);
        const struct rule *one = rules_match(r, q);
        CHECK(!one || (found ? found->line <= line : count >= COSTLY)); /* no earlier one */
        CHECK(one || !found || found->line != line);
        bool over = found && found->line == line;
        rules_unref(r);
        if (over)
            return;
    }
}

static struct span cut_nul(struct span *rest) {
    return span_cut(*rest, 0, rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char host[256];
    struct rules_question q = {.host = host, .domain = "d.example"};
    struct span in = span_make(data, size), text;
    int err;
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    if (in.len < 4)
        return 0;
    q.stage = stages[(unsigned char)in.at[0] % 10];
    for (int i = 1; i < 4; i++)
        q.code = 10 * q.code + (unsigned char)in.at[i] % 10;
    in = span_from(in, 4);
    text = cut_nul(&in);
    span_copy(cut_nul(&in), host, sizeof host);
    q.text = in;
    if (in.len > 5 && in.at[1] == '.' && in.at[3] == '.')
        q.enhanced = span_first(in, 5);
    struct rules *r = parse(text, &err);
    if (!r)
        return 0;
    const struct rule *one = rules_match(r, &q);
    CHECK(one == rules_match(r, &q) && rules_count(r) <= RULES_MAX);
    if (one)
        judge(one, &q);
    judge_alone(text, rules_count(r), one, &q);
    rules_unref(r);
    return 0;
}
