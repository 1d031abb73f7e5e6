"""doctor on compose files: how the server is started, and what it sees of this machine."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingrepo.protos import saved_model_pb2
from servingrepo.verbs.doctor import doctor
from servingrepo.verbs.doctor_compose import Service, judge_service, read_compose
from servingrepo.verbs.options import DoctorOptions
from tests.support import without_root
from tests.verbs.doctoring import (
    COMPOSE,
    compose,
    configure,
    entry,
    examine,
    export,
    models,
    slugs,
    the,
)

if TYPE_CHECKING:
    from pathlib import Path

LABEL = 'version_labels { key: "stable" value: 2 }'
CONFIG_FLAG = "--model_config_file"


def service(file: Path, **variables: str) -> Service:
    (one,) = read_compose(file, variables).services
    return one


@pytest.mark.parametrize(
    ("without", "more", "slug"),
    [
        ("init:", "", "no-init"),
        ("max_num_load_retries", "", "default-retries"),
        ("", "    environment: {MODEL_NAME: half}\n", "model-name-ignored"),
        (
            "",
            '    healthcheck: {test: ["CMD", "curl", "-f", "http://localhost:8501/v1/models/half"]}\n',
            "health-check-without-curl",
        ),
        ("", "    healthcheck: {test: wget -q localhost:8501}\n", "health-check-without-curl"),
        ("model_config_file", "", "config-not-used"),
    ],
)
def test_a_service_that_makes_trouble_is_found(
    tmp_path: Path, without: str, more: str, slug: str
) -> None:
    models(tmp_path)
    found = examine(tmp_path, compose=compose(tmp_path, without=without, more=more))
    one = the(found, slug)
    assert one.path.endswith("docker-compose.yml: service serving")
    assert found.exit_code == (36 if one.severity == "error" else found.exit_code)


def test_labels_without_the_flag_are_an_error(tmp_path: Path) -> None:
    configure(models(tmp_path), entry("half", "specific { versions: 2 }", labels=LABEL))
    found = examine(tmp_path, compose=compose(tmp_path, without="allow_version_labels"))
    assert slugs(found) == ["labels-without-flag"]
    assert found.exit_code == 36
    assert slugs(examine(tmp_path, compose=compose(tmp_path))) == []


def test_flags_without_equals_are_found(tmp_path: Path) -> None:
    models(tmp_path)
    text = COMPOSE.replace(
        "--model_config_file=/models/models.config", "--model_config_file\n      - /models/x"
    )
    found = examine(tmp_path, compose=compose(tmp_path, text))
    assert "write --model_config_file=/models/x" in the(found, "flag-without-equals").fix


def test_a_config_that_is_mounted_alone_is_found(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    more = f"      - {shelf}/models.config:/etc/models.config\n"
    text = COMPOSE.replace("/models/models.config", "/etc/models.config")
    found = examine(tmp_path, compose=compose(tmp_path, text, more=more))
    assert slugs(found) == ["config-mounted-alone"]
    assert f"{shelf}:/etc" in the(found, "config-mounted-alone").fix


def test_a_config_of_compose_is_mounted_alone_too(tmp_path: Path) -> None:
    models(tmp_path)
    more = "    configs:\n      - {source: serving, target: /etc/models.config}\n"
    text = COMPOSE.replace("/models/models.config", "/etc/models.config")
    found = examine(tmp_path, compose=compose(tmp_path, text, more=more))
    assert slugs(found) == ["config-mounted-alone"]
    assert any("/etc/models.config" in one for one in found.not_checked)


def test_a_base_path_that_is_not_mounted_is_found(tmp_path: Path) -> None:
    configure(models(tmp_path), entry("half", base_path="/srv/half"))
    found = examine(tmp_path, compose=compose(tmp_path))
    assert slugs(found)[0] == "base-path-not-mounted"
    assert "/srv" in the(found, "base-path-not-mounted").fix


def test_a_config_that_is_not_there_is_found(tmp_path: Path) -> None:
    models(tmp_path, config=False)
    found = examine(tmp_path, compose=compose(tmp_path))
    assert slugs(found)[0] == "config-missing"


def test_another_directory_that_is_mounted_is_said(tmp_path: Path) -> None:
    models(tmp_path)
    models(tmp_path / "other")
    found = examine(tmp_path / "other", compose=compose(tmp_path))
    assert "other-tree-mounted" in slugs(found)


def test_a_container_for_one_model_is_judged(tmp_path: Path) -> None:
    """No config: MODEL_NAME names the only model, and its highest version is served."""
    shelf = models(tmp_path, config=False)
    (shelf / "half" / "3").mkdir()
    text = """
