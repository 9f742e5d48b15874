#!/usr/bin/env python3
"""
Proves what operators rely on in TLS: the certificate that a client asks for, profiles, new files without a restart, session tickets
that several gateways share, client certificates as credentials, and what becomes of clients that cheat or stall in a handshake.
"""
import base64
import os
import re
import shutil
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, Posthouse, free_port, main, wait_until
from secure import HOST, Authority, Wire, crypt_line, move, openssl, replace

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DOMAINS = """domains:
  - {name: rcpt.test, recipients: any, route: "smtp:127.0.0.1:%d"}
routes:
  - {domain: far.test, route: "smtp:127.0.0.1:%d"}
"""


class House:
    """A daemon with STARTTLS at its first port and TLS from the first octet at .implicit."""

    def __init__(self, world, tls, listener="", start=True, more=""):
        self.sink = world.sink()
        self.implicit = free_port()
        self.daemon = world.posthouse(gateway="""
  - {address: "127.0.0.1:%d", tls: implicit%s}
trusted_networks: []
names: false
tls: {%s}
%s
""" % (self.implicit, listener, tls, more), extra=DOMAINS % (self.sink.port, self.sink.port))
        if start:
            self.daemon.start()

    def served(self, context, name=HOST):
        """The names in the certificate that is shown for `name`; whether they fit is not asked."""
        context.check_hostname = False
        with Wire(self.implicit, context, name) as w:
            w.expect(220)
            return sorted(value for _, value in w.socket.getpeercert()["subjectAltName"])


def pair(files):
    return "certificate: %s, key: %s" % files


def refused(port, context, name=HOST):
    """Whether the handshake fails."""
    try:
        with Wire(port, context, name) as w:
            return not w.line()
    except (ssl.SSLError, ConnectionResetError):
        return True


def certificates_by_name(world):
    authority = Authority(world.directory)
    first, second, wild = (authority.issue(stem, names) for stem, names in (
        ("first", [HOST, "smtp.posthouse.test"]), ("second", ["mx.second.test", "exact.wild.test"]), ("wild", ["*.wild.test"])))
    house = House(world, "%s, certificates: [{%s}, {%s}]" % (pair(first), pair(second), pair(wild)))
    first_names, second_names = sorted([HOST, "smtp.posthouse.test"]), sorted(["mx.second.test", "exact.wild.test"])
    for name, names in ((HOST, first_names), ("SMTP.posthouse.TEST", first_names), ("mx.second.test", second_names),
                        ("exact.wild.test", second_names), ("any.wild.test", ["*.wild.test"]), ("two.deep.wild.test", first_names),
                        ("wild.test", first_names), ("unknown.test", first_names), (None, first_names)):
        for version in (TLS12, TLS13):
            assert house.served(authority.context(version), name) == names, (name, version)
    with Wire(house.daemon.port) as w:  # and so for STARTTLS, with the name checked
        assert not any("STARTTLS" in line for line in w.starttls(authority.context(), "mx.second.test"))
        w.mail(subject="by name")
    assert b"with ESMTPS id" in house.sink.wait(1)[0][2]


def profiles(world):
    authority = Authority(world.directory)
    files = authority.issue("server", [HOST])

    def takes(version, ciphers=None):
        context = authority.context()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers + ":@SECLEVEL=0")
        return not refused(house.implicit, context)
    expected = {"modern": (False, False, False, True), "intermediate": (False, False, True, True), "old": (True, True, True, True)}
    for profile, answers in expected.items():
        house = House(world, "%s, profile: %s" % (pair(files), profile))
        got = (takes(ssl.TLSVersion.TLSv1, "ALL"), takes(TLS12, "ECDHE-ECDSA-AES256-SHA"),
               takes(TLS12, "ECDHE-ECDSA-AES128-GCM-SHA256"), takes(TLS13))
        assert got == answers, (profile, got)
        assert house.daemon.stop() == 0
        shutil.rmtree(house.daemon.data_dir)
    assert "tls_failed" in house.daemon.log_text() and "protocol" in house.daemon.log_text()


