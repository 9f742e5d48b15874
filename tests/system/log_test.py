#!/usr/bin/env python3
"""
Proves the log of the daemon: with standard error on the journal's stream each line has its priority, else none has; as JSON every
line is valid whatever clients and servers say; with level warn, hooks and the log differ as the documents say; no line is longer
than 4 KiB.
"""
import json
import os
import re
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, end_process, main, wait_until

HOSTILE = [b"\x1b[31m", b'"', b"\\", b"\xff\xfe", b"\xc2\x9b", "\u202e".encode(), b"\xed\xa0\x80", b"{}", b"'", b"a=b c", b"\t", b"%n%s",
           "\u00fc\U0001f600".encode(), b"x" * 400]


def must(truth, what):
    if not truth:
        raise AssertionError(what)


def start_on_pipe(post, stream):
    """The daemon with standard error on a pipe, which JOURNAL_STREAM names, or something else; and the lines that come."""
    readable, writable = os.pipe()
    st = os.fstat(writable)
    environment = dict(os.environ, JOURNAL_STREAM=stream or "%d:%d" % (st.st_dev, st.st_ino))
    process = subprocess.Popen([os.path.join(BUILD, "posthoused"), "--config", post.config], stdout=subprocess.DEVNULL,
                               stderr=writable, env=environment)
    os.close(writable)
    lines = []

    def read():
        with os.fdopen(readable, "rb") as f:
            for line in f:
                lines.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    return process, reader, lines


def journal_priorities(world):
    sink = world.sink()
    extra = "domains:\n  - {name: example.net, recipients: any, route: \"smtp:127.0.0.1:%d\"}\n" % sink.port
    for format in ("text", "json"):
        for stream in (None, "1:1"):
            post = world.posthouse(extra=extra, node="log: {level: debug, format: %s}" % format)
            process, reader, lines = start_on_pipe(post, stream)
            try:
                wait_until("it is ready", lambda: any(b"ready" in line for line in lines), 30)
            finally:
                end_process(process)
            reader.join(20)
            must(any(b"stopped" in line for line in lines) and any(b"settings_warning" in line for line in lines), lines)
            for line in lines:
                level = re.search(rb'(?:Z |"level":")(debug|info|warn|error)', line)
                must(level, line)
                mark = {b"debug": b"<7>", b"info": b"<6>", b"warn": b"<4>", b"error": b"<3>"}[level.group(1)]
                rest = line[3:] if not stream else line
                must(stream or line.startswith(mark), line)
                must(rest.startswith(b"{" if format == "json" else b"20"), line)


def accepts(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            return s.recv(3) == b"220"
    except OSError:
        return False


def talk(port, lines):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        f = s.makefile("rb")
        f.readline()
        for line in lines:
            s.sendall(line + b"\r\n")
            while f.readline()[3:4] == b"-":
                pass


def json_is_valid_whatever_is_said(world):
    sink = world.sink({"rcpt": lambda line: b"450 4.2.1 \x1b[31m \"\\ \xff\xe2\x80\xae {\"a\":1}\r\n"})
    extra = "domains:\n  - {name: example.net, recipients: any, route: \"smtp:127.0.0.1:%d\"}\n" % sink.port
    post = world.posthouse(extra=extra, gateway="trusted_networks: []", node="log: {format: json}").start(wait=False)
    wait_until("it answers", lambda: accepts(post.port), 30)
    post.send("a@b.test", ["u@example.net"])
    wait_until("deferred", lambda: '"deferred"' in post.log_text())
    for octets in HOSTILE:
        quotable = octets.replace(b"\\", b"").replace(b'"', b"")
        talk(post.port, [b"EHLO " + octets, b"MAIL FROM:<" + octets + b"@b.test>", b"RCPT TO:<" + octets + b"@elsewhere.test>",
                         b"RSET", b"EHLO client.test", b'MAIL FROM:<"a\\"' + quotable + b'"@b.test> SMTPUTF8',
                         b"MAIL FROM:<a@b.test>", b'RCPT TO:<"' + quotable + b'\\"\\\\"@elsewhere.test>', octets, b"QUIT"])
    wait_until("sessions end", lambda: post.log_text().count('"session_closed"') >= len(HOSTILE))
    post.stop()
    with open(post.log, "rb") as f:
        lines = f.read().split(b"\n")[:-1]

    def once(pairs):
        must(len({name for name, _ in pairs}) == len(pairs), "a name twice: %r" % pairs)
        return dict(pairs)

    for line in lines:
        must(len(line) < 4096, len(line))
        event = json.loads(line.decode("utf-8"), object_pairs_hook=once)
        must(list(event)[:3] == ["time", "level", "event"], line)
        must(not any(c < 0x20 for c in line), line)
        for name, value in event.items():
            must(re.fullmatch("[a-z0-9_]+", name) and isinstance(value, (str, int)), line)
    events = {json.loads(line)["event"] for line in lines}
    must({"accepted", "deferred", "session_closed", "recipient_refused"} <= events, events)


def a_quiet_log_and_a_hook_that_hears(world):
    path = os.path.join(world.directory, "events")
    sink = world.sink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(20)
        post = world.posthouse(node="log: {level: error}", extra="domains:\n  - {name: example.net, recipients: any, route: "
                               "\"smtp:127.0.0.1:%d\"}\nhooks:\n  - {name: h, socket: %s, events: delivered, wait: 10ms}\n"
                               % (sink.port, path)).start(wait=False)
        wait_until("it answers", lambda: accepts(post.port), 30)
        id = post.send("a@b.test", ["u@example.net"])
        event = json.loads(listener.recv(65536))
        post.stop()
    must(event["event"] == "delivered" and event["id"] == id and event["to"] == "u@example.net", event)
    must(" info " not in post.log_text(), "the log keeps its level")


if __name__ == "__main__":
    main([journal_priorities, json_is_valid_whatever_is_said, a_quiet_log_and_a_hook_that_hears])
