#!/usr/bin/env python3
"""
Proves what a full disk and failing writes and syncs do: 452 or 451 and never a 250; nothing that was acknowledged is lost, nothing
that was refused is delivered later; service comes back without a restart when the trouble is over.
"""
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, World, main, wait_until

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
MIB = 1 << 20


class SmallDisk:
    """A tmpfs of its own, and a file on it that takes room away."""

    def __init__(self, directory, mib):
        self.path = os.path.join(directory, "disk")
        os.makedirs(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm,mode=0700" % mib, "tmpfs", self.path], check=True)
        self.ballast = os.path.join(self.path, "ballast")

    def leave(self, octets):
        """Makes the free room this small."""
        state = os.statvfs(self.path)
        with open(self.ballast, "ab") as f:
            f.truncate(0)
            f.seek(0)
            state = os.statvfs(self.path)
            os.posix_fallocate(f.fileno(), 0, max(state.f_bavail * state.f_frsize - octets, 1))

    def give_back(self):
        os.unlink(self.ballast)

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=False)


class Faults:
    """Tells libfault_io.so, which is preloaded into the daemon, what to do."""

    def __init__(self, directory, data_dir):
        self.control = os.path.join(directory, "faults")
        self.environment = {"LD_PRELOAD": os.path.join(BUILD, "tests/support/libfault_io.so"), "FAULT_IO_CONTROL": self.control,
                            "FAULT_IO_PREFIX": data_dir,
                            "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")}

    def set(self, rules):
        with open(self.control + ".new", "w") as f:
            f.write(rules + "\n")
        os.rename(self.control + ".new", self.control)

    def clear(self):
        os.unlink(self.control)

    def count(self):
        try:
            with open(self.control + ".done") as f:
                return len(f.readlines())
        except FileNotFoundError:
            return 0


