/*
 * etcd_ask: speaks to etcd as the cluster does, told by lines on standard input, for tests/system/etcd_test.py. Each
 * answer, event of a lease and piece of news is one JSON line on standard output.
 *
 *   etcd_ask [--ca F] [--cert F --key F] [--user U --password P] [--timeout MS] [--first N] ENDPOINT...
 *
 * Lines: get TAG KEY | prefix TAG PREFIX | put TAG KEY VALUE [LEASE] | cas TAG KEY MOD_REVISION VALUE |
 * delete TAG KEY | fill TAG PREFIX FROM COUNT [SIZE] (a transaction) | lease NAME TTL | left NAME | revoke TAG NAME |
 * watch NAME PREFIX REVISION | unwatch NAME | state. It ends with its input.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/net/etcd.h"
#include "base/net/loop.h"

enum { NAMES_MAX = 40, NAME_MAX = 40, WORDS_MAX = 8, LINE_MAX_OCTETS = 4096, OUT_MAX = 64 * 1024 * 1024 };

struct named {
    char name[NAME_MAX];
    struct etcd_lease *lease;
    struct etcd_watch *watch;
};
static struct named names[NAMES_MAX];
static struct loop *loop;
static struct etcd *etcd;
static struct buf input;

static struct named *named(const char *name, bool add) {
    for (size_t i = 0; i < NAMES_MAX; i++)
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    for (size_t i = 0; add && i < NAMES_MAX; i++) {
        if (!names[i].name[0]) {
            snprintf(names[i].name, NAME_MAX, "%s", name);
            return &names[i];
        }
    }
    return NULL;
}

/* A copy that lasts for the next thousands of questions. */
static char *tag_of(const char *tag) {
    static char tags[4096][NAME_MAX];
    static size_t last;
    char *to = tags[last++ % 4096];
    snprintf(to, NAME_MAX, "%s", tag);
    return to;
}

/* -- what is told -- */

static void add_text(struct buf *b, const char *name, struct span text) {
    buf_printf(b, "%c\"%s\":\"", buf_len(b) ? ',' : '{', name);
    buf_add_json(b, text);
    buf_add_byte(b, '"');
}

static void tell(struct buf *b) {
    puts(b->err ? "{\"err\":\"too long\"}" : buf_cstr(b));
    fflush(stdout);
    buf_deinit(b);
}

static void add_kv(struct buf *b, const char *verb, const struct etcd_kv *kv) {
    buf_add_str(b, "[\"");
    if (verb)
        buf_printf(b, "%s\",\"", verb);
    buf_add_json(b, kv->key);
    buf_add_str(b, "\",\"");
    buf_add_json(b, kv->value);
    buf_printf(b, "\",%" PRIu64 "]", kv->mod_revision);
}

static void on_answer(void *arg, const struct etcd_answer *a) {
    struct buf b;
    buf_init(&b, OUT_MAX);
    add_text(&b, "tag", span_of(arg));
    add_text(&b, "err", span_of(a->err ? err_text(a->err) : ""));
    add_text(&b, "why", span_of(a->why));
    buf_printf(&b, ",\"doubt\":%s,\"succeeded\":%s,\"revision\":%" PRIu64 ",\"kvs\":[", a->in_doubt ? "true" : "false",
               a->succeeded ? "true" : "false", a->revision);
    for (size_t i = 0; i < a->count; i++) {
        if (i)
            buf_add_byte(&b, ',');
        add_kv(&b, NULL, &a->kvs[i]);
    }
    buf_add_str(&b, "]}");
    tell(&b);
}

static void on_lease(void *arg, enum etcd_lease_event event, const char *why) {
    struct named *n = arg;
    struct buf b;
    buf_init(&b, OUT_MAX);
    add_text(&b, "lease", span_of(n->name));
    add_text(&b, "event", span_of(event == ETCD_LEASE_GRANTED ? "granted" : "lost"));
    add_text(&b, "why", span_of(why));
    buf_printf(&b, ",\"left\":%" PRIu64 "}", etcd_lease_left_ms(n->lease));
    tell(&b);
}

