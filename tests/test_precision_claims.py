"""N1 and N2 on made-up tables: a precision that rounds is supported, one that loses updates is refuted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, judge
from threefactors.inference.claims import N1, N2
from threefactors.inference.claims.precision import SlopeChange
from threefactors.inference.slopes import Unmeasurable


def table(*, shift=0.0, steeper=0.0, spread=0.02, seeds=8):
    """λ ∝ (η/S)^(−0.3): in bfloat16 larger by the factor e^shift, with an exponent larger by ``steeper``."""
    random, rows = numpy_generator(0, "precision"), []
    for precision, lr, size, seed in itertools.product(
        ("float32", "bfloat16"), (0.04, 0.08, 0.16), (8, 16, 32), range(seeds)
    ):
        low = precision == "bfloat16"
        log = -(0.3 - low * steeper) * np.log(lr / size / 0.005) + low * shift
        widths = {m: float(np.exp(log + spread * random.standard_normal())) for m in N1.measures}
        rows.append({"precision": precision, "lr": lr, "batch_size": size, "seed": seed, "clock": 30.0,
                     "finished": True, "diverged": False, "sharpness_converged": True, **widths})  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(**planted):
    return [judge(claim.at("equal clock", "bfloat16"), table(**planted)).verdict for claim in (N1, N2)]


def test_rounding_alone_changes_neither_width_nor_exponent():
    assert verdicts() == [SUPPORTED, SUPPORTED]
    assert verdicts(shift=0.03) == [SUPPORTED, SUPPORTED]


def test_a_width_that_moved_is_seen():
    assert verdicts(shift=0.25) == [REFUTED, SUPPORTED]


def test_an_exponent_that_moved_is_seen():
    """Widths agree in the mean, where the lines cross, and the exponent does not."""
    assert verdicts(steeper=0.2) == [SUPPORTED, REFUTED]


def test_noise_decides_nothing():
    assert verdicts(spread=2.0) == [UNDECIDED, UNDECIDED]


def test_the_change_of_the_exponent_is_seed_by_seed():
    change = SlopeChange("precision", "bfloat16", "float32")(table(steeper=0.2, spread=0.0), "sharpness")
    np.testing.assert_allclose(change.per_seed, np.full(8, 0.2), rtol=1e-9)
    lacking = table().query("not (precision == 'bfloat16' and seed == 3)")
    with pytest.raises(Unmeasurable, match="7 seeds identify the slope of sharpness for bfloat16, 8 for float32"):
        SlopeChange("precision", "bfloat16", "float32")(lacking, "sharpness")
