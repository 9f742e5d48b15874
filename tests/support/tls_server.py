"""
Receiving servers that speak TLS as a test wants it, certificates of every kind, TLSA records, and MTA-STS policies over HTTPS.
"""
import base64
import contextlib
import hashlib
import random
import re
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from posthouse_test import Sink
from secure import openssl

EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "DSN")


def free_port_of(addresses):
    """A port that is free at each of these addresses."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for address in addresses:
                    stack.enter_context(socket.create_server((address, port)))
                return port
            except OSError:
                continue


def self_signed(directory, stem):
    """(certificate, key) of nobody's authority."""
    pair = "%s/%s.pem" % (directory, stem), "%s/%s.key" % (directory, stem)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
            "/CN=" + stem, "-addext", "subjectAltName=DNS:" + stem, "-keyout", pair[1], "-out", pair[0])
    return pair


def server_context(pair, chain=None):
    """chain: a file with the authority that is shown too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = pair[0]
    if chain:
        certificate = pair[0] + ".chain"
        with open(certificate, "w") as out:
            for path in (pair[0], chain):
                with open(path) as f:
                    out.write(f.read())
    context.load_cert_chain(certificate, pair[1])
    return context


def der(path):
    with open(path) as f:
        return ssl.PEM_cert_to_DER_cert(re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----\n", f.read(), re.S).group(0))


def public_key(path):
    """The DER of its SubjectPublicKeyInfo."""
    pem = openssl("x509", "-in", path, "-noout", "-pubkey")
    return base64.b64decode("".join(pem.strip().splitlines()[1:-1]))


def tlsa(path, usage=3, selector=1, matching=1):
    """The data of a TLSA record that this certificate meets."""
    octets = public_key(path) if selector else der(path)
    if matching:
        octets = hashlib.new("sha256" if matching == 1 else "sha512", octets).digest()
    return "TLSA %d %d %d %s" % (usage, selector, matching, octets.hex())


class TlsSink(Sink):
    """A Sink with STARTTLS. tls: an SSLContext, or None: not offered. way: what follows upon STARTTLS:
    shake; refuse (454); garbage (no handshake, but words); close; hang (silence); inject (words in the clear behind the 220).
    inside: what EHLO offers in TLS besides. .ways has for each message (version or "", the name asked for, resumed)."""

    def __init__(self, tls=None, way="shake", script=None, extensions=EXTENSIONS, inside=(), injected=b"", session=None, **more):
        self.session = session or Session  # what serves a connection
        self.tls, self.way, self.inside, self.injected = tls, way, tuple(inside), injected
        self.ways, self.handshakes, self.failures, self.names = [], 0, [], []
        if tls:
            tls.sni_callback = self._asked_for
        super().__init__(script, extensions, **more)

    def _asked_for(self, _socket, name, _context):
        self.names.append(name)

    def _ehlo(self, secured):
        words = list(self.extensions) + (list(self.inside) if secured else ["STARTTLS"] if self.tls else [])
        lines = ["sink.test"] + words
        return "\r\n".join("250%s%s" % (" " if i == len(lines) - 1 else "-", line) for i, line in enumerate(lines))

    def _shake(self, connection):
        """The connection inside TLS; raises OSError when there is none."""
        if self.way == "refuse":
            connection.sendall(b"454 4.7.0 no TLS now\r\n")
            return None
        connection.sendall(b"220 2.0.0 go on\r\n" + (self.injected if self.way == "inject" else b""))
        if self.way == "close":
            raise OSError("scripted")
        if self.way == "garbage":
            connection.sendall(b"500 what do you mean\r\n" * 3)
            raise OSError("scripted")
        if self.way == "hang":
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
            raise OSError("scripted")
        try:
            secured = self.tls.wrap_socket(connection, server_side=True)
        except OSError as error:
            self.failures.append(str(error))
            raise
        self.handshakes += 1
        return secured

    def _serve(self, connection):
        with contextlib.suppress(OSError, ValueError):
            with contextlib.closing(self.session(self, connection)) as session:
                session.talk()


class Session:
    def __init__(self, server, connection):
        self.server, self.connection, self.secured = server, connection, False
        self.file = connection.makefile("rwb")
        self.sender, self.recipients = "", []

    def close(self):
        with contextlib.suppress(OSError):
            self.file.close()
        self.connection.close()

    def reply(self, stage, argument, usual):
        self.server._say(self.file, self.server._reply(stage, argument, usual))

    def start_tls(self):
        with self.server.lock:
            self.server.commands.append(("starttls", ""))
        secured = self.server._shake(self.connection)
        if secured:
            self.secured, self.connection = True, secured
            self.file = secured.makefile("rwb")

    def data(self):
        text = self.server._reply("data", "", "354 go on" if self.recipients else "554 5.5.1 no valid recipients")
        self.server._say(self.file, text)
        if isinstance(text, str) and text.startswith("354"):
            s = self.connection
            way = (s.version(), self.server.names[-1] if self.server.names else None, s.session_reused) if self.secured \
                else ("", None, False)
            self.server.ways.append(way)
            self.server._message(self.file, self.sender, self.recipients)

    def talk(self):
        self.reply("banner", "", "220 sink.test ESMTP")
        while True:
            line = self.file.readline(100000)
            if not line:
                return
            text = line.rstrip(b"\r\n").decode("utf-8", "replace")
            verb = text.split(" ")[0].upper()
            if verb in ("EHLO", "LHLO"):
                self.reply("ehlo", text, self.server._ehlo(self.secured))
            elif verb == "STARTTLS" and self.server.tls and not self.secured:
                self.start_tls()
            elif verb == "MAIL":
                self.sender, self.recipients = re.search(r"<(.*?)>", text).group(1), []
                self.reply("mail", text, "250 2.1.0 fine")
            elif verb == "RCPT":
                self.recipient(text)
            elif verb == "DATA":
                self.data()
            elif verb == "QUIT":
                self.reply("quit", text, "221 2.0.0 bye")
                return
            else:
                self.other(verb, text)

    def recipient(self, text):
        reply = self.server._reply("rcpt", text, "250 2.1.5 fine")
        if isinstance(reply, str) and reply.startswith("2"):
            self.recipients.append(re.search(r"<(.*)>", text).group(1))
        self.server._say(self.file, reply)

    def other(self, verb, text):
        self.reply(verb.lower(), text, "250 2.0.0 fine" if verb in ("RSET", "NOOP", "HELO") else "500 5.5.2 what")


class PolicyHost:
    """An HTTPS server of MTA-STS policies. policies: {domain: text, or (status, text)}, and may change; certificates:
    {domain: (certificate, key)}; .asked has the hosts in the order in which they were asked for."""

    def __init__(self, default, policies, certificates=None):
        self.policies, self.asked = dict(policies), []
        contexts = {"mta-sts." + domain: server_context(pair) for domain, pair in (certificates or {}).items()}
        context = server_context(default)

        def choose(connection, name, _context):
            if name in contexts:
                connection.context = contexts[name]
        context.sni_callback = choose
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                host = self.headers["Host"].split(":")[0]
                outer.asked.append(host)
                answer = outer.policies.get(host.removeprefix("mta-sts."), (404, "none here"))
                status, text = answer if isinstance(answer, tuple) else (200, answer)
                if self.path != "/.well-known/mta-sts.txt":
                    status, text = 404, "not this"
                if status == "silence":
                    time.sleep(60)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def policy(mode, *hosts, max_age=86400):
    return "version: STSv1\nmode: %s\n%smax_age: %d\n" % (mode, "".join("mx: %s\n" % host for host in hosts), max_age)
