#!/usr/bin/env python3
"""
Proves that damage to the store is never passed over in silence: after a SIGKILL with 200 messages in the queue one octet of a log, a
table or a file of bodies is turned, or a file is taken away. The daemon names the file, takes no mail (451) or goes on without
losing anything, `posthouse store verify` names it too, and when the file is put right everything is delivered, octet for octet.
"""
import collections
import contextlib
import glob
import os
import shutil
import smtplib
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, check, main, wait_until

MESSAGES = 200
NEVER_AGAIN = "retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}"
ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"


def content(n):
    return b"Subject: %d\r\n\r\n" % n + (b"%06d" % n * 12 + b"\r\n") * (100 if n % 4 == 0 else 5)


def verify(post):
    return subprocess.run([os.path.join(BUILD, "posthouse"), "store", "verify", os.path.join(post.data_dir, "queue")],
                          capture_output=True, text=True, timeout=120)


def queue_of(world, tables):
    """A daemon, killed, with all messages deferred in its store; `tables`: written out of the log before."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, delivery=NEVER_AGAIN).start()
    with post.smtp() as s:
        s.ehlo()
        for n in range(MESSAGES):
            check(s.mail("a@client.test"), 250)
            check(s.rcpt("n%d@there.test" % n), 250)
            check(s.data(content(n)), 250)
    wait_until("all are deferred", lambda: len(post.queue("state:deferred")) == MESSAGES, 30, 0.2)
    post.kill()
    if tables:
        post.start()  # what is replayed from the log becomes tables
        post.kill()
    return sink, post


def files(post, suffix):
    """From the newest to the oldest."""
    found = glob.glob(os.path.join(post.data_dir, "queue", "*" + suffix))
    return sorted((f for f in found if os.path.getsize(f)), key=lambda f: (os.path.basename(f)), reverse=True)


@contextlib.contextmanager
def turned(path, at=None):
    with open(path, "r+b") as f:
        where = os.path.getsize(path) // 2 if at is None else at
        f.seek(where)
        octet = f.read(1)
        f.seek(where)
        f.write(bytes([octet[0] ^ 0x40]))
    yield
    with open(path, "r+b") as f:
        f.seek(where)
        f.write(octet)


@contextlib.contextmanager
def taken_away(path):
    os.rename(path, path + ".away")
    yield
    os.rename(path + ".away", path)


def code_at_mail(post):
    with smtplib.SMTP("127.0.0.1", post.port, local_hostname="client.test", timeout=30) as s:
        s.ehlo()
        return s.mail("a@client.test")[0]


def refuses(post, name):
    """Started on the damage: named in the log, 451, nothing given away; verify names it, before and after."""
    done = verify(post)
    assert done.returncode == 65 and name in done.stdout + done.stderr, (name, done)
    before = len(post.log_bytes())
    post.start()
    for _ in range(3):
        assert code_at_mail(post) == 451, "mail is taken while the store cannot be trusted"
    said = post.log_bytes(before).decode()
    assert "store_refused" in said and name in said, (name, said)
    done = post.tool("status", ok=False)
    assert done.returncode in (0, 69, 75), done
    assert post.stop() == 0
    done = verify(post)
    assert done.returncode == 65 and name in done.stdout + done.stderr, (name, done)


def all_delivered(sink, post):
    """The store has been put right."""
    done = verify(post)
    assert done.returncode == 0, done
    post.start()
    wait_until("the queue has been read", lambda: post.figures()["queue_scanned"] == 1, 30, 0.1)
    assert len(post.queue("--limit", "1000")) == MESSAGES
    sink.script = {}
    wait_until("all are delivered", lambda: post.tool("retry", "domain:there.test") and len(sink.messages) >= MESSAGES, 60, 0.5)
    post.wait_empty()
    came = collections.Counter(m[1][0] for m in sink.messages)
    assert came == {"n%d@there.test" % n: 1 for n in range(MESSAGES)}, came
    for _, recipients, octets in sink.messages:
        assert octets.endswith(content(int(recipients[0][1:].split("@")[0]))), "altered: %s" % recipients
    assert post.stop() == 0


def a_turned_octet_in_the_log(world):
    sink, post = queue_of(world, False)
    path = files(post, ".log")[0]
    with turned(path):
        refuses(post, os.path.basename(path))
    all_delivered(sink, post)


def a_log_taken_away(world):
    sink, post = queue_of(world, False)
    with taken_away(files(post, ".log")[0]):
        refuses(post, "operations 1 to ")  # of a file that is gone only what it held is known
    all_delivered(sink, post)


def a_log_cut_off(world):
    sink, post = queue_of(world, False)
    path = files(post, ".log")[0]
    shutil.copy(path, path + ".whole")
    os.truncate(path, os.path.getsize(path) // 2)
    refuses(post, os.path.basename(path))
    os.rename(path + ".whole", path)
    all_delivered(sink, post)


def a_table_or_the_manifest_taken_away(world):
    sink, post = queue_of(world, True)
    for path in (files(post, ".sst")[0], files(post, ".blob")[0], os.path.join(post.data_dir, "queue", "CURRENT"),
                 os.path.join(post.data_dir, "queue", "MARK")):
        name = os.path.basename(path)
        with taken_away(path):
            # an absent table is looked for under two names, so only its number counts
            refuses(post, "blob files" if name.endswith(".blob") else name.removesuffix("sst"))
    all_delivered(sink, post)


def closes(post, name):
    """Damage that only a reading can find: found by the scan or a delivery, then 451, and what is damaged stays in the store."""
    done = verify(post)
    assert done.returncode == 65 and done.stdout.strip(), (name, done)
    assert name in done.stdout + done.stderr, (name, done)
    before = len(post.log_bytes())
    post.start()
    wait_until("the queue is read, or the damage found", lambda: b"queue_closed" in post.log_bytes(before)
               or b"scan_over" in post.log_bytes(before), 20)
    if b"queue_closed" not in post.log_bytes(before):  # not read yet: do what reads it
        post.tool("queue", "list", "--limit", "1000", ok=False)
        post.tool("retry", "domain:there.test", ok=False)
        wait_until("the damage is found", lambda: b"queue_closed" in post.log_bytes(before), 20)
    wait_until("mail is refused", lambda: code_at_mail(post) == 451, 10)
    said = post.log_bytes(before).decode()
    assert "store_error" in said and (name in said or "Blob" in said), (name, said)
    assert post.figures()["store_damaged"] == 1
    assert "DAMAGED" in post.tool("status", text=True)
    assert code_at_mail(post) == 451
    assert post.stop() == 0


def a_turned_octet_in_a_table(world):
    """Each table in turn; mail waits at a server that takes nothing, so that every message must still be there in the end."""
    sink, post = queue_of(world, True)
    queue = os.path.join(post.data_dir, "queue")
    whole = queue + ".whole"
    shutil.copytree(queue, whole)
    found = collections.Counter()
    for path in files(post, ".sst") + files(post, ".blob"):
        name = os.path.basename(path)
        with turned(path):
            done = verify(post)
            assert done.returncode == 65 and name in done.stdout + done.stderr, (name, done)
            what = done.stdout.split()[0]
            if what in ("envelope:", "recipient:", "message", name + ":"):
                closes(post, name)
                found[what] += 1
        shutil.rmtree(queue)
        shutil.copytree(whole, queue)
    assert found["envelope:"] and found["recipient:"] and found["message"] + sum(
        n for what, n in found.items() if what.endswith(".blob:")) >= 2, found
    all_delivered(sink, post)


main([a_turned_octet_in_the_log, a_log_taken_away, a_log_cut_off, a_table_or_the_manifest_taken_away, a_turned_octet_in_a_table])
