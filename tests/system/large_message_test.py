#!/usr/bin/env python3
"""
Proves that a long message passes whole, in chunks on both sides, by DATA and by BDAT and over a restart; that SIZE and the octets
themselves are held against the limit (552); and that many long messages at once cost disk and credit, and not memory.
"""
import hashlib
import os
import random
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import SLOW, check, id_of, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
NEVER_AGAIN = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
MIB = 1 << 20
RSS_MIB_MAX = 400  # store 192, delivery 64, bodies in memory 64, gateway 64
CLIENTS = 50


def content(seed, octets):
    """Lines of all lengths, some beginning with dots, that no two messages share."""
    chance = random.Random(seed)
    lines = [b"Subject: %d\r\n\r\n" % seed]
    length = len(lines[0])
    block = chance.randbytes(600).hex().encode()
    while length < octets:
        at = chance.randrange(200)
        line = b"." * chance.randrange(3) + b"%d " % length + block[at:at + chance.randrange(900)] + b"\r\n"
        lines.append(line)
        length += len(line)
    return b"".join(lines)


def send_data(post, body, recipient):
    with post.smtp() as s:
        s.ehlo()
        check(s.mail("a@client.test", ["SIZE=%d" % len(body)]), 250)
        check(s.rcpt(recipient), 250)
        code, reply = check(s.data(body), 250)
        return id_of(reply)


def send_chunks(post, body, recipient, size):
    with post.smtp() as s:
        s.ehlo()
        assert s.has_extn("chunking")
        check(s.mail("a@client.test", ["SIZE=%d" % len(body)]), 250)
        check(s.rcpt(recipient), 250)
        for at in range(0, len(body), size):
            part = body[at:at + size]
            s.send(b"BDAT %d%s\r\n" % (len(part), b" LAST" if at + size >= len(body) else b"") + part)
            code, reply = check(s.getreply(), 250)
        return id_of(reply)


def arrived(sink):
    """What came, without what was put in front of it."""
    return {m[1][0]: hashlib.sha256(m[2][m[2].index(b"Subject: "):]).digest() for m in sink.messages}


def memory_mib(post, key="VmRSS"):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith(key)).split()[1]) // 1024


def twenty_mebibytes(world):
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port).start()
    bodies = {"data@there.test": content(1, 20 * MIB), "large@there.test": content(2, 20 * MIB),
              "small@there.test": content(3, 20 * MIB)}
    start = time.monotonic()
    send_data(post, bodies["data@there.test"], "data@there.test")
    send_chunks(post, bodies["large@there.test"], "large@there.test", 20 * MIB)  # one chunk of them all but a rest
    send_chunks(post, bodies["small@there.test"], "small@there.test", 100001)
    sink.wait(3, 60)
    post.wait_empty()
    print("3 x 20 MiB in %.1f s, %d MiB of memory at most" % (time.monotonic() - start, memory_mib(post, "VmHWM")))
    assert arrived(sink) == {to: hashlib.sha256(body).digest() for to, body in bodies.items()}
    assert post.stop() == 0
    assert post.tool("store", "verify", os.path.join(post.data_dir, "queue"))["problems"] == 0


