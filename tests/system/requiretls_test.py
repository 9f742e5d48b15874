#!/usr/bin/env python3
"""
Proves REQUIRETLS (RFC 8689) over two hops of our own: taken inside TLS only, passed on where DNSSEC or MTA-STS vouches for a host
that shows a good certificate and offers REQUIRETLS, else returned to the sender; and that it is nobody else's matter.
"""
import os
import smtplib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from posthouse_test import Posthouse, main
from tls_delivery_test import House, delivered
from tls_server import PolicyHost, TlsSink, policy, self_signed, server_context, tlsa

SECRET = "the body is nobody's to read"


def offer(post, pair):
    """Its listener gets a certificate and offers REQUIRETLS."""
    listener = "address: \"127.0.0.1:%d\"" % post.port
    with open(post.config) as f:
        text = f.read()
    assert listener in text
    with open(post.config, "w") as f:
        f.write(text.replace(listener, listener + ", with: [REQUIRETLS]")
                .replace("gateway:\n", "gateway:\n  tls: {certificate: %s, key: %s}\n" % pair))


class Second:
    """The next hop: a daemon of its own at 127.0.0.1 and the house's port, which hands on to `back` inside TLS."""

    def __init__(self, h, pair, back):
        os.mkdir(os.path.join(h.world.directory, "second"))
        self.post = Posthouse(os.path.join(h.world.directory, "second"), port=h.port,
                              delivery="tls: {ca_file: %s, routes: verify}" % h.authority.file,
                              extra="routes:\n  - {domain: \"*\", route: \"smtp:%s:%d\"}" % (back, h.port))
        offer(self.post, pair)
        self.post.start()

    def close(self):
        self.post.stop()


def with_tls(h, **more):
    """The first hop offers TLS; reports go to a sink."""
    h.back = h.world.sink()
    post = h.start(**more)
    assert post.stop() == 0
    offer(post, h.certificate("mx.posthouse.test"))
    with open(post.config, "a") as f:
        f.write("routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n" % h.back.port)
    return post.start()


def require(h, domain):
    """Mail with REQUIRETLS; its outcome."""
    start = len(h.post.log_bytes())
    with smtplib.SMTP("127.0.0.1", h.post.port, local_hostname="client.test", timeout=30) as s:
        s.starttls()
        s.ehlo()
        assert s.has_extn("requiretls")
        assert s.mail("a@back.test", ["REQUIRETLS"])[0] == 250
        assert s.rcpt("b@" + domain)[0] == 250
        code, reply = s.data("Subject: required\r\n\r\n" + SECRET + "\r\n")
        assert code == 250, reply
    return h.outcome(domain, start)


def report(h, count, status):
    octets = h.back.wait(count)[count - 1][2]
    assert b"Action: failed" in octets and b"Status: " + status in octets, octets
    assert SECRET.encode() not in octets, octets
    return octets


def taken_inside_tls_only(world):
    h = House(world)
    post = with_tls(h)
    with post.smtp() as s:
        s.ehlo()
        assert not s.has_extn("requiretls")
        assert s.mail("a@back.test", ["REQUIRETLS"])[0] // 100 == 5


def passed_on_over_two_hops(world):
    h = House(world)
    where = "127.0.1.30"  # the route of the second hop names an address, and the certificate is for it
    far = world.add(TlsSink(server_context(h.certificate(where)), address=where, port=h.port, inside=["REQUIRETLS"]))
    pair = h.certificate("next-mx.signed.test", "next-mx.open.test")
    for zone in ("signed.test", "open.test"):
        h.record(zone, "next-mx A 127.0.0.1")
    h.tlsa("next-mx.signed.test", tlsa(pair[0]))
    h.domain("dane.signed.test", "next-mx.signed.test")
    h.domain("sts.open.test", "next-mx.open.test")
    h.announce("sts.open.test")
    there = world.add(PolicyHost(h.certificate("mta-sts.sts.open.test"), {"sts.open.test": policy("enforce", "next-mx.open.test")}))
    world.add(Second(h, pair, where))
    with_tls(h, tls="policy_host: \"%s\"" % there.address)
    delivered(require(h, "dane.signed.test"), "DANE")
    far.wait(1)
    delivered(require(h, "sts.open.test"), "verified")
    far.wait(2)
    said = [line for stage, line in far.commands if stage == "mail"]
    assert len(said) == 2 and all(" REQUIRETLS" in line for line in said), said
    assert all(version.startswith("TLS") for version, _, _ in far.ways), far.ways
    assert all(SECRET.encode() in octets for _, _, octets in far.messages)
    assert not h.back.messages
    # Mail that did not ask is not marked.
    delivered(h.mail("dane.signed.test"), "DANE")
    far.wait(3)
    assert "REQUIRETLS" not in [line for stage, line in far.commands if stage == "mail"][2], far.commands


def else_returned(world):
    h = House(world)
    servers = {"unoffered": h.server(h.certificate("unoffered-mx.signed.test")),
               "unknown": h.server(h.certificate("unknown-mx.open.test"), inside=["REQUIRETLS"]),
               "clear": h.server(),
               "bad": h.server(self_signed(world.directory, "bad-mx.signed.test"), inside=["REQUIRETLS"]),
               "good": h.server(h.certificate("good-mx.signed.test"), inside=["REQUIRETLS"])}
    for name, server in servers.items():
        zone = "open.test" if name == "unknown" else "signed.test"
        h.host("%s-mx.%s" % (name, zone), server)
        h.domain("%s.%s" % (name, zone), "%s-mx.%s" % (name, zone))
    with_tls(h)
    # MX records that DNSSEC vouches for, and a certificate that is good for the host: enough without TLSA records.
    delivered(require(h, "good.signed.test"), "verified")
    event, fields = require(h, "unoffered.signed.test")
    assert (event, fields["status"]) == ("failed", "5.7.30"), fields
    assert b"REQUIRETLS" in report(h, 1, b"5.7.30")
    event, fields = require(h, "unknown.open.test")
    assert (event, fields["status"]) == ("failed", "5.7.10"), fields
    report(h, 2, b"5.7.10")
    assert servers["unknown"].connections == 0
    event, fields = require(h, "clear.signed.test")
    assert (event, fields["status"]) == ("failed", "5.7.10"), fields
    report(h, 3, b"5.7.10")
    event, fields = require(h, "bad.signed.test")
    assert (event, fields["status"]) == ("failed", "5.7.10"), fields
    report(h, 4, b"5.7.10")
    for name in ("unoffered", "unknown", "clear", "bad"):
        assert not servers[name].messages, name


def nobody_elses_matter(world):
    """A domain that cannot keep REQUIRETLS gets its other mail all the same, at once; so it is with TLS-Required."""
    h = House(world)
    clear = h.server()
    h.host("clear-mx.signed.test", clear)
    h.domain("clear.signed.test", "clear-mx.signed.test")
    with_tls(h)
    for _ in range(2):
        assert require(h, "clear.signed.test")[0] == "failed"
        delivered(h.mail("clear.signed.test"), "no")
    assert len(clear.messages) == 2


if __name__ == "__main__":
    main([taken_inside_tls_only, passed_on_over_two_hops, else_returned, nobody_elses_matter])
