#!/usr/bin/env python3
"""
Proves that one site never has more connections of ours than delivery.limits.per_site: 200 domains share two MX hosts, some of them
with a TLS demand of their own and some senders with addresses of their own, while the hosts greet with 421, drop connections in
mid-dialogue, say 451, ask to come later, are gone for a while and come back. All mail arrives once, and the books balance.

The hosts count: a connection is open from its accept until it is closed by either side.
"""
import contextlib
import os
import re
import select
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import check, free_port, main, wait_until

DOMAINS, CAP = 200, 6
ADDRESSES = ("127.0.0.2", "127.0.0.3")
EVERY = {"greeting": 15, "mail": 31, "body": 37, "dot": 17, "later": 25}  # each so-manieth fails, while .failing


class Over(Exception):
    pass


class Site:
    """Two hosts of one site, and one count of their connections."""

    def __init__(self, port):
        self.port, self.lock = port, threading.Lock()
        self.open, self.most, self.connections = set(), 0, 0
        self.failing, self.failures, self.asked = True, dict.fromkeys(EVERY, 0), dict.fromkeys(EVERY, 0)
        self.recipients, self.transactions, self.peers = [], 0, set()
        self.listeners = []
        self.come()

    def come(self):
        self.listeners = [socket.create_server((address, self.port), backlog=512) for address in ADDRESSES]
        for listener in self.listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def leave(self):
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    close = leave

    def _accept(self, listener):
        while True:
            try:
                connection, (peer, _) = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.peers.add(peer)
                self.open.add(connection)
                self.most = max(self.most, self._still_open())
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _still_open(self):
        """A client that has closed counts no more, though we have not read that far."""
        ends = select.poll()
        for connection in self.open:
            ends.register(connection, select.POLLRDHUP)
        return len(self.open) - len(ends.poll(0))

    def _end(self, connection):
        with self.lock:
            self.open.discard(connection)
            connection.close()

    def _fails(self, kind):
        with self.lock:
            self.asked[kind] += 1
            fails = self.failing and self.asked[kind] % EVERY[kind] == 0
            self.failures[kind] += fails
            return fails

    def _serve(self, connection):
        f = connection.makefile("rwb")
        try:
            self._talk(f)
        except (OSError, ValueError, Over):
            pass
        finally:
            with contextlib.suppress(OSError, ValueError):
                f.close()  # the socket is open until _end
            self._end(connection)

    @staticmethod
    def _say(f, text):
        f.write(text.encode() + b"\r\n")
        f.flush()

    def _talk(self, f):
        for kind, reply in (("greeting", "421 4.3.2 not now"), ("later", "421 4.7.0 come again later")):
            if self._fails(kind):
                self._say(f, reply)
                raise Over
        self._say(f, "220 site.test ESMTP")
        recipients = []
        for line in iter(f.readline, b""):
            verb = line[:4].upper()
            if verb == b"EHLO":
                self._say(f, "250-site.test\r\n250-PIPELINING\r\n250 8BITMIME")
            elif verb == b"MAIL":
                recipients = []
                if self._fails("mail"):
                    raise Over
                self._say(f, "250 2.1.0 fine")
            elif verb == b"RCPT":
                recipients.append(re.search(rb"<(.*?)>", line).group(1).decode())
                self._say(f, "250 2.1.5 fine")
            elif verb == b"DATA":
                self._data(f, recipients)
            elif verb == b"QUIT":
                return  # closed without 221: that it is closed is all that counts
            else:
                self._say(f, "250 2.0.0 fine")

    def _data(self, f, recipients):
        self._say(f, "354 go on")
        for line in iter(f.readline, b""):
            if line == b".\r\n":
                break
        else:
            raise Over
        if self._fails("body"):
            raise Over
        time.sleep(0.01)  # so that connections are wanted
        if self._fails("dot"):
            self._say(f, "451 4.3.0 try again")
            return
        with self.lock:
            self.recipients += recipients
            self.transactions += 1
        self._say(f, "250 2.0.0 taken")


