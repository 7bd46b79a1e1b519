"""Cuts through the landscape: against dense Hessians, finite differences, exact integrals, and rescalings."""

import numpy as np
import pytest
import torch
from threefactors import MLP, AtClock, Clock, Epochs, Loss, Sweep, Task, run
from threefactors._rng import generator
from threefactors.experiments.landscape import (
    ALPHAS,
    RandomRise,
    Surface,
    Travel,
    contours,
    lines,
    lines_in_time,
)
from threefactors.experiments.probes import Weights
from threefactors.measurement import hessian
from threefactors.measurement.landscape import (
    Plane,
    along,
    curvature_along,
    filter_directions,
    half_width,
    symmetric_rise,
    toward,
)
from threefactors.training import load
from threefactors.training.convolution import ConvNet
from threefactors.training.losses import StackLosses

from .cases import CASES
from .oracles import dense_hessian

CASE_NAMES = [case.name for case in CASES]


def draws(n, stream="test"):
    return [generator(i, stream) for i in range(n)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "normal"), dtype=torch.float64)


def mean_loss(losses, x, y):
    return lambda theta: losses(theta, x[:1].expand(len(theta), *x.shape[1:]), y[:1].expand(len(theta), -1)).mean(1)


# --- along a line ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_curvature_along_a_line_is_that_of_the_dense_hessian_and_of_differences(case):
    losses, theta, x, y = case.args
    d = normal(*theta.shape)
    found = curvature_along(hessian(*case.args), d)
    H = dense_hessian(*case.args)
    exact = torch.einsum("rp,rpq,rq->r", d, H, d) / d.square().sum(1)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)
    values = torch.linalg.eigvalsh(H)
    assert (values[:, 0] - 1e-9 <= found).all()
    assert (found <= values[:, -1] + 1e-9).all()
    u, h = d / d.norm(dim=1, keepdim=True), 1e-4
    f = along(lambda t: losses(t, x, y).mean(1), theta, u, [-h, 0, h])
    torch.testing.assert_close((f[:, 0] - 2 * f[:, 1] + f[:, 2]) / h**2, exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [None, 4])
def test_curvature_along_a_line_of_the_networks_that_are_trained(batch_norm):
    losses = StackLosses(MLP((5, 4), batch_norm), "cross-entropy", 6, 3)
    theta = torch.stack([losses.model.initial(6, 3, g, torch.float64) for g in draws(2)])
    x, y = normal(1, 20, 6).expand(2, -1, -1), torch.arange(20).remainder(3).expand(2, -1)
    u, distance = toward(theta, theta.flip(0))
    assert torch.equal(distance, distance.flip(0))
    exact = torch.einsum("rp,rpq,rq->r", u, dense_hessian(losses, theta, x, y), u)
    torch.testing.assert_close(curvature_along(hessian(losses, theta, x, y), 3 * u), exact, rtol=1e-9, atol=1e-12)


def test_the_symmetric_rise_is_the_triangular_mean_of_the_curvature():
    losses, theta, x, y = CASES[CASE_NAMES.index("tanh MLP")].args
    f, r = (lambda t: losses(t, x, y).mean(1)), 0.7
    u = normal(*theta.shape)
    u /= u.norm(dim=1, keepdim=True)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = torch.zeros(len(theta), dtype=torch.float64)
    for sign in (-1, 1):
        for node, weight in zip(nodes, weights, strict=True):
            s = r * (node + 1) / 2
            kappa = torch.einsum("rp,rpq,rq->r", u, dense_hessian(losses, theta + sign * s * u, x, y), u)
            total += weight * r / 2 * (r - s) / r**2 * kappa
    found = symmetric_rise(f, theta, u, torch.full((len(theta),), r, dtype=torch.float64))
    torch.testing.assert_close(found, r**2 / 2 * total, rtol=1e-8, atol=1e-12)


