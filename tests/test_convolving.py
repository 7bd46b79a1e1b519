"""Four ways of a stacked convolution give one result; a rule, or a measurement that is remembered, picks one."""

import contextlib
import dataclasses
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from threefactors._rng import generator
from threefactors.training import MLP, convolving, tuning
from threefactors.training.convolution import RESNET56, ConvNet, prepare
from threefactors.training.convolving import WAYS, Shape, forced

from tests.bench import convolution as bench

CPU = torch.device("cpu")
# runs, examples, channels in and out, image, side, stride, bias
SHAPES = [
    (3, 4, 2, 5, (6, 5), 3, 1, True),
    (3, 4, 3, 2, (7, 4), 3, 2, False),
    (1, 2, 3, 5, (5, 8), 3, 1, True),
    (2, 3, 5, 3, (5, 4), 1, 1, True),
    (2, 3, 1, 3, (5, 4), 1, 2, False),
    (3, 5, 7, 4, (1, 1), 1, 1, True),
    (2, 1, 1, 1, (1, 3), 3, 2, False),
]


def tensors(shape, dtype=torch.float64):
    R, B, inputs, outputs, image, side, _, bias = shape
    draw = generator(0, "ways")
    h = torch.randn(B, R * inputs, *image, generator=draw, dtype=torch.float64)
    weight = torch.randn(R, outputs, inputs, side, side, generator=draw, dtype=torch.float64)
    shift = torch.randn(R, outputs, generator=draw, dtype=torch.float64)
    leaves = [h, weight, *([shift] if bias else [])]
    return [t.to(dtype).requires_grad_() for t in leaves]


def derivatives(way, leaves, stride):
    """z, its gradients along a direction, and theirs along another: all that a Hessian product takes."""
    draw = generator(1, "directions")

    def like(t):
        return torch.randn(t.shape, generator=draw, dtype=t.dtype)

    z = way(*leaves, *([None] if len(leaves) == 2 else []), stride)
    first = torch.autograd.grad((like(z) * z.sin()).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((like(g) * g).sum() for g in first), leaves)
    return [z.detach(), *(g.detach() for g in first), *second]


