#!/usr/bin/env python3
"""
Proves the way of mail from the DNS to servers, case by case from mx_cases.txt: which servers are connected to, in which order, and
what becomes of the mail. All cases run side by side in one daemon, each with a domain and servers of its own.
"""
import base64
import collections
import os
import re
import shlex
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from posthouse_test import SLOW, id_of, main, wait_until
from smtp_server import EXTENSIONS, SmtpServer
from tls_delivery_test import outcomes
from tls_server import free_port_of

OUTCOME = re.compile(r" (?:delivered|deferred|failed|in_doubt) id=\S+ to=(\S+)")
HERE = os.path.dirname(os.path.abspath(__file__))
BODIES = {"plain": b"Subject: case\r\n\r\nhello\r\n",
          "utf8": b"Subject: case\r\n\r\nhello\r\n",
          "8bit": b"Subject: case\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                  b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n",
          "signed": b"Subject: case\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=x; micalg=pgp-sha256;\r\n"
                    b" protocol=\"application/pgp-signature\"\r\n\r\n--x\r\nContent-Type: text/plain; charset=utf-8\r\n"
                    b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n--x\r\n"
                    b"Content-Type: application/pgp-signature\r\n\r\nsignature\r\n--x--\r\n"}


class Case:
    def __init__(self, name, number):
        self.name, self.number = name, number
        self.domain = "%s.cases.test" % name.replace("_", "-")
        self.zone, self.servers, self.to, self.body, self.messages = [], {}, ["b"], "plain", 1
        self.contacts, self.outcomes, self.text, self.copies, self.pure, self.rules = None, [], None, None, False, []
        self.seen, self.started = [], {}

    def address(self, n):
        return "::1" if n == 6 and "ipv6" in self.name else "127.3.%d.%d" % (self.number, n)

    def read(self, word, rest):
        if word == "zone":
            self.zone += [part.strip() for part in rest.split(" ; ")]
        elif word == "server":
            words = shlex.split(rest)
            self.servers[int(words[0])] = dict(w.split("=", 1) for w in words[1:])
        elif word == "outcome":
            self.outcomes.append(rest.split())
        elif word in ("to", "rules"):
            setattr(self, word, rest.split())
        elif word in ("messages", "copies"):
            setattr(self, word, int(rest))
        elif word in ("body", "text", "contacts"):
            setattr(self, word, rest)
        elif word == "pure":
            self.pure = True
        else:
            raise ValueError("%s: no such line: %s" % (self.name, word))

    def records(self):
        """In the form of a zone file, names made whole."""
        base = self.domain.split(".")[0]
        host = lambda name: base if name == "@" else name if name.endswith(".") else name + "." + base
        for record in self.zone:
            words = re.sub(r"\$(\d)", lambda m: self.address(int(m.group(1))), record).split()
            if words[1] in ("MX", "CNAME"):
                words[-1] = host(words[-1])
            yield " ".join([host(words[0])] + words[1:])

    def start(self, world, port):
        for n, script in self.servers.items():
            extensions = script.pop("extensions", None)
            server = Contact(self, n, script, self.address(n), port, extensions.split(",") if extensions else EXTENSIONS)
            self.started[n] = world.add(server)

    def send(self, post):
        sender, options = ("a@client.test", []) if self.body != "utf8" else ("\u00e4@client.test", ["SMTPUTF8"])
        if self.body in ("8bit", "signed"):
            options = ["BODY=8BITMIME"]
        with post.smtp() as s:
            s.ehlo()
            s.command_encoding = "utf-8"
            assert s.mail(sender, options)[0] == 250, self.name
            for to in self.to:
                assert s.rcpt("%s@%s" % (to, self.domain))[0] == 250, self.name
            code, reply = s.data(BODIES[self.body])
            assert code == 250, reply
            return id_of(reply)

    def first(self, log, to):
        return outcomes(log, "%s@%s" % (to, self.domain))

    def is_over(self, counts, turn):
        return all(counts.get("%s@%s" % (to, self.domain), 0) >= turn for to in self.to)

    # What went wrong, in words; nothing when all is well.
    def judge(self, log):
        for to in self.to:
            event, status = next(o[1:] for o in self.outcomes if o[0] in (to, "*"))
            for got, fields in self.first(log, to):
                if (got, fields["status"]) != (event, status):
                    yield "%s: %s %s (%s), not %s %s" % (to, got, fields["status"], fields["text"], event, status)
                if self.text and self.text not in fields["text"]:
                    yield "%s: %r lacks %r" % (to, fields["text"], self.text)
        if not match_contacts(self.contacts, list(self.seen)):
            yield "contacts %s, not %s" % (self.seen, self.contacts)
        taken = [m for server in self.started.values() for m in server.messages]
        if self.copies is not None and len(taken) != self.copies:
            yield "%d copies, not %d" % (len(taken), self.copies)
        if self.pure and any(max(base64.b64decode(m["body"])) > 127 for m in taken):
            yield "8-bit octets in %s" % taken


