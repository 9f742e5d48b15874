#!/usr/bin/env python3
"""
Proves the sendmail command: what programs call it with, by hand and from Python's and cron's habits, comes out at a server as it should,
once for each recipient; what is missing is added, Bcc goes, dots and line ends survive; refusals and an absent gateway come back
as exit status, with nothing kept; and mail goes through the daemon to a mailbox server.
"""
import email
import email.policy
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, Sink, free_port, main

MAILER = os.path.join(BUILD, "posthouse-sendmail")
OK, USAGE, DATA, NO_USER, UNAVAILABLE, TEMPFAIL = 0, 64, 65, 67, 69, 75


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def sendmail(port, *words, text=b"Subject: x\n\nhello\n"):
    env = dict(os.environ, POSTHOUSE_SUBMIT="127.0.0.1:%d" % port)
    return subprocess.run([MAILER] + list(words), input=text, capture_output=True, timeout=60, env=env)


def parsed(octets):
    return email.message_from_bytes(octets, policy=email.policy.default)


def one_message_with_what_it_lacks(world):
    sink = Sink()
    done = sendmail(sink.port, "-f", "root@a.test", "-F", "Daily \"cron\"", "bob@b.test", "carol@c.test")
    check(done.returncode == OK and done.stderr == b"", done)
    (sender, recipients, octets), = sink.wait(1)
    check((sender, recipients) == ("root@a.test", ["bob@b.test", "carol@c.test"]), (sender, recipients))
    m = parsed(octets)
    check(m["From"].addresses[0].addr_spec == "root@a.test" and m["From"].addresses[0].display_name == "Daily \"cron\"", m["From"])
    check(m["Date"] and m["Message-ID"] and "userid %d" % os.getuid() in m["Received"] and m.get_content().rstrip() == "hello", octets)
    check(b"\n" not in octets.replace(b"\r\n", b""), "a bare LF")
    whole = b"From: x@y.test\nDate: Tue, 24 Nov 2026 12:00:00 +0000\nMessage-ID: <1@y.test>\nX-Kept: yes\n\nb\n"
    check(sendmail(sink.port, "-f", "x@y.test", "bob@b.test", text=whole).returncode == OK, "whole")
    octets = sink.wait(2)[1][2]
    check(sendmail(sink.port, "-f", "x@y.test", "bob@b.test", text=b"Bcc: hidden@y.test,\n more@y.test\n" + whole).returncode == OK, "Bcc")
    check(b"hidden" not in sink.wait(3)[2][2] and b"more@" not in sink.messages[2][2], sink.messages[2])
    check(octets.split(b"\r\n", 1)[1] == whole.replace(b"\n", b"\r\n"), octets)  # one Received field before it, and no change


def recipients_of_the_header(world):
    sink = Sink()
    text = (b"From: Me <me@a.test>\nTo: \"Last, First\" <one@b.test>,\n\tfriends: two@b.test, three (3) <three@b.test>;\nCc: four@b.test\n"
            b"Bcc: five@b.test,\n six@b.test\nSubject: -t\n\nbody\n")
    done = sendmail(sink.port, "-t", "-i", "-f", "me@a.test", "seven@b.test", text=text)
    check(done.returncode == OK, done)
    (_, recipients, octets), = sink.wait(1)
    check(sorted(recipients) == sorted("%s@b.test" % n for n in ("one", "two", "three", "four", "five", "six", "seven")), recipients)
    check(b"Bcc" not in octets and b"five@" not in octets and b"six@" not in octets and b"Cc: four@b.test" in octets, octets)
    resent = b"Resent-To: r@b.test\nResent-From: me@a.test\nTo: not@b.test\n\nagain\n"
    check(sendmail(sink.port, "-t", "-f", "me@a.test", text=resent).returncode == OK, "resent")
    check(sink.wait(2)[1][1] == ["r@b.test"], sink.messages[1])
    for wrong in (b"Subject: nobody\n\nx\n", b"To: two words\n\nx\n"):
        done = sendmail(sink.port, "-t", text=wrong)
        check(done.returncode in (USAGE, DATA) and done.stderr, done)
    check(len(sink.messages) == 2, "nothing more was sent")


