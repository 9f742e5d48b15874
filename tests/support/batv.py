#!/usr/bin/env python3
"""
Tags of return paths (draft-levine-smtp-batv) computed apart from the program under test. Run, it prints the vectors of
tests/unit/base/net/batv_test.c.
"""
import hashlib
import hmac


def tag(secret, address, until, key=0):
    """The address with its tag, good until this day (since 1970)."""
    head = "%d%03d" % (key, until % 1000)
    digest = hmac.new(secret.encode(), (head + address.lower()).encode(), hashlib.sha1).hexdigest()[:6]
    return "prvs=%s%s=%s" % (head, digest, address)


if __name__ == "__main__":
    for secret in ("a secret of sixteen octets", "another secret, as long as it"):
        for address in ("user@here.example", "Joe.User+x=far.example@Here.Example"):
            for until, key in ((20007, 0), (20999, 0), (20007, 7)):
                print('    {"%s", "%s", %d, "%s"},' % (secret, address, until, tag(secret, address, until, key)))
