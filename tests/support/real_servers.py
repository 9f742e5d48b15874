#!/usr/bin/env python3
"""
Real servers for system tests: slapd, PostgreSQL, Dovecot (auth and LMTP) and an HTTP service. Each runs in the foreground
from a directory of its own below the test's, on loopback, as an unprivileged user where it insists, and can be killed, frozen
and begun anew. Make them through World.add, which ends them.

    real_servers.py http PORT FILE

is the HTTP service: FILE is JSON, read at each question: {"addresses": {"user@domain": answer}, "accounts": {name: password}}.
/directory answers as in docs/directory-http.md, /auth as in docs/auth.md.
"""
import contextlib
import ctypes
import getpass
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from posthouse_test import free_port, wait_until

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def descendants(pid):
    found = []
    with contextlib.suppress(OSError):
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            for child in f.read().split():
                found += [int(child)] + descendants(int(child))
    return found


def stands_still(pid):
    """Every thread of the process is stopped, or it is gone."""
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, task)) as f:
                if f.read().rpartition(")")[2].split()[0] not in "TtZX":
                    return False
    except (FileNotFoundError, ProcessLookupError):
        pass
    return True


def is_gone(pid):
    with contextlib.suppress(OSError), open("/proc/%d/stat" % pid) as f:
        return f.read().rpartition(")")[2].split()[0] in "ZX"
    return True


class Server:
    """A program in the foreground. Its words go to .log; .command, .port and .user are the heir's."""

    user = None           # who runs it when we are root
    last_wish = signal.SIGTERM

    def __init__(self, world, name):
        self.directory = os.path.join(world.directory, name)
        self.log = self.directory + ".log"
        self.port = free_port()
        self.process = None
        os.chmod(world.directory, 0o711)  # others than we may go through
        os.mkdir(self.directory)
        if self.user and os.geteuid() == 0:
            shutil.chown(self.directory, self.user, self.user)

    def file(self, name, text, mode=0o600):
        path = os.path.join(self.directory, name)
        with open(path, "w", opener=lambda p, flags: os.open(p, flags, mode)) as f:
            f.write(text)
        if self.user and os.geteuid() == 0:
            shutil.chown(path, self.user, self.user)
        return path

    def _as(self):
        if self.user and os.geteuid() == 0:
            return {"user": self.user, "group": self.user, "extra_groups": []}
        return {}

    def run(self, *command, **more):
        """A program that helps, as the same user."""
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, **self._as(), **more)
        if done.returncode != 0:
            raise AssertionError("%s: %s" % (command, done.stderr))
        return done.stdout

    def start(self):
        wish = self.last_wish
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory,
                                            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, wish), **self._as())
        wait_until(self.command[0] + " is ready", self._ready, 60)
        return self

    def _ready(self):
        if self.process.poll() is not None:
            with open(self.log, errors="replace") as f:
                raise AssertionError("%s ended: %s" % (self.command[0], f.read()[-2000:]))
        return self.ready()

    def ready(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def signal(self, sig):
        for pid in [self.process.pid] + descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def kill(self):
        """At once and with its children, as a machine dies."""
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGSTOP)  # so that the parent makes no new children meanwhile
            family = descendants(self.process.pid)
            self.signal(signal.SIGKILL)
            self.process.wait()
            wait_until("its children are gone", lambda: all(map(is_gone, family)))

    def freeze(self):
        """It answers nothing any more when this returns: a signal alone lets it run on for a moment."""
        self.signal(signal.SIGSTOP)
        wait_until("all of it stands still", lambda: all(map(stands_still, [self.process.pid] + descendants(self.process.pid))))

    def thaw(self):
        self.signal(signal.SIGCONT)

    close = kill


class Slapd(Server):
    """entries: LDIF below dc=example,dc=net. People are of the classes person and mailUser."""

    ADMIN = "cn=admin,dc=example,dc=net"
    PASSWORD = "secret"
    SCHEMA = "".join("attributetype ( 1.3.6.1.4.1.4203.666.9.%d NAME '%s' EQUALITY caseIgnoreIA5Match SYNTAX "
                     "1.3.6.1.4.1.1466.115.121.1.26 )\n" % (i + 1, name)
                     for i, name in enumerate(("mailAlternateAddress", "mailForwardingAddress", "aliasTo")))
    ROOT = "dn: dc=example,dc=net\nobjectClass: domain\ndc: example\n\n"

    def __init__(self, world, people):
        super().__init__(world, "slapd")
        os.mkdir(os.path.join(self.directory, "data"))
        conf = self.file("slapd.conf", "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n" + self.SCHEMA +
                         "objectclass ( 1.3.6.1.4.1.4203.666.9.9 NAME 'mailUser' SUP top AUXILIARY MAY ( mail $ "
                         "mailAlternateAddress $ mailForwardingAddress $ aliasTo ) )\n"
                         "database ldif\nsuffix \"dc=example,dc=net\"\ndirectory data\nrootdn \"%s\"\nrootpw %s\n"
                         "access to attrs=userPassword by anonymous auth by * none\naccess to * by * read\n"
                         % (self.ADMIN, self.PASSWORD))
        entries = "".join("dn: cn=%s,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\ncn: %s\nsn: %s\n%s\n" %
                          (name, name, name, "".join("%s: %s\n" % pair for pair in attributes))
                          for name, attributes in people.items())
        self.run("/usr/sbin/slapadd", "-f", conf, "-l", self.file("data.ldif", self.ROOT + entries))
        self.uri = "ldap://127.0.0.1:%d" % self.port
        self.command = ["/usr/sbin/slapd", "-h", self.uri, "-f", conf, "-d", "0"]
        self.start()

    def change(self, ldif):
        self.run("ldapmodify", "-x", "-H", self.uri, "-D", self.ADMIN, "-w", self.PASSWORD, input=ldif)


