#!/usr/bin/env python3
"""
The rules of the house, checked by a program so that people can discuss design:

- who may include whom (design: base <- proto <- store <- scheduler; base, proto <- gateway, admin; node sees all;
  scheduler/core and gateway/smtp use pure base only; never gateway <-> scheduler, gateway -> store, inbound <-> outbound)
- one door for each foreign library
- banned functions
- every file begins by saying what it is for; files stay short; no file writes a line over 120 columns
- no two rooms define the same global name (the linker would silently take one of them)

Run without arguments it checks the tree; --self-test plants each violation in a copy and must find it.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOMS = ["base", "base/net", "proto", "store", "scheduler", "scheduler/core", "scheduler/replica", "gateway/smtp", "gateway/directory",
         "gateway/auth", "gateway/filter", "gateway/guard", "gateway/inbound", "gateway/outbound", "admin", "admin/tool", "admin/sendmail",
         "node", "node/daemon"]
MAY = {  # room -> rooms that it may include, besides itself
    "base": [],
    "base/net": ["base"],
    "proto": ["base", "base/net"],
    "store": ["base", "proto", "base/net"],
    "scheduler": ["base", "base/net", "proto", "store", "scheduler/core", "scheduler/replica"],
    "scheduler/core": ["base"],
    "scheduler/replica": ["base"],
    "gateway/smtp": ["base"],
    "gateway/directory": ["base", "base/net", "gateway/smtp"],
    "gateway/auth": ["base", "base/net", "gateway/smtp"],
    "gateway/filter": ["base", "base/net", "gateway/smtp"],
    "gateway/guard": ["base", "base/net", "gateway/smtp", "gateway/filter"],
    "gateway/inbound": ["base", "base/net", "proto", "gateway/smtp", "gateway/directory", "gateway/auth",
                        "gateway/filter", "gateway/guard"],
    "gateway/outbound": ["base", "base/net", "proto", "gateway/smtp"],
    "admin": ["base", "base/net", "proto"],
    # store verify and table build work on files, without a daemon
    "admin/tool": ["base", "base/net", "proto", "admin", "store", "gateway/directory"],
    "admin/sendmail": ["base", "gateway/smtp"],
    "node": [r for r in ROOMS],
    "node/daemon": [r for r in ROOMS],
}
DOORS = {  # header -> files that may include it
    r"uv\.h": r"base/net/(loop\.c|loop_uv\.h|tcp\w*\.c|tcp_in\.h)",
    r"zmq\.h": r"base/net/bus\w*\.[ch]",
    r"ares\w*\.h": r"base/net/dns\.c",
    r"xxhash\.h": r"base/hash\.c",
    r"zlib\.h": r"base/gzip\.c",
    r"rocksdb/c\.h": r"store/rocks\w*\.[ch]",
    r"protobuf-c/.*": r"proto/frame\.h",
    r"yaml\.h": r"node/yaml\.c",
    r"jansson\.h": r"(admin/json|gateway/directory/http|gateway/auth/http|base/net/etcd\w*)\.c",
    r"openssl/.*": r"base/net/(tls\w*|secret)\.[ch]",
    r"microhttpd\.h": r"base/net/httpd\.c",
    r"curl/.*": r"base/net/http\.c",
    r"ldap\.h|lber\.h": r"base/net/ldap\.c",
    r"libpq-fe\.h": r"base/net/pg\.c",
    r"gsasl\.h": r"(gateway/(auth/\w+|outbound/login)|base/net/password)\.c",
    r"pcre2\.h": r"gateway/outbound/rules\.c",
    r"crypt\.h|argon2\.h": r"base/net/password\.c",
    r"cdb\.h": r"gateway/directory/cdb\w*\.c",
    r"opendkim/.*": r"gateway/filter/dkim\w*\.c",
    r"spf2/.*": r"gateway/filter/spf\w*\.c",
    r"libpsl\.h": r"gateway/filter/dmarc\w*\.c",
    r"opendmarc/.*": r"gateway/filter/dmarc\w*\.c",
    r"resolv\.h|arpa/nameser\.h": r"base/net/resolver\.c",
    r"idn2\.h": r"gateway/smtp/address\w*\.c",
    r"systemd/.*": r"node/notify\.c",
}
BANNED = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|system|popen|alloca|tmpnam|mktemp)\s*\(")
LINES_MAX = 600
COLUMNS_MAX = 120
WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def room_of(path):
    return os.path.dirname(path)


def files(root):
    for room in ROOMS:
        folder = os.path.join(root, room)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if name.endswith((".c", ".h")):
                yield room + "/" + name


def without_comments(text):
    """Comments and string literals blanked, lines kept."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group(0)) if m.group(0).startswith("/") else '""' + "\n" * m.group(0).count("\n")
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", blank, text, flags=re.S)


