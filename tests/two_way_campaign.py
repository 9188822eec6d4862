"""What the two-way bootstrap rejects and covers, and what others do: simulated studies with a known truth.

Run: `python -m tests.two_way_campaign [studies] [seeds] [lemmas]` prints the table in LOG.md. Each study is
a contrast of two conditions on the same items. Seeds and lemmas have effects of their own on the contrast,
items (4 to 13 a lemma) are harder or easier for both conditions. `percentile`: two-sided p of the plain
two-way percentiles; `normal`: estimate over the draws' SD against the normal; `paired t`: over seeds, lemmas
fixed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from stats.rows import FloatArray
from stats.scaling_fit import scaling_fit
from stats.two_way_bootstrap import Crossed, crossed, two_way

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """SDs of effects on the contrast; of 0 / 1 answers in log odds, else in the unit of the noise."""

    binary: bool
    seed: float
    lemma: float
    effect: float = 0.0
    noise: float = 1.0


CASES = {
    "seeds only": Case(binary=False, seed=1.0, lemma=0.0, noise=0.3),
    "lemmas only": Case(binary=False, seed=0.0, lemma=1.0, noise=0.3),
    "noise only": Case(binary=False, seed=0.0, lemma=0.0),
    "seeds = lemmas": Case(binary=False, seed=1.0, lemma=2.45),
    "0/1 noise only": Case(binary=True, seed=0.0, lemma=0.0),
    "0/1 seeds": Case(binary=True, seed=0.3, lemma=0.0),
    "0/1 lemmas": Case(binary=True, seed=0.0, lemma=0.7),
    "0/1 both": Case(binary=True, seed=0.3, lemma=0.7),
    "0/1 both, effect": Case(binary=True, seed=0.3, lemma=0.7, effect=0.8),
}
BASE, SHARED = -0.8, 2.25
"""Log odds of a right answer; variance of lemmas, items (both shared by the conditions) and networks."""


def expected(mean: float, variance: float) -> float:
    """Mean of expit(mean + sqrt(variance) N)."""
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    return float(weight @ special.expit(mean + np.sqrt(variance) * x) / weight.sum())


def truth(case: Case) -> float:
    if not case.binary:
        return case.effect
    own = SHARED + case.seed**2 + case.lemma**2
    return expected(BASE + case.effect, own) - expected(BASE, own)


def study(case: Case, seeds: int, lemmas: int, rng: np.random.Generator) -> Crossed:
    """One contrast, its two conditions drawn anew."""
    if not case.binary:
        of_seed, of_lemma = rng.normal(size=(seeds, 1)), rng.normal(size=(1, lemmas))
        noise = case.noise * rng.normal(size=(seeds, lemmas))
        return crossed(case.effect + case.seed * of_seed + case.lemma * of_lemma + noise, range(lemmas))
    drawn = items(lemmas, rng)
    first, second = (answers(case, effect, drawn, seeds, rng) for effect in (case.effect, 0.0))
    return crossed(first - second, drawn.lemma)


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """Items of all lemmas, 4 to 13 each."""

    lemma: IntArray
    shared: FloatArray
    """Log odds that every condition has."""


def items(lemmas: int, rng: np.random.Generator) -> Items:
    """Harder and easier lemmas, and items within them."""
    place = np.repeat(np.arange(lemmas), rng.integers(4, 14, size=lemmas))
    return Items(lemma=place, shared=rng.normal(size=lemmas)[place] + rng.normal(size=len(place)))


def answers(case: Case, effect: float, drawn: Items, seeds: int, rng: np.random.Generator) -> FloatArray:
    """(seeds, items) right or wrong, of a condition with an effect in log odds."""
    own = case.lemma * rng.normal(size=len(set(drawn.lemma)))[drawn.lemma]
    own = own + case.seed * rng.normal(size=(seeds, 1))
    network = 0.5 * rng.normal(size=(seeds, len(drawn.lemma)))
    right = rng.random(network.shape) < special.expit(BASE + effect + drawn.shared + own + network)
    return right.astype(np.float64)


def rates(case: Case, studies: int, seeds: int, lemmas: int, rng: np.random.Generator) -> dict[str, float]:
    """Share of studies in which the truth is rejected at .05, by method; of `one_sided`, at .025 each."""
    mu, found = truth(case), []
    for _ in range(studies):
        table = study(case, seeds, lemmas, rng)
        test = two_way(table, rng=rng)
        if test.se is None or test.squares is None:
            continue
        low, high = test.percentiles()
        of_seed = (table.totals.sum(axis=1)) / table.sizes.sum() - mu
        t = float(of_seed.mean() / (of_seed.std(ddof=1) / np.sqrt(seeds)))
        p = test.p(mu)
        up, down = test.p_greater(mu), test.p_less(mu)
        z = (test.estimate - mu) / test.se
        beyond = min(int((test.studentised >= z).sum()), int((test.studentised <= z).sum()))
        found.append(
            {
                "two-way": p is not None and p <= 0.05,
                "too high": up is not None and up <= 0.025,
                "too low": down is not None and down <= 0.025,
                "after Holm": p is not None and p <= 0.05 / 3,
                "satterthwaite": 2 * special.stdtr(test.squares.df, -abs(test.estimate - mu) / test.se)
                <= 0.05,
                "draws alone": 2 * (beyond + 1) / (len(test.studentised) + 1) <= 0.05,
                "percentile": low is not None and high is not None and not low <= mu <= high,
                "normal": len(test.means) > 0
                and abs(test.estimate - mu) > 1.96 * float(test.means.std(ddof=1)),
                "paired t": 2 * special.stdtr(seeds - 1, -abs(t)) <= 0.05,
            }
        )
    return {name: float(np.mean([row[name] for row in found])) for name in found[0]}


SIZES = np.array([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0])


def curve_coverage(studies: int, rng: np.random.Generator) -> dict[str, float]:
    """Share of studies whose nominal .95 interval holds the law's exponent, asymptote, a prediction, a gain.

    Six sizes, 10 seeds, 60 lemmas of 9 items; share .7 - .5 (n / 100)^-.4 plus effects of seeds (SD .02 a
    size), of lemmas (.05) and of lemmas a size (.03).
    """
    place, held = np.repeat(np.arange(60), 9), []

    def law(n: float) -> float:
        return float(0.7 - 0.5 * (n / 100.0) ** -0.4)

    for _ in range(studies):
        lemma, tables = 0.05 * rng.normal(size=60), []
        for n in SIZES:
            own = lemma + 0.03 * rng.normal(size=60) + 0.02 * rng.normal(size=(10, 1))
            tables.append(crossed((rng.random((10, 540)) < (law(n) + own)[:, place]).astype(float), place))
        fit = scaling_fit(SIZES.tolist(), tables, rng=rng)
        wanted = {
            "exponent": (fit.exponent_interval(), 0.4),
            "asymptote": (fit.asymptote(), 0.7),
            "predicted at 6,400": (fit.predicted(6400.0), law(6400.0)),
            "doubling": (fit.doubling(), law(6400.0) - law(3200.0)),
        }
        held.append(
            {
                name: (end.low is None or end.low <= value) and (end.high is None or value <= end.high)
                for name, (end, value) in wanted.items()
            }
        )
    return {name: float(np.mean([row[name] for row in held])) for name in held[0]}


def main(studies: int = 4_000, seeds: int = 10, lemmas: int = 60) -> None:
    rng, width = np.random.default_rng(20_261_121), 14
    print(f"{studies} studies, {seeds} seeds x {lemmas} lemmas; Monte Carlo error of .05: "
          f"{(0.05 * 0.95 / studies) ** 0.5:.4f}")  # fmt: skip
    for place, (name, case) in enumerate(CASES.items()):
        found = rates(case, studies, seeds, lemmas, rng)
        if not place:
            print(" " * 18 + "".join(f"{method:>{width}}" for method in found))
        print(f"{name:<18}" + "".join(f"{share:>{width}.4f}" for share in found.values()), flush=True)
    print("scaling law:", curve_coverage(min(studies, 200), rng))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