class Postgres(Server):
    """It refuses to run as root. The user is postgres, the password "secret"."""

    user = "postgres"
    last_wish = signal.SIGQUIT

    def __init__(self, world, sql):
        super().__init__(world, "postgres")
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.run(programs + "/initdb", "-D", "data", "-U", "postgres", "-A", "scram-sha-256", "--pwfile=" +
                 self.file("pw", "secret\n"), "-E", "UTF8", "--locale=C", "--no-sync")
        self.uri = "postgresql://postgres:secret@127.0.0.1:%d/postgres" % self.port
        self.psql = programs + "/psql"
        self.command = [programs + "/postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-F"]
        self.start()
        self.change(sql)

    def ready(self):
        return subprocess.run([self.psql, self.uri, "-c", ""], capture_output=True).returncode == 0

    def change(self, sql):
        self.run(self.psql, self.uri, "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", input=sql)


class Dovecot(Server):
    """users: {name with domain: password}; they have mailboxes behind LMTP and passwords behind the auth socket."""

    def __init__(self, world, users, mechanisms="plain login cram-md5", more=""):
        super().__init__(world, "dovecot")
        os.chmod(self.directory, 0o755)
        own = "" if os.geteuid() == 0 else "default_internal_user = {0}\ndefault_login_user = {0}\n".format(getpass.getuser())
        self.lmtp = os.path.join(self.directory, "lmtp.socket")
        self.auth = os.path.join(self.directory, "auth.socket")
        self.change(users)
        os.mkdir(os.path.join(self.directory, "mail"))
        os.chmod(os.path.join(self.directory, "mail"), 0o777)
        conf = self.file("dovecot.conf", """
base_dir = {d}/run
state_dir = {d}/run
log_path = {d}/dovecot.log
protocols = lmtp
ssl = no
{own}
{more}
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:~/Maildir
recipient_delimiter = +
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {d}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {d}/users
  default_fields = uid={uid} gid={gid} home={d}/mail/%u
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {d}/lmtp.socket {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {d}/auth.socket {{
    mode = 0666
  }}
}}
""".format(d=self.directory, own=own, more=more, mechanisms=mechanisms, port=self.port, uid="nobody" if os.geteuid() == 0 else os.getuid(),
           gid="nogroup" if os.geteuid() == 0 else os.getgid()))
        self.command = ["/usr/sbin/dovecot", "-F", "-c", conf]
        self.start()

    def start(self):
        for left in (self.lmtp, self.auth, os.path.join(self.directory, "run", "master.pid")):
            with contextlib.suppress(OSError):
                os.unlink(left)
        return super().start()

    def ready(self):
        if not os.path.exists(self.auth):
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as s:
            return s.recv(100).startswith(b"220")
        return False

    def change(self, users):
        """Takes the place of the file in one step."""
        path = self.file("users.new", "".join("%s:{PLAIN}%s::::::\n" % pair for pair in users.items()), 0o644)
        os.rename(path, os.path.join(self.directory, "users"))

    def mailbox(self, user):
        """The messages that it has."""
        found = []
        for path in glob.glob(os.path.join(self.directory, "mail", user, "Maildir", "new", "*")):
            with open(path, "rb") as f:
                found.append(f.read())
        return found


class Http(Server):
    """addresses: {"user@domain": answer}; accounts: {name: password}."""

    def __init__(self, world, addresses=None, accounts=None):
        super().__init__(world, "http")
        self.change(addresses or {}, accounts or {})
        self.uri = "http://127.0.0.1:%d" % self.port
        self.command = [sys.executable, os.path.abspath(__file__), "http", str(self.port), os.path.join(self.directory, "data")]
        self.start()

    def change(self, addresses, accounts):
        path = self.file("data.new", json.dumps({"addresses": addresses, "accounts": accounts}))
        os.rename(path, os.path.join(self.directory, "data"))

    def questions(self):
        with open(self.log) as f:
            return [json.loads(line) for line in f if line.startswith("{")]


class HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(json.dumps(question), flush=True)
        with open(sys.argv[3]) as f:
            data = json.load(f)
        status, answer = 404, {}
        if self.path == "/directory" and question["address"] in data["addresses"]:
            status, answer = 200, data["addresses"][question["address"]]
        elif self.path == "/auth" and question["account"] in data["accounts"]:
            status, answer = 200, {"ok": data["accounts"][question["account"]] == question["password"]}
        octets = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)


def main():
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), HttpHandler).serve_forever()


if __name__ == "__main__":
    main()
