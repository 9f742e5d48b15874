#!/usr/bin/env python3
"""
Proves deploy/convert-postfix: a Postfix configuration of an MX tier becomes settings that the daemon checks and starts with; the verdicts
and routes of a list of addresses are those that Postfix's own postmap gives; and what is not converted is named with its place.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, Posthouse, main

MAIN = """
# an MX tier
myhostname = mx1.example.net
myorigin = example.net
mydestination =
mynetworks = 127.0.0.0/8, [::1]/128
  192.0.2.0/24
relay_domains = example.net, texthash:%(d)s/relay_domains
relay_recipient_maps = texthash:%(d)s/relay_recipients
transport_maps = texthash:%(d)s/transport
virtual_alias_domains = alias.example
virtual_alias_maps = texthash:%(d)s/virtual
relayhost = [smart.example.org]:587
message_size_limit = 20480000
maximal_queue_lifetime = 3d
minimal_backoff_time = 300s
maximal_backoff_time = 4000s
header_checks = regexp:/etc/postfix/header_checks
"""
MAPS = {
    "relay_domains": "example.org ok\nwild.example ok\n",
    "relay_recipients": "alice@example.net x\nBob@Example.NET x\n\"odd name\"@example.net x\ncarol@example.org x\n@wild.example x\nnobody@elsewhere.example x\n",
    "transport": "example.net smtp:[127.0.0.1]:2525\nexample.org lmtp:unix:/run/mailstore\npartner.example relay:mx.partner.example\n"
                 ".partner.example smtp:[192.0.2.9]\nplain.example :\nlocal.example local:\nuser@x.example smtp:[192.0.2.1]\n",
    "virtual": "info@alias.example alice@example.net, dave@far.example\nkeep@example.net keep@example.net, copy@far.example\n"
               "@alias.example alice@example.net\nroot alice@example.net\nmove@example.org gone@far.example\n@whole.example @example.net\n",
}


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def convert(*words):
    return subprocess.run([os.path.join(ROOT, "deploy", "convert-postfix")] + list(words), capture_output=True, text=True, timeout=60)


def postfix_knows(directory, address):
    """By Postfix's own reading of the maps: the address, the name alone at its origin, the whole domain."""
    keys = [address, "@" + address.rpartition("@")[2]] + ([address.rpartition("@")[0]] if address.endswith("@example.net") else [])
    for key in keys:
        for name in ("relay_recipients", "virtual"):
            done = subprocess.run(["postmap", "-c", directory, "-q", key, "texthash:%s/%s" % (directory, name)], capture_output=True, text=True, timeout=30)
            if done.stdout.strip():
                return True
    return False


def postfix(world):
    directory = os.path.join(world.directory, "postfix")
    os.makedirs(directory)
    for name, text in MAPS.items():
        with open(os.path.join(directory, name), "w") as f:
            f.write(text)
    with open(os.path.join(directory, "main.cf"), "w") as f:
        f.write(MAIN % {"d": directory})
    return directory


def the_same_answers(world):
    directory, out = postfix(world), os.path.join(world.directory, "out")
    done = convert(directory, out)
    check(done.returncode == 1, done)
    for named in ("transport:6: the transport local", "transport:7: a route for one address", "relay_recipients:6: nobody@elsewhere.example",
                  "virtual:6: @whole.example", "header_checks: is not converted"):
        check(named in done.stderr, (named, done.stderr))
    check(len(done.stderr.splitlines()) == 5, done.stderr)
    config = os.path.join(out, "posthouse.yaml")
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--config", config, "--check"], capture_output=True, text=True, timeout=30)
    check(done.returncode == 0, done)
    post = Posthouse(world.directory)
    world.daemon = post
    text = open(config).read().replace("node:", "node:\n  data_dir: %s\n  user: root" % post.data_dir).replace(
        "gateway:", "gateway:\n  listen: [{address: \"127.0.0.1:%d\"}]" % post.port)
    with open(post.config, "w") as f:
        f.write(text.replace("tables/", out + "/tables/") + "admin: {rpc: \"%s\"}\n" % post.rpc)
    post.start()
    for address in ("alice@example.net", "bob@example.net", "\"odd name\"@example.net", "mallory@example.net", "carol@example.org", "alice@example.org",
                    "anyone@wild.example", "info@alias.example", "else@alias.example", "keep@example.net", "root@example.net", "move@example.org"):
        verdict = post.tool("verify", address, "--from", "203.0.113.5")
        check(verdict["code"] == (250 if postfix_knows(directory, address) else 550), (address, verdict))
    said = post.tool("verify", "info@alias.example", "--from", "203.0.113.5", text=True)
    check("alice@example.net" in said and "dave@far.example" in said, said)
    said = post.tool("verify", "keep@example.net", "--from", "203.0.113.5", text=True)
    check("copy@far.example" in said, said)
    for address, route in (("a@example.net", "smtp:127.0.0.1:2525"), ("a@example.org", "lmtp:unix:/run/mailstore"), ("a@partner.example", "mx:mx.partner.example"),
                           ("a@sub.partner.example", "smtp:192.0.2.9"), ("a@other.example", "smtp:smart.example.org:587")):
        said = post.tool("route", address, text=True)
        check(route in said, (address, said))
    post.stop()


def plain_files_and_mistakes(world):
    out = os.path.join(world.directory, "out")
    directory = os.path.join(world.directory, "small")
    os.makedirs(directory)
    world.file("small/main.cf", "myhostname = a.example\nrelay_domains = b.example\n")
    done = convert(directory, out)
    check(done.returncode == 1 and "b.example: every recipient is accepted" in done.stderr, done)
    check("recipients: any" in open(os.path.join(out, "posthouse.yaml")).read(), "any")
    check(convert().returncode == 64 and convert("--help").returncode == 64, "usage")
    done = convert(os.path.join(world.directory, "none"), out)
    check(done.returncode == 66 and "main.cf" in done.stderr, done)
    world.file("small/main.cf", "myhostname = $relayhost\nrelayhost = ${myhostname}\n")
    done = convert(directory, out)
    check(done.returncode != 0 and "names itself" in done.stderr, done)


if __name__ == "__main__":
    main([the_same_answers, plain_files_and_mistakes])
