"""Every rule of `doctor`, worst first, and the finding that a broken rule makes.

docs/doctor.md is this table. A slug is public and stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import (
    ConfigInvalid,
    DamagedExport,
    EndpointUnreachable,
    LoadFailed,
    NoPermission,
    NotConverged,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
    StorageHung,
    UnsupportedExport,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RULES", "Finding", "Rule", "Severity", "found", "worst_first"]

Severity = Literal["error", "warning", "note"]


class Rule(msgspec.Struct, frozen=True):
    """A rule: its slug, the severity and the error of a finding, what is wrong, what happens then, and the remedy."""

    slug: str
    severity: Severity
    error: type[ServingRepoError]
    means: str
    consequence: str
    fix: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong, or something that will go wrong.

    Attributes:
        slug: The rule.
        severity: `error`: the server refuses, hangs, or does not serve what it should. `warning`: it serves, and
            trouble is near. `note`: worth knowing.
        model: The model; empty if it concerns all.
        path: The file or directory, the service, or the endpoint.
        what: What is wrong there.
        consequence: What happens at the next restart or reload.
        fix: The command to type or the text to write.
        defect: The slug of the export's defect, if there is one.
        exit_code: The exit code of an error; 0 for warnings and notes.
    """

    slug: str
    severity: Severity
    model: str = ""
    path: str = ""
    what: str
    consequence: str
    fix: str
    defect: str = ""
    exit_code: int = 0


_E: Severity = "error"
_W: Severity = "warning"
_N: Severity = "note"