def dots_and_line_ends(world):
    sink = Sink()
    body = b"Subject: d\n\n.\n..\n.x\nlast without end"
    check(sendmail(sink.port, "-i", "-f", "a@a.test", "b@b.test", text=body).returncode == OK, "-i")
    check(sink.wait(1)[0][2].endswith(b"\r\n\r\n.\r\n..\r\n.x\r\nlast without end\r\n"), sink.messages[0])
    check(sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=b"Subject: d\n\nkept\n.\nnot kept\n").returncode == OK, "a dot ends")
    check(sink.wait(2)[1][2].endswith(b"\r\n\r\nkept\r\n"), sink.messages[1])
    check(sendmail(sink.port, "-oi", "-f", "a@a.test", "b@b.test", text=b"Subject: d\r\n\r\ncrlf\r\n.\r\nx").returncode == OK, "CRLF")
    check(sink.wait(3)[2][2].endswith(b"Subject: d\r\n\r\ncrlf\r\n.\r\nx\r\n"), sink.messages[2])
    check(sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=b"no header at all\nmore\n").returncode == OK, "no header")
    check(sink.wait(4)[3][2].endswith(b"\r\n\r\nno header at all\r\nmore\r\n"), sink.messages[3])
    check(sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=b"From joe Tue Nov 24\nSubject: mbox\n\nx\n").returncode == OK, "mbox")
    check(b"From joe" not in sink.wait(5)[4][2], sink.messages[4])
    check(sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=b" Subject: blank\nTo: x@b.test\n\nx\n").returncode == OK, "a blank first")
    check(sink.wait(6)[5][2].endswith(b"\r\n\r\n Subject: blank\r\nTo: x@b.test\r\n\r\nx\r\n"), sink.messages[5])
    done = sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=b"Subject: x\n\na\0b\n")
    check(done.returncode == DATA and len(sink.messages) == 6, done)
    long = b"Subject: long\n\n" + b"y" * 3000000 + b"\n"
    done = sendmail(sink.port, "-f", "a@a.test", "b@b.test", text=long)
    check(done.returncode == DATA and len(sink.messages) == 6, done)


def the_null_path_and_users(world):
    sink = Sink()
    for sender in ("<>", ""):
        check(sendmail(sink.port, "-f", sender, "b@b.test").returncode == OK, sender)
    check([m[0] for m in sink.wait(2)] == ["", ""], sink.messages)
    check(sendmail(sink.port, "alice").returncode == OK, "a user of this machine")
    sender, recipients, octets = sink.wait(3)[2]
    check(sender.count("@") == 1 and recipients == ["alice@" + sender.split("@")[1]], (sender, recipients))
    check(parsed(octets)["From"].addresses[0].addr_spec == sender, octets)


def reports_are_asked_for(world):
    sink = Sink()
    check(sendmail(sink.port, "-N", "success,failure", "-R", "hdrs", "-V", "id+1", "-f", "a@a.test", "b@b.test").returncode == OK, "DSN")
    sink.wait(1)
    lines = [argument for stage, argument in sink.commands if stage in ("mail", "rcpt")]
    check("RET=HDRS" in lines[0] and "ENVID=id+2B1" in lines[0] and "NOTIFY=SUCCESS,FAILURE" in lines[1], lines)
    for words in (["-N", "never,delay"], ["-N", "sometimes"], ["-R", "some"]):
        check(sendmail(sink.port, *words, "b@b.test").returncode == USAGE, words)


def refusals_are_exit_status(world):
    sink = Sink({"rcpt": lambda line: "550 5.1.1 no such user" if "nobody" in line else "450 4.2.0 later" if "later" in line else "250 fine"})
    done = sendmail(sink.port, "-f", "a@a.test", "b@b.test", "nobody@b.test")
    check(done.returncode == NO_USER and b"nobody@b.test: 550" in done.stderr and sink.wait(1)[0][1] == ["b@b.test"], done)
    done = sendmail(sink.port, "-f", "a@a.test", "nobody@b.test")
    check(done.returncode == UNAVAILABLE and len(sink.messages) == 1, done)
    done = sendmail(sink.port, "-f", "a@a.test", "later@b.test")
    check(done.returncode == TEMPFAIL and b"450" in done.stderr, done)
    done = sendmail(free_port(), "-f", "a@a.test", "b@b.test")
    check(done.returncode == TEMPFAIL and b"no gateway" in done.stderr, done)
    for script, status in (({"banner": "554 no"}, UNAVAILABLE), ({"banner": "421 busy"}, TEMPFAIL), ({"mail": "451 no"}, TEMPFAIL),
                           ({"mail": "550 no"}, UNAVAILABLE), ({"data": "451 no"}, TEMPFAIL), ({"dot": "552 too big"}, UNAVAILABLE),
                           ({"dot": "close"}, TEMPFAIL), ({"ehlo": "close"}, TEMPFAIL)):
        server = Sink(script)
        done = sendmail(server.port, "-f", "a@a.test", "b@b.test")
        check(done.returncode == status and done.stderr, (script, done))


