"""
A DNS server that lies, for tests: over UDP and TCP on one loopback port. What it says for a name is a function that gets the
question and answers with octets, or None for silence. Helpers build replies and records by hand, so that wrong ones can be built.
"""
import socket
import struct
import threading

A, CNAME, SOA, MX, AAAA = 1, 5, 6, 15, 28
POINTER = b"\xc0\x0c"  # to the name asked for


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def record(kind, data, name=POINTER, ttl=60):
    return name + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def mx(preference, target, name=POINTER):
    """target: text, or octets that are taken as they are."""
    return record(MX, struct.pack(">H", preference) + (target if isinstance(target, bytes) else encode(target)), name)


class Question:
    def __init__(self, octets, tcp):
        self.octets, self.tcp = octets, tcp
        labels, at = [], 12
        while octets[at]:
            labels.append(octets[at + 1:at + 1 + octets[at]].decode("latin-1").lower())
            at += 1 + octets[at]
        self.name = ".".join(labels)
        self.kind = struct.unpack(">H", octets[at + 1:at + 3])[0]
        self.section = octets[12:at + 5]

    def reply(self, records=(), code=0, count=None, cut=False, ident=None):
        """count: the number of answers that the header claims; cut: the TC bit."""
        flags = 0x8400 | (0x0200 if cut else 0) | code
        header = self.octets[:2] if ident is None else struct.pack(">H", ident)
        header += struct.pack(">HHHHH", flags, 1, len(records) if count is None else count, 0, 0)
        return header + self.section + b"".join(records)


class HostileDns:
    """answers: {"name": function(question) -> octets or None}; a name not there gets NXDOMAIN without an SOA."""

    def __init__(self, answers):
        self.answers, self.asked, self.closing = answers, [], False
        while True:
            self.tcp = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.port = self.tcp.getsockname()[1]
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
        for run in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=run, daemon=True).start()

    def close(self):
        self.closing = True
        self.tcp.close()
        self.udp.close()

    def _answer(self, octets, tcp):
        try:
            question = Question(octets, tcp)
        except (IndexError, struct.error):
            return None
        self.asked.append((question.name, question.kind, tcp))
        answer = self.answers.get(question.name)
        return answer(question) if answer else question.reply(code=3)

    def _serve_udp(self):
        while not self.closing:
            try:
                octets, peer = self.udp.recvfrom(4096)
                answer = self._answer(octets, False)
                if answer is not None:
                    self.udp.sendto(answer, peer)
            except OSError:
                if self.closing:
                    return

    def _serve_tcp(self):
        while not self.closing:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with connection, connection.makefile("rb") as f:
            try:
                while len(length := f.read(2)) == 2:
                    answer = self._answer(f.read(struct.unpack(">H", length)[0]), True)
                    if answer is not None:
                        connection.sendall(struct.pack(">H", len(answer)) + answer)
            except OSError:
                return
