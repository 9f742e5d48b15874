#!/usr/bin/env python3
"""
Proves what the DNS decides about a domain (smtp rules 32-39): absent, null MX, MX that lead nowhere, chains of aliases, addresses that
mail never goes to, our own name and address among better and worse hosts, name servers that fail or keep silent, replies under a
wrong id. Each domain gets mail at once; each outcome and its status is checked, and that nobody was connected to who must not be.
"""
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from hostile_dns import A, AAAA, CNAME, MX, SOA, HostileDns, encode, mx, record
from posthouse_test import free_port, main, wait_until

GOOD, OTHER, SINK = bytes([127, 0, 0, 3]), bytes([127, 0, 0, 4]), bytes([127, 0, 0, 2])
OWN = bytes([127, 0, 0, 1])  # where the daemon listens
LATER = "retry: {first: 30m, max: 4h, give_up: 5d, delay_notice: 0}"
NX = 3


def host(address):
    return lambda q: q.reply([record(A, address)] if q.kind == A else ())


def exchanges(*pairs):
    return lambda q: q.reply([mx(preference, target) for preference, target in pairs] if q.kind == MX else ())


def chain(length, name, last):
    """name -> name1 -> ... -> last, all in one answer, as a resolver sends it; each link is also there by itself."""
    links = [name] + ["%d.%s" % (n, name) for n in range(1, length)] + [last]

    def answer(q):
        at = links.index(q.name)
        records = [record(CNAME, encode(links[n + 1]), encode(links[n])) for n in range(at, length)]
        return q.reply(records + ([mx(10, "good.test", encode(last))] if q.kind == MX else ()))
    return {link: answer for link in links[:-1]}


def wrong_id(q):
    return q.reply([mx(10, "good.test")] if q.kind == MX else (), ident=struct.unpack(">H", q.octets[:2])[0] ^ 0x5555)


def with_soa(q):
    """NXDOMAIN that may be kept."""
    soa = record(SOA, encode("ns.test") + encode("root.test") + struct.pack(">5I", 1, 60, 60, 60, 60))
    header = q.octets[:2] + struct.pack(">HHHHH", 0x8400 | NX, 1, 0, 1, 0)
    return header + q.section + soa


ANSWERS = {
    "good.test": host(GOOD),
    "other.test": host(OTHER),
    "down.test": host(SINK),  # nobody listens there
    "mx.posthouse.test": host(OWN),
    "ownaddress.test": host(OWN),
    "zero.test": host(bytes(4)),
    "zeronet.test": host(bytes([0, 1, 2, 3])),
    "multicast.test": host(bytes([239, 1, 2, 3])),
    "six.test": lambda q: q.reply([record(AAAA, bytes(16))] if q.kind == AAAA else ()),
    "empty.test": lambda q: q.reply(),
    "silent.test": lambda q: None,
    "failing.test": lambda q: q.reply(code=2),
    # domains
    "order.test": exchanges((30, "other.test"), (10, "down.test"), (20, "good.test")),
    "plain.test": host(GOOD),
    "kept-nx.test": with_soa,
    "null.test": lambda q: q.reply([mx(0, b"\0")] if q.kind == MX else [record(A, GOOD)]),
    "nothing.test": lambda q: q.reply(),
    # The domain itself has an address, which must not be tried.
    "nowhere.test": lambda q: q.reply([mx(10, "absent.test"), mx(20, "empty.test")] if q.kind == MX else
                                      [record(A, GOOD)] if q.kind == A else ()),
    "halfway.test": exchanges((10, "absent.test"), (20, "good.test")),
    "unresolved.test": exchanges((10, "failing.test")),
    "unresolved-first.test": exchanges((10, "failing.test"), (20, "good.test")),
    "servfail.test": lambda q: q.reply(code=2),
    "refused.test": lambda q: q.reply(code=5),
    "silence.test": lambda q: None,
    "wrongid.test": wrong_id,
    "mxcname.test": exchanges((10, "alias.test")),
    "alias.test": lambda q: q.reply([record(CNAME, encode("good.test"))] + ([record(A, GOOD, encode("good.test"))]
                                                                          if q.kind == A else [])),
    "tozero.test": exchanges((10, "zero.test")),
    "tozeronet.test": exchanges((10, "zeronet.test")),
    "tomulticast.test": exchanges((10, "multicast.test")),
    "tosix.test": exchanges((10, "six.test")),
    "zerothengood.test": exchanges((10, "zero.test"), (20, "good.test")),
    # ourselves, by name and by address
    "own.test": exchanges((10, "mx.posthouse.test")),
    "ownbetter.test": exchanges((10, "good.test"), (20, "mx.posthouse.test"), (30, "other.test")),
    "ownworse.test": exchanges((10, "mx.posthouse.test"), (20, "good.test")),
    "ownequal.test": exchanges((10, "mx.posthouse.test"), (10, "good.test")),
    "ownbehindabsent.test": exchanges((10, "absent.test"), (20, "mx.posthouse.test")),
    "ownbehindfailing.test": exchanges((10, "failing.test"), (20, "mx.posthouse.test")),
    "byaddress.test": exchanges((10, "ownaddress.test")),
    "byaddressworse.test": exchanges((10, "ownaddress.test"), (20, "good.test")),
    "byaddressequal.test": exchanges((10, "ownaddress.test"), (10, "good.test")),
    "byaddressbetter.test": exchanges((10, "good.test"), (20, "ownaddress.test"), (30, "other.test")),
}
ANSWERS.update(chain(3, "chain3.test", "end3.test"))
ANSWERS.update(chain(8, "chain8.test", "end8.test"))
ANSWERS.update(chain(9, "chain9.test", "end9.test"))
ANSWERS.update(chain(60, "chain60.test", "end60.test"))

