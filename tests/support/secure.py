"""
What tests of TLS and AUTH share: an authority with its certificates, accounts with passwords, and a client that writes SMTP on
a connection by itself, octet for octet.
"""
import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import subprocess

SLOW = float(os.environ.get("POSTHOUSE_SLOW", "1"))
HOST = "mx.posthouse.test"


def openssl(*words, text=""):
    done = subprocess.run(["openssl"] + list(words), input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError("openssl %s: %s" % (words[0], done.stderr))
    return done.stdout


def replace(path, octets):
    """The file changes at once, as good tools do it, and is nobody else's to read."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as f:
        f.write(octets)
    os.replace(path + ".new", path)


def move(frm, to):
    """Puts the certificate and key `frm` in the place of `to`."""
    for source, target in zip(frm, to):
        with open(source, "rb") as f:
            replace(target, f.read())


class Authority:
    """A certificate authority in a directory of its own; .file is its certificate."""

    def __init__(self, directory, name="authority"):
        self.directory = os.path.join(directory, name)
        os.makedirs(self.directory)
        self.file = self.path("ca.pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60", "-subj",
                "/CN=" + name, "-keyout", self.path("ca.key"), "-out", self.file)

    def path(self, name):
        return os.path.join(self.directory, name)

    def issue(self, stem, names=(), email=None, days=60):
        """(certificate, key): files, good for these host names, addresses or this mail address."""
        certificate, key, request, extensions = (self.path(stem + end) for end in (".pem", ".key", ".csr", ".ext"))
        alternatives = [("IP:" if name[0].isdigit() else "DNS:") + name for name in names] + (["email:" + email] if email else [])
        with open(extensions, "w") as f:
            f.write("subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n" % ",".join(alternatives))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + stem, "-keyout",
                key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.path("ca.key"), "-CAcreateserial", "-days",
                str(days), "-extfile", extensions, "-out", certificate)
        os.chmod(key, 0o600)
        return certificate, key

    def context(self, version=None, pair=None):
        """Settings of a client that believes this authority; version: ssl.TLSVersion, the only one."""
        context = ssl.create_default_context(cafile=self.file)
        if version:
            context.minimum_version = context.maximum_version = version
        if pair:
            context.load_cert_chain(*pair)
        return context


def crypt_line(account, password):
    return "%s:%s\n" % (account, openssl("passwd", "-6", "-stdin", text=password + "\n").strip())


def scram_line(account, password):
    """A line of a password file with a SCRAM-SHA-256 verifier."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    client, server = (hmac.digest(salted, word, "sha256") for word in (b"Client Key", b"Server Key"))
    words = [base64.b64encode(x).decode() for x in (salt, hashlib.sha256(client).digest(), server)]
    return "%s:SCRAM-SHA-256$4096:%s$%s:%s\n" % (account, *words)


class Wire:
    """A client that says what it is told, and reads replies. context: TLS from the first octet."""

    def __init__(self, port, context=None, name=HOST, source=None, session=None, seconds=30):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds * SLOW, (source, 0) if source else None)
        self.rest = b""
        if context:
            self.secure(context, name, session)

    def secure(self, context, name=HOST, session=None):
        self.socket = context.wrap_socket(self.socket, server_hostname=name, session=session)

    def send(self, octets):
        self.socket.sendall(octets)

    def line(self):
        """One line, or what came before the end ("" at once when it is the end)."""
        while b"\n" not in self.rest:
            try:
                octets = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                octets = b""
            if not octets:
                line, self.rest = self.rest, b""
                return line.decode("utf-8", "replace")
            self.rest += octets
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode("utf-8", "replace").rstrip("\r")

    def reply(self):
        """A whole reply: its lines."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return lines

    def say(self, line, code=None):
        self.send(line.encode() + b"\r\n")
        return self.expect(code, line)

    def expect(self, code=None, what="greeting"):
        lines = self.reply()
        if code and not lines[-1].startswith(str(code)):
            raise AssertionError("%s: expected %s, got %r" % (what, code, lines))
        return lines

    def starttls(self, context, name=HOST, session=None):
        """From the greeting to an EHLO inside TLS; its lines."""
        self.expect(220)
        self.say("EHLO client.test", 250)
        self.say("STARTTLS", 220)
        self.secure(context, name, session)
        return self.say("EHLO client.test", 250)

    def mail(self, sender="a@sender.test", recipient="b@rcpt.test", subject="wire", code=250):
        """One message; its last reply."""
        self.say("MAIL FROM:<%s>" % sender, 250)
        self.say("RCPT TO:<%s>" % recipient, 250)
        self.say("DATA", 354)
        self.send(b"From: <%s>\r\nSubject: %s\r\n\r\nhello\r\n" % (sender.encode(), subject.encode()))
        return self.say(".", code)[-1]

    def ended(self):
        """Waits for the end of the connection; what still came."""
        octets = self.rest
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while True:
                more = self.socket.recv(65536)
                if not more:
                    break
                octets += more
        return octets

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()