def many_recipients_by_the_servers_limits(world):
    sink = Sink(extensions=("PIPELINING", "LIMITS RCPTMAX=30"))
    names = ["u%d@b.test" % n for n in range(100)]
    check(sendmail(sink.port, "-f", "a@a.test", *names).returncode == OK, "100")
    messages = sink.wait(4)
    check(len(messages) == 4 and sorted(sum((m[1] for m in messages), [])) == sorted(names), [len(m[1]) for m in messages])


def old_options_are_taken(world):
    sink = Sink()
    check(sendmail(sink.port, "-bm", "-B", "8BITMIME", "-G", "-om", "-oem", "-O", "x=y", "-U", "-Am", "-d0", "-f", "a@a.test", "--", "b@b.test").returncode == OK, "old")
    sink.wait(1)
    for words, status in ((["-bi"], OK), (["-q"], OK), (["-q15m"], OK), (["-bs"], USAGE), (["-bd"], USAGE), (["-Z"], USAGE), ([], USAGE), (["two words"], USAGE),
                          (["-X", os.path.join(world.directory, "log"), "b@b.test"], USAGE)):
        done = sendmail(sink.port, *words)
        check(done.returncode == status and bool(done.stderr) == (status != OK), (words, done))
    check(len(sink.messages) == 1 and not os.path.exists(os.path.join(world.directory, "log")), "nothing more")
    os.symlink(MAILER, os.path.join(world.directory, "newaliases"))
    for word in (os.path.join(world.directory, "newaliases"), "newaliases"):  # by its path, and as a shell finds it
        done = subprocess.run([word], capture_output=True, timeout=30, executable=os.path.join(world.directory, "newaliases"))
        check(done.returncode == OK and done.stderr == b"", (word, done))


def what_strangers_wrote_is_no_option_and_no_escape(world):
    """A recipient behind another one is never an option; octets of a message or a server do nothing to a terminal."""
    sink = Sink({"rcpt": "550 \x1b[31m no"})
    text = b"To: victim@b.test\nBcc: hidden@b.test\n\nx\n"
    done = sendmail(sink.port, "-f", "a@a.test", "bob@b.test", "-t", text=text)
    check(done.returncode == UNAVAILABLE and b"\x1b" not in done.stderr and b"bob@b.test: 550 " in done.stderr, done)
    recipients = [argument for stage, argument in sink.commands if stage == "rcpt"]
    check(len(recipients) == 2 and "<-t@" in recipients[1], recipients)
    for words, octets in ((["-t"], b"To: a \x1b[31m\n\nx\n"), (["a\x1b[31m b"], b"x\n")):
        done = sendmail(sink.port, *words, text=octets)
        check(done.returncode in (USAGE, DATA) and b"\x1b" not in done.stderr and b"\\x1b[31m" in done.stderr, done)


def through_the_daemon(world):
    sink = Sink()
    post = world.posthouse(extra="routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n" % sink.port).start()
    done = sendmail(post.port, "-f", "a@a.test", "bob@b.test", text="Subject: ü\n\nöäü\n".encode())
    check(done.returncode == OK, done)
    check("öäü".encode() in sink.wait(1)[0][2], sink.messages)


if __name__ == "__main__":
    main([one_message_with_what_it_lacks, recipients_of_the_header, dots_and_line_ends, the_null_path_and_users, reports_are_asked_for,
          refusals_are_exit_status, many_recipients_by_the_servers_limits, old_options_are_taken,
          what_strangers_wrote_is_no_option_and_no_escape, through_the_daemon])
