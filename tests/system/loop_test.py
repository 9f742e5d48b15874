#!/usr/bin/env python3
"""
Proves that mail that goes in circles ends, and with few reports: two gateways routed at each other, with senders that can and cannot be
reached; a gateway that is routed at itself; a report that fails; a thousand recipients that fail, together and one after the other;
messages by the hundred that all fail.
"""
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import Posthouse, free_port, main, wait_until

HOPS = 12


class Pair:
    """Two daemons; each sends everything but back.test to the other."""

    def __init__(self, world, back=None):
        ports = [free_port(), free_port()]
        self.posts = []
        for n in range(2):
            directory = os.path.join(world.directory, "gateway%d" % n)
            os.makedirs(directory)
            routes = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % ports[1 - n]
            if back:
                routes += "  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n" % back.port
            self.posts.append(Posthouse(directory, port=ports[n], gateway="limits: {received_headers: %d}" % HOPS, extra=routes))
        world.add(self)
        for post in self.posts:
            post.start()

    def close(self):
        for post in self.posts:
            if post.process and post.process.poll() is None:
                post.kill()

    def sum(self, figure):
        return sum(post.figures()[figure] for post in self.posts)

    def wait_quiet(self):
        """Nothing is queued on either side, twice in a row, and nothing was added between."""
        def quiet():
            before = self.sum("posthouse_messages_stored_total")
            empty = all(p.figures()["queue_messages"] == 0 and p.figures()["queue_scanned"] == 1 for p in self.posts)
            time.sleep(0.3)
            return empty and before == self.sum("posthouse_messages_stored_total")
        wait_until("the circle ends", quiet, 60, 0.1)


def a_circle_with_a_sender(world):
    """The sender hears once for each message."""
    back = world.sink()
    pair = Pair(world, back)
    for n in range(20):
        pair.posts[n % 2].send("a%d@back.test" % n, "b@there.test")
    pair.wait_quiet()
    assert sorted(m[1][0] for m in back.messages) == sorted("a%d@back.test" % n for n in range(20)), len(back.messages)
    for sender, _, report in back.messages:
        assert sender == "" and b"Action: failed" in report and b"5.4.6" in report, report
    assert pair.sum("reports") == 20
    assert 20 * (HOPS - 3) <= pair.sum("posthouse_messages_stored_total") - 20 <= 20 * (HOPS + 1)


def a_circle_whose_sender_is_in_it(world):
    """The report goes round, too, is refused in its turn, and that is the end of it."""
    pair = Pair(world)
    for n in range(10):
        pair.posts[0].send("a@elsewhere.test", "b%d@there.test" % n)
    pair.wait_quiet()
    assert pair.sum("reports") == 10, pair.sum("reports")
    assert pair.sum("reports_none") == 10, pair.sum("reports_none")
    assert pair.sum("posthouse_messages_stored_total") <= 10 * 2 * (HOPS + 1)


def a_circle_of_many_recipients(world):
    """One message with many recipients stays few messages as it goes round, and brings few reports."""
    back = world.sink()
    pair = Pair(world, back)
    pair.posts[0].send("a@back.test", ["r%d@d%d.test" % (n, n % 5) for n in range(100)])
    pair.wait_quiet()
    stored = pair.sum("posthouse_messages_stored_total")
    named = sum(m[2].count(b"Final-Recipient:") for m in back.messages)
    assert named == 100, "%d of 100 are named" % named
    # At the first hop the message is parted by destination, five ways; from there it is five messages.
    assert len(back.messages) <= 5 and stored <= 5 * HOPS + 15, (len(back.messages), stored)


def at_ourselves(world):
    """A route to our own listener is found before anything is sent; also by a name that is ours."""
    back = world.sink()
    post = world.posthouse()
    post.write_settings(extra="routes:\n  - {domain: one.test, route: \"smtp:127.0.0.1:%d\"}\n"
                        "  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n" % (post.port, back.port))
    post.start()
    ident = post.send("a@back.test", "b@one.test")
    report = back.wait(1)[0][2]
    assert b"5.4.6" in report, report
    assert [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]].count("failed") == 1
    post.wait_empty()
    assert post.figures()["smtp_sessions_total"] == 1


def a_report_that_fails_is_the_end(world):
    """Whether the report is refused, or cannot be routed, or is given up: no report about it, and the reason is kept."""
    there = world.sink({"rcpt": lambda line: "550 5.1.1 nobody" if "there.test" in line or "refuses.test" in line else "451 4.3.0 later"})
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % there.port,
                           delivery="retry: {first: 200ms, max: 300ms, give_up: 2s, delay_notice: 500ms}").start()
    for sender in ("a@refuses.test", "a@defers.test"):
        ident = post.send(sender, "b@there.test")
        post.wait_empty(60)
        traces = post.tool("msg", "trace", ident)["traces"]
        report = [t["text"] for t in traces if t["kind"] == "reported"]
        assert len(report) == 1, traces
        ends = [t["kind"] for t in post.tool("msg", "trace", report[0])["traces"]]
        assert "no_report" in ends and "reported" not in ends and ends[-1] in ("no_report", "done"), (sender, ends)
    assert not there.messages
    assert post.figures()["reports"] == 2, post.figures()["reports"]


def failures_that_trickle_in(world):
    """A thousand recipients that fail at different times, by different replies, at ten destinations."""
    tries = {}

    def rcpt(line):
        address = re.search(r"<(.*?)>", line).group(1)
        tries[address] = tries.get(address, 0) + 1
        number = int(address[1:address.index("@")])
        return "450 4.2.1 wait" if tries[address] <= number % 3 else "5%02d 5.1.%d no %s" % (50 + number % 5, number % 7, address)
    there, back = world.sink({"rcpt": rcpt}), world.sink()
    post = world.posthouse(extra="routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n"
                           "  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % (back.port, there.port),
                           delivery="retry: {first: 300ms, max: 1s, give_up: 1h, delay_notice: 0}").start()
    post.send("a@back.test", ["u%d@d%d.test" % (n, n % 10) for n in range(1000)])
    post.wait_empty(180)
    named = re.findall(rb"Final-Recipient: rfc822; *(u\d+@d\d\.test)", b"".join(m[2] for m in back.messages))
    assert len(named) == 1000 and len(set(named)) == 1000, (len(named), len(set(named)))
    assert len(back.messages) <= 30, "%d reports for one message" % len(back.messages)
    for sender, recipients, report in back.messages:
        assert sender == "" and recipients == ["a@back.test"]
        assert len(report) < 1 << 20, len(report)
    print("%d reports for 1000 failures" % len(back.messages))


def a_storm_of_failures(world):
    """Five hundred messages fail at once: as many reports, no more, and memory that comes back."""
    there, back = world.sink({"rcpt": "550 5.1.1 nobody"}), world.sink()
    post = world.posthouse(extra="routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n"
                           "  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % (back.port, there.port)).start()
    body = b"Subject: x\r\n\r\n" + b"0123456789abcde\r\n" * 4000
    with post.smtp() as s:
        s.ehlo()
        for n in range(500):
            s.sendmail("a%d@back.test" % n, ["b@there.test"], body)
    post.wait_empty(120)
    assert sorted(m[1][0] for m in back.messages) == sorted("a%d@back.test" % n for n in range(500))
    assert post.figures()["reports"] == 500


main([a_circle_with_a_sender, a_circle_whose_sender_is_in_it, a_circle_of_many_recipients, at_ourselves,
      a_report_that_fails_is_the_end, failures_that_trickle_in, a_storm_of_failures])
