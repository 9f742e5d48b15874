#!/usr/bin/env python3
"""
The tour of deploy/quickstart: Posthouse between a real DNS server (nsd) and receiving servers, all on loopback.

Each step sends real mail, waits until it has really happened, and shows it with the operator's tool. A step that does not
happen ends the tour with status 1.
"""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "support"))
from posthouse_test import BUILD, Sink, World, check, free_port, wait_until  # noqa: E402

ZONE = """
@          MX 10 mx1
@          MX 20 mx2
mx1        A 127.0.1.1   ; down: nothing listens there
mx2        A 127.0.1.2
busy       MX 10 busy-mx
busy-mx    A 127.0.1.3
strict     MX 10 strict-mx
strict-mx  A 127.0.1.4
"""


def show(text):
    print("   " + text.replace("\n", "\n   ").rstrip(), flush=True)


def say(text):
    print("\n" + text, flush=True)


class Tour:
    def __init__(self, world):
        self.world = world
        self.port = free_port()
        self.dns = world.nsd({"example.test": ZONE})
        self.good = world.add(Sink(address="127.0.1.2", port=self.port))
        self.busy = world.add(Sink({"rcpt": ["451 4.7.1 greylisted, come again", "250 2.1.5 fine"]}, address="127.0.1.3",
                                   port=self.port))
        self.strict = world.add(Sink({"rcpt": lambda line: "550 5.1.1 no such user" if "nobody" in line else "250 2.1.5 fine"},
                                     address="127.0.1.4", port=self.port))
        self.store = world.add(Sink(address="127.0.1.5", port=self.port))
        table = world.file("recipients.txt", "# our own users\nalice\n# bob has moved\nbob > bob@example.test\n")
        self.post = world.posthouse(
            delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\nretry: {first: 2s, max: 10s, give_up: 1h, delay_notice: 0}" % (self.dns.port, self.port),
            extra="domains:\n  - {name: our.test, recipients: {table: %s}, route: \"smtp:127.0.1.5:%d\"}" % (table, self.port)).start()

    def tool(self, *words):
        show("$ posthouse " + " ".join(words))
        show(self.post.tool(*words, text=True))

    def second_mx(self):
        say("1) The first MX is down, the second one takes it.")
        self.tool("route", "carol@example.test")
        ident = self.post.send("alice@our.test", "carol@example.test", "Subject: hello\r\n\r\nvia the second MX\r\n")
        self.good.wait(1)
        self.post.wait_empty()
        self.tool("msg", "trace", ident)

    def unknown_user(self):
        say("2) An unknown user of our own domain is refused at RCPT TO: nothing is accepted, so nothing must be bounced.")
        with self.post.smtp() as s:
            s.ehlo()
            check(s.mail("someone@elsewhere.test"), 250)
            show("C: RCPT TO:<nobody@our.test>")
            code, text = check(s.rcpt("nobody@our.test"), 550)
            show("S: %d %s" % (code, text.decode()))
        self.tool("verify", "nobody@our.test")

    def deferral(self):
        say("3) A 4xx is a deferral: the message waits and is tried again (here after 2 s; by default after 5 min).")
        ident = self.post.send("alice@our.test", "dave@busy.example.test")
        wait_until("the message is deferred", lambda: any(r["state"] == "deferred" for r in self.post.queue("id:" + ident)))
        self.tool("msg", "why", ident)
        self.busy.wait(1)
        self.post.wait_empty()
        self.tool("msg", "trace", ident)

    def failure(self):
        say("4) A 5xx is final: the sender gets a report (a bounce), written in the same step that ends the recipient.")
        before = len(self.store.messages)
        ident = self.post.send("alice@our.test", "nobody@strict.example.test")
        sender, recipients, body = self.store.wait(before + 1)[before]
        assert (sender, recipients) == ("", ["alice@our.test"]), (sender, recipients)
        text = body.decode()
        assert "Status: 5.1.1" in text and "nobody@strict.example.test" in text
        self.post.wait_empty()
        self.tool("msg", "trace", ident)
        show("The report that alice received, its status part:")
        part = text[text.index("Reporting-MTA"):]
        show(part[:part.index("\r\n--")].replace("\r\n", "\n").strip())

    def forward(self):
        say("5) bob@our.test forwards elsewhere: expanded at RCPT TO, and delivered by the MX of the new domain.")
        self.tool("verify", "bob@our.test")
        before = len(self.good.messages)
        self.post.send("alice@our.test", "bob@our.test", "Subject: forwarded\r\n\r\nfollow bob\r\n")
        assert self.good.wait(before + 1)[before][1] == ["bob@example.test"]
        show("delivered to bob@example.test by mx2.example.test")

    def books(self):
        say("6) The books: everything that was accepted has ended.")
        self.post.wait_empty()
        self.tool("status")


def keep(tour):
    say("It stays up. Talk to it:")
    show("export POSTHOUSE_SERVER=%s" % tour.post.rpc)
    show("%s status" % os.path.join(BUILD, "posthouse"))
    show("swaks --server 127.0.0.1:%d --from alice@our.test --to carol@example.test" % tour.post.port)
    show("settings: %s   log: %s" % (tour.post.config, tour.post.log))
    say("Ctrl-C ends it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def main():
    print("== 3. Posthouse, nsd and four receiving servers on loopback", flush=True)
    with World() as world:
        tour = Tour(world)
        for step in (tour.second_mx, tour.unknown_user, tour.deferral, tour.failure, tour.forward, tour.books):
            step()
        if "--keep" in sys.argv:
            keep(tour)
        status = tour.post.stop()
        assert status == 0, "posthoused ended with %d" % status
    say("Everything happened as told; nothing is left running.")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.SubprocessError) as error:
        print("quickstart: %s" % error, file=sys.stderr)
        sys.exit(1)
