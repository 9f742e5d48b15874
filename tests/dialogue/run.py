#!/usr/bin/env python3
"""Runs SMTP dialogues (tests/dialogue/data, format in README.md) against a server that it starts itself.

  run.py --front PATH FILE...    the front end with a played scheduler (tests/support/smtp_front_main.c)
  run.py --daemon PATH FILE...   posthoused, delivering to a receiving server inside this program

Exit status: 0 all dialogues hold, 1 some do not, 77 all were skipped (made for the other server), 2 usage.
"""
import argparse
import os
import re
import socket
import sys
import time

sys.dont_write_bytecode = True

from servers import Daemon, Front  # noqa: E402
from talk import Client, Dialogue, Failed, Skipped, unescape  # noqa: E402

QUIET_S = 0.3
SKIP = 77


class Run:
    def __init__(self, server):
        self.server = server
        self.clients = {"1": Client(server.port)}
        self.current = "1"

    @property
    def client(self):
        return self.clients[self.current]

    def connect(self, name):
        self.clients[name] = Client(self.server.port)
        self.current = name

    def use(self, name):
        if name not in self.clients:
            raise Failed(f"no connection {name}")
        self.current = name

    def line(self, line):
        times = re.match(r"x(\d+) (.*)", line)
        count, line = (int(times.group(1)), times.group(2)) if times else (1, line)
        if count > 1 and line[:2] in ("C:", "c:"):
            end = b"\r\n" if line[0] == "C" else b""
            self.client.send(b"".join(unescape(line[2:].lstrip(" ").replace("{n}", str(n))) + end for n in range(count)))
            return
        for n in range(count):
            self.one(line.replace("{n}", str(n)) if times else line)

    def one(self, line):
        key, _, rest = line.partition(":")
        rest = rest[1:] if rest.startswith(" ") else rest
        actions = {
            "C": lambda: self.client.send(unescape(rest) + b"\r\n"),
            "c": lambda: self.client.send(unescape(rest)),
            "S": lambda: self.match(self.client.reply(), rest),
            "S+": lambda: self.search(rest, True),
            "S-": lambda: self.search(rest, False),
            "closed": lambda: self.client.expect_closed(*[float(rest)] if rest else []),
            "quiet": lambda: self.client.expect_quiet(float(rest) if rest else QUIET_S),
            "close": lambda: self.client.close(),
            "shut": lambda: self.client.socket.shutdown(socket.SHUT_WR),
            "split": lambda: setattr(self.client, "split", int(rest)),
            "wait": lambda: time.sleep(float(rest)),
            "connect": lambda: self.connect(rest),
            "use": lambda: self.use(rest),
            "drain": lambda: self.server.drain(),
            "tls": lambda: self.client.secure(self.server.credentials, rest == "certificate"),
            "scram": lambda: self.client.scram(*rest.split(" ", 1)),
        }
        if key not in actions:
            raise Failed(f"unknown line {line!r}")
        actions[key]()

    @staticmethod
    def match(reply, pattern):
        if not re.match(pattern, reply):
            raise Failed(f"expected {pattern!r}, got {reply!r}")

    def search(self, pattern, wanted):
        if bool(re.search(pattern, self.client.last, re.M)) != wanted:
            raise Failed(f"reply {self.client.last!r} {'lacks' if wanted else 'has'} {pattern!r}")

    def close(self):
        for client in self.clients.values():
            client.close()


def check_stored(dialogue, server):
    wanted = [(n, *[part.strip() for part in line.split(":", 1)]) for n, line in dialogue.sections["stored"]]
    count = next((int(value) for _, key, value in wanted if key == "count"), None)
    texts = server.stored(count or 0)
    for number, key, value in wanted:
        try:
            if key == "count" and len(texts) != int(value):
                raise Failed(f"{len(texts)} messages were stored, expected {value}: {texts!r}"[:2000])
            if key == "has" and not any(re.search(value, t, re.M) for t in texts):
                raise Failed(f"no stored message has {value!r}: {texts!r}"[:2000])
            if key == "lacks" and any(re.search(value, t, re.M) for t in texts):
                raise Failed(f"a stored message has {value!r}: {texts!r}"[:2000])
            if key not in ("count", "has", "lacks"):
                raise Failed(f"unknown expectation {key!r}")
        except Failed as e:
            raise Failed(f"line {number}: {e}") from None


def check_process(dialogue, server):
    for number, line in dialogue.sections["process"]:
        key, _, value = line.partition(":")
        if key != "rss_max_mib":
            raise Failed(f"line {number}: unknown expectation {key!r}")
        if server.peak_rss_kib() > int(value) * 1024:
            raise Failed(f"line {number}: the server took {server.peak_rss_kib()} KiB")


def check_log(dialogue, server):
    text = server.log_text()
    for number, line in dialogue.sections["log"]:
        key, _, value = line.partition(":")
        if key not in ("has", "lacks"):
            raise Failed(f"line {number}: unknown expectation {key!r}")
        if bool(re.search(value.strip(), text, re.M)) != (key == "has"):
            raise Failed(f"line {number}: the log {'lacks' if key == 'has' else 'has'} {value.strip()!r}")


def speak(dialogue, server):
    run = Run(server)
    try:
        for number, line in dialogue.sections["dialogue"]:
            try:
                run.line(line)
            except (Failed, OSError) as e:
                raise Failed(f"line {number}: {e}") from None
    finally:
        run.close()


def run_one(path, kind, program, verbose):
    """None when the dialogue holds, else why it does not."""
    dialogue = Dialogue(path)
    settings = dialogue.settings()
    only = settings.pop("only", None)
    if only and only != kind.__name__.lower():
        raise Skipped(f"made for {only} only")
    server = kind(program, dialogue)
    try:
        server.start(settings)
        speak(dialogue, server)
        check_stored(dialogue, server)
        if server.process.poll() is None:
            check_process(dialogue, server)
        status = server.stop()
        if status != 0:
            raise Failed(f"the server ended with {status}")
        check_log(dialogue, server)
        return None
    except Failed as e:
        server.stop()
        return f"{e}\n--- log\n{server.tail()}" if verbose else str(e)
    finally:
        server.stop()
        server.remove()


def main():
    parser = argparse.ArgumentParser()
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--front")
    group.add_argument("--daemon")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    kind, program = (Front, args.front) if args.front else (Daemon, args.daemon)
    failed = passed = 0
    for path in args.files:
        try:
            why = run_one(path, kind, os.path.abspath(program), args.verbose)
        except Skipped as e:
            print(f"skip {path}: {e}")
            continue
        except Failed as e:
            why = str(e)
        passed += why is None
        failed += why is not None
        print(f"ok   {path}" if why is None else f"FAIL {path}: {why}", flush=True)
    if failed:
        return 1
    return 0 if passed else SKIP


if __name__ == "__main__":
    sys.exit(main())
