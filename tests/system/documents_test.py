#!/usr/bin/env python3
"""
Proves the documents: every command in a ```sh block of README.md and docs/ runs, in its order, against a daemon with the mail that
the pages speak of, and ends with status 0; blocks that need a machine of their own say "not-run". Every link leads to a file that is
there, every page is reached from the README, and YAML examples of whole settings pass the daemon's check.
"""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, Sink, main, wait_until

ZONES = {"elsewhere.test": "@ MX 10 mx\nmx A 127.0.0.1\n", "example.net": "@ MX 10 mx\nmx A 127.0.0.1\n"}


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def pages():
    found = [os.path.join(ROOT, "README.md")]
    for folder, _, names in sorted(os.walk(os.path.join(ROOT, "docs"))):
        found += [os.path.join(folder, n) for n in sorted(names) if n.endswith(".md")]
    return found


def blocks(path, language):
    """(line number, text) of each fenced block of this language, without the indentation of lists."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    found, start, kind = [], None, None
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*```(.*)", line)
        if fence and start is None:
            start, kind, text = number, fence.group(1).strip(), []
        elif fence:
            if kind == language:
                found.append((start, "\n".join(text)))
            start = None
        elif start is not None:
            text.append(line.strip() if language == "sh" else line)
    check(start is None, "%s:%s: a block without end" % (path, start))
    return found


def commands_run(world):
    nsd = world.nsd(ZONES)
    sink = world.sink({"rcpt": lambda line: "450 4.2.0 later" if "someone" in line or "carol" in line else "250 fine"})
    world.file("recipients.txt", "alice\nbob\n")
    post = world.posthouse(delivery="dns: [\"127.0.0.1:%d\"]\nport: %d\nretry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}" % (nsd.port, sink.port),
                           extra="domains:\n  - {name: example.net, recipients: {table: recipients.txt}, route: \"smtp:127.0.0.1:%d\"}\n" % sink.port).start()
    post.send("carol@example.com", ["someone@elsewhere.test"])
    rows = wait_until("a deferred message", lambda: post.queue("state:deferred"))
    copy = os.path.join(world.directory, "copy")
    post.stop()
    shutil.copytree(os.path.join(post.data_dir, "queue"), copy)
    post.start()
    env = dict(os.environ, PATH=BUILD + ":" + os.environ["PATH"], POSTHOUSE_SERVER=post.rpc, SETTINGS=post.config, ID=rows[0]["message"], COPY=copy)
    count = 0
    for path in pages():
        for number, text in blocks(path, "sh"):
            for line in text.split("\n"):
                if not line.strip() or line.startswith("#"):
                    continue
                done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=env, stdin=subprocess.DEVNULL, cwd=world.directory)
                check(done.returncode == 0, "%s:%d: %s: status %d: %s%s" % (os.path.relpath(path, ROOT), number, line, done.returncode, done.stdout, done.stderr))
                count += 1
    check(count > 30, count)


def links_lead_somewhere(world):
    reached, wanted = set(), {p for p in pages()}
    todo = [os.path.join(ROOT, "README.md")]
    while todo:
        path = todo.pop()
        if path in reached:
            continue
        reached.add(path)
        with open(path, encoding="utf-8") as f:
            text = re.sub(r"```.*?```", "", f.read(), flags=re.S)
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if target.startswith(("http:", "https:")):
                continue
            there = os.path.normpath(os.path.join(os.path.dirname(path), target))
            check(os.path.exists(there), "%s: %s" % (os.path.relpath(path, ROOT), target))
            if there.endswith(".md"):
                todo.append(there)
    check(not wanted - reached, "not reached from the README: %s" % sorted(os.path.relpath(p, ROOT) for p in wanted - reached))


def whole_settings_are_checked(world):
    """Blocks of YAML that begin with node: are whole files; files that they name are made."""
    count = 0
    for path in pages():
        for number, text in blocks(path, "yaml"):
            if not text.startswith("node:"):
                continue
            world.file("recipients.txt", "alice\n")
            done = subprocess.run([os.path.join(BUILD, "posthoused"), "--check", "--config", world.file("example.yaml", text + "\n")],
                                  capture_output=True, text=True, timeout=30)
            check(done.returncode == 0, "%s:%d: %s" % (os.path.relpath(path, ROOT), number, done.stderr))
            count += 1
    check(count >= 2, count)


if __name__ == "__main__":
    main([links_lead_somewhere, whole_settings_are_checked, commands_run])
