"""A study while it runs: lines for a log, a display for a terminal."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from search.console import live
from search.console import terminal as screen
from spaces.errors import SearchError, StoreError
from spaces.records import SPARED, Evidence
from storage.rows import Claim, Death
from tests.unit.search.conftest import PARAMS

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo

Step = Callable[[], object]


class Terminal(io.StringIO):
    """An interactive terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Yes."""
        return True


def squeezed(text: str) -> str:
    """Text without the places where lines were broken."""
    return re.sub(r"\s+", " ", text)


class Script:
    """An `until` that takes the next step of a story each time it is asked, and says yes after the last."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)

    def __call__(self) -> bool:
        """Take a step."""
        if self.steps:
            self.steps.pop(0)()
            return False
        return True


def nothing() -> None:
    """A step in which nothing happens."""


@pytest.mark.usefixtures("width")
class TestWatch:
    RATE = "lr 3.0e-02 (0.3 × base), grad_clip_norm none"

    def lines(self, demo: Demo, capsys: pytest.CaptureFixture[str], *steps: Step) -> list[str]:
        """What is printed without a terminal, one line per event."""
        live.watch_study(demo.store, demo.stored, demo.plan, until=Script(*steps), poll_s=0)
        return capsys.readouterr().out.splitlines()

    def test_course(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Start with preset and values, end with score or reason; each once, in the order of the trials, however often it looks."""
        kept: list[Claim] = []

        reported = self.lines(
            demo,
            capsys,
            nothing,
            lambda: kept.extend([demo.start(preset="safe"), demo.start()]),
            nothing,
            lambda: demo.epochs(kept[0], [0.1, 0.3712]),
            lambda: demo.finish(kept[0], "complete", 0.3712),
            lambda: demo.epochs(kept[1], [0.1, 0.2]),
            lambda: demo.finish(kept[1], "diverged", 0.1, f"gradient_explosion: {demo.statement}"),
            nothing,
        )

        assert reported == [
            f"trial 0 started (preset safe): gamma 2.5, {self.RATE}",
            f"trial 1 started: gamma 2.5, {self.RATE}",
            "trial 0 is complete: miou 0.3712 after 2 epochs",
            f"trial 1 diverged at epoch 2: gradient_explosion: {demo.statement}",
        ]

    def test_warning(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A warning is a line when it happens, once per trial and signal, and is named for the end."""
        kept: list[Claim] = []

        def warn(signal: str, epoch: int) -> None:
            numbers = {SPARED: "the metric is still improving"}
            evidence = Evidence(signal, epoch, None, "it rose", numbers, 0.0)
            demo.store.epochs.append_warning(kept[0], evidence)

        reported = self.lines(
            demo,
            capsys,
            lambda: kept.append(demo.start()),
            lambda: (demo.epochs(kept[0], [0.1]), warn("loss_rising", 1)),
            lambda: demo.epochs(kept[0], [0.2], first=2),
            lambda: (demo.epochs(kept[0], [0.3], first=3), warn("loss_rising", 3)),
            lambda: warn("overfitting", 3),  # after its epoch was seen
            lambda: demo.finish(kept[0], "complete", 0.3),
        )

        spared = "it rose; spared: the metric is still improving"
        assert reported[1:] == [
            f"warning: trial 0, epoch 1: loss_rising: {spared}",
            f"warning: trial 0, epoch 3: overfitting: {spared}",
            "trial 0 is complete: miou 0.3000 after 3 epochs",
        ]

    def test_between_two_looks(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial that starts and ends between two refreshes is reported with both; so is what happens before the last look."""
        reported = self.lines(
            demo,
            capsys,
            nothing,
            lambda: demo.finish(demo.start([0.1]), "pruned", 0.1, "median: worse"),
        )

        assert [line.partition(":")[0] for line in reported] == [
            "trial 0 started",
            "trial 0 was pruned at epoch 1",
        ]

    def test_changing_hands(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Released, resumed, left by a lost worker: each is reported with the epoch."""
        kept: list[Claim] = []

        def vanish() -> None:
            demo.store.leases.renew_lease(kept[-1], 0.001)
            while not any(
                (line.lease_left_s or 0) < 0
                for line in demo.store.trials.list_progress(demo.stored.id)
            ):
                pass

        reported = self.lines(
            demo,
            capsys,
            lambda: kept.append(demo.start([0.1])),
            lambda: demo.store.leases.release_trial(kept[0]),
            lambda: kept.append(demo.claim("box:2")),
            vanish,
            lambda: kept.append(demo.claim("box:3")),
            lambda: demo.store.reaping.reap_trials(demo.stored.id, Death("box:3")),
        )

        assert reported[1:] == [
            "trial 0 released after epoch 1",
            "trial 0 resumed after epoch 1 by box:2 (attempt 2)",
            "trial 0 resumed after epoch 1 by box:3 (attempt 3) (worker box:2 stopped responding)",
            "trial 0 released after epoch 1: worker box:3 stopped responding",
        ]

    def test_found(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """What an earlier run did is summed up in one line; what runs already is reported as running."""
        demo.filled()

        reported = self.lines(demo, capsys, nothing)

        assert reported == [
            "found in the store: 2 complete, 1 pruned, 1 diverged, 1 failed",
            f"trial 5 is running, 2 epochs done: gamma 2.5, {self.RATE}",
        ]

    def test_unbound(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial without a number is no news, until it fails."""
        claims: list[Claim] = []

        reported = self.lines(
            demo,
            capsys,
            nothing,
            lambda: claims.append(demo.claim()),
            lambda: demo.finish(claims[0], "failed", reason="given up"),
        )

        assert reported == ["a trial failed at epoch 0"]

    @pytest.mark.parametrize("method", ["list_progress", "find_trial"])
    def test_store_fails(
        self,
        demo: Demo,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        """A store that fails is reported once and queried again; nothing that happened meanwhile is lost or reported twice."""
        kept: list[Claim] = []

        def fail(*_: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as broken:
            reported = self.lines(
                demo,
                capsys,
                lambda: kept.append(demo.start()),
                lambda: broken.setattr(
                    f"storage.repositories.trials.TrialRepository.{method}", fail
                ),
                lambda: demo.finish(kept[0], "complete", 0.5),
                nothing,
                broken.undo,
            )

        assert reported == [
            f"trial 0 started: gamma 2.5, {self.RATE}",
            "the store does not respond; retrying: the disk is full",
            "the store responds again",
            "trial 0 is complete: miou 0.5000 after 0 epochs",
        ]

    def test_until_fails(self, demo: Demo) -> None:
        """What goes wrong in the caller's own question reaches the caller."""

        def until() -> bool:
            raise SearchError("a worker is gone")

        with pytest.raises(SearchError, match="a worker is gone"):
            live.watch_study(demo.store, demo.stored, demo.plan, until=until)


@pytest.mark.usefixtures("width")
class TestLive:
    def frame(self, demo: Demo, height: int = 24, note: str = "") -> list[str]:
        """The display as it stands."""
        watcher = live.Watcher(demo.store, demo.stored.id, demo.plan.spec)
        watcher.events.extend(watcher.poll_events())
        console = Console(
            file=io.StringIO(), width=80, height=height, force_terminal=False, color_system=None
        )
        console.print(live.build_frame(watcher, note, height))
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]

    def test_frame(self, demo: Demo) -> None:
        """Progress, states, the best trial with its values, running trials with epoch, metric and worker, events, the note."""
        demo.filled()

        lines = [squeezed(line).strip() for line in self.frame(demo, note="stopping")]

        assert re.search("focal_gamma .* 5/6 trials 0 s", lines[0])
        assert "2 complete, 1 pruned, 1 diverged, 1 failed, 1 running" in lines
        assert lines[2].startswith(
            "best so far: miou 0.3712, trial 0: gamma 2.5, lr 3.0e-02 (0.3 × base)"
        )
        assert any(re.fullmatch("5 2/4 .* 0.2000 box:1 - 0 s ago 1", line) for line in lines)
        assert any(line.startswith("trial 5 is running") for line in lines)
        assert lines[-1] == "stopping"

    def test_empty(self, demo: Demo) -> None:
        """Before the first trial there is little to say."""
        lines = self.frame(demo)

        assert "0/6 trials" in lines[0]
        assert "no trial is complete yet" in lines

    def test_silent_worker(self, demo: Demo) -> None:
        """A worker whose lease has expired is reported as silent."""
        claim = demo.start([0.1])
        demo.store.leases.renew_lease(claim, 1e-9)

        assert any(re.search(r"box:1 .* ago [(]silent[)]", line) for line in self.frame(demo))

    def test_many_workers(self, demo: Demo) -> None:
        """More running trials than lines: the display keeps to the screen and says how many it leaves out."""
        for _ in range(40):
            demo.start([0.1])

        lines = self.frame(demo, height=24)

        assert len(lines) <= 24
        assert "and 30 more running" in lines

    def test_remedy(self, demo: Demo) -> None:
        """A trial that tries a remedy is announced as such, and not as a preset."""
        config = demo.plan.make_config(PARAMS, 0).model_dump(mode="json")
        claim = demo.store.leases.bind_trial(demo.claim(), 0, 0, config, "remedy of 7")
        demo.epochs(claim, [0.1])

        lines = self.frame(demo)

        assert any("is running, 1 epoch done (remedy of 7)" in line for line in lines)

    def test_minimized(self, demo: Demo) -> None:
        """The best is the smallest where the metric is to be small."""
        demo.filled()
        metric = demo.plan.spec.metric.model_copy(update={"direction": "minimize"})
        watcher = live.Watcher(
            demo.store, demo.stored.id, demo.plan.spec.model_copy(update={"metric": metric})
        )

        watcher.poll_events()

        assert watcher.best is not None
        assert watcher.best.number == 1

    def test_redrawn(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal the display is redrawn at each refresh, and its last state stays."""
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(
            screen,
            "_out",
            Console(width=80, height=24, force_terminal=True, markup=False, highlight=False),
        )
        kept: list[Claim] = []

        script = Script(
            lambda: kept.append(demo.start([0.1])), lambda: demo.finish(kept[0], "complete", 0.25)
        )
        live.watch_study(
            demo.store, demo.stored, demo.plan, until=script, poll_s=0, note=lambda: "stopping"
        )

        drawn = terminal.getvalue()
        assert drawn.count("focal_gamma") >= 3
        assert "0.2500" in drawn.rpartition("focal_gamma")[2]
        assert "stopping" in drawn
        assert drawn.endswith("\x1b[?25h")
