"""The pages Dashboard and System Logs over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pages_client import Pages, pages_of
from pipeline import NOV, OCT, Pipeline, one_time, recurring
from prepared import Prepared, prepare

from billing_sync.db import connect
from billing_sync.run import log_entry
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def delivered_world(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A delivered October of two customers; in November an offer that nobody mapped, and a plan that waits."""
    prepared = prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "dashboard_prepared")
    pipeline = prepared.copy(tmp_path_factory.mktemp("delivered"))
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT, 1, "1.00"), customer=3)
    pipeline.night(OCT)
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"), one_time("new", NOV, 2, "50.00", offerId="OF-NEW"))
    run_id, plan_id = pipeline.plan_night(NOV)
    pipeline.finish(run_id)
    return prepared.freeze(pipeline, run_id, plan_id)


@pytest.fixture
def pipeline(delivered_world: Prepared, tmp_path: Path) -> Iterator[Pipeline]:
    made = delivered_world.copy(tmp_path)
    yield made
    delivered_world.discard(made)


@pytest.fixture
def pages(pipeline: Pipeline) -> Iterator[Pages]:
    with pages_of(pipeline.dsn) as made:
        yield made


def steps_of(setup: dict[str, Any]) -> dict[str, str]:
    return {step["key"]: step["state"] for step in setup["steps"]}


# -- set-up ------------------------------------------------------------------------------------------------------------


def test_an_empty_database_says_what_to_do_next(billing_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPXITE_API", "CONNECTWISE_API"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}", raising=False)
    with pages_of(billing_db) as pages:
        setup = pages.get("setup")
        assert not setup["is_ready"]
        assert steps_of(setup) == {
            "billing_db": "done", "appxite_api": "todo", "connectwise_api": "todo", "migrations": "done",
            "agreement_type": "todo", "environment": "warning", "organizations": "todo", "products": "todo",
            "mapping_organizations": "todo", "mapping_offers": "todo", "first_run": "todo", "daily_sync": "warning",
        }  # fmt: skip
        assert all(step["detail"] for step in setup["steps"])
        for path in ("periods", "runs", "pauses", "parked", "plans"):
            assert pages.get(path) == []
        assert pages.get("money", period="2026-10") == {"total": 0, "offset": 0, "customers": []}
        assert pages.get("held")["total"] == []
        assert pages.get("logs/tiles") == {"total": 0, "errors": 0, "warnings": 0, "last_update": None}
        assert pages.get("subscriptions")["total"] == pages.get("attempts")["attempts"].__len__() == 0


