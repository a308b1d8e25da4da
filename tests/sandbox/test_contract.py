"""Every AppXite answer keeps to the contract that stands beside the sandbox."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import sandbox

CONTRACT = yaml.safe_load((Path(sandbox.__file__).parent / "appxite_reporting_api.yaml").read_text(encoding="utf-8"))


def json_schema(value: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: `nullable` becomes a type, references stay as they are."""
    if isinstance(value, list):
        return [json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    converted = {name: json_schema(item) for name, item in value.items()}
    if converted.pop("nullable", False):
        converted["type"] = [converted["type"], "null"]
    return converted


SCHEMAS = {"components": json_schema(CONTRACT["components"])}


@pytest.mark.parametrize("template", list(CONTRACT["paths"]))
def test_answers_keep_to_the_contract(whole: Any, whole_appxite: Any, template: str) -> None:
    whole.change_settings(pascal_feeds=[])
    schema = CONTRACT["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(
        {**SCHEMAS, **json_schema(schema)}, format_checker=jsonschema.FormatChecker()
    )
    path = template.replace("{requesterId}", "100001").removeprefix("/api/v1/reporting")
    answer = json.loads(whole_appxite("GET", path).text)
    assert answer
    assert [error.message for error in validator.iter_errors(answer)] == []


def test_the_contract_itself_would_notice_a_missing_field(whole_appxite: Any) -> None:
    row = dict(whole_appxite.get("/invoices/invoice-rows/100001")[0])
    del row["totalPrice"]
    schema = {**SCHEMAS, "$ref": "#/components/schemas/InvoiceRow"}
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(row))
