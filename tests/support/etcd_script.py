#!/usr/bin/env python3
"""
Plays a member of etcd whose answers are told by what is asked: good ones, broken ones, and none. For the unit test of the door.

    etcd_script.py [--cluster N] [--auth] [--always FAULT]

Prints "port N" when it listens on 127.0.0.1, ends when its standard input ends. A key KEY of a range or a transaction does what
BEHAVIOURS say; the key seen/KEY tells how often KEY was asked for. A lease's TTL and a watch's prefix choose likewise.
"""
import argparse
import base64
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = {"denied": (403, "etcdserver: permission denied", 7), "noleader": (503, "etcdserver: no leader", 14),
          "timedout": (503, "etcdserver: request timed out", 14), "nospace": (429, "etcdserver: mvcc: database space exceeded", 8),
          "nolease": (404, "etcdserver: requested lease not found", 5), "line": (400, "two\r\nlines \x1b[31m", 3),
          "stranger": (400, "something new", 99), "busy": (429, "etcdserver: too many requests", 8)}
BODIES = {"notjson": b'{"kvs":[', "nothing": b"", "list": b"[]", "text": b'"text"', "kvsobject": b'{"header":{"revision":"3"},"kvs":{}}',
          "badbase64": b'{"header":{"revision":"3"},"kvs":[{"key":"YQ=","mod_revision":"1"}]}',
          "nokey": b'{"header":{"revision":"3"},"kvs":[{"value":"YQ==","mod_revision":"1"}]}',
          "nomod": b'{"header":{"revision":"3"},"kvs":[{"key":"YQ=="}]}',
          "negative": b'{"header":{"revision":"-3"},"kvs":[]}', "norevision": b'{"kvs":[]}',
          "toolarge": b'{"header":{"revision":"9223372036854775808"}}', "headerlist": b'{"header":[]}',
          "twice": b'{"header":{"revision":"3"},"header":{"revision":"4"}}',
          "otherkey": b'{"header":{"revision":"3"},"kvs":[{"key":"enp6","mod_revision":"1"}]}',
          "unordered": b'{"header":{"revision":"3"},"kvs":[{"key":"dW5vcmRlcmVkMg==","mod_revision":"1"},'
                       b'{"key":"dW5vcmRlcmVkMQ==","mod_revision":"1"}]}',
          "endless": b'{"header":{"revision":"3"},"more":true}',
          "deep": b"[" * 100000, "values": b'{"kvs":[' + b"1," * 600000 + b"1]}", "huge": b'{"x":"' + b"x" * (17 << 20) + b'"}'}


def b64(text):
    return base64.b64encode(text.encode()).decode()


