#!/usr/bin/env python3
"""
Proves the questions of operators to the queue: listings by pages lose nothing and repeat nothing, also while the queue changes;
summary and shape count every recipient once; header and body of a message come as they were stored, whatever their size; shards and
sites show what is there; and the audit log keeps what was changed over a restart.
"""
import json
import os
import subprocess
import sys
import threading
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, SLOW, free_port, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
LATER = "retry: {first: 6h, max: 12h, give_up: 5d, delay_notice: 0}\nlimits: {per_site: 50}"
NO_INPUT, DATA = 66, 65


def send_many(post, messages, recipients, first=0):
    """Messages to so many recipients each, one at each of as many domains; returns the ids."""
    ids = []
    for n in range(first, first + messages):
        ids.append(post.send("a@client.test", ["u%d@d%d.test" % (n, d) for d in range(recipients)]))
    return ids


def all_deferred(post, recipients):
    def deferred():
        rows = post.tool("queue", "summary")["rows"]
        return sum(r["count"] for r in rows) == recipients and sum(r["deferred"] for r in rows) == recipients
    wait_until("all are deferred", deferred, 60, 0.1)


def key_of(row):
    return row["message"], row["index"]


def listings_by_pages(world):
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER, scheduler="shards: 3").start()
    send_many(post, 130, 20)
    all_deferred(post, 2600)
    rows = post.tool("queue", "list", "--limit", "100000")["rows"]
    assert len(rows) == 2600 and len({key_of(r) for r in rows}) == 2600
    assert len(post.tool("queue", "list", "--limit", "1000")["rows"]) == 1000
    assert len(post.tool("queue", "list", "--limit", "1001")["rows"]) == 1001
    assert len(post.tool("queue", "list", "--limit", "7")["rows"]) == 7
    # A page that ends within a message goes on within it.
    few = post.tool("queue", "list", "--limit", "2599")["rows"]
    assert [key_of(r) for r in few] == [key_of(r) for r in rows[:2599]]
    some = post.tool("queue", "list", "domain:d7.test", "--limit", "5000")["rows"]
    assert len(some) == 130 and {r["destination"] for r in some} == {"d7.test"}, len(some)
    text = post.tool("queue", "list", "--limit", "100000", text=True)
    assert text.count("\n") == 2601 and text.endswith("2600 recipients\n"), text[-200:]
    one = post.tool("queue", "list", "id:" + rows[1234]["message"])["rows"]
    assert len(one) == 20 and {r["message"] for r in one} == {rows[1234]["message"]}
    assert post.tool("queue", "list", "older:1d")["rows"] == []
    # While mail comes and goes, what stays is listed once.
    before = {key_of(r) for r in rows}
    ended = threading.Event()

    def come():
        n = 1000
        while not ended.is_set():
            send_many(post, 1, 20, n)
            n += 1
    thread = threading.Thread(target=come)
    thread.start()
    try:
        for _ in range(5):
            listed = [key_of(r) for r in post.tool("queue", "list", "--limit", "100000")["rows"]]
            assert len(listed) == len(set(listed)), "a row came twice"
            assert before <= set(listed), "%d rows were left out" % len(before - set(listed))
    finally:
        ended.set()
        thread.join()


