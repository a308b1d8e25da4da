"""The whole API against generated requests, by its own schema: no unexpected error, answers as promised, nothing
without a session. `make fuzz` tries more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pages_server import pages_server
from pipeline import NOV, OCT, one_time, recurring
from prepared import prepare
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from billing_pages.app import build_app
from local_stack.postgres import Postgres

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
EVERYTHING = "ann:read,edit,approve,admin"
# Answers of 503 that are right: somebody else is changing the same, or the question was too wide.
RIGHT_503 = {"busy", "too slow"}

schema = schemathesis.openapi.from_dict(build_app().openapi())


@pytest.fixture(scope="module")
def address(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pages of a database with delivered, held and awaiting lines of two months."""
    prepared = prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "pages_fuzz_prepared")
    pipeline = prepared.copy(tmp_path_factory.mktemp("fuzz"))
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("x", OCT, 1, "3.00"))
    pipeline.night(OCT)
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"), recurring("b", NOV, 1, "7.00", chargeType="UnknownFee"))
    run_id, _ = pipeline.plan_night(NOV)
    pipeline.finish(run_id)
    with pages_server(pipeline.dsn) as address:
        yield address
    prepared.discard(pipeline)


@pytest.mark.timeout(600)
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_request_is_answered_as_promised(case: schemathesis.Case, address: str) -> None:
    headers = {"Origin": address.removesuffix("/billing"), "X-Billing-Request": "1"}
    if case.method != "GET":
        headers["Content-Type"] = "application/json"

    nobody = case.call(base_url=address, headers={**headers, "X-Test-Person": "-"}, timeout=60)
    if nobody.status_code == 400 and b"Invalid HTTP request" in nobody.content:
        return  # longer than the server takes: it never came to the pages
    assert nobody.status_code == 401, f"without a session: {nobody.status_code}"

    answer = case.call(base_url=address, headers={**headers, "X-Test-Person": EVERYTHING}, timeout=60)
    if answer.status_code >= 500:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"] in RIGHT_503, answer.text
    case.validate_response(answer, checks=[response_schema_conformance, content_type_conformance])
