"""Products in bfloat16 or TF32: rounded where they should be and nowhere else, and never without being asked for."""

import pytest
import torch
from threefactors import Loss, run
from threefactors._identity import canonical
from threefactors.training import MLP, SGD, Epochs, Stack, Steps, Sweep, Task, Trainer, choice, kernel, train, update
from threefactors.training.convolution import ConvNet
from threefactors.training.models import standardize
from threefactors.training.steps import Stacked

NETS = {
    "plain": MLP((32, 24)), "batch norm": MLP((32, 24), batch_norm=16), "ghosts": MLP((32, 24), batch_norm=8),
    "images": ConvNet((1, 8, 8), ((8,), (8,))), "images, batch norm": ConvNet((1, 8, 8), ((8,), (8,)), batch_norm=8),
}  # fmt: skip
BY_HAND = [name for name, net in NETS.items() if isinstance(net, MLP)]


def one_stack(model=NETS["plain"], precision="bfloat16", **settings):
    options = {"lr": [0.02, 0.05], "batch_size": 16, "seed": range(2), "until": Steps(1), **settings}
    (stack,) = Sweep.grid(Task(model=model), precision=precision, **options).stacks()
    return stack


class Rounded(torch.autograd.Function):
    """a b with both factors in bfloat16 and the product in it, too; so both ways."""

    @staticmethod
    def forward(ctx, a, b):
        a, b = a.bfloat16(), b.bfloat16()
        ctx.save_for_backward(a, b)
        return (a @ b).float()

    @staticmethod
    def backward(ctx, g):
        (a, b), g = ctx.saved_tensors, g.bfloat16()
        return (g @ b.T).float(), (a.T @ g).float()


class Handed(torch.autograd.Function):
    """h as the last layer is given it, and the gradient as it hands it down."""

    @staticmethod
    def forward(ctx, h):
        return h.bfloat16().float()

    @staticmethod
    def backward(ctx, g):
        return g.bfloat16().float()


