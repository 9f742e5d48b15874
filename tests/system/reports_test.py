#!/usr/bin/env python3
"""
Proves what becomes of mail that cannot be delivered, seen from its sender: one report for many failures, a notice of delay and then a
report when it is given up, no report where none is wanted, no report about a report; and that two gateways which are routed at each
other stop.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import Posthouse, check, free_port, main, wait_until

ROUTES = "routes:\n  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"


def start(world, there, retry="first: 300ms, max: 500ms, give_up: 1h, delay_notice: 0"):
    """back.test takes everything; all other domains are the server `there`."""
    back = world.sink()
    post = world.posthouse(extra=ROUTES % (back.port, there.port), delivery="retry: {%s}" % retry).start()
    return post, back


def kinds(post, ident):
    return [t["kind"] for t in post.tool("msg", "trace", ident)["traces"]]


def a_thousand_failures_are_few_reports(world):
    there = world.sink({"rcpt": "550 5.1.1 no such user"})
    post, back = start(world, there)
    post.send("a@back.test", ["u%d@d%d.test" % (n, n % 10) for n in range(1000)])
    post.wait_empty(60)
    reports = [m for m in back.messages if m[0] == ""]
    assert 1 <= len(reports) <= 10, "%d reports for one message" % len(reports)
    named = sum(m[2].count(b"Final-Recipient:") for m in reports)
    assert named == 1000, "%d of 1000 recipients are named" % named


def delayed_then_given_up(world):
    there = world.sink({"mail": "451 4.3.0 later"})
    post, back = start(world, there, "first: 300ms, max: 500ms, give_up: 4s, delay_notice: 1s")
    began = time.monotonic()
    ident = post.send("a@back.test", "b@there.test")
    delayed = back.wait(1, 20)[0]
    assert b"Action: delayed" in delayed[2] and b"Will-Retry-Until:" in delayed[2], delayed
    assert b"Status: 4." in delayed[2], delayed
    failed = back.wait(2, 30)[1]
    assert time.monotonic() - began >= 3.5, "given up too early"
    assert failed[0] == "" and failed[1] == ["a@back.test"], failed
    assert b"Action: failed" in failed[2] and b"b@there.test" in failed[2], failed
    post.wait_empty()
    assert "given_up" in kinds(post, ident) and len(back.messages) == 2, (kinds(post, ident), len(back.messages))


def none_where_none_is_wanted(world):
    there = world.sink({"rcpt": "550 5.1.1 no such user"})
    post, back = start(world, there)
    never = post.send("a@back.test", "b@there.test", rcpt_options=["NOTIFY=NEVER"])
    null = post.send("", "b@there.test")
    wait_until("both have ended", lambda: "no_report" in kinds(post, never) and "no_report" in kinds(post, null))
    wanted = post.send("a@back.test", "b@there.test", rcpt_options=["NOTIFY=FAILURE", "ORCPT=rfc822;first+40there.test"],
                       mail_options=["ENVID=an+20id", "RET=HDRS"], body="Subject: s\r\n\r\nsecret\r\n")
    report = back.wait(1)[0][2]
    assert b"Original-Recipient: rfc822;first@there.test" in report.replace(b"; ", b";").replace(b"Recipient:rfc", b"Recipient: rfc"), report
    assert b"Original-Envelope-Id: an id" in report and b"Subject: s" in report and b"secret" not in report, report
    post.wait_empty()
    assert len(back.messages) == 1 and "reported" in kinds(post, wanted)


def no_report_about_a_report(world):
    """The sender's own server refuses the report: it is dropped, with the reason in its history."""
    there = world.sink({"rcpt": "550 5.1.1 no such user"})
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % there.port).start()
    post.send("a@back.test", "b@there.test")
    post.wait_empty()
    time.sleep(0.5)
    post.wait_empty()
    assert [a for s, a in there.commands if s == "rcpt"][0].startswith("RCPT TO:<b@there.test>")
    assert len([s for s, _ in there.commands if s == "rcpt"]) == 2, there.commands
    assert post.figures()["reports"] == 1 and not there.messages


def what_a_server_says_adds_no_line(world):
    """CR, LF, NUL and a field name in a remote reply or ORCPT make no new field in a report."""
    there = world.sink({"rcpt": b"550-5.1.1 one\r\n550 5.1.1 two\x00\rAction: delivered\r\n"})
    post, back = start(world, there)
    with post.smtp() as s:
        s.ehlo()
        check(s.mail("a@back.test"), 250)
        code, _ = s.rcpt("b@there.test", ["ORCPT=rfc822;x+0D+0AAction:+20delivered"])
        if code == 250:
            check(s.data(b"Subject: s\r\n\r\nx\r\n"), 250)
        else:
            assert code == 501, code
    post.send("a@back.test", "c@there.test")
    for _, _, report in list(back.wait(1 if code == 501 else 2)):
        actions = [line for line in report.splitlines() if line.startswith(b"Action:")]
        assert actions == [b"Action: failed"], report
        assert b"\x00" not in report


def two_gateways_at_each_other(world):
    ports = [free_port(), free_port()]
    posts = []
    for n in range(2):
        directory = os.path.join(world.directory, "gateway%d" % n)
        os.makedirs(directory)
        posts.append(Posthouse(directory, port=ports[n], gateway="limits: {received_headers: 12}", extra=
                               "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % ports[1 - n]))
    try:
        for post in posts:
            post.start()
        posts[0].send("", "b@there.test")
        wait_until("the loop has ended", lambda: any("5.4.6" in post.log_text() for post in posts), 30)
        for post in posts:
            post.wait_empty()
        passed = sum(post.figures()["posthouse_messages_stored_total"] for post in posts)
        assert 5 <= passed <= 14, "%d hops" % passed
    finally:
        for post in posts:
            if post.process:
                post.kill()


main([a_thousand_failures_are_few_reports, delayed_then_given_up, none_where_none_is_wanted, no_report_about_a_report,
      what_a_server_says_adds_no_line, two_gateways_at_each_other])