def test_the_symmetric_rise_does_not_see_a_slope():
    slope, theta = normal(5), normal(3, 5)
    distance = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    u = normal(3, 5, seed=1)
    rise = symmetric_rise(lambda t: t @ slope + (t**2).sum(1), theta, u, distance)
    torch.testing.assert_close(rise, distance**2 * (u**2).sum(1))


@pytest.mark.parametrize("g", [-0.3, 0.0, 0.4])
def test_half_width_of_a_bowl_with_a_slope(g):
    t = torch.linspace(0, 3, 3001, dtype=torch.float64)
    kappa, level = torch.tensor([0.5, 2.0], dtype=torch.float64)[:, None], 0.3
    exact = (torch.sqrt(g**2 + 2 * kappa * level) - g) / kappa
    torch.testing.assert_close(half_width(t, g * t + kappa * t**2 / 2, level)[:, None], exact, rtol=1e-5, atol=0)


def test_half_width_where_the_loss_never_rises():
    t = torch.tensor([0.0, 1.0, 2.0])
    assert half_width(t, torch.tensor([[0.0, -1.0, 0.1], [0.0, 0.1, 0.5]]), 0.2).tolist() == [float("inf"), 1.25]


# --- rescaling -------------------------------------------------------------------------------


def rescaled(model, theta, factors, inputs, classes):
    """Each filter and its bias times a factor (hidden layers in turn), undone by the next layer where nothing else is.

    factors: one for each hidden layer; a tensor, one for each unit, with batch normalization.
    """
    theta = theta.clone()
    layers = model.layers(theta, inputs, classes)
    for i, c in enumerate(factors):
        layers[i].weight.mul_(c)
        if model.batch_norm is None:
            layers[i].shift.mul_(c)
            layers[i + 1].weight.div_(c)
    return theta


@pytest.mark.parametrize("batch_norm", [None, 4])
def test_a_rescaling_of_filters_leaves_the_normalized_cut_alone_and_changes_the_plain_one(batch_norm):
    model = MLP((6, 5), batch_norm)
    losses = StackLosses(model, "cross-entropy", 4, 3)
    theta = model.initial(4, 3, generator(0, "init"), torch.float64)[None]
    x, y = 5 * normal(1, 24, 4), torch.arange(24).remainder(3)[None]
    f, number = mean_loss(losses, x, y), model.filters(4, 3)
    factors = (3.0, 0.5) if batch_norm is None else (normal(6).exp(), normal(5, seed=1).exp())
    other = rescaled(model, theta, factors, 4, 3)
    tolerance = 1e-10 if batch_norm is None else 2e-4  # ε under the root
    torch.testing.assert_close(f(other), f(theta), rtol=tolerance, atol=0)
    cuts = [along(f, t, filter_directions(t, number, draws(1)), [-0.5, 0.5, 1.0]) for t in (theta, other)]
    torch.testing.assert_close(*cuts, rtol=10 * tolerance, atol=0)
    plain = [along(f, t, normal(*theta.shape), [-0.5, 0.5, 1.0]) for t in (theta, other)]
    assert (plain[0] - plain[1]).abs().max() > 0.01


def test_filter_directions_have_the_lengths_of_their_filters():
    model = MLP((6, 5), 4)
    theta = torch.stack([model.initial(4, 3, g, torch.float64) for g in draws(2, "init")])
    d = filter_directions(theta, model.filters(4, 3), draws(2))
    for a, b in zip(model.layers(theta, 4, 3), model.layers(d, 4, 3), strict=True):
        torch.testing.assert_close(b.weight.norm(dim=1), a.weight.norm(dim=1))
        assert not b.shift.any()
        assert b.gain is None or not b.gain.any()


def test_filters_of_a_convolutional_network():
    model = ConvNet((1, 4, 4), ((2,), (3,)))
    number = model.filters(16, 10)
    assert torch.equal(number >= 0, model.weight_mask(16, 10))
    counts = torch.bincount(number[number >= 0]).tolist()
    assert counts == [9] * 2 + [18] * 3 + [3] * 10


