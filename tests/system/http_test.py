#!/usr/bin/env python3
"""
Proves the HTTP face: Prometheus takes the metrics; health and readiness tell the truth, also while it drains; the JSON API says what
the tool says; nobody reads or changes anything without the role for it; strangers' octets in mail and in requests do no harm.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from console import PASSWORDS, Face, free_face, hash_of, http_settings
from posthouse_test import BUILD, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
FIELDS = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer"}


def start(world, sink, users=True, gateway=""):
    port, face = free_face()
    post = world.posthouse(extra=http_settings(port, users) + ROUTES % sink.port, gateway=gateway)
    return post.start(), face


def equal(got, wanted):
    if got != wanted:
        raise AssertionError("got %r instead of %r" % (got, wanted))


def has(part, whole):
    if part not in whole:
        raise AssertionError("%r is not in %r" % (part, whole))


def metrics(world):
    """promtool finds no error in what we expose, and the counters move with mail."""
    sink = world.sink()
    post, face = start(world, sink)
    post.send("a@sender.test", "b@far.test")
    sink.wait(1)
    status, headers, body = face.request("GET", "/metrics")  # without signing in
    equal(status, 200)
    equal(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
    text = body.decode()
    has("\nposthouse_smtp_messages_total 1\n", text)
    for family in re.findall(r"^# TYPE (\S+)", text, re.M):
        has("# HELP %s " % family, text)
    done = subprocess.run([shutil.which("promtool") or "promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    if "error while linting" in done.stderr or "parse error" in done.stderr or done.returncode not in (0, 3):
        raise AssertionError(done.stderr)
    equal(done.stderr.strip(), "")


def health(world):
    """Alive and ready; ready no more once it drains, while what is under way still goes on."""
    sink = world.sink({"dot": lambda _: time.sleep(4) or "250 slow"})
    post, face = start(world, sink)
    equal(face.get("/healthz"), {"alive": True})
    answer = face.get("/readyz")
    equal((answer["ready"], set(answer["parts"].values())), (True, {True}))
    post.tool("drain", "--reason", "a look inside", "--yes")
    equal(face.get("/readyz", 503)["parts"]["running"], False)
    post.tool("undrain", "--yes")
    wait_until("ready again", lambda: face.request("GET", "/readyz")[0] == 200)
    post.send("a@sender.test", "b@far.test")
    wait_until("the message is on its way", lambda: any(stage == "data" for stage, _ in sink.commands))
    post.process.send_signal(signal.SIGTERM)
    wait_until("not ready", lambda: face.request("GET", "/readyz")[0] == 503)
    equal(face.get("/readyz", 503)["ready"], False)
    equal(face.get("/healthz"), {"alive": True})
    equal(post.stop(), 0)


def questions(world):
    """The API says what the tool says."""
    sink = world.sink({"rcpt": lambda line: "450 4.2.1 not now" if "later" in line else "550 5.1.1 no such user" if "nobody" in line
                      else "250 fine"})
    post, face = start(world, sink)
    face.sign_in("vera")
    message = post.send("a@sender.test", ["later%d@far.test" % i for i in range(5)] + ["nobody@far.test"])
    wait_until("all were tried", lambda: len([r for r in face.api("queue")["rows"] if r["state"] == "deferred"]) == 5)
    equal(face.api("status")["text"], "t1 0.1.0")
    show = face.api("msg/" + message)
    equal(show["envelope"]["sender"], "a@sender.test")
    equal(sorted(r["recipient"] for r in show["rows"]), sorted(r["recipient"] for r in post.tool("msg", "show", message)["rows"]))
    has("accepted", [t["kind"] for t in face.api("msg/" + message.lower() + "/trace")["traces"]])
    has("450", face.api("msg/%s/why" % message)["text"])
    equal(face.api("queue?filter=to:later1@far.test")["rows"][0]["recipient"], "later1@far.test")
    pages, after = [], ""
    while True:  # page by page, each once
        page = face.api("queue?filter=state:deferred&limit=2&after=" + urllib.parse.quote(after))
        pages.append(len(page["rows"]))
        after = page.get("cursor", "")
        if not after:
            break
    equal((sum(pages), max(pages)), (5, 2))
    has("far.test", [r["destination"] for r in face.api("queue/summary")["rows"]])
    has("smtp:127.0.0.1", json.dumps(face.api("route?address=x@far.test")))
    equal(face.api("verify?address=x@far.test&client=127.0.0.1")["code"], 250)
    face.api("limits?domain=far.test")
    failure = wait_until("the failure is listed", lambda: [f for f in face.api("failures")["failures"] if f["to"] == "nobody@far.test"])[0]
    equal((failure["id"], failure["code"], failure["status"]), (message, "550", "5.1.1"))
    for path in ("queue?filter=nonsense", "queue?limit=0", "queue?limit=9999", "queue?limit=x", "queue?after=zz", "queue?after=00", "route", "verify", "limits", "msg/short",
                 "msg/", "queue?filter=" + "x" * 3000):
        face.api(path, 400)
    face.api("msg/0000000000001", 404)
    face.api("msg/%s/nothing" % message, 404)
    face.api("nothing", 404)


def guests(world):
    """Without users: everything may be read, by an address or localhost; nothing may be changed; no stranger's name stands for us."""
    sink = world.sink()
    post, face = start(world, sink, users=False)
    equal(face.api("session"), {"signed_in": False, "users": False})
    face.api("status")
    for host in ("localhost:%d" % face.port, "localhost", "127.0.0.1", "[::1]:80", "[::1]"):
        face.api("status", headers={"Host": host})
    for host in ("evil.example", "evil.example:%d" % face.port, "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1:evil.example", ""):
        if face.request("GET", "/api/v1/status", headers={"Host": host})[0] == 200:
            raise AssertionError("answered as %r" % host)
    face.post("suspend", {"domain": "far.test", "reason": "x"}, 401)
    face.post("session", {"name": "anna", "password": "may all"}, 403)


