"""The faults: which is next, which worker it hits, and what it does."""

from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.chaos.campaign import MOMENTS, PLANTED, Kind, Moment, Scale
from benchmarks.chaos.crew import Crew, Member
from benchmarks.chaos.server import Server
from benchmarks.chaos.store_reader import TrialRow
from benchmarks.chaos.watch import Kill, Watch
from search.worker.lease import LEASE_S

SPARED_AT = 2
"""A trial that lost this many workers is spared: a third loss would end it."""

AT_WORK = 0.85
"""Share of faults that look for a worker with a trial; the others hit any worker."""

LEFT_AT_WORK = 1
"""How many other active workers are never hit: without them, no trial could be resumed."""

SUPERVISED_SHARE = 0.5
"""Share of killed workers whose death is reported, as by `search run`.

The deaths of the others are not, as when a machine dies.
"""

LONGEST_GAP = 4.0
"""In mean gaps."""

FASTEST = 0.1
"""Gaps are shortened to no less than this, where the study is ahead of the faults."""

AHEAD = 0.1
"""How far the faults may be ahead of the study; beyond that they wait for a slow machine."""

AFTERWARDS = 0.05
"""The share of the study's epochs that is left for after the last fault."""


@dataclass(frozen=True)
class Fault:
    """A coming fault: its gap, its kind, and whether it may hit a worker without a trial."""

    gap_s: float
    kind: Kind
    anyone: bool


def schedule(scale: Scale, mix: Mapping[Kind, float], seed: int) -> list[Fault]:
    """The faults, drawn by a seed."""
    drawn = random.Random(seed)
    kinds = drawn.choices(list(mix), list(mix.values()), k=scale.faults)
    return [
        Fault(
            min(drawn.expovariate(1 / scale.gap_s), LONGEST_GAP * scale.gap_s),
            kind,
            drawn.random() > AT_WORK,
        )
        for kind in kinds
    ]


LONGEST_FREEZE_S = 10 * LEASE_S
"""Seconds after which a frozen worker continues if no worker has claimed its trial."""


@dataclass(frozen=True)
class ThawWhen:
    """The moment at which a frozen worker continues.

    Args:
        trial_id: the trial that it had.
        attempt: its attempt at it.
        moment: of the next attempt.
        later_s: seconds after the takeover, for the moment `later`.
    """

    watch: Watch
    trial_id: int
    attempt: int
    moment: Moment
    later_s: float

    def __call__(self, now_s: float) -> bool:
        """Whether it has come."""
        taken_at = self.watch.taken_at.get((self.trial_id, self.attempt + 1))
        if taken_at is None:
            return False
        if self.moment == "first epoch":
            return any(
                row.attempt > self.attempt for row in self.watch.epochs.get(self.trial_id, [])
            )
        return self.moment == "taken over" or now_s >= taken_at + self.later_s