def many_ask_at_once(world):
    """Walks are limited: each is answered, with rows or with the request to ask again; and mail goes on."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    send_many(post, 100, 20)
    all_deferred(post, 2000)
    asking = [subprocess.Popen([os.path.join(BUILD, "posthouse"), "--server", post.rpc, "--json", "queue", verb, "domain:.test",
                                "--limit", "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
              for verb in ("list", "summary") * 12]
    post.send("b@client.test", "x@there.test")
    answered = 0
    for process in asking:
        out, err = process.communicate(timeout=60 * SLOW)
        if process.returncode == 0:
            rows = json.loads(out)["rows"]
            assert sum(r.get("count", 1) for r in rows) in (2000, 2001), len(rows)
            answered += 1
        else:
            assert process.returncode == 75 and "ask again" in err, (process.returncode, err)
    assert answered >= 4, answered
    assert len(post.queue("to:x@there.test")) == 1


def counts_by_destination_and_age(world):
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER, scheduler="shards: 2").start()
    send_many(post, 30, 3)
    post.send("a@client.test", ["v%d@busy.test" % n for n in range(50)])
    all_deferred(post, 140)
    rows = post.tool("queue", "summary")["rows"]
    assert [r["destination"] for r in rows] == ["busy.test", "d0.test", "d1.test", "d2.test"]
    assert [r["count"] for r in rows] == [50, 30, 30, 30]
    assert all(r["deferred"] == r["count"] and r["ready"] == 0 and r["held"] == 0 and r["oldest_ms"] for r in rows), rows
    assert [r["count"] for r in post.tool("queue", "summary", "--limit", "1")["rows"]] == [50]
    filtered = post.tool("queue", "summary", "domain:.test", "from:a@client.test")["rows"]
    assert [(r["destination"], r["count"]) for r in filtered] == [(r["destination"], r["count"]) for r in rows]
    assert post.tool("queue", "summary", "domain:d1.test")["rows"][0]["count"] == 30
    shape = post.tool("queue", "shape")["rows"]
    assert [r["destination"] for r in shape] == ["TOTAL", "busy.test", "d0.test", "d1.test", "d2.test"], shape
    assert [r["ages"][0] for r in shape] == [140, 50, 30, 30, 30] and all(len(r["ages"]) == 10 for r in shape), shape
    assert all(sum(r["ages"]) == r["count"] for r in shape)
    assert len(post.tool("queue", "shape", "--limit", "2")["rows"]) == 3
    assert post.tool("queue", "shape", "domain:d0.test")["rows"][0]["count"] == 30
    assert post.tool("queue", "shape", "older:5d")["rows"][0]["count"] == 0
    text = post.tool("queue", "shape", text=True)
    assert "TOTAL" in text and "busy.test" in text and "1280+" in text, text
    # Held ones are counted apart.
    post.tool("hold", "domain:busy.test", "--yes", "--reason", "test")
    wait_until("they are held", lambda: post.tool("queue", "summary", "domain:busy.test")["rows"][0]["held"] == 50)
    row = next(r for r in post.tool("queue", "summary")["rows"] if r["destination"] == "busy.test")
    assert (row["held"], row["deferred"], row["ready"]) == (50, 0, 0), row
    assert len(post.tool("queue", "list", "state:held", "--limit", "1000")["rows"]) == 50
    shards = post.tool("shards")["rows"]
    assert [r["shard"] for r in shards] == [0, 1] and sum(r["messages"] for r in shards) == 31, shards
    assert all(r["epoch"] >= 1 and r["assigned"] == 0 for r in shards), shards
    wait_until("the queue is counted", lambda: (lambda s: sum(r.get("deferred", 0) for r in s) == 90 and
                                                sum(r.get("held", 0) for r in s) == 50)(post.tool("shards")["rows"]), 20, 0.2)
    wait_until("the gauges follow", lambda: post.figures().get("posthouse_queue_deferred") == 90 and
               post.figures().get("posthouse_queue_held") == 50, 20, 0.2)
    figures = post.figures()
    assert figures["posthouse_queue_messages"] == 31 and figures["queue_deferred"] == 90, figures


def message_text(world):
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER, gateway="limits: {message_size: 20MiB}").start()

    def raw(*words):
        done = subprocess.run([os.path.join(BUILD, "posthouse"), "--server", post.rpc, *words], capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout
    sizes = (0, 1, 70, 255, 256, 257, 1000, 1024, 1025, 5000)  # KiB: whole chunks, windows, and beside them
    for size in sizes:
        line = "%08d" + " x" * 31 + "\r\n"
        text = "Subject: %d KiB\r\nX-Long: a\r\n b\r\n\r\n" % size + "".join(line % n for n in range(size * 1024 // 72))
        ident = post.send("a@client.test", "b@there.test", text)
        body = raw("msg", "body", ident)
        head = raw("msg", "headers", ident)
        assert body.endswith(text.encode()), (size, len(body), len(text))
        assert body.count(b"\r\n\r\n") >= 1 and head == body[:body.index(b"\r\n\r\n") + 4], (size, head)
        assert head.startswith(b"Received: ") and b"X-Long: a\r\n b\r\n" in head, head
        assert b"Subject: %d KiB\r\n" % size in head
        stored = next(r["size"] for r in post.tool("queue", "list", "id:" + ident)["rows"])
        assert len(body) == stored, (size, len(body), stored)
    # A long header section is cut at one chunk.
    fields = "".join("X-%d: %s\r\n" % (n, "y" * 900) for n in range(400))
    ident = post.send("a@client.test", "b@there.test", "Subject: long\r\n" + fields + "\r\nend\r\n")
    head = raw("msg", "headers", ident)
    assert len(head) == 256 * 1024, len(head)
    assert raw("msg", "body", ident).endswith(b"\r\n\r\nend\r\n")
    # Readers that go away, or wait, leave others alone.
    slow = [subprocess.Popen([os.path.join(BUILD, "posthouse"), "--server", post.rpc, "msg", "body", ident], stdout=subprocess.PIPE)
            for _ in range(6)]
    assert raw("msg", "headers", ident) == head
    for process in slow:
        process.kill()
        process.wait()
        process.stdout.close()
    for verb in ("headers", "body"):
        done = post.tool("msg", verb, "0000000000000", ok=False, text=True)
        assert done.returncode == NO_INPUT and "not in the queue" in done.stderr, done


def sites_at_work(world):
    release, first = threading.Event(), ["first@there.test"]
    sink = world.sink({"dot": lambda argument: "250 2.0.0 taken" if first and first.pop() or release.wait(30 * SLOW) else "451 4.3.0 no"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery="limits: {per_site: 2}").start()
    try:
        post.send("a@client.test", first[0])  # whose report names the site
        post.wait_empty()
        for n in range(30):
            post.send("a@client.test", "u%d@there.test" % n)
        rows = wait_until("the site is at work", lambda: [r for r in post.tool("sites")["rows"] if r.get("assigned") and r.get("ready")])
        assert rows[0]["site"] and rows[0]["concurrency"] >= 1 and not rows[0]["suspended"], rows
        assigned = wait_until("some are under way", lambda: post.queue("state:assigned"))
        assert {r["state"] for r in assigned} == {"assigned"}, assigned
        assert len(assigned) < 30 and len(post.queue("state:ready")) + len(post.queue("state:assigned")) >= 29
        listed = post.queue("site:" + rows[0]["site"])
        assert len(listed) == 30 and {r["site"] for r in listed} == {rows[0]["site"]}, listed
        assert post.queue("site:elsewhere.test") == []
    finally:
        release.set()
    post.wait_empty()
    assert post.tool("sites")["rows"] == []


def the_audit_log(world):
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=LATER).start()
    send_many(post, 3, 2)
    all_deferred(post, 6)
    post.tool("hold", "domain:d0.test", "--yes", "--reason", "first reason")
    post.tool("release", "domain:d0.test", "--yes", "--reason", "second reason")
    records = post.tool("audit")["audits"]
    stages = [(r["verb"], r["stage"]) for r in records]
    assert stages == [("release", "done"), ("release", "begun"), ("hold", "done"), ("hold", "begun")], stages
    assert [r["reason"] for r in records] == ["second reason"] * 2 + ["first reason"] * 2, records
    assert records[0]["count"] == 3 and records[0]["what"] == "domain:d0.test" and records[0]["actor"], records[0]
    assert len(post.tool("audit", "FIRST", "hold")["audits"]) == 2
    assert post.tool("audit", "hold", "second").get("audits", []) == []
    assert [r["reason"] for r in post.tool("audit", "--limit", "1")["audits"]] == ["second reason"]
    post.kill()
    post.start()
    assert post.tool("audit")["audits"] == records, "the audit log changed over a crash"
    post.tool("retry", "domain:d1.test", "--yes", "--reason", "third")
    assert [r["verb"] for r in post.tool("audit")["audits"]][:2] == ["retry"] * 2
    assert post.stop() == 0
    done = subprocess.run([os.path.join(BUILD, "posthouse"), "store", "verify", post.data_dir], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:  # the queue lies below the data directory
        inner = next(d for d, _, names in os.walk(post.data_dir) if "CURRENT" in names)
        done = subprocess.run([os.path.join(BUILD, "posthouse"), "store", "verify", inner], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done


def histograms_move_with_mail(world):
    sink = world.sink()
    port = free_port()
    post = world.posthouse(extra="  http: \"127.0.0.1:%d\"\n" % port + ROUTES % sink.port).start()

    def exposed():
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=30) as answer:
            text = answer.read().decode()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line and line[0] != "#"}
    before = exposed()
    for n in range(5):
        post.send("a@client.test", "u%d@there.test" % n)
    sink.wait(5)
    post.wait_empty()
    after = exposed()
    for name in ("accept", "commit", "queue_delay", "attempt"):
        family = "posthouse_%s_seconds" % name
        assert after[family + "_count"] >= before[family + "_count"] + (5 if name != "commit" else 1), (family, after[family + "_count"])
        assert after[family + "_bucket{le=\"+Inf\"}"] == after[family + "_count"], family
        buckets = [v for k, v in after.items() if k.startswith(family + "_bucket")]
        assert len(buckets) == 24 and sorted(buckets) == buckets, family
        assert 0 <= after[family + "_sum"] < 600 * SLOW, (family, after[family + "_sum"])
    assert after["posthouse_accept_seconds_sum"] > 0


def the_history_tells_the_verdict_at_the_edge(world):
    """Who it came from and how, what RCPT TO found, and which shard keeps it; also when the envelope is gone."""
    sink = world.sink()
    world.file("recipients.txt", "bob\n")
    post = world.posthouse(extra=ROUTES % sink.port + "domains:\n  - {name: ours.test, recipients: {table: recipients.txt}, route: \"smtp:127.0.0.1:%d\"}\n"
                           % sink.port).start()
    for recipients, verdict in ((["bob@ours.test"], "in our domains"), (["x@far.test"], "relayed"),
                                (["bob@ours.test", "x@far.test"], "1 in our domains, 1 relayed")):
        ident = post.send("a@client.test", recipients)
        post.wait_empty()
        text = next(t["text"] for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] == "accepted")
        assert text.endswith("client 127.0.0.1 (client.test) by ESMTP; %s; shard 0" % verdict), text


main([listings_by_pages, many_ask_at_once, counts_by_destination_and_age, message_text, sites_at_work, the_audit_log,
      histograms_move_with_mail, the_history_tells_the_verdict_at_the_edge])
