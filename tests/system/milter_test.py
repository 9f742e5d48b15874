#!/usr/bin/env python3
"""
Proves that real filters work with the daemon: OpenDKIM's signature arrives (behind our Received field) and signs what
arrives, Rspamd refuses its test pattern in the dialogue, a policy service's answers show, and what is not there does what
the operator chose.
"""
import base64
import hashlib
import os
import re
import shutil
import smtplib
import socket
import socketserver
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import World, check, end_process, free_port, main, wait_until

MESSAGE = ("From: a@sender.test\r\nTo: b@rcpt.test\r\nSubject: folded\r\n subject\r\nMessage-ID: <1@sender.test>\r\n"
           "Date: Tue, 24 Nov 2026 08:15:07 +0000\r\n\r\nhello\r\n.stuffed\r\n")
# in two pieces, so that scanners do not take this file for spam
PATTERN = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD" + "-ANTI-UBE-TEST-EMAIL*C.34X"


class Program:
    """A filter in the foreground; ready when its port takes connections."""

    def __init__(self, command, port, log):
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        self.port = port
        wait_until(command[0] + " listens", self._listens, 60)

    def _listens(self):
        if self.process.poll() is not None:
            with open(self.log) as f:
                raise AssertionError("ended: " + f.read())
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        end_process(self.process)


def opendkim(world, domain):
    subprocess.run(["/usr/sbin/opendkim-genkey", "-b", "2048", "-d", domain, "-s", "sel", "-D", world.directory], check=True)
    port = free_port()
    config = world.file("opendkim.conf", "Socket inet:%d@127.0.0.1\nMode s\nDomain %s\nSelector sel\nKeyFile %s/sel.private\n"
                        "InternalHosts 127.0.0.1\nRequireSafeKeys no\nSyslog no\n" % (port, domain, world.directory))
    world.add(Program(["/usr/sbin/opendkim", "-f", "-x", config], port, os.path.join(world.directory, "opendkim.log")))
    return port


def rspamd(world):
    port, run = free_port(), os.path.join(world.directory, "rspamd")
    os.makedirs(run)
    config = world.file("rspamd.conf", """
options { tempdir = "%s"; rundir = "%s"; pidfile = "%s/pid"; hs_cache_dir = "%s"; url_tld = "/dev/null"; filters = "";
  dns { nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; } }
logging { type = "console"; level = "notice"; }
worker "rspamd_proxy" { bind_socket = "127.0.0.1:%d"; milter = yes; timeout = 20s; count = 1;
  upstream "local" { default = yes; self_scan = yes; } }
metric "default" { actions { reject = 15; "add header" = 6; } }
""" % (run, run, run, run, port))
    world.add(Program(["/usr/bin/rspamd", "-f", "-i", "-c", config], port, os.path.join(world.directory, "rspamd.log")))
    return port


class Policy:
    """A policy service that answers by the recipient's local part."""

    ANSWERS = {"later": "DEFER_IF_PERMIT 4.2.0 Greylisted", "never": "REJECT 5.7.1 not you", "field": "PREPEND X-Policy: seen",
               "odd": "FROBNICATE"}

    def __init__(self):
        policy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                question = {}
                for line in self.rfile:
                    if line != b"\n":
                        name, value = line.rstrip(b"\n").decode().split("=", 1)
                        question[name] = value
                        continue
                    policy.questions.append(question)
                    local = question["recipient"].split("@")[0]
                    self.wfile.write(("action=%s\n\n" % policy.ANSWERS.get(local, "DUNNO")).encode())
                    question = {}

        self.questions = []
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def assert_signed(world, octets):
    """The DKIM signature is good (RFC 6376, simple canonicalization): OpenDKIM saw just the octets that arrived."""
    header, body = octets.split(b"\r\n\r\n", 1)
    fields = re.split(rb"\r\n(?![ \t])", header)
    signature = next(f for f in fields if f.startswith(b"DKIM-Signature:"))
    tags = dict(t.strip().split(b"=", 1) for t in signature.split(b":", 1)[1].split(b";") if t.strip())
    plain = lambda tag: re.sub(rb"\s", b"", tags[tag])
    assert plain(b"c") == b"simple/simple", tags
    assert plain(b"bh") == base64.b64encode(hashlib.sha256(body.rstrip(b"\r\n") + b"\r\n").digest()), octets
    text = b""
    for name in plain(b"h").split(b":"):
        found = [f for f in fields if f.split(b":")[0].lower() == name.lower()]
        text += found[-1] + b"\r\n" if found else b""
    text += re.sub(rb"(\bb=)[^;]*$", rb"\1", signature)
    path = lambda name: os.path.join(world.directory, name)
    for name, content in (("signed", text), ("signature", base64.b64decode(plain(b"b")))):
        with open(path(name), "wb") as f:
            f.write(content)
    subprocess.run(["openssl", "rsa", "-in", path("sel.private"), "-pubout", "-out", path("public")], check=True,
                   capture_output=True)
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", path("public"), "-signature", path("signature"),
                           path("signed")], capture_output=True)
    assert done.returncode == 0, (done.stdout, text)


