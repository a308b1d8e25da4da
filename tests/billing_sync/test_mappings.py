"""Mapping files: what is exported can be imported, what is wrong is said by line, and names are never calculated."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from pipeline import OCT, Pipeline, recurring

from billing_sync.errors import ConfigurationError
from billing_sync.mappings import KINDS, ImportResult, export_mappings, import_mappings, read_mapping_file


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
