#!/usr/bin/env python3
"""
Proves BATV: submitted mail of our domains leaves with a tagged return path, reports to it come back to the plain address whether a
stranger's server or our own queue writes them; forged and expired tags are refused, and reports without a tag where that is asked for.
"""
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from batv import tag
from posthouse_test import Posthouse, check, free_port, main, wait_until

SECRETS = ["the first secret of tests", "the second secret of tests"]
TABLE = "user\nlist\nalias: user\nout > friend@far.test\n" + "x" * 49 + "\n"


def today():
    return int(time.time()) // 86400


class Scene:
    """A house with a mailbox server, whose users write to far.test."""

    def __init__(self, world, require=False, verp="[]", port=None, far=None, directory=None, domains="[home.test]"):
        self.mail, self.far = world.sink(lmtp=True), far or world.sink()
        self.directory = directory or world.directory
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(self.directory, "users.txt"), "w") as f:
            f.write(TABLE)
        self.world, self.require, self.verp, self.tagged = world, require, verp, domains
        text = dict(gateway=self.gateway(), delivery="verp: " + verp, extra=self.domains(SECRETS[:1]))
        self.post = Posthouse(self.directory, port=port, **text) if directory else world.posthouse(**text)
        if directory:
            world.add(self.post).close = self.post.kill
        self.post.start()

    def gateway(self):
        return 'trusted_networks: ["127.0.0.1/32"]\nslow: {mode: "off"}\nnames: false\nbalancers: ["127.0.0.1/32"]'

    def domains(self, secrets):
        table = os.path.join(self.directory, "users.txt")
        own = "".join("  - {name: %s, route: \"lmtp:127.0.0.1:%d\", recipients: {table: %s}}\n" % (name, self.mail.port, table)
                      for name in ("home.test", "plain.test"))
        return ("domains:\n%sbatv: {domains: %s, secrets: [%s], require: %s}\nroutes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}"
                % (own, self.tagged, ", ".join('"%s"' % s for s in secrets), "true" if self.require else "false", self.far.port))

    def left(self, sender, recipient="friend@far.test"):
        """The return path that the next hop saw."""
        before = len(self.far.messages)
        self.post.send(sender, recipient)
        return self.far.wait(before + 1)[before][0]

    def rcpt(self, address, sender="", client="192.0.2.7"):
        """What a stranger hears."""
        with self.post.smtp() as s:
            s.ehlo()
            if client:
                check(s.docmd("XCLIENT", "ADDR=" + client), 220)
                s.ehlo()
            check(s.mail(sender), 250)
            code, text = s.rcpt(address)
            return "%d %s" % (code, text.decode().split(" ")[0])


def good(address, secret=SECRETS[0]):
    return tag(secret, address, today() + 7)


def submitted_mail_is_tagged(world):
    scene = Scene(world)
    path = scene.left("user@home.test")
    assert path in (good("user@home.test"), tag(SECRETS[0], "user@home.test", today() + 8)), path
    for sender in ("", "user@plain.test", "user@far.test", "x" * 49 + "@home.test", path):
        assert scene.left(sender) == sender  # the null path, other domains, too long, tagged already
    assert scene.left("x" * 48 + "@home.test").startswith("prvs=0")
    scene.post.send("user@home.test", ["user@plain.test", "list@home.test"])  # stays at home
    scene.post.wait_empty()
    assert all(m[0] == "user@home.test" for m in scene.mail.wait(2)), scene.mail.messages
    assert scene.left("user@home.test", "out@plain.test").startswith("prvs=0")  # forwarded out of it
    with scene.post.smtp() as s:  # not submitted: a stranger's mail that is forwarded has no word of ours in it
        s.ehlo()
        check(s.docmd("XCLIENT", "ADDR=192.0.2.7"), 220)
        s.ehlo()
        check(s.mail("user@home.test"), 250)
        check(s.rcpt("out@plain.test"), 250)
        before = len(scene.far.messages)
        check(s.data("Subject: x\r\n\r\nx\r\n"), 250)
    assert scene.far.wait(before + 1)[before][0] == "user@home.test"


def reports_come_back(world):
    scene = Scene(world)
    path = scene.left("user@home.test")
    assert scene.rcpt(path) == "250 2.1.5"
    with scene.post.smtp() as s:
        s.ehlo()
        check(s.docmd("XCLIENT", "ADDR=192.0.2.7"), 220)
        s.ehlo()
        check(s.mail(""), 250)
        check(s.rcpt(path.upper()), 250)  # a hop that folds the case
        check(s.data("Subject: bounce\r\n\r\nnot taken\r\n"), 250)
    sender, recipients, octets = scene.mail.wait(1)[0]
    assert (sender, [r.lower() for r in recipients]) == ("", ["user@home.test"]) and b"Subject: bounce" in octets
    assert scene.rcpt(good("alias@home.test")) == "250 2.1.5"


