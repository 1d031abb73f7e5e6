"""Collect the origin of a version during its promotion, for its record."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.masking import free_name, mask_command, mask_start, mask_text
from servingrepo.runs.configuration import read_configuration
from servingrepo.runs.origin import Origin
from servingrepo.runs.worktree import code_of
from servingrepo.texts import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servingrepo.runs.listing import Listing
    from servingrepo.runs.mlflow import MlflowRun
    from servingrepo.runs.reading import FilesRead
    from servingrepo.runs.values import RunScan

__all__ = ["VARIABLES", "Context", "pipeline_ids", "place_of", "trace"]

_LONGEST_COMMAND = 2000
_LONGEST_PARAMETER = 200
_LONGEST_FACT = 500


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that only the caller knows: its command, its working directory and its environment."""

    command: tuple[str, ...] = ()
    working_directory: Path | None = None
    environment: dict[str, str] = {}
    archive: str = ""
    """The archive that the run was unpacked from."""


def place_of(path: str, scan: RunScan, context: Context) -> str:
    """Return a path in a run for the record: within its archive, if it was unpacked from one."""
    if not context.archive:
        return path
    below = Path(path).relative_to(scan.run).as_posix()
    return context.archive if below == "." else f"{context.archive}:{below}"


def trace(
    seen: Listing, tracked: MlflowRun | None, context: Context, *, reads: FilesRead
) -> Origin:
    """Return the origin of a run's SavedModel, as far as it is known, with secrets masked.

    Args:
        seen: The names in the run.
        tracked: The MLflow run, if MLflow tracked it.
        context: The facts that only the caller knows.
        reads: The reader of configuration files, which remembers them.
    """
    found = read_configuration(seen, reads=reads)
    config = found.values
    if tracked is not None:
        for name, one in tracked.params.items():
            key = free_name(f"params/{mask_text(name)}", config)
            config[key] = mask_start(name, one, longest=_LONGEST_PARAMETER)
    # An unpacked archive may have a stranger's .git in it.
    code = code_of(Path(seen.run), of="run") if not context.archive else None
    if code is None and context.working_directory is not None:
        code = code_of(context.working_directory, of="working directory")
    command = mask_text(shlex.join(mask_command(context.command)))
    return Origin(
        config=config,
        config_files=found.files,
        config_unread=found.unread,
        code=code,
        command=escaped(command)[:_LONGEST_COMMAND],
        mlflow={
            name: mask_start(name, one, longest=_LONGEST_FACT)
            for name, one in (tracked.facts if tracked is not None else {}).items()
        },
        pipeline=pipeline_ids(context.environment),
    )


_BY_SYSTEM = {
    "GitHub Actions": (
        "GITHUB_SERVER_URL GITHUB_REPOSITORY GITHUB_WORKFLOW GITHUB_JOB GITHUB_RUN_ID "
        "GITHUB_RUN_NUMBER GITHUB_RUN_ATTEMPT GITHUB_SHA GITHUB_REF GITHUB_ACTOR GITHUB_EVENT_NAME"
    ),
    "GitLab CI": (
        "CI_PROJECT_URL CI_PROJECT_PATH CI_PIPELINE_ID CI_PIPELINE_IID CI_PIPELINE_URL CI_JOB_ID "
        "CI_JOB_NAME CI_JOB_URL CI_COMMIT_SHA CI_COMMIT_REF_NAME CI_PIPELINE_SOURCE GITLAB_USER_LOGIN"
    ),
    "Jenkins": "BUILD_ID BUILD_NUMBER BUILD_TAG BUILD_URL JOB_NAME GIT_COMMIT GIT_BRANCH",
    "Azure Pipelines": (
        "BUILD_BUILDID BUILD_BUILDNUMBER BUILD_BUILDURI BUILD_DEFINITIONNAME BUILD_SOURCEVERSION "
        "BUILD_SOURCEBRANCH BUILD_REPOSITORY_NAME BUILD_REQUESTEDFOR SYSTEM_TEAMPROJECT SYSTEM_JOBID "
        "RELEASE_RELEASEID RELEASE_RELEASENAME"
    ),
    "CircleCI": (
        "CIRCLE_BUILD_NUM CIRCLE_BUILD_URL CIRCLE_JOB CIRCLE_PROJECT_REPONAME CIRCLE_SHA1 "
        "CIRCLE_BRANCH CIRCLE_WORKFLOW_ID"
    ),
    "Buildkite": (
        "BUILDKITE_BUILD_ID BUILDKITE_BUILD_NUMBER BUILDKITE_BUILD_URL BUILDKITE_JOB_ID "
        "BUILDKITE_COMMIT BUILDKITE_BRANCH BUILDKITE_PIPELINE_SLUG"
    ),
    "Travis CI": "TRAVIS_BUILD_ID TRAVIS_BUILD_NUMBER TRAVIS_BUILD_WEB_URL TRAVIS_COMMIT TRAVIS_JOB_ID",
    "Bitbucket": (
        "BITBUCKET_BUILD_NUMBER BITBUCKET_PIPELINE_UUID BITBUCKET_STEP_UUID BITBUCKET_COMMIT "
        "BITBUCKET_BRANCH BITBUCKET_REPO_FULL_NAME"
    ),
    "TeamCity": "TEAMCITY_VERSION TEAMCITY_PROJECT_NAME TEAMCITY_BUILDCONF_NAME BUILD_VCS_NUMBER",
    "Drone": "DRONE_BUILD_NUMBER DRONE_BUILD_LINK DRONE_COMMIT_SHA DRONE_REPO",
    "Google Cloud Build": "BUILD_TRIGGER_ID COMMIT_SHA REPO_NAME",
    "AWS CodeBuild": "CODEBUILD_BUILD_ID CODEBUILD_BUILD_ARN CODEBUILD_RESOLVED_SOURCE_VERSION",
    "SageMaker": "TRAINING_JOB_NAME TRAINING_JOB_ARN",
    "Vertex AI": "CLOUD_ML_JOB_ID CLOUD_ML_PROJECT_ID AIP_TENSORBOARD_LOG_DIR",
    "Airflow": "AIRFLOW_CTX_DAG_ID AIRFLOW_CTX_TASK_ID AIRFLOW_CTX_DAG_RUN_ID AIRFLOW_CTX_EXECUTION_DATE",
    "Argo": "ARGO_WORKFLOW_NAME ARGO_NODE_ID ARGO_POD_NAME",
    "Kubeflow": "KFP_RUN_ID KFP_POD_NAME",
    "Slurm": "SLURM_JOB_ID SLURM_JOB_NAME SLURM_ARRAY_TASK_ID",
    "MLflow": "MLFLOW_RUN_ID MLFLOW_EXPERIMENT_NAME",
}
"""Names of variables, by the CI system that sets them."""

VARIABLES = tuple(name for names in _BY_SYSTEM.values() for name in names.split())
"""The only variables that are recorded. The rest of the environment never is."""


def pipeline_ids(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of CI systems that are set, secrets masked, at most 500 characters of each."""
    return {
        name: mask_start(name, escaped(value), longest=_LONGEST_FACT)
        for name in VARIABLES
        if (value := environment.get(name))
    }
