#!/usr/bin/env python3
"""
Proves routes to servers that want to know us: logins by each mechanism, wrong passwords and servers that may not have one, accounts
that do not share connections, several targets by weight, and mailbox servers by LMTP over TCP and unix sockets, recipient by recipient.
"""
import base64
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from accounts import scram_hash
from posthouse_test import Posthouse, Sink, free_port, main, wait_until
from real_servers import Dovecot
from secure import Authority
from tls_delivery_test import deferred, delivered, outcomes
from tls_server import Session, TlsSink, free_port_of, server_context

ONCE = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
PASSWORD = "correct-horse-battery"


class Relay:
    """The server of our users: a daemon that wants TLS and a login, and gives what it takes to .sink."""

    def __init__(self, world, authority, listener="tls: required, auth: required, submission: true"):
        directory = os.path.join(world.directory, "relay")
        os.mkdir(directory)
        passwords = os.path.join(directory, "passwd")
        with open(passwords, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write("".join("%s@relay.test:%s\n" % (name, scram_hash(PASSWORD)) for name in ("anna", "bert")))
        pair = authority.issue("relay", ["127.0.0.1"])
        self.sink = world.sink()
        self.post = Posthouse(directory, gateway="tls: {certificate: %s, key: %s}\nauth: {realm: relay.test, fail_delay: 0ms, backends: "
                              "[{kind: file, file: %s}]}\ntrusted_networks: []" % (*pair, passwords),
                              extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}" % self.sink.port)
        with open(self.post.config) as f:
            text = f.read()
        address = "address: \"127.0.0.1:%d\"" % self.post.port
        assert address in text
        with open(self.post.config, "w") as f:
            f.write(text.replace(address, address + ", " + listener))
        self.post.start()

    def accounts(self):
        """Of the messages that it took, in order."""
        return [line.split("account=")[1].split()[0].strip('"') for line in self.post.log_text().splitlines() if " accepted id=" in line]

    def close(self):
        self.post.stop()


def start(world, routes, tls="", more="", retry=ONCE):
    """routes: [(domain, route, credentials)]."""
    lines = "".join("  - {domain: %s, route: \"%s\"%s}\n" % (domain, route, ", credentials: {%s}" % with_ if with_ else "")
                    for domain, route, with_ in routes)
    return world.posthouse(delivery="%s\n%s\ntls: {%s}" % (retry, more, tls), extra="routes:\n" + lines).start()


def mail(post, domain, count=1):
    """Sends; the first outcome of each."""
    start = len(post.log_bytes())
    for _ in range(count):
        post.send("a@client.test", "b@" + domain)

    def find():
        found = outcomes(post.log_bytes(start).decode("utf-8", "replace"), "b@" + domain)
        return found if len(found) >= count else None
    found = wait_until("%d outcomes for %s" % (count, domain), find, 40)
    return found[0] if count == 1 else found


def every_mechanism(world):
    authority = Authority(world.directory)
    relay = world.add(Relay(world, authority))
    route = "smtp:127.0.0.1:%d" % relay.post.port
    secret = world.file("secret", PASSWORD + "\nnot this\n")
    os.chmod(secret, 0o600)
    routes = [(mechanism.lower() + ".test", route, "user: %s, password: %s, mechanisms: \"%s\"" % (user, PASSWORD, mechanism))
              for mechanism, user in (("SCRAM-SHA-256", "anna"), ("PLAIN", "bert"), ("LOGIN", "anna"))]
    routes += [("best.test", route, "user: anna, password_file: %s" % secret), ("nobody.test", route, ""),
               ("none.test", route, "user: anna, password: %s, mechanisms: XOAUTH2" % PASSWORD),
               ("wrong.test", route, "user: anna, password: mistaken"),
               ("wrongplain.test", route, "user: bert, password: mistaken, mechanisms: \"PLAIN LOGIN\"")]
    post = start(world, routes, "ca_file: %s, routes: verify" % authority.file)
    for domain in ("scram-sha-256.test", "plain.test", "login.test", "best.test"):
        delivered(mail(post, domain), "verified")
    relay.sink.wait(4)
    assert relay.accounts() == ["anna@relay.test", "bert@relay.test", "anna@relay.test", "anna@relay.test"], relay.accounts()
    # Without a login it is the relay that says no, for good.
    event, fields = mail(post, "nobody.test")
    assert (event, fields["code"]) == ("failed", "530"), fields
    # What may be mended waits, and says what is wrong.
    for domain in ("wrong.test", "wrongplain.test"):
        event, fields = mail(post, domain)
        assert event == "deferred" and fields["code"] == "535" and fields["status"] == "4.7.8", fields
        assert "5.7.8" in post.tool("msg", "why", fields["id"])["text"]
    event, fields = mail(post, "none.test")
    assert event == "deferred" and "no mechanism" in fields["text"], fields
    text = post.tool("route", "b@best.test", text=True)
    assert "logs in as anna" in text and PASSWORD not in text, text
    assert PASSWORD not in post.log_text() and "mistaken" not in post.log_text()
    # The figure counts those that failed.
    assert len(relay.sink.messages) == 4


class LoginSession(Session):
    """AUTH as the server's .users have it: {user: secret}; XOAUTH2, PLAIN and LOGIN. Who is logged in stands in .server.seen."""

    user = None

    def ask(self, challenge):
        self.file.write(b"334 " + base64.b64encode(challenge) + b"\r\n")
        self.file.flush()
        return base64.b64decode(self.file.readline().strip())

    def credentials(self, mechanism, first):
        if mechanism == "PLAIN":
            _, user, secret = first.split(b"\0")
        elif mechanism == "XOAUTH2":
            words = first.split(b"\1")
            user, secret = words[0].removeprefix(b"user="), words[1].removeprefix(b"auth=Bearer ")
        else:
            user, secret = self.ask(b"Username:"), self.ask(b"Password:")
        return user.decode(), secret.decode()

    def other(self, verb, text):
        if verb != "AUTH":
            return super().other(verb, text)
        words = text.split(" ")
        user, secret = self.credentials(words[1], base64.b64decode(words[2]) if len(words) > 2 else b"")
        with self.server.lock:
            self.server.commands.append(("auth", words[1]))
        if self.server.users.get(user) == secret:
            self.user = user
            self.server._say(self.file, "235 2.7.0 welcome")
        else:
            if words[1] == "XOAUTH2":
                self.server.errors.append(self.ask(b'{"status":"401","schemes":"bearer"}'))
            self.server._say(self.file, "535 5.7.8 who are you")

    def data(self):
        self.server.seen.append((self.user, self.recipients[0], id(self)))
        super().data()


def login_server(world, pair, words, users, **more):
    server = TlsSink(server_context(pair) if pair else None, session=LoginSession, **more)
    server.users, server.seen, server.errors = users, [], []
    if pair:
        server.inside = (words,)
    else:
        server.extensions += (words,)
    return world.add(server)


def tokens(world):
    authority = Authority(world.directory)
    server = login_server(world, authority.issue("tokens", ["127.0.0.1"]), "AUTH XOAUTH2 PLAIN", {"anna": "token-1"})
    route = "smtp:127.0.0.1:%d" % server.port
    post = start(world, [("good.test", route, "user: anna, password: token-1, mechanisms: XOAUTH2"),
                         ("stale.test", route, "user: anna, password: token-0, mechanisms: XOAUTH2")],
                 "ca_file: %s" % authority.file)
    delivered(mail(post, "good.test"), "verified")
    assert server.seen[0][:2] == ("anna", "b@good.test"), server.seen
    event, fields = mail(post, "stale.test")
    assert event == "deferred" and fields["code"] == "535", fields
    assert server.errors == [b""], server.errors  # the error's challenge is answered by an empty line
    assert {mechanism for stage, mechanism in server.commands if stage == "auth"} == {"XOAUTH2"}, server.commands


def no_password_in_the_clear(world):
    server = login_server(world, None, "AUTH PLAIN LOGIN XOAUTH2", {"anna": PASSWORD})
    authority = Authority(world.directory)
    broken = login_server(world, authority.issue("broken", ["127.0.0.1"]), "AUTH PLAIN", {"anna": PASSWORD}, way="garbage")
    broken.extensions += ("AUTH PLAIN",)
    with_ = "user: anna, password: %s, mechanisms: \"PLAIN LOGIN XOAUTH2\"" % PASSWORD
    post = start(world, [("clear.test", "smtp:127.0.0.1:%d" % server.port, with_),
                         ("broken.test", "smtp:127.0.0.1:%d" % broken.port, with_)])
    for domain in ("clear.test", "broken.test"):  # the second fell back to the clear
        event, fields = mail(post, domain)
        assert event == "deferred" and "does not go in the clear" in fields["text"], fields
    for there in (server, broken):
        assert not there.messages and not [c for c in there.commands if c[0] == "auth" or "AUTH" in c[1]], there.commands


def accounts_do_not_share(world):
    authority = Authority(world.directory)
    server = login_server(world, authority.issue("shared", ["127.0.0.1"]), "AUTH PLAIN", {"anna": "one", "bert": "two"})
    route = "smtp:127.0.0.1:%d" % server.port
    post = start(world, [("a.test", route, "user: anna, password: one"), ("b.test", route, "user: bert, password: two"),
                         ("n.test", route, "")], "ca_file: %s" % authority.file)
    for _ in range(2):
        for domain in ("a.test", "b.test", "n.test"):
            delivered(mail(post, domain), "verified")
    assert [user for user, _, _ in server.seen] == ["anna", "bert", None] * 2, server.seen
    assert len({session for _, _, session in server.seen}) == 3 and server.connections == 3, server.seen  # each was used again


def targets_by_weight(world):
    port = free_port_of(["127.0.2.1", "127.0.2.2", "127.0.2.3"])
    heavy, light = world.sink(address="127.0.2.1", port=port), world.sink(address="127.0.2.2", port=port)
    post = start(world, [("spread.test", "smtp:127.0.2.1*4,127.0.2.2,127.0.2.3*2:%d" % port, "")],
                 more="limits: {messages_per_connection: 1}")
    for event, fields in mail(post, "spread.test", 200):
        assert event == "delivered", fields
    counts = len(heavy.messages), len(light.messages)
    assert sum(counts) == 200 and counts[0] > counts[1] > 0, counts
    text = post.tool("route", "b@spread.test", text=True)
    for address in ("127.0.2.1", "127.0.2.2", "127.0.2.3"):
        assert address in text, text
    # Of two, one is enough.
    heavy.close()
    event, fields = mail(post, "spread.test")
    assert event == "delivered" and "127.0.2.2" in fields["remote"], fields


class UnixSink(Sink):
    """The same at a unix socket."""

    def __init__(self, path, script):
        super().__init__(script, lmtp=True)
        self.closing = True
        self.listener.close()
        self.closing = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()


def each_recipient(recipient):
    return {"full": "452 4.2.2 mailbox full", "gone": "550 5.2.1 mailbox closed"}.get(recipient.split("@")[0], "250 2.1.5 stored")


def lmtp(world):
    path = os.path.join(world.directory, "lmtp.sock")
    unix, tcp = world.add(UnixSink(path, {"dot": each_recipient})), world.sink({"dot": each_recipient}, lmtp=True)
    back = world.sink()
    post = start(world, [("unix.test", "lmtp:unix:" + path, ""), ("tcp.test", "lmtp:127.0.0.1:%d" % tcp.port, ""),
                         ("back.test", "smtp:127.0.0.1:%d" % back.port, "")])
    for number, (domain, server) in enumerate((("unix.test", unix), ("tcp.test", tcp))):
        names = ["one", "full", "two", "gone"]
        ident = post.send("a@back.test", [name + "@" + domain for name in names])
        server.wait(2)
        assert sorted(m[1][0] for m in server.messages) == ["one@" + domain, "two@" + domain], server.messages
        report = back.wait(number + 1)[number][2]
        assert b"gone@" + domain.encode() in report and b"Status: 5.2.1" in report and b"full@" not in report, report
        log = post.log_text()
        assert outcomes(log, "full@" + domain)[0][0] == "deferred" and outcomes(log, "one@" + domain)[0][0] == "delivered"
        rows = post.queue("id:" + ident)
        assert len(rows) == 1, rows
        assert [line for stage, line in server.commands if stage == "ehlo"][0].startswith("LHLO "), server.commands
        assert len([stage for stage, _ in server.commands if stage == "mail"]) == 1, server.commands


def dovecot(world):
    there = world.add(Dovecot(world, {"anna@unix.test": "x", "bert@unix.test": "x", "anna@tcp.test": "x", "bert@tcp.test": "x"}))
    back = world.sink()
    post = start(world, [("unix.test", "lmtp:unix:" + there.lmtp, ""), ("tcp.test", "lmtp:127.0.0.1:%d" % there.port, ""),
                         ("back.test", "smtp:127.0.0.1:%d" % back.port, "")])
    for number, domain in enumerate(("unix.test", "tcp.test")):
        post.send("a@back.test", [name + "@" + domain for name in ("anna", "nobody", "bert")],
                  "Subject: to each\r\n\r\n.a line that begins with a dot\r\n")
        for name in ("anna", "bert"):
            found = wait_until("mail of " + name, lambda: there.mailbox(name + "@" + domain))
            assert len(found) == 1 and found[0].replace(b"\r\n", b"\n").endswith(b"\n\n.a line that begins with a dot\n"), found
        report = back.wait(number + 1)[number][2]
        assert b"nobody@" + domain.encode() in report and b"Status: 5.1.1" in report, report
    post.wait_empty()


if __name__ == "__main__":
    main([every_mechanism, tokens, no_password_in_the_clear, accounts_do_not_share, targets_by_weight, lmtp, dovecot])
