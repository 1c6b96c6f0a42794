"""Sessions: a study in the store, and the same study as it is given."""

from __future__ import annotations

from search.session import find_changes, open_session
from search.stored_study import stored_plan
from spaces.loader import load_study
from storage.location import StoreLocation

CHANGES = {"trials": 2, "signals.loss_metric_divorce.drop": 0.4}


class TestFormerNames:
    def test_resumed(self, sqlite_url: str) -> None:
        """A study that is stored with a former name of a signal is resumed, under either name."""
        spec = load_study("focal_gamma", CHANGES)
        with open_session(spec, StoreLocation.parse(sqlite_url)).store as store:
            stored = store.studies.find_study("focal_gamma")
            assert stored is not None
            definition = dict(stored.definition)
            definition["signals"] = {
                key.replace("decoupling", "divorce"): value
                for key, value in definition["signals"].items()
            }
            assert "loss_metric_divorce" in definition["signals"]
            store.studies.redefine_study(stored.id, definition)
            former = store.studies.find_study("focal_gamma")

        assert former is not None
        assert find_changes(former.definition, spec) == []
        assert stored_plan(former).spec.signals.loss_metric_decoupling.drop == 0.4
        with open_session(spec, StoreLocation.parse(sqlite_url)).store as store:
            found = store.studies.find_study("focal_gamma")
            assert found is not None
            assert found.id == former.id

    def test_missing_thresholds(self) -> None:
        """Thresholds that an older version did not know have their defaults."""
        spec = load_study("focal_gamma", {"signals.class_collapse.enabled": False})
        stored = spec.definition()
        for name in ("sparing", "not_learning"):
            del stored["signals"][name]
        del stored["signals"]["class_collapse"]["lost_share"]
        assert find_changes(stored, spec) == []
        stored["signals"]["class_collapse"]["level"] = "high"
        assert ("signals.class_collapse.level", "high", "0.1") in find_changes(stored, spec)

    def test_change_is_found(self) -> None:
        """A threshold that differs is a change, named as the signal is called now."""
        spec = load_study("focal_gamma", CHANGES)
        stored = {**spec.definition(), "signals": {"loss_metric_divorce": {"drop": 0.1}}}
        assert ("signals.loss_metric_decoupling.drop", "0.1", "0.4") in find_changes(stored, spec)


class TestNewFields:
    def test_resumed(self) -> None:
        """A study that was stored before a field existed is resumed with the field's default."""
        spec = load_study("focal_gamma", CHANGES)
        stored = spec.definition()
        del stored["sampler"]["remedies"]
        assert find_changes(stored, spec) == []
        wanted = load_study("focal_gamma", CHANGES | {"sampler.remedies": 3})
        assert find_changes(stored, wanted) == [("sampler.remedies", "0", "3")]
