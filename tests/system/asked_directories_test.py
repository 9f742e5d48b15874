#!/usr/bin/env python3
"""
Proves the directories that are asked, and the compiled table, in the running daemon: what they know is accepted, what they do not
know is refused with 550, what cannot be known gets 451 while other domains go on, and the daemon recovers when the
server behind it does. A compiled table that is replaced is seen without a restart.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, free_port, main, wait_until

SUPPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support")
DOMAINS = """domains:
  - {name: cdb.test, route: "smtp:127.0.0.1:9", recipients: {cdb: %s}}
  - {name: http.test, route: "smtp:127.0.0.1:9",
     recipients: {http: {uri: "http://127.0.0.1:%d/directory", timeout: 2s, breaker: 200ms}}}
  - {name: callout.test, route: "smtp:127.0.0.1:9",
     recipients: {callout: {uri: "smtp:127.0.0.1:%d", timeout: 2s, breaker: 200ms}}}
"""


class Server:
    def __init__(self, name, port, *words):
        command = [sys.executable, os.path.join(SUPPORT, name), "--port", str(port)] + list(words)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "port %d\n" % port

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def verdicts(post, expected):
    with post.smtp() as s:
        s.ehlo()
        assert s.mail("")[0] == 250
        for address, code in expected.items():
            got = s.rcpt(address)
            assert got[0] == code, (address, code, got)


def build(world, text):
    source, target = world.file("recipients.txt", text), os.path.join(world.directory, "recipients.cdb")
    subprocess.run([os.path.join(BUILD, "posthouse"), "table", "build", source, target], check=True, stdout=subprocess.DEVNULL)
    return target


def they_are_asked(world):
    http_port, callout_port = free_port(), free_port()
    http, callout = Server("http_server.py", http_port), Server("mailbox_server.py", callout_port)
    try:
        table = build(world, "alice\nlist: alice, bob@cdb.test\nbob\n")
        post = world.posthouse(gateway='slow: {mode: "off"}', extra=DOMAINS % (table, http_port, callout_port)).start()
        known = {"alice@cdb.test": 250, "list@cdb.test": 250, "alice+tag@cdb.test": 250, "carol@cdb.test": 550}
        verdicts(post, {**known, "box@http.test": 250, "keep@http.test": 250, "nobody@http.test": 550, "missing@http.test": 550,
                        "broken@http.test": 451, "malformed@http.test": 451, "box@callout.test": 250, "nobody@callout.test": 550,
                        "later@callout.test": 451})
        steps = post.tool("verify", "nobody@callout.test", "--from", "192.0.2.1", text=True)
        assert "550 5.1.1 no such user" in steps, steps
        http.stop()
        callout.stop()
        verdicts(post, {"alias@http.test": 451, **known, "box2@callout.test": 451, "none@callout.test": 451,
                        "box@http.test": 250, "box@callout.test": 250})  # the last two are remembered
        http, callout = Server("http_server.py", http_port), Server("mailbox_server.py", callout_port, "--accept-all")

        def recovers():
            with post.smtp() as s:
                s.ehlo()
                s.mail("")
                return s.rcpt("alias@http.test")[0] == 250 and s.rcpt("box2@callout.test")[0] == 250
        wait_until("the directories answer again", recovers, 20, 0.2)
        build(world, "alice\ncarol\n")
        wait_until("the new table is asked", lambda: post.tool("verify", "carol@cdb.test")["code"] == 250, 20, 0.2)
        verdicts(post, {"bob@cdb.test": 550, "alice@cdb.test": 250})
    finally:
        http.stop()
        callout.stop()


def everything_is_accepted(world):
    port = free_port()
    callout = Server("mailbox_server.py", port, "--accept-all")
    try:
        post = world.posthouse(extra=DOMAINS % (build(world, "a\n"), port, port)).start()
        verdicts(post, {"nobody@callout.test": 250})
        assert "the server accepts every address" in post.tool("verify", "nobody@callout.test", "--from", "192.0.2.1", text=True)
        wait_until("the log warns", lambda: "callout_accepts_all" in post.log_text(), 10, 0.1)
    finally:
        callout.stop()


if __name__ == "__main__":
    main([they_are_asked, everything_is_accepted])
