#!/usr/bin/env python3
"""
Proves that an operator sees what happens while it happens: `posthouse watch` shows the events of a message that hold all the words
asked for, whatever level the log has, and `trace smtp in` the dialogue with its client, without secrets; and that nothing is
kept when nobody watches.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"


class Watcher:
    """The tool, running, with its lines in a file."""

    def __init__(self, world, post, *words):
        self.path = os.path.join(world.directory, "lines")
        self.out = open(self.path, "wb")
        self.process = subprocess.Popen([os.path.join(BUILD, "posthouse"), "--server", post.rpc] + list(words), stdout=self.out,
                                        stderr=subprocess.STDOUT)
        world.add(self)

    def text(self):
        with open(self.path, encoding="utf-8") as f:
            return f.read()

    def until(self, what, make):
        """Makes it happen again and again until it is seen: the first times the watcher may not have asked yet."""
        def seen():
            make()
            time.sleep(0.3)
            return what in self.text()
        wait_until("%r is shown, not only %r" % (what, self.text()), seen, 20, 0.1)
        return self.text()

    def end(self, sig=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(30)

    def close(self):
        self.end()
        self.out.close()


def start(world, node=""):
    there = world.sink({"rcpt": lambda line: "550 5.1.1 no such user" if "nobody" in line else "250 2.1.5 fine"})
    post = world.posthouse(extra=ROUTES % there.port, node=node).start(wait=not node)  # it may not log that it is ready
    wait_until("the daemon answers", lambda: post.tool("status", ok=False).returncode == 0, 30)
    return post


def events_that_hold_all_words(world):
    post = start(world, "log: {level: error}")
    w = Watcher(world, post, "watch", "FAILED", "there.test")
    text = w.until("failed id=", lambda: post.send("a@back.test", ["good@there.test", "nobody@there.test"]))
    assert " info failed " in text and "nobody@there.test" in text and "status=5.1.1" in text, text
    assert "delivered" not in text, text
    assert w.end() == 0
    assert "failed id=" not in post.log_text(), "the log has level error"


def lines_as_objects_for_a_while(world):
    post = start(world)
    w = Watcher(world, post, "--json", "--for", "3s", "watch", "delivered")
    text = w.until("delivered", lambda: post.send("a@back.test", "good@there.test"))
    assert w.process.wait(30) == 0
    for line in w.text().splitlines():
        row = json.loads(line)
        assert row["number"] > 0 and "delivered" in row["text"], text


def the_dialogue_of_a_client(world):
    post = start(world)
    w = Watcher(world, post, "trace", "smtp", "in", "127.0.0.1")
    text = w.until("C: rcpt TO:<good@there.test>", lambda: post.send("a@back.test", "good@there.test", body="X: secret words\r\n\r\n"))
    assert "C: mail FROM:<a@back.test>" in text and "S: 250 " in text, text
    assert "secret words" not in text, "the content of a message is shown"
    assert w.end(signal.SIGTERM) == 0


def the_dialogue_with_a_server(world):
    post = start(world)
    w = Watcher(world, post, "trace", "smtp", "out", "127.0.0.1")
    text = w.until("C: RCPT TO:<good@there.test>", lambda: post.send("a@back.test", "good@there.test", body="X: secret words\r\n\r\n"))
    assert "S: 250 " in text and "C: MAIL FROM:<a@back.test>" in text, text
    assert "secret words" not in w.text(), "the content of a message is shown"
    assert w.end(signal.SIGTERM) == 0


def what_is_asked_wrongly(world):
    post = start(world)
    assert post.tool("trace", "pop", ok=False).returncode == 64
    assert post.tool("--for", "soon", "watch", ok=False).returncode == 64
    assert post.tool("watch", "x" * 1200, ok=False).returncode == 65
    assert post.tool("--for", "1ms", "watch", ok=False).returncode == 0


main([events_that_hold_all_words, lines_as_objects_for_a_while, the_dialogue_of_a_client, the_dialogue_with_a_server, what_is_asked_wrongly])
