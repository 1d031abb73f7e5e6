"""The pipeline that promotes: identifiers that the usual CI systems leave in the environment.

Only these variables are ever recorded, never the environment as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.masking import mask_start

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLES", "pipeline_ids"]

_LONGEST = 500

VARIABLES: dict[str, tuple[str, ...]] = {
    "GitHub Actions": (
        *("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_WORKFLOW", "GITHUB_JOB"),
        *("GITHUB_RUN_ID", "GITHUB_RUN_NUMBER", "GITHUB_RUN_ATTEMPT", "GITHUB_SHA", "GITHUB_REF"),
        *("GITHUB_ACTOR", "GITHUB_EVENT_NAME"),
    ),
    "GitLab CI": (
        *(
            "CI_PROJECT_URL",
            "CI_PROJECT_PATH",
            "CI_PIPELINE_ID",
            "CI_PIPELINE_IID",
            "CI_PIPELINE_URL",
        ),
        *("CI_JOB_ID", "CI_JOB_NAME", "CI_JOB_URL", "CI_COMMIT_SHA", "CI_COMMIT_REF_NAME"),
        *("CI_PIPELINE_SOURCE", "GITLAB_USER_LOGIN"),
    ),
    "Jenkins": (
        "BUILD_ID",
        "BUILD_NUMBER",
        "BUILD_TAG",
        "BUILD_URL",
        "JOB_NAME",
        "GIT_COMMIT",
        "GIT_BRANCH",
    ),
    "Azure Pipelines": (
        *("BUILD_BUILDID", "BUILD_BUILDNUMBER", "BUILD_BUILDURI", "BUILD_DEFINITIONNAME"),
        *(
            "BUILD_SOURCEVERSION",
            "BUILD_SOURCEBRANCH",
            "BUILD_REPOSITORY_NAME",
            "BUILD_REQUESTEDFOR",
        ),
        *("SYSTEM_TEAMPROJECT", "SYSTEM_JOBID", "RELEASE_RELEASEID", "RELEASE_RELEASENAME"),
    ),
    "CircleCI": (
        *("CIRCLE_BUILD_NUM", "CIRCLE_BUILD_URL", "CIRCLE_JOB", "CIRCLE_PROJECT_REPONAME"),
        *("CIRCLE_SHA1", "CIRCLE_BRANCH", "CIRCLE_WORKFLOW_ID"),
    ),
    "Buildkite": (
        *(
            "BUILDKITE_BUILD_ID",
            "BUILDKITE_BUILD_NUMBER",
            "BUILDKITE_BUILD_URL",
            "BUILDKITE_JOB_ID",
        ),
        *("BUILDKITE_COMMIT", "BUILDKITE_BRANCH", "BUILDKITE_PIPELINE_SLUG"),
    ),
    "Travis CI": (
        "TRAVIS_BUILD_ID",
        "TRAVIS_BUILD_NUMBER",
        "TRAVIS_BUILD_WEB_URL",
        "TRAVIS_COMMIT",
        "TRAVIS_JOB_ID",
    ),
    "Bitbucket": (
        *("BITBUCKET_BUILD_NUMBER", "BITBUCKET_PIPELINE_UUID", "BITBUCKET_STEP_UUID"),
        *("BITBUCKET_COMMIT", "BITBUCKET_BRANCH", "BITBUCKET_REPO_FULL_NAME"),
    ),
    "TeamCity": (
        "TEAMCITY_VERSION",
        "TEAMCITY_PROJECT_NAME",
        "TEAMCITY_BUILDCONF_NAME",
        "BUILD_VCS_NUMBER",
    ),
    "Drone": ("DRONE_BUILD_NUMBER", "DRONE_BUILD_LINK", "DRONE_COMMIT_SHA", "DRONE_REPO"),
    "Google Cloud Build": ("BUILD_TRIGGER_ID", "COMMIT_SHA", "REPO_NAME"),
    "AWS CodeBuild": (
        "CODEBUILD_BUILD_ID",
        "CODEBUILD_BUILD_ARN",
        "CODEBUILD_RESOLVED_SOURCE_VERSION",
    ),
    "SageMaker": ("TRAINING_JOB_NAME", "TRAINING_JOB_ARN"),
    "Vertex AI": ("CLOUD_ML_JOB_ID", "CLOUD_ML_PROJECT_ID", "AIP_TENSORBOARD_LOG_DIR"),
    "Airflow": (
        "AIRFLOW_CTX_DAG_ID",
        "AIRFLOW_CTX_TASK_ID",
        "AIRFLOW_CTX_DAG_RUN_ID",
        "AIRFLOW_CTX_EXECUTION_DATE",
    ),
    "Argo": ("ARGO_WORKFLOW_NAME", "ARGO_NODE_ID", "ARGO_POD_NAME"),
    "Kubeflow": ("KFP_RUN_ID", "KFP_POD_NAME"),
    "Slurm": ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_ARRAY_TASK_ID"),
    "MLflow": ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"),
}
"""Names of variables, by the system that sets them."""


def pipeline_ids(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of CI systems that are set, secrets masked, at most 500 characters of each."""
    found: dict[str, str] = {}
    for names in VARIABLES.values():
        for name in names:
            value = environment.get(name, "").encode("utf-8", "backslashreplace").decode()
            if value:
                found[name] = mask_start(name, value, longest=_LONGEST)
    return found