def test_rescaling_both_ends_keeps_the_cut_and_rescaling_one_takes_the_contrast_away():
    """L = ½(ab − 1)² + g(e), the example of the chapter's proof, with g'' = 1 and 3 at the ends."""

    def loss(t):
        a, b, e = t.T
        return (a * b - 1) ** 2 / 2 + e**2 / 2 + e**3 / 3

    def dense(t):
        return torch.stack([torch.func.hessian(lambda v: loss(v[None])[0])(one) for one in t])

    def contrast(one, two):
        u, _ = toward(one, two)
        first, second = (torch.einsum("rp,rpq,rq->r", u, dense(t), u) for t in (one, two))
        return ((first - second) / (first + second)).item()

    one, two = torch.tensor([[1.0, 1.0, 1.0]]).double(), torch.tensor([[1.0, 1.0, 0.0]]).double()
    assert contrast(one, two) == pytest.approx((3 - 1) / (3 + 1))
    for c in (3.0, 30.0):
        D = torch.tensor([c, 1 / c, 1.0], dtype=torch.float64)
        assert torch.equal(loss(D * one).round(decimals=12), loss(one).round(decimals=12))
        torch.testing.assert_close(along(loss, D * one, D * (two - one), ALPHAS), along(loss, one, two - one, ALPHAS))
        assert contrast(D * one, D * two) == pytest.approx(contrast(one, two))
        X = (c + 1 / c - 2) ** 2
        assert contrast(D * one, two) == pytest.approx((3 - 1) / (3 + 1 + 2 * X))


# --- batch normalization along the line ------------------------------------------------------


