#!/usr/bin/env python3
"""
Proves the operator's face in depth: every kind of mistake in the settings by file, line and exit status 78; what a reload brings into
force and what it refuses; a drain with sessions at every stage, with nothing lost over the restart; root given up for good; every
term of the filters; and what the tool prints as text and as JSON.
"""
import contextlib
import json
import os
import pwd
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, Posthouse, check, free_port, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
LATER = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
USAGE, DATA, NO_INPUT, UNAVAILABLE, CONFIG = 64, 65, 66, 69, 78

# The text; the line and the key or word that are named.
MISTAKES = (
    ("node:\n  hostname: a.test\n  hostnam: b.test\n", 3, "node.hostnam: unknown key"),
    ("node:\n  hostname: a.test\ngateway:\n  limits:\n    recipient: 100\n", 5, "gateway.limits.recipient: unknown key"),
    ("node:\n  hostname: a.test\n  log: {level: loud}\n", 3, "node.log.level"),
    ("node:\n  hostname: a.test\n  roles: [gateway, butler]\n", 3, "node.roles"),
    ("node:\n  hostname: \"not a name\"\n", 2, "node.hostname"),
    ("node:\n  hostname: a.test\n  data_dir: here/and/there\n", 3, "node.data_dir"),
    ("node:\n  hostname: a.test\n  postmaster: \"@\"\n", 3, "node.postmaster"),
    ("node:\n  hostname: a.test\ngateway:\n  limits:\n    message_size: 12 apples\n", 5, "message_size"),
    ("node:\n  hostname: a.test\ngateway:\n  limits:\n    recipients: 0\n", 5, "recipients"),
    ("node:\n  hostname: a.test\ngateway:\n  limits:\n    idle: 5\n", 5, "idle"),
    ("node:\n  hostname: a.test\ngateway:\n  vrfy: perhaps\n", 4, "vrfy"),
    ("node:\n  hostname: a.test\ngateway:\n  bare_newline: pass\n", 4, "bare_newline"),
    ("node:\n  hostname: a.test\ngateway:\n  listen:\n    - {address: \"127.0.0.1:70000\"}\n", 5, "address"),
    ("node:\n  hostname: a.test\ngateway:\n  trusted_networks: [10.0.0.0/40]\n", 4, "trusted_networks"),
    ("node:\n  hostname: a.test\ndelivery:\n  port: 99999\n", 4, "port"),
    ("node:\n  hostname: a.test\ndelivery:\n  retry: {first: 2h, max: 1h}\n", 4, "delivery.retry"),
    ("node:\n  hostname: a.test\nroutes:\n  - {domain: b.test, route: \"carrier-pigeon:x\"}\n", 4, "route"),
    ("node:\n  hostname: a.test\nroutes:\n  - {domain: b.test, route: mx, colour: red}\n", 4, "colour"),
    ("node:\n  hostname: a.test\ndomains:\n  - {name: b.test, route: mx}\n", 4, "recipients"),
    ("node:\n  hostname: a.test\ndomains:\n  - {name: b.test, recipients: any, route: mx}\n  - {name: B.TEST, recipients: any, route: mx}\n",
     5, "b.test"),
    ("node:\n  hostname: a.test\n  hostname: b.test\n", 3, "hostname"),
    ("node:\n  hostname: a.test\nnode:\n  name: x\n", 3, "node"),
    ("node:\n  hostname: a.test\ngateway:\n  tls: {certificate: c.pem, key: k.pem}\n", 4, "gateway.tls.certificate"),
    ("node:\n  hostname: a.test\ncluster:\n  name: west\n", 3, "not supported by this version"),
    ("node:\n  hostname: a.test\nadmin:\n  rpc: \"tcp://127.0.0.1:1\"\n", 4, "admin.rpc: tcp:// needs admin.key"),
    ("node:\n  hostname: a.test\n\tname: x\n", 3, ""),
    ("node:\n  - hostname\n", 1, "node"),
    ("node:\n  hostname: a.test\ndomains:\n  - {name: b.test, recipients: {table: absent.txt}, route: mx}\n", None, "absent.txt"),
)


def daemon(*words):
    return subprocess.run([os.path.join(BUILD, "posthoused")] + list(words), capture_output=True, text=True, timeout=30)


