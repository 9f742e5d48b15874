#!/usr/bin/env python3
"""
Proves what becomes of mail that cannot be delivered, seen from its sender: one report for many failures, a notice of delay and then a
report when it is given up, no report where none is wanted, no report about a report; and that two gateways which are routed at each
other stop. And what reports look like: every form read by Python's email package without loss, in the sender's words, with categories.
"""
import base64
import email
import email.policy
import os
import quopri
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, Posthouse, check, free_port, main, wait_until

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



def parse(octets):
    """The report as Python's email package reads it: (message, text, [fields per block], original as octets)."""
    report = email.message_from_bytes(octets, policy=email.policy.SMTPUTF8)
    assert not report.defects and len(report.get_payload()) == 3
    for n, part in enumerate(report.get_payload()):  # what is encoded, the package reads only after we decode it
        encoded = n > 0 and part["Content-Transfer-Encoding"] in ("base64", "quoted-printable")
        read = email.message_from_bytes(decoded(octets, n), policy=email.policy.SMTPUTF8) if encoded else part
        assert not part.defects and not any(p.defects for p in read.walk()), (n, octets)
    assert report.get_content_type() == "multipart/report" and report.get_param("report-type") == "delivery-status"
    text, status, original = report.get_payload()
    if status.get_content_type() == "message/delivery-status":
        blocks = status.get_payload()
    else:
        assert status.get_content_type() == "message/global-delivery-status", status.get_content_type()
        blocks = [email.message_from_bytes(part, policy=email.policy.SMTPUTF8)
                  for part in decoded(octets, 1).strip(b"\r\n").split(b"\r\n\r\n")]
    return report, text.get_content(), blocks, decoded(octets, 2)


def decoded(octets, number):
    """The octets of a part, taken out of its boundaries by hand: the email package reads messages into trees."""
    boundary = b"\r\n--" + email.message_from_bytes(octets).get_boundary().encode()
    part = octets.split(boundary)[number + 1]
    head, _, body = part.partition(b"\r\n\r\n")
    encoding = email.message_from_bytes(head.lstrip(b"\r\n") + b"\r\n\r\n")["Content-Transfer-Encoding"]
    return base64.b64decode(body) if encoding == "base64" else quopri.decodestring(body) if encoding == "quoted-printable" else body


def an_independent_parser_reads_all_forms(world):
    there = world.sink({"rcpt": "550 5.1.1 no such user"})
    post, back = start(world, there)
    utf8 = "b\u00fccher@there.test"
    cases = [  # sender, recipient, SMTPUTF8, header, body, type of the status, Final-Recipient, type of the original, SMTPUTF8
        ("a@back.test", "b@there.test", False, "x", "hello", "message/delivery-status", "rfc822; b@there.test", "message/rfc822", False),
        ("a@back.test", "b@there.test", False, "x", "na\u00efve", "message/delivery-status", "rfc822; b@there.test", "message/rfc822", False),
        ("a@back.test", utf8, True, "Gr\u00fc\u00dfe", "h\u00e9", "message/global-delivery-status", "utf-8; " + utf8, "message/global", False),
        ("a@back.test", "b@there.test", True, "Gr\u00fc\u00dfe", "h", "message/global-delivery-status", "rfc822; b@there.test", "message/global", False),
        ("\u00e4@back.test", utf8, True, "Gr\u00fc\u00dfe", "h\u00e9", "message/global-delivery-status", "utf-8; " + utf8, "message/global", True),
        ("\u00e4@back.test", "b@there.test", True, "x", "h", "message/global-delivery-status", "rfc822; b@there.test", "message/global", True),
    ]
    for n, (sender, recipient, smtputf8, subject, body, kind, final, original_kind, report_utf8) in enumerate(cases):
        content = ("Subject: %s\r\nFrom: <%s>\r\n\r\n%s\r\n.dot\r\n" % (subject, sender, body)).encode()
        orcpt = "ORCPT=utf-8;b\\x{FC}cher+2Bx@there.test" if smtputf8 else "ORCPT=rfc822;B+2Bx@there.test"
        options = ["RET=FULL", "ENVID=id+2B%d" % n, "BODY=8BITMIME"] + (["SMTPUTF8"] if smtputf8 else [])
        post.send(sender, recipient, body=content, mail_options=options, rcpt_options=[orcpt])
        octets = back.wait(n + 1)[n][2]
        asked = [a for stage, a in back.commands if stage == "mail"][n]
        assert ("SMTPUTF8" in asked) == report_utf8, (n, asked)
        report, text, blocks, original = parse(octets)
        parts = report.get_payload()
        assert parts[1].get_content_type() == kind and parts[2].get_content_type() == original_kind, (n, octets)
        assert report["Auto-Submitted"] == "auto-replied" and parts[0]["Content-Language"] == "en", (n, octets)
        assert recipient in text and "no such user" in text, (n, text)
        assert len(blocks) == 2 and blocks[0]["Original-Envelope-Id"] == "id+%d" % n, (n, octets)
        assert blocks[0]["Reporting-MTA"] == "dns; mx.posthouse.test" and blocks[0]["Arrival-Date"]
        fields = blocks[1]
        assert fields["Final-Recipient"] == final and fields["Action"] == "failed" and fields["Status"] == "5.1.1", (n, octets)
        assert fields["Diagnostic-Code"].startswith("smtp; 550 5.1.1 no such user"), fields["Diagnostic-Code"]
        assert fields["Remote-MTA"] == "dns; [127.0.0.1]", fields["Remote-MTA"]
        expected = "utf-8; b\u00fccher+x@there.test" if smtputf8 else "rfc822; B+x@there.test"
        assert fields["Original-Recipient"] == expected, (n, fields["Original-Recipient"])
        assert original.endswith(content), (n, original)
        assert original.startswith(b"Received: from client.test") and original.count(b"\r\n\r\n") == 1, (n, original)
    post.wait_empty()