DELIVERED, DEFERRED, FAILED = "delivered", "deferred", "failed"
EXPECTED = {
    "order.test": (DELIVERED, None), "plain.test": (DELIVERED, None), "halfway.test": (DELIVERED, None),
    "unresolved-first.test": (DELIVERED, None), "chain3.test": (DELIVERED, None), "chain8.test": (DELIVERED, None),
    "mxcname.test": (DELIVERED, None), "zerothengood.test": (DELIVERED, None), "ownbetter.test": (DELIVERED, None),
    "byaddressbetter.test": (DELIVERED, None),
    "absent-domain.test": (FAILED, "5.1.2"), "kept-nx.test": (FAILED, "5.1.2"), "null.test": (FAILED, "5.1.10"),
    "nothing.test": (FAILED, "5.4.4"), "nowhere.test": (FAILED, "5.4.4"),
    "chain9.test": (DEFERRED, "4.4.3"), "chain60.test": (DEFERRED, "4.4.3"),
    "unresolved.test": (DEFERRED, "4.4.3"), "servfail.test": (DEFERRED, "4.4.3"), "refused.test": (DEFERRED, "4.4.3"),
    "silence.test": (DEFERRED, "4.4.3"), "wrongid.test": (DEFERRED, "4.4.3"),
    "tozero.test": (FAILED, "5.4.6"), "tozeronet.test": (FAILED, "5.4.6"), "tomulticast.test": (FAILED, "5.4.6"),
    "tosix.test": (FAILED, "5.4.6"),
    "own.test": (FAILED, "5.4.6"), "ownworse.test": (FAILED, "5.4.6"), "ownequal.test": (FAILED, "5.4.6"),
    "ownbehindabsent.test": (DEFERRED, "4.4.4"), "ownbehindfailing.test": (DEFERRED, "4.4.4"),
    "byaddress.test": (FAILED, "5.4.6"), "byaddressworse.test": (FAILED, "5.4.6"), "byaddressequal.test": (FAILED, "5.4.6"),
}


def ended(post, ident):
    return [t for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] in ("delivered", "deferred", "failed", "in_doubt")]


