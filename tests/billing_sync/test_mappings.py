"""Mapping files: what is exported can be imported, what is wrong is said by line, and names are never calculated."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pipeline import OCT, Pipeline, check, one_time, recurring

from billing_sync.errors import ConfigurationError
from billing_sync.mappings import KINDS, ImportResult, export_mappings, import_mappings, read_mapping_file

Run = Callable[..., tuple[int, str]]


def mapped(pipeline: Pipeline, kind: str) -> list[tuple[object, ...]]:
    known = KINDS[kind]
    return pipeline.rows(
        f"select {known.source_id}, {known.target_id}, state, note, decided_by from mapping.{known.table} order by 1"
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_export_and_import_again_changes_nothing(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    pipeline.connection.execute("update mapping.organization_mapping set note = 'a, \"b\"' where company_id = 201")
    pipeline.connection.execute(
        "update mapping.organization_mapping set state = 'excluded', decided_by = null where company_id = 204"
    )
    before, changes = mapped(pipeline, kind), pipeline.value("select count(*) from audit.change")
    path = tmp_path / "mappings.csv"
    exported = export_mappings(pipeline.connection, kind)
    exported.to_csv(path, index=False)
    assert len(exported) == len(before) > 3
    for approve in (True, False):
        result = import_mappings(
            pipeline.connection, kind, read_mapping_file(path, kind), approve=approve, person="Anna"
        )
        assert result.rows == len(before)
    assert mapped(pipeline, kind) == before
    assert pipeline.value("select count(*) from audit.change") == changes


def test_a_new_entry_stays_undecided_until_its_state_is_filled_in(pipeline: Pipeline, tmp_path: Path) -> None:
    """Undecided lines are held; were the default taken for a decision, they would be excluded, unseen by anybody."""
    pipeline.connection.execute("update mapping.organization_mapping set state = 'excluded', decided_by = null")
    frame = export_mappings(pipeline.connection, "organizations")
    assert set(frame["state"].fillna("")) == {""}
    frame.loc[frame["company_id"] == "201", "state"] = "approved"
    frame.loc[frame["company_id"] == "202", "state"] = "excluded"
    frame.to_csv(tmp_path / "m.csv", index=False)
    given = read_mapping_file(tmp_path / "m.csv", "organizations")

    # Without --approve the file proposes, and decides nothing.
    assert import_mappings(pipeline.connection, "organizations", given, approve=False, person="Anna") == ImportResult(
        rows=4, approved=0, excluded=0, undecided=4
    )
    assert {row[4] for row in mapped(pipeline, "organizations")} == {None}
    assert import_mappings(pipeline.connection, "organizations", given, approve=True, person="Anna") == ImportResult(
        rows=4, approved=1, excluded=1, undecided=2
    )
    assert sorted((row[1], row[2], row[4]) for row in mapped(pipeline, "organizations")) == [
        (201, "approved", "Anna"), (202, "excluded", "Anna"), (203, "excluded", None), (204, "excluded", None),
    ]  # fmt: skip
    assert set(pipeline.rows("select changed_by from audit.change where after ->> 'decided_by' = 'Anna'")) == {
        ("Anna",)
    }
    for customer in range(3):
        pipeline.bill(OCT, recurring(f"{customer}", OCT, 10**customer, "1.00"), customer=customer)
    _, proof = pipeline.night(OCT)
    assert (proof["delivered"], proof["excluded"], proof["held"]) == ("1.00", "10.00", "100.00")


def test_names_that_look_like_formulas_stay_text(pipeline: Pipeline, tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x";"y")', "+1", "-2 @", "@SUM(A1)"]
    ids = [row[0] for row in pipeline.rows("select organization_id from mapping.organization order by 1")]
    for organization_id, name in zip(ids, names, strict=True):
        pipeline.connection.execute(
            "update mapping.organization set name = %s where organization_id = %s", [name, organization_id]
        )
        pipeline.connection.execute(
            "update mapping.organization_mapping set note = %s where organization_id = %s", [name, organization_id]
        )
    path = tmp_path / "m.csv"
    export_mappings(pipeline.connection, "organizations").to_csv(path, index=False)
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.DictReader(file) for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    before = mapped(pipeline, "organizations")
    import_mappings(
        pipeline.connection, "organizations", read_mapping_file(path, "organizations"), approve=True, person="Anna"
    )
    assert mapped(pipeline, "organizations") == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("organization_id\n110001\n", "lacks the column company_id. It has: organization_id"),
        ("a;b\n1;2\n", "lacks the column organization_id and company_id"),
        ("organization_id,company_id\n110001,abc\n", "line 2: company_id 'abc' is not a ConnectWise id"),
        ("organization_id,company_id\n\n\n110001,-3\n", "line 4: company_id '-3' is not a ConnectWise id"),
        ("organization_id,company_id\n110001,12345678901\n", "line 2: company_id '12345678901' is not"),
        ("organization_id,company_id\n,201\n", "line 2: organization_id is empty"),
        ("organization_id,company_id,state\n1,2,approved\n2,3,yes\n", "line 3: state 'yes' is neither approved nor"),
        ("organization_id,company_id,state\n110001,,approved\n", "line 2: approved without company_id"),
        ("organization_id,company_id,state\n110001\n110008,x,\n", "line 3: company_id 'x' is not"),
        ("organization_id,company_id\n1,201\n2,202\n1,203\n", "organization_id '1' stands in it twice"),
        ("", "its first line must name each column once"),
        ("organization_id,company_id,company_id\n1,2,3\n", "its first line must name each column once"),
        ("organization_id,company_id\n110001,201,\n110008,202,x\n", "Line 3 has more cells than the first line"),
        ('organization_id,n,company_id\n1,"two\nlines",201\n2,,x\n', "line 4: company_id 'x' is not"),
        ('organization_id,company_id\n"1,2\n', "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(ConfigurationError) as refusal:
        read_mapping_file(path, "organizations")
    assert str(path) in str(refusal.value)
    assert said in str(refusal.value)


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read as CSV"):
        read_mapping_file(tmp_path / "absent.csv", "organizations")
    (tmp_path / "latin.csv").write_bytes("organization_id,company_id\n\xe4,1\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="cannot be read as CSV"):
        read_mapping_file(tmp_path / "latin.csv", "organizations")
    with pytest.raises(ConfigurationError, match=r"There are no mappings of 'people'\. Known: organizations, offers"):
        read_mapping_file(tmp_path / "absent.csv", "people")


def test_what_spreadsheets_do_to_a_file_does_no_harm(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blanks around, short rows, empty lines and a stray comma at each line's end."""
    path = tmp_path / "m.csv"
    path.write_bytes(
        "\ufefforganization_id,company_id,state\r\n 110001 , 201 , approved \r\n\r\n110008\r\n,,\r\n".encode()
    )
    frame = read_mapping_file(path, "organizations")
    assert frame[["organization_id", "company_id", "state", "note"]].values.tolist() == [
        ["110001", "201", "approved", ""],
        ["110008", "", "", ""],
    ]
    write(path, "organization_id,company_id\n110001,201,\n110008,202,\n")
    frame = read_mapping_file(path, "organizations")
    assert frame[["organization_id", "company_id"]].values.tolist() == [["110001", "201"], ["110008", "202"]]


