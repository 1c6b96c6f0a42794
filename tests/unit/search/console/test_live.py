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
from storage.rows import Claim, Death

if TYPE_CHECKING:
    from tests.unit.search.conftest import Demo

Step = Callable[[], object]


class Terminal(io.StringIO):
    """Somebody who looks."""

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
        """What is printed where nobody looks, one line an event."""
        live.watch_study(demo.store, demo.stored, demo.plan, until=Script(*steps), poll_s=0)
        return capsys.readouterr().out.splitlines()

    def test_course(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Start with preset and values, end with score or reason; each once, in the order of the trials, however often it looks."""
        held: list[Claim] = []

        told = self.lines(
            demo,
            capsys,
            nothing,
            lambda: held.extend([demo.start(preset="safe"), demo.start()]),
            nothing,
            lambda: demo.epochs(held[0], [0.1, 0.3712]),
            lambda: demo.finish(held[0], "complete", 0.3712),
            lambda: demo.epochs(held[1], [0.1, 0.2]),
            lambda: demo.finish(held[1], "diverged", 0.1, f"gradient_explosion: {demo.statement}"),
            nothing,
        )

        assert told == [
            f"trial 0 started (preset safe): gamma 2.5, {self.RATE}",
            f"trial 1 started: gamma 2.5, {self.RATE}",
            "trial 0 is complete: miou 0.3712 after 2 epochs",
            f"trial 1 diverged at epoch 2: gradient_explosion: {demo.statement}",
        ]

    def test_between_two_looks(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial that starts and ends between two looks is told with both; so is what happens before the last look."""
        told = self.lines(
            demo,
            capsys,
            nothing,
            lambda: demo.finish(demo.start([0.1]), "pruned", 0.1, "median: worse"),
        )

        assert [line.partition(":")[0] for line in told] == [
            "trial 0 started",
            "trial 0 was pruned at epoch 1",
        ]

    def test_changing_hands(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """Given back, carried on, left by a vanished worker: each is told with the epoch."""
        held: list[Claim] = []

        def vanish() -> None:
            demo.store.leases.renew_lease(held[-1], 0.001)
            while not any(
                (line.lease_left_s or 0) < 0
                for line in demo.store.trials.list_progress(demo.stored.id)
            ):
                pass

        told = self.lines(
            demo,
            capsys,
            lambda: held.append(demo.start([0.1])),
            lambda: demo.store.leases.release_trial(held[0]),
            lambda: held.append(demo.claim("box:2")),
            vanish,
            lambda: held.append(demo.claim("box:3")),
            lambda: demo.store.reaping.reap_trials(demo.stored.id, Death("box:3")),
        )

        assert told[1:] == [
            "trial 0 released after epoch 1",
            "trial 0 resumed after epoch 1 by box:2 (attempt 2)",
            "trial 0 resumed after epoch 1 by box:3 (attempt 3) (worker box:2 stopped responding)",
            "trial 0 released after epoch 1: worker box:3 stopped responding",
        ]

    def test_found(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """What an earlier run did is summed up in one line; what runs already is told as running."""
        demo.filled()

        told = self.lines(demo, capsys, nothing)

        assert told == [
            "found in the store: 2 complete, 1 pruned, 1 diverged, 1 failed",
            f"trial 5 is running, 2 epochs done: gamma 2.5, {self.RATE}",
        ]

    def test_unbound(self, demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
        """A trial without a number is no news, until it fails."""
        claims: list[Claim] = []

        told = self.lines(
            demo,
            capsys,
            nothing,
            lambda: claims.append(demo.claim()),
            lambda: demo.finish(claims[0], "failed", reason="given up"),
        )

        assert told == ["a trial failed at epoch 0"]

    @pytest.mark.parametrize("method", ["list_progress", "find_trial"])
    def test_store_fails(
        self,
        demo: Demo,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        """A store that fails is told once and asked again; nothing that happened meanwhile is lost or told twice."""
        held: list[Claim] = []

        def fail(*_: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as broken:
            told = self.lines(
                demo,
                capsys,
                lambda: held.append(demo.start()),
                lambda: broken.setattr(
                    f"storage.repositories.trials.TrialRepository.{method}", fail
                ),
                lambda: demo.finish(held[0], "complete", 0.5),
                nothing,
                broken.undo,
            )

        assert told == [
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
        """A worker whose lease is over is told as silent."""
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
        """On a terminal the display is drawn anew at each look, and its last state stays."""
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(
            screen,
            "_out",
            Console(width=80, height=24, force_terminal=True, markup=False, highlight=False),
        )
        held: list[Claim] = []

        script = Script(
            lambda: held.append(demo.start([0.1])), lambda: demo.finish(held[0], "complete", 0.25)
        )
        live.watch_study(
            demo.store, demo.stored, demo.plan, until=script, poll_s=0, note=lambda: "stopping"
        )

        drawn = terminal.getvalue()
        assert drawn.count("focal_gamma") >= 3
        assert "0.2500" in drawn.rpartition("focal_gamma")[2]
        assert "stopping" in drawn
        assert drawn.endswith("\x1b[?25h")