def test_without_the_billing_database_the_pages_say_how_to_get_one(
    billing_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pages_of(billing_db) as pages:
        monkeypatch.delitem(os.environ, "AIRFLOW_CONN_BILLING_DB")
        me = pages.get("me")
        assert (me["name"], me["environment"]) == ("ann", None)
        setup = pages.get("setup")
        assert (setup["is_ready"], steps_of(setup)["billing_db"]) == (False, "todo")
        assert "billing_db" in setup["steps"][-1]["detail"]
        assert pages.refused("GET", "periods")[0] == 503


def test_the_checklist_of_a_working_set_up(pages: Pages) -> None:
    setup = pages.get("setup")
    found = {step["key"]: step for step in setup["steps"]}
    assert found["agreement_type"]["detail"] == "Cloud Subscriptions."
    assert (found["organizations"]["state"], found["products"]["state"], found["first_run"]["state"]) == ("done",) * 3
    assert found["environment"]["state"] == "done"
    assert found["mapping_organizations"]["state"] == "done"
    offers = found["mapping_offers"]
    assert (offers["state"], offers["detail"]) == ("todo", "1 offer is undecided while 100.00 EUR wait for it.")
    assert offers["link"] == "mapping/products?state=undecided&only_held=true"


def test_the_switch_of_the_daily_sync_tells_of_others(pages: Pages, pipeline: Pipeline) -> None:
    setup = pages.get("setup")
    version = setup["automated_daily_sync_version"]
    assert not setup["automated_daily_sync"]
    after = pages.send("PUT", "automated-daily-sync", {"on": True, "version": version})
    assert (after["automated_daily_sync"], steps_of(after)["daily_sync"]) == (True, "done")
    assert pipeline.value("select value from billing.setting where setting_key = 'automated_daily_sync'") is True
    status, message = pages.refused("PUT", "automated-daily-sync", {"on": False, "version": version})
    assert (status, "ann changed" in message) == (409, True)
    assert (
        pages.ask(
            "PUT", "automated-daily-sync", {"on": False, "version": version}, person="ed:read,edit,approve"
        ).status_code
        == 403
    )


def test_who_is_looking(pages: Pages) -> None:
    assert pages.get("me") == {
        "name": "ann",
        "permissions": ["read", "edit", "approve", "admin"],
        "environment": "tests",
    }


# -- money -------------------------------------------------------------------------------------------------------------


def test_money_of_periods_by_outcome(pages: Pages) -> None:
    november, october = pages.get("periods")
    assert (november["billing_period"], november["invoices"]) == ("2026-11", 1)
    assert {one["outcome"]: (one["amount"], one["lines"]) for one in november["outcomes"]} == {
        "awaiting approval": ("12.60", 1), "held": ("100.00", 1),
    }  # fmt: skip
    assert november["total"] == [{"currency": "EUR", "amount": "112.60", "lines": 2}]
    assert [(one["outcome"], one["amount"]) for one in october["outcomes"]] == [("delivered", "13.60")]


def test_money_by_customer_is_paged_and_sorted(pages: Pages) -> None:
    page = pages.get("money", period="2026-10")
    assert (page["total"], [one["total"] for one in page["customers"]]) == (2, ["12.60", "1.00"])
    assert [one["delivered"] for one in pages.get("money", period="2026-10", sort="total", limit=1)["customers"]] == [
        "1.00"
    ]
    beyond = pages.get("money", period="2026-10", offset=10)
    assert (beyond["total"], beyond["customers"]) == (2, [])
    (november,) = pages.get("money", period="2026-11")["customers"]
    assert (november["held"], november["awaiting_approval"], november["in_doubt"]) == ("100.00", "12.60", "0")
    assert november["company_id"] is not None
    for wrong in ({"period": "2026-13"}, {"period": "2026-10", "sort": "nonsense"}, {"period": "2026-10", "limit": 0}):
        assert pages.refused("GET", "money", **wrong)[0] == 422


def test_the_sums_are_those_of_the_reports(pages: Pages, pipeline: Pipeline) -> None:
    told = {
        (period["billing_period"], one["outcome"], one["currency"]): (Decimal(one["amount"]), one["lines"])
        for period in pages.get("periods")
        for one in period["outcomes"]
    }
    reported = {
        (period, outcome, currency): (amount, lines)
        for period, outcome, currency, amount, lines in pipeline.rows(
            "select to_char(billing_period, 'YYYY-MM'), outcome, currency, sum(amount), sum(line_count)::integer "
            "from reporting.money_by_customer group by 1, 2, 3"
        )
    }
    assert told == reported


@pytest.mark.parametrize("state", ["intended", "created", "active", "updating", "conflict", "delivered"])
def test_an_outcome_is_the_same_everywhere_in_each_state_of_an_addition(pipeline: Pipeline, state: str) -> None:
    pipeline.connection.execute("update delivery.addition set state = %s where subscription_id = 'sub-a'", [state])
    differing = pipeline.rows(
        """
        select line_id, reported.outcome, money.outcome
        from reporting.invoice_line as reported join billing.line_money as money using (line_id)
        where reported.outcome <> money.outcome
        """
    )
    assert differing == []
    assert ("in doubt" in pipeline.outcomes()) == (state not in ("conflict", "delivered"))


def test_held_money_with_cause_age_and_cure(pages: Pages, pipeline: Pipeline) -> None:
    line_id = pipeline.value("select line_id from billing.held_reason where reason_code = 'offer_unmapped'")
    pipeline.connection.execute(
        """
        insert into billing.held_reason (line_id, reason_code, held_since)
        values (%s, 'late_line', now() - interval '45 days')
        """,
        [line_id],
    )
    held = pages.get("held")
    assert held["total"] == [{"currency": "EUR", "amount": "100.00", "lines": 1}]
    first, second = held["causes"]
    assert (first["code"], first["days"], first["cure_link"]) == (
        "late_line",
        45,
        "settings/configuration?key=late_lines",
    )
    assert (second["code"], second["money"]) == ("offer_unmapped", held["total"])
    assert {age["bucket"]: age["money"] for age in held["ages"] if age["money"]} == {"31-90": held["total"]}
    assert [age["bucket"] for age in held["ages"]] == ["0-7", "8-30", "31-90", "90+"]
    assert pages.get("held", period="2026-10")["total"] == []


# -- runs, the stop button, bounds, subscriptions ----------------------------------------------------------------------


def test_runs_with_plan_money_and_writes(pages: Pages, pipeline: Pipeline, delivered_world: Prepared) -> None:
    newest, *_, first = pages.get("runs")
    assert (newest["run_id"], newest["state"], newest["plan_id"]) == (
        delivered_world.run_id, "awaiting_approval", delivered_world.plan_id,
    )  # fmt: skip
    assert newest["planned_amount"] == [{"currency": "EUR", "amount": "12.60", "lines": 1}]
    assert (newest["planned_additions"], newest["writes"], newest["kind"]) == (1, 0, "nightly")
    assert (first["kind"], first["plan_id"], first["planned_amount"]) == ("reference", None, [])
    delivered = pages.get("runs", before=newest["run_id"], limit=1)[0]
    assert (delivered["plan_state"], delivered["writes"], delivered["approved_by"]) == (
        "applied",
        4,
        "Automated Daily Sync",
    )
    pipeline.open("review", [])
    assert pages.get("runs")[0]["run_id"] == newest["run_id"]


def test_the_stop_button(pages: Pages, pipeline: Pipeline) -> None:
    company = pipeline.value("select company_id from delivery.addition where subscription_id = 'sub-b'")
    (paused,) = pages.send("POST", "pauses", {"company_id": company, "reason": "a dispute"})
    assert (paused["company_id"], paused["reason"], paused["paused_by"]) == (company, "a dispute", "ann")
    assert pages.refused("POST", "pauses", {"company_id": company, "reason": "another"}) == (
        409, "It is paused already: see by whom and why.",
    )  # fmt: skip
    both = pages.send("POST", "pauses", {"reason": "everything stops"})
    assert [one["company_id"] for one in both] == [None, company]
    assert pages.send("POST", "pauses/end", {}) == [paused]
    assert pages.send("POST", "pauses/end", {"company_id": company}) == []
    assert "There is no pause" in pages.refused("POST", "pauses/end", {})[1]
    assert pages.refused("POST", "pauses", {"reason": " "})[0] == 422
    assert pages.refused("POST", "pauses", {"reason": "x", "company_id": 999_999})[0] == 422
    assert pages.ask("POST", "pauses", {"reason": "x"}, person="ed:read,edit").status_code == 403
    assert (
        pipeline.value("select count(*) from audit.change where table_name = 'delivery.pause' and changed_by = 'ann'")
        == 4
    )


def test_what_a_bound_parks_is_let_pass(pages: Pages, pipeline: Pipeline) -> None:
    pipeline.set(bound_amount_per_line="10")
    pipeline.plan_night(NOV)
    parked, other = sorted(pages.get("parked"), key=lambda one: Decimal(one["figure"]))
    assert other["figure"] == "100.00"
    assert (parked["figure"], parked["money_at_risk"], parked["lines"]) == ("12.60", "12.60", 1)
    assert parked["reason"] == "The line's amount is above the bound"
    assert parked["organization_name"] in {
        one["organization_name"] for one in pages.get("subscriptions")["subscriptions"]
    }
    assert (
        "at 12.60, not at 12"
        in pages.refused("POST", "parked/allow", {"bound_key": parked["bound_key"], "up_to": "12"})[1]
    )
    for figure in ("NaN", "sNaN", "Infinity", "x"):
        assert pages.refused("POST", "parked/allow", {"bound_key": parked["bound_key"], "up_to": figure})[0] == 422
    pages.send("POST", "parked/allow", {"bound_key": parked["bound_key"], "up_to": "12.60", "note": "as agreed"})
    assert pipeline.rows("select allowed_by, note from billing.bound_allowance") == [("ann", "as agreed")]


def test_subscriptions(pages: Pages) -> None:
    page = pages.get("subscriptions", limit=2)
    assert (page["total"] > 3, len(page["subscriptions"])) == (True, 2)
    assert pages.get("subscriptions", offset=100_000) == {
        "total": page["total"],
        "offset": 100_000,
        "subscriptions": [],
    }
    (found,) = pages.get("subscriptions", q="SUB-A")["subscriptions"]
    assert (found["subscription_id"], found["currency"]) == ("sub-a", "EUR")
    assert (found["paid_until"], found["addition_ids"]) == ("2026-10-31", [])  # its November waits
    assert pages.get("subscriptions", amiss=True)["total"] <= page["total"]


# -- System Logs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(billing_db: str) -> Iterator[Pages]:
    with connect(billing_db) as connection:
        for number in range(1, 7):
            level = ("INFO", "WARNING", "ERROR")[number % 3]
            log_entry(connection, None, level, f"code_{number % 2}", f"Message {number}", invoice_id=number)
        connection.execute(
            """
            insert into audit.log_entry (level, code, message, logged_at)
            values ('ERROR', 'old', 'Long ago', now() - interval '31 days')
            """
        )
    with pages_of(billing_db) as pages:
        yield pages


def messages(page: dict[str, Any]) -> list[str]:
    return [entry["message"].removeprefix("Message ") for entry in page["entries"]]


def test_logs_are_filtered_and_paged(logs: Pages) -> None:
    assert messages(logs.get("logs")) == ["6", "5", "4", "3", "2", "1"]
    assert messages(logs.get("logs", levels=["ERROR", "WARNING"])) == ["5", "4", "2", "1"]
    assert messages(logs.get("logs", q="MESSAGE 4")) == ["4"]
    assert messages(logs.get("logs", q='"invoice_id": 2')) == ["2"]
    assert messages(logs.get("logs", q="%")) == []
    assert messages(logs.get("logs", code="code_1")) == ["5", "3", "1"]
    assert messages(logs.get("logs", run_id=1)) == []
    first = logs.get("logs", limit=4)
    assert messages(logs.get("logs", limit=4, before=first["next_before"])) == ["2", "1"]
    assert logs.get("logs", limit=6)["next_before"] is None
    assert logs.refused("GET", "logs", levels="LOUD")[0] == 422


def test_the_ledger_is_kept_for_ever(logs: Pages) -> None:
    assert "Long ago" in messages(logs.get("logs", ledger=True, levels="ERROR"))
    assert messages(logs.get("logs", ledger=True, q="long ago")) == ["Long ago"]
    tiles = logs.get("logs/tiles")
    assert (tiles["total"], tiles["errors"], tiles["warnings"]) == (6, 2, 2)
    assert tiles["last_update"] is not None


def test_a_page_that_looks_again_misses_nothing(logs: Pages) -> None:
    seen = logs.get("logs", limit=2)["entries"]
    newest = seen[0]["log_entry_id"]
    assert logs.get("logs", after=newest)["entries"] == []
    page = logs.get("logs", after=newest - 4, limit=3)
    assert (messages(page), page["next_before"]) == (["5", "4", "3"], None)


def test_who_wrote_what_when_with_which_answer(pages: Pages, pipeline: Pipeline) -> None:
    everything = pages.get("attempts")["attempts"]
    assert sorted((one["operation"], one["answer"]) for one in everything) == [
        ("activate", "ok"), ("activate", "ok"), ("create", "ok"), ("create", "ok"),
    ]  # fmt: skip
    addition_id, marker, number = pipeline.rows(
        """
        select ledger.connectwise_addition_id, ledger.marker, invoice.invoice_number
        from delivery.addition as ledger
        join delivery.addition_line using (delivery_key) join billing.invoice_line using (line_id)
        join billing.invoice as invoice using (invoice_id)
        where ledger.subscription_id = 'sub-a'
        """
    )[0]
    by_key = pages.get("attempts", delivery_key=everything[0]["delivery_key"])["attempts"]
    assert [one["operation"] for one in by_key] == ["activate", "create"]
    found = pages.get("attempts", subscription_id="sub-a")["attempts"]
    assert found == pages.get("attempts", addition_id=addition_id)["attempts"]
    assert found == pages.get("attempts", delivery_key=marker)["attempts"]
    assert found == pages.get("attempts", invoice_number=number)["attempts"]
    assert {one["approved_by"] for one in found} == {"Automated Daily Sync"}
    assert (found[0]["invoice_numbers"], found[0]["connectwise_addition_id"]) == ([number], addition_id)
    first = pages.get("attempts", limit=3)
    assert len(pages.get("attempts", before=first["next_before"])["attempts"]) == 1
    assert pages.get("attempts", subscription_id="nobody's")["attempts"] == []
