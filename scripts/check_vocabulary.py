"""Report words that the project has a better word for; exit with status 1 if there are any.

    python scripts/check_vocabulary.py [FILE ...]

Checks the names and the prose of all tracked files, or of the given files. A line that ends in "# style: ok" (or
"<!-- style: ok -->") is exempt: use it for quotations, and for names that files on disk depend on.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = ("*.py", "*.md", "*.sh", "*.js", "*.css", "*.html", "*.toml", "*.txt")
EXEMPT = re.compile(r"(#|//) style: ok$|<!-- style: ok -->$")

# Regular expression, matched inside words and names too: the word to use instead.
USE_INSTEAD = {
    # Not in stable names: the flags --pictures and --evaluation_pictures, keys of metrics.jsonl, and a file name.
    r"(?<!--)(?<!arguments\.)(?<![\"'`])(?<!(demo|real)_)(?<!evaluation_)(?<![a-z])picture": "image",  # style: ok
    r"\bdata sets?\b": "dataset",  # style: ok
    r"(optimi|normali|initiali|regulari|minimi|maximi|synchroni|summari|reali|recogni)s(e[ds]?|ing|ation|er)": "-ize",
    r"colour|centre|neighbour|behaviour|grey(?!scale)|honour": "US spelling",  # style: ok
    r"\b(anew|midst|whoever|forsake|heed|hindrance|nought)\b|for want of": "plain modern English",  # style: ok
    r"\bshall\b": "must, or the present tense",  # style: ok
    r"\b(go|goes|going|went) on where|\b(take|takes|taken|took) up again|\btake_up\b": "resume",  # style: ok
    r"\b(by|from) chance\b.{0,20}\bcoin\b|\bthrow(s|n)? (a|the) coin\b": "sample",  # style: ok
    r"\byardstick\b": "reference workload",  # style: ok
    r"\b(taken|timed|measured) in turns\b": "interleaved",  # style: ok
    r"(wanted|declare)_figures|figure_table|format_figure|JudgedPictures|\bJudge\b|figures of": "metric",  # style: ok
    r"KeptDraws|DrawTensors|draws_at|seed_draws|draw_(positions|flip)": "sample, RNG",  # style: ok
    r"\bdraws?(\.| =|: )|random draw": "sample, RNG",
    r"RecordedSteps|recorded_steps|\bRecorder\b|\bplay(ed|s)? back\b": "CUDA graph capture, replay",  # style: ok
    r"\bmachinery\b|HowToCompute|network_calls|chosen_speed": "performance config",  # style: ok
    r"keep_freed_memory|whole_folder|upright_visuals|keep_averages|WeightAverages|RunFiles": "its new name",  # style: ok
    r"LiveView|BackgroundView|\bInbox\b|VisdomBoard|VisdomScreen|\blive views?\b": "logger",  # style: ok
    r"SilentReport|TrainingReport|EarlyWarnings|LossWatch|early warnings?": "visualizer, monitor",  # style: ok
    r'^\s*"""(What|Whether|Where|How|Of)\b': "a docstring that starts with an imperative verb",
}
PATTERNS = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in USE_INSTEAD.items()]


def findings(text: str) -> list[tuple[int, str, str]]:
    """Return (line number, word, what to use instead) for each word in the text that is not to be used."""
    return [
        (number, match[0].strip(), better)
        for number, line in enumerate(text.splitlines(), 1)
        if not EXEMPT.search(line)
        for pattern, better in PATTERNS
        for match in pattern.finditer(line)
    ]


def tracked_files() -> list[Path]:
    """Return all tracked text files except this one."""
    listed = subprocess.run(["git", "ls-files", *SUFFIXES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.splitlines() if (path := ROOT / name).is_file() and path != Path(__file__).resolve()]


def main() -> None:
    found = 0
    for path in [Path(name) for name in sys.argv[1:]] or tracked_files():
        for number, word, better in findings(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{number}: {word!r}; use: {better}")
            found += 1
    if found:
        sys.exit(f"check_vocabulary.py: {found} words to replace. End a line in '# style: ok' if its word must stay.")


if __name__ == "__main__":
    main()
