/*
 * rules: see rules.h. The door to PCRE2. Octets, not characters: replies come in any coding. A reply is a stranger's
 * text: steps, depth and memory of a match are limited, and a reply that drives several rules to their limits is
 * matched no further, so that no reply costs more than a few of these limits together.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <pcre2.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/units.h"

#include "gateway/outbound/rules.h"

enum {
    STEPS_MAX = 20000,
    DEPTH_MAX = 2000,
    HEAP_KIB_MAX = 512,
    NEST_MAX = 20,
    COSTLY_MAX = 3, /* rules that one reply may drive to their limits */
    CONNECTIONS_MAX = 10000,
};

METRIC_COUNTER(matched, "posthouse_delivery_rules_matched_total", "Replies that a reply rule matched");
METRIC_COUNTER(costly, "posthouse_delivery_rules_costly_total", "Matches given up since they were too expensive");

struct rules {
    _Atomic uint32_t refs;
    struct arena mem;
    size_t count;
    struct rule *all;
    pcre2_match_context *limits;
};
struct reading { /* of a file */
    struct rules *rules;
    pcre2_compile_context *context;
    const char *name;
    unsigned line;
    struct buf *problems;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static bool complain(struct reading *r, const char *format, ...) {
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    buf_printf(r->problems, "%s:%u: ", r->name, r->line);
    buf_add_escaped(r->problems, span_of(what));
    buf_add_str(r->problems, "\n");
    r->failed = true;
    return false;
}

/* -- a line -- */

static const struct {
    const char *name;
    uint32_t stages;
} stages[] = {
    {"connect", 1u << CLIENT_GREETING},
    {"ehlo", 1u << CLIENT_EHLO | 1u << CLIENT_HELO},
    {"tls", 1u << CLIENT_STARTTLS | 1u << CLIENT_SHAKING},
    {"auth", 1u << CLIENT_AUTH},
    {"mail", 1u << CLIENT_MAIL},
    {"rcpt", 1u << CLIENT_RCPT},
    {"data", 1u << CLIENT_DATA},
    {"end", 1u << CLIENT_BODY | 1u << CLIENT_DOT},
};

static bool read_stage(struct reading *r, struct rule *to, struct span value) {
    while (value.len) {
        struct span one = span_cut(value, ',', &value);
        size_t i = 0;
        while (i < sizeof stages / sizeof *stages && !span_eq(one, span_of(stages[i].name)))
            i++;
        if (i == sizeof stages / sizeof *stages)
            return complain(r, "stage: takes connect, ehlo, tls, auth, mail, rcpt, data or end, with commas");
        to->stages |= stages[i].stages;
    }
    return to->stages != 0;
}

static bool read_status(struct reading *r, struct rule *to, struct span value) {
    uint64_t subject, detail;
    struct span rest, first = span_cut(value, '.', &rest);
    bool is_long = first.len > 2 || rest.len > 3; /* with zeros in front */
    if (is_long || !span_u64(first, &subject) || !span_u64(rest, &detail))
        return complain(r, "status: takes the last two numbers of a status, such as 7.1");
    span_copy(value, to->status, sizeof to->status);
    return true;
}

static bool read_category(struct reading *r, struct rule *to, struct span value) {
    for (int c = 0; c < BOUNCE_CATEGORIES; c++) {
        if (!span_eq(value, span_of(bounce_name((enum bounce_category)c))))
            continue;
        to->category = (enum bounce_category)c;
        to->has_category = true;
        return true;
    }
    return complain(r, "category: %.*s is none", SPAN_FMT(span_first(value, 60)));
}

static bool read_pattern(struct reading *r, const char **to, const char *key, struct span value) {
    *to = value.len && value.len <= 255 ? arena_dup(&r->rules->mem, value).at : NULL;
    return *to ? true : complain(r, "%s: takes a name, .NAME for all below it too, or *", key);
}

static bool read_key(struct reading *r, struct rule *to, struct span word) {
    struct span value, key = span_cut(word, '=', &value);
    bool judges = to->action == RULE_TEMPORARY || to->action == RULE_PERMANENT;
    if (key.len == word.len)
        return complain(r, "%.*s: takes KEY=VALUE, or the expression in slashes", SPAN_FMT(span_first(word, 60)));
    if (span_eq(key, SPAN("stage")))
        return read_stage(r, to, value) || complain(r, "stage: is empty");
    if (span_eq(key, SPAN("site")))
        return read_pattern(r, &to->site, "site", value);
    if (span_eq(key, SPAN("domain")))
        return read_pattern(r, &to->domain, "domain", value);
    if (judges && span_eq(key, SPAN("status")))
        return read_status(r, to, value);
    if (judges && span_eq(key, SPAN("category")))
        return read_category(r, to, value);
    return complain(r, "%.*s: unknown, or not for this action", SPAN_FMT(span_first(key, 60)));
}

static struct span next_word(struct span *rest) {
    *rest = span_trim(*rest);
    size_t n = 0;
    while (n < rest->len && rest->at[n] != ' ' && rest->at[n] != '\t')
        n++;
    struct span word = span_first(*rest, n);
    *rest = span_trim(span_from(*rest, n));
    return word;
}

static bool read_for(struct reading *r, struct rule *to, struct span *rest) {
    struct span word = next_word(rest);
    if (units_duration(word, &to->for_ms) != ERR_OK || to->for_ms < 1000 || to->for_ms > RULES_FOR_MAX_MS)
        return complain(r, "takes a duration from 1s to 1d, such as 10m");
    return true;
}

static bool read_slow(struct reading *r, struct rule *to, struct span *rest) {
    struct span word = next_word(rest);
    bool share = word.len && word.at[word.len - 1] == '%';
    uint64_t n;
    if (!span_u64(share ? span_first(word, word.len - 1) : word, &n) || n == 0 || n > (share ? 99 : CONNECTIONS_MAX))
        return complain(r, "slow: takes a number of connections, or a share from 1%% to 99%%");
    *(share ? &to->percent : &to->connections) = (uint32_t)n;
    return read_for(r, to, rest);
}

static bool read_action(struct reading *r, struct rule *to, struct span *rest) {
    struct span word = next_word(rest);
    if (span_eq(word, SPAN("suspend"))) {
        to->action = RULE_SUSPEND;
        return read_for(r, to, rest);
    }
    if (span_eq(word, SPAN("slow"))) {
        to->action = RULE_SLOW;
        return read_slow(r, to, rest);
    }
    bool permanent = span_eq(word, SPAN("permanent"));
    to->action = permanent ? RULE_PERMANENT : RULE_TEMPORARY;
    return permanent || span_eq(word, SPAN("temporary")) ||
           complain(r, "%.*s: begins with none of suspend, slow, temporary, permanent", SPAN_FMT(span_first(word, 60)));
}

static bool compile(struct reading *r, struct rule *to, struct span pattern) {
    int code;
    PCRE2_SIZE at;
    if (!pattern.len)
        return complain(r, "the expression is empty");
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)pattern.at, pattern.len, PCRE2_CASELESS | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C,
                      &code, &at, r->context);
    if (!compiled) {
        PCRE2_UCHAR why[200] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return complain(r, "expression, at character %zu: %s", (size_t)at + 1, (const char *)why);
    }
    (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* where it may not be, it is interpreted */
    to->code = compiled;
    return true;
}

