#!/usr/bin/env python3
"""
Proves how private the way to other servers is, and that mail waits rather than go a worse way than is demanded: opportunistic TLS
with every kind of server, levels by settings, DANE in a signed zone behind a validating resolver, MTA-STS with a real HTTPS server.
"""
import os
import re
import shlex
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, SLOW, main, wait_until
from secure import Authority
from signed_dns import SignedDns, spoil_record
from tls_server import PolicyHost, TlsSink, der, free_port_of, policy, public_key, self_signed, server_context, tlsa
import hashlib

ONCE = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"


class House:
    """Servers at addresses of their own, one port for all, the DNS before them, and the daemon. Domains below open.test are
    unsigned, those below signed.test are vouched for."""

    def __init__(self, world):
        self.world, self.count = world, 0
        self.port = free_port_of(["127.0.0.1"] + ["127.0.1.%d" % n for n in range(1, 40)])
        self.authority = Authority(world.directory)
        self.zones = {"open.test": "", "signed.test": ""}
        self.spoiled = []

    def certificate(self, *names, days=60):
        self.count += 1
        return self.authority.issue("c%d" % self.count, names, days=days)

    def address(self):
        self.count += 1
        return "127.0.1.%d" % self.count

    def server(self, pair=None, chain=None, **more):
        return self.world.add(TlsSink(server_context(pair, chain) if pair else None, address=self.address(), port=self.port, **more))

    def record(self, zone, text):
        self.zones[zone] += text + "\n"

    def host(self, name, server):
        stem, _, zone = name.partition(".")
        self.record(zone, "%s A %s" % (stem, server.address))

    def tlsa(self, name, data, spoiled=False):
        stem, _, zone = name.partition(".")
        self.record(zone, "_%d._tcp.%s %s" % (self.port, stem, data))
        if spoiled:
            self.spoiled.append("_%d._tcp.%s" % (self.port, name))

    def domain(self, name, *hosts):
        stem, _, zone = name.partition(".")
        for n, host in enumerate(hosts):
            self.record(zone, "%s MX %d %s." % (stem, 10 * (n + 1), host))

    def announce(self, name):
        stem, _, zone = name.partition(".")
        self.record(zone, '_mta-sts.%s TXT "v=STSv1; id=1"' % stem)

    def _spoil(self, name, text):
        for owner in self.spoiled:
            text = spoil_record(text, owner, "TLSA")
        return text

    def start(self, tls="", retry=ONCE, more="", gateway=""):
        dns = self.dns = self.world.add(SignedDns(self.world.directory, {"signed.test": self.zones["signed.test"]},
                                                  {"open.test": self.zones["open.test"]}, self._spoil))
        delivery = ("dns: [\"%s\"]\nport: %d\ntimeouts: {connect: %ds, greeting: %ds, ehlo: %ds}\n%s\n%s\ntls:\n  ca_file: %s\n%s"
                    % (dns.server, self.port, 4 * SLOW, 4 * SLOW, 2 * SLOW, retry, more, self.authority.file,
                       "".join("  " + line + "\n" for line in tls.splitlines())))
        self.post = self.world.posthouse(gateway=gateway, delivery=delivery).start()
        return self.post

    def mail(self, domain, body="Subject: test\r\n\r\nhello\r\n"):
        """Sends; what became of it at first: (event, fields of the log line)."""
        start = len(self.post.log_bytes())
        self.post.send("a@client.test", "b@" + domain, body)
        return self.outcome(domain, start)

    def outcome(self, domain, start=0):
        def find():
            return outcomes(self.post.log_bytes(start).decode("utf-8", "replace"), "b@" + domain)
        return wait_until("an outcome for " + domain, find, 40)[0]

    def mails(self, domains):
        """The same for many at once."""
        start = len(self.post.log_bytes())
        for domain in domains:
            self.post.send("a@client.test", "b@" + domain)
        return {domain: self.outcome(domain, start) for domain in domains}


def outcomes(log, to):
    """What the log says of this recipient: [(event, fields)]."""
    found = []
    for line in log.splitlines():
        m = re.search(r"\b(delivered|deferred|failed|in_doubt) (id=.*)", line) if " to=" + to + " " in line else None
        if m:
            found.append((m.group(1), dict(word.partition("=")[::2] for word in shlex.split(m.group(2)) if "=" in word)))
    return found


