"""
Members of etcd for system tests, in the foreground and on loopback, and a client of ours (etcd_ask) that is told what to do.
"""
import contextlib
import json
import os
import signal
import subprocess
import threading

from posthouse_test import BUILD, SLOW, end_process, free_port, wait_until
from real_servers import Server

USER_AND_PASSWORD = ("joe", "joe-pw")


class Member(Server):
    """One member. `tls`: (ca, certificate, key) for clients, who must show certificates."""

    def __init__(self, world, name="etcd", tls=None, options=()):
        super().__init__(world, name)
        self.name, self.tls, self.options = name, tls, list(options)
        self.peer_port = free_port()
        self.peers = [self]
        self.url = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.port)

    @property
    def command(self):
        peer = "http://127.0.0.1:%d" % self.peer_port
        command = ["etcd", "--name", self.name, "--data-dir", os.path.join(self.directory, "data"), "--log-level", "error",
                   "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster",
                   ",".join("%s=http://127.0.0.1:%d" % (p.name, p.peer_port) for p in self.peers)] + self.options
        if self.tls:
            ca, certificate, key = self.tls
            command += ["--cert-file", certificate, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", ca]
        return command

    def ctl(self, *words):
        command = ["etcdctl", "--endpoints", self.url, "--dial-timeout", "10s", "--command-timeout", "20s"]
        if self.tls:
            command += ["--cacert", self.tls[0], "--cert", self.tls[1], "--key", self.tls[2]]
        return self.run(*command, *words, env={**os.environ, "ETCDCTL_API": "3"})

    def works(self):
        try:
            self.ctl("get", "nothing")
        except AssertionError:
            return False
        return True


def one(world, **more):
    member = world.add(Member(world, **more)).start()
    wait_until("etcd works", member.works, 60)
    return member


def three(world, options=()):
    members = [world.add(Member(world, "etcd%d" % n, options=options)) for n in range(3)]
    for member in members:
        member.peers = members
    # a member is up only when the others are, so that none can be waited for before all were begun
    for member in members:
        member.ready = lambda: True
        member.start()
    for member in members:
        wait_until("%s works" % member.name, member.works, 60)
    return members


class Client:
    """Our client. What it says is kept: .answers by tag, .events of watches by name, .leases by name."""

    def __init__(self, members, *options):
        self.process = subprocess.Popen([os.path.join(BUILD, "tests", "support", "etcd_ask"), *options,
                                         *[m if isinstance(m, str) else m.url for m in members]],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.answers, self.news, self.leases, self.count = {}, {}, {}, 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "watch" in said:
                self.news.setdefault(said["watch"], []).append(said)
            elif "lease" in said:
                self.leases.setdefault(said["lease"], []).append(said)
            else:
                self.answers[said.get("tag")] = said

    def close(self):
        """It ends with its input, and well."""
        self.thaw()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10 * SLOW)
        if end_process(self.process) != 0:
            raise AssertionError("etcd_ask ended with %d" % self.process.returncode)

    def say(self, *words):
        assert not any(" " in str(w) for w in words), words
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def begin(self, verb, *words):
        """Asks; the tag to wait for."""
        self.count += 1
        tag = "t%d" % self.count
        self.say(verb, tag, *words)
        return tag

    def wait(self, tag, seconds=30):
        wait_until("an answer to " + tag, lambda: tag in self.answers, seconds)
        return self.answers.pop(tag)

    def ask(self, verb, *words):
        return self.wait(self.begin(verb, *words))

    def good(self, verb, *words):
        answer = self.ask(verb, *words)
        if answer["err"]:
            raise AssertionError("%s %s: %s" % (verb, words, answer))
        return answer

    def until_good(self, verb, *words, seconds=60):
        def tried():
            answer = self.ask(verb, *words)
            return None if answer["err"] else answer
        return wait_until("%s %s succeeds" % (verb, words), tried, seconds)

    def state(self):
        self.say("state")
        return self.wait("state")

    def left(self, name):
        self.say("left", name)
        return self.wait("left")

    def lease(self, name, ttl):
        self.say("lease", name, ttl)
        wait_until("the lease is granted", lambda: self.leases.get(name), 30)
        assert self.leases[name][0]["event"] == "granted", self.leases

    def watch(self, name, prefix, revision):
        self.say("watch", name, prefix, revision)

    def events(self, name):
        """All that a watch told, as (verb, key, value, mod_revision)."""
        return [tuple(e) for n in list(self.news.get(name, [])) for e in n["events"]]

    def saw(self, name, key, value, seconds=30):
        wait_until("%s sees %s = %s" % (name, key, value),
                   lambda: any(e[:3] == ("put", key, value) for e in self.events(name)), seconds)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)


def put_by(member, key, value):
    """By etcd's own tool, so that it happens without us."""
    member.ctl("put", key, value)


__all__ = ["Client", "Member", "SLOW", "USER_AND_PASSWORD", "one", "put_by", "three"]