static bool read_rule(struct reading *r, struct span line, struct rule *to) {
    struct span rest = line;
    to->line = r->line;
    if (!read_action(r, to, &rest))
        return false;
    while (rest.len && rest.at[0] != '/') {
        if (!read_key(r, to, next_word(&rest)))
            return false;
    }
    if (rest.len < 2 || rest.at[rest.len - 1] != '/')
        return complain(r, "lacks its expression: /.../ at the end of the line");
    return compile(r, to, span_first(span_from(rest, 1), rest.len - 2));
}

static void read_lines(struct reading *r, struct span text) {
    size_t lines = 1, room;
    for (size_t i = 0; i < text.len; i++)
        lines += text.at[i] == '\n';
    room = lines < RULES_MAX ? lines : RULES_MAX;
    r->rules->all = arena_calloc(&r->rules->mem, room, sizeof *r->rules->all);
    CHECK(r->rules->all);
    while (text.len) {
        struct span line = span_trim(span_cut(text, '\n', &text));
        r->line++;
        if (!line.len || line.at[0] == '#')
            continue;
        struct rule one = {0};
        if (line.len > RULES_LINE_MAX || memchr(line.at, 0, line.len))
            complain(r, "a line takes %u octets, and no NUL", RULES_LINE_MAX);
        else if (r->rules->count == RULES_MAX) {
            complain(r, "more than %u rules", RULES_MAX);
            return;
        } else if (read_rule(r, line, &one))
            r->rules->all[r->rules->count++] = one;
    }
}

/* -- life -- */

static struct rules *new_rules(void) {
    struct rules *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->refs = 1;
    arena_init(&r->mem, 4096, 0);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->limits) {
        rules_unref(r);
        return NULL;
    }
    pcre2_set_match_limit(r->limits, STEPS_MAX);
    pcre2_set_depth_limit(r->limits, DEPTH_MAX);
    pcre2_set_heap_limit(r->limits, HEAP_KIB_MAX);
    return r;
}

