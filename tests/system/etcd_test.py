#!/usr/bin/env python3
"""
Proves the door to etcd at real members: answers, transactions, leases and watches; nothing missed and nothing told twice when
the member spoken to is killed or frozen, and when two of three are gone; compaction under a watch; a restored copy; passwords whose tokens end;
certificates; ten thousand keys, and twenty megabytes; a lease that is lost, at the first look, for a process that stood still.
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from etcd_servers import Client, one, put_by, three
from posthouse_test import SLOW, main, wait_until


def same(a, b):
    if a != b:
        raise AssertionError("%r is not %r" % (a, b))


def whole(client, name, prefix):
    """What a watch told since revision 1 is what was written: each change once, in order, up to the present keys."""
    events = client.events(name)
    revisions = [(e[3], e[1]) for e in events]
    same(len(revisions), len(set(revisions)))
    same([r for r, _ in revisions], sorted(r for r, _ in revisions))
    last = {}
    for verb, key, value, revision in events:
        last[key] = (value, revision) if verb == "put" else None
    found = {k: (v, r) for k, v, r in client.until_good("prefix", prefix)["kvs"]}
    same({k: v for k, v in last.items() if v}, found)


def answers_and_transactions(world):
    client = world.add(Client([one(world)]))
    same(client.good("get", "a/1")["kvs"], [])
    first = client.good("put", "a/1", "x")
    same(first["succeeded"], True)
    same(client.good("get", "a/1")["kvs"], [["a/1", "x", first["revision"]]])
    assert client.good("cas", "a/1", first["revision"], "y")["succeeded"]
    stale = client.good("cas", "a/1", first["revision"], "z")
    same((stale["succeeded"], stale["kvs"]), (False, [["a/1", "y", first["revision"] + 1]]))
    assert client.good("cas", "a/2", 0, "new")["succeeded"]
    assert not client.good("cas", "a/2", 0, "newer")["succeeded"]
    client.good("put", "b/1", "other")
    same([k for k, _, _ in client.good("prefix", "a/")["kvs"]], ["a/1", "a/2"])
    client.good("delete", "a/1")
    same([k for k, _, _ in client.good("prefix", "a/")["kvs"]], ["a/2"])
    client.say("lease", "L", 5)
    missing = client.ask("put", "a/9", "x", "nobody")  # without a lease of that name: an ordinary put
    same(missing["err"], "")
    state = client.state()
    same((state["up"], state["trouble"]), (True, ""))


def leases(world):
    member = one(world)
    client, other = world.add(Client([member])), world.add(Client([member]))
    client.lease("L", 6)
    assert 0 < client.left("L")["left"] <= 5400
    client.good("put", "n/1", "me", "L")
    other.watch("w", "n/", 1)
    other.saw("w", "n/1", "me")
    time.sleep(8)  # longer than its time: it is kept alive
    assert client.left("L")["left"] > 0
    same(len(other.good("get", "n/1")["kvs"]), 1)
    client.good("revoke", "L")
    wait_until("the key goes with its lease", lambda: ("delete", "n/1") in [e[:2] for e in other.events("w")])
    # etcd ends it under us
    client.lease("M", 3)
    member.ctl("lease", "revoke", "%x" % client.left("M")["id"])
    wait_until("the lease is lost", lambda: [e["event"] for e in client.leases["M"]] == ["granted", "lost"])
    same(client.left("M"), {"tag": "left", "left": 0, "id": 0})


def frozen_past_the_lease(world):
    """A process that stood still longer than its lease knows at the first look, before anything was read from etcd."""
    member = one(world)
    client, other = world.add(Client([member])), world.add(Client([member]))
    client.lease("L", 2)
    client.good("put", "n/1", "me", "L")
    client.freeze()
    wait_until("etcd ends the lease", lambda: not other.good("get", "n/1")["kvs"], 60, 0.2)
    client.say("left", "L")  # waits in its input
    client.thaw()
    same(client.wait("left"), {"tag": "left", "left": 0, "id": 0})
    wait_until("it is told", lambda: [e["event"] for e in client.leases["L"]] == ["granted", "lost"])
    client.lease("M", 2)  # and a new one is had
    client.good("put", "n/1", "me-again", "M")


def etcd_away(world):
    """The lease holds until its time by our clock is over, then it is lost; the watch goes on when etcd is back."""
    member = one(world)
    client = world.add(Client([member], "--timeout", "1000"))
    client.lease("L", 3)
    client.good("put", "k/1", "before")
    client.watch("w", "k/", 1)
    client.saw("w", "k/1", "before")
    member.kill()
    wait_until("the lease is lost", lambda: len(client.leases["L"]) == 2, 20)
    same(client.left("L")["left"], 0)
    refused = client.ask("get", "k/1")
    assert refused["err"] and refused["why"] and not refused["doubt"], refused
    assert not client.state()["up"] and client.state()["trouble"]
    member.start()
    wait_until("etcd works", member.works, 60)
    put_by(member, "k/2", "after")
    client.saw("w", "k/2", "after")
    assert client.state()["up"]
    whole(client, "w", "k/")


def member_killed(world):
    """The member spoken to dies under load of changes, again and again; every change is told once."""
    members = three(world)
    client, writer = world.add(Client(members)), world.add(Client(members, "--first", "1"))
    client.lease("L", 20)
    client.watch("w", "k/", 1)
    n = 0
    for round_ in range(3):
        at = [m for m in members if m.url == client.state()["endpoint"]][0]
        for _ in range(20):
            n += 1
            writer.until_good("put", "k/%d" % n, n)
        at.kill() if round_ != 1 else at.freeze()
        for _ in range(20):
            n += 1
            writer.until_good("put", "k/%d" % n, n)
        client.saw("w", "k/%d" % n, str(n), 60)
        assert client.state()["endpoint"] != at.url
        at.start() if round_ != 1 else at.thaw()
        wait_until("it works again", at.works, 60)
    assert client.left("L")["left"] > 0, client.leases
    same([e["event"] for e in client.leases["L"]], ["granted"])
    whole(client, "w", "k/")


def without_majority(world):
    members = three(world)
    client = world.add(Client(members, "--timeout", "2000"))
    client.lease("L", 3)
    client.watch("w", "k/", 1)
    client.good("put", "k/1", "one")
    client.saw("w", "k/1", "one")
    members[1].kill()
    members[2].freeze()
    wait_until("the lease is lost", lambda: len(client.leases["L"]) == 2, 30)
    for verb in (("get", "k/1"), ("prefix", "k/"), ("put", "k/2", "maybe")):
        answer = client.ask(*verb)
        assert answer["err"], answer
        assert verb[0] == "put" or not answer["doubt"], answer
    assert not client.state()["up"]
    members[1].start()
    members[2].thaw()
    client.until_good("put", "k/3", "three")
    client.saw("w", "k/3", "three", 60)
    client.lease("M", 3)
    whole(client, "w", "k/")


def compaction(world):
    """The watch of a client that stood still, whose revisions are gone, says so; a new one goes on from a new reading."""
    member = one(world)
    client = world.add(Client([member]))
    for n in range(5):
        client.good("put", "k/1", n)
    revision = client.good("get", "k/1")["revision"]
    member.ctl("compaction", str(revision))
    client.watch("old", "k/", 2)
    wait_until("it ends", lambda: client.news.get("old"))
    same([n["err"] for n in client.news["old"]], ["number out of range"])
    assert "compacted" in client.news["old"][0]["why"]
    read = client.good("prefix", "k/")
    same(read["kvs"], [["k/1", "4", revision]])
    client.watch("new", "k/", read["revision"] + 1)
    client.good("put", "k/1", "news")
    client.saw("new", "k/1", "news")
    # under a watch that is away while it happens
    member.kill()
    member.start()
    wait_until("etcd works", member.works, 60)
    client.good("put", "k/1", "more")
    client.saw("new", "k/1", "more")
    now = client.good("get", "k/1")["revision"]
    member.ctl("compaction", str(now))
    client.good("put", "k/1", "last")
    client.saw("new", "k/1", "last")  # it has heard all that is gone
    same([n["err"] for n in client.news["new"] if n["err"]], [])


def restored(world):
    """etcd comes back from a copy that lacks what was told since: the watch ends, so that its owner reads anew."""
    member = one(world)
    client = world.add(Client([member]))
    client.good("put", "k/1", "old")
    copy = os.path.join(world.directory, "etcd", "copy.db")
    member.ctl("snapshot", "save", copy)
    client.watch("w", "k/", 1)
    client.good("put", "k/1", "lost")
    client.saw("w", "k/1", "lost")
    member.kill()
    os.rename(os.path.join(member.directory, "data"), os.path.join(member.directory, "data.old"))
    peer = "http://127.0.0.1:%d" % member.peer_port
    member.ctl("snapshot", "restore", copy, "--name", member.name, "--data-dir", os.path.join(member.directory, "data"),
               "--initial-cluster", "%s=%s" % (member.name, peer), "--initial-advertise-peer-urls", peer)
    member.start()
    wait_until("it ends", lambda: [n["err"] for n in client.news["w"] if n["err"]] == ["number out of range"], 60)
    assert "went back" in client.news["w"][-1]["why"]
    read = client.until_good("prefix", "k/")
    same([(k, v) for k, v, _ in read["kvs"]], [("k/1", "old")])
    client.watch("new", "k/", read["revision"] + 1)
    client.good("put", "k/1", "again")
    client.saw("new", "k/1", "again")


def passwords(world):
    member = one(world, options=["--auth-token-ttl", "2"])
    for words in (("user", "add", "root:root-pw"), ("user", "grant-role", "root", "root"), ("user", "add", "joe:joe-pw"),
                  ("role", "add", "ours"), ("role", "grant-permission", "--prefix=true", "ours", "readwrite", "k/"),
                  ("user", "grant-role", "joe", "ours")):
        member.ctl(*words)
    early = world.add(Client([member], "--user", "joe", "--password", "joe-pw"))
    early.good("put", "k/0", "no-authentication-yet")
    member.ctl("auth", "enable")
    client = world.add(Client([member], "--user", "joe", "--password", "joe-pw"))
    client.good("put", "k/1", "mine")
    client.watch("w", "k/", 1)
    client.saw("w", "k/1", "mine")
    client.lease("L", 3)
    for verb in (("get", "other"), ("put", "other", "x"), ("prefix", "o")):
        answer = client.ask(*verb)
        same((answer["err"], answer["doubt"]), ("not permitted", False))
    client.watch("forbidden", "o", 1)
    wait_until("it is refused", lambda: client.news.get("forbidden"))
    same(client.news["forbidden"][0]["err"], "not permitted")
    time.sleep(4)  # tokens end
    client.good("put", "k/2", "with-a-new-token")
    client.saw("w", "k/2", "with-a-new-token")
    assert client.left("L")["left"] > 0
    early.good("put", "k/3", "the-door-was-closed-meanwhile")
    for options in (("--user", "joe", "--password", "wrong"), ()):
        stranger = world.add(Client([member], *options))
        for verb in (("get", "k/1"), ("put", "k/1", "theirs")):
            answer = stranger.ask(*verb)
            same((answer["err"], answer["doubt"]), ("not permitted", False))
    member.kill()
    member.start()  # it forgot all tokens
    client.until_good("put", "k/4", "after-its-restart")
    client.saw("w", "k/4", "after-its-restart", 60)


def make_certificates(world):
    """A CA, the member's certificate, ours, and one of another CA: paths by name."""
    def ssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=world.directory)
    for ca in ("ca", "stranger"):
        ssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" + ca,
            "-keyout", ca + ".key", "-out", ca + ".pem")
    world.file("names", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name in ("member", "ours"):
        ssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name,
            "-keyout", name + ".key", "-out", name + ".csr")
        ssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", name + ".pem")
    return lambda name: os.path.join(world.directory, name)


