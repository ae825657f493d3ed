"""Version of this program, and the commit of its working tree."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TypedDict

VERSION = "1.0.0"  # the only place; CHANGELOG.md describes the versions
ROOT = Path(__file__).resolve().parent.parent
GIT_TIMEOUT = 10  # seconds


class ProgramVersion(TypedDict):
    """Version that runs, evaluations and exports are labeled with.

    Attributes:
        version: release.
        commit: hexadecimal git commit of the working tree; None if the program was installed without git.
        modified: True if a tracked file differs from the commit; None without a commit.
    """

    version: str
    commit: str | None
    modified: bool | None


@cache
def program_version() -> ProgramVersion:
    """Return the version of this program as it was when the process first asked for it."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"version": VERSION, "commit": commit or None, "modified": None if changes is None else bool(changes)}


def format_version(program: ProgramVersion) -> str:
    """Return text such as "1.0.0 (commit 1a2b3c4d5e6f, modified)"."""
    if program["commit"] is None:
        return program["version"]
    return f"{program['version']} (commit {str(program['commit'])[:12]}{', modified' if program['modified'] else ''})"


def _git(*arguments: str) -> str | None:
    """Return the output of git in the working tree, or None if there is no git or no repository."""
    if not (ROOT / ".git").exists():  # otherwise git would look for a repository around this one
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
