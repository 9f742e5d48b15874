#!/usr/bin/env python3
"""
Proves that what a receiving server offers, claims and keeps for itself is taken with care: SIZE and LIMITS, thousands of extensions,
enhanced codes that contradict their reply, a server that does not read the message, one that misbehaves after its last word, and more
mail for it than it takes connections.
"""
import os
import re
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import free_port, main, wait_until

ROUTES = "routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
LATER = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
ENDS = ("delivered", "deferred", "failed", "in_doubt")


def start(world, there, delivery=""):
    back = world.sink()
    return world.posthouse(delivery=delivery + "\n" + LATER, extra=ROUTES % (back.port, there.port)).start(), back


def ends(post, ident):
    return [(t["kind"], n, t.get("result", {})) for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] in ENDS
            for n in t["recipients"]]


def outcome(post, ident, count=1, seconds=30):
    return wait_until("%d outcomes for %s" % (count, ident), lambda: len(ends(post, ident)) >= count and ends(post, ident), seconds, 0.05)


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def offers(*lines):
    return "\r\n".join(["250-there.test"] + ["250-" + l for l in lines] + ["250 NOOP"])


def sizes(world):
    there = world.sink()
    post, back = start(world, there)
    for offer, small, large in (("SIZE 2000", "delivered", "failed"), ("SIZE 0", "delivered", "delivered"), ("SIZE", "delivered", "delivered"),
                                ("SIZE -1", "delivered", "delivered"), ("SIZE 99999999999999999999999", "delivered", "delivered"),
                                ("SIZE x", "delivered", "delivered")):
        there.script = {"ehlo": offers(offer, "PIPELINING", "8BITMIME")}
        for octets, want in ((10, small), (5000, large)):
            kind, _, result = outcome(post, post.send("", "x@there.test", "Subject: x\r\n\r\n" + "0123456789abcde\r\n" * (octets // 17)))[0]
            assert kind == want, (offer, octets, kind, result)
            if want == "failed":
                assert result["enhanced"] == "5.3.4", result
        post.stop()  # no warm connection with the old offer
        post.start()


def limits(world):
    for offer, most in (("LIMITS RCPTMAX=3", 3), ("LIMITS RCPTMAX=1 MAILMAX=2", 1), ("LIMITS RCPTMAX=0", 10), ("LIMITS RCPTMAX=-5", 10),
                        ("LIMITS RCPTMAX=99999999999999999999", 10), ("LIMITS RCPTMAX=", 10), ("LIMITS", 10)):
        there = world.sink({"ehlo": offers(offer, "PIPELINING")})
        post, _ = start(world, there)
        ident = post.send("", ["r%d@there.test" % n for n in range(10)])
        found = outcome(post, ident, 10)
        assert {kind for kind, _, _ in found} == {"delivered"}, (offer, found)
        assert max(len(m[1]) for m in there.messages) == most, (offer, [len(m[1]) for m in there.messages])
        if "MAILMAX" in offer:
            assert there.connections == 5, there.connections
        post.kill()
        os.rename(post.data_dir, post.data_dir + str(there.port))


def fewest_transactions(world):
    """A message for 1,000 recipients: as many in a transaction as we may send and the server takes, and then on one connection."""
    def after(most):  # the server says it with the recipient that is too many
        count = [0]

        def rcpt(line):
            count[0] += 1
            return "250 fine" if count[0] <= most else "452 4.5.3 too many recipients"

        def mail(line):
            count[0] = 0
            return "250 fine"
        return {"rcpt": rcpt, "mail": mail}
    everything, full = "limits: {recipients_per_transaction: 1000}", ["PIPELINING"]
    for offer, script, settings, transactions in (
            (full, {}, "", 10),  # RFC 5321: every server takes a hundred
            (full, {}, everything, 1), (full, after(100), everything, 10), (full, after(300), everything, 4),
            (full + ["LIMITS RCPTMAX=5000"], {}, everything, 1), (full + ["LIMITS RCPTMAX=400"], {}, everything, 3),
            (full + ["LIMITS RCPTMAX=70"], {}, everything, 15), (full, {}, "limits: {recipients_per_transaction: 50}", 20)):
        there = world.sink(dict(script, ehlo=offers(*offer)))
        post, _ = start(world, there, settings)
        ident = post.send("", ["r%d@there.test" % n for n in range(1000)])
        post.wait_empty()
        found = ends(post, ident)
        assert len(found) == 1000 and {kind for kind, _, _ in found} == {"delivered"}, (offer, len(found))
        assert sorted(r for m in there.messages for r in m[1]) == sorted("r%d@there.test" % n for n in range(1000))
        stages = [stage for stage, _ in there.commands]
        begun = stages.count("mail")
        assert len(there.messages) == begun == transactions and (there.connections == 1 or settings != everything), \
            (offer, settings, [len(m[1]) for m in there.messages], begun, there.connections)
        post.kill()
        os.rename(post.data_dir, post.data_dir + str(there.port))


def connections_end_between_transactions(world):
    """One message in many transactions: the server closes, says 421 or is gone between them; the rest goes on at once, by a new connection."""
    for way in ("421 4.3.2 enough", "close"):
        for script in (["250 fine", way, "250 fine"], ["250 fine", "250 fine", way, "250 fine", way, "250 fine"]):
            there = world.sink({"ehlo": offers("LIMITS RCPTMAX=2", "PIPELINING"), "mail": list(script)})
            post, _ = start(world, there)
            for count in (9, 9):  # on a connection of its own, and on one that is there
                ident = post.send("", ["r%d@there.test" % n for n in range(count)])
                found = outcome(post, ident, count)
                assert {kind for kind, _, _ in found} == {"delivered"}, (way, script, found)
                there.script["mail"] = list(script)
            assert len([r for m in there.messages for r in m[1]]) == 18
            post.kill()
            os.rename(post.data_dir, post.data_dir + str(there.port))


def many_transactions_at_the_second_host(world):
    """The first host is down; the second one keeps the message for all of its transactions."""
    port = free_port()
    second = world.sink({"ehlo": offers("LIMITS RCPTMAX=2", "PIPELINING")}, address="127.0.0.3", port=port)
    dns = world.nsd({"example.test": "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n"})
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\n%s" % (dns.port, port, LATER)).start()
    found = outcome(post, post.send("", ["r%d@example.test" % n for n in range(9)]), 9)
    assert {kind for kind, _, _ in found} == {"delivered"}, found
    assert second.connections == 1 and len(second.messages) == 5, (second.connections, len(second.messages))


def in_doubt_is_what_was_sent(world):
    """The first transaction ends in doubt; those that were not in it are merely deferred."""
    there = world.sink({"ehlo": offers("LIMITS RCPTMAX=2", "PIPELINING"), "dot": ["close", "250 taken"]})
    post, _ = start(world, there)
    ident = post.send("", ["r%d@there.test" % n for n in range(5)])
    found = outcome(post, ident, 5)
    assert sorted(n for kind, n, _ in found if kind == "in_doubt") == [0, 1], found
    assert {kind for kind, n, _ in found if n > 1} <= {"deferred", "delivered"}, found
    assert post.figures()["in_doubt"] == 2, post.figures()["in_doubt"]


def many_extensions(world):
    """As many as a reply may be long; and words that look like ours but are not."""
    there = world.sink({"ehlo": offers(*["XEXT%d with parameters" % n for n in range(1500)], "SIZE 1", "SIZEX 1", "xPIPELINING") })
    post, _ = start(world, there)
    kind, _, result = outcome(post, post.send("", "x@there.test"))[0]
    assert kind == "failed" and result["enhanced"] == "5.3.4", (kind, result)
    there.script = {"ehlo": offers("SIZEX 1", "XSIZE 1", "PIPELININGS", "8BITMIMEX", "\x00PIPELINING", " " * 400)}
    post.stop()
    post.start()
    assert outcome(post, post.send("", "y@there.test"))[0][0] == "delivered"
    commands = [stage for stage, _ in there.commands]
    assert "rset" not in commands[-5:] and len(there.messages) == 1


def codes_that_contradict(world):
    """The first digit of the reply decides, and the status in the report is one of its class (lines 42, 56)."""
    there = world.sink()
    post, back = start(world, there)
    for n, (reply, kind, status) in enumerate((("550 2.1.5 fine", "failed", "5."), ("550 4.7.1 wait", "failed", "5."),
                                               ("550 5.7.26 unauthenticated", "failed", "5.7.26"), ("550 5.1 short", "failed", "5."),
                                               ("550 9.9.9 odd", "failed", "5."), ("550 5.1.1.1 long", "failed", "5."),
                                               ("550 5.1111.1 wide", "failed", "5."), ("450 5.1.1 never", "deferred", "4."),
                                               ("450 4.2.2 full", "deferred", "4.2.2"))):
        there.script = {"rcpt": reply}
        reports = len(back.messages)
        found, _, result = outcome(post, post.send("a@back.test", "n%d@there.test" % n))[0]
        assert found == kind and result["enhanced"].startswith(status), (reply, found, result)
        assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", result["enhanced"]), result
        if kind == "failed":
            report = back.wait(reports + 1)[reports][2].decode()
            line = re.search(r"(?m)^Status: (.*)\r$", report).group(1)
            assert re.fullmatch(r"5\.\d{1,3}\.\d{1,3}", line) and line.startswith(status), (reply, line)
            assert reply in report, (reply, report)


class Deaf:
    """Answers up to 354 and then reads nothing more."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = self.listener.getsockname()[1]
        self.kept = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.kept.append(connection)
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        f = connection.makefile("rb", buffering=0)
        connection.sendall(b"220 deaf\r\n")
        for line in iter(f.readline, b""):
            connection.sendall(b"354 go on\r\n" if line[:4] == b"DATA" else b"250 fine\r\n")
            if line[:4] == b"DATA":
                return

    def close(self):
        self.listener.close()
        for connection in self.kept:
            connection.close()


def a_server_that_does_not_read(world):
    """Large messages wait for it on disk, not in memory; and others are served meanwhile."""
    deaf = world.add(Deaf())
    post, back = start(world, deaf, "timeouts: {block: 4s, dot: 4s}\nlimits: {per_site: 5}")
    post.send("", "warm@back.test")
    back.wait(1)
    body = b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * (10 * (1 << 20) // 17)
    before = memory_kib(post)
    idents = [post.send("", "x%d@there.test" % n, body) for n in range(10)]
    peak = 0
    began = time.monotonic()
    post.send("", "other@back.test")
    back.wait(2, 5)
    while time.monotonic() < began + 3:
        peak = max(peak, memory_kib(post))
        time.sleep(0.1)
    found = [outcome(post, ident, 1, 60)[0] for ident in idents[:5]]
    assert all(kind == "deferred" and r["enhanced"].startswith("4.") for kind, _, r in found), found
    # The store's write buffers hold some of the 100 MiB; a session holds two chunks.
    assert peak - before < 250 * 1024, "memory grew by %d KiB" % (peak - before)
    assert post.stop(seconds=120) == 0


def after_the_last_word(world):
    """The mail was taken; how the server leaves is nobody's failure, and holds nobody up."""
    for way in ({"quit": "close"}, {"quit": None}, {"quit": "500 what"}, {"quit": b"221\0\0" + b"x" * 100000 + b"\r\n"}, {"rset": "close"},
                {"rset": "500 no"}, {"rset": None}):
        there = world.sink(dict(way, rcpt=lambda line: "550 5.1.1 nobody" if "never" in line else "250 fine"))
        post, _ = start(world, there, "timeouts: {quit: 1s, mail: 2s}\nlimits: {messages_per_connection: 2, per_site: 1}")
        idents = [post.send("", ("never%d@there.test" if n % 3 == 1 else "x%d@there.test") % n) for n in range(7)]
        kinds = [outcome(post, ident)[0][0] for ident in idents]
        assert kinds == ["failed" if n % 3 == 1 else "delivered" for n in range(7)], (way, kinds)
        assert sorted(r for m in there.messages for r in m[1]) == ["x%d@there.test" % n for n in (0, 2, 3, 5, 6)], there.messages
        began = time.monotonic()
        assert post.stop() == 0 and time.monotonic() - began < 10, way
        os.rename(post.data_dir, post.data_dir + str(there.port))


def fewer_connections_than_we_want(world):
    """A server that takes two connections at once and refuses the rest: no mail is deferred for that."""
    lock, busy, refused = threading.Lock(), [0], [0]
    there = world.sink()
    serve = there._serve

    def limited(connection):
        with lock:
            busy[0] += 1
            over = busy[0] > 2
        try:
            if over:
                refused[0] += 1
                connection.sendall(b"421 4.7.0 too many connections\r\n")
                connection.close()
            else:
                serve(connection)
        finally:
            with lock:
                busy[0] -= 1
    there._serve = limited
    there.script = {"dot": lambda argument: time.sleep(0.02) or "250 taken"}
    post, _ = start(world, there, "timeouts: {idle: 2s}")
    for n in range(60):
        post.send("", "x%d@there.test" % n)
    post.wait_empty(60)
    assert len(there.messages) == 60, len(there.messages)
    assert post.figures()["deferrals"] == 0, "%d deferrals, %d refused" % (post.figures()["deferrals"], refused[0])


main([sizes, limits, fewest_transactions, connections_end_between_transactions, many_transactions_at_the_second_host,
      in_doubt_is_what_was_sent, many_extensions, codes_that_contradict, a_server_that_does_not_read, after_the_last_word,
      fewer_connections_than_we_want])