def certificates(world):
    path = make_certificates(world)
    member = one(world, tls=(path("ca.pem"), path("member.pem"), path("member.key")))
    ours = ("--ca", path("ca.pem"), "--cert", path("ours.pem"), "--key", path("ours.key"))
    client = world.add(Client([member], *ours))
    client.good("put", "k/1", "secret")
    client.watch("w", "k/", 1)
    client.saw("w", "k/1", "secret")
    client.lease("L", 3)
    for options in (("--ca", path("ca.pem")), (), ("--ca", path("stranger.pem"), *ours[2:]),
                    ("--ca", path("ca.pem"), "--cert", path("stranger.pem"), "--key", path("stranger.key"))):
        stranger = world.add(Client([member], "--timeout", "1500", *options))
        answer = stranger.ask("get", "k/1")
        assert answer["err"] and not answer["kvs"], answer
    same(client.good("get", "k/1")["kvs"][0][1], "secret")


def ten_thousand_keys(world):
    member = one(world)
    client = world.add(Client([member]))
    for start in range(0, 10000, 125):
        client.good("fill", "k/", start, 125)
    read = client.good("prefix", "k/")
    same([(k, v) for k, v, _ in read["kvs"]], [("k/%05d" % n, "%05d" % n) for n in range(10000)])
    client.watch("w", "k/", 1)
    wait_until("all are told", lambda: len(client.events("w")) == 10000, 60)
    same([e[1] for e in client.events("w")], ["k/%05d" % n for n in range(10000)])
    whole(client, "w", "k/")
    # many at once, and more than may wait
    tags = [client.begin("get", "k/%05d" % n) for n in range(1100)]
    answers = [client.wait(tag) for tag in tags]
    good = [a for a in answers if not a["err"]]
    assert len(good) >= 1000 and all(a["err"] in ("", "refused") for a in answers), [a for a in answers if a["err"]][:3]


def much(world):
    """Twenty megabytes: more than an answer may have. The watch takes it, in the pieces that etcd makes of it."""
    member = one(world)
    client = world.add(Client([member]))
    for start in range(0, 2500, 125):
        client.good("fill", "k/", start, 125, 8000)
    client.watch("w", "k/", 1)
    wait_until("all are told", lambda: len(client.events("w")) == 2500, 120)
    same([e[1] for e in client.events("w")], ["k/%05d" % n for n in range(2500)])
    assert all(len(e[2]) == 8000 for e in client.events("w"))
    assert any(n["revision"] < n["events"][-1][3] for n in client.news["w"])
    refused = client.ask("prefix", "k/")
    same((refused["err"], refused["why"]), ("limit reached", "too much has this prefix"))
    same(len(client.good("prefix", "k/01")["kvs"]), 1000)


if __name__ == "__main__":
    assert SLOW
    main([answers_and_transactions, leases, frozen_past_the_lease, etcd_away, member_killed, without_majority, compaction, restored,
          passwords, certificates, ten_thousand_keys, much])
