#!/usr/bin/env python3
"""
Proves what each reply of a receiving server does to a message: the list of hosts and its greetings, HELO after EHLO, recipients that
are judged one by one, too many recipients, 421 at every step, LMTP, a mail in doubt and its retry, replies that nobody asked for; and
that whatever a server says becomes one clean line in history and report, in bounded memory.
"""
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import free_port, main, wait_until

ZONE = "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n"
ROUTES = "routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: there.test, route: \"%s:127.0.0.1:%d\"}\n"
LATER = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
SOON = "retry: {first: 500ms, max: 1s, give_up: 1h, delay_notice: 0}"
ENDS = ("delivered", "deferred", "failed", "in_doubt")


def two_hosts(world, retry=LATER, per_connection=1):
    """example.test has two MX hosts; back.test takes reports."""
    port = free_port()
    first, second = world.sink(address="127.0.0.2", port=port), world.sink(address="127.0.0.3", port=port)
    back = world.sink()
    dns = world.nsd({"example.test": ZONE})
    delivery = "dns: [\"127.0.0.1:%d\"]\nport: %d\nlimits: {messages_per_connection: %d}\n%s" % (dns.port, port, per_connection, retry)
    post = world.posthouse(delivery=delivery, extra=ROUTES % (back.port, "smtp", 9)).start()
    return post, first, second, back


def one_host(world, there, retry=LATER, delivery="", protocol="smtp"):
    back = world.sink()
    post = world.posthouse(delivery=delivery + "\n" + retry, extra=ROUTES % (back.port, protocol, there.port)).start()
    return post, back


def ends(post, ident):
    """What became of the recipients so far: (kind, recipient's number, result)."""
    return [(t["kind"], n, t.get("result", {})) for t in post.tool("msg", "trace", ident)["traces"] if t["kind"] in ENDS
            for n in t["recipients"]]


def outcome(post, ident, count=1):
    return wait_until("%d outcomes for %s" % (count, ident), lambda: len(ends(post, ident)) >= count and ends(post, ident), 30, 0.05)


def only_outcome(post, ident):
    found = outcome(post, ident)
    assert len(found) == 1, found
    return found[0][0], found[0][2]


def names(messages):
    return sorted(r.split("@")[0] for m in messages for r in m[1])


def greetings_of_the_list(world):
    """A 5yz greeting is held against the domain only when every host gives one (line 43)."""
    post, first, second, back = two_hosts(world)
    first.script = {"banner": "554 5.3.2 no mail here"}
    kind, result = only_outcome(post, post.send("a@back.test", "one@example.test"))
    assert kind == "delivered" and "mx2" in result["remote"], (kind, result)
    assert names(second.messages) == ["one"] and not first.messages


def greetings_that_disagree(world):
    post, first, second, _ = two_hosts(world)
    first.script = {"banner": "554 5.3.2 no mail here"}
    second.script = {"banner": "421 4.3.2 not now"}
    kind, result = only_outcome(post, post.send("a@back.test", "two@example.test"))
    assert kind == "deferred", (kind, result)


def greetings_all_of_them_refusing(world):
    post, first, second, back = two_hosts(world)
    first.script = {"banner": "554 5.3.2 no mail here"}
    second.script = {"banner": "550 5.3.2 nor here"}
    ident = post.send("a@back.test", "three@example.test")
    kind, result = only_outcome(post, ident)
    assert kind == "failed" and result["code"] in (550, 554) and "here" in result["text"], (kind, result)
    report = back.wait(1)[0]
    assert report[0] == "" and b"three@example.test" in report[2] and b"5.3.2" in report[2], report


def a_refusing_host_and_an_absent_one(world):
    post, first, second, _ = two_hosts(world)
    first.script = {"banner": "554 5.3.2 no mail here"}
    second.close()
    kind, result = only_outcome(post, post.send("a@back.test", "one@example.test"))
    assert kind == "deferred", (kind, result)


def helo_after_ehlo(world):
    post, first, second, _ = two_hosts(world)
    for n, code in enumerate(("500 5.5.1 what", "502 5.5.1 not here")):
        first.script = {"ehlo": code}
        kind, _ = only_outcome(post, post.send("a@back.test", "h%d@example.test" % n))
        assert kind == "delivered" and first.connections == n + 1, (kind, first.connections)
        assert [stage for stage, _ in first.commands[-7:]].count("helo") == 1, first.commands
    assert names(first.messages) == ["h0", "h1"] and not second.connections
    for n, script in enumerate(({"ehlo": "550 5.7.1 go away"}, {"ehlo": "450 4.7.1 later"},
                                {"ehlo": "500 what", "helo": "550 5.7.1 go away"}, {"ehlo": "500 what", "helo": "421 bye"})):
        first.script = script
        kind, result = only_outcome(post, post.send("a@back.test", "n%d@example.test" % n))
        assert kind == "delivered" and "mx2" in result["remote"], (script, kind, result)


