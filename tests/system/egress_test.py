#!/usr/bin/env python3
"""
Proves delivery from addresses that this host does not have: through SOCKS5 proxies and relays that take PROXY headers, ours and real
ones, in the clear and with STARTTLS. What goes wrong at the proxy makes its source rest, and neither the server nor its site
are blamed; what the proxy says of the server counts as a connection that failed.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from egress import Haproxy, MicroSocks, ProxyV2, Socks5
from posthouse_test import BUILD, SLOW, free_port, main, wait_until
from secure import Authority
from tls_server import TlsSink, free_port_of, server_context

AWAY, AWAY_TOO, HERE, VIA = "192.0.2.10", "192.0.2.11", "127.0.0.101", "127.0.0.102"
ZONES = {
    "one.test": "@ MX 10 mx\nmx A 127.0.0.2\n",
    "two.test": "@ MX 10 mx\nmx A 127.0.0.3\n",
    "both.test": "@ MX 10 mx.one.test.\n@ MX 20 mx.two.test.\n",
    "twin.test": "@ MX 10 mx\nmx A 127.0.0.2\nmx A 127.0.0.3\n",
    "six.test": "@ MX 10 mx\nmx AAAA ::1\n",
}


class Server(TlsSink):
    """.peers: whom each connection came from."""

    def __init__(self, *args, **more):
        self.peers = []
        super().__init__(*args, **more)

    def _serve(self, connection):
        self.peers.append(connection.getpeername()[0])
        super()._serve(connection)

    def hellos(self):
        return {argument.split()[1] for stage, argument in self.commands if stage == "ehlo"}

    def recipients(self):
        return sorted(r for message in self.messages for r in message[1])


class House:
    """Servers one and two at 127.0.0.2 and 127.0.0.3, the DNS before them, and the daemon with these pools."""

    def __init__(self, world, servers=("one", "two"), secure=False, **script):
        self.world = world
        self.port = free_port_of(["127.0.0.2", "127.0.0.3"])
        self.authority = Authority(world.directory) if secure else None
        self.one = self.make("mx.one.test", "127.0.0.2", script) if "one" in servers else None
        self.two = self.make("mx.two.test", "127.0.0.3", script) if "two" in servers else None

    def make(self, name, address, script):
        context = server_context(self.authority.issue(name, [name])) if self.authority else None
        return self.world.add(Server(context, script=script, address=address, port=self.port))

    def start(self, *pools, more="retry: {first: 300ms, max: 1s}"):
        dns = self.world.nsd(ZONES)
        tls = "tls: {ca_file: %s, level: verify, mta_sts: false}\n" % self.authority.file if self.authority else ""
        self.post = self.world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\ntimeouts: {connect: %dms}\n%s%s\nsources:\n%s"
                                         % (dns.port, self.port, 2000 * SLOW, tls, more, "".join(pools))).start()
        return self.post


def source(address, egress=None, more=""):
    return "{address: \"%s\"%s%s}" % (address, ", egress: " + egress if egress else "", more)


def socks5(proxy, login=""):
    return "{socks5: \"%s\"%s}" % (proxy.name if hasattr(proxy, "name") else proxy, login)


def proxy_v2(proxy):
    return "{proxy_v2: \"%s\"}" % proxy.name


def pool(name, *sources, senders=""):
    return "  - {name: %s, %saddresses: [%s]}\n" % (name, "senders: [%s], " % senders if senders else "", ", ".join(sources))


JOE = ", user: joe, password: secret"


def through_socks5(world):
    house = House(world)
    proxy = world.add(Socks5(source=VIA, user="joe", password="secret"))
    post = house.start(pool("all", source(AWAY, socks5(proxy, JOE), ", ehlo: out10.test")))
    assert "source_not_here" not in post.log_text()
    for n in range(3):
        post.send("a@client.test", "n%d@%s.test" % (n, "one" if n < 2 else "two"))
    post.wait_empty()
    assert len(house.one.messages) == 2 and len(house.two.messages) == 1
    assert set(house.one.peers) == set(house.two.peers) == {VIA}, house.one.peers
    assert house.one.hellos() == {"out10.test"}
    assert set(proxy.asked) == {("127.0.0.2", house.port), ("127.0.0.3", house.port)}, proxy.asked
    said = post.tool("route", "x@one.test", text=True)
    assert "source of pool all: %s, through socks5 %s" % (AWAY, proxy.name) in said, said
    assert "through socks5 " + proxy.name in post.tool("limits", "explain", "one.test", text=True)


def greeting_behind_the_reply(world):
    """The octets behind the last one of the proxy are the server's, also those of a large reply."""
    house = House(world, banner="220-" + "x" * 400 + "\r\n220 here I am")
    proxy = world.add(Socks5(source=VIA, together=True))
    post = house.start(pool("all", source(AWAY, socks5(proxy))))
    post.send("a@client.test", "x@one.test")
    post.wait_empty()
    assert house.one.recipients() == ["x@one.test"] and house.one.peers == [VIA]