services:
  tf:
    image: tensorflow/serving
    init: true
    command: --max_num_load_retries=0
    environment: [MODEL_NAME=half]
    volumes: [{type: bind, source: ./models/half, target: /models/half}]
"""
    found = doctor(None, DoctorOptions(compose=compose(tmp_path, text)))
    assert found.path == str(shelf)
    assert slugs(found) == ["cannot-load", "serves-at-once"]
    found = examine(tmp_path, compose=compose(tmp_path, text.replace("MODEL_NAME=half", "A=b")))
    assert "base-path-not-mounted" in slugs(found)


def test_user_that_cannot_read_is_found() -> None:
    with without_root() as folder:
        shelf = models(folder)
        file = shelf / "half" / "2" / "saved_model.pb"
        file.chmod(0o600)
        more = '    user: "{}:{}"\n'
        found = examine(folder, compose=compose(folder, more=more.format(4711, 4711)))
        assert slugs(found) == ["not-readable-by-server"]
        assert str(file) in the(found, "not-readable-by-server").fix
        assert found.exit_code == 52
        owner = file.stat().st_uid
        assert slugs(examine(folder, compose=compose(folder, more=more.format(owner, 0)))) == []
        assert slugs(examine(folder, compose=compose(folder))) == []


def test_directory_that_a_user_cannot_enter_is_found() -> None:
    with without_root() as folder:
        shelf = models(folder)
        (shelf / "half").chmod(0o700)
        found = examine(folder, compose=compose(folder, more='    user: "4711:4711"\n'))
        assert the(found, "not-readable-by-server").path == str(shelf / "half")


def test_operations_that_a_server_lacks_are_found(tmp_path: Path) -> None:
    """An operation that no published server has stands in the graph of the pinned version."""
    shelf = models(tmp_path)
    file = shelf / "half" / "2" / "saved_model.pb"
    graph = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph.meta_graphs[0].graph_def.node.add(name="x", op="NoSuchOperation")
    file.write_bytes(graph.SerializeToString())
    found = examine(tmp_path, compose=compose(tmp_path))
    assert slugs(found) == ["server-lacks-operations"]
    assert "NoSuchOperation" in the(found, "server-lacks-operations").what
    assert found.exit_code == 23


def test_models_for_gpus_suit_images_for_gpus(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    export(shelf / "half" / "2", device="/device:GPU:0")
    found = examine(tmp_path, compose=compose(tmp_path))
    assert slugs(found) == ["cannot-load"]
    assert "on CPUs" in the(found, "cannot-load").consequence
    text = COMPOSE.replace("2.19.1", "2.19.1-gpu")
    found = examine(tmp_path, compose=compose(tmp_path, text))
    assert slugs(found) == []
    assert any("pinned to GPUs" in one for one in found.not_checked)


def test_an_image_of_ones_own_is_not_judged(tmp_path: Path) -> None:
    models(tmp_path)
    text = COMPOSE.replace("tensorflow/serving:2.19.1", "example/tf-serving")
    found = examine(tmp_path, compose=compose(tmp_path, text, without="init:"))
    assert found.findings == ()
    said = "\n".join(found.not_checked)
    assert "what its image 'example/tf-serving' brings" in said
    assert "names no version" in said


def test_exports_newer_than_the_server_are_found(tmp_path: Path) -> None:
    models(tmp_path)
    text = COMPOSE.replace("2.19.1", "2.12.1")
    found = examine(tmp_path, compose=compose(tmp_path, text))
    assert slugs(found) == ["export-newer"]
    assert "2.12" in the(found, "export-newer").what


VARIABLES = """
services:
  serving:
    image: tensorflow/serving:${TAG:-2.19.1}
    init: ${INIT:-true}
    user: ${WHO-1000:1000}
    command: ["--model_config_file=${WHERE:-${ROOT:-/models}}/models.config", "--a=$$HOME", "--b=${NOSUCH}"]
    volumes: ["${HERE:?}/models:/models", "cache:/cache"]
