#!/usr/bin/env python3
"""
A mailbox server that is asked by RCPT TO and never gets a message. It knows the local parts that begin with "box"; some others
make it behave badly.

    mailbox_server.py [--accept-all] [--refuse-null] [--rcpt-max N] [--unix PATH] [--port N] [--lmtp] [--extensions A,B] [STAGE=REPLY]...

Prints "port N" when it listens on 127.0.0.1 (0 for a unix socket), ends when its standard input ends. STAGE=REPLY and the special
replies are those of smtp_server.py. Local parts: "later" 450, "odd" 354, "close", "silent" and "mixed" do so, "once" closes the
first time; "box-tell" answers with the number of connections and of all commands, and with the sender.
"""
import argparse
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from smtp_server import EXTENSIONS, Session, SmtpServer  # noqa: E402

once = set()


class MailboxSession(Session):
    def answer(self, local):
        server = self.server
        if local == "box-tell":
            return "250 connections=%d commands=%d sender=%s" % (server.connections, len(server.commands), self.sender)
        if local in ("close", "silent", "mixed"):
            return "@" + local
        if local == "once" and local not in once:
            once.add(local)
            return "@close"
        if local == "later":
            return "450 4.2.0 not now"
        if local == "odd":
            return "354 what"
        known = local.startswith("box") or local in ("once", '"box of \\"odd\\" things"', "b\u00fcx")
        return "250 2.1.5 fine" if known or server.accept_all else "550 5.1.1 no such user"

    def on_command(self, line, stream):
        verb = line[:4].upper()
        server = self.server
        if verb == "MAIL" and server.refuse_null and "<>" in line:
            self.sender = None
            self.say("550 5.7.1 null sender not taken")
        elif verb == "RCPT" and self.sender is not None and "rcpt" not in server.script:
            if server.rcpt_max and len(self.recipients) >= server.rcpt_max:
                self.say("452 4.5.3 too many recipients")
                return
            text = self.answer(line[line.index("<") + 1:line.rindex("@")])
            if text.startswith("250"):
                self.recipients.append(line)
            self.say(text)
        elif verb == "DATA":
            self.say("554 5.0.0 nobody was to send anything")
        else:
            super().on_command(line, stream)


class MailboxServer(SmtpServer):
    def _serve(self, connection, peer):
        with self.lock:
            self.connections += 1
        MailboxSession(self, connection, peer).run()

    def listen_unix(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self._accept()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--accept-all", action="store_true")
    parser.add_argument("--refuse-null", action="store_true")
    parser.add_argument("--rcpt-max", type=int, default=0)
    parser.add_argument("--unix")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lmtp", action="store_true")
    parser.add_argument("--extensions", default=",".join(EXTENSIONS))
    parser.add_argument("script", nargs="*")
    options = parser.parse_args()
    script = dict(word.split("=", 1) for word in options.script)
    MailboxServer.accept_all, MailboxServer.refuse_null = options.accept_all, options.refuse_null
    MailboxServer.rcpt_max = options.rcpt_max
    server = MailboxServer(script, port=options.port, lmtp=options.lmtp, extensions=[e for e in options.extensions.split(",") if e])
    if options.unix:
        import threading
        threading.Thread(target=server.listen_unix, args=(options.unix,), daemon=True).start()
        while not os.path.exists(options.unix):
            pass
    print("port %d" % server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
