#!/usr/bin/env python3
"""
Proves that the clients people use get their mail through: swaks, Python's smtplib, nodemailer, curl, OpenSSL's s_client, Postfix and
its posttls-finger, and GNU SASL, by STARTTLS, by TLS from the first octet, and with AUTH. What they sent arrives, and its
Received field says how it came.
"""
import base64
import email.message
import json
import os
import pwd
import re
import shutil
import smtplib
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, World, free_port, main, wait_until
from secure import HOST, Authority, Wire, crypt_line, scram_line

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
# The registered names of the cipher suites, in the clause of RFC 8314.
TLS13, TLS12 = "\r\n\ttls TLS_AES_", "\r\n\ttls TLS_ECDHE_ECDSA_WITH_"
ALICE, BOB = ("alice@posthouse.test", "a Secret: 1"), ("bob", "another secret")


class House:
    """A daemon with a listener of each kind, and the server that its mail goes to."""

    def __init__(self, world, more="", auth=""):
        self.world = world
        self.sink = world.sink()
        self.authority = Authority(world.directory)
        pair = self.authority.issue("server", [HOST, "127.0.0.1"])
        passwd = world.file("passwd", scram_line(*ALICE) + crypt_line(BOB[0] + "@posthouse.test", BOB[1]))
        os.chmod(passwd, 0o600)
        self.offered, self.required, self.implicit = free_port(), free_port(), free_port()
        self.daemon = world.posthouse(gateway="""
  - {address: "127.0.0.1:%d", auth: offered}
  - {address: "127.0.0.1:%d", tls: required, auth: required, submission: true, hide_client: true}
  - {address: "127.0.0.1:%d", tls: implicit, auth: required, submission: true}
trusted_networks: []
names: false
tls: {certificate: %s, key: %s}
auth: {realm: posthouse.test, fail_delay: 0ms, backends: [{kind: file, file: %s}]%s}
%s""" % (self.offered, self.required, self.implicit, *pair, passwd, auth, more), extra="""domains:
  - {name: rcpt.test, recipients: any, route: "smtp:127.0.0.1:%d"}
routes:
  - {domain: far.test, route: "smtp:127.0.0.1:%d"}
""" % (self.sink.port, self.sink.port)).start()

    def arrived(self, subject, *received):
        """The message with this subject, as soon as it arrived; its first Received field has these words."""
        def found():
            for message in self.sink.messages:
                if re.search(rb"^Subject: %s\r$" % re.escape(subject.encode()), message[2], re.M):
                    return message
        message = wait_until("%r arrives" % subject, found, 20)
        field = re.match(rb"Received: .*\r\n(?:[ \t].*\r\n)*", message[2]).group().decode()
        for words in received:
            assert words in field, (subject, words, field)
        return message, field


def run(command, text="", ok=True, env=None, seconds=60):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds * 3, env=env)
    if ok and done.returncode:
        raise AssertionError("%s: status %d:\n%s%s" % (" ".join(command), done.returncode, done.stdout, done.stderr))
    return done


