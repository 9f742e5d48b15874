#!/usr/bin/env python3
"""
Proves that the length of the queue costs disk and not memory: 100,000 deferred recipients at 10,000 domains are accepted at an even
rate, memory stays within its bound, all of them are found, and a restart is ready to accept mail within three seconds.

POSTHOUSE_RECIPIENTS sets another number of recipients (a multiple of 100).
"""
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import SLOW, check, main, wait_until

RECIPIENTS = int(os.environ.get("POSTHOUSE_RECIPIENTS", "100000"))
DOMAINS = RECIPIENTS // 10
RSS_KIB_MAX = 300 * 1024


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def send_all(post, at_each_tenth):
    """Messages of 100 recipients: ten at each of ten domains. Returns seconds for each tenth."""
    messages = RECIPIENTS // 100
    tenths = []
    start = time.monotonic()
    with post.smtp() as s:
        s.ehlo()
        for n in range(messages):
            s.send(b"MAIL FROM:<a@client.test>\r\n" + b"".join(
                b"RCPT TO:<u%d@d%d.test>\r\n" % (u, n * 10 + d) for d in range(10) for u in range(10)) + b"DATA\r\n")
            codes = [s.getreply()[0] for _ in range(102)]
            assert codes == [250] * 101 + [354], codes
            s.send(b"Subject: %d\r\n\r\n" % n + (b"x" * 70 + b"\r\n") * 20 + b".\r\n")
            check(s.getreply(), 250)
            if (n + 1) % (messages // 10) == 0:
                tenths.append(time.monotonic() - start)
                start = time.monotonic()
                at_each_tenth()
                start = time.monotonic()
    return tenths


def a_long_queue(world):
    # A server that says 451 to all, so that every recipient is deferred by an attempt of its own or with its site.
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port,
                           delivery="retry: {first: 6h, max: 12h, give_up: 5d, delay_notice: 0}\nlimits: {per_site: 50}",
                           gateway="limits: {recipients: 1000}").start()
    before = memory_kib(post)
    peaks = [before]
    tenths = send_all(post, lambda: peaks.append(memory_kib(post)))
    rates = [RECIPIENTS / 10 / seconds for seconds in tenths]
    print("recipients accepted per second, by tenths: %s" % " ".join("%d" % rate for rate in rates), flush=True)
    assert min(rates[-3:]) > statistics.median(rates[:3]) / 4, "the rate falls with the length of the queue: %s" % rates

    def all_deferred():
        peaks.append(memory_kib(post))
        figures = post.figures()
        return figures["queue_messages"] == RECIPIENTS // 100 and figures["queue_ready"] + figures["queue_assigned"] == 0
    wait_until("all are deferred", all_deferred, 240, 0.5)
    print("memory: %d MiB at the start, %d MiB at most" % (before // 1024, max(peaks) // 1024), flush=True)
    if SLOW == 1:
        assert max(peaks) < RSS_KIB_MAX, "memory: %d KiB" % max(peaks)
    def timed(*words):
        start = time.monotonic()
        rows = post.tool(*words)["rows"]
        print("%s: %.2f s" % (" ".join(words), time.monotonic() - start), flush=True)
        return rows
    assert sum(r["count"] for r in timed("queue", "summary", "--limit", "1000000")) == RECIPIENTS
    assert timed("queue", "shape")[0]["count"] == RECIPIENTS
    assert len(timed("queue", "list", "--limit", "1000")) == 1000
    assert len(timed("queue", "list", "domain:d%d.test" % (DOMAINS - 1))) == 10
    assert sum(r["count"] for r in timed("queue", "summary", "domain:.test", "--limit", "1000000")) == RECIPIENTS

    for how in (post.kill, post.stop):
        how()
        start = time.monotonic()
        post.start()
        post.send("b@client.test", "late@d0.test")
        seconds = time.monotonic() - start
        print("ready and accepting %.2f s after a %s" % (seconds, how.__name__), flush=True)
        assert seconds < 3 * SLOW, seconds
    wait_until("the queue has been read", lambda: post.figures()["queue_scanned"] == 1, 60, 0.2)
    assert post.figures()["queue_messages"] == RECIPIENTS // 100 + 2
    if SLOW == 1:
        assert memory_kib(post) < RSS_KIB_MAX
    found = post.tool("queue", "list", "domain:d%d.test" % (DOMAINS - 1))["rows"]
    assert len(found) == 10 and all(r["state"] in ("deferred", "ready", "assigned") for r in found), found


main([a_long_queue])
