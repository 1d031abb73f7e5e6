"""What an error from a server says: is the model at fault, or may it be the data?

The rule: `failed` needs an error that no data could avoid. Everything else is inconclusive, because made-up
data may be nonsense to a good model. Codes and texts are those of TensorFlow Serving 2.19 and its TensorFlow.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servingrepo.errors import RequestRefused
    from servingrepo.smoke.report import Outcome

__all__ = ["classify_refusal"]

_NO_DATA_HELPS = re.compile(
    r"Expects arg\[\d+\] to be \w+ but \w+ is provided"
    r"|No OpKernel was registered"
    r"|Op type not registered"
    r"|Cannot assign a device for operation"
    r"|You must feed a value for placeholder"
    r"|was not found in the [Gg]raph"
    r"|FetchOutputs node"
    r"|uninitialized value"
    r"|Could not find variable"
    r"|[Rr]esource .* does not exist"
    r"|[Tt]able not initialized"
    r"|only supports? (?:the )?NHWC"
    r"|Expected prediction signature method_name"
)
_FAILED_CODES = frozenset({"FAILED_PRECONDITION", "NOT_FOUND", "UNIMPLEMENTED", "INTERNAL"})
_FROM_A_NAME = re.compile(r"No such file or directory")


def classify_refusal(refused: RequestRefused) -> Outcome:
    """Return whether the refusal of a request with made-up data speaks against the model."""
    if _NO_DATA_HELPS.search(refused.text):
        return "failed"
    if refused.code == "NOT_FOUND" and _FROM_A_NAME.search(refused.text):
        return "inconclusive"  # a made-up string was taken for the name of a file
    return "failed" if refused.code in _FAILED_CODES else "inconclusive"