@dataclass
class Tormentor:
    """Does what the schedule says.

    Args:
        listen: has the next commit's answer lost, where there is a proxy that can.
        struck: faults that hit something, by kind.
        moments: at which frozen workers were to thaw.
    """

    crew: Crew
    watch: Watch
    drawn: random.Random
    server: Server | None = None
    lose_an_answer: Callable[[], bool] | None = None
    struck: Counter[Kind] = field(default_factory=Counter)
    moments: Counter[Moment] = field(default_factory=Counter)
    planted_kills: int = 0

    def strike(self, fault: Fault) -> bool:
        """Cause one fault; False if there is no worker that it could hit right now."""
        hit = self._hit(fault.kind, fault.anyone)
        self.struck[fault.kind] += hit
        return hit

    def _hit(self, kind: Kind, anyone: bool) -> bool:
        if kind in ("kill", "freeze", "thaw", "terminate"):
            return self._on_a_worker(kind, anyone and kind not in ("freeze", "thaw"))
        if kind == "unheard":
            return self.lose_an_answer is not None and self.lose_an_answer()
        assert self.server is not None
        if kind in ("restart", "crash"):
            self.server.restart("fast" if kind == "restart" else "immediate")
            return True
        backends = self.server.backends()
        return (
            bool(backends)
            and self.server.cut(backends if kind == "cut all" else [self.drawn.choice(backends)])
            > 0
        )

    def _on_a_worker(self, kind: Kind, anyone: bool) -> bool:
        at_large = [member for member in self.crew.members if member.at_large]
        victims = [
            member
            for member in at_large
            if anyone or self.watch.find_trial_of(member.pid) is not None
        ]
        if not victims:
            return False
        victim = self.drawn.choice(victims)
        others = sum(member is not victim and member.pid in self.watch.pids for member in at_large)
        return others >= LEFT_AT_WORK and self._blow(victim, kind)

    def _blow(self, member: Member, kind: Kind) -> bool:
        if kind == "terminate":
            member.meant, member.ended_by_us_at = "terminate", time.time()
            member.send(signal.SIGTERM)
            return True
        claimed = self._caught(member)
        if claimed is not None and (claimed.number == PLANTED or claimed.lost >= SPARED_AT):
            member.send(signal.SIGCONT)
            return False
        if kind == "freeze":
            member.frozen_at = time.time()
            member.frozen_until = member.frozen_at + LEASE_S + self.drawn.uniform(1.0, 4.0)
        elif kind == "thaw":
            if claimed is None:
                member.send(signal.SIGCONT)
                return False
            moment = self.drawn.choice(list(MOMENTS))
            member.frozen_at = time.time()
            member.frozen_until = member.frozen_at + LONGEST_FREEZE_S
            member.thaw_when = ThawWhen(
                self.watch, claimed.id, claimed.attempt, moment, self.drawn.uniform(0.0, 2.0)
            )
            self.moments[moment] += 1
        else:
            self._kill(member, claimed)
        return True

    def _caught(self, member: Member) -> TrialRow | None:
        """Freeze a worker and find its trial, which cannot change while it is frozen."""
        member.send(signal.SIGSTOP)
        self.watch.look()
        return self.watch.find_trial_of(member.pid)

    def _kill(self, member: Member, claimed: TrialRow | None) -> None:
        member.meant, member.supervised = "kill", self.drawn.random() < SUPERVISED_SHARE
        if claimed is not None:
            state_at = None if claimed.number is None else self.crew.last_state_at(claimed.number)
            self.watch.kills.append(
                Kill(
                    claimed.id,
                    claimed.attempt,
                    time.time(),
                    state_at,
                    member.supervised,
                    tuple(member.stood_still),
                )
            )
        member.send(signal.SIGKILL)

    def guard_the_planted(self) -> None:
        """Kill the worker of the planted trial."""
        row = next(
            (
                row
                for row in self.watch.trials.values()
                if row.number == PLANTED and row.state == "running"
            ),
            None,
        )
        victim = (
            None
            if row is None
            else next(
                (
                    member
                    for member in self.crew.members
                    if member.pid == row.pid and not member.meant
                ),
                None,
            )
        )
        if victim is None or victim.process.poll() is not None:
            return
        claimed = self._caught(victim)
        if claimed is not None and claimed.number == PLANTED:
            self.planted_kills += 1
            victim.frozen_until = None
            self._kill(victim, claimed)
        elif victim.frozen_until is None:
            victim.send(signal.SIGCONT)


def gap_factor(struck: float, done: float) -> float:
    """Compute the factor of the gap before the next fault; infinity: wait.

    It follows from the shares of faults that struck and of epochs that are done.

    The faults are to end a little before the study.
    """
    done_for_faults = min(done / (1 - AFTERWARDS), 1.0)
    if struck > done_for_faults + AHEAD:
        return math.inf
    return min(max((1 - done_for_faults) / max(1 - struck, 1e-3), FASTEST), 1.0)
