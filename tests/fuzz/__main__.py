"""Fuzz the parsers with atheris: `python -m tests.fuzz [NAME ...] [--seconds N] [--results FILE]`.

Each harness runs in a process of its own from the committed corpus; what it learns stays in .cache/fuzz. An input that
is a finding is put beside the corpus as `found-*`, where `make test` replays it ever after. Exits 1 where there is one.
Needs the group `breaking`, which has no atheris for every Python.
"""

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CORPUS, LEARNT = Path(__file__).parent / "corpus", ROOT / ".cache" / "fuzz"
_INSTRUMENTED = ["service", "model_store", "json"]
_DONE = re.compile(rb"stat::number_of_executed_units: +(\d+)")
_COVERED = re.compile(rb"cov: (\d+)")


def fuzz_here(name: str, options: list[str]) -> None:
    """Run one harness in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.harnesses import HARNESSES
    atheris.Setup([sys.argv[0], *options], HARNESSES[name])
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> dict[str, Any]:
    """Run one harness in a process of its own; says how much it tried and what it found."""
    learnt = LEARNT / name
    learnt.mkdir(parents=True, exist_ok=True)
    for old in learnt.parent.glob(f"{name}.finding-*"):
        old.unlink()
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={learnt.parent}/{name}.finding-",
    ]
    command = [sys.executable, "-m", "tests.fuzz", "--here", name, *options, str(learnt), str(CORPUS / name)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=seconds + 300)
    done, covered = _DONE.search(ran.stderr), _COVERED.findall(ran.stderr)
    findings = []
    for artefact in sorted(learnt.parent.glob(f"{name}.finding-*")):
        content = artefact.read_bytes()
        found = CORPUS / name / f"found-{hashlib.sha256(content).hexdigest()[:12]}"
        found.write_bytes(content)
        findings.append(str(found.relative_to(ROOT)))
    if ran.returncode and not findings:
        sys.stderr.buffer.write((ran.stdout + ran.stderr)[-4000:])
        raise SystemExit(f"The harness {name} did not run.")
    if findings:
        sys.stderr.buffer.write((ran.stdout + ran.stderr)[-4000:])
    return {
        "seconds": seconds,
        "executions": int(done[1]) if done else 0,
        "covered": int(covered[-1]) if covered else 0,
        "findings": findings,
    }


def main() -> int:
    """Run them one after the other."""
    if sys.argv[1:2] == ["--here"]:
        fuzz_here(sys.argv[2], sys.argv[3:])
        return 0
    names = sorted(folder.name for folder in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--seconds", type=int, default=180, help="for each (default: 180)")
    parser.add_argument("--results", type=Path, help="JSON file to write what was done to; others of it are kept")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.results is not None and given.results.exists():
        results = json.loads(given.results.read_text())["harnesses"]
    failed = False
    for name in given.names or names:
        results[name] = fuzz(name, given.seconds)
        failed |= bool(results[name]["findings"])
        print(name, json.dumps(results[name]), flush=True)
        if given.results is not None:
            page = {"at": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version(), "harnesses": results}
            given.results.write_text(json.dumps(page, indent=1, sort_keys=True) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
