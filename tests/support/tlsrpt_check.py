#!/usr/bin/env python3
"""
Judges a TLS report by RFC 8460, independently of what wrote it.

    tlsrpt_check.py packed FILE    a gzip'd report as it was posted
    tlsrpt_check.py mail FILE      a report as mail (section 5.3)

Every member must be known, of its type, and there when it must be; sums must agree; texts must be of their form. What is found
wrong goes to standard error with status 1. Standard output: the report as JSON in one line, members sorted, without blanks.
"""
import email
import email.policy
import gzip
import ipaddress
import json
import re
import sys
from datetime import datetime, timedelta

RESULTS = {"starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
           "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
           "sts-policy-invalid", "sts-webpki-invalid"}
DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


def need(good, what):
    if not good:
        sys.exit("tlsrpt: " + what)


def text(value):
    return isinstance(value, str) and value != ""


def count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def ip(value):
    try:
        return bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def time(value):
    need(text(value) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), "a bad time: %r" % value)
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")


def members(value, must, may, what):
    need(isinstance(value, dict), what + " is no object")
    for name in must:
        need(name in value, "%s lacks %s" % (what, name))
    for name, judge in value.items():
        rule = must.get(name) or may.get(name)
        need(rule, "%s has %s" % (what, name))
        need(rule(judge), "%s: bad %s: %r" % (what, name, judge))


def texts(value):
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def once(pairs):
    need(len({k for k, _ in pairs}) == len(pairs), "a member twice")
    return dict(pairs)


def judge_policy(entry):
    members(entry, {"policy": lambda v: isinstance(v, dict), "summary": lambda v: isinstance(v, dict)},
            {"failure-details": lambda v: isinstance(v, list) and v}, "policies")
    policy = entry["policy"]
    kind = policy.get("policy-type")
    must = {"policy-type": lambda v: v in ("tlsa", "sts", "no-policy-found"), "policy-domain": lambda v: bool(DOMAIN.match(v))}
    members(policy, must, {"policy-string": texts, "mx-host": texts}, "policy")
    need(kind != "no-policy-found" or not set(policy) & {"policy-string", "mx-host"}, "no policy, but its text")
    need(kind == "no-policy-found" or "policy-string" in policy, "a policy without its text")
    for pattern in policy.get("mx-host", []):
        need(DOMAIN.match(pattern.lower().removeprefix("*.")), "a bad mx-host: %r" % pattern)
    members(entry["summary"], {"total-successful-session-count": count, "total-failure-session-count": count}, {}, "summary")
    failures = entry.get("failure-details", [])
    for row in failures:
        members(row, {"result-type": lambda v: v in RESULTS, "failed-session-count": lambda v: count(v) and v > 0},
                {"sending-mta-ip": ip, "receiving-ip": ip, "receiving-mx-hostname": text, "receiving-mx-helo": text,
                 "additional-information": text, "failure-reason-code": text}, "failure-details")
    rows = [json.dumps({k: v for k, v in row.items() if k != "failed-session-count"}, sort_keys=True) for row in failures]
    need(len(set(rows)) == len(rows), "one kind of failure twice")
    need(sum(row["failed-session-count"] for row in failures) == entry["summary"]["total-failure-session-count"],
         "the failures do not add up")


def judge_report(octets):
    report = json.loads(octets.decode("utf-8"), object_pairs_hook=once)
    members(report, {"organization-name": text, "date-range": lambda v: isinstance(v, dict), "contact-info": text,
                     "report-id": text, "policies": lambda v: isinstance(v, list) and v}, {}, "report")
    members(report["date-range"], {"start-datetime": text, "end-datetime": text}, {}, "date-range")
    start, end = (time(report["date-range"][k]) for k in ("start-datetime", "end-datetime"))
    need(start.time() == datetime.min.time() and end - start == timedelta(days=1, seconds=-1), "not one UTC day")
    for entry in report["policies"]:
        judge_policy(entry)
    need(len({e["policy"]["policy-domain"] for e in report["policies"]}) == 1, "several domains")
    return report


def judge_mail(octets):
    need(b"\n" not in octets.replace(b"\r\n", b""), "a bare LF")
    need(all(len(line) <= 998 and not any(o > 127 for o in line) for line in octets.split(b"\r\n")), "a line that is no mail")
    mail = email.message_from_bytes(octets, policy=email.policy.default)
    need(not mail.defects, "defects: %r" % mail.defects)
    need(mail.get_content_type() == "multipart/report" and mail["Content-Type"].params["report-type"] == "tlsrpt", "no report")
    for name in ("From", "To", "Date", "Message-ID", "Subject", "MIME-Version", "TLS-Report-Domain", "TLS-Report-Submitter"):
        need(len(mail.get_all(name, [])) == 1, "%s is not there once" % name)
    need(mail["TLS-Required"] == "No", "TLS-Required is not No")
    first, second = mail.iter_parts()
    need(first.get_content_type() == "text/plain" and first.get_content(), "no text")
    need(second.get_content_type() == "application/tlsrpt+gzip" and not second.defects, "no packed report")
    report = judge_report(gzip.decompress(second.get_content()))
    domain, submitter = mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"]
    need(domain == report["policies"][0]["policy"]["policy-domain"], "TLS-Report-Domain is of another domain")
    need(mail["Subject"] == "Report Domain: %s Submitter: %s Report-ID: <%s>" % (domain, submitter, report["report-id"]),
         "a bad subject: %r" % mail["Subject"])
    day = [int((time(report["date-range"][k]) - datetime(1970, 1, 1)).total_seconds()) for k in ("start-datetime", "end-datetime")]
    need(second.get_filename() == "%s!%s!%d!%d.json.gz" % (submitter, domain, *day), "a bad file name: %r" % second.get_filename())
    return report


def main():
    with open(sys.argv[2], "rb") as f:
        octets = f.read()
    report = judge_mail(octets) if sys.argv[1] == "mail" else judge_report(gzip.decompress(octets))
    print(json.dumps(report, sort_keys=True, separators=(",", ":")))


if __name__ == "__main__":
    main()
