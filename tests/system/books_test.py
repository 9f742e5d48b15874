#!/usr/bin/env python3
"""
Proves that the books balance: while clients load the daemon it is killed (SIGKILL) at random moments, more than fifty times, and
started again. The receiving server puts off some recipients and some messages, and refuses others for good. In the end every
message that got a 250 was delivered, or failed and reported to its sender; nothing that was delivered twice lacks an `in_doubt`
record of its own; the queue is empty; and the store was found sound (`posthouse store verify`) after every tenth kill.

The same while an operator holds, releases, deletes, bounces, reroutes, retries, suspends and resumes at random: each recipient has
one end in its history, what arrived and what was reported agree with it, nothing is reported twice, nothing arrives while it
is held, and what was confirmed was done.

The seed of the moments is printed; POSTHOUSE_SEED repeats them.
"""
import collections
import contextlib
import json
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

    def __init__(self, port, clients=CLIENTS, pause=0.01, recipients=1):
        self.port, self.stopping = port, False
        self.pause, self.recipients = pause, recipients
        self.lock = threading.Lock()
        self.acknowledged = {}  # key of the recipient -> message id
        self.index = {}  # the same -> its place in the message
        self.refused, self.cut = 0, 0
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]
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
                        time.sleep(self.pause)  # the receiving server of the test must be able to follow
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)

    def _send(self, s, key, size):
        s.mail("sender-%s@back.test" % key)
        keys = [key + "y%d" % i if i else key for i in range(self.recipients)]
        for one in keys:
            s.rcpt("%s@there.test" % one)
        code, reply = 0, b""
        try:
            code, reply = s.data(("Subject: %s\r\n\r\n" % key + ("x" * 70 + "\r\n") * (size // 72)).encode())
        finally:
            with self.lock:
                if code == 250:
                    self.acknowledged.update(dict.fromkeys(keys, id_of(reply)))
                    self.index.update((one, i) for i, one in enumerate(keys))
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


class Operator:
    """Changes what is in the queue, at random, one change after another. What the tool could not tell may or may not be done."""

    ENDS = ("delivered", "failed", "expired", "bounced", "deleted")

    def __init__(self, post, chance, route, arrived):
        self.post, self.chance, self.route, self.arrived = post, chance, route, arrived
        self.confirmed = {}  # key -> "bounced" or "deleted"
        self.held = {}  # key -> copies that had arrived when it was surely held
        self.done = collections.Counter()
        self.touched, self.moved_while_held = set(), []
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def ask(self, *words):
        """The tool's answer; None when there was none in time, or an error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run([os.path.join(BUILD, "posthouse"), "--server", self.post.rpc, "--json", *words],
                                  capture_output=True, text=True, timeout=3)
            return json.loads(done.stdout) if done.returncode == 0 else None

    def change(self, verb, filter, *options):
        if verb not in ("retry", "release"):
            options += ("--reason", "at random")
        answer = self.ask(verb, *filter, *options)
        self.done[verb] += answer["count"] if answer else 0
        return answer["count"] if answer else None

    def check_held(self):
        now = self.arrived()
        self.moved_while_held += [key for key, copies in self.held.items() if now[key] != copies]
        self.held.clear()

    def hold(self, key):
        if self.change("hold", ["to:%s@there.test" % key]) == 1:
            rows = (self.ask("queue", "list", "to:%s@there.test" % key, "state:held") or {}).get("rows", [])
            if rows:
                self.held[key] = self.arrived()[key]

    def end(self, verb, key, as_what):
        self.held.pop(key, None)
        if self.change(verb, ["to:%s@there.test" % key], "--yes") == 1:
            self.confirmed.setdefault(key, as_what)

    def _step(self, key):
        self.touched.add(key)
        verb = self.chance.choice(["hold", "hold", "hold", "hold", "release", "delete", "bounce", "reroute", "reroute", "retry", "suspend"])
        if verb == "hold":
            self.hold(key)
        elif verb == "release":
            self.check_held()
            self.change("release", ["all"])
        elif verb in ("delete", "bounce"):
            self.end(verb, key, {"delete": "deleted", "bounce": "bounced"}[verb])
        elif verb == "reroute":
            self.change("reroute", ["to:%s@there.test" % key], "--yes", "--to", self.route)
        elif verb == "retry":
            self.change("retry", ["domain:there.test"])
        else:
            self.done["suspend"] += bool(self.ask("suspend", "domain", "there.test", "--reason", "at random", "--for", "2s"))
            self.done["resume"] += bool(self.ask("resume", "domain", "there.test"))

    def _run(self):
        while not self.stopping:
            rows = (self.ask("queue", "list", "domain:there.test", "--limit", "100") or {}).get("rows", [])
            for row in self.chance.sample(rows, min(4, len(rows))):
                if not self.stopping:
                    self._step(row["recipient"].split("@")[0])

    def stop(self):
        self.stopping = True
        self.thread.join(30)


def books_balance_with_an_operator(world):
    seed = int(os.environ.get("POSTHOUSE_SEED", random.SystemRandom().randrange(1 << 32)))
    print("seed %d" % seed, flush=True)
    chance, moods = random.Random(seed), random.Random(seed + 1)

    def at_rcpt(line):
        return "550 5.1.1 no such user" if "<fail" in line else "450 4.2.0 busy" if moods.random() < 0.5 else "250 2.1.5 fine"
    sinks = [world.sink({"rcpt": at_rcpt}), world.sink({"rcpt": at_rcpt})]
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sinks[0].port,
                           delivery="retry: {first: 500ms, max: 2s, give_up: 1h, delay_notice: 0}", scheduler="shards: 2").start()

    def arrived():
        copies = collections.Counter()
        for sink in sinks:
            copies.update(r.split("@")[0] for sender, recipients, _ in list(sink.messages) if sender for r in recipients)
        return copies
    load = Load(post.port, clients=3, pause=0.05, recipients=3)
    operator = Operator(post, random.Random(seed + 2), "smtp:127.0.0.1:%d" % sinks[1].port, arrived)
    for _ in range(10):
        time.sleep(chance.uniform(0.2, 1.2))
        post.kill()
        post.start()
    load.stop()
    operator.stop()
    operator.check_held()
    if post.tool("suspensions")["rows"]:
        post.tool("resume", "domain", "there.test")
    post.tool("release", "all")

    def empty():  # what the kills left on disk would wait for its minute
        post.tool("retry", "all")
        figures = post.figures()
        return figures["queue_scanned"] == 1 and figures["queue_messages"] == 0
    wait_until("the queue is empty", empty, 60, 0.3)

    reported = collections.defaultdict(set)  # by the report's own id: one report may arrive twice, when in doubt
    for sink in sinks:
        for sender, _, octets in sink.messages:
            for key in set(re.findall(rb"Final-Recipient: rfc822; ?(\S+)@there\.test", octets)) if sender == "" else ():
                reported[key.decode()].add(re.search(rb"(?im)^message-id: *(\S+)", octets).group(1))
    copies, traces = arrived(), {}
    print("%d recipients acknowledged, %d copies, %d reported; %s" %
          (len(load.acknowledged), sum(copies.values()), len(reported), dict(operator.done)), flush=True)
    assert len(load.acknowledged) >= 100 and all(operator.done[verb] for verb in ("hold", "delete", "bounce", "reroute")), "too little"
    assert not operator.moved_while_held, "arrived while held: %s" % operator.moved_while_held[:10]
    for key, ident in load.acknowledged.items():
        if copies[key] == 1 and not reported[key] and key not in operator.touched:
            continue
        if ident not in traces:
            traces[ident] = post.tool("msg", "trace", ident)["traces"]
        kinds = [t["kind"] for t in traces[ident] if load.index[key] in t.get("recipients", ())]
        ends = [kind for kind in kinds if kind in Operator.ENDS]
        what = "%s of %s: %s, %d copies, %d reports, confirmed %s" % (
            key, ident, kinds, copies[key], len(reported[key]), operator.confirmed.get(key))
        assert len(ends) == 1, what
        assert len(reported[key]) == (ends[0] in ("failed", "expired", "bounced")), what
        assert copies[key] <= (ends[0] == "delivered") + kinds.count("in_doubt"), what
        assert copies[key] or ends[0] != "delivered", what
        assert all(after in ("released", "deleted", "bounced", "rerouted") for before, after in zip(kinds, kinds[1:])
                   if before == "held"), what
        assert operator.confirmed.get(key, ends[0]) == ends[0] or ends[0] in ("delivered", "failed"), what
    assert not re.search(r"check failed|store_refused|load_refused|Sanitizer", post.log_text()), "see the log"
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


main([queued_and_found_after_a_kill, books_balance_with_an_operator, books_balance])
