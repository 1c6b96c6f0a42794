"""The JSON Schema of a study: it accepts and refuses the same as the loader."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from search.planning.json_schema import schema_text
from spaces.loader import shipped_studies


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Make a validator of the schema, which is valid itself."""
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


class TestSchema:
    @pytest.mark.parametrize("name", sorted(shipped_studies()))
    def test_shipped(self, validator: Draft202012Validator, name: str) -> None:
        """Every shipped study is valid under it."""
        assert [
            error.message
            for error in validator.iter_errors(yaml.safe_load(shipped_studies()[name].read_text()))
        ] == []

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"epoch": 3}, "'epoch' was unexpected"),
            ({"epochs": 0}, "0 is less than the minimum of 1"),
            ({"name": "a b"}, "does not match"),
            ({"base": {"los": {}}}, "'los' was unexpected"),
            ({"base": {"loss": {"gama": 1}}}, "'gama' was unexpected"),
            ({"base": {"optimizer": {"base_lr": "fast"}}}, "'fast' is not valid under any"),
            ({"base": {"optimizer": {"base_lr": 0}}}, "0 is not valid under any"),
            ({"base": {"weights": {"method": "inverse"}}}, "'inverse' is not one of"),
            (
                {"space": {"loss.gama": {"kind": "float", "low": 0, "high": 1}}},
                "'loss.gama' does not match",
            ),
            (
                {"space": {"loss.gamma": {"kind": "flaot", "low": 0, "high": 1}}},
                "is not valid under any of the given schemas",
            ),
            (
                {"space": {"loss.gamma": {"kind": "float", "low": 0, "hihg": 1}}},
                "is not valid under any of the given schemas",
            ),
            ({"space": {}}, "should be non-empty"),
            ({"presets": ["save"]}, "'save' is not one of"),
            ({"objective": "segmentaton"}, "'segmentaton' is not one of"),
            ({"metric": {"direction": "up"}}, "'up' is not one of"),
            ({"signals": {"overfiting": {}}}, "'overfiting' was unexpected"),
        ],
    )
    def test_refused(
        self, validator: Draft202012Validator, changes: dict[str, Any], complaint: str
    ) -> None:
        """What the loader refuses is invalid under the schema, too."""
        study = {"name": "demo", "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 5}}}
        assert list(validator.iter_errors(study)) == []
        messages = [error.message for error in validator.iter_errors(study | changes)]
        assert len(messages) == 1
        assert complaint in messages[0]

    def test_former_names(self, validator: Draft202012Validator) -> None:
        """A former name of a signal is valid, as it is for the loader."""
        study = {
            "name": "demo",
            "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 5}},
            "signals": {"loss_metric_divorce": {"drop": 0.3}},
        }
        assert list(validator.iter_errors(study)) == []

    def test_described(self) -> None:
        """The schema has the descriptions that an editor shows."""
        text = schema_text()
        assert "focusing exponent; 0 is cross entropy" in text
        assert "at an epoch" not in json.loads(text)["title"]
        assert json.loads(text)["$schema"].startswith("https://json-schema.org/draft/2020-12")
