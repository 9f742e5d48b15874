#!/usr/bin/env python3
"""
An HTTPS server for MTA-STS policies and TLS reports: what it answers stands in a folder.

    policy_server.py CERT KEY FOLDER [--port N]

GET of /.well-known/mta-sts.txt at mta-sts.DOMAIN answers with the file FOLDER/DOMAIN; one that begins with "!" is an
order: "!404", "!302", "!html", "!bare" (no Content-Type), "!huge", "!slow SECONDS", and what follows its first line is the body. POST
keeps its body as FOLDER/posted.N and its headers as FOLDER/posted.N.json; the answer is the status that FOLDER/post-status
says, or 200. Prints "port N" when it listens on 127.0.0.1, ends when its standard input ends.
"""
import argparse
import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def read(path, default=None):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return default


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, octets, kind="text/plain; charset=utf-8", headers=()):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def do_GET(self):
        host = (self.headers.get("Host") or "").split(":")[0]
        domain = host[len("mta-sts."):] if host.startswith("mta-sts.") else ""
        octets = read(os.path.join(self.server.folder, domain.replace("/", "")), None) if domain else None
        if octets is None or (self.path != "/.well-known/mta-sts.txt" and self.path != "/elsewhere"):
            self.answer(404, b"no such policy\n")
            return
        if not octets.startswith(b"!") or self.path == "/elsewhere":
            self.answer(200, octets.split(b"\n", 1)[1] if octets.startswith(b"!") else octets)
            return
        order, _, body = octets[1:].partition(b"\n")
        words = order.decode().split()
        if words[0] == "slow":
            time.sleep(float(words[1]))
            self.answer(200, body)
        elif words[0] == "302":
            self.answer(302, b"", headers=[("Location", "/elsewhere")])
        elif words[0] == "html":
            self.answer(200, body, "text/html")
        elif words[0] == "bare":
            self.answer(200, body, None)
        elif words[0] == "huge":
            self.answer(200, body + b"filler: x\n" * 10000)
        else:
            self.answer(int(words[0]), body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        folder = self.server.folder
        with self.server.lock:
            number = self.server.posted = self.server.posted + 1
        with open(os.path.join(folder, "posted.%d.json" % number), "w") as f:
            json.dump({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}}, f)
        with open(os.path.join(folder, "posted.%d" % number), "wb") as f:
            f.write(body)
        self.answer(int(read(os.path.join(folder, "post-status"), b"200")), b"")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.folder = options.folder
    server.lock = threading.Lock()
    server.posted = 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port %d" % server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
