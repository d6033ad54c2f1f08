"""Fuzzes each target for some time under atheris: ``make fuzz``, or ``make fuzz ARGS="head token --seconds 600"``.

The corpus grows in ``build/fuzz``. An input for which something does not hold is written to the target's seeds, where
the tests find it. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_SEEDS = Path(__file__).parent / "seeds"
_CORPUS = Path("build/fuzz")
_LONGEST = 4096  # bytes of an input: longer ones are slow, and take no other paths


def main() -> int:
    import atheris

    with atheris.instrument_imports(include=["pushcompat"], enable_loader_override=False):
        from .targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.in_process:
        (name,) = names
        atheris.Setup(_arguments(name, options.seconds), lambda data: TARGETS[name](data))
        atheris.Fuzz()  # exits the process
    failed = [name for name in names if _run(name, options.seconds)]
    print(f"found something: {', '.join(failed)}; see {_SEEDS}" if failed else "found nothing")
    return 1 if failed else 0


def _run(name: str, seconds: int) -> int:
    """In a process of its own: libFuzzer ends the one that it runs in."""
    print(f"--- {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--in-process"]
    return subprocess.run(command, check=False).returncode


def _arguments(name: str, seconds: int) -> list[str]:
    corpus = _CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    return [
        "fuzz",
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={_SEEDS / name}/",
        str(corpus),
        str(_SEEDS / name),
    ]


if __name__ == "__main__":
    sys.exit(main())