static void on_news(void *arg, const struct etcd_news *news) {
    struct named *n = arg;
    struct buf b;
    buf_init(&b, OUT_MAX);
    add_text(&b, "watch", span_of(n->name));
    add_text(&b, "err", span_of(news->err ? err_text(news->err) : ""));
    add_text(&b, "why", span_of(news->why));
    buf_printf(&b, ",\"revision\":%" PRIu64 ",\"events\":[", news->revision);
    for (size_t i = 0; i < news->count; i++) {
        if (i)
            buf_add_byte(&b, ',');
        add_kv(&b, news->events[i].deleted ? "delete" : "put", &news->events[i].kv);
    }
    buf_add_str(&b, "]}");
    tell(&b);
}

/* -- what is done -- */

static void judge(struct etcd_call *call, char *tag) {
    if (!call) {
        printf("{\"tag\":\"%s\",\"err\":\"refused\"}\n", tag);
        fflush(stdout);
    }
}

static void transact(char **w, size_t count, char *tag) {
    struct named *n = count > 4 ? named(w[4], false) : NULL;
    struct etcd_op put = {.verb = ETCD_PUT, .key = span_of(w[2]), .value = count > 3 ? span_of(w[3]) : SPAN_EMPTY};
    struct etcd_op get = {.verb = ETCD_GET, .key = span_of(w[2])};
    struct etcd_compare compare = {.key = span_of(w[2]), .target = ETCD_MOD_REVISION};
    struct etcd_txn t = {.then = &put, .then_count = 1};
    if (strcmp(w[0], "delete") == 0)
        put.verb = ETCD_DELETE;
    if (strcmp(w[0], "put") == 0)
        put.lease = n && n->lease ? etcd_lease_id(n->lease) : 0;
    if (strcmp(w[0], "cas") == 0) {
        compare.number = strtoull(w[3], NULL, 10);
        put.value = span_of(w[4]);
        t = (struct etcd_txn){&compare, 1, &put, &get, 1, 1};
    }
    judge(etcd_txn(etcd, &t, on_answer, tag), tag);
}

/* COUNT keys PREFIXnnnnn from FROM on; their values are the numbers, or SIZE octets. */
static void fill(char **w, size_t count_of_words, char *tag) {
    static char large[64 * 1024];
    size_t size = count_of_words > 5 ? strtoul(w[5], NULL, 10) : 0;
    static struct etcd_op ops[ETCD_OPS_MAX];
    static char keys[ETCD_OPS_MAX][100];
    size_t from = strtoul(w[3], NULL, 10), count = strtoul(w[4], NULL, 10);
    memset(large, 'x', sizeof large);
    for (size_t i = 0; i < count && i < ETCD_OPS_MAX; i++) {
        int len = snprintf(keys[i], sizeof keys[i], "%s%05zu", w[2], from + i);
        struct span value =
            size ? span_make(large, size < sizeof large ? size : sizeof large) : span_of(keys[i] + len - 5);
        ops[i] = (struct etcd_op){.verb = ETCD_PUT, .key = span_of(keys[i]), .value = value};
    }
    judge(etcd_txn(etcd, &(struct etcd_txn){.then = ops, .then_count = count}, on_answer, tag), tag);
}

static void tell_state(void) {
    struct buf b;
    buf_init(&b, OUT_MAX);
    add_text(&b, "tag", SPAN("state"));
    add_text(&b, "endpoint", span_of(etcd_endpoint(etcd)));
    add_text(&b, "trouble", span_of(etcd_trouble(etcd)));
    buf_printf(&b, ",\"up\":%s}", etcd_is_up(etcd) ? "true" : "false");
    tell(&b);
}

static void do_lease(char **w, size_t count) {
    struct named *n = named(w[1], true);
    if (!n) {
        puts("{\"err\":\"too many names\"}");
    } else if (strcmp(w[0], "lease") == 0 && count > 2) {
        n->lease = etcd_lease_open(etcd, (uint32_t)strtoul(w[2], NULL, 10), on_lease, n);
    } else if (strcmp(w[0], "left") == 0) {
        printf("{\"tag\":\"left\",\"left\":%" PRIu64 ",\"id\":%" PRIu64 "}\n",
               n->lease ? etcd_lease_left_ms(n->lease) : 0, n->lease ? etcd_lease_id(n->lease) : 0);
    }
    fflush(stdout);
}

