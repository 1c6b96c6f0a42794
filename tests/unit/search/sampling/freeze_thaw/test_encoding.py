"""Configurations as coordinates, and back."""

from __future__ import annotations

import numpy as np
import pytest

from search.sampling.freeze_thaw.encoding import INACTIVE, EncodedSpace
from spaces.parameters import Choice, FloatRange, IntRange, Parameter

SPACE: dict[str, Parameter] = {
    "kind": Choice(kind="choice", choices=("ce", "focal", None)),
    "gamma": FloatRange(kind="float", low=0, high=5, when={"kind": "focal"}),
    "rate": FloatRange(kind="float", low=1e-4, high=1.0, log=True),
    "width": FloatRange(kind="float", low=0.0, high=1.0, step=0.3),
    "batch": IntRange(kind="int", low=2, high=11, step=4),
    "flag": Choice(kind="choice", choices=(True, 1.5)),
    "late": IntRange(kind="int", low=1, high=64, log=True, when={"base.mode": "slow"}),
}


class TestRoundTrip:
    def test_all_values_are_in_the_space(self) -> None:
        """Every sampled and every mutated configuration is allowed, and active where it should."""
        space = EncodedSpace(SPACE, {"base.mode": "slow"})
        generator = np.random.default_rng(0)
        points = space.sample(generator, 200)
        for each in (points, space.mutate(generator, points, 0.5, 0.3)):
            for row in range(200):
                params = space.decode(each, row)
                assert all(SPACE[path].contains(value) for path, value in params.items())
                assert ("gamma" in params) == (params["kind"] == "focal")
                assert "late" in params

    def test_encode_inverts_decode(self) -> None:
        """A configuration has the same coordinates again."""
        space = EncodedSpace(SPACE, {"base.mode": "slow"})
        points = space.sample(np.random.default_rng(1), 50)
        again = space.encode([space.decode(points, row) for row in range(50)])
        assert (again.active_PD == points.active_PD).all()
        active = points.active_PD
        assert again.unit_PD[active] == pytest.approx(points.unit_PD[active])

    def test_fixed_condition(self) -> None:
        """A dimension whose condition the fixed values do not fulfil does not exist."""
        space = EncodedSpace(SPACE, {"base.mode": "fast"})
        points = space.sample(np.random.default_rng(2), 20)
        assert not points.active_PD[:, list(SPACE).index("late")].any()

    def test_value_outside(self) -> None:
        """A value outside the space, as a remedy's may be, gets the nearest coordinate."""
        space = EncodedSpace(SPACE)
        points = space.encode([{"kind": "dice", "rate": 50.0, "batch": 6}])
        assert not points.active_PD[0, 0]
        assert points.unit_PD[0, 2] == 1.0


class TestFeatures:
    def test_two_categories_are_at_distance_1(self) -> None:
        """Different choices are equally far apart, and `True` is not 1."""
        space = EncodedSpace({"flag": SPACE["flag"], "kind": SPACE["kind"]})
        configurations = [{"flag": True, "kind": "ce"}, {"flag": 1.5, "kind": "ce"}]
        features, owner = space.features(space.encode(configurations))
        assert ((features[0] - features[1]) ** 2).sum() == pytest.approx(1.0)
        assert owner.tolist() == [0, 0, 1, 1, 1]

    def test_inactive(self) -> None:
        """An inactive range is in the middle, an inactive choice nowhere."""
        space = EncodedSpace(SPACE)
        features, owner = space.features(space.encode([{}]))
        assert features[0][owner == 1].tolist() == [INACTIVE]
        assert features[0][owner == 0].tolist() == [0.0, 0.0, 0.0]
