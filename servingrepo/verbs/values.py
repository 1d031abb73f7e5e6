"""The result of a promotion."""

from __future__ import annotations

import msgspec

from servingrepo.fleet.hooks import HookResult
from servingrepo.fleet.steps import EndpointResult
from servingrepo.repository.pruning import Pruned
from servingrepo.repository.records import Guard, Proof, StageVerdict
from servingrepo.runs.measurements import GateVerdict


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a promotion, or the result that a dry run foresees.

    Attributes:
        same_as: The version that has this content already: then nothing was copied.
        proof: None if no smoke test ran. That means not checked, never ok.
        same_in_trash: A version in the trash with the same content: `restore` could have brought it back.
        pruned: The result of the prune that followed, and `prune_failed` the reason why it failed.
        overtaken: The command that decided what is served while the promotion ran. So the promotion served nothing.
        would_prove: A dry run sets this if the existing version has no proof and would get a smoke test.
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
    """The parts of it that nothing has proven although live servers give it to clients."""
    hooks: tuple[HookResult, ...] = ()
    doubts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """Problems of its event files and metrics. Everything that could be read was used."""
