#!/usr/bin/env python3
"""
Proves recipients that are asked at real servers: OpenLDAP, PostgreSQL, an HTTP service, Dovecot's LMTP, and a compiled table.
What they know is accepted and goes where they say, what they do not know is 550, and a server that is killed or frozen makes
451 for its domain alone: sessions about other domains go on, old answers hold, and all is well when it is back.
"""
import os
import select
import smtplib
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, main, wait_until
from real_servers import Dovecot, Http, Postgres, Slapd

SQL = """CREATE TABLE addresses (local text, domain text, target text, kind text);
INSERT INTO addresses VALUES ('box', 'postgres.test', NULL, NULL), ('alias', 'postgres.test', 'box@postgres.test', 'alias'),
 ('alias', 'postgres.test', 'far@elsewhere.test', 'alias'), ('gone', 'postgres.test', 'new@elsewhere.test', 'forward'),
 ('both', 'postgres.test', 'phone@elsewhere.test', 'forward_keep'), ('odd', 'postgres.test', 'x@elsewhere.test', 'perhaps'),
 ('', 'postgres.test', NULL, NULL), ('shared', 'several.test', NULL, NULL);
"""
QUERY = "SELECT target, kind FROM addresses WHERE local = $2 AND domain = $3"
PEOPLE = {
    "box": [("mail", "box@ldap.test"), ("mailAlternateAddress", "second@ldap.test")],
    "alias": [("mail", "alias@ldap.test"), ("aliasTo", "box@ldap.test"), ("aliasTo", "far@elsewhere.test")],
    "gone": [("mail", "gone@ldap.test"), ("mailForwardingAddress", "new@elsewhere.test")],
    "both": [("mail", "both@ldap.test"), ("mailForwardingAddress", "both@ldap.test"),
             ("mailForwardingAddress", "phone@elsewhere.test")],
    "star": [("mail", "a*b@ldap.test")],
}
MAILBOX = {"result": "mailbox"}
ADDRESSES = {
    "box@http.test": MAILBOX, "anna@xn--bcher-kva.test": MAILBOX, "Bob@cased.test": MAILBOX,
    "alias@http.test": {"result": "alias", "targets": ["box@http.test", "far@elsewhere.test"]},
    "gone@http.test": {"result": "forward", "targets": ["new@elsewhere.test"]},
    "both@http.test": {"result": "forward", "targets": ["phone@elsewhere.test"], "keep": True},
    "lost@http.test": {"result": "alias", "targets": ["nobody@http.test"]},
    "round@http.test": {"result": "alias", "targets": ["trip@http.test"]},
    "trip@http.test": {"result": "alias", "targets": ["round@http.test"]},
}
KINDS = ("ldap", "postgres", "http", "callout")


class Servers:
    """One of each kind, and the settings of the domains that ask them. more: settings of every directory."""

    def __init__(self, world, more=""):
        self.ldap = world.add(Slapd(world, PEOPLE))
        self.postgres = world.add(Postgres(world, SQL))
        self.http = world.add(Http(world, ADDRESSES))
        self.callout = world.add(Dovecot(world, {"box@callout.test": "x"}))
        self.mail, self.elsewhere = world.sink(lmtp=True), world.sink()
        text = world.file("table.txt", "box\nalias: box, far@elsewhere.test\ngone > new@elsewhere.test\nboth >> phone@elsewhere.test\n")
        table = os.path.join(world.directory, "table.cdb")
        subprocess.run([os.path.join(BUILD, "posthouse"), "table", "build", text, table], check=True, stdout=subprocess.DEVNULL)
        ldap = ("{ldap: {uri: \"%s\", base: \"dc=example,dc=net\", alias_attribute: aliasTo, forward_attribute: "
                "mailForwardingAddress%s}}" % (self.ldap.uri, more))
        postgres = "{postgres: {uri: \"%s\", query: \"%s\"%s}}" % (self.postgres.uri, QUERY, more)
        http = "{http: {uri: \"%s/directory\"%s}}" % (self.http.uri, more)
        callout = "{callout: {uri: \"lmtp:127.0.0.1:%d\"%s}}" % (self.callout.port, more)
        own = world.file("own.txt", "local\n")
        first = world.file("first.txt", "box > first@elsewhere.test\n")
        domains = [("ldap", ldap, ""), ("postgres", postgres, ""), ("http", http, ", tag: \"+-\""), ("callout", callout, ""),
                   ("cdb", "{cdb: %s}" % table, ""), ("table", "{table: %s}" % own, ""), ("b\u00fccher", http, ""),
                   ("cased", http, ", case_sensitive: true"),
                   ("several", "[{table: %s}, %s, %s]" % (first, postgres, http), ", tag: \"\"")]
        routes = {"callout": "lmtp:unix:" + self.callout.lmtp}
        self.settings = "domains:\n" + "".join(
            "  - {name: %s.test, route: \"%s\", recipients: %s%s}\n" % (name, routes.get(name, "lmtp:127.0.0.1:%d" % self.mail.port),
                                                                        source, tail) for name, source, tail in domains)
        self.settings += "routes:\n  - {domain: elsewhere.test, route: \"smtp:127.0.0.1:%d\"}\n" % self.elsewhere.port

    def __getitem__(self, kind):
        return getattr(self, kind)


