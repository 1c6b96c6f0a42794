"""Translation of database errors."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError, StatementError

from spaces.errors import StoreError, StoreUnreachableError
from storage.database.errors import is_database_error, translate_errors


class TestTranslateErrors:
    @pytest.mark.parametrize(
        ("said", "statement", "what", "next_step"),
        [
            (
                "FATAL: password authentication failed for user",
                None,
                "refused the password",
                "check user and password",
            ),
            (
                'FATAL:  role "guest" does not exist',
                None,
                "does not accept the user",
                "check the user",
            ),
            ("connection refused", None, "cannot be reached", "check that the server runs"),
            (
                "unable to open database file",
                None,
                "the store's file cannot be opened",
                "choose another place",
            ),
            ("no such table: search_trials", "SELECT 1", "the store failed", "look at `found`"),
            (
                "disk I/O error: No space left on device",
                "INSERT",
                "the disk is full",
                "free some space",
            ),
        ],
    )
    def test_words(self, said: str, statement: str | None, what: str, next_step: str) -> None:
        """An error becomes one message: where, what the driver reported, and what to do."""
        with (
            pytest.raises(StoreError, match=what) as caught,
            translate_errors("postgresql://host/db", None),
        ):
            raise OperationalError(statement, {}, Exception(said))

        assert caught.value.where == "postgresql://host/db"
        assert caught.value.found == " ".join(said.split())
        assert next_step in caught.value.next_step

    def test_cut_in_the_middle(self) -> None:
        """A transaction whose connection was cut may succeed later, whatever the message."""
        cut = PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")
        assert is_database_error(cut)
        with (
            pytest.raises(StoreUnreachableError, match="cannot be reached"),
            translate_errors("postgresql://host/db", None),
        ):
            raise cut

    def test_password(self) -> None:
        """A password in the driver's message is hidden."""
        with (
            pytest.raises(StoreError) as caught,
            translate_errors("postgresql://host/db", "s3cret"),
        ):
            raise OperationalError(None, {}, Exception("could not\n log in with s3cret"))

        assert caught.value.found == "could not log in with ***"

    def test_left_alone(self) -> None:
        """A violated constraint and a wrong statement or value are not errors of the store."""
        for error in (
            IntegrityError("INSERT", {}, Exception("unique")),
            StatementError("a bind is missing", "INSERT", {}, KeyError("x")),
        ):
            with pytest.raises(type(error)), translate_errors("sqlite:///x", None):
                raise error
        with pytest.raises(TypeError, match="no JSON"), translate_errors("sqlite:///x", None):
            raise StatementError("wrapped", "INSERT", {}, TypeError("no JSON"))
