"""Whether each fault's test fails when its protection is gone: `python -m tests.fault_mutations [FAULT...]`.

The protection is taken out of a copy of the project, and the named tests run on it; a mutation that they
pass is printed as SURVIVED, and the command ends with 1. Some 20 minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fault_protections import KILLS, STORE, Mutation
from tests.fault_protections_inputs import FILES, MODELS
from tests.ladder_command import ROOT, copy_tree

MUTATIONS = (*KILLS, *STORE, *MODELS, *FILES)
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow")


def survives(mutation: Mutation, tree: Path) -> bool:
    """Whether the tests pass on a copy without the protection.

    Raises
    ------
    ValueError
        The protection is not where it was.
    """
    place = tree / mutation.file
    text = place.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.fault}: {mutation.file} has it {text.count(mutation.old)} times")
    place.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = subprocess.run(
            [*PYTEST, "--timeout", str(mutation.limit_seconds), *mutation.tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
        )
    finally:
        place.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutation.fault}: pytest ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.returncode == 0


def main() -> None:
    """Try every mutation whose fault begins with one of the given words."""
    wanted = [one for one in MUTATIONS if not sys.argv[1:] or one.fault.startswith(tuple(sys.argv[1:]))]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder) / "tree")
        for name in ("tests", "docs"):
            shutil.copytree(ROOT / name, tree / name)
        for one in wanted:
            lives = survives(one, tree)
            survivors += lives
            print(f"{'SURVIVED' if lives else 'seen':8}  {one.fault}", flush=True)
    print(f"{len(wanted) - survivors} of {len(wanted)} protections are tested")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
