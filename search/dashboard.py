"""optuna-dashboard on the store's database, on the loopback interface alone."""

from __future__ import annotations

import socket

from search.sampling.connection import open_trials
from search.stored_study import find_study
from spaces.errors import InputError
from storage.location import StoreLocation

HOST = "127.0.0.1"
"""The dashboard has no login, so nobody but this machine may reach it."""


def serve(location: StoreLocation, study: str | None, port: int) -> None:
    """Serve until Ctrl-C.

    Raises:
        StoreError: when the store or the study is not there.
        InputError: when the port is taken.
    """
    with location.open(create=False) as store:
        place = (
            f"/dashboard/studies/{find_study(store, study).optuna_study_id}"
            if study
            else "/dashboard/"
        )
    _check_port(port)
    from optuna_dashboard import run_server

    print(f"http://{HOST}:{port}{place}  (Ctrl-C ends it)", flush=True)
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
                next_step="name another with --port",
            ) from None
