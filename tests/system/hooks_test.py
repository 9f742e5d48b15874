#!/usr/bin/env python3
"""
Proves hooks: what an endpoint misses while it is down, slow or answers 500 comes when it is back, in order, every event of every
message at least once, and mail is not held up by it; the same over unix sockets, across a restart and a kill, and when a reader dies
with octets unread; a full spool drops the oldest and says how many; a certificate that proves nothing gets nothing; a reload begins,
changes and ends hooks without loss.
"""
import collections
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import check, free_port, id_of, main, wait_until

MESSAGES = 500


def must(truth, what):
    if not truth:
        raise AssertionError(what)


class Events:
    """What a consumer does: every batch is kept; what came before is told by its number."""

    def __init__(self):
        self.lock, self.seen, self.lines, self.repeated = threading.Lock(), set(), [], 0
        self.last = 0

    def take(self, body):
        with self.lock:
            for line in body.decode().splitlines():
                event = json.loads(line)
                must(list(event)[:5] == ["seq", "node", "time", "level", "event"], "fields in front: %r" % event)
                if event["seq"] in self.seen:
                    self.repeated += 1
                    continue
                must(event["seq"] > self.last, "out of order: %d after %d" % (event["seq"], self.last))
                self.last = event["seq"]
                self.seen.add(event["seq"])
                self.lines.append(event)

    def of(self, *names):
        with self.lock:
            return [e for e in self.lines if e["event"] in names]

    def without_gap(self):
        with self.lock:
            return len(self.seen) == self.last


class Endpoint:
    """An HTTP endpoint. mode: a status, or "slow" (answers after the client has lost patience)."""

    def __init__(self, port=0, tls=None):
        self.events, self.mode, self.batches, self.problems, self.closing = Events(), 204, 0, [], threading.Event()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.batches += 1
                if self.headers["Content-Type"] != "application/x-ndjson":
                    endpoint.problems.append("content type %s" % self.headers["Content-Type"])
                if self.headers["Authorization"] != "Bearer s3cret" or self.headers["X-Shop"] != "7":
                    endpoint.problems.append("headers: %s" % self.headers)
                mode = endpoint.mode
                if mode == "slow":
                    endpoint.closing.wait(3)
                    self.close_connection = True
                    return
                if 200 <= mode < 300:
                    try:
                        endpoint.events.take(body)
                    except Exception as problem:
                        endpoint.problems.append(str(problem))
                self.send_response(mode)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler, bind_and_activate=False)
        self.server.allow_reuse_address = True
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.server_bind()
        self.server.server_activate()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


class Reader:
    """A program that listens on a unix socket. With take=False it reads nothing, until close() or read_on()."""

    def __init__(self, path, kind=socket.SOCK_STREAM, events=None, take=True):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.events, self.problems, self.connections = events or Events(), [], []
        self.may_take = threading.Event()
        if take:
            self.may_take.set()
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.bind(path)
        if kind == socket.SOCK_STREAM:
            self.socket.listen()
        threading.Thread(target=self._accept if kind == socket.SOCK_STREAM else self._datagrams, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.connections.append(connection)
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection):
        with contextlib.suppress(OSError):
            self.may_take.wait()
            for line in connection.makefile("rb"):
                if line.endswith(b"\n"):  # a line that was cut comes again
                    self._take(line)

    def _datagrams(self):
        with contextlib.suppress(OSError):
            self.may_take.wait()
            while True:
                line = self.socket.recv(65536)
                if not line:
                    return
                if b"\n" in line:
                    self.problems.append("a datagram with an end of line")
                self._take(line)

    def _take(self, line):
        try:
            self.events.take(line)
        except Exception as problem:
            self.problems.append(str(problem))

    def close(self):
        for thing in self.connections + [self.socket]:
            with contextlib.suppress(OSError):
                thing.shutdown(socket.SHUT_RDWR)
            thing.close()


def domains(sink):
    return "domains:\n  - {name: example.net, recipients: any, route: \"smtp:127.0.0.1:%d\"}\n" % sink.port


def send_many(post, count, start=0):
    """Ids of so many messages, to recipients u0, u1 ..."""
    ids = []
    with post.smtp() as s:
        s.ehlo()
        for n in range(start, start + count):
            check(s.mail("a@b.test"), 250)
            check(s.rcpt("u%d@example.net" % n), 250)
            code, reply = s.data(b"Subject: x\r\n\r\nx\r\n")
            check((code, reply), 250)
            ids.append(id_of(reply))
    return ids


def every_message(events, ids, names=("accepted", "delivered")):
    for name in names:
        told = collections.Counter(e["id"] for e in events.of(name))
        must(all(told[i] for i in ids), "%d messages without %s" % (sum(not told[i] for i in ids), name))