GATEWAY = 'loops: 1\nslow: {mode: "off"}\nnames: false\nlimits: {commands_bad: 1000}'


def rcpt(post, *addresses):
    """The replies to RCPT TO, in one transaction."""
    with post.smtp() as s:
        s.ehlo()
        assert s.mail("", ["SMTPUTF8"])[0] == 250
        return [(code, text.decode()) for code, text in (s.rcpt(a) for a in addresses)]


def expect(post, expected):
    for (address, code), got in zip(expected.items(), rcpt(post, *expected)):
        assert got[0] == int(code.split()[0]) and (" " not in code or got[1].startswith(code.split()[1] + " ")), (address, code, got)


def answers(post, kind, **labels):
    """How often directories of this kind answered, by the labels of the metric."""
    words = ['kind="%s"' % kind] + ['%s="%s"' % pair for pair in labels.items()]
    return sum(value for name, value in post.figures().items()
               if name.startswith("posthouse_directory_answers_total") and all(w in name for w in words))


def they_say_who_is_a_recipient(world):
    servers = Servers(world)
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    for kind in KINDS + ("cdb",):
        expect(post, {a + "@%s.test" % kind: code for a, code in (
            ("box", "250 2.1.5"), ("BOX", "250"), ("box+tag", "250"), ("nobody", "550 5.1.1"), ("nobody+tag", "550 5.1.1"),
            ("box%elsewhere.test", "550 5.7.1"), ("postmaster", "250"))})
    expect(post, {"second@ldap.test": "250", "*@ldap.test": "550 5.1.1", "a*b@ldap.test": "250", "\"*)(mail=*\"@ldap.test": "550 5.1.1",
                  "box-tag@http.test": "250", "lost@http.test": "550 5.1.1", "round@http.test": "550 5.4.6",
                  "odd@postgres.test": "451 4.3.0", "x'--@postgres.test": "550 5.1.1", "\"box\"@postgres.test": "250",
                  "anna@xn--bcher-kva.test": "250", "anna@b\u00fccher.test": "250", "ANNA@b\u00fccher.TEST": "250",
                  "b@b\u00fccher.test": "550 5.1.1", "Bob@cased.test": "250", "bob@cased.test": "550 5.1.1",
                  "box@several.test": "250", "shared@several.test": "250", "shared+tag@several.test": "550 5.1.1"})


def mail_goes_where_they_say(world):
    servers = Servers(world)
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    for kind in ("ldap", "postgres", "http", "cdb"):
        post.send("a@origin.test", [name + "@%s.test" % kind for name in ("Box+Tag", "alias", "gone", "both")])
        post.wait_empty()
        kept = sorted(r for _, rs, _ in servers.mail.messages for r in rs)
        away = sorted(r for _, rs, _ in servers.elsewhere.messages for r in rs)
        assert kept == sorted([a + "@%s.test" % kind for a in ("Box+Tag", "box", "both")]), (kind, kept)
        assert away == ["far@elsewhere.test", "new@elsewhere.test", "phone@elsewhere.test"], (kind, away)
        servers.mail.messages.clear()
        servers.elsewhere.messages.clear()
    post.send("a@origin.test", ["box+Folder@callout.test", "box@several.test"])
    post.wait_empty()
    found = servers.callout.mailbox("box@callout.test")
    assert len(found) == 1 and b"\nhello" in found[0], found
    assert servers.elsewhere.messages[0][1] == ["first@elsewhere.test"] and servers.mail.messages == []


def operators_see_it(world):
    servers = Servers(world)
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    for kind in KINDS:
        for _ in range(3):
            expect(post, {"box@%s.test" % kind: "250", "nobody@%s.test" % kind: "550"})
        assert answers(post, kind, **{"from": "backend", "result": "found"}) == 1, (kind, post.figures())
        assert answers(post, kind, **{"from": "cache"}) == 4, (kind, post.figures())
        words = post.tool("verify", "box@%s.test" % kind, "--from", "192.0.2.1", text=True)
        assert kind in words and "cache" in words and "250" in words, words
        words = post.tool("verify", "new@%s.test" % kind, "--from", "192.0.2.1", text=True)
        assert kind in words and "550" in words and "5.1.1" in words, words
    assert "User doesn't exist" in post.tool("verify", "none@callout.test", text=True)  # Dovecot's own words
    words = post.tool("verify", "both@ldap.test", text=True)
    assert "phone@elsewhere.test" in words and "both@ldap.test" in words, words
    for kind in KINDS:
        servers[kind].kill()
        words = post.tool("verify", "later@%s.test" % kind, text=True)
        assert "451" in words and kind in words, words


class Pending:
    """A session that has asked and waits for the reply to RCPT TO."""

    def __init__(self, post, address):
        self.session = post.smtp()
        self.session.ehlo()
        self.session.mail("")
        self.session.send("RCPT TO:<%s>\r\n" % address)

    def has_reply(self):
        return bool(select.select([self.session.sock], [], [], 0)[0])

    def reply(self):
        code, text = self.session.getreply()
        self.session.close()
        return code, text


