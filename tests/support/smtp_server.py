#!/usr/bin/env python3
"""
A receiving SMTP or LMTP server that follows a script, also a hostile one. A library, and a program of its own.

    smtp_server.py [--listen HOST:PORT] [--lmtp] [--record FILE] [--extensions A,B] [STAGE=REPLY]...

Prints "port N" when it listens. Stages: greeting ehlo helo mail rcpt data dot rset quit. A reply is text without its line end
("\\n" parts lines); "a|b" answers a first and b from then on. Special replies: @silent says nothing more, @close closes,
@reset closes with a reset, @endless never ends a reply, @long sends one megabyte without a line end, @mixed contradicts itself,
@nul puts control octets into the text, @drip sends one octet a second. A message with a 2yz at its dot is recorded as
one JSON line: sender, recipients, parameters, and the octets in base64.
"""
import argparse
import base64
import contextlib
import json
import signal
import socket
import struct
import sys
import threading
import time

USUAL = {"greeting": "220 server.test ready", "helo": "250 server.test", "mail": "250 2.1.0 fine", "rcpt": "250 2.1.5 fine",
         "dot": "250 2.0.0 taken", "rset": "250 2.0.0 fine", "quit": "221 2.0.0 bye"}
EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE", "DSN", "SMTPUTF8")


class Over(Exception):
    """The session has ended, by script or by the client."""


class Session:
    def __init__(self, server, connection, peer=None):
        self.server, self.connection = server, connection
        self.peer = peer
        self.counts = {}
        self.sender, self.recipients = None, []

    def reply(self, stage, usual):
        script = self.server.scripts.get(self.peer, self.server.script).get(stage)
        if script is None:
            return usual
        parts = script.split("|")
        n = self.counts.get(stage, 0)
        self.counts[stage] = n + 1
        return parts[min(n, len(parts) - 1)]

    def send(self, octets):
        try:
            self.connection.sendall(octets)
        except OSError:
            raise Over

    def wait_for_end(self):
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass
        raise Over

    def hostile(self, word):
        if word == "@silent":
            self.wait_for_end()
        if word == "@reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if word in ("@close", "@reset"):
            raise Over
        if word == "@mixed":
            self.send(b"250-yes\r\n550 no\r\n")
        elif word == "@nul":
            self.send(b"550 5.1.1 a\0b\x1b[31mc\xff\td\r\n")
        elif word == "@long":
            self.send(b"250 " + b"x" * (1 << 20))
            self.wait_for_end()
        elif word == "@endless":
            while True:
                self.send(b"250-and so on\r\n" * 100)
        elif word == "@drip":
            while True:
                self.send(b"2")
                time.sleep(1)
        else:
            raise ValueError("no such reply: " + word)

    def say(self, text):
        if text.startswith("@"):
            self.hostile(text)
            return
        lines = text.split("\n")
        if len(lines) > 1 and not lines[1][:3].isdigit():  # "250 a\nb": the code of the first line is that of all
            code, lines = lines[0][:3], [lines[0][4:]] + lines[1:]
            lines = ["%s%s%s" % (code, "-" if i + 1 < len(lines) else " ", line) for i, line in enumerate(lines)]
        self.send(("\r\n".join(lines) + "\r\n").encode())

    def read_body(self, stream):
        body = bytearray()
        while True:
            line = stream.readline(1 << 20)
            if not line:
                raise Over
            if line == b".\r\n":
                return bytes(body)
            body += line[1:] if line.startswith(b".") else line

    def on_data(self, stream):
        fine = bool(self.recipients)
        text = self.reply("data", "354 go on" if fine else "503 5.5.1 no recipients")
        self.say(text)
        if not text.startswith("354"):
            return
        body = self.read_body(stream)
        for recipient in self.recipients if self.server.lmtp else [None]:
            answer = self.reply("dot", USUAL["dot"])
            if answer.startswith("2"):
                self.server.record(self.sender, [recipient] if recipient else self.recipients, body, self.peer)
            self.say(answer)
        self.sender, self.recipients = None, []

    def on_command(self, line, stream):
        verb = line[:4].upper()
        if verb in ("EHLO", "LHLO"):
            usual = "250 server.test" + "".join("\n" + e for e in self.server.extensions)
            self.say(self.reply("ehlo", usual))
        elif verb == "MAIL":
            text = self.reply("mail", USUAL["mail"])
            self.recipients = []
            self.sender = line[10:] if text.startswith("2") else None
            self.say(text)
        elif verb == "RCPT":
            text = self.reply("rcpt", USUAL["rcpt"]) if self.sender is not None else "503 5.5.1 no sender"
            if text.startswith("2"):
                self.recipients.append(line[8:])
            self.say(text)
        elif verb == "DATA":
            self.on_data(stream)
        elif verb == "QUIT":
            self.say(self.reply("quit", USUAL["quit"]))
            raise Over
        elif verb in ("HELO", "RSET"):
            self.sender, self.recipients = None, []
            self.say(self.reply(verb.lower(), USUAL[verb.lower()]))
        else:
            self.say("500 5.5.2 what")

    def run(self):
        with self.connection, self.connection.makefile("rb") as stream, contextlib.suppress(Over, OSError):
            refusal = self.server.refused.get(self.peer)
            if refusal is not None:
                self.say(refusal)
                return
            self.say(self.reply("greeting", USUAL["greeting"]))
            while True:
                line = stream.readline(1 << 16)
                if not line:
                    return
                text = line.rstrip(b"\r\n").decode("utf-8", "replace")
                self.server.note(text)
                self.on_command(text, stream)


