"""Archives as tools make them, and as none does."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
"""What is in a work tree in place of a file that Git LFS keeps and that was not fetched."""

TarEntry = tuple[str, dict[str, Any], bytes]
"""A name, the fields of the header that differ from a file's, and the content."""


def packed(path: Path, *entries: TarEntry, mode: str = "w:gz", **how: Any) -> Path:
    """A tar with entries that no well-meaning tool would write."""
    with tarfile.open(path, mode, **how) as tar:  # type: ignore[call-overload]
        for name, fields, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> TarEntry:
    return name, {"type": kind, "linkname": target}, b""


def file(name: str, content: bytes = b"x") -> TarEntry:
    return name, {}, content


def by_tar(export: Path, path: Path, *options: str) -> Path:
    subprocess.run(["tar", *options, "-caf", path, "-C", export.parent, export.name], check=True)
    return path


def by_zipfile(export: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(export.rglob("*")):
            archive.write(one, one.relative_to(export.parent))
    return path


def zipped(path: Path, *entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these names as they are."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path
