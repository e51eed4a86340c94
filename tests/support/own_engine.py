"""The example of workers/engine/README.md, as a module that a worker can be started on."""

from __future__ import annotations

import re
from pathlib import Path

_README = Path(__file__).parents[2] / "workers" / "engine" / "README.md"


def write_example(folder: Path) -> Path:
    """Write the README's own lines as `capitals.py`; its path."""
    (lines,) = re.findall(r"^```python\n(.*?)^```$", _README.read_text(), re.M | re.S)
    path = folder / "capitals.py"
    path.write_text(lines)
    return path
