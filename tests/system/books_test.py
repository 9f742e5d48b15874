#!/usr/bin/env python3
"""
Proves that the books balance: while clients load the daemon it is killed (SIGKILL) at random moments, more than fifty times, and
started again. The receiving server puts off some recipients and some messages, and refuses others for good. In the end every
message that got a 250 was delivered, or failed and reported to its sender; nothing that was delivered twice lacks an `in_doubt`
record of its own; the queue is empty; and the store was found sound (`posthouse store verify`) after every tenth kill.

The seed of the moments is printed; POSTHOUSE_SEED repeats them.
"""
import collections
import contextlib
import os
import random
import re
import smtplib
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, World, id_of, main, wait_until

KILLS = 55
CLIENTS = 6


class Load:
    """Clients that send one message after another, reconnecting when the daemon is away. Nothing is ever sent twice."""

    def __init__(self, port):
        self.port, self.stopping = port, False
        self.lock = threading.Lock()
        self.acknowledged = {}  # key -> message id
        self.refused, self.cut = 0, 0
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self, client):
        n = 0
        while not self.stopping:
            try:
                with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=20) as s:
                    s.ehlo()
                    for _ in range(20):
                        if self.stopping:
                            return
                        key = "%s%dx%d" % ({7: "fail", 13: "dead"}.get(n % 20, "good"), client, n)
                        n += 1
                        self._send(s, key, 70000 if n % 50 == 0 else 200)
                        time.sleep(0.01)  # the receiving server of the test must be able to follow
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)

    def _send(self, s, key, size):
        s.mail("sender-%s@back.test" % key)
        s.rcpt("%s@there.test" % key)
        code, reply = 0, b""
        try:
            code, reply = s.data(("Subject: %s\r\n\r\n" % key + ("x" * 70 + "\r\n") * (size // 72)).encode())
        finally:
            with self.lock:
                if code == 250:
                    self.acknowledged[key] = id_of(reply)
                elif code:
                    self.refused += 1
                else:
                    self.cut += 1

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(40)


def books_balance(world):
    seed = int(os.environ.get("POSTHOUSE_SEED", random.SystemRandom().randrange(1 << 32)))
    print("seed %d" % seed, flush=True)
    chance = random.Random(seed)
    moods = random.Random(seed + 1)

    def at_rcpt(line):
        return ("550 5.1.1 no such user" if "<fail" in line else
                "450 4.2.0 busy" if moods.random() < 0.05 else "250 2.1.5 fine")

    def at_dot(sender):
        return ("554 5.6.0 not this one" if sender.startswith("sender-dead") else
                "451 4.3.0 later" if moods.random() < 0.05 else "250 2.0.0 taken")
    sink = world.sink({"rcpt": at_rcpt, "dot": at_dot})
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port,
                           delivery="retry: {first: 300ms, max: 1s, give_up: 1h, delay_notice: 0}").start()
    load = Load(post.port)
    for n in range(KILLS):
        time.sleep(chance.uniform(0.02, 0.6))
        post.kill()
        if n % 10 == 9:
            assert_sound(post)
        post.start()
    time.sleep(0.3)
    load.stop()
    post.wait_empty(150)

    delivered, reported = collections.Counter(), collections.Counter()
    # also of those whose 250 was never seen
    ids = {key: ident for ident, key in re.findall(r"id=(\S+) to=(\S+)@there\.test", post.log_text())}
    for sender, recipients, octets in sink.messages:
        if sender == "":
            for key in set(re.findall(rb"Final-Recipient: rfc822; ?(\S+)@there\.test", octets)):
                reported[key.decode()] += 1
        else:
            key = recipients[0].split("@")[0]
            delivered[key] += 1

    print("%d acknowledged, %d refused, %d cut off; %d delivered, %d reported, %d kills" %
          (len(load.acknowledged), load.refused, load.cut, sum(delivered.values()), sum(reported.values()), KILLS), flush=True)
    assert len(load.acknowledged) >= KILLS * 5, "too little was sent to prove anything"
    lost = [key for key in load.acknowledged if not delivered[key] and not reported[key]]
    assert not lost, "acknowledged and lost: %s" % [(k, load.acknowledged[k]) for k in lost[:10]]
    wrong = [k for k in load.acknowledged if (reported if k.startswith("good") else delivered)[k]]
    assert not wrong, "delivered and refused by the receiver: %s" % wrong[:10]
    assert not any(octets_of_nobody(m) for m in sink.messages), "a message arrived damaged"

    logged = collections.Counter()  # each doubt is in the log of its time, too
    for ident, rest in re.findall(r" in_doubt id=(\S+)(.*)", post.log_text()):
        count = re.search(r" recipients=(\d+)", rest)  # of a lost attempt; the delivery node logs one recipient each
        logged[ident] += int(count.group(1)) if count else 1
    doubtful = surplus = 0
    for key, count in delivered.items():
        if count > 1:
            traces = post.tool("msg", "trace", ids[key])["traces"]
            doubts = sum(t["kind"] == "in_doubt" for t in traces)
            surplus += count - 1
            doubtful += doubts
            assert count - 1 <= doubts, "%s came %d times with %d in doubt: %s" % (key, count, doubts, traces)
            assert count - 1 <= logged[ids[key]], "%s came %d times, the log has %d in_doubt" % (key, count, logged[ids[key]])
    print("%d second copies, all of them in doubt (%d records)" % (surplus, doubtful), flush=True)
    with contextlib.suppress(FileNotFoundError):
        assert not re.search(r"check failed|store_refused|Sanitizer", post.log_text()), "see the log"
    assert post.stop() == 0
    assert_sound(post)


def assert_sound(post):
    verify = subprocess.run([os.path.join(BUILD, "posthouse"), "store", "verify", os.path.join(post.data_dir, "queue")],
                            capture_output=True, text=True, timeout=120)
    assert verify.returncode == 0, verify.stdout + verify.stderr


def octets_of_nobody(message):
    """Whether a message that is no report does not end as it was sent."""
    sender, recipients, octets = message
    if sender == "":
        return False
    key = recipients[0].split("@")[0]
    head, _, body = octets.partition(b"\r\n\r\n")
    return (b"Subject: " + key.encode()) not in head or body.strip(b"x\r\n") != b"" or not octets.endswith(b"\r\n")


def queued_and_found_after_a_kill(world):
    """What cannot be delivered is in the queue after the kill, every one, with its id."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port,
                           delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}").start()
    idents = {post.send("a@back.test", "n%d@there.test" % n) for n in range(40)}
    post.kill()
    post.start()
    assert {row["message"] for row in post.queue()} == idents
    sink.script = {}
    wait_until("all are retried and delivered", lambda: post.tool("retry", "domain:there.test") and len(sink.messages) >= 40,
               30, 0.3)
    assert sorted({m[1][0] for m in sink.messages}) == sorted("n%d@there.test" % n for n in range(40))
    post.wait_empty()


main([queued_and_found_after_a_kill, books_balance])