def reference(trainer, i):
    """One step of run i in plain PyTorch: float32, but for the products below the last layer.

    Without momentum the gradient has lr in it before it is rounded.
    """
    model, sgd = trainer.runs[i].task.model, trainer.runs[i].sgd
    inside, outside = (1.0, sgd.lr) if sgd.momentum else (sgd.lr, 1.0)
    plan = trainer._plan([i], 0, lambda *_: False)[0][0]
    x, y = trainer.data.x_train.flatten(1)[plan.order[0]], trainer.labels[i][plan.order[0]]
    theta = trainer.theta[i : i + 1].clone().requires_grad_()
    layers, h = model.layers(theta, 64, 10), x
    for layer in layers[:-1]:
        z = Rounded.apply(h, layer.weight[0])
        if layer.gain is None:
            h = (z + layer.shift[0]).relu()
        else:
            normed = standardize(z.view(len(z) // min(model.batch_norm, len(z)), -1, z.shape[1])).view_as(z)
            h = (layer.gain[0] * normed + layer.shift[0]).relu()
    h = Handed.apply(h)
    loss = torch.nn.functional.cross_entropy(h @ layers[-1].weight[0] + layers[-1].shift[0], y)
    (gradient,) = torch.autograd.grad(inside * loss, theta)
    return -outside * gradient[0]


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("engine", ["by hand", "captured"])
@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rounds_where_a_plain_step_does_that_rounds_by_rule(digits, engine, case, momentum):
    """To a tenth, at least, of what the rounding itself does: a sum in another order seldom rounds the other way."""
    stack = one_stack(NETS[case], momentum=momentum)
    moved = train(stack, digits, engine=engine).theta - Trainer(stack, digits).theta
    exact = train(one_stack(NETS[case], "float32", momentum=momentum), digits, engine=engine).theta
    exact -= Trainer(stack, digits).theta
    for i in (0, 3):
        expected = reference(Trainer(stack, digits, engine=engine), i)
        assert distance(exact[i], expected) > 3e-3
        assert distance(moved[i], expected) < 3e-4


@pytest.mark.parametrize("case", NETS)
def test_autograd_and_the_engine_for_a_gpu_round_alike(digits, case):
    """By autograd the last product is rounded, too; no step is further from float32 than rounding takes it."""
    stack = one_stack(NETS[case], momentum=0.9, until=Steps(3))
    start = Trainer(stack, digits).theta
    moved = train(stack, digits, engine="autograd").theta - start
    exact = (
        train(one_stack(NETS[case], "float32", momentum=0.9, until=Steps(3)), digits, engine="autograd").theta - start
    )
    assert 1e-4 < distance(moved, exact) < 0.2
    captured = train(stack, digits, engine="captured").theta - start
    assert distance(captured, exact) < 0.2
    assert moved.dtype == captured.dtype == torch.float32


def test_statistics_logits_and_losses_are_not_rounded(digits, monkeypatch):
    """What batch norm and the loss get to see has more digits than bfloat16."""
    seen = []
    inner = update.output_gradient

    def looking(loss, trace, y, scale, room):
        seen.extend([trace.outputs.clone(), *(one.clone() for one in trace.inverse)])
        d = inner(loss, trace, y, scale, room)
        seen.append(trace.losses.clone())
        return d

    monkeypatch.setattr(update, "output_gradient", looking)
    train(one_stack(NETS["batch norm"]), digits, engine="by hand")
    assert len(seen) == 4
    for t in seen:
        assert t.dtype == torch.float32
        assert (t != t.bfloat16().float()).float().mean() > 0.9


def slow_walk(digits, planted=None):
    """How far 30 small steps lead, in bfloat16 against float32."""
    settings = {"lr": 1e-4, "until": Steps(30), "seed": range(2)}
    here, there = (one_stack(NETS["plain"], precision, **settings) for precision in ("bfloat16", "float32"))
    start = Trainer(here, digits).theta
    moved = train(here, digits, engine="by hand").theta - start
    return distance(moved, train(there, digits, engine="by hand").theta - start)


def test_small_steps_are_not_lost(digits, monkeypatch):
    """θ keeps all its digits. Planted: were it rounded behind each update, most of the way would be lost."""
    assert slow_walk(digits) < 0.03
    inner = update.Update._by_hand

    def rounding(self, w, *args):
        bad = inner(self, w, *args)
        if self.precision == "bfloat16":
            w.copy_(w.bfloat16())
        return bad

    monkeypatch.setattr(update.Update, "_by_hand", rounding)
    assert slow_walk(digits) > 0.5


def test_a_fallen_run_is_taken_up_in_its_own_precision(digits):
    stack = one_stack(MLP((16,)), lr=[0.02, 5.0, 50.0], until=Steps(20))
    fast, slow = (train(stack, digits, engine=engine) for engine in ("captured", "by hand"))
    assert fast.diverged_at == slow.diverged_at
    fell = [i for i, at in enumerate(fast.diverged_at) if at > 0]
    assert fell
    assert torch.equal(fast.theta[fell], slow.theta[fell])


def test_evaluation_stays_as_it_is(digits):
    """Losses and outputs of the same θ do not depend on the precision of training."""
    low, full = (Trainer(one_stack(precision=p), digits, engine="by hand") for p in ("bfloat16", "float32"))
    assert torch.equal(low.train_losses(range(4)), full.train_losses(range(4)))


def test_the_default_leaves_every_key_as_it_was():
    assert "precision" not in canonical(SGD(0.1, 8))
    assert '"precision":"bfloat16"' in canonical(SGD(0.1, 8, precision="bfloat16"))


def test_precisions_do_not_share_a_stack():
    sweep = Sweep.grid(Task(), lr=0.02, batch_size=16, precision=["float32", "bfloat16"], until=Epochs(1))
    assert [len(stack) for stack in sweep.stacks()] == [1, 1]
    with pytest.raises(ValueError, match="cannot share a stack"):
        Stack(sweep.runs)


def test_what_cannot_be_had_is_refused(digits, monkeypatch):
    with pytest.raises(ValueError, match="precision='half' is unknown; use one of float32, tf32, bfloat16"):
        SGD(0.1, 8, precision="half")
    with pytest.raises(ValueError, match="precision='tf32' is arithmetic of a GPU, but the device is cpu; use device="):
        Trainer(one_stack(precision="tf32"), digits)
    with pytest.raises(ValueError, match=r"rounds the products of float32, but θ is torch\.float64"):
        Trainer(one_stack(), digits, dtype=torch.float64)
    with pytest.raises(ValueError, match="engine='kernel' knows no precision='bfloat16'"):
        Trainer(one_stack(), digits, engine="kernel")
    assert isinstance(Trainer(one_stack(), digits).engine, Stacked)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    for precision in ("tf32", "bfloat16"):
        with pytest.raises(ValueError, match="is not what an old card can do; use precision='float32'"):
            choice.check_precision(precision, "cuda")
    choice.check_precision("float32", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    choice.check_precision("tf32", "cuda")


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_on_within_a_step_only(digits, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as every sweep has it
    inner, seen = update.Update._by_hand, []

    def looking(self, *args):
        seen.append(switches())
        return inner(self, *args)

    monkeypatch.setattr(update.Update, "_by_hand", looking)
    monkeypatch.setattr(choice, "check_precision", lambda *args: None)
    trainer = Trainer(one_stack(precision="tf32", until=Steps(2)), digits, engine="captured").train()
    assert seen == [(True, True)] * 2
    assert switches() == (False, False)
    seen.clear()
    train(one_stack(precision="float32", until=Steps(2)), digits, engine="captured")
    assert seen == [(False, False)] * 2
    assert trainer.engine._source.precision == "tf32"
    with pytest.raises(ZeroDivisionError), update.tf32(True):
        _ = 1 / 0
    assert switches() == (False, False)


def test_a_chapter_can_have_an_arm_in_bfloat16(tmp_path):
    """From the sweep to the table, with the store in between; and the other arm is what it is without this one."""
    grid = {"lr": 0.05, "batch_size": 64, "seed": range(2), "until": Epochs(2)}
    task = Task(model=MLP((16,)))
    both = Sweep.grid(task, precision=["float32", "bfloat16"], **grid)
    result = run(both, [Loss()], store=tmp_path / "both", device="cpu")
    table = result.table()
    assert table.groupby("precision").size().to_dict() == {"bfloat16": 2, "float32": 2}
    alone = run(Sweep.grid(task, **grid), [Loss()], store=tmp_path / "alone", device="cpu")
    losses = table.loc[table.precision == "float32", "train_loss"].tolist()
    assert losses == alone.table()["train_loss"].tolist()
    low = table.loc[table.precision == "bfloat16", "train_loss"].tolist()
    assert low != losses
    assert low == pytest.approx(losses, rel=0.02)
    engines = {record["provenance"]["engine"] for record in result.records}
    assert engines == ({"Kernel", "Stacked"} if kernel.available() else {"Stacked"})
    again = run(both, [Loss()], store=tmp_path / "both", device="cpu").table()
    assert again.equals(table)
