"""Selectors by CSV file, and an organization that is invoiced at two companies, to the cent."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from pipeline import NOV, OCT, Pipeline, invoiced, most_billable_at_once, one_time, recurring

from billing_sync.errors import ConfigurationError
from billing_sync.selectors import SelectorImport, export_selectors, import_selectors, read_selector_file

Run = Callable[..., tuple[int, str]]
HEADER = "organization_id,kind,source_id,company_id,note\n"


def given(tmp_path: Path, *lines: str) -> pd.DataFrame:
    path = tmp_path / "selectors.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    return read_selector_file(path)


def stored(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows(
        "select organization_id, kind, source_id, company_id, note, decided_by, version"
        " from mapping.company_selector order by 1, 2, 3"
    )


def test_an_organization_with_two_companies_is_invoiced_at_both_to_the_cent(
    pipeline: Pipeline, tmp_path: Path, run: Run
) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.21"), recurring("b", OCT, 7, "0.37"), one_time("c", OCT, 1, "9.99"))
    _, before = pipeline.night(OCT)
    assert before["delivered"] == "25.21"  # one company as yet: 201
    path = tmp_path / "selectors.csv"
    path.write_text(
        HEADER + "110001,subscription,sub-a,201,stays\n110001,subscription,sub-b,203,moves\n", encoding="utf-8"
    )
    assert "say --approve" in run(pipeline.dsn, "mappings", "import", "selectors", str(path))[1]
    code, text = run(pipeline.dsn, "mappings", "import", "selectors", str(path), "--approve", "--as", "Anna")
    assert (code, "2 rows, 2 added or changed, 0 removed" in text) == (0, True), text
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.21"), recurring("b", NOV, 7, "0.37"), one_time("d", NOV, 1, "5.55"))

    _, proof = pipeline.night(NOV)

    assert pipeline.held() == {"company_unclaimed": "contract CT-30001, offer OF-1001, subscription sub-d"}
    assert (proof["delivered"], proof["held"]) == ("40.43", "5.55")
    path.write_text(HEADER + "110001,subscription,sub-d,203,\n", encoding="utf-8")
    assert run(pipeline.dsn, "mappings", "import", "selectors", str(path), "--approve", "--as", "Anna")[0] == 0
    _, proof = pipeline.night(NOV)
    assert (proof["delivered"], Decimal(proof["held"]), proof["difference"]) == ("45.98", 0, "0.00")
    assert most_billable_at_once(pipeline.sandbox) == 1
    # October at 201; in November its own subscription there, the other two at 203.
    assert invoiced(pipeline.sandbox) == {
        201: Decimal("25.21") + Decimal("12.63"), 203: Decimal("2.59") + Decimal("5.55"),
    }  # fmt: skip


def test_export_and_import_again_changes_nothing_and_an_empty_company_removes(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    frame = given(tmp_path, "110001,contract,CT-30001,203,a note", "110001,offer,OF-1001,201,=1+1")
    assert import_selectors(pipeline.connection, frame, person="Anna") == SelectorImport(rows=2, stored=2, removed=0)
    before = stored(pipeline)
    path = tmp_path / "export.csv"
    exported = export_selectors(pipeline.connection)
    exported.to_csv(path, index=False)
    assert exported["note"].tolist() == ["a note", "'=1+1"]
    assert exported["company_status"].tolist() == ["Active", "Active"]

    again = import_selectors(pipeline.connection, read_selector_file(path), person="Bob")

    assert (again.stored, again.removed, stored(pipeline)) == (0, 0, before)
    frame = given(tmp_path, "110001,contract,CT-30001,,")
    assert import_selectors(pipeline.connection, frame, person="Bob") == SelectorImport(rows=1, stored=0, removed=1)
    assert stored(pipeline) == [("110001", "offer", "OF-1001", 201, "=1+1", "Anna", 1)]
    last = pipeline.rows(
        "select row_key, changed_by, before ->> 'source_id', after from audit.change"
        " where table_name = 'mapping.company_selector' order by change_id desc limit 1"
    )
    assert last == [("110001", "Bob", "CT-30001", None)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("110001,contract,CT-30001,,\n110001,city,Riga,201,", "line 3: kind 'city' is none of contract, offer"),
        ("110001,offer,,201,", "line 2: organization_id or source_id is empty"),
        ("110001,offer,OF-1001,Acme,", "line 2: company_id 'Acme' is not a ConnectWise id"),
        ("110001,offer,OF-1001,201,\n110001,offer,OF-1001,203,",
            "line 3: offer OF-1001 of organization 110001 stands in it twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_by_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        given(tmp_path, line)
    assert said in str(refusal.value)


def test_a_file_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("organization_id,kind\n1,offer\n")
    with pytest.raises(ConfigurationError, match="lacks the column source_id and company_id"):
        read_selector_file(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("999,offer,OF-1001,201,", "line 3: organization 999 is not known"),
        ("110001,offer,OF-9,201,", "line 3: offer OF-9 is not known"),
        ("110001,subscription,nobody's,201,", "line 3: subscription nobody's is not known"),
        ("110001,contract,CT-30002,201,", "line 3: contract CT-30002 belongs to another organization"),
        ("110001,offer,OF-1001,999,", "line 3: company 999 is not known"),
        ("110001,offer,OF-1001,202,", "line 3: company .* (202) is deleted: choose another"),
    ],
)
def test_what_is_not_known_or_cannot_be_billed_stops_the_whole_import(
    pipeline: Pipeline, tmp_path: Path, line: str, said: str
) -> None:
    pipeline.connection.execute("update mapping.company set is_deleted = true, name = '.*' where company_id = 202")
    frame = given(tmp_path, "110001,contract,CT-30001,203,", line)

    with pytest.raises(ConfigurationError) as refusal:
        import_selectors(pipeline.connection, frame, person="Anna")

    assert str(refusal.value).startswith("Nothing was imported. ")
    assert said in str(refusal.value)
    assert stored(pipeline) == []