def plain(h, weight, bias, stride):
    """The definition: each network by itself."""
    parts = h.chunk(len(weight), 1)
    biases = [None] * len(weight) if bias is None else bias
    each = zip(parts, weight, biases, strict=True)
    return torch.cat([F.conv2d(x, w, b, stride, w.shape[-1] // 2) for x, w, b in each], 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_ways_are_one_convolution_with_its_derivatives(way, shape):
    leaves, stride = tensors(shape), shape[6]
    for memory in (torch.contiguous_format, torch.channels_last):
        given = [leaves[0].detach().contiguous(memory_format=memory).requires_grad_(), *leaves[1:]]
        found, expected = derivatives(WAYS[way], given, stride), derivatives(plain, leaves, stride)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", [*WAYS, convolving.APART])
@pytest.mark.parametrize("model", [RESNET56(4, 0.25, 1, (1, 8, 8)), ConvNet(hidden=(5,))], ids=["residual", "plain"])
def test_networks_are_the_same_in_every_way(way, model):
    draw = generator(2, "networks")
    theta = torch.stack([model.initial(64, 3, generator(i, "init"), torch.float64) for i in range(3)])
    theta += 0.1 * torch.randn(theta.shape, generator=draw, dtype=torch.float64)
    x = torch.randn(3, 8, 64, generator=draw, dtype=torch.float64)
    leaf = theta.requires_grad_()

    def outputs_and_gradient():
        z = model.forward(leaf, x, 3, 2 if model.batch_norm else 1)
        return z, *torch.autograd.grad(z.square().sum(), leaf)

    expected = outputs_and_gradient()
    with forced(way):
        found = outputs_and_gradient()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_forcing_ends_and_refuses_what_is_no_way(monkeypatch):
    h, weight = tensors(SHAPES[1])
    taken = []
    for name, way in WAYS.items():
        monkeypatch.setitem(WAYS, name, lambda *given, name=name, way=way: taken.append(name) or way(*given))
    for name in WAYS:
        with contextlib.suppress(KeyError), forced(name):
            convolving.convolve(h, weight, stride=2)
            raise KeyError
    convolving.convolve(h, weight, stride=2)
    assert taken == [*WAYS, "grouped"]
    with pytest.raises(ValueError, match=r"way='im2col' is no way .* use one of grouped, unfold, vmap, loop, apart"):
        forced("im2col").__enter__()


def test_the_rule_of_a_cpu():
    assert convolving.rule(Shape(64, 10, 1, 1, (1, 1), 8, 32)) == "unfold"
    assert convolving.rule(Shape(64, 10, 1, 1, (2, 1), 8, 32)) == "grouped"
    assert convolving.rule(Shape(512, 512, 3, 1, (2, 2), 8, 32)) == "grouped"
    shape = Shape(3, 5, 3, 2, (7, 4), 2, 10)
    assert (shape.pixels, shape.work) == (4 * 2, 10 * 4 * 2 * 5 * 3 * 9)
    like = torch.zeros(4, 1)

    def never():
        raise AssertionError("measured on a CPU")

    for runs in (1, 4):  # whether a run has company decides nothing
        assert not convolving.apart(never, convolving.GROUPED, like[:runs], never)
        assert convolving.apart(never, convolving.GROUPED + 1, like[:runs], never)


def test_large_networks_are_taken_apart(monkeypatch):
    model, passes = ConvNet((1, 8, 8), ((4,), (5,))), []
    whole = ConvNet._pass
    monkeypatch.setattr(ConvNet, "_pass", lambda self, t, x, **k: passes.append(len(x)) or whole(self, t, x, **k))
    theta, x = torch.randn(3, model.parameters(64, 2)), torch.randn(3, 6, 64)
    work = 6 * max(64 * 4 * 9, 16 * 5 * 4 * 9)
    for limit in (work, work - 1):
        monkeypatch.setattr(convolving, "GROUPED", limit)
        model.forward(theta, x, 2)
    assert passes == [3, 1, 1, 1]


def test_a_stack_is_computed_in_pieces_that_stay_in_the_cache(monkeypatch):
    model, passes = ConvNet((1, 8, 8), ((4,), (5,)), batch_norm=6), []
    whole = ConvNet._pass
    monkeypatch.setattr(ConvNet, "_pass", lambda self, t, x, **k: passes.append(len(x)) or whole(self, t, x, **k))
    theta, x = torch.randn(5, model.parameters(64, 2)).double().requires_grad_(), torch.randn(5, 6, 64).double()
    found = []
    for networks in (5, 2, 1):
        monkeypatch.setattr(convolving, "CACHED", networks * 6 * 4 * 64 * 8)
        z = model.forward(theta, x, 2)
        found.append((z.detach(), torch.autograd.grad(z.square().sum(), theta)[0]))
    assert passes == [5, 2, 2, 2, 1, 1, 1, 1, 1]  # the last of 2, 2 and 1 beside a copy; one each is no company
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


class Clock:
    """Time that passes only where work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *durations):
        rest = itertools.cycle(durations)

        def spend():
            self.now += next(rest)

        return spend


def test_the_shortest_time_counts_without_the_warm_up():
    clock = Clock()  # the first call loads a kernel, the third is disturbed
    assert tuning.plain_seconds(clock.work(50, 3, 9, 3, 3, 4), CPU, clock) == 3
    names = {"steady": clock.work(2), "fast at best": clock.work(9, 1, 7, 7, 7, 7), "slow": clock.work(5)}
    best, seconds = tuning.fastest(names, CPU, lambda work, device: tuning.plain_seconds(work, device, clock))
    assert best == "fast at best"
    assert seconds == {"steady": 2, "fast at best": 1, "slow": 5}


def test_what_does_not_fit_into_memory_is_not_chosen():
    def greedy():
        raise torch.cuda.OutOfMemoryError

    best, seconds = tuning.fastest({"greedy": greedy, "modest": lambda: None}, CPU)
    assert (best, seconds["greedy"]) == ("modest", math.inf)
    with pytest.raises(MemoryError, match="none of a, b fits into the memory of cpu; use fewer runs"):
        tuning.fastest({"a": greedy, "b": greedy}, CPU)
    with pytest.raises(ZeroDivisionError):  # an error is not a slow way
        tuning.fastest({"wrong": lambda: 1 / 0, "right": lambda: None}, CPU)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Nothing known, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "_known", {})
    monkeypatch.setattr(tuning, "REPEATS", 2)
    return tmp_path / "threefactors"


def trials(*names, best):
    """Works of which ``best`` is found to be the fastest, and how often they were asked for."""
    asked = []

    def make():
        asked.append(names)
        clock = Clock()
        return {name: clock.work(1 if name == best else 2) for name in names}

    return make, asked


def test_a_choice_is_measured_once_and_remembered(empty, monkeypatch):
    monkeypatch.setattr(tuning, "plain_seconds", lambda work, device: _cost(work))
    make, asked = trials("a", "b", best="b")
    like = torch.zeros(1)
    assert tuning.choice("x", make, like, measure=False) is None  # nothing known, nothing measured
    assert [tuning.choice("x", make, like) for _ in range(3)] == ["b"] * 3
    assert tuning.choice("x", make, like, measure=False) == "b"
    assert len(asked) == 1
    tuning.choice("x", make, like.double())  # another precision is another question
    tuning.choice("y", make, like)
    with torch.autocast("cpu", torch.bfloat16):
        tuning.choice("x", make, like)
    assert len(asked) == 4
    monkeypatch.setattr(tuning, "_known", {})  # another process
    assert tuning.choice("x", trials("a", "b", best="a")[0], like) == "b"
    (file,) = empty.iterdir()  # nothing half-written beside it
    kept = json.loads(file.read_text())
    assert (kept["torch"], len(kept["choices"])) == (torch.__version__, 4)
    assert kept["choices"]["x, torch.float32"]["microseconds"] == {"a": 2e6, "b": 1e6}
    monkeypatch.setattr(torch, "__version__", "0.0")
    monkeypatch.setattr(tuning, "_known", {})
    assert tuning.choice("x", trials("a", "b", best="a")[0], like) == "a"  # another PyTorch, another file


def _cost(work):
    before = (clock := next(c.cell_contents for c in work.__closure__ if isinstance(c.cell_contents, Clock)))()
    work()
    return clock() - before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"choices": {"x, torch.float32": 3}}', '{"choices": []}'])
def test_a_damaged_file_is_measured_anew(empty, text):
    file = tuning.path(CPU)
    file.parent.mkdir()
    file.write_text(text)
    assert tuning.choice("x", lambda: {"only": lambda: None}, torch.zeros(1)) == "only"
    assert json.loads(file.read_text())["choices"]["x, torch.float32"]["way"] == "only"


def test_processes_add_to_one_file(empty, monkeypatch):
    like = torch.zeros(1)
    tuning.choice("x", lambda: {"a": lambda: None}, like)
    before = dict(tuning._known)
    monkeypatch.setattr(tuning, "_known", {str(CPU): {}})  # began before x was known
    tuning.choice("y", lambda: {"b": lambda: None}, like)
    assert set(json.loads(tuning.path(CPU).read_text())["choices"]) == {"x, torch.float32", "y, torch.float32"}
    assert before == {"cpu": {"x, torch.float32": "a"}}


def test_where_nothing_can_be_written_the_process_remembers(empty):
    empty.write_text("a file where the folder should be")
    make, asked = trials("a", best="a")
    assert [tuning.choice("x", make, torch.zeros(1)) for _ in range(2)] == ["a", "a"]
    assert len(asked) == 1


def test_a_capture_is_no_time_to_measure(empty, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(tuning, "_name", lambda device: "a GPU")

    class OnGPU:
        device, dtype = torch.device("cuda:0"), torch.float32

    with pytest.raises(RuntimeError, match=r"way of x, torch\.float32.* cannot be measured while .*\.prepare\(model"):
        tuning.choice("x", lambda: pytest.fail("measured"), OnGPU())
    tuning._known["cuda:0"]["x, torch.float32 in tf32" if torch.backends.cudnn.allow_tf32 else "x, torch.float32"] = "a"
    assert tuning.choice("x", lambda: pytest.fail("measured"), OnGPU()) == "a"


def test_preparing_measures_every_convolution_and_the_network(empty, monkeypatch):
    """What happens on a GPU, on a CPU that is taken for one: a real, tiny run of the tuner."""
    model = ConvNet((1, 4, 4), ((2,), (3, 3)), batch_norm=4)
    prepare(model, 2, 4, "cpu", torch.float32)
    assert not tuning._known  # a rule decides
    monkeypatch.setattr(tuning, "MEASURED", ("cpu",))
    prepare(MLP(), 2, 4, "cpu", torch.float32)
    assert not tuning._known  # has no convolutions
    prepare(model, 2, 4, "cpu", torch.float32)
    found = tuning._known["cpu"]
    network = f"{model!r} of 10 outputs, 2 runs, batch 4, torch.float32"
    sizes = (("1>2", 4), ("2>3", 2), ("3>3", 2))
    convolutions = {f"{c} 3x3/1 on {n}x{n}, 2 runs, batch 4, torch.float32" for c, n in sizes}
    assert set(found) == {network, *convolutions}
    assert found[network] in ("together", convolving.APART)
    assert {found[key] for key in convolutions} <= set(WAYS)

    monkeypatch.setattr(tuning, "fastest", lambda *given: pytest.fail("measured again"))
    theta, x = torch.randn(2, model.parameters(16, 10)), torch.randn(2, 4, 16)
    model.forward(theta.requires_grad_(), x, 10)
    with torch.no_grad():  # nothing is measured for a pass that is made once
        model.forward(theta[:1], x[:1, :3], 10)
        model.forward(theta, x[:, :3], 10)
    assert len(found) == 4


def test_what_was_measured_is_what_is_done(empty, monkeypatch):
    monkeypatch.setattr(tuning, "MEASURED", ("cpu",))
    h, weight = tensors(SHAPES[1])
    shape, taken = Shape(3, 2, 3, 2, (7, 4), 3, 4), []
    for name, way in WAYS.items():
        monkeypatch.setitem(WAYS, name, lambda *given, name=name, way=way: taken.append(name) or way(*given))
    for name in WAYS:
        tuning._known["cpu"] = {f"{shape}, torch.float64": name}
        convolving.convolve(h, weight, stride=2)
    assert taken == list(WAYS)


@pytest.mark.parametrize(
    "model", [RESNET56(8, 1 / 4, 1, (3, 8, 8)), ConvNet((2, 6, 6), ((3,), (4, 4)))], ids=["residual", "pooled"]
)
def test_the_competitors_of_the_benchmark_do_the_same_steps(model):
    problem = bench.images("small", model, 8, 2)
    problem = dataclasses.replace(problem, data=problem.data.to("cpu", torch.float64))
    ended = []
    for work in (bench.Library(problem), bench.ImageLoop(problem), bench.ImageVmap(problem)):
        work.run()
        ended.append(work.theta())
    assert (ended[0] - problem.theta).abs().max() > 1e-4
    for theta in ended[1:]:
        torch.testing.assert_close(theta, ended[0], rtol=1e-9, atol=1e-11)


def test_the_benchmark_measures_every_way_and_what_is_picked(monkeypatch):
    shape = Shape(2, 3, 3, 1, (4, 4), 3, 2)
    works = bench.works(shape, "cpu")
    assert list(works) == [*WAYS, bench.APART, "library: grouped"]
    monkeypatch.setattr(convolving, "CACHED", 2 * 4 * 2 * 16 * 3)
    assert list(bench.works(shape, "cpu"))[-1] == "library: grouped, 2 at a time"
    monkeypatch.setattr(convolving, "GROUPED", 1)
    assert list(bench.works(shape, "cpu"))[-1] == "library: network after network"
    known = list(bench._shapes(bench.NETWORKS))
    assert len(known) == len({conv for _, conv in known}) > 20
    assert {conv.side for _, conv in known} == {3}
