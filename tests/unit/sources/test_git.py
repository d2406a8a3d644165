"""Git repositories: one commit's files become documents; nothing in them is followed or run."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, NotFound, RecipeError, Unsupported
from tailorbird.records import Document
from tailorbird.sources.git import git_at
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

pytest.importorskip("dulwich")

from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import Repo

FILE, LINK, MODULE = 0o100644, 0o120000, 0o160000
AUTHOR = b"A <a@example.org>"


def make_commit(repository, entries):
    """A commit on main whose tree has these entries: bytes, folders, or (mode, bytes, sha of what is there)."""
    objects = repository.object_store
    tree = make_tree(objects, entries)
    commit = Commit()
    commit.tree, commit.author, commit.committer, commit.message = tree.id, AUTHOR, AUTHOR, b"x"
    commit.author_time = commit.commit_time = 1
    commit.author_timezone = commit.commit_timezone = 0
    objects.add_object(commit)
    repository.refs[b"refs/heads/main"] = commit.id
    repository.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
    return commit


def make_tree(objects, entries):
    tree = Tree()
    for name, value in entries.items():
        if isinstance(value, dict):
            tree.add(name, stat.S_IFDIR, make_tree(objects, value).id)
            continue
        mode, content, sha = value if isinstance(value, tuple) else (FILE, value, None)
        if sha is None:
            blob = Blob.from_string(content)
            objects.add_object(blob)
            sha = blob.id
        tree.add(name, mode, sha)
    objects.add_object(tree)
    return tree


FILES = {
    b"README.md": b"# Shop\n\nOpens at nine.\n",
    b"docs": {b"fees.txt": b"A transfer costs two euros.\n", b"old": {b"a.md": b"Old.\n"}},
    b"src": {b"fee.py": b"def fee():\n    return 2\n"},
    b".github": {b"ci.yml": b"on: push\n"},
}


@pytest.fixture
def repository(tmp_path):
    with Repo.init_bare(str(tmp_path / "shop.git"), mkdir=True) as made:
        make_commit(made, FILES)
        yield made


def items(repository, **settings):
    return {item.id: item for item in git_at(repository.path, **settings).documents()}


def test_the_files_of_a_commit_become_documents(repository):
    found = items(repository)
    assert list(found) == ["README.md", "docs/fees.txt", "docs/old/a.md", "src/fee.py"]
    blob = Blob.from_string(FILES[b"README.md"]).id.decode()
    assert found["README.md"] == Document("README.md", "# Shop\n\nOpens at nine.\n".strip(), "Shop", blob)
    assert found["src/fee.py"].text.startswith("```python\n")


def test_it_keeps_its_contract(repository):
    connector = git_at(repository.path, id_prefix="shop/")
    check_connector(connector)
    check_versioned(connector)


def test_patterns_choose_files_and_a_prefix_sets_repositories_apart(repository):
    found = items(repository, include="docs/**/*.md, *.txt, *.py", exclude="docs/old/", id_prefix="shop/")
    assert list(found) == ["shop/docs/fees.txt", "shop/src/fee.py"]


def test_a_branch_a_tag_or_a_commit_is_read(repository):
    first = repository.head().decode()
    repository.refs[b"refs/tags/v1"] = repository.head()
    make_commit(repository, {b"new.md": b"New."})
    assert list(items(repository)) == ["new.md"]
    for ref in ("v1", first[:10]):
        assert "README.md" in items(repository, ref=ref)
    with pytest.raises(
        NotFound, match=r"shop\.git: has no branch, tag or commit 'nope' with files\. Name one"
    ):
        items(repository, ref="nope")


def test_a_second_sync_unpacks_only_what_changed(repository, tmp_path, monkeypatch):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(git_at(repository.path)).added == 4
        make_commit(
            repository, {**FILES, b"README.md": b"# Shop\n\nOpens at ten.\n", b"src": {b"x.md": b"New."}}
        )
        loaded, read = [], ParserProcess.read
        monkeypatch.setattr(ParserProcess, "read", lambda self, *a: loaded.append(a) or read(self, *a))
        report = index.sync(git_at(repository.path))
        assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 2)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def test_links_submodules_and_pointers_are_named_and_not_followed(repository, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    make_commit(
        repository,
        {
            b"link.md": (LINK, b"../secret.md", None),
            b"other": (LINK, b"/etc", None),
            b"module": (MODULE, b"", b"1" * 40),
            b"large.pdf": POINTER,
            b"gone.md": (FILE, b"", b"2" * 40),
            b"fine.md": b"Fine.",
        },
    )
    found = items(repository)
    reasons = {name: item.reason for name, item in found.items() if isinstance(item, Unreadable)}
    assert reasons == {
        "link.md": "is a link, which is not followed. Put the file in its place.",
        "other": "is a link, which is not followed. Put the file in its place.",
        "module": "is a submodule, which is not followed. Add its own repository.",
        "large.pdf": (
            "is a pointer of Git LFS, and its content lies elsewhere. Fetch it with git lfs, and add that folder."
        ),
        "gone.md": "its content is not in the repository. Fetch it with git first.",
    }
    assert found["fine.md"].text == "Fine."


def test_names_that_lead_elsewhere_are_refused(repository):
    make_commit(
        repository,
        {
            b"..": {b"a.md": b"x"},
            b"../up.md": b"x",
            b"a/../../b.md": b"x",
            b"c\\d.md": b"x",
            b"ok.md": b"Fine.",
        },
    )
    found = items(repository)
    assert {name for name, item in found.items() if isinstance(item, Document)} == {"ok.md"}
    assert {item.reason for item in found.values() if isinstance(item, Unreadable)} == {
        "is no name that a file can have. Rename it."
    }
    assert set(found) == {"..", "../up.md", "a/../../b.md", "c\\d.md", "ok.md"}


def test_a_name_that_is_no_utf8_is_unreadable_in_the_index(repository, tmp_path):
    make_commit(repository, {b"caf\xe9.md": b"x", b"ok.md": b"Fine."})
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        report = index.sync(git_at(repository.path))
        assert (report.added, report.unreadable) == (1, (("caf\\udce9.md", "its name is not valid UTF-8"),))


def test_a_tree_of_trees_of_the_same_trees_ends(repository, monkeypatch):
    tree = make_tree(repository.object_store, {b"a.md": b"x"})
    for _ in range(8):
        outer = Tree()
        for n in range(10):
            outer.add(b"d%d" % n, stat.S_IFDIR, tree.id)
        repository.object_store.add_object(outer)
        tree = outer
    make_commit(repository, {b"d": (stat.S_IFDIR, b"", tree.id)})
    monkeypatch.setattr("tailorbird.sources.git_commits.MOST_ENTRIES", 1_000)
    with pytest.raises(
        DocumentError, match=r"shop\.git: holds more than 1,000 files and folders\. Name another"
    ):
        list(git_at(repository.path, exclude="*").documents())


def test_a_folder_in_itself_too_often_is_refused(repository):
    inner = {b"a.md": b"x"}
    for _ in range(70):
        inner = {b"d": inner}
    make_commit(repository, inner)
    ((_, item),) = items(repository).items()
    assert item.reason == "is a folder too deep inside others; at most 64 are followed."


def test_a_blob_that_unpacks_to_too_much_is_refused_and_the_next_read(repository):
    make_commit(repository, {b"a.md": b"x" * 60_000_000, b"b.md": b"Fine."})
    found = items(repository)
    assert found["a.md"].reason == "57 MB; at most 50 MB are read. Divide it."
    assert found["b.md"].text == "Fine."


def test_a_damaged_repository_is_refused_and_the_index_keeps_what_it_has(repository, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(git_at(repository.path))
        tree = repository[repository.head()].tree.decode()
        file = Path(repository.path) / "objects" / tree[:2] / tree[2:]
        file.chmod(0o600)
        file.write_bytes(b"no zlib")
        with pytest.raises(DocumentError, match=r"shop\.git: damaged, cannot be read"):
            index.sync(git_at(repository.path))
        file.unlink()
        with pytest.raises(DocumentError, match=r"shop\.git: the repository is damaged"):
            index.sync(git_at(repository.path))
        assert index.keyword_search("nine")


def test_no_repository_odd_patterns_and_a_missing_package_are_said(tmp_path, monkeypatch):
    with pytest.raises(NotFound, match=r"is no git repository\. Name its folder"):
        list(git_at(str(tmp_path)).documents())
    with pytest.raises(NotFound, match=r"nope: there is no such folder\. Name a git repository"):
        list(git_at(str(tmp_path / "nope")).documents())
    with pytest.raises(RecipeError, match=r"^pattern '/': expected one to 500 characters"):
        git_at("x", include=["/"])
    monkeypatch.setattr("tailorbird.sources.optional.find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"git: the package dulwich is not installed.*'tailorbird\[git\]'"):
        git_at("x")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_repository_of_git_itself_is_read_packed_and_its_working_tree_and_hooks_play_no_part(tmp_path):
    root = tmp_path / "work"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments):
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(
            ["git", "-C", str(root), *name, *arguments], check=True, env=environment, capture_output=True
        )

    root.mkdir()
    git("init", "-b", "main")
    (root / "a.md").write_text("Committed.")
    (root / ".gitattributes").write_text("*.md filter=evil\n")
    git("add", ".")
    git("commit", "-m", "x")
    git("gc")
    mark = tmp_path / "ran"
    git("config", "filter.evil.smudge", f"touch {mark}")
    git("config", "core.fsmonitor", f"touch {mark}")
    hook = root / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    (root / "a.md").write_text("Not committed.")
    (root / "b.md").write_text("Not added.")
    assert [item.text for item in git_at(str(root)).documents()] == ["Committed."]
    assert not mark.exists()
