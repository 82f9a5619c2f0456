"""Faults of the disk and of whoever can write to it: what is damaged is never loaded, and says so by name."""

import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from model_store import (
    ChecksumMismatch,
    Damaged,
    HeaderDamaged,
    InvalidName,
    Manifest,
    ManifestDamaged,
    Misplaced,
    MissingFile,
    MissingTensor,
    ModelStore,
    NotAPlainFile,
    NotFinite,
    StoreError,
    Truncated,
    UnexpectedFile,
    UnexpectedTensor,
    Unwritable,
    WrongShape,
    WrongType,
)
from model_store.manifest import FileFacts
from tests.factories.versions import EMBEDDINGS, KEY, facts, file_of, publish, tensors

pytestmark = pytest.mark.P5


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", key=KEY)


def open_it(store: ModelStore, number: int = 42) -> None:
    store.open("versions", number, EMBEDDINGS)


def replaced(store: ModelStore, data: bytes) -> None:
    """Replace a version's file and make the manifest agree: what a publisher with a defect would leave."""
    old = store.manifest("versions", 42)
    file = FileFacts(len(data), hashlib.sha256(data).hexdigest(), old.files[EMBEDDINGS].tensors)
    page = Manifest("versions", 42, old.facts, {EMBEDDINGS: file}).sealed(KEY)
    file_of(store, name="manifest.json").write_bytes(page.to_json())
    file_of(store).write_bytes(data)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda data: b"", Truncated),
        (lambda data: data[:-1], Truncated),
        (lambda data: data[: len(data) // 2], Truncated),
        (lambda data: data + b"\0", Truncated),
        (lambda data: data[:-64] + bytes(64), ChecksumMismatch),  # torn: the length was written, the last block not
        (flipped, ChecksumMismatch),
        (lambda data: (2**63).to_bytes(8, "little") + data[8:], ChecksumMismatch),
        (lambda data: pickle.dumps(tensors()), Truncated),
    ],
)
def test_a_file_damaged_on_disk_is_refused_by_name(store: ModelStore, damage: Callable[[bytes], bytes], error):
    """D1: torn, empty, cut short by one byte, one bit flipped: each is refused and says what to do."""
    publish(store)
    path = file_of(store)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(error, match=r"versions/000042/embeddings\.safetensors .*restore the file from a copy"):
        open_it(store)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], flipped, lambda data: data * 2])
def test_a_damaged_manifest_is_refused(store: ModelStore, damage: Callable[[bytes], bytes]):
    """D1: without a sound manifest nothing of a version is opened."""
    publish(store)
    path = file_of(store, name="manifest.json")
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(Damaged):
        open_it(store)


def test_a_file_that_agrees_with_its_checksum_still_has_to_be_right(store: ModelStore):
    """D1: NaN rows, wrong shape, wrong type, tensors too many or too few, an endless header: refused by name."""
    publish(store)
    good = tensors()
    nan = good | {"users": np.full_like(good["users"], np.nan)}
    wide = good | {"users": good["users"].reshape(3, 4)}
    double = good | {"users": good["users"].astype(np.float64)}
    extra = good | {"ids": good["user_keys"]}
    without = {name: array for name, array in good.items() if name != "users"}
    endless = (2**63).to_bytes(8, "little") + save(good)[8:]

    for data, error in [
        (save(nan), NotFinite),
        (save(wide), WrongShape),
        (save(double), WrongType),
        (save(extra), UnexpectedTensor),
        (save(without), MissingTensor),
        (endless, HeaderDamaged),
        (pickle.dumps(good), HeaderDamaged),
    ]:
        replaced(store, data)
        with pytest.raises(error):
            open_it(store)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.sprung,))


def test_a_pickle_in_the_store_is_never_opened(store: ModelStore, tmp_path: Path):
    """D2: whether beside, as manifest, as tensors or as alias, a pickle never runs."""
    publish(store)
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    file_of(store, name="weights.pkl").write_bytes(trap)

    with pytest.raises(UnexpectedFile, match=r"weights\.pkl"):
        store.verify("versions", 42)
    with pytest.raises(InvalidName):
        store.open("versions", 42, "weights.pkl")
    file_of(store).write_bytes(trap)
    file_of(store, name="manifest.json").write_bytes(trap)
    (store.root / "aliases").mkdir()
    (store.root / "aliases" / "live").write_bytes(trap)
    for read in (lambda: open_it(store), lambda: store.manifest("versions", 42), lambda: store.alias("live")):
        with pytest.raises(Damaged):
            read()
    assert not sprung.exists()


