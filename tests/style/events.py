#!/usr/bin/env python3
"""
Compares the events of the log: what the C source writes from level info on, the tables of docs/events.md, and the names that
settings may use (node/event_names.c). Names, levels and fields must agree, both ways, and the names are one word.

--list prints what the source has; --names prints the list of names for node/event_names.c; --self-test plants a difference of each
kind and must find it.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ["base", "proto", "store", "scheduler", "gateway", "admin", "node"]
CALL = re.compile(r"\bLOG_(INFO|WARN|ERROR)\(")
RESERVED = {"time", "level", "event", "seq", "node"}  # of a line as JSON, and of hooks
HELD = "log_held_back"  # written by the log itself, at the level of what it held back


def sources(root):
    for folder in FOLDERS:
        for where, _, names in sorted(os.walk(os.path.join(root, folder))):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(where, name), root)
                if name.endswith(".c") and not path.startswith(("admin/tool/", "admin/sendmail/")):
                    with open(os.path.join(root, path), encoding="utf-8") as f:
                        yield path, f.read()


def arguments(text, at):
    """The arguments of a call whose opening parenthesis stands before `at`, split at the commas of its own level."""
    found, depth, start, i = [], 0, at, at
    while True:
        c = text[i]
        if c == '"':
            i += 1
            while text[i] != '"':
                i += 2 if text[i] == "\\" else 1
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            if depth == 0:
                return found + [text[start:i].strip()]
            depth -= 1
        elif c == "," and depth == 0:
            found.append(text[start:i].strip())
            start = i + 1
        i += 1


def names_of(first, before, text, place, found):
    literal = re.fullmatch(r'"([^"]*)"', first)
    if literal:
        return [literal.group(1)]
    said = re.search(r"/\* events: ([a-z0-9_, ]+) \*/\s*$", before)
    if not said:
        found.append("%s: the name of the event is no literal, and no comment `events: NAME, NAME` says which" % place)
        return []
    names = said.group(1).split(", ")
    for name in names:
        if '"%s"' % name not in text:
            found.append("%s: the comment names %s, which the file does not have" % (place, name))
    return names


def room_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "gateway" or path.startswith(("base/net", "scheduler/core")) else parts[0]


def source_events(root, found):
    """{name: (rooms, levels, fields in their order)}; calls of one name add up."""
    events = {}
    for path, text in sources(root):
        for call in CALL.finditer(text):
            place = "%s:%d" % (path, text.count("\n", 0, call.start()) + 1)
            given = arguments(text, call.end())
            fields = [re.match(r'LOG_\w+\(\s*"([a-z0-9_]+)"', a) for a in given[1:]]
            if not all(fields):
                found.append("%s: a field is not LOG_STR, LOG_SPAN, LOG_U64, LOG_I64 or LOG_ERR with a name" % place)
                continue
            line = text.rfind("\n", 0, call.start()) + 1
            for name in names_of(given[0], text[:line].rstrip(" "), text, place, found):
                if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                    found.append("%s: an event is one word of [a-z0-9_]: %r" % (place, name))
                taken = [f.group(1) for f in fields]
                if len(set(taken) | RESERVED) != len(taken) + len(RESERVED):
                    found.append("%s: a field twice, or one that every line has" % place)
                rooms, levels, all_fields = events.setdefault(name, (set(), set(), []))
                rooms.add(room_of(path))
                levels.add(call.group(1).lower())
                all_fields += [f.group(1) for f in fields if f.group(1) not in all_fields]
    events[HELD] = ({"base"}, {"warn", "error"}, ["held", "count"])
    return events


def table_events(text, found):
    """{name: (levels, fields)} of the rows `| name | level | when | fields |`."""
    events = {}
    for number, line in enumerate(text.split("\n"), 1):
        row = re.fullmatch(r"\| `([^`]+)` \| ([a-z, ]+) \| (.+) \| (.*) \|", line)
        if not row:
            if re.match(r"\| `[a-z0-9_]+` \| (info|warn|error)", line):
                found.append("docs/events.md:%d: not a row of four columns" % number)
            continue
        if row.group(1) in events:
            found.append("docs/events.md:%d: %s is in the tables twice" % (number, row.group(1)))
        events[row.group(1)] = (set(row.group(2).split(", ")), re.findall(r"`([^`]+)`", row.group(4)))
    return events


def compare(events, table, names):
    found = []
    for name, (_, levels, fields) in sorted(events.items()):
        if name not in table:
            found.append("docs/events.md: lacks %s (%s): %s" % (name, ", ".join(sorted(levels)), " ".join(fields)))
            continue
        if table[name][0] != levels:
            found.append("docs/events.md: %s has level %s" % (name, ", ".join(sorted(levels))))
        if sorted(table[name][1]) != sorted(fields):
            found.append("docs/events.md: %s has the fields %s" % (name, " ".join(fields)))
    found += ["docs/events.md: %s is not in the source" % name for name in sorted(set(table) - set(events))]
    found += ["node/event_names.c: lacks %s" % name for name in sorted(set(events) - set(names))]
    found += ["node/event_names.c: %s is not in the source" % name for name in sorted(set(names) - set(events))]
    if names != sorted(names):
        found.append("node/event_names.c: not in order")
    return found


def read(path):
    full = os.path.join(ROOT, path)
    if not os.path.exists(full):
        return ""
    with open(full, encoding="utf-8") as f:
        return f.read()


def self_test(events, table, names):
    plants = [
        (dict(events, new_event=(set(), {"info"}, ["id"])), table, names, "lacks new_event"),
        (events, dict(table, old_event=({"info"}, [])), names, "old_event is not in the source"),
        (events, dict(table, delivered=({"warn"}, table["delivered"][1])), names, "delivered has level info"),
        (events, dict(table, delivered=({"info"}, ["id"])), names, "delivered has the fields"),
        (events, table, names[1:], "event_names.c: lacks " + names[0]),
        (events, table, names + ["zzz"], "zzz is not in the source"),
        (events, table, names[::-1], "not in order"),
    ]
    for e, t, n, complaint in plants:
        if not any(complaint in line for line in compare(e, t, n)):
            return ["a planted difference was not found: " + complaint]
    found = []
    names_of("event", "    x();\n", "", "x.c:1", found)
    names_of("event", "    /* events: gone */\n", "", "x.c:1", found)
    if len(found) != 2:
        return ["a name that nobody says was not found"]
    return [] if arguments('f("a,\\")", g(1, 2), {3, 4});', 2) == ['"a,\\")"', "g(1, 2)", "{3, 4}"] else ["arguments"]


def main():
    found = []
    events = source_events(ROOT, found)
    table = table_events(read("docs/events.md"), found)
    names = re.findall(r'^    "([a-z0-9_]+)",$', read("node/event_names.c"), flags=re.M)
    if "--list" in sys.argv:
        for name, (rooms, levels, fields) in sorted(events.items(), key=lambda e: (sorted(e[1][0]), e[0])):
            print("%s\t%s\t%s\t%s" % (",".join(sorted(rooms)), name, ",".join(sorted(levels)), " ".join(fields)))
        return
    if "--names" in sys.argv:
        print("\n".join('    "%s",' % name for name in sorted(events)))
        return
    found += compare(events, table, names)
    if "--self-test" in sys.argv:
        found = found or self_test(events, table, names)
    print("\n".join(found) if found else "%d events agree" % len(events))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