def each_mistake_by_file_and_line(world):
    for text, line, words in MISTAKES:
        path = world.file("wrong.yaml", text)
        done = daemon("--config", path, "--check")
        assert done.returncode == CONFIG, (text, done)
        named = done.stderr
        place = "%s:%s" % (path, "" if line is None else "%d" % line)
        assert any(l.startswith(place) and words in l for l in named.splitlines()) or (line is None and words in named), (text, line, words, named)
        started = daemon("--config", path)  # and it does not start with them
        assert started.returncode == CONFIG, (text, started)
    everything = "node:\n  hostname: a.test\n  one: 1\ngateway:\n  two: 2\n  limits: {idle: soon}\n"
    named = daemon("--config", world.file("wrong.yaml", everything), "--check").stderr
    for place in (":3", ":5", ":6"):
        assert "wrong.yaml" + place in named, named
    table = world.file("table.txt", "alice\nnot an address@\n")
    done = daemon("--config", world.file("wrong.yaml", "node: {hostname: a.test}\ndomains:\n  - {name: b.test, recipients: {table: %s}, "
                                         "route: mx}\n" % table), "--check")
    assert done.returncode == CONFIG and "table.txt:2" in done.stderr, done


def little_is_enough(world):
    done = daemon("--config", world.file("good.yaml", "node: {hostname: mx1.example.net}\n"), "--check")
    assert done.returncode == 0 and not done.stderr, done
    assert daemon("--config", os.path.join(world.directory, "absent.yaml"), "--check").returncode == NO_INPUT
    for words in (["--nonsense"], ["extra"], ["--config"]):
        done = daemon(*words)
        assert done.returncode == USAGE and "usage" in done.stderr, (words, done)
    assert daemon("--version").returncode == 0 and daemon("--help").returncode == 0
    assert "gateway.limits.recipients" in daemon("--print-settings-reference").stdout


def size_offered(post):
    with post.smtp() as s:
        s.ehlo()
        return int(s.esmtp_features["size"])


def reloaded(post, what="reloaded"):
    count = post.log_text().count(" " + what)
    post.reload()
    wait_until("the settings are read", lambda: post.log_text().count(" " + what) > count, 15)


def reload_brings_limits_and_routes(world):
    one, two = world.sink(), world.sink()
    post = world.posthouse(extra=ROUTES % one.port, gateway="limits: {message_size: 1MiB}").start()
    post.send("", "a@there.test")
    one.wait(1)
    assert size_offered(post) == 1 << 20
    with post.smtp() as old:  # a session over the reload
        old.ehlo()
        check(old.mail(""), 250)
        post.write_settings(extra=ROUTES % two.port, gateway="limits: {message_size: 2MiB, connections_per_client: 2, recipients: 101}",
                            delivery=LATER)
        reloaded(post)
        assert size_offered(post) == 2 << 20
        check(old.rcpt("b@there.test"), 250)
        check(old.data(b"Subject: x\r\n\r\nx\r\n"), 250)
        two.wait(1)
        with post.smtp() as s:
            with contextlib.suppress(smtplib.SMTPException), post.smtp():
                raise AssertionError("a third connection was taken")
            s.ehlo()
            check(s.mail("a@client.test"), 250)
            codes = [s.rcpt("r%d@there.test" % n)[0] for n in range(103)]
            assert codes == [250] * 101 + [452] * 2, codes[98:]
            s.rset()
    assert len(one.messages) == 1
    # the timetable, too
    two.script = {"mail": "451 4.3.0 later"}
    ident = post.send("", "c@there.test")
    wait_until("deferred", lambda: post.queue("id:" + ident, "state:deferred"))
    row = post.queue("id:" + ident)[0]
    assert row["due_ms"] - row["received_ms"] > 50 * 60 * 1000, row


