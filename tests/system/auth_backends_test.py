#!/usr/bin/env python3
"""
Proves AUTH at real servers: a password file with every kind of hash, OpenLDAP, PostgreSQL, an HTTP service and Dovecot. A server
that is killed or frozen makes 454 for those whom it knows and stalls nobody else; guessing is slowed and capped by client and
account; a changed password file is read by itself; an account sends as itself only.
"""
import os
import select
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from accounts import argon_hash, certificate, crypt_hash, inside_tls, log_in, plain, scram, scram_hash
from posthouse_test import SLOW, free_port, main, wait_until
from real_servers import Dovecot, Http, Postgres, Slapd

PEOPLE = {"lena": [("mail", "lena@posthouse.test"), ("userPassword", "ldap-pw")],
          "odd)(name": [("mail", "x@posthouse.test"), ("userPassword", "odd-pw")]}


def password_file(world, entries):
    """In one step, and readable by its owner alone."""
    path = world.file("passwd.new", "".join("%s:%s\n" % pair for pair in entries.items()))
    os.chmod(path, 0o600)
    target = os.path.join(world.directory, "passwd")
    os.rename(path, target)
    return target


def backend(world, kind, more=""):
    """The server of this kind, and its line in the settings."""
    if kind == "ldap":
        server = world.add(Slapd(world, PEOPLE))
        words = "uri: \"%s\", base: \"dc=example,dc=net\", filter: \"(mail=%%s)\"" % server.uri
    elif kind == "bind":
        server = world.add(Slapd(world, PEOPLE))
        kind, words = "ldap", "uri: \"%s\", bind_dn: \"cn=%%u,dc=example,dc=net\"" % server.uri
    elif kind == "postgres":
        server = world.add(Postgres(world, "CREATE TABLE users (name text, hash text);\n" + "".join(
            "INSERT INTO users VALUES ('%s@posthouse.test', %s);\n" % pair for pair in (
                ("paula", "'%s'" % crypt_hash("postgres-pw", "$2b$", 4)), ("petra", "'%s'" % scram_hash("scram-pw")),
                ("locked", "NULL")))))
        words = "uri: \"%s\", query: \"SELECT hash FROM users WHERE name = $1\"" % server.uri
    elif kind == "http":
        server = world.add(Http(world, accounts={"hanna@posthouse.test": "http-pw"}))
        words = "uri: \"%s/auth\"" % server.uri
    else:
        server = world.add(Dovecot(world, {"dora@posthouse.test": "dovecot-pw"}))
        words = "uri: \"unix:%s\"" % server.auth
    return server, "    - {kind: %s, %s%s}\n" % (kind, words, more)


GOOD = {"ldap": ("lena", "ldap-pw"), "bind": ("lena", "ldap-pw"), "postgres": ("paula", "postgres-pw"),
        "http": ("hanna", "http-pw"), "dovecot": ("dora", "dovecot-pw")}


def posthouse(world, backends, auth="", listener="", more=""):
    """A daemon with a listener inside TLS; .submission is its port. The password file is asked first."""
    cert, key = certificate(world)
    if not os.path.exists(os.path.join(world.directory, "passwd")):
        password_file(world, {"anna": crypt_hash("anna-pw", "$2b$", 4)})
    port = free_port()
    text = ("  - {address: \"127.0.0.1:%d\", tls: implicit, auth: offered%s}\nnames: false\nloops: 1\n%s"
            "tls: {certificate: %s, key: %s}\nauth:\n  realm: posthouse.test\n%s  backends:\n    - {kind: file, file: passwd}\n%s"
            % (port, listener, more, cert, key, "".join("  %s\n" % line for line in auth.split("\n") if line), "".join(backends)))
    users = world.file("users.txt", "local\n")
    post = world.posthouse(gateway=text, extra="domains:\n  - {name: posthouse.test, route: \"smtp:127.0.0.1:9\", "
                           "recipients: {table: %s}}" % users)
    post.submission = port
    return post.start()


