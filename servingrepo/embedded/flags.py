"""tensorflow_model_server's flags, and their parser.

After model_servers/main.cc and tensorflow/core/util/command_line_flags.cc: a flag is `--name=value`, a bool is
`--name`, `--name=true` or `--name=false`, and the last of several counts. A value that does not parse ends the
program; an unknown argument does not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FAILED", "FLAGS", "Arguments", "Flag", "parse", "usage"]

FAILED = 255
"""The exit code after a command line that cannot be read, and of a server that could not start."""

Value = int | float | bool | str
Kind = Literal["int32", "int64", "float", "bool", "string"]
_RANGES = {"int32": 2**31, "int64": 2**63}
_INTEGER = re.compile(r"\s*[+-]?[0-9]+")


class Flag(msgspec.Struct, frozen=True):
    """A flag. `done` is False if the embedded server accepts it without effect."""

    name: str
    kind: Kind
    default: Value
    help: str
    done: bool = True


class Arguments(msgspec.Struct, frozen=True):
    """A parsed command line: a value per flag, the given flags, and the unknown arguments."""

    values: dict[str, Value]
    given: tuple[str, ...]
    rest: tuple[str, ...]

    def text(self, name: str) -> str:
        """Return a string flag's value."""
        return str(self.values[name])

    def number(self, name: str) -> int:
        """Return an integer flag's value."""
        return int(self.values[name])

    def truth(self, name: str) -> bool:
        """Return a bool flag's value."""
        return bool(self.values[name])


_ABSENT = "not done by the embedded server"

FLAGS: tuple[Flag, ...] = (
    Flag("port", "int32", 8500, "TCP port for gRPC; 0 for none"),
    Flag("grpc_socket_path", "string", "", "also listen on this UNIX socket"),
    Flag("rest_api_port", "int32", 0, "TCP port for REST; 0 for none"),
    Flag("rest_api_num_threads", "int32", 0, "REST requests at the same time; 0 for automatic"),
    Flag("rest_api_timeout_in_ms", "int32", 30000, "time for a REST inference; 0 for no limit"),
    Flag("rest_api_enable_cors_support", "bool", False, "add CORS headers to REST answers"),
    Flag(
        "enable_batching",
        "bool",
        False,
        "it changes nothing here; with it a real server answers INVALID_ARGUMENT to scalar inputs, to inputs"
        " with different sizes in dimension 0, and to batches above max_batch_size",
        done=False,
    ),
    Flag(
        "allow_version_labels_for_unavailable_models",
        "bool",
        False,
        "a new label may point to a version that is not loaded",
    ),
    Flag("batching_parameters_file", "string", "", _ABSENT, done=False),
    Flag("enable_per_model_batching_parameters", "bool", False, _ABSENT, done=False),
    Flag("model_config_file", "string", "", "text-format ModelServerConfig"),
    Flag(
        "model_config_file_poll_wait_seconds",
        "int32",
        0,
        "read the config file again every so many seconds; 0 for once",
    ),
    Flag("model_name", "string", "default", "name of the only model, without a config file"),
    Flag("model_base_path", "string", "", "base path of the only model, without a config file"),
    Flag(
        "num_load_threads", "int32", 0, "loads at the same time after the start; 0 for one, inline"
    ),
    Flag("num_unload_threads", "int32", 0, "unloads at the same time; 0 for one, inline"),
    Flag("max_num_load_retries", "int32", 5, "attempts after the first that failed"),
    Flag("load_retry_interval_micros", "int64", 60_000_000, "pause between attempts"),
    Flag(
        "file_system_poll_wait_seconds",
        "int32",
        1,
        "look for versions every so many seconds; 0 for once, negative for never",
    ),
    # There is no cache of files here, so there is nothing to flush.
    Flag("flush_filesystem_caches", "bool", True, "has no effect on local files"),
    Flag("tensorflow_session_parallelism", "int64", 0, "threads per session; 0 for automatic"),
    Flag("tensorflow_intra_op_parallelism", "int64", 0, "threads within an op; 0 for automatic"),
    Flag("tensorflow_inter_op_parallelism", "int64", 0, "ops at the same time; 0 for automatic"),
    Flag("tensorflow_session_config_file", "string", "", _ABSENT, done=False),
    Flag("use_alts_credentials", "bool", False, "refused: there is no ALTS here"),
    Flag("ssl_config_file", "string", "", "text-format SSLConfig: gRPC with TLS"),
    Flag("platform_config_file", "string", "", _ABSENT, done=False),
    Flag("per_process_gpu_memory_fraction", "float", 0.0, _ABSENT, done=False),
    Flag("saved_model_tags", "string", "serve", "comma-separated; matched as an exact set"),
    Flag("grpc_channel_arguments", "string", "", _ABSENT, done=False),
    Flag("grpc_max_threads", "int32", 0, "requests at the same time; 0 for automatic"),
    Flag("enable_model_warmup", "bool", True, "replay assets.extra/tf_serving_warmup_requests"),
    Flag("num_request_iterations_for_warmup", "int32", 0, "times per record; 0 for once"),
    Flag("version", "bool", False, "print the versions and end"),
    Flag(
        "monitoring_config_file", "string", "", "text-format MonitoringConfig; needs rest_api_port"
    ),
    Flag("remove_unused_fields_from_bundle_metagraph", "bool", True, "always done here"),
    Flag("prefer_tflite_model", "bool", False, _ABSENT, done=False),
    Flag("num_tflite_pools", "int32", 0, _ABSENT, done=False),
    Flag("num_tflite_interpreters_per_pool", "int32", 1, _ABSENT, done=False),
    Flag("enable_signature_method_name_check", "bool", False, "check method_name of signatures"),
    Flag("xla_cpu_compilation_enabled", "bool", False, _ABSENT, done=False),
    Flag("xla_gpu_compilation_enabled", "bool", False, _ABSENT, done=False),
    Flag("enable_profiler", "bool", True, _ABSENT, done=False),
    Flag("thread_pool_factory_config_file", "string", "", _ABSENT, done=False),
    Flag("mixed_precision", "string", "", _ABSENT, done=False),
    Flag("skip_initialize_tpu", "bool", False, _ABSENT, done=False),
    Flag("enable_grpc_healthcheck_service", "bool", False, "answer grpc.health.v1.Health"),
    Flag(
        "enable_serialization_as_tensor_content",
        "bool",
        False,
        "Predict answers with tensor_content",
    ),
    Flag("bind_address", "string", "127.0.0.1", "own flag: address to listen on"),
    Flag(
        "tensorflow_log",
        "string",
        "",
        "own flag: file for TensorFlow's messages; a temporary one without",
    ),
    Flag(
        "exit_with_parent",
        "int32",
        0,
        "own flag: end as soon as the process with this id has ended",
    ),
    Flag(
        "play_stale_available",
        "bool",
        False,
        "own flag, for tests: a version that is taken back while it loads stays AVAILABLE for ever",
    ),
)

