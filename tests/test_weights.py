"""Weights and labels of a step: every engine descends (1/B) Σ w_i ℓ_i, for w of either sign."""

import pytest
import torch
from threefactors._rng import generator
from threefactors.training import Trainer
from threefactors.training.engines import Plan
from threefactors.training.train import DIVERGED

from .test_training import CASES, engines, one_stack


def weighted_steps(trainer, weights, labels, order=None, lr=0.05):
    """One step of each run with the given weights and labels (B,): updates made, θ and its start."""
    order = torch.arange(len(weights)) if order is None else order
    plans = [
        Plan(
            i,
            order[None],
            torch.tensor([lr], dtype=torch.float64),
            weights[None],
            None if labels is None else labels[None],
        )
        for i in range(len(trainer.theta))
    ]
    start = trainer.theta.clone()
    made = trainer.engine.advance(trainer.theta, trainer.velocity, trainer.runs[0].sgd.momentum, plans, DIVERGED)
    return made, trainer.theta, start


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("case", ["plain", "odd widths", "batch norm", "squared loss"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weights_and_labels_of_a_step(digits, engine, case, momentum):
    """The step is along the gradient of (1/B) Σ w ℓ with the labels drawn, whatever the signs of w (by autograd)."""
    trainer = Trainer(one_stack(**CASES[case], momentum=momentum), digits, dtype=torch.float64, engine=engine)
    draw = generator(0, "weights")
    weights = torch.randn(16, generator=draw, dtype=torch.float64)
    labels = torch.randint(10, (16,), generator=draw)
    made, theta, start = weighted_steps(trainer, weights, labels)
    start = start.requires_grad_()
    model, x = trainer.losses.model, digits.x_train[:16].double().flatten(1).expand(len(start), -1, -1)
    outputs = trainer.losses.outputs(start, x, 1 if model.batch_norm is None else 2)
    losses = trainer.losses.criterion(outputs, labels.expand(len(start), -1))
    (g,) = torch.autograd.grad((weights * losses).mean(1).sum(), start)
    assert made == [1] * len(start)
    torch.testing.assert_close(theta, (start - 0.05 * g).detach(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("engine", engines())
def test_weights_of_one_change_no_bit_and_of_two_and_none_drop_half_the_batch(digits, engine):
    def after(size, weights=None):
        trainer = Trainer(one_stack(**CASES["plain"]), digits, dtype=torch.float64, engine=engine)
        if weights is None:
            plans = [
                Plan(i, torch.arange(size)[None], torch.tensor([0.05], dtype=torch.float64))
                for i in range(len(trainer.theta))
            ]
            trainer.engine.advance(trainer.theta, None, 0.0, plans, DIVERGED)
            return trainer.theta
        return weighted_steps(trainer, weights, None)[1]

    assert torch.equal(after(16, torch.ones(16).double()), after(16))
    half = torch.tensor([2.0, 0.0]).double().repeat_interleave(8)
    torch.testing.assert_close(after(16, half), after(8), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", engines())
def test_weights_neither_hide_nor_fake_a_divergence(digits, engine):
    def made(weight, scale=1.0, at=0):
        trainer = Trainer(one_stack(**CASES["plain"]), digits, dtype=torch.float64, engine=engine)
        trainer.theta *= scale
        weights = torch.ones(16).double()
        weights[at:] = weight
        return weighted_steps(trainer, weights, None)[0]

    assert made(1e4) == made(-1e4) == [1] * 6  # large weights, sound losses
    assert made(-1.0, 1e3) == made(-1.0, 1e3, at=8) == made(0.0, 1e3) == [0] * 6  # losses of millions
    assert made(0.0, float("nan")) == [0] * 6
