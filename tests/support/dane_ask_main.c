/*
 * dane_ask: prints what delivery would make of a host's TLSA records with a given resolver, one line per host: "HOST
 * STATUS BASE COUNT WHY". Hosts come from the command line: dane_ask SERVERS PORT HOST...
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/net/loop.h"
#include "gateway/outbound/dane.h"

struct asker {
    struct loop *loop;
    const char *host;
};

static void ask_dns(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    dns_query(dns, name, type, cb, arg);
}

static void on_answer(void *arg, const struct dane_answer *a) {
    struct asker *asker = arg;
    printf("%s %s %s %zu %s\n", asker->host, dane_status_text(a->status), a->base, a->count, a->why);
    loop_stop(asker->loop);
}

int main(int count, char **words) {
    struct dns *dns = NULL;
    struct loop *loop = loop_new();
    if (count < 4 || !loop || dns_new(&dns, loop, words[1], 3000, 2)) {
        fprintf(stderr, "usage: dane_ask SERVERS PORT HOST...\n");
        return 64;
    }
    struct mxcache *cache = mxcache_new(1000, 1 << 20, ask_dns, dns);
    if (!cache)
        return 71;
    for (int i = 3; i < count; i++) {
        struct dane_ask ask = {0};
        struct asker asker = {loop, words[i]};
        dane_start(&ask, cache, words[i], (uint16_t)strtoul(words[2], NULL, 10), loop_now_ms(loop), on_answer, &asker);
        if (!ask.done)
            loop_run(loop);
        dane_cancel(&ask);
    }
    dns_free(dns);
    mxcache_free(cache);
    loop_free(loop);
    return 0;
}