def through_proxy_v2(world):
    house = House(world)
    relay = world.add(ProxyV2({AWAY: VIA}))
    post = house.start(pool("all", source(AWAY, proxy_v2(relay), ", ehlo: out10.test")))
    for n in range(2):
        post.send("a@client.test", "n%d@one.test" % n)
    post.wait_empty()
    assert house.one.recipients() == ["n0@one.test", "n1@one.test"] and set(house.one.peers) == {VIA}
    assert house.one.hellos() == {"out10.test"}
    assert set(relay.headers) == {((AWAY, 0), ("127.0.0.2", house.port))}, relay.headers
    assert "through proxy_v2 " + relay.name in post.tool("route", "x@one.test", text=True)


def ipv6(world):
    house = House(world, servers=())
    six = world.add(SixServer(house.port))
    proxy, relay = world.add(Socks5(address="::1")), world.add(ProxyV2({"2001:db8::11": "::1"}))
    post = house.start(pool("news", source("2001:db8::10", socks5(proxy)), senders="news.test"),
                       pool("rest", source("2001:db8::11", proxy_v2(relay))))
    post.send("a@news.test", "x@six.test")
    post.send("a@client.test", "y@six.test")
    post.wait_empty()
    assert six.recipients() == ["x@six.test", "y@six.test"]
    assert proxy.asked == [("::1", house.port)] and relay.headers == [(("2001:db8::11", 0), ("::1", house.port))]


class SixServer(Server):
    def __init__(self, port):
        import socket
        import threading
        super().__init__(address="127.0.0.1")
        self.close()
        self.closing = False
        self.listener = socket.create_server(("::1", port), family=socket.AF_INET6)
        threading.Thread(target=self._accept, daemon=True).start()


def with_starttls(world):
    house = House(world, secure=True)
    proxy, relay = world.add(Socks5(source=VIA, together=True)), world.add(ProxyV2({AWAY: HERE}))
    post = house.start(pool("news", source(AWAY, socks5(proxy)), senders="news.test"), pool("rest", source(AWAY, proxy_v2(relay))))
    post.send("a@news.test", "x@one.test")
    post.send("a@client.test", "y@one.test")
    post.wait_empty()
    assert house.one.recipients() == ["x@one.test", "y@one.test"]
    assert sorted(house.one.peers) == [HERE, VIA] and house.one.handshakes == 2
    assert post.log_text().count(" verified\"") == 2, post.log_text()


def real_proxies(world):
    house = House(world, secure=True)
    socks, haproxy = world.add(MicroSocks(world, VIA, "joe", "secret")), world.add(Haproxy(world))
    post = house.start(pool("news", source(AWAY, socks5(socks, JOE)), senders="news.test"), pool("rest", source(HERE, proxy_v2(haproxy))))
    for n in range(3):
        post.send("a@news.test", "news%d@one.test" % n)
        post.send("a@client.test", "rest%d@two.test" % n)
    post.wait_empty()
    assert len(house.one.messages) == 3 and set(house.one.peers) == {VIA}, house.one.peers
    assert len(house.two.messages) == 3 and set(house.two.peers) == {HERE}, house.two.peers
    house.one.close()  # what MicroSocks says of a server that refuses is the server's
    post.send("a@news.test", "next@both.test")
    post.wait_empty()
    assert "next@both.test" in house.two.recipients() and VIA in house.two.peers
    assert "source_failed" not in post.log_text()


