"""What a promotion tells."""

from __future__ import annotations

import msgspec

from servingrepo.fleet.hooks import HookResult
from servingrepo.fleet.steps import EndpointResult
from servingrepo.repository.pruning import Pruned
from servingrepo.repository.records import Guard, Proof, StageVerdict
from servingrepo.runs.measurements import GateVerdict


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What a promotion did, or would do in a dry run.

    `same_as` is set when the content was published before: then nothing was copied. `proof` is None when
    nothing ran: not checked, which is not the same as ok. `same_in_trash` has the same content and could have
    been restored instead. `pruned` is what pruning by policy did afterwards, and `prune_failed` why it could not.
    `overtaken` says who decided what is served while it ran, and so kept it from being served. `would_prove` says in
    a dry run that the version that is there already would be smoke-tested: it was published without.
    """

    model: str
    version: int
    run: str
    export: str
    path: str
    same_as: int | None
    published: bool
    served: bool
    before: tuple[int, ...]
    after: tuple[int, ...]
    held: str | None
    proof: Proof | None
    files: int
    size: int
    dry_run: bool
    can_go_back: bool = False
    overtaken: str = ""
    would_prove: bool = False
    endpoints: tuple[EndpointResult, ...] = ()
    stages: tuple[StageVerdict, ...] = ()
    same_in_trash: int | None = None
    pruned: Pruned | None = None
    prune_failed: str = ""
    gates: tuple[GateVerdict, ...] = ()
    guard: Guard | None = None
    notes: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    """What nobody has proven of it although live servers give it to clients."""
    hooks: tuple[HookResult, ...] = ()
    doubts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """What of its event files and metrics could not be read; what could be was used."""