def others_go_on(post, pending):
    """Whole sessions about another domain end while all of the asked ones wait."""
    for _ in range(5):
        expect(post, {"local@table.test": "250", "nobody@table.test": "550"})
        assert not any(p.has_reply() for p in pending), "answered before its time"


def frozen_servers_stall_nobody(world):
    servers = Servers(world, ", timeout: 8s, breaker: 200ms, negative: 300ms")
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    expect(post, {"box@%s.test" % kind: "250" for kind in KINDS})
    for kind in KINDS:
        servers[kind].freeze()
    pending = [Pending(post, "%s@%s.test" % (name, kind)) for kind in KINDS for name in ("one", "two")]
    others_go_on(post, pending)
    expect(post, {"box@%s.test" % kind: "250" for kind in KINDS})  # from the cache
    for p in pending:
        code, text = p.reply()
        assert code == 451 and text.startswith(b"4.3.0"), (code, text)
    for kind in KINDS:
        servers[kind].thaw()
    wait_until("all know again", lambda: all(code == 550 for code, _ in rcpt(post, *["three@%s.test" % k for k in KINDS])), 40, 0.2)
    expect(post, {"alias@%s.test" % kind: "250" for kind in ("ldap", "postgres", "http")})


def killed_servers_come_back(world):
    servers = Servers(world, ", timeout: 8s, breaker: 200ms, breaker_failures: 2, positive: 300ms, negative: 300ms")
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    expect(post, {"%s@%s.test" % (name, kind): code for kind in KINDS for name, code in (("box", "250"), ("nobody", "550"))})
    for kind in KINDS:
        servers[kind].freeze()
        asked = Pending(post, "under.way@%s.test" % kind)
        servers[kind].kill()
        assert asked.reply()[0] == 451, kind
        expect(post, {"local@table.test": "250", "new@%s.test" % kind: "451 4.3.0", "postmaster@table.test": "250"})

        def noes_are_over():
            return rcpt(post, "nobody@%s.test" % kind)[0][0] == 451
        wait_until("a no holds no longer", noes_are_over, 20, 0.1)

        def is_stale():
            expect(post, {"box@%s.test" % kind: "250"})
            return answers(post, kind, **{"from": "stale"}) > 0
        wait_until("an old yes holds", is_stale, 20, 0.1)
        for i in range(4):
            expect(post, {"more%d@%s.test" % (i, kind): "451"})
        assert post.log_text().count("directory_down") >= 1, kind
    for kind in KINDS:
        servers[kind].start()
        wait_until(kind + " is asked again", lambda: rcpt(post, "nobody@%s.test" % kind)[0][0] == 550, 40, 0.2)
        wait_until("its yes is new", lambda: answers(post, kind, **{"from": "backend", "result": "found"}) > 1 or
                   expect(post, {"box@%s.test" % kind: "250"}), 20, 0.1)
    wait_until("the log says so", lambda: post.log_text().count("directory_up") >= len(KINDS), 10, 0.1)
    assert smtplib.SMTP("127.0.0.1", post.port, timeout=10).quit()[0] == 221


def it_changes_while_it_runs(world):
    servers = Servers(world, ", positive: 200ms, negative: 200ms")
    post = world.posthouse(gateway=GATEWAY, extra=servers.settings).start()
    expect(post, {"late@%s.test" % kind: "550" for kind in KINDS})
    servers.ldap.change("dn: cn=late,dc=example,dc=net\nchangetype: add\nobjectClass: person\nobjectClass: mailUser\ncn: late\n"
                        "sn: late\nmail: late@ldap.test\n")
    servers.postgres.change("INSERT INTO addresses VALUES ('late', 'postgres.test', NULL, NULL);")
    servers.http.change({"late@http.test": MAILBOX}, {})
    servers.callout.change({"late@callout.test": "x"})
    wait_until("they are known", lambda: all(code == 250 for code, _ in rcpt(post, *["late@%s.test" % k for k in KINDS])), 20, 0.2)
    wait_until("one is gone", lambda: rcpt(post, "box@http.test")[0][0] == 550, 20, 0.2)


def the_unwise_is_told(world):
    text = "node: {hostname: mx.posthouse.test, data_dir: %s/d}\ndomains:\n  - {name: all.test, route: mx, recipients: any}\n"
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", world.file("any.yaml", text % world.directory), "--check"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "all.test" in done.stderr + done.stdout and "any" in done.stderr + done.stdout, done
    good = world.file("good.yaml", text.replace("any", "{table: %s}" % world.file("t.txt", "a\n")) % world.directory)
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", good, "--check"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "all.test" not in done.stderr + done.stdout, done


if __name__ == "__main__":
    main([they_say_who_is_a_recipient, mail_goes_where_they_say, operators_see_it, frozen_servers_stall_nobody,
          killed_servers_come_back, it_changes_while_it_runs, the_unwise_is_told])
