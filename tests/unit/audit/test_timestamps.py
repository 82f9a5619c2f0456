"""Heads are stamped by an authority (RFC 3161), here one of openssl's; what does not verify is not kept."""

import asyncio
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.audit import repository
from service.audit.checkpoints import CheckpointPublisher
from service.audit.timestamps import AGAIN_AFTER_S, Timestamps
from service.audit.tlog.note import SigningKey
from service.platform.database import Database
from service.settings import SettingsError, load_settings
from tests.conftest import require
from tests.factories.domains import Domains

KEY = SigningKey("test.example/log", b"k" * 32)
CONFIG = """
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[tsa_cert]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def openssl(folder: Path, *words: str) -> None:
    """Run it in a folder."""
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an authority: its certificates and keys."""
    require(shutil.which("openssl"), "openssl")
    require(importlib.util.find_spec("rfc3161_client"), "rfc3161-client (the extra timestamps)")
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "tsa.cnf"]
    openssl(
        folder,
        *new,
        "-x509",
        "-days",
        "30",
        "-extensions",
        "ca",
        "-subj",
        "/CN=root",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    openssl(folder, *new, "-subj", "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr")
    signed = ["x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
    openssl(folder, *signed, "-extfile", "tsa.cnf", "-extensions", "tsa_cert", "-out", "tsa.pem")
    openssl(
        folder,
        *new,
        "-x509",
        "-days",
        "30",
        "-extensions",
        "ca",
        "-subj",
        "/CN=other",
        "-keyout",
        "o.key",
        "-out",
        "other.pem",
    )
    return folder


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that answers requests for stamps."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if data else 503)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/tsr"
        finally:
            server.shutdown()
            thread.join()


def stamps(folder: Path) -> Callable[[bytes], bytes]:
    """What the authority answers."""

    def answer(query: bytes) -> bytes:
        (folder / "query").write_bytes(query)
        openssl(folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
        return (folder / "reply").read_bytes()

    return answer


def stamp(domains: Domains, url: str, roots: Path) -> Callable[[], repository.StampedHead | None]:
    """Has the latest head stamped, as a round of the publisher does, and tells what is kept."""
    settings = load_settings(home=Path("/nonexistent"), timestamp_url=url, timestamp_roots=roots)
    timestamps = Timestamps.configured(settings, domains.clock)
    assert timestamps is not None
    publisher = CheckpointPublisher(domains.database, KEY, domains.clock, None, timestamps)

    def once() -> repository.StampedHead | None:
        checkpoint, _ = asyncio.run(publisher.latest())
        asyncio.run(timestamps.stamp(domains.database, checkpoint))
        return domains.database.query(repository.latest_timestamp)

    return once


@pytest.mark.P7
def test_a_head_is_stamped_and_the_stamp_verifies_elsewhere(
    database: Database, authority: Path, tmp_path: Path
) -> None:
    """Once in an interval, with what openssl checks; not for an empty log."""
    domains = Domains(database)
    with answering(stamps(authority)) as url:
        once = stamp(domains, url, authority / "ca.pem")
        domains.accept(users=("ana",))
        first = once()
        domains.accept(users=("bob",))
        too_soon = once()
        domains.clock.step(3601)
        second = once()

    assert first is not None
    assert too_soon == first
    assert second is not None
    assert second.size > first.size
    (tmp_path / "reply").write_bytes(second.timestamp)
    (tmp_path / "head").write_text(second.note.partition("\n\n")[0] + "\n")
    checked = ("ts", "-verify", "-data", "head", "-in", "reply", "-CAfile", str(authority / "ca.pem"))
    openssl(tmp_path, *checked)
    (tmp_path / "head").write_text("another\n")
    with pytest.raises(subprocess.CalledProcessError):
        openssl(tmp_path, *checked)


@pytest.mark.P7
def test_what_does_not_verify_is_not_kept(sqlite: Database, authority: Path) -> None:
    """Another authority, another question's answer, noise, no answer; it is asked again later."""
    domains = Domains(sqlite)
    domains.accept(users=("ana",))
    real, seen = stamps(authority), list[bytes]()

    def stale(query: bytes) -> bytes:
        seen.append(real(query))
        return seen[0]

    with answering(real) as url:
        assert stamp(domains, url, authority / "other.pem")() is None
    for answer in (lambda _: b"noise", lambda _: b"", lambda _: b"x" * 70_000):
        with answering(answer) as url:
            assert stamp(domains, url, authority / "ca.pem")() is None
    with answering(stale) as url:
        once = stamp(domains, url, authority / "other.pem")
        assert once() is None  # the first answer, to a root that is not trusted
        once = stamp(domains, url, authority / "ca.pem")
        assert once() is None  # the same answer again: it is to another question
        assert once() is None
        assert len(seen) == 2  # not asked again at once
        domains.clock.step(AGAIN_AFTER_S + 1)
        seen.clear()
        assert once() is not None


def test_settings_that_make_no_sense_are_refused(authority: Path, tmp_path: Path) -> None:
    """With what is missing; without an authority there is nothing to do."""
    clock = Domains.__dataclass_fields__["clock"].default_factory()  # type: ignore[misc]
    (tmp_path / "empty.pem").write_text("")
    assert Timestamps.configured(load_settings(home=tmp_path), clock) is None
    with pytest.raises(SettingsError, match="http"):
        load_settings(home=tmp_path, timestamp_url="ftp://example.com")
    for roots, words in ((None, "TIMESTAMP_ROOTS"), (tmp_path / "empty.pem", "no certificates")):
        given = load_settings(home=tmp_path, timestamp_url="https://tsa.example", timestamp_roots=roots)
        with pytest.raises(SettingsError, match=words):
            Timestamps.configured(given, clock)
