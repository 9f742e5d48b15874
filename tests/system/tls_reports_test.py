#!/usr/bin/env python3
"""
Proves that a day of TLS with other servers is told to the domains that asked (RFC 8460): sessions are counted by the daemon, kept over
a restart, and on the next day (libfaketime turns the clock) one mail goes through the queue to the address in the DNS.
"""
import os
import json
import subprocess
import sys
from unittest import mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from posthouse_test import SLOW, main, wait_until
from authentication_test import dkimpy_says, make_key
from tls_delivery_test import House, deferred, delivered

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "tlsrpt_check.py")
REPORTS = "reports: {organization: Example Net, contact: tls@client.test, from: reports@client.test, spread: 0}"


def library():
    out = subprocess.run(["dpkg", "-L", "libfaketime"], capture_output=True, text=True, check=True).stdout
    return next(line for line in out.split() if line.endswith("/libfaketimeMT.so.1"))


def tomorrow(environment):
    """What makes a program believe that it is tomorrow."""
    options = ":".join(filter(None, [environment.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    return {"LD_PRELOAD": library(), "FAKETIME": "+1d", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": options}


def a_day_is_told(world):
    h = House(world)
    good = h.server(h.certificate("good-mx.open.test"))
    old = h.server(h.certificate("old-mx.open.test", days=-1))
    box = h.server()
    for name, server in (("good", good), ("old", old), ("box", box)):
        h.host(name + "-mx.open.test", server)
        h.domain(name + ".open.test", name + "-mx.open.test")
    for name in ("good", "old"):
        h.record("open.test", '_smtp._tls.%s TXT "v=TLSRPTv1; rua=mailto:tls@box.open.test"' % name)
    h.domain("silent.open.test", "good-mx.open.test")  # asks for no report, gets none
    key, public = make_key(world, "key.pem")
    post = h.start(REPORTS + "\ndomains: [{domain: old.open.test, level: verify}]",
                   gateway="authentication: {keys: [{domain: client.test, selector: sel, key: %s}]}" % key)
    got = h.mails(["good.open.test", "old.open.test", "silent.open.test"])
    delivered(got["good.open.test"], "verified")
    deferred(got["old.open.test"], "4.7.5")
    delivered(h.mail("good.open.test"), "verified")
    assert post.stop() == 0
    assert not box.messages
    post.environment.update(tomorrow(post.environment))
    post.start()
    wait_until("two reports", lambda: len(box.messages) >= 2, 30 * SLOW)
    wait_until("no more to send", lambda: post.log_text().count("tlsrpt_sent") == 2, 10 * SLOW)
    reports = {}
    for n, (sender, recipients, message) in enumerate(box.messages):
        assert (sender, recipients) == ("reports@client.test", ["tls@box.open.test"]), (sender, recipients)
        with mock.patch.dict(os.environ, tomorrow(os.environ)):  # who judges a signature of tomorrow lives tomorrow
            assert dkimpy_says(message, public).startswith("True"), message  # RFC 8460 section 3
        path = world.file("report%d.eml" % n, "")
        with open(path, "wb") as f:
            f.write(message)
        done = subprocess.run([sys.executable, CHECK, "mail", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["organization-name"] == "Example Net" and report["contact-info"] == "tls@client.test", report
        reports[report["policies"][0]["policy"]["policy-domain"]] = report["policies"][0]
    assert set(reports) == {"good.open.test", "old.open.test"}, reports
    assert reports["good.open.test"]["summary"]["total-successful-session-count"] >= 1, reports
    assert reports["good.open.test"]["summary"]["total-failure-session-count"] == 0, reports
    details = reports["old.open.test"]["failure-details"]
    assert [d["result-type"] for d in details] == ["certificate-expired"], details
    assert details[0]["receiving-mx-hostname"] == "old-mx.open.test" and details[0]["receiving-ip"] == old.address, details
    assert post.stop() == 0


def none_without_a_name(world):
    h = House(world)
    good = h.server(h.certificate("good-mx.open.test"))
    h.host("good-mx.open.test", good)
    h.domain("good.open.test", "good-mx.open.test")
    h.record("open.test", '_smtp._tls.good TXT "v=TLSRPTv1; rua=mailto:tls@good.open.test"')
    post = h.start()
    delivered(h.mail("good.open.test"), "verified")
    assert post.stop() == 0
    assert not os.path.exists(os.path.join(post.data_dir, "tls-reports"))


if __name__ == "__main__":
    main([a_day_is_told, none_without_a_name])