def success_is_told_by_who_knows(world):
    """relayed by a server without DSN, delivered to a mailbox, expanded by an alias; nothing when the next server reports."""
    plain, dsn = world.sink(extensions=("PIPELINING", "8BITMIME")), world.sink()
    box = world.sink(lmtp=True)
    back = world.sink()
    world.file("users.txt", "bob\nteam: bob, c@plain.test, d@dsn.test\none: c@plain.test\n")
    post = world.posthouse(extra="domains:\n  - {name: own.test, route: \"lmtp:127.0.0.1:%d\", recipients: {table: users.txt}}\n"
                           "routes:\n  - {domain: plain.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: dsn.test, route: \"smtp:127.0.0.1:%d\"}\n"
                           "  - {domain: back.test, route: \"smtp:127.0.0.1:%d\"}\n" % (box.port, plain.port, dsn.port, back.port)).start()
    told = {}
    for n, recipient in enumerate(["x@plain.test", "bob@own.test", "team@own.test", "one@own.test"]):
        post.send("a@back.test", recipient, rcpt_options=["NOTIFY=SUCCESS"])
        octets = back.wait(n + 1)[n][2]
        _, text, blocks, original = parse(octets)
        told[recipient] = [(b["Final-Recipient"], b["Action"], b["Status"][0]) for b in blocks[1:]]
        assert original.endswith(b"Subject: test\r\n") and "{{" not in text, octets
    assert told == {"x@plain.test": [("rfc822; x@plain.test", "relayed", "2")],
                    "bob@own.test": [("rfc822; bob@own.test", "delivered", "2")],
                    "team@own.test": [("rfc822; team@own.test", "expanded", "2")],
                    "one@own.test": [("rfc822; c@plain.test", "relayed", "2")]}, told
    asked = [a for stage, a in dsn.commands if stage == "rcpt"]
    assert len(asked) == 1 and "NOTIFY=NEVER" in asked[0], asked  # the target of team: success is ours to tell
    post.send("a@back.test", "y@dsn.test", rcpt_options=["NOTIFY=SUCCESS"])
    wait_until("it is there", lambda: len(dsn.messages) == 2)
    post.wait_empty()
    assert len(back.messages) == 4, back.messages[4:]


def words_follow_the_sender(world):
    there, back = world.sink({"rcpt": "550 5.1.1 no such user {{postmaster}}"}), world.sink()
    world.file("own.txt", "[failure]\nSubject: D\u00e9sol\u00e9 de {{hostname}}\n\n{{each}}\nNo: {{recipient}} {{status}}\n{{advice}}\n{{reason}}\n{{end}}\n")
    reports = "reports:\n  language: es\n  templates:\n    - {domain: own.test, file: own.txt, language: fr}\n    - {domain: .de.test, language: de}\n"
    extra = "routes:\n  - {domain: there.test, route: \"smtp:127.0.0.1:%d\"}\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % (there.port, back.port)
    post = world.posthouse(extra=extra + reports).start()
    expected = [("a@own.test", "fr", "D\u00e9sol\u00e9 de mx.posthouse.test", "No: b@there.test 5.1.1"),
                ("a@x.de.test", "de", "Ihre Nachricht konnte nicht zugestellt werden", "Dieses Postfach gibt es dort nicht."),
                ("a@else.test", "es", "No se pudo entregar su mensaje", "Ese buz\u00f3n no existe all\u00ed.")]
    for n, (sender, language, subject, words) in enumerate(expected):
        post.send(sender, "b@there.test")
        report, text, _, _ = parse(back.wait(n + 1)[n][2])
        assert report["Subject"] == subject and words in text and "{{postmaster}}" in text, (report["Subject"], text)
        assert report.get_payload()[0]["Content-Language"] == language
    world.file("own.txt", "[failure]\nSubject: x\n\n{{each}}\n{{who}}\n")
    checked = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", post.config, "--check"], capture_output=True, text=True)
    said = checked.stdout + checked.stderr
    assert checked.returncode != 0 and "own.txt:5: no such variable" in said and "own.txt:5: {{each}} without {{end}}" in said, said
    post.reload()
    wait_until("the broken template is refused", lambda: "no such variable" in post.log_text())
    post.send("a@own.test", "b@there.test")
    assert "No: b@there.test" in parse(back.wait(4)[3][2])[1]  # the old one still counts
    world.file("own.txt", "[failure]\nSubject: new\nnew words\n")
    post.reload()
    wait_until("the new template counts", lambda: post.send("a@own.test", "b@there.test") and b"new words" in back.wait(5)[-1][2], 20, 0.5)


