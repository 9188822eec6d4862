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
from typing import Any, Literal

from deployments import terminal
from deployments.temporary_server import TemporaryServer, wait_ready
from deployments.visible import tell
from lab.earlier_formats import read_earlier
from lab.earlier_perplexities import holds_perplexities, read_perplexities
from lab.earlier_placements import holds_placements, read_placements

Kind = Literal["texts", "perplexities", "placements"]


def kind_of(path: Path) -> Kind:
    """What a file is meant to hold, sound or not.

    Raises
    ------
    UsageError
        It cannot be read as JSON.
    """
    if holds_placements(path):  # first: a variant may be called baseline
        return "placements"
    return "perplexities" if holds_perplexities(path) else "texts"


def check_files(files: Sequence[Path]) -> None:
    """Read every file and forget it.

    Raises
    ------
    UsageError
        One of them is not of a known format, or malformed.
    """
    readers = {"texts": read_earlier, "perplexities": read_perplexities, "placements": read_placements}
    for path in files:
        readers[kind_of(path)](path)


def import_files(files: Sequence[Path], *, server: TemporaryServer | None, as_json: bool) -> None:
    """Import files and print what each holds and what the gates say."""
    from flows.disparity_import import disparity_import
    from flows.entropy_import import entropy_import
    from flows.mechanism_import import mechanism_import

    wait_ready(server)
    tell(f"{len(files)} file{'s' if len(files) > 1 else ''} of earlier results", file=sys.stderr)
    flows: dict[Kind, Any] = {
        "texts": entropy_import,
        "perplexities": disparity_import,
        "placements": mechanism_import,
    }
    kinds: dict[Kind, list[str]] = {}
    for path in files:
        kinds.setdefault(kind_of(path), []).append(str(path.absolute()))
    with terminal.progress():
        done = {kind: flow(kinds[kind]) for kind, flow in flows.items() if kind in kinds}
    texts = done.pop("texts", None)
    study = next(iter(done.values()))["study"] if texts is None else texts["study"]
    found: Any = {"study": study, "parts": texts["parts"] if texts else []}
    found |= {kind: result["parts"] for kind, result in done.items()}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for part in found["parts"]:
        _print_texts(part)
    for part in found.get("perplexities", ()):
        _print_perplexities(part)
    for part in found.get("placements", ()):
        _print_placements(part)


def _print_texts(part: Mapping[str, Any]) -> None:
    tell(
        f"\n{part['model']} · {Path(part['file']).name} · {part['format']} {part['part']}: "
        f"{part['texts']} texts of {', '.join(part['arms'])}, {part['prompts']} prompts, "
        f"up to {part['samples']} samples a cell; metrics {part['metrics']}{_not_read(part)}"
    )
    if part["decisions"]:
        terminal.print_decisions(part["decisions"])
        tell(f"Next: {part['decisions'][-1]['next']}")
    else:
        tell("Recorded, not compared: one source.")


def _print_perplexities(part: Mapping[str, Any]) -> None:
    said = "undefined" if part["ratio"] is None else f"{part['ratio']:.4g}, {part['word']}"
    if part["low_nats"] is None:
        interval = f"no {1 - part['alpha']:.0%} interval"
    else:
        interval = f"{1 - part['alpha']:.0%} [{part['low_nats']:+.3f}, {part['high_nats']:+.3f}]"
    tell(
        f"\n{part['model']} · {Path(part['file']).name} · perplexities of {part['languages']} languages"
        f"{_not_read(part)}"
    )
    for tier in ("high", "low"):
        codes = [code for code, found in part["tiers"].items() if found == tier]
        mean = f"{part[f'mean_{tier}_percent']:.4g}"
        tell(f"  mean degradation, {tier:<4}  {mean:>10} %   {textwrap.shorten(' '.join(codes), 34)}")
    tell(f"  legacy ratio            {said:>10}")
    tell(f"  gap, nats a token       {part['gap_nats']:>+10.3f}     {interval}, p = {part['p']:.3g}")
    tell(textwrap.fill(f"{part['hides']}.", terminal.width()))
    terminal.print_decisions(part["decisions"])
    tell(f"Next: {part['decisions'][-1]['next']}")


def _print_placements(part: Mapping[str, Any]) -> None:
    seeds, variants = len(part["seeds"]), len(part["variants"]) - 1
    head = (
        f"{part['model']} · {Path(part['file']).name} · {variants} variant{'s' if variants > 1 else ''} and "
        f"a probe, {seeds} seed{'s' if seeds > 1 else ''}{_not_read(part)}"
    )
    tell(f"\n{textwrap.fill(head, terminal.width())}")
    tell(f"  {'variant':<22}{'mean':>8}{'SD':>8}{'- probe':>9}{'parameters':>12}{'pass rate':>11}")
    for one in part["variants"]:
        std, saved, passed = one["std"], one["param_reduction"], one["pass_rate"]
        shares = "-" if saved is None else f"{1 - saved:.1%}", "-" if passed is None else f"{passed:.0%}"
        tell(
            f"  {textwrap.shorten(one['variant'], 22):<22}{one['mean']:>8.4f}"
            f"{'-' if std is None else f'{std:.4f}':>8}{one['delta_vs_probe']:>+9.4f}"
            f"{shares[0]:>12}{shares[1]:>11}"
        )
    for one in part["contrasts"]:
        _print_contrast(one)
    for one in part["criteria"]:
        _print_criterion(one)
    for note in part["contradictions"]:
        tell(textwrap.fill(f"{note}.", terminal.width()))
    terminal.print_decisions(part["decisions"])
    tell(f"Next: {part['decisions'][-1]['next']}")


def _print_contrast(one: Mapping[str, Any]) -> None:
    level = 1 - one["alpha"] * (2 if one["hypothesis"] == "non_inferiority" else 1)
    ends = "no interval" if one["low"] is None else f"{level:.0%} [{one['low']:+.4f}, {one['high']:+.4f}]"
    tell(f"  {one['contrast']}")
    tell(f"    {one['estimate']:+.4f} {ends}, Holm p {one['p_adjusted']:.3g}, {one['verdict']}")


def _print_criterion(one: Mapping[str, Any]) -> None:
    holds = {True: "holds", False: "does not hold", None: "undefined"}[one["holds"]]
    numbers = {"t": one["t"], "p": one["p"], "d pooled": one["d_pooled"], "d_z": one["d_z"]}
    said = "".join(f", {name} {value:.3g}" for name, value in numbers.items() if value is not None)
    tell(f"  {one['name']} by the earlier rule, above {one['more_than']:g}: {holds}")
    tell(f"    {one['estimate']:+.4f}{said}")


def _not_read(part: Mapping[str, Any]) -> str:
    return f"; not read: {', '.join(part['not_read'])}" if part["not_read"] else ""
