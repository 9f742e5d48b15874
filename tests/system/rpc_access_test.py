#!/usr/bin/env python3
"""
Proves that operators of other machines come in by their keys alone: tool over tcp as viewer, operator and admin; that a
wrong key, another server's key, plain ZeroMQ and a replayed recording get nothing; that a removed key is out at the reload;
that wrong roles are refused and in the audit, and changes are in it with the name of the key; and what the verbs of the node
itself do: drain and undrain, settings, log level.
"""
import contextlib
import json
import os
import re
import smtplib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, SLOW, check, free_port, main, wait_until

USAGE, UNAVAILABLE, NOPERM, CANTCREAT, CONFIG = 64, 69, 77, 73, 78
ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"


def new_key(world, name):
    """A key file, made by the tool, and its public half."""
    path = os.path.join(world.directory, name + ".key")
    done = subprocess.run([os.path.join(BUILD, "posthouse"), "key", "new", path], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    return path, done.stdout.strip()


class Office:
    """A daemon with a door on tcp, and tools with keys."""

    def __init__(self, world, roles):
        self.world = world
        self.port = free_port()
        self.sink = world.sink()
        self.files = {}
        self.publics = {}
        for name in ["node"] + list(roles):
            self.files[name], self.publics[name] = new_key(world, name)
        self.post = world.posthouse()
        self.write(roles)
        self.post.start()

    def write(self, roles, gateway=""):
        """The settings, with these keys."""
        self.post.write_settings(gateway=gateway)
        with open(self.post.config) as f:
            text = f.read()
        text = re.sub(r"  rpc: .*", "  rpc: [\"%s\", \"tcp://127.0.0.1:%d\"]\n  key: %s\n  keys:\n%s" % (
            self.post.rpc, self.port, self.files["node"],
            "".join("    - {name: %s, key: \"%s\", role: %s}\n" % (name, self.publics[name], role)
                    for name, role in roles.items())), text)
        with open(self.post.config, "w") as f:
            f.write(text + ROUTES % self.sink.port)

    def reload(self):
        assert "reloaded" in self.post.tool("config", "reload", text=True)

    def command(self, name, server_key=None):
        return [os.path.join(BUILD, "posthouse"), "--server", "tcp://127.0.0.1:%d" % self.port, "--key", self.files[name],
                "--server-key", server_key or self.publics["node"]]

    def tool(self, name, *words, server_key=None, ok=True):
        done = subprocess.run(self.command(name, server_key) + ["--json"] + list(words), capture_output=True, text=True,
                              timeout=90)
        if not ok:
            return done
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def audits(self):
        return self.post.tool("audit")["audits"]

    def audit_lines(self):
        return [line for line in self.post.log_text().splitlines() if " audit " in line]


def each_role_may_what_it_may(world):
    o = Office(world, {"vera": "viewer", "otto": "operator", "anna": "admin"})
    id = o.post.send("a@back.test", "b@there.test")
    for name in ("vera", "otto", "anna"):
        assert o.tool(name, "status")["figures"]["posthouse_admin_requests_total"] >= 1
        o.tool(name, "msg", "trace", id)
        o.tool(name, "nodes")
    for name, words in (("vera", ["retry", "to:b@there.test"]), ("vera", ["drain"]), ("vera", ["config", "show"]),
                        ("vera", ["trace", "smtp", "in", "--for", "1s"]),
                        ("otto", ["drain"]), ("otto", ["config", "reload"]), ("otto", ["log", "level", "debug"])):
        done = o.tool(name, *words, ok=False)
        assert done.returncode == NOPERM and "the key %s (" % name in done.stderr and "may not" in done.stderr, (words, done)
    body = subprocess.run(o.command("vera") + ["msg", "body", id], capture_output=True, text=True, timeout=60)
    assert body.returncode == NOPERM and "may not msg body" in body.stderr, body
    o.tool("otto", "retry", "to:b@there.test")
    assert o.tool("vera", "log", "level")["text"] == "info"
    assert o.tool("anna", "log", "level", "debug")["text"] == "debug"
    assert o.tool("vera", "log", "level")["text"] == "debug"
    o.reload()
    assert o.tool("vera", "log", "level")["text"] == "info", "it holds until the next reload"
    assert o.post.stop() == 0


def changes_and_refusals_are_in_the_audit(world):
    o = Office(world, {"vera": "viewer", "otto": "operator"})
    o.tool("otto", "retry", "domain:there.test")
    assert o.tool("vera", "retry", "domain:other.test", ok=False).returncode == NOPERM
    o.post.tool("retry", "domain:here.test")
    wait_until("the log has them", lambda: len(o.audit_lines()) >= 5)
    begun, done, refused = o.audit_lines()[:3]
    assert "stage=begun actor=otto role=operator verb=retry what=domain:there.test" in begun and "origin=tcp" in begun, begun
    assert "stage=done actor=otto" in done and "count=0" in done, done
    assert "stage=refused actor=vera role=viewer verb=retry what=domain:other.test" in refused, refused
    assert "actor=unix:" in o.audit_lines()[3] and "origin=ipc" in o.audit_lines()[3], o.audit_lines()[3]
    kept = o.audits()
    assert any(a["actor"] == "otto" for a in kept) and any(a["actor"] == "vera" for a in kept), kept
    assert o.post.stop() == 0


def strangers_get_nothing(world):
    o = Office(world, {"vera": "viewer"})
    o.files["eve"], o.publics["eve"] = new_key(world, "eve")
    asked = o.post.figures()["posthouse_admin_requests_total"]
    done = o.tool("eve", "status", ok=False)
    assert done.returncode == NOPERM and "admin.keys" in done.stderr, done
    done = o.tool("vera", "status", server_key=o.publics["eve"], ok=False)
    assert done.returncode == NOPERM and "--server-key" in done.stderr, done
    done = subprocess.run([os.path.join(BUILD, "posthouse"), "--server", "tcp://127.0.0.1:%d" % o.port, "status"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == USAGE and "--key" in done.stderr, done
    assert plain_peer(o.port) == b"", "a plain peer was answered beyond the greeting"
    with socket.create_connection(("127.0.0.1", o.port)) as s:  # noise
        s.sendall(os.urandom(5000))
        with contextlib.suppress(OSError):
            s.settimeout(2)
            s.recv(1000)
    assert o.post.figures()["posthouse_admin_requests_total"] == asked + 1, "a stranger was heard"
    assert "bus_key_refused" in o.post.log_text()
    o.tool("vera", "status")
    assert o.post.stop() == 0


def plain_peer(port):
    """Speaks ZMTP 3.0 with the mechanism NULL, as a DEALER; what came behind the greeting."""
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x07User-Id\x00\x00\x00\x04vera"
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(3)
        s.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready + b"\x00\x05hello")
        got = b""
        with contextlib.suppress(OSError):
            while True:
                part = s.recv(1000)
                if not part:
                    break
                got += part
    return got[64:]


class Recorder:
    """Passes one connection on, and remembers what the client said."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = port
        self.said = b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()
            while True:
                part = client.recv(65536)
                if not part:
                    break
                self.said += part
                server.sendall(part)
            server.close()

    def _back(self, server, client):
        with contextlib.suppress(OSError):
            while True:
                part = server.recv(65536)
                if not part:
                    break
                client.sendall(part)

    def close(self):
        self.listener.close()


def a_recording_is_worth_nothing(world):
    o = Office(world, {"otto": "operator"})
    recorder = world.add(Recorder(o.port))
    door, o.port = o.port, recorder.port
    o.tool("otto", "retry", "domain:there.test")
    o.port = door
    before = o.post.figures()["posthouse_admin_changes_total"]
    assert before == 1 and len(recorder.said) > 200, (before, len(recorder.said))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", door)) as s:
            s.sendall(recorder.said)
            s.settimeout(2)
            with contextlib.suppress(OSError):
                while s.recv(65536):
                    pass
    assert o.post.figures()["posthouse_admin_changes_total"] == before, "a replayed call was done"
    assert o.post.stop() == 0


def keys_change_with_a_reload(world):
    o = Office(world, {"vera": "viewer", "otto": "operator", "anna": "admin"})
    watch = subprocess.Popen(o.command("otto") + ["--for", "120s", "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    assert watch.poll() is None
    o.write({"vera": "admin", "anna": "viewer"})
    o.reload()
    assert watch.wait(60 * SLOW) == NOPERM, watch.stderr.read()
    watch.stdout.close()
    watch.stderr.close()
    assert o.tool("otto", "status", ok=False).returncode == NOPERM, "a removed key came in"
    assert o.tool("anna", "config", "show", ok=False).returncode == NOPERM
    assert "***" not in o.tool("vera", "config", "show")["text"]
    o.publics["vera"], o.publics["anna"] = o.publics["anna"], o.publics["vera"]  # the names change keys
    o.write({"vera": "admin", "anna": "viewer"})
    o.reload()
    assert o.tool("vera", "config", "show", ok=False).returncode == NOPERM, "the role went with the key, not the name"
    o.tool("anna", "config", "show")
    assert o.post.stop() == 0


def settings_are_shown_compared_and_reloaded(world):
    o = Office(world, {"anna": "admin"})
    with open(o.post.config, "a") as f:
        f.write("domains: [{name: ours.test, recipients: any, route: \"smtp:127.0.0.1:1\"}]\n"
                "srs: {domain: ours.test, secrets: [\"a secret of many letters\"]}\n")
    text = o.tool("anna", "config", "diff")["text"]
    assert "+srs:" in text and "many letters" not in text and "***" in text, text
    o.reload()
    assert o.tool("anna", "config", "diff")["text"] == "no difference"
    text = o.tool("anna", "config", "show")["text"]
    assert "domain: ours.test" in text and "***" in text and "many letters" not in text, text
    good = open(o.post.config).read()
    with open(o.post.config, "w") as f:
        f.write(good + "nonsense: true\n")
    done = o.tool("anna", "config", "reload", ok=False)
    assert done.returncode != 0 and "nonsense: unknown key" in done.stderr and "stay in force" in done.stderr, done
    assert "+nonsense: true" in o.tool("anna", "config", "diff")["text"]
    with open(o.post.config, "w") as f:
        f.write("{")
    assert o.tool("anna", "config", "diff", ok=False).returncode != 0
    with open(o.post.config, "w") as f:
        f.write(good.replace("tcp://127.0.0.1:%d" % o.port, "tcp://127.0.0.1:%d" % free_port()))
    for _ in range(2):  # it still does
        assert "waits for a restart" in o.tool("anna", "config", "reload")["text"]
    with open(o.post.config, "w") as f:
        f.write(good)
    assert "waits for a restart" not in o.tool("anna", "config", "reload")["text"]
    assert o.post.stop() == 0


def a_drained_node_takes_nothing_and_comes_back(world):
    o = Office(world, {"anna": "admin"})
    o.sink.script["rcpt"] = "451 4.2.0 later"
    open_session = o.post.smtp()
    open_session.ehlo()
    o.post.send("a@back.test", "held@there.test")
    assert o.tool("anna", "drain", "elsewhere", ok=False).returncode != 0, "another node is not this one"
    assert "draining" in o.tool("anna", "drain")["text"]
    assert "already" in o.tool("anna", "drain")["text"]
    wait_until("the session is told", lambda: said_421(open_session))
    try:
        o.post.smtp().close()
        raise AssertionError("a new client was greeted")
    except smtplib.SMTPConnectError as error:
        assert error.smtp_code == 421, error
    assert "draining" in o.tool("anna", "nodes")["rows"][0]["reason"]
    figures = o.post.figures()
    assert figures["gateway_draining"] == 1 and figures["delivery.draining"] == 1, figures
    del o.sink.script["rcpt"]
    tries = o.sink.connections
    o.post.tool("retry", "to:held@there.test")
    time.sleep(2)
    assert o.sink.connections == tries and not o.sink.messages, "a drained node delivered"
    assert "again" in o.tool("anna", "undrain")["text"]
    o.sink.wait(1, 30)
    o.post.send("a@back.test", "new@there.test")
    o.sink.wait(2, 30)
    assert o.post.figures()["gateway_draining"] == 0
    assert o.tool("anna", "drain")["text"]
    assert o.post.stop() == 0, "a drained node ends as any other"


def said_421(session):
    try:
        return session.noop()[0] == 421
    except smtplib.SMTPServerDisconnected:
        return True


def settings_of_a_door_are_checked(world):
    path, public = new_key(world, "node")
    again = subprocess.run([os.path.join(BUILD, "posthouse"), "key", "new", path], capture_output=True, text=True, timeout=30)
    assert again.returncode == CANTCREAT and "stays as it is" in again.stderr, again
    assert os.stat(path).st_mode & 0o777 == 0o600
    for admin, expected in (
            ("rpc: \"tcp://127.0.0.1:1\"", "tcp:// needs admin.key"),
            ("rpc: \"tcp://127.0.0.1:1\"\n  key: node.key", "tcp:// needs admin.keys"),
            ("rpc: \"tcp://127.0.0.1:1\"\n  key: node.key\n  keys: [{name: a, key: \"%s\", role: root}]" % public,
             "takes one of viewer|operator|admin"),
            ("rpc: \"tcp://mx.test:1\"", "takes ipc:///PATH and tcp://ADDRESS:PORT")):
        config = world.file("bad.yaml", "node: {hostname: a.test}\nadmin:\n  %s\n" % admin)
        done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", config, "--check"], capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == CONFIG and expected in done.stderr, (admin, done)


if __name__ == "__main__":
    main([each_role_may_what_it_may, changes_and_refusals_are_in_the_audit, strangers_get_nothing, a_recording_is_worth_nothing,
          keys_change_with_a_reload, settings_are_shown_compared_and_reloaded, a_drained_node_takes_nothing_and_comes_back,
          settings_of_a_door_are_checked])