def new_files_without_a_signal(world):
    authority = Authority(world.directory)
    live = authority.issue("live", [HOST])
    house = House(world, pair(live))
    log = house.daemon.log_text
    with Wire(house.daemon.port) as under_way:
        under_way.starttls(authority.context())
        for line, code in (("MAIL FROM:<a@sender.test>", 250), ("RCPT TO:<b@rcpt.test>", 250), ("DATA", 354)):
            under_way.say(line, code)
        under_way.send(b"Subject: under way\r\n\r\nbefore\r\n")
        move(authority.issue("renewed", [HOST, "renewed.test"]), live)
        wait_until("the new certificate", lambda: house.served(authority.context()) == sorted([HOST, "renewed.test"]), 20, 0.1)

        # A broken one is named, and changes nothing.
        for broken in (b"no certificate\n", b""):
            start = len(log())
            replace(live[0], broken)
            wait_until("the file is named", lambda: 'settings_problem problem="%s: ' % live[0] in log()[start:], 20, 0.1)
            assert house.served(authority.context()) == sorted([HOST, "renewed.test"])
        # Nor does a certificate without its key.
        other = authority.issue("other", [HOST, "other.test"])
        start = len(log())
        shutil.copy(other[0], live[0])
        wait_until("the key is named", lambda: re.search("settings_problem .*%s" % re.escape(live[1]), log()[start:]), 20, 0.1)
        assert house.served(authority.context()) == sorted([HOST, "renewed.test"])
        move(other, live)
        wait_until("the next certificate", lambda: house.served(authority.context()) == sorted([HOST, "other.test"]), 20, 0.1)

        under_way.send(b"after\r\n")
        under_way.say(".", 250)
        under_way.mail(subject="next")
    messages = house.sink.wait(2)
    assert any(m[2].endswith(b"\r\nbefore\r\nafter\r\n") for m in messages), messages


def visit(port, context, session=None):
    """(was resumed, session): one whole visit, which brings the tickets of TLS 1.3 along."""
    with Wire(port, context, session=session) as w:
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.say("QUIT", 221)
        return w.socket.session_reused, w.socket.session


def tickets_of_one_gateway(world):
    authority = Authority(world.directory)
    house = House(world, pair(authority.issue("server", [HOST])))
    figure = lambda: house.daemon.figures()["posthouse_smtp_tls_resumed_total"]
    for version in (TLS12, TLS13):
        context, before = authority.context(version), figure()
        resumed, session = visit(house.implicit, context)
        assert not resumed and session.has_ticket
        resumed, session = visit(house.implicit, context, session)
        assert resumed and figure() == before + 1
        with Wire(house.daemon.port) as w:  # at another listener, too
            w.starttls(context, session=session)
            assert w.socket.session_reused
            w.mail(subject="resumed")
    house.sink.wait(2)


def ticket_keys(path, *keys):
    replace(path, b"".join(base64.b64encode(key) + b"\n" for key in keys))


def sealed_by(world, port, *words):
    """The name of the key that seals the tickets of new sessions: what a ticket begins with."""
    path = os.path.join(world.directory, "session")
    subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_2", "-sess_out", path, *words], input="QUIT\r\n",
                   capture_output=True, text=True, timeout=60)
    dump = re.search(r"0000 - ((?:[0-9a-f]{2}[ -]){16})", openssl("sess_id", "-in", path, "-noout", "-text")).group(1)
    return bytes.fromhex(dump.replace("-", " "))