def a_broken_file_changes_nothing(world):
    one, two = world.sink(), world.sink()
    post = world.posthouse(extra=ROUTES % one.port, gateway="limits: {message_size: 1MiB}").start()
    for n, (wrong, words) in enumerate((("nonsense: 1\n", "nonsense"), ("routes: [\n", ""),
                                        ("domains:\n  - {name: x.test, recipients: {table: absent.txt}, route: mx}\n", "absent.txt"))):
        post.write_settings(extra=(ROUTES % two.port if n != 1 else "") + wrong, gateway="limits: {message_size: 2MiB}")
        reloaded(post, "error reload_refused")
        problem = [l for l in post.log_text().splitlines() if "settings_problem" in l][-1]
        assert words in problem and ("absent" in words or re.search(r"posthouse\.yaml:\d+", problem)), problem
        post.send("", "n%d@there.test" % n)
        one.wait(n + 1)
        assert size_offered(post) == 1 << 20
    os.unlink(post.config)
    reloaded(post, "error reload_refused")
    post.send("", "absent@there.test")
    one.wait(4)
    assert not two.messages
    post.write_settings(extra=ROUTES % two.port)
    reloaded(post)
    post.send("", "mended@there.test")
    two.wait(1)


def what_a_reload_cannot_change_stays(world):
    """A listener that is only in the file is not ours yet, and the one that we have still is."""
    post = world.posthouse().start()
    own = post.port
    post.port = free_port()
    post.write_settings(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % own)
    post.port = own
    reloaded(post)
    assert "restart_needed" in post.log_text()
    ident = post.send("", "x@there.test")
    found = wait_until("an outcome", lambda: [t for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] in ("failed", "deferred", "delivered")])
    assert found[0]["kind"] == "failed" and found[0]["result"]["enhanced"] == "5.4.6", found
    assert post.figures()["smtp_sessions_total"] == 1, "we delivered to ourselves"


def tables_are_read_again(world):
    sink = world.sink()
    table = world.file("recipients.txt", "alice\n")
    post = world.posthouse(extra="domains:\n  - {name: our.test, recipients: {table: %s}, route: \"smtp:127.0.0.1:%d\"}\n" %
                           (table, sink.port)).start()

    def code(name):
        return post.tool("verify", name + "@our.test")["code"]
    assert (code("alice"), code("bob")) == (250, 550)
    world.file("recipients.txt.new", "bob\nteam: bob, carol@elsewhere.test\n")
    os.rename(table + ".new", table)  # as an editor or a cron job replaces it
    wait_until("the new table", lambda: (code("alice"), code("bob")) == (550, 250), 15, 0.1)
    world.file("recipients.txt", "bob\nbroken line @@@\n")
    wait_until("the mistake is named", lambda: "recipients.txt:2" in post.log_text(), 15, 0.1)
    assert (code("alice"), code("bob"), code("team")) == (550, 250, 250), "a broken table took the old one away"
    os.unlink(table)
    time.sleep(1)
    assert code("bob") == 250
    world.file("recipients.txt", "alice\n")
    wait_until("the table is back", lambda: (code("alice"), code("bob")) == (250, 550), 15, 0.1)


class Raw:
    """One session by hand."""

    def __init__(self, port, lines=()):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.socket.makefile("rb")
        assert self.reply().startswith(b"220")
        for line in lines:
            self.say(line)

    def reply(self):
        while True:
            line = self.file.readline()
            if line[3:4] != b"-":
                return line

    def say(self, line):
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


OPENING = [b"EHLO client.test", b"MAIL FROM:<a@client.test>"]