def un64(text):
    return base64.b64decode(text).decode("latin-1")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, octets, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def header(self, revision=100):
        return {"cluster_id": str(self.server.cluster), "revision": str(revision)}

    def good(self, **more):
        self.answer(200, json.dumps({"header": self.header(), **more}).encode())

    def fault(self, name):
        status, text, code = FAULTS[name]
        self.answer(status, json.dumps({"error": text, "message": text, "code": code}).encode())

    def count(self, key):
        with self.server.lock:
            self.server.seen[key] = self.server.seen.get(key, 0) + 1
            return self.server.seen[key]

    def hang_up(self):
        self.close_connection = True

    def wrong(self, key):
        """Whether this key has an answer that is no good; gives it."""
        times = self.count(key)
        name = key.split("/")[0]
        if name in FAULTS:
            self.fault(name)
        elif name in BODIES:
            self.answer(200, BODIES[name])
        elif name == "page503":
            self.answer(503, b"<html>Service Unavailable</html>", "text/html")
        elif name == "cut":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"header":')
            self.hang_up()
        elif name == "garbage":
            self.wfile.write(b"220 mail.example.net ESMTP\r\n")
            self.hang_up()
        elif name == "slow":
            time.sleep(5)
            self.hang_up()
        elif name == "hangup":  # takes the question and says nothing
            self.hang_up()
        elif name == "flaky" and times <= 2:
            self.fault("noleader")
        else:
            return False
        return True

    def range(self, question):
        key = un64(question["key"])
        if key.startswith("seen/"):
            self.good(kvs=[{"key": b64(key), "value": b64(str(self.server.seen.get(key[5:], 0))), "mod_revision": "1"}])
        elif key.startswith("paged/"):
            self.paged(question, key)
        elif not self.wrong(key):
            self.good(kvs=[{"key": b64(key), "value": b64("value"), "create_revision": "1", "mod_revision": "2", "version": "1",
                            "lease": "9", "unknown": {"more": [1, None]}}], count="1")

    def paged(self, question, key):
        """paged/NAME: 2,500 keys, of which NAME tells a fault."""
        name = key.split("/")[1].rstrip("\0")
        last = int(key.split("/")[2].rstrip("\0")) + 1 if key.count("/") > 1 and key.split("/")[2].rstrip("\0") else 0
        limit = int(question["limit"])
        times = self.count("paged")
        if name == "compacted" and last >= 1000 and times <= 4:
            status, text, code = 400, "etcdserver: mvcc: required revision has been compacted", 11
            self.answer(status, json.dumps({"error": text, "message": text, "code": code}).encode())
            return
        if last and question.get("revision") != "100":
            self.fault("stranger")
            return
        if name == "large" and limit > 15:
            self.answer(200, BODIES["huge"])
            return
        total = 40 if name == "large" else 2500
        if name == "back" and last:
            last = 0
        keys = ["paged/%s/%05d" % (name, n) for n in range(last, min(last + limit, total))]
        self.good(kvs=[{"key": b64(k), "value": b64("x" * (9000 if name == "heavy" else 1)), "mod_revision": "1"} for k in keys],
                  more=name == "heavy" or last + limit < total)

    def txn(self, question):
        op = (question["success"] or question["failure"])[0]
        key = un64(list(op.values())[0]["key"])
        if not self.wrong(key):
            self.good(succeeded=True, responses=[{"response_put": {}}, {"response_range": {"kvs": [
                {"key": b64("read"), "value": b64("v"), "mod_revision": "2"}]}}])

    def grant(self, question):
        ttl = int(question["TTL"])
        times = self.count("grant%d" % ttl)
        if ttl == 6:
            time.sleep(1)
        if ttl == 7 and times == 1:
            self.answer(200, b'{"ID":[]}')
        elif ttl == 7 and times == 2:
            self.good(TTL="7")  # without an id
        else:
            self.good(ID=str(1000 + ttl), TTL=str(ttl))

    def keepalive(self, question):
        ttl = int(question["ID"]) - 1000
        self.count("keepalive%d" % ttl)
        if ttl == 4:
            self.answer(200, b"garbage")
            return
        result = {"header": self.header(), "ID": str(1000 + ttl + (ttl == 5)), "TTL": str(ttl)}
        if ttl == 3:
            del result["TTL"]
        self.answer(200, json.dumps({"result": result}).encode() + b"\n")

    def authenticate(self, question):
        self.count("login/" + question["name"])
        if not self.server.auth:
            text = "etcdserver: authentication is not enabled"
            self.answer(412, json.dumps({"error": text, "message": text, "code": 9}).encode())
        elif question["name"] == "evil":
            self.good(token="t\r\nX-Evil: yes")
        elif question["password"] != "pw":
            text = "etcdserver: authentication failed, invalid user ID or password"
            self.answer(400, json.dumps({"error": text, "message": text, "code": 3}).encode())
        else:
            with self.server.lock:
                self.server.token = ["t%d" % time.monotonic_ns(), 3]
            self.good(token=self.server.token[0])

    def may(self):
        """Each token is good for three questions."""
        if not self.server.auth:
            return True
        with self.server.lock:
            if self.server.token and self.headers.get("Authorization") == self.server.token[0] and self.server.token[1]:
                self.server.token[1] -= 1
                return True
        text = "etcdserver: invalid auth token"
        self.answer(401, json.dumps({"error": text, "message": text, "code": 16}).encode())
        return False

    # -- watches --

    def chunk(self, octets):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))
        self.wfile.flush()

    def line(self, revision=100, **more):
        self.chunk(json.dumps({"result": {"header": self.header(revision), **more}}).encode() + b"\n")

    def event(self, key, revision, value="", kind=None):
        e = {"kv": {"key": b64(key), "mod_revision": str(revision), "value": b64(value)}}
        return {"type": kind, **e} if kind else e

    def watch(self, question):
        q = question["create_request"]
        prefix, start = un64(q["key"]), int(q["start_revision"])
        times = self.count(prefix)
        name = prefix.split("/")[1]
        self.close_connection = True
        if name == "status" and times == 1:
            self.fault("noleader")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if name == "never" and times == 1:
            time.sleep(5)
            return
        if name == "refused":
            self.line(created=True, canceled=True, cancel_reason="rpc error: code = PermissionDenied desc = etcdserver: permission denied")
            return
        self.line(created=True)
        play = getattr(self, "watch_" + name, None)
        if not play or not play(prefix, start, times):
            self.line(events=[self.event(prefix + "x", start, "from %d" % start)])
            time.sleep(60)

    def watch_dribble(self, prefix, start, times):
        for octet in json.dumps({"result": {"header": self.header(100), "events": [self.event(prefix + "x", start, "slowly")]}}).encode() + b"\n\n":
            self.chunk(bytes([octet]))
        time.sleep(60)

    def watch_quiet(self, prefix, start, times):
        time.sleep(60)

    def watch_resume(self, prefix, start, times):
        """Two revisions a stream, then it breaks within a line."""
        for revision in range(start, start + 2):
            if revision <= 9:
                self.line(events=[self.event(prefix + "x", revision, kind="DELETE" if revision % 2 else "PUT")])
        self.chunk(b'{"result":{"events":[{"kv":')
        return start < 10

    def watch_fragment(self, prefix, start, times):
        five = [self.event(prefix + "5%d" % n, 5) for n in range(4)]
        if times == 1:
            self.line(events=[self.event(prefix + "4", 4)] + five[:2], fragment=True)
        elif times == 2:
            self.line(events=five[:1], fragment=True)
            self.line(events=five[1:3], fragment=True)
        elif times == 3:
            self.line(events=five + [self.event(prefix + "6", 6)])
        else:
            return False
        return True

    def watch_old(self, prefix, start, times):
        self.line(events=[self.event(prefix + "x", n) for n in range(1, start + 2)])
        self.line(events=[self.event(prefix + "x", n) for n in range(start, start + 3)])
        time.sleep(60)

    def watch_progress(self, prefix, start, times):
        if times == 1:
            self.line(revision=50)
        return times == 1

    def watch_compacted(self, prefix, start, times):
        if times == 1:
            return True
        self.line(canceled=True, compact_revision="90")
        return True

    def watch_broken(self, prefix, start, times):
        lines = [b"garbage\n", b'{"result":[]}\n', b"{}\n", b'{"result":{"events":[{"kv":{"key":"YQ==","mod_revision":"7"}}]}}\n',
                 b"x" * (17 << 20) + b"\n", b"[" * 100000 + b"\n",
                 json.dumps({"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}}).encode() + b"\n",
                 json.dumps({"result": {"header": self.header(5), "events": [self.event(prefix + "x", 6)]}}).encode() + b"\n",
                 json.dumps({"result": {"header": self.header(100), "events": [self.event(prefix + "x", 9), self.event(prefix + "x", 8)]}}).encode() + b"\n",
                 json.dumps({"result": {"header": self.header(100), "events": [self.event(prefix + "x", 7, kind="MAYBE")]}}).encode() + b"\n",
                 json.dumps({"result": {"header": {"cluster_id": "666", "revision": "100"}}}).encode() + b"\n",
                 json.dumps({"result": {"header": self.header(), "canceled": True, "cancel_reason": "for no reason"}}).encode() + b"\n"]
        if times > 4:
            return False
        line = lines[4 * int(prefix.split("/")[2]) + times - 1]
        for i in range(0, len(line), 65536):
            self.chunk(line[i:i + 65536])
        time.sleep(60)

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        word = self.path.split("/")[-1]
        if self.headers.get("Grpc-Metadata-hasleader") != "true":
            self.answer(400, b"{}")
        elif self.server.always:
            self.count(word)
            if not self.wrong(self.server.always):
                self.answer(500, b"")
        elif word == "authenticate" or self.may():
            {"range": self.range, "txn": self.txn, "grant": self.grant, "keepalive": self.keepalive, "watch": self.watch,
             "revoke": lambda q: self.fault("nolease"), "authenticate": self.authenticate}[word](question)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", default="1")
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--always")
    options = parser.parse_args()
    server = Server(("127.0.0.1", 0), Handler)
    server.cluster, server.auth, server.always = options.cluster, options.auth, options.always
    server.lock, server.seen, server.token = threading.Lock(), {}, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port %d" % server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
