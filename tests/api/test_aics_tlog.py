"""The log, checked by the PyPI package aics-tlog, which needs Python 3.12: in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.audit.tlog.tiles import tile_path
from tests.api.conftest import Api
from tests.conftest import require

PACKAGE = "aics-tlog==0.2.1"
ENVIRONMENT = Path(__file__).parents[2] / ".cache" / "verifiers" / PACKAGE
SCRIPT = """
import json, sys
from pathlib import Path
from aics_tlog import checkpoint, note, tiles, tree, verified
folder, vkey, index = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
signed = note.parse_note((folder / "checkpoint").read_bytes())
found = checkpoint.verify_checkpoint(signed, note.parse_vkey(vkey))
assert found.ok and found.log_ok, found.error
reader = tiles.FileSystemTileReader(folder)
report = verified.audit_tiles(reader, found.size, found.root)
entry = (folder / "entry").read_bytes()
proof = json.loads((folder / "proof.json").read_text())
hashes = [note.b64_decode(each) for each in proof["hashes"]]
included = tree.verify_leaf_inclusion(entry, index, found.size, hashes, found.root)
print(json.dumps({"origin": found.origin, "size": found.size, "bundles": report.bundles, "included": included}))
"""


def newer_python() -> str | None:
    """A Python of 3.12 or newer that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [sys.executable, *(shutil.which(f"python3.{minor}") for minor in (12, 13, 14))]
    found += [str(each / "bin" / "python3") for each in sorted(pyenv.glob("3.1[2-9]*"))]
    check = "import sys, venv; sys.exit(sys.version_info < (3, 12))"
    for each in found:
        if each and subprocess.run([each, "-c", check], capture_output=True, check=False).returncode == 0:
            return each
    return None


@pytest.fixture(scope="session")
def verifier() -> Path:
    """The interpreter of an environment with the package and what it needs, made once."""
    python = newer_python()
    require(python, "Python 3.12 or newer, for aics-tlog")
    assert python is not None
    program = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".whole").exists():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        make = [python, "-m", "venv", "--without-pip", str(ENVIRONMENT)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(program)]
        for command in (make, [*pip, "install", "-q", PACKAGE]):
            done = subprocess.run(command, capture_output=True, check=False, timeout=60)
            require(done.returncode == 0, f"{PACKAGE}, or a package index to take it from")
        (ENVIRONMENT / ".whole").touch()
    return program


@pytest.mark.P7
def test_checkpoint_tiles_and_proof_verify_with_aics_tlog(api: Api, verifier: Path, tmp_path: Path) -> None:
    """Every tile and every entry of a log of two bundles; for another entry the proof is refused."""
    body = {"interactions": [], "users": ["u"]}
    for _ in range(260):
        api.client.post("/v1/erasures", json=body).raise_for_status()
    note = api.client.get("/v1/audit/checkpoint").content
    size = int(note.split(b"\n")[1])
    (tmp_path / "checkpoint").write_bytes(note)
    places = [(f"{level}", index) for level in ("0", "entries") for index in range(2)] + [("1", 0)]
    for level, index in places:
        width = min(256, size - 256 * index) if level != "1" else 1
        name = f"tile/{level}/{tile_path(index, width)}"
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(api.client.get(f"/v1/audit/{name}").raise_for_status().content)
    (tmp_path / "proof.json").write_bytes(api.client.get("/v1/audit/proofs/inclusion?index=123").content)
    entries = api.client.get("/v1/audit/entries?limit=1000").json()["entries"]
    entry = {name: value for name, value in entries[123].items() if name != "leaf_hash"}
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    vkey = httpx.get(f"{api.url}/v1/audit/keys").json()["keys"][0]["vkey"]
    script = tmp_path / "check.py"
    script.write_text(SCRIPT)

    found = []
    for presented in (text, text.replace("accepted", "erased")):
        (tmp_path / "entry").write_text(presented)
        command = [str(verifier), str(script), str(tmp_path), vkey, "123"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))

    assert (found[0]["size"], found[0]["bundles"], found[0]["included"]) == (size, 2, True)
    assert found[0]["origin"].encode() == note.split(b"\n")[0]
    assert found[1]["included"] is False
