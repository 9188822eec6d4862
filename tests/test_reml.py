"""The REML deviance in coordinates against the same formulas on n x n matrices, and its derivatives."""

import numpy as np
import pytest

from stats.layout import Layout, arrange
from stats.reml import evaluate, moments, reduce_rows, slopes
from stats.rows import FloatArray


def data(
    seed: int, *, streams: int = 3, prompt_sd: float = 1.0
) -> tuple[FloatArray, Layout, list[FloatArray]]:
    """Values, their layout, and the n x n matrix V of each random factor."""
    rng = np.random.default_rng(seed)
    p, s, t, _ = (index.ravel() for index in np.indices((6, 3, streams, 4)))
    keep = rng.random(len(p)) < 0.85
    p, s, t = p[keep], s[keep], t[keep]
    y = prompt_sd * rng.normal(size=6)[p] + 0.3 * rng.normal(size=(6, 3))[p, s] + rng.normal(size=len(p))
    groups = [p, 3 * p + s, streams * s + t][: 3 if streams > 1 else 2]
    layout = arrange([f"s{i}" for i in s], [f"p{i}" for i in p], [f"t{i}" for i in t])
    return y, layout, [(group[:, None] == group).astype(np.float64) for group in groups]


def dense(
    y: FloatArray, layout: Layout, V: list[FloatArray], ratios: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Deviance, P and the generalised residual by the textbook formulas."""
    n, X = len(y), np.eye(len(layout.sources))[layout.cell_source[layout.cell]]
    S = np.eye(n) + sum(ratio * v for ratio, v in zip(ratios, V, strict=True))
    Si = np.linalg.inv(S)
    A = X.T @ Si @ X
    P = Si - Si @ X @ np.linalg.inv(A) @ X.T @ Si
    df = n - X.shape[1]
    logs = np.linalg.slogdet(S)[1] + np.linalg.slogdet(A)[1]
    return float(logs + df * (1 + np.log(2 * np.pi * (y @ P @ y) / df))), P, P @ y


RATIOS = [
    np.array([1.0, 0.2, 0.1]),
    np.array([0.0, 0.0, 0.0]),
    np.array([2.0, -0.05, 0.02]),  # positive definite still: 1 - 0.05 x 12 rows a cell
    np.array([0.5, 0.3, -0.01]),
    np.array([900.0, 0.2, 0.1]),
]


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("ratios", RATIOS, ids=str)
def test_deviance_and_traces_are_those_of_the_full_matrices(ratios: FloatArray, streams: int) -> None:
    y, layout, V = data(1, streams=streams)
    at = ratios[: len(V)]
    sums = reduce_rows(y, layout)
    state = evaluate(at, sums, layout)
    assert state is not None
    deviance, P, u = dense(y, layout, V, at)
    assert state.deviance == pytest.approx(deviance, rel=1e-10)
    full = [np.eye(len(y)), *V]
    first, second, b, quads = moments(state, sums, layout)
    assert first == pytest.approx([np.trace(P @ v) for v in full], rel=1e-7)
    assert second == pytest.approx(
        np.array([[np.trace(P @ v @ P @ w) for w in full] for v in full]), rel=1e-7
    )
    assert b == pytest.approx([u @ v @ u for v in full], rel=1e-7)
    assert quads == pytest.approx(np.array([[u @ v @ P @ w @ u for w in full] for v in full]), rel=1e-7)


@pytest.mark.parametrize("ratios", RATIOS[:4], ids=str)
def test_gradient_and_hessian_are_what_small_steps_show(ratios: FloatArray) -> None:
    y, layout, _ = data(2)
    sums = reduce_rows(y, layout)

    def gradient(at: FloatArray) -> FloatArray:
        state = evaluate(at, sums, layout)
        assert state is not None
        return slopes(state, sums, layout)[0]

    state = evaluate(ratios, sums, layout)
    assert state is not None
    _, hessian, _ = slopes(state, sums, layout)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-5
        above, below = evaluate(ratios + step, sums, layout), evaluate(ratios - step, sums, layout)
        assert above is not None
        assert below is not None
        assert gradient(ratios)[k] == pytest.approx((above.deviance - below.deviance) / 2e-5, rel=1e-5)
        shown = (gradient(ratios + step) - gradient(ratios - step)) / 2e-5
        assert hessian[k] == pytest.approx(shown, rel=1e-5)


@pytest.mark.parametrize("ratios", [[1.0, -0.2, 0.0], [-0.5, 0.0, 0.0], [1.0, 0.0, -0.5]], ids=str)
def test_there_is_no_deviance_where_the_covariance_is_not_positive_definite(ratios: list[float]) -> None:
    y, layout, V = data(3)
    S = np.eye(len(y)) + sum(ratio * v for ratio, v in zip(ratios, V, strict=True))
    assert np.linalg.eigvalsh(S)[0] < 0.0
    assert evaluate(np.array(ratios), reduce_rows(y, layout), layout) is None


@pytest.mark.parametrize("streams", [1, 3])
def test_rounding_leaves_the_deviance_ten_digits_where_prompts_differ_by_a_hundred_sd(streams: int) -> None:
    # The fit compares deviances: noise of 1e-5 in them, at this ratio, would stop it for good.
    y, layout, _ = data(4, streams=streams, prompt_sd=100.0)
    sums, rng = reduce_rows(y, layout), np.random.default_rng(0)
    found = []
    for _ in range(20):
        ratios = np.array([1e4, 0.1, 0.05])[: len(layout.factors)] * (1 + 1e-14 * rng.normal())
        state = evaluate(ratios, sums, layout)
        assert state is not None
        found.append(state.deviance)
    assert np.ptp(found) < 1e-9 * abs(found[0])
