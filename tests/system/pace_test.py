#!/usr/bin/env python3
"""
Proves the pace of delivery from the outside: a site that says "421 4.7.0 try again later" once is left alone for the time of
the rule while other sites get their mail, and then everything goes; a bad rule file is refused with its lines, by
--check and on reload; mail of two senders comes from two addresses with their own names; a rate holds a domain back
and not its neighbours.
"""
import datetime
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, World, free_port, main, wait_until
from smtp_server import SmtpServer

ZONES = {
    "one.test": "@ MX 10 mx\nmx A 127.0.0.2\n",
    "two.test": "@ MX 10 mx.one.test.\n",
    "other.test": "@ MX 10 mx\nmx A 127.0.0.3\n",
}
FAST = "\nretry: {first: 300ms, max: 1s}"


def start(world, extra, first=None):
    port = free_port()
    one = world.add(SmtpServer(script=first, address="127.0.0.2", port=port))
    other = world.add(SmtpServer(address="127.0.0.3", port=port))
    dns = world.nsd(ZONES)
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d%s\n%s" % (dns.port, port, FAST, extra)).start()
    return post, one, other


def recipients(server):
    return sorted(r for m in server.messages for r in m["recipients"])


def when(line):
    return datetime.datetime.fromisoformat(line.split()[0].rstrip("Z"))


def a_site_rests(world):
    rules = world.file("rules.txt", "# ours\nsuspend 4s /^421 4\\.7\\.0 .*try again later/\n")
    post, one, other = start(world, "reply_rules: %s" % rules, {"mail": "421 4.7.0 Try again later"})
    post.send("a@client.test", "first@one.test")
    wait_until("the refusal", lambda: "site_paused" in post.log_text())
    assert one.connections == 1
    one.script = {}
    said = post.tool("limits", "explain", "one.test", text=True)
    assert "the site rests for" in said, said
    for n in range(10):
        post.send("a@client.test", "n%d@%s.test" % (n, ("one", "two", "other")[n % 3]))
    wait_until("mail for others", lambda: len(other.messages) == 3)
    assert "rule_line=2" in post.log_text()
    post.wait_empty(30)
    lines = post.log_text().split("\n")
    paused = next(when(line) for line in lines if " site_paused " in line)
    after = min(when(line) for line in lines if " delivered " in line and "site=mx.one.test" in line)
    assert (after - paused).total_seconds() >= 3.9, (paused, after)
    assert len(recipients(one)) == 8, recipients(one)
    assert "site_rests" in post.log_text()


def bad_rules(world):
    rules = world.file("rules.txt", "suspend 4s /x/\n")
    post, one, other = start(world, "reply_rules: %s" % rules)
    with open(rules, "w") as f:
        f.write("\nsuspend 4s /(/\nhold /x/\n")
    answer = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", post.config, "--check"], capture_output=True,
                            text=True, timeout=30)
    assert answer.returncode != 0
    said = answer.stdout + answer.stderr
    assert "rules.txt:2: " in said and "rules.txt:3: " in said, said
    post.reload()
    wait_until("the refusal of the reload", lambda: "reload_refused" in post.log_text())
    with open(rules, "w") as f:
        f.write("temporary /^550 5\\.1\\.1 not yet/\n")
    post.reload()
    wait_until("the reload", lambda: "delivery_reconfigured" in post.log_text())
    one.script = {"rcpt": "550 5.1.1 not yet|250 2.1.5 fine"}
    post.send("a@client.test", "x@one.test")
    wait_until("the deferral", lambda: "status=4.1.1" in post.log_text())
    one.script = {}
    post.wait_empty()
    assert recipients(one) == ["x@one.test"]


def two_sources(world):
    pools = ("sources:\n  - {name: news, senders: [news.test], addresses: [{address: 127.0.0.101, ehlo: out101.test}]}\n"
             "  - {name: rest, addresses: [{address: 127.0.0.102, ehlo: out102.test}]}")
    post, one, other = start(world, pools)
    for n in range(3):
        post.send("a@news.test", "news%d@one.test" % n)
        post.send("a@other.test", "rest%d@one.test" % n)
    post.wait_empty()
    assert len(one.messages) == 6
    peers = {}
    for m in one.messages:
        peers.setdefault(m["sender"].split("@")[1].split(">")[0], set()).add(m["peer"])
    assert peers == {"news.test": {"127.0.0.101"}, "other.test": {"127.0.0.102"}}, peers
    names = {c.split()[1] for c in one.commands if c.upper().startswith("EHLO")}
    assert names == {"out101.test", "out102.test"}, names


def a_domain_is_held_back(world):
    post, one, other = start(world, "rates: [{domain: two.test, messages: 3, window: 6s}]")
    for n in range(4):
        post.send("a@client.test", "n%d@two.test" % n)
        post.send("a@client.test", "n%d@one.test" % n)
    wait_until("the neighbours", lambda: sum(r.endswith("@one.test") for r in recipients(one)) == 4)
    said = post.tool("limits", "explain", "two.test", text=True)
    assert "rate of the domain (two.test): 3 messages in 6s" in said, said
    post.wait_empty(40)
    assert len(recipients(one)) == 8


main([a_site_rests, bad_rules, two_sources, a_domain_is_held_back])