def test_ids_that_are_not_known_stop_the_whole_import(pipeline: Pipeline) -> None:
    before = mapped(pipeline, "organizations")
    frame = pd.DataFrame(
        {"organization_id": ["110001", "999"], "company_id": ["205000", "202"], "state": "approved", "note": ""}
    )
    with pytest.raises(ConfigurationError) as refusal:
        import_mappings(pipeline.connection, "organizations", frame, approve=True, person="Anna")
    assert "Nothing was imported: 2 ids are not known: organization_id 999, company_id 205000" in str(refusal.value)
    assert mapped(pipeline, "organizations") == before
    with pytest.raises(ConfigurationError, match="There are no mappings of 'people'"):
        export_mappings(pipeline.connection, "people")


# -- what may be approved ----------------------------------------------------------------------------------------------


def one_row(kind: str, tmp_path: Path, **cells: str) -> pd.DataFrame:
    path = tmp_path / "one.csv"
    pd.DataFrame([cells]).to_csv(path, index=False)
    return read_mapping_file(path, kind)


@pytest.mark.parametrize(
    ("kind", "cells", "broken", "said"),
    [
        ("organizations", {"organization_id": "110001", "company_id": "202"},
            "update mapping.company set is_deleted = true where company_id = 202", r"\(202\) is deleted"),
        ("organizations", {"organization_id": "110001", "company_id": "202"},
            "update mapping.company set is_gone = true where company_id = 202", r"\(202\) is gone"),
        ("organizations", {"organization_id": "110001", "company_id": "202"},
            "update mapping.company set status = 'Inactive' where company_id = 202", r"\(202\) is Inactive"),
        ("offers", {"offer_id": "OF-1001", "product_id": "502"},
            "update mapping.product set is_inactive = true where product_id = 502", r"\(502\) is inactive"),
        ("offers", {"offer_id": "OF-1001", "product_id": "502"},
            "update mapping.product set product_class = 'Bundle' where product_id = 502", r"\(502\) is a Bundle"),
        ("offers", {"offer_id": "OF-1001", "product_id": "502", "billing_frequency": "Every 1 months"},
            "update mapping.product set is_gone = true where product_id = 502", r"\(502\) is gone"),
        ("contracts", {"contract_id": "CT-30001", "agreement_id": "1001"},
            "update mapping.agreement set is_cancelled = true where agreement_id = 1001", r"\(1001\) is cancelled"),
    ],
)  # fmt: skip
def test_what_cannot_be_billed_is_not_approved(
    pipeline: Pipeline, tmp_path: Path, kind: str, cells: dict[str, str], broken: str, said: str
) -> None:
    pipeline.connection.execute(broken.encode())
    before = mapped(pipeline, kind)
    frame = one_row(kind, tmp_path, **cells, state="approved")

    with pytest.raises(ConfigurationError, match=rf"Nothing was imported.* line 2: .*{said}.*Choose another"):
        import_mappings(pipeline.connection, kind, frame, approve=True, person="Anna")

    assert mapped(pipeline, kind) == before
    import_mappings(pipeline.connection, kind, frame, approve=False, person="Anna")  # a proposal bills nothing
    assert pipeline.value("select count(*) from mapping.offer_variant_mapping where state = 'approved'") == 0