def delivered(outcome, tls):
    event, fields = outcome
    assert event == "delivered", outcome
    assert (tls in fields["tls"].split(" ")) if tls != "no" else fields["tls"] == "no", outcome
    if tls != "no":
        assert fields["tls"].startswith("TLSv1."), outcome


def deferred(outcome, status, *words):
    event, fields = outcome
    assert event == "deferred" and fields["status"] == status, outcome
    for word in words:
        assert word in fields["text"], outcome


def opportunistic(world):
    h = House(world)
    servers = {
        "good": h.server(h.certificate("good-mx.open.test")),
        "self": h.server(self_signed(world.directory, "self-mx.open.test")),
        "wrong": h.server(h.certificate("else.open.test")),
        "expired": h.server(h.certificate("expired-mx.open.test", days=-1)),
        "clear": h.server(),
        "refuse": h.server(h.certificate("refuse-mx.open.test"), way="refuse"),
        "garbage": h.server(h.certificate("garbage-mx.open.test"), way="garbage"),
        "close": h.server(h.certificate("close-mx.open.test"), way="close"),
        "hang": h.server(h.certificate("hang-mx.open.test"), way="hang"),
        "inject": h.server(h.certificate("inject-mx.open.test"), way="inject",
                           injected=b"250-sink.test\r\n250 SIZE 1\r\n250 2.1.0 fine\r\n250 2.1.5 fine\r\n354 go on\r\n250 taken\r\n"),
    }
    strict = ["%s-strict" % name for name in ("self", "expired", "clear", "refuse", "garbage", "close", "hang", "inject")]
    for name, server in servers.items():
        h.host(name + "-mx.open.test", server)
        h.domain(name + ".open.test", name + "-mx.open.test")
        h.domain(name + "-strict.open.test", name + "-mx.open.test")
    post = h.start("domains:\n" + "\n".join("  - {domain: %s.open.test, level: encrypt}" % name for name in strict))
    got = h.mails([name + ".open.test" for name in servers])
    delivered(got["good.open.test"], "verified")
    for name in ("self", "wrong", "expired"):
        delivered(got[name + ".open.test"], "unverified")
        assert servers[name].ways[0][0] == "TLSv1.3", servers[name].ways
    for name in ("clear", "refuse", "garbage", "close", "hang", "inject"):
        delivered(got[name + ".open.test"], "no")
        assert servers[name].ways == [("", None, False)], servers[name].ways
    assert servers["good"].names == ["good-mx.open.test"], servers["good"].names
    # What was injected was not taken for an answer: the envelope was said, and answered, on a connection of its own.
    said = [stage for stage, _ in servers["inject"].commands]
    assert said.count("banner") == 2 and said.index("mail") > said.index("starttls") + 1, said
    got = h.mails([name + ".open.test" for name in strict])
    for name in ("self", "expired"):
        delivered(got[name + "-strict.open.test"], "unverified")
    for name, status in (("clear", "4.7.4"), ("refuse", "4.7.0"), ("garbage", "4.7.5"), ("close", "4.7.5"), ("hang", "4.7.5"),
                         ("inject", "4.7.5")):
        deferred(got[name + "-strict.open.test"], status)
        assert len(servers[name].messages) == 1, name  # the one before
    assert "the server talked before the handshake" in got["inject-strict.open.test"][1]["text"], got
    ident = got["garbage-strict.open.test"][1]["id"]
    assert "TLS" in post.tool("msg", "why", ident)["text"]


