"""`expunge receipt` and `expunge audit`: what proves an erasure, checked without the service."""

import json
from pathlib import Path

import httpx
import pytest

import migrations
from service.app import create_app
from service.platform.auth import Scope, create_key
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.settings import Settings
from tests.cli.conftest import Ran, Run
from tests.serving import serving


class Stopped:
    """What a person has kept of a service that is gone: files."""

    def __init__(self, folder: Path, run: Run, url: str, token: str) -> None:
        self.folder, self.run, self.url, self.token = folder, run, url, token

    def ask(self, *words: str | Path) -> Ran:
        """A command that talks to the service."""
        return self.run(*words, "--url", self.url, "--key", self.token)


@pytest.fixture
def kept(tmp_path: Path, run: Run, home: Path, redis_url: str) -> tuple[Stopped, dict[str, object]]:
    """A receipt, the log and its key, fetched from a service that no longer runs."""
    settings = Settings(home=home, redis_url=redis_url, stream=f"proof:{home.name}")
    migrations.upgrade(settings.sql_url)
    database = Database(settings.sql_url)
    key = database.transact(lambda write: create_key(write, "t", frozenset({Scope.ADMIN}), SystemClock().now()))
    database.close()
    with serving(create_app(settings)) as url:
        stopped = Stopped(tmp_path, run, url, key.token)
        auth = {"Authorization": f"Bearer {key.token}"}
        older = stopped.ask("audit", "checkpoint")
        (tmp_path / "older").write_text(older.out)
        erasure = httpx.delete(f"{url}/v1/users/ana", headers=auth).json()
        for number in range(300):
            httpx.delete(f"{url}/v1/users/u{number}", headers=auth).raise_for_status()
        assert stopped.ask("receipt", "get", erasure["id"], "--out", tmp_path / "receipt.json").status == 0
        assert stopped.ask("receipt", "get", erasure["id"], "--form", "html", "-o", tmp_path / "r.html").status == 0
        assert stopped.ask("audit", "export", tmp_path / "log").status == 0
        keys = run("audit", "keys", "--url", url)
        (tmp_path / "key").write_text(keys.out)
    return stopped, erasure


@pytest.mark.P7
def test_a_receipt_and_the_log_verify_when_the_service_is_gone(kept: tuple[Stopped, dict[str, object]]) -> None:
    """With the key that was kept, and nothing else; what it is about is shown with the salt."""
    stopped, erasure = kept
    folder, run = stopped.folder, stopped.run
    (folder / "opening").write_text(json.dumps({"salt": erasure["salt"], "users": ["ana"]}))
    receipt = (folder / "receipt.json", "--key", folder / "key")

    shown = run("receipt", "verify", *receipt, "--erasure", str(erasure["id"]), "--opening", folder / "opening")
    log = run("audit", "verify", folder / "log", "--key", folder / "key", "--since", folder / "older")
    document = json.loads(run("receipt", "verify", *receipt, "--json", "-").out)
    at_home = run("audit", "verify")

    assert shown.out.startswith(f"VERIFIED: erasure {erasure['id']} is accepted.\n")
    assert "the targets of the opening given" in shown.out
    assert "Not final." in shown.out
    assert log.out.startswith("VERIFIED: 301 entries of expunge.invalid/log/")
    assert (document["verified"], document["opened"], document["statement"]["status"]) == (True, False, "accepted")
    assert at_home.out == log.out
    assert "Receipt, not final" in (folder / "r.html").read_text()


@pytest.mark.P7
def test_what_does_not_hold_ends_with_a_sentence_and_a_name(kept: tuple[Stopped, dict[str, object]]) -> None:
    """And a status that scripts see."""
    stopped, _ = kept
    folder, run = stopped.folder, stopped.run
    key = ("--key", folder / "key")
    receipt = json.loads((folder / "receipt.json").read_text())
    receipt["statement"] = receipt["statement"].replace("accepted", "erased")
    (folder / "forged.json").write_text(json.dumps(receipt))
    lines = (folder / "log").read_bytes().splitlines(keepends=True)
    (folder / "shorter").write_bytes(b"".join(lines[:-1]))
    (folder / "wrong").write_text(json.dumps({"salt": "00" * 32, "users": ["bob"]}))

    for words, name in (
        (("receipt", "verify", folder / "forged.json", *key), "REFUSED (wrong_signature)"),
        (("receipt", "verify", folder / "receipt.json", *key, "--erasure", "x"), "REFUSED (other_erasure)"),
        (("receipt", "verify", folder / "receipt.json", *key, "--opening", folder / "wrong"), "(wrong_commitment)"),
        (("receipt", "verify", folder / "log", *key), "REFUSED (malformed_receipt)"),
        (("audit", "verify", folder / "shorter", *key), "REFUSED (wrong_root)"),
        (("audit", "verify", folder / "receipt.json", *key), "REFUSED (malformed_log)"),
        (("audit", "verify", folder / "log"), "name it with --key"),
        (("receipt", "verify", folder / "receipt.json", "--key", "a+b+c"), "verifier key"),
        (("receipt", "verify", folder / "receipt.json", *key, "--opening", folder / "key"), "is no opening"),
        (("receipt", "verify", folder / "missing.json", *key), "no such file"),
    ):
        ran = run(*words)
        assert (ran.status, ran.out) == (1, ""), words
        assert name in ran.err
        assert ran.err.count("\n") == 1


def test_a_key_is_replaced_and_the_log_goes_on_under_its_name(run: Run, home: Path) -> None:
    """The command tells the new one."""
    from service.audit.keys import load_signing_key
    from service.settings import load_settings

    before = load_signing_key(load_settings(home=home)).verifier
    ran = run("audit", "rotate-key")
    after = load_signing_key(load_settings(home=home)).verifier

    assert ran.out.startswith(f"{after}\n")
    assert (before.name, before.public) != (after.name, after.public)
    assert before.name == after.name


def test_a_log_that_nobody_signed_yet_is_told(run: Run, home: Path) -> None:
    """What to do."""
    migrations.upgrade(Settings(home=home).sql_url)

    ran = run("audit", "verify")

    assert (ran.status, ran.out) == (1, "")
    assert "Start the API once" in ran.err
