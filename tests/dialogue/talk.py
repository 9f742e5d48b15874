"""One dialogue as a file, and one connection that plays it."""
import base64
import hashlib
import hmac
import os
import re
import socket
import ssl
import time

REPLY_S = 10.0
QUIET_S = 0.3

DEFAULT_TABLE = """alice
bob
team: alice, bob
away > carol@any.example
copy >> carol@any.example
circle: ring
ring: circle
lost: nobody
"""


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def unescape(text):
    """Bytes of a text with \\r \\n \\0 \\t \\\\ and \\xHH; b64(TEXT) is its base64."""
    parts = re.split(r"b64\((.*?)\)", text)
    return b"".join(base64.b64encode(plain_bytes(part)) if n % 2 else plain_bytes(part) for n, part in enumerate(parts))


def plain_bytes(text):
    out = bytearray()
    plain = {"r": 13, "n": 10, "0": 0, "t": 9, "\\": 92, "s": 32}
    at = 0
    while at < len(text):
        c = text[at]
        if c != "\\":
            out += c.encode("utf-8")
            at += 1
        elif text[at + 1] == "x":
            out.append(int(text[at + 2:at + 4], 16))
            at += 4
        else:
            out.append(plain[text[at + 1]])
            at += 2
    return bytes(out)


# -- the file ------------------------------------------------------------------------------------

class Dialogue:
    """One data file: sections of lines, each with its number."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.sections = {"settings": [], "table": [], "dialogue": [], "stored": [], "process": [], "log": []}
        section = None
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                line = line.rstrip("\n")
                if line.startswith("#") or not line.strip():
                    continue
                if line.startswith("["):
                    section = line.strip("[] ")
                    if section not in self.sections:
                        raise Failed(f"{path}:{number}: unknown section {line}")
                    continue
                if section is None:
                    raise Failed(f"{path}:{number}: text before the first section")
                self.sections[section].append((number, line))
        if not self.sections["dialogue"]:
            raise Failed(f"{path}: no [dialogue]")

    def settings(self):
        out = {}
        for number, line in self.sections["settings"]:
            key, _, value = line.partition(":")
            out[key.strip()] = value.strip()
        return out

    def table(self):
        lines = [line for _, line in self.sections["table"]]
        return "\n".join(lines) + "\n" if lines else DEFAULT_TABLE


# -- connections ---------------------------------------------------------------------------------

class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""
        self.eof = False
        self.split = 0
        self.last = ""

    def send(self, octets):
        pieces = [octets]
        if self.split:
            pieces = [octets[i:i + self.split] for i in range(0, len(octets), self.split)]
        try:
            for piece in pieces:
                self.socket.sendall(piece)
                if self.split:
                    time.sleep(0.001)
        except OSError as e:
            self.eof = True
            self.broken = str(e)

    def fill(self, timeout):
        if self.eof:
            return False
        self.socket.settimeout(timeout)
        try:
            got = self.socket.recv(65536)
        except socket.timeout:
            return False
        except OSError:
            got = b""
        self.eof = not got
        self.pending += got
        return bool(got)

    def reply(self):
        """One whole reply, its lines joined by LF."""
        deadline = time.monotonic() + REPLY_S
        lines = []
        while True:
            while b"\r\n" in self.pending:
                line, self.pending = self.pending.split(b"\r\n", 1)
                if b"\r" in line or b"\n" in line:
                    raise Failed(f"a reply line with a bare CR or LF: {line!r}")
                text = line.decode("latin-1")
                lines.append(text)
                if not re.match(r"\d\d\d[ -]", text):
                    raise Failed(f"not a reply: {text!r}")
                if text[3] == " ":
                    self.last = "\n".join(lines)
                    return self.last
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"no reply (got {lines!r} {self.pending!r})")
            if not self.fill(left) and self.eof:
                raise Failed(f"connection closed instead of a reply (got {lines!r} {self.pending!r})")

    def expect_closed(self, seconds=REPLY_S):
        deadline = time.monotonic() + seconds
        while not self.eof and time.monotonic() < deadline:
            self.fill(max(0.01, deadline - time.monotonic()))
        if self.pending:
            raise Failed(f"more replies before the end: {self.pending!r}")
        if not self.eof:
            raise Failed("the connection is still open")

    def expect_quiet(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.eof:
            self.fill(max(0.01, end - time.monotonic()))
        if self.pending or self.eof:
            raise Failed(f"not quiet: {self.pending!r}{' closed' if self.eof else ''}")

    def close(self):
        self.socket.close()

    def secure(self, credentials, with_certificate):
        """TLS from here on. The server's certificate is ours, so it is not checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if with_certificate:
            context.load_cert_chain(credentials.client_certificate, credentials.client_key)
        if self.pending:
            raise Failed(f"octets before the handshake: {self.pending!r}")
        self.socket.settimeout(REPLY_S)
        try:
            self.socket = context.wrap_socket(self.socket)
        except (OSError, ValueError) as e:
            raise Failed(f"no TLS: {e}") from None

    def scram(self, account, password):
        """AUTH SCRAM-SHA-256 up to its last reply, which is left to be read."""
        first = "n=" + account + ",r=clientsnonce"
        self.send(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,," + first.encode()) + b"\r\n")
        server_first = self.challenge()
        parts = dict(part.split("=", 1) for part in server_first.split(","))
        without_proof = "c=biws,r=" + parts["r"]
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        text = ",".join((first, server_first, without_proof)).encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), text, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
        self.send(base64.b64encode((without_proof + ",p=" + proof).encode()) + b"\r\n")
        reply = self.reply()
        if not reply.startswith("334"):
            self.pending = reply.encode("latin-1") + b"\r\n" + self.pending
            return
        proven = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), text, "sha256")
        if base64.b64decode(reply[4:]) != b"v=" + base64.b64encode(proven):
            raise Failed("the server does not know the password")
        self.send(b"\r\n")

    def challenge(self):
        reply = self.reply()
        if not reply.startswith("334 "):
            raise Failed(f"expected a challenge, got {reply!r}")
        return base64.b64decode(reply[4:]).decode()
