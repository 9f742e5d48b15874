#!/usr/bin/env python3
"""
A small HTTP server whose answers are told by the path or, for the questions of a directory, by the address; also a hostile one.

    http_server.py [--tls CERT KEY] [--user NAME:PASSWORD] [--port N]

Prints "port N" when it listens on 127.0.0.1, ends when its standard input ends. Paths: /echo gives back method, body and the
headers that matter; /status/N; /slow answers after a minute; /silent says nothing; /cut promises more than it sends; /huge sends
one megabyte; /heads sends headers without end; /redirect leads to /echo; /garbage is no HTTP; /count tells how many
connections there were; /pieces/N sends N lines one by one; /hangup takes the question and says nothing, /hangups tells how often; /directory answers a recipient's question by the local part (see DIRECTORY).
"""
import argparse
import base64
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANY = ["u%d@elsewhere.example" % n for n in range(1001)]
DIRECTORY = {
    "box": (200, {"result": "mailbox"}),
    "alias": (200, {"result": "alias", "targets": ["a@example.net", "\"b, c\"@Example.ORG"]}),
    "forward": (200, {"result": "forward", "targets": ["f@elsewhere.example"]}),
    "keep": (200, {"result": "forward", "targets": ["f@elsewhere.example"], "keep": True}),
    "thousand": (200, {"result": "alias", "targets": MANY[:1000]}),
    "": (200, {"result": "unknown"}),
    "nobody": (200, {"result": "unknown"}),
    "missing": (404, {}),
    "denied": (403, {}),
    "broken": (500, {"result": "mailbox"}),
    "odd": (200, {"result": "perhaps"}),
    "noresult": (200, {}),
    "list": (200, ["mailbox"]),
    "notargets": (200, {"result": "alias"}),
    "empty": (200, {"result": "alias", "targets": []}),
    "badtarget": (200, {"result": "alias", "targets": ["not an address"]}),
    "nodomain": (200, {"result": "alias", "targets": ["bare"]}),
    "newline": (200, {"result": "alias", "targets": ["a@example.net\r\nRCPT TO:<b@example.net>"]}),
    "numbers": (200, {"result": "alias", "targets": [1, 2]}),
    "many": (200, {"result": "alias", "targets": MANY}),
    "badkeep": (200, {"result": "forward", "targets": ["f@elsewhere.example"], "keep": "yes"}),
    "accepted": (202, {"result": "mailbox"}),
}
RAW = {"malformed": b'{"result": "mail', "twice": b'{"result":"mailbox","result":"unknown"}', "nothing": b"",
       "latin": b'{"result":"mailbox\xe9"}'}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def setup(self):
        super().setup()
        self.server.connections += 1

    def answer(self, status, octets, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def directory(self, body):
        question = json.loads(body)
        local = question["local"]
        if question["address"] != local + "@" + question["domain"] or self.headers["Content-Type"] != "application/json":
            self.answer(400, b"{}")
        elif local == "slow":
            time.sleep(60)
        elif local == "huge":
            self.answer(200, b'{"result":"mailbox","padding":"' + b"x" * 2000000 + b'"}')
        elif local in RAW:
            self.answer(200, RAW[local])
        else:
            status, value = DIRECTORY.get(local, (404, {}))
            self.answer(status, json.dumps(value).encode())

    def pieces(self, count):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for n in range(count):
            line = b"piece %d\n" % n
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def hostile(self, word):
        self.close_connection = True
        if word == "slow":
            time.sleep(60)
        elif word == "silent":
            self.rfile.read(1)
        elif word == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        elif word == "hangup":
            self.server.hangups += 1
        elif word == "garbage":
            self.wfile.write(b"220 mail.example.net ESMTP\r\n")
        elif word == "heads":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(10000):
                self.wfile.write(b"X-Header-%d: %s\r\n" % (n, b"x" * 100))

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = self.server.user and "Basic " + base64.b64encode(self.server.user.encode()).decode()
        words = self.path.strip("/").split("/")
        if wanted and self.headers.get("Authorization") != wanted:
            self.answer(401, b"{}")
        elif words[0] == "directory":
            self.directory(body)
        elif words[0] == "echo":
            heads = {k: self.headers.get(k) for k in ("Host", "X-Test", "Content-Type", "Expect")}
            self.answer(200, json.dumps({"method": self.command, "body": body.decode(), **heads}).encode())
        elif words[0] == "status":
            self.answer(int(words[1]), b"" if words[1] == "204" else b"as asked", "text/plain")
        elif words[0] == "huge":
            self.answer(200, b"x" * 1000000)
        elif words[0] == "redirect":
            self.send_response(302)
            self.send_header("Location", "/echo")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif words[0] == "pieces":
            self.pieces(int(words[1]))
        elif words[0] == "hangups":
            self.answer(200, b"%d" % self.server.hangups)
        elif words[0] == "count":
            self.answer(200, b"%d" % self.server.connections)
        else:
            self.hostile(words[0])

    do_GET = do_POST = do


class Server(ThreadingHTTPServer):
    daemon_threads = True
    connections = hangups = 0

    def handle_error(self, request, client_address):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--user")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.user = options.user
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port %d" % server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