def swaks_in_all_forms(world):
    house = House(world)

    def swaks(subject, port, *words, ok=True):
        return run(["swaks", "--server", "127.0.0.1", "--port", str(port), "--ehlo", "client.test", "--from", "a@sender.test", "--to",
                    "b@far.test", "--header", "Subject: " + subject, "--body", ".a dot\\n..two dots\\n", "--timeout", "30"]
                   + list(words), ok=ok)

    verified = ["--tls-verify", "--tls-ca-path", house.authority.file, "--tls-sni", HOST]
    alice = ["--auth-user", ALICE[0], "--auth-password", ALICE[1]]
    bob = ["--auth-user", BOB[0], "--auth-password", BOB[1]]
    for port, way, listener in ((house.offered, ["--tls"], "offered"), (house.required, ["--tls"], "required"),
                                (house.implicit, ["--tls-on-connect"], "implicit")):
        for mechanism, who in (("PLAIN", alice), ("LOGIN", alice), ("PLAIN", bob), ("LOGIN", bob)):
            subject = " ".join((listener, mechanism, who[1]))
            swaks(subject, port, *way, *verified, "--auth", mechanism, *who)
            message, field = house.arrived(subject, "by %s (Posthouse) with ESMTPSA id " % HOST, "for <b@far.test>", TLS13)
            assert b"\r\n.a dot\r\n..two dots\r\n" in message[2], message
            if listener == "required":
                assert field.startswith("Received: from %s (submission)\r\n" % HOST) and "127.0.0.1" not in field, field
            else:
                assert field.startswith("Received: from client.test ([127.0.0.1])\r\n"), field
    swaks("two", house.required, "--tls", "--tls-protocol", "tlsv1_2", "--auth", "PLAIN", *alice)
    house.arrived("two", "with ESMTPSA", TLS12)
    swaks("at once", house.required, "--tls", "--pipeline", "--auth", "PLAIN", *bob)
    house.arrived("at once", "with ESMTPSA")
    # What is not encrypted or not authenticated goes to our own domains only, and by the open listener.
    swaks("plain", house.offered, "--to", "b@rcpt.test")
    house.arrived("plain", "with ESMTP id")
    swaks("encrypted", house.offered, "--tls", "--to", "b@rcpt.test", "--pipeline")
    house.arrived("encrypted", "with ESMTPS id")
    swaks("HELO", house.offered, "--protocol", "SMTP", "--to", "b@rcpt.test")
    house.arrived("HELO", "with SMTP id")

    count = len(house.sink.messages)
    for words, told in ((["--tls", "--auth", "PLAIN", "--auth-user", ALICE[0], "--auth-password", "wrong"], "535 5.7.8"),
                        (["--tls", "--auth", "LOGIN", "--auth-user", "nobody", "--auth-password", "wrong"], "535 5.7.8"),
                        (["--tls"], "530 5.7.0"), ([], "530 5.7.0")):
        done = swaks("not at all", house.required, *words, ok=False)
        assert done.returncode and told in done.stdout + done.stderr, (words, done)
    done = swaks("not at all", house.offered, "--tls", ok=False)
    assert done.returncode and "550 5.7.1" in done.stdout, done
    done = swaks("not at all", house.offered, "--auth", "PLAIN", *alice, ok=False)  # not offered before TLS
    assert done.returncode == 28, done
    assert len(house.sink.messages) == count
    assert "Secret: 1" not in house.daemon.log_text()


def python_smtplib(world):
    house = House(world)
    context = house.authority.context()

    class Named(smtplib.SMTP):
        """Asks for the name that is in the certificate."""
        def _get_socket(self, host, port, timeout):
            return super()._get_socket("127.0.0.1", port, timeout)

    class NamedTls(smtplib.SMTP_SSL):
        def _get_socket(self, host, port, timeout):
            return self.context.wrap_socket(smtplib.SMTP._get_socket(self, "127.0.0.1", port, timeout), server_hostname=HOST)

    for number, s in enumerate((Named(HOST, house.required, "client.test", 30), NamedTls(HOST, house.implicit, "client.test", timeout=30,
                                                                                    context=context))):
        with s:
            if number == 0:
                s.starttls(context=context)
            s.ehlo()
            assert s.has_extn("auth") and not s.has_extn("starttls"), s.esmtp_features
            try:
                s.login(ALICE[0], "wrong")
                raise AssertionError("taken")
            except smtplib.SMTPAuthenticationError as error:
                assert error.smtp_code == 535
            s.login(*ALICE)
            message = email.message.EmailMessage()
            message["From"], message["To"], message["Subject"] = ALICE[0], "b@far.test", "of python %d" % number
            message.set_content("hello\n.dots\n")
            s.send_message(message)
            wide = email.message.EmailMessage()
            wide["From"], wide["To"], wide["Subject"] = "jürgen@sender.test", "bjørn@far.test", "wide %d" % number
            wide.set_content("grüße\n")
            s.send_message(wide)
        house.arrived("of python %d" % number, "with ESMTPSA")
        got, _ = house.arrived("wide %d" % number, "with UTF8SMTPSA")
        assert got[0] == "jürgen@sender.test" and got[1] == ["bjørn@far.test"], got
        assert "grüße".encode() in got[2] and b"\r\nMessage-ID: <" in got[2] and b"\r\nDate: " in got[2], got[2]