def wrong_password(world):
    """The pool has no other source: deferred, with the name of the proxy; the site goes on for another pool."""
    house = House(world)
    proxy = world.add(Socks5(source=VIA, user="joe", password="other"))
    post = house.start(pool("news", source(AWAY, socks5(proxy, JOE)), senders="news.test"), pool("rest", source(HERE)))
    post.send("a@news.test", "x@one.test")
    wait_until("the deferral", lambda: " deferred " in post.log_text())
    line = next(line for line in post.log_text().split("\n") if " deferred " in line)
    assert "status=4.4.0" in line and "the proxy cannot be used: it refuses the user or the password (through socks5 %s)" % proxy.name in line
    post.send("a@client.test", "y@one.test")
    house.one.wait(1)
    assert house.one.peers == [HERE] and not proxy.asked
    log = post.log_text()
    assert "site_failed" not in log and "source_failed" in log and "at=\"all sites\"" in log
    said = post.tool("limits", "explain", "one.test", text=True)
    assert "not used after a failure for" in said, said
    proxy.login = ("joe", "secret")
    post.tool("retry", "to:x@one.test")
    wait_until("the message after the rest of the source", lambda: len(house.one.messages) == 2, 60)
    assert house.one.peers[-1] == VIA and proxy.connections >= 2


def dead_proxy_and_another_source(world):
    """All is delivered at the first attempt, by the other source; the server is not taken for dead."""
    house = House(world)
    alive = world.add(Socks5(source=VIA))
    post = house.start(pool("all", source(AWAY, socks5("127.0.0.1:%d" % free_port()), ", weight: 1000"), source(AWAY_TOO, socks5(alive))))
    for n in range(6):
        post.send("a@client.test", "n%d@one.test" % n)
    post.wait_empty()
    assert len(house.one.messages) == 6 and set(house.one.peers) == {VIA}
    log = post.log_text()
    assert " deferred " not in log and "site_failed" not in log and "cannot connect to the proxy" in log, log
    assert "did not answer a moment ago" not in post.tool("route", "x@one.test", text=True)


def proxies_that_fail(world):
    """Silent, closing, or no SOCKS5 proxy at all: the other source is drawn."""
    house = House(world)
    odd = [world.add(Socks5(greeting="silent")), world.add(Socks5(greeting="close")), world.add(Socks5(answer="close")),
           world.add(Server(address="127.0.0.1"))]
    for proxy in odd:
        proxy.name = "127.0.0.1:%d" % proxy.port
    good = world.add(Socks5(source=VIA))
    pools = [pool("p%d" % n, source(AWAY.replace("10", str(20 + n)), socks5(proxy), ", weight: 1000"), source(AWAY_TOO, socks5(good)),
                  senders="s%d.test" % n) for n, proxy in enumerate(odd)]
    post = house.start(*pools)
    for n in range(len(odd)):
        post.send("a@s%d.test" % n, "n%d@one.test" % n)
    post.wait_empty(60)
    assert house.one.recipients() == ["n%d@one.test" % n for n in range(len(odd))] and set(house.one.peers) == {VIA}
    log = post.log_text()
    for text in ("did not answer in time", "has closed the connection", "does not speak SOCKS5"):
        assert text in log, (text, log)
    assert " deferred " not in log and "site_failed" not in log


def many_dead_proxies(world):
    """One attempt does not try them all; the next one goes on with the others."""
    house = House(world)
    proxies = [world.add(Socks5(greeting="close")) for _ in range(6)]
    post = house.start(pool("all", *(source("192.0.2.%d" % (20 + n), socks5(proxy)) for n, proxy in enumerate(proxies))))
    post.send("a@client.test", "x@both.test")
    wait_until("the deferral", lambda: " deferred " in post.log_text())
    log = post.log_text()
    assert log[:log.index(" deferred ")].count("source_failed") == 4, log
    wait_until("the others", lambda: post.log_text().count("source_failed") == 6)
    assert sorted(proxy.connections for proxy in proxies) == [1] * 6 and "site_failed" not in post.log_text()


def target_is_refused(world):
    """The next MX, over the same proxy, whose source goes on at once."""
    house = House(world, servers=("two",))
    proxy = world.add(Socks5(source=VIA))
    post = house.start(pool("all", source(AWAY, socks5(proxy))))
    for n in range(2):
        post.send("a@client.test", "n%d@both.test" % n)
        house.two.wait(n + 1)
    assert ("127.0.0.2", house.port) in proxy.asked and set(house.two.peers) == {VIA}
    assert "source_failed" not in post.log_text()
    assert "did not answer a moment ago" in post.tool("route", "x@both.test", text=True)
    post.send("a@client.test", "x@one.test")
    wait_until("the deferral", lambda: " deferred " in post.log_text())
    line = next(line for line in post.log_text().split("\n") if " deferred " in line)
    assert "status=4.4.1" in line and "cannot connect: connection refused (through socks5 %s)" % proxy.name in line, line


