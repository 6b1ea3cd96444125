"""Parts of docs/benchmarks.md that commands write: each lies between two markers, which name its command."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def put(document: str, begin: str, end: str, text: str) -> str:
    """Put `text` between two markers; without markers, they and the text go to the end."""
    if begin not in document or end not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = document.partition(begin)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def write(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Write the section of `python -m bench.NAME`, which begins with its own `##` heading."""
    mark = f"<!-- written by python -m bench.{name}: "
    document.write_text(put(document.read_text(), f"{mark}begin -->", f"{mark}end -->", text))
