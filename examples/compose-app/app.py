"""A small application beside TensorFlow Serving: it asks each model by a label, and never by a version.

POST /MODEL with a JSON list of inputs, and ?label=canary for another label than `stable`. It answers with the
predictions, or with the server's own reason. Only Python's own library is used.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SERVING = os.environ.get("SERVING", "http://serving:8501")
LABEL = os.environ.get("LABEL", "stable")
PORT = 8000
SECONDS = 10
"""How long one answer may take."""


def ask(model: str, label: str, instances: Any) -> tuple[int, Any]:
    """Return the HTTP status and the answer of the version that has this label now."""
    model, label = urllib.parse.quote(model, safe=""), urllib.parse.quote(label, safe="")
    request = urllib.request.Request(  # noqa: S310 - SERVING says http
        f"{SERVING}/v1/models/{model}/labels/{label}:predict",
        data=json.dumps({"instances": instances}).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310 # nosec B310
            return 200, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)
    except OSError as error:
        return 503, {"error": f"no answer from {SERVING}: {error}"}


class Handler(BaseHTTPRequestHandler):
    """One request of a client."""

    def do_POST(self) -> None:
        """Pass the inputs to the model that the path names."""
        url = urllib.parse.urlsplit(self.path)
        label = urllib.parse.parse_qs(url.query).get("label", [LABEL])[0]
        model = urllib.parse.unquote(url.path.removeprefix("/"))
        try:
            instances = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        except ValueError as error:
            self.reply(400, {"error": f"the body is not JSON: {error}"})
            return
        status, answer = ask(model, label, instances)
        self.reply(status, {"model": model, "label": label, **answer})

    def reply(self, status: int, answer: Any) -> None:
        """Send JSON."""
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
