"""Addresses of stores, as they may be shown."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL

from spaces.errors import StoreError
from storage.database.url import dump_command, optuna_url, parse, safe_url

SECRET = "s3cret"
passwords = st.text(max_size=8).map(lambda middle: f"{SECRET}{middle}{SECRET}")


def refusal(url: str) -> str:
    """Why the address is refused; nothing when it is taken for that of another database."""
    try:
        parse(url)
    except StoreError as error:
        return str(error)
    return ""


class TestSafeUrl:
    @given(password=passwords)
    def test_any_password(self, password: str) -> None:
        """A password that is spelled right is hidden, and reaches Optuna as it is."""
        url = URL.create("postgresql", "user", password, "host", 5432, "db").render_as_string(
            hide_password=False
        )

        assert safe_url(url) == "postgresql://user:***@host:5432/db"
        assert parse(optuna_url(url)).password == password

    @given(password=passwords)
    def test_spelled_wrong(self, password: str) -> None:
        """Not a part of a password that was not percent-encoded is shown, whatever the address is then taken for."""
        url = f"postgresql://user:{password}@host/db"

        assert SECRET not in safe_url(url)
        assert SECRET not in refusal(url)

    @pytest.mark.parametrize(
        ("url", "shown"),
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
    def test_shown(self, url: str, shown: str) -> None:
        """What is no secret is shown, so that a mistake can be seen."""
        assert safe_url(url) == shown


class TestDriver:
    @pytest.mark.parametrize(
        ("url", "module", "extra"),
        [
            ("postgresql://me@host/db", "psycopg", "postgresql"),
            ("mysql://me@host/db", "pymysql", "mysql"),
            ("mariadb+pymysql://me@host/db", "pymysql", "mysql"),
        ],
    )
    def test_absent(
        self, url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A driver that cannot be imported is named, with the extra that installs it."""
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(StoreError, match=f"needs {module}, which is not installed") as caught:
            parse(url)
        assert (caught.value.where, caught.value.next_step) == (
            url,
            f"pip install 'imbalance-search[{extra}]'",
        )

    def test_other_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A driver that the address does not ask for may be absent."""
        monkeypatch.setitem(sys.modules, "pymysql", None)
        assert parse("postgresql://me@host/db").drivername == "postgresql+psycopg"
        assert parse("sqlite:///search.db").drivername == "sqlite"


class TestDumpCommand:
    def test_no_secret(self) -> None:
        """The command asks for the password itself, and names none, wherever the address had it."""
        told = dump_command(
            "postgresql://me:s3cret@host:5433/search?sslpassword=s3cret&password=s3cret&sslmode=require"
        )
        assert "s3cret" not in told
        assert "*" not in told
        assert (
            told
            == "pg_dump --format=custom --file=search.dump 'postgresql://me@host:5433/search?sslmode=require'"
        )
