"""The command line: what Typer cannot read is refused in the form of every other error; help and interruptions stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search.cli import main

Refuse = Callable[..., str]

RUN = ("run", "--study", "focal_gamma")


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that ends with exit code 2, and gives what it says."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        return said.err

    return run


class TestRefusal:
    @pytest.mark.parametrize(
        ("arguments", "what", "where", "found", "allowed"),
        [
            (
                (*RUN, "--epochs", "0"),
                "--epochs cannot be '0'",
                "--epochs",
                "0",
                "a whole number, 1 or more",
            ),
            (
                (*RUN, "--trials", "x"),
                "--trials cannot be 'x'",
                "--trials",
                "x",
                "a whole number, 1 or more",
            ),
            (
                ("dashboard", "--port", "99999"),
                "--port cannot be '99999'",
                "--port",
                "99999",
                "a whole number, 1 … 65535",
            ),
            (
                ("explain", "-s", "x", "-t", "y"),
                "--trial cannot be 'y'",
                "--trial",
                "y",
                "a whole number",
            ),
            (
                ("weights", "--clip-ratio", "much"),
                "--clip-ratio cannot be 'much'",
                "--clip-ratio",
                "much",
                "a number, 1 or more",
            ),
            (
                (*RUN, "--wandb", "onlin"),
                "--wandb cannot be 'onlin' (did you mean 'online'?)",
                "--wandb",
                "onlin",
                "off, offline, online",
            ),
            (
                (*RUN, "--trails", "3"),
                "there is no option --trails (did you mean '--trials'?)",
                "run",
                "--trails",
                "--study, --trials, --epochs",
            ),
            (
                ("show", "-q"),
                "there is no option -q",
                "show",
                "-q",
                "--study, --store, --reap, --json, --help",
            ),
            (
                ("explain", "--study", "x"),
                "the option --trial is missing",
                "explain",
                "",
                "--trial: number of the trial",
            ),
            (
                ("train",),
                "the argument file is missing",
                "train",
                "",
                "file: file that `search export`",
            ),
            (
                ("rum",),
                "there is no command rum (did you mean 'run'?)",
                "",
                "rum",
                "run, list, show",
            ),
            (("run", "--study"), "--study needs a value", "--study", "none", "--study VALUE"),
            (("show", "--json=1"), "--json takes no value", "--json", "a value", "--json"),
            (
                (*RUN, "now", "(please)"),
                "takes no argument 'now (please)'",
                "run",
                "now (please)",
                "options",
            ),
        ],
    )
    def test_refused(
        self,
        refuse: Refuse,
        arguments: tuple[str, ...],
        what: str,
        where: str,
        found: str,
        allowed: str,
    ) -> None:
        """One message says what is wrong, where, what was found and what could stand there, and names the command's help."""
        said = refuse(*arguments)
        lines = said.splitlines()
        rows = dict(line.strip().split(":", 1) for line in lines[1:])

        assert lines[0].startswith("error: ")
        assert what in lines[0]
        assert rows["where"].strip().endswith(where)
        assert rows.get("found", "").strip() == found
        assert rows["allowed"].strip().startswith(allowed)
        assert "--help` lists the options" in rows["next"]
        assert said.count("rror") == 1

    def test_hidden(self, refuse: Refuse) -> None:
        """An option that is for the program's own use is not offered."""
        assert "--parent" not in refuse("worker", "--study", "x", "--parnet", "1")


class TestEnds:
    @pytest.mark.parametrize("arguments", [("--help",), ("run", "--help")])
    def test_help(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        """Help goes to standard output, and is no error."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert (ended.value.code, said.err) == (0, "")
        assert said.out.startswith("Usage: ")

    def test_alone(self, refuse: Refuse) -> None:
        """Without a command the help is shown, too."""
        assert refuse().startswith("Usage: ")

    def test_interrupted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C ends a command with the exit code that shells have for it."""

        def interrupted(*given: object, **options: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("spaces.loader.shipped_studies", interrupted)
        with pytest.raises(SystemExit) as ended:
            main(["list"])
        assert ended.value.code == 130
