#!/usr/bin/env python3
"""
Proves the tool's command line without a daemon: every verb of its table is in the help, the manual page, the completion of both shells and
docs/tool.md; the manual page has no faults of its language; bash and zsh offer what follows; a change that cannot be undone is never
made unasked; and what is wrong is told with the exit status of sysexits.h.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, main

TOOL = os.path.join(BUILD, "posthouse")
USAGE, DATA, UNAVAILABLE = 64, 65, 69


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def tool(*words, env=None):
    return subprocess.run([TOOL] + list(words), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, **(env or {})))


def printed(*words):
    done = tool(*words)
    check(done.returncode == 0 and done.stderr == "", done)
    return done.stdout


def verbs():
    """Their names, from the help: words in small letters at the beginning of a line."""
    found = re.findall(r"^  ((?:[a-z]+ )*[a-z]+) (?= *(?:[A-Z\[]|bash\|zsh|  ))", printed("help"), flags=re.M)
    check(len(found) > 30 and "trace smtp out" in found and "status" in found, found)
    return found


def help_manual_and_documents_agree(world):
    manual, document = printed("manual"), open(os.path.join(ROOT, "docs", "tool.md"), encoding="utf-8").read()
    for verb in verbs():
        check(".B %s" % verb in manual, (verb, "manual"))
        check(re.search(r"`%s[ `]" % re.escape(verb), document), (verb, "docs/tool.md"))
    for option in re.findall(r"^  (--[a-z-]+)", printed("help"), flags=re.M):
        check(option.replace("-", "\\-") in manual, (option, "manual"))
        check(option in document, (option, "docs/tool.md"))
    lint = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-z"], input=manual, capture_output=True, text=True, timeout=30)
    check(lint.returncode == 0 and lint.stderr == "", lint)


def bash_completes(world):
    script = world.file("completion.bash", printed("completion", "bash"))
    ask = """
        source %s
        compopt() { :; }
        complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _posthouse 2>/dev/null; echo "${COMPREPLY[*]}"; }
        complete_line posthouse que
        complete_line posthouse queue ''
        complete_line posthouse --json trace smtp ''
        complete_line posthouse delete st
        complete_line posthouse --dr
    """ % script
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=30)
    check(done.stdout.splitlines() == ["queue", "list summary shape", "in out", "state:", "--dry-run"], done)


def zsh_completes(world):
    script = world.file("_posthouse", printed("completion", "zsh"))
    ask = """
        compadd() { print -r -- "$@" }
        _files() { print files }
        complete_line() { local -a words; words=("$@"); local CURRENT=$#; eval "$(sed '$d' %s)"; _posthouse }
        complete_line posthouse queue ''
        complete_line posthouse --json trace smtp ''
        complete_line posthouse config check ''
    """ % script
    done = subprocess.run(["zsh", "-f", "-c", ask], capture_output=True, text=True, timeout=30)
    check(done.stdout.splitlines() == ["list summary shape", "in out", "files"], done)


def nothing_is_lost_unasked(world):
    for words in (["delete", "all", "--reason", "r"], ["bounce", "all", "--reason", "r"], ["reroute", "all", "--to", "mx:a.test", "--reason", "r"]):
        done = tool("--server", "ipc://%s/none" % world.directory, *words)
        check(done.returncode == USAGE and "--yes" in done.stderr, done)
        done = tool("--server", "ipc://%s/none" % world.directory, "--yes", *words)  # asked for: but there is nobody
        check(done.returncode == UNAVAILABLE, done)
    for words in (["delete", "all", "--yes"], ["hold", "all"], ["suspend", "domain", "a.test"]):
        done = tool(*words)
        check(done.returncode == USAGE and "--reason" in done.stderr, done)
    done = tool("reroute", "all", "--yes", "--reason", "r")
    check(done.returncode == USAGE and "--to" in done.stderr, done)


def mistakes_are_told(world):
    for words, status, says in (([], USAGE, "a verb is needed"), (["dance"], USAGE, "unknown verb"), (["queue"], USAGE, "unknown verb"),
                                (["msg", "show"], USAGE, "msg show ID"), (["msg", "show", "x"], DATA, "message id"), (["delete"], USAGE, "delete FILTER"),
                                (["status", "now"], USAGE, "status"), (["queue", "list", "colour:red"], DATA, "filter"), (["--limit", "0", "sites"], USAGE, "--limit"),
                                (["--for", "long", "watch"], USAGE, "--for"), (["completion", "fish"], USAGE, "bash and zsh"), (["help", "dance"], USAGE, "unknown verb"),
                                (["--json", "msg", "body", "6H0WKQYCR0000"], USAGE, "--json"), (["--json", "top"], USAGE, "top")):
        done = tool(*words)
        check(done.returncode == status and says in done.stderr and done.stdout == "", (words, done))
    done = tool("status", env={"POSTHOUSE_SERVER": "ipc://%s/none" % world.directory})
    check(done.returncode == UNAVAILABLE and "none" in done.stderr, done)


def settings_are_checked(world):
    good = world.file("good.yaml", "node:\n  hostname: a.test\n  data_dir: %s\n" % world.directory)
    check(tool("config", "check", good).returncode == 0, "a good file")
    done = tool("config", "check", world.file("bad.yaml", "node:\n  hostnam: a.test\n"))
    check(done.returncode == 78 and "node.hostnam" in done.stderr, done)


if __name__ == "__main__":
    main([help_manual_and_documents_agree, bash_completes, zsh_completes, nothing_is_lost_unasked, mistakes_are_told, settings_are_checked])
