"""Make the virtual environment hold exactly what requirements-dev.lock says, hashes checked.

Runs on the system's Python before anything is installed, so it uses the standard library only. uv (itself taken from
the lock) does the work in seconds; where it cannot be installed, pip does the same in minutes. A stamp in the
environment makes a second call instant.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)
NEWEST_TRIED = (3, 13)


def stamp_text(lock: Path) -> str:
    """What an up-to-date environment's stamp says: the lock's hash and the Python it was installed for."""
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.version_info.major}.{sys.version_info.minor}\n"


def requirement_block(lock_text: str, name: str) -> str:
    """The lines of one package in a lock: its exact version and its hashes."""
    found = re.search(rf"^{re.escape(name)}==.*?(?=^\S|\Z)", lock_text, flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"{name} is not in the lock: run `make lock`")
    return found.group(0)


def environment_python(folder: Path) -> Path:
    """The environment's interpreter; the environment is made anew when it is missing, broken or of another Python."""
    python = folder / "bin" / "python"
    ask = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    if python.exists():
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == f"{sys.version_info.major}.{sys.version_info.minor}":
            return python
        print(f"{folder} belongs to another Python: making it anew", flush=True)
        shutil.rmtree(folder)
    try:
        venv.create(folder, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"Python cannot make a virtual environment with pip in {folder} ({error}).\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        ) from error
    return python


def pip_install(python: Path, requirements: str, *options: str) -> bool:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    return subprocess.run([*pip, *options, "-r", requirements], check=False).returncode == 0


def install_with_uv(python: Path, lock: Path) -> bool:
    """Sync the environment with uv; False when uv itself cannot be installed here."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only_uv:
        only_uv.write(requirement_block(lock.read_text(), "uv"))
        only_uv.flush()
        if not pip_install(python, only_uv.name, "--no-deps"):
            return False
    uv: list[str | Path] = [python, "-m", "uv", "pip", "sync", "--quiet", "--require-hashes", "--python", python, lock]
    return subprocess.run(uv, check=False).returncode == 0


def install_with_pip(python: Path, lock: Path) -> None:
    if not pip_install(python, str(lock)):
        raise SystemExit("The packages could not be installed: see the messages above. Is the package index reachable?")


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0] if arguments else ".venv").absolute()
    lock = ROOT / "requirements-dev.lock"
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SystemExit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if sys.version_info[:2] > NEWEST_TRIED:
        print("Note: tried on Python 3.11 to 3.13 only; choose one with `make PYTHON=python3.13 ...`", flush=True)
    stamp = folder / ".installed"
    if stamp.exists() and (folder / "bin" / "python").exists() and stamp.read_text() == stamp_text(lock):
        return
    print(f"Installing the packages of {lock.name} into {folder.name} (about a minute) ...", flush=True)
    python = environment_python(folder)
    stamp.unlink(missing_ok=True)
    if not install_with_uv(python, lock):
        print("uv could not be used; installing with pip instead (a few minutes) ...", flush=True)
        install_with_pip(python, lock)
    stamp.write_text(stamp_text(lock))


if __name__ == "__main__":
    main(sys.argv[1:])
