"""Prior-weighted logistic regression of K columns: the cost, its derivatives and its minimum. See `calibrate`."""

from __future__ import annotations

import math

import numpy as np

RIDGE = 1e-9
STEPS = 200  # of the minimisation; some ten are usual


def logit(p: float) -> float:
    """Return the log of the odds p : 1 - p."""
    return math.log(p) - math.log1p(-p)


class Cost:
    """The cost of an affine map of K columns, the last of which is all 1, and its derivatives at a point of (K,)."""

    def __init__(self, columns: np.ndarray, target: np.ndarray, prior: float):
        sign = np.where(target, 1.0, -1.0)
        kinds = prior / target.sum(), (1 - prior) / (~target).sum()
        self.columns = columns  # (K, N)
        self.signed = columns * sign
        self.start = sign * logit(prior)
        self.mass = np.where(target, *kinds) / min(prior, 1 - prior)  # of each trial
        self.ridge = np.append(np.full(len(columns) - 1, RIDGE), 0.0)

    def value(self, point: np.ndarray) -> float:
        margin = self.start + point @ self.signed
        softplus = np.log1p(np.exp(-np.abs(margin))) - np.minimum(margin, 0.0)
        return float(self.mass @ softplus + self.ridge @ point**2 / 2)

    def gradient(self, point: np.ndarray) -> np.ndarray:
        margin = self.start + point @ self.signed
        tail = np.exp(-np.abs(margin))
        wrong = np.where(margin > 0, tail, 1.0) / (1.0 + tail)  # the probability that is left to the other kind
        return self.ridge * point - self.signed @ (self.mass * wrong)

    def hessian(self, point: np.ndarray) -> np.ndarray:
        tail = np.exp(-np.abs(self.start + point @ self.signed))
        return (self.columns * (self.mass * tail / (1.0 + tail) ** 2)) @ self.columns.T + np.diag(self.ridge)


def optimum(cost: Cost) -> tuple[np.ndarray, bool]:
    """Return the point (K,) of the least cost, and whether only the ridge keeps it finite."""
    from scipy.optimize import minimize, root  # slow to import

    start, options = np.zeros(len(cost.columns)), {"gtol": 1e-13, "maxiter": STEPS}
    least = minimize(cost.value, start, method="trust-exact", jac=cost.gradient, hess=cost.hessian, options=options).x
    # Close to the optimum the cost does not change any more in its last digit, the gradient does: its root is exact.
    zero = root(cost.gradient, least, method="hybr", jac=cost.hessian, options={"xtol": 1e-15}).x
    point = min(least, zero, key=lambda at: float(np.abs(cost.gradient(at)).max()))
    free = np.linalg.solve(cost.hessian(point), cost.ridge * point)  # how far it would still go without the ridge
    return point, bool(np.abs(free).max() > 1e-3 * np.abs(point).max())