def recipients_are_judged_one_by_one(world):
    """Lines 44 and 45: RCPT 4yz and 5yz are about one recipient, no other host is asked, the rest is delivered now."""
    post, first, second, back = two_hosts(world, SOON)
    verdicts = {"later": ["450 4.2.1 busy", "250 fine"], "never": ["550 5.1.1 nobody"]}

    def rcpt(line):
        replies = verdicts.get(re.search(r"<(.*?)@", line).group(1), ["250 fine"])
        return replies.pop(0) if len(replies) > 1 else replies[0]
    first.script = {"rcpt": rcpt}
    ident = post.send("a@back.test", ["now@example.test", "later@example.test", "never@example.test", "too@example.test"])
    found = outcome(post, ident, 5)
    assert sorted((kind, n) for kind, n, _ in found) == [("deferred", 1), ("delivered", 0), ("delivered", 1), ("delivered", 3),
                                                         ("failed", 2)], found
    assert [m[1] for m in first.messages] == [["now@example.test", "too@example.test"], ["later@example.test"]], first.messages
    assert not second.connections
    report = back.wait(1)[0][2]
    assert report.count(b"Final-Recipient:") == 1 and b"never@example.test" in report, report


def too_many_recipients(world):
    """Line 47: 552 or a bare 452 after accepted ones puts the rest into the next transaction, at once; 552 for the first is a failure."""
    for full in ("552 5.5.3 too many", "552 too many recipients", "452 4.5.3 too many", "452 too many recipients"):
        accepted = []

        def rcpt(line, full=full, accepted=accepted):
            if len(accepted) == 3:
                return full
            accepted.append(line)
            return "250 fine"

        def mail(line, accepted=accepted):
            accepted.clear()
            return "250 fine"
        there = world.sink({"rcpt": rcpt, "mail": mail})
        post, _ = one_host(world, there)
        ident = post.send("a@back.test", ["r%d@there.test" % n for n in range(8)])
        found = outcome(post, ident, 8)
        assert {kind for kind, _, _ in found} == {"delivered"}, (full, found)
        assert sorted(len(m[1]) for m in there.messages) == [2, 3, 3], (full, [m[1] for m in there.messages])
        there.script = {"rcpt": full}
        kind, _ = only_outcome(post, post.send("", "alone@there.test"))
        assert kind == ("failed" if full.startswith("552") else "deferred"), (full, kind)
        post.kill()
        os.rename(post.data_dir, post.data_dir + full[:9].replace(" ", "-") + str(there.port))


def what_421_does(world):
    """At every step: the other host gets the mail, once, and the server that said it is left alone."""
    post, first, second, _ = two_hosts(world)
    for n, step in enumerate(("banner", "ehlo", "mail", "rcpt", "data", "dot")):
        first.script = {step: "421 4.3.2 closing"}
        kind, result = only_outcome(post, post.send("a@back.test", "%s@example.test" % step))
        assert kind == "delivered" and "mx2" in result["remote"], (step, kind, result)
        assert len(second.messages) == n + 1 and not first.messages, step
    post.wait_empty()


def a_421_between_messages_is_nobodys_failure(world):
    """Line 53: a warm connection that says 421, or closes, costs the next message a new connection and nothing else."""
    for way in ("421 4.3.2 idle for too long", "close"):
        # The second MAIL of a connection meets the end that was on its way.
        there = world.sink({"mail": ["250 fine", way, "250 fine"]})
        post, _ = one_host(world, there)
        assert only_outcome(post, post.send("a@back.test", "one@there.test"))[0] == "delivered"
        kind, result = only_outcome(post, post.send("a@back.test", "two@there.test"))
        assert kind == "delivered" and there.connections == 2, (way, kind, result, there.connections)
        post.kill()
        os.rename(post.data_dir, post.data_dir + str(there.port))


def verdicts_about_the_message(world):
    """Line 44: MAIL, DATA and the dot 5yz end it for all, and nobody else is asked; line 45: 4yz asks the next host."""
    post, first, second, _ = two_hosts(world)
    for step in ("mail", "data", "dot"):
        asked = second.connections
        first.script = {step: "554 5.7.1 not this"}
        ident = post.send("", ["x@example.test", "y@example.test"])
        found = outcome(post, ident, 2)
        assert [(kind, r["code"], r["enhanced"]) for kind, _, r in found] == [("failed", 554, "5.7.1")] * 2, (step, found)
        assert second.connections == asked, step
        first.script = {step: "451 4.7.1 later"}
        ident = post.send("", "z-%s@example.test" % step)
        kind, result = only_outcome(post, ident)
        assert kind == "delivered" and "mx2" in result["remote"], (step, kind, result)
        second.script = {step: "450 4.2.0 here too"}
        kind, result = only_outcome(post, post.send("", "both-%s@example.test" % step))
        assert kind == "deferred" and result["code"] in (450, 451), (step, kind, result)
        second.script = {}
        assert post.stop() == 0  # no warm connection to the second host is left for the next step
        post.start()
    assert not first.messages


