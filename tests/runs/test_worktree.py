"""What is said of a git work tree, and that no command which its repository names is ever run."""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from typing import TYPE_CHECKING

import pytest

from servingrepo.runs.tracing import Context
from servingrepo.runs.worktree import code_of, commit_of
from tests.support import command, git, new_repository, run_with, work_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.runs.origin import Code


def described(folder: Path) -> Code:
    found = code_of(folder, of="run")
    assert found is not None
    return found


def touch(tree: Path, seconds: int) -> None:
    """Make git look at the bytes of the files, since their times are not those of the index."""
    for file in tree.rglob("train.py"):
        os.utime(file, (seconds, seconds))


# attacks --------------------------------------------------------------------------------------------


def by_filter(tree: Path, ran: Path) -> None:
    git(tree, "config", "filter.x.clean", f"touch {ran}; cat")
    (tree / ".git/info/attributes").write_text("* filter=x\n")


def by_process(tree: Path, ran: Path) -> None:
    git(tree, "config", "filter.x.process", f"touch {ran}")
    (tree / ".gitattributes").write_text("* filter=x\n")


def by_include(tree: Path, ran: Path) -> None:
    (tree / "more").write_text(f'[filter "x"]\n\tclean = touch {ran}; cat\n')
    git(tree, "config", "include.path", str(tree / "more"))
    (tree / ".git/info/attributes").write_text("* filter=x\n")


def by_conditional_include(tree: Path, ran: Path) -> None:
    (tree / "more").write_text(f'[filter "x"]\n\tclean = touch {ran}; cat\n')
    git(tree, "config", "includeIf.gitdir:**.path", str(tree / "more"))
    (tree / ".git/info/attributes").write_text("* filter=x\n")


def by_worktree_configuration(tree: Path, ran: Path) -> None:
    git(tree, "config", "extensions.worktreeConfig", "true")
    git(tree, "config", "--worktree", "filter.x.clean", f"touch {ran}; cat")
    (tree / ".git/info/attributes").write_text("* filter=x\n")


def by_fsmonitor(tree: Path, ran: Path) -> None:
    git(tree, "config", "core.fsmonitor", f"touch {ran}; false")


def by_hook(tree: Path, ran: Path) -> None:
    hook = tree / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)


def by_hooks_path(tree: Path, ran: Path) -> None:
    by_hook(tree, ran)
    (tree / ".git/hooks").rename(tree / "hooks")
    git(tree, "config", "core.hooksPath", str(tree / "hooks"))


def by_submodule(tree: Path, ran: Path) -> None:
    work_tree(tree / "sub")
    git(tree, "add", "sub")
    git(tree, "commit", "-qm", "two")
    by_filter(tree / "sub", ran)


def by_lazy_fetch(tree: Path, ran: Path) -> None:
    """A tree is missing, and the repository says where it can be had: from a program."""
    git(tree, "config", "core.repositoryformatversion", "1")
    git(tree, "config", "extensions.partialClone", "origin")
    git(tree, "config", "remote.origin.promisor", "true")
    git(tree, "config", "remote.origin.url", str(tree))
    git(tree, "config", "remote.origin.uploadpack", f"touch {ran}; false")
    without_its_tree(tree)


def by_transport(tree: Path, ran: Path) -> None:
    by_lazy_fetch(tree, ran)
    git(tree, "config", "protocol.ext.allow", "always")
    git(tree, "config", "remote.origin.url", f"ext::sh -c touch% {ran}")


def by_pointer(tree: Path, ran: Path) -> None:
    by_filter(tree, ran)
    (tree / ".git").rename(tree / "hidden")
    (tree / ".git").write_text("gitdir: hidden\n")


def by_link(tree: Path, ran: Path) -> None:
    by_filter(tree, ran)
    (tree / ".git").rename(tree / "hidden")
    (tree / ".git").symlink_to("hidden")