def test_an_old_approval_of_what_became_unusable_does_not_keep_others_from_being_imported(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.connection.execute("update mapping.company set is_deleted = true where company_id = 201")
    path = tmp_path / "m.csv"
    frame = export_mappings(pipeline.connection, "organizations")
    assert frame.set_index("company_id")["company_status"].to_dict()["201"] == "deleted"
    frame.loc[frame["company_id"] == "202", "state"] = "excluded"
    frame.to_csv(path, index=False)

    import_mappings(
        pipeline.connection, "organizations", read_mapping_file(path, "organizations"), approve=True, person="Anna"
    )

    assert [row[1:3] for row in mapped(pipeline, "organizations")][:2] == [(201, "approved"), (202, "excluded")]


# -- offers: window, variants, recurring mode --------------------------------------------------------------------------


def offer_file(pipeline: Pipeline, path: Path, *arguments: str, run: Run) -> pd.DataFrame:
    code, text = run(pipeline.dsn, "mappings", "export", "offers", str(path), *arguments)
    assert code == 0, text
    return pd.read_csv(path, dtype="str", keep_default_na=False).set_index(["offer_id", "billing_frequency"])


def test_only_offers_of_the_window_are_exported_with_the_frequencies_they_had_in_it(
    pipeline: Pipeline, tmp_path: Path, run: Run
) -> None:
    pipeline.connection.execute("update mapping.offer set last_invoiced_on = '2026-04-30'")
    pipeline.connection.execute("update mapping.offer set last_invoiced_on = '2026-05-01' where offer_id = 'OF-1001'")
    pipeline.connection.execute("delete from mapping.offer_frequency")
    for frequency, day in (("Every 1 months", "2026-05-01"), ("Every 12 months", "2026-02-01")):
        pipeline.connection.execute("insert into mapping.offer_frequency values ('OF-1001', %s, %s)", [frequency, day])

    everything = offer_file(pipeline, tmp_path / "all.csv", run=run)
    since = offer_file(pipeline, tmp_path / "since.csv", "--since", "2026-05", run=run)

    assert len(everything) == pipeline.value("select count(*) from mapping.offer") > 3
    assert everything.loc[("OF-1001", ""), "frequencies"] == "Every 1 months; Every 12 months"
    assert list(since.index) == [("OF-1001", "")]
    assert since.iloc[0]["frequencies"] == "Every 1 months"
    assert "Only offers are listed" in run(
        pipeline.dsn, "mappings", "export", "contracts", str(tmp_path / "x.csv"), "--since", "2026-05"
    )[1]  # fmt: skip


def test_monthly_and_yearly_of_one_offer_are_mapped_apart_by_a_line_each(
    pipeline: Pipeline, tmp_path: Path, run: Run
) -> None:
    pipeline.connection.execute("insert into mapping.offer_frequency values ('OF-1001', 'Every 12 months', null)")
    path = tmp_path / "offers.csv"
    frame = offer_file(pipeline, path, run=run).reset_index()
    frame = frame.loc[frame["offer_id"] == "OF-1001"]
    yearly = frame.assign(billing_frequency="Every 12 months", product_id="502", recurring_mode="dated")
    pd.concat([frame, yearly]).to_csv(path, index=False)

    code, text = run(pipeline.dsn, "mappings", "import", "offers", str(path), "--approve", "--as", "Anna")

    assert code == 0, text
    assert pipeline.rows("select product_id, recurring_mode from mapping.offer_mapping where offer_id = 'OF-1001'") == [
        (501, None)
    ]
    variant = (
        "select billing_frequency, product_id, recurring_mode, state, decided_by from mapping.offer_variant_mapping"
    )
    assert pipeline.rows(variant) == [("Every 12 months", 502, "dated", "approved", "Anna")]
    exported = offer_file(pipeline, path, run=run)
    assert exported.loc[("OF-1001", "Every 12 months"), ["product_id", "recurring_mode", "state"]].tolist() == [
        "502", "dated", "approved",
    ]  # fmt: skip
    changes = pipeline.value("select count(*) from audit.change")
    assert run(pipeline.dsn, "mappings", "import", "offers", str(path), "--approve", "--as", "Bob")[0] == 0
    assert pipeline.value("select count(*) from audit.change") == changes
    # Yearly lines become the other product, and the money is right.
    pipeline.bill(OCT, recurring("m", OCT, 2, "3.00"))
    pipeline.bill(OCT, recurring("y", OCT, 1, "90.00", billingFrequency="Every 12 months"))
    pipeline.night(OCT)
    assert {one["product"]["id"]: one["extPrice"] for one in pipeline.additions()} == {501: 6, 502: 90}
    check(pipeline.sandbox)


def test_a_file_without_recurring_mode_leaves_it_as_it_is(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.connection.execute("update mapping.offer_mapping set recurring_mode = 'dated' where offer_id = 'OF-1001'")
    for cells, mode in (
        ({"note": "x"}, "dated"),
        ({"recurring_mode": ""}, None),
        ({"recurring_mode": "dated"}, "dated"),
    ):
        frame = one_row("offers", tmp_path, offer_id="OF-1001", product_id="501", state="approved", **cells)
        import_mappings(pipeline.connection, "offers", frame, approve=True, person="Anna")
        assert pipeline.value("select recurring_mode from mapping.offer_mapping where offer_id = 'OF-1001'") == mode


def test_a_recurring_mode_or_frequency_with_a_typing_error_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    row = {"offer_id": "OF-1001", "product_id": "501", "state": "approved"}
    with pytest.raises(ConfigurationError, match="line 2: recurring_mode 'weekly' is neither persistent nor dated"):
        one_row("offers", tmp_path, **row, recurring_mode="weekly")
    frame = one_row("offers", tmp_path, **row, billing_frequency="Every 1 mnths")
    with pytest.raises(ConfigurationError, match=r"line 2: Every 1 mnths\. Known: .*Every 1 months"):
        import_mappings(pipeline.connection, "offers", frame, approve=True, person="Anna")
    assert pipeline.value("select count(*) from mapping.offer_variant_mapping") == 0


# -- targets and default products --------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["companies", "products", "agreements"])
def test_the_lists_to_pick_from_say_what_cannot_be_picked(
    pipeline: Pipeline, tmp_path: Path, run: Run, targets: str
) -> None:
    table = {"companies": "company", "products": "product", "agreements": "agreement"}[targets]
    pipeline.connection.execute(
        f"update mapping.{table} set is_gone = true where {table}_id in (201, 501, 1001)".encode()
    )
    path = tmp_path / "t.csv"

    code, text = run(pipeline.dsn, "mappings", "targets", targets, str(path))

    assert code == 0, text
    frame = pd.read_csv(path, dtype="str")
    assert len(frame) == pipeline.value(f"select count(*) from mapping.{table}") > 3
    gone = frame.loc[frame["status"] == "gone", f"{table}_id"]
    assert gone.tolist() == [{"companies": "201", "products": "501", "agreements": "1001"}[targets]]
    assert run(pipeline.dsn, "mappings", "targets", "people", str(path))[0] == 1


def test_a_charge_type_gets_a_default_product_by_the_rules_file(pipeline: Pipeline, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "rules.csv"
    assert run(pipeline.dsn, "rules", "export", str(path))[0] == 0
    frame = pd.read_csv(path, dtype="str", keep_default_na=False)
    assert set(frame["default_product_id"]) == {""}
    frame.loc[frame["charge_type"] == "UserCorrection", "default_product_id"] = "602"
    frame.to_csv(path, index=False)
    custom = one_time("custom", OCT, 1, "7.00", chargeType="UserCorrection", offerId=None, offerName=None)
    pipeline.bill(OCT, custom)
    pipeline.night(OCT)
    assert list(pipeline.held()) == ["offer_missing"]

    code, text = run(pipeline.dsn, "rules", "import", str(path), "--as", "Anna")

    assert (code, "1 changed" in text) == (0, True), text
    assert "0 changed" in run(pipeline.dsn, "rules", "import", str(path))[1]
    pipeline.night(OCT)
    assert pipeline.the_addition()["product"]["id"] == 602
    check(pipeline.sandbox)
    for product, said in (("9999", "product 9999 is not known"), ("x", "'x' is not a ConnectWise id")):
        frame.loc[frame["charge_type"] == "ItemFee", "default_product_id"] = product
        frame.to_csv(path, index=False)
        code, text = run(pipeline.dsn, "rules", "import", str(path))
        assert (code, said in text) == (1, True), text
    frame.drop(columns="default_product_id").to_csv(path, index=False)
    assert "0 changed" in run(pipeline.dsn, "rules", "import", str(path))[1]
