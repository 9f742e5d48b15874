#!/usr/bin/env python3
"""
Proves what an operator relies on: wrong settings are refused by file and line, a reload takes all or nothing, SIGTERM drains and
ends with status 0, every verb of the tool answers as text and as JSON with the exit status of sysexits.h, and hostile octets never
reach a terminal or a log as they are.
"""
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, World, check, free_port, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
NEVER_AGAIN = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
USAGE, DATA, NO_INPUT, UNAVAILABLE = 64, 65, 66, 69


def daemon(*words):
    return subprocess.run([os.path.join(BUILD, "posthoused")] + list(words), capture_output=True, text=True, timeout=30)


def wrong_settings_are_named(world):
    for text, line, words in (("node: {hostname: a.test}\nnonsense: 1\n", 2, "nonsense"),
                              ("node:\n  hostname: a.test\n  log: {level: loud}\n", 3, "level"),
                              ("node:\n  hostname: a.test\ngateway:\n  listen:\n    - {address: \"no.address\"}\n", 5, "address"),
                              ("node: {hostname: a.test}\ndelivery: {retry: {first: 5}}\n", 2, "first"),
                              ("node: {hostname: a.test}\ngateway: {limits: {message_size: 12 apples}}\n", 2, "message_size"),
                              ("node: {hostname: a.test}\ncluster: {name: west}\n", 2, "cluster"),
                              ("node: {hostname: a.test\n", 2, "")):
        path = world.file("wrong.yaml", text)
        done = daemon("--config", path, "--check")
        assert done.returncode not in (0, 64) and done.returncode < 128, (text, done)
        message = done.stdout + done.stderr
        assert any("wrong.yaml:%d" % n in message for n in (line, line + 1) if n == line or not words), (text, message)
        assert words in message, (text, message)
    done = daemon("--config", world.file("good.yaml", "node: {hostname: mx1.example.net}\n"), "--check")
    assert done.returncode == 0, done
    done = daemon("--config", os.path.join(world.directory, "absent.yaml"), "--check")
    assert done.returncode != 0 and "absent.yaml" in done.stderr, done


def reload_takes_all_or_nothing(world):
    sink = world.sink()
    table = world.file("recipients.txt", "alice\n")
    domain = "domains:\n  - {name: %s, recipients: {table: " + table + "}, route: \"smtp:127.0.0.1:" + str(sink.port) + "\"}\n"
    post = world.posthouse(extra=domain % "one.test").start()
    assert post.tool("verify", "alice@one.test")["code"] == 250
    post.write_settings(extra=domain % "two.test")
    post.reload()
    wait_until("the new domain", lambda: "our" not in post.tool("verify", "bob@one.test")["text"]
               and post.tool("verify", "bob@two.test", "--from", "192.0.2.1")["code"] == 550, 15, 0.1)
    post.write_settings(extra=domain % "three.test" + "nonsense: 1\n")
    post.reload()
    wait_until("the error is logged with its place", lambda: "posthouse.yaml:" in post.log_text()
               and "nonsense" in post.log_text(), 15, 0.1)
    assert post.tool("verify", "alice@two.test", "--from", "192.0.2.1")["code"] == 250
    assert post.tool("verify", "alice@three.test", "--from", "192.0.2.1")["code"] == 550
    post.send("a@client.test", "alice@two.test")
    sink.wait(1)