static void do_line(char *line) {
    char *w[WORDS_MAX], *rest = line;
    size_t count = 0;
    for (char *word; count < WORDS_MAX && (word = strtok_r(rest, " \n", &rest));)
        w[count++] = word;
    struct named *n = count > 1 ? named(w[1], false) : NULL;
    if (count == 1 && strcmp(w[0], "state") == 0) {
        tell_state();
    } else if (count == 2 && strcmp(w[0], "unwatch") == 0 && n) {
        etcd_watch_close(n->watch);
        n->watch = NULL;
    } else if (count == 3 && strcmp(w[0], "revoke") == 0 && named(w[2], false)) {
        n = named(w[2], false);
        if (etcd_lease_revoke(n->lease, on_answer, tag_of(w[1])))
            puts("{\"err\":\"refused\"}");
        n->lease = NULL;
    } else if (count > 1 && (strcmp(w[0], "lease") == 0 || strcmp(w[0], "left") == 0)) {
        do_lease(w, count);
    } else if (count == 4 && strcmp(w[0], "watch") == 0 && (n = named(w[1], true))) {
        n->watch = etcd_watch_open(etcd, span_of(w[2]), strtoull(w[3], NULL, 10), on_news, n);
    } else if (count == 3 && (strcmp(w[0], "get") == 0 || strcmp(w[0], "prefix") == 0)) {
        char *tag = tag_of(w[1]);
        judge(w[0][0] == 'g' ? etcd_get(etcd, span_of(w[2]), on_answer, tag)
                             : etcd_get_prefix(etcd, span_of(w[2]), on_answer, tag),
              tag);
    } else if (count >= 5 && strcmp(w[0], "fill") == 0) {
        fill(w, count, tag_of(w[1]));
    } else if (count >= 3) {
        transact(w, count, tag_of(w[1]));
    }
}

static void on_input(void *arg, int events, bool failed) {
    char octets[LINE_MAX_OCTETS];
    ptrdiff_t end;
    (void)arg, (void)events;
    ssize_t n = failed ? 0 : read(0, octets, sizeof octets);
    if (n <= 0 || buf_append(&input, octets, (size_t)n)) {
        loop_stop(loop);
        return;
    }
    while ((end = span_find(buf_span(&input), '\n')) >= 0) {
        char line[LINE_MAX_OCTETS];
        span_copy(span_first(buf_span(&input), (size_t)end), line, sizeof line);
        buf_consume(&input, (size_t)end + 1);
        do_line(line);
    }
}

int main(int count, char **words) {
    static const struct option options[] = {
        {"ca", 1, NULL, 'c'},       {"cert", 1, NULL, 'e'},    {"key", 1, NULL, 'k'},   {"user", 1, NULL, 'u'},
        {"password", 1, NULL, 'p'}, {"timeout", 1, NULL, 't'}, {"first", 1, NULL, 'f'}, {NULL, 0, NULL, 0}};
    struct etcd_config c = {0};
    struct buf problems;
    for (int o; (o = getopt_long(count, words, "", options, NULL)) != -1;) {
        switch (o) {
        case 'c':
            c.ca_file = optarg;
            break;
        case 'e':
            c.certificate = optarg;
            break;
        case 'k':
            c.key = optarg;
            break;
        case 'u':
            c.user = optarg;
            break;
        case 'p':
            c.password = optarg;
            break;
        case 't':
            c.timeout_ms = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            c.first = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return 64;
        }
    }
    c.endpoints = (const char *const *)words + optind;
    c.endpoints_count = (size_t)(count - optind);
    buf_init(&problems, 4096);
    buf_init(&input, 1 << 20);
    loop = loop_new();
    if (!loop || etcd_open(&etcd, loop, &c, &problems)) {
        fprintf(stderr, "%s", buf_cstr(&problems));
        return 64;
    }
    struct loop_poll *poll = loop_poll_new(loop, 0, on_input, NULL);
    loop_poll_set(poll, LOOP_READABLE);
    loop_run(loop);
    loop_poll_close(poll);
    etcd_close(etcd);
    loop_free(loop);
    buf_deinit(&input);
    buf_deinit(&problems);
    return 0;
}
