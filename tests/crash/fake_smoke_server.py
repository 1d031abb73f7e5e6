"""A fake server for smoke tests: it obeys reloads, and answers as the exports of the runs promise."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servingrepo.protos import get_model_metadata_pb2, predict_pb2, saved_model_pb2
from servingrepo.testing.fake_models import FakeModels
from servingrepo.testing.fake_server import serve_fake

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDPOINT = "server"
"""The file among the runs that says where the fake listens."""


class FakeSmokeServer(FakeModels):
    """One server; every version of every model has the signatures of one export."""

    def __init__(self, export: Path) -> None:
        super().__init__()
        saved = saved_model_pb2.SavedModel.FromString((export / "saved_model.pb").read_bytes())
        self.signatures = dict(saved.meta_graphs[0].signature_def)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Say which version answers, and its signatures."""
        reply = super().GetModelMetadata(request, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in self.signatures.items():
            if not key.startswith("__"):
                signatures.signature_def[key].CopyFrom(definition)
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer with what came in, under the outputs' names."""
        del context
        reply = predict_pb2.PredictResponse()
        reply.model_spec.CopyFrom(request.model_spec)
        key = request.model_spec.signature_name or "serving_default"
        (given,) = request.inputs.values()
        for output in self.signatures[key].outputs:
            reply.outputs[output].CopyFrom(given)
        return reply


@contextmanager
def smoke_server(runs: Path) -> Iterator[None]:
    """Serve the fake for the block, and write down among the runs where it listens."""
    export = Path(runs) / "first" / "saved_model"
    with serve_fake(FakeSmokeServer(export)) as client:
        (runs / ENDPOINT).write_text(str(client.endpoint))
        yield
