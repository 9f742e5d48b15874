#!/usr/bin/env python3
"""
Proves what holds clients off: DNS lists in a real name server with their scores, rules that only log, greylisting also over a
restart, rates of clients and accounts, reserved sessions, early talkers, and input without end. A PROXY header says who a client is.
"""
import contextlib
import os
import select
import signal
import smtplib
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from accounts import certificate, crypt_hash, inside_tls, plain
from posthouse_test import check, free_port, main, wait_until

ZONES = {
    "bl.test": '2.2.0.192 A 127.0.0.2\n2.2.0.192 TXT "spam seen"\n3.2.0.192 A 127.0.0.9\n4.2.0.192 A 127.0.0.2\n4.2.0.192 A 127.0.0.9\n'
               '5.2.0.192 A 127.0.0.77\n6.2.0.192 A 127.0.0.2\n%s A 127.0.0.2\n' % ".".join(reversed("20010db8" + "0" * 23 + "1")),
    "wl.test": '6.2.0.192 A 127.0.0.1\n7.2.0.192 A 127.0.0.1',
    "broken.test": '8.2.0.192 A 127.255.255.254\n9.2.0.192 A 10.0.0.1',
}
LISTS = """dnslists:
  mode: %s
  timeout: %s
  lists:
    - {zone: bl.test, answer: 127.0.0.2, score: 10}
    - {zone: bl.test, answer: 127.0.0.8/29, score: 6}
    - {zone: wl.test, score: -5}
    - {zone: broken.test, score: 20}
"""


class Client(smtplib.SMTP):
    """Of this address, says the PROXY header. .greeting is the first reply; -1 when there was none."""

    def __init__(self, post, address, greeted=True):
        self.header = "PROXY TCP%d %s %s 4321 25\r\n" % ((6, address, "2001:db8::25") if ":" in address else (4, address, "192.0.2.250"))
        super().__init__(local_hostname="client.test", timeout=60)
        if greeted:
            try:
                self.greeting = self.connect("127.0.0.1", post.proxied)
            except smtplib.SMTPServerDisconnected:
                self.greeting = (-1, b"")
            if self.greeting[0] == 220:
                self.ehlo()

    def _get_socket(self, host, port, timeout):
        s = super()._get_socket(host, port, timeout)
        s.sendall(self.header.encode())
        return s


def posthouse(world, more="", listener="", delivery="", trusted="203.0.113.0/24"):
    """.port is a plain listener, .proxied the one for Client; mail goes to .mail."""
    mail, proxied = world.sink(), free_port()
    text = ("  - {address: \"127.0.0.1:%d\", proxy: true}\n%snames: false\nloops: 1\nbalancers: [127.0.0.1/32]\ntrusted_networks: [%s]\n%s"
            % (proxied, listener, trusted, more))
    world.file("users.txt", "".join("u%d\n" % n for n in range(40)))
    post = world.posthouse(gateway=text, delivery=delivery, extra="domains:\n  - {name: posthouse.test, route: \"smtp:127.0.0.1:%d\", "
                           "recipients: {table: users.txt}}" % mail.port)
    post.mail, post.proxied = mail, proxied
    return post.start()


def greeting(post, address):
    with contextlib.closing(Client(post, address)) as c:
        return c.greeting[0], c.greeting[1].decode()


def rcpt(post, address, sender="a@origin.test", recipient="u0@posthouse.test"):
    with contextlib.closing(Client(post, address)) as c:
        check(c.mail(sender), 250)
        code, text = c.rcpt(recipient)
        return "%d %s" % (code, text.decode().split(" ")[0])


def send(post, address, sender="a@origin.test", recipient="u0@posthouse.test", text="Subject: x\r\n\r\nx\r\n"):
    """The last reply that was not 250, or 250."""
    with contextlib.closing(Client(post, address)) as c:
        if c.greeting[0] != 220:
            return "%d %s" % (c.greeting[0], c.greeting[1].decode().split(" ")[0])
        for step in (lambda: c.mail(sender), lambda: c.rcpt(recipient), lambda: c.data(text.encode())):
            code, words = step()
            if code != 250:
                return "%d %s" % (code, words.decode().split(" ")[0])
    return "250"


def verdicts(post, reason, action):
    return post.figures().get('posthouse_guard_verdicts_total{reason="%s",action="%s"}' % (reason, action), 0)


def with_lists(world, mode="enforce", timeout="20s", more=""):
    nsd = world.nsd(ZONES)
    post = posthouse(world, LISTS % (mode, timeout) + more, delivery="dns: [\"127.0.0.1:%d\"]" % nsd.port)
    post.nsd = nsd
    return post


