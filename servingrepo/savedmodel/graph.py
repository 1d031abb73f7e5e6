"""Follow tensors through a graph and its functions: which inputs are parsed as tf.Example, and into what.

A signature that takes serialized tf.Examples says only "string". What features it wants stands in the
ParseExample op that the string reaches: version 1 has its keys in separate inputs, version 2 in vectors,
and in TensorFlow 2 exports the op lies in a function of the graph's library. Nothing is executed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from servingrepo.savedmodel.signatures import INIT_OP_KEY, dtype_name, shape_from, texts_of
from servingrepo.savedmodel.values import ExampleInput, Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.savedmodel.values import FeatureKind

__all__ = ["GraphReader", "Scope", "example_inputs", "origin", "origins"]

STEP_LIMIT = 200_000
"""Edges followed per input before giving up: a real graph needs a few dozen."""

TOTAL_STEP_LIMIT = 500_000
"""Edges followed for all inputs together: an export that others wrote may have 100,000 inputs."""

MAX_DEPTH = 64
"""Nested function calls followed."""

MAX_SCOPES = 1_000
"""Function calls followed per input: functions that call each other twice would double at every level."""

_PASSING = frozenset(
    {
        *("Identity", "Reshape", "ExpandDims", "Squeeze", "PlaceholderWithDefault", "StopGradient"),
        *("Snapshot", "EnsureShape", "Pack", "ConcatV2", "StridedSlice", "Slice", "GatherV2"),
        *("PreventGradient", "Tile", "Switch", "RefSwitch", "Merge", "Enter", "Exit"),
    }
)
"""Ops whose first output holds the strings of one of their inputs."""
_PARSERS = frozenset({"ParseExample", "ParseExampleV2", "ParseSingleExample"})


class Body:
    """The nodes of the main graph or of one function, by name and by what they take."""

    def __init__(self, nodes: Any, function: Any = None) -> None:
        self.function = function
        self.nodes = {node.name: node for node in nodes}
        inputs = function.signature.input_arg if function is not None else ()
        self.arguments = {one.name: place for place, one in enumerate(inputs)}
        self.consumers: dict[str, list[tuple[Any, int]]] = {}
        for node in nodes:
            for place, name in enumerate(node.input):
                if not name.startswith("^"):
                    self.consumers.setdefault(_normal(name), []).append((node, place))


class Scope:
    """The main graph or one function's body, and the call that led there."""

    def __init__(self, body: Body, caller: Scope | None, call: Any) -> None:
        self.function = body.function
        self.caller = caller
        self.call = call
        self.depth: int = 0 if caller is None else caller.depth + 1
        self.nodes = body.nodes
        self.arguments = body.arguments
        self.consumers = body.consumers


