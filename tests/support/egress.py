"""
Proxies that connect from an address of theirs: a SOCKS5 proxy and a relay that takes PROXY headers of version 2, both in threads
and as awkward as a test wants them, and the real ones: MicroSocks and HAProxy.
"""
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading

from posthouse_test import end_process, free_port, wait_until

CODES = {ConnectionRefusedError: 5, TimeoutError: 6}
MARK = b"\r\n\r\n\x00\r\nQUIT\n"


class Refused(Exception):
    """The proxy has said all that it will."""


def exactly(connection, count):
    octets = b""
    while len(octets) < count:
        more = connection.recv(count - len(octets))
        if not more:
            raise Refused
        octets += more
    return octets


def pump(source, target):
    with contextlib.suppress(OSError):
        while True:
            octets = source.recv(65536)
            if not octets:
                break
            target.sendall(octets)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def join(one, other):
    thread = threading.Thread(target=pump, args=(other, one), daemon=True)
    thread.start()
    pump(one, other)
    thread.join()


class Proxy:
    """Listens, and serves each connection in a thread. .port, .name as the settings have it, .asked: (host, port) of each target."""

    def __init__(self, address="127.0.0.1", port=0):
        self.listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.port = self.listener.getsockname()[1]
        self.name = ("[%s]:%d" if ":" in address else "%s:%d") % (address, self.port)
        self.asked, self.connections = [], 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        with connection, contextlib.suppress(OSError, Refused):
            self.serve(connection)


class Socks5(Proxy):
    """source: the address that it connects from. user, password: asked for when given. answer: None, or the code that it gives to
    every CONNECT, or to those to a host of a dictionary; "silent" and "close": what it does instead of a reply. greeting: the same words
    for what it does as soon as it is connected to. together: its reply comes in one piece with the first words of the server."""

    def __init__(self, source=None, user=None, password=None, answer=None, greeting=None, together=False, **more):
        self.source, self.login = source, (user, password) if user else None
        self.answer, self.greeting, self.together = answer, greeting, together
        super().__init__(**more)

    def odd(self, connection, word):
        if word == "silent":
            while connection.recv(4096):
                pass
        if word in ("silent", "close"):
            raise Refused

    def serve(self, connection):
        self.odd(connection, self.greeting)
        version, count = exactly(connection, 2)
        methods = exactly(connection, count)
        wanted = 2 if self.login else 0
        assert version == 5
        if wanted not in methods:
            connection.sendall(b"\x05\xff")
            raise Refused
        connection.sendall(bytes([5, wanted]))
        if self.login:
            self.check_login(connection)
        target = self.read_request(connection)
        self.asked.append(target)
        answer = self.answer.get(target[0]) if isinstance(self.answer, dict) else self.answer
        self.odd(connection, answer)
        if answer:
            self.reply(connection, answer)
            raise Refused
        self.connect(connection, target)

    def check_login(self, connection):
        assert exactly(connection, 1) == b"\x01"
        user = exactly(connection, exactly(connection, 1)[0]).decode()
        password = exactly(connection, exactly(connection, 1)[0]).decode()
        fine = (user, password) == self.login
        connection.sendall(b"\x01" + (b"\x00" if fine else b"\x01"))
        if not fine:
            raise Refused

    def read_request(self, connection):
        version, command, reserved, kind = exactly(connection, 4)
        assert (version, command, reserved) == (5, 1, 0) and kind in (1, 4), (version, command, reserved, kind)
        host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, exactly(connection, 4 if kind == 1 else 16))
        return host, struct.unpack("!H", exactly(connection, 2))[0]

    def reply(self, connection, code, behind=b""):
        connection.sendall(bytes([5, code, 0, 1]) + b"\x00" * 6 + behind)

    def connect(self, connection, target):
        try:
            server = socket.create_connection(target, 10, source_address=(self.source, 0) if self.source else None)
        except OSError as error:
            self.reply(connection, CODES.get(type(error), 1))
            raise Refused
        with server:
            server.settimeout(None)
            self.reply(connection, 0, server.recv(4096) if self.together else b"")
            join(connection, server)


class ProxyV2(Proxy):
    """A relay. sources: the addresses that it has for those of the headers. .headers: (source, destination) of each, with ports."""

    def __init__(self, sources, **more):
        self.sources, self.headers = sources, []
        super().__init__(**more)

    def serve(self, connection):
        head = exactly(connection, 16)
        kind, length = head[13], struct.unpack("!H", head[14:])[0]
        assert head[:12] == MARK and head[12] == 0x21 and kind in (0x11, 0x21), head
        octets, family = (4, socket.AF_INET) if kind == 0x11 else (16, socket.AF_INET6)
        assert length == 2 * octets + 4
        block = exactly(connection, length)
        ends = [socket.inet_ntop(family, block[at:at + octets]) for at in (0, octets)]
        ports = struct.unpack("!HH", block[2 * octets:])
        self.headers.append(tuple(zip(ends, ports)))
        self.asked.append((ends[1], ports[1]))
        with socket.create_connection((ends[1], ports[1]), 10, source_address=(self.sources[ends[0]], 0)) as server:
            server.settimeout(None)
            join(connection, server)


class Program:
    """A real proxy that listens at .name."""

    def __init__(self, world, name, make_command):
        self.port = free_port()
        self.name = "127.0.0.1:%d" % self.port
        self.log = os.path.join(world.directory, "%s-%d.log" % (name, self.port))
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(make_command(shutil.which(name, path="/usr/sbin:/usr/bin")), stdout=out, stderr=out)
        wait_until(name + " listens", self._listens, 20)

    def _listens(self):
        if self.process.poll() is not None:
            with open(self.log) as f:
                raise AssertionError("it ended: " + f.read())
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        end_process(self.process)


class MicroSocks(Program):
    def __init__(self, world, source, user=None, password=None):
        login = ["-u", user, "-P", password] if user else []
        super().__init__(world, "microsocks",
                         lambda program: [program, "-i", "127.0.0.1", "-p", str(self.port), "-b", source] + login)


class Haproxy(Program):
    """Connects to the destination of the header, from its source: any address, whose port is free."""

    def __init__(self, world):
        def command(program):
            path = world.file("egress.cfg", "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n"
                              "  timeout server 60s\nlisten out\n  bind 127.0.0.1:%d accept-proxy\n"
                              "  source 0.0.0.0 usesrc clientip\n  server destination 0.0.0.0:0\n" % self.port)
            return [program, "-db", "-f", path]
        super().__init__(world, "haproxy", command)