def levels_of_settings(world):
    h = House(world)
    good, other = h.certificate("good-mx.open.test"), h.certificate("mail.other.test")
    alone = self_signed(world.directory, "alone-mx.open.test")
    servers = {"good": h.server(good), "other": h.server(other), "alone": h.server(alone),
               "expired": h.server(h.certificate("expired-mx.open.test", days=-1))}
    rules = []

    def rule(name, server, text):
        h.domain(name + ".open.test", server + "-mx.open.test")
        rules.append("  - {domain: %s.open.test, %s}" % (name, text))
    for name, server in servers.items():
        h.host(name + "-mx.open.test", server)
        rule("verify-" + name, name, "level: verify")
        rule("none-" + name, name, "level: none")
    rule("named", "other", "level: verify, names: [mail.other.test]")
    rule("misnamed", "good", "level: verify, names: [mail.other.test]")
    rule("finger", "alone", "level: fingerprint, fingerprints: [\"%s\"]" % hashlib.sha256(der(alone[0])).hexdigest())
    rule("keyfinger", "alone", "level: fingerprint, fingerprints: [\"%s\"]" % hashlib.sha256(public_key(alone[0])).hexdigest())
    rule("wrongfinger", "alone", "level: fingerprint, fingerprints: [\"%s\"]" % hashlib.sha256(der(good[0])).hexdigest())
    rule("dane", "good", "level: dane")
    h.domain("below.open.test", "alone-mx.open.test")
    h.start("domains:\n" + "\n".join(rules) + "\n  - {domain: .open.test, level: encrypt}")
    names = [re.search(r"domain: (\S+),", r).group(1) for r in rules] + ["below.open.test"]
    got = {name.removesuffix(".open.test"): outcome for name, outcome in h.mails(names).items()}
    delivered(got["verify-good"], "verified")
    delivered(got["named"], "verified")
    delivered(got["finger"], "fingerprint")
    delivered(got["keyfinger"], "fingerprint")
    delivered(got["below"], "unverified")
    for name in servers:
        delivered(got["none-" + name], "no")
    for name in ("verify-other", "verify-alone", "verify-expired", "misnamed", "wrongfinger"):
        deferred(got[name], "4.7.5")
    assert "expired" in got["verify-expired"][1]["text"] and "name" in got["misnamed"][1]["text"], got
    deferred(got["dane"], "4.7.5", "TLSA")


