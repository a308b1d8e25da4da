"""What Airflow's own plugin scanner sees, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"


def test_the_real_scanner_runs_only_plugin_files():
    from airflow._shared.module_loading import find_path_from_directory

    found = sorted(find_path_from_directory(str(PLUGINS), ".airflowignore", "glob"))
    python = [Path(file).relative_to(PLUGINS).as_posix() for file in found if file.endswith(".py")]
    assert python
    assert all(file.endswith("_plugin.py") for file in python), python


def test_airflow_loads_the_plugin_and_shadows_no_module():
    """Else plugins/billing_hooks/connectwise.py would become the module `connectwise`, and __init__.py `__init__`."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from airflow import plugins_manager\n"
        "plugins, errors = plugins_manager._get_plugins()\n"
        "assert not errors, errors\n"
        "assert 'connectwise_billing' in {plugin.name for plugin in plugins}, plugins\n"
        "bad = {'appxite', 'connectwise', 'billing_db', 'preflight', 'connections', '__init__'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_preflight_for_a_dag_file_loads_no_provider():
    script = (
        "import sys; import billing_hooks.preflight\n"
        "heavy = [name for name in sys.modules if name.startswith(('airflow', 'requests', 'psycopg', 'pydantic'))]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_pipeline_never_imports_airflow():
    script = (
        "import sys, pkgutil, importlib, billing_sync\n"
        "for found in pkgutil.iter_modules(billing_sync.__path__):\n"
        "    if found.name != '__main__': importlib.import_module('billing_sync.' + found.name)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'airflow']\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