def drain_with_sessions_at_every_stage(world):
    slow = world.sink({"dot": lambda argument: time.sleep(1.5) or "250 2.0.0 taken"})
    busy = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra="routes:\n  - {domain: slow.test, route: \"smtp:127.0.0.1:%d\"}\n"
                           "  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % (slow.port, busy.port), delivery=LATER).start()
    kept = post.send("", "before@there.test")
    wait_until("deferred", lambda: post.queue("state:deferred"))
    sessions = {
        "greeted": Raw(post.port), "ehlo": Raw(post.port, OPENING[:1]), "mail": Raw(post.port, OPENING),
        "rcpt": Raw(post.port, OPENING + [b"RCPT TO:<lost@there.test>"]),
    }
    data = Raw(post.port, OPENING + [b"RCPT TO:<data@there.test>", b"DATA"])
    data.socket.sendall(b"Subject: under way\r\n\r\nhalf")
    chunk = Raw(post.port, OPENING + [b"RCPT TO:<chunk@there.test>"])
    chunk.socket.sendall(b"BDAT 20 LAST\r\nhalf of it\r\n")
    under_way = post.send("", "job@slow.test")
    post.process.send_signal(signal.SIGTERM)
    wait_until("the drain", lambda: " drain " in post.log_text())
    for name, session in sessions.items():
        reply = session.say(b"RCPT TO:<late@there.test>" if name == "mail" else b"DATA" if name == "rcpt" else b"NOOP")
        assert reply.startswith(b"421"), (name, reply)
        assert session.reply() == b"", name
        session.close()
    with contextlib.suppress(OSError):
        with socket.create_connection(("127.0.0.1", post.port), 5) as s:
            assert s.recv(3) in (b"421", b"")
    time.sleep(0.5)
    assert post.process.poll() is None, "it did not wait for the transaction"
    data.socket.sendall(b" and half\r\n.\r\n")
    assert data.reply().startswith(b"250"), "the transaction under way"
    chunk.socket.sendall(b"and half")
    assert chunk.reply().startswith(b"250"), "the chunk under way"
    for session in (data, chunk):
        # What comes after the reply is 421 or the end.
        with contextlib.suppress(OSError):
            assert session.say(b"NOOP")[:3] in (b"421", b"")
        session.close()
    assert post.process.wait(60) == 0, post.process.returncode
    post.log_file.close()
    assert len(slow.messages) == 1, "the job under way was not finished"
    post.start()
    rows = {r["recipient"].split("@")[0]: r for r in wait_until("the queue is read", lambda: len(post.queue()) >= 3 and post.queue())}
    assert set(rows) == {"before", "data", "chunk"}, rows
    assert rows["before"]["message"] == kept
    assert [t["kind"] for t in post.tool("msg", "trace", under_way)["traces"]].count("delivered") == 1
    busy.script = {}
    # What came while draining has its first attempt at the start, which may still meet the old answer.
    wait_until("all are delivered", lambda: post.tool("retry", "domain:there.test") and len(busy.messages) >= 3, 30, 0.3)
    post.wait_empty()
    assert len(busy.messages) == 3 and len(slow.messages) == 1
    assert any(b"half and half" in m[2] for m in busy.messages)


def drain_under_load_loses_nothing(world):
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port).start()
    taken, lock = [], threading.Lock()

    def client(number):
        for n in range(10000):
            name = "c%d-%d" % (number, n)
            try:
                post.send("a@client.test", name + "@there.test")
            except (smtplib.SMTPException, OSError, AssertionError):
                return
            with lock:
                taken.append(name)
    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert post.stop() == 0
    for thread in threads:
        thread.join(30)
    assert len(taken) > 50, len(taken)
    post.start()
    post.wait_empty()
    arrived = [r.split("@")[0] for m in sink.messages for r in m[1]]
    lost = set(taken) - set(arrived)
    assert not lost, "%d acknowledged and lost" % len(lost)
    assert len(arrived) == len(set(arrived)), "%d twice" % (len(arrived) - len(set(arrived)))


def second_instance_is_refused(world):
    """Also with ports and endpoint of its own; and the first goes on."""
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port).start()
    os.makedirs(os.path.join(world.directory, "second"))
    other = Posthouse(os.path.join(world.directory, "second"), data_dir=post.data_dir)
    other.start(wait=False)
    try:
        status = other.process.wait(20)
        log = other.log_text()
        assert status == 74 and "store_refused" in log and post.data_dir in log, (status, log)
    finally:
        if other.process.poll() is None:
            other.kill()
    post.send("", "x@there.test")
    sink.wait(1)
    same = daemon("--config", post.config)  # the very same: what is taken is named
    assert same.returncode == UNAVAILABLE and post.rpc in same.stderr, same
    post.send("", "y@there.test")
    sink.wait(2)


