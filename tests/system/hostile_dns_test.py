#!/usr/bin/env python3
"""
Proves that a hostile DNS costs bounded memory and brings the right outcome: as many MX records as a reply can hold, a header that
claims ten thousand, alias loops, cut and malformed packets, replies to another question, CR and LF in names, and MX hosts at
addresses that mail must never go to. Mail for an honest domain goes on meanwhile.
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from hostile_dns import A, CNAME, MX, HostileDns, encode, mx, record
from posthouse_test import main, wait_until

LOOPBACK = bytes([127, 0, 0, 1])


def only(kind, *records, **wrong):
    return lambda q: q.reply(records if q.kind == kind else (), **wrong)


def many(q):
    """About 3,400 records over TCP: what fits in 64 KiB. Only the best one has an address."""
    if q.kind != MX:
        return q.reply()
    if not q.tcp:
        return q.reply(cut=True)
    return q.reply([mx(5, "good.test")] + [mx(100 + n % 9000, b"\x04h%03d\xc0\x0c" % (n % 1000)) for n in range(3000)])


def lying_count(q):
    return q.reply([mx(5, "good.test")], count=10000) if q.kind == MX else q.reply()


def cut_in_the_middle(q):
    whole = q.reply([mx(5, "good.test"), mx(6, "good.test")])
    return whole[:-7] if q.kind == MX else q.reply()


ANSWERS = {
    "honest.test": only(MX, mx(10, "good.test")),
    "good.test": only(A, record(A, LOOPBACK)),
    "many.test": many,
    "lying.test": lying_count,
    "cut.test": cut_in_the_middle,
    "alwayscut.test": lambda q: q.reply(cut=True),
    "loop.test": lambda q: q.reply([record(CNAME, encode("loop2.test")), record(CNAME, encode("loop.test"), encode("loop2.test"))]),
    "loop2.test": lambda q: q.reply([record(CNAME, encode("loop.test"))]),
    "self.test": lambda q: q.reply([record(CNAME, encode("self.test"))]),
    "pointer.test": only(MX, mx(10, b"\xc0\x20" + b"\xc0\x21")),  # a compressed name that points at itself
    "garbage.test": lambda q: q.octets[:2] + b"\xff" * 60,
    "short.test": lambda q: q.octets[:6],
    "other.test": lambda q: q.reply([mx(5, "good.test")], ident=(struct.unpack(">H", q.octets[:2])[0] + 1) & 0xffff),
    "servfail.test": lambda q: q.reply(code=2),
    "refused.test": lambda q: q.reply(code=5),
    "crlf.test": only(MX, mx(10, b"\x0fevil\r\nRCPT TO:x\x04test\x00")),
    "nul.test": only(MX, mx(10, b"\x05a\x00b.c\x04test\x00")),
    "zero.test": only(MX, mx(10, "zerohost.test")),
    "zerohost.test": only(A, record(A, bytes(4))),
    "multicast.test": only(MX, mx(10, "multihost.test")),
    "multihost.test": only(A, record(A, bytes([224, 0, 0, 1]))),
    "badaddress.test": only(MX, mx(10, "badhost.test")),
    "badhost.test": only(A, record(A, b"\x7f\0\0")),
}
DELIVERED = ["honest.test", "many.test"]
# Never delivered, and never failed for good on the word of a broken reply.
DEFERRED = ["lying.test", "cut.test", "alwayscut.test", "garbage.test", "short.test", "other.test", "servfail.test", "refused.test",
            "pointer.test"]
# Deferred or failed, but never delivered anywhere.
NEVER = ["loop.test", "self.test", "crlf.test", "nul.test", "zero.test", "multicast.test", "badaddress.test"]


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def start(world, loopback=True):
    sink = world.sink()
    dns = world.add(HostileDns(ANSWERS))
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\n"
                           "retry: {first: 30m, max: 4h, give_up: 5d, delay_notice: 0}" % (dns.port, sink.port))
    if not loopback:
        with open(post.config) as f:
            text = f.read()
        with open(post.config, "w") as f:
            f.write(text.replace("loopback_targets: true", "loopback_targets: false"))
    return post.start(), sink, dns


def kinds(post, ident):
    return [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]


def every_lie_has_its_outcome(world):
    post, sink, dns = start(world)
    post.send("", "first@honest.test")
    sink.wait(1)
    before = memory_kib(post)
    idents = {name: post.send("", "x@" + name) for name in DELIVERED + DEFERRED + NEVER}
    sink.wait(1 + len(DELIVERED))
    for name, ident in idents.items():
        found = wait_until("an outcome for " + name,
                           lambda: [k for k in kinds(post, ident) if k in ("delivered", "deferred", "failed")], 90, 0.2)
        if name in DELIVERED:
            assert found == ["delivered"], (name, found)
        elif name in DEFERRED:
            assert found == ["deferred"], (name, found, post.tool("msg", "trace", ident))
        else:
            assert "delivered" not in found, (name, found)
    taken = sorted(r for m in sink.messages for r in m[1])
    assert taken == ["first@honest.test", "x@honest.test", "x@many.test"], taken
    assert ("many.test", MX, True) in dns.asked, "the long reply was not asked for over TCP"
    post.send("", "last@honest.test")
    sink.wait(4)
    grown = memory_kib(post) - before
    assert grown < 40 * 1024, "memory grew by %d KiB" % grown
    log = post.log_bytes()
    assert b"evil\r" not in log and b"\nRCPT TO:x" not in log, "a name broke a log line"
    route = post.tool("route", "x@crlf.test", text=True)
    assert "\r" not in route and "\nRCPT" not in route, route


def loopback_is_no_target_unless_allowed(world):
    post, sink, _ = start(world, loopback=False)
    ident = post.send("", "x@honest.test")
    found = wait_until("an outcome", lambda: [t for t in post.tool("msg", "trace", ident)["traces"]
                                              if t["kind"] in ("failed", "deferred", "delivered")], 30)
    assert found[0]["kind"] == "failed" and found[0]["result"]["enhanced"] == "5.4.6", found
    assert sink.connections == 0


main([every_lie_has_its_outcome, loopback_is_no_target_unless_allowed])