"""


def test_variables_are_replaced_as_compose_does(tmp_path: Path) -> None:
    file = compose(tmp_path, VARIABLES)
    (tmp_path / ".env").write_text("# x\nexport TAG='2.18.0' # y\nWHO=5\nHERE=.\n")
    one = service(file, WHO="7:8", ROOT="/m")
    assert one.image == "tensorflow/serving:2.18.0"
    assert one.user == (7, 8)
    assert one.config == "/m/models.config"
    assert one.flags["a"] == "$HOME"
    assert [(each.target, each.source) for each in one.mounts] == [
        ("/models", str(tmp_path / "models")),
        ("/cache", ""),
    ]
    assert any("--b: " in each for each in one.unresolved)
    assert one.init is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("./models:", "${NOSUCH}:"),
        ("./models:/models:ro", "./models:${NOSUCH:?}:ro"),
        ("=/models/models.config", "=${NOSUCH}"),
        ("--allow_version_labels_for_unavailable_models=true", "${NOSUCH}"),
        ("--max_num_load_retries=0", "--max_num_load_retries=$NOSUCH"),
    ],
)
def test_what_has_no_value_here_is_no_finding(tmp_path: Path, old: str, new: str) -> None:
    """A variable may be set where the server is started."""
    configure(models(tmp_path), entry("half", "specific { versions: 2 }", labels=LABEL))
    found = examine(tmp_path, compose=compose(tmp_path, COMPOSE.replace(old, new)))
    assert slugs(found) == []
    assert any(
        "has no value here" in one or "without a value here" in one for one in found.not_checked
    )


@pytest.mark.parametrize("more", ["environment: {MODEL_NAME: $NOSUCH}", "env_file: x"])
def test_a_model_without_a_name_here_is_no_finding(tmp_path: Path, more: str) -> None:
    models(tmp_path, config=False)
    file = compose(tmp_path, without="model_config_file", more=f"    {more}\n")
    found = examine(tmp_path, compose=file)
    assert slugs(found) == []
    assert any("what it serves" in one for one in found.not_checked)


def test_what_cannot_be_resolved_is_not_checked(tmp_path: Path) -> None:
    models(tmp_path)
    text = COMPOSE.replace("./models:", "${NOSUCH}:").replace("2.19.1", "${TAG}")
    found = examine(tmp_path, compose=compose(tmp_path, text, more="    env_file: x\n"))
    said = "\n".join(found.not_checked)
    assert "${NOSUCH}" in said
    assert "env_file" in said


def test_services_that_extend_and_include_are_read(tmp_path: Path) -> None:
    """As compose/ of this project: a service extends one of another file, whose paths begin beside that file."""
    models(tmp_path / "deploy")
    (tmp_path / "deploy" / "base.yml").write_text(COMPOSE)
    text = "services: {mine: {extends: {file: deploy/base.yml, service: serving}, user: '1:2'}}\n"
    one = service(compose(tmp_path, text))
    assert (one.user, one.init) == ((1, 2), True)
    assert one.mounts[0].source == str(tmp_path / "deploy" / "models")
    one = service(compose(tmp_path, "include: [{path: deploy/base.yml}]\n"))
    assert one.name == "serving"
    assert one.mounts[0].source == str(tmp_path / "deploy" / "models")


def test_the_compose_file_of_this_project_is_good(tmp_path: Path) -> None:
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "compose"
    shelf = models(tmp_path)
    variables = {
        "SERVINGREPO_DIR": str(tmp_path),
        "SERVINGREPO_USER": f"{os.getuid()}:{os.getgid()}",
    }
    found = examine(shelf, compose=folder / "docker-compose.yml", variables=variables)
    assert found.findings == ()
    file = folder / "docker-compose.yml"
    assert set(found.services) == {f"{file}: service serving", f"{file}: service smoke"}
    said = "its flags: bash /smoke.sh starts the server"
    assert any(said in one for one in found.not_checked), found.not_checked


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"
    for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "services: [1, 2]",
        "- no mapping",
        "services: {a: {image: !!python/object/apply:os.system ['true']}}",
        "a: " + "[" * 5000,
        "x" * 300_000,
        "services: {a: {extends: a, image: tensorflow/serving}}",
        "services: {a: {extends: {file: ../../../etc/passwd, service: a}, image: tensorflow/serving}}",
        "services: {a: {image: tensorflow/serving, volumes: [1, {}, {type: bind}, ':'], command: {}}}",
        "services: {a: {image: tensorflow/serving, healthcheck: 7, user: {}, environment: 3, init: x}}",
        "include: [../x.yml, {path: [1]}, docker-compose.yml]\nservices: {a: {image: x}}",
        "services: {a: {image: tensorflow/serving, volumes: ['~nosuch:/models', '${A:-x:y}:/m']}}",
        f"include: [{'docker-compose.yml, ' * 50}]\nservices: {{a: {{image: tensorflow/serving}}}}",
        f"include: [{', '.join(f'./{number}/../docker-compose.yml' for number in range(50))}]\nservices: {{}}",
    ],
)
def test_hostile_compose_files_neither_hang_nor_run(tmp_path: Path, text: str) -> None:
    models(tmp_path)
    begun = time.process_time()
    found = examine(tmp_path, compose=compose(tmp_path, text))
    assert time.process_time() - begun < 20
    unserved = any("no service runs TensorFlow Serving" in one for one in found.not_checked)
    assert found.services or unserved or slugs(found) == ["compose-unreadable"]


KEYS = st.sampled_from(
    [
        *(
            "services",
            "include",
            "volumes",
            "a",
            "image",
            "command",
            "entrypoint",
            "environment",
            "env_file",
        ),
        *(
            "extends",
            "file",
            "service",
            "healthcheck",
            "test",
            "disable",
            "user",
            "init",
            "configs",
        ),
        *("type", "source", "target", "path", "driver_opts", "o", "device"),
    ]
)
TEXTS = st.sampled_from(
    [
        *(
            "",
            "a",
            "x.yml",
            "docker-compose.yml",
            "tensorflow/serving",
            "bind",
            "./models:/models",
            ":",
            "::",
        ),
        *(
            "${A:-${A}}",
            "${",
            "$",
            "$$",
            "${A:?x}",
            "--model_config_file=/m",
            "--port",
            "'",
            "root",
            "1:2",
        ),
    ]
)
VALUES: st.SearchStrategy[object] = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(service=st.dictionaries(KEYS, VALUES), more=st.dictionaries(KEYS, VALUES))
def test_no_document_makes_the_reader_fail(
    tmp_path: Path, service: dict[str, object], more: dict[str, object]
) -> None:
    document = {**more, "services": {"a": {"image": "tensorflow/serving", **service}}}
    found = read_compose(compose(tmp_path, yaml.safe_dump(document)), {})
    for one in found.services:
        assert list(judge_service(one)) is not None


def test_nothing_beside_a_compose_file_is_read(tmp_path: Path) -> None:
    """A file that lies elsewhere, or behind a link that leads elsewhere, is named and not read."""
    (tmp_path / "outside.yml").write_text(COMPOSE)
    inside = tmp_path / "inside"
    models(inside)
    (inside / "link.yml").symlink_to("../outside.yml")
    for file in ("../outside.yml", "link.yml"):
        text = f"services: {{a: {{extends: {{file: {file}, service: serving}}, image: tensorflow/serving}}}}\n"
        one = service(compose(inside, text))
        assert "--model_config_file" not in one.flags
        assert one.unresolved
