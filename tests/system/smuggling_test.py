#!/usr/bin/env python3
"""
Proves that nobody smuggles a second message through us (CVE-2023-51764 and its kin): for every form of an end of data with a bare
CR or LF, the server behind us, even one that takes all those forms for an end, never counts two messages. By default the
message is refused; with `bare_newline: normalize` it arrives as one message in which nothing but CRLF ends a line.
"""
import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import Sink, World, main, wait_until

FORMS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r.\n", b"\n.\r", b"\r\n\r.\r\n", b"\r\n.\r\r\n",
         b"\n\n.\r\n", b"\r\r.\r\r", b"\r\n.\x00\r\n", b"\n\r.\n\r", b"\r\n\n.\r\n", b"\n..\n"]
HIDDEN = b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<victim@there.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n"
LAX_END = re.compile(rb"(\r\n|\n|\r)\.(\r\n|\n|\r)")


class LaxSink(Sink):
    """Keeps the octets of each message as they came over the wire, stuffing dots and all."""

    def __init__(self):
        super().__init__()
        self.wire = []

    def _message(self, f, sender, recipients):
        raw = bytearray()
        while not (raw.endswith(b"\r\n.\r\n") or raw == b".\r\n"):
            octets = f.read(1)
            if not octets:
                return
            raw += octets
        self.wire.append((sender, bytes(raw)))
        self.messages.append((sender, list(recipients), bytes(raw)))
        self._say(f, "250 2.0.0 taken")


def raw_session(port, form):
    """Sends a message with the form in it and a hidden one behind; returns all that was answered after the data began."""
    with socket.create_connection(("127.0.0.1", port), 20) as s, s.makefile("rb") as f:
        def ask(line):
            s.sendall(line)
            reply = f.readline()
            while reply[3:4] == b"-":
                reply = f.readline()
            return reply
        f.readline()
        for line in (b"EHLO client.test\r\n", b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<b@there.test>\r\n"):
            reply = ask(line)
            assert reply.startswith(b"250"), (line, reply)
        assert ask(b"DATA\r\n").startswith(b"354")
        s.sendall(b"Subject: outer\r\n\r\nouter" + form + HIDDEN + b".\r\nQUIT\r\n")
        s.shutdown(socket.SHUT_WR)
        return f.read()


def chunked_session(port, form, size):
    """The same message by BDAT in chunks of `size`, sent at once; there a true end of data is mere text, too."""
    whole = b"Subject: outer\r\n\r\nouter" + form + HIDDEN + b".\r\n"
    chunks = [whole[n:n + size] for n in range(0, len(whole), size)]
    sent = b"".join(b"BDAT %d%s\r\n%s" % (len(c), b" LAST" if n + 1 == len(chunks) else b"", c) for n, c in enumerate(chunks))
    with socket.create_connection(("127.0.0.1", port), 20) as s, s.makefile("rb") as f:
        f.readline()
        s.sendall(b"EHLO client.test\r\n")
        while f.readline()[3:4] == b"-":
            pass
        s.sendall(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@there.test>\r\n" + sent)
        s.shutdown(socket.SHUT_WR)
        assert f.readline().startswith(b"250") and f.readline().startswith(b"250")
        try:
            return f.read()
        except ConnectionResetError:  # refused and closed while the rest was on its way
            return b"5"


def start(world, gateway=""):
    sink = world.add(LaxSink())
    post = world.posthouse(gateway=gateway, extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port)
    return post.start(), sink


def send_a_plain_one(post, sink):
    """Something that must arrive, so that an empty queue means that all before it has been judged."""
    count = len(sink.messages)
    post.send("plain@client.test", "p@there.test")
    wait_until("the plain message", lambda: len(sink.messages) > count)
    post.wait_empty()


def refused_by_default(world):
    post, sink = start(world)
    for form in FORMS:
        replies = raw_session(post.port, form)
        if re.search(rb"[^\r]\n|\r[^\n]|^\n|\r\Z", form):
            assert re.match(rb"5\d\d ", replies), (form, replies)
        assert replies.count(b"354 ") == 0, ("a second DATA was answered", form, replies)
        assert len(re.findall(rb"(?m)^250 ", replies)) <= 1, (form, replies)
    send_a_plain_one(post, sink)
    for sender, wire in sink.wire:
        assert sender != "evil@client.test", wire
        assert len(LAX_END.findall(wire)) == 1, wire
    assert len([s for s, _ in sink.wire if s == "plain@client.test"]) == 1
    print("%d forms, %d messages passed" % (len(FORMS), len(sink.wire) - 1))


def normalized_is_one_message(world):
    post, sink = start(world, "bare_newline: normalize")
    for form in FORMS:
        before = len(sink.wire)
        replies = raw_session(post.port, form)
        assert replies.count(b"354 ") == 0, ("a second DATA was answered", form, replies)
        send_a_plain_one(post, sink)
        for sender, wire in sink.wire[before:]:
            assert sender != "evil@client.test", (form, wire)
            assert len(LAX_END.findall(wire)) == 1, (form, wire)
            assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire), (form, wire)
        assert len(sink.wire) - before <= 2, (form, sink.wire[before:])


def in_chunks(gateway):
    """The ends of chunks fall everywhere in the form; with true ends of data in the text the message is one message, stuffed."""
    def test(world):
        post, sink = start(world, gateway)
        accepted = 0
        for form in FORMS + [b"\r\n.\r\n", b"\r\n..\r\n"]:
            bare = re.search(rb"[^\r]\n|\r[^\n]|^\n|\r\Z", form)
            before = len(sink.wire)
            for size in (1, 2, 3, 7, 23, 24, 25, 26, 10000):
                replies = chunked_session(post.port, form, size)
                assert not any(line.startswith(b"354") for line in replies.split(b"\r\n")), ("DATA was answered", form, size, replies)
                taken = re.search(rb"(?m)^250 2\.0\.0 queued as ", replies)
                if bare and not gateway:
                    assert re.search(rb"(?m)^5", replies) and not taken, (form, size, replies)
                elif not bare:
                    assert taken, (form, size, replies)
                accepted += bool(taken)
            send_a_plain_one(post, sink)
            for sender, wire in sink.wire[before:]:
                assert sender != "evil@client.test", (form, wire)
                assert len(LAX_END.findall(wire)) == 1, (form, wire)
                assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire), (form, wire)
                if sender == "a@client.test" and not bare:
                    assert b"outer" + form.replace(b"\r\n.", b"\r\n..") + HIDDEN in wire, (form, wire)
        passed = len([s for s, _ in sink.wire if s == "a@client.test"])
        assert passed == accepted, "%d accepted, %d passed on" % (accepted, passed)
    test.__name__ = "in_chunks" + ("_normalized" if gateway else "")
    return test


main([refused_by_default, normalized_is_one_message, in_chunks(""), in_chunks("bare_newline: normalize")])
