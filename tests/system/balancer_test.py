#!/usr/bin/env python3
"""
Proves that behind a balancer everything knows the true client: HAProxy with both versions of the PROXY protocol, in front of
plain listeners and of TLS from the first octet, and XCLIENT. Limits, rates, trust and Received are the true client's, and who
is no balancer cannot claim to be somebody else.
"""
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import end_process, free_port, main, wait_until
from secure import HOST, Authority, Wire

BALANCER, CLIENT, OTHER, RELAY = "127.0.0.9", "127.0.0.33", "127.0.0.44", "127.0.0.55"


class Haproxy:
    """services: {front port: (back port, words of the server line)}; each connects from the balancer's address."""

    def __init__(self, world, services):
        config = "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 120s\n  timeout server 120s\n"
        for front, (back, words) in services.items():
            config += ("listen l%d\n  bind 127.0.0.1:%d\n  server s 127.0.0.1:%d source %s %s\n" % (front, front, back, BALANCER, words))
        self.log = os.path.join(world.directory, "haproxy.log")
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-db", "-f",
                                             world.file("haproxy.cfg", config)], stdout=out, stderr=out)
        for port in services:
            wait_until("haproxy listens", lambda: self._listens(port), 20)

    def _listens(self, port):
        if self.process.poll() is not None:
            with open(self.log) as f:
                raise AssertionError("haproxy ended: " + f.read())
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def close(self):
        end_process(self.process)


class House:
    """A daemon with listeners for balancers (.proxied, .implicit) and its first one for everybody, where XCLIENT is believed."""

    def __init__(self, world, more=""):
        self.sink = world.sink()
        self.authority = Authority(world.directory)
        self.proxied, self.implicit = free_port(), free_port()
        self.daemon = world.posthouse(gateway="""
  - {address: "127.0.0.1:%d", proxy: true}
  - {address: "127.0.0.1:%d", proxy: true, tls: implicit}
balancers: [%s/32]
trusted_networks: [%s/32]
names: false
tls: {certificate: %s, key: %s}
%s
""" % (self.proxied, self.implicit, BALANCER, RELAY, *self.authority.issue("server", [HOST]), more), extra="""domains:
  - {name: rcpt.test, recipients: any, route: "smtp:127.0.0.1:%d"}
routes:
  - {domain: far.test, route: "smtp:127.0.0.1:%d"}
""" % (self.sink.port, self.sink.port)).start()
        self.port = self.daemon.port

    def came(self, number, client):
        """The message with this number, counted from 1, says that it came from there."""
        message = self.sink.wait(number)[number - 1][2]
        assert re.match(rb"Received: from \S+ \((\S+ )?\[%s\]\)\r\n" % re.escape(client.encode()), message), (client, message)
        return message


def hello(w):
    w.expect(220)
    return w.say("EHLO client.test", 250)


def haproxy(world):
    house = House(world)
    v1, v2, through1, through2, health = (free_port() for _ in range(5))
    world.add(Haproxy(world, {v1: (house.proxied, "send-proxy"), v2: (house.proxied, "send-proxy-v2"),
                              through1: (house.implicit, "send-proxy"), through2: (house.implicit, "send-proxy-v2"),
                              health: (house.proxied, "send-proxy-v2 check check-send-proxy inter 200ms")}))
    number = 0
    for port in (v1, v2, health):
        for client in (CLIENT, OTHER):
            with Wire(port, source=client) as w:
                lines = hello(w)
                assert not any("XCLIENT" in line for line in lines), lines
                w.mail()
                number += 1
                house.came(number, client)
            with Wire(port, source=client) as w:  # STARTTLS behind the header
                w.starttls(house.authority.context())
                w.mail()
                number += 1
                assert b"with ESMTPS id" in house.came(number, client)
    for port in (through1, through2):
        with Wire(port, house.authority.context(), source=CLIENT) as w:  # the name is checked: HAProxy cannot look inside
            hello(w)
            w.mail()
            number += 1
            assert b"with ESMTPS id" in house.came(number, CLIENT)
    # Trust is the true client's, not the balancer's.
    for port, context in ((v1, None), (v2, None), (through2, house.authority.context())):
        with Wire(port, context, source=CLIENT) as w:
            hello(w)
            w.say("MAIL FROM:<a@sender.test>", 250)
            assert w.say("RCPT TO:<b@far.test>", 550)[0].startswith("550 5.7.1")
        with Wire(port, context, source=RELAY) as w:
            hello(w)
            w.mail(recipient="b@far.test")
            number += 1
            house.came(number, RELAY)


