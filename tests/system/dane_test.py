#!/usr/bin/env python3
"""
Proves that TLSA records count exactly when RFC 7672 says so, with a signed zone on a real authoritative server and a validating
resolver in front: good, absent, unusable, bogus, behind aliases of every kind and wildcards, and when the authority is gone.
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD
from signed_dns import SignedDns, spoil_record

DIGEST = "ab" * 32
SIGNED = """
good A 127.0.0.2
_25._tcp.good TLSA 3 1 1 {d}
two A 127.0.0.2
_25._tcp.two TLSA 3 1 1 {d}
_25._tcp.two TLSA 2 0 2 {d}{d}
none A 127.0.0.2
web A 127.0.0.2
_25._tcp.web TLSA 1 1 1 {d}
_25._tcp.web TLSA 0 0 1 {d}
short A 127.0.0.2
_25._tcp.short TLSA 3 1 1 abcd
bogus A 127.0.0.2
_25._tcp.bogus TLSA 3 1 1 {d}
bogushost A 127.0.0.2
_25._tcp.bogushost TLSA 3 1 1 {d}
alias CNAME good
alias2 CNAME none
_25._tcp.alias2 TLSA 3 1 1 {d}
tobogus CNAME bogus
out CNAME mx.unsigned.test.
_25._tcp.out TLSA 3 1 1 {d}
outbare CNAME mx.unsigned.test.
shared A 127.0.0.2
_25._tcp.shared CNAME keys
keys TLSA 3 1 1 {d}
lent A 127.0.0.2
_25._tcp.lent CNAME keys.unsigned.test.
*.wild A 127.0.0.2
*.wild TLSA 3 1 1 {d}
*.bare A 127.0.0.2
starport A 127.0.0.2
*._tcp.starport TLSA 3 1 1 {d}
otherport A 127.0.0.2
_26._tcp.otherport TLSA 3 1 1 {d}
late A 127.0.0.2
_25._tcp.late TLSA 3 1 1 {d}
""".format(d=DIGEST)
UNSIGNED = """
mx A 127.0.0.2
_25._tcp.mx TLSA 3 1 1 {d}
keys TLSA 3 1 1 {d}
in CNAME good.signed.test.
_25._tcp.in TLSA 3 1 1 {d}
""".format(d=DIGEST)

# host, status, base, records that can be used
EXPECTED = [
    ("good.signed.test", "usable", "good.signed.test", 1),
    ("two.signed.test", "usable", "two.signed.test", 2),
    ("none.signed.test", "none", "none.signed.test", 0),
    ("absent.signed.test", "none", "absent.signed.test", 0),
    ("web.signed.test", "unusable", "web.signed.test", 0),
    ("short.signed.test", "unusable", "short.signed.test", 0),
    ("bogus.signed.test", "failed", "bogus.signed.test", 0),
    ("bogushost.signed.test", "failed", "bogushost.signed.test", 0),
    ("alias.signed.test", "usable", "good.signed.test", 1),
    ("alias2.signed.test", "usable", "alias2.signed.test", 1),
    ("tobogus.signed.test", "failed", "bogus.signed.test", 0),
    ("out.signed.test", "usable", "out.signed.test", 1),
    ("outbare.signed.test", "none", "outbare.signed.test", 0),
    ("shared.signed.test", "usable", "shared.signed.test", 1),
    ("lent.signed.test", "none", "lent.signed.test", 0),
    ("a.wild.signed.test", "usable", "a.wild.signed.test", 1),
    ("a.bare.signed.test", "none", "a.bare.signed.test", 0),
    ("starport.signed.test", "usable", "starport.signed.test", 1),
    ("otherport.signed.test", "none", "otherport.signed.test", 0),
    ("mx.unsigned.test", "none", "mx.unsigned.test", 0),
    ("in.unsigned.test", "none", "in.unsigned.test", 0),
]


def spoil(name, text):
    for owner, kind in (("_25._tcp.bogus", "TLSA"), ("bogushost", "A")):
        text = spoil_record(text, "%s.%s" % (owner, name), kind)
    return text


def ask(dns, hosts):
    done = subprocess.run([os.path.join(BUILD, "tests", "support", "dane_ask"), dns.server, "25"] + hosts, check=True,
                          capture_output=True, text=True, timeout=120)
    return [line.split(" ", 4) for line in done.stdout.splitlines()]


def check(lines, expected):
    assert len(lines) == len(expected), lines
    for (host, status, base, count, why), row in zip(lines, expected):
        assert (host, status, base, int(count)) == row, "%s: %s %s %s (%s), not %s" % (host, status, base, count, why, row)
        assert why


with tempfile.TemporaryDirectory() as directory:
    dns = SignedDns(directory, {"signed.test": SIGNED}, {"unsigned.test": UNSIGNED}, spoil)
    try:
        check(ask(dns, [row[0] for row in EXPECTED]), EXPECTED)
        dns.end_authority()
        check(ask(dns, ["late.signed.test"]), [("late.signed.test", "failed", "late.signed.test", 0)])
    finally:
        dns.close()
print("ok")
