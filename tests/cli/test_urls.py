"""URLs where directories are meant: a bucket is no directory, and must not become one called `s3:`."""

from __future__ import annotations

from pathlib import Path

import pytest

import servingrepo
from servingrepo.errors import UsageError
from tests.cli.inside import refused
from tests.support import command, run_with

URLS = ["s3://bucket/x", "gs://bucket/x", "hdfs://host:9000/x", "https://host/x", "FILE:///srv/x"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_no_root(url: str, tmp_path: Path) -> None:
    for arguments in (("--root", url, "init"), ("init", "--root", url), ("list", "--root", url)):
        refused(command(*arguments, cwd=tmp_path), 2, url, "is a URL, not a directory")
    by_variable = command("init", cwd=tmp_path, env={"SERVINGREPO_ROOT": url})
    refused(by_variable, 10, url, "SERVINGREPO_ROOT")
    (tmp_path / "servingrepo.toml").write_text(f"root = '{url}'\n")
    refused(command("init", cwd=tmp_path), 10, f"root: the path '{url}' is a URL")
    assert [path.name for path in tmp_path.iterdir()] == ["servingrepo.toml"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_no_run_and_no_export(url: str, root: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", offset=7.0)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ("promote", url, "--model", "ranker"),
        ("promote", "run", "--runs", url, "--model", "ranker"),
        ("scan", url),
        ("export", url),
        ("export", run, "--output", url),
        ("smoke", url),
        ("verify", url),
        ("diff", "ranker@1", url),
        ("contract", "ranker", "--check", url),
    ):
        refused(command(*arguments, "--root", root, cwd=tmp_path), 2, url, "is a URL")
    assert sorted(tmp_path.rglob("*")) == before


def test_python_takes_no_url_for_a_path(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repo = servingrepo.open(root)
    for url in (*URLS, *map(Path, URLS)):
        for call in (
            lambda given=url: servingrepo.init(given),
            lambda given=url: servingrepo.open(given),
            lambda given=url: repo.promote(given, model="ranker"),
            lambda given=url: repo.scan(given),
            lambda given=url: repo.export(root, output=given),
        ):
            with pytest.raises(UsageError, match="is a URL"):
                call()
    assert not [one for one in Path().iterdir() if one.name.endswith(":")]


def test_names_that_only_look_like_urls_are_paths(tmp_path: Path) -> None:
    odd = run_with(tmp_path / "s3:" / "bucket", offset=1.0)
    for given in ("s3:/bucket", "./s3://bucket", odd):
        assert command("scan", given, "-q", cwd=tmp_path).code == 0, given
    hint = command("scan", "file:///srv/runs/1", cwd=tmp_path).err
    assert "give it as /srv/runs/1" in hint
