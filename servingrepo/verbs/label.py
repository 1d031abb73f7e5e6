"""label set, label remove: labels move clients from version to version one by one.

TensorFlow Serving gives unlabelled clients the highest loaded version (basic_manager.cc), and a labelled version must
be loaded. So a label on a version above the served one would move unlabelled clients too: only `serve` allows that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import NoSuchVersion, UsageError
from servingrepo.fleet.hooks import hooked
from servingrepo.fleet.plans import plan_label
from servingrepo.modelconfig import check_label, check_name
from servingrepo.repository.references import Reference, parse_reference, resolve
from servingrepo.repository.repository import need_state
from servingrepo.repository.snapshot import snapshot_to_change
from servingrepo.repository.transaction import writing
from servingrepo.verbs.change import Switched, carry_out, need_servable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from servingrepo.fleet.options import LabelOptions, LiveOptions
    from servingrepo.repository.repository import Repository


def set_label(repo: Repository, reference: str, label: str, options: LabelOptions) -> Switched:
    """Give a version a label. The version that had it stays loaded only if it is served or has another label.

    Raises:
        BadName: The label is not allowed.
        UsageError: The version is above the served one, so unlabelled clients would get it; `serve` allows that.
        NoSuchVersion, VersionBad, VersionDamaged: The version cannot be served.
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    meant = parse_reference(reference)
    check_label(label)

    def change(options: LabelOptions) -> Switched:
        with writing(repo, dry_run=options.dry_run):
            return _set_label(repo, meant, label, options)

    return hooked(options, "label", change)


def _set_label(
    repo: Repository, reference: Reference, label: str, options: LabelOptions
) -> Switched:
    """Do what `set_label` holds the lock for."""
    model = reference.model
    now = snapshot_to_change(repo, model)
    version = resolve(repo, reference)
    need_servable(repo, model, version)
    served = now.top
    if (served is None or version > served) and not options.serve:
        what = f"version {served} is" if served is not None else "nothing is"
        raise UsageError(
            f"a label on {model}@{version} would give it to unlabelled clients too: they get the highest loaded "
            f"version, and {what} served now",
            hint=f"servingrepo label set {model}@{version} {label} --serve allows that",
        )
    plan = plan_label(
        now,
        version,
        labels={**now.labels, label: version},
        served=max(version, served or version),
    )
    return carry_out(repo, now, plan, options, action="label")


def remove_labels(
    repo: Repository, model: str, gone: Collection[str], options: LiveOptions
) -> Switched:
    """Remove labels. Servers unload their versions unless these are served or have another label.

    All labels go at once, because servers refuse a config with a label of a missing version.

    Raises:
        UsageError: No label was named.
        NoSuchVersion: The model has no such label.
        ConfigEdited, ConfigInvalid, EndpointUnreachable, SwitchFailed: As for `set_label`.
    """
    check_name(model)

    def remove(options: LiveOptions) -> Switched:
        with writing(repo, dry_run=options.dry_run):
            return _remove_labels(repo, model, gone, options)

    return hooked(options, "label", remove)


def _remove_labels(
    repo: Repository, model: str, gone: Collection[str], options: LiveOptions
) -> Switched:
    """Do what `remove_labels` holds the lock for."""
    now = snapshot_to_change(repo, model)
    need_state(repo, model)
    labels = now.labels
    if not gone:
        raise UsageError("no label was named", hint=f"labels of {model}: {_listed(labels)}")
    unknown = [label for label in gone if label not in labels]
    if unknown:
        raise NoSuchVersion(
            f"{model} has no label {', '.join(unknown)}",
            hint=f"labels of {model}: {_listed(labels)}",
        )
    served = max(now.served, default=max(labels.values()))
    left = {name: at for name, at in labels.items() if name not in gone}
    plan = plan_label(now, served, labels=left, served=served)
    return carry_out(repo, now, plan, options, action="label")


def _listed(labels: Mapping[str, int]) -> str:
    return ", ".join(sorted(labels)) or "none"