def start(world, gateway):
    sink = world.sink()
    daemon = world.posthouse(gateway=gateway, extra="routes:\n  - {domain: rcpt.test, route: \"smtp:127.0.0.1:%d\"}" % sink.port)
    daemon.start()
    return daemon, sink


def refusal(daemon, recipient="b@rcpt.test", body=MESSAGE):
    with daemon.smtp() as s:
        s.ehlo()
        check(s.mail("a@sender.test"), 250)
        answer = s.rcpt(recipient)
        return s.data(body.encode()) if answer[0] == 250 else answer


def real_filters(world):
    daemon, sink = start(world, "milters:\n  - {name: rspamd, address: \"127.0.0.1:%d\"}\n"
                                "  - {name: opendkim, address: \"127.0.0.1:%d\"}" % (rspamd(world), opendkim(world, "sender.test")))
    daemon.send("a@sender.test", "b@rcpt.test", MESSAGE)
    body = sink.wait(1)[0][2].decode()
    received, rest = body.split("\r\nDKIM-Signature:", 1)
    assert received.startswith("Received: from client.test"), body
    assert "d=sender.test; s=sel" in rest, body
    assert rest.endswith(MESSAGE.split("\r\n\r\n", 1)[1]), body  # the sink removes the stuffing
    for line in MESSAGE.split("\r\n\r\n")[0].split("\r\n"):
        assert "\r\n" + line + "\r\n" in rest, (line, body)
    assert_signed(world, sink.messages[0][2])
    with daemon.smtp() as s:  # a refusal at the end leaves the session usable
        s.ehlo()
        for text, code in ((MESSAGE, 250), (MESSAGE.replace("hello", PATTERN), 554), (MESSAGE, 250)):
            check(s.mail("a@sender.test"), 250)
            check(s.rcpt("b@rcpt.test"), 250)
            check(s.data(text.encode()), code)
    sink.wait(3)
    large = MESSAGE + "0123456789abcdef\r\n" * 40000  # longer than what is kept in memory
    daemon.send("a@sender.test", "b@rcpt.test", large)
    assert sink.wait(4)[3][2].decode().endswith(large.split("\r\n\r\n", 1)[1])
    assert_signed(world, sink.messages[3][2])
    assert daemon.stop() == 0


def policy_service(world):
    service = world.add(Policy())
    daemon, sink = start(world, "policies:\n  - {name: judge, address: \"127.0.0.1:%d\"}" % service.port)
    code, text = refusal(daemon, "later@rcpt.test")
    assert code == 450 and text.startswith(b"4.2.0 Greylisted"), (code, text)
    code, text = refusal(daemon, "never@rcpt.test")
    assert code == 554 and text.startswith(b"5.7.1 not you"), (code, text)
    check(refusal(daemon, "odd@rcpt.test"), 451)
    daemon.send("a@sender.test", "field@rcpt.test", MESSAGE)
    assert "\r\nX-Policy: seen\r\n" in sink.wait(1)[0][2].decode()
    q = service.questions[0]
    assert (q["request"], q["protocol_state"], q["sender"], q["recipient"], q["client_address"], q["helo_name"]) == \
        ("smtpd_access_policy", "RCPT", "a@sender.test", "later@rcpt.test", "127.0.0.1", "client.test"), q
    assert "policy_failed name=judge" in daemon.log_text()
    assert daemon.stop() == 0


def what_is_not_there(world):
    """Each choice, at the earliest stage: the session may be refused in the greeting or at a later command."""
    for choice, code in (("tempfail", 4), ("reject", 5), ("accept", 2)):
        with World() as inner:
            daemon, sink = start(inner, "milters:\n  - {name: gone, address: \"127.0.0.1:%d\", failure: %s}"
                                 % (free_port(), choice))
            try:
                got = refusal(daemon)[0]
            except smtplib.SMTPConnectError as error:
                got = error.smtp_code
            except AssertionError as error:  # MAIL was refused
                got = int(str(error).split("(")[1][:3])
            assert got // 100 == code, (choice, got)
            assert "milter_failed name=gone" in daemon.log_text()
            if choice == "accept":
                sink.wait(1)
            assert daemon.stop() == 0


if __name__ == "__main__":
    for program in ("/usr/sbin/opendkim", "/usr/bin/rspamd"):
        if not shutil.which(program):
            sys.exit("%s is not installed" % program)
    main([real_filters, policy_service, what_is_not_there])
