"""A headless Chromium that tests drive through its debugging pipe: no port, no other package."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = shutil.which("chromium") or "chromium-browser"

# Chromium reads orders from descriptor 3 and answers on 4.
_START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
for place, pipe in zip((3, 4), pipes):
    os.dup2(pipe, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of a browser of its own; `told` are its console errors, exceptions and whatever it wanted to fetch."""

    def __init__(self, profile):
        ours, theirs = os.pipe(), os.pipe()
        words = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
        words += ["--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(ours[0]), str(theirs[1]), *words],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._in, self._out, self._rest, self._number, self._session = ours[1], theirs[0], b"", 0, None
        self.told, self._events = [], []
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.order(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)

    def _message(self, patience):
        until = time.monotonic() + patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(until - time.monotonic(), 0))
            piece = os.read(self._out, 2**20) if ready else b""
            if not piece:
                raise TimeoutError("Chromium does not answer")
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _hear(self, message):
        method, about = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.told.append(about["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.told.append(about["args"])
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.told.append(about["entry"])
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:")):
            self.told.append(about["request"]["url"])
        self._events.append(method)

    def order(self, method, patience=120, **params):
        """Give an order of the DevTools protocol and return the answer."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": params}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._in, json.dumps(order).encode() + b"\0")
        while True:
            message = self._message(patience)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._hear(message)

    def open(self, path):
        """Open a file and wait until it is loaded."""
        self._events.clear()
        self.order("Page.navigate", url=Path(path).absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._hear(self._message(120))

    def ask(self, expression):
        """Return what a JavaScript expression gives."""
        answer = self.order("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key):
        """Press and let go a key where the focus is."""
        codes = {"Enter": (13, "\r"), " ": (32, " "), "Tab": (9, "")}
        code, text = codes[key]
        name = "Space" if key == " " else key
        about = {"key": key, "code": name, "windowsVirtualKeyCode": code}
        self.order("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.order("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, expression):
        """Click in the middle of an element."""
        self.ask(f"({expression}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.ask(
            f"(() => {{ const b = ({expression}).getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }})()"
        )
        where = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.order("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def dark(self, on):
        """Have the page think that the reader prefers a dark scheme, or a light one."""
        value = "dark" if on else "light"
        self.order("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def size(self, width, height):
        """Set the size of the window."""
        self.order("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def shot(self, path, whole=True):
        """Write a picture of the page."""
        answer = self.order("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        Path(path).write_bytes(base64.b64decode(answer["data"]))


def open_report(page, profile, said):
    """Open a tile's report as a reader does: it says that first, nothing fails, images are there, every table sorts."""
    tables = "[...document.querySelectorAll('table.sortable')]"
    with Browser(profile) as browser:
        browser.open(page)
        assert browser.told == []
        assert browser.ask("document.images.length") > 10
        assert browser.ask("[...document.images].filter((one) => !one.naturalWidth).length") == 0
        assert said in browser.ask("document.querySelector('.lead').textContent")
        count = browser.ask(f"{tables}.length")
        assert count > 10
        browser.ask(f"{tables}.forEach((one) => one.querySelector('th button').click())")
        heads = browser.ask(f"{tables}.map((one) => one.querySelector('th').getAttribute('aria-sort'))")
        assert heads == ["ascending"] * count
        assert browser.told == []
