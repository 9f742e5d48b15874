#!/usr/bin/env python3
"""
Proves SPF, DKIM and DMARC with zones in a real name server and clients that XCLIENT names: what the header says, what enforcing
refuses, that nobody forges our word; and signatures, which dkimpy and a second house find good, also with a key that was changed.
"""
import email
import email.policy
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import Posthouse, check, main, wait_until

DKIMPY = "/usr/bin/python3"  # Debian's, which has Debian's dkimpy
SIGN = """import sys, dkim
key, domain, names, body = open(sys.argv[1], "rb").read(), sys.argv[2].encode(), sys.argv[3].encode().split(), sys.stdin.buffer.read()
sys.stdout.buffer.write(dkim.sign(body, b"sel", domain, key, include_headers=names, canonicalize=(b"relaxed", b"relaxed")) + body)
"""
VERIFY = """import sys, dkim
names = []
def dns(name, timeout=5):
    names.append(name)
    return ("v=DKIM1; k=rsa; p=" + sys.argv[1]).encode()
print(dkim.verify(sys.stdin.buffer.read(), dnsfunc=dns), names)
"""
ZONES = {
    "spf.test": '@ TXT "v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/64 include:more.spf.test -all"\nmore TXT "v=spf1 a:host.spf.test -all"\n'
                'host A 198.51.100.7\nhelo TXT "v=spf1 ip4:192.0.2.1 -all"\nloop TXT "v=spf1 include:loop.spf.test -all"',
    "soft.test": '@ TXT "v=spf1 ~all"', "neutral.test": '@ TXT "v=spf1 ?all"', "none.test": '@ TXT "no policy"',
    "two.test": '@ TXT "v=spf1 +all"\n@ TXT "v=spf1 -all"',
    "strict.test": '@ TXT "v=spf1 ip4:192.0.2.1 -all"\n_dmarc TXT "v=DMARC1; p=reject; adkim=r"\n*.sub TXT "v=spf1 -all"',
    "quarantine.test": '@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=quarantine"',
    "lax.test": '@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=none"',
}
EVERYTHING = "spf: true\ndkim: true\ndmarc: enforce\ntimeout: 10s"


def make_key(world, name):
    """The path of a private key, and what its record has as p=."""
    path = os.path.join(world.directory, name)
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", path, "2048"], check=True, capture_output=True)
    os.chmod(path, 0o600)
    public = subprocess.run(["openssl", "rsa", "-in", path, "-pubout"], check=True, capture_output=True, text=True).stdout
    return path, "".join(line for line in public.split("\n") if not line.startswith("-"))


def key_record(public):
    half = len(public) // 2
    return '\nsel._domainkey TXT "v=DKIM1; k=rsa; p=%s" "%s"' % (public[:half], public[half:])


class House:
    """It verifies for posthouse.test, whose mail goes to .mail; clients are who XCLIENT says."""

    def __init__(self, world, authentication=EVERYTHING, zones=None, more=""):
        self.mail = world.sink()
        self.nsd = world.nsd(zones or ZONES)
        text = 'names: false\nbalancers: [127.0.0.1/32]\nslow: {mode: "off"}\nauthentication:\n%s%s' % (
            "".join("  %s\n" % line for line in authentication.split("\n")), more)
        world.file("users.txt", "box\n")
        self.post = world.posthouse(gateway=text, delivery="dns: [\"127.0.0.1:%d\"]" % self.nsd.port, extra=(
            "domains:\n  - {name: posthouse.test, route: \"smtp:127.0.0.1:%d\", recipients: {table: users.txt}}\n"
            "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}" % (self.mail.port, self.mail.port))).start()

    def reply(self, sender, octets, client="192.0.2.1", helo="helo.spf.test"):
        with self.post.smtp() as s:
            s.ehlo()
            check(s.docmd("XCLIENT ADDR=" + ("IPV6:" + client if ":" in client else client)), 220)
            s.ehlo(helo)
            check(s.mail(sender), 250)
            check(s.rcpt("box@posthouse.test"), 250)
            code, text = s.data(octets if isinstance(octets, bytes) else octets.encode())
            return code, text.decode()

    def received(self, sender, octets, client="192.0.2.1", helo="helo.spf.test"):
        before = len(self.mail.messages)
        reply = self.reply(sender, octets, client, helo)
        assert reply[0] == 250, reply
        return self.mail.wait(before + 1)[before][2]

    def results(self, *arguments, **named):
        """Our Authentication-Results field, of which there is one, in one line."""
        octets = self.received(*arguments, **named)
        header = octets.split(b"\r\n\r\n")[0]
        fields = re.split(r"\r\n(?![ \t])", header.decode("utf-8", "replace"))
        assert fields[1].startswith("Authentication-Results:"), fields  # below our Received alone
        fields = [f for f in fields if f.lower().startswith("authentication-results")]
        ours = [re.sub(r"\s+", " ", f) for f in fields if "mx.posthouse.test" in f]
        assert len(ours) == 1, fields
        return ours[0]


