"""Print why a trial ended: the evidence, the likely cause, and how to try each remedy."""

from __future__ import annotations

from search.console import terminal
from search.console.formatting import format_confidence, format_setting
from search.report.models import RemedyOffer, TrialReport
from search.report.new_study import STUDY_FILE
from spaces.records import Diagnosis, Evidence
from storage.rows import FINAL_STATES

INDENT = 7
"""Indentation of the lines below a remedy, columns."""


def print_end(report: TrialReport, store: str) -> None:
    """Print why the trial was stopped, or the problem of a complete trial, and what to try.

    Args:
        report: on the trial.
        store: the `--store` option for the commands that are printed.
    """
    _print_warnings(report)
    _print_ending(report)
    if report.trouble is not None:
        terminal.print_heading("What limited it")
        _print_diagnosis(report.trouble, "likely limited by")
    if report.remedies:
        _print_remedies(report, store)
    elif report.diagnosis is not None and report.diagnosis.is_clear:
        terminal.print_line()
        terminal.print_paragraph("nothing to try: no setting is known to help", indent=2)
    if report.error:
        terminal.print_line()
        terminal.print_line(
            "\n".join(f"  {line}" for line in report.error.splitlines()), style="dim"
        )


def _print_warnings(report: TrialReport) -> None:
    """Print what signals found without ending the trial, and why they spared it."""
    warnings = [evidence for evidence, _ in report.findings if _is_warning(evidence, report)]
    if warnings:
        terminal.print_heading("Warnings")
    for warning in warnings:
        _print_evidence(warning)


def _print_ending(report: TrialReport) -> None:
    """Print what ended the trial, with the likely cause."""
    endings = [finding for finding in report.findings if not _is_warning(finding[0], report)]
    if not endings and not report.reason and not report.error:
        return
    if report.state in FINAL_STATES:
        was = "was " if report.state == "pruned" else ""
        terminal.print_heading(f"Why it {was}{report.state}")
    else:
        terminal.print_heading("What its last worker reported")
    for evidence, diagnosis in endings:
        _print_evidence(evidence)
        if diagnosis is not None:
            _print_diagnosis(diagnosis)
    if not endings and report.reason:
        terminal.print_paragraph(report.reason, indent=2)


def _is_warning(evidence: Evidence, report: TrialReport) -> bool:
    return evidence.is_warning or report.state == "complete"


def _print_evidence(evidence: Evidence) -> None:
    place = f"epoch {evidence.epoch}"
    if evidence.step is not None:
        place += f", step {evidence.step}"
    terminal.print_paragraph(
        f"{evidence.signal} at {place}: {evidence.statement}", indent=2, style="red"
    )
    width = max((len(name) for name in evidence.numbers), default=0)
    for name, value in evidence.numbers.items():
        terminal.print_paragraph(f"{name:<{width}}  {format_setting(value)}", indent=4)


def _print_diagnosis(diagnosis: Diagnosis, label: str = "likely cause") -> None:
    others = ", ".join(f"{cause} ({likelihood:.0%})" for cause, likelihood in diagnosis.others)
    terminal.print_line()
    if not diagnosis.is_clear:
        terminal.print_line(f"  {diagnosis.cause}", style="bold")
        if others:
            terminal.print_paragraph(f"possible: {others}", indent=4)
        return
    terminal.print_line(
        f"  {label}: {diagnosis.cause} ({format_confidence(diagnosis.confidence)})",
        style="bold",
    )
    for because in diagnosis.because:
        terminal.print_paragraph(f"+ {because}", indent=4)
    for against in diagnosis.against:
        terminal.print_paragraph(f"- {against}", indent=4)
    if others:
        terminal.print_paragraph(f"less likely: {others}", indent=4)


def _print_remedies(report: TrialReport, store: str) -> None:
    """Print every remedy with the command that tries it, or with what the space lacks for it."""
    terminal.print_line()
    terminal.print_line("  to try, in this order:", style="bold")
    for offer in report.remedies:
        terminal.print_paragraph(f"{offer.choice}. {offer.description}", indent=4)
        if offer.in_space:
            # A long command is left to the terminal to wrap, so that it can be copied.
            terminal.print_line(f"{'':{INDENT}}{offer.command}{store}", style="dim")
        elif offer.patch or offer.new_study:
            terminal.print_paragraph(_describe_place(offer), indent=INDENT, style="dim")
            if offer.new_study:
                terminal.print_line(f"{'':{INDENT}}{offer.new_study}{store}", style="dim")
        if offer.tried:
            trials = "trial" if len(offer.tried) == 1 else "trials"
            numbers = ", ".join(map(str, offer.tried))
            terminal.print_paragraph(f"tried in {trials} {numbers}", indent=INDENT, style="dim")


def _describe_place(offer: RemedyOffer) -> str:
    """Say what a study lacks for a remedy, and introduce the command of a new one."""
    if not offer.new_study:
        return "outside the study's space"
    lacks = "needs a new study"
    if offer.widenings:
        lacks = f"outside the study's space ({', '.join(offer.widenings)}); a new study contains it"
    file = f", with the study's file for {STUDY_FILE}" if STUDY_FILE in offer.new_study else ""
    return f"{lacks}{file}:"
