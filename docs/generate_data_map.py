"""Write docs/data-map.md from `service.data_map`. `make reference` runs it; a test fails where the page is old."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "data-map.md"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from service.data_map.service import markdown

    TARGET.write_text(markdown(), encoding="utf-8")
