"""The named points at which the code can be made to die, read from the code."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# A store says of itself how far it is; the pipeline makes points of what it says.
COMPUTED = {"service/worker/pipeline.py": ("worker.after_file", "worker.before_rename", "worker.after_publish")}


@cache
def kill_points() -> tuple[str, ...]:
    """Every name that `fault_point` is called with anywhere in the service, sorted.

    Raises ValueError where a name is computed in a place that this module does not know of.
    """
    found: set[str] = set()
    for file in sorted((ROOT / "service").rglob("*.py")):
        path = str(file.relative_to(ROOT))
        if path == "service/platform/faults.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fault_point":
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    found.add(str(name.value))
                elif path in COMPUTED:
                    found.update(COMPUTED[path])
                else:
                    msg = f"{path}:{node.lineno} computes the name of a fault point; name it in {Path(__file__).name}."
                    raise ValueError(msg)
    return tuple(sorted(found))
