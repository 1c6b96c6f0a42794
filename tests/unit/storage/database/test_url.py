"""URLs of stores: what is refused, and how they are shown."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL

from spaces.errors import StoreError
from storage.database.url import find_password, hide_password, make_dump_command, parse_url

SECRET = "s3cret"
passwords = st.text(max_size=8).map(lambda middle: f"{SECRET}{middle}{SECRET}")


def refusal(text: str) -> str:
    """Why the URL is refused; empty when it is taken for that of another database."""
    try:
        parse_url(text)
    except StoreError as error:
        return str(error)
    return ""


class TestHidePassword:
    @given(password=passwords)
    def test_any_password(self, password: str) -> None:
        """A correctly encoded password is hidden, and found as it is."""
        made = URL.create("postgresql", "user", password, "host", 5432, "db")
        text = made.render_as_string(hide_password=False)

        assert hide_password(text) == "postgresql://user:***@host:5432/db"
        assert find_password(parse_url(text)) == password

    @given(password=passwords)
    def test_not_encoded(self, password: str) -> None:
        """No part of a password that is not percent-encoded is shown, however it is parsed."""
        text = f"postgresql://user:{password}@host/db"

        assert SECRET not in hide_password(text)
        assert SECRET not in refusal(text)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("sqlite:////data/a b@c.db", "sqlite:////data/a b@c.db"),
            (
                "postgresql://host/db?password=s3cret&sslmode=require",
                "postgresql://host/db?password=***&sslmode=require",
            ),
            ("postgresql://user:s3cret", "postgresql://user:***"),
            ("postgresql//user:s3cret@host/db", "***@host/db"),
            ("postgresql://user@s3cret@host/db?password=s3cret", "postgresql://***@host/db"),
            ("user:s3cret", "user:***"),
            ("search.db", "search.db"),
            ("", ""),
        ],
    )
    def test_shown(self, text: str, shown: str) -> None:
        """What is not secret is shown, so that a mistake can be seen."""
        assert hide_password(text) == shown


class TestDriver:
    @pytest.mark.parametrize(
        ("text", "module", "extra"),
        [
            ("postgresql://me@host/db", "psycopg", "postgresql"),
            ("mysql://me@host/db", "pymysql", "mysql"),
            ("mariadb+pymysql://me@host/db", "pymysql", "mysql"),
        ],
    )
    def test_absent(
        self, text: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A driver that cannot be imported is named, with the extra that installs it."""
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(StoreError, match=f"needs {module}, which is not installed") as caught:
            parse_url(text)
        assert (caught.value.where, caught.value.next_step) == (
            text,
            f"pip install 'imbalance-search[{extra}]'",
        )

    def test_other_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A driver that the URL does not need may be missing."""
        monkeypatch.setitem(sys.modules, "pymysql", None)
        assert parse_url("postgresql://me@host/db").drivername == "postgresql+psycopg"
        assert parse_url("sqlite:///search.db").drivername == "sqlite"


class TestPassword:
    @pytest.mark.parametrize(
        ("text", "password"),
        [
            ("postgresql://me:s3cret@host/db", SECRET),
            ("postgresql://me@host/db?password=s3cret", SECRET),
            ("postgresql://me@host/db", ""),
            ("sqlite:///search.db", ""),
        ],
    )
    def test_found(self, text: str, password: str) -> None:
        """A password is found before the host and among the options; most URLs have none."""
        assert find_password(parse_url(text)) == password


class TestDumpCommand:
    def test_no_secret(self) -> None:
        """The command prompts for the password, and has none, wherever the URL had it."""
        command = make_dump_command(
            parse_url(
                "postgresql://me:s3cret@host:5433/search"
                "?sslpassword=s3cret&password=s3cret&sslmode=require"
            )
        )
        assert "s3cret" not in command
        assert "*" not in command
        assert command == (
            "pg_dump --format=custom --file=search.dump "
            "'postgresql://me@host:5433/search?sslmode=require'"
        )
