"""
A real Chromium without a window, driven by its own protocol over a pair of pipes
(https://chromedevtools.github.io/devtools-protocol/): no port, no driver, no library.
"""

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import time
from typing import Any

# Seconds that Chromium may take for one command; a busy machine takes long to start it.
_PATIENCE = 120


class Chromium:
    """
    One page of a browser; use it in a ``with`` statement.

    folder
        an empty directory for its profile
    requests
        the addresses that it was asked for or asked for itself so far
    told
        what the page wrote to the console, and what the browser complained about
    """

    def __init__(self, folder: pathlib.Path) -> None:
        program = shutil.which("chromium")
        assert program, "Debian's package chromium is missing: bin/test installs it"
        self.requests: list[str] = []
        self.told: list[str] = []
        self._numbers = itertools.count(1)
        self._loaded = False
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        self._left = b""
        # It reads from descriptor 3 and writes to 4. Debian's sh knows no descriptor of two digits.
        script = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                script,
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-pipe",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={folder / 'profile'}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(read, write),
        )
        os.close(read)
        os.close(write)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._left:
            assert time.monotonic() < deadline, "Chromium does not answer"
            piece = os.read(self._from, 1 << 16)
            assert piece, "Chromium has ended"
            self._left += piece
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        told = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif message.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif message.get("method") == "Log.entryAdded":
            self.told.append(told["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.told.append(json.dumps(told["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.told.append(json.dumps(told["exceptionDetails"]))
        elif message.get("method") == "Page.javascriptDialogOpening":
            # The page stands still until somebody answers.
            self.told.append(f"dialog: {told['message']}")
            self._send("Page.handleJavaScriptDialog", {"accept": True})
        return message

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return number

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; returns its result."""
        number = self._send(method, parameters)
        deadline = time.monotonic() + _PATIENCE
        while True:
            message = self._next(deadline)
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE
        while not self._loaded:
            self._next(deadline)

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        x, y = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, words: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=words)

    def key(self, name: str, code: int) -> None:
        """Press a key, such as Tab (9) or Enter (13)."""
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )
