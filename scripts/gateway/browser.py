"""A headless Chromium over its debugging protocol, and a vault with its service, for scripts/gateway/page."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request

import websocket

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
        words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--remote-debugging-port=0", "--remote-allow-origins=*", "--lang=en", "--hide-scrollbars",
                 f"--user-data-dir={home}/chromium", "about:blank"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={**os.environ, "HOME": home, "LC_ALL": "C.UTF-8", "TZ": "UTC"})
        port_file = f"{home}/chromium/DevToolsActivePort"
        until(lambda: os.path.exists(port_file) and open(port_file).read().count("\n"), "Chromium starts")
        port = open(port_file).readline().strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
            [target] = [target for target in json.load(reply) if target["type"] == "page"]
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=PATIENCE)
        self.number = 0
        self.complaints = []
        self.choosers = []
        for domain in ["Page", "Runtime", "Log", "Network", "DOM", "Accessibility"]:
            self.call(f"{domain}.enable")
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        # What the page says goes by itself after a while, and this machine may be slow.
        self.call("Page.addScriptToEvaluateOnNewDocument", source="""
            addEventListener('DOMContentLoaded', () => {
              window.allSaid = [];
              const place = document.getElementById('said');
              if (place) new MutationObserver(() => allSaid.push(place.textContent)).observe(place, {childList: true});
            });""")

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.heard(message)

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
        """What a JavaScript expression comes to."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, what):
        def holds():
            try:
                return self.run(expression)
            except RuntimeError:
                return None  # between two pages
        return until(holds, what)

    def open(self, url):
        # Another document, even if the URL is the same.
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'", "nothing")
        self.call("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'", url)

    def files(self, selector, paths):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=paths)

    def press(self, name, shift=False):
        """A key, as a keyboard sends it."""
        key, code, number, text = KEYS[name]
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **down, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.run("document.activeElement.select?.()")
        self.call("Input.insertText", text=text)

    def tab_to(self, expression, what):
        """Tab until the focused element is the one: `it` in the expression. How often it took."""
        for times in range(200):
            if self.run(f"(it => Boolean(it && it !== document.body && ({expression})))(document.activeElement)"):
                return times
            self.press("Tab")
        sys.exit(f"no Tab leads to {what}")

    def choose(self, paths):
        """Gives a file chooser that was opened its files."""
        until(lambda: self.run("1") and self.choosers, "a file chooser opens")
        self.call("DOM.setFileInputFiles", backendNodeId=self.choosers.pop(), files=paths)

    def drop(self, paths):
        """Files and folders are dropped in the middle of the page."""
        data = {"items": [], "files": paths, "dragOperationsMask": 1}
        for kind in ["dragEnter", "dragOver", "drop"]:
            self.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def says(self, text):
        """Waits until the page has said this, since it was loaded."""
        self.until(f"window.allSaid?.includes({json.dumps(text)})", f"the page says: {text}")

    def nameless(self):
        """What can be used and has no name that is read out."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        usable = ("button", "link", "textbox", "searchbox", "combobox", "checkbox", "DisclosureTriangle", "image", "dialog",
                  "progressbar", "table", "region")
        return [node["role"]["value"] for node in nodes if not node.get("ignored")
                and node.get("role", {}).get("value") in usable and not node.get("name", {}).get("value")
                and node["role"]["value"] != "table"]

    def picture(self, path, theme, width):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1.5,
                  mobile=width < 600)
        time.sleep(0.3)
        wide = self.run(f"document.documentElement.scrollWidth - {width}")
        check(wide <= 0, f"nothing sticks out at {width} px ({wide}): {os.path.basename(path)}")
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=False)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def until(holds, what):
    begun = time.monotonic()
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() - begun > PATIENCE:
            sys.exit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)


def check(holds, what):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    if not holds:
        check.failed = True


check.failed = False


class Vault:
    """A vault on this disk, and its service."""

    def __init__(self, program, home):
        self.program, self.home = program, home
        self.environment = {"PATH": os.environ["PATH"], "HOME": home, "S3VAULT_PASSPHRASE": "page", "S3VAULT_RECOVERY_FILE": "-"}
        os.mkdir(f"{home}/store")
        self.run("init", "--bucket", f"file://{home}/store")

    def run(self, *words):
        done = subprocess.run([self.program, *words], env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"s3vault {words}: {done.stderr}")
        return done.stdout

    def serve(self, *options):
        self.run("serve", "--listen", "127.0.0.1:0", *options)
        return json.loads(self.run("status", "--json"))["mounts"][0]["service"]["url"]

    def token(self, *words):
        return self.run("serve", "token", "add", *words).strip().split()[-1]

    def stop(self):
        self.run("serve", "--stop")