def attempt(post, name, octets=1000, timeout=60):
    """The code that a message of this size gets at its end, or at MAIL."""
    with smtplib.SMTP("127.0.0.1", post.port, local_hostname="client.test", timeout=timeout) as s:
        s.ehlo()
        code, reply = s.mail("a@client.test", ["SIZE=%d" % octets])
        if code != 250:
            return code
        assert s.rcpt(name + "@there.test")[0] == 250
        return s.data(b"Subject: x\r\n\r\n" + b"0123456789abcde\r\n" * (octets // 17))[0]


def names(sink):
    return sorted(r.split("@")[0] for m in sink.messages for r in m[1])


def full_disk(world):
    disk = world.add(SmallDisk(world.directory, 400))
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, data_dir=os.path.join(disk.path, "data"),
                           delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}").start()
    accepted, refused = [], []
    for n in range(10):
        assert attempt(post, "before%d" % n) == 250
        accepted.append("before%d" % n)
    disk.leave(63 * MIB)  # under the reserve
    for n in range(10):
        code = attempt(post, "full%d" % n, MIB)
        assert code == 452, "a full disk must say 452, not %d" % code
        refused.append("full%d" % n)
    assert {r["recipient"].split("@")[0] for r in post.queue()} == set(accepted)
    # What was taken is delivered though the disk is full: settling uses the reserve.
    sink.script = {}
    wait_until("deliveries go on", lambda: post.tool("retry", "domain:there.test") and len(sink.messages) >= len(accepted), 30, 0.3)
    disk.give_back()
    wait_until("service again", lambda: attempt(post, "after") == 250, 30, 0.3)
    accepted.append("after")
    sink.wait(len(accepted))
    post.wait_empty()
    assert names(sink) == sorted(accepted), names(sink)
    assert post.stop() == 0


def no_room_at_all(world):
    """The reserve gone, too: writes themselves fail."""
    disk = world.add(SmallDisk(world.directory, 400))
    sink = world.sink({"mail": "451 4.3.0 later"})
    post = world.posthouse(extra=ROUTES % sink.port, data_dir=os.path.join(disk.path, "data"),
                           delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}").start()
    assert attempt(post, "before") == 250
    disk.leave(0)
    for n in range(5):
        code = attempt(post, "full%d" % n, MIB)
        assert code in (451, 452), code
    disk.give_back()
    wait_until("service again", lambda: attempt(post, "after") == 250, 30, 0.3)
    post.kill()  # what is in the store, and not what is in memory, counts
    post.start()
    sink.script = {}
    wait_until("delivered", lambda: post.tool("retry", "domain:there.test") and len(sink.messages) >= 2, 30, 0.3)
    post.wait_empty()
    assert names(sink) == ["after", "before"], names(sink)


def failing(rules, codes, kill):
    def test(world):
        sink = world.sink({"mail": "451 4.3.0 later"})
        data_dir = os.path.join(world.directory, "data")
        faults = Faults(world.directory, data_dir)
        post = world.posthouse(extra=ROUTES % sink.port, data_dir=data_dir, environment=faults.environment,
                               delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}").start()
        accepted = ["before%d" % n for n in range(5)]
        for name in accepted:
            assert attempt(post, name) == 250
        faults.set(rules)
        # What is under way when the write fails cannot be answered before it is known to be undone; all others are at once.
        first = []
        thread = threading.Thread(target=lambda: first.append(attempt(post, "first", timeout=120)), daemon=True)
        thread.start()
        wait_until("a call fails", lambda: faults.count() > 0, 20)
        time.sleep(0.5)
        for n in range(5):
            code = attempt(post, "during%d" % n, timeout=20)
            assert code in codes, "%s: %d" % (rules, code)
        assert not first or first[0] in codes, first
        faults.clear()
        thread.join(60)
        assert first and first[0] in codes, "the message under way: %s" % first
        wait_until("service again without a restart", lambda: attempt(post, "after") == 250, 30, 0.3)
        accepted.append("after")
        assert post.process.poll() is None
        if kill:
            post.kill()
            post.start()
        sink.script = {}
        wait_until("delivered", lambda: post.tool("retry", "domain:there.test") and len(sink.messages) >= len(accepted), 30, 0.3)
        post.wait_empty()
        assert names(sink) == sorted(accepted), names(sink)
        assert post.stop() == 0
        verify = subprocess.run([os.path.join(BUILD, "posthouse"), "store", "verify", os.path.join(data_dir, "queue")],
                                capture_output=True, text=True, timeout=120)
        assert verify.returncode == 0, verify.stdout + verify.stderr
    test.__name__ = "failing_" + rules.split()[0] + "_" + rules.split()[1] + ("_then_killed" if kill else "")
    return test


def stops_though_nothing_can_be_written(world):
    """A stop does not wait for the disk, and what was acknowledged before is there afterwards."""
    sink = world.sink({"mail": "451 4.3.0 later"})
    data_dir = os.path.join(world.directory, "data")
    faults = Faults(world.directory, data_dir)
    post = world.posthouse(extra=ROUTES % sink.port, data_dir=data_dir, environment=faults.environment,
                           delivery="retry: {first: 1h, max: 4h, give_up: 5d, delay_notice: 0}").start()
    assert attempt(post, "before") == 250
    faults.set("sync EIO *")

    def under_way():
        try:
            attempt(post, "first")
        except (OSError, smtplib.SMTPException):
            pass  # the connection ends with the process
    threading.Thread(target=under_way, daemon=True).start()
    wait_until("a call fails", lambda: faults.count() > 0, 20)
    post.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    post.process.send_signal(signal.SIGTERM)  # at once, please
    post.process.wait(20)
    post.log_file.close()
    faults.clear()
    post.start()
    assert "before" in {r["recipient"].split("@")[0] for r in post.queue()}
    assert post.stop() == 0


tests = [stops_though_nothing_can_be_written, failing("sync EIO *", (451, 452), False), failing("sync EIO *", (451, 452), True),
         failing("output EIO *", (451, 452), False), failing("output ENOSPC *", (451, 452), True)]
if os.geteuid() == 0:
    tests = [full_disk, no_room_at_all] + tests
else:
    print("left out without root: full_disk, no_room_at_all (they mount a tmpfs)")
main(tests)
