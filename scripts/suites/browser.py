"""Drives a headless Chromium over its debugging protocol (through two pipes), for scripts/suites/page."""

import base64
import json
import os
import select
import subprocess
import sys
import time

PATIENCE = 60
# Name: key, code, number, text.
KEYS = {
    "Enter": ("Enter", "Enter", 13, "\r"), "Tab": ("Tab", "Tab", 9, ""), "Escape": ("Escape", "Escape", 27, ""),
    "Space": (" ", "Space", 32, " "), "Delete": ("Delete", "Delete", 46, ""), "End": ("End", "End", 35, ""),
    "ArrowDown": ("ArrowDown", "ArrowDown", 40, ""), "ArrowUp": ("ArrowUp", "ArrowUp", 38, ""),
}


class Browser:
    """One page of a Chromium."""

    def __init__(self, home):
        # It reads from its descriptor 3, and writes to 4.
        (theirs_in, self.to), (self.back, theirs_out) = os.pipe(), os.pipe()
        words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--remote-debugging-pipe", "--no-first-run", "--lang=en", "--hide-scrollbars",
                 f"--user-data-dir={home}/chromium", "about:blank"]
        shell = ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out}; exec setpriv --pdeathsig KILL "$@"']
        self.log = open(f"{home}/chromium.log", "wb")
        self.process = subprocess.Popen([*shell, "chromium", *words], stdout=self.log, stderr=self.log,
                                        pass_fds=(theirs_in, theirs_out),
                                        env={**os.environ, "HOME": home, "LC_ALL": "C.UTF-8", "TZ": "UTC"})
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.session = b"", None
        self.number = 0
        self.complaints = []
        self.choosers = []
        [target] = [target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "DOM", "Accessibility"]:
            self.call(f"{domain}.enable")
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        # Messages of the page disappear after a while, and this machine may be slow, so all of them are kept.
        self.call("Page.addScriptToEvaluateOnNewDocument", source="""
            addEventListener('DOMContentLoaded', () => {
              window.allSaid = [];
              const place = document.getElementById('said');
              if (place) new MutationObserver(() => allSaid.push(place.textContent)).observe(place, {childList: true});
            });""")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.send(json.dumps(message).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            if "method" in message:
                self.heard(message)

    def send(self, rest):
        while rest:
            rest = rest[os.write(self.to, rest):]

    def message(self):
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0, until - time.monotonic()))[0]:
                sys.exit(f"Chromium says nothing for {PATIENCE} s")
            piece = os.read(self.back, 1 << 20)
            if not piece:
                sys.exit("Chromium has ended:\n" + open(self.log.name, errors="replace").read()[-2000:])
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def heard(self, message):
        params = message.get("params", {})
        if message["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        if message["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        if message["method"] == "Page.fileChooserOpened":
            self.choosers.append(params["backendNodeId"])

    def run(self, expression):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, what):
        """Waits until an expression holds on a page that is loaded completely."""
        def holds():
            try:
                return self.run(f"document.readyState !== 'loading' && ({expression})")
            except RuntimeError:
                return None  # between two pages
        return until(holds, what, self.state)

    def state(self):
        """The state of the page, as a person would describe it."""
        return self.run("""`${location.href}: ${document.querySelector('#sheet[open] h1')?.textContent ?? document.title}; focus on
            ${document.activeElement.outerHTML.slice(0, 200)}; said: ${JSON.stringify(window.allSaid)}`""") + f"; {self.complaints}"

    def open(self, url):
        # Via another document, even if the URL is the same.
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'", "nothing")
        self.call("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'", url)

    def files(self, selector, paths):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=paths)

    def press(self, name, shift=False):
        """Presses a key, as a keyboard sends it."""
        key, code, number, text = KEYS[name]
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **down, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        """Puts text into the focused field. (A list of suggestions that opens at that moment may swallow the input.)"""
        def typed():
            self.run("document.activeElement.select?.()")
            self.call("Input.insertText", text=text)
            return self.run("document.activeElement.value") == text
        until(typed, f"the field takes {text}", self.state)

    def tab_to(self, expression, what):
        """Presses Tab until the focused element matches: `it` in the expression. Returns how often that took."""
        for times in range(200):
            if self.run(f"(it => Boolean(it && it !== document.body && ({expression})))(document.activeElement)"):
                return times
            self.press("Tab")
        sys.exit(f"no Tab leads to {what}")

    def choose(self, paths):
        """Gives files to a file chooser that was opened."""
        until(lambda: self.run("1") and self.choosers, "a file chooser opens")
        self.call("DOM.setFileInputFiles", backendNodeId=self.choosers.pop(), files=paths)

    def drop(self, paths):
        """Drops files and folders in the middle of the page."""
        data = {"items": [], "files": paths, "dragOperationsMask": 1}
        for kind in ["dragEnter", "dragOver", "drop"]:
            self.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def says(self, text):
        """Waits until the page has shown this message since it was loaded."""
        self.until(f"window.allSaid?.includes({json.dumps(text)})", f"the page says: {text}")

    def nameless(self):
        """The usable elements that have no accessible name."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        usable = ("button", "link", "textbox", "searchbox", "combobox", "checkbox", "DisclosureTriangle", "image", "dialog",
                  "progressbar", "table", "region")
        return [node["role"]["value"] for node in nodes if not node.get("ignored")
                and node.get("role", {}).get("value") in usable and not node.get("name", {}).get("value")
                and node["role"]["value"] != "table"]

    def shown(self, theme, width, path):
        """Checks that nothing overflows at this width and theme; with a path, takes a picture."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1.5,
                  mobile=width < 600)
        if path:
            time.sleep(0.3)
        wide = self.run(f"document.documentElement.scrollWidth - {width}")
        if wide > 0:
            check(False, f"nothing sticks out at {width} px ({wide}): {path}")
        if path:
            shot = self.call("Page.captureScreenshot", captureBeyondViewport=False)
            with open(path, "wb") as file:
                file.write(base64.b64decode(shot["data"]))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def until(holds, what, state=lambda: ""):
    begun = time.monotonic()
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() - begun > PATIENCE:
            sys.exit(f"not within {PATIENCE} s: {what}\n{state()}")
        time.sleep(0.05)


def check(holds, what):
    check.number += 1
    print(f"{'ok  ' if holds else 'FAIL'} {time.monotonic() - check.begun:5.1f} s: {what}", flush=True)
    if not holds:
        check.failed = True


check.failed, check.number, check.begun = False, 0, time.monotonic()