def expect(reply, code):
    assert "%d %s" % (reply[0], reply[1].split(" ")[0]) == code, (reply, code)


def file_hashes(world):
    entries = {"bcrypt": crypt_hash("pw-1", "$2b$", 4), "yescrypt": crypt_hash("pw-2", "$y$", 1), "argon": argon_hash("pw-3"),
               "scram": scram_hash("pw-4"), "sha": crypt_hash("pw-5", "$6$", 1000)}
    password_file(world, {**entries, "locked": "!" + crypt_hash("pw-6", "$2b$", 4), "full@other.test": entries["bcrypt"]})
    post = posthouse(world, [], auth="fail_delay: 1ms")
    for n, name in enumerate(entries):
        expect(log_in(post.submission, name, "pw-%d" % (n + 1)), "235 2.7.0")
        expect(log_in(post.submission, name.upper() + "@Posthouse.test", "pw-%d" % (n + 1)), "235 2.7.0")
        expect(log_in(post.submission, name, "pw-0"), "535 5.7.8")
        expect(log_in(post.submission, name, ""), "535 5.7.8")
    expect(log_in(post.submission, "locked", "pw-6"), "535 5.7.8")
    expect(log_in(post.submission, "nobody", "pw-1"), "535 5.7.8")
    expect(log_in(post.submission, "full", "pw-1"), "535 5.7.8")
    expect(log_in(post.submission, "full@other.test", "pw-1"), "235 2.7.0")
    with inside_tls(post.submission) as s:
        assert {"PLAIN", "LOGIN", "SCRAM-SHA-256"} <= set(s.esmtp_features["auth"].split()), s.esmtp_features
        expect(scram(s, "scram", "pw-4"), "235 2.7.0")
        assert s.docmd(plain("scram", "pw-4"))[0] == 503  # only once
    for account, password in (("scram", "pw-5"), ("nobody", "pw-4"), ("bcrypt", "pw-1")):
        with inside_tls(post.submission) as s:
            expect(scram(s, account, password), "535 5.7.8")
    with post.smtp() as s:  # not outside of TLS
        s.ehlo()
        assert "auth" not in s.esmtp_features and s.docmd(plain("bcrypt", "pw-1"))[0] >= 500
    assert "pw-1" not in post.log_text() and "auth_failed" in post.log_text()


def all_kinds_in_order(world):
    servers = [backend(world, kind) for kind in ("postgres", "http", "ldap", "dovecot")]
    post = posthouse(world, [line for _, line in servers], auth="fail_delay: 10ms\ncache: 0")
    for name, password in (("anna", "anna-pw"), ("petra", "scram-pw"), *GOOD.values()):
        expect(log_in(post.submission, name, password), "235 2.7.0")
        expect(log_in(post.submission, name, password + "x"), "535 5.7.8")
    for name in ("locked", "nobody", "*", "lena@posthouse.test)(mail=*", "' OR ''='"):
        expect(log_in(post.submission, name, "ldap-pw"), "535 5.7.8")
    with inside_tls(post.submission) as s:
        expect(scram(s, "petra", "scram-pw"), "504 5.5.4")  # until it is named
    with inside_tls(post.submission) as s:
        s.user, s.password = "dora@posthouse.test", "dovecot-pw"  # Dovecot completes no name here
        assert s.auth("CRAM-MD5", s.auth_cram_md5)[0] == 235
    asked = [q["account"] for q in servers[1][0].questions()]
    assert "hanna@posthouse.test" in asked and "anna@posthouse.test" not in asked and "petra@posthouse.test" not in asked, asked
    servers[0][0].kill()  # later ones are not asked in its stead, earlier ones have decided
    expect(log_in(post.submission, "anna", "anna-pw"), "235 2.7.0")
    expect(log_in(post.submission, *GOOD["dovecot"]), "454 4.7.0")
    assert post.figures()["posthouse_auth_backend_failures_total"] > 0


