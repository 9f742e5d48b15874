"""The servers that dialogues are played against, each with settings, a directory, a process and a log of its own, and the
receiving server behind the daemon."""
import getpass
import hashlib
import hmac
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from base64 import b64encode

from talk import Failed, Skipped

HOSTNAME = "mx.example.net"

# -- the receiving server behind posthoused -------------------------------------------------------

class Sink(threading.Thread):
    """Takes every message and keeps it as text: sender, recipients, body."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.messages = []
        self.start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        peer.settimeout(60)
        stream = peer.makefile("rb")
        envelope = []
        try:
            peer.sendall(b"220 sink.example ESMTP\r\n")
            for line in stream:
                verb = line[:4].upper()
                if verb == b"EHLO":
                    peer.sendall(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
                                 b"250-ENHANCEDSTATUSCODES\r\n250 SIZE 100000000\r\n")
                    continue
                if verb == b"DATA":
                    peer.sendall(b"354 go on\r\n")
                    self.take(envelope, self.body(stream))
                    envelope = []
                elif verb in (b"MAIL", b"RCPT"):
                    address = line[line.index(b"<") + 1:line.rindex(b">")].decode("latin-1")
                    if verb == b"MAIL":
                        envelope = []
                    envelope.append(("sender: " if verb == b"MAIL" else "rcpt: ") + address)
                elif verb == b"QUIT":
                    peer.sendall(b"221 2.0.0 bye\r\n")
                    return
                peer.sendall(b"250 2.0.0 ok\r\n")
        except OSError:
            pass
        finally:
            peer.close()

    @staticmethod
    def body(stream):
        """As the most gullible server would read it: LF.LF, CR.CR and their kin end a message too."""
        out = bytearray(b"\n")
        while not re.search(rb"[\r\n]\.[\r\n]", out[-3:]):
            octet = stream.read(1)
            if not octet:
                raise OSError("cut off")
            out += octet
        if out.endswith(b"\r"):
            out += stream.read(1)
        return bytes(out[1:])

    def take(self, envelope, body):
        with self.lock:
            self.messages.append("\n".join(envelope) + "\n\n" + body.decode("latin-1"))

    def texts(self):
        """By the id of our Received header: the copies for several destinations are one message."""
        with self.lock:
            found = {}
            for text in self.messages:
                id_ = re.search(r"\n\tby " + re.escape(HOSTNAME) + r" \(Posthouse\) with \S+ id (\w+)", text)
                if id_:
                    found[id_.group(1)] = found.get(id_.group(1), "") + text
            return list(found.values())


class Milter(threading.Thread):
    """A mail filter that refuses at one command: C connect, H HELO, M MAIL, R RCPT, T DATA, E the end; the rest may pass."""

    def __init__(self, refuses):
        super().__init__(daemon=True)
        self.refuses = refuses.encode()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        peer.settimeout(60)
        with peer, peer.makefile("rb") as stream:
            try:
                while head := stream.read(5):
                    stream.read(int.from_bytes(head[:4], "big") - 1)
                    command = head[4:]
                    if command == b"Q":
                        return
                    if command == b"O":
                        peer.sendall(struct.pack(">IcIII", 13, b"O", 6, 0, 0))
                    elif command not in (b"D", b"A", b"K"):
                        peer.sendall(struct.pack(">Ic", 1, b"r" if command == self.refuses else b"c"))
            except OSError:
                pass


# -- who may log in -------------------------------------------------------------------------------

class Credentials:
    """Certificates and password files in a directory, made when they are first asked for."""

    PASSWORDS = {"alice@example.net": "open sesame", "dave": "hunter2"}
    SCRAM = {"bob@example.net": "pencil"}

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def openssl(self, *words):
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed("openssl: " + done.stderr)
        return done.stdout

    def make(self, name, subject, *more):
        certificate, key = self.path(name + ".pem"), self.path(name + ".key")
        if not os.path.exists(certificate):
            self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                         "-subj", subject, "-keyout", key, "-out", certificate, *more)
        return certificate, key

    def server_pair(self):
        return self.make("server", "/CN=" + HOSTNAME, "-addext", "subjectAltName=DNS:" + HOSTNAME)

    @property
    def ca(self):
        return self.make("ca", "/CN=Test authority")[0]

    def client_pair(self):
        return self.make("client", "/CN=robot", "-addext", "subjectAltName=email:robot@example.net", "-addext",
                         "basicConstraints=critical,CA:FALSE", "-CA", self.ca, "-CAkey", self.path("ca.key"))

    @property
    def client_certificate(self):
        return self.client_pair()[0]

    @property
    def client_key(self):
        return self.client_pair()[1]

    @staticmethod
    def verifier(password):
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
        stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        server = hmac.digest(salted, b"Server Key", "sha256")
        return "SCRAM-SHA-256$4096:" + b64encode(salt).decode() + "$" + b64encode(stored).decode() + ":" + b64encode(server).decode()

    def write(self, name, lines):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        return self.path(name)

    def accounts(self):
        lines = [account + ":" + self.openssl("passwd", "-6", password).strip() for account, password in self.PASSWORDS.items()]
        lines += [account + ":" + self.verifier(password) for account, password in self.SCRAM.items()]
        return self.write("accounts", lines + ["locked@example.net:!"])

    def sender_login(self):
        return self.write("senders", ["alice@example.net: alice@example.net, sales@example.net, @lists.example"])


# -- servers -------------------------------------------------------------------------------------

class Server:
    """What both kinds share: a directory, a process, its log, its port."""

    FRONT_ONLY = {"verdict", "welcome", "credit", "answer_ms", "deliverby_min_s"}
    LISTENER = ("tls", "auth", "submission", "sender_login", "hide_client", "client_certificate", "proxy")

    def __init__(self, program, dialogue):
        self.program = program
        self.directory = tempfile.mkdtemp(prefix="posthouse-dialogue-")
        self.table = os.path.join(self.directory, "recipients.txt")
        with open(self.table, "w", encoding="utf-8") as f:
            f.write(dialogue.table())
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.credentials = Credentials(self.directory)
        self.process = None
        self.draining = False

    def launch(self, command, **options):
        self.process = subprocess.Popen(command, stderr=self.log, **options)

    def peak_rss_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))

    def stop(self):
        """Ends the process; its exit status."""
        if self.process and self.process.poll() is None:
            self.drain()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return "did not stop within 15 s"
        return self.process.returncode if self.process else 0

    def drain(self):
        """One SIGTERM; a second one would end the process without finishing its sessions."""
        if not self.draining:
            self.process.send_signal(signal.SIGTERM)
        self.draining = True

    def log_text(self):
        self.log.flush()
        with open(self.log.name, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def tail(self):
        return self.log_text()[-3000:]

    def remove(self):
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Front(Server):
    def start(self, settings):
        store = os.path.join(self.directory, "stored")
        os.mkdir(store)
        self.store = store
        command = [self.program, f"store={store}", f"hostname={HOSTNAME}", "postmaster=postmaster@example.net",
                   f"domain=example.net:table:{self.table}", "domain=any.example:any"]
        several = {"trusted": "trusted", "balancers": "balancer", "with": "with", "without": "without"}
        for key, value in settings.items():
            if key == "milter":
                continue
            if key == "idle":
                command.append(f"idle_ms={value}")
            elif key in several:
                command += [f"{several[key]}={one}" for one in value.split()]
            else:
                command.append(f"{key}={value}")
        self.launch(command + self.secrets(settings), stdout=subprocess.PIPE)
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            raise Failed("the server did not start: " + self.tail())
        self.port = int(line[1])

    def secrets(self, settings):
        out = []
        if settings.get("tls", "off") != "off":
            out.append("tls_pair=" + ":".join(self.credentials.server_pair()))
        if settings.get("client_certificate") == "true":
            out.append("client_ca=" + self.credentials.ca)
        if settings.get("sender_login") == "true":
            out.append("sender_login_file=" + self.credentials.sender_login())
        if settings.get("auth", "off") != "off":
            out.append("auth_file=" + self.credentials.accounts())
        if "milter" in settings:
            out.append(f"milter=127.0.0.1:{Milter(settings['milter']).port}")
        return out

    def stored(self, count):
        del count
        texts = []
        for name in sorted(os.listdir(self.store)):
            with open(os.path.join(self.store, name), "rb") as f:
                texts.append(f.read().decode("latin-1"))
        return texts


class Daemon(Server):
    def start(self, settings):
        if self.FRONT_ONLY & settings.keys():
            raise Skipped("needs the played scheduler")
        self.sink = Sink()
        self.port = self.free_port()
        config = os.path.join(self.directory, "posthouse.yaml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(self.yaml(settings))
        self.launch([self.program, "--config", config], stdout=subprocess.DEVNULL)
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            if " ready " in self.log_text():
                return
            time.sleep(0.02)
        raise Failed("the server did not start: " + self.tail())

    @staticmethod
    def free_port():
        with socket.create_server(("127.0.0.1", 0)) as s:
            return s.getsockname()[1]

    LIMITS = ("message_size", "recipients", "connections", "memory", "connections_per_client", "received_headers",
              "commands_bad")

    def yaml(self, settings):
        route = f"smtp:127.0.0.1:{self.sink.port}"
        out = ["node:", "  name: mx", f"  hostname: {HOSTNAME}", "  postmaster: postmaster@example.net",
               f"  user: {getpass.getuser()}", f"  data_dir: {self.directory}/data",
               "gateway:", "  listen: [" + self.listener(settings) + "]"]
        for key, name in (("trusted", "trusted_networks"), ("balancers", "balancers")):
            out.append(f"  {name}: [" + ", ".join(settings.get(key, "").split()) + "]")
        for key in ("bare_newline", "pregreet", "vrfy", "loops"):
            if key in settings:
                out.append(f"  {key}: {settings[key]}")
        if "pregreet_ms" in settings:
            out.append(f"  pregreet_wait: {settings['pregreet_ms']}ms")
        inner = [f"    {k}: {v}" for k, v in settings.items() if k in self.LIMITS]
        if "idle" in settings:
            inner.append(f"    idle: {settings['idle']}ms")
        out += (["  limits:"] + inner) if inner else []
        out += self.guard(settings) + self.secrets(settings)
        out += ["domains:",
                f'  - {{name: example.net, recipients: {{table: "{self.table}"}}, route: "{route}"}}',
                f'  - {{name: any.example, recipients: any, route: "{route}"}}',
                "routes:", f'  - {{domain: elsewhere.example, route: "{route}"}}',
                "delivery:", "  loopback_targets: true",
                "admin:", f'  rpc: "ipc://{self.directory}/admin"']
        return "\n".join(out) + "\n"

    def listener(self, settings):
        words = [f'address: "127.0.0.1:{self.port}"']
        words += [f"{key}: {settings[key]}" for key in self.LISTENER if key in settings]
        words += [f"{key}: [" + ", ".join(settings[key].split()) + "]" for key in ("with", "without") if key in settings]
        return "{" + ", ".join(words) + "}"

    @staticmethod
    def guard(settings):
        out = ["  names: false"]
        if "slow_after_errors" in settings:
            out.append(f"  slow: {{mode: enforce, wait: 100ms, after_errors: {settings['slow_after_errors']}}}")
        else:
            out.append("  slow: {mode: off}")  # what a dialogue waits for is its own matter
        if "greylist_ms" in settings:
            out.append(f"  greylist: {{mode: enforce, delay: {settings['greylist_ms']}ms}}")
        if "messages_per_client" in settings:
            out.append(f"  rates: {{client: {{messages: {settings['messages_per_client']}}}}}")
        if "milter" in settings:
            out.append(f'  milters: [{{name: test, address: "127.0.0.1:{Milter(settings["milter"]).port}"}}]')
        return out

    def secrets(self, settings):
        out = []
        if settings.get("tls", "off") != "off":
            certificate, key = self.credentials.server_pair()
            out += ["  tls:", f"    certificate: {certificate}", f"    key: {key}"]
            if settings.get("client_certificate") == "true":
                out.append(f"    client_ca: {self.credentials.ca}")
        if settings.get("auth", "off") != "off":
            out += ["  auth:", f"    backends: [{{kind: file, file: {self.credentials.accounts()}}}]",
                    f"    fail_delay: {settings.get('auth_fail_delay_ms', 1)}ms"]
            out += [f"    {key}: {settings['auth_' + key]}" for key in ("client_failures", "account_failures")
                    if "auth_" + key in settings]
            if settings.get("sender_login") == "true":
                out.append(f"    sender_login: {self.credentials.sender_login()}")
        return out

    def stored(self, count):
        deadline = time.monotonic() + 10
        while len(self.sink.texts()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        return self.sink.texts()