class GraphReader:
    """One GraphDef with its functions by name.

    `gave_up` is set when inputs were not followed to their ends because there was too much to follow.
    """

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.functions = {one.signature.name: one for one in graph.library.function}
        self.main = Scope(Body(graph.node), None, None)
        self.gave_up = False
        self._steps = 0
        self._bodies: dict[str, Body] = {}
        self._calls: dict[str, tuple[tuple[Any, tuple[str, ...]], ...]] = {}

    def body(self, function: str = "") -> Any:
        """Return the nodes of a function, or of the main graph."""
        return self.functions[function].node_def if function else self.graph.node

    def calls(self, function: str = "") -> tuple[tuple[Any, tuple[str, ...]], ...]:
        """Return the nodes of a function, or of the main graph, that call functions, each with their names."""
        if function not in self._calls:
            found = ((node, tuple(_functions_of(node, self))) for node in self.body(function))
            self._calls[function] = tuple(one for one in found if one[1]) if self.functions else ()
        return self._calls[function]

    def scope(self, function: Any, caller: Scope | None, call: Any) -> Scope:
        """Return a function's body as called from somewhere."""
        name = function.signature.name
        if name not in self._bodies:
            self._bodies[name] = Body(function.node_def, function)
        return Scope(self._bodies[name], caller, call)

    def behind(self, tensors: Iterable[str]) -> set[str]:
        """Return the names of the nodes of the main graph that must run for these tensors or nodes to be known."""
        nodes = self.main.nodes
        found: set[str] = set()
        pending = [node_of(name) for name in tensors]
        while pending:
            name = pending.pop()
            if name in found or name not in nodes:
                continue
            found.add(name)
            pending.extend(node_of(one) for one in nodes[name].input)
        return found

    def called(self, node: Any) -> Any:
        """Return the function that a call op runs, or None."""
        name = node.attr["f"].func.name if "f" in node.attr else node.op
        return self.functions.get(name)

    def example_features(self, tensor: str) -> tuple[tuple[Feature, ...], bool] | None:
        """Return the features that a tensor of the main graph is parsed into, and whether it is one example.

        Returns None when the tensor reaches no op that parses tf.Examples.
        """
        found: dict[str, Feature] = {}
        singles = []
        for scope, node in self._parsers(tensor):
            singles.append(node.op == "ParseSingleExample")
            for feature in _features(scope, node):
                found.setdefault(feature.key, feature)
        if not singles:
            return None
        return tuple(found[key] for key in sorted(found)), all(singles)

    def _parsers(self, tensor: str) -> Iterator[tuple[Scope, Any]]:
        """Yield the parsing ops that a tensor of the main graph reaches, with where they are."""
        pending: list[tuple[Scope, str]] = [(self.main, _normal(tensor))]
        seen: set[tuple[int, str]] = set()
        scopes: dict[tuple[int, str], Scope] = {}  # keeps them alive: `seen` holds their ids
        begun = self._steps
        while pending:
            if self._steps - begun >= STEP_LIMIT or self._steps >= TOTAL_STEP_LIMIT:
                self.gave_up = True
                return
            scope, name = pending.pop()
            self._steps += 1
            if (id(scope), name) in seen:
                continue
            seen.add((id(scope), name))
            pending.extend(_returned(scope, name))
            for node, place in scope.consumers.get(name, ()):
                self._steps += 1
                if node.op in _PARSERS and place == 0:
                    yield scope, node
                pending.extend(self._next(scope, node, place, scopes))

    def _next(
        self, scope: Scope, node: Any, place: int, scopes: dict[tuple[int, str], Scope]
    ) -> list[tuple[Scope, str]]:
        """Return where the strings in an input of a node go on."""
        if node.op in _PASSING:
            return [(scope, node.name)]
        if node.op == "IdentityN":
            return [(scope, _output(node.name, place))]
        function = self.called(node)
        if function is None or place >= len(function.signature.input_arg):
            return []
        site = (id(scope), node.name)
        if site not in scopes:
            if scope.depth >= MAX_DEPTH or len(scopes) >= MAX_SCOPES:
                return []
            scopes[site] = self.scope(function, scope, node)
        return [(scopes[site], function.signature.input_arg[place].name)]


def node_of(name: str) -> str:
    """Return the node of a tensor, or of an input, whose name may say that only its end is waited for."""
    return name.removeprefix("^").partition(":")[0]


def example_inputs(reader: GraphReader, definitions: Any) -> tuple[ExampleInput, ...]:
    """Return every input of every signature that is parsed as tf.Example, sorted by signature and alias."""
    found = []
    known: dict[str, tuple[tuple[Feature, ...], bool] | None] = {}
    for key in sorted(definitions):
        if key == INIT_OP_KEY:
            continue
        for alias, info in sorted(definitions[key].inputs.items()):
            if info.name not in known:
                known[info.name] = reader.example_features(info.name)
            parsed = known[info.name]
            if parsed is not None:
                features, single = parsed
                found.append(
                    ExampleInput(signature=key, alias=alias, single=single, features=features)
                )
    return tuple(found)


def _functions_of(node: Any, reader: GraphReader) -> Iterator[str]:
    """Yield the names of the graph's functions that a node calls, by its op or by an attribute."""
    if node.op in reader.functions:
        yield node.op
    for value in node.attr.values():
        if value.HasField("func") and value.func.name in reader.functions:
            yield value.func.name
        if value.HasField("list"):
            for function in value.list.func:
                if function.name in reader.functions:
                    yield function.name


def _normal(name: str) -> str:
    """Return a tensor's name without the `:0` or `:output:0` of a first output, so that names compare.

    In the main graph an output is `node:1`; in a function it is `node:output:0`, where the middle is the op's
    name of the output.
    """
    parts = name.split(":")
    if len(parts) == 1 or parts[-1] == "0":
        return parts[0]
    return f"{parts[0]}:{parts[-1]}"


