"""Headless Chromium, driven by the DevTools protocol over a pipe: no driver, no port, no download.

https://chromedevtools.github.io/devtools-protocol/: with --remote-debugging-pipe the browser reads commands from its
descriptor 3 and writes answers and events to 4, each of them JSON that ends with a NUL.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60.0
"""Seconds for an answer: a busy machine starts a browser slowly."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class BrowserFailed(Exception):
    """The browser said no, or nothing."""


@dataclass
class Browser:
    """A running browser. `events` are those that nobody has taken yet."""

    commands: int
    answers: int
    events: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    rest: bytes = b""

    def ask(self, method: str, *, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while True:
            found = self.read()
            if found.get("id") == self.number:
                if "error" in found:
                    raise BrowserFailed(f"{method}: {found['error']}")
                answer: dict[str, Any] = found["result"]
                return answer
            self.events.append(found)

    def read(self) -> dict[str, Any]:
        """Return the next answer or event."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            if not select.select([self.answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BrowserFailed("the browser says nothing")
            data = os.read(self.answers, 1 << 16)
            if not data:
                raise BrowserFailed("the browser has ended")
            self.rest += data
        one, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(one)
        return found

    def page(self, *, width: int = 1200, dark: bool = False) -> Page:
        """Open an empty page of some width, in light or dark."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.resize(width)
        page.colours(dark=dark)
        return page


@dataclass
class Page:
    """A page of a browser."""

    browser: Browser
    session: str

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self.browser.ask(method, session=self.session, **parameters)

    def resize(self, width: int, height: int = 900) -> Self:
        """Give the window another size."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        return self

    def colours(self, *, dark: bool) -> Self:
        """Say what the user prefers."""
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[wanted])
        return self

    def open(self, file: Path) -> Self:
        """Open a file, and wait until it is loaded."""
        self.browser.events.clear()
        self.ask("Page.navigate", url=file.as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self.browser.events):
            self.browser.events.append(self.browser.read())
        return self

    def run(self, expression: str) -> Any:
        """Return the value of an expression in the page, or of the promise that it is."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise BrowserFailed(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_until_drawn(self) -> None:
        """Wait until the page has heard of a new size or colour, and has drawn itself."""
        self.ask("Page.bringToFront")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key: its name, its number, and what it writes."""
        more = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **more,
            )

    def write(self, text: str) -> None:
        """Type a text."""
        self.ask("Input.insertText", text=text)

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """Return the parameters of the events that came so far."""
        self.run("1")  # events of before its answer have come then
        return [
            one["params"]
            for one in self.browser.events
            if one.get("sessionId") == self.session and one["method"] in methods
        ]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the page: those of its console, its scripts and the browser."""
        return [
            json.dumps(one)
            for one in self.events(
                "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"
            )
        ]

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        return [one["request"]["url"] for one in self.events("Network.requestWillBeSent")]


@contextmanager
def browser() -> Iterator[Browser]:
    """Have a browser for the block, with an empty profile."""
    from_us, to_us = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(
        prefix="servingrepo-browser-", ignore_cleanup_errors=True
    ) as home:
        words = ["chromium", *OPTIONS, f"--user-data-dir={home}", "about:blank"]
        moved = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'
        process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *words],
            pass_fds=(from_us[0], to_us[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
            start_new_session=True,
        )
        os.close(from_us[0])
        os.close(to_us[1])
        try:
            yield Browser(from_us[1], to_us[0])
        finally:
            os.close(from_us[1])  # the browser ends when its pipe does
            os.close(to_us[0])
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
