"""Agreement rules, new agreements and subscriptions on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline import OCT, Pipeline, recurring

Run = Callable[..., tuple[int, str]]

HEADER = "agreement_rule,charge_type,line_kind,offer_id,agreement_type,agreement_name,currency,billing_cycle\n"


def rules(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows(
        "select agreement_rule, agreement_type, agreement_name, currency, version from mapping.agreement_rule"
        " order by position"
    )


def test_rules_go_out_and_come_in_by_csv(pipeline: Pipeline, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rules.csv"
    file.write_text(
        HEADER + "usage,UsageFee,,,Cloud Subscriptions,*usage*,,\n"
        "own currency,,,OF-1001,,,Line,line\nusd,,recurring,,,,usd,Monthly\n"
    )
    code, said = run(pipeline.dsn, "agreement-rules", "import", str(file), "--as", "ann")
    assert (code, said.strip()) == (0, "3 agreement rules: 3 added, 0 changed, 0 removed by ann")
    assert rules(pipeline) == [
        ("usage", "Cloud Subscriptions", "*usage*", None, 1),
        ("own currency", None, None, "line", 1),
        ("usd", None, None, "USD", 1),
    ]

    exported = tmp_path / "exported.csv"
    assert run(pipeline.dsn, "agreement-rules", "export", str(exported))[0] == 0
    code, said = run(pipeline.dsn, "agreement-rules", "import", str(exported))
    assert "3 agreement rules: 0 added, 0 changed, 0 removed" in said
    lines = exported.read_text().splitlines()

    exported.write_text("\n".join([lines[0], lines[3], lines[1].replace("*usage*", "*metered*")]))
    code, said = run(pipeline.dsn, "agreement-rules", "import", str(exported), "--as", "bob")
    assert "2 agreement rules: 0 added, 2 changed, 1 removed by bob" in said
    # A rule that only moved keeps its version.
    assert [(row[0], row[-1]) for row in rules(pipeline)] == [("usd", 1), ("usage", 2)]
    history = pipeline.rows(
        """
        select changed_by, row_key, before ->> 'agreement_name', after ->> 'agreement_name' from audit.change
        where table_name = 'mapping.agreement_rule' and changed_by = 'bob' order by row_key
        """
    )
    assert history == [
        ("bob", "own currency", None, None), ("bob", "usage", "*usage*", "*metered*"), ("bob", "usd", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,NoSuchFee,,,,,,", "charge_type 'NoSuchFee'"),
        ("a,,,nothing,,,,", "offer_id 'nothing'"),
        ("a,,,,No type,,,", "agreement_type 'No type'"),
        ("a,,sometimes,,,,,", "line 2: line_kind 'sometimes'"),
        ("a,,,,,,EURO,", "line 2: currency 'EURO'"),
        ("a,,,,,,,Weekly", "line 2: billing_cycle 'Weekly'"),
        (",,,,x,,,", "line 2: agreement_rule (the rule's name) is empty"),
        ("b,,,,,,,\nb,,,,,,,", "rule 'b' stands in it twice"),
        ("b,,,,,,,\nc,NoSuchFee,,,,,,", "charge_type 'NoSuchFee'"),
    ],
)
def test_a_file_with_anything_wrong_changes_nothing(
    pipeline: Pipeline, run: Run, tmp_path: Path, row: str, words: str
) -> None:
    file = tmp_path / "rules.csv"
    file.write_text(HEADER + "kept,,,,,,,\n")
    run(pipeline.dsn, "agreement-rules", "import", str(file))
    file.write_text(HEADER + row)

    code, said = run(pipeline.dsn, "agreement-rules", "import", str(file))

    assert (code, words in said) == (1, True), said
    assert [rule[0] for rule in rules(pipeline)] == ["kept"]


def test_new_agreements_are_listed_refused_and_allowed(pipeline: Pipeline, run: Run) -> None:
    store = pipeline.sandbox.store
    with store.transaction():
        for record in [one for one in store.records("agreement").values() if one["company"]["id"] == 204]:
            store.delete("agreement", record)
    pipeline.set(create_agreements="on", automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT, 2), customer=3)
    _, plan_id = pipeline.plan_night(OCT)

    code, said = run(pipeline.dsn, "agreements", "list")
    assert (code, f"1 │ 20.00 EUR │ {plan_id} │ planned" in said, "(204)" in said) == (0, True, True), said
    assert "2026-10-01" in said
    assert "│ 1 │" in run(pipeline.dsn, "plan", "list")[1]
    assert run(pipeline.dsn, "agreements", "refuse", "204", "--reason", "Card", "--as", "ann")[0] == 0
    assert "refused by ann" in run(pipeline.dsn, "agreements", "list")[1]
    assert "refused by ann: Card; the next run" in run(pipeline.dsn, "agreements", "allow", "204", "--as", "bob")[1]
    assert run(pipeline.dsn, "agreements", "allow", "204")[0] == 1


def test_subscriptions_are_listed_and_those_with_something_amiss_alone(pipeline: Pipeline, run: Run) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), recurring("b", OCT, 1))
    pipeline.night(OCT)
    pipeline.connection.execute(
        "insert into mapping.subscription (subscription_id, name, organization_id, status, quantity)"
        " select 'sub-' || name, 'Subscription ' || name, organization_id, 'Active', 1"
        " from unnest(array['a', 'b']) as name, billing.invoice"
    )

    code, said = run(pipeline.dsn, "subscriptions", "list")
    assert code == 0
    assert all(name in said for name in ("Subscription a", "Subscription b"))
    assert "4.2 EUR │ Active" in said
    said = run(pipeline.dsn, "subscriptions", "list", "--amiss")[1]
    assert "Subscription a" in said
    assert "Subscription b" not in said
