"""Which data set the demonstration takes."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.interactions.datasets import (
    MOVIELENS_100K,
    Archive,
    DataProblem,
    NotDownloaded,
    download,
    find_dataset,
)
from tests.factories.files import folder

TRAIN = "user_id,item_id\na,1\nb,2\n"


def archive(**members: str) -> bytes:
    """A zip like GroupLens': some of the members of ml-100k."""
    content = {
        "ua.base": "1\t10\t5\t881250949\n2\t10\t3\t881250950\n2\t20\t1\t1\n",
        "ua.test": "1\t20\t4\t881250951\n",
        "u.item": "10|Misérables, Les (1995)|01-Jan-1995|||0|1\n20|Two (1996)|||0|0\n",
    } | members
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, text in content.items():
            packed.writestr(f"ml-100k/{name}", text.encode("latin-1"))
    return file.getvalue()


def away(_archive: Archive) -> bytes:
    """A network that is not there."""
    msg = "nobody answers"
    raise NotDownloaded(msg)


def test_a_folder_that_is_named_is_taken(tmp_path: Path) -> None:
    """Nothing else is tried, even where more is at hand."""
    data = folder(tmp_path / "mine", {"train.csv": TRAIN})
    folder(tmp_path / "sets" / "ml-100k", {"train.csv": "user_id,item_id\nz,9\n"})

    found = find_dataset(data, tmp_path / "sets", tmp_path / "home", fetch=away)

    assert (found.dataset.name, found.origin) == ("mine", "named")


def test_a_named_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """Whoever names data does not want to see other data."""
    with pytest.raises(DataProblem):
        find_dataset(tmp_path / "nowhere", None, tmp_path / "home", fetch=away)


def test_movielens_at_hand_is_taken_before_the_network(tmp_path: Path) -> None:
    """`ml-100k` in the folder of data sets."""
    folder(tmp_path / "sets" / "ml-100k", {"train.csv": TRAIN})

    found = find_dataset(None, tmp_path / "sets", tmp_path / "home", fetch=away)

    assert (found.dataset.name, found.origin) == ("ml-100k", "at hand")


def test_a_download_is_unpacked_and_found_again(tmp_path: Path) -> None:
    """The official `ua` split, with titles; the network is asked once."""
    asked: list[Archive] = []

    def fetch(wanted: Archive) -> bytes:
        asked.append(wanted)
        return archive()

    first = find_dataset(None, None, tmp_path, fetch=fetch)
    second = find_dataset(None, None, tmp_path, fetch=fetch)

    assert asked == [MOVIELENS_100K]
    assert first.origin == second.origin == "downloaded"
    assert first.dataset.titles["10"] == "Misérables, Les (1995)"
    assert (len(first.dataset.train), len(first.dataset.test)) == (3, 1)


def test_without_data_and_network_a_generated_set_is_used_and_that_is_said(tmp_path: Path) -> None:
    """The note names both what is missing and what is used in its place."""
    found = find_dataset(None, tmp_path, tmp_path / "home", fetch=away)

    assert found.origin == "generated"
    assert "nobody answers" in found.note
    assert "generated" in found.note


def test_an_archive_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path: Path) -> None:
    """The next run tries again instead of finding half a data set."""
    found = find_dataset(None, None, tmp_path, fetch=lambda _: archive()[:100])

    assert found.origin == "generated"
    assert list((tmp_path / "datasets").iterdir()) == []


def test_an_archive_with_a_member_of_absurd_size_is_refused(tmp_path: Path) -> None:
    """A small archive can hold a large file."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ml-100k/ua.base", b"0" * (17 * 1024 * 1024))

    assert find_dataset(None, None, tmp_path, fetch=lambda _: bomb.getvalue()).origin == "generated"


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server: its URL, and what it answers by path."""
    pages: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", pages
        server.shutdown()
        thread.join()


def test_what_is_downloaded_must_be_the_bytes_that_are_known(web: tuple[str, dict[str, bytes]]) -> None:
    """Size and SHA-256, or it is refused."""
    url, pages = web
    pages["/good"], pages["/other"], pages["/long"] = b"right", b"wrong", b"right" * 1000
    digest = hashlib.sha256(b"right").hexdigest()

    body = download(Archive(f"{url}/good", digest, 5))

    assert body == b"right"
    for path in ("/other", "/long"):
        with pytest.raises(NotDownloaded, match="checksum"):
            download(Archive(f"{url}{path}", digest, 5))


def test_a_server_that_is_away_or_lacks_the_file_is_told(web: tuple[str, dict[str, bytes]]) -> None:
    """With what happened."""
    url, _ = web

    with pytest.raises(NotDownloaded, match="does not answer: HTTPStatusError"):
        download(Archive(f"{url}/missing", "", 1))
    with pytest.raises(NotDownloaded, match="does not answer: ConnectError"):
        download(Archive("http://127.0.0.1:9/ml-100k.zip", "", 1))