def dane(world):
    h = House(world)
    authority, signed = h.authority, "%s.signed.test"
    alone = self_signed(world.directory, "nobody.test")
    good = h.server(alone)
    h.host("good-mx.signed.test", good)
    h.tlsa("good-mx.signed.test", tlsa(alone[0]))
    h.domain("good.signed.test", "good-mx.signed.test")
    h.domain("full.signed.test", "full-mx.signed.test")
    h.host("full-mx.signed.test", good)
    h.tlsa("full-mx.signed.test", tlsa(alone[0], 3, 0, 2))
    expired = h.certificate("nobody.test", days=-1)
    h.host("expired-mx.signed.test", h.server(expired))
    h.tlsa("expired-mx.signed.test", tlsa(expired[0]))
    h.domain("expired.signed.test", "expired-mx.signed.test")
    # bad: another key, alone and before a good host
    bad = h.server(self_signed(world.directory, "bad.test"))
    h.host("bad-mx.signed.test", bad)
    h.tlsa("bad-mx.signed.test", tlsa(alone[0]))
    for name in ("bad", "bad2"):
        h.domain(signed % name, "bad-mx.signed.test")
    h.domain("second.signed.test", "bad-mx.signed.test", "good-mx.signed.test")
    # STARTTLS stripped
    clear = h.server()
    h.host("clear-mx.signed.test", clear)
    h.tlsa("clear-mx.signed.test", tlsa(alone[0]))
    for name in ("clear", "clear2"):
        h.domain(signed % name, "clear-mx.signed.test")
    # usage 2: the authority, with the right name and the wrong one
    for name, names in (("ta", ["ta-mx.signed.test"]), ("tadomain", ["tadomain.signed.test"]), ("tawrong", ["else.test"])):
        h.host(name + "-mx.signed.test", h.server(h.certificate(*names), chain=authority.file))
        h.tlsa(name + "-mx.signed.test", tlsa(authority.file, 2, 0, 1))
        h.domain(signed % name, name + "-mx.signed.test")
    # bogus
    bogus = h.server(alone)
    h.host("bogus-mx.signed.test", bogus)
    h.tlsa("bogus-mx.signed.test", tlsa(alone[0]), spoiled=True)
    h.domain("bogus.signed.test", "bogus-mx.signed.test")
    # unusable: TLS without authentication, but TLS
    for name, server in (("unusable", h.server(alone)), ("unusableclear", clear)):
        h.host(name + "-mx.signed.test", server)
        h.tlsa(name + "-mx.signed.test", tlsa(alone[0], 1, 1, 1))
        h.domain(signed % name, name + "-mx.signed.test")
    # aliases
    h.record("signed.test", "alias-mx CNAME good-mx\noutside-mx CNAME open-mx.open.test.")
    h.domain("alias.signed.test", "alias-mx.signed.test")
    # nobody vouches: the records are nothing
    h.host("open-mx.open.test", clear)
    h.tlsa("open-mx.open.test", tlsa(alone[0]))
    h.domain("open.open.test", "open-mx.open.test")
    h.domain("outside.signed.test", "outside-mx.signed.test")
    h.domain("inward.open.test", "bad-mx.signed.test")  # an MX record that nobody vouches for
    # no records
    h.host("plain-mx.signed.test", clear)
    h.domain("plain.signed.test", "plain-mx.signed.test")
    post = h.start()
    names = ["good", "full", "expired", "bad", "second", "clear", "ta", "tadomain", "tawrong", "bogus", "unusable", "unusableclear",
             "alias", "outside", "plain"]
    got = h.mails([signed % name for name in names] + ["open.open.test", "inward.open.test"])
    got = {name.split(".")[0]: outcome for name, outcome in got.items()}
    for name in ("good", "full", "expired", "second", "ta", "tadomain", "alias"):
        delivered(got[name], "DANE")
    for name in ("bad", "tawrong", "bogus"):
        deferred(got[name], "4.7.5")
    deferred(got["clear"], "4.7.4")
    deferred(got["unusableclear"], "4.7.4")
    delivered(got["unusable"], "unverified")
    for name in ("outside", "plain", "open"):
        delivered(got[name], "no")
    delivered(got["inward"], "unverified")
    assert "TLSA" in got["bogus"][1]["text"], got["bogus"]
    assert not bogus.messages and len(bad.messages) == 1, (bogus.messages, bad.messages)
    assert len(clear.messages) == 3, clear.messages
    # What the tool says of them.
    assert any("DANE" in s.get("text", "") or "TLSA" in s.get("text", "") for s in post.tool("route", "b@good.signed.test")["steps"])
    for name, words in (("good", ["matches its TLSA records", "TLSA records: usable"]), ("bad", ["TLS failed"]),
                        ("bogus", ["cannot be had"]), ("clear", ["does not offer STARTTLS"])):
        text = post.tool("tls", "probe", signed % name, text=True)
        for word in words:
            assert word in text, text
    # The sender may do without.
    delivered(h.mail("bad2.signed.test", "TLS-Required: no\r\nSubject: test\r\n\r\nhello\r\n"), "unverified")
    delivered(h.mail("clear2.signed.test", "TLS-Required: no\r\nSubject: test\r\n\r\nhello\r\n"), "no")
    deferred(h.mail("bad2.signed.test"), "4.7.5")


