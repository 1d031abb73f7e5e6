from __future__ import annotations

import pytest

from servingrepo.masking import MASK, mask, mask_command
from servingrepo.runs.tracing import VARIABLES, pipeline_ids


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db/PASSWORD", "api_key", "apiKey", "api-key", "aws_secret_access_key"),
        *("auth_token", "GITHUB_TOKEN", "credentials", "sentry_dsn", "private_key", "userPwd"),
    ],
)
def test_a_secret_is_masked_by_its_name(name: str) -> None:
    assert mask(name, "anything") == MASK


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_tokens", "512"), ("tokenizer", "bert"), ("author", "me"), ("keys", "3")),
        *(("commit", "0123456789abcdef0123456789abcdef01234567"), ("lr", "1e-3")),
        *(("url", "https://host:8080/a@b?page=3"), ("note", "a basic model"), ("token", "")),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str) -> None:
    assert mask(name, value) == value


@pytest.mark.parametrize(
    "value",
    [
        "postgres://me:s3cr3t@db/x",
        "https://s3cr3t@github.com/a/b",
        "https://blob/x?sv=1&sig=s3cr3t",
        "https://x/?access_token=s3cr3t&page=2",
        "ghp_s3cr3t0123456789abcdefghij",
        "AKIAS3CR3T0123456789",
        "eyJhbGciOiJIUzI1NiJ9.s3cr3tpayload.s3cr3tsig",
        "Authorization: Bearer s3cr3t-s3cr3t",
        "-----BEGIN RSA PRIVATE KEY-----\ns3cr3t\n",
        "host=db password=s3cr3t",
    ],
)
def test_a_secret_is_masked_by_its_looks(value: str) -> None:
    masked = mask("note", f"see {value}")
    assert "s3cr3t" not in masked.lower()
    assert masked.startswith("see ")
    assert MASK in masked


def test_a_command_keeps_all_but_its_secrets() -> None:
    said = mask_command(
        ["servingrepo", "promote", "--token", "a", "-m", "why", "--api-key=b", "--x=http://u:p@h/"]
    )
    assert said == [
        *("servingrepo", "promote", "--token", MASK, "-m", "why"),
        *(f"--api-key={MASK}", f"--x=http://{MASK}@h/"),
    ]
    headers = ["--header", "x-anything=a", "--header=authorization=b", "-m", "x-api-key: c"]
    assert mask_command(headers) == [
        *(
            "--header",
            f"x-anything={MASK}",
            f"--header=authorization={MASK}",
            "-m",
            f"x-api-key: {MASK}",
        ),
    ]


def test_a_pipeline_is_told_by_its_own_variables_alone() -> None:
    environment = {
        "GITHUB_RUN_ID": "17",
        "GITHUB_TOKEN": "ghp_x",
        "HOME": "/root",
        "CI_JOB_URL": "https://user:pw@gitlab/1",
        "BUILD_NUMBER": "",
    }
    assert pipeline_ids(environment) == {
        "GITHUB_RUN_ID": "17",
        "CI_JOB_URL": f"https://{MASK}@gitlab/1",
    }
    names = list(VARIABLES)
    assert len(names) == len(set(names))
    assert all(mask(name, "x") == "x" for name in names)