def start(world, extra=""):
    site = world.add(Site(free_port()))
    hosts = "".join("mx%d.site A %s\n" % (n, address) for n, address in enumerate(ADDRESSES))
    dns = world.nsd({"test": hosts + "".join("d%d MX 10 mx0.site\nd%d MX 20 mx1.site\n" % (n, n) for n in range(DOMAINS))})
    demands = ", ".join("{domain: d%d.test, level: none}" % n for n in range(0, DOMAINS, 10))
    rules = world.file("rules.txt", "suspend 1s /^421 4\\.7\\.0 come again/\n")
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\nretry: {first: 200ms, max: 500ms, give_up: 1h, delay_notice: 0}\n"
                           "limits: {per_site: %d, messages_per_connection: 20}\nreply_rules: %s\ntls: {domains: [%s]}\n%s"
                           % (dns.port, site.port, CAP, rules, demands, extra)).start()
    return post, site


def wave(post, number, each):
    """Mail for all domains, from three senders in turn."""
    sent = []
    with post.smtp() as s:
        s.ehlo()
        for n in range(DOMAINS * each):
            to = "w%d-%d@d%d.test" % (number, n, n % DOMAINS)
            check(s.mail("a@s%d.test" % (n % 3)), 250)
            check(s.rcpt(to), 250)
            check(s.data(b"Subject: x\r\n\r\n" + b"0123456789abcde\r\n" * (n % 50)), 250)
            sent.append(to)
    return sent


def while_gone(post, site):
    """Mail is under way when the hosts go: what is open goes on, what is new is refused."""
    site.leave()
    wait_until("the refusal", lambda: " site_failed " in post.log_text(), 30)
    sent = wave(post, 2, 2)
    for _ in range(3):  # probes find nobody
        refused = post.log_text().count("site_failed")
        wait_until("a probe", lambda: post.tool("retry", "state:deferred") and post.log_text().count("site_failed") > refused, 30, 0.1)
    site.come()
    return sent


def through_failures(post, site, goes):
    sent = wave(post, 1, 2)
    wait_until("a part of the mail", lambda: len(site.recipients) > len(sent) // 3, 60)
    sent += while_gone(post, site) if goes else wave(post, 2, 2)
    wait_until("most of the mail", lambda: post.tool("retry", "state:deferred") and len(site.recipients) > len(sent) * 2 // 3, 60, 0.5)
    site.failing = False
    post.wait_empty(120)
    assert sorted(site.recipients) == sorted(sent), (len(site.recipients), len(set(site.recipients)), len(sent))
    assert all(site.failures.values()), site.failures
    figures = post.figures()
    assert figures["deferrals"] > 0 and figures.get("failures", 0) == 0, figures
    log = post.log_text()
    assert log.count(" delivered ") == len(sent) and " failed " not in log and "site_paused" in log
    print("%d connections, %d at once, %d transactions, %s" % (site.connections, site.most, site.transactions, site.failures), flush=True)
    assert site.most <= CAP, "%d connections at once" % site.most


def one_cap_for_all(world):
    post, site = start(world)
    through_failures(post, site, True)
    assert site.most == CAP, site.most  # it was the cap that held


def one_cap_for_all_sources(world):
    """Pools of addresses share it. (An address that is refused while others are not rests for half a minute: the hosts stay.)"""
    pools = "sources:\n" + "".join("  - {name: p%d, %saddresses: [{address: 127.0.0.%d}]}\n" %
                                   (n, "senders: [s%d.test], " % n if n < 2 else "", 101 + n) for n in range(3))
    post, site = start(world, pools)
    through_failures(post, site, False)
    assert site.most == CAP, site.most
    assert site.peers == {"127.0.0.101", "127.0.0.102", "127.0.0.103"}, site.peers


main([one_cap_for_all, one_cap_for_all_sources])
