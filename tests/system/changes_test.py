#!/usr/bin/env python3
"""
Proves the operator's changes of the queue with the real tool and daemon: hold, release, delete, bounce, reroute and retry by filter, with
counts before and after; that they survive kill -9 at once after the answer; suspensions of a domain, of all below one, and of a site;
and that a deletion of many recipients goes on beside reception.
"""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import free_port, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
LATER = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
BUSY = {"rcpt": "450 4.2.0 busy"}
WHY = ("--reason", "they asked")
DATA = 65


def count(post, *words):
    return post.tool(*words)["count"]


def kinds(post, ident):
    return [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]


def states(post, *filter):
    return sorted(r["state"] for r in post.queue(*filter))


def deferred(world, names, delivery=LATER, **more):
    """A daemon whose mail to these recipients is deferred, the server that defers it, and the ids."""
    sink = world.sink(BUSY)
    post = world.posthouse(extra=ROUTES % sink.port, delivery=delivery, **more).start()
    idents = [post.send("s@client.test", name) for name in names]
    wait_until("all are deferred", lambda: states(post, "state:deferred") == ["deferred"] * len(names))
    return post, sink, idents


def killed(post):
    """Only where nothing is under way: what is would be in doubt afterwards."""
    post.kill()
    post.start()
    wait_until("the queue is read", lambda: post.figures()["queue_scanned"] == 1)


def held_mail_stays(world):
    post, sink, (one, two) = deferred(world, ["a@there.test", "b@there.test"])
    assert count(post, "hold", "to:a@there.test", *WHY, "--dry-run") == 1
    assert states(post) == ["deferred", "deferred"]
    assert count(post, "hold", "to:a@there.test", *WHY) == 1
    killed(post)
    assert states(post, "state:held") == ["held"]
    sink.script = {}
    assert count(post, "retry", "all") == 1
    sink.wait(1)
    wait_until("the other one has left", lambda: len(post.queue()) == 1)
    why = post.tool("msg", "why", one, text=True)
    assert "is held by " in why and "they asked" in why and "since" in why, why
    assert "held" in kinds(post, one) and "held" not in kinds(post, two)
    assert count(post, "retry", "all") == 0
    assert count(post, "hold", "all", *WHY) == 0
    assert len(sink.messages) == 1
    assert count(post, "release", "id:" + one) == 1
    sink.wait(2)
    post.wait_empty()
    assert kinds(post, one)[-3:] in (["released", "assigned", "delivered"],), kinds(post, one)