def metric(port, name, hook):
    text = urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=10).read().decode()
    found = re.search(r"^%s\{hook=\"%s\"\} (\d+)$" % (name, hook), text, flags=re.M)
    return int(found.group(1)) if found else None


def endpoint_down_slow_broken_and_back(world):
    sink, port, web = world.sink(), free_port(), free_port()
    world.file("token", "s3cret\n")
    hook = ("hooks:\n  - {name: shop, url: \"http://127.0.0.1:%d/in\", events: [accepted, delivered], batch: 50, wait: 50ms, "
            "timeout: 1s, retry_max: 1s, bearer_file: %s/token, headers: [\"X-Shop: 7\"]}\n" % (port, world.directory))
    post = world.posthouse(extra="  http: \"127.0.0.1:%d\"\n" % web + domains(sink) + hook).start()
    part = MESSAGES // 4
    ids = send_many(post, part)  # it is down
    sink.wait(part, 60)          # and mail went on
    wait_until("a failure is told", lambda: "hook_failed hook=shop" in post.log_text())
    endpoint = world.add(Endpoint(port))
    endpoint.mode = 500
    ids += send_many(post, part, part)
    sink.wait(2 * part, 60)
    wait_until("it answers 500", lambda: endpoint.batches >= 2 and "answered 500" in post.log_text())
    must(not endpoint.events.lines, "nothing was taken so far")
    endpoint.mode = "slow"
    ids += send_many(post, part, 2 * part)
    sink.wait(3 * part, 60)
    wait_until("it is too slow", lambda: "hook_failed hook=shop why=\"no answer in time\"" in post.log_text())
    endpoint.mode = 204
    ids += send_many(post, part, 3 * part)
    sink.wait(4 * part, 60)
    wait_until("all events (have %d)" % len(endpoint.events.lines), lambda: len(endpoint.events.lines) >= 2 * MESSAGES, 60)
    every_message(endpoint.events, ids)
    must(endpoint.events.without_gap(), "a gap")
    must(not endpoint.problems, endpoint.problems)
    event = endpoint.events.of("delivered")[0]
    for field in ("id", "from", "to", "remote", "code", "status", "text", "category", "site", "source", "tls"):
        must(field in event, "delivered has %s" % field)
    must(event["from"] == "a@b.test" and event["code"] == 250 and event["node"] == "t1", event)
    must("hook_works_again hook=shop" in post.log_text(), "it is told that the hook works again")
    wait_until("nothing waits", lambda: metric(web, "posthouse_hook_waiting", "shop") == 0)
    must(metric(web, "posthouse_hook_dropped_total", "shop") == 0, "nothing was dropped")
    must(metric(web, "posthouse_hook_delivered_total", "shop") == 2 * MESSAGES, "all were counted")
    must(metric(web, "posthouse_hook_failures_total", "shop") >= 3, "failures were counted")
    shown = post.tool("config", "show", text=True)
    must("X-Shop" not in shown and "s3cret" not in shown, "headers and tokens are not shown")


def failures_are_told(world):
    """deferred, failed, given_up, and an operator's end."""
    path = os.path.join(world.directory, "events")
    sink = world.sink({"rcpt": lambda line: "450 4.2.1 later" if "slow" in line else "550 5.1.1 no" if "bad" in line else "250 ok"})
    reader = world.add(Reader(path))
    post = world.posthouse(extra=domains(sink) + "hooks:\n  - {name: all, socket: %s, wait: 20ms}\n" % path,
                           delivery="retry: {first: 1s, max: 1s, give_up: 3s, delay_notice: 0}").start()
    bad, slow = post.send("a@b.test", ["bad@example.net"]), post.send("a@b.test", ["slow@example.net"])
    wait_until("failed", lambda: any(e["id"] == bad and e["code"] == 550 and e["to"] == "bad@example.net" and
                                     e["status"] == "5.1.1" and e["category"] for e in reader.events.of("failed")))
    wait_until("deferred", lambda: any(e["id"] == slow and e["code"] == 450 for e in reader.events.of("deferred")))
    wait_until("given up", lambda: any(e["id"] == slow and "4.2.1 later" in e["text"] for e in reader.events.of("given_up")), 30)
    must(not reader.events.of("session_closed"), "an event that nobody asked for")
    held = post.send("a@b.test", ["slow2@example.net"])
    gone = post.send("a@b.test", ["slow3@example.net"])
    post.tool("bounce", "id:" + held, "--yes", "--reason", "test")
    post.tool("delete", "id:" + gone, "--yes", "--reason", "test")
    wait_until("bounced", lambda: any(e["id"] == held for e in reader.events.of("bounced")))
    wait_until("deleted", lambda: any(e["id"] == gone for e in reader.events.of("deleted")))
    must(not reader.problems, reader.problems)


