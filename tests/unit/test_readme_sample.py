"""The sample in README.md has the shape of what the console prints."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from benchmarks import readme_sample
from search.report.models import ClassScore, Kill, LeaderboardRow, StudyReport

PARAMS = {"loss.gamma": 2.5, "optimizer.lr_multiple": 0.3, "optimizer.grad_clip_norm": None}
TITLES = ("Study ", "Leaderboard", "Stopped trials")


def make_row(rank: int) -> LeaderboardRow:
    """A row of the leaderboard with a value in every column."""
    return LeaderboardRow(
        rank=rank,
        number=10 + rank,
        score=0.4 - rank / 100,
        noise=0.012,
        best_epoch=9,
        epochs=12,
        preset="safe",
        params=PARAMS,
        lr=0.03,
        test=0.35,
        tied=rank == 2,
        worst_class=ClassScore("digit_4", 0.1),
    )


def make_kill(number: int) -> Kill:
    """A trial that a signal stopped."""
    return Kill(
        number=number,
        state="diverged",
        signal="gradient_explosion",
        epoch=2,
        step=13,
        reason=f"gradient_explosion: the gradient norm was {number}011 at step 13",
        cause="learning rate too high",
        remedy="learning rate × 0.5: optimizer.lr_multiple 30 → 15",
        severity=1.5,
        confidence=0.97,
    )


@pytest.fixture
def report() -> StudyReport:
    """A made-up study with seven complete and three stopped trials."""
    return StudyReport(
        name="focal_gamma",
        about="Focal gamma.",
        objective="segmentation",
        metric="miou",
        direction="maximize",
        score_rule="best",
        epochs=12,
        budget=10,
        states={"complete": 7, "diverged": 3, "left": 0},
        leaderboard=tuple(map(make_row, range(1, 8))),
        kills=tuple(map(make_kill, (4, 5, 6))),
        causes={"learning rate too high": 3},
        lessons=(),
        health=(),
        workers=(),
        device_s=0.0,
        device_budget_s=None,
    )


def find_titles(sample: str) -> list[str]:
    """The section titles of a sample, in order; of the study's heading, its first word."""
    lines = sample.splitlines()
    return [title for line in lines for title in TITLES if line.startswith(title)]


def find_heads(sample: str, title: str) -> set[str]:
    """The words of a table's column heads, which are above its rule or its first row."""
    _, _, section = sample.partition(f"{title}\n")
    heads = takewhile(lambda line: not line.lstrip()[:1].isdigit(), section.splitlines())
    above, _, _ = "\n".join(heads).partition("─")
    return set(above.split())


class TestRender:
    def test_sections(self, report: StudyReport) -> None:
        """The sample has the heading, the first rows and the first stopped trials."""
        sample = readme_sample.render_sample(report)

        assert find_titles(sample) == list(TITLES)
        assert "0.3500" in sample
        assert "0.3400" not in sample
        assert "norm was 5011" in sample
        assert "norm was 6011" not in sample
        assert "likely cause: learning rate too high (97% sure)" in " ".join(sample.split())

    def test_width(self, report: StudyReport) -> None:
        """No line is wider than 80 columns or ends in a space, and none has a color code."""
        lines = readme_sample.render_sample(report).splitlines()

        assert max(map(len, lines)) <= 80
        assert all(line == line.rstrip() for line in lines)
        assert not any("\x1b" in line for line in lines)


class TestWrite:
    def test_replaced(self, report: StudyReport, tmp_path: Path) -> None:
        """A new sample replaces the former one, and the rest of the page stays."""
        page = tmp_path / "README.md"
        begin, end = readme_sample.BEGIN, readme_sample.END
        page.write_text(f"# Title\n{begin}\n```\nformer\n```\n{end}\n\nmore\n", encoding="utf-8")

        readme_sample.write_sample(report, page)

        sample = readme_sample.render_sample(report)
        expected = f"# Title\n{begin}\n```\n{sample}\n```\n{end}\n\nmore\n"
        assert page.read_text(encoding="utf-8") == expected
        assert readme_sample.read_sample(page) == sample

    def test_no_markers(self, report: StudyReport, tmp_path: Path) -> None:
        """A page without the marker comments is refused and stays as it is."""
        page = tmp_path / "README.md"
        page.write_text("# Title\n", encoding="utf-8")

        with pytest.raises(ValueError, match="does not have the comments"):
            readme_sample.write_sample(report, page)
        assert page.read_text(encoding="utf-8") == "# Title\n"


class TestReadme:
    def test_shape(self, report: StudyReport) -> None:
        """The sample in README.md has the titles and column heads that the console prints.

        A column whose cells are all empty is left out, such as the preset.
        """
        written, printed = readme_sample.read_sample(), readme_sample.render_sample(report)

        assert find_titles(written) == list(TITLES), "run python -m benchmarks.demo --readme"
        stopped = find_heads(written, "Stopped trials")
        assert stopped == find_heads(printed, "Stopped trials")
        leaderboard = find_heads(written, "Leaderboard")
        assert {"#", "trial", "miou"} <= leaderboard <= find_heads(printed, "Leaderboard")