def roles(world):
    """Who may do what, and which sessions are none."""
    sink = world.sink({"rcpt": "450 4.2.1 not now"})
    post, face = start(world, sink)
    message = post.send("a@sender.test", "b@far.test")
    for path in ("status", "queue", "failures", "audit", "msg/0000000000001", "nothing"):
        face.api(path, 401)
    equal(face.api("session"), {"signed_in": False, "users": True})
    face.post("session", {"name": "vera", "password": "wrong"}, 401)
    face.post("session", {"name": "nobody", "password": "wrong"}, 401)
    for bad in ({}, {"name": "vera"}, {"name": ["vera"], "password": "x"}, {"name": "v" * 100, "password": "x"}, {"name": "vera", "password": "x" * 600},
                {"name": "vera", "password": "a\0b"}, [1, 2]):
        face.post("session", bad, 400)
    answer, headers = face.sign_in("vera")
    equal((answer["name"], answer["role"]), ("vera", "viewer"))
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        has(part, headers["set-cookie"])
    has("Secure", face.post("session", {"name": "vera", "password": "look only"}, headers={"X-Forwarded-Proto": "https"})[1]["set-cookie"])
    face.api("status")
    face.post("suspend", {"domain": "far.test", "reason": "x"}, 403)
    refused = wait_until("the refusal is in the audit", lambda: face.api("audit").get("audits"))[0]
    equal([refused[name] for name in ("actor", "verb", "stage", "what", "origin")], ["vera", "suspend", "refused", "far.test", "http 127.0.0.1"])
    face.api("msg/%s/headers" % message, 403)  # the words of mail are not for viewers
    otto = Face(face.port)
    otto.sign_in("otto")
    has("Received:", otto.api("msg/%s/headers" % message)["text"])
    for headers in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": face.csrf}, {"Origin": "http://evil.example"},
                    {"Origin": "null"}):
        otto.post("suspend", {"domain": "far.test", "reason": "x"}, 403, headers)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json2"):
        otto.post("suspend", {"domain": "far.test", "reason": "x"}, 415, {"Content-Type": kind})
    for path, bad in (("suspend", {"domain": "far.test"}), ("suspend", {"reason": "x"}), ("suspend", {"domain": "a", "site": "b", "reason": "x"}),
                      ("suspend", {"domain": "far.test", "reason": "x", "for": "soon"}), ("hold", {"filter": "  ", "reason": "x"}),
                      ("hold", {"filter": "to:@far.test"}), ("hold", {"reason": "x"}), ("release", {}), ("retry", {"message": "x"}),
                      ("hold", {"filter": "nonsense", "reason": "x"}), ("hold", {"filter": "to:@a", "reason": "x" * 501})):
        otto.post(path, bad, 400)
    otto.post("nothing", {"reason": "x"}, 404)
    stolen = Face(face.port)
    for cookie in ("posthouse=", "posthouse=" + "0" * 64, "posthouse=" + otto.cookie[10:-1], otto.cookie + "0", "x=" + otto.cookie[10:], "a" * 5000):
        stolen.cookie = cookie
        stolen.api("status", 401)
    otto.post("session/end", {})
    otto.api("status", 401)


