"""Options in front of a command."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from search.cli import main


class TestVersion:
    @pytest.mark.parametrize(
        "arguments", [("--version",), ("--version", "show")], ids=["alone", "before a command"]
    )
    def test_printed(self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        """`search --version` prints the installed version and exits with 0, whatever follows."""
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"search {version('imbalance-search')}\n"

    def test_in_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The help lists it."""
        with pytest.raises(SystemExit):
            main(("--help",))
        assert "--version" in capsys.readouterr().out