def codes_outside_the_known(world):
    """Line 42: the first digit decides; outside 2-5 it is no verdict, and the next host is asked."""
    post, first, second, _ = two_hosts(world)
    sent = 0
    for step in ("banner", "ehlo", "mail", "rcpt", "data", "dot"):
        for reply in ("850 odd", "150 odd", "999 odd", "000 odd"):
            first.script = {step: reply}
            kind, result = only_outcome(post, post.send("", "n%d@example.test" % sent))
            sent += 1
            assert kind == "delivered" and "mx2" in result["remote"], (step, reply, kind, result)
    for step, reply in (("mail", "299 fine"), ("rcpt", "251 2.1.5 will forward"), ("dot", "222 fine")):
        first.script = {step: reply}
        kind, result = only_outcome(post, post.send("", "known-%s@example.test" % step))
        assert kind == "delivered" and "mx1" in result["remote"], (step, kind, result)
    first.script = {"rcpt": "599 5.1.1 never"}
    assert only_outcome(post, post.send("", "never@example.test"))[0] == "failed"
    assert len(second.messages) == sent


def lmtp_answers_each(world):
    verdicts = {"now": ["250 taken"], "later": ["452 4.2.2 full", "250 taken"], "never": ["550 5.2.1 closed"]}

    def dot(recipient):
        replies = verdicts[recipient.split("@")[0]]
        return replies.pop(0) if len(replies) > 1 else replies[0]
    there = world.sink({"dot": dot}, lmtp=True)
    post, back = one_host(world, there, SOON, protocol="lmtp")
    ident = post.send("a@back.test", ["now@there.test", "later@there.test", "never@there.test"])
    found = outcome(post, ident, 4)
    assert sorted((kind, n) for kind, n, _ in found) == [("deferred", 1), ("delivered", 0), ("delivered", 1), ("failed", 2)], found
    assert names(there.messages) == ["later", "now"], there.messages
    report = back.wait(1)[0][2]
    assert report.count(b"Final-Recipient:") == 1 and b"never@there.test" in report and b"550 5.2.1 closed" in report, report
    assert [stage for stage, _ in there.commands].count("ehlo") >= 1 and there.commands[1][1].startswith("LHLO"), there.commands[:2]


def lmtp_lost_after_the_first_answer(world):
    """What was answered counts; the others are in doubt."""
    there = world.sink({"dot": ["250 taken", "close", "250 taken"]}, lmtp=True)
    post, _ = one_host(world, there, LATER, protocol="lmtp")
    ident = post.send("a@back.test", ["one@there.test", "two@there.test", "three@there.test"])
    found = outcome(post, ident, 3)
    assert sorted((kind, n) for kind, n, _ in found) == [("delivered", 0), ("in_doubt", 1), ("in_doubt", 2)], found


def in_doubt_waits_a_whole_interval(world):
    """Line 46: nobody else is asked, it is counted, and the same message comes again after one full retry interval."""
    first_ms = 2500
    dots = []

    def dot(argument):
        dots.append(time.monotonic())
        return "close" if len(dots) == 1 else "250 taken"
    post, first, second, _ = two_hosts(world, "retry: {first: %dms, max: 4h, give_up: 5d, delay_notice: 0}" % first_ms)
    first.script = {"dot": dot}
    ident = post.send("a@back.test", "one@example.test")
    assert outcome(post, ident)[0][0] == "in_doubt"
    assert post.figures()["in_doubt"] == 1
    assert "in_doubt" in post.log_text()
    row = post.queue()[0]
    assert row["state"] == "deferred" and row["last"]["enhanced"].startswith("4."), row
    found = outcome(post, ident, 2)
    assert [kind for kind, _, _ in found] == ["in_doubt", "delivered"], found
    waited = dots[1] - dots[0]
    assert first_ms / 1000 - 0.01 <= waited <= first_ms / 1000 * 1.1 + 2, waited
    assert not second.connections and len(first.messages) == 1