def mta_sts(world):
    h = House(world)
    names = ["ok", "bad", "stranger", "nobody", "wild", "testing", "testingbad", "none", "missing", "webpki", "broken", "brief", "waived", "kept"]
    good = h.server(h.certificate("good-mx.open.test", "a.wild.test.open.test"))
    bad = h.server(self_signed(world.directory, "bad-mx.open.test"))
    stranger = h.server(h.certificate("stranger-mx.open.test"))
    for name, server in (("good-mx", good), ("bad-mx", bad), ("brief-mx", bad), ("kept-mx", bad), ("stranger-mx", stranger)):
        h.host(name + ".open.test", server)
    hosts = {"ok": ["good-mx"], "stranger": ["stranger-mx", "good-mx"], "nobody": ["stranger-mx"], "wild": ["good-mx"],
             "testing": ["good-mx"], "brief": ["brief-mx"], "kept": ["kept-mx"]}
    for name in names:
        h.domain(name + ".open.test", *[host + ".open.test" for host in hosts.get(name, ["bad-mx"])])
        h.announce(name + ".open.test")
    only_good, only_bad = policy("enforce", "good-mx.open.test"), policy("enforce", "bad-mx.open.test")
    texts = {"ok": only_good, "bad": only_bad, "stranger": only_good, "nobody": only_good, "wild": policy("enforce", "*.open.test"),
             "testing": policy("testing", "good-mx.open.test"), "testingbad": policy("testing", "good-mx.open.test"),
             "none": policy("none"), "missing": (404, "not here"), "webpki": only_bad, "broken": "version: STSv1\nmode: strange\n",
             "brief": policy("enforce", "brief-mx.open.test", max_age=3), "waived": only_bad, "kept": policy("enforce", "kept-mx.open.test")}
    wildcard = h.authority.issue("policies", ["mta-sts.%s.open.test" % name for name in names])
    there = world.add(PolicyHost(wildcard, {name + ".open.test": text for name, text in texts.items()},
                                 {"webpki.open.test": h.authority.issue("webpki", ["mta-sts.else.test"])}))
    post = h.start("policy_host: \"%s\"" % there.address)
    got = {name.split(".")[0]: outcome for name, outcome in h.mails([name + ".open.test" for name in names if name != "waived"]).items()}
    for name in ("ok", "stranger", "wild", "testing"):
        delivered(got[name], "verified")
    for name in ("testingbad", "none", "missing", "webpki", "broken"):
        delivered(got[name], "unverified")
    for name in ("bad", "brief", "kept"):
        deferred(got[name], "4.7.5")
    deferred(got["nobody"], "4.7.5", "MTA-STS policy does not name this host")
    assert stranger.connections == 0, "a host that the policy does not name was asked"
    log = post.log_text()
    for name, words in (("missing", "HTTP status 404"), ("webpki", "certificate is not valid"), ("broken", "invalid")):
        lines = [line for line in log.splitlines() if "sts_fetch_failed" in line and name + ".open.test" in line]
        assert len(lines) == 1 and words in lines[0], (name, lines)
    # A policy that is over, and whose host has no other, binds nobody.
    there.policies["brief.open.test"] = (404, "not here")

    def is_over():
        post.tool("retry", "id:" + got["brief"][1]["id"])
        return any(event == "delivered" for event, _ in outcomes(post.log_text(), "b@brief.open.test"))
    wait_until("delivered when the policy is over", is_over, 20, 0.5)
    # One that is in force outlives its host and a restart.
    for name in names:
        there.policies[name + ".open.test"] = (404, "not here")
    asked = len(there.asked)
    assert post.stop() == 0
    post.start()
    deferred(h.mail("kept.open.test"), "4.7.5")
    delivered(h.mail("ok.open.test"), "verified")
    assert len(there.asked) == asked, there.asked[asked:]
    text = post.tool("route", "b@bad.open.test", text=True)
    assert "MTA-STS policy 1, mode enforce" in text and "only bad-mx.open.test" in text, text
    assert not [m for m in bad.messages if m[1][0] in ("b@bad.open.test", "b@kept.open.test")], bad.messages
    # The sender may do without.
    delivered(h.mail("waived.open.test", "TLS-Required: no\r\nSubject: test\r\n\r\nhello\r\n"), "unverified")
    text = post.tool("tls", "probe", "ok.open.test", text=True)
    assert "certificate verified" in text and "good-mx.open.test" in text, text


def policies_do_not_leak(world):
    """Two domains with the same hosts, only one with a policy; connections stay open between them."""
    h = House(world)
    good, bad = h.server(h.certificate("good-mx.open.test")), h.server(self_signed(world.directory, "bad-mx.open.test"))
    h.host("good-mx.open.test", good)
    h.host("bad-mx.open.test", bad)
    for host in ("good", "bad"):
        for order in ("first", "last"):
            h.domain("strict-%s-%s.open.test" % (host, order), host + "-mx.open.test")
            h.announce("strict-%s-%s.open.test" % (host, order))
        for order in ("first", "last"):
            h.domain("free-%s-%s.open.test" % (host, order), host + "-mx.open.test")
    strict = ["strict-%s-%s.open.test" % (host, order) for host in ("good", "bad") for order in ("first", "last")]
    certificate = h.authority.issue("policies", ["mta-sts." + name for name in strict])
    there = world.add(PolicyHost(certificate, {name: policy("enforce", name.split("-")[1] + "-mx.open.test") for name in strict}))
    h.start("policy_host: \"%s\"" % there.address)
    # A domain without a policy opens the connection first.
    delivered(h.mail("free-bad-first.open.test"), "unverified")
    deferred(h.mail("strict-bad-last.open.test"), "4.7.5")
    assert len(bad.messages) == 1, bad.messages
    delivered(h.mail("free-good-first.open.test"), "verified")
    site = delivered_site(h.mail("strict-good-last.open.test"))
    assert "+sts:" in site and good.connections == 2, (site, good.connections)
    # The other order: neither is the free domain held back, nor does it take the connection of the other.
    deferred(h.mail("strict-bad-first.open.test"), "4.7.5")
    delivered(h.mail("free-bad-last.open.test"), "unverified")
    site = delivered_site(h.mail("strict-good-first.open.test"))
    assert "+sts:" in site and good.connections == 2, (site, good.connections)  # the same policy shares
    site = delivered_site(h.mail("free-good-last.open.test"))
    assert "+" not in site and good.connections == 2, (site, good.connections)
    assert {m[1][0].split("-")[0] for m in bad.messages} == {"b@free"}, bad.messages