def scram_by_postgres(world):
    _, line = backend(world, "postgres")
    post = posthouse(world, [line], auth="fail_delay: 1ms\nmechanisms: SCRAM-SHA-256 PLAIN")
    for account, password, code in (("petra", "scram-pw", "235 2.7.0"), ("petra", "other", "535 5.7.8"),
                                    ("paula", "postgres-pw", "535 5.7.8")):
        with inside_tls(post.submission) as s:
            assert s.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN"], s.esmtp_features
            expect(scram(s, account, password), code)
    with inside_tls(post.submission) as s:
        assert s.docmd("AUTH LOGIN")[0] == 504
    expect(log_in(post.submission, *GOOD["postgres"]), "235 2.7.0")


class Pending:
    """A session that has said AUTH and waits for the reply."""

    def __init__(self, post, account, password):
        self.session = inside_tls(post.submission)
        self.session.send(plain(account, password) + "\r\n")

    def has_reply(self):
        return bool(self.session.sock.pending() or select.select([self.session.sock], [], [], 0)[0])

    def reply(self):
        code, text = self.session.getreply()
        self.session.close()
        return code, text.decode()


def others_go_on(post, pending):
    for _ in range(3):
        expect(log_in(post.submission, "anna", "anna-pw"), "235 2.7.0")
        with post.smtp() as s:
            s.ehlo()
            s.mail("")
            assert s.rcpt("local@posthouse.test")[0] == 250 and s.rcpt("nobody@posthouse.test")[0] == 550
        assert not any(p.has_reply() for p in pending), "answered before its time"


def dead_or_frozen(kind):
    def test(world):
        server, line = backend(world, kind, ", timeout: %ds" % (2 if SLOW == 1 else 5))
        post = posthouse(world, [line], auth="fail_delay: 10ms\ncache: 0\nclient_failures: 1000")
        expect(log_in(post.submission, *GOOD[kind]), "235 2.7.0")
        server.freeze()
        pending = [Pending(post, *GOOD[kind]) for _ in range(3)]
        others_go_on(post, pending)
        for p in pending:
            expect(p.reply(), "454 4.7.0")
        server.thaw()
        wait_until("it is asked again", lambda: log_in(post.submission, *GOOD[kind])[0] == 235, 30, 0.2)
        server.freeze()
        under_way = Pending(post, *GOOD[kind])
        server.kill()
        expect(under_way.reply(), "454 4.7.0")
        expect(log_in(post.submission, *GOOD[kind]), "454 4.7.0")
        expect(log_in(post.submission, "anna", "anna-pw"), "235 2.7.0")
        server.start()
        wait_until("it is asked again", lambda: log_in(post.submission, *GOOD[kind])[0] == 235, 30, 0.2)
        expect(log_in(post.submission, GOOD[kind][0], "wrong"), "535 5.7.8")
        assert "auth_backend_failed" in post.log_text()
    test.__name__ = kind + "_dead_or_frozen"
    return test


def remembered_for_a_while(world):
    server, line = backend(world, "http", ", timeout: 1s")
    post = posthouse(world, [line], auth="fail_delay: 10ms")
    expect(log_in(post.submission, *GOOD["http"]), "235 2.7.0")
    server.kill()
    expect(log_in(post.submission, *GOOD["http"]), "235 2.7.0")
    expect(log_in(post.submission, "hanna", "other"), "454 4.7.0")


def guessing_waits(world):
    post = posthouse(world, [], auth="fail_delay: 4s", more="trusted_networks: [\"::1/128\"]\n")
    pending = [Pending(post, "anna", "wrong"), Pending(post, "nobody", "wrong")]
    others_go_on(post, pending)  # right ones are answered at once
    for p in pending:
        expect(p.reply(), "535 5.7.8")


