"""Options for servers that are spoken to over TLS, or that want headers; endpoints with all of that in them.

Headers are often tokens. They go only to servers that were named where the headers were: on the command line and in
the environment, which are the caller's own word together, or in the settings file. A settings file that the caller
named is the caller's word, too; one that was found in a directory is not.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from servingrepo.servers.security import Security
    from servingrepo.servers.states import Endpoint

    HeaderType = click.ParamType[tuple[str, str]]
else:
    HeaderType = click.ParamType  # takes no type argument before click 8.3

F = TypeVar("F", bound="Callable[..., Any]")

PATH_SETTINGS = ("tls_ca", "tls_cert", "tls_key")
"""Settings that are paths: a relative one in a settings file is meant as seen from that file."""

_KEPT = "servingrepo.connections"
COMMANDLINE = ParameterSource.COMMANDLINE


class _Header(HeaderType):
    """NAME=VALUE. In the environment one per line, since values have spaces in them."""

    name = "header"
    envvar_list_splitter = "\n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, sign, text = str(value).partition("=")
        if not sign:
            # What was given may be a secret: it is not shown.
            self.fail("a header is NAME=VALUE, and one has no '='", param, ctx)
        return name.strip(), text.strip()


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta.setdefault(_KEPT, {})[param.name] = value
    if param.name is not None and ctx.get_parameter_source(param.name) is COMMANDLINE:
        ctx.ensure_object(App).connection[param.name] = _said_again(param.opts[0], value)


def _said_again(option: str, value: Any) -> str:
    """Return an option as it was given; of a header only the name, since its value may be a secret."""
    if isinstance(value, bool):
        return option
    if isinstance(value, Path):
        return f"{option} {shlex.quote(str(value))}"
    return " ".join(f"{option} {shlex.quote(name)}=…" for name, _ in value)


def connection_options(function: F) -> F:
    """Add --tls, --tls-ca, --tls-cert, --tls-key and --header, once, to a command that talks to servers.

    `--insecure-header` goes with them.
    """
    there = {param.name for param in getattr(function, "__click_params__", ())}
    if "tls_ca" in there:
        return function

    def pem(option: str, meaning: str) -> Callable[[Any], Any]:
        return click.option(
            option,
            type=click.Path(path_type=Path),
            envvar="SERVINGREPO_" + option.lstrip("-").replace("-", "_").upper(),
            expose_value=False,
            callback=_keep,
            metavar="FILE",
            help=meaning,
        )

    options = [
        click.option(
            "--tls",
            is_flag=True,
            envvar="SERVINGREPO_TLS",
            expose_value=False,
            callback=_keep,
            help="Speak TLS to servers, and trust the well-known authorities.",
        ),
        pem("--tls-ca", "Speak TLS, and trust the authorities in this PEM file."),
        pem("--tls-cert", "The client certificate, for servers that ask for one (mTLS)."),
        pem("--tls-key", "The private key of --tls-cert."),
        click.option(
            "--header",
            "headers",
            type=_Header(),
            multiple=True,
            envvar="SERVINGREPO_HEADER",
            expose_value=False,
            callback=_keep,
            metavar="NAME=VALUE",
            help="Metadata to send with every gRPC call, such as authorization=…; may be repeated.",
        ),
        click.option(
            "--insecure-header",
            "insecure_headers",
            is_flag=True,
            envvar="SERVINGREPO_INSECURE_HEADER",
            expose_value=False,
            callback=_keep,
            help="Let headers go to other machines without TLS, where everybody on the way can read them.",
        ),
    ]
    decorated: Any = function
    for option in reversed(options):
        decorated = option(decorated)
    result: F = decorated
    return result


def security(*, to: Iterable[str], named_by: str) -> Security:
    """Return what the options of the current command say of how to speak to servers.

    Args:
        to: The servers, as messages call them.
        named_by: The parameter that names them.

    Raises:
        SettingsError: A file cannot be read or used, half of a pair is missing, or a header cannot be sent, or not
            there.
    """
    from servingrepo.servers.security import Security

    kept = click.get_current_context().meta.get(_KEPT, {})
    keep_together(to, named_by)
    return Security.read(
        tls=kept.get("tls", False),
        ca=kept.get("tls_ca"),
        certificate=kept.get("tls_cert"),
        key=kept.get("tls_key"),
        headers=kept.get("headers") or (),
        insecure_headers=kept.get("insecure_headers", False),
    )


def secured(endpoints: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return endpoints given as HOST:PORT, each with how it is spoken to.

    Raises:
        UsageError: One is none.
        SettingsError: As `security` says.
    """
    given = tuple(endpoints)
    if not given:
        return ()
    from servingrepo.servers.states import Endpoint

    how = security(to=given, named_by="endpoints")
    return tuple(Endpoint.parse(one, how) for one in given)


def keep_together(servers: Iterable[str], named_by: str) -> None:
    """Refuse to send headers to servers that were not named where the headers were.

    Raises:
        SettingsError: They were not.
    """
    ctx = click.get_current_context()
    headers = ctx.meta.get(_KEPT, {}).get("headers") or ()
    app = ctx.ensure_object(App)
    if not headers or app.settings_named or _by_hand(ctx, "headers") == _by_hand(ctx, named_by):
        return
    names = ", ".join(dict.fromkeys(name for name, _ in headers))
    where = ("on the command line or in the environment", f"in {app.settings}")
    of_headers, of_servers = where if _by_hand(ctx, "headers") else reversed(where)
    raise SettingsError(
        f"headers ({names}) that were given {of_headers} would go to {', '.join(servers)}, named {of_servers}: "
        "they go only to servers that were named with them",
        hint=f"if that file is to be trusted with it, name it: --settings {app.settings}; else give both in one "
        "place (SERVINGREPO_HEADER and SERVINGREPO_ENDPOINT, --header and --endpoint, or both in the file)",
    )


def _by_hand(ctx: click.Context, name: str) -> bool:
    """Tell whether the caller said a value, rather than a settings file."""
    return ctx.get_parameter_source(name) in {COMMANDLINE, ParameterSource.ENVIRONMENT}