RULES: tuple[Rule, ...] = (
    # The server does not start, or finds no versions any more.
    Rule(
        "storage-hung",
        _E,
        StorageHung,
        "the file system of the tree does not answer",
        "a server that reads it hangs as well",
        "bring the file server back, or unmount it: umount -l PLACE",
    ),
    Rule(
        "config-missing",
        _E,
        ConfigInvalid,
        "the file that --model_config_file names is not there",
        "the server ends at its start",
        "put models.config there",
    ),
    Rule(
        "config-unreadable",
        _E,
        StorageFailed,
        "the config cannot be read: no permission, or no regular file",
        "a server of this user ends at its start",
        "put a regular file there that the server's user may read: chmod a+r FILE",
    ),
    Rule(
        "config-refused",
        _E,
        ConfigInvalid,
        "the config is no ModelServerConfig in protobuf's text format: JSON, YAML, UTF-16, a byte order mark, "
        "entries without model_config_list, a file written twice",
        "the server refuses the whole file: it ends at its start, and a poll or reload of it changes nothing",
        "write it in text format, as UTF-8 without a byte order mark",
    ),
    Rule(
        "custom-config",
        _E,
        ConfigInvalid,
        "custom_model_config",
        "the published server aborts on it",
        "use model_config_list instead",
    ),
    Rule(
        "flag-without-equals",
        _E,
        ConfigInvalid,
        "a flag is written as --flag VALUE",
        "the server knows only --flag=VALUE: it prints its usage, leaves the flag out, and starts without it",
        "write --flag=VALUE",
    ),
    Rule(
        "labels-without-flag",
        _E,
        ConfigInvalid,
        "the config has labels, and the server is started without "
        "--allow_version_labels_for_unavailable_models=true",
        "the server ends at its next start with 255: labels are checked before anything is loaded",
        "add --allow_version_labels_for_unavailable_models=true to the server's flags",
    ),
    Rule(
        "model-twice",
        _E,
        ConfigInvalid,
        "a model is listed more than once",
        "the server refuses the whole config",
        "take all but one of its entries out",
    ),
    Rule(
        "base-path-refused",
        _E,
        ConfigInvalid,
        "a base path is empty, relative, or on a file system that the published server does not have (s3://)",
        "the server refuses the config, or finds no versions of any model",
        "write the absolute path of the model's directory as the server sees it",
    ),
    Rule(
        "platform-missing",
        _E,
        ConfigInvalid,
        "an entry has no model_platform",
        "the server refuses the config, and after a reload with it every later reload too until it restarts",
        'write model_platform: "tensorflow"',
    ),
    Rule(
        "platform-twice",
        _E,
        ConfigInvalid,
        "model_type stands beside model_platform",
        "the server refuses both",
        "remove model_type",
    ),
    Rule(
        "platform-unsupported",
        _E,
        ConfigInvalid,
        "a platform other than tensorflow",
        "the server refuses the config",
        'write model_platform: "tensorflow"',
    ),
    Rule(
        "logging-config",
        _E,
        ConfigInvalid,
        "an entry has a logging_config",
        "the published server exits at its start, and a reload fails after its models were changed",
        "remove it, even if it is empty",
    ),
    Rule(
        "base-path-not-mounted",
        _E,
        ConfigInvalid,
        "a base path is not below any directory that the service mounts",
        "the server stops finding versions of all models, and a start or a reload with it never ends",
        "mount the models directory there, or correct base_path",
    ),
    Rule(
        "base-path-missing",
        _E,
        ConfigInvalid,
        "a base path does not exist",
        "the server stops finding versions of all models, and a start or a reload that adds this one never ends",
        "create it with a version in it, or take the model out",
    ),
    Rule(
        "flat-saved-model",
        _E,
        RepositoryDamaged,
        "a SavedModel lies directly in the base path, without a version's directory",
        "the server sees no version: all that is loaded is unloaded, and a start or a reload that adds this model "
        "never ends",
        "move it into a directory named 1",
    ),
    Rule(
        "base-path-empty",
        _E,
        ConfigInvalid,
        "a base path has no versions",
        "all that is loaded is unloaded, and a start or a reload that adds this model never ends",
        "publish a version, or take the model out",
    ),
    Rule(
        "not-readable-by-server",
        _E,
        NoPermission,
        "the user of the container cannot read a directory or file",
        "the version fails to load; a base path that cannot be listed keeps the server from finding any version",
        "chmod -R a+rX DIRECTORY",
    ),
    Rule(
        "cannot-load",
        _E,
        DamagedExport,
        "a version that the next start would load cannot be loaded: empty, no directory, a broken link, damaged",
        "the server ends with 255 at its next start, again and again under a restart policy; a running server keeps "
        "the version before and never tries this one again",
        "pin or publish a whole version; move this one away",
    ),
    Rule(
        "warm-up-fails",
        _E,
        DamagedExport,
        "a warm-up file that the server cannot replay",
        "the version fails to load: the server ends with 255 at its next start",
        "write the file anew, or move it away",
    ),
    Rule(
        "server-lacks-operations",
        _E,
        UnsupportedExport,
        "the graph has operations that the server of the image does not have",
        "the version fails to load: the server ends with 255 at its next start",
        "use the image of a newer server, or export the model for this one",
    ),
    Rule(
        "requests-fail",
        _E,
        DamagedExport,
        "a version that loads and cannot answer: its variables are missing, or a signature cannot be called",
        "the server says AVAILABLE, unloads the version before, and fails requests",
        "copy the export again from where it is whole, under a higher number",
    ),
    Rule(
        "content-changed",
        _E,
        DamagedExport,
        "the files are not those that were saved: fingerprint.pb or a tensor's checksum differs",
        "the server may load it and answer other numbers than the model that was saved",
        "copy the export again from where it is whole, under a higher number",
    ),
    Rule(
        "version-missing",
        _E,
        ConfigInvalid,
        "a pinned version is not on disk",
        "the server only logs that, and a start waits for ever if no other version is there",
        "pin a version that is there",
    ),
    Rule(
        "nothing-pinned",
        _E,
        ConfigInvalid,
        "specific without versions",
        "the server unloads every version of the model",
        "name at least one version, or take the model out",
    ),
    Rule(
        "label-on-nothing",
        _E,
        ConfigInvalid,
        "a label is on a version that is not on disk",
        "its requests find nothing, or the config is refused",
        "move the label to a version that is served, or remove it",
    ),
    Rule(
        "label-not-pinned",
        _E,
        ConfigInvalid,
        "a label is on a version that is not pinned",
        "its requests find nothing, or the config is refused",
        "pin that version too, or move the label",
    ),
    Rule(
        "label-twice",
        _E,
        ConfigInvalid,
        "a label is given more than once",
        "the server takes the last one in silence",
        "keep one of them",
    ),
    Rule(
        "bad-label",
        _E,
        ConfigInvalid,
        "a label has other characters than letters, digits and _",
        "REST addresses do not reach it",
        "give it another name",
    ),
    Rule(
        "bad-name",
        _E,
        ConfigInvalid,
        "a model's name is empty, or has slashes or colons (error), or is one that servingrepo refuses (warning)",
        "no URL of the REST API reaches it, or servingrepo cannot manage it",
        "give it another name",
    ),
    Rule(
        "odd-pin",
        _E,
        ConfigInvalid,
        "a pinned version is negative (error) or 0 (warning)",
        "servers take it, and other tools do not",
        "versions are 1, 2, 3, …",
    ),
    Rule(
        "same-number",
        _E,
        RepositoryDamaged,
        "two directories have one number, such as 7 and 007: an error if that version is served",
        "which one is served depends on the policy",
        "keep one of them",
    ),
    Rule(
        "unreadable",
        _E,
        NoPermission,
        "this user cannot read a directory",
        "whether a server can load what is in it is not known; a server of this user cannot",
        "chmod a+rX DIRECTORY, or run doctor as a user who may read it",
    ),
    Rule(
        "health-check-without-curl",
        _E,
        ConfigInvalid,
        "the health check calls curl or wget, which the published image does not have",
        "the container never becomes healthy, and what depends on its health never starts",
        "check with bash and /dev/tcp: see compose/healthcheck.sh",
    ),
    Rule(
        "server-no-answer",
        _E,
        EndpointUnreachable,
        "an endpoint does not answer",
        "nothing is known of that server",
        "see that the server runs, and that the port is that of gRPC",
    ),
    Rule(
        "server-failed",
        _E,
        LoadFailed,
        "a version that should be served failed to load on the server",
        "the server never tries it again while it runs, and ends at its next start",
        "publish a whole version under a higher number, or restart the server once the files are whole",
    ),
    Rule(
        "server-differs",
        _E,
        NotConverged,
        "the server has other versions loaded than config and disk say",
        "the next restart or reload changes what clients get",
        "reload the server, or restart it",
    ),
    Rule(
        "server-label-differs",
        _E,
        NotConverged,
        "a label is missing on the server, or is on another version there",
        "the next restart or reload changes what clients of the label get",
        "reload the server, or restart it",
    ),
    Rule(
        "repository-unreadable",
        _E,
        RepositoryDamaged,
        "there is a repository of servingrepo that cannot be opened",
        "no command of servingrepo works there",
        "servingrepo status says more",
    ),
    Rule(
        "compose-unreadable",
        _E,
        ConfigInvalid,
        "the compose file is no YAML with services, or too large",
        "nothing is known of how the server is started",
        "docker compose config says more",
    ),
    # The server serves, and trouble is near.
    Rule(
        "serves-at-once",
        _W,
        ConfigInvalid,
        "a policy that serves a version as soon as its directory appears",
        "a half-copied or broken version goes live one second after its directory appears",
        "pin versions: model_version_policy { specific { versions: N } }",
    ),
    Rule(
        "default-retries",
        _W,
        ConfigInvalid,
        "the server tries a version that does not load six times in five minutes, in its only loading thread",
        "one bad version keeps everything else from loading and unloading for five minutes, a rollback too",
        "add --max_num_load_retries=0 --num_load_threads=1 to the server's flags",
    ),
    Rule(
        "no-init",
        _W,
        ConfigInvalid,
        "the service has no init: process 1 of the container ignores SIGTERM",
        "docker stop takes its whole grace period, and then kills the server",
        "write init: true into the service",
    ),
    Rule(
        "config-mounted-alone",
        _W,
        ConfigInvalid,
        "the config is mounted as a single file",
        "the container keeps the old text after the file was replaced, until it is created anew",
        "mount the directory that holds it",
    ),
    Rule(
        "config-is-link",
        _W,
        RepositoryDamaged,
        "models.config is a link, as in a Kubernetes ConfigMap",
        "servingrepo cannot replace it; a change goes through what the link comes from",
        "put the file itself into the models directory, and mount that directory",
    ),
    Rule(
        "bucket-mount",
        _W,
        RepositoryDamaged,
        "the tree is on a FUSE mount, such as of a bucket",
        "there is no atomic rename: a server sees and loads a version that is not yet whole",
        "keep the models on a local disk",
    ),
    Rule(
        "link-out",
        _W,
        RepositoryDamaged,
        "a link leads out of the directory that servers mount, as in a tree of DVC or git-annex",
        "a server in a container cannot follow it, and then fails to load the version",
        "put the files themselves there: cp -rL",
    ),
    Rule(
        "other-tree-mounted",
        _W,
        ConfigInvalid,
        "the service mounts another directory than the one that was examined",
        "what was said of this directory is not what the server sees",
        "examine that directory, or mount this one",
    ),
    Rule(
        "config-not-used",
        _W,
        ConfigInvalid,
        "there is a models.config, and the service is started without --model_config_file",
        "the server does not read it: it serves the one model of MODEL_NAME",
        "add --model_config_file=… to the server's flags",
    ),
    Rule(
        "model-name-ignored",
        _W,
        ConfigInvalid,
        "--model_name, --model_base_path or MODEL_NAME stands beside --model_config_file",
        "the server ignores it",
        "remove it",
    ),
    Rule(
        "base-path-shared",
        _W,
        ConfigInvalid,
        "two models have one base path",
        "both load the same versions",
        "give each model a directory of its own",
    ),
    Rule(
        "octal-number",
        _W,
        ConfigInvalid,
        "a number in the config starts with 0, and so is octal",
        "the server reads another number than it looks like",
        "write it without the 0",
    ),
    Rule(
        "latest-zero",
        _W,
        ConfigInvalid,
        "the policy is the latest 0 versions",
        "the server takes it for 1",
        "write num_versions: 1",
    ),
    Rule(
        "pinned-twice",
        _W,
        ConfigInvalid,
        "a version is listed twice",
        "nothing; other tools may trip over it",
        "list it once",
    ),
    Rule(
        "platform-old",
        _W,
        ConfigInvalid,
        "model_type is deprecated",
        "the server logs a warning",
        'write model_platform: "tensorflow" instead',
    ),
    Rule(
        "nothing-set",
        _W,
        ConfigInvalid,
        "the config has nothing set",
        "fine when a server starts, but refused as a reload",
        "write: model_config_list {}",
    ),
    Rule(
        "export-newer",
        _W,
        UnsupportedExport,
        "a version was written by a newer TensorFlow than that of the server",
        "it may use operations that the server lacks, and then fails to load",
        "use the image of a newer server",
    ),
    Rule(
        "two-saved-models",
        _W,
        RepositoryDamaged,
        "a SavedModel lies directly in a base path that has versions too",
        "servers see the versions alone",
        "compare the two, and move one away",
    ),
    Rule(
        "odd-version-name",
        _W,
        RepositoryDamaged,
        "a version's name is not its plain number: 007, -1, +1",
        "a server that pins it lists the directory again and again, and servingrepo cannot adopt it",
        "rename it",
    ),
    Rule(
        "not-a-version",
        _W,
        RepositoryDamaged,
        "a SavedModel lies in a directory whose name is no number: v1, 1.0",
        "servers never see it",
        "rename it to a number",
    ),
    Rule(
        "unserved-damaged",
        _W,
        DamagedExport,
        "a version that is not served cannot be loaded, or is damaged",
        "a rollback to it fails, and so does a start once it is the highest or pinned",
        "move it away, or copy the export again under a higher number",
    ),
    Rule(
        "unsafe-file",
        _W,
        DamagedExport,
        "an export has devices, sockets, FIFOs or names that are not UTF-8",
        "servers pass over them; servingrepo does not publish or adopt it",
        "remove them",
    ),
    Rule(
        "no-models",
        _W,
        RepositoryDamaged,
        "there is no model in the directory",
        "a server has nothing to serve",
        "name the directory that holds the models' directories",
    ),
    # Worth knowing.
    Rule(
        "not-in-config",
        _N,
        ConfigInvalid,
        "a model on disk is not in the config",
        "servers do not serve it",
        "add an entry if it is meant to be served",
    ),
    Rule(
        "labels-need-flag",
        _N,
        ConfigInvalid,
        "the config has labels, and the server's flags are not known",
        "a server without --allow_version_labels_for_unavailable_models=true ends at its next start",
        "see that the server has the flag; --compose FILE checks it",
    ),
    Rule(
        "repository-note",
        _N,
        RepositoryDamaged,
        "the repository of servingrepo has something that `servingrepo status` notes",
        "nothing for servers",
        "servingrepo status",
    ),
)
_BY_SLUG = {rule.slug: (rank, rule) for rank, rule in enumerate(RULES)}
_SEVERITIES: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def found(
    slug: str,
    what: str,
    fix: str = "",
    *,
    model: str = "",
    path: object = "",
    so: str = "",
    severity: Severity | None = None,
    defect: str = "",
    error: type[ServingRepoError] | None = None,
) -> Finding:
    """Make a finding of a rule. What is not given comes from the rule.

    Args:
        slug: The rule.
        what: What is wrong, in one line.
        fix: The command or text that corrects it.
        model: The model.
        path: Where it is wrong.
        so: What happens at the next restart or reload.
        severity: Another severity than the rule's.
        defect: The slug of the export's defect.
        error: Another error than the rule's.
    """
    rule = _BY_SLUG[slug][1]
    level = severity or rule.severity
    return Finding(
        slug=slug,
        severity=level,
        model=model,
        path=str(path),
        what=what,
        consequence=so or rule.consequence,
        fix=fix or rule.fix,
        defect=defect,
        exit_code=(error or rule.error).exit_code if level == "error" else 0,
    )


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings, each once, the worst first: by severity, then in the order of the rules."""
    return tuple(
        sorted(
            dict.fromkeys(findings),
            key=lambda one: (
                _SEVERITIES[one.severity],
                _BY_SLUG[one.slug][0],
                one.model,
                one.path,
                one.what,
            ),
        )
    )