def delivered_site(outcome):
    delivered(outcome, "verified")
    return outcome[1]["site"]


def sessions_are_resumed(world):
    h = House(world)
    good, other = h.server(h.certificate("good-mx.open.test")), h.server(h.certificate("other-mx.open.test"))
    old = h.server(h.certificate("old-mx.open.test"))
    old.tls.maximum_version = 771  # TLS 1.2
    for name, server in (("good", good), ("other", other), ("old", old)):
        h.host(name + "-mx.open.test", server)
        h.domain(name + ".open.test", name + "-mx.open.test")
    h.domain("strict.open.test", "good-mx.open.test")
    h.start("domains:\n  - {domain: strict.open.test, level: verify}", more="limits: {messages_per_connection: 1}")
    for _ in range(3):
        for name in ("good", "old"):
            delivered(h.mail(name + ".open.test"), "verified")
    assert [resumed for _, _, resumed in good.ways] == [False, True, True], good.ways
    assert [(v, resumed) for v, _, resumed in old.ways] == [("TLSv1.2", False), ("TLSv1.2", True), ("TLSv1.2", True)], old.ways
    # Neither another host nor another policy is let in with it.
    delivered(h.mail("other.open.test"), "verified")
    delivered(h.mail("strict.open.test"), "verified")
    assert other.ways[0][2] is False and good.ways[-1][2] is False, (other.ways, good.ways)


def dialogues_are_shown(world):
    h = House(world)
    good, garbage = h.server(h.certificate("good-mx.open.test")), h.server(h.certificate("x.test"), way="garbage")
    for name, server in (("good", good), ("garbage", garbage)):
        h.host(name + "-mx.open.test", server)
        h.domain(name + ".open.test", name + "-mx.open.test")
    post = h.start()
    watch = subprocess.Popen([os.path.join(BUILD, "posthouse"), "--server", post.rpc, "trace", "smtp", "out", "--for", "60s"],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(watch.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        def shown(*words):
            return any(all(word in line for word in words) for line in lines)

        def heard():  # the watch may begin a moment after its process
            h.mail("good.open.test")
            time.sleep(0.3)
            return shown("STARTTLS") or (good.messages and shown("MAIL FROM"))
        wait_until("a dialogue is shown", heard, 20, 0.2)
        delivered(h.mail("garbage.open.test"), "no")
        wait_until("TLS that failed is shown", lambda: shown("garbage-mx.open.test", "STARTTLS"), 10)
        wait_until("and the mail in the clear", lambda: shown("garbage-mx.open.test", "RCPT TO:<b@garbage.open.test>"), 10)
    finally:
        watch.terminate()
        watch.wait()
        watch.stdout.close()
    assert "verified" in post.tool("tls", "probe", "good.open.test", text=True)
    failed = post.tool("tls", "probe", "garbage.open.test", text=True)
    # Its octets come in the handshake, or with the 220 before it.
    assert ("TLS failed" in failed or "talked before the handshake" in failed) and "0 of 1" in failed, failed


if __name__ == "__main__":
    main([opportunistic, levels_of_settings, dane, mta_sts, policies_do_not_leak, sessions_are_resumed, dialogues_are_shown])