def changes(world):
    """An operator suspends, resumes, holds and releases, and each change is in the audit with who, what and why."""
    sink = world.sink()
    post, face = start(world, sink)
    face.sign_in("otto")
    face.post("suspend", {"domain": "far.test", "reason": "they asked", "for": "1h"})
    post.send("a@sender.test", "b@far.test")
    row = wait_until("it is listed", lambda: face.api("suspensions")["rows"])[0]
    equal((row["destination"], row["reason"], row["actor"]), ("far.test", "they asked", "otto"))
    time.sleep(1)
    equal(sink.messages, [])
    face.post("resume", {"domain": "far.test"})
    sink.wait(1)
    equal(face.api("suspensions")["rows"], [])
    sink.script["rcpt"] = "450 4.2.1 not now"
    message = post.send("a@sender.test", "c@far.test")
    wait_until("it waits", lambda: face.api("queue?filter=state:deferred")["rows"])
    equal(face.post("hold", {"message": message, "dry_run": True})[0]["count"], 1)
    equal(face.post("hold", {"message": message, "reason": "look first"})[0]["count"], 1)
    wait_until("it is held", lambda: [r for r in face.api("queue")["rows"] if r["state"] == "held"])
    sink.script["rcpt"] = "250 fine"
    time.sleep(2)
    equal(len(sink.messages), 1)
    equal(face.post("release", {"filter": "to:c@far.test"})[0]["count"], 1)
    sink.wait(2)
    audits = face.api("audit")["audits"]
    done = [(a["actor"], a["verb"], a["origin"], a.get("reason", "")) for a in audits if a["stage"] == "done"]
    has(("otto", "suspend", "http 127.0.0.1", "they asked"), done)
    has(("otto", "hold", "http 127.0.0.1", "look first"), done)


def guessing(world):
    """Wrong passwords are answered late, and after ten of a client not at all; others are not shut out."""
    post, face = start(world, world.sink())
    statuses = []

    def guess(name):
        statuses.append(face.request("POST", "/api/v1/session", json.dumps({"name": name, "password": "x"}),
                                     {"Content-Type": "application/json", "X-Forwarded-For": "192.0.2.7"})[0])
    tries = [threading.Thread(target=guess, args=("user%d" % i,)) for i in range(13)]  # at once: they count as if they had failed
    for t in tries:
        t.start()
    for t in tries:
        t.join()
    equal((statuses.count(401), statuses.count(429)), (10, 3))
    face.post("session", {"name": "otto", "password": "may change"}, 429, {"X-Forwarded-For": "1.2.3.4, 192.0.2.7"})
    face.post("session", {"name": "otto", "password": "may change"}, 200, {"X-Forwarded-For": "192.0.2.8"})
    talk(face.port, b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 33\r\nConnection: close\r\n"
         b"X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n" + b'{"name": "liar", "password": "x"}')
    has('http_sign_in_failed user=liar origin="http 192.0.2.9"', post.log_text())  # the last field is the proxy's


