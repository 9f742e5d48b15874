#!/usr/bin/env python3
"""
Proves `posthouse table build`: it needs no daemon, prints the number of entries, names bad lines with their numbers, leaves the
old file in its place when it fails, and ends with the exit status of sysexits.h.
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, main

USAGE, DATA, NO_INPUT, IO, NO_PERMISSION = 64, 65, 66, 74, 77


def tool(*words):
    return subprocess.run([os.path.join(BUILD, "posthouse")] + list(words), capture_output=True, text=True, timeout=30)


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def tables_are_built(world):
    target = os.path.join(world.directory, "t.cdb")
    text = world.file("t.txt", "alice\nbob: alice, x@example.org\n@example.net\n")
    done = tool("table", "build", text, target)
    check(done.returncode == 0 and done.stdout == "3 entries\n" and done.stderr == "", done)
    check(os.stat(target).st_mode & 0o777 == 0o644, "mode")
    done = tool("--json", "table", "build", text, target)
    check(done.returncode == 0 and json.loads(done.stdout) == {"entries": 3}, done)


def failures_are_told(world):
    target = os.path.join(world.directory, "t.cdb")
    text = world.file("t.txt", "alice\n")
    check(tool("table", "build", text, target).returncode == 0, "the good one")
    good = open(target, "rb").read()
    bad = world.file("bad.txt", "alice\nbob bob\nALICE\nx: \x1b[31m\n")
    done = tool("table", "build", bad, target)
    check(done.returncode == DATA and done.stdout == "", done)
    for words in (":2: bob bob: ", ":3: ALICE: stands already in line 1", ":4: "):
        check(bad + words in done.stderr, done)
    check("\x1b" not in done.stderr, done)
    done = tool("table", "build", os.path.join(world.directory, "absent"), target)
    check(done.returncode == NO_INPUT and "absent" in done.stderr, done)
    done = tool("table", "build", world.directory, target)
    check(done.returncode == NO_PERMISSION and "not a regular file" in done.stderr, done)
    done = tool("table", "build", bad, os.path.join(world.directory, "absent", "t.cdb"))
    check(done.returncode not in (0, USAGE) and "absent" in done.stderr, done)
    check(open(target, "rb").read() == good, "the old file is gone")
    check(sorted(os.listdir(world.directory)) == ["bad.txt", "t.cdb", "t.txt"], os.listdir(world.directory))
    for words in (["table"], ["table", "build"], ["table", "build", bad], ["table", "make", bad, target],
                  ["table", "build", bad, target, "more"]):
        check(tool(*words).returncode == USAGE, words)


if __name__ == "__main__":
    main([tables_are_built, failures_are_told])