def target_is_silent(world):
    """A proxy waits for a server that does not answer: the time of the connect covers it, and the server is to blame."""
    house = House(world)
    proxy = world.add(Socks5(source=VIA, answer={"127.0.0.2": "silent"}))
    post = house.start(pool("all", source(AWAY, socks5(proxy))))
    post.send("a@client.test", "x@both.test")
    house.two.wait(1)
    assert house.two.peers == [VIA] and not house.one.peers
    for n in range(4):  # two addresses of one host: the second is tried beside the first
        post.send("a@client.test", "n%d@twin.test" % n)
    post.wait_empty()
    assert len(house.two.messages) == 5 and not house.one.peers
    assert "source_failed" not in post.log_text()


def rules_of_the_proxy(world):
    """It refuses one server: its source rests there alone, and the site is not blamed."""
    house = House(world)
    proxy = world.add(Socks5(source=VIA, answer={"127.0.0.2": 2}))
    post = house.start(pool("all", source(AWAY, socks5(proxy))))
    post.send("a@client.test", "x@one.test")
    wait_until("the deferral", lambda: " deferred " in post.log_text())
    line = next(line for line in post.log_text().split("\n") if " deferred " in line)
    assert "status=4.4.0" in line and "the rules of the proxy do not allow it (through socks5 %s)" % proxy.name in line, line
    post.send("a@client.test", "y@two.test")
    house.two.wait(1)
    assert house.two.peers == [VIA] and "site_failed" not in post.log_text()
    assert "at=mx.one.test" in post.log_text()
    assert "our address %s rests for" % AWAY in post.tool("limits", "explain", "one.test", text=True)


def refusals_are_not_added_up(world):
    """One host says that it takes no mail, the other is not reached by our own fault: nothing permanent can be said."""
    house = House(world, banner="554 5.3.2 no mail here")
    proxy = world.add(Socks5(source=VIA, answer={"127.0.0.3": 2}))
    post = house.start(pool("all", source(AWAY, socks5(proxy))))
    post.send("a@client.test", "x@both.test")
    wait_until("the outcome", lambda: "to=x@both.test from=a@client.test remote" in post.log_text())
    assert len(house.one.peers) == 1 and ("127.0.0.3", house.port) in proxy.asked
    log = post.log_text()
    assert " failed id" not in log and "the rules of the proxy do not allow it" in log and "site_failed" not in log, log


def wrong_settings(world):
    house = House(world, servers=())
    house.start(pool("all", source(HERE)))
    bad = {
        "{socks5: \"proxy.test:1080\"}": "egress.socks5: takes an IP address (no name)",
        "{socks5: \"localhost:1080\"}": "egress.socks5: takes an IP address (no name)",
        "{socks5: \"192.0.2.1\"}": "egress.socks5: takes an IP address",
        "{socks5: \"192.0.2.1:0\"}": "egress.socks5: takes an IP address",
        "{socks5: \"2001:db8::1:1080\"}": "egress.socks5: takes an IP address",
        "{proxy_v2: \"unix:/run/proxy\"}": "egress.proxy_v2: takes an IP address",
        "{socks5: \"192.0.2.1:1080\", user: joe}": "egress: takes user and password together",
        "{socks5: \"192.0.2.1:1080\", password: x}": "egress: takes user and password together",
        "{proxy_v2: \"192.0.2.1:1080\", user: joe, password: x}": "egress.user: goes with socks5",
        "{socks5: \"192.0.2.1:1080\", proxy_v2: \"192.0.2.1:1080\"}": "egress: takes either socks5 or proxy_v2",
        "{user: joe, password: x}": "egress: takes socks5 or proxy_v2",
        "{}": "egress: takes socks5 or proxy_v2",
    }
    for egress, complaint in bad.items():
        house.post.write_settings(delivery="sources:\n" + pool("all", source(AWAY, egress)))
        done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", house.post.config, "--check"], capture_output=True,
                              text=True, timeout=30)
        assert done.returncode != 0 and complaint in done.stdout + done.stderr, (egress, done.stdout + done.stderr)


if __name__ == "__main__":
    main([through_socks5, greeting_behind_the_reply, through_proxy_v2, ipv6, with_starttls, real_proxies, wrong_password,
          dead_proxy_and_another_source, proxies_that_fail, many_dead_proxies, target_is_refused, target_is_silent, rules_of_the_proxy,
          refusals_are_not_added_up, wrong_settings])
