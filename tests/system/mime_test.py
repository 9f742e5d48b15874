#!/usr/bin/env python3
"""
Proves that mail for a server without 8BITMIME arrives in 7 bit with its meaning unchanged, as Python's own MIME parser reads
it, and that what must not be converted is failed with 5.6.3 and reported.
"""
import base64
import email
import email.policy
import os
import random
import sys
from email.message import EmailMessage

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import World, main, wait_until
from smtp_server import SmtpServer

POLICY = email.policy.SMTP.clone(cte_type="8bit", max_line_length=900)
LETTERS = "abc äöü ßé €= . 漢字 "


def text(rng, length):
    return "".join(rng.choice(LETTERS) + ("\n" if rng.random() < 0.03 else "") for _ in range(length)) + "x\n"


def compose(rng, depth=0):
    """A message with text in 8 bit, sometimes with attachments and messages inside."""
    m = EmailMessage(policy=POLICY)
    m["Subject"] = "number %d" % rng.randrange(1000)
    m.set_content(text(rng, rng.randrange(20, 4000)), cte="8bit")
    if rng.random() < 0.6:
        m.add_alternative("<p>" + text(rng, 300) + "</p>\n", subtype="html", cte="8bit")
    if rng.random() < 0.5:
        m.add_attachment(bytes(rng.randrange(256) for _ in range(500)), maintype="application", subtype="x-any", filename="a.bin")
    if depth < 2 and rng.random() < 0.5:
        m.add_attachment(compose(rng, depth + 1))
    return m


def leaves(octets):
    """What a reader sees: type, name and decoded content of every part that has no parts."""
    m = email.message_from_bytes(octets, policy=POLICY)
    found = []
    for part in m.walk():
        assert not part.defects, (part.defects, octets[:400])
        if not part.is_multipart():
            found.append((part.get_content_type(), part.get_filename(), part.get_payload(decode=True)))
    return found


def without_received(body):
    """Our own Received field is not part of what was sent."""
    lines = body.split(b"\r\n")
    end = 1
    while lines[end][:1] in (b" ", b"\t"):
        end += 1
    return b"\r\n".join(lines[end:])


def start(world):
    sink = world.add(SmtpServer(extensions=("PIPELINING", "SIZE")))
    extra = 'routes:\n  - {domain: old.test, route: "smtp:127.0.0.1:%d"}\n' % sink.port
    return sink, world.posthouse(extra=extra).start()


def meaning_is_kept(world):
    sink, post = start(world)
    rng = random.Random(20261124)
    for n in range(40):
        sent = compose(rng).as_bytes(policy=POLICY)
        assert any(c > 127 for c in sent)
        post.send("a@client.test", "b@old.test", sent, mail_options=["BODY=8BITMIME"])
        wait_until("message %d" % n, lambda: len(sink.messages) > n)
        got = without_received(base64.b64decode(sink.messages[n]["body"]))
        assert all(c < 128 for c in got), got
        assert all(len(line) <= 998 for line in got.split(b"\r\n"))
        assert leaves(got) == leaves(sent), (n, sent, got)
    assert not any("BODY=8BITMIME" in c for c in sink.commands), sink.commands


def what_is_signed_is_failed(world):
    sink, post = start(world)
    sent = ("MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\nä\r\n--b--\r\n").encode()
    ident = post.send("a@old.test", "b@old.test", sent, mail_options=["BODY=8BITMIME"])
    wait_until("the report", lambda: len(sink.messages) == 1, 20)
    report = base64.b64decode(sink.messages[0]["body"])
    assert b"5.6.3" in report and sink.messages[0]["sender"] == "", report
    assert "failed" in [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]


main([meaning_is_kept, what_is_signed_is_failed])