def message(author="x@spf.test", more=""):
    return ("From: %s\r\nTo: box@posthouse.test\r\nSubject: test\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1@spf.test>\r\n"
            "%s\r\nhello\r\n" % (author, more))


def sign(key, domain, text, names="from to subject date"):
    return subprocess.run([DKIMPY, "-c", SIGN, key, domain, names], input=text.encode(), check=True, capture_output=True).stdout


def dkimpy_says(octets, public):
    return subprocess.run([DKIMPY, "-c", VERIFY, public], input=octets, check=True, capture_output=True).stdout.decode().strip()


def spf_is_told(world):
    house = House(world, "spf: true")
    for sender, client, result in (
            ("x@spf.test", "192.0.2.1", "pass"), ("x@spf.test", "192.0.2.77", "fail"), ("x@spf.test", "198.51.100.7", "pass"),
            ("x@spf.test", "2001:db8::5", "pass"), ("x@spf.test", "2001:db8:1::5", "fail"), ("x@soft.test", "192.0.2.1", "softfail"),
            ("x@neutral.test", "192.0.2.1", "neutral"), ("x@none.test", "192.0.2.1", "none"), ("x@two.test", "192.0.2.1", "permerror"),
            ("x@loop.spf.test", "192.0.2.1", "permerror"), ("x@absent.spf.test", "192.0.2.1", "none"),
            ("x@not.served", "192.0.2.1", "temperror")):
        line = house.results(sender, message(), client=client)
        assert "spf=%s smtp.mailfrom=%s" % (result, sender) in line, (sender, client, line)
        assert "dkim=" not in line and "dmarc=" not in line, line
    assert "spf=pass smtp.helo=helo.spf.test" in house.results("", message())
    assert "spf=fail smtp.helo=helo.spf.test" in house.results("", message(), client="192.0.2.2")


def spf_may_refuse(world):
    house = House(world, "spf: true\nspf_reject: true")
    code, text = house.reply("x@spf.test", message(), client="192.0.2.77")
    assert code == 550 and text.startswith("5.7.23"), text
    for sender in ("x@soft.test", "x@two.test", "x@not.served"):
        assert house.reply(sender, message())[0] == 250, sender


def dkim_is_told(world):
    key, public = make_key(world, "key.pem")
    other, _ = make_key(world, "other.pem")
    house = House(world, "dkim: true", dict(ZONES, **{"spf.test": ZONES["spf.test"] + key_record(public)}))
    good = sign(key, "spf.test", message())
    line = house.results("x@elsewhere.test", good)
    assert re.search(r"dkim=pass header\.d=spf\.test header\.s=sel header\.a=rsa-sha256 header\.b=\S{8}", line), line
    for octets, result in ((good.replace(b"hello", b"hallo"), "fail"), (good.replace(b"Subject: test", b"Subject: other"), "fail"),
                           (sign(other, "spf.test", message()), "fail"), (sign(key, "none.test", message()), "permerror"),
                           (sign(key, "spf.test", message()).replace(b"bh=", b"bh=!"), "(fail|permerror)"),
                           (message().encode(), "none"), (good.replace(b"Subject: test", b"Subject:   test"), "pass")):
        line = house.results("x@elsewhere.test", octets)
        assert re.search(r"\bdkim=%s\b" % result, line), (octets, line)
    twice = house.results("x@elsewhere.test", sign(other, "spf.test", good.decode()))
    assert sorted(re.findall(r"dkim=(\w+)", twice)) == ["fail", "pass"], twice


