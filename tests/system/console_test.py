#!/usr/bin/env python3
"""
Proves the console in a real browser against a running daemon: numbers move with mail; a message is found, and its history read;
operators suspend and resume, hold and release, and nobody else; a wrong password says so; everything works by the keyboard alone
and at 360 pixels, light and dark; axe-core finds nothing serious; what strangers wrote stays text.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from browser import Browser, axe_source
from console import PASSWORDS, free_face, http_settings
from posthouse_test import main, wait_until

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

ROUTES = "routes:\n  - {domain: \"*\", route: \"smtp:127.0.0.1:%d\"}\n"
NASTY = "<img src=x onerror=document.hit=1><script>document.hit=1</script>"
VIEWS = {"overview": ("#shards", "Messages"), "queue": ("#shape", "other.test"), "search?": ("#results", "other.test"),
         "failures": ("#failures", "nobody@far.test"), "changes": ("#view-changes", "Changes")}  # and what each shows in time


def answer_of(line):
    if "later" in line:
        return "450 4.2.1 mailbox busy, try again"
    if "nobody" in line:
        return "550 5.1.1 no such user %s" % NASTY
    return "250 2.1.5 fine"


class Console:
    def __init__(self, world, users=True, width=1280, height=900):
        self.sink = world.sink({"rcpt": answer_of})
        self.port, self.face = free_face()
        self.post = world.posthouse(extra=http_settings(self.port, users) + ROUTES % self.sink.port,
                                    delivery="retry: {first: 1h, max: 4h, give_up: 1d, delay_notice: 0}").start()
        self.browser = Browser(world, width, height)

    def sign_in(self, name, password=None):
        b = self.browser
        b.until("the dialog is open", lambda: b.one("#sign-in").get_attribute("open"))
        b.one("#name").clear()
        b.one("#name").send_keys(name)
        b.one("#password").send_keys(password or PASSWORDS[name])
        b.click("#sign-in-form button[type=submit]")

    def enter(self, name, place=""):
        self.browser.open(self.port, place)
        self.sign_in(name)
        self.browser.until_text("#who", name)

    def fill(self):
        """Mail of all kinds, with names as long as they come."""
        long_name = "a" * 60 + "." + "b" * 60
        self.failed = self.post.send("sender@%s.test" % ".".join(["very-long-domain-label"] * 6), ["nobody@far.test", "fine@far.test"])
        self.waiting = self.post.send("a@sender.test", ["later@far.test", "later.%s@%s.test" % (long_name[:50], ".".join(["label-of-a-domain"] * 9))])
        self.post.send('"<img src=x onerror=document.hit=1>"@sender.test', ["later2@other.test"])
        wait_until("three wait", lambda: sum(r["state"] == "deferred" for r in self.post.queue()) == 3)


def live_numbers(world):
    """Counters, rates and the queue follow what the daemon does, without a reload of the page."""
    c = Console(world)
    b = c.browser
    c.enter("vera")
    b.until_text("#link", "Up to date")
    b.until_text("#node", "t1")
    tile = lambda name: b.js("return [...document.querySelectorAll('#tiles div')].find(d => d.firstChild.textContent === arguments[0])"
                             "?.lastChild.textContent", name)
    b.until("nothing yet", lambda: tile("Delivered") == "0")
    seen = set()
    for i in range(40):
        c.post.send("a@sender.test", "b%d@far.test" % i)
        seen.add(b.text("#rate-accepted"))
    b.until("forty were delivered", lambda: seen.add(b.text("#rate-accepted")) or tile("Delivered") == "40")
    b.until("a rate was seen", lambda: seen.add(b.text("#rate-accepted")) or any(s not in ("", "0.0") for s in seen))
    b.until("the chart has lines", lambda: b.js("return [...document.querySelectorAll('#chart polyline')].every(p => "
                                                "p.getAttribute('points').split(' ').length > 1)"))
    c.post.send("a@sender.test", "later@far.test")
    b.until("one waits", lambda: tile("Messages in the queue") == "1")
    b.shot("overview")
    if b.complaints():
        raise AssertionError(b.complaints())


def search_and_trace(world):
    """A message is found by a filter, by its id and from the failures; its envelope, recipients, reason and history are shown."""
    c = Console(world)
    b = c.browser
    c.fill()
    c.enter("otto")
    b.click("nav a", "Search")
    b.one("#filter").send_keys("to:later@far.test" + Keys.ENTER)
    b.until_text("#search-count", "1 recipient")
    b.until_text("#results", "450 4.2.1 mailbox busy")
    b.shot("search")
    b.click("#results a", c.waiting)
    b.until_text("#h-message", c.waiting)
    b.until_text("#recipients", "later@far.test")
    b.until_text("#envelope", "a@sender.test")
    b.until_text("#why", "450")
    b.until_text("#trace", "accepted")
    b.until_text("#trace", "deferred")
    b.shot("message")
    b.click("#show-header")
    b.until_text("#header", "Received:")
    b.click("nav a", "Search")
    b.one("#filter").clear()
    b.one("#filter").send_keys("nonsense" + Keys.ENTER)
    b.until("a bad filter is told", lambda: b.text("#problem"))
    b.one("#filter").clear()
    b.one("#filter").send_keys(c.failed.lower() + Keys.ENTER)
    b.until_text("#h-message", c.failed)
    b.until_text("#trace", "no such user")
    b.click("nav a", "Failures")
    b.until_text("#failures", "nobody@far.test")
    b.click("#failures a", c.failed)
    b.until_text("#h-message", c.failed)
    b.driver.back()
    b.until("back to the failures", lambda: b.one("#view-failures").is_displayed())
    b.click("nav a", "Queue")
    b.until_text("#shape", "other.test")
    b.shot("queue")
    b.click("#shape a", "other.test")
    b.until_text("#search-count", "1 recipient")


def suspend_and_hold(world):
    """An operator suspends and resumes a domain, and holds and releases mail, with a reason; a viewer sees no such buttons."""
    c = Console(world)
    b = c.browser
    c.fill()
    c.enter("vera", "#queue")
    b.until_text("#shape", "other.test")
    if b.all("#shape button"):
        raise AssertionError("a viewer may suspend")
    b.click("#who button")
    c.sign_in("otto")
    b.until_text("#who", "otto (operator)")
    b.click("#shape tr:has(a[data-key='dother.test']) button")
    b.until_text("#h-confirm", "Suspend other.test")
    b.click("#confirm-go")  # the reason is missing: the browser says so, and nothing happens
    if not b.one("#confirm").get_attribute("open"):
        raise AssertionError("suspended without a reason")
    b.one("#for").send_keys("soon")
    b.one("#reason").send_keys("they asked us to")
    b.click("#confirm-go")
    b.until_text("#confirm-problem", "duration")
    b.one("#for").clear()
    b.one("#for").send_keys("2h")
    b.shot("confirm")
    b.click("#confirm-go")
    b.until("it is suspended", lambda: c.post.tool("suspensions")["rows"])
    b.click("nav a", "Overview")
    b.until_text("#suspensions", "they asked us to")
    b.shot("suspended")
    b.click("#suspensions button")
    b.click("#confirm-go")
    b.until_text("#suspensions", "Nothing is suspended.")
    b.open(c.port, "#search?" + "to:later@far.test")
    b.until_text("#search-count", "1 recipient")
    b.click("#search-actions button", "Hold")
    b.until_text("#confirm-text", "1 recipient")
    b.one("#reason").send_keys("look first")
    b.click("#confirm-go")
    b.until_text("#results", "held")
    c.sink.script["rcpt"] = "250 fine"
    b.click("#search-actions button", "Release")
    b.click("#confirm-go")
    c.sink.wait(2)
    b.click("nav a", "Changes")
    b.until_text("#changes", "look first")
    b.click("#who button")
    b.until("the dialog is open", lambda: b.one("#sign-in").get_attribute("open"))
    if c.face.request("GET", "/api/v1/status")[0] != 401:
        raise AssertionError("still open")


def wrong_password(world):
    """It says what is wrong, keeps the name, forgets the password, and the right one still works."""
    c = Console(world)
    b = c.browser
    b.open(c.port)
    c.sign_in("otto", "wrong")
    b.until_text("#sign-in-problem", "The name or the password is wrong.")
    b.shot("wrong-password")
    if b.one("#password").get_attribute("value") or b.one("#name").get_attribute("value") != "otto":
        raise AssertionError("the fields are not as they should be")
    if b.text("#tiles"):
        raise AssertionError("numbers are shown to a stranger")
    c.sign_in("otto")
    b.until_text("#who", "otto")
    b.until_text("#tiles", "Delivered")
    if "posthouse=" in (b.js("return document.cookie") or ""):
        raise AssertionError("scripts see the cookie")


def press(b, *keys):
    chain = ActionChains(b.driver)
    for key in keys:
        chain.send_keys(key)
    chain.perform()


def tab_to(b, name, most=80):
    """Goes on by the tab key until the element has the focus; each stop on the way can be seen."""
    for _ in range(most):
        if name in b.focused():
            return
        press(b, Keys.TAB)
        if not b.js("const e = document.activeElement; const s = getComputedStyle(e); const r = e.getBoundingClientRect();"
                    "return e === document.body || (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && r.width > 0)"):
            raise AssertionError("the focus on %r cannot be seen" % b.focused())
    raise AssertionError("%r is not reached by the tab key; now at %r" % (name, b.focused()))


def keyboard(world):
    """Signing in, moving between views, searching and opening a message, with no other thing than keys."""
    c = Console(world)
    b = c.browser
    c.fill()
    b.open(c.port)
    b.until("the name has the focus", lambda: b.focused() == "name")
    press(b, "otto", Keys.TAB)
    press(b, PASSWORDS["otto"], Keys.ENTER)
    b.until_text("#who", "otto")
    b.until_text("#link", "Up to date")
    b.js("document.activeElement.blur()")
    press(b, Keys.TAB)
    if b.focused() != "skip":
        raise AssertionError("the way past the navigation is not the first stop: " + b.focused())
    press(b, Keys.ENTER)
    b.until("the content has the focus", lambda: b.focused() == "main")
    b.js("document.activeElement.blur()")
    tab_to(b, "A Search")
    press(b, Keys.ENTER)
    b.until("the heading has the focus", lambda: b.focused() == "h-search")
    tab_to(b, "filter")
    press(b, "to:later@far.test", Keys.ENTER)
    b.until_text("#search-count", "1 recipient")
    tab_to(b, c.waiting)
    press(b, Keys.ENTER)
    b.until("the message has the focus", lambda: b.focused() == "h-message")
    b.until_text("#trace", "accepted")
    tab_to(b, "show-header")
    press(b, Keys.SPACE)
    b.until("the header has the focus", lambda: b.focused() == "header")
    tab_to(b, "A Failures")  # round the end of the page
    press(b, Keys.ENTER)
    b.until("the heading has the focus", lambda: b.focused() == "h-failures")
    tab_to(b, "A " + c.failed)


def narrow(world):
    """At 360 pixels nothing sticks out, whatever the names, light or dark; buttons are large enough for a finger."""
    c = Console(world, width=360, height=740)
    b = c.browser
    c.fill()
    c.enter("otto")
    messages = {"message/" + c.waiting: ("#trace", "deferred"), "message/" + c.failed: ("#trace", "failed")}
    for view, (place, part) in {**VIEWS, **messages}.items():
        b.open(c.port, "#" + view)
        b.until_text("#link", "Up to date")
        b.until("%s is in %s" % (part, place), lambda: part.lower() in b.text(place).lower())
        wide = b.js("return [document.scrollingElement.scrollWidth, [...document.querySelectorAll('main *')].filter(e => e.getClientRects().length"
                    " && e.getBoundingClientRect().right > 361 && !e.closest('pre, svg, thead')).map(e => e.outerHTML.slice(0, 120)).slice(0, 3)]")
        if wide[0] > 360 or wide[1]:
            raise AssertionError("%s is %d wide: %s" % (view, wide[0], wide[1]))
        small = b.js("return [...document.querySelectorAll('button, nav a, input')].filter(e => e.getClientRects().length"
                     " && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)")
        if small:
            raise AssertionError("too small for a finger: %s" % small)
        for scheme in ("light", "dark"):
            b.scheme(scheme)
            b.shot("narrow-%s-%s" % (view.split("/")[0].strip("?"), scheme))
    b.click("#who button")
    b.until("the dialog is open", lambda: b.one("#sign-in").get_attribute("open"))
    if b.js("return document.querySelector('#sign-in').getBoundingClientRect().width") > 360:
        raise AssertionError("the dialog is too wide")
    b.shot("narrow-sign-in")


def accessible(world):
    """axe-core finds nothing serious on any view, light or dark, nor in the dialogs."""
    source = axe_source()
    c = Console(world)
    b = c.browser
    c.fill()

    def look(what):
        b.js(source)
        found = b.driver.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations.map(v => v.impact + ' ' + v.id + ': '"
                                              " + v.nodes.map(n => n.html.slice(0, 150)).join(' | '))), e => done(['critical ' + e]))")
        serious = [f for f in found if not f.startswith(("minor", "moderate"))]
        if serious:
            raise AssertionError("%s: %s" % (what, serious))
        return found
    b.open(c.port)
    b.until("the dialog is open", lambda: b.one("#sign-in").get_attribute("open"))
    look("the dialog")
    c.sign_in("otto")
    b.until_text("#who", "otto")
    for view, (place, part) in {**VIEWS, "message/" + c.waiting: ("#trace", "deferred")}.items():
        b.open(c.port, "#" + view)
        b.until_text("#link", "Up to date")
        b.until("%s is in %s" % (part, place), lambda: part.lower() in b.text(place).lower())
        for scheme in ("light", "dark"):
            b.scheme(scheme)
            for name, width in (("wide", 1280), ("narrow", 360)):
                b.size(width, 800)
                for line in look("%s, %s, %s" % (view, scheme, name)):
                    print("  axe-core, %s: %s" % (view, line))
    b.open(c.port, "#search?")
    b.until("the buttons are there", lambda: b.text("#results"))
    b.open(c.port, "#queue")
    b.click("#shape button")
    look("the confirmation")


def strangers(world):
    """Markup in senders, recipients and replies is shown as it is, and runs nowhere."""
    c = Console(world)
    b = c.browser
    c.fill()
    c.enter("vera", "#search?")
    b.until_text("#results", "<img src=x onerror")
    for view in ("failures", "message/" + c.failed, "queue", "overview"):
        b.open(c.port, "#" + view)
        b.until_text("#link", "Up to date")
    b.open(c.port, "#failures")
    b.until_text("#failures", "<script>")
    b.open(c.port, "#search?%22%3E%3Cimg%20src=x%20onerror=document.hit=1%3E")
    b.until("a bad filter is told", lambda: b.text("#problem"))
    b.open(c.port, "#message/<img src=x onerror=document.hit=1>")
    b.until("a bad id is told", lambda: b.text("#problem"))
    for place in ("#constructor", "#__proto__"):  # names that every object has are no views
        b.open(c.port, "#queue")
        b.until("the queue", lambda: b.one("#view-queue").is_displayed())
        b.open(c.port, place)
        b.until("the overview instead of " + place, lambda: b.one("#view-overview").is_displayed())
    if b.js("return document.hit") or b.js("return document.images.length") or b.js("return document.scripts.length") != 1:
        raise AssertionError("a stranger's markup became markup")
    if b.complaints():
        raise AssertionError(b.complaints())


def guest(world):
    """Without users the console is open, says that it is read-only, and offers no sign-in and no changes."""
    c = Console(world, users=False)
    b = c.browser
    c.fill()
    b.open(c.port, "#queue")
    b.until_text("#who", "read-only")
    b.until_text("#shape", "other.test")
    if b.all("#shape button") or b.all("#who button") or b.one("#sign-in").get_attribute("open"):
        raise AssertionError("a guest is offered what is not theirs")


if __name__ == "__main__":
    main([live_numbers, search_and_trace, suspend_and_hold, wrong_password, keyboard, narrow, accessible, strangers, guest])
