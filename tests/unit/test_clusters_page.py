"""docs/clusters.md: its commands can be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from search.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
COMMANDS: Any = typer.main.get_command(app)

pytestmark = pytest.mark.docs


def parse(words: list[str]) -> dict[str, Any]:
    """The options of one of our commands, as the command itself reads them; it is not run."""
    assert words[0] == "search"
    command = COMMANDS.commands[words[1]]
    with command.make_context(words[1], words[2:]) as context:
        return dict(context.params)


def page_commands() -> list[list[str]]:
    """Every `search …` of the indented blocks."""
    lines = re.findall(r"^ {4}.*?\b(search (?:run|worker) [^#>\n]*)", PAGE, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def manifest() -> dict[str, Any]:
    """The Job, from the page."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = yaml.safe_load(text)
    return made


@pytest.mark.parametrize("words", page_commands(), ids=" ".join)
def test_commands(words: list[str]) -> None:
    """Every command of the page has options that exist, and values that fit."""
    assert parse(words)["study"] == "focal_gamma"


def test_all_seen() -> None:
    """The blocks were found."""
    assert {words[1] for words in page_commands()} == {"run", "worker"}
    assert len(page_commands()) == 5


def test_manifest() -> None:
    """The Job runs a real worker on one GPU, finds the store in a secret, and has time to release a trial."""
    job = manifest()["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    options = parse(container["command"])
    variables = {variable["name"]: variable for variable in container["env"]}

    assert (options["study"], options["device"], options["threads"]) == ("focal_gamma", "auto", 4)
    assert "value" not in variables["SEARCH_STORE"]
    assert set(variables["SEARCH_STORE"]["valueFrom"]) == {"secretKeyRef"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert variables["SEARCH_FILES"]["value"] in [
        mount["mountPath"] for mount in container["volumeMounts"]
    ]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert (job["completionMode"], job["completions"]) == ("Indexed", job["parallelism"])


def test_manifest_failures() -> None:
    """Kubernetes counts failures by index only with pods that are never restarted, and a policy names a container that is there."""
    job = manifest()["spec"]
    pod = job["template"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    assert job["backoffLimitPerIndex"] > 0
    assert pod["restartPolicy"] == "Never"
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {
        pod["containers"][0]["name"]
    }
    assert [rule["action"] for rule in rules if "onPodConditions" in rule] == ["Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule] == [[2]]