def dmarc_refuses(world):
    key, public = make_key(world, "key.pem")
    zones = dict(ZONES, **{"strict.test": ZONES["strict.test"] + key_record(public), "spf.test": ZONES["spf.test"] + key_record(public)})
    house = House(world, zones=zones)
    strict = message("Boss <boss@strict.test>")
    line = house.results("bounce@strict.test", strict)  # by SPF
    assert "dmarc=pass (p=reject" in line and "header.from=strict.test" in line, line
    line = house.results("x@spf.test", sign(key, "strict.test", strict), client="203.0.113.5")  # by DKIM
    assert "spf=fail" in line and "dkim=pass" in line and "dmarc=pass" in line, line
    signed_by_others = sign(key, "spf.test", strict)
    for sender, octets in (("boss@strict.test", strict), ("x@spf.test", signed_by_others), ("", strict),
                           ("x@spf.test", message("boss@deep.sub.strict.test")),
                           ("x@spf.test", message("\"boss@lax.test\" <boss@strict.test>")),
                           ("x@spf.test", message("a@lax.test\r\nFrom: boss@strict.test")),
                           ("x@spf.test", message("a@lax.test, boss@strict.test")),
                           ("x@spf.test", message("boss@STRICT.TEST"))):
        code, text = house.reply(sender, octets, client="203.0.113.5")
        assert code == 550 and text.startswith("5.7.26"), (sender, octets, code, text)
    before = len(house.mail.messages)
    line = house.results("x@quarantine.test", message("x@quarantine.test"))
    assert "dmarc=fail (p=quarantine" in line, line
    assert "dmarc=fail (p=none" in house.results("x@lax.test", message("x@lax.test"))
    assert "dmarc=none" in house.results("x@none.test", message("x@none.test"))
    assert "dmarc=temperror" in house.results("x@not.served", message("x@not.served"))
    assert len(house.mail.messages) == before + 4
    assert house.post.figures()["posthouse_mailauth_refused_total"] == 8, house.post.figures()
    assert house.post.log_text().count("enhanced=5.7.26") == 8


def dmarc_may_only_report(world):
    house = House(world, "spf: true\ndkim: true\ndmarc: report")
    line = house.results("boss@strict.test", message("boss@strict.test"), client="203.0.113.5")
    assert "dmarc=fail (p=reject" in line, line


def our_word_is_not_forged(world):
    house = House(world)
    forged = ("Authentication-Results: mx.posthouse.test; dmarc=pass header.from=forged.test\r\n"
              "authentication-RESULTS : MX.Posthouse.Test; spf=pass smtp.mailfrom=forged.test\r\n"
              "Authentication-Results:\r\n (a comment (in it))\r\n mx.posthouse.test 1; dkim=pass header.d=forged.test\r\n"
              "Authentication-Results: \"mx.posthouse.test\"; dkim=pass header.d=forged.test\r\n"
              "Authentication-Results: mx.posthouse.test.; dkim=pass header.d=forged.test\r\n"
              "Authentication-Results: other.test; dkim=pass header.d=kept.test\r\n")
    octets = house.received("x@spf.test", message(more=forged))
    assert b"forged.test" not in octets and b"kept.test" in octets, octets
    assert octets.lower().count(b"\nauthentication-results") + octets.lower().startswith(b"authentication-results") == 2, octets
    line = house.results('"; dmarc=pass header.from=bank.test; x="@spf.test', message())  # a sender that is made to break it
    assert not re.search(r"; dmarc=pass header\.from=bank", re.sub(r'"(\\.|[^"\\])*"', "quoted", line)), line
    with house.post.smtp() as s:  # a client that we trust is not judged
        s.ehlo()
        check(s.mail("boss@strict.test"), 250)
        check(s.rcpt("box@posthouse.test"), 250)
        check(s.data(message("boss@strict.test").encode()), 250)


def dead_dns_refuses_nobody(world):
    house = House(world, EVERYTHING.replace("10s", "1s"))
    house.nsd.close()
    line = house.results("boss@strict.test", message("boss@strict.test"), client="203.0.113.5")
    assert "spf=temperror" in line and "dmarc=temperror" in line, line


def submissions_are_signed(world):
    key, public = make_key(world, "key.pem")
    house = House(world, "keys: [{domain: ours.test, selector: sel, key: key.pem}]")

    def signed(author, octets=None):
        before = len(house.mail.messages)
        house.post.send("x@ours.test", "far@away.test", octets or message(author))
        return house.mail.wait(before + 1)[before][2]
    octets = signed("X <x@ours.test>")
    assert dkimpy_says(octets, public) == "True [b'sel._domainkey.ours.test.']", octets
    assert b"d=ours.test" in octets and octets.count(b"DKIM-Signature:") == 1, octets
    assert dkimpy_says(octets.replace(b"hello", b"hallo"), public).startswith("False")
    at = octets.index(b"From:")
    assert dkimpy_says(octets[:at] + b"From: forged@ours.test\r\n" + octets[at:], public).startswith("False"), "a second From"
    assert dkimpy_says(signed("x@deep.ours.test"), public).startswith("True")
    big = message("x@ours.test") + "".join("%d %s\r\n" % (n, "x" * 70) for n in range(20000)) + ".\r\n\r\n\r\n"
    assert dkimpy_says(signed("", big), public).startswith("True")
    for author in ("x@others.test", "x@ours.test, y@others.test", "x@notours.test"):
        assert b"DKIM-Signature:" not in signed(author), author
    assert house.reply("x@ours.test", message("x@ours.test"))[0] == 250  # from a stranger: not signed
    assert b"DKIM-Signature:" not in house.mail.wait(7)[-1][2]


