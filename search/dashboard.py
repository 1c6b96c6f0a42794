"""Serve optuna-dashboard on a store's database, on the loopback interface only."""

from __future__ import annotations

import socket

from search.sampling.connection import open_trials
from search.stored_study import find_study
from spaces.errors import InputError
from storage.location import StoreLocation

HOST = "127.0.0.1"
"""The dashboard has no login, so no other machine may reach it."""


def serve_dashboard(location: StoreLocation, study: str | None, port: int) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        study: name of the study at whose page it opens.

    Raises:
        StoreError: when there is no such store or study.
        InputError: when the port is in use.
    """
    page = "/dashboard/"
    with location.open(create=False) as store:
        if study:
            page = f"/dashboard/studies/{find_study(store, study).optuna_study_id}"
    _check_port(port)
    from optuna_dashboard import run_server

    print(f"http://{HOST}:{port}{page}  (Ctrl-C ends it)", flush=True)
    run_server(open_trials(location), host=HOST, port=port)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as problem:
            raise InputError(
                "the port cannot be used",
                where="--port",
                found=f"{port}: {problem.strerror}",
                allowed="a free port from 1024 on",
                next_step="choose another one with --port",
            ) from None
