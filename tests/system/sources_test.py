#!/usr/bin/env python3
"""
Proves our addresses from the outside: one that a server does not want is left out there, alone, while the others carry all mail, and
`limits explain` says so; a server that wants none of them is what has failed; and mail goes out from the addresses of who logged in.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from accounts import certificate, crypt_hash, inside_tls, plain
from posthouse_test import check, free_port, main, wait_until
from smtp_server import SmtpServer

ZONES = {"one.test": "@ MX 10 mx\nmx A 127.0.0.2\n", "other.test": "@ MX 10 mx\nmx A 127.0.0.3\n"}
FAST = "\nretry: {first: 300ms, max: 1s}"
POOL = ("sources:\n  - name: all\n    addresses:\n      - {address: 127.0.0.101}\n      - {address: 127.0.0.102}\n"
        "      - {address: 127.0.0.103}\nlimits: {messages_per_connection: 1}")


def start(world, extra, **more):
    port = free_port()
    one = world.add(SmtpServer(address="127.0.0.2", port=port))
    other = world.add(SmtpServer(address="127.0.0.3", port=port))
    dns = world.nsd(ZONES)
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d%s\n%s" % (dns.port, port, FAST, extra), **more)
    return post, one, other


def count(server, last):
    return server.peers.count("127.0.0.%d" % last)


def one_address_is_not_wanted(world):
    post, one, other = start(world, POOL)
    one.refused["127.0.0.101"] = "554 5.7.1 127.0.0.101 is on a blocklist"
    post.start()
    for n in range(40):
        post.send("a@client.test", "n%d@%s.test" % (n, "one" if n % 2 else "other"))
    post.wait_empty(60)
    log = post.log_text()
    assert len(one.messages) == len(other.messages) == 20
    assert " deferred " not in log and " failed " not in log and "site_failed" not in log, log
    assert count(one, 102) + count(one, 103) >= 20 and "source_rests source=127.0.0.101" in log, log
    assert log.count(" source_rests ") == 1
    said = post.tool("limits", "explain", "one.test", text=True)
    assert "our address 127.0.0.101 rests for" in said and "127.0.0.102 rests" not in said, said
    assert "rests" not in post.tool("limits", "explain", "other.test", text=True)
    assert count(other, 101) > 0  # it is well elsewhere


def an_address_comes_back(world):
    post, one, other = start(world, POOL)
    one.refused["127.0.0.101"] = "421 4.7.0 go away"
    post.start()
    n = 0
    while "source_rests" not in post.log_text():
        post.send("a@client.test", "n%d@one.test" % n)
        n += 1
        post.wait_empty()
    one.refused.clear()
    before = count(one, 101)
    deadline = time.monotonic() + 90
    while count(one, 101) == before and time.monotonic() < deadline:  # the first rest is half a minute
        post.send("a@client.test", "n%d@one.test" % n)
        n += 1
        time.sleep(0.5)
    wait_until("the address at work", lambda: "source_works_again source=127.0.0.101" in post.log_text())
    post.wait_empty()
    assert len(one.messages) == n and "site_failed" not in post.log_text()


def an_address_is_throttled(world):
    post, one, other = start(world, POOL)
    one.scripts["127.0.0.101"] = {"mail": "421 4.7.0 slow down"}
    post.start()
    n = 0
    while "of at most 1 after failures" not in post.tool("limits", "explain", "one.test", text=True):
        post.send("a@client.test", "n%d@one.test" % n)
        n += 1
        post.wait_empty()
        assert n < 200
    said = post.tool("limits", "explain", "one.test", text=True)
    assert "our address 127.0.0.101 has " in said and "127.0.0.102 has" not in said and "127.0.0.103 has" not in said, said
    log = post.log_text()
    assert len(one.messages) == n and " deferred " not in log and "site_failed" not in log and "source_rests" not in log


def no_address_is_wanted(world):
    post, one, other = start(world, POOL)
    for last in (101, 102, 103):
        one.refused["127.0.0.%d" % last] = "421 4.3.2 closed for today"
    post.start()
    post.send("a@client.test", "x@one.test")
    wait_until("the site to fail", lambda: "site_failed" in post.log_text())
    one.refused.clear()
    wait_until("the mail", lambda: post.tool("retry", "domain:one.test") and one.messages, 60, 0.5)
    post.wait_empty()
    assert len(one.messages) == 1 and "source_rests" not in post.log_text()


def by_account(world):
    cert, key = certificate(world)
    path = world.file("passwd", "".join("%s:%s\n" % (name, crypt_hash("pw", "$2b$", 4)) for name in ("anna", "bert", "carl@tenant.test")))
    os.chmod(path, 0o600)
    port = free_port()
    gateway = ("  - {address: \"127.0.0.1:%d\", tls: implicit, auth: offered}\nnames: false\n"
               "tls: {certificate: %s, key: %s}\nauth:\n  realm: posthouse.test\n  backends:\n    - {kind: file, file: passwd}\n"
               % (port, cert, key))
    pools = ("sources:\n  - {name: bulk, senders: [bulk.test], addresses: [{address: 127.0.0.101}]}\n"
             "  - {name: anna, accounts: [anna@posthouse.test, \"@tenant.test\"], addresses: [{address: 127.0.0.102}]}\n"
             "  - {name: rest, addresses: [{address: 127.0.0.103}]}")
    post, one, other = start(world, pools, gateway=gateway)
    post.start()
    rows = [("anna", "x@bulk.test", 102), ("anna", "y@plain.test", 102), ("carl@tenant.test", "x@bulk.test", 102),
            ("bert", "x@bulk.test", 101), ("bert", "z@plain.test", 103)]
    for account, sender, _ in rows:
        with inside_tls(port) as s:
            check(s.docmd(plain(account, "pw")), 235)
            check(s.mail(sender), 250)
            check(s.rcpt("%s.%s@one.test" % (account.split("@")[0], sender.split("@")[0])), 250)
            check(s.data(b"Subject: x\r\n\r\nhello\r\n"), 250)
    post.send("x@bulk.test", "nobody@one.test")  # without a login
    post.wait_empty()
    seen = {(m["recipients"][0], m["sender"]): m["peer"] for m in one.messages}
    for account, sender, last in rows:
        to = "%s.%s@one.test" % (account.split("@")[0], sender.split("@")[0])
        assert seen[to, sender] == "127.0.0.%d" % last, (account, sender, seen)
    assert seen["nobody@one.test", "x@bulk.test"] == "127.0.0.101", seen


def each_recipient_has_its_own_address_in_the_log(world):
    """One message in many transactions, each over a connection from an address of its own: the log names that one, not the last one."""
    post, one, other = start(world, POOL.replace("messages_per_connection: 1", "messages_per_connection: 1, recipients_per_transaction: 1"))
    post.start()
    post.send("a@client.test", ["n%d@one.test" % n for n in range(20)])
    post.wait_empty(60)
    peers = {r: m["peer"] for m in one.messages for r in m["recipients"]}
    assert len(peers) == 20 and len(set(peers.values())) > 1, peers
    for to, peer in peers.items():
        line = next(l for l in post.log_text().splitlines() if " delivered " in l and " to=%s " % to in l)
        assert line.endswith("source=" + peer), (peer, line)


main([one_address_is_not_wanted, an_address_comes_back, an_address_is_throttled, no_address_is_wanted, by_account,
      each_recipient_has_its_own_address_in_the_log])