def socket_across_restarts(world):
    sink, path = world.sink(), os.path.join(world.directory, "events")
    hook = "hooks:\n  - {name: local, socket: %s, events: [accepted, delivered], batch: 20, wait: 20ms, retry_max: 1s}\n" % path
    post = world.posthouse(extra=domains(sink) + hook).start()
    ids = send_many(post, 100)  # nobody listens
    sink.wait(100, 60)
    wait_until("all are in the spool", lambda: "hook_failed hook=local" in post.log_text() and
               re.search(r"hook_failed hook=local .* waiting=200", post.log_text()), 20)
    post.stop()
    post.start()
    ids += send_many(post, 100, 100)
    sink.wait(200, 60)
    wait_until("these too", lambda: re.search(r"hook_failed hook=local .* waiting=400", post.log_text()), 20)
    post.kill()
    post.start()
    reader = world.add(Reader(path, take=False))
    wait_until("it connects", lambda: reader.connections, 20)
    time.sleep(0.2)
    reader.close()  # with octets unread: they come again
    reader = world.add(Reader(path))
    wait_until("all events", lambda: len(reader.events.lines) >= 400, 30)
    ids += send_many(post, 100, 200)
    wait_until("those of now", lambda: len(reader.events.of("delivered")) >= 300, 30)
    post.stop()
    every_message(reader.events, ids)
    must(reader.events.without_gap() and not reader.problems, reader.problems or "a gap")
    post.start()  # what was taken does not come again after a stop in good order
    more = post.send("a@b.test", ["last@example.net"])
    wait_until("the last one", lambda: any(e["id"] == more for e in reader.events.of("delivered")))
    must(reader.events.repeated == 0, "%d came again" % reader.events.repeated)


def datagrams(world):
    sink, path = world.sink(), os.path.join(world.directory, "events")
    reader = world.add(Reader(path, socket.SOCK_DGRAM, take=False))
    hook = "hooks:\n  - {name: local, socket: %s, events: [accepted, delivered], batch: 50, wait: 20ms, retry_max: 1s}\n" % path
    post = world.posthouse(extra=domains(sink) + hook).start()
    ids = send_many(post, 100)
    sink.wait(100, 60)  # a reader that does not read holds nobody up
    reader.may_take.set()
    wait_until("all events", lambda: len(reader.events.lines) >= 200, 30)
    every_message(reader.events, ids)
    must(reader.events.without_gap() and not reader.problems, reader.problems or "a gap")


def full_spool(world):
    sink, path, web = world.sink(), os.path.join(world.directory, "events"), free_port()
    hook = "hooks:\n  - {name: small, socket: %s, events: [accepted, delivered], spool: 256KiB, wait: 20ms, retry_max: 1s}\n" % path
    post = world.posthouse(extra="  http: \"127.0.0.1:%d\"\n" % web + domains(sink) + hook).start()
    for n in range(5):
        send_many(post, 200, 200 * n)
    sink.wait(1000, 60)
    wait_until("it is said", lambda: "hook_dropped hook=small" in post.log_text())
    wait_until("all are there", lambda: (metric(web, "posthouse_hook_waiting", "small") or 0) +
               (metric(web, "posthouse_hook_dropped_total", "small") or 0) == 2000, 20)
    folder = os.path.join(post.data_dir, "hooks", "small")
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    must(size <= 256 * 1024 + 64, "%d octets on disk" % size)
    dropped = metric(web, "posthouse_hook_dropped_total", "small")
    must(0 < dropped < 2000, dropped)
    events = Events()
    events.last = dropped
    reader = world.add(Reader(path, events=events))
    wait_until("what was kept", lambda: len(events.lines) == 2000 - dropped, 20)
    must(events.lines[0]["seq"] == dropped + 1 and events.last == 2000 and not reader.problems, "the newest, without a gap")


def make_certificate(world, name, subject):
    files = [os.path.join(world.directory, name + kind) for kind in (".crt", ".key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=" + name, "-addext", "subjectAltName=" + subject, "-out", files[0], "-keyout", files[1]],
                   check=True, capture_output=True)
    return files


