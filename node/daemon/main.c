/*
 * main: the command line of posthoused: which settings file, and whether to run or only to check.
 *
 *   posthoused [--config FILE] [--check]
 *   posthoused --print-settings-reference | --version | --help
 *
 * Exit status is one of sysexits.h: 64 usage, 78 settings, 69 an address is taken, 74 the store, 77 permission.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "node/node.h"
#include "node/parts.h"

#define CONFIG_DEFAULT "/etc/posthouse/posthouse.yaml"

static const char usage[] = "usage: posthoused [--config FILE] [--check]\n"
                            "       posthoused --print-settings-reference | --version | --help\n"
                            "\n"
                            "  --config FILE  the settings (default " CONFIG_DEFAULT ")\n"
                            "  --check        check the settings and the files that they name, and exit\n"
                            "\n"
                            "Signals: HUP reloads the settings, TERM and INT finish what is under way and exit.\n";

static int print_buf(struct buf *b, FILE *to, int status) {
    struct span s = buf_span(b);
    bool written = fwrite(s.at ? s.at : "", 1, s.len, to) == s.len && fflush(to) == 0;
    buf_deinit(b);
    return written ? status : EX_IOERR;
}

static int print_reference(void) {
    struct buf text;
    buf_init(&text, 1024 * 1024);
    return settings_reference(&text) == ERR_OK ? print_buf(&text, stdout, EX_OK) : EX_SOFTWARE;
}

/* Settings and the files that they name; everything that is wrong is printed, and what is unwise. */
static int load(struct settings **s, const char *file, bool check) {
    struct buf problems;
    struct parts *p = NULL;
    buf_init(&problems, 1024 * 1024);
    int err = settings_load(s, file, &problems);
    if (err == ERR_OK && check) {
        err = parts_new(&p, *s, NULL, &problems);
        parts_unref(p);
        if (err != ERR_OK)
            settings_free(*s);
    }
    return print_buf(&problems, stderr, err == ERR_OK ? EX_OK : err == ERR_NOT_FOUND ? EX_NOINPUT : EX_CONFIG);
}

static int run(const char *file, bool check) {
    struct settings *s;
    struct node *n;
    int status = load(&s, file, check);
    if (status != EX_OK)
        return status;
    if (check) {
        printf("%s: fine\n", file);
        settings_free(s);
        return EX_OK;
    }
    status = node_open(&n, s);
    if (status != EX_OK)
        return status;
    status = node_run(n);
    node_close(n);
    return status;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"check", no_argument, NULL, 'k'},
        {"print-settings-reference", no_argument, NULL, 'r'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *file = CONFIG_DEFAULT;
    bool check = false;
    for (int c; (c = getopt_long(argc, argv, "c:h", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            file = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'r':
            return print_reference();
        case 'v':
            puts("posthoused " POSTHOUSE_VERSION);
            return EX_OK;
        case 'h':
            fputs(usage, stdout);
            return EX_OK;
        default:
            fputs(usage, stderr);
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "posthoused: unexpected argument: %s\n%s", argv[optind], usage);
        return EX_USAGE;
    }
    return run(file, check);
}