def held_mail_is_never_tried_on_its_way(world):
    """What is under way is held when it comes back; what succeeds was delivered."""
    gate = threading.Event()

    def wait_and(reply):
        def answer(argument):
            gate.wait(30)
            return reply
        return answer
    sink = world.sink({"rcpt": wait_and("450 4.2.0 busy")})
    fine = world.sink({"rcpt": wait_and("250 fine")})
    post = world.posthouse(extra="routes:\n  - {domain: fine.test, route: \"smtp:127.0.0.1:%d\"}\n" % fine.port +
                           "  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port, delivery="retry: {first: 1s, max: 1s}").start()
    one, two, three = (post.send("s@client.test", name) for name in ("a@there.test", "b@fine.test", "c@gone.test"))
    wait_until("they are under way", lambda: len([c for c in sink.commands + fine.commands if c[0] == "rcpt"]) >= 3)
    assert count(post, "hold", "domain:there.test", *WHY) == 1
    assert count(post, "hold", "domain:fine.test", *WHY) == 1
    assert count(post, "delete", "domain:gone.test", *WHY, "--yes") == 1
    assert "is then held" in post.tool("msg", "why", one, text=True)
    gate.set()
    wait_until("each has come back", lambda: states(post) == ["held"])
    assert kinds(post, two)[-1] == "delivered"
    assert kinds(post, three)[-2:] == ["deferred", "deleted"], kinds(post, three)
    time.sleep(1.5)  # longer than it would have waited
    assert states(post) == ["held"]


def deleted_mail_ends_without_a_report(world):
    post, sink, idents = deferred(world, ["a@there.test", "b@there.test", "c@other.test"])
    assert post.tool("delete", "domain:there.test", *WHY, ok=False).returncode == 64, "nobody can be asked"
    assert post.tool("delete", "domain:there.test", "--yes", ok=False).returncode == 64, "a reason is needed"
    assert count(post, "delete", "domain:there.test", *WHY, "--dry-run") == 2
    assert len(post.queue()) == 3
    assert count(post, "delete", "domain:there.test", *WHY, "--yes") == 2
    killed(post)
    assert [r["recipient"] for r in post.queue()] == ["c@other.test"]
    assert kinds(post, idents[0])[-1] == "deleted"
    trace = post.tool("msg", "trace", idents[0])["traces"][-1]
    assert trace["text"].startswith("by ") and trace["text"].endswith(": they asked"), trace
    assert "was deleted" in post.tool("msg", "why", idents[0], text=True)
    assert not sink.messages
    assert count(post, "delete", "all", *WHY, "--yes") == 1
    post.wait_empty()
    assert post.figures()["reports"] == 0


def a_limit_ends_a_change(world):
    post, _, _ = deferred(world, ["a@there.test", "b@there.test", "c@there.test"])
    assert count(post, "hold", "all", *WHY, "--limit", "2", "--dry-run") == 2
    assert count(post, "hold", "all", *WHY, "--limit", "2") == 2
    assert sorted(states(post)) == ["deferred", "held", "held"]
    assert count(post, "delete", "all", *WHY, "--limit", "1", "--yes") == 1  # none of them is being delivered
    assert len(post.queue()) == 2
    assert count(post, "release", "all", "--limit", "1") == 1


def bounced_mail_is_reported(world):
    post, sink, idents = deferred(world, ["a@there.test", "b@there.test"])
    assert count(post, "bounce", "to:b@there.test", "--reason", "the address was misspelt", "--yes") == 1
    post.kill()
    sink.script = {}
    post.start()
    # It may have been on its way when the process died: then it is in doubt, and waits.
    message = wait_until("the report", lambda: post.tool("retry", "from:<>") and sink.messages, 20, 0.2)[0]
    assert message[0] == "" and message[1] == ["s@client.test"], message
    assert b"returned by the postmaster: the address was misspelt" in message[2].replace(b"\r\n ", b" "), message[2]
    assert b"Status: 5.7.0" in message[2] and b"b@there.test" in message[2] and b"root" not in message[2]
    wait_until("it has ended", lambda: [r["recipient"] for r in post.queue()] == ["a@there.test"])
    assert "bounced" in kinds(post, idents[1])


def one_recipient_of_many(world):
    sink = world.sink(BUSY)
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    ident = post.send("s@client.test", ["a@one.test", "b@two.test", "c@two.test"])
    wait_until("all are deferred", lambda: states(post, "state:deferred") == ["deferred"] * 3)
    assert count(post, "delete", "domain:one.test", *WHY, "--yes") == 1
    assert count(post, "hold", "to:c@two.test", *WHY) == 1
    assert count(post, "hold", "state:deferred", "from:s@client.test", *WHY, "--dry-run") == 1
    sink.script = {}
    assert count(post, "retry", "id:" + ident) == 1
    assert sink.wait(1)[0][1] == ["b@two.test"]
    wait_until("one is left", lambda: [(r["recipient"], r["state"]) for r in post.queue()] == [("c@two.test", "held")])


def rerouted_mail_takes_the_other_way(world):
    post, sink, (one, two, three) = deferred(world, ["a@there.test", "b@there.test", "c@there.test"])
    other = world.sink()
    lmtp = world.sink(lmtp=True)
    route = "smtp:127.0.0.1:%d" % other.port
    for wrong in ("other.test", "smtp:", "smtp:a:0", "smtp:a:x", "pigeon:home", "smtp:[::1", "lmtp:unix:here", "mx:"):
        done = post.tool("reroute", "all", "--to", wrong, *WHY, "--yes", ok=False)
        assert done.returncode == DATA and "route" in done.stderr, (wrong, done)
    assert count(post, "hold", "to:b@there.test", *WHY) == 1
    assert count(post, "reroute", "domain:there.test", "--to", route, *WHY, "--dry-run") == 3
    assert count(post, "reroute", "to:a@there.test", "--to", route.upper(), *WHY, "--yes") == 1
    assert other.wait(1)[0][1] == ["a@there.test"]
    wait_until("it is settled", lambda: len(post.queue()) == 2)
    assert count(post, "reroute", "to:b@there.test", "--to", route, *WHY, "--yes") == 1
    assert count(post, "reroute", "to:b@there.test", "--to", route, *WHY, "--yes") == 0
    killed(post)
    row = post.queue("to:b@there.test")[0]
    assert row["state"] == "held" and row["route"] == route and row["destination"] == "there.test", row
    assert count(post, "release", "domain:there.test") == 1
    other.wait(2)
    assert count(post, "reroute", "id:" + three, "--to", "lmtp:127.0.0.1:%d" % lmtp.port, *WHY, "--yes") == 1
    assert lmtp.wait(1)[0][1] == ["c@there.test"]
    post.wait_empty()
    assert "rerouted" in kinds(post, three) and not sink.messages


def a_wrong_route_fails_nothing(world):
    """It reads like one, and leads nowhere; its own way brings the mail there after all."""
    post, sink, (ident,) = deferred(world, ["a@there.test"])
    assert count(post, "reroute", "all", "--to", "smtp:-wrong-", *WHY, "--yes") == 1
    wait_until("deferred again", lambda: kinds(post, ident).count("deferred") == 2)
    last = post.queue()[0]["last"]
    assert last["enhanced"] == "4.3.5" and "route" in last["text"], last
    assert "smtp:-wrong-" in post.tool("msg", "why", ident, text=True)
    sink.script = {}
    assert count(post, "reroute", "all", "--to", "", *WHY, "--yes") == 1
    sink.wait(1)
    post.wait_empty()


def a_suspended_domain_waits(world):
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    post.tool("suspend", "domain", "There.test", "--reason", "under repair")
    post.tool("suspend", "domain", ".below.test", "--reason", "all of them", "--for", "1h")
    waits = post.send("s@client.test", "a@there.test")
    post.send("s@client.test", "b@x.below.test")
    post.send("s@client.test", "c@below.test")
    sink.wait(1)
    wait_until("it is settled", lambda: len(post.queue()) == 2)
    killed(post)
    post.send("s@client.test", "d@elsewhere.test")
    sink.wait(2)
    time.sleep(1)
    assert sorted(m[1] for m in sink.messages) == [["c@below.test"], ["d@elsewhere.test"]]
    rows = post.tool("suspensions")["rows"]
    assert [(r.get("destination"), r["reason"]) for r in rows] == [("there.test", "under repair"), (".below.test", "all of them")] or \
        sorted((r.get("destination"), r["reason"]) for r in rows) == [(".below.test", "all of them"), ("there.test", "under repair")], rows
    limits = post.tool("limits", "explain", "there.test", text=True)
    assert "under repair" in limits and "all of them" not in limits, limits
    assert "under repair" not in post.tool("limits", "explain", "elsewhere.test", text=True)
    rows = post.tool("limits", "explain", "x@there.test")["rows"]
    assert [(r["destination"], r["reason"]) for r in rows] == [("there.test", "under repair")], rows
    assert not post.tool("limits", "explain", "elsewhere.test").get("rows")
    why = post.tool("msg", "why", waits, text=True)
    assert "there.test is suspended" in why and "under repair" in why, why
    assert post.tool("resume", "domain", "x.below.test", ok=False).returncode != 0
    post.tool("resume", "domain", "there.test")
    sink.wait(3)
    wait_until("it is settled", lambda: len(post.queue()) == 1)
    killed(post)
    assert len(post.tool("suspensions")["rows"]) == 1
    post.tool("suspend", "domain", ".below.test", "--reason", "shorter", "--for", "1s")
    sink.wait(4)  # it ends by itself
    wait_until("it is gone", lambda: not post.tool("suspensions")["rows"])
    post.wait_empty()
    killed(post)
    assert not post.tool("suspensions")["rows"]


def a_suspended_site_waits(world):
    sink = world.sink()
    site = "smtp:127.0.0.1:%d" % sink.port
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    post.send("s@client.test", "a@there.test")
    sink.wait(1)
    wait_until("it is settled", lambda: not post.queue())
    post.tool("suspend", "site", site, "--reason", "under repair")
    ident = post.send("s@client.test", "b@there.test")
    time.sleep(1)
    assert len(sink.messages) == 1
    assert "the site " + site + " is suspended" in post.tool("msg", "why", ident, text=True)
    assert count(post, "hold", "site:" + site, *WHY, "--dry-run") == 1
    assert "under repair" in post.tool("limits", "explain", "x@there.test", text=True)
    post.tool("resume", "site", site)
    sink.wait(2)


def what_waits_on_disk_goes_when_it_is_resumed(world):
    """More than may wait in memory."""
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    post.tool("suspend", "domain", "there.test", "--reason", "under repair")
    for n in range(4):
        post.send("s@client.test", ["r%d-%d@there.test" % (n, k) for k in range(60)])
    assert states(post).count("deferred") == 140
    why = post.tool("msg", "why", post.queue("state:deferred")[0]["message"], text=True)
    assert "is suspended" in why, why
    post.tool("resume", "domain", "there.test")
    post.wait_empty()
    assert sum(len(m[1]) for m in sink.messages) == 240


def many_are_deleted_beside_reception(world):
    """In pages, with progress, while mail is accepted; the books balance."""
    sink = world.sink()
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER, scheduler="active_max: 1000").start()
    post.tool("suspend", "domain", "bulk.test", "--reason", "so that it waits")
    for n in range(40):
        post.send("s@client.test", ["r%d-%d@bulk.test" % (n, k) for k in range(100)])
    for n in range(600):
        post.send("s@client.test", "n%d@bulk.test" % n)
    taken, over = [], threading.Event()

    def client():
        while not over.is_set():
            post.send("s@client.test", "live%d@live.test" % len(taken))
            taken.append(1)
    thread = threading.Thread(target=client)
    thread.start()
    try:
        assert count(post, "delete", "domain:bulk.test", "to:r0-5@bulk.test", *WHY, "--yes") == 1
        assert count(post, "delete", "domain:bulk.test", *WHY, "--yes") == 4599
    finally:
        over.set()
        thread.join()
    assert taken
    sink.wait(len(taken))
    post.wait_empty()
    assert {m[1][0].split("@")[1] for m in sink.messages} == {"live.test"}
    post.send("s@client.test", "metrics@live.test")
    sink.wait(len(taken) + 1)


def refused(world):
    post = world.posthouse(extra=ROUTES % free_port(), delivery=LATER).start()
    for nobody in ("id:0000000000001", "id:0000000FZZ001", "to:nobody@there.test"):
        assert count(post, "hold", nobody, *WHY) == 0, nobody
    assert count(post, "hold", "older:1h", *WHY) == 0
    for name in ("", "a b", "x..test", ".", "test."):
        done = post.tool("suspend", "domain", name, *WHY, ok=False)
        assert done.returncode != 0, (name, done)
    assert not post.tool("suspensions")["rows"]


main([held_mail_stays, held_mail_is_never_tried_on_its_way, deleted_mail_ends_without_a_report, a_limit_ends_a_change, bounced_mail_is_reported,
      one_recipient_of_many, rerouted_mail_takes_the_other_way, a_wrong_route_fails_nothing, a_suspended_domain_waits, a_suspended_site_waits,
      what_waits_on_disk_goes_when_it_is_resumed, many_are_deleted_beside_reception, refused])