def certificates(world):
    sink = world.sink()
    good, other = make_certificate(world, "good", "IP:127.0.0.1"), make_certificate(world, "other", "DNS:elsewhere.test")
    world.file("token", "s3cret\n")
    # an unknown authority, a wrong name of a known one, and the right one
    unknown, misnamed, right = [world.add(Endpoint(tls=files)) for files in (other, other, good)]
    line = "  - {name: %s, url: \"https://127.0.0.1:%d/\", events: [accepted, delivered], wait: 20ms, retry_max: 1s, " \
           "ca_file: %s, bearer_file: " + world.directory + "/token, headers: [\"X-Shop: 7\"]}\n"
    post = world.posthouse(extra=domains(sink) + "hooks:\n" + line % ("unknown", unknown.port, good[0]) +
                           line % ("misnamed", misnamed.port, other[0]) + line % ("right", right.port, good[0])).start()
    ids = send_many(post, 5)
    wait_until("the right one", lambda: len(right.events.lines) == 10)
    every_message(right.events, ids)
    for name, endpoint in (("unknown", unknown), ("misnamed", misnamed)):
        wait_until("%s is refused" % name, lambda: post.log_text().count("hook_failed hook=%s" % name) >= 2)
        must(endpoint.batches == 0, "%s got a request" % name)
    must(not right.problems, right.problems)


def reload_without_loss(world):
    sink = world.sink()
    paths = [os.path.join(world.directory, name) for name in ("one", "two")]
    line = "hooks:\n  - {name: a, socket: %s, events: [accepted, delivered], wait: %s, retry_max: 1s}\n"
    post = world.posthouse(extra=domains(sink)).start()

    def use(extra, times):
        post.write_settings(extra=domains(sink) + extra)
        post.reload()
        wait_until("reloaded", lambda: post.log_text().count(" reloaded what=settings") >= times)

    post.send("a@b.test", ["early@example.net"])  # no hook yet
    sink.wait(1)
    events = Events()
    world.add(Reader(paths[0], events=events))
    use(line % (paths[0], "10ms"), 1)
    stop, ids = threading.Event(), []

    def load():
        n = 0
        while not stop.is_set():
            ids.extend(send_many(post, 5, n))
            n += 5

    loader = threading.Thread(target=load)
    loader.start()
    try:
        wait_until("events come", lambda: events.of("delivered"))
        second = world.add(Reader(paths[1], events=events))  # the same consumer, at another place
        use(line % (paths[1], "10ms"), 2)
        use(line % (paths[1], "20ms"), 3)
        use(line % (paths[1], "20ms"), 4)
        wait_until("at the second place", lambda: second.connections)
    finally:
        stop.set()
        loader.join()
    wait_until("all events", lambda: len(events.of("delivered")) >= len(ids), 30)
    every_message(events, ids)
    must(events.without_gap(), "a gap")
    use("", 5)
    count = len(events.lines)
    post.send("a@b.test", ["late@example.net"])
    sink.wait(len(ids) + 2)
    post.stop()
    must(len(events.lines) == count, "a hook that is no more was told")


def refused_settings(world):
    post = world.posthouse()
    for hooks, complaint in [
        ("[{name: a}]", "takes either url or socket"),
        ("[{name: a, url: \"http://h/\", socket: /s}]", "takes either url or socket"),
        ("[{url: \"http://h/\"}]", "needs a name"),
        ("[{name: \"../x\", url: \"http://h/\"}]", "takes letters, digits"),
        ("[{name: a, url: \"ftp://h/\"}]", "takes http://"),
        ("[{name: a, socket: s}]", "takes an absolute path"),
        ("[{name: a, socket: /s, events: [deliverd]}]", "no such event: deliverd"),
        ("[{name: a, socket: /s, events: []}]", "at least one event"),
        ("[{name: a, socket: /s}, {name: a, socket: /t}]", "the same name twice"),
        ("[{name: a, url: \"http://h/\", headers: [\"X Shop: 7\"]}]", "Name: value"),
        ("[{name: a, socket: /s, headers: [\"X: 7\"]}]", "go with url"),
        ("[{name: a, url: \"http://h/\", bearer_file: /nonexistent}]", "cannot be read"),
        ("[{name: a, socket: /s, spool: 1KiB}]", "spool"),
        ("[{name: a, socket: /s, batch: 0}]", "batch"),
    ]:
        post.write_settings(extra="hooks: " + hooks)
        done = subprocess.run([os.path.join(os.environ["POSTHOUSE_BUILD"], "posthoused"), "--config", post.config, "--check"],
                              capture_output=True, text=True, timeout=30)
        must(done.returncode != 0 and complaint in done.stdout + done.stderr, "%s: %s%s" % (hooks, done.stdout, done.stderr))


if __name__ == "__main__":
    main([endpoint_down_slow_broken_and_back, failures_are_told, socket_across_restarts, datagrams, full_spool, certificates,
          reload_without_loss, refused_settings])