def tickets_of_two_gateways(world):
    """They share a file of keys; turning the keys over loses no session while the old key is still in the file."""
    authority = Authority(world.directory)
    files = authority.issue("server", [HOST])
    first, second = os.urandom(80), os.urandom(80)
    path = os.path.join(world.directory, "tickets")
    ticket_keys(path, first)
    tls = "%s, ticket_keys: %s" % (pair(files), path)
    one = House(world, tls)
    place, port = os.path.join(world.directory, "other"), free_port()
    os.makedirs(place)
    other = Posthouse(place, gateway='\n  - {address: "127.0.0.1:%d", tls: implicit}\ntls: {%s}' % (port, tls)).start()
    try:
        contexts = [authority.context(version) for version in (TLS12, TLS13)]
        old = [visit(one.implicit, context)[1] for context in contexts]
        everywhere = [(context, session, p) for context, session in zip(contexts, old) for p in (one.implicit, port)]
        assert sealed_by(world, one.implicit) == first[:16]
        assert all(visit(p, context, session)[0] for context, session, p in everywhere), "each opens what the other sealed"

        ticket_keys(path, second, first)
        wait_until("both seal by the new key", lambda: all(sealed_by(world, p) == second[:16] for p in (one.implicit, port)), 20, 0.1)
        assert all(visit(p, context, session)[0] for context, session, p in everywhere), "the old key still opens"
        new = [visit(port, context)[1] for context in contexts]

        replace(path, b"no key\n")
        for daemon in (one.daemon, other):
            wait_until("the file is named", lambda: 'settings_problem problem="%s:1: ' % path in daemon.log_text(), 20, 0.1)
        assert all(visit(p, context, session)[0] for context, session, p in everywhere), "a broken file changes nothing"

        ticket_keys(path, second)
        wait_until("the old key is forgotten", lambda: not any(visit(p, context, session)[0] for context, session, p in everywhere), 20,
                   0.1)
        assert all(visit(p, context, session)[0] for context, session in zip(contexts, new) for p in (one.implicit, port))
    finally:
        other.stop()


def reloads_change_what_tls_is(world):
    """Other ticket keys, and TLS that goes and comes back, while a session is about to begin it."""
    authority = Authority(world.directory)
    files, path, key = authority.issue("server", [HOST]), os.path.join(world.directory, "tickets"), os.urandom(80)
    ticket_keys(path, key)
    sink = world.sink()
    post = world.posthouse()

    def write(tls):
        post.write_settings("names: false\n" + tls, extra=DOMAINS % (sink.port, sink.port))

    def offers():
        with Wire(post.port) as w:
            w.expect(220)
            return any("STARTTLS" in line for line in w.say("EHLO client.test", 250))
    write("tls: {%s}\n" % pair(files))
    post.start()
    assert offers() and sealed_by(world, post.port, "-starttls", "smtp") != key[:16]
    write("tls: {%s, ticket_keys: %s}\n" % (pair(files), path))
    post.reload()
    wait_until("the keys of the file", lambda: sealed_by(world, post.port, "-starttls", "smtp") == key[:16], 20, 0.1)
    with Wire(post.port) as w:
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.say("STARTTLS", 220)
        write("")
        post.reload()
        wait_until("TLS is gone", lambda: not offers(), 20, 0.1)
        w.secure(authority.context())
        w.say("EHLO client.test", 250)
        w.mail(subject="late")
    sink.wait(1)
    write("tls: {%s}\n" % pair(files))
    post.reload()
    wait_until("TLS is back", offers, 20, 0.1)
    assert sealed_by(world, post.port, "-starttls", "smtp") != key[:16]


