"""Copies the parts of TensorFlow that servingrepo uses out of a wheel or an installation.

The message modules are 0.7 MB of the package's 1.9 GB, and all that servingrepo needs but for the embedded
server, which needs the two C libraries as well. No part of TensorFlow is run, and the copy is not taken for an
installed TensorFlow unless it has the libraries. Only Python's own library is used: this runs while an image
is built.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")


def wanted(name: PurePosixPath, *, libraries: bool) -> bool:
    """Tell whether a file, named from site-packages, is one of the parts."""
    if name.parts[0] == "tensorflow":
        return name.name.endswith("_pb2.py") or (libraries and name.name in LIBRARIES)
    # The metadata makes importlib.metadata say that TensorFlow is there, and in which version.
    is_metadata = name.parts[0].startswith("tensorflow-") and name.name == "METADATA"
    return libraries and is_metadata and len(name.parts) == 2  # noqa: PLR2004 # FOLDER.dist-info/METADATA


def copy_from_wheel(wheel: Path, target: Path, *, libraries: bool) -> int:
    """Copy out of a wheel, without unpacking the rest."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        chosen = [name for name in names if wanted(PurePosixPath(name), libraries=libraries)]
        archive.extractall(target, chosen)
    return len(chosen)


def copy_from_folder(folder: Path, target: Path, *, libraries: bool) -> int:
    """Copy out of an installation's site-packages."""
    copied = 0
    packages = [folder / "tensorflow", *folder.glob("tensorflow-*.dist-info")]
    for path in (path for package in packages for path in package.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and wanted(PurePosixPath(*name.parts), libraries=libraries):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
            copied += 1
    return copied


def main() -> None:
    """Copy as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--libraries", action="store_true", help="the C libraries too")
    parser.add_argument("source", type=Path, help="a tensorflow wheel, or a site-packages folder")
    parser.add_argument("target", type=Path, help="the site-packages folder to fill")
    arguments = parser.parse_args()
    copy = copy_from_folder if arguments.source.is_dir() else copy_from_wheel
    if not copy(arguments.source, arguments.target, libraries=arguments.libraries):
        sys.exit(f"{arguments.source} holds no part of TensorFlow")


if __name__ == "__main__":
    main()
