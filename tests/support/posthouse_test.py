"""
What system tests share: a directory of their own, a daemon with settings, receiving servers, DNS, the tool, and mail.

Everything listens on loopback, everything that was started is ended by its process id, and every wait has an end.
Programs are found through POSTHOUSE_BUILD (the build directory), set by ctest.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("POSTHOUSE_BUILD", os.path.join(ROOT, "build", "release"))
SLOW = float(os.environ.get("POSTHOUSE_SLOW", "1"))  # sanitizer builds wait longer


def free_port():
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]


def wait_until(what, condition, seconds=10.0, step=0.02):
    """The value of condition() as soon as it is true; fails with `what` after the given time."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("timed out: " + what)
        time.sleep(step)


def end_process(process, sig=signal.SIGTERM, seconds=20):
    if process.poll() is None:
        process.send_signal(sig)
        try:
            process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


class Sink:
    """A scriptable SMTP or LMTP server in a thread. `script` maps a stage (banner, ehlo, mail, rcpt, data, dot, rset, quit) to
    a reply, a list of replies used in turn (the last one stays), or a function(argument) -> reply. A reply is text without CRLF;
    None is silence; "close" drops the connection. The argument is the line; at the dot the sender (LMTP: the recipient). Messages that got a 2yz at the dot are in .messages as (sender, [recipients],
    octets)."""

    def __init__(self, script=None, extensions=("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "DSN"), address="127.0.0.1",
                 port=0, lmtp=False):
        self.script = dict(script or {})
        self.extensions = extensions
        self.lmtp = lmtp
        self.messages, self.commands, self.connections = [], [], 0
        self.lock = threading.Lock()
        self.listener = socket.create_server((address, port), backlog=512)
        self.address, self.port = self.listener.getsockname()[:2]
        self.closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.closing = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while not self.closing:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _reply(self, stage, argument, default):
        with self.lock:
            self.commands.append((stage, argument))
            reply = self.script.get(stage, default)
            if isinstance(reply, list):
                reply = reply.pop(0) if len(reply) > 1 else reply[0]
        return reply(argument) if callable(reply) else reply

    def _serve(self, connection):
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rwb") as f:
            self._talk(connection, f)

    def _say(self, f, reply):
        if reply is None:
            time.sleep(600)
        if reply == "close":
            raise OSError("scripted")
        f.write(reply if isinstance(reply, bytes) else reply.encode() + b"\r\n")
        f.flush()

    def _talk(self, connection, f):
        self._say(f, self._reply("banner", "", "220 sink.test ESMTP"))
        sender, recipients = "", []
        while True:
            line = f.readline(100000)
            if not line:
                return
            text = line.rstrip(b"\r\n").decode("utf-8", "replace")
            verb = text.split(" ")[0].upper()
            if verb in ("EHLO", "LHLO"):
                lines = ["sink.test"] + list(self.extensions)
                self._say(f, self._reply("ehlo", text, "\r\n".join("250%s%s" % (" " if i == len(lines) - 1 else "-", l)
                                                                   for i, l in enumerate(lines))))
            elif verb == "HELO":
                self._say(f, self._reply("helo", text, "250 sink.test"))
            elif verb == "MAIL":
                sender, recipients = re.search(r"<(.*?)>", text).group(1), []
                self._say(f, self._reply("mail", text, "250 2.1.0 fine"))
            elif verb == "RCPT":
                reply = self._reply("rcpt", text, "250 2.1.5 fine")
                if isinstance(reply, str) and reply.startswith("2"):
                    recipients.append(re.search(r"<(.*)>", text).group(1))
                self._say(f, reply)
            elif verb == "DATA":
                reply = self._reply("data", text, "354 go on" if recipients else "554 5.5.1 no valid recipients")
                self._say(f, reply)
                if isinstance(reply, str) and reply.startswith("354"):
                    self._message(f, sender, recipients)
            elif verb == "QUIT":
                self._say(f, self._reply("quit", text, "221 2.0.0 bye"))
                return
            else:
                self._say(f, self._reply(verb.lower(), text, "250 2.0.0 fine"))

    def _message(self, f, sender, recipients):
        body = bytearray()
        while True:
            line = f.readline(1000000)
            if not line:
                return
            if line == b".\r\n":
                break
            body += line[1:] if line.startswith(b".") else line
        for recipient in recipients if self.lmtp else [None]:
            reply = self._reply("dot", recipient or sender, "250 2.0.0 taken")
            if isinstance(reply, str) and reply.startswith("2"):
                with self.lock:
                    self.messages.append((sender, [recipient] if recipient else list(recipients), bytes(body)))
            self._say(f, reply)

    def wait(self, count, seconds=15):
        wait_until("%d messages at the receiving server (have %d)" % (count, len(self.messages)),
                   lambda: len(self.messages) >= count, seconds)
        return self.messages


class Nsd:
    """A real authoritative DNS server on loopback. zones: {"example.test": "records in zone file form"}."""

    def __init__(self, directory, zones):
        self.port = free_port()
        self.directory = os.path.join(directory, "nsd")
        os.makedirs(self.directory)
        zone_lines = []
        for name, records in zones.items():
            path = os.path.join(self.directory, name + ".zone")
            with open(path, "w") as f:
                f.write("$ORIGIN %s.\n$TTL 60\n@ SOA ns.%s. root.%s. 1 3600 600 86400 5\n@ NS ns.%s.\nns A 127.0.0.1\n%s\n"
                        % (name, name, name, name, records))
            zone_lines.append('zone:\n  name: "%s"\n  zonefile: "%s"\n' % (name, path))
        config = os.path.join(self.directory, "nsd.conf")
        with open(config, "w") as f:
            f.write('server:\n  ip-address: 127.0.0.1@%d\n  username: ""\n  chroot: ""\n  zonesdir: "%s"\n  database: ""\n'
                    '  pidfile: ""\n  logfile: "%s/nsd.log"\n  xfrdfile: "%s/xfrd.state"\n  zonelistfile: "%s/zone.list"\n'
                    '  server-count: 1\n  cookie-secret-file: ""\nremote-control:\n  control-enable: no\n%s'
                    % (self.port, self.directory, self.directory, self.directory, self.directory, "".join(zone_lines)))
        self.process = subprocess.Popen([shutil.which("nsd", path="/usr/sbin:/usr/bin"), "-d", "-c", config],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until("nsd answers", self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.directory, "nsd.log")) as f:
                raise AssertionError("nsd ended: " + f.read())
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            with contextlib.suppress(OSError):
                s.sendto(query, ("127.0.0.1", self.port))
                return s.recv(512)[:2] == b"\x12\x34"

    def close(self):
        end_process(self.process)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGTERM)