def keys_are_read_again(world):
    old_key, old = make_key(world, "key.pem")
    house = House(world, "keys: [{domain: ours.test, selector: sel, key: key.pem}]")

    def signed():
        before = len(house.mail.messages)
        house.post.send("x@ours.test", "far@away.test", message("x@ours.test"))
        return house.mail.wait(before + 1)[before][2]
    assert dkimpy_says(signed(), old).startswith("True")
    new_key, new = make_key(world, "new.pem")
    os.rename(new_key, old_key)
    wait_until("the new key signs", lambda: dkimpy_says(signed(), new).startswith("True"), 20, 0.3)
    assert dkimpy_says(signed(), old).startswith("False")
    broken = world.file("broken.pem", "-----BEGIN RSA PRIVATE KEY-----\nnothing\n-----END RSA PRIVATE KEY-----\n")
    os.chmod(broken, 0o600)
    before = len(house.post.log_text())
    os.rename(broken, old_key)
    wait_until("the log tells", lambda: "key.pem" in house.post.log_text()[before:], 20, 0.2)
    assert dkimpy_says(signed(), new).startswith("True")  # what was read before stays in force


def reports_are_signed(world):
    """Reports come from the postmaster of our host, whose domain or a parent of it may have a key; a reload changes it."""
    key, public = make_key(world, "key.pem")
    house = House(world, "keys: [{domain: posthouse.test, selector: sel, key: key.pem}]")
    house.mail.script = {"rcpt": lambda line: "550 5.1.1 nobody" if "far@" in line else "250 2.1.5 fine"}

    def report(octets=None):
        before = len(house.mail.messages)
        house.post.send("x@ours.test", "far@away.test", octets or message("x@ours.test"))
        sender, recipients, octets = house.mail.wait(before + 1)[before]
        assert (sender, recipients) == ("", ["x@ours.test"]), (sender, recipients)
        assert b"multipart/report" in octets, octets
        return octets
    octets = report()
    assert dkimpy_says(octets, public) == "True [b'sel._domainkey.posthouse.test.']", octets
    assert octets.count(b"DKIM-Signature:") == 1 and octets.startswith(b"DKIM-Signature:"), octets
    assert dkimpy_says(octets.replace(b"nobody", b"nobodX"), public).startswith("False")
    big = message("x@ours.test") + "".join("%d %s\r\n" % (n, "x" * 70) for n in range(20000))
    assert dkimpy_says(report(big), public).startswith("True")
    new_key, new = make_key(world, "new.pem")
    os.rename(new_key, key)
    wait_until("the new key signs", lambda: dkimpy_says(report(), new).startswith("True"), 20, 0.3)
    os.unlink(key)  # what was read before stays in force
    assert dkimpy_says(report(), new).startswith("True")


def reports_without_a_key_are_not(world):
    house = House(world, "spf: true")
    house.mail.script = {"rcpt": lambda line: "550 5.1.1 nobody" if "far@" in line else "250 2.1.5 fine"}
    house.post.send("x@ours.test", "far@away.test", message("x@ours.test"))
    assert b"DKIM-Signature:" not in house.mail.wait(1)[0][2]


def one_house_signs_another_verifies(world):
    _, public = make_key(world, "key.pem")
    verifier = House(world, zones=dict(ZONES, **{"strict.test": ZONES["strict.test"] + key_record(public)}),
                     more='trusted_networks: ["::1/128"]\n')
    directory = os.path.join(world.directory, "signer")
    os.mkdir(directory)
    signer = Posthouse(directory, gateway="names: false\nauthentication:\n  keys: [{domain: strict.test, selector: sel, key: ../key.pem}]",
                       extra="routes:\n  - {domain: posthouse.test, route: \"smtp:127.0.0.1:%d\"}" % verifier.post.port)
    try:
        signer.start()
        signer.send("boss@strict.test", "box@posthouse.test", message("boss@strict.test"))
        octets = verifier.mail.wait(1)[0][2]
        parsed = email.message_from_bytes(octets, policy=email.policy.compat32)
        line = re.sub(r"\s+", " ", parsed["Authentication-Results"])
        assert "dkim=pass header.d=strict.test" in line and "dmarc=pass (p=reject" in line, line
    finally:
        signer.kill()


if __name__ == "__main__":
    main([spf_is_told, spf_may_refuse, dkim_is_told, dmarc_refuses, dmarc_may_only_report, our_word_is_not_forged,
          dead_dns_refuses_nobody, submissions_are_signed, keys_are_read_again, reports_are_signed,
          reports_without_a_key_are_not, one_house_signs_another_verifies])