@pytest.mark.parametrize("name", [EMBEDDINGS, "manifest.json", "", "collection"])
def test_a_symlink_in_the_place_of_anything_is_refused(store: ModelStore, tmp_path: Path, name: str):
    """D6: even one that leads to the true bytes."""
    publish(store)
    folder = store.root / "versions"
    path = folder if name == "collection" else folder / "000042" / name
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)

    with pytest.raises(NotAPlainFile, match="symlink or not a plain file"):
        open_it(store)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_not_a_plain_file_is_refused_without_waiting(store: ModelStore, make: Callable[[Path], None]):
    """D6: a pipe in the place of a file cannot hang the reader."""
    publish(store)
    file_of(store).unlink()
    make(file_of(store))

    with pytest.raises(NotAPlainFile):
        open_it(store)


def test_an_alias_that_is_a_symlink_is_refused(store: ModelStore, tmp_path: Path):
    """D6: the pointer itself cannot lead out of the store."""
    publish(store, 1)
    store.set_alias("live", 1)
    (tmp_path / "other").write_text("1\n")
    (store.root / "aliases" / "live").unlink()
    (store.root / "aliases" / "live").symlink_to(tmp_path / "other")

    with pytest.raises(NotAPlainFile):
        store.alias("live")


@pytest.mark.parametrize("text", ["", "0\n", "1", "-1\n", "1\n2\n", "../1\n", "9" * 40 + "\n", "१\n"])
def test_an_alias_that_holds_no_number_is_refused(store: ModelStore, text: str):
    """D1: a torn pointer is told, not guessed at."""
    publish(store, 1)
    store.set_alias("live", 1)
    (store.root / "aliases" / "live").write_text(text)

    with pytest.raises(Damaged, match="does not hold a number"):
        store.alias("live")


@pytest.mark.parametrize("name", ["../live", "a/b", "/etc/passwd", "..", "", "Live", "live\n", "a\0b", "x" * 100])
def test_no_name_leads_out_of_the_store(store: ModelStore, name: str):
    """D6: names are the store's own or they are refused, before anything is opened or written."""
    publish(store)

    for use in (
        lambda: store.alias(name),
        lambda: store.set_alias(name, 42),
        lambda: store.open("versions", 42, f"{name}.safetensors" if name == "live\n" else name),
        lambda: store.manifest(name, 42),
        lambda: store.publish("versions", 43, {name: tensors()}, facts()),
    ):
        with pytest.raises(InvalidName):
            use()


def test_a_version_copied_to_another_number_is_refused(store: ModelStore):
    """D5: a sound, signed version answers to its own number only."""
    publish(store)
    (store.root / "versions" / "000042").rename(store.root / "versions" / "000043")

    with pytest.raises(Misplaced, match="belongs to versions/42"):
        store.manifest("versions", 43)


def test_a_version_whose_files_are_gone_is_refused(store: ModelStore):
    """D1: a manifest without its file, and a folder without its manifest."""
    publish(store, 41)
    publish(store, 42, seed=2)
    file_of(store, 41).unlink()
    file_of(store, 42, "manifest.json").unlink()

    with pytest.raises(MissingFile):
        open_it(store, 41)
    with pytest.raises(ManifestDamaged):
        open_it(store, 42)