class Contact(SmtpServer):
    """Tells its case when it is connected to."""

    def __init__(self, case, n, script, address, port, extensions):
        self.case, self.n = case, n
        super().__init__(script, address, port, extensions=extensions)

    def _serve(self, connection, *more):
        self.case.seen.append(self.n)
        super()._serve(connection, *more)


def match_contacts(pattern, seen):
    """pattern: "1 {2 3} 4", "2 of {1 2 3} 4", "-"."""
    for count, group, single in re.findall(r"(?:(\d+) of )?\{([^}]*)\}|(\d+|-)", pattern):
        if single == "-":
            continue
        if single:
            if not seen or seen.pop(0) != int(single):
                return False
            continue
        members = {int(n) for n in group.split()}
        some, seen = seen[:int(count or len(members))], seen[int(count or len(members)):]
        if len(some) != int(count or len(members)) or len(set(some)) != len(some) or not set(some) <= members:
            return False
    return not seen


def read_cases():
    cases = []
    with open(os.path.join(HERE, "mx_cases.txt")) as f:
        for line in f:
            word, _, rest = line.split("#")[0].strip().partition(" ")
            if word == "case":
                cases.append(Case(rest.strip(), len(cases) + 1))
            elif word:
                cases[-1].read(word, rest.strip())
    return cases


def the_pattern_of_contacts(_world):
    for pattern, seen, fine in (("1 2", [1, 2], True), ("1 2", [2, 1], False), ("1 2", [1], False), ("1", [1, 2], False), ("-", [], True),
                                ("-", [1], False), ("{1 2} 3", [2, 1, 3], True), ("{1 2} 3", [2, 2, 3], False),
                                ("2 of {1 2 3} 4", [3, 1, 4], True), ("2 of {1 2 3} 4", [3, 4], False)):
        assert match_contacts(pattern, list(seen)) == fine, (pattern, seen)


def all_cases(world):
    cases = read_cases()
    assert len(cases) >= 50 and len({case.name for case in cases}) == len(cases)
    port = free_port_of(["127.3.1.1", "127.0.0.1"])
    dns = world.nsd({"cases.test": "\n".join(line for case in cases for line in case.records())})
    for case in cases:
        case.start(world, port)
    times = ", ".join("%s: %ds" % (stage, 3 * SLOW) for stage in ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "block", "dot"))
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\ntimeouts: {%s}\nretry: {first: 1h, max: 4h, give_up: 5d, "
                                    "delay_notice: 0}\ntls: {mta_sts: false}" % (dns.port, port, times)).start()
    for turn in range(1, max(case.messages for case in cases) + 1):
        some = [case for case in cases if case.messages >= turn]
        for case in some:
            case.send(post)

        def missing():
            counts = collections.Counter(OUTCOME.findall(post.log_text()))
            return [case.name for case in some if not case.is_over(counts, turn)]
        try:
            wait_until("all cases have an outcome", lambda: not missing(), 60, 0.2)
        except AssertionError:
            raise AssertionError("no outcome: " + " ".join(missing()))
    log = post.log_text()
    wrong = ["%s: %s" % (case.name, words) for case in cases for words in case.judge(log)]
    print("%d cases, rules %s" % (len(cases), " ".join(sorted({rule for case in cases for rule in case.rules}))), flush=True)
    assert not wrong, "\n" + "\n".join(wrong)


if __name__ == "__main__":
    main([the_pattern_of_contacts, all_cases])
