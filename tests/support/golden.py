"""Compare functions with golden cases: inputs are raw, values and some gradients are known."""

import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name):
    return json.loads((GOLDEN / name).read_text())["cases"]


def mistakes(case, adapter, inputs, exact):
    """-> what is wrong with one case, nothing if all is well. Gradients are of the value, or of its "total"."""
    for name in case.get("grad", {}):
        inputs[name].requires_grad_()
    got = adapter(**inputs, **case["params"])
    expected = case["expected"] if isinstance(case["expected"], dict) else {"value": case["expected"]}
    got = got if isinstance(got, dict) else {"value": got}
    wrong = [
        f"{case['name']} {key}: {got[key]} instead of {value}"
        for key, value in expected.items()
        if not close(got[key], value, exact)
    ]
    value = got.get("total", got.get("value"))
    if "grad" in case and value.dtype == torch.float64:
        found = torch.autograd.grad(value, [inputs[name] for name in case["grad"]])
        wrong += [
            f"{case['name']} gradient of {name}"
            for gradient, (name, value) in zip(found, case["grad"].items())
            if not (gradient - torch.tensor(value, dtype=torch.float64)).abs().max() <= 1e-6
        ]
    return wrong


def close(got, expected, tolerance):
    got, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (got, expected))
    return got.shape == expected.shape and bool(((got - expected).abs() <= tolerance * expected.abs().clamp(1)).all())
