"""Options for connections with TLS or headers, and endpoints that have them.

Headers are often tokens. So they go only to servers that come from the same source as the headers: from the caller or
from the settings file. The command line and the environment are the caller's. So is a settings file that the caller
named, but not a settings file that was found in a directory.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.cli.chosen import BY_HAND
from servingrepo.errors import SettingsError
from servingrepo.options import Option, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.servers.security import Security
    from servingrepo.servers.states import Endpoint


def _pem(meaning: str, env: str) -> Option:
    return Option(
        help=meaning, section="live servers", metavar="FILE", kind="pem", env=env, tables=("top",)
    )


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """TLS and headers for connections to servers."""

    tls: Annotated[
        bool,
        Option(
            help="Use TLS, and trust the well-known authorities.",
            section="live servers",
            env="SERVINGREPO_TLS",
            tables=("top",),
        ),
    ] = False
    tls_ca: Annotated[
        Path | None,
        _pem("Use TLS, and trust the authorities in this PEM file.", "SERVINGREPO_TLS_CA"),
    ] = None
    tls_cert: Annotated[
        Path | None,
        _pem(
            "The client certificate, for servers that ask for one (mTLS).", "SERVINGREPO_TLS_CERT"
        ),
    ] = None
    tls_key: Annotated[
        Path | None, _pem("The private key of --tls-cert.", "SERVINGREPO_TLS_KEY")
    ] = None
    headers: Annotated[
        tuple[tuple[str, str], ...],
        Option(
            help="Metadata to send with every gRPC call, such as authorization=…; repeatable.",
            section="live servers",
            flags="--header",
            metavar="NAME=VALUE",
            kind="header",
            env="SERVINGREPO_HEADER",
            tables=("top",),
        ),
    ] = ()
    insecure_headers: Annotated[
        bool,
        Option(
            help="Allow headers to other machines without TLS, although others on the network can read them.",
            section="live servers",
            flags="--insecure-header",
            env="SERVINGREPO_INSECURE_HEADER",
            tables=("top",),
        ),
    ] = False


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that has the endpoints."""

    environment: Annotated[
        str | None,
        Option(
            help="Take the endpoints of [environments.NAME] in the settings file.",
            section="live servers",
            flags="--env",
            metavar="NAME",
            env="SERVINGREPO_ENV",
            shows=("env",),
        ),
    ] = None


def repeat_connection() -> None:
    """Add the connection options of this command line to the commands to type next."""
    ctx = click.get_current_context()
    app = ctx.ensure_object(App)
    for field in fields_of(Connection):
        if ctx.get_parameter_source(field.key) is ParameterSource.COMMANDLINE:
            flag = next(one.opts[0] for one in ctx.command.params if one.name == field.key)
            app.connection[field.key] = _repeated(flag, ctx.params[field.key])


def _repeated(option: str, value: Any) -> str:
    """Return an option as the caller typed it. A header's value may be a secret, so this leaves it out."""
    if isinstance(value, bool):
        return option
    if isinstance(value, Path):
        return f"{option} {shlex.quote(str(value))}"
    return " ".join(f"{option} {shlex.quote(name)}=…" for name, _ in value)


def security(*, to: Iterable[str], named_by: str) -> Security:
    """Return the security that the options of the current command describe.

    Args:
        to: The servers, as messages call them.
        named_by: The parameter that names them.

    Raises:
        SettingsError: A file cannot be read or used, half of a pair is missing, gRPC cannot send a header, or a
            header must not go to these servers.
    """
    from servingrepo.servers.security import Security

    given = click.get_current_context().params
    keep_together(to, named_by)
    return Security.read(
        tls=given["tls"],
        ca=given["tls_ca"],
        certificate=given["tls_cert"],
        key=given["tls_key"],
        headers=given["headers"],
        insecure_headers=given["insecure_headers"],
    )


def secured(endpoints: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return endpoints given as HOST:PORT, each with the security of its connection.

    Raises:
        UsageError: A text is no endpoint.
        SettingsError: As `security` says.
    """
    given = tuple(endpoints)
    if not given:
        return ()
    from servingrepo.servers.states import Endpoint

    how = security(to=given, named_by="endpoints")
    return tuple(Endpoint.parse(one, how) for one in given)


def keep_together(servers: Iterable[str], named_by: str) -> None:
    """Refuse to send headers to servers from another source than the headers.

    Raises:
        SettingsError: The caller gave one of the two, and a settings file that was only found gave the other.
    """
    ctx = click.get_current_context()
    headers = ctx.params["headers"]
    app = ctx.ensure_object(App)
    if not headers or app.settings_named or _by_hand(ctx, "headers") == _by_hand(ctx, named_by):
        return
    names = ", ".join(dict.fromkeys(name for name, _ in headers))
    where = ("on the command line or in the environment", f"in {app.settings}")
    of_headers, of_servers = where if _by_hand(ctx, "headers") else reversed(where)
    raise SettingsError(
        f"headers ({names}) that were given {of_headers} would go to {', '.join(servers)}, named {of_servers}: "
        "headers go only to servers that were named in the same place",
        hint=f"if you trust that file, name it: --settings {app.settings}; else give both in one place "
        "(SERVINGREPO_HEADER and SERVINGREPO_ENDPOINT, --header and --endpoint, or both in the file)",
    )


def _by_hand(ctx: click.Context, name: str) -> bool:
    """Tell whether the caller gave a value, rather than a settings file."""
    return ctx.get_parameter_source(name) in BY_HAND