def term_drains(world):
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port).start()
    with socket.create_connection(("127.0.0.1", post.port), 20) as s, s.makefile("rb") as f:
        f.readline()
        for line in (b"HELO client.test\r\n", b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<b@there.test>\r\n", b"DATA\r\n"):
            s.sendall(line)
            assert f.readline()[:1] in b"23"
        s.sendall(b"Subject: under way\r\n\r\nhalf")
        post.process.send_signal(signal.SIGTERM)
        wait_until("no new connection", lambda: refused(post.port), 10)
        s.sendall(b" and half\r\n.\r\n")
        reply = f.readline()
        assert reply.startswith((b"250", b"421")), reply
        s.sendall(b"NOOP\r\n")
        assert f.readline()[:3] in (b"421", b""), "a command after the drain began"
    assert post.process.wait(60) == 0
    post.log_file.close()
    if reply.startswith(b"250"):
        if not sink.messages:
            post.start()
        assert len(sink.wait(1)) == 1, "acknowledged while draining, and lost"


def refused(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.settimeout(2)
            return s.recv(3) in (b"421", b"")
    except OSError:
        return True


def every_verb_answers(world):
    sink = world.sink({"rcpt": "450 4.2.0 mailbox busy"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=NEVER_AGAIN).start()
    ident = post.send("a@client.test", ["b@there.test", "c@elsewhere.test"])
    wait_until("both deferred", lambda: len(post.queue("state:deferred")) == 2)
    row = post.queue("to:b@there.test")[0]
    assert (row["message"], row["sender"], row["attempts"]) == (ident, "a@client.test", 1), row
    assert len(post.queue("domain:there.test", "state:deferred")) == 1 and not post.queue("older:1h")
    assert len(post.tool("queue", "list", "--limit", "1")["rows"]) == 1
    assert {r["destination"]: r["count"] for r in post.tool("queue", "summary")["rows"]} == {"there.test": 1, "elsewhere.test": 1}
    assert post.tool("msg", "show", ident)["envelope"]["sender"] == "a@client.test"
    assert "busy" in post.tool("msg", "why", ident)["text"]
    assert post.tool("msg", "show", ident.lower())["message"] == ident
    assert post.tool("retry", "to:b@there.test", "--dry-run")["count"] == 1
    assert len(post.queue("state:deferred")) == 2
    for words in (["status"], ["queue", "list"], ["queue", "summary"], ["msg", "show", ident], ["msg", "trace", ident],
                  ["msg", "why", ident], ["route", "b@there.test"], ["verify", "b@there.test"], ["retry", "id:" + ident, "--dry-run"],
                  ["version"], ["help"]):
        text = post.tool(*words, text=True)
        assert text.strip() and "\x1b" not in text, (words, text)


def exit_statuses(world):
    post = world.posthouse().start()
    for words, status in ((["nonsense"], USAGE), ([], USAGE), (["queue"], USAGE), (["msg", "show"], USAGE), (["--wrong"], USAGE),
                          (["queue", "list", "--limit", "no"], USAGE), (["retry"], USAGE), (["queue", "list", "no:such"], DATA),
                          (["queue", "list", "older:soon"], DATA), (["msg", "show", "short"], DATA),
                          (["route", "not an address"], DATA), (["msg", "show", "0000000000000"], NO_INPUT),
                          (["msg", "trace", "0000000000001"], NO_INPUT),
                          (["store", "verify", world.directory + "/absent"], NO_INPUT)):
        done = post.tool(*words, ok=False)
        assert done.returncode == status, (words, status, done)
        assert done.stderr.strip(), (words, "says nothing")
    in_use = post.tool("store", "verify", os.path.join(post.data_dir, "queue"), ok=False)
    assert in_use.returncode != 0, in_use
    assert post.stop() == 0
    start = time.monotonic()
    done = post.tool("status", ok=False)
    assert done.returncode == UNAVAILABLE and post.rpc.removeprefix("ipc://") in done.stderr, done
    assert time.monotonic() - start < 15
    done = post.tool("store", "verify", os.path.join(post.data_dir, "queue"))
    assert done == {"messages": 0, "problems": 0}, done


def hostile_octets_stay_inside(world):
    """A remote server's reply, HELO and addresses with ESC, C1 and bidi controls: escaped in tool and log."""
    bad = "\x1b[31mred\x9b31m\u202e"
    sink = world.sink({"rcpt": b"450 4.2.0 " + bad.encode() + b"\xff\r\n"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=NEVER_AGAIN).start()
    with socket.create_connection(("127.0.0.1", post.port), 20) as s, s.makefile("rb") as f:
        f.readline()
        s.sendall(b"HELO \x1b]0;title\x07.test\r\n")
        f.readline()
        s.sendall(b"HELO client.test\r\n")
        f.readline()
    ident = post.send("a@client.test", "`id`|sh${run{id}}@there.test")
    wait_until("deferred", lambda: post.queue("state:deferred"))
    for words in (["queue", "list"], ["msg", "why", ident], ["msg", "trace", ident], ["msg", "show", ident], ["--json", "msg", "trace", ident]):
        text = post.tool(*words, text=True)
        for octet in ("\x1b", "\x9b", "\u202e", "\x07"):
            assert octet not in text, (words, text)
    log = post.log_bytes()
    for octets in (b"\x1b", "\x9b".encode(), "\u202e".encode(), b"\x07"):
        assert octets not in log, octets
    assert sink.commands and any("`id`" in argument for stage, argument in sink.commands if stage == "rcpt")


def second_daemon_is_refused(world):
    """Two daemons on one store would lose mail: the second one says so and ends."""
    post = world.posthouse().start()
    with open(post.config) as f:
        text = f.read()
    other = world.file("other.yaml", text.replace(":%d\"" % post.port, ":%d\"" % free_port()).replace("/admin\"", "/admin2\""))
    process = subprocess.Popen([os.path.join(BUILD, "posthoused"), "--config", other], stderr=subprocess.PIPE, text=True)
    try:
        _, log = process.communicate(timeout=5)
        assert process.returncode != 0 and "use" in log, log
    except subprocess.TimeoutExpired:  # it may stay up to answer 451, but never accepts
        try:
            with smtplib.SMTP("127.0.0.1", int(other_port(other)), timeout=10) as s:
                s.ehlo()
                s.mail("a@client.test")
                assert s.rcpt("b@there.test")[0] == 451 or s.data(b"x\r\n")[0] == 451
        finally:
            process.kill()
            process.communicate()
    post.send("a@client.test", "b@there.test")


def other_port(path):
    with open(path) as f:
        return f.read().split("127.0.0.1:")[1].split('"')[0]


def look_alikes_are_one_domain(world):
    """A U-label in the settings is the A-label on the wire."""
    sink = world.sink()
    table = world.file("recipients.txt", "alice\n")
    post = world.posthouse(extra="domains:\n  - {name: \"b\u00fccher.test\", recipients: {table: %s}, route: \"smtp:127.0.0.1:%d\"}\n"
                           % (table, sink.port), gateway="trusted_networks: []").start()
    with post.smtp() as s:
        s.ehlo()
        check(s.mail("a@client.test"), 250)
        check(s.rcpt("alice@xn--bcher-kva.test"), 250)
        check(s.rcpt("alice@XN--BCHER-KVA.TEST"), 250)
        check(s.rcpt("bob@xn--bcher-kva.test"), 550)
    assert json.dumps(post.tool("verify", "alice@xn--bcher-kva.test"))


main([wrong_settings_are_named, reload_takes_all_or_nothing, term_drains, every_verb_answers, exit_statuses,
      hostile_octets_stay_inside, second_daemon_is_refused, look_alikes_are_one_domain])