def root_is_given_up(world):
    if os.geteuid() != 0:
        print("left out: needs root")
        return
    user = pwd.getpwnam("nobody")
    os.chmod(world.directory, 0o755)
    sink = world.sink({"rcpt": ["450 4.2.0 busy", "250 fine"]})
    table = world.file("recipients.txt", "alice\n")
    os.chmod(table, 0o644)
    post = world.posthouse(extra="domains:\n  - {name: our.test, recipients: {table: %s}, route: \"smtp:127.0.0.1:%d\"}\n" %
                           (table, sink.port) + ROUTES % sink.port)
    post.rpc = "ipc://" + os.path.join(world.directory, "run", "admin")
    post.write_settings(extra="domains:\n  - {name: our.test, recipients: {table: %s}, route: \"smtp:127.0.0.1:%d\"}\n" %
                        (table, sink.port) + ROUTES % sink.port)
    with open(post.config) as f:
        text = f.read()
    post.port = low = next(p for p in range(600, 1023) if can_bind(p))  # a port that only root can bind
    with open(post.config, "w") as f:
        f.write(re.sub(r"127\.0\.0\.1:\d+\"\}\n", "127.0.0.1:%d\"}\n" % low, text, count=1).replace("user: root", "user: nobody"))
    os.chmod(post.config, 0o644)
    post.start()
    status = {}
    for thread in os.listdir("/proc/%d/task" % post.process.pid):
        with open("/proc/%d/task/%s/status" % (post.process.pid, thread)) as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        assert status["Uid"].split() == [str(user.pw_uid)] * 4, (thread, status["Uid"])
        assert status["Gid"].split() == [str(user.pw_gid)] * 4, (thread, status["Gid"])
        assert "0" not in status["Groups"].split(), status["Groups"]
        for caps in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[caps], 16) == 0, (thread, caps, status[caps])
    with open("/proc/%d/limits" % post.process.pid) as f:
        assert re.search(r"Max core file size\s+0\s+0", f.read())
    data = os.stat(post.data_dir)
    assert data.st_uid == user.pw_uid and data.st_mode & 0o777 == 0o700, oct(data.st_mode)
    for directory, _, files in os.walk(post.data_dir):
        for name in files:
            found = os.stat(os.path.join(directory, name))
            assert found.st_uid == user.pw_uid and not found.st_mode & 0o077, (name, oct(found.st_mode))
    assert os.stat(post.rpc[6:]).st_mode & 0o077 == 0, "anybody may talk to the admin socket"
    post.send("", "alice@our.test")
    sink.wait(1)
    world.file("recipients.txt", "bob\n")
    wait_until("the table is read again", lambda: post.tool("verify", "bob@our.test")["code"] == 250, 15, 0.1)
    reloaded(post)
    assert post.stop() == 0


def can_bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def an_unknown_user_is_no_start(world):
    if os.geteuid() != 0:
        return
    post = world.posthouse()
    with open(post.config) as f:
        text = f.read()
    done = daemon("--config", world.file("user.yaml", text.replace("user: root", "user: no-such-user")))
    assert done.returncode == 77 and "no-such-user" in done.stderr, done
    assert not os.path.exists(post.data_dir)
    os.symlink("/tmp", post.data_dir)
    done = daemon("--config", post.config)
    assert done.returncode == 77 and "symbolic link" in done.stderr, done


