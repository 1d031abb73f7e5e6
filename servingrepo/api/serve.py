"""What live servers serve: serve, roll back, label, reload, look."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from servingrepo.api.arguments import (
    DEFAULT_WAIT,
    How,
    as_endpoints,
    changed,
)
from servingrepo.api.opened import Opened
from servingrepo.modelconfig import check_name
from servingrepo.repository.references import parse_reference, selector_of
from servingrepo.repository.served import need_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.servers.states import Endpoint
    from servingrepo.verbs.change import Switched
    from servingrepo.verbs.reload import Reloaded
    from servingrepo.verbs.status import Status


class Serving(Opened):
    """What live servers serve: serve, roll back, label, reload, look."""

    def serve(self, reference: str, **how: Unpack[How]) -> Switched:
        """Serve a version; see `servingrepo serve`."""
        from servingrepo.verbs.serve import serve

        return changed("serve", partial(serve, self.value, parse_reference(reference)), how)

    def unserve(self, model: str, **how: Unpack[How]) -> Switched:
        """Take a model out of models.config; see `servingrepo unserve`."""
        from servingrepo.verbs.unserve import unserve

        return changed("unserve", partial(unserve, self.value, check_name(model)), how)

    def rollback(
        self,
        model: str,
        *,
        to: str | int | None = None,
        mark_bad: bool = True,
        **how: Unpack[How],
    ) -> Switched:
        """Go back to the version served before, or to a selector such as 7 or "label:stable"."""
        from servingrepo.verbs.rollback import rollback

        target = selector_of(check_name(model), str(to)) if to is not None else None
        change = partial(rollback, self.value, check_name(model), to=target, mark_bad=mark_bad)
        return changed("rollback", change, how)

    def label_set(
        self, reference: str, label: str, *, serve: bool = False, **how: Unpack[How]
    ) -> Switched:
        """Give a version a label; see `servingrepo label set`."""
        from servingrepo.verbs.label import set_label

        change = partial(set_label, self.value, parse_reference(reference), label, serve=serve)
        return changed("label", change, how)

    def label_remove(self, model: str, *labels: str, **how: Unpack[How]) -> Switched:
        """Take labels away, all at once; see `servingrepo label remove`."""
        from servingrepo.verbs.label import remove_labels

        return changed("label", partial(remove_labels, self.value, check_name(model), labels), how)

    def reload(
        self,
        *,
        endpoints: Iterable[str | Endpoint],
        wait: float = DEFAULT_WAIT,
        poll: bool = False,
        dry_run: bool = False,
    ) -> Reloaded:
        """Make endpoints serve what models.config says; see `servingrepo reload`."""
        from servingrepo.verbs.reload import reload

        return reload(
            self.value,
            endpoints=as_endpoints(endpoints),
            wait=wait,
            poll=poll,
            dry_run=dry_run,
        )

    def status(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float = 0.0,
    ) -> Status:
        """Return disk, config and endpoints side by side, waiting up to `wait` seconds for agreement."""
        from servingrepo.verbs.status import wait_for_agreement

        if model is not None:
            need_model(self.value, check_name(model))
        return wait_for_agreement(
            self.value, model=model, endpoints=as_endpoints(endpoints), seconds=wait
        )

    def watch(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float | None = None,
    ) -> Iterator[Status]:
        """Yield a status after another until all agrees or `wait` seconds are over; without end if it is None."""
        from servingrepo.verbs.status import watch

        if model is not None:
            need_model(self.value, check_name(model))
        return watch(self.value, model=model, endpoints=as_endpoints(endpoints), seconds=wait)
