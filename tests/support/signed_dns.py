"""
Signed zones on a real authoritative server, and a validating resolver in front of it: nsd, ldns-signzone and unbound on loopback.

What the resolver trusts are the keys of the signed zones themselves; all other zones are islands that nobody vouches for.
"""
import os
import re
import shutil
import socket
import subprocess

from posthouse_test import end_process, free_port, wait_until

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


def program(name):
    return shutil.which(name, path=SYSTEM) or name


class SignedDns:
    """signed, unsigned: {"example.test": "records in zone file form"}. spoil: a function that may change the text of a signed zone
    (name, text) -> text, so that signatures no longer fit. The resolver is at .port; .server is "127.0.0.1:PORT"."""

    def __init__(self, directory, signed, unsigned, spoil=None):
        self.directory = os.path.join(directory, "signed-dns")
        os.makedirs(self.directory)
        self.processes, self.anchors = {}, []
        self.authority_port, self.port = free_port(), free_port()
        self.server = "127.0.0.1:%d" % self.port
        files = {name: self._zone(name, records) for name, records in unsigned.items()}
        for name, records in signed.items():
            files[name] = self._sign(name, self._zone(name, records), spoil)
        self._start_nsd(files)
        self._start_unbound(files)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _write(self, name, text):
        with open(self._path(name), "w") as f:
            f.write(text)
        return self._path(name)

    def _zone(self, name, records):
        return self._write(name + ".zone", "$ORIGIN %s.\n$TTL 60\n@ SOA ns.%s. root.%s. 1 3600 600 86400 5\n@ NS ns.%s.\n"
                           "ns A 127.0.0.1\n%s\n" % (name, name, name, name, records))

    def _sign(self, name, path, spoil):
        key = subprocess.run([program("ldns-keygen"), "-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", name],
                             cwd=self.directory, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([program("ldns-signzone"), "-n", "-f", path + ".signed", path, key], cwd=self.directory, check=True,
                       capture_output=True)
        self.anchors.append(self._path(key + ".key"))
        if spoil:
            with open(path + ".signed") as f:
                text = f.read()
            self._write(name + ".zone.signed", spoil(name, text))
        return path + ".signed"

    def _start(self, name, arguments):
        with open(self._path(name + ".out"), "w") as out:
            self.processes[name] = subprocess.Popen([program(name)] + arguments, stdout=out, stderr=out, start_new_session=True)

    def _start_nsd(self, files):
        zones = "".join('zone:\n  name: "%s"\n  zonefile: "%s"\n' % (name, path) for name, path in files.items())
        config = self._write("nsd.conf", 'server:\n  ip-address: 127.0.0.1@%d\n  username: ""\n  chroot: ""\n  zonesdir: "%s"\n'
                             '  database: ""\n  pidfile: ""\n  xfrdfile: "%s/xfrd.state"\n  zonelistfile: "%s/zone.list"\n'
                             '  server-count: 1\n  cookie-secret-file: ""\nremote-control:\n  control-enable: no\n%s'
                             % (self.authority_port, self.directory, self.directory, self.directory, zones))
        self._start("nsd", ["-d", "-c", config])
        wait_until("nsd answers", lambda: self._answers("nsd", self.authority_port))

    def _start_unbound(self, files):
        stubs = "".join('stub-zone:\n  name: "%s"\n  stub-addr: 127.0.0.1@%d\n' % (name, self.authority_port) for name in files)
        trust = "".join('  trust-anchor-file: "%s"\n' % path for path in self.anchors)
        config = self._write("unbound.conf", 'server:\n  interface: 127.0.0.1\n  port: %d\n  username: ""\n  chroot: ""\n'
                             '  directory: "%s"\n  pidfile: ""\n  use-syslog: no\n  do-daemonize: no\n  do-not-query-localhost: no\n'
                             '  do-ip6: no\n  access-control: 127.0.0.0/8 allow\n  local-zone: "test." nodefault\n'
                             '  module-config: "validator iterator"\n  num-threads: 1\n  so-sndbuf: 0\n%s'
                             'remote-control:\n  control-enable: no\n%s' % (self.port, self.directory, trust, stubs))
        self._start("unbound", ["-d", "-c", config])
        wait_until("unbound answers", lambda: self._answers("unbound", self.port))

    def _answers(self, name, port):
        if self.processes[name].poll() is not None:
            with open(self._path(name + ".out")) as f:
                raise AssertionError(name + " ended: " + f.read())
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04nope\x04test\x00\x00\x06\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.3)
            try:
                s.sendto(query, ("127.0.0.1", port))
                return s.recv(512)[:2] == b"\x12\x34"
            except OSError:
                return False

    def end_authority(self):
        end_process(self.processes.pop("nsd"))

    def close(self):
        for process in self.processes.values():
            end_process(process)
        self.processes = {}


def spoil_record(text, owner, kind):
    """The last character of the data of owner's records of this kind turned into another one: the signature stays as it was."""
    def turn(m):
        return m.group(1) + ("1" if m.group(2) != "1" else "2")
    changed, count = re.subn(r"(?m)^(%s\.?\s+\d+\s+IN\s+%s\s.*)(\S)\s*$" % (re.escape(owner), kind), turn, text)
    assert count, "no %s %s in the signed zone" % (owner, kind)
    return changed
