"""compose/healthcheck.sh against a REST port that is played: what it reads, asks and concludes."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.modelconfig import EMPTY, pin, render

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).resolve().parents[2] / "compose" / "healthcheck.sh"

States = dict[str, dict[int, str]]
"""By model and version: a state, and an error code behind it if that matters."""


@contextmanager
def fake_rest(states: States) -> Iterator[int]:
    """Answer for model status as http_rest_api_handler.cc does: int64 as strings, all fields, indented by 1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = states.get(self.path.removeprefix("/v1/models/"))
            body = json.dumps({"error": "Could not find any versions"}, indent=1)
            if found:
                versions = [
                    {
                        "version": str(version),
                        "state": state.split()[0],
                        "status": {"error_code": state.split()[-1], "error_message": ""},
                    }
                    for version, state in sorted(found.items(), reverse=True)
                ]
                body = json.dumps({"model_version_status": versions}, indent=1)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(body.encode() + b"\n")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check(config: Path, port: int) -> tuple[int, str]:
    """Run the script in an environment where it finds no other program."""
    done = subprocess.run(
        ["/bin/bash", SCRIPT],
        env={
            "PATH": "/nowhere",
            "MODEL_CONFIG_FILE": str(config),
            "REST_PORT": str(port),
            "REST_SECONDS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def verdict(tmp_path: Path, config: str, states: States) -> tuple[int, str]:
    """Check a config of this text against a server with these states."""
    file = tmp_path / "models.config"
    file.write_text(config)
    with fake_rest(states) as port:
        return check(file, port)


def pinned(*versions: int, name: str = "m") -> str:
    return render(pin(EMPTY, name=name, base_path=f"/models/{name}", versions=list(versions)))


def test_all_pinned_versions_available_is_healthy(tmp_path: Path) -> None:
    states = {"m": {1: "END", 7: "AVAILABLE", 8: "AVAILABLE", 9: "LOADING"}}
    assert verdict(tmp_path, pinned(7, 8), states) == (0, "")


@pytest.mark.parametrize("state", ["START", "LOADING", "UNLOADING", "END"])
def test_a_pinned_version_in_another_state_is_unhealthy(tmp_path: Path, state: str) -> None:
    states = {"m": {7: "AVAILABLE", 8: state}}
    assert verdict(tmp_path, pinned(7, 8), states) == (1, f"m@8 is {state}")


def test_a_pinned_version_that_the_server_does_not_list_is_unhealthy(tmp_path: Path) -> None:
    # 17 and 70 hold the digits of 7, and are not 7.
    states = {"m": {17: "AVAILABLE", 70: "AVAILABLE"}}
    assert verdict(tmp_path, pinned(7), states) == (1, "m@7 is not loaded")


def test_a_model_that_the_server_does_not_know_is_unhealthy(tmp_path: Path) -> None:
    assert verdict(tmp_path, pinned(7), {}) == (1, "m@7 is not loaded")


def test_every_model_counts_and_everything_missing_is_said(tmp_path: Path) -> None:
    config = render(
        pin(
            pin(EMPTY, name="a.b-c_1", base_path="/models/a", versions=[1]),
            name="b",
            base_path="/models/b",
            versions=[2, 3],
        )
    )
    both = {"a.b-c_1": {1: "AVAILABLE"}, "b": {2: "AVAILABLE", 3: "AVAILABLE"}}
    assert verdict(tmp_path, config, both) == (0, "")
    said = verdict(tmp_path, config, {"b": {2: "END"}})
    assert said == (1, "a.b-c_1@1 is not loaded; b@2 is END; b@3 is not loaded")


def test_an_empty_config_needs_only_a_server(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text(render(EMPTY))
    with fake_rest({}) as port:
        assert check(config, port) == (0, "")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    expected = f"no answer on port {port}: models may be loading"
    assert check(config, port) == (1, expected)


def test_a_server_that_does_not_answer_is_unhealthy_in_time(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text(pinned(1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        expected = f"port {port} did not answer GET /v1/models/m within 1 s"
        assert check(config, port) == (1, expected)


SHAPES = {
    "one line": """
model_config_list{config{name:"m" base_path:"/m" model_version_policy{specific{versions:1 versions:2}}}}
""",
    "other brackets, lists, comments": """
# name: 'x'
model_config_list: <
  config: [ <
      name: 'm' # { {
      model_version_policy: { specific: { versions: [1, 0x2] } }, version_labels { key: 'name' value: 9 }
    >, { name: "n" model_version_policy { specific {} } }
  ]
>""",
    "name last and in pieces, windows lines": """
model_config_list {\r
\tconfig {\r
\tmodel_version_policy { specific { versions: 1; versions: 2 } }\r
 name: "m" "" base_path: "/x{name: 'y\'}" } }""",
    "two lists of one": """
model_config_list { config [ { name: "m" model_version_policy { specific { versions: 1 } } },
  { name: "m" model_version_policy { specific { versions: 2 } } } ] }""",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_text_format_in_all_its_shapes_is_read(tmp_path: Path, shape: str) -> None:
    text = SHAPES[shape]
    both = {"m": {1: "AVAILABLE", 2: "AVAILABLE"}}
    assert verdict(tmp_path, text, both) == (0, "")
    assert verdict(tmp_path, text, {"m": {1: "AVAILABLE"}}) == (1, "m@2 is not loaded")
    assert verdict(tmp_path, text, {"m": {2: "AVAILABLE"}}) == (1, "m@1 is not loaded")


@pytest.mark.parametrize("policy", ["", "latest { num_versions: 2 }", "all {}"])
def test_a_model_without_pins_needs_one_version(tmp_path: Path, policy: str) -> None:
    text = f'model_config_list {{ config {{ name: "m" model_version_policy {{ {policy} }} }} }}'
    assert verdict(tmp_path, text, {"m": {4: "END", 3: "AVAILABLE"}}) == (0, "")
    # UNAVAILABLE is an error code, and not a state of a version that answers.
    states = {"m": {4: "END UNAVAILABLE"}}
    assert verdict(tmp_path, text, states) == (1, "m has no version AVAILABLE")


def test_a_model_that_serves_nothing_needs_nothing(tmp_path: Path) -> None:
    text = 'model_config_list { config { name: "m" model_version_policy { specific {} } } }'
    assert verdict(tmp_path, text, {}) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model_config_list { config { name: "a b" } }', "cannot ask for a model called 'a b'"),
        ('model_config_list { config { name: "m\\x41" } }', "does not read strings with a backslash"),
        ('model_config_list { config { name: "m } }', "a string without an end"),
        ('model_config_list { config { name: "m" }', "a closing bracket is missing"),
        ("model_config_list { } }", "a closing bracket too many"),
        ("model_config_list { ! }", "cannot be read here: ! }"),
        ('model_config_list { config { name: "m" model_version_policy { specific { versions: 1.5 } } } }',
         "no number of a version: 1.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_never_healthy(tmp_path: Path, text: str, said: str) -> None:
    code, out = verdict(tmp_path, text, {"m": {1: "AVAILABLE"}})
    assert code == 1
    assert said in out


def test_a_missing_config_is_unhealthy(tmp_path: Path) -> None:
    missing = tmp_path / "models.config"
    assert check(missing, 1) == (1, f"{missing}: cannot be read")