def over_a_kill(world):
    """Read back from the store and not from memory, after a death in the middle of another one's chunks."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=NEVER_AGAIN).start()
    body = content(4, 20 * MIB)
    ident = send_data(post, body, "kept@there.test")
    half = post.smtp()
    half.ehlo()
    check(half.mail("a@client.test"), 250)
    check(half.rcpt("half@there.test"), 250)
    half.send(b"BDAT %d\r\n" % (5 * MIB) + content(5, 6 * MIB)[:5 * MIB])
    check(half.getreply(), 250)
    post.kill()
    half.close()
    for _ in range(2):
        post.start()
        assert [row["message"] for row in post.queue()] == [ident]
        post.kill()
    dropped = [int(n) for n in re.findall(r"chunks_dropped=(\d+)", post.log_text())]
    assert dropped[1] > 0 and dropped[2] == 0, dropped  # what was never finished goes, once
    assert post.tool("store", "verify", os.path.join(post.data_dir, "queue"))["problems"] == 0
    post.start()
    sink.script = {}
    wait_until("delivered", lambda: post.tool("retry", "domain:there.test") and sink.messages, 60, 0.5)
    post.wait_empty()
    assert arrived(sink) == {"kept@there.test": hashlib.sha256(body).digest()}


def the_limit(world):
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port, gateway="limits: {message_size: 2MiB}").start()
    body = content(6, 2 * MIB + 1000)
    with post.smtp() as s:
        s.ehlo()
        assert s.esmtp_features["size"] == str(2 * MIB)
        check(s.mail("a@client.test", ["SIZE=%d" % (2 * MIB + 1)]), 552)  # as announced
        check(s.mail("a@client.test"), 250)  # not announced, or not in truth
        check(s.rcpt("b@there.test"), 250)
        check(s.data(body), 552)
        check(s.mail("a@client.test", ["SIZE=100"]), 250)
        check(s.rcpt("b@there.test"), 250)
        s.send(b"BDAT %d LAST\r\n" % len(body) + body)
        check(s.getreply(), 552)
        check(s.docmd("RSET"), 250)
        check(s.mail("a@client.test"), 250)
        check(s.rcpt("b@there.test"), 250)
        for part in (body[:MIB], body[MIB:2 * MIB], body[2 * MIB:]):
            s.send(b"BDAT %d%s\r\n" % (len(part), b"" if len(part) == MIB else b" LAST") + part)
            reply = s.getreply()
        check(reply, 552)
        check(s.docmd("RSET"), 250)  # and the session goes on
        check(s.mail("a@client.test"), 250)
        check(s.rcpt("fits@there.test"), 250)
        fits = content(7, 2 * MIB - 2000)
        check(s.data(fits), 250)
    sink.wait(1)
    post.wait_empty()
    assert arrived(sink) == {"fits@there.test": hashlib.sha256(fits).digest()}


def many_at_once(world):
    """Fifty clients with a mebibyte each, again and again, to a server that takes nothing until all are there."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=NEVER_AGAIN,
                           gateway="limits: {connections_per_client: 200, memory: 64MiB}").start()
    bodies = {"c%d@there.test" % n: content(100 + n, MIB) for n in range(CLIENTS)}
    failures, peaks = [], [memory_mib(post)]

    def client(to):
        try:
            for again in range(5):
                while True:  # 451 and 452 are the right answers of a gateway at its limit
                    with post.smtp() as s:
                        s.ehlo()
                        check(s.mail("a@client.test", ["SIZE=%d" % len(bodies[to])]), 250)
                        check(s.rcpt("%d%s" % (again, to)), 250)
                        code, reply = s.data(bodies[to])
                        if code == 250:
                            break
                        assert code in (451, 452), (code, reply)
                    time.sleep(0.2)
        except Exception as error:
            failures.append((to, repr(error)))

    threads = [threading.Thread(target=client, args=(to,), daemon=True) for to in bodies]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() - start < 120 * SLOW, "the clients do not come to an end"
        peaks.append(memory_mib(post))
        time.sleep(0.05)
    assert not failures, failures[:5]
    accepted = time.monotonic() - start
    wait_until("all are deferred", lambda: len(post.queue("state:deferred", "--limit", "1000")) == 5 * CLIENTS, 60, 0.3)
    sink.script = {}
    post.tool("retry", "domain:there.test")
    while len(sink.messages) < 5 * CLIENTS:
        assert time.monotonic() - start < 200 * SLOW, "%d delivered" % len(sink.messages)
        peaks.append(memory_mib(post))
        time.sleep(0.1)
        if time.monotonic() - start > accepted + 30:
            post.tool("retry", "domain:there.test")
    post.wait_empty()
    print("%d MiB accepted in %.1f s, all done in %.1f s, %d MiB of memory at most" %
          (5 * CLIENTS, accepted, time.monotonic() - start, max(peaks)))
    assert arrived(sink) == {"%d%s" % (n, to): hashlib.sha256(body).digest() for to, body in bodies.items() for n in range(5)}
    assert len(sink.messages) == 5 * CLIENTS
    if SLOW == 1:
        assert max(peaks) < RSS_MIB_MAX, "memory: %d MiB" % max(peaks)


main([twenty_mebibytes, over_a_kill, the_limit, many_at_once])
