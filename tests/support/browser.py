"""
A real Chromium without a window, driven through its own driver; its profile and cache lie in the directory of the test.
"""
import os
import subprocess
import sys

from posthouse_test import BUILD, ROOT, wait_until

sys.path.append("/usr/lib/python3/dist-packages")  # of the Debian packages, whichever python3 comes first
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By


class Browser:
    def __init__(self, world, width=1280, height=900):
        options = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en",
                     "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--user-data-dir=" + os.path.join(world.directory, "profile")):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = "/usr/bin/chromium"
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.shots = os.environ.get("POSTHOUSE_SHOTS")  # a folder: keep what is seen there
        self.size(width, height)
        world.add(self)

    def close(self):
        self.driver.quit()

    def size(self, width, height):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1,
                                                                           "mobile": width < 600})

    def scheme(self, name):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def open(self, port, place=""):
        self.driver.get("http://127.0.0.1:%d/%s" % (port, place))

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        """Shown text; empty while it is being replaced."""
        return self.js("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, what, condition, seconds=20):
        def calm():
            try:
                return condition()
            except WebDriverException:  # the page, or a part of it, was replaced at that moment
                return False
        try:
            return wait_until(what, calm, seconds, 0.1)
        except AssertionError as error:
            raise AssertionError("%s; the page says: %s" % (error, self.text("body")[:3000])) from None

    def until_text(self, selector, part, seconds=20):
        return self.until("%r in %s" % (part, selector), lambda: part in self.text(selector), seconds)

    def click(self, selector, text=None):
        """The first one shown that has the text; again when the page replaced it meanwhile."""
        def found():
            for e in self.all(selector):
                try:
                    if e.is_displayed() and (text is None or text in e.text):
                        e.click()
                        return True
                except WebDriverException:  # it was replaced
                    return False
            return False
        self.until("%s %r can be clicked" % (selector, text), found)

    def shot(self, name):
        if self.shots:
            os.makedirs(self.shots, exist_ok=True)
            self.driver.save_screenshot(os.path.join(self.shots, name + ".png"))

    def complaints(self):
        """What the browser itself says against the page: scripts that fail, and what the content policy stopped."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE" and "status of 4" not in e["message"]]

    def focused(self):
        """The element that has the focus: its id, or its tag and text."""
        return self.js("const e = document.activeElement; return e.id || e.tagName + ' ' + e.textContent.trim()")


def axe_source():
    """axe-core as text, from the registry at the version that the lock file names."""
    place = os.path.join(BUILD, "axe")
    os.makedirs(place, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        with open(os.path.join(ROOT, "tests", "support", "axe", name)) as f, open(os.path.join(place, name), "w") as to:
            to.write(f.read())
    subprocess.run(["npm", "ci", "--prefix", place, "--no-audit", "--no-fund", "--ignore-scripts"], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(place, "node_modules", "axe-core", "axe.min.js"), encoding="utf-8") as f:
        return f.read()
