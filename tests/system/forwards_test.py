#!/usr/bin/env python3
"""
Proves forwards out of our domains: the next hop sees a return path of ours (SRS), a bounce to it reaches the original sender
through one or two such houses, altered and old-secret ones are refused, and what leads nowhere is refused at RCPT TO.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import Posthouse, check, free_port, main, wait_until
from real_servers import Http

SECRETS = ["the first secret of tests", "the second secret of tests"]
TABLE = """local
carol > carol@next.test
keep >> phone@next.test
group: local, carol, far@next.test
again > carol
refused > nobody@next.test
ping > pong@second.test
lost > nobody@posthouse.test
"""


class Scene:
    """A house that forwards, the server of the original senders, and the next hop."""

    def __init__(self, world, secrets=SECRETS, next_script=None):
        self.world = world
        self.origin, self.next, self.mail = world.sink(), world.sink(next_script), world.sink(lmtp=True)
        world.file("users.txt", TABLE)
        world.file("second.txt", "pong > ping@posthouse.test\n" + "".join("n%d > n%d\n" % (n, n + 1) for n in range(30)) + "n30\n")
        self.post = world.posthouse(gateway=self.gateway(), extra=self.domains(secrets)).start()

    def gateway(self):
        return 'loops: 1\ntrusted_networks: ["::1/128"]\nslow: {mode: "off"}\nnames: false'

    def domains(self, secrets):
        srs = "srs:\n  domain: posthouse.test\n  secrets: [%s]\n" % ", ".join('"%s"' % s for s in secrets) if secrets else ""
        return ("domains:\n  - {name: posthouse.test, route: \"lmtp:127.0.0.1:%d\", recipients: {table: users.txt}}\n"
                "  - {name: second.test, route: \"lmtp:127.0.0.1:%d\", recipients: {table: second.txt}}\n"
                "%sroutes:\n  - {domain: next.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}"
                % (self.mail.port, self.mail.port, srs, self.next.port, self.origin.port))

    def secrets(self, secrets):
        """Takes others, without a restart; the loop has them a moment later."""
        self.post.write_settings(gateway=self.gateway(), extra=self.domains(secrets))
        self.post.reload()

    def forwarded(self, sender="user@origin.test", recipient="carol@posthouse.test"):
        """The return path that the next hop saw."""
        before = len(self.next.messages)
        self.post.send(sender, recipient)
        return self.next.wait(before + 1)[before][0]

    def rcpt(self, address, sender=""):
        with self.post.smtp() as s:
            s.ehlo()
            check(s.mail(sender), 250)
            code, text = s.rcpt(address)
            return "%d %s" % (code, text.decode().split(" ")[0])


def bounces_come_back(world):
    scene = Scene(world)
    path = scene.forwarded()
    assert re.fullmatch(r"SRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=origin\.test=user@posthouse\.test", path), path
    scene.post.send("", path, "Subject: bounce\r\n\r\nit was not taken\r\n")
    assert scene.origin.wait(1)[0][:2] == ("", ["user@origin.test"]) and b"Subject: bounce" in scene.origin.messages[0][2]
    scene.post.send("", path.lower(), "Subject: folded\r\n\r\n\r\n")  # hops that fold the case
    assert scene.origin.wait(2)[1][1] == ["user@origin.test"]
    assert scene.rcpt(path.replace("@posthouse", "@second")) == "550 5.1.1"  # not the domain of SRS


def altered_ones_are_refused(world):
    scene = Scene(world)
    path = scene.forwarded()
    _, digest, date, _, _ = path.split("@")[0].split("=")
    other = "A" if digest[0] != "A" else "B"
    for wrong in (path.replace(digest, other + digest[1:]), path.replace("=origin.test=", "=victim.test="),
                  path.replace("=user@", "=victim@"), path.replace("=%s=" % date, "=AA="), path.replace(digest + "=", "="),
                  "SRS0=@posthouse.test", "SRS0=%s@posthouse.test" % digest, "SRS1=%s=next.test==x@posthouse.test" % digest):
        assert scene.rcpt(wrong) == "550 5.1.1", (wrong, scene.rcpt(wrong))
        assert scene.rcpt(wrong, "user@origin.test") == "550 5.1.1", wrong
    assert scene.rcpt(path) == "250 2.1.5"
    assert "550" in scene.post.tool("verify", "SRS0=%s@posthouse.test" % digest, text=True)


def some_senders_stay(world):
    scene = Scene(world)
    for sender in ("", "local@posthouse.test", "x@second.test"):
        assert scene.forwarded(sender) == sender
    assert scene.forwarded("user@origin.test", "again@posthouse.test").startswith("SRS0=")  # once, over two steps
    long = "a" * 60 + "@origin.test"
    assert scene.forwarded(long) == long
    assert "srs_too_long" in scene.post.log_text()
    assert scene.forwarded("user@origin.test", "keep@posthouse.test").startswith("SRS0=")
    assert scene.mail.wait(1)[0][:2] == ("user@origin.test", ["keep@posthouse.test"])  # the copy that is kept
    scene.post.send("user@origin.test", ["group@posthouse.test", "carol@posthouse.test"])
    scene.post.wait_empty()
    assert scene.mail.messages[1][:2] == ("user@origin.test", ["local@posthouse.test"])
    last = [m for m in scene.next.messages if "far@next.test" in m[1]][-1]
    assert sorted(last[1]) == ["carol@next.test", "far@next.test"] and last[0].startswith("SRS0="), last


def without_srs_senders_stay(world):
    scene = Scene(world, secrets=[])
    assert scene.forwarded() == "user@origin.test"
    assert scene.rcpt("SRS0=ABCDEFGH=AA=origin.test=user@posthouse.test") == "550 5.1.1"


def secrets_are_changed(world):
    scene = Scene(world, SECRETS[:1])
    old = scene.forwarded()
    scene.secrets(SECRETS[::-1])
    new = wait_until("the other one signs", lambda: (scene.forwarded() != old and scene.next.messages[-1][0]), 10, 0.1)
    assert new != old and scene.rcpt(old) == scene.rcpt(new) == "250 2.1.5"
    scene.secrets(SECRETS[1:])
    wait_until("the old one is believed no more", lambda: scene.rcpt(old) == "550 5.1.1", 10, 0.1)
    assert scene.rcpt(new) == "250 2.1.5"


def refusals_of_the_next_hop_are_reported(world):
    scene = Scene(world, next_script={"rcpt": "550 5.1.1 nobody of this name"})
    scene.post.send("user@origin.test", "refused@posthouse.test")
    sender, recipients, octets = scene.origin.wait(1)[0]
    assert (sender, recipients) == ("", ["user@origin.test"]) and b"5.1.1" in octets, octets
    assert b"refused@posthouse.test" in octets, octets  # the address that the sender knows


def two_houses_in_a_row(world):
    """a.test forwards to b.test, which forwards to final.test: SRS1 there, and the way back leads through both."""
    final, origin = world.sink(), world.sink()

    def house(name, port, routes):
        directory = os.path.join(world.directory, name)
        os.mkdir(directory)
        with open(os.path.join(directory, "users.txt"), "w") as f:
            f.write("user > user@%s\nhurt > hurt@%s\n" % (("b.test", "b.test") if name == "a" else ("final.test", "refuses.test")))
        return Posthouse(directory, port=port, gateway='trusted_networks: ["::1/128"]\nnames: false',
                         node="", extra="domains:\n  - {name: %s.test, route: \"smtp:127.0.0.1:9\", recipients: {table: users.txt}}\n"
                         "srs: {domain: %s.test, secrets: [\"a secret of house %s\"]}\nroutes:\n%s" % (name, name, name, "".join(
                             "  - {domain: \"%s\", route: \"smtp:127.0.0.1:%d\"}\n" % pair for pair in routes.items())))
    a_port, b_port = free_port(), free_port()
    refuses = world.sink({"rcpt": "550 5.7.1 not here"})
    a = house("a", a_port, {"b.test": b_port, "*": origin.port})
    b = house("b", b_port, {"a.test": a_port, "refuses.test": refuses.port, "final.test": final.port})
    try:
        a.start()
        b.start()
        a.send("sender@origin.test", "user@a.test")
        path = final.wait(1)[0][0]
        assert re.fullmatch(r"SRS1=[A-Z2-7]{8}=a\.test==[A-Z2-7]{8}=[A-Z2-7]{2}=origin\.test=sender@b\.test", path), path
        b.send("", path, "Subject: back\r\n\r\n\r\n")
        assert origin.wait(1)[0][:2] == ("", ["sender@origin.test"]) and b"Subject: back" in origin.messages[0][2]
        a.send("sender@origin.test", "hurt@a.test")  # b reports to what it took for the sender, and a knows who that is
        sender, recipients, octets = origin.wait(2)[1]
        assert (sender, recipients) == ("", ["sender@origin.test"]) and b"not here" in octets, octets
    finally:
        a.kill()
        b.kill()


def what_leads_nowhere_is_refused(world):
    scene = Scene(world)
    assert scene.rcpt("ping@posthouse.test") == "550 5.4.6" and scene.rcpt("pong@second.test") == "550 5.4.6"
    assert scene.rcpt("n0@second.test") == "550 5.4.6" and scene.rcpt("n25@second.test") == "250 2.1.5"
    assert scene.rcpt("lost@posthouse.test") == "550 5.1.1"
    assert scene.rcpt("someone@next.test", "user@origin.test") == "550 5.7.1"  # a forward there makes nobody a relay
    directory = world.add(Http(world, {
        "many@asked.test": {"result": "alias", "targets": ["u%d@next.test" % n for n in range(1000)]},
        "more@asked.test": {"result": "alias", "targets": ["many@asked.test", "one@next.test"]},
        "own@asked.test": {"result": "forward", "targets": ["x@[127.0.0.1]"]},
        "odd@asked.test": {"result": "forward", "targets": ["x@-next.test"]},
        "half@asked.test": {"result": "alias", "targets": ["local@posthouse.test", "nobody@posthouse.test"]}}))
    scene.post.write_settings(gateway=scene.gateway(), extra=scene.domains(SECRETS).replace(
        "srs:", "  - {name: asked.test, route: \"smtp:127.0.0.1:9\", recipients: {http: {uri: \"%s/directory\"}}}\nsrs:" % directory.uri))
    scene.post.reload()
    wait_until("the new domain", lambda: scene.rcpt("nobody@asked.test") == "550 5.1.1", 10, 0.1)
    for address, code in (("many", "250 2.1.5"), ("more", "550 5.5.3"), ("half", "550 5.1.1"), ("own", "550 5.4.6")):
        assert scene.rcpt(address + "@asked.test") == code, (address, scene.rcpt(address + "@asked.test"))
    assert scene.rcpt("odd@asked.test") in ("451 4.3.0", "550 5.1.3"), scene.rcpt("odd@asked.test")
    assert scene.next.messages == [] and scene.origin.messages == []


if __name__ == "__main__":
    main([bounces_come_back, altered_ones_are_refused, some_senders_stay, without_srs_senders_stay, secrets_are_changed,
          refusals_of_the_next_hop_are_reported, two_houses_in_a_row, what_leads_nowhere_is_refused])
