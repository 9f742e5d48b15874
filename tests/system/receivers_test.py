#!/usr/bin/env python3
"""
Proves delivery to servers that others wrote: Postfix, Exim, OpenSMTPD and Dovecot take plain, 8-bit and large mail and mail for many
recipients, inside TLS where they can, and what they pass on is what was sent; smtp-sink fails in all the ways that it knows. Each of them takes
hundreds of messages of all sizes by many connections, with unknown recipients among them, and all is there once at the end.

Exim and OpenSMTPD cannot be installed beside Postfix: their packages are unpacked, and run in a mount namespace where their users exist.
Where that cannot be (no package mirror, not root), the test says so and goes on without them; POSTHOUSE_ALL_RECEIVERS=1 makes it fail.
"""
import collections
import contextlib
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from clients_test import Postfix
from posthouse_test import BUILD, check, end_process, free_port, main, wait_until
from real_servers import Dovecot
from secure import Authority
from tls_delivery_test import outcomes

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN = b"Subject: plain\r\n\r\n.dot\r\n..\r\nlast line without more\r\n"
EIGHT = ("Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
         "Gr\u00fc\u00dfe aus dem Posthaus\r\n").encode()
LARGE = b"Subject: large\r\n\r\n" + b"".join(b"%07d %s\r\n" % (n, b"x" * 60) for n in range(45000))  # over 3 MB
LOAD = 400
EXIM = """
primary_hostname = receiver.test
exim_path = {program}
deliver_drop_privilege
spool_directory = {d}/spool
log_file_path = {d}/spool/%slog
pid_file_path =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = {cert}
tls_privatekey = {key}
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
recipients_max = 1000
smtp_accept_queue_per_connection = 0
host_lookup =
keep_environment =
begin acl
rcpt:
  deny message = no such user
    local_parts = nobody
  accept
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {next}
  hosts_avoid_tls = *
  hosts_try_prdr =
begin retry
* * F,1h,1m
"""
OPENSMTPD = """
listen on 127.0.0.1 port {port} hostname receiver.test
action "out" relay host smtp://127.0.0.1:{next}
match from any for any rcpt-to "nobody@far.test" reject
match from any for any action "out"
"""
NAMESPACE = """set -e
mount --bind {d}/passwd /etc/passwd
mount --bind {d}/group /etc/group
mount -t tmpfs none /var/spool
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
chmod 711 /var/spool/smtpd /var/lib/opensmtpd
exec "$@"
"""


class NotHere(Exception):
    pass


def unpacked(package):
    """The package's files, below the build directory."""
    directory = os.path.join(BUILD, "receivers", package)
    if not os.path.exists(os.path.join(directory, "whole")):
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        got = subprocess.run(["apt-get", "download", "-q", package], cwd=directory, capture_output=True, text=True)
        files = glob.glob(os.path.join(directory, "*.deb"))
        if got.returncode or not files:
            raise NotHere("apt-get download %s: %s" % (package, got.stderr.strip()[-200:]))
        subprocess.run(["dpkg", "-x", files[0], directory], check=True)
        open(os.path.join(directory, "whole"), "w").close()
    return directory


class InNamespace:
    """A server from a package, with users of its own; it hands on to the port `next`."""

    def __init__(self, world, package, program, config, arguments, users, next_port, pair):
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            raise NotHere("no mount namespace for " + package)
        root = unpacked(package)
        self.directory, self.port, self.process = os.path.join(world.directory, package), free_port(), None
        os.chmod(world.directory, 0o755)
        os.makedirs(os.path.join(self.directory, "spool"))
        words = {"d": self.directory, "port": self.port, "next": next_port, "program": os.path.join(root, program)}
        for name, number in users.items():
            self._append("passwd", "%s:x:%d:%d::/var/lib/opensmtpd/empty:/bin/false\n" % (name, number, number))
            self._append("group", "%s:x:%d:\n" % (name, number))
        for kind, path in zip(("cert", "key"), pair):
            words[kind] = shutil.copy(path, os.path.join(self.directory, kind))
        if package.startswith("exim"):  # it reads them, and writes its spool, as its user
            for path in (words["key"], os.path.join(self.directory, "spool")):
                os.chown(path, users["Debian-exim"], users["Debian-exim"])
        os.chmod(words["key"], 0o600)
        self._write("conf", config.format(**words))
        self.out = open(os.path.join(self.directory, "out"), "w")
        script = self._write("run", NAMESPACE.format(**words))
        self.process = subprocess.Popen(["unshare", "-m", "sh", script, words["program"]] + arguments +
                                        [os.path.join(self.directory, "conf")] + (["-bdf"] if package.startswith("exim") else []),
                                        stdout=self.out, stderr=self.out, stdin=subprocess.DEVNULL)
        wait_until(package + " answers", self._answers, 30)

    def _write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o644)
        return path

    def _append(self, name, line):
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            shutil.copy("/etc/" + name, path)
        with open(path, "a") as f:
            f.write(line)

    def _answers(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.directory, "out")) as f:
                raise AssertionError("ended: " + f.read())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as s:
            return s.recv(100).startswith(b"220")
        return False

    def close(self):
        end_process(self.process)
        self.out.close()


