"""`ladder import`: files of earlier results into the store, through the gates.

Every file is read before the home is touched, so a malformed one leaves nothing behind. The command ends with
0 when the files are in, whatever the gates say of them: `ladder import FILE && ladder gates` shows it.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments import terminal
from deployments.temporary_server import TemporaryServer
from lab.earlier_formats import read_earlier
from lab.earlier_perplexities import holds_perplexities, read_perplexities


def check_files(files: Sequence[Path]) -> None:
    """Read every file and forget it.

    Raises
    ------
    UsageError
        One of them is not of a known format, or malformed.
    """
    for path in files:
        if holds_perplexities(path):
            read_perplexities(path)
        else:
            read_earlier(path)


def import_files(files: Sequence[Path], *, server: TemporaryServer | None, as_json: bool) -> None:
    """Import files and print what each holds and what the gates say."""
    from flows.disparity_import import disparity_import
    from flows.entropy_import import entropy_import

    if server is not None:
        server.wait_ready()
    terminal.show_progress()
    print(f"{len(files)} file{'s' if len(files) > 1 else ''} of earlier results", file=sys.stderr)
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for path in files:
        kinds[holds_perplexities(path)].append(str(path.absolute()))
    found: Any = {"study": "disparity_import", "parts": []}
    if kinds[False]:
        found = entropy_import(kinds[False])
    if kinds[True]:
        perplexities: Any = disparity_import(kinds[True])
        found["perplexities"] = perplexities["parts"]
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for part in found["parts"]:
        _print_texts(part)
    for part in found.get("perplexities", ()):
        _print_perplexities(part)


def _print_texts(part: Mapping[str, Any]) -> None:
    print(
        f"\n{part['model']} · {Path(part['file']).name} · {part['format']} {part['part']}: "
        f"{part['texts']} texts of {', '.join(part['arms'])}, {part['prompts']} prompts, "
        f"up to {part['samples']} samples a cell; metrics {part['metrics']}{_not_read(part)}"
    )
    if part["decisions"]:
        terminal.print_decisions(part["decisions"])
        print(f"Next: {part['decisions'][-1]['next']}")
    else:
        print("Recorded, not compared: one source.")


def _print_perplexities(part: Mapping[str, Any]) -> None:
    said = "undefined" if part["ratio"] is None else f"{part['ratio']:.4g}, {part['word']}"
    if part["low_nats"] is None:
        interval = f"no {1 - part['alpha']:.0%} interval"
    else:
        interval = f"{1 - part['alpha']:.0%} [{part['low_nats']:+.3f}, {part['high_nats']:+.3f}]"
    print(
        f"\n{part['model']} · {Path(part['file']).name} · perplexities of {part['languages']} languages"
        f"{_not_read(part)}"
    )
    for tier in ("high", "low"):
        codes = [code for code, found in part["tiers"].items() if found == tier]
        mean = f"{part[f'mean_{tier}_percent']:.4g}"
        print(f"  mean degradation, {tier:<4}  {mean:>10} %   {textwrap.shorten(' '.join(codes), 34)}")
    print(f"  legacy ratio            {said:>10}")
    print(f"  gap, nats a token       {part['gap_nats']:>+10.3f}     {interval}, p = {part['p']:.3g}")
    print(textwrap.fill(f"{part['hides']}.", terminal.width()))
    terminal.print_decisions(part["decisions"])
    print(f"Next: {part['decisions'][-1]['next']}")


def _not_read(part: Mapping[str, Any]) -> str:
    return f"; not read: {', '.join(part['not_read'])}" if part["not_read"] else ""
