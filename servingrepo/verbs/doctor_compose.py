"""Compose files, as `doctor` reads them: services that run TensorFlow Serving, and what is wrong there.

Nothing is run. Files are read beside the compose file and below its directory, and nowhere else. What cannot be
resolved is listed as not checked.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.modelconfig.paths import LABELS_FLAG, START_FLAGS
from servingrepo.savedmodel.reading import Unreadable, files_of, read_bounded
from servingrepo.servers.engines.server_versions import server_of_image
from servingrepo.verbs.doctor_rules import Finding, found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.servers.engines.server_versions import ExpectedServer

__all__ = ["Compose", "Mount", "Service", "judge_service", "local_path", "read_compose"]

_LONGEST = 256 << 10
_DEEPEST_EXTENDS = 8
_MOST_FILES = 50
_DEEPEST_DEFAULT = 8
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_SIMPLE = re.compile(rf"\$(?:(?P<escaped>\$)|(?P<named>{_NAME})|(?P<braced>\{{))")
_BRACED = re.compile(rf"(?P<name>{_NAME})(?:(?P<how>:?[-?+])(?P<other>.*))?", re.DOTALL)
_SERVER = "tensorflow_model_server"
_IMAGE_SCRIPT = "tf_serving_entrypoint"
_IMAGE = re.compile(r"(?:^|[/_-])(?:tensorflow[/_-]serving|tf-?serving)", re.IGNORECASE)
_FLAG = re.compile(r"--(?P<name>[a-z_]+)(?:=(?P<value>.*))?", re.DOTALL)
_OURS = re.compile(r"--(?:model_config_file|model_base_path|model_name|rest_api_port)\b")
_NEEDS_VALUE = frozenset(
    {
        *("port", "rest_api_port", "model_name", "model_base_path", "model_config_file"),
        *("model_config_file_poll_wait_seconds", "file_system_poll_wait_seconds"),
        *("max_num_load_retries", "num_load_threads", "load_retry_interval_micros"),
        *("batching_parameters_file", "monitoring_config_file", "platform_config_file"),
    }
)
_FETCHERS = re.compile(r"(?<![\w-])(?P<name>curl|wget)(?![\w-])")
_OPEN = "\0"
_OF_IMAGE = {"MODEL_NAME": "model_name", "MODEL_BASE_PATH": "model_base_path"}
"""The variables of which the image's entrypoint makes flags."""
_NUMERIC_USER = re.compile(r"(?P<uid>\d+)(?::(?P<gid>\d+))?")
_DEFAULT_RETRIES = 5


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A directory or file of this machine in a container. Without a `source` it is not known, and `why` says so."""

    target: str
    source: str = ""
    why: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service that runs TensorFlow Serving, as far as its file says how.

    Attributes:
        name: Its name.
        file: The compose file.
        image: Its image; empty if it is not known.
        flags: The server's flags by name. Of several of one name the last counts, as for the server.
        broken_flags: Flags that are written without `=`.
        unknown_flags: Flags whose values are not known here; `*` if any flag may be given.
        entrypoint: Whether it has an entrypoint of its own.
        environment: The variables that the image's entrypoint reads.
        mounts: What it mounts.
        init: Whether it has an init process; None if that cannot be resolved.
        health: The words of its health check.
        user: User and group ids; None if they are not known. The published image runs as root.
        unresolved: What could not be resolved, a line each.
    """

    name: str
    file: str
    image: str = ""
    flags: Mapping[str, str] = {}
    broken_flags: tuple[str, ...] = ()
    unknown_flags: frozenset[str] = frozenset()
    entrypoint: bool = False
    environment: Mapping[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    init: bool | None = False
    health: tuple[str, ...] = ()
    user: tuple[int, int] | None = None
    unresolved: tuple[str, ...] = ()

    def lacks(self, flag: str) -> bool:
        """Tell whether the server is started without a flag for sure."""
        return flag not in self.flags and self.unknown_flags.isdisjoint({flag, "*"})

    @property
    def config(self) -> str:
        """The config file as the server sees it; empty without one."""
        return self.flags.get("model_config_file", "")

    @property
    def says_what_it_serves(self) -> bool:
        """Whether its config, or its only model, is known."""
        of_image = self.unknown_flags.isdisjoint(_OF_IMAGE.values())
        return bool(self.config) or (self.lacks("model_config_file") and of_image)

    @property
    def only_model(self) -> tuple[str, str]:
        """Name and base path of the one model of a server without a config file (tools/docker/Dockerfile)."""
        name = self.environment.get("MODEL_NAME") or "model"
        base = self.environment.get("MODEL_BASE_PATH") or "/models"
        if self.entrypoint:  # the image's script, which makes flags of the variables, does not run
            return self.flags.get("model_name", "default"), self.flags.get("model_base_path", "")
        return (
            self.flags.get("model_name", name),
            self.flags.get("model_base_path", f"{base}/{name}"),
        )

    @property
    def expected(self) -> ExpectedServer:
        """The server in its image."""
        return server_of_image(self.image)

    @property
    def published(self) -> bool:
        """Whether its image is TensorFlow's own, for CPUs or GPUs."""
        return is_published(self.image)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What is not known of its image, a line each."""
        lines = []
        if not self.published:
            lines.append(f"{self}: what its image {self.image!r} brings: an init, curl, a user")
        if self.expected.version is None:
            lines.append(
                f"{self}: whether exports are newer than the server, as {self.image!r} names no version"
            )
        return tuple(lines)

    def __str__(self) -> str:
        """Return its name with its file's."""
        return f"{self.file}: service {self.name}"


def is_published(image: str) -> bool:
    """Tell whether an image is TensorFlow's own."""
    plain = image.partition("@")[0].removeprefix("docker.io/")
    return "tensorflow/serving" in {plain, plain.rpartition(":")[0]}


class Compose(msgspec.Struct, frozen=True, kw_only=True):
    """Services of a compose file that run TensorFlow Serving, and what is wrong or unread in the file."""

    services: tuple[Service, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()


class _Unknown(Exception):
    """A variable has no value here; the message is its name."""


class _Files:
    """The compose files of one directory, each read once, and the variables for them."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        self._file = file.absolute()
        self.directory = self._file.parent
        self._found = files_of(self.directory)
        self._read: dict[str, Any] = {}
        self.included: set[str] = set()
        self.variables = {**self._variables(".env"), **environment}
        self.not_checked: list[str] = []

    def load(self, name: str) -> Any:
        """Return the document of a file.

        Raises:
            Unreadable, ValueError: It cannot be read, lies elsewhere, or is no YAML.
        """
        from servingrepo.runs.configuration import load_yaml

        if name not in self._read:
            data = (
                read_bounded(self._file, limit=_LONGEST)  # the user named it
                if name == self._file.name
                else self._found.read(name, limit=_LONGEST)
            )
            document = load_yaml(data)
            self._read[name] = document if isinstance(document, dict) else {}
        return self._read[name]

    def _variables(self, name: str) -> dict[str, str]:
        try:
            text = self._found.read(name, limit=_LONGEST).decode(errors="replace")
        except Unreadable:
            return {}
        values: dict[str, str] = {}
        for line in text.splitlines():
            key, sign, value = line.strip().removeprefix("export ").partition("=")
            if not sign or not re.fullmatch(_NAME, key.strip()):
                continue
            value = value.strip()
            if value[:1] in {"'", '"'} and value[0] in value[1:]:
                value = value[1 : value.index(value[0], 1)]
            else:
                value = re.split(r"\s#", value, maxsplit=1)[0].strip()
            if "$" not in value:  # Compose would replace variables in it
                values[key.strip()] = value
        return values


def read_compose(file: Path, environment: Mapping[str, str]) -> Compose:
    """Read the services of a compose file that run TensorFlow Serving.

    Args:
        file: The file.
        environment: Variables that come before those of the `.env` beside it.
    """
    files = _Files(file, environment)
    services: list[Service] = []
    try:
        every = dict(_services(files, file.name))
    except (Unreadable, ValueError) as why:
        return Compose(
            findings=(found("compose-unreadable", f"it cannot be read: {why}", path=file),)
        )
    if not every:
        return Compose(findings=(found("compose-unreadable", "it has no services", path=file),))
    for name, (where, raw, volumes) in every.items():
        unresolved: list[str] = []
        whole = _extended(files, where, raw, unresolved)
        if _runs_the_server(files, whole):
            services.append(
                _service(files, str(file), name, whole, volumes=volumes, unresolved=unresolved)
            )
    if not services:
        names = ", ".join(sorted(every)[:10])
        files.not_checked.append(f"{file}: no service runs TensorFlow Serving (there are: {names})")
    return Compose(services=tuple(services), not_checked=tuple(files.not_checked))


def _services(
    files: _Files, name: str
) -> Iterator[tuple[str, tuple[str, dict[str, Any], dict[str, Any]]]]:
    """Yield the services of a file and of those that it includes: by name the file, the text, the file's volumes."""
    document = files.load(name)
    files.included.add(name)
    volumes = _table(document.get("volumes"))
    for one in _items(document.get("include")):
        paths = one.get("path") if isinstance(one, dict) else one
        for path in _items(paths) or [paths]:
            other = _beside(name, str(path))
            if other in files.included:
                continue
            if len(files.included) >= _MOST_FILES:
                files.not_checked.append(f"{other}: more than {_MOST_FILES} files are included")
                continue
            try:
                yield from _services(files, other)
            except (Unreadable, ValueError) as why:
                files.not_checked.append(f"{path}, which {name} includes: {why}")
    for key, raw in _table(document.get("services")).items():
        if isinstance(raw, dict):
            yield str(key), (name, raw, volumes)


def _table(value: Any) -> dict[Any, Any]:
    """Return a mapping; an empty one for a value of another type."""
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    """Return a list; an empty one for a value of another type."""
    return value if isinstance(value, list) else []


def _beside(name: str, path: str) -> str:
    """Return a path that a file names, from the directory of the first file."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _extended(
    files: _Files, where: str, raw: dict[str, Any], unresolved: list[str], depth: int = 0
) -> dict[str, Any]:
    """Return a service with that which it extends beneath it; paths are relative to the first file's directory."""
    own = _with_places(raw, posixpath.dirname(where))
    extends = raw.get("extends")
    if extends is None:
        return own
    named = {"service": extends} if isinstance(extends, str) else _table(extends)
    other = _beside(where, str(named["file"])) if named.get("file") else where
    try:
        if depth >= _DEEPEST_EXTENDS:
            raise ValueError("services extend one another too deeply")
        base = _table(files.load(other).get("services")).get(str(named.get("service")))
        if not isinstance(base, dict):
            raise ValueError(f"there is no service {named.get('service')}")  # noqa: TRY004
    except (Unreadable, ValueError) as why:
        unresolved.append(f"what it extends, in {other}: {why}")
        return own
    under = _extended(files, other, base, unresolved, depth + 1)
    whole = {**under, **own}
    whole["environment"] = {**_pairs(under.get("environment")), **_pairs(own.get("environment"))}
    whole["volumes"] = [*under["volumes"], *own["volumes"]]
    return whole


def _with_places(raw: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return a service whose volumes say in which folder their relative paths begin."""
    return {**raw, "volumes": [(folder, one) for one in _items(raw.get("volumes"))]}


def _pairs(value: Any) -> dict[str, Any]:
    """Return variables that are written as a mapping or as a list of NAME=VALUE."""
    if isinstance(value, dict):
        return {str(key): one for key, one in value.items()}
    pairs = (str(one).partition("=") for one in _items(value))
    return {key: text if sign else None for key, sign, text in pairs}


def _runs_the_server(files: _Files, raw: dict[str, Any]) -> bool:
    """Tell whether a service runs TensorFlow Serving, by its image and its command line."""
    image = _resolve(files, raw.get("image")) or ""
    words = " ".join(
        word for key in ("command", "entrypoint") for word in _words(files, raw.get(key))
    )
    return bool(_IMAGE.search(image) or _SERVER in words or _OURS.search(words))


def _service(
    files: _Files,
    file: str,
    name: str,
    raw: dict[str, Any],
    *,
    volumes: dict[str, Any],
    unresolved: list[str],
) -> Service:
    """Return a service as a value; what cannot be resolved goes to `unresolved`."""

    def text(key: str, value: Any) -> str:
        said = _resolve(files, value)
        if said is None:
            unresolved.append(f"{key}: a variable in {value!r} has no value here")
        return said or ""

    words = [word for key in ("entrypoint", "command") for word in _words(files, raw.get(key))]
    flags, broken, unknown_flags = _flags(words)
    for one in sorted(unknown_flags):
        what = f"--{one}" if one != "*" else "its command"
        unresolved.append(f"{what}: a variable has no value here")
    if raw.get("entrypoint") and not _starts_the_server(words):
        unresolved.append(f"its flags: {' '.join(words[:3])} starts the server")
        unknown_flags |= {"*"}
    environment, open_flags = _of_image(files, raw, unresolved)
    init = raw.get("init", False)
    image = text("image", raw.get("image", ""))
    user = (0, 0) if is_published(image) else None
    if raw.get("user") is not None:
        said = text("user", str(raw["user"]))
        match = _NUMERIC_USER.fullmatch("0" if said == "root" else said)
        user = (int(match["uid"]), int(match["gid"] or 0)) if match is not None else None
        if user is None and said:
            unresolved.append(f"user: the ids of {said} are not known here")
    mounts = [one for each in raw["volumes"] for one in _mount(files, each, volumes)]
    health = _table(raw.get("healthcheck"))
    test = None if health.get("disable") else health.get("test")
    return Service(
        name=name,
        file=file,
        image=image,
        flags=flags,
        broken_flags=broken,
        entrypoint=raw.get("entrypoint") is not None,
        environment=environment,
        mounts=(*mounts, *_configs(files, raw.get("configs"))),
        init=init if isinstance(init, bool) else None,
        unknown_flags=unknown_flags | open_flags,
        health=tuple(_words(files, test)),
        user=user,
        unresolved=tuple(dict.fromkeys(unresolved)),
    )


def _starts_the_server(words: Sequence[str]) -> bool:
    """Tell whether a command line is the server's or that of its image, and not a script of the user's."""
    line = " ".join(words)
    return _SERVER in line or _IMAGE_SCRIPT in line or _OURS.search(line) is not None


def _of_image(
    files: _Files, raw: dict[str, Any], unresolved: list[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the variables of which the image's entrypoint makes flags, and the flags that are not known for it."""
    variables = _pairs(raw.get("environment"))
    environment: dict[str, str] = {}
    unknown: set[str] = set()
    for key, flag in _OF_IMAGE.items():
        value = variables.get(key)
        said = files.variables.get(key) if key in variables and value is None else value
        resolved = _resolve(files, said)
        if resolved is not None:
            environment[key] = resolved
        elif said is not None:
            unresolved.append(f"environment {key}: a variable in {said!r} has no value here")
        if resolved is None and (said is not None or raw.get("env_file")):
            unknown.add(flag)
    if raw.get("env_file"):
        unresolved.append("env_file: it was not read")
    return environment, frozenset(unknown)


def _words(files: _Files, value: Any) -> list[str]:
    """Return the words of a command line that is a text or a list; those of a shell's script one by one too.

    A word, or the value of a flag, that has a variable without a value here ends in NUL.
    """
    if value is None:
        return []
    raw: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        text = str(one)
        if isinstance(value, list) and _SERVER not in text:
            raw.append(text)
            continue
        try:
            raw += shlex.split(text)
        except ValueError:
            raw += text.split()
    return [
        said if (said := _resolve(files, one)) is not None else f"{one.partition('$')[0]}{_OPEN}"
        for one in raw
    ]


def _flags(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...], frozenset[str]]:
    """Return the server's flags, those that lack their value (command_line_flags.cc), and those that are not known.

    A word that is not known at all may be any flag: `*`.
    """
    flags: dict[str, str] = {}
    broken: list[str] = []
    unknown: set[str] = set()
    for word, after in zip(words, [*words[1:], ""], strict=False):
        match = _FLAG.fullmatch(word)
        if match is None:
            unknown |= {"*"} if word.endswith(_OPEN) else set()
        elif match["value"] is None and match["name"] in _NEEDS_VALUE:
            broken.append(f"{word} {after}".strip())
        else:
            value = "true" if match["value"] is None else match["value"]
            flags.pop(match["name"], None)
            if value.endswith(_OPEN):
                unknown.add(match["name"])
            else:
                flags[match["name"]] = value
    return flags, tuple(broken), frozenset(unknown - flags.keys())


# Volumes ------------------------------------------------------------------------------------------


def _mount(files: _Files, placed: tuple[str, Any], volumes: dict[str, Any]) -> Iterator[Mount]:
    """Yield the mount of one entry of `volumes`, in the short or the long form.

    One whose target is not known here may be anywhere: its target is empty.
    """
    folder, raw = placed
    if isinstance(raw, dict):
        kind = raw.get("type", "volume")
        source, target = (_resolve(files, raw.get(one)) for one in ("source", "target"))
    else:
        parts = _split(str(raw))
        if len(parts) == 1:
            yield Mount(target=_plain(str(raw)), why="a volume that Docker manages")
            return
        source, target = (_resolve(files, one) for one in parts[:2])
        kind = "volume" if source and source[0] not in "./~" else "bind"
    open_ = f"the volume {raw!r} has a variable without a value here"
    if target is None or (kind == "bind" and source is None):
        files.not_checked.append(open_)
    if target is None:
        yield Mount(target="", why=open_)
    elif kind == "bind" and source:
        path = os.path.expanduser(source)  # noqa: PTH111 - Path's raises an error for an unknown user
        place = os.path.normpath(files.directory / folder / path)
        yield Mount(target=_plain(target), source=place)
    elif kind == "bind":
        yield Mount(target=_plain(target), why=open_)
    elif kind == "volume":
        yield _volume(files, str(source or ""), _plain(target), volumes)


def _split(text: str) -> list[str]:
    """Split the short form of a volume at its colons, but not at those in a variable's braces."""
    parts, depth = [""], 0
    for one in text:
        depth += {"{": 1, "}": -1}.get(one, 0)
        if one == ":" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += one
    return parts


def _volume(files: _Files, name: str, target: str, volumes: dict[str, Any]) -> Mount:
    """Return the mount of a named volume; one whose driver binds a directory is that directory."""
    options = _table(_table(volumes.get(name)).get("driver_opts"))
    if "bind" in str(options.get("o", "")).split(","):
        device = _resolve(files, options.get("device"))
        if device:
            return Mount(target=target, source=os.path.normpath(files.directory / device))
    return Mount(target=target, why=f"the volume {name} is managed by Docker")


def _configs(files: _Files, value: Any) -> Iterator[Mount]:
    """Yield the mounts of `configs`, each a single file."""
    for one in _items(value):
        name = one.get("source") if isinstance(one, dict) else one
        target = _resolve(files, one.get("target")) if isinstance(one, dict) else None
        yield Mount(target=_plain(target or f"/{name}"), why=f"the config {name} of Compose")


def _plain(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))


def local_path(mounts: Sequence[Mount], path: str) -> tuple[Mount | None, Path | None]:
    """Return the mount that a server's path is below, and the path on this machine if the source is known."""
    plain = _plain(path.removeprefix("file://"))
    holding = [
        one
        for one in mounts
        if plain == one.target or plain.startswith(f"{one.target.rstrip('/')}/")
    ]
    if not holding:
        return None, None
    nearest = max(holding, key=lambda one: len(one.target))
    if not nearest.source:
        return nearest, None
    return nearest, Path(nearest.source) / posixpath.relpath(plain, nearest.target)


# Variables ----------------------------------------------------------------------------------------


def _resolve(files: _Files, value: Any) -> str | None:
    """Return a value with its variables replaced as Compose does; None if one has no value here."""
    if value is None:
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return _interpolated(text, files.variables, 0)
    except _Unknown:
        return None


def _interpolated(text: str, variables: Mapping[str, str], depth: int) -> str:
    """Replace $NAME, ${NAME}, ${NAME:-default} and the like (docs.docker.com, interpolation).

    Raises:
        _Unknown: A variable has no value.
    """
    if depth > _DEEPEST_DEFAULT:
        raise _Unknown
    said, at = [], 0
    while match := _SIMPLE.search(text, at):
        said.append(text[at : match.start()])
        at = match.end()
        if match["escaped"]:
            said.append("$")
        elif match["named"]:
            if match["named"] not in variables:
                raise _Unknown(match["named"])
            said.append(variables[match["named"]])
        else:
            end = _closing(text, at)
            said.append(_braced(text[at:end], variables, depth))
            at = end + 1
    return "".join(said) + text[at:]


def _closing(text: str, at: int) -> int:
    """Return where the brace that was opened before `at` is closed.

    Raises:
        _Unknown: Nowhere.
    """
    depth = 1
    for place in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return place
    raise _Unknown


def _braced(inner: str, variables: Mapping[str, str], depth: int) -> str:
    match = _BRACED.fullmatch(inner)
    if match is None:
        raise _Unknown(inner)
    value, how, other = variables.get(match["name"]), match["how"] or "", match["other"] or ""
    there = bool(value) if how.startswith(":") else value is not None
    if how.endswith("+"):
        return _interpolated(other, variables, depth + 1) if there else ""
    if there and value is not None:
        return value
    if how.endswith("-"):
        return _interpolated(other, variables, depth + 1)
    raise _Unknown(match["name"])


# Judgement ----------------------------------------------------------------------------------------


def judge_service(service: Service) -> Iterator[Finding]:
    """Yield what is wrong with how a service starts the server, whatever models it serves."""
    where = str(service)
    for one in service.broken_flags:
        fixed = one.replace(" ", "=", 1)
        yield found(
            "flag-without-equals", f"it is started with {one}", f"write {fixed}", path=where
        )
    command = next((one for one in service.health if _FETCHERS.search(one)), "")
    match = _FETCHERS.search(command)
    if match is not None and service.published and "gpu" not in service.image:
        yield found(
            "health-check-without-curl",
            f"its health check calls {match['name']}, and {service.image} has none",
            _check_with_bash(service),
            path=where,
        )
    if service.init is False and (service.published or service.entrypoint):
        yield found("no-init", "it has no init", path=where)
    try:
        retries = int(service.flags.get("max_num_load_retries", _DEFAULT_RETRIES))
    except ValueError:
        retries = _DEFAULT_RETRIES
    asked = "max_num_load_retries" in service.flags or service.lacks("max_num_load_retries")
    if retries > 0 and asked and service.lacks("load_retry_interval_micros"):
        yield found(
            "default-retries",
            f"it tries a version that does not load {retries + 1} times, a minute apart",
            f"add to its command: {' '.join(START_FLAGS[1:])}",
            path=where,
        )
    if not service.config:
        return
    beside = [f"--{one}" for one in ("model_name", "model_base_path") if one in service.flags]
    beside += [one for one in ("MODEL_NAME", "MODEL_BASE_PATH") if one in service.environment]
    if beside:
        yield found(
            "model-name-ignored",
            f"{', '.join(beside)} beside --model_config_file={service.config}",
            f"remove {', '.join(beside)}",
            path=where,
        )
    mount, _ = local_path(service.mounts, service.config)
    if mount is not None and mount.target == _plain(service.config):
        folder = posixpath.dirname(mount.target)
        source = f"{posixpath.dirname(mount.source)}:{folder}" if mount.source else f"DIR:{folder}"
        yield found(
            "config-mounted-alone",
            f"{mount.source or mount.why} is mounted as {mount.target}",
            f"mount the directory that holds it: {source}",
            path=where,
        )


def labels_allowed(service: Service) -> bool:
    """Tell whether a server of this service starts with a config that has labels."""
    name, _, value = LABELS_FLAG.removeprefix("--").partition("=")
    return service.flags.get(name) == value if name in service.flags else not service.lacks(name)


def _check_with_bash(service: Service) -> str:
    """Return a health check that needs bash alone."""
    port = service.flags.get("rest_api_port", "8501")
    return (
        f'test: ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/{port}"];'
        " the port opens when all models are loaded (compose/healthcheck.sh of servingrepo asks for each version)"
    )
