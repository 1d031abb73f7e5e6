"""What goes wrong on live servers, as classes and fields: they decide what happens next, messages do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import ServerTimeout, ServingRepoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servingrepo.repository.repository import Repository


class FollowTimeout(ServerTimeout):
    """A server did not follow a change in time.

    `uncertain` says that it did not answer a reload, and may still carry it out. `unseen` has base paths by model:
    most likely the server does not see there what we see.
    """

    def __init__(
        self,
        message: str,
        *,
        endpoint: str,
        hint: str,
        uncertain: bool = False,
        unseen: Mapping[str, str] | None = None,
    ) -> None:
        """Say the likely cause in the message, where there is one."""
        self.endpoint, self.uncertain, self.unseen = endpoint, uncertain, dict(unseen or {})
        details: dict[str, object] = {"uncertain": [endpoint]} if uncertain else {}
        if self.unseen:
            details["unseen"] = {endpoint: self.unseen}
            message += (
                f"; most likely it does not see {', '.join(self.unseen.values())} as it is here, unless another "
                "model that is loading holds it up"
            )
        super().__init__(message, hint=None if self.unseen else hint, details=details)


class Abandoned(ServerTimeout):
    """A server was not asked any further, because another server failed: no cause of anything."""

    def __init__(self, endpoint: str) -> None:
        """Name the server."""
        super().__init__(f"{endpoint} was not asked any further", details={"stopped": True})


def together(errors: Sequence[ServingRepoError]) -> ServingRepoError:
    """Return one error for the errors of several servers: a cause, with all the others `alongside`.

    A server that only ran out of time is named as the cause if no other one is.
    """
    causes = [error for error in errors if not isinstance(error, Abandoned)] or list(errors)
    first = min(causes, key=lambda error: isinstance(error, ServerTimeout))
    first.problems = (*first.problems, *(error.message for error in causes if error is not first))
    first.alongside = tuple(error for error in errors if error is not first)
    uncertain, unseen = uncertain_endpoints(first), unseen_paths(first)
    if uncertain:
        first.add_details(uncertain=sorted(uncertain))
    if unseen:
        first.add_details(unseen=unseen)
    return first


def uncertain_endpoints(error: ServingRepoError) -> set[str]:
    """Return the endpoints that may still carry out a reload."""
    return {one.endpoint for one in _late(error) if one.uncertain}


def unseen_paths(error: ServingRepoError) -> dict[str, dict[str, str]]:
    """Return by endpoint and model the base paths that servers most likely do not see."""
    return {one.endpoint: one.unseen for one in _late(error) if one.unseen}


def _late(error: ServingRepoError) -> list[FollowTimeout]:
    return [one for one in (error, *error.alongside) if isinstance(one, FollowTimeout)]


def say_both_paths(repo: Repository, error: ServingRepoError) -> None:
    """Add to an error of servers that do not see our files where these are, here and there, and what to do."""
    unseen = unseen_paths(error)
    paths = {
        model: base_path for by_model in unseen.values() for model, base_path in by_model.items()
    }
    if not paths:
        return
    error.problems = (
        *error.problems,
        *(
            f"the server must see at {base_path} what is at {repo.layout.model(model)} on this machine"
            for model, base_path in sorted(paths.items())
        ),
    )
    error.hint = (
        f"mount {repo.layout.models} where {', '.join(sorted(unseen))} sees {repo.server_root}, and restart it: a "
        "reload that hangs ends no earlier; or say with servingrepo config write --server-root where it sees it"
    )
