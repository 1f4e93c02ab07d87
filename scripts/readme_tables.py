"""Writes the tables of README.md that the code itself knows: commands, settings, metrics; and the files that it shows.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`, a file of the repository between
`<!-- file: PATH -->` and `<!-- end -->`.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

from oni.cli.main import COMMANDS
from oni.config import TrainConfig
from oni.metrics import METRICS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Returns the string below each field of a config class."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef)]
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return docs


def settings(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields key, default and meaning of every setting below a config class."""
    docs = field_docs(cls)
    hints = get_type_hints(cls)
    default = cls()
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings(hints[field.name], f"{prefix}{field.name}.")
        else:
            value = getattr(default, field.name)
            yield prefix + field.name, "" if value is None else str(value), docs.get(field.name, "")


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    """Returns a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


TABLES: dict[str, Callable[[], str]] = {
    "commands": lambda: table(
        ("command", "what it does"), [(f"`oni {name}`", text) for name, text in COMMANDS.items()]
    ),
    "settings": lambda: table(
        ("setting", "default", "meaning"),
        ((f"`{key}`", f"`{default}`" if default else "", text) for key, default, text in settings(TrainConfig)),
    ),
    "metrics": lambda: table(("metric", "meaning"), [(f"`{name}`", text) for name, text in METRICS.items()]),
}


def rewritten(text: str) -> str:
    """Returns the README with fresh tables and files."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            sys.exit(f"README.md has no place for the table {name!r}")
        text = pattern.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return re.compile(r"<!-- file: (\S+) -->\n.*?<!-- end -->", re.DOTALL).sub(shown, text)


def shown(found: re.Match[str]) -> str:
    """Returns the place of a file in the README with the file in it."""
    path = ROOT / found[1]
    if not path.is_file():
        sys.exit(f"README.md shows {found[1]}, and there is no such file")
    code = path.read_text(encoding="utf-8").rstrip()
    language = {".py": "python"}.get(path.suffix, path.suffix.removeprefix("."))
    return f"<!-- file: {found[1]} -->\n```{language}\n{code}\n```\n<!-- end -->"


def main() -> int:
    """Rewrites the README, or with --check says whether that is needed."""
    text = README.read_text(encoding="utf-8")
    fresh = rewritten(text)
    if "--check" in sys.argv[1:]:
        if fresh != text:
            print("README.md has tables or files that are not current; run scripts/readme", file=sys.stderr)
        return int(fresh != text)
    README.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