def _output(node: str, place: int) -> str:
    return node if place == 0 else f"{node}:{place}"


def _returned(scope: Scope, name: str) -> list[tuple[Scope, str]]:
    """Return where a tensor goes on in the caller, if the function returns it."""
    if scope.function is None or scope.caller is None:
        return []
    return [
        (scope.caller, _output(scope.call.name, place))
        for place, one in enumerate(scope.function.signature.output_arg)
        if _normal(scope.function.ret.get(one.name, "")) == name
    ]


def _constant(scope: Scope, name: str) -> Any:
    """Return the TensorProto behind an input, through Identity ops and function arguments, or None."""
    node = origin(scope, name)
    return node.attr["value"].tensor if node is not None and node.op == "Const" else None


def origin(scope: Scope, name: str) -> Any:
    """Return the node that an input comes from unchanged in the end, None if it is not known."""
    last = deque(origins(scope, name), maxlen=1)
    return last[0][1] if last else None


def origins(scope: Scope, name: str) -> Iterator[tuple[Scope, Any]]:
    """Yield the nodes that an input comes from unchanged, nearest first, through functions' arguments."""
    at: Scope | None = scope
    for _ in range(MAX_DEPTH):
        if at is None:
            return
        base = _normal(name)
        if base in at.arguments:
            place = at.arguments[base]
            if place >= len(at.call.input):
                return
            name, at = at.call.input[place], at.caller
            continue
        node = at.nodes.get(base)
        if node is None:
            return
        yield at, node
        if node.op not in {"Identity", "Snapshot", "StopGradient"} or not node.input:
            return
        name = node.input[0]


def _strings(tensor: Any) -> list[str]:
    """Return the strings of a Const."""
    return texts_of(tensor.string_val) if tensor is not None else []


def _features(scope: Scope, node: Any) -> Iterator[Feature]:
    attributes = node.attr
    inputs = [name for name in node.input if not name.startswith("^")]
    sparse_types = list(attributes["sparse_types"].list.type)
    dense_types = list(attributes["Tdense"].list.type)
    shapes = [shape_from(one) for one in attributes["dense_shapes"].list.shape]
    ragged: list[str] = []
    ragged_types = list(attributes["ragged_value_types"].list.type)
    if node.op == "ParseExample":
        sparse_count, dense_count = attributes["Nsparse"].i, attributes["Ndense"].i
        if not 0 <= sparse_count <= len(inputs) or not 0 <= dense_count <= len(inputs):
            return
        at = 2 + sparse_count
        sparse = _keys_of_scalars(scope, inputs[2:at])
        dense = _keys_of_scalars(scope, inputs[at : at + dense_count])
        defaults = inputs[at + dense_count :]
    elif node.op == "ParseExampleV2":
        sparse, dense, ragged = (
            _strings(_constant(scope, name)) for name in [*inputs[2:5], "", "", ""][:3]
        )
        defaults = inputs[5:]
    else:
        sparse = texts_of(attributes["sparse_keys"].list.s)
        dense = texts_of(attributes["dense_keys"].list.s)
        defaults = inputs[1:]
    free: tuple[tuple[FeatureKind, list[str], list[int]], ...] = (
        ("sparse", sparse, sparse_types),
        ("ragged", ragged, ragged_types),
    )
    for kind, keys, types in free:
        for key, dtype in zip(keys, types, strict=False):
            name = dtype_name(dtype)
            yield Feature(key=key, dtype=name, kind=kind, shape=None, has_default=True)
    for place, (key, dtype) in enumerate(zip(dense, dense_types, strict=False)):
        shape = shapes[place] if place < len(shapes) else None
        default = _constant(scope, defaults[place]) if place < len(defaults) else None
        yield Feature(
            key=key,
            dtype=dtype_name(dtype),
            kind="dense",
            shape=shape,
            # example_proto_helper.cc: an empty default means required; a free length may be empty.
            has_default=(shape is not None and shape[:1] == (None,))
            or (default is not None and all(dim.size > 0 for dim in default.tensor_shape.dim)),
        )


def _keys_of_scalars(scope: Scope, names: list[str]) -> list[str]:
    return [(_strings(_constant(scope, name)) or [""])[0] for name in names]
