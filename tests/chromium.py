"""A Chromium without a window, driven over its own debugging protocol: for tests, and for screenshots.

`websockets` comes with Prefect, so nothing is installed for it. The browser resolves no host name; what a
page asks for all the same stands in `Page.requests`.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
"""The program; None where there is none on the path."""
PATIENCE_SECONDS = 180.0
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--force-color-profile=srgb",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, " ": 32}


@dataclass
class Page:
    """One tab."""

    wire: ClientConnection
    requests: list[str] = field(default_factory=list)
    """Addresses asked for since the tab was opened, in order."""
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts and of the browser."""
    _last: int = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer; RuntimeError when it is refused."""
        self._last += 1
        self.wire.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.wire.recv(timeout=PATIENCE_SECONDS))
            if told.get("id") == self._last:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                answer: dict[str, Any] = told["result"]
                return answer
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        found = told.get("params", {})
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(found["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.complaints.append(found["entry"]["text"])

    def look(
        self, *, width: int, height: int = 900, dark: bool = False, media: str = "", scale: float = 1.0
    ) -> None:
        """What the page is shown on: CSS pixels, colour scheme, `print` or a screen."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def open(self, address: str, *, scripts: bool = True, ready: str = "true") -> None:
        """Go there and wait until it is loaded and `ready` is true; TimeoutError when it never is."""
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.send("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && ({ready})")

    def wait(self, condition: str) -> None:
        """Until a condition in JavaScript is true; TimeoutError with it when it never is."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {PATIENCE_SECONDS:.0f} s: {condition}")
            time.sleep(0.1)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, promises awaited; RuntimeError when it throws."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"])[:2000])
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """One key, down and up."""
        held: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        if key == "Enter":
            held["text"] = "\r"
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **held)

    def picture(self, *, whole: bool = False) -> bytes:
        """PNG of what is seen, or of the whole page."""
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(told["data"])

    def paper(self) -> bytes:
        """The page as PDF on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        told = self.send("Page.printToPDF", **size)
        return base64.b64decode(told["data"])


@contextmanager
def browser(*options: str, offline: bool = True) -> Iterator[Page]:
    """A browser with one empty tab, ended afterwards; `offline` ones know no host names."""
    assert CHROMIUM is not None, "no Chromium on the path"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        nowhere = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"] if offline else []
        command = [CHROMIUM, *OPTIONS, *nowhere, *options, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                with connect(_tab(Path(profile), process), max_size=None) as wire:
                    page = Page(wire)
                    for domain in ("Page", "Network", "Runtime", "Log"):
                        page.send(f"{domain}.enable")
                    yield page
            finally:
                process.terminate()
                process.wait(30)


def _tab(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Address of the first tab's socket, as soon as the browser has one."""
    told, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE_SECONDS
    while not (told.exists() and "\n" in told.read_text()):
        if process.poll() is not None or time.monotonic() > end:
            raise TimeoutError("the browser did not start")
        time.sleep(0.1)
    port = told.read_text().splitlines()[0]
    tabs = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS).json()
    address: str = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return address
