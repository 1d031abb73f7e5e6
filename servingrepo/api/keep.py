"""What is there, who did what, and what goes: list, history, marks, prune, restore, recover."""

from __future__ import annotations

import builtins
from itertools import islice
from typing import TYPE_CHECKING

from servingrepo.api.arguments import (
    as_endpoints,
    as_message,
)
from servingrepo.api.opened import Opened
from servingrepo.errors import BadReference
from servingrepo.modelconfig import check_name
from servingrepo.repository import history
from servingrepo.repository.listing import ModelRow, list_models, show_model, show_version
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import (
    locked,
    need_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

    from servingrepo.repository.changes import Recovered
    from servingrepo.repository.history import Event
    from servingrepo.repository.lineage import Lineage
    from servingrepo.repository.listing import ModelDetails
    from servingrepo.repository.pruning import Pruned, Restored
    from servingrepo.repository.records import VersionRecord
    from servingrepo.repository.retention import Keep
    from servingrepo.servers.states import Endpoint
    from servingrepo.storage.progress import Progress


class Keeping(Opened):
    """What is there, who did what, and what goes: list, history, marks, prune, restore, recover."""

    def list(self) -> tuple[ModelRow, ...]:
        """Return a row for each model."""
        return list_models(self.value)

    def show(self, model: str) -> ModelDetails:
        """Return a model with its versions."""
        return show_model(self.value, check_name(model))

    def show_version(self, reference: str) -> VersionRecord:
        """Return the record of the version that a reference means."""
        parsed = parse_reference(reference)
        return show_version(self.value, parsed.model, resolve(self.value, parsed))

    def lineage(self, reference: str | None = None) -> tuple[Lineage, ...]:
        """Return which run each served version came from: of all models, of one, or one version."""
        from servingrepo.repository.lineage import lineage

        if reference is None:
            return lineage(self.value)
        parsed = parse_reference(reference)
        if parsed.kind == "default":
            return lineage(self.value, check_name(parsed.model))
        return lineage(self.value, parsed.model, version=resolve(self.value, parsed))

    def history(self, model: str | None = None, *, limit: int | None = None) -> Iterator[Event]:
        """Yield events, oldest first, of a model or of all; with a limit the last ones only."""
        if model is not None:
            need_state(self.value, check_name(model))
        path = self.value.layout.history
        if limit is None:
            return history.read(path, model=model)
        last = islice(history.read_backwards(path, model=model), limit)
        return reversed(builtins.list(last))

    def hold(self, model: str, *, message: str = "", dry_run: bool = False) -> Event:
        """Keep promotions from re-pointing a model."""
        from servingrepo.repository import marks

        return marks.hold(
            self.value, check_name(model), reason=as_message(message), dry_run=dry_run
        )

    def release_hold(self, model: str, *, message: str = "", dry_run: bool = False) -> Event:
        """Let promotions re-point a model again."""
        from servingrepo.repository import marks

        return marks.release_hold(
            self.value, check_name(model), reason=as_message(message), dry_run=dry_run
        )

    def mark_bad(
        self, reference: str, *, clear: bool = False, message: str = "", dry_run: bool = False
    ) -> Event:
        """Mark a version bad, or take the mark away."""
        from servingrepo.repository import marks

        parsed = parse_reference(reference)
        version = resolve(self.value, parsed)
        change = marks.clear_bad if clear else marks.mark_bad
        reason = as_message(message)
        return change(self.value, parsed.model, version, reason=reason, dry_run=dry_run)

    def prune(
        self,
        *models: str,
        keep: Keep | Mapping[str, Keep] | None = None,
        empty_trash: bool = False,
        older_than: timedelta | None = None,
        endpoints: Iterable[str | Endpoint] = (),
        message: str = "",
        dry_run: bool = False,
    ) -> Pruned:
        """Move versions that no rule of a policy keeps to the trash; see `servingrepo prune`.

        `keep` is a policy, or one for each model; without it only the trash is emptied. `empty_trash` deletes
        for good what is in the trash then, or of that what went there longer than `older_than` ago.

        Raises:
            UsageError: The policy is empty, or there is nothing to do.
            ConfigInvalid: models.config cannot be read, so nobody knows what is served.
            EndpointUnreachable: An endpoint cannot say what it has loaded.
        """
        from servingrepo.repository.retention import policies_for
        from servingrepo.verbs.prune import prune_models

        names = tuple(dict.fromkeys(map(check_name, models))) or self.models()
        policies = {} if keep is None and empty_trash else policies_for(names, keep)
        return prune_models(
            self.value,
            policies,
            emptying=names if empty_trash else (),
            older_than=older_than,
            endpoints=as_endpoints(endpoints),
            message=as_message(message),
            dry_run=dry_run,
        )

    def restore(
        self,
        reference: str,
        *,
        message: str = "",
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Restored:
        """Bring NAME@N back from the trash, every byte compared with its record; it is not served.

        Raises:
            NoSuchVersion, VersionDamaged, NumberUsed, ConfigInvalid: As `servingrepo restore` says.
        """
        from servingrepo.repository.pruning import restore

        parsed = parse_reference(reference)
        if parsed.kind != "number":
            raise BadReference(
                f"{reference} does not say which version to restore",
                hint=f"servingrepo show {parsed.model} lists what is in the trash; name one: {parsed.model}@7",
            )
        return restore(
            self.value,
            parsed.model,
            parsed.number,
            message=as_message(message),
            dry_run=dry_run,
            progress=progress,
        )

    def recover(self) -> tuple[Recovered, ...]:
        """Settle what dead commands left; every writing command does this first by itself.

        Only this one looks for folders of servers that killed smoke tests left in the directory for temporary files.
        """
        from servingrepo.repository.changes import Recovered, recover
        from servingrepo.servers.sockets import sweep_folders

        with locked(self.value):
            done = recover(self.value, reach=True)
        gone = sweep_folders()
        return (
            *done,
            *(Recovered("", "smoke", name, None, "folder of its server removed") for name in gone),
        )
