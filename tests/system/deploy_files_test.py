#!/usr/bin/env python3
"""
Proves the files under deploy/ with the tools of their own programs: alerts by promtool, the balancer's by haproxy, the unit's by systemd-analyze,
YAML by yamllint; and that every metric that an alert or a panel speaks of is one that the daemon has, every runbook is there,
and the manifests hang together (selectors, ports, volumes).
"""
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from posthouse_test import BUILD, ROOT, free_port, main
import urllib.request
import yaml

DEPLOY = os.path.join(ROOT, "deploy")


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def run(*words):
    path = shutil.which(words[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    check(path, "%s is not installed" % words[0])
    return subprocess.run((path,) + words[1:], capture_output=True, text=True, timeout=60)


def spoken_of():
    """Metrics in alerts and panels, with where."""
    found = {}
    with open(os.path.join(DEPLOY, "prometheus-alerts.yaml")) as f:
        rules = yaml.safe_load(f)
    for rule in rules["groups"][0]["rules"]:
        check(os.path.exists(os.path.join(ROOT, rule["annotations"]["runbook"])), rule)
        for name in re.findall(r"posthouse_\w+", rule["expr"]):
            found[name] = rule["alert"]
    with open(os.path.join(DEPLOY, "grafana-dashboard.json")) as f:
        board = json.load(f)
    ids = [p["id"] for p in board["panels"]]
    check(len(ids) == len(set(ids)), ids)
    for panel in board["panels"]:
        for target in panel["targets"]:
            for name in re.findall(r"posthouse_\w+", target["expr"]):
                found[name] = panel["title"]
    return found


def alerts_and_panels_speak_of_what_is_there(world):
    done = run("promtool", "check", "rules", os.path.join(DEPLOY, "prometheus-alerts.yaml"))
    check(done.returncode == 0, done)
    port = free_port()
    post = world.posthouse()
    with open(post.config) as f:
        text = f.read()
    with open(post.config, "w") as f:
        f.write(text.replace("admin:\n", "admin:\n  http: \"127.0.0.1:%d\"\n" % port))
    post.start()
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=20) as answer:
        metrics = set(re.findall(r"^# TYPE (\w+)", answer.read().decode(), flags=re.M))
    for name, where in spoken_of().items():
        check(name in metrics, (name, where))
    post.stop()


def the_balancer(world):
    done = run("haproxy", "-c", "-f", os.path.join(DEPLOY, "haproxy.cfg"))
    check(done.returncode == 0, done)


def the_unit(world):
    """As installed: with a program where it is to be."""
    root = os.path.join(world.directory, "root")
    for folder in ("usr/sbin", "etc/systemd/system"):
        os.makedirs(os.path.join(root, folder))
    with open(os.path.join(DEPLOY, "posthoused.service")) as f:
        text = f.read().replace("/usr/sbin/posthoused", os.path.join(BUILD, "posthoused"))
    unit = world.file("posthoused.service", text)
    done = run("systemd-analyze", "verify", "--man=no", unit)
    named = [l for l in done.stderr.splitlines() if "posthoused.service" in l]
    check(not named, named)


def manifests_hang_together(world):
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 140}}}"
    done = run("yamllint", "-d", rules, os.path.join(DEPLOY, "kubernetes"), os.path.join(DEPLOY, "container"))
    check(done.returncode == 0, done)
    with open(os.path.join(DEPLOY, "kubernetes", "posthouse.yaml")) as f:
        things = list(yaml.safe_load_all(f))
    by_kind = {}
    for thing in things:
        by_kind.setdefault(thing["kind"], []).append(thing)
    pod = by_kind["StatefulSet"][0]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    for service in by_kind["Service"]:
        check(service["spec"]["selector"].items() <= pod["metadata"]["labels"].items(), service)
        check(all(p["targetPort"] in ports for p in service["spec"]["ports"]), service)
    check(by_kind["StatefulSet"][0]["spec"]["serviceName"] in [s["metadata"]["name"] for s in by_kind["Service"]], "serviceName")
    check(by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"], "PodDisruptionBudget")
    volumes = {v["name"] for v in pod["spec"]["volumes"]} | {c["metadata"]["name"] for c in by_kind["StatefulSet"][0]["spec"]["volumeClaimTemplates"]}
    check({m["name"] for m in container["volumeMounts"]} == volumes, volumes)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        check(container[probe]["httpGet"]["port"] in ports, probe)
    settings = by_kind["ConfigMap"][0]["data"]["posthouse.yaml"]
    check(str(ports["smtp"]) in settings and str(ports["http"]) in settings, settings)
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--check", "--config", world.file("k8s.yaml", settings)], capture_output=True, text=True, timeout=30)
    check(done.returncode == 0, done)


def the_sample_settings(world):
    for name in ("posthouse.yaml",):
        shutil.copy(os.path.join(DEPLOY, "recipients.txt"), world.directory)
        with open(os.path.join(DEPLOY, name)) as f:
            done = subprocess.run([os.path.join(BUILD, "posthoused"), "--check", "--config", world.file(name, f.read())], capture_output=True, text=True, timeout=30)
        check(done.returncode == 0, done)
    with open(os.path.join(DEPLOY, "first-settings.yaml")) as f:
        text = f.read().replace("@HOSTNAME@", "mx1.example.net")
    done = subprocess.run([os.path.join(BUILD, "posthoused"), "--check", "--config", world.file("first.yaml", text)], capture_output=True, text=True, timeout=30)
    check(done.returncode == 0, done)


if __name__ == "__main__":
    main([alerts_and_panels_speak_of_what_is_there, the_balancer, the_unit, manifests_hang_together, the_sample_settings])
