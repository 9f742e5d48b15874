#!/usr/bin/env python3
"""
Proves that a hostile receiving server costs bounded memory and never decides wrongly: whatever the first MX does before the
final dot, the second MX gets the mail, once; after the dot nobody else gets it, and the mail is in doubt.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import World, free_port, main, wait_until
from smtp_server import SmtpServer

ZONE = "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n"
# one message for each connection, so that every step is reached
TIMEOUTS = "\nlimits: {messages_per_connection: 1}\ntimeouts: {connect: 2s, greeting: 1s, ehlo: 1s, mail: 1s, rcpt: 1s, data: 1s, block: 2s, dot: 1s}"
STEPS = ("greeting", "ehlo", "mail", "rcpt", "data")
HOSTILE = ("@silent", "@close", "@reset", "@endless", "@long", "@mixed", "@drip", "850 odd", "hello")


def start(world, first, second):
    dns = world.nsd({"example.test": ZONE})
    delivery = "dns: [\"127.0.0.1:%d\"]\nport: %d%s" % (dns.port, first.port, TIMEOUTS)
    return world.posthouse(delivery=delivery).start()


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def second_gets_it_once(world):
    port = free_port()
    first = world.add(SmtpServer(address="127.0.0.2", port=port))
    second = world.add(SmtpServer(address="127.0.0.3", port=port))
    post = start(world, first, second)
    post.send("a@client.test", "warm@example.test")
    wait_until("the first mail", lambda: len(first.messages) == 1)
    before = memory_kib(post)
    sent = 0
    for step in STEPS:
        for reply in HOSTILE:
            first.script = {step: reply}
            post.send("a@client.test", "%s-%d@example.test" % (step, sent))
            sent += 1
            wait_until("%s %s: the second server" % (step, reply), lambda: len(second.messages) >= sent, 20)
    post.wait_empty()
    assert len(second.messages) == sent, len(second.messages)
    assert len({m["recipients"][0] for m in second.messages}) == sent
    assert len(first.messages) == 1
    grown = memory_kib(post) - before
    assert grown < 40 * 1024, "memory grew by %d KiB" % grown


def after_the_dot_nobody_else(world):
    port = free_port()
    first = world.add(SmtpServer(address="127.0.0.2", port=port))
    second = world.add(SmtpServer(address="127.0.0.3", port=port))
    post = start(world, first, second)
    for n, reply in enumerate(("@silent", "@close", "@reset", "@endless", "@long", "@mixed", "hello")):
        first.script = {"dot": reply + "|250 2.0.0 taken"}
        taken = len(first.messages)
        ident = post.send("a@client.test", "n%d@example.test" % n)
        kinds = lambda: [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]
        wait_until("%s: in doubt" % reply, lambda: "in_doubt" in kinds(), 20)
        assert not second.messages, (reply, second.messages)
        first.script = {}
        wait_until("%s: the retry" % reply, lambda: len(first.messages) > taken, 20)
    assert not second.messages


main([second_gets_it_once, after_the_dot_nobody_else])