_BY_NAME = {flag.name: flag for flag in FLAGS}


def parse(argv: Sequence[str]) -> Arguments | str:
    """Parse a command line. Return an error text for a value that cannot be read."""
    values = {flag.name: flag.default for flag in FLAGS}
    given: list[str] = []
    rest: list[str] = []
    for argument in argv:
        name, equals, text = argument.removeprefix("--").partition("=")
        flag = _BY_NAME.get(name) if argument.startswith("--") else None
        if flag is None or not (equals or flag.kind == "bool"):
            rest.append(argument)
            continue
        value = _value(flag.kind, text if equals else "true")
        if value is None:
            return f"couldn't interpret value {text} for flag {name}"
        values[name] = value
        given.append(name)
    return Arguments(values, tuple(given), tuple(rest))


def usage(program: str) -> str:
    """Return the help text."""
    lines = [f"usage: {program}", "Flags:"]
    for flag in FLAGS:
        shown = str(flag.default).lower() if flag.kind == "bool" else repr(flag.default)
        lines.append(f"\t--{flag.name}={shown}\t{flag.kind}\t{flag.help}")
    return "\n".join(lines) + "\n"


def _value(kind: Kind, text: str) -> Value | None:
    match kind:
        case "bool":
            return {"true": True, "false": False}.get(text)
        case "string":
            return text
        case "float":
            try:
                return float(text)
            except ValueError:
                return None
        case "int32" | "int64":
            if not _INTEGER.fullmatch(text):
                return None
            number = int(text)
            return number if -_RANGES[kind] <= number < _RANGES[kind] else None