def check_includes(path, text, found):
    room = room_of(path)
    for number, line in enumerate(text.split("\n"), 1):
        m = re.match(r'#include\s+([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        target = m.group(2)
        if m.group(1) == '"':
            other = os.path.dirname(target)
            if other != room and other not in MAY[room]:
                found.append("%s:%d: %s may not include %s" % (path, number, room, target))
        for header, door in DOORS.items():
            if m.group(1) == "<" and re.fullmatch(header, target) and not re.fullmatch(door, path):
                found.append("%s:%d: <%s> is behind the door %s" % (path, number, target, door))


def check_file(root, path, found):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        text = f.read()
    lines = text.split("\n")
    check_includes(path, text, found)
    if not text.startswith("/*"):
        found.append("%s:1: does not begin by saying what it is for" % path)
    if len(lines) > LINES_MAX:
        found.append("%s: %d lines; look for the second noun (at most %d)" % (path, len(lines), LINES_MAX))
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            found.append("%s:%d: %d columns" % (path, number, len(line)))
        if WORDS.search(line):
            found.append("%s:%d: unfinished: %s" % (path, number, line.strip()))
        if line != line.rstrip() or "\t" in line:
            found.append("%s:%d: a tab, or blanks at the end" % (path, number))
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        m = BANNED.search(line)
        if m and not line.lstrip().startswith("#"):
            found.append("%s:%d: %s is banned" % (path, number, m.group(1)))


def check_names(root, found):
    """Two definitions of one global function."""
    seen = {}
    for path in files(root):
        if not path.endswith(".c") or path.startswith(("admin/tool/main", "admin/sendmail/main", "node/daemon/")):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = without_comments(f.read())
        for m in re.finditer(r"^(?!static|typedef|extern|__attribute__|#|\s)[\w\s*]*?\b(\w+)\([^;{}]*\)\s*\{", text, flags=re.M):
            name = m.group(1)
            if name.isupper() or name.startswith("METRIC_"):
                continue
            if name in seen and seen[name] != path:
                found.append("%s: %s is defined in %s too" % (path, name, seen[name]))
            seen.setdefault(name, path)


def check(root):
    found = []
    for path in files(root):
        check_file(root, path, found)
    check_names(root, found)
    return found


PLANTS = [  # file, text that is appended, part of the complaint
    ("gateway/inbound/planted.c", '/* x */\n#include "store/store.h"\n', "may not include store/store.h"),
    ("gateway/inbound/planted.c", '/* x */\n#include "gateway/outbound/outbound.h"\n', "may not include gateway/outbound"),
    ("scheduler/core/planted.c", '/* x */\n#include "base/net/loop.h"\n', "may not include base/net/loop.h"),
    ("scheduler/planted.c", '/* x */\n#include <uv.h>\n', "behind the door"),
    ("base/planted.c", "/* x */\nint planted(char *a) {\n    return atoi(a);\n}\n", "atoi is banned"),
    ("base/planted.c", "int planted;\n", "does not begin"),
    ("base/planted.c", "/* x */\n" + "int x;\n" * 700, "look for the second noun"),
    ("base/planted.c", "/* x */\nvoid err_text(void) {\n}\n", "is defined in"),
    ("base/planted.c", "/* x */\n// TO" + "DO later\n", "unfinished"),
]


def self_test():
    with tempfile.TemporaryDirectory() as copy:
        for room in ROOMS:
            os.makedirs(os.path.join(copy, room), exist_ok=True)
        for path in files(ROOT):
            shutil.copy(os.path.join(ROOT, path), os.path.join(copy, path))
        for path, text, complaint in PLANTS:
            planted = os.path.join(copy, path)
            with open(planted, "w") as f:
                f.write(text)
            if not any(complaint in line for line in check(copy)):
                print("a planted violation was not found: " + complaint)
                return 1
            os.remove(planted)
    print("%d planted violations found" % len(PLANTS))
    return 0


if __name__ == "__main__":
    if "--self-test" in sys.argv:
        sys.exit(self_test())
    complaints = check(ROOT)
    print("\n".join(complaints))
    sys.exit(1 if complaints else 0)