AUTOMATIC = {
    "feedback": "Content-Type: multipart/report; report-type=feedback-report;\r\n boundary=b\r\n",
    "report": "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
    "auto_submitted": "Auto-Submitted: auto-generated\r\n",
    "precedence": "Precedence: bulk\r\n",
}


def automatic_mail_hears_of_failures_only(world):
    there = world.sink({"rcpt": lambda line: "550 5.1.1 no such user" if "bad" in line else "451 4.2.2 over quota" if "late" in line else "250 2.1.5 fine"},
                       extensions=("8BITMIME",))
    post, back = start(world, there, "first: 300ms, max: 500ms, give_up: 1h, delay_notice: 500ms")
    for why, field in AUTOMATIC.items():
        body = "Subject: s\r\n%s\r\nx\r\n" % field
        late = post.send("a@back.test", "late@there.test", body=body, rcpt_options=["NOTIFY=DELAY,FAILURE"])
        good = post.send("a@back.test", "good@there.test", body=body, rcpt_options=["NOTIFY=SUCCESS"])
        wait_until("both are withheld", lambda: "no_report" in kinds(post, late) and "no_report" in kinds(post, good), 20)
        assert post.log_text().count("report_withheld") >= 2 and "why=%s" % why in post.log_text().replace('"', "")
    assert not back.messages
    for n, field in enumerate(AUTOMATIC.values()):
        post.send("a@back.test", "bad@there.test", body="Subject: s\r\n%s\r\nx\r\n" % field)
        assert b"Action: failed" in back.wait(n + 1)[n][2]
    person = post.send("a@back.test", "late@there.test", body="Subject: s\r\nAuto-Submitted: no\r\n\r\nx\r\n")
    assert b"Action: delayed" in back.wait(5)[4][2] and "reported" in kinds(post, person)


def each_recipient_has_a_return_path(world):
    there, back = world.sink(), world.sink()
    post = world.posthouse(extra=ROUTES % (back.port, there.port), delivery="verp: [news@back.test, bulk.test]").start()
    post.send("news@back.test", ["u%d@d.test" % n for n in range(5)])
    post.send("other@back.test", ["v@d.test", "w@d.test"])
    post.send("any@bulk.test", "\"a b\"@d.test")
    wait_until("all are there", lambda: len(there.messages) == 7)
    got = sorted((sender, tuple(to)) for sender, to, _ in there.messages)
    assert got == sorted([("news+u%d=d.test@back.test" % n, ("u%d@d.test" % n,)) for n in range(5)] +
                         [("other@back.test", ("v@d.test", "w@d.test")), ("any@bulk.test", ("\"a b\"@d.test",))]), got
    there.script["rcpt"] = "550 5.1.1 no such user"
    post.send("news@back.test", "z@d.test")
    report = back.wait(1)[0]
    assert report[0] == "" and report[1] == ["news@back.test"], report


def failures_have_categories(world):
    there = world.sink({"rcpt": lambda line: "452 4.2.2 The recipient's inbox is out of storage space" if "full" in line
                        else "550 5.7.1 blocked using zen.spamhaus.org"})
    post, _ = start(world, there)
    full = post.send("a@back.test", "full@there.test")
    listed = post.send("a@back.test", "b@there.test")
    wait_until("both were tried", lambda: "deferred" in kinds(post, full) and "failed" in kinds(post, listed))
    log = post.log_text().replace('"', "")
    assert "category=mailbox_full" in log and "category=reputation" in log, log[-3000:]
    traces = [t["result"]["category"] for i in (full, listed) for t in post.tool("msg", "trace", i)["traces"] if t["kind"] in ("deferred", "failed")]
    assert set(traces) == {"mailbox_full", "reputation"}, traces
    assert "Category: mailbox_full." in post.tool("msg", "why", full, text=True)
    wait_until("it has left, and why is told", lambda: "[reputation]" in post.tool("msg", "why", listed, text=True))
    figures = {k: v for k, v in post.figures().items() if "bounces" in k or "deferrals_total" in k}
    assert sum(v for k, v in figures.items() if "bounces" in k and "reputation" in k) == 1, figures
    assert sum(v for k, v in figures.items() if "deferrals_total" in k and "mailbox_full" in k) >= 1, figures


main([a_thousand_failures_are_few_reports, delayed_then_given_up, none_where_none_is_wanted, no_report_about_a_report,
      what_a_server_says_adds_no_line, two_gateways_at_each_other, an_independent_parser_reads_all_forms, success_is_told_by_who_knows,
      words_follow_the_sender, automatic_mail_hears_of_failures_only, each_recipient_has_a_return_path, failures_have_categories])