def another_house_bounces(world):
    """home's mail goes to a house whose next hop refuses it: its report comes back in by the tag."""
    home_port = free_port()
    refuses = world.sink({"rcpt": "550 5.1.1 nobody of this name"})
    directory = os.path.join(world.directory, "far")
    os.mkdir(directory)
    far = Posthouse(directory, gateway='trusted_networks: ["127.0.0.1/32"]\nslow: {mode: "off"}\nnames: false',
                    extra="routes:\n  - {domain: home.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}"
                    % (home_port, refuses.port))
    far.start()
    try:
        class Next:
            port, messages = far.port, []
        home = Scene(world, require=True, port=home_port, far=Next, directory=os.path.join(world.directory, "home"))
        home.post.send("user@home.test", "nobody@far.test")
        sender, recipients, octets = home.mail.wait(1)[0]
        assert (sender, recipients) == ("", ["user@home.test"]) and b"nobody of this name" in octets, octets
        assert [line for line in refuses.commands if line[0] == "mail" and "<prvs=0" in line[1]], refuses.commands
    finally:
        far.kill()


def our_own_reports_go_to_the_plain_address(world):
    scene = Scene(world, require=True, far=world.sink({"rcpt": "550 5.1.1 nobody"}))
    for number, sender in enumerate(("user@home.test", good("user@home.test"))):
        scene.post.send(sender, "nobody@far.test")
        came = scene.mail.wait(number + 1)[number]
        assert came[:2] == ("", ["user@home.test"]) and b"To: user@home.test" in came[2].replace(b"<", b"").replace(b">", b""), came
    scene.post.wait_empty()


def forged_and_expired_are_refused(world):
    scene = Scene(world)
    real = good("user@home.test")
    assert scene.rcpt(real) == scene.rcpt(real, "someone@far.test") == "250 2.1.5"
    for wrong in (good("user@home.test", SECRETS[1]), real.replace("=user@", "=list@"), good("user@plain.test").replace("plain", "home"),
                  tag(SECRETS[0], "user@home.test", today() - 1), tag(SECRETS[0], "user@home.test", today() - 300),
                  tag(SECRETS[0], "user@home.test", today() + 20), "prvs=0000000000=user@home.test"):
        assert scene.rcpt(wrong) == "550 5.7.1", (wrong, scene.rcpt(wrong))
        assert scene.rcpt(wrong, client=None) == "550 5.7.1", wrong  # trusted or not
    for unknown in (good("nobody@home.test"), "prvs=0000000000=nobody@home.test", good("user@plain.test"), "prvs=00000000=user@home.test"):
        assert scene.rcpt(unknown) == "550 5.1.1", (unknown, scene.rcpt(unknown))
    assert scene.rcpt("user@home.test") == "250 2.1.5"  # tags are not required
    for address, code, words in ((real, "250", "BATV tag of ours"), ("prvs=0000000000=user@home.test", "550", "did not make"),
                                 (tag(SECRETS[0], "user@home.test", today() - 1), "550", "expired")):
        said = scene.post.tool("verify", address, text=True)
        assert code in said and words in said, said


def tags_can_be_required(world):
    scene = Scene(world, require=True)
    assert scene.rcpt("user@home.test") == "550 5.7.1"
    assert scene.rcpt("nobody@home.test") == "550 5.1.1"
    assert scene.rcpt("user@home.test", "a@far.test") == "250 2.1.5"
    assert scene.rcpt("user@plain.test") == scene.rcpt(good("user@home.test")) == "250 2.1.5"
    assert scene.rcpt("postmaster@home.test") == scene.rcpt("x" * 49 + "@home.test") == "250 2.1.5"
    assert scene.rcpt("user@home.test", client=None) == "250 2.1.5"  # our own servers report too
    assert "would need a BATV tag" in scene.post.tool("verify", "user@home.test", text=True)


def verp_goes_inside_the_tag(world):
    scene = Scene(world, verp="[list@home.test]")
    path = scene.left("list@home.test")
    assert re.fullmatch(r"prvs=0\d{3}[0-9a-f]{6}=list\+friend=far\.test@home\.test", path), path
    assert scene.rcpt(path) == "250 2.1.5"
    assert scene.rcpt(path.replace("friend", "fiend")) == "550 5.7.1"
    long = scene.left("list@home.test", "a" * 40 + "@far.test")  # both do not fit: the tag goes
    assert re.fullmatch(r"prvs=0\d{3}[0-9a-f]{6}=list@home\.test", long), long


def secrets_are_changed(world):
    scene = Scene(world)
    old = scene.left("user@home.test")
    for secrets, signs in ((SECRETS[::-1], SECRETS[1]), (SECRETS[1:], SECRETS[1])):
        scene.post.write_settings(gateway=scene.gateway(), extra=scene.domains(secrets))
        scene.post.reload()
        wait_until("the new secrets", lambda: scene.rcpt(old) == ("550 5.7.1" if len(secrets) == 1 else "250 2.1.5") and
                   scene.left("user@home.test")[9:15] == good("user@home.test", signs)[9:15], 10, 0.1)


if __name__ == "__main__":
    main([submitted_mail_is_tagged, reports_come_back, another_house_bounces, our_own_reports_go_to_the_plain_address,
          forged_and_expired_are_refused, tags_can_be_required, verp_goes_inside_the_tag, secrets_are_changed])
