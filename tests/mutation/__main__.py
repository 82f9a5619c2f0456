"""Mutation testing of the core modules: `python -m tests.mutation [NAME ...] [--seconds N]`, or `make mutants`.

What was tried is kept in .cache/mutation by name and by the hash of its file: an interrupted run goes on, and only
survivors are tried again. Writes benchmarks/results/mutation.json once every mutant was tried; exits 1 below 95 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from tests.mutation.modules import MODULES
from tests.mutation.mutants import Mutations

ROOT = Path(__file__).parents[2]
CACHE, EXPLAINED = ROOT / ".cache" / "mutation", Path(__file__).with_name("explained.toml")
LEAST = 0.95


def verdicts(name: str) -> tuple[dict[str, Any], int]:
    """What is known of a core module's mutants, and how many were not tried yet."""
    results = CACHE / f"{name}.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    explained = {each["mutant"]: each["why"] for each in tomllib.loads(EXPLAINED.read_text()).get("mutants", [])}
    killed, survived, told, missing = 0, [], [], 0
    for path, functions in MODULES[name].files.items():
        file = Mutations(ROOT, path, functions)
        for mutant in file.all():
            found = known.get(mutant.key)
            if found is None or found["hash"] != file.hash:
                missing += 1
            elif found["verdict"] != "survived":
                killed += 1
            elif mutant.key in explained:
                told.append({"mutant": mutant.key, "why": explained[mutant.key]})
            else:
                survived.append(f"{mutant.path}:{mutant.line} {mutant.function}: {mutant.what}")
    page = {"killed": killed, "total": killed + len(survived), "explained": told, "survived": survived}
    return page, missing


def main() -> int:
    """Try what was not tried, then tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--seconds", type=float, default=7200.0, help="at most, for each")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "mutation.json")
    parser.add_argument("--tell", action="store_true", help="only tell what is known")
    given = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    page = json.loads(given.results.read_text()) if given.results.exists() else {}
    sound = True
    for name in given.names or MODULES:
        if not given.tell:
            run(name, given.seconds)
        page[name], missing = verdicts(name)
        if missing:
            page[name]["not_tried"] = missing
        share = page[name]["killed"] / max(page[name]["total"], 1)
        sound &= share >= LEAST and not missing
        print(
            f"{name}: {page[name]['killed']} of {page[name]['total']} killed ({share:.1%}), "
            f"{len(page[name]['explained'])} explained, {missing} not tried"
        )
        for survivor in page[name]["survived"]:
            print(f"  {survivor}")
        given.results.write_text(json.dumps(page, indent=1, sort_keys=True) + "\n")
    return int(not sound)


def run(name: str, seconds: float) -> None:
    """Try a core module's mutants."""
    with tempfile.TemporaryDirectory(prefix="m-") as scratch:
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "tests.mutation.plugin", "--timeout", "0"),
                *("--mutate", name, "--mutate-results", CACHE / f"{name}.json", "--mutate-seconds", str(seconds)),
                *MODULES[name].tests,
            ],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"},
            check=False,
            stdout=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    sys.exit(main())