def client_certificates(world):
    authority, stranger = Authority(world.directory), Authority(world.directory, "stranger")
    house = House(world, "%s, client_ca: %s" % (pair(authority.issue("server", [HOST])), authority.file), ", client_certificate: true")
    good = authority.issue("printer", email="printer@posthouse.test")
    nameless = authority.issue("scanner", ["scanner.posthouse.test"])
    wrong = stranger.issue("stranger", email="printer@posthouse.test")

    def relay(port, certificate, version=TLS13, code=250, starttls=False):
        context = authority.context(version, certificate)
        with Wire(port, None if starttls else context) as w:
            if starttls:
                w.starttls(context)
            else:
                w.expect(220)
                w.say("EHLO client.test", 250)
            w.say("MAIL FROM:<a@sender.test>", 250)
            lines = w.say("RCPT TO:<b@far.test>", code)
            if code == 250:
                w.say("RSET", 250)
                w.mail(recipient="b@far.test", subject="by certificate")
            return lines[-1]
    for version in (TLS12, TLS13):
        relay(house.implicit, good, version)
        assert relay(house.implicit, wrong, version, 550).startswith("550 5.7.1 ")
        assert relay(house.implicit, None, version, 550).startswith("550 5.7.1 ")
    relay(house.implicit, nameless)
    relay(house.daemon.port, good, code=550, starttls=True)  # this listener has no client_certificate
    for message in house.sink.wait(3):
        assert b" with ESMTPSA id " in message[2], message
    accepted = re.findall(r" accepted .*account=(\S+)", house.daemon.log_text())
    assert accepted[:2] == ["printer@posthouse.test"] * 2 and "CN=scanner" in accepted[2], accepted
    with Wire(house.implicit, authority.context(pair=wrong)) as w:  # it may still send to our own domains
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.mail()
    assert b" with ESMTPS id " in house.sink.wait(4)[-1][2]


def injected_commands(world):
    """CVE-2011-0411: what stands behind STARTTLS in the clear is never taken as said inside TLS."""
    authority = Authority(world.directory)
    house = House(world, pair(authority.issue("server", [HOST])))
    for words in (b"STARTTLS\r\nEHLO evil.test\r\n", b"STARTTLS\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\n",
                  b"STARTTLS\r\n\r\n", b"NOOP\r\nSTARTTLS\r\nQUIT\r\n"):
        with Wire(house.daemon.port) as w:
            w.expect(220)
            w.say("EHLO client.test", 250)
            w.send(words)
            answers = [line[:3] for line in w.ended().split(b"\r\n") if line]
            assert answers in ([b"220"], [], [b"250"], [b"250", b"220"]), (words, answers)
    assert house.daemon.log_text().count("starttls_refused") == 4, house.daemon.log_text()
    with Wire(house.daemon.port) as w:  # in the clear after the 220: no handshake, and no answer in the clear
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.say("STARTTLS", 220)
        w.send(b"EHLO evil.test\r\nMAIL FROM:<evil@sender.test>\r\n")
        assert b"250" not in w.ended()
    with Wire(house.daemon.port) as w:  # and what was said before the handshake is forgotten
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.say("STARTTLS", 220)
        w.secure(authority.context())
        w.say("MAIL FROM:<a@sender.test>", 503)
        w.say("EHLO client.test", 250)
        w.mail()
    house.sink.wait(1)
    assert "evil" not in house.daemon.log_text().replace("helo=evil.test", ""), house.daemon.log_text()


