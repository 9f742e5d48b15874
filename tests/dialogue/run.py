#!/usr/bin/env python3
"""Runs SMTP dialogues (tests/dialogue/data, format in README.md) against a server that it starts itself.

  run.py --front PATH FILE...    the front end with a played scheduler (tests/support/smtp_front_main.c)
  run.py --daemon PATH FILE...   posthoused, delivering to a receiving server inside this program

Exit status: 0 all dialogues hold, 1 some do not, 77 all were skipped (made for the other server), 2 usage.
"""
import argparse
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

REPLY_S = 10.0
QUIET_S = 0.3
HOSTNAME = "mx.example.net"
SKIP = 77

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
    """Bytes of a text with \\r \\n \\0 \\t \\\\ and \\xHH."""
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
        self.sections = {"settings": [], "table": [], "dialogue": [], "stored": [], "process": []}
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

    def expect_closed(self):
        deadline = time.monotonic() + REPLY_S
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


# -- servers -------------------------------------------------------------------------------------

class Server:
    """What both kinds share: a directory, a process, its log, its port."""

    FRONT_ONLY = {"verdict", "welcome", "credit", "answer_ms"}

    def __init__(self, program, dialogue):
        self.program = program
        self.directory = tempfile.mkdtemp(prefix="posthouse-dialogue-")
        self.table = os.path.join(self.directory, "recipients.txt")
        with open(self.table, "w", encoding="utf-8") as f:
            f.write(dialogue.table())
        self.log = open(os.path.join(self.directory, "log"), "wb")
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

    def wait_ready(self):
        """Until the queue is reached as well: MAIL is not answered 451."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        raise Failed("the server did not start: " + self.tail())

    def answers(self):
        try:
            client = Client(self.port)
        except OSError:
            return False
        try:
            client.reply()
            for line in (b"EHLO probe\r\n", b"MAIL FROM:<>\r\n"):
                client.send(line)
                reply = client.reply()
            client.send(b"QUIT\r\n")
            client.reply()
            client.expect_closed()
            return reply.startswith("250")
        except Failed:
            return False
        finally:
            client.close()

    def tail(self):
        self.log.flush()
        with open(self.log.name, "rb") as f:
            return f.read()[-3000:].decode("utf-8", "replace")

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
        for key, value in settings.items():
            if key == "idle":
                command.append(f"idle_ms={value}")
            elif key == "trusted":
                command += [f"trusted={net}" for net in value.split()]
            else:
                command.append(f"{key}={value}")
        self.launch(command, stdout=subprocess.PIPE)
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            raise Failed("the server did not start: " + self.tail())
        self.port = int(line[1])
        if settings.get("welcome") != "false":
            self.wait_ready()

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

    @staticmethod
    def free_port():
        with socket.create_server(("127.0.0.1", 0)) as s:
            return s.getsockname()[1]

    def yaml(self, settings):
        limits = {"message_size": "message_size", "recipients": "recipients", "connections": "connections", "memory": "memory",
                  "connections_per_client": "connections_per_client", "received_headers": "received_headers",
                  "commands_bad": "commands_bad"}
        route = f"smtp:127.0.0.1:{self.sink.port}"
        out = ["node:", "  name: mx", f"  hostname: {HOSTNAME}", "  postmaster: postmaster@example.net",
               f"  user: {getpass.getuser()}", f"  data_dir: {self.directory}/data", "gateway:", f'  listen: [{{address: "127.0.0.1:{self.port}"}}]',
               "  trusted_networks: [" + ", ".join(settings.get("trusted", "").split()) + "]"]
        for key in ("bare_newline", "pregreet", "vrfy"):
            if key in settings:
                out.append(f"  {key}: {settings[key]}")
        if "pregreet_ms" in settings:
            out.append(f"  pregreet_wait: {settings['pregreet_ms']}ms")
        if "loops" in settings:
            out.append(f"  loops: {settings['loops']}")
        out.append("  slow: {mode: off}")  # what a dialogue waits for is its own matter
        inner = [f"    {limits[k]}: {v}" for k, v in settings.items() if k in limits]
        if "idle" in settings:
            inner.append(f"    idle: {settings['idle']}ms")
        out += (["  limits:"] + inner) if inner else []
        out += ["domains:",
                f'  - {{name: example.net, recipients: {{table: "{self.table}"}}, route: "{route}"}}',
                f'  - {{name: any.example, recipients: any, route: "{route}"}}',
                "routes:", f'  - {{domain: elsewhere.example, route: "{route}"}}',
                "delivery:", "  loopback_targets: true",
                "admin:", f'  rpc: "ipc://{self.directory}/admin"']
        return "\n".join(out) + "\n"

    def stored(self, count):
        deadline = time.monotonic() + 10
        while len(self.sink.texts()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        return self.sink.texts()


# -- running -------------------------------------------------------------------------------------

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
            "closed": lambda: self.client.expect_closed(),
            "quiet": lambda: self.client.expect_quiet(float(rest) if rest else QUIET_S),
            "close": lambda: self.client.close(),
            "shut": lambda: self.client.socket.shutdown(socket.SHUT_WR),
            "split": lambda: setattr(self.client, "split", int(rest)),
            "wait": lambda: time.sleep(float(rest)),
            "connect": lambda: self.connect(rest),
            "use": lambda: self.use(rest),
            "drain": lambda: self.server.drain(),
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