def test_statistics_are_those_of_the_training_set_at_every_point_of_the_line():
    task = Task("digits", MLP((7, 6), batch_norm=8), train_size=200)
    surface = Surface.of(task, examples=160)
    data = load("digits").first(160)
    ends = torch.stack([task.model.initial(64, 10, g, torch.float32) for g in draws(2, "init")])

    def by_torch(theta):
        """The same network in torch.nn; its statistics after one pass over the training set with momentum 1."""
        parts, widths = [], (64, 7, 6, 10)
        for i, layer in enumerate(task.model.layers(theta[None], 64, 10)):
            linear = torch.nn.Linear(widths[i], widths[i + 1], bias=i == 2)
            linear.weight.data = layer.weight[0].T
            parts.append(linear)
            if i == 2:
                linear.bias.data = layer.shift[0, 0]
                continue
            norm = torch.nn.BatchNorm1d(widths[i + 1], momentum=1.0)
            norm.weight.data, norm.bias.data = layer.gain[0, 0], layer.shift[0, 0]
            parts += [norm, torch.nn.ReLU()]
        network = torch.nn.Sequential(*parts)
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(network(data.x_train.flatten(1)), data.y_train)
            for norm in network[1::3]:  # what torch keeps is the unbiased variance
                norm.running_var *= (len(data.x_train) - 1) / len(data.x_train)
            right = network.eval()(data.x_validation.flatten(1)).argmax(1) == data.y_validation
        return loss.item(), right.double().mean().item()

    alphas = [-0.5, 0.0, 0.3, 1.0, 1.4]
    found = along(surface, ends[:1], ends[1:] - ends[:1], alphas)[0]
    exact = torch.tensor([by_torch(ends[0] + a * (ends[1] - ends[0])) for a in alphas]).double()
    torch.testing.assert_close(found[:, 0], exact[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[:, 2], exact[:, 1], rtol=0, atol=0.5 / 288)
    torch.testing.assert_close(surface.loss(ends), surface(ends)[:, 0], rtol=1e-6, atol=0)


def test_label_noise_is_refused_on_a_common_surface():
    with pytest.raises(ValueError, match=r"label_noise=0\.2 gives each seed"):
        Surface.of(Task("digits", MLP((4,)), label_noise=0.2))


# --- planes ----------------------------------------------------------------------------------


def test_the_plane_goes_through_its_three_points():
    first, second, third = normal(3, 9)
    plane = Plane.through(first, second, third)
    torch.testing.assert_close(torch.pdist(plane.points), torch.pdist(torch.stack([first, second, third])))
    f = lambda t: (t**4).sum(1)  # noqa: E731
    for point, theta in zip(plane.points, (first, second, third), strict=True):
        torch.testing.assert_close(plane.heights(f, [point[0].item()], [point[1].item()])[0, 0], f(theta[None])[0])


# --- trained ends ----------------------------------------------------------------------------

TASK = Task("digits", MLP((8,)), train_size=128)
PAIR = ((0.05, 32), (0.2, 32))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    sweep = Sweep.grid(TASK, lr=[0.05, 0.2, 1e6], batch_size=32, seed=range(2), until=Epochs(8))
    return run(sweep, [Loss(), Weights(), Travel(), RandomRise(directions=4)], store=tmp_path_factory.mktemp("s"))


def test_ends_and_curves_of_a_pair(trained):
    found = lines(trained, {"up": PAIR, "down": PAIR[::-1]})
    curves = found.curves.set_index(["pair", "seed", "alpha"]).sort_index()
    ends = found.ends.set_index(["pair", "end", "seed"]).sort_index()
    for seed in (0, 1):
        up, down = (curves.loc[pair, seed] for pair in ("up", "down"))
        np.testing.assert_allclose(up.train_loss, down.train_loss[::-1], rtol=1e-4)  # the same line, turned around
        for end in (1, 2):
            row = ends.loc["up", end, seed]
            assert up.train_loss[end - 1] == pytest.approx(row.train_loss, rel=1e-5)
            assert ends.loc["down", 3 - end, seed].line_curvature == pytest.approx(row.line_curvature, rel=1e-3)
            out = 2 * end - 3
            rise = (up.train_loss[end - 1 + 0.5 * out] + up.train_loss[end - 1 - 0.5 * out]) / 2 - row.train_loss
            assert row.line_rise == pytest.approx(rise, rel=1e-3)
            side = up.train_loss[end - 1 + 0.125 * out] - up.train_loss[end - 1 - 0.125 * out]
            assert row.line_slope * row.separation / 4 == pytest.approx(side, rel=0.2, abs=2e-3)
            assert min(row.outward, row.inward) > 0
    theta = dict(zip(trained.runs, (record["end"].get("theta") for record in trained.records), strict=True))
    one, two = (next(t for run, t in theta.items() if run.sgd.lr == lr and run.seed == 0) for lr in (0.05, 0.2))
    assert ends.loc["up", 1, 0].separation == pytest.approx(float(np.linalg.norm(one - two)), rel=1e-5)


def test_a_diverged_end_keeps_its_rows_without_numbers(trained):
    found = lines(trained, {"lost": (PAIR[0], (1e6, 32))})
    assert len(found.ends) == 4
    assert found.ends.line_curvature.isna().all() if "line_curvature" in found.ends else True
    assert found.ends.query("end == 2").diverged.all()
    assert found.curves.empty


def test_travel_and_random_rise_are_those_of_the_run_alone(trained, tmp_path):
    rows = trained.table().query("lr == 0.2")
    start = torch.stack([TASK.model.initial(64, 10, generator(i, "init"), torch.float32) for i in (0, 1)])
    theta = torch.from_numpy(np.stack(list(rows.theta)))
    np.testing.assert_allclose(rows.distance_from_start, (theta - start).norm(dim=1), rtol=1e-5)
    alone = Sweep.grid(TASK, lr=0.2, batch_size=32, seed=1, until=Epochs(8))
    other = run(alone, [Loss(), Weights(), Travel(), RandomRise(directions=4)], store=tmp_path).table()
    assert other.random_rise[0] == rows.random_rise.iloc[1]
    directions = filter_directions(theta[1:].expand(4, -1), TASK.model.filters(64, 10),
                                   [generator(1, f"direction {j}") for j in range(4)])  # fmt: skip
    f = Surface.of(TASK).loss
    rise = (f(theta[1:] + directions / 4) + f(theta[1:] - directions / 4)) / 2 - f(theta[1:])
    assert rise.mean().item() == pytest.approx(rows.random_rise.iloc[1], rel=1e-5)


def test_the_line_between_two_times_of_one_run(tmp_path):
    sweep = Sweep.grid(TASK, lr=0.1, batch_size=128, seed=range(2), until=Clock(2.0))
    at = AtClock((0.5, 2.0))
    found = lines_in_time(run(sweep, [Weights(at=at), Loss(at=at)], store=tmp_path), {"time": (0.5, 2.0)})
    assert found.ends.groupby("end").at_clock.mean().round(6).to_dict() == {1: 0.5, 2: 2.0}
    assert found.ends.query("end == 2").train_loss.max() < found.ends.query("end == 1").train_loss.min()
    with pytest.raises(ValueError, match=r"clock=7.0 was not looked at in every run"):
        lines_in_time(run(sweep, [Weights(at=at), Loss(at=at)], store=tmp_path), {"time": (0.5, 7.0)})


def test_contours_name_their_corners(trained, tmp_path):
    wide = Sweep.grid(TASK, lr=[0.05, 0.1, 0.2], batch_size=32, seed=0, until=Epochs(4))
    result = run(wide, [Loss(), Weights()], store=tmp_path)
    corners = {f"{lr}": (lr, 32) for lr in (0.05, 0.1, 0.2)}
    grid, places = contours(result, corners, 0, margin=0.0, points=3)
    assert len(grid) == 9
    at = grid.set_index(["a", "b"]).train_loss
    assert at[0.0, 0.0] == pytest.approx(result.table().train_loss[0], rel=1e-5)
    assert list(places.corner) == list(corners)


# --- bad input -------------------------------------------------------------------------------

POINT = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("a line needs networks of one architecture", lambda: toward(torch.zeros(1, 3), torch.zeros(1, 4))),
        ("pair 0 is one network twice", lambda: toward(POINT, POINT)),
        ("theta has shape .* and direction", lambda: along(lambda t: t, POINT, torch.zeros(1, 2), [0.0])),
        ("use d with", lambda: curvature_along(hessian(*CASES[0].args), torch.zeros_like(CASES[0].theta))),
        ("level=0 is reached at once", lambda: half_width(torch.tensor([0.0, 1.0]), torch.zeros(1, 2), 0)),
        ("must ascend from 0", lambda: half_width(torch.tensor([1.0, 2.0]), torch.zeros(1, 2), 1.0)),
        ("use one number for each parameter", lambda: filter_directions(POINT, torch.zeros(2).long(), draws(1))),
        ("lie on one line", lambda: Plane.through(torch.zeros(3), torch.ones(3), 2 * torch.ones(3))),
        ("use radius > 0", lambda: RandomRise(radius=0.0)),
    ],
)
def test_what_cannot_be_cut_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_lines_that_cannot_be_drawn_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"names \(lr, batch_size\) = \(0.3, 32\), of which the result has no run"):
        lines(trained, {"a": (PAIR[0], (0.3, 32))})
    with pytest.raises(ValueError, match="alphas must ascend, with 0 and 1"):
        lines(trained, {"a": PAIR}, alphas=[0.0, 0.5])
    two = Sweep.grid([TASK, Task("digits", MLP((4,)))], lr=0.1, batch_size=64, until=Epochs(0))
    with pytest.raises(ValueError, match="runs of several tasks"):
        lines(run(two, [Weights()], store=tmp_path), {"a": PAIR})
    one = run(Sweep.grid(TASK, lr=0.1, batch_size=64, until=Epochs(0)), [Loss()], store=tmp_path)
    with pytest.raises(ValueError, match="no column theta"):
        lines(one, {"a": PAIR})
    with pytest.raises(ValueError, match="do not name three runs"):
        contours(trained, {"a": PAIR[0]}, 0)