def hostile_mail(world):
    """Markup and control characters in addresses and replies stay text: JSON, never a page, and never believed to be one."""
    nasty = "<script>alert(1)</script>\"'\\"
    sink = world.sink({"rcpt": "550 5.7.1 %s \x1b[31m" % nasty})
    post, face = start(world, sink)
    face.sign_in("vera")
    message = post.send('"<img src=x onerror=alert(1)>"@sender.test', '"<b>bold</b>"@far.test', mail_options=())
    wait_until("it failed", lambda: face.api("failures")["failures"])
    for path in ("failures", "queue", "msg/%s/trace" % message, "msg/%s" % message):
        status, headers, body = face.request("GET", "/api/v1/" + path)
        if status == 404:
            continue
        equal((status, headers["content-type"]), (200, "application/json"))
        json.loads(body)
        if any(c < 32 and c != 10 for c in body):
            raise AssertionError("a control character in %r" % body)
        for name, value in FIELDS.items():
            equal(headers[name], value)
    has(nasty.replace("\\", ""), json.dumps(face.api("msg/%s/trace" % message)["traces"]).replace("\\", ""))


def talk(port, octets, half=False, seconds=10):
    """Raw octets, and with half no more after them; all that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        s.settimeout(seconds)
        answer = b""
        try:
            s.sendall(octets)
            if half:
                s.shutdown(socket.SHUT_WR)
            while True:
                part = s.recv(65536)
                if not part:
                    return answer
                answer += part
        except OSError:
            return answer


def hostile_requests(world):
    """Nothing that is not a proper request gets an answer that is fine, and the daemon goes on."""
    post, face = start(world, world.sink())
    end = b"Host: localhost\r\nConnection: close\r\n\r\n"
    for path in (b"/../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/console.css/../../x", b"//metrics", b"/metrics/", b"/metrics%00", b"/METRICS",
                 b"/api/v1/../../metrics", b"/api/v1/", b"/api/v1", b"/api/v2/status", b"http://evil.example/api/v1/status", b"/api/v1/status%00",
                 b"/index.html", b"/console.js%2f"):
        answer = talk(face.port, b"GET " + path + b" HTTP/1.1\r\n" + end)
        if not re.match(rb"HTTP/1\.1 4\d\d ", answer):
            raise AssertionError("%r is answered: %r" % (path, answer[:200]))
    for octets in (b"\0" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n" + end, b"\x16\x03\x01\x02\0\x01", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n" + end,
                   b"GET / HTTP/1.1\r\nX: " + b"b" * 100000 + b"\r\n" + end, b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 2000 + end,
                   b"POST /api/v1/session HTTP/1.1\r\nContent-Length: 9999999\r\n" + end,
                   b"POST /api/v1/session HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + end + b"zzzz\r\n",
                   b"POST /api/v1/session HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n" + end + b"{{{",
                   b"DELETE /metrics HTTP/1.1\r\n" + end, b"TRACE / HTTP/1.1\r\n" + end, b"CONNECT evil.example:25 HTTP/1.1\r\n" + end,
                   b"OPTIONS /api/v1/status HTTP/1.1\r\n" + end,
                   b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + end + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n" + end,
                   b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n" + end, b"EHLO here\r\nMAIL FROM:<a@b>\r\n"):
        begin = time.monotonic()
        answer = talk(face.port, octets, half=True)  # who says half a request and closes is not waited for
        if time.monotonic() - begin > 9:
            raise AssertionError("%r is not ended" % octets[:60])
        if b"HTTP/1.1 200 " in answer:
            raise AssertionError("%r is answered: %r" % (octets[:60], answer[:200]))
    deep = "[" * 30000 + "]" * 30000
    status, _, _ = face.request("POST", "/api/v1/session", deep, {"Content-Type": "application/json"})
    equal(status, 400)
    silent = [socket.create_connection(("127.0.0.1", face.port)) for _ in range(20)]  # who says nothing keeps others from nothing
    for s in silent:
        s.sendall(b"GET / HT")
    equal(face.get("/healthz"), {"alive": True})
    for s in silent:
        s.close()
    equal(post.process.poll(), None)
    equal(post.stop(), 0)


def pages(world):
    """The console is three files of our own, and a policy that lets nothing else in."""
    post, face = start(world, world.sink())
    for path, kind in (("/", "text/html"), ("/console.css", "text/css"), ("/console.js", "text/javascript")):
        status, headers, body = face.request("GET", path)
        equal((status, headers["content-type"]), (200, kind + "; charset=utf-8"))
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            has(part, headers["content-security-policy"])
        for name, value in FIELDS.items():
            equal(headers[name], value)
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        for foreign in ("http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", " onclick"):
            if foreign in text:
                raise AssertionError("%s in %s" % (foreign, path))
        equal(face.request("HEAD", path)[2], b"")


def settings(world):
    """What is unwise or wrong is told by --check; a reload takes users, and signs out those who changed."""
    port, face = free_face()
    post = world.posthouse(extra=http_settings(port))

    def check(text):
        post.write_settings(extra=text)
        return subprocess.run([os.path.join(BUILD, "posthoused"), "--config", post.config, "--check"], capture_output=True, text=True)
    for text, what in ((http_settings(port, False, "0.0.0.0"), "needs admin.users"), ("  http: \"localhost:1\"\n", "takes ADDRESS:PORT"),
                       ("  http: \"unix:/x\"\n", "takes ADDRESS:PORT"), ("  users: [{name: a, password: secret}]\n", "not a hash"),
                       ("  users: [{name: a b, password: \"*\"}]\n", "takes letters"), ("  users: [{name: a}]\n", "name and password"),
                       ("  users: [{name: a, password: \"*\", role: king}]\n", "viewer"),
                       ("  users: [{name: a, password: \"*\"}, {name: a, password: \"*\"}]\n", "twice")):
        done = check(text)
        equal(done.returncode, 78)
        has(what, done.stderr)
    done = check(http_settings(port, True, "0.0.0.0"))
    equal(done.returncode, 0)
    has("warning: admin.http", done.stderr)
    equal(check("  http: \"\"\n").returncode, 0)
    post.write_settings(extra=http_settings(port))
    post.start()
    face.sign_in("otto")
    face.api("status")
    text = open(post.config).read()
    with open(post.config, "w") as f:
        f.write(re.sub(r"name: otto, (.*) role: operator", r"name: otto, \1 role: viewer", text))
    post.reload()
    wait_until("the session has ended", lambda: face.request("GET", "/api/v1/status")[0] == 401)
    equal(face.sign_in("otto")[0]["role"], "viewer")


def removed_while_signing_in(world):
    """Who is removed while a password is being checked has no session afterwards."""
    port, face = free_face()
    slow = hash_of(PASSWORDS["otto"], rounds=500000)
    post = world.posthouse(extra=re.sub(r'name: otto, password: "[^"]*"', 'name: otto, password: "%s"' % slow, http_settings(port))).start()
    faces = [Face(port) for _ in range(6)]

    def sign_in(one, client):
        _, headers, _ = one.request("POST", "/api/v1/session", json.dumps({"name": "otto", "password": PASSWORDS["otto"]}),
                                    {"Content-Type": "application/json", "X-Forwarded-For": client})
        one.cookie = headers.get("set-cookie", "none=").split(";")[0]
    tries = [threading.Thread(target=sign_in, args=(one, "192.0.2.%d" % i)) for i, one in enumerate(faces)]
    for t in tries:
        t.start()
    with open(post.config) as f:
        text = re.sub(r"    - \{name: otto,.*\n", "", f.read())
    with open(post.config, "w") as f:
        f.write(text)
    post.reload()
    for t in tries:
        t.join()
    wait_until("reloaded", lambda: " reloaded " in post.log_text())
    equal([one.request("GET", "/api/v1/status")[0] for one in faces], [401] * 6)


if __name__ == "__main__":
    main([metrics, health, questions, guests, roles, changes, guessing, hostile_mail, hostile_requests, pages, settings,
          removed_while_signing_in])