NODEMAILER = """
const nodemailer = require('nodemailer'), fs = require('fs');
const job = JSON.parse(fs.readFileSync(0));
(async () => {
  for (const one of job) {
    const transport = nodemailer.createTransport(one.transport);
    try {
      const done = await transport.sendMail(one.message);
      console.log(JSON.stringify({response: done.response}));
    } catch (error) {
      console.log(JSON.stringify({code: error.code, responseCode: error.responseCode}));
    }
    transport.close();
  }
})();
"""


def nodemailer(world):
    house = House(world)
    place = os.path.join(BUILD, "node")
    os.makedirs(place, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(ROOT, "tests", "support", "node", name), place)
    run(["npm", "ci", "--prefix", place, "--no-audit", "--no-fund", "--ignore-scripts"])
    with open(house.authority.file) as f:
        authority = f.read()

    def job(subject, port, secure, password=ALICE[1], method=None, pool=False):
        transport = {"host": "127.0.0.1", "port": port, "secure": secure, "requireTLS": True, "name": "client.test", "pool": pool,
                     "tls": {"ca": authority, "servername": HOST}, "auth": {"user": ALICE[0], "pass": password}}
        if method:
            transport["authMethod"] = method
        return {"transport": transport, "message": {
            "from": "a@sender.test", "to": ["b@far.test", "c@far.test"], "subject": subject, "text": "hello\n.dot\n",
            "attachments": [{"filename": "all.bin", "content": "\u0000\u0001\r\u0002\n" * 2000}]}}
    jobs = [job("node starttls", house.required, False), job("node implicit", house.implicit, True),
            job("node login", house.implicit, True, method="LOGIN"), job("node pool", house.offered, False, pool=True),
            job("node wrong", house.required, False, "wrong")]
    script = world.file("send.js", NODEMAILER)
    done = run(["node", script], json.dumps(jobs), env=dict(os.environ, NODE_PATH=os.path.join(place, "node_modules")))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(jobs) and all("250" in a.get("response", "") for a in answers[:-1]), answers
    assert answers[-1] == {"code": "EAUTH", "responseCode": 535}, answers
    for one in jobs[:-1]:
        message, _ = house.arrived(one["message"]["subject"], "with ESMTPSA")
        assert message[1] == ["b@far.test", "c@far.test"], message[1]


def curl(world):
    house = House(world)

    def send(subject, scheme, port, *words, ok=True, who=ALICE):
        return run(["curl", "--silent", "--show-error", "--max-time", "60", "--resolve", "%s:%d:127.0.0.1" % (HOST, port), "--cacert",
                    house.authority.file, "--ssl-reqd", "--crlf", "--mail-from", "a@sender.test", "--mail-rcpt", "b@far.test",
                    "--user", "%s:%s" % who, "--upload-file", "-", *words, "%s://%s:%d/client.test" % (scheme, HOST, port)],
                   "From: a@sender.test\nSubject: %s\n\nhello\n.dot\n" % subject, ok)
    send("curl starttls", "smtp", house.required)
    send("curl implicit", "smtps", house.implicit, "--login-options", "AUTH=LOGIN")
    send("curl 1.2", "smtp", house.offered, "--tls-max", "1.2", "--login-options", "AUTH=PLAIN")
    for subject, version in (("curl starttls", TLS13), ("curl implicit", TLS13), ("curl 1.2", TLS12)):
        message, _ = house.arrived(subject, "with ESMTPSA", version)
        assert message[2].endswith(b"\r\n\r\nhello\r\n.dot\r\n"), message
    assert send("no", "smtp", house.required, who=(ALICE[0], "wrong"), ok=False).returncode == 67  # login denied
    done = run(["curl", "--silent", "--resolve", "other.test:%d:127.0.0.1" % house.implicit, "--cacert", house.authority.file,
                "smtps://other.test:%d" % house.implicit], ok=False)
    assert done.returncode == 60, done  # the name is not in the certificate