def exim(world, next_port, authority):
    return InNamespace(world, "exim4-daemon-light", "usr/sbin/exim4", EXIM, ["-C"], {"Debian-exim": 9901}, next_port,
                       authority.issue("exim", ["127.0.0.1"]))


def opensmtpd(world, next_port, authority):
    return InNamespace(world, "opensmtpd", "usr/sbin/smtpd", OPENSMTPD, ["-d", "-f"], {"opensmtpd": 9902, "opensmtpq": 9903}, next_port,
                       authority.issue("opensmtpd", ["127.0.0.1"]))


def postfix(world, next_port, authority):
    house = types.SimpleNamespace(authority=authority)
    return Postfix(world, house, "smtpd_tls_cert_file = %s\nsmtpd_tls_key_file = %s\nsmtpd_tls_security_level = may\n"
                   "relayhost = [127.0.0.1]:%d\nmessage_size_limit = 20000000\nsmtp_destination_recipient_limit = 1000\n"
                   "smtpd_recipient_restrictions = check_recipient_access inline:{nobody@far.test=REJECT}, permit\n"
                   % (*authority.issue("postfix", ["127.0.0.1"]), next_port))


def load_body(number):
    size = 1 << 20 if number % 40 == 7 else 100000 if number % 10 == 3 else 1024 + number * 37 % 8000
    line = b"%07d 0123456789abcdefghijklmnopqrstuvwxyz0123456789\r\n" % number
    return line * (size // len(line) + 1)


def send_load(post, names, unknown, load=LOAD):
    """So many messages by eight clients at once; names(n) are the known recipients of number n. Says who should get which numbers, and
    how many recipients are unknown."""
    wrong, due, refused = [], collections.Counter(), []

    def to_of(n):
        return ([] if n % 25 == 0 else names(n)) + ([unknown] if n % 5 == 0 else [])

    def client(first):
        try:
            with post.smtp() as s:
                s.ehlo()
                for n in range(first, load, 8):
                    check(s.mail("a@sender.test"), 250)
                    for to in to_of(n):
                        check(s.rcpt(to), 250)
                    check(s.data(b"Subject: load %d\r\n\r\n" % n + load_body(n)), 250)
        except Exception as error:
            wrong.append(error)
    clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong, wrong
    for n in range(load):
        due.update((to, n) for to in to_of(n) if to != unknown)
        refused += [n] * (unknown in to_of(n))
    return due, refused


def balances(post, due, refused, got, reports):
    """got: (recipient, octets) of all that was received; reports: octets of what came to the sender."""
    had = collections.Counter()
    for to, octets in got:
        n = int(re.search(rb"(?mi)^Subject: load (\d+)", octets).group(1))
        assert octets.replace(b"\r\n", b"\n").endswith(b"\n\n" + load_body(n).replace(b"\r\n", b"\n")), (to, n, octets[-100:])
        had[to, n] += 1
    assert had == due, (list((due - had).elements())[:5], list((had - due).elements())[:5])
    told = sorted(int(re.search(rb"(?mi)^Subject: load (\d+)", octets).group(1)) for octets in reports)
    assert told == refused, (len(told), len(refused))
    figures = post.figures()
    assert figures["queue_messages"] == 0 and figures["in_doubt"] == 0, figures


def takes_load(post, behind, load):
    """Through the server, after takes_all."""
    seen = len(behind.messages)
    due, refused = send_load(post, lambda n: ["l%d-%d@far.test" % (n, k) for k in range(n % 3 + 1)], "nobody@far.test", load)

    def received():
        return sum(len(m[1]) for m in behind.messages[seen:])
    wait_until("the load has passed", lambda: received() >= due.total() + len(refused), 60, 0.1)
    post.wait_empty()
    new = behind.messages[seen:]
    balances(post, due, refused, [(r, m[2]) for m in new if m[0] for r in m[1]], [m[2] for m in new if not m[0]])


def takes_all(world, make, tls=True, load=LOAD):
    """Through the server to a sink behind it."""
    authority = Authority(world.directory)
    behind = world.sink()
    server = world.add(make(world, behind.port, authority))
    post = world.posthouse(delivery="tls: {routes: %s, ca_file: %s}" % ("verify" if tls else "may", authority.file),
                           extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}" % server.port).start()
    many = ["r%d@far.test" % n for n in range(300)]
    for body, recipients, options in ((PLAIN, ["one@far.test"], []), (EIGHT, ["eight@far.test"], ["BODY=8BITMIME"]),
                                      (LARGE, ["large@far.test"], []), (PLAIN, many, [])):
        have = sum(len(m[1]) for m in behind.messages)
        with post.smtp() as s:
            s.ehlo()
            check(s.mail("a@sender.test", options), 250)
            for recipient in recipients:
                check(s.rcpt(recipient), 250)
            check(s.data(body), 250)
        wait_until("%d recipients behind it" % len(recipients),
                   lambda: sum(len(m[1]) for m in behind.messages) >= have + len(recipients), 60)
        got, seen = [], 0
        for message in behind.messages:
            if seen >= have:
                got.append(message)
            seen += len(message[1])
        assert sorted(r for m in got for r in m[1]) == sorted(recipients), [m[1] for m in got]
        content = body.partition(b"\r\n\r\n")[2]
        for sender, _, octets in got:
            assert sender == "a@sender.test" and octets.endswith(b"\r\n\r\n" + content), octets[-300:]
    post.wait_empty()
    ways = [fields["tls"] for to in ("one@far.test", "large@far.test", "r299@far.test") for _, fields in outcomes(post.log_text(), to)]
    assert len(ways) == 3, ways
    assert all(way.startswith("TLSv1.3") and way.endswith(" verified") if tls else way == "no" for way in ways), ways
    takes_load(post, behind, load)


def perhaps(world, make, tls=True, load=LOAD):
    try:
        takes_all(world, make, tls, load)
    except NotHere as why:
        print("not run: %s" % why, flush=True)
        assert not os.environ.get("POSTHOUSE_ALL_RECEIVERS"), why


def postfix_takes_all(world):
    takes_all(world, postfix)


def exim_takes_all(world):
    perhaps(world, exim)


def opensmtpd_takes_all(world):
    # Its key process cannot sign where OpenSSL is of version 3: no server has TLS then. It takes mail as fast as the others, but passes
    # on some fifteen messages a second.
    perhaps(world, opensmtpd, False, 150)


def dovecot_takes_all(world):
    users = {"u%d@box.test" % n: "x" for n in range(50)}
    there = world.add(Dovecot(world, users))
    back = world.sink()
    post = world.posthouse(extra="routes:\n  - {domain: box.test, route: \"lmtp:127.0.0.1:%d\"}\n"
                           "  - {domain: sender.test, route: \"smtp:127.0.0.1:%d\"}" % (there.port, back.port)).start()
    for body, recipients in ((PLAIN, ["u0@box.test"]), (LARGE, ["u1@box.test"]), (EIGHT, ["u2@box.test"]),
                             (PLAIN, ["u%d@box.test" % n for n in range(3, 50)])):
        post.send("a@sender.test", recipients, body, ["BODY=8BITMIME"] if body is EIGHT else [])
        for recipient in recipients:
            found = wait_until("mail of " + recipient, lambda: there.mailbox(recipient), 30)
            assert len(found) == 1, found
            assert found[0].replace(b"\r\n", b"\n").endswith(body.replace(b"\r\n", b"\n").partition(b"\n\n")[2]), found[0][-300:]
    post.wait_empty()
    due, refused = send_load(post, lambda n: ["u%d@box.test" % ((n + k) % 50) for k in range(n % 3 + 1)], "nobody@box.test")
    post.wait_empty(60)
    back.wait(len(refused))
    got = [(user, octets) for user in users for octets in there.mailbox(user) if b"Subject: load" in octets]
    balances(post, due, refused, got, [m[2] for m in back.messages])


# options of smtp-sink, the body, what becomes of the mail and its status (None: any)
FAILURES = [
    (["-f", "RCPT"], PLAIN, "failed", None), (["-f", "MAIL"], PLAIN, "failed", None), (["-f", "DATA"], PLAIN, "failed", None),
    (["-f", "."], PLAIN, "failed", None), (["-r", "RCPT"], PLAIN, "deferred", None), (["-r", "MAIL"], PLAIN, "deferred", None),
    (["-r", "."], PLAIN, "deferred", None), (["-r", "CONNECT"], PLAIN, "deferred", None), (["-f", "CONNECT"], PLAIN, "failed", None),
    (["-q", "MAIL"], PLAIN, "deferred", "4.4.2"), (["-q", "DATA"], PLAIN, "deferred", "4.4.2"),
    (["-q", "."], PLAIN, "in_doubt", "4.4.2"), (["-Q", "MAIL"], PLAIN, "deferred", None), (["-Q", "DATA"], PLAIN, "deferred", None),
    (["-f", "EHLO"], PLAIN, "delivered", None), (["-e"], PLAIN, "delivered", None), (["-p"], PLAIN, "delivered", None),
    (["-a"], PLAIN, "delivered", None), (["-E"], PLAIN, "delivered", None), (["-8"], EIGHT, "delivered", None),
    (["-8", "-p", "-E"], EIGHT, "delivered", None), (["-w", "1"], PLAIN, "delivered", None), ([], LARGE, "delivered", None),
]


class SmtpSink:
    def __init__(self, options):
        self.port = free_port()
        self.process = subprocess.Popen([shutil.which("smtp-sink", path=SBIN), "-u", "nobody"] + options +
                                        ["127.0.0.1:%d" % self.port, "64"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_until("smtp-sink listens", listens)

    def close(self):
        end_process(self.process)


def smtp_sink_fails(world):
    routes, cases = "routes:\n", []
    for number, (options, body, event, status) in enumerate(FAILURES):
        sink = world.add(SmtpSink(options))
        routes += "  - {domain: f%d.test, route: \"smtp:127.0.0.1:%d\"}\n" % (number, sink.port)
        cases.append(("b@f%d.test" % number, options, body, event, status))
    back = world.sink()
    routes += "  - {domain: sender.test, route: \"smtp:127.0.0.1:%d\"}\n" % back.port
    post = world.posthouse(delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}", extra=routes).start()
    for to, _, body, _, _ in cases:
        post.send("a@sender.test", to, body, ["BODY=8BITMIME"] if body is EIGHT else [])
    for to, options, _, event, status in cases:
        got, fields = wait_until("an outcome with %s" % options, lambda: outcomes(post.log_text(), to), 30, 0.1)[0]
        assert got == event and status in (None, fields["status"]), (options, got, fields)
    failed = sum(event == "failed" for _, _, _, event, _ in cases)
    back.wait(failed)


def smtp_sink_takes_load(world):
    """What it dumped is what was sent. (It knows all recipients.)"""
    dumps = os.path.join(world.directory, "dumps")
    os.mkdir(dumps)
    for path in (world.directory, dumps):
        os.chmod(path, 0o777)
    sink = world.add(SmtpSink(["-d", os.path.join(dumps, "m.")]))
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}" % sink.port).start()
    due, refused = send_load(post, lambda n: ["l%d-%d@far.test" % (n, k) for k in range(n % 3 + 1)], "known@far.test")
    due.update(("known@far.test", n) for n in refused)
    post.wait_empty(60)
    got = []
    for name in os.listdir(dumps):
        with open(os.path.join(dumps, name), "rb") as f:
            octets = f.read().rstrip(b"\n") + b"\n"
        got += [(to.decode(), octets) for to in re.findall(rb"(?m)^X-Rcpt-Args: <(.*?)>", octets)]
    balances(post, due, [], got, [])


if __name__ == "__main__":
    main([postfix_takes_all, exim_takes_all, opensmtpd_takes_all, dovecot_takes_all, smtp_sink_fails, smtp_sink_takes_load])
