#!/usr/bin/env python3
"""
Proves the main job end to end with real DNS: accepted, routed by MX in order, delivered, deferred and retried, failed and
reported, forwarded, refused; and that the tool explains each.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import World, check, main, wait_until

ZONE = """
@ MX 10 mx1
@ MX 20 mx2
mx1 A 127.0.0.2
mx2 A 127.0.0.1
null MX 0 .
own MX 10 mx.posthouse.test.
plain A 127.0.0.1
"""


def start(world, sink, extra="", **settings):
    dns = world.nsd({"example.test": ZONE})
    settings.setdefault("delivery", "")
    settings["delivery"] += "\ndns: [\"127.0.0.1:%d\"]\nport: %d" % (dns.port, sink.port)
    return world.posthouse(extra=extra, **settings).start()


def second_mx_when_the_first_is_down(world):
    sink = world.sink()
    post = start(world, sink)
    ident = post.send("a@client.test", "b@example.test", "Subject: one\r\n\r\nbody\r\n.dot\r\n")
    sender, recipients, body = sink.wait(1)[0]
    assert (sender, recipients) == ("a@client.test", ["b@example.test"]), (sender, recipients)
    assert body.startswith(b"Received: from client.test"), body
    assert body.endswith(b"Subject: one\r\n\r\nbody\r\n.dot\r\n"), body
    post.wait_empty()
    trace = post.tool("msg", "trace", ident)
    assert [t["kind"] for t in trace["traces"]] == ["accepted", "delivered"], trace
    assert "mx2" in trace["traces"][1]["result"]["remote"], trace
    assert "delivered" in post.tool("msg", "why", ident)["text"]
    route = post.tool("route", "b@example.test")
    assert [s["host"] for s in route["steps"] if s.get("preference") and "address" not in s] == [
        "mx1.example.test", "mx2.example.test"], route
    assert post.stop() == 0


def no_mx_means_the_address_itself(world):
    sink = world.sink()
    post = start(world, sink)
    post.send("a@client.test", "b@plain.example.test")
    sink.wait(1)


def deferred_then_delivered(world):
    sink = world.sink({"rcpt": ["450 4.2.0 busy", "250 2.1.5 fine"]})
    post = start(world, sink)
    ident = post.send("a@client.test", "b@plain.example.test")
    wait_until("deferred", lambda: any(r["state"] == "deferred" for r in post.queue()))
    why = post.tool("msg", "why", ident)["text"]
    assert "deferred" in why and "450" in why and "busy" in why, why
    sink.wait(1)
    post.wait_empty()
    kinds = [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]
    assert kinds[0] == "accepted" and "deferred" in kinds and kinds[-1] == "delivered", kinds


def retry_makes_it_due_now(world):
    sink = world.sink({"rcpt": ["450 4.2.0 busy", "250 2.1.5 fine"]})
    post = start(world, sink, delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}")
    ident = post.send("a@client.test", "b@plain.example.test")
    wait_until("deferred", lambda: any(r["state"] == "deferred" for r in post.queue()))
    assert post.tool("retry", "id:" + ident, "--dry-run")["count"] == 1
    assert post.tool("retry", "id:" + ident)["count"] == 1
    sink.wait(1)
    post.wait_empty()


def failed_is_reported_to_the_sender(world):
    sink = world.sink({"rcpt": lambda line: "550 5.1.1 no such user" if "nobody" in line else "250 2.1.5 fine"})
    post = start(world, sink)
    ident = post.send("a@plain.example.test", ["nobody@plain.example.test", "b@plain.example.test"])
    messages = sink.wait(2)
    report = [m for m in messages if m[0] == ""][0]
    assert report[1] == ["a@plain.example.test"], report
    text = report[2].decode()
    for part in ("multipart/report", "Final-Recipient: rfc822;", "nobody@plain.example.test", "Status: 5.1.1", "Action: failed",
                 "550 5.1.1 no such user", "Reporting-MTA: dns; mx.posthouse.test"):
        assert part in text, (part, text)
    post.wait_empty()
    kinds = [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]
    assert "failed" in kinds and "reported" in kinds, kinds


def null_sender_is_not_reported_to(world):
    sink = world.sink({"rcpt": "550 5.1.1 no such user"})
    post = start(world, sink)
    ident = post.send("", "nobody@plain.example.test")
    post.wait_empty()
    kinds = [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]
    assert "no_report" in kinds, kinds
    assert not sink.messages


def dns_verdicts(world):
    sink = world.sink()
    post = start(world, sink)
    expected = {"x@null.example.test": "5.1.10", "x@absent.example.test": "5.1.2", "x@own.example.test": "5.4.6"}
    for address, status in expected.items():
        ident = post.send("", address)
        def failed():
            return [t for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] == "failed"]
        found = wait_until(address + " fails", failed)
        assert found[0]["result"]["enhanced"] == status, found
    assert not sink.messages


def local_domains(world):
    sink = world.sink()
    table = world.file("recipients.txt", "alice\nsales: alice, bob@plain.example.test\nloop: loop2\nloop2: loop\n")
    post = start(world, sink, extra="domains:\n  - {name: our.test, recipients: {table: %s}, route: \"smtp:127.0.0.1:%d\"}"
                 % (table, sink.port), gateway="trusted_networks: []")
    with post.smtp() as s:
        s.ehlo()
        check(s.mail("a@client.test"), 250)
        code, text = check(s.rcpt("nobody@our.test"), 550)
        assert text.startswith(b"5.1.1"), text
        code, text = check(s.rcpt("x@elsewhere.test"), 550)
        assert text.startswith(b"5.7.1"), text
        code, text = s.rcpt("loop@our.test")
        assert code == 550, (code, text)
        check(s.rcpt("postmaster@our.test"), 250)
    post.send("a@client.test", "sales@our.test")
    messages = sink.wait(2)
    assert sorted(r for m in messages for r in m[1]) == ["alice@our.test", "bob@plain.example.test"], messages
    assert post.tool("verify", "nobody@our.test")["code"] == 550
    assert post.tool("verify", "alice@our.test")["code"] == 250
    world.file("recipients.txt", "alice\nnobody\n")
    wait_until("the table is read again", lambda: post.tool("verify", "nobody@our.test")["code"] == 250, 15, 0.2)


main([second_mx_when_the_first_is_down, no_mx_means_the_address_itself, deferred_then_delivered, retry_makes_it_due_now,
      failed_is_reported_to_the_sender, null_sender_is_not_reported_to, dns_verdicts, local_domains])