class Posthouse:
    """A daemon with its own directory. `settings` is YAML text; the listener, data directory, user, RPC endpoint and fast
    retries are added where the text does not say them."""

    def __init__(self, directory, gateway="", delivery="", extra="", node="", scheduler="", environment=None, port=None,
                 data_dir=None):
        self.directory = directory
        self.port = port or free_port()
        self.data_dir = data_dir or os.path.join(directory, "data")
        self.rpc = "ipc://" + os.path.join(directory, "admin")
        self.config = os.path.join(directory, "posthouse.yaml")
        self.log = os.path.join(directory, "posthoused.log")
        self.environment = dict(os.environ, **(environment or {}))
        self.process = None
        self.write_settings(gateway, delivery, extra, node, scheduler)

    def write_settings(self, gateway="", delivery="", extra="", node="", scheduler=""):
        def indent(text):
            return "".join("  " + line + "\n" for line in text.strip("\n").split("\n")) if text.strip() else ""
        if "retry" not in delivery:
            delivery += "\nretry: {first: 1s, max: 4s, give_up: 1h, delay_notice: 0}"
        text = "node:\n  name: t1\n  hostname: mx.posthouse.test\n  data_dir: %s\n  user: root\n%s" % (self.data_dir, indent(node))
        text += "gateway:\n  listen:\n    - {address: \"127.0.0.1:%d\"}\n%s" % (self.port, indent(gateway))
        text += "delivery:\n  loopback_targets: true\n" + indent(delivery)
        if scheduler:
            text += "scheduler:\n" + indent(scheduler)
        text += "admin:\n  rpc: \"%s\"\n" % self.rpc
        with open(self.config, "w") as f:
            f.write(text + extra + "\n")

    def start(self, wait=True):
        self.log_file = open(self.log, "ab")
        start = self.log_file.tell()
        self.process = subprocess.Popen([os.path.join(BUILD, "posthoused"), "--config", self.config],
                                        stdout=self.log_file, stderr=self.log_file, env=self.environment)
        if wait:
            wait_until("posthoused is ready", lambda: self.process.poll() is not None or b" ready " in self.log_bytes(start),
                       30, 0.01)
            if self.process.poll() is not None:
                raise AssertionError("posthoused ended with %d:\n%s" % (self.process.returncode, self.log_text()[-3000:]))
        return self

    def log_bytes(self, start=0):
        with open(self.log, "rb") as f:
            f.seek(start)
            return f.read()

    def log_text(self):
        return self.log_bytes().decode("utf-8", "replace")

    def stop(self, sig=signal.SIGTERM, seconds=60):
        status = end_process(self.process, sig, seconds)
        self.log_file.close()
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log_file.close()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def tool(self, *words, ok=True, text=False):
        """The tool's JSON answer (or its text); with ok=False the finished process."""
        command = [os.path.join(BUILD, "posthouse"), "--server", self.rpc] + ([] if text else ["--json"]) + list(words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        if not ok:
            return done
        if done.returncode != 0:
            raise AssertionError("%s: status %d: %s" % (" ".join(words), done.returncode, done.stderr))
        return done.stdout if text else json.loads(done.stdout)

    def figures(self):
        return self.tool("status")["figures"]

    def queue(self, *filter):
        return self.tool("queue", "list", *filter)["rows"]

    def wait_empty(self, seconds=30):
        def empty():
            figures = self.figures()  # after a start the count is whole only when the store has been read
            return figures["queue_scanned"] == 1 and figures["queue_messages"] == 0
        wait_until("the queue is empty", empty, seconds, 0.1)

    def smtp(self):
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=30)

    def send(self, sender, recipients, body="Subject: test\r\n\r\nhello\r\n", mail_options=(), rcpt_options=()):
        """Sends one message and returns its id."""
        if isinstance(recipients, str):
            recipients = [recipients]
        with self.smtp() as s:
            s.ehlo()
            check(s.mail(sender, list(mail_options)), 250)
            for recipient in recipients:
                check(s.rcpt(recipient, list(rcpt_options)), 250)
            code, reply = s.data(body if isinstance(body, bytes) else body.encode())
            check((code, reply), 250)
            return id_of(reply)


