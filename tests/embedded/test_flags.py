from __future__ import annotations

import pytest

from servingrepo.embedded.flags import FLAGS, Arguments, parse, usage


def parsed(*argv: str) -> Arguments:
    result = parse(argv)
    assert isinstance(result, Arguments)
    return result


def test_parse_defaults_are_those_of_the_real_server() -> None:
    arguments = parsed()
    expected = {
        "port": 8500,
        "max_num_load_retries": 5,
        "load_retry_interval_micros": 60_000_000,
        "file_system_poll_wait_seconds": 1,
        "num_load_threads": 0,
        "saved_model_tags": "serve",
        "enable_model_warmup": True,
        "bind_address": "127.0.0.1",
    }
    assert {name: arguments.values[name] for name in expected} == expected
    assert arguments.given == ()


def test_parse_the_last_of_several_counts() -> None:
    assert parsed("--port=1", "--port=2").number("port") == 2


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_batching", True),
        ("--enable_batching=true", True),
        ("--enable_batching=false", False),
    ],
)
def test_parse_bools(argument: str, value: bool) -> None:
    assert parsed(argument).truth("enable_batching") is value


@pytest.mark.parametrize(
    "argument",
    [
        "--enable_batching=1",
        "--enable_batching=True",
        "--enable_batching=",
        "--port=x",
        "--port=",
        "--port=80 ",
        "--port=2147483648",
        "--port=1.5",
        "--load_retry_interval_micros=9223372036854775808",
        "--per_process_gpu_memory_fraction=x",
    ],
)
def test_parse_refuses_a_bad_value(argument: str) -> None:
    result = parse([argument])
    assert isinstance(result, str)
    assert argument.partition("=")[0].removeprefix("--") in result


def test_parse_leaves_the_rest() -> None:
    arguments = parsed("--port", "8501", "-port=1", "--nope=1", "--model_name=m", "x")
    assert arguments.rest == ("--port", "8501", "-port=1", "--nope=1", "x")
    assert arguments.number("port") == 8500
    assert arguments.text("model_name") == "m"


def test_parse_values_may_hold_equals_signs_and_nothing() -> None:
    arguments = parsed("--model_base_path=/a=b", "--saved_model_tags=")
    assert arguments.text("model_base_path") == "/a=b"
    assert arguments.text("saved_model_tags") == ""


def test_usage_names_every_flag() -> None:
    text = usage("x")
    assert all(f"--{flag.name}=" in text for flag in FLAGS)
