/*
 * top: `posthouse top`: a screen that is drawn anew every two seconds: rates since the last look, the queue by age, the
 * busiest sites, and the newest troubles. q, Ctrl-C or the end of --for end it; --once draws one look, without steering
 * the terminal.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "admin/tool/tool.h"
#include "base/clock.h"
#include "base/ring.h"
#include "base/units.h"

#define EVERY_MS 2000u
#define SITES 12u
#define SHAPE 8u
#define TROUBLES 8u
#define TROUBLE_MAX 300u

struct trouble {
    char text[TROUBLE_MAX];
};
struct top {
    struct tool *tool;
    uint64_t at_ms; /* of the last look; 0: none yet */
    double last[5];
    uint64_t line; /* of the events, seen last */
    bool has_line;
    struct trouble troubles[TROUBLES]; /* newest last */
    size_t trouble_count;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

/* -- rates -- */
static const char *const rate_names[5] = {"accepted", "delivered", "deferred", "failed", "reports"};
static const char *const rate_figures[5] = {"posthouse_smtp_messages_total", "delivered", "deferrals", "failed",
                                            "reports"};

static void print_rates(struct top *p, const struct answer *a) {
    uint64_t now_ms = clock_mono_ms();
    for (size_t i = 0; i < 5; i++) {
        double value = print_figure(a, rate_figures[i]);
        if (p->at_ms && now_ms > p->at_ms)
            printf("%s%s %.1f/s", i ? "  " : "", rate_names[i],
                   (value - p->last[i]) * 1000 / (double)(now_ms - p->at_ms));
        else
            printf("%s%s %.0f", i ? "  " : "", rate_names[i], value);
        p->last[i] = value;
    }
    putchar('\n');
    p->at_ms = now_ms;
}

static int draw_status(struct top *p) {
    Words__AdminRequest q = tool_request(p->tool, WORDS__ADMIN_VERB__ADMIN_STATUS);
    struct answer a;
    char up[32];
    int status = tool_ask(p->tool, &q, &a);
    if (status != EX_OK)
        return status;
    units_format_duration((uint64_t)(print_figure(&a, "uptime_seconds") * 1000), up, sizeof up);
    print_bytes(a.r.text);
    printf(", up %s, %.0f sessions%s\n", up, print_figure(&a, "sessions"),
           print_figure(&a, "store_healthy") > 0 ? "" : ", STORE NOT WRITABLE");
    printf("queue %.0f messages, in memory %.0f ready and %.0f under way\n", print_figure(&a, "queue_messages"),
           print_figure(&a, "queue_ready"), print_figure(&a, "queue_assigned"));
    print_rates(p, &a);
    return EX_OK;
}

/* -- queue by age, sites -- */
static int draw_rows(struct top *p, Words__AdminVerb verb, uint32_t limit, const char *title,
                     void (*print)(const struct tool *t, const struct answer *a)) {
    Words__AdminRequest q = tool_request(p->tool, verb);
    struct answer a;
    q.has_limit = true;
    q.limit = limit;
    int status = tool_ask(p->tool, &q, &a);
    if (status != EX_OK)
        return status;
    printf("\n%s\n", title);
    print(p->tool, &a);
    return EX_OK;
}

/* -- troubles -- */
static bool is_trouble(struct span line) {
    static const char *const words[] = {" warn ", " error ", " deferred ", " failed ", " bounced "};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (memmem(line.at, line.len, words[i], strlen(words[i])))
            return true;
    return false;
}

static void keep_trouble(struct top *p, struct span line) {
    if (p->trouble_count == TROUBLES)
        memmove(p->troubles, p->troubles + 1, --p->trouble_count * sizeof *p->troubles);
    span_copy(line, p->troubles[p->trouble_count++].text, TROUBLE_MAX);
}

static int draw_troubles(struct top *p, int columns) {
    Words__AdminRequest q = tool_request(p->tool, WORDS__ADMIN_VERB__ADMIN_WATCH);
    struct answer a;
    q.has_ring = q.has_filter = true;
    q.ring = RING_EVENTS;
    q.has_number = p->has_line;
    q.number = p->line;
    int status = tool_ask(p->tool, &q, &a);
    if (status != EX_OK)
        return status;
    p->line = a.r.number;
    p->has_line = true;
    for (size_t i = 0; i < a.r.n_lines; i++)
        if (a.r.lines[i]->text.len && is_trouble(frame_span(a.r.lines[i]->text)))
            keep_trouble(p, frame_span(a.r.lines[i]->text));
    puts("\ntroubles");
    for (size_t i = 0; i < p->trouble_count; i++) {
        print_text(stdout, span_first(span_of(p->troubles[i].text), columns > 0 ? (size_t)columns : TROUBLE_MAX));
        putchar('\n');
    }
    return EX_OK;
}

static int draw(struct top *p, int columns) {
    arena_reset(&p->tool->mem);
    int status = draw_status(p);
    if (status == EX_OK)
        status = draw_rows(p, WORDS__ADMIN_VERB__ADMIN_QUEUE_SHAPE, SHAPE, "queue by age", print_shape);
    if (status == EX_OK)
        status = draw_rows(p, WORDS__ADMIN_VERB__ADMIN_SITES, SITES, "busiest sites", print_sites);
    if (status == EX_OK)
        status = draw_troubles(p, columns);
    return status == EX_OK && fflush(stdout) != 0 ? EX_IOERR : status;
}

/* -- the terminal -- */
static int terminal_columns(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

/* Waits for the next look. False: the user has had enough. */
static bool wait_for_key(uint64_t end_ms) {
    uint64_t now_ms = clock_mono_ms(), wait_ms = end_ms > now_ms ? end_ms - now_ms : 0;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char key;
    if (poll(&in, 1, (int)(wait_ms < EVERY_MS ? wait_ms : EVERY_MS)) > 0)
        return read(STDIN_FILENO, &key, 1) == 1 && key != 'q' && key != 'Q';
    return !interrupted;
}

static int run_live(struct top *p) {
    struct sigaction act = {.sa_handler = on_signal};
    struct termios before, raw;
    uint64_t end_ms = p->tool->for_ms ? clock_mono_ms() + p->tool->for_ms : UINT64_MAX;
    int status = EX_OK;
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    bool keys = tcgetattr(STDIN_FILENO, &before) == 0;
    if (keys) {
        raw = before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs("\033[?1049h", stdout); /* the other screen: what stood here comes back at the end */
    do {
        fputs("\033[H\033[2J", stdout);
        status = draw(p, terminal_columns());
    } while (status == EX_OK && wait_for_key(end_ms) && clock_mono_ms() < end_ms && !interrupted);
    fputs("\033[?1049l", stdout);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    return fflush(stdout) == 0 ? status : EX_IOERR;
}

int verb_top(struct tool *t, const struct verb *v, char **args, int count) {
    struct top p = {.tool = t};
    (void)v, (void)args, (void)count;
    if (t->json)
        return usage_error("top is for people; programs ask status, queue shape and sites", "--json");
    if (t->once || !isatty(STDOUT_FILENO))
        return draw(&p, 0);
    return run_live(&p);
}
