#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bring the generated parts of the documentation up to date: keys of the schema, defaults of the settings.

Exit status with --check: 0 if nothing would change, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from persam_monai.clinical import ClinicalSchema
from persam_monai.clinical.variables import KINDS

ROOT = Path(__file__).parents[1]
DOCS, CONFIGS = ROOT / "bundle" / "docs", ROOT / "bundle" / "configs"


def schema_tables() -> str:
    """The keys of ``clinical.yaml`` and of each kind of variable, from the models that read it."""
    lines = ["| key of the file | default | |", "|---|---|---|", *_rows(ClinicalSchema)]
    lines += ["", "| kind | key | default | |", "|---|---|---|---|"]
    for kind, model in KINDS.items():
        lines.append(f"| `{kind}` | | | {' '.join(str(model.__doc__).split())} |")
        lines += [f"| {row}" for row in _rows(model)]
    return "\n".join(lines)


def _rows(model: type[BaseModel]) -> Iterable[str]:
    for name, field in model.model_fields.items():
        if name != "kind":
            default = "" if field.is_required() else f"`{json.dumps(field.default)}`"
            yield f"| `{name}` | {default} | {field.description} |"


def with_part(text: str, name: str, content: str) -> str:
    """A page with the content between the marks of a generated part."""
    begin, end = (f"<!-- {word} generated: {name} -->" for word in ("begin", "end"))
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def with_defaults(text: str) -> str:
    """A page with the defaults of the configs in the second column of its tables.

    A table belongs to the config that the heading above it names, as in ``## train.json``.
    """
    keys: dict[str, Any] = {}
    lines = []
    for line in text.splitlines():
        if heading := re.match(r"#+ .*?(\w+\.json)", line):
            keys = json.loads((CONFIGS / heading[1]).read_text(encoding="utf-8"))
        if (row := re.fullmatch(r"\| `([\w#]+)` \|([^|]*)\|(.*)", line)) and row[1] in keys:
            value = keys[row[1]]
            computed = isinstance(value, str) and value[:1] in "$@"  # these are described in words
            default = row[2].strip() if computed else f"`{json.dumps(value)}`"
            line = f"| `{row[1]}` | {default} |{row[3]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """What the pages with generated parts should hold."""
    clinical, settings = DOCS / "clinical.md", DOCS / "settings.md"
    schema = with_part(clinical.read_text(encoding="utf-8"), "schema", schema_tables())
    return {clinical: schema, settings: with_defaults(settings.read_text(encoding="utf-8"))}


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say which pages are out of date")
    asked = parser.parse_args()
    stale = {path: text for path, text in pages().items() if path.read_text(encoding="utf-8") != text}
    if asked.check and stale:
        sys.exit(f"Out of date: {', '.join(path.name for path in stale)}; run scripts/write_reference.py")
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