def id_of(reply):
    found = re.search(rb"\b([0-9A-HJKMNP-TV-Z]{13})\b", reply)
    if not found:
        raise AssertionError("no message id in %r" % reply)
    return found.group(1).decode()


def check(answer, code):
    if answer[0] != code:
        raise AssertionError("expected %d, got %r" % (code, answer))
    return answer


class World:
    """A directory and all that was started in it; a context manager that ends everything and, on a failure, shows the log."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="posthouse-test-")
        self.things = []
        self.daemon = None

    def __enter__(self):
        return self

    def add(self, thing):
        self.things.append(thing)
        return thing

    def sink(self, *args, **kwargs):
        return self.add(Sink(*args, **kwargs))

    def nsd(self, zones):
        return self.add(Nsd(self.directory, zones))

    def posthouse(self, **settings):
        self.daemon = Posthouse(self.directory, **settings)
        return self.daemon

    def file(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def __exit__(self, kind, value, trace):
        if self.daemon and self.daemon.process and self.daemon.process.poll() is None:
            self.daemon.kill()
        for thing in reversed(self.things):
            thing.close()
        if kind and self.daemon and os.path.exists(self.daemon.log):
            sys.stderr.write("--- the end of %s\n%s\n" % (self.daemon.log, self.daemon.log_text()[-6000:]))
        shutil.rmtree(self.directory, ignore_errors=True)


def main(tests):
    """Runs functions in order, each with a world of its own; names may be given on the command line."""
    wanted = sys.argv[1:]
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            with World() as world:
                test(world)
        except Exception as error:  # one failure does not hide the others
            failed += 1
            import traceback
            traceback.print_exc()
            print("FAILED %s: %s" % (test.__name__, error), flush=True)
        else:
            print("ok %s (%.1f s)" % (test.__name__, time.monotonic() - start), flush=True)
    sys.exit(1 if failed else 0)