V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2_header(client, server="127.0.0.1"):
    return V2 + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, socket.inet_aton(client), socket.inet_aton(server), 4321, 25)


def header_from_strangers(world):
    house = House(world)
    for octets in (b"PROXY TCP4 %s 127.0.0.1 4321 25\r\nEHLO client.test\r\n" % RELAY.encode(), v2_header(RELAY) + b"EHLO client.test\r\n",
                   b"EHLO client.test\r\n"):
        with Wire(house.proxied, source=CLIENT) as w:  # no balancer
            w.send(octets)
            assert b"250" not in w.ended()
        with Wire(house.port, source=BALANCER) as w:  # a balancer, but no such listener: these are no commands
            w.send(octets)
            replies = w.expect()
            if replies[0].startswith("220"):  # the greeting had left
                replies = w.expect()
            assert replies[0][:3] in ("554", "500", "421") or octets.startswith(b"EHLO"), (octets, replies)
    broken = (b"EHLO client.test\r\n", b"PROXY TCP4 1.2.3 127.0.0.1 1 25\r\n", b"PROXY TCP4 " + b"1" * 200, V2 + b"\x31\x11\x00\x0c" + b"\0" * 12,
              V2 + b"\x21\x11\x00\x02\0\0", V2 + b"\x21\x11\xff\xff" + b"\0" * 2000)
    for octets in broken:
        with Wire(house.proxied, source=BALANCER) as w:
            w.send(octets)
            assert b"220" not in w.ended(), octets
    assert house.daemon.log_text().count("no valid PROXY header") >= len(broken), house.daemon.log_text()
    # In pieces, in one piece with what follows (the client waits for no greeting: refused as one that talks first), and LOCAL.
    with Wire(house.proxied, source=BALANCER) as w:
        for octet in v2_header(OTHER):
            w.send(bytes([octet]))
        hello(w)
        w.mail()
    house.came(1, OTHER)
    with Wire(house.proxied, source=BALANCER) as w:
        w.send(v2_header(OTHER) + b"EHLO client.test\r\n")
        w.expect(554)
    with Wire(house.proxied, source=BALANCER) as w:
        w.send(V2 + b"\x20\x00\x00\x00")
        hello(w)
        w.mail()
    house.came(2, BALANCER)