def guessing_is_capped(world):
    password_file(world, {name: crypt_hash(name + "-pw", "$2b$", 4) for name in ("anna", "berta", "clara")})
    auth = "fail_delay: 1ms\ncache: 0\nclient_failures: 5\naccount_failures: 8"
    post = posthouse(world, [], auth=auth, more="trusted_networks: [127.0.0.1/32, 127.0.0.9/32]\n")
    for n in range(5):
        expect(log_in(post.submission, "guess%d" % n, "x", "127.0.0.2"), "535 5.7.8")
    expect(log_in(post.submission, "anna", "anna-pw", "127.0.0.2"), "454 4.7.0")  # the client is over, right or wrong
    expect(log_in(post.submission, "anna", "anna-pw", "127.0.0.3"), "235 2.7.0")
    for n in range(8):
        expect(log_in(post.submission, "berta", "x", "127.0.0.%d" % (20 + n)), "535 5.7.8")
    expect(log_in(post.submission, "berta", "berta-pw", "127.0.0.40"), "454 4.7.0")  # the account is over, from anywhere
    expect(log_in(post.submission, "anna", "anna-pw", "127.0.0.40"), "235 2.7.0")
    post.reload()
    wait_until("it has reloaded", lambda: "reloaded" in post.log_text(), 10, 0.05)
    expect(log_in(post.submission, "berta", "berta-pw", "127.0.0.40"), "454 4.7.0")
    for n in range(7):  # no cap by client for those who are trusted, and success leaves the rest alone
        expect(log_in(post.submission, "clara", "x", "127.0.0.9"), "535 5.7.8")
    expect(log_in(post.submission, "clara", "clara-pw", "127.0.0.9"), "235 2.7.0")
    figures = post.figures()
    assert figures['posthouse_auth_total{result="refused"}'] == 3 and figures['posthouse_auth_total{result="failed"}'] == 20, figures


def file_is_read_again(world):
    post = posthouse(world, [], auth="fail_delay: 1ms")
    expect(log_in(post.submission, "anna", "anna-pw"), "235 2.7.0")
    password_file(world, {"anna": argon_hash("new-pw"), "bella": scram_hash("bella-pw")})
    wait_until("the new password", lambda: log_in(post.submission, "anna", "new-pw")[0] == 235, 20, 0.3)
    expect(log_in(post.submission, "anna", "anna-pw"), "535 5.7.8")  # nothing remembered
    expect(log_in(post.submission, "bella", "bella-pw"), "235 2.7.0")
    before = len(post.log_text())
    password_file(world, {"anna": "secret"})
    wait_until("the mistake is told", lambda: "passwd:1" in post.log_text()[before:], 20, 0.1)
    expect(log_in(post.submission, "bella", "bella-pw"), "235 2.7.0")
    assert "secret" not in post.log_text()


def senders_are_their_own(world):
    password_file(world, {name: crypt_hash("pw", "$2b$", 4) for name in ("anna", "news", "backup", "bella")})
    world.file("senders", "anna@posthouse.test: anna@posthouse.test, sales@posthouse.test\nnews: @news.test\nbackup: *\n")
    post = posthouse(world, [], auth="sender_login: senders", listener=", sender_login: true")
    for account, sender, code in (
            ("anna", "sales@posthouse.test", 250), ("anna", "Anna@Posthouse.Test", 250), ("anna", "bella@posthouse.test", 553),
            ("anna", "", 250), ("news", "x@news.test", 250), ("news", "x@sub.news.test", 553), ("news", "news@posthouse.test", 553),
            ("backup", "whoever@elsewhere.test", 250), ("bella", "bella@posthouse.test", 250), ("bella", "anna@posthouse.test", 553)):
        with inside_tls(post.submission) as s:
            assert s.docmd(plain(account, "pw"))[0] == 235
            assert s.mail(sender)[0] == code, (account, sender)


if __name__ == "__main__":
    main([file_hashes, all_kinds_in_order, scram_by_postgres] + [dead_or_frozen(kind) for kind in GOOD] +
         [remembered_for_a_while, guessing_waits, guessing_is_capped, file_is_read_again, senders_are_their_own])