def replies_nobody_asked_for(world):
    """A 250 that was sent before the dot is no delivery."""
    post, first, second, _ = two_hosts(world)
    early = (("mail", b"250 a\r\n250 b\r\n354 c\r\n250 taken\r\n"), ("data", b"354 go on\r\n250 taken\r\n"),
             ("banner", b"220 hi\r\n250 hi\r\n250 a\r\n250 b\r\n354 c\r\n250 taken\r\n"), ("data", b"250 taken\r\n"))
    for n, (step, octets) in enumerate(early):
        first.script = {step: octets}
        kind, result = only_outcome(post, post.send("a@back.test", "n%d@example.test" % n))
        assert kind == "delivered" and "mx2" in result["remote"], (step, octets, kind, result)
    assert len(second.messages) == len(early) and not first.messages
    # and more after the right one is a connection that is not used again
    first.script = {"dot": b"250 taken\r\n250 and the next as well\r\n", "data": "354 go on"}
    for n in range(3):
        assert only_outcome(post, post.send("a@back.test", "more%d@example.test" % n))[0] == "delivered"


def after_a_surplus_reply_the_connection_is_over(world):
    there = world.sink({"dot": b"250 2.0.0 taken\r\n250 2.0.0 surplus\r\n"})
    post, _ = one_host(world, there)
    for n in range(3):
        assert only_outcome(post, post.send("a@back.test", "n%d@there.test" % n))[0] == "delivered"
    assert there.connections == 3, there.connections


DIRTY = (b"550 5.1.1 a\0b\x1b[31mc\xff\xc2\x9b\td\x7f\r\n", b"550-5.1.1 one\r\n550-5.1.1 Action: delivered\r\n550 5.1.1 three\r\n",
         b"550 5.1.1 bare\rcarriage\r\n", b"550-5.1.1 bare\n550 5.1.1 feed\n", b"550 5.1.1 " + b"x" * 5000 + b"\r\n",
         b"550-5.1.1 line\r\n" * 500 + b"550 5.1.1 end\r\n", b"550\r\n", b"550 5.1.1 \xe2\x80\xae\xd9\x85\r\n")


def one_clean_line(world):
    there = world.sink()
    post, back = one_host(world, there)
    for step in ("rcpt", "dot"):
        for n, octets in enumerate(DIRTY):
            there.script = {step: octets}
            reports = len(back.messages)
            ident = post.send("a@back.test", "n%d@there.test" % n)
            kind, result = only_outcome(post, ident)
            assert kind == "failed" and result["code"] == 550, (step, octets[:60], kind, result)
            assert re.fullmatch(r"[\x20-\x7e]{0,512}", result.get("text", "")), (step, result)
            shown = post.tool("msg", "trace", ident, text=True)
            assert re.fullmatch(r"[\x20-\x7e\n]*", shown), shown
            report = back.wait(reports + 1)[reports][2]
            assert re.fullmatch(rb"([\x20-\x7e\t]{0,998}\r\n)*", report), report
            status = report.split(b"Content-Type: message/delivery-status")[1]
            assert len(re.findall(rb"(?m)^Action:", status)) == 1 and b"\r\nAction: failed\r\n" in status, status
            assert len(re.findall(rb"(?m)^Diagnostic-Code: smtp; 550", status)) == 1, status
    log = post.log_bytes()
    assert re.fullmatch(rb"[\x20-\x7e\n]*", log), re.findall(rb"[^\x20-\x7e\n].{0,40}", log)


def memory_kib(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def big_replies_cost_nothing(world):
    post, first, second, _ = two_hosts(world)
    assert only_outcome(post, post.send("", "warm@example.test"))[0] == "delivered"
    before = memory_kib(post)
    big = (b"550 " + b"x" * (1 << 20) + b"\r\n", b"250-" + b"y" * 60 + b"\r\n", b"250-z\r\n" * 150000 + b"250 z\r\n",
           b"\0" * (1 << 20) + b"\r\n", b"2" * (1 << 20))
    sent = 0
    for step in ("banner", "ehlo", "mail", "rcpt", "data"):
        for octets in big:
            if octets is big[1]:
                octets = octets * 20000 + b"250 end\r\n"
            first.script = {step: octets}
            ident = post.send("", "n%d@example.test" % sent)
            sent += 1
            kind, result = only_outcome(post, ident)
            assert kind == "delivered" and "mx2" in result["remote"], (step, octets[:20], kind, result)
    assert len(second.messages) == sent
    grown = memory_kib(post) - before
    assert grown < 30 * 1024, "memory grew by %d KiB" % grown


main([greetings_of_the_list, greetings_that_disagree, greetings_all_of_them_refusing,
      a_refusing_host_and_an_absent_one, helo_after_ehlo, recipients_are_judged_one_by_one,
      too_many_recipients, what_421_does, a_421_between_messages_is_nobodys_failure, verdicts_about_the_message,
      codes_outside_the_known, lmtp_answers_each, lmtp_lost_after_the_first_answer, in_doubt_waits_a_whole_interval,
      replies_nobody_asked_for, after_a_surplus_reply_the_connection_is_over, one_clean_line, big_replies_cost_nothing])