class Refusing:
    """Lets the first `n` writing calls of the system pass and refuses the next one."""

    calls = ("mkdir", "write", "fsync", "rename")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int, code: int) -> None:
        self.left, self.code, self.refused = n, code, False
        for name in self.calls:
            monkeypatch.setattr(os, name, self.counting(getattr(os, name)))

    def counting(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left == -1:
                self.refused = True
                raise OSError(self.code, os.strerror(self.code))
            return call(*args, **kwargs)

        return counted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_write_refused_at_any_call_leaves_no_half_version(tmp_path: Path, code: int):
    """D3: the disk fills at the n-th call, for every n; the old version stays whole and a retry succeeds."""
    errors = []
    for n in range(100):
        store = ModelStore(tmp_path / str(n), key=KEY)
        publish(store, 1)
        store.set_alias("live", 1)

        with pytest.MonkeyPatch.context() as monkeypatch:
            refusing = Refusing(monkeypatch, n, code)
            errors += refusals(store)

        assert_whole(store)
        publish_and_point(store)
        if not refusing.refused:
            break
    assert not refusing.refused
    assert len(errors) >= n - 2  # making a folder that is there already may fail unseen


def publish_and_point(store: ModelStore) -> None:
    publish(store, 2, seed=2)
    store.set_alias("live", 2)
    assert (store.numbers("versions"), store.alias("live")) == ([1, 2], 2)


def refusals(store: ModelStore) -> list[Unwritable]:
    try:
        publish_and_point(store)
    except Unwritable as error:
        return [error]
    return []


def assert_whole(store: ModelStore) -> None:
    """Every number that shows is a complete version, the alias names one of them, and nothing lies about."""
    for number in store.numbers("versions"):
        store.verify("versions", number)
    assert store.alias("live") in store.numbers("versions")
    store.clean()
    names = [path.name for path in store.root.rglob("*")]
    assert not [name for name in names if name.startswith(".")]


def test_a_read_only_folder_refuses_by_name(store: ModelStore):
    """D3: what the system really answers for a folder that nobody may write to."""
    publish(store, 1)
    code = (
        "import os, sys, pathlib; from tests.factories.versions import publish; from model_store import *\n"
        "root = pathlib.Path(sys.argv[1]); publish(ModelStore(root, key=b'k' * 32), 1)\n"
        "for folder in (root / 'versions', root, *root.parents[:3]): os.chmod(folder, 0o555)\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: publish(ModelStore(root, key=b'k' * 32), 2)\n"
        "except Unwritable as error: print(error)\n"
    )

    done = run(code, str(store.root))

    for folder in (store.root / "versions", store.root, *store.root.parents[:3]):
        folder.chmod(0o700)
    assert "versions/000002 could not be written (Permission denied)" in done.stdout, done
    assert store.numbers("versions") == [1]


def test_a_limit_on_file_size_refuses_by_name(store: ModelStore):
    """D3: what the system really answers when a file may not grow."""
    publish(store, 1)
    code = (
        "import pathlib, resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from tests.factories.versions import publish; from model_store import ModelStore, Unwritable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try: publish(ModelStore(pathlib.Path(sys.argv[1]), key=b'k' * 32), 2)\n"
        "except Unwritable as error: print(error)\n"
    )

    done = run(code, str(store.root))

    assert "versions/000002 could not be written" in done.stdout, done
    assert_nothing_aside(store)
    assert store.numbers("versions") == [1]


STEPS = ["after_file:1", "after_file:2", "before_rename:1", "after_rename:1"]


@pytest.mark.parametrize("step", STEPS)
def test_a_publisher_killed_at_any_step_leaves_all_or_nothing(store: ModelStore, step: str):
    """A5-A7: kill -9 in the middle; the next start finds a whole version or none, and can publish again."""
    publish(store, 1)
    code = (
        "import os, pathlib, signal, sys; from model_store import ModelStore\n"
        "from tests.factories.versions import EMBEDDINGS, facts, tensors\n"
        "name, count = sys.argv[2].split(':'); seen = []\n"
        "def die(step):\n"
        "    seen.append(step)\n"
        "    if seen.count(name) == int(count): os.kill(os.getpid(), signal.SIGKILL)\n"
        "store = ModelStore(pathlib.Path(sys.argv[1]), key=b'k' * 32)\n"
        "store.publish('versions', 2, {EMBEDDINGS: tensors(seed=2)}, facts(), on_step=die)\n"
    )

    done = run(code, str(store.root), step)

    assert done.returncode == -signal.SIGKILL, done
    assert store.numbers("versions") == ([1, 2] if step == "after_rename:1" else [1])
    assert len(store.clean()) == (0 if step == "after_rename:1" else 1)
    publish(store, 2, seed=2)
    store.verify("versions", 2)
    assert_nothing_aside(store)


def test_cleaning_leaves_a_publish_under_way_alone(store: ModelStore):
    """A worker that starts beside a living one does not sweep away what that one is writing."""
    swept: list[str] = []

    def sweep(step: str) -> None:
        swept.extend(store.clean())

    store.publish("versions", 1, {EMBEDDINGS: tensors()}, facts(), on_step=sweep)

    assert swept == []
    store.verify("versions", 1)


def test_a_purge_interrupted_half_way_is_finished_by_the_next_start(store: ModelStore, monkeypatch):
    """The version is gone to every reader at once, and its bytes go at the latest with `clean`."""
    publish(store, 1)
    with monkeypatch.context() as context:
        context.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(Unwritable):
            store.purge("versions", 1)

    assert store.numbers("versions") == []
    assert len(store.clean()) == 1
    assert_nothing_aside(store)


def test_errors_never_show_what_a_file_holds(store: ModelStore):
    """A damaged manifest is not quoted: it could hold anything."""
    publish(store)
    page = json.loads(file_of(store, name="manifest.json").read_bytes())
    page["dataset_hash"] = "someone@example.org"
    file_of(store, name="manifest.json").write_text(json.dumps(page))

    with pytest.raises(StoreError) as caught:
        open_it(store)

    assert "someone" not in str(caught.value)


def refuse(*args: object, **kwargs: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def assert_nothing_aside(store: ModelStore) -> None:
    assert list(store.root.rglob(".*")) == []


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