def every_term_of_the_filters(world):
    sink = world.sink({"rcpt": "450 4.2.0 busy"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    one = post.send("Ann@one.test", ["x@there.test", "y@sub.there.test"])
    two = post.send("", "X@there.test")
    odd = post.send("b@two.test", "\"odd name\"@there.test")
    wait_until("all deferred", lambda: len(post.queue("state:deferred")) == 4)

    def found(*words):
        return sorted((r["message"], r["index"]) for r in post.queue(*words))
    rows = {"x": (one, 0), "sub": (one, 1), "null": (two, 0), "odd": (odd, 0)}
    for words, names in ((("",), "x sub null odd"), (("to:x@there.test",), "x null"), (("to:@there.test",), "x null odd"),
                         (("to:@sub.there.test",), "sub"), (("from:ann@one.test",), "x sub"), (("from:@one.test",), "x sub"),
                         (("from:<>",), "null"), (("domain:there.test",), "x null odd"), (("domain:THERE.test",), "x null odd"),
                         (("domain:.there.test",), "sub"), (("domain:.test",), "x sub null odd"), (("id:" + one,), "x sub"), (("id:" + one.lower(),), "x sub"),
                         (("state:deferred",), "x sub null odd"), (("state:ready",), ""), (("older:1h",), ""),
                         (("older:1ms",), "x sub null odd"), (("to:@there.test", "from:<>"), "null"),
                         (("to:@there.test from:<>",), "null"), (("to:\"odd name\"@there.test",), "odd"),
                         (("to:\"x@there.test\"",), "x null"), (("to:\"odd name\"@there.test from:b@two.test",), "odd"),
                         (("domain:elsewhere.test",), "")):
        want = sorted(rows[n] for n in names.split())
        assert found(*words) == want, (words, names, found(*words))
        if words[0] and want:
            assert post.tool("retry", *words, "--dry-run")["count"] == len(want), words
    for wrong in ("nocolon", "to:", "older:", "older:x", "state:purple", "id:short", "id:" + "U" * 13, "colour:red", "domain:", ":",
                  " ".join("state:ready" for _ in range(17)), "to:\"open"):
        for verb in (("queue", "list"), ("queue", "summary"), ("retry",)):
            done = post.tool(*verb, wrong, ok=False)
            assert done.returncode == DATA and done.stderr.startswith("posthouse: "), (verb, wrong, done)
    assert post.tool("retry", "older:1h")["count"] == 0
    assert len(post.queue("state:deferred")) == 4


def text_and_json_say_the_same(world):
    sink = world.sink({"rcpt": lambda line: "550 5.1.1 no such user" if "never" in line else "450 4.2.0 busy"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    ident = post.send("", ["later@there.test", "never@there.test"])
    wait_until("judged", lambda: [r for r in post.queue() if r["state"] == "deferred"] and
               "failed" in [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]])
    for words, parts in ((["status"], ["t1", "1 messages", "1 deferrals", "1 failed", "healthy"]),
                         (["queue", "list"], [ident, "deferred", "<> -> <later@there.test>", "450 4.2.0 busy", "1 recipient"]),
                         (["queue", "summary"], ["there.test", "1 in all"]),
                         (["msg", "show", ident], [ident, "later@there.test", "never@there.test", "after 1 attempt"]),
                         (["msg", "trace", ident], ["accepted", "deferred", "failed", "no_report", "550 5.1.1 no such user"]),
                         (["msg", "why", ident], ["later@there.test", "deferred", "busy"]),
                         (["route", "x@there.test"], ["127.0.0.1", str(sink.port), "*"]),
                         (["verify", "x@there.test"], ["550 5.7.1 "]), (["verify", "x@there.test", "--from", "127.0.0.1"], ["250 2."]),
                         (["retry", "id:" + ident, "--dry-run"], ["1 recipient would be retried now"])):
        text = post.tool(*words, text=True)
        for part in parts:
            assert part in text, (words, part, text)
        assert re.fullmatch(r"[\x20-\x7e\n]*", text) and text.endswith("\n"), (words, text)
        done = post.tool(*words, ok=False)  # with --json
        assert done.returncode == 0 and not done.stderr and isinstance(json.loads(done.stdout), dict), (words, done)
    for words, status in ((["msg", "show", "0000000000000"], NO_INPUT), (["queue", "list", "no:such"], DATA), (["nonsense"], USAGE)):
        done = post.tool(*words, ok=False)
        assert done.returncode == status and not done.stdout and done.stderr.count("\n") >= 1, (words, done)
    far = subprocess.run([os.path.join(BUILD, "posthouse"), "--server", "ipc://%s/nobody" % world.directory, "status"],
                         capture_output=True, text=True, timeout=60)
    assert far.returncode == UNAVAILABLE and "nobody" in far.stderr and not far.stdout, far
    by_environment = subprocess.run([os.path.join(BUILD, "posthouse"), "status"], capture_output=True, text=True, timeout=60,
                                    env=dict(os.environ, POSTHOUSE_SERVER=post.rpc))
    assert by_environment.returncode == 0 and "t1" in by_environment.stdout, by_environment
    with open("/dev/full", "w") as full:
        done = subprocess.run([os.path.join(BUILD, "posthouse"), "--server", post.rpc, "status"], stdout=full,
                              stderr=subprocess.PIPE, timeout=60)
    assert done.returncode != 0, "output that was not written is no success"


main([each_mistake_by_file_and_line, little_is_enough, reload_brings_limits_and_routes, a_broken_file_changes_nothing,
      what_a_reload_cannot_change_stays, tables_are_read_again, drain_with_sessions_at_every_stage, drain_under_load_loses_nothing,
      second_instance_is_refused, root_is_given_up, an_unknown_user_is_no_start, every_term_of_the_filters,
      text_and_json_say_the_same])