def xclient(world):
    house = House(world)
    with Wire(house.port, source=BALANCER) as w:
        offer = [line for line in hello(w) if "XCLIENT" in line]
        assert len(offer) == 1 and " ADDR" in offer[0] and " LOGIN" in offer[0], offer
        w.say("XCLIENT ADDR=192.0.2.7 NAME=host.client.test PORT=999", 220)
        w.say("MAIL FROM:<a@sender.test>", 503)  # all is forgotten, the greeting too
        w.say("EHLO other.test", 250)
        w.mail()
        assert b"from other.test (host.client.test [192.0.2.7])" in house.came(1, "192.0.2.7")
        w.say("MAIL FROM:<a@sender.test>", 250)
        w.say("RCPT TO:<b@far.test>", 550)  # not trusted
        w.say("RSET", 250)
        w.say("XCLIENT ADDR=%s" % RELAY, 220)
        w.say("EHLO relay.test", 250)
        w.mail(recipient="b@far.test")
        house.came(2, RELAY)
        w.say("XCLIENT ADDR=IPV6:2001:db8::7", 220)
        w.say("EHLO six.test", 250)
        w.mail()
        assert b"[IPv6:2001:db8::7]" in house.sink.wait(3)[2][2]
        w.say("XCLIENT LOGIN=alice@posthouse.test ADDR=192.0.2.8", 220)
        w.say("EHLO user.test", 250)
        w.mail(recipient="b@far.test")
        assert b"with ESMTPA id" in house.came(4, "192.0.2.8")
        for wrong in ("ADDR=nonsense", "PORT=70000", "COLOUR=red", "ADDR"):
            w.say("XCLIENT " + wrong, 501)
        w.say("NOOP", 250)
    assert "account=alice@posthouse.test" in house.daemon.log_text()
    for source in (CLIENT, RELAY):  # trusted is not enough
        with Wire(house.port, source=source) as w:
            assert not any("XCLIENT" in line for line in hello(w))
            assert w.say("XCLIENT ADDR=%s" % RELAY)[0][0] == "5"
            w.mail()
    house.came(5, CLIENT)
    house.came(6, RELAY)
    with Wire(house.proxied, source=BALANCER) as w:  # one way to say it is enough: not behind a PROXY header
        w.send(v2_header(BALANCER))
        assert not any("XCLIENT" in line for line in hello(w))


def limits_count_the_true_client(world):
    house = House(world, "limits: {connections_per_client: 2}\n")
    front = free_port()
    world.add(Haproxy(world, {front: (house.proxied, "send-proxy-v2")}))
    wait_until("haproxy's start is over", lambda: house.daemon.figures()["posthouse_smtp_sessions"] == 0, 10, 0.1)
    kept = [Wire(front, source=client) for client in (CLIENT, CLIENT, OTHER, OTHER)]  # more than two of the balancer
    for w in kept:
        hello(w)
    for client in (CLIENT, OTHER):
        with Wire(front, source=client) as w:
            assert w.line()[:3] in ("421", "")
    with Wire(front, source=RELAY) as w:
        hello(w)
    kept[0].close()

    def again():
        with Wire(front, source=CLIENT) as w:
            return w.line().startswith("220")
    wait_until("its place is free again", again, 20, 0.1)
    for w in kept:
        w.close()

    claims = []
    for client, code in (("192.0.2.9", 220), ("192.0.2.9", 220), ("192.0.2.9", 421), ("192.0.2.10", 220), ("192.0.2.10", 220)):
        w = Wire(house.port, source=BALANCER)
        hello(w)
        w.say("XCLIENT ADDR=" + client, code)
        claims.append(w)
    for w in claims:
        w.close()


def rates_count_the_true_client(world):
    house = House(world, "rates: {client: {messages: 2}}\n")
    front = free_port()
    world.add(Haproxy(world, {front: (house.proxied, "send-proxy")}))

    def over(w):
        replies = w.say("MAIL FROM:<a@sender.test>") + w.say("RCPT TO:<b@rcpt.test>")
        return any(line.startswith("450 4.7.") for line in replies)
    for client in (CLIENT, OTHER):
        with Wire(front, source=client) as w:
            hello(w)
            w.mail()
            w.mail()
            assert over(w), client
    with Wire(house.port, source=BALANCER) as w:  # one balancer, several clients, the first of them known already
        hello(w)
        w.say("XCLIENT ADDR=" + CLIENT, 220)
        w.say("EHLO client.test", 250)
        assert over(w)
        for client in ("192.0.2.21", "192.0.2.22"):
            w.say("RSET", 250)
            w.say("XCLIENT ADDR=" + client, 220)
            w.say("EHLO client.test", 250)
            w.mail()
            w.mail()
            assert over(w), client
    house.sink.wait(8)


if __name__ == "__main__":
    main([haproxy, header_from_strangers, xclient, limits_count_the_true_client, rates_count_the_true_client])