int rules_parse(struct rules **to, const char *name, struct span text, struct buf *problems) {
    *to = NULL;
    if (text.len > RULES_FILE_MAX) {
        buf_printf(problems, "%s:1: longer than %u octets\n", name, RULES_FILE_MAX);
        return ERR_INVALID;
    }
    struct reading r = {.rules = new_rules(), .name = name, .problems = problems};
    r.context = pcre2_compile_context_create(NULL);
    if (!r.rules || !r.context) {
        rules_unref(r.rules);
        pcre2_compile_context_free(r.context);
        return ERR_NOMEM;
    }
    pcre2_set_parens_nest_limit(r.context, NEST_MAX);
    read_lines(&r, text);
    pcre2_compile_context_free(r.context);
    if (r.failed) {
        rules_unref(r.rules);
        return ERR_INVALID;
    }
    *to = r.rules;
    return ERR_OK;
}

static int read_file(const char *file, struct buf *to) {
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    int err = fstat(fd, &st) || !S_ISREG(st.st_mode) ? ERR_IO : ERR_OK;
    while (!err) {
        char *at = buf_reserve(to, 8192);
        ssize_t n = at ? read(fd, at, 8192) : -1;
        if (n > 0)
            buf_commit(to, (size_t)n);
        else if (n == 0)
            break;
        else if (!at || errno != EINTR)
            err = at ? ERR_IO : to->err;
    }
    close(fd);
    return err;
}

int rules_load(struct rules **to, const char *file, struct buf *problems) {
    struct buf text;
    *to = NULL;
    buf_init(&text, RULES_FILE_MAX + 16384);
    int err = read_file(file, &text);
    if (err)
        buf_printf(problems, "%s: %s\n", file, err_text(err));
    else
        err = rules_parse(to, file, buf_span(&text), problems);
    buf_deinit(&text);
    return err;
}

struct rules *rules_ref(struct rules *r) {
    if (r)
        atomic_fetch_add(&r->refs, 1);
    return r;
}

void rules_unref(struct rules *r) {
    if (!r || atomic_fetch_sub(&r->refs, 1) > 1)
        return;
    for (size_t i = 0; i < r->count; i++)
        pcre2_code_free(r->all[i].code);
    pcre2_match_context_free(r->limits);
    arena_deinit(&r->mem);
    free(r);
}

size_t rules_count(const struct rules *r) {
    return r ? r->count : 0;
}

/* -- matching -- */

bool rules_pattern(const char *pattern, struct span name) {
    struct span p = span_of(pattern);
    if (span_eq(p, SPAN("*")))
        return true;
    if (p.len && p.at[0] == '.' && span_ends_nocase(name, p))
        return true;
    return span_eq_nocase(p.len && p.at[0] == '.' ? span_from(p, 1) : p, name);
}

static bool is_for(const struct rule *r, const struct rules_question *q) {
    return (!r->stages || r->stages & 1u << q->stage) && (!r->site || rules_pattern(r->site, span_of(q->host))) &&
           (!r->domain || rules_pattern(r->domain, span_of(q->domain)));
}

static void put_subject(struct buf *to, const struct rules_question *q) {
    buf_printf(to, "%03u ", (unsigned)q->code);
    bool repeated =
        q->enhanced.len && q->text.len >= q->enhanced.len && memcmp(q->text.at, q->enhanced.at, q->enhanced.len) == 0;
    if (q->enhanced.len && !repeated) {
        buf_add(to, q->enhanced);
        buf_add_str(to, " ");
    }
    buf_add(to, span_first(q->text, RULES_SUBJECT_MAX));
}

const struct rule *rules_match(const struct rules *r, const struct rules_question *q) {
    const struct rule *found = NULL;
    struct buf subject;
    unsigned gave_up = 0;
    if (!r || !r->count)
        return NULL;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    buf_init(&subject, RULES_SUBJECT_MAX + 64);
    put_subject(&subject, q);
    struct span s = buf_span(&subject);
    for (size_t i = 0; data && i < r->count && !found && gave_up < COSTLY_MAX; i++) {
        const struct rule *one = &r->all[i];
        if (!is_for(one, q))
            continue;
        int n = pcre2_match(one->code, (PCRE2_SPTR)s.at, s.len, 0, 0, data, r->limits);
        if (n >= 0)
            found = one;
        else if (n != PCRE2_ERROR_NOMATCH) {
            gave_up++;
            metric_add(&costly, 1);
            LOG_WARN("reply_rule_too_expensive", LOG_U64("line", one->line),
                     LOG_STR("why", "a limit of the match was reached"));
        }
    }
    if (found)
        metric_add(&matched, 1);
    buf_deinit(&subject);
    pcre2_match_data_free(data);
    return found;
}
