#!/usr/bin/env python3
"""
Proves that servers of a route are told who the client of a message was where the settings ask for it: a real Postfix logs and traces the
original client by XCLIENT and by XFORWARD, and Dovecot by XCLIENT; what is long is split, what is refused or not offered goes on without,
and a connection that stands for one client never carries mail of another.
"""
import os
import re
import smtplib
import sys
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from clients_test import Postfix
from posthouse_test import check, id_of, main, wait_until
from real_servers import Dovecot
from secure import Authority

OFFERED = ("PIPELINING", "8BITMIME", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN", "XFORWARD NAME ADDR PROTO HELO SOURCE IDENT")
EHLO = "250-sink.test\r\n" + "\r\n".join("250-" + word for word in OFFERED[:-1]) + "\r\n250 " + OFFERED[-1]
GREETED = {"xclient": "220 sink.test anew"}


def house(world, port, what, delivery="", more=""):
    return world.posthouse(gateway='loops: 1\ntrusted_networks: ["127.0.0.1/32"]\nslow: {mode: "off"}\nnames: false%s' % more,
                           delivery="limits: {per_site: 1}\n" + delivery,
                           extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\", %s}" % (port, what)).start()


def send(post, sender, recipient, helo="pc.example"):
    with smtplib.SMTP("127.0.0.1", post.port) as s:
        check(s.ehlo(helo), 250)
        check(s.mail(sender), 250)
        check(s.rcpt(recipient), 250)
        return id_of(check(s.data("Subject: x\r\n\r\nhello\r\n"), 250)[1])


def lines(sink, *verbs):
    return [text for stage, text in sink.commands if stage in verbs]


def figure(post, command, result):
    name = 'posthouse_delivery_attributes_total{command="%s",result="%s"}' % (command, result)
    return post.figures().get(name, 0)


def postfix(world, behind, setting, more=""):
    return world.add(Postfix(world, types.SimpleNamespace(authority=types.SimpleNamespace(file="")),
                             "inet_protocols = all\nmynetworks = 0.0.0.0/0, [::]/0\nrelayhost = [127.0.0.1]:%d\n%s = 127.0.0.0/8\n%s"
                             % (behind.port, setting, more)))


def postfix_believes_xclient(world):
    behind = world.sink()
    server = postfix(world, behind, "smtpd_authorized_xclient_hosts")
    post = house(world, server.port, "xclient: true", more='\nbalancers: ["127.0.0.1/32"]')
    for client, shown in (("192.0.2.7", r"192\.0\.2\.7"), ("IPV6:2001:db8::7", r"IPv6:2001:db8::7")):
        count = len(behind.messages)
        with smtplib.SMTP("127.0.0.1", post.port) as s:
            check(s.ehlo("balancer"), 250)
            check(s.docmd("XCLIENT", "ADDR=%s LOGIN=alice@example.net" % client), 220)
            check(s.ehlo("pc.example"), 250)
            check(s.mail("a@here.test"), 250)
            check(s.rcpt("b@far.test"), 250)
            check(s.data("Subject: x\r\n\r\nhello\r\n"), 250)
        octets = behind.wait(count + 1, 60)[count][2].decode()
        first = re.search(r"Received: from (.*?)\r\n\tby client\.test", octets, re.S).group(1)
        assert re.match(r"pc\.example \(unknown \[%s\]\)" % shown, first), octets
        assert "sasl_username=alice@example.net" in server.log(), server.log()
    assert "client=unknown[192.0.2.7]" in server.log() and "client=unknown[2001:db8::7]" in server.log(), server.log()
    # Postfix takes no second XCLIENT of a connection: each client has one of its own
    assert len(re.findall(r" connect from .*\[127\.0\.0\.1\]", server.log())) == 2, server.log()
    assert figure(post, "xclient", "told") == 2


def names_that_postfix_refuses_stay_here(world):
    behind = world.sink()
    server = postfix(world, behind, "smtpd_authorized_xclient_hosts")
    post = house(world, server.port, "xclient: true", more='\nbalancers: ["127.0.0.1/32"]')
    for number, name in enumerate(("-a.example", "a..example", "a-.example", "x" * 64 + ".example", ".example", "1.2.3", "a_b.example")):
        with smtplib.SMTP("127.0.0.1", post.port) as s:
            check(s.ehlo("balancer"), 250)
            check(s.docmd("XCLIENT", "ADDR=192.0.2.7 LOGIN=alice NAME=" + name), 220)
            check(s.ehlo("pc.example"), 250)
            check(s.mail("a@here.test"), 250)
            check(s.rcpt("b@far.test"), 250)
            check(s.data("Subject: x\r\n\r\nhello\r\n"), 250)
        octets = behind.wait(number + 1, 60)[number][2].decode()
        assert octets.startswith("Received: from pc.example (%s [192.0.2.7])" % ("a_b.example" if "_" in name else "unknown")), (name, octets)
    assert figure(post, "xclient", "refused") == 0


def xclient_stays_inside_tls(world):
    behind, authority = world.sink(), Authority(world.directory)
    server = postfix(world, behind, "smtpd_authorized_xclient_hosts", "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = %s\n"
                     "smtpd_tls_key_file = %s\nsmtpd_tls_received_header = yes\n" % authority.issue("postfix", ["127.0.0.1"]))
    post = house(world, server.port, "xclient: true", "tls: {routes: verify, ca_file: %s}" % authority.file)
    send(post, "a@here.test", "b@far.test")
    octets = behind.wait(1, 60)[0][2].decode()
    assert octets.startswith("Received: from pc.example (") and "(using TLSv1" in octets.split("Received:")[1], octets
    assert figure(post, "xclient", "told") == 1


def postfix_believes_xforward(world):
    behind = world.sink()
    server = postfix(world, behind, "smtpd_authorized_xforward_hosts")
    post = house(world, server.port, "xforward: true", more='\nbalancers: ["127.0.0.1/32"]')
    with smtplib.SMTP("127.0.0.1", post.port) as s:
        check(s.ehlo("balancer"), 250)
        check(s.docmd("XCLIENT", "ADDR=192.0.2.7 LOGIN=alice@example.net"), 220)
        check(s.ehlo("pc.example"), 250)
        check(s.mail("a@here.test"), 250)
        check(s.rcpt("b@far.test"), 250)
        name = id_of(check(s.data("Subject: x\r\n\r\nhello\r\n"), 250)[1])
    behind.wait(1, 60)
    line = re.search(r"client=.*orig_client=.*", server.log()).group(0)
    assert "orig_client=unavailable[192.0.2.7]" in line or "orig_client=unknown[192.0.2.7]" in line, line
    assert "orig_queue_id=" + name in line, (name, line)
    assert figure(post, "xforward", "told") == 1


def dovecot_believes_xclient(world):
    there = world.add(Dovecot(world, {"user@home.test": "x"}, more="login_trusted_networks = 127.0.0.0/8"))
    post = world.posthouse(gateway='names: false\nslow: {mode: "off"}\nbalancers: ["127.0.0.1/32"]', extra=
                           "domains:\n  - {name: home.test, route: \"lmtp:127.0.0.1:%d\", xclient: true, recipients: any}" % there.port).start()
    for number, client in enumerate(("192.0.2.7", "IPV6:2001:db8::7")):
        with smtplib.SMTP("127.0.0.1", post.port) as s:
            check(s.ehlo("balancer"), 250)
            check(s.docmd("XCLIENT", "ADDR=" + client), 220)
            check(s.ehlo("pc.example"), 250)
            check(s.mail("a@far.test"), 250)
            check(s.rcpt("user@home.test"), 250)
            check(s.data("Subject: x%d\r\n\r\nhello\r\n" % number), 250)
        wait_until("the mail is there", lambda: len(there.mailbox("user@home.test")) == number + 1)
        octets = [m for m in there.mailbox("user@home.test") if b"Subject: x%d" % number in m][0]
        shown = client.replace("IPV6:", "").encode()
        assert re.search(rb"Received: from pc\.example \(\[(IPv6:)?%s\]\)\r?\n\tby .* with LMTP" % re.escape(shown), octets), octets
    assert figure(post, "xclient", "told") == 2 and figure(post, "xclient", "refused") == 0


def each_connection_stands_for_one_client(world):
    sink = world.sink(GREETED, extensions=OFFERED)
    post = house(world, sink.port, "xclient: true, xforward: true")
    for _ in range(2):
        send(post, "a@here.test", "b@far.test", helo="one.example")
        post.wait_empty()
    assert sink.connections == 1
    told = lines(sink, "xclient")
    ports = re.findall(r"PORT=(\d+)", " ".join(told))
    assert len(told) == 2 and len(set(ports)) == 2, told  # another port is another client
    assert all(re.fullmatch(r"XCLIENT NAME=\[UNAVAILABLE\] ADDR=127\.0\.0\.1 PORT=\d+ HELO=one\.example PROTO=ESMTP LOGIN=\[UNAVAILABLE\]", t)
               for t in told), told
    forwarded = lines(sink, "xforward")
    assert len(forwarded) == 2 and all(" SOURCE=LOCAL IDENT=" in f for f in forwarded), forwarded
    order = [stage for stage, _ in sink.commands]
    assert order == ["banner", "ehlo"] + ["xclient", "ehlo", "xforward", "mail", "rcpt", "data", "dot"] * 2, order
    assert [text for stage, text in sink.commands if stage == "ehlo"][1:] == ["EHLO one.example"] * 2


def reports_have_a_connection_of_their_own(world):
    sink = world.sink(dict(GREETED, rcpt=lambda line: "550 5.1.1 no" if "nobody" in line else "250 2.1.5 fine"), extensions=OFFERED)
    post = house(world, sink.port, "xclient: true")
    send(post, "a@here.test", "nobody@far.test")
    sink.wait(1)
    post.wait_empty()
    assert sink.messages[0][:2] == ("", ["a@here.test"]) and sink.connections == 2
    order = [stage for stage, _ in sink.commands if stage in ("banner", "xclient", "dot")]
    assert order == ["banner", "xclient", "banner", "dot"], sink.commands


def mail_that_nobody_is_to_be_told_of_has_one_too(world):
    sink = world.sink(GREETED, extensions=OFFERED)
    post = world.posthouse(gateway='loops: 1\ntrusted_networks: ["127.0.0.1/32"]\nslow: {mode: "off"}\nnames: false', delivery="limits: {per_site: 1}", extra="""
routes:
  - {domain: told.test, route: "smtp:127.0.0.1:%d", xclient: true}
  - {domain: "*", route: "smtp:127.0.0.1:%d"}""" % (sink.port, sink.port)).start()
    for domain in ("told.test", "untold.test", "told.test"):
        send(post, "a@here.test", "b@" + domain)
        post.wait_empty()
    order = [stage for stage, _ in sink.commands if stage in ("banner", "xclient", "dot")]
    assert order == ["banner", "xclient", "dot", "banner", "dot", "xclient", "dot"], sink.commands


def a_client_that_is_refused_is_no_failure_of_the_server(world):
    sink = world.sink(dict(GREETED, ehlo=lambda line: "550 5.7.1 not by this name" if "bad.example" in line else EHLO,
                           mail=lambda line: "421 4.7.1 not from this client" if "bad@" in line else "250 2.1.0 fine"), extensions=OFFERED)
    post = house(world, sink.port, "xclient: true")
    for number, (sender, helo) in enumerate((("a@here.test", "bad.example"), ("bad@here.test", "good.example"))):
        send(post, sender, "b@far.test", helo)
        wait_until("it was put off", lambda: post.log_text().count(" deferred ") > number, 20)
        send(post, "a@here.test", "b@far.test", "good.example")
        sink.wait(number + 1)
    assert "site_failed" not in post.log_text() and "suspend" not in post.log_text()


def a_rule_does_not_rest_a_server_for_what_a_stranger_heard(world):
    sink = world.sink(dict(GREETED, ehlo=EHLO, mail=lambda line: "451 4.7.1 too many from you" if "bad@" in line else "250 2.1.0 fine"))
    post = house(world, sink.port, "xclient: true", delivery="reply_rules: \"%s\"\n" % world.file("rules.txt", "suspend 1h /too many/\n"))
    send(post, "bad@a.test", "x@b.test", helo="bad.example")
    wait_until("the deferral", lambda: " deferred " in post.log_text())
    send(post, "good@a.test", "x@b.test", helo="good.example")
    sink.wait(1)
    assert "site_paused" not in post.log_text() and sink.messages[0][0] == "good@a.test", sink.messages


def refused_and_not_offered_go_on_without(world):
    for number, (script, offered, result) in enumerate((({"xclient": "503 5.5.1 not now", "xforward": "501 5.5.4 bad"}, OFFERED, "refused"),
                                                        ({}, ("PIPELINING",), "not_offered"))):
        sink = world.sink(script, extensions=offered)
        post = house(world, sink.port, "xclient: true, xforward: true") if number == 0 else post
        if number:
            post.write_settings(gateway='loops: 1\ntrusted_networks: ["127.0.0.1/32"]\nslow: {mode: "off"}\nnames: false',
                                extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\", xclient: true, xforward: true}" % sink.port)
            post.reload()
            wait_until("the new route", lambda: "reloaded" in post.log_text(), 10)
        for _ in range(2):
            send(post, "a@here.test", "b@far.test")
            post.wait_empty()
        assert len(sink.wait(2)) == 2
        assert len(lines(sink, "xclient")) == len(lines(sink, "xforward")) == (1 if number == 0 else 0), sink.commands
        assert figure(post, "xclient", result) >= 1 and figure(post, "xforward", result) >= 1, post.figures()


def what_is_long_is_split(world):
    sink = world.sink(GREETED, extensions=OFFERED)
    post = house(world, sink.port, "xclient: true, xforward: true", more='\nbalancers: ["127.0.0.1/32"]')
    name, helo = "n" * 63 + ".example", "[" + "h" * 240 + "]"
    with smtplib.SMTP("127.0.0.1", post.port) as s:
        check(s.ehlo("balancer"), 250)
        check(s.docmd("XCLIENT", "NAME=%s ADDR=192.0.2.7 LOGIN=%s" % (name, "u" * 190)), 220)
        check(s.docmd("EHLO", helo), 250)
        check(s.mail("a@here.test"), 250)
        check(s.rcpt("b@far.test"), 250)
        check(s.data("Subject: x\r\n\r\nhello\r\n"), 250)
    sink.wait(1)
    told = lines(sink, "xclient")
    assert len(told) == 2 and all(len(t) + 2 <= 512 for t in told), told
    assert told[1].startswith("XCLIENT HELO=[hhh") and told[1].endswith("LOGIN=" + "u" * 190), told
    assert told[0].startswith("XCLIENT NAME=%s ADDR=192.0.2.7 PORT=" % name), told


if __name__ == "__main__":
    main([postfix_believes_xclient, names_that_postfix_refuses_stay_here, xclient_stays_inside_tls, postfix_believes_xforward, dovecot_believes_xclient, each_connection_stands_for_one_client,
          reports_have_a_connection_of_their_own, mail_that_nobody_is_to_be_told_of_has_one_too,
          a_client_that_is_refused_is_no_failure_of_the_server, a_rule_does_not_rest_a_server_for_what_a_stranger_heard,
          refused_and_not_offered_go_on_without, what_is_long_is_split])
