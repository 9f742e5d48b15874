#!/usr/bin/env python3
"""
Proves what a sender can ask for beside delivery, from the MAIL command to the next server and to the report: held until its release
(FUTURERELEASE), failed or told of at its time (DELIVERBY), passed on to a server that knows of it, and its priority (MT-PRIORITY).
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import main, wait_until

ROUTES = "routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
PLAIN = ("PIPELINING", "8BITMIME", "SIZE", "DSN")


def start(world, there):
    """back.test takes everything; all other domains are the server `there`."""
    back = world.sink()
    post = world.posthouse(extra=ROUTES % (back.port, there.port),
                           delivery="retry: {first: 300ms, max: 500ms, give_up: 1h, delay_notice: 0}")
    with open(post.config) as f:
        text = f.read()
    listener = "address: \"127.0.0.1:%d\"" % post.port
    assert listener in text
    with open(post.config, "w") as f:
        f.write(text.replace(listener, listener + ", with: [DELIVERBY, FUTURERELEASE, MT-PRIORITY]"))
    return post.start(), back


def held_until_its_release(world):
    there = world.sink()
    post, _ = start(world, there)
    ident = post.send("a@back.test", "b@there.test", mail_options=["HOLDFOR=3"])
    began = time.monotonic()
    rows = post.queue()
    assert len(rows) == 1 and rows[0]["state"] == "deferred" and rows[0].get("attempts", 0) == 0, rows
    why = post.tool("msg", "why", ident)["text"]
    assert "is held until" in why and "at the sender's request" in why, why
    there.wait(1)
    assert time.monotonic() - began >= 2, "released too early"
    post.wait_empty()


def held_over_a_restart(world):
    there = world.sink()
    post, _ = start(world, there)
    post.send("a@back.test", "b@there.test", mail_options=["HOLDFOR=6"])
    began = time.monotonic()
    post.kill()
    post.start()
    there.wait(1, 90)  # what is due is read from the store when its minute is over
    assert time.monotonic() - began >= 4, "released too early"
    post.wait_empty()


def failed_at_its_time(world):
    there = world.sink({"mail": "451 4.3.0 later"}, extensions=PLAIN + ("DELIVERBY",))
    post, back = start(world, there)
    began = time.monotonic()
    ident = post.send("a@back.test", "b@there.test", mail_options=["BY=4;R"])
    wait_until("its end is told", lambda: "DELIVERBY time" in post.tool("msg", "why", ident)["text"], 3)
    report = back.wait(1, 20)[0]
    assert time.monotonic() - began >= 2.5, "given up too early"
    assert b"Action: failed" in report[2] and b"Status: 5.4.7" in report[2] and b"delivery time expired" in report[2], report
    assert b"451" in report[2] or b"later" in report[2], report
    sent = [line for stage, line in there.commands if stage == "mail"]
    assert len(sent) >= 2 and " BY=" in sent[0] and ";R" in sent[0], sent
    post.wait_empty()


def told_at_its_time(world):
    there = world.sink({"mail": "451 4.3.0 later"}, extensions=PLAIN + ("DELIVERBY",))
    post, back = start(world, there)
    post.send("a@back.test", "b@there.test", mail_options=["BY=2;N"])
    report = back.wait(1, 20)[0]
    assert b"Action: delayed" in report[2] and b"Will-Retry-Until:" in report[2], report
    there.script.pop("mail")
    there.wait(1)
    post.wait_empty()
    assert len(back.messages) == 1, back.messages


def servers_that_do_not_know_of_it(world):
    there = world.sink(extensions=PLAIN)
    post, back = start(world, there)
    post.send("a@back.test", "b@there.test", mail_options=["BY=600;R"])
    report = back.wait(1)[0]
    assert b"Action: failed" in report[2] and b"Status: 5.3.3" in report[2], report
    assert not there.messages
    post.send("a@back.test", "b@there.test", mail_options=["BY=600;N"])
    there.wait(1)
    report = back.wait(2)[1]
    assert b"Action: relayed" in report[2], report
    assert [line for stage, line in there.commands if stage == "rcpt"][-1].endswith("NOTIFY=FAILURE,DELAY"), there.commands
    post.wait_empty()


def priority_is_passed_on(world):
    there = world.sink(extensions=PLAIN + ("MT-PRIORITY",))
    post, _ = start(world, there)
    post.send("a@back.test", "b@there.test", mail_options=["MT-PRIORITY=-4"])
    there.wait(1)
    sent = [line for stage, line in there.commands if stage == "mail"][0]
    assert " MT-PRIORITY=-4" in sent, sent


main([held_until_its_release, held_over_a_restart, failed_at_its_time, told_at_its_time, servers_that_do_not_know_of_it, priority_is_passed_on])
