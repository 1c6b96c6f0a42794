"""A campaign of random faults against real workers, compared with an undisturbed run.

    python -m benchmarks.chaos --store sqlite --faults 200
    python -m benchmarks.chaos --store postgresql --faults 500
    python -m benchmarks.chaos --store sqlite --only thaw --busy

A study of many short trials runs once undisturbed, and once while its workers are killed, frozen
beyond their lease, and terminated at random. The workers are `search worker` processes; one that
died is replaced, and half of the deaths are reported to the store, as `search run` does it. On
PostgreSQL the server is also restarted and crashed, and connections are cut, some between a commit
and its answer. One planted trial kills every worker that claims it. Then our tables and Optuna's
are compared with the undisturbed run. Exit code 1 when anything is lost, doubled, or different.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.chaos import checks
from benchmarks.chaos.campaign import (
    ABOUT,
    CHECKPOINT_S,
    FULL,
    MIX,
    PLANTED,
    QUICK,
    STUDY,
    Kind,
    Scale,
    StoreKind,
)
from benchmarks.chaos.checks import Contents, Findings
from benchmarks.chaos.crew import Exit
from benchmarks.chaos.run import Campaign, Place, busy_cores, disturbed, place, undisturbed
from benchmarks.chaos.store_reader import StoreReader
from benchmarks.report import Figure, Result
from search.worker.lease import LEASE_S

RUNS_AGAIN_S = 15.0
RELEASE_S = 10.0
STRIKES = 3
SUPERVISION = {True: "with a supervisor", False: "with its whole machine dead"}
"""Whether the death of a worker is reported: `search run` then releases its trial."""
SHOWN = 5
"""So many places of one kind of trouble are printed."""


def measure(
    kind: StoreKind,
    scale: Scale,
    mix: Mapping[Kind, float],
    seed: int,
    kept: Path | None,
    *,
    busy: bool,
) -> Result:
    """Both runs, and what they differ in."""
    with tempfile.TemporaryDirectory(
        prefix="search-chaos-", ignore_cleanup_errors=True
    ) as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{scale.trials} trials without a fault", flush=True)
        reference = checks.read(
            undisturbed(scale, seed, folder / "undisturbed"), str(STUDY["name"])
        )
        epochs = sum(len(records) for records in reference.records.values())
        own = folder / kind
        own.mkdir()
        print(
            f"\n{scale.trials} trials of {epochs} epochs with {scale.faults} faults on {kind}",
            flush=True,
        )
        with place(kind, own) as where, busy_cores(busy):
            campaign = disturbed(where, scale, mix, seed, own, epochs)
            return make_result(
                campaign, where, reference, checks.read(where.direct, str(STUDY["name"]))
            )


def make_result(campaign: Campaign, where: Place, reference: Contents, found: Contents) -> Result:
    """The tables and the figures."""
    reader = StoreReader(where.direct)
    findings = checks.check(campaign.scale.trials, reference, found, reader)
    rows = {row.number: row for row in reader.trials()}
    reader.close()
    assert campaign.tormentor is not None
    struck = campaign.tormentor.struck
    print()
    print(
        report.table(
            ("fault", "times"), [(ABOUT[kind], str(count)) for kind, count in struck.most_common()]
        ),
        end="\n\n",
    )
    _print_findings(findings)
    planted = rows.get(PLANTED)
    details = {
        "faults": dict(struck),
        "thawed": dict(campaign.tormentor.moments),
        "planted_trial_kills": campaign.tormentor.planted_kills,
        "trials": dict(Counter(trial.state for trial in found.trials)),
        "attempts": sum(trial.attempt for trial in found.trials),
        "workers_started": campaign.crew.started,
        "workers": campaign.scale.workers,
        "took_s": round(campaign.took_s, 1),
        "wrong": {what: places for what, places in findings.wrong.items() if places},
        "recoveries_s": {
            SUPERVISION[supervised]: [
                round(seconds, 2) for seconds in campaign.watch.recoveries(supervised=supervised)
            ]
            for supervised in SUPERVISION
        },
        "lost_work_s": [round(seconds, 2) for seconds in campaign.watch.losses()],
        "larger_losses": campaign.watch.larger_losses(CHECKPOINT_S),
    }
    caught = (
        planted is not None
        and planted.state == "failed"
        and planted.lost == STRIKES
        and campaign.tormentor.planted_kills == STRIKES
    )
    figures = [
        Figure(
            "faults that struck", sum(struck.values()), "", campaign.scale.faults, at_least=True
        ),
        Figure("trials", len(found.trials), "", campaign.scale.trials),
        Figure("trials that diverged", details["trials"].get("diverged", 0)),  # type: ignore[attr-defined]
        *(Figure(what, len(places), "", 0) for what, places in findings.wrong.items()),
        Figure(
            f"the trial that kills its worker ended after {STRIKES} of them",
            int(caught),
            "",
            1,
            at_least=True,
        ),
        Figure(
            "attempts that count as lost, beyond those killed or frozen",
            max(
                0,
                sum(row.lost for row in rows.values())
                - len(campaign.watch.kills)
                - struck["freeze"]
                - struck["thaw"],
            ),
        ),
        *_of_workers(campaign),
    ]
    return Result(figures, details, {} if not where.version else {"postgresql": where.version})


def _of_workers(campaign: Campaign) -> Iterator[Figure]:
    unexpected = [each for each in campaign.crew.exits if not _explained(each)]
    for each in unexpected[:SHOWN]:
        last_lines = " | ".join(each.log.read_text(errors="replace").splitlines()[-4:])
        print(f"a worker ended by itself with exit code {each.code}: {last_lines}")
    yield Figure("workers that ended by themselves", len(unexpected), "", 0)
    yield Figure(
        '"database is locked" in the logs', len(campaign.crew.lines("database is locked")), "", 0
    )
    yield Figure(
        "workers that lost their lease, logged it and continued",
        len(campaign.crew.lines("continuing with other work")),
    )
    yield Figure(
        "the longest from SIGTERM to a worker's end",
        max(
            (each.took_s for each in campaign.crew.exits if each.meant == "terminate"), default=0.0
        ),
        "s",
        RELEASE_S,
    )
    for supervised, heard in SUPERVISION.items():
        again = campaign.watch.recoveries(supervised=supervised)
        if again:
            yield Figure(
                f"a killed worker's trial runs again, {heard}, after a median of",
                statistics.median(again),
                "s",
            )
            yield Figure(
                f"a killed worker's trial runs again, {heard}, after at most",
                max(again),
                "s",
                RUNS_AGAIN_S,
            )
    lost = campaign.watch.losses()
    if lost:
        yield Figure("work lost by a kill, median", statistics.median(lost), "s")
        yield Figure("work lost by a kill, at most", max(lost), "s", CHECKPOINT_S)


def _explained(each: Exit) -> bool:
    """Whether it was made to end, or saw that nothing was left to do."""
    return each.expected or each.code == 0


def _print_findings(findings: Findings) -> None:
    for what, places in findings.wrong.items():
        for place_ in places[:SHOWN]:
            print(f"{what}: {place_}")


def main() -> int:
    """Measure, print and store the figures."""
    parser = report.parser(__doc__ or "")
    parser.add_argument("--store", choices=list(FULL), default="sqlite")
    parser.add_argument(
        "--faults",
        type=int,
        help=f"default {', '.join(f'{name} {scale.faults}' for name, scale in FULL.items())}",
    )
    parser.add_argument(
        "--trials",
        type=int,
        help=f"default {', '.join(f'{name} {scale.trials}' for name, scale in FULL.items())}",
    )
    parser.add_argument("--only", choices=list(ABOUT), help="faults of one kind alone")
    parser.add_argument("--busy", action="store_true", help="another process keeps each core busy")
    parser.add_argument("--seed", type=int, default=0, help="of the study and of the faults")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="an empty folder for stores and logs, which stay there",
    )
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL[options.store]
    scale = replace(
        scale, faults=options.faults or scale.faults, trials=options.trials or scale.trials
    )
    print(
        f"a lease lasts {LEASE_S:g} s, a checkpoint is written every {CHECKPOINT_S:g} s", flush=True
    )
    mix = {options.only: 1.0} if options.only else MIX[options.store]
    name = "_".join(
        [
            "chaos",
            options.store,
            *([options.only] if options.only else []),
            *(["busy"] if options.busy else []),
        ]
    )
    return report.publish(
        name,
        measure(options.store, scale, mix, options.seed, options.keep, busy=options.busy),
        quick=options.quick,
    )


if __name__ == "__main__":
    sys.exit(main())
