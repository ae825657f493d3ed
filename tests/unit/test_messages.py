"""Error messages have the form `flag or file: what is wrong. What to do.`"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("data", "datasets", "models", "options", "scripts", "util")
FILES = [ROOT / "train.py", ROOT / "test.py", *(file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.py")))]
ERRORS = ("UserError", "EnvironmentFailure", "WeightsAbsentError", "DivergedError")
VALUE = "X"  # stands for each formatted value
# The fault may be the text of another error.
FORM = re.compile(rf"[^:]+: .*(\. .*[.…{VALUE}]|{VALUE}\.)", re.DOTALL)


def text_of(node: ast.expr) -> str:
    """Return the literal text of a message, with VALUE for whatever is inserted."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    return VALUE


def messages(file: Path) -> list[str]:
    """Return the literal messages of the errors that a file creates."""
    calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    errors = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ERRORS and call.args)
    return [text for call in errors if (text := text_of(call.args[0])) != VALUE]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_errors_name_the_fault_and_the_remedy(file: Path) -> None:
    assert [text for text in messages(file) if not FORM.fullmatch(text)] == []