def lists_decide(world):
    post = with_lists(world, more="slow: {wait: 100ms}\n")
    code, text = greeting(post, "192.0.2.2")
    assert code == 554 and text.startswith("5.7.1 ") and "bl.test" in text and "spam seen" in text and "192.0.2.2" in text, text
    assert greeting(post, "192.0.2.4")[0] == 554 and greeting(post, "2001:db8::1")[0] == 554
    for address in ("192.0.2.1", "192.0.2.3", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8", "192.0.2.9", "2001:db8::2"):
        assert greeting(post, address)[0] == 220, address
    log = post.log_text()
    assert 'client_refused client=192.0.2.2' in log and 'by="dnslist bl.test"' in log, log
    assert log.count("client_slowed") == 2 and "client_slowed client=192.0.2.3" in log and "client_slowed client=192.0.2.6" in log, log
    assert log.count("dnslist_error list=broken.test") == 1, log  # once an hour
    assert post.figures()["posthouse_guard_dnslist_errors_total"] == 2
    assert verdicts(post, "dnslist", "enforced") == 3 and verdicts(post, "dnslist", "logged") == 0
    assert rcpt(post, "192.0.2.1") == "250 2.1.5"


def lists_may_only_log(world):
    post = with_lists(world, "log")
    assert greeting(post, "192.0.2.2")[0] == 220 and send(post, "192.0.2.2") == "250"
    assert verdicts(post, "dnslist", "logged") == 2 and verdicts(post, "dnslist", "enforced") == 0
    assert 'action="would refuse"' in post.log_text()
    assert verdicts(post, "slow", "enforced") == 0 and verdicts(post, "slow", "logged") == 2
    assert 'action="would slow"' in post.log_text()


def silent_lists_refuse_nobody(world):
    post = with_lists(world, timeout="3s")
    os.killpg(post.nsd.process.pid, signal.SIGSTOP)
    try:
        waits = Client(post, "192.0.2.2", greeted=False)
        waits.sock = waits._get_socket("127.0.0.1", post.proxied, 60)
        with post.smtp() as s:  # trusted or not: others are served by the same loop meanwhile
            s.ehlo()
        assert waits.getreply()[0] == 220
        waits.close()
    finally:
        os.killpg(post.nsd.process.pid, signal.SIGCONT)
    wait_until("the list refuses again", lambda: greeting(post, "192.0.2.2")[0] == 554, 20, 0.2)
    assert "dnslist_error list=bl.test" in post.log_text()


def slow_answers_hold_nobody_else(world):
    post = with_lists(world, more="slow: {wait: 4s}\n")
    slow = Client(post, "192.0.2.3", greeted=False)
    slow.sock = slow._get_socket("127.0.0.1", post.proxied, 60)
    assert slow.getreply()[0] == 220
    slow.send("EHLO client.test\r\n")
    for _ in range(3):
        assert send(post, "192.0.2.1") == "250"
        assert not select.select([slow.sock], [], [], 0)[0], "not slow"
    assert slow.getreply()[0] == 250
    slow.close()
    assert verdicts(post, "slow", "enforced") == 1


def errors_make_slow(world):
    post = posthouse(world, "slow: {wait: 10ms, after_errors: 3}\n")
    with contextlib.closing(Client(post, "192.0.2.1")) as c:
        c.mail("a@origin.test")
        for n in range(6):
            assert c.rcpt("nobody%d@posthouse.test" % n)[0] == 550
    assert post.log_text().count("client_slowed client=192.0.2.1 why=errors") == 1, post.log_text()


GREY = "greylist: {mode: %s, delay: %s}\n"


def unknown_triplets_come_again(world):
    post = with_lists(world, more=GREY % ("enforce", "2s"))
    assert rcpt(post, "198.51.100.1") == "451 4.7.1" and rcpt(post, "198.51.100.1") == "451 4.7.1"
    assert post.log_text().count('why="first seen"') == 1 and post.log_text().count('why="too early"') == 1
    assert rcpt(post, "192.0.2.7") == "250 2.1.5"  # known good
    assert rcpt(post, "203.0.113.5") == "250 2.1.5"  # trusted
    assert rcpt(post, "198.51.100.1", recipient="nobody@posthouse.test") == "550 5.1.1"  # no delay for what is refused anyway
    wait_until("it has waited", lambda: rcpt(post, "198.51.100.1") == "250 2.1.5", 20, 0.1)
    assert rcpt(post, "198.51.100.200") == "250 2.1.5"  # the same network
    assert rcpt(post, "198.51.101.1") == "451 4.7.1" and rcpt(post, "198.51.100.1", "b@origin.test") == "451 4.7.1"
    assert rcpt(post, "198.51.100.1", "") == "451 4.7.1" and rcpt(post, "198.51.100.1", "A@Origin.Test") == "250 2.1.5"


def networks_earn_trust(world):
    post = posthouse(world, GREY % ("enforce", "1ms"))
    for n in range(5):
        wait_until("it has waited", lambda: rcpt(post, "198.51.100.1", "s%d@origin.test" % n) == "250 2.1.5", 20, 0.02)
    assert rcpt(post, "198.51.100.9", "new@origin.test", "u7@posthouse.test") == "250 2.1.5"
    assert rcpt(post, "198.51.101.9", "new@origin.test", "u7@posthouse.test") == "451 4.7.1"


def greylist_outlives_a_restart(world):
    post = posthouse(world, GREY % ("enforce", "1s"))
    wait_until("it has waited", lambda: rcpt(post, "198.51.100.1") == "250 2.1.5", 20, 0.1)
    assert rcpt(post, "198.51.101.1") == "451 4.7.1"
    seen = post.log_text().count('why="first seen"')
    assert post.stop() == 0
    path = os.path.join(post.data_dir, "greylist")
    assert os.stat(path).st_mode & 0o777 == 0o600 and b"origin.test" not in open(path, "rb").read()
    post.start()
    assert rcpt(post, "198.51.100.1") == "250 2.1.5"
    wait_until("it has waited", lambda: rcpt(post, "198.51.101.1") == "250 2.1.5", 20, 0.1)
    assert post.log_text().count('why="first seen"') == seen  # it was remembered that it waits
    assert post.stop() == 0
    with open(path, "r+b") as f:
        f.seek(os.stat(path).st_size // 2)
        octet = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([octet[0] ^ 1]))
    post.start()
    assert "greylist_file_ignored" in post.log_text()
    assert rcpt(post, "198.51.100.1") == "451 4.7.1"


def greylist_may_only_log(world):
    post = posthouse(world, GREY % ("log", "1h"))
    assert send(post, "198.51.100.1") == "250" and verdicts(post, "greylist", "logged") == 1


def clients_have_rates(world):
    post = posthouse(world, "rates: {window: 1h, client: {messages: 3, recipients: 5, octets: 20KiB}}\n")
    for _ in range(3):
        assert send(post, "198.51.100.1") == "250"
    assert send(post, "198.51.100.1") == "450 4.7.1" and send(post, "198.51.100.1") == "450 4.7.1"
    assert send(post, "198.51.100.2") == "250"  # each address for itself
    assert send(post, "203.0.113.9") == "250" and all(send(post, "203.0.113.9") == "250" for _ in range(5))  # trusted
    with contextlib.closing(Client(post, "198.51.100.3")) as c:
        c.mail("a@origin.test")
        assert [c.rcpt("u%d@posthouse.test" % n)[0] for n in range(7)] == [250] * 5 + [450] * 2
        check(c.data(b"Subject: x\r\n\r\nx\r\n"), 250)  # to those that were taken
    big = "Subject: x\r\n\r\n" + "".join("%s\r\n" % ("x" * 78) for _ in range(150))
    assert send(post, "198.51.100.4", text=big) == "250" and send(post, "198.51.100.4", text=big) == "450 4.7.1"
    for host in ("1", "2"):  # one network of IPv6
        for _ in range(2):
            send(post, "2001:db8::" + host)
    assert send(post, "2001:db8::3") == "450 4.7.1" and send(post, "2001:db8:1::1") == "250"
    log = post.log_text()
    assert log.count("rate_exceeded client=198.51.100.1 ") == 1 and "what=messages" in log and "what=octets" in log, log
    assert verdicts(post, "client_rate", "enforced") >= 5


def connections_have_a_rate(world):
    post = posthouse(world, "rates: {window: 2s, client: {connections: 3}}\n")
    for _ in range(3):
        assert greeting(post, "198.51.100.1")[0] == 220
    code, text = greeting(post, "198.51.100.1")
    assert code == 421 and text.startswith("4.7.0"), (code, text)
    assert greeting(post, "198.51.100.2")[0] == 220
    wait_until("it is forgotten", lambda: greeting(post, "198.51.100.1")[0] == 220, 20, 0.2)


def rates_may_only_log(world):
    post = posthouse(world, "rates: {mode: log, client: {messages: 1, connections: 2}}\n")
    assert [send(post, "198.51.100.1") for _ in range(4)] == ["250"] * 4
    assert verdicts(post, "client_rate", "logged") > 0 and verdicts(post, "client_rate", "enforced") == 0


def accounts_have_rates(world):
    cert, key = certificate(world)
    port = free_port()
    path = world.file("passwd", "".join("%s:%s\n" % (name, crypt_hash("pw", "$2b$", 4)) for name in ("anna", "bert")))
    os.chmod(path, 0o600)
    post = posthouse(world, "tls: {certificate: %s, key: %s}\nauth: {realm: posthouse.test, backends: [{kind: file, file: passwd}]}\n"
                     "rates: {account: {messages: 2, recipients: 4}}\n" % (cert, key),
                     "  - {address: \"127.0.0.1:%d\", tls: implicit, auth: required}\n" % port, trusted="127.0.0.0/8")

    def submit(account, recipients=1, source="127.0.0.1"):
        with inside_tls(port, source) as s:
            check(s.docmd(plain(account, "pw")), 235)
            code, _ = s.mail(account + "@posthouse.test")
            if code != 250:
                return code
            codes = [s.rcpt("u%d@posthouse.test" % n)[0] for n in range(recipients)]
            check(s.data(b"Subject: x\r\n\r\nx\r\n"), 250)
            return codes
    assert submit("anna") == [250] and submit("Anna@posthouse.test".replace("@posthouse.test", ""), 1, "127.0.0.2") == [250]
    assert submit("ANNA", 1, "127.0.0.3") == 450  # from wherever, trusted or not, in whatever letters
    assert submit("bert", 6) == [250] * 4 + [450] * 2
    assert 'account=anna@posthouse.test of=account what=messages limit=2' in post.log_text(), post.log_text()
    assert verdicts(post, "account_rate", "enforced") >= 2


def the_last_sessions_are_kept(world):
    post = posthouse(world, "limits: {connections: 10, reserved_percent: 20}\n", trusted="127.0.0.9/32")

    def come(source):
        s = smtplib.SMTP(local_hostname="client.test", timeout=30, source_address=(source, 0))
        code = s.connect("127.0.0.1", post.port)[0]
        return s, code

    def count(expected):
        wait_until("%d sessions" % expected, lambda: post.log_text().count("session_closed") >= expected, 10, 0.02)
    s, code = come("127.0.0.5")  # becomes known by mail that is accepted
    s.sendmail("a@origin.test", "u1@posthouse.test", "Subject: x\r\n\r\nx\r\n")
    s.quit()
    count(1)
    held = []
    try:
        for n in range(8):
            s, code = come("127.0.0.%d" % (20 + n))
            held.append(s)
            assert code == 220, (n, code)
        s, code = come("127.0.0.40")
        s.close()
        assert code == 421
        for source in ("127.0.0.9", "127.0.0.5"):
            s, code = come(source)
            held.append(s)
            assert code == 220, source
        s, code = come("127.0.0.9")  # full is full
        s.close()
        assert code == 421
        assert held[-1].ehlo()[0] == 250 and held[0].ehlo()[0] == 250
        held.pop(0).quit()
        held.pop(0).quit()
        held.pop(0).quit()
        count(4)
        s, code = come("127.0.0.40")
        held.append(s)
        assert code == 220
    finally:
        for s in held:
            s.close()
    assert verdicts(post, "slot", "enforced") >= 1


def talk_first(post, octets=b"EHLO early.test\r\n"):
    """All that comes back when the client does not wait for the greeting."""
    with socket.create_connection(("127.0.0.1", post.port), 30) as s:
        s.sendall(octets)
        found = b""
        with contextlib.suppress(OSError):
            while not found.endswith(b"\n") or not found.rpartition(b"\r\n")[0].rpartition(b"\r\n")[2].startswith((b"554", b"250 ")):
                piece = s.recv(4096)
                if not piece:
                    return found, True
                found += piece
        return found, False


def early_talkers(world):
    post = posthouse(world, "pregreet: refuse\npregreet_wait: 2s\n")
    found, _ = talk_first(post)
    assert found.startswith(b"554 ") and b"250" not in found, found
    assert "early_talker" in post.log_text()
    with post.smtp() as s:
        assert s.ehlo()[0] == 250
    assert post.log_text().count("early_talker") == 1


def early_talkers_are_only_logged(world):
    post = posthouse(world, "pregreet: log\npregreet_wait: 2s\n")
    found, _ = talk_first(post)
    assert found.startswith(b"220 ") and b"\r\n250" in found, found
    assert "early_talker" in post.log_text()


def pour(post, begin, piece, end=b"", most=64 << 20):
    """Sends without end after a dialogue; how much was taken until the server had enough, and its first words."""
    with socket.create_connection(("127.0.0.1", post.port), 60) as s:
        replies = s.makefile("rb")
        replies.readline()
        for line in begin:
            s.sendall(line)
            while replies.readline()[3:4] == b"-":
                pass
        sent, words = 0, b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < most:
                if select.select([s], [], [], 0)[0]:
                    more = s.recv(1 << 20)
                    words = (words + more)[:100]
                    if not more:
                        break
                sent += s.send(piece)
            if end:
                s.sendall(end)
                words = s.recv(100)
        return sent, words


def still_lives(post):
    with open("/proc/%d/status" % post.process.pid) as f:
        kept = int(next(line for line in f if line.startswith("VmRSS")).split()[1])
    assert kept < 300 * 1024 * float(os.environ.get("POSTHOUSE_SLOW", "1")), kept
    with post.smtp() as s:
        s.ehlo()
        check(s.mail("a@origin.test"), 250)
        check(s.rcpt("u1@posthouse.test"), 250)
        check(s.data(b"Subject: x\r\n\r\nx\r\n"), 250)


MAIL = [b"EHLO client.test\r\n", b"MAIL FROM:<a@origin.test>\r\n", b"RCPT TO:<u1@posthouse.test>\r\n", b"DATA\r\n"]


def commands_without_end(world):
    """They end the session, and soon."""
    post = posthouse(world, "slow: {mode: \"off\"}\n")
    for begin, piece, codes in (([], b"x" * 8192, (b"500", b"421")), ([], b"WHAT\r\n" * 1000, (b"500", b"421")),
                                (MAIL[:2], b"RCPT TO:<nobody@posthouse.test>\r\n" * 100, (b"550", b"421")),
                                (MAIL[:2], b"RCPT TO:<" + b"x" * 8192, (b"500", b"421"))):
        sent, words = pour(post, begin, piece)
        assert sent < 64 << 20 and (not words or words[:3] in codes), (piece[:20], sent, words)
        still_lives(post)


def messages_without_end(world):
    """They cost no memory, and are refused at their end if that comes soon; at four times the limit the session ends."""
    post = posthouse(world, "limits: {message_size: 1MiB}\nslow: {mode: \"off\"}\n")
    for piece, codes in ((b"x" * 8192, (b"552", b"554")), (b"X-Field: x\r\n" * 500, (b"552", b"554")),
                         (b"Received: x\r\n" * 500, (b"552", b"554")), (b"\r\n" + b"x" * 70 + b"\r\n", (b"552",))):
        sent, words = pour(post, MAIL, piece, b"\r\n.\r\n", most=3 << 20)
        assert words[:3] in codes, (piece[:20], sent, words)
        still_lives(post)
    for piece in (b"x" * 8192, b"X-Field: x\r\n" * 500):  # the client is gone before that
        pour(post, MAIL, piece, most=2 << 20)
    before = post.log_text().count('why="closed by us" code=552')
    for piece in (b"x" * 8192, b"X-Field: x\r\n" * 500):
        pour(post, MAIL, piece, most=1 << 40)  # no end but ours
    wait_until("both were closed", lambda: post.log_text().count('why="closed by us" code=552') == before + 2)
    still_lives(post)
    post.mail.wait(5)
    assert all(m[2].endswith(b"\r\nx\r\n") for m in post.mail.messages)


def replies_that_nobody_reads(world):
    """The client is read no more; what waits for it is bounded."""
    post = posthouse(world, "limits: {commands_bad: 100000}\n")  # else HELP without end ends the session
    with socket.create_connection(("127.0.0.1", post.port), 30) as s:
        assert s.recv(100).startswith(b"220 ")
        s.setblocking(False)
        sent = 0
        while select.select([], [s], [], 2)[1]:
            sent += s.send(b"HELP\r\n" * 1000)
            assert sent < 64 << 20, "its replies are kept without end"
        still_lives(post)


if __name__ == "__main__":
    main([lists_decide, lists_may_only_log, silent_lists_refuse_nobody, slow_answers_hold_nobody_else, errors_make_slow,
          unknown_triplets_come_again, networks_earn_trust, greylist_outlives_a_restart, greylist_may_only_log, clients_have_rates,
          connections_have_a_rate, rates_may_only_log, accounts_have_rates, the_last_sessions_are_kept, early_talkers,
          early_talkers_are_only_logged, commands_without_end, messages_without_end, replies_that_nobody_reads])