def outcome(post, name, ident, seconds=60):
    found = wait_until("an outcome for " + name, lambda: ended(post, ident), seconds, 0.1)
    assert len(found) == 1, (name, found)
    return found[0]["kind"], found[0]["result"]


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def start(world, answers):
    """The servers listen at the daemon's own port on other loopback addresses, since an MX has no port of its own."""
    port = free_port()
    good, other = world.sink(address="127.0.0.3", port=port), world.sink(address="127.0.0.4", port=port)
    dns = world.add(HostileDns(answers))
    post = world.posthouse(port=port, delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\n%s" % (dns.port, port, LATER)).start()
    return post, good, other, dns


def each_domain_has_its_verdict(world):
    post, good, other, dns = start(world, ANSWERS)
    idents = {name: post.send("", "x@" + name) for name in EXPECTED}
    wrong = []
    for name, ident in idents.items():
        kind, result = outcome(post, name, ident)
        want, status = EXPECTED[name]
        if kind != want or (status and result["enhanced"] != status):
            wrong.append((name, want, status, kind, result))
    assert not wrong, "\n".join(map(str, wrong))
    taken = sorted(r[2:] for m in good.messages for r in m[1])
    assert taken == sorted(name for name, (kind, _) in EXPECTED.items() if kind == DELIVERED), taken
    assert not other.connections, "a worse host was asked"
    assert post.figures()["smtp_sessions_total"] == len(EXPECTED), "mail came back to us"


def the_tool_says_why(world):
    """`route` names the same verdict before any mail is sent."""
    post, good, _, _ = start(world, ANSWERS)
    for name, word in (("null.test", "null MX"), ("absent-domain.test", "does not exist"),
                       ("own.test", "our own name"), ("tozero.test", "0.0.0.0"),
                       ("order.test", "good.test")):
        text = post.tool("route", "x@" + name, text=True)
        assert word in text, (name, text)
    assert not good.connections


def ten_thousand_exchanges(world):
    """More than a reply can hold is cut, and what it holds is bounded; the best ones are what counts."""
    def many(preference):
        def answer(q):
            if q.kind != MX:
                return q.reply()
            if not q.tcp:
                return q.reply(cut=True)
            return q.reply([mx(preference(n), b"\xc0\x0c") for n in range(4000)] + [mx(1, "good.test")])
        return answer

    def distinct(q):
        """Every record another name that exists at a place where nobody listens."""
        if q.kind != MX:
            return q.reply()
        if not q.tcp:
            return q.reply(cut=True)
        return q.reply([mx(10, b"\x05h%04d\xc0\x0c" % n) for n in range(2800)])
    answers = {"good.test": host(GOOD)}
    for n in range(40):
        answers["many%d.test" % n] = many(lambda n: 10 + n % 7)
        answers["distinct%d.test" % n] = distinct
    post, good, _, dns = start(world, answers)
    idents = [post.send("", "x@many%d.test" % n) for n in range(40)]
    good.wait(40, 30)
    before = memory_kib(post)
    idents = [post.send("", "x@distinct%d.test" % n) for n in range(40)]
    for n, ident in enumerate(idents):
        kind, result = outcome(post, "distinct%d.test" % n, ident)
        assert kind in ("deferred", "failed") and result["enhanced"][0] in "45", (kind, result)
    grown = memory_kib(post) - before
    assert grown < 60 * 1024, "memory grew by %d KiB" % grown
    asked = sum(1 for name, kind, _ in dns.asked if name.startswith("h"))
    assert asked < 40 * 100, "%d questions for 40 messages" % asked


def failures_are_asked_again_but_not_hammered(world):
    """A domain whose servers fail: many messages, few questions (line 35 and the cache of failures)."""
    post, _, _, dns = start(world, {"servfail.test": lambda q: q.reply(code=2)})
    for n in range(50):
        post.send("", "x%d@servfail.test" % n)
    wait_until("all are deferred", lambda: len(post.queue("state:deferred")) == 50, 30, 0.1)
    asked = sum(1 for name, kind, _ in dns.asked if name == "servfail.test" and kind == MX)
    assert asked <= 20, "%d questions" % asked


def silence_does_not_hold_up_others(world):
    post, good, _, _ = start(world, ANSWERS)
    for n in range(100):
        post.send("", "x%d@silence.test" % n)
    began = time.monotonic()
    post.send("", "x@plain.test")
    good.wait(1, 10)
    assert time.monotonic() - began < 5


def drained_while_the_dns_is_silent(world):
    post, _, _, _ = start(world, ANSWERS)
    ident = post.send("", "x@silence.test")
    time.sleep(0.3)
    assert post.stop() == 0
    post.start()
    kept = [r for r in post.queue() if r["message"] == ident]
    assert len(kept) == 1, "lost in the drain"


main([each_domain_has_its_verdict, the_tool_says_why, ten_thousand_exchanges, failures_are_asked_again_but_not_hammered,
      silence_does_not_hold_up_others, drained_while_the_dns_is_silent])