def broken_handshakes(world):
    """Plain octets where TLS is expected are refused; who stops in a handshake is cut off, and the others are served."""
    authority = Authority(world.directory)
    house = House(world, pair(authority.issue("server", [HOST])), more="limits: {idle: 10s}")  # and no handshake is longer
    context = authority.context()
    for octets in (b"EHLO client.test\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 3000, os.urandom(500)):
        with Wire(house.implicit) as w:
            w.send(octets)
            answer = w.ended()
            assert b"220" not in answer and len(answer) < 100, answer
    wait_until("it is logged", lambda: house.daemon.log_text().count("tls_failed") >= 3)

    hello = ssl.MemoryBIO()
    with_nothing = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=HOST)
    try:
        with_nothing.do_handshake()
    except ssl.SSLWantReadError:
        pass
    octets = hello.read()
    silent, half, whole, started = (Wire(house.implicit, seconds=90), Wire(house.implicit, seconds=90), Wire(house.implicit, seconds=90),
                                    Wire(house.daemon.port, seconds=90))
    half.send(octets[:len(octets) // 2])
    whole.send(octets)  # answered, and then nothing more
    started.expect(220)
    started.say("EHLO client.test", 250)
    started.say("STARTTLS", 220)
    with Wire(house.implicit, context) as w:
        w.expect(220)
        w.say("EHLO client.test", 250)
        w.mail()
    for w in (silent, half, whole, started):
        w.ended()
        w.close()
    wait_until("each is logged", lambda: house.daemon.log_text().count("no TLS handshake in time") == 4)
    assert visit(house.implicit, context)[0] is False


def certificates_that_end_soon(world):
    authority = Authority(world.directory)
    soon, later = authority.issue("soon", [HOST], days=6), authority.issue("later", [HOST], days=40)
    house = House(world, pair(soon))
    assert 'settings_warning problem="%s: warning: the certificate expires in ' % soon[0] in house.daemon.log_text()
    left = lambda: house.daemon.figures()["posthouse_tls_not_after_seconds"] - time.time()
    assert 5 * 86400 < left() <= 6 * 86400, left()
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", house.daemon.config, "--check"], capture_output=True, text=True)
    assert done.returncode == 0 and "the certificate expires in" in done.stderr, done
    start = len(house.daemon.log_text())
    move(later, soon)
    wait_until("the figure follows the file", lambda: left() > 39 * 86400, 20, 0.1)
    assert "expires" not in house.daemon.log_text()[start:]


def checked(world, name, text):
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", world.file(name, text), "--check"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, (text, done.stdout, done.stderr)


def examples_are_right(world):
    """The settings of docs/tls.md, README.md and the sample pass the check, with the files that they name; the commands work."""
    authority = Authority(world.directory)
    etc = os.path.join(world.directory, "etc")
    os.makedirs(etc)
    for stem in ("mx1.example.net", "mail.example.net", "mx.example.com"):
        for source, end in zip(authority.issue(stem, [stem]), (".pem", ".key")):
            shutil.copy(source, os.path.join(etc, stem + end))
    shutil.copy(authority.file, os.path.join(etc, "devices-ca.pem"))
    for name, text in (("passwd", crypt_line("alice@example.net", "secret")), ("recipients.txt", "alice\n"),
                       ("senders", "alice@example.net: @example.net\n")):
        with open(os.path.join(etc, name), "w") as f:
            f.write(text)
        os.chmod(os.path.join(etc, name), 0o600)
    page = ""
    for name in ("docs/tls.md", "README.md"):
        with open(os.path.join(ROOT, name)) as f:
            page += f.read().replace("/etc/posthouse/", etc + "/")
    commands = [text for text in re.findall(r"```sh not-run\n(.*?)```", page, re.S) if etc in text]
    assert commands
    for text in commands:
        subprocess.run(["sh", "-euc", text], check=True, timeout=60, capture_output=True)
    examples = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(examples) >= 5
    for number, text in enumerate(examples):
        checked(world, "etc/example%d.yaml" % number, ("" if "node:" in text else "node: {hostname: mx1.example.net}\n") + text)
    sample = os.path.join(ROOT, "deploy", "posthouse.yaml")
    with open(sample) as f:
        text = f.read()
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", sample, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done
    # "#  key": settings that need files of the machine; without the mark they are right, too.
    whole = re.sub(r"(?m)^#(?=  )", "", text)
    assert whole.count("\n") == text.count("\n") and "tls:" in whole and whole != text
    checked(world, "etc/sample.yaml", whole.replace("/etc/posthouse/", etc + "/"))


if __name__ == "__main__":
    main([certificates_by_name, profiles, new_files_without_a_signal, tickets_of_one_gateway, tickets_of_two_gateways,
          reloads_change_what_tls_is, client_certificates, injected_commands, broken_handshakes, certificates_that_end_soon, examples_are_right])
