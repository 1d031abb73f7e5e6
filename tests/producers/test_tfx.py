"""What TFX's Trainer and Pusher leave; those of its Trainer for estimators are in test_estimator.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from servingrepo.errors import AmbiguousExport
from servingrepo.runs.scan import scan_run
from tests.support import new_repository

pytestmark = [pytest.mark.producers, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("run", "export"),
    [
        ("Trainer/model/5", "Format-Serving"),
        ("Pusher/pushed_model/6", "."),
        ("serving_model/once", "*"),
    ],
)
def test_a_trained_or_pushed_model_is_promoted_and_serves(
    tfx: Path, tmp_path: Path, run: str, export: str
) -> None:
    (expected,) = (tfx / run).glob(export) if export == "*" else [tfx / run / export]
    done = new_repository(tmp_path).promote(tfx / run, model="m", engine="embedded")
    assert done.export == str(expected)


def test_a_destination_with_two_versions_is_not_guessed_at(tfx: Path, tmp_path: Path) -> None:
    run = tfx / "serving_model/twice"
    with pytest.raises(AmbiguousExport, match="2 SavedModels"):
        scan_run(run)
    newest = max(path.name for path in run.iterdir())
    repo = new_repository(tmp_path)
    repo.promote(run, model="m", saved_model=Path(newest), smoke=False)
    assert repo.show_version("m").version == 1
