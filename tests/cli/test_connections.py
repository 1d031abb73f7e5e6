"""--tls-ca, --tls-cert, --tls-key and --header, against real servers with TLS and mTLS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from servingrepo.servers.states import Endpoint
from tests.servers.authority import Authority
from tests.support import command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository

QUICK = 15.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other") / "ca")


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    """A repository whose model `half` has versions 1 and 2, and serves 2."""
    repo = new_repository(tmp_path / "serving")
    for number in (1, 2):
        repo.promote(
            run_with(tmp_path / f"run{number}", offset=float(number)), model="half", smoke=False
        )
    return repo


@pytest.fixture
def mutual(repo: OpenRepository, authority: Authority, tmp_path: Path) -> Iterator[Endpoint]:
    """A server that speaks TLS and asks its clients for a certificate."""
    flag = f"--ssl_config_file={authority.ssl_config(verify=True)}"
    with live_server(repo, flag, log=tmp_path / "log") as endpoint:
        yield endpoint


def options(authority: Authority) -> tuple[str, ...]:
    folder = authority.folder
    return (
        f"--tls-ca={folder / 'ca.crt'}",
        f"--tls-cert={folder / 'client.crt'}",
        f"--tls-key={folder / 'client.key'}",
    )


@pytest.mark.tf
def test_every_command_speaks_mutual_tls_from_options_environment_or_file(
    repo: OpenRepository, mutual: Endpoint, authority: Authority, tmp_path: Path
) -> None:
    at = f"--endpoint={mutual}"
    how = options(authority)
    root = f"--root={repo.root}"
    assert command("status", root, at, *how).code == 0
    # What to type next repeats these options, or it would fail; never a header's value.
    drifted = command("serve", "half@1", root)
    assert drifted.code == 0
    status = command("status", root, at, *how, "--header=x-token=s3cret", "--json")
    said = status.json["error"]
    assert said["hint"].count("--tls-cert ") == 1
    assert said["details"]["status"]["next"] in said["hint"]
    following = said["details"]["status"]["next"].split()
    assert following[0] == "servingrepo"
    assert following[-2:] == ["--header", "x-token=…"]
    assert "s3cret" not in status.out
    assert command(*following[1:-1], "x-token=s3cret", root).code == 0
    shown = command("serve", "half@2", root, at, *how)
    assert shown.out.rstrip().endswith("--tls-key " + how[2].partition("=")[2]), shown.out
    back = command("rollback", "half", "-q", root, at, *how)
    assert (back.code, back.out) == (0, "1\n"), back.err

    names = ("SERVINGREPO_TLS_CA", "SERVINGREPO_TLS_CERT", "SERVINGREPO_TLS_KEY")
    env = {name: option.partition("=")[2] for name, option in zip(names, how, strict=True)} | {
        "SERVINGREPO_HEADER": "x-tenant=a b\nauthorization=Bearer x"
    }
    served = command("serve", "half@1", "-q", root, at, env=env)
    assert (served.code, served.out) == (0, "1\n"), served.err

    # A relative path in the file starts from the directory of the file.
    (authority.folder / "servingrepo.toml").write_text(
        f'endpoints = ["{mutual}"]\ntls_ca = "ca.crt"\ntls_cert = "client.crt"\n'
        'tls_key = "client.key"\nheader = ["x-tenant=a"]\n'
    )
    settings = f"--settings={authority.folder / 'servingrepo.toml'}"
    reloaded = command(settings, "reload", root, cwd=tmp_path)
    assert reloaded.code == 0, reloaded.err
    run = run_with(tmp_path / "run3", offset=3.0)
    done = command(settings, "promote", str(run), "--model=half", "-q", "--no-smoke", root)
    assert (done.code, done.out) == (0, "3\n"), done.err
    assert command(settings, "unserve", "half", root).code == 0


@pytest.mark.tf
def test_the_remote_engine_speaks_tls(authority: Authority, tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    flag = f"--ssl_config_file={authority.ssl_config(verify=False)}"
    with live_server(repo, flag, log=tmp_path / "log") as endpoint:
        run = run_with(tmp_path / "run", offset=2.0)
        arguments = ("promote", run, "--model=half", f"--root={repo.root}", "-q")
        remote = f"--engine=remote:{endpoint}"
        ca = f"--tls-ca={authority.folder / 'ca.crt'}"
        done = command(*arguments, remote, ca)
        assert (done.code, done.out) == (0, "1\n"), done.err


@pytest.mark.tf
def test_what_is_wrong_with_a_connection_is_said_with_what_to_do(
    repo: OpenRepository,
    mutual: Endpoint,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
) -> None:
    arguments = ("reload", f"--root={repo.root}")
    ca, *pair = options(authority)

    def said(*how: str, endpoint: Endpoint = mutual) -> str:
        began = time.monotonic()
        done = command(*arguments, f"--endpoint={endpoint}", *how)
        assert time.monotonic() - began < QUICK
        assert (done.code, done.out) == (65, "")
        assert str(endpoint) in done.err
        return done.err

    assert "the server speaks TLS and the client did not" in said()
    assert "hint: give --tls-ca FILE" in said()
    assert "the server's certificate is not trusted" in said(
        f"--tls-ca={stranger.folder / 'ca.crt'}", *pair
    )
    assert "is not trusted" in said("--tls")
    assert "asks for a client certificate" in said(ca)
    assert "hint: give --tls-cert and --tls-key" in said(ca)
    assert "did not accept the client's certificate" in said(ca, *options(stranger)[1:])
    named = Endpoint("localhost", mutual.port)
    assert "is for another name than localhost" in said(ca, *pair, endpoint=named)
    with live_server(repo, log=tmp_path / "plain") as plain:
        assert "the server speaks no TLS and the client did" in said(ca, endpoint=plain)
        done = command("status", f"--root={repo.root}", f"--endpoint={plain}", ca)
        assert f"hint: correct the TLS options for {plain} (--tls, " in done.err
        assert done.err.startswith("error: "), "and gRPC says nothing of its own"


def test_files_that_cannot_be_used_are_named(
    repo: OpenRepository, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    ca, certificate, key = options(authority)
    (tmp_path / "garbage").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    (tmp_path / "der").write_bytes(b"\x30\x82")
    locked = authority.encrypted_key()

    def said(*how: str) -> str:
        done = command("status", f"--root={repo.root}", "--endpoint=127.0.0.1:1", *how)
        assert done.code == 10, done.err
        return done.err

    assert f"cannot read {tmp_path}/nope: No such file" in said(f"--tls-ca={tmp_path}/nope")
    assert f"cannot read {tmp_path}: Is a directory" in said(f"--tls-ca={tmp_path}")
    assert f"not a PEM file: {tmp_path}/der" in said(f"--tls-ca={tmp_path}/der")
    assert "holds no certificate that can be read" in said(f"--tls-ca={tmp_path}/garbage")
    assert "holds no certificate" in said(f"--tls-ca={authority.folder / 'ca.key'}")
    assert "only one of them was given" in said(ca, certificate)
    assert "only one of them was given" in said(ca, key)
    assert "do not belong together" in said(ca, certificate, options(stranger)[2])
    assert "cannot be used" in said(ca, f"--tls-cert={tmp_path}/garbage", key)
    assert f"the key is encrypted: {locked}" in said(ca, certificate, f"--tls-key={locked}")


def test_headers_that_cannot_be_sent_are_refused_without_their_values(
    repo: OpenRepository,
) -> None:
    arguments = ("status", f"--root={repo.root}", "--endpoint=127.0.0.1:1")
    bad = command(*arguments, "--header=a b=secret", "--header=x-bin=secret")
    assert bad.code == 10
    assert "gRPC cannot send these headers" in bad.err
    assert "'a b'" in bad.err
    assert "'x-bin'" in bad.err
    no_sign = command(*arguments, "--header=secret")
    assert no_sign.code == 2
    assert "a header must be NAME=VALUE" in no_sign.err
    assert "secret" not in bad.err + no_sign.err