class SmtpServer:
    """.messages: dictionaries as recorded; .commands: all lines of clients; .connections, .open_most: counted.

    .refused: what clients of these addresses are greeted with, and left; .scripts: for
    clients of these addresses, instead of .script; .peers: the address of each connection.
    """

    def __init__(self, script=None, address="127.0.0.1", port=0, lmtp=False, extensions=EXTENSIONS, record=None):
        self.script, self.lmtp, self.extensions = dict(script or {}), lmtp, tuple(extensions)
        self.messages, self.commands = [], []
        self.refused, self.scripts, self.peers = {}, {}, []
        self.connections = self.open = self.open_most = 0
        self.lock = threading.Lock()
        self.file = record
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, port), family=family, backlog=512)
        self.address, self.port = self.listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def note(self, line):
        with self.lock:
            self.commands.append(line)

    def record(self, sender, recipients, body, peer=None):
        def path(text):  # "<a@b> SIZE=5" -> address and parameters
            address, _, rest = text.lstrip("<").partition(">")
            return address, rest.split()
        message = {"sender": path(sender)[0], "sender_parameters": path(sender)[1],
                   "recipients": [path(r)[0] for r in recipients], "recipient_parameters": [path(r)[1] for r in recipients],
                   "body": base64.b64encode(body).decode(), "peer": peer}
        with self.lock:
            self.messages.append(message)
            if self.file:
                self.file.write(json.dumps(message) + "\n")
                self.file.flush()

    def _accept(self):
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, address[0] if address else ""), daemon=True).start()

    def _serve(self, connection, peer):
        with self.lock:
            self.connections += 1
            self.open += 1
            self.open_most = max(self.open_most, self.open)
            self.peers.append(peer)
        Session(self, connection, peer).run()
        with self.lock:
            self.open -= 1


def main():
    parser = argparse.ArgumentParser(description="A receiving SMTP or LMTP server that follows a script.")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--lmtp", action="store_true")
    parser.add_argument("--record", help="file for messages, one JSON line each; - is standard output")
    parser.add_argument("--extensions", default=",".join(EXTENSIONS))
    parser.add_argument("script", nargs="*", help="STAGE=REPLY")
    options = parser.parse_args()
    script = {}
    for word in options.script:
        stage, equals, reply = word.partition("=")
        if not equals or stage not in ("greeting", "ehlo", "helo", "mail", "rcpt", "data", "dot", "rset", "quit"):
            parser.error("not a stage and its reply: " + word)
        script[stage] = reply.replace("\\n", "\n")
    host, _, port = options.listen.rpartition(":")
    record = sys.stdout if options.record == "-" else open(options.record, "a") if options.record else None
    extensions = [e for e in options.extensions.split(",") if e]
    server = SmtpServer(script, host.strip("[]"), int(port), options.lmtp, extensions, record)
    print("port %d" % server.port, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.close()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