def s_client(world):
    """Interactive, as people try servers by hand: lines end in LF there, which -crlf makes CRLF."""
    house = House(world)
    for words, port, suite, protocol in ((["-starttls", "smtp", "-tls1_2"], house.offered, TLS12, "ESMTPS"),
                                           (["-starttls", "smtp", "-tls1_3"], house.offered, TLS13, "ESMTPS"),
                                           (["-tls1_3"], house.implicit, TLS13, "ESMTPSA")):
        process = subprocess.Popen(["openssl", "s_client", "-quiet", "-crlf", "-CAfile", house.authority.file, "-verify_return_error",
                                    "-servername", HOST, "-verify_hostname", HOST, "-connect", "127.0.0.1:%d" % port] + words,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def until(start):
            while True:
                line = process.stdout.readline()
                assert line, "s_client ended"
                if line.startswith(start + " "):
                    return
        try:
            if "-starttls" not in words:
                until("220")
            lines = [("EHLO client.test", "250")]
            if protocol == "ESMTPSA":
                plain = base64.b64encode(("\0%s\0%s" % ALICE).encode()).decode()
                lines += [("AUTH PLAIN", "334"), (plain, "235")]
            subject = " ".join(words)
            for line, code in lines + [("MAIL FROM:<a@sender.test>", "250"), ("RCPT TO:<b@rcpt.test>", "250"), ("DATA", "354"),
                                       ("Subject: %s\n\nby hand\n." % subject, "250"), ("QUIT", "221")]:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                until(code)
        finally:
            process.stdin.close()
            process.kill()
            process.wait()
            process.stdout.close()
        house.arrived(subject, "with %s id" % protocol, suite)


def finger(world):
    """Postfix's own judge of certificates."""
    house = House(world)
    etc = os.path.join(world.directory, "finger")
    os.makedirs(etc)
    with open(os.path.join(etc, "main.cf"), "w") as f:
        f.write("compatibility_level = 3.6\nmyhostname = client.test\nmaillog_file =\ninet_protocols = ipv4\n")
    program = shutil.which("posttls-finger", path=SBIN)

    def judge(port, name, *words):
        return run([program, "-c", "-L", "summary", "-l", "secure", "-F", house.authority.file, *words, "[127.0.0.1]:%d" % port, name],
                   env=dict(os.environ, MAIL_CONFIG=etc), ok=False).stdout
    for port, words in ((house.offered, ()), (house.required, ()), (house.implicit, ("-w",)), (house.offered, ("-p", "TLSv1.2"))):
        said = judge(port, HOST, *words)
        assert "Verified TLS connection established to" in said, said
        assert ("TLSv1.2" if "-p" in words else "TLSv1.3") in said, said
    assert "Verified" not in judge(house.offered, "other.test")


class Postfix:
    """A private instance that takes plain SMTP and gives all of it to Posthouse by TLS."""

    def __init__(self, world, house, settings):
        self.directory = os.path.join(world.directory, "postfix")
        self.port = free_port()
        etc, queue, data = (os.path.join(self.directory, x) for x in ("etc", "queue", "data"))
        for path in (etc, queue, data):
            os.makedirs(path)
        for path in (world.directory, self.directory, etc, queue):
            os.chmod(path, 0o755)
        user = pwd.getpwnam("postfix")
        os.chown(data, user.pw_uid, user.pw_gid)
        with open(os.path.join(etc, "main.cf"), "w") as f:
            f.write("compatibility_level = 3.6\nqueue_directory = %s\ndata_directory = %s\nmyhostname = client.test\nmydestination =\n"
                    "local_recipient_maps =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n"
                    "disable_dns_lookups = yes\nmaillog_file = %s/log\nmaillog_file_prefixes = %s\nalias_maps =\nalias_database =\n"
                    "smtpd_peername_lookup = no\nsmtp_tls_CAfile = %s\nsmtp_tls_secure_cert_match = %s\nsmtp_tls_loglevel = 1\n"
                    "smtp_sasl_security_options = noanonymous\n%s"
                    % (queue, data, self.directory, self.directory, house.authority.file, HOST, settings))
        with open(os.path.join(etc, "master.cf"), "w") as f:
            f.write("127.0.0.1:%d inet n - n - - smtpd\n" % self.port)
            for line in ("cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "rewrite unix - - n - - trivial-rewrite",
                         "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
                         "proxymap unix - - n - - proxymap", "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
                         "error unix - - n - - error", "retry unix - - n - - error", "anvil unix - - n - 1 anvil",
                         "tlsmgr unix - - n 1000? 1 tlsmgr", "scache unix - - n - 1 scache", "pickup unix n - n 60 1 pickup",
                         "showq unix n - n - - showq", "flush unix n - n 1000? 0 flush", "verify unix - - n - 1 verify",
                         "postlog unix-dgram n - n - 1 postlogd"):
                f.write(line + "\n")
        self.command = [shutil.which("postfix", path=SBIN), "-c", etc]
        run(self.command + ["start"])

    def log(self):
        with open(os.path.join(self.directory, "log")) as f:
            return f.read()

    def close(self):
        subprocess.run(self.command + ["stop"], capture_output=True)


def postfix_as_a_client(world):
    house = House(world, auth=', mechanisms: "PLAIN LOGIN"')
    for number, (port, level, sasl) in enumerate(((house.offered, "encrypt", None), (house.offered, "secure", None),
                                                  (house.required, "secure", ALICE), (house.implicit, "secure", ALICE))):
        settings = "relayhost = [127.0.0.1]:%d\nsmtp_tls_security_level = %s\n" % (port, level)
        if sasl:
            settings += "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:%s\n" % world.file(
                "sasl", "[127.0.0.1]:%d %s:%s\n" % (port, *sasl))
        if port == house.implicit:
            settings += "smtp_tls_wrappermode = yes\n"
        postfix = Postfix(world, house, settings)
        try:
            with smtplib.SMTP("127.0.0.1", postfix.port, "origin.test", 30) as s:
                s.sendmail("a@sender.test", "b@%s" % ("far.test" if sasl else "rcpt.test"), "Subject: postfix %d\r\n\r\nhello\r\n" % number)
            house.arrived("postfix %d" % number, "with ESMTPSA" if sasl else "with ESMTPS id", TLS13)
            if level == "secure":
                assert "Verified TLS connection established to 127.0.0.1" in postfix.log(), postfix.log()
        except AssertionError:
            sys.stderr.write(postfix.log())
            raise
        finally:
            postfix.close()
            shutil.rmtree(postfix.directory)


def gsasl(world):
    """SCRAM with and without a binding to the TLS channel, by a library of its own."""
    house = House(world, "limits: {commands_bad: 100}")
    listeners = ((house.offered, "--starttls"), (house.required, "--starttls"))

    def login(port, way, mechanism, password=ALICE[1], *words):
        # It ends in a dialogue with the server: an empty input ends that.
        return run(["gsasl", "--smtp", "--verbose", "--no-cb" if mechanism == "SCRAM-SHA-256" else "--quiet", way, "--connect",
                    "127.0.0.1:%d" % port, "--hostname", HOST, "--x509-ca-file", house.authority.file, "-m", mechanism, "-a", ALICE[0],
                    "-p", password, *words], ok=False)
    ok = lambda: house.daemon.figures()['posthouse_auth_total{result="ok"}']
    count = 0
    for port, way in listeners:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN"):
            done = login(port, way, mechanism)
            count += 1
            assert done.returncode == 0 and ok() == count, (mechanism, done, ok())
            done = login(port, way, mechanism, "wrong")
            assert done.returncode != 0 and ok() == count, (mechanism, done, ok())


if __name__ == "__main__":
    main([swaks_in_all_forms, python_smtplib, nodemailer, curl, s_client, finger, postfix_as_a_client, gsasl])
