"""Daemons reached by ssh: one connection that carries the daemon's socket and the ports of containers.

The ssh program of this machine does it, with the user's own configuration, keys and known hosts; the SDK's own
way needs another library and forwards no ports. Nothing here knows of Docker but the name of its socket.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from servingrepo.errors import EngineUnavailable, ServerTimeout
from servingrepo.servers.sockets import server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.deadline import Deadline

__all__ = ["Tunnel", "open_tunnel"]

_SOCKET = "/var/run/docker.sock"
_UNSAFE = re.compile(r"^-|[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}]")
"""What no user and no host may begin with, or have in it.

ssh would take the one for an option (-oProxyCommand=… runs a command), and hand the others to a shell where its
configuration has a ProxyCommand or Match exec; OpenSSH refuses these itself since 9.6.
"""
_PREFIX = "servingrepo-ssh-"
_FORWARD_SECONDS = 15.0
_END_SECONDS = 2.0


class Tunnel:
    """An open ssh connection; `url` is the daemon's socket as it is seen here."""

    def __init__(self, *, url: str, control: Path, target: list[str]) -> None:
        self.url = url
        self._control = control
        self._target = target
        self._forwarded: set[int] = set()

    def forward(self, port: int) -> Path:
        """Return a socket here, for nobody but us, that leads to a loopback port there.

        Raises:
            EngineUnavailable: The other side does not allow it.
        """
        here = self._control.with_name(str(port))
        if port not in self._forwarded:
            wanted = f"{here}:127.0.0.1:{port}"
            command = ["ssh", "-S", str(self._control), "-O", "forward", "-L", wanted]
            done = subprocess.run(  # nosec B603 # as below
                [*command, *self._target],
                capture_output=True,
                text=True,
                timeout=_FORWARD_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise EngineUnavailable(
                    f"ssh does not forward port {port} of {self._target[-1]}: {done.stderr.strip()}",
                    hint="allow TCP forwarding in its sshd_config",
                )
            self._forwarded.add(port)
        return here


@contextmanager
def open_tunnel(url: str, *, deadline: Deadline) -> Iterator[Tunnel]:
    """Connect to the host of ssh://USER@HOST:PORT, for the block; a path names another socket there.

    The connection ends with the block, and with this process however it ends: its command reads from us.

    Raises:
        EngineUnavailable: There is no ssh program, or it cannot log in without asking.
        ServerTimeout: The host does not answer.
    """
    if shutil.which("ssh") is None:
        raise EngineUnavailable(
            f"{url} needs the ssh program, and there is none", hint="install openssh-client"
        )
    parts = urlsplit(url)
    target = _target(parts, url)
    remote = parts.path if parts.path.strip("/") else _SOCKET
    with server_folder(_PREFIX) as folder:
        control, here, said = folder / "c", folder / "d", folder / "said"
        options = {
            "BatchMode": "yes",  # nobody is there to answer questions
            "ConnectTimeout": str(max(1, int(deadline.left))),
            "ControlMaster": "yes",
            "ControlPath": str(control),
            "ControlPersist": "no",
            "ExitOnForwardFailure": "yes",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        with said.open("wb") as errors:
            process = subprocess.Popen(  # nosec B603 B607 # the user's ssh; `_target` refuses options
                ["ssh", "-T", *settings, "-L", f"{here}:{remote}", *target, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C goes to the whole foreground group; we still have a container to remove then.
                start_new_session=True,
            )
        try:
            _wait(process, here, said, url, deadline)
            yield Tunnel(url=f"unix://{here}", control=control, target=target)
        finally:
            _end(process)


def _target(parts: SplitResult, url: str) -> list[str]:
    """Return the arguments of ssh that say where to; behind `--` nothing is an option.

    Raises:
        EngineUnavailable: The URL names no host that there can be.
    """
    try:
        host, user, port = parts.hostname or "", parts.username or "", parts.port
    except ValueError as error:
        raise _refused(url, str(error)) from None
    if not host:
        raise _refused(url, "it names no host")
    for what, name in (("user", user), ("host", host)):
        if _UNSAFE.search(name) or _UNSAFE.search(unquote(name)):
            raise _refused(url, f"{name!r} can be no {what}'s name")
    where = f"{user}@{host}" if user else host
    return [*(["-p", str(port)] if port else []), "--", where]


def _refused(url: str, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"the Docker daemon at {url!r} cannot be reached: {why}",
        hint="DOCKER_HOST, or the docker context in use, says so: give ssh://USER@HOST, or HOST as ssh's own "
        "configuration has it",
    )


def _wait(
    process: subprocess.Popen[bytes], here: Path, said: Path, url: str, deadline: Deadline
) -> None:
    """Wait until ssh listens for us, which it does once it has logged in."""
    while not here.exists():
        if process.poll() is not None:
            text = said.read_text(errors="replace").strip()
            raise EngineUnavailable(
                f"ssh cannot log in for {url}: {text}",
                hint="try the same host with ssh -o BatchMode=yes; keys and known hosts are ssh's own",
            )
        if deadline.passed:
            raise ServerTimeout(
                f"{url} did not answer within {deadline.seconds:.3g} s", hint="is the host up?"
            )
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