def by_other_programs(tree: Path, ran: Path) -> None:
    """Git runs none of these for a status today; should it do so one day, it does not for us."""
    for name in (
        *("diff.external", "diff.x.command", "diff.x.textconv", "core.pager", "core.editor"),
        *("core.alternateRefsCommand", "core.sshCommand", "core.askPass", "gpg.program"),
        *("alias.status", "pager.status", "interactive.diffFilter", "sequence.editor"),
    ):
        git(tree, "config", name, f"!touch {ran}" if "alias" in name else f"touch {ran}")
    (tree / ".git/info/attributes").write_text("* diff=x\n")


def without_its_tree(tree: Path) -> None:
    name = git(tree, "rev-parse", "HEAD^{tree}")
    (tree / ".git/objects" / name[:2] / name[2:]).unlink()
    # Else the index still knows what the tree would say.
    git(tree, "update-index", "--add", "--cacheinfo", f"100644,{name},x", check=False)


ATTACKS: tuple[Callable[[Path, Path], None], ...] = (
    *(by_filter, by_process, by_include, by_conditional_include, by_worktree_configuration),
    *(by_fsmonitor, by_hook, by_hooks_path, by_submodule, by_lazy_fetch, by_transport),
    *(by_pointer, by_link, by_other_programs),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_promote_runs_no_command_of_the_repository(
    tmp_path: Path, attack: Callable[[Path, Path], None]
) -> None:
    ran = tmp_path / "ran"
    tree = tmp_path / "code"
    work_tree(tree)
    run = run_with(tree / "run", offset=1)
    attack(tree, ran)
    if attack is not by_other_programs:
        touch(tree, 1)
        git(tree, "status", check=False)
        assert ran.exists(), "git itself does not fall for this"
        ran.unlink()
    touch(tree, 2)
    repo = new_repository(tmp_path / "repo")
    repo.promote(run, model="m", smoke=False, context=Context(working_directory=tree))
    assert not ran.exists()


def test_an_unpacked_archive_lies_in_no_work_tree(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    tree = tmp_path / "packed"
    work_tree(tree)
    run_with(tree, offset=1)
    by_filter(tree, ran)
    touch(tree, 2)
    archive = tmp_path / "model.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, ".")
    work_tree(tmp_path / "tmp")  # what lies above the place where it is unpacked
    repo = new_repository(tmp_path / "repo")
    arguments = ["--root", str(repo.root), "promote", str(archive), "--model", "m", "--no-smoke"]
    env = {"TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "elsewhere").mkdir()
    assert command(*arguments, cwd=tmp_path / "elsewhere", env=env).code == 0
    assert not ran.exists()
    record = repo.show_version("m")
    assert record.origin.code is None
    assert "git_head_at_scan" not in record.source.provenance
    scanned = command("scan", archive, "--json", env=env).json["result"]["scan"]
    assert "git_head_at_scan" not in scanned["provenance"]


def test_a_pointer_to_a_repository_of_others_is_not_followed(tmp_path: Path) -> None:
    work_tree(tmp_path / "secret")
    git(tmp_path / "secret", "worktree", "add", "-q", tmp_path / "further")
    run = tmp_path / "run"
    run.mkdir()
    for target in (
        tmp_path / "secret/.git",
        tmp_path / "secret/.git/worktrees/further",
        tmp_path / "nowhere",
        "\0",
        "",
    ):
        (run / ".git").write_text(f"gitdir: {target}\n")
        assert code_of(run, of="run") is None
    # One that leads to the run's own directory, and from there to somebody's.
    own = run / "own"
    own.mkdir()
    (run / ".git").write_text("gitdir: own\n")
    (own / "gitdir").write_text(f"{run}/.git\n")
    (own / "commondir").write_text(f"{tmp_path}/secret/.git\n")
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    assert code_of(run, of="run") is None


KEY = "0123456789abcdef0123456789abcdef01234567"


def test_no_link_in_a_git_directory_is_followed(tmp_path: Path) -> None:
    """Keys of several services look as a commit does."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text(KEY)
    for place, target in (("HEAD", "secret/key"), ("refs/x", "secret"), ("packed-refs", "packed")):
        run = tmp_path / place.replace("/", "")
        (run / ".git/refs").mkdir(parents=True)
        (run / ".git/HEAD").write_text("ref: refs/x/key\n")
        (tmp_path / "packed").write_text(f"{KEY} refs/x/key\n")
        (run / ".git" / place).unlink(missing_ok=True)
        (run / ".git" / place).symlink_to(tmp_path / target)
        assert code_of(run, of="run") is None


@pytest.mark.parametrize("name", ["HEAD", "index", "config", "packed-refs", "info/attributes"])
def test_a_fifo_in_a_git_directory_holds_nobody_up(tmp_path: Path, name: str) -> None:
    commit = work_tree(tmp_path)
    (tmp_path / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / ".git" / name)
    found = code_of(tmp_path, of="run")
    assert found is None if name == "HEAD" else found is not None and found.commit == commit


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_git_directory_of_another_user_above_is_not_believed(tmp_path: Path) -> None:
    commit = work_tree(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    assert commit_of(run) == commit
    os.chown(tmp_path / ".git", 65534, 65534)
    assert code_of(run, of="working directory") is None
    os.chown(run, 65534, 65534)  # whose run it is may say what it is
    assert described(run).commit == commit
    os.chown(run, 0, 0)
    os.chown(tmp_path, 65534, 65534)  # as where a pipeline's checkout belongs to another user
    assert described(run).commit == commit


def test_configuration_that_would_take_for_ever_to_match_is_read_at_once(tmp_path: Path) -> None:
    work_tree(tmp_path)
    config = tmp_path / ".git/config"
    config.write_text("[core]\nworktree =" + " " * 60_000 + "x\n" + " " * 60_000)
    assert code_of(tmp_path, of="run", seconds=5) is not None


# what is said ---------------------------------------------------------------------------------------


def test_branch_and_commit_are_read_wherever_git_keeps_them(tmp_path: Path) -> None:
    commit = work_tree(tmp_path / "code")
    git(tmp_path / "code", "checkout", "-qb", "feature/x")
    assert (described(tmp_path / "code").branch, commit_of(tmp_path / "code")) == (
        *("feature/x", commit),
    )
    git(tmp_path / "code", "pack-refs", "--all")
    assert not (tmp_path / "code/.git/refs/heads/feature").exists()
    assert described(tmp_path / "code").branch == "feature/x"
    git(tmp_path / "code", "checkout", "-q", "--detach")
    found = described(tmp_path / "code")
    assert (found.branch, found.commit, found.dirty) == ("", commit, False)


@pytest.mark.parametrize(
    "head", ["", "nonsense", "ref: refs/../../x", "ref: refs/heads/new", "ref: refs/heads/.invalid"]
)
def test_a_head_that_names_no_commit_is_no_work_tree(tmp_path: Path, head: str) -> None:
    """The last one is what HEAD says where refs are kept as reftables."""
    work_tree(tmp_path)
    (tmp_path / ".git/HEAD").write_text(head + "\n")
    assert code_of(tmp_path, of="run") is None


def test_further_work_trees_and_submodules_have_commits_of_their_own(tmp_path: Path) -> None:
    commit = work_tree(tmp_path / "code")
    further = tmp_path / "further"
    git(tmp_path / "code", "worktree", "add", "-qb", "other", further)
    (further / "train.py").write_text("print(2)\n")
    found = described(further)
    assert (found.commit, found.branch, found.dirty) == (commit, "other", True)
    inner = work_tree(tmp_path / "inner")
    allowed = ("-c", "protocol.file.allow=always")
    git(tmp_path / "code", *allowed, "submodule", "--quiet", "add", str(tmp_path / "inner"), "sub")
    found = described(tmp_path / "code/sub")
    assert (found.commit, found.branch, found.dirty) == (inner, "main", False)
    assert described(tmp_path / "code").dirty is True  # the submodule was added
    git(tmp_path / "code", "commit", "-qam", "with a submodule")
    (tmp_path / "code/sub/train.py").write_text("print(2)\n")
    assert described(tmp_path / "code").dirty is False
    assert described(tmp_path / "code/sub").dirty is True


def staged(tree: Path) -> None:
    (tree / "train.py").write_text("print(2)\n")
    git(tree, "add", "train.py")
    (tree / "train.py").write_text("print(1)\n")


CHANGES: dict[str, tuple[Callable[[Path], object], bool | None]] = {
    "nothing": (str, False),
    "touched": (lambda tree: touch(tree, 1), False),
    "a file that git does not track": (lambda tree: (tree / "new").write_text("x"), False),
    "written": (lambda tree: (tree / "train.py").write_text("print(2)\n"), True),
    "staged": (staged, True),
    "removed": (lambda tree: (tree / "train.py").unlink(), True),
    "made executable": (lambda tree: (tree / "train.py").chmod(0o755), True),
    "made a link": (lambda tree: relinked(tree / "train.py"), True),
}


def relinked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
@pytest.mark.parametrize("what", CHANGES)
def test_files_that_differ_from_the_commit_are_noticed(
    tmp_path: Path, what: str, kind: str
) -> None:
    tmp_path.joinpath("code").mkdir()
    git(tmp_path / "code", "init", "-q", f"--object-format={kind}")
    work_tree(tmp_path / "code")
    change, dirty = CHANGES[what]
    change(tmp_path / "code")
    assert described(tmp_path / "code").dirty is dirty


def test_a_change_in_the_very_moment_of_the_commit_is_noticed(tmp_path: Path) -> None:
    """The file then has the size and the times that the index says, and is as young as the index."""
    work_tree(tmp_path)
    file, index = tmp_path / "train.py", tmp_path / ".git/index"
    file.write_text("print(2)\n")
    os.utime(file, (1e9, 1e9))
    facts = file.stat()
    times = (divmod(one, 10**9) for one in (facts.st_ctime_ns, facts.st_mtime_ns))
    data = bytearray(index.read_bytes()[:-20])
    data[12:28] = struct.pack(">4I", *next(times), *next(times))
    index.write_bytes(bytes(data) + hashlib.sha1(data, usedforsecurity=False).digest())
    os.utime(index, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert described(tmp_path).dirty is True
    os.utime(index, (facts.st_mtime + 10, facts.st_mtime + 10))
    assert described(tmp_path).dirty is False, "the bytes were compared anyway"


def test_what_only_a_filter_could_tell_is_not_known(tmp_path: Path) -> None:
    work_tree(tmp_path)
    (tmp_path / ".gitattributes").write_text("*.h5 filter=lfs\n")
    (tmp_path / "model.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    git(tmp_path, "add", ".gitattributes", "model.h5")
    git(tmp_path, "commit", "-qm", "two")
    assert described(tmp_path).dirty is False
    (tmp_path / "model.h5").write_text("its content, as git lfs pull leaves it")
    assert described(tmp_path).dirty is None
    (tmp_path / "train.py").write_text("print(2)\n")
    assert described(tmp_path).dirty is True


def test_settings_by_which_files_are_compared_are_kept(tmp_path: Path) -> None:
    work_tree(tmp_path)
    git(tmp_path, "config", "core.autocrlf", "true")
    git(tmp_path, "config", "core.fileMode", "false")
    (tmp_path / "train.py").unlink()
    git(tmp_path, "checkout", "train.py")
    assert (tmp_path / "train.py").read_bytes() == b"print(1)\r\n"
    (tmp_path / "train.py").chmod(0o755)
    touch(tmp_path, 1)
    assert described(tmp_path).dirty is False


@pytest.mark.parametrize("what", ["no index", "split index", "elsewhere", "a broken index"])
def test_whether_files_differ_is_not_known_where_git_cannot_say(tmp_path: Path, what: str) -> None:
    commit = work_tree(tmp_path)
    index = tmp_path / ".git/index"
    match what:
        case "no index":
            index.unlink()
        case "split index":
            git(tmp_path, "update-index", "--split-index")
        case "elsewhere":
            git(tmp_path, "config", "core.worktree", "/")
        case _:
            index.write_bytes(b"DIRC" + b"\xff" * 100)
    found = described(tmp_path)
    assert (found.commit, found.dirty) == (commit, None)
