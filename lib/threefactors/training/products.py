"""Hessian products of stacked perceptrons in plain PyTorch: on a GPU, and where no C compiler is found.

A product is some sixty operations, most of them short, so on a GPU it is one launch (see ``Launch``): its vector, its
result and every intermediate lie in buffers that stay where they are, and nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from threefactors._launch import Launch
from threefactors.training.models import MLP
from threefactors.training.passes import Workspace, backward, forward, output_gradient


class StackedProducts:
    """v (R, P) → Hv (R, P), H the Hessian of the mean loss of R perceptrons at θ (R, P); θ's own passes are done here.

    x (R, B, D) and y (R, B). Not thread-safe: all products of one linearization share its buffers.
    """

    def __init__(self, model: MLP, loss: str, theta: Tensor, x: Tensor, y: Tensor, classes: int) -> None:
        self._at = (model, loss, theta, x, y, classes)
        self._v, self._image = torch.zeros_like(theta), torch.empty_like(theta)
        step = linearized(model, loss, theta, x, y, classes, self._v, self._image)
        self._launch = Launch(step, theta.device)

    def __call__(self, v: Tensor) -> Tensor:
        self._v.copy_(v)
        self._launch()
        return self._image.clone()

    def only(self, places: Sequence[int]) -> StackedProducts:
        """The same for the networks at these places; for all of them in order, this very one."""
        model, loss, theta, x, y, classes = self._at
        if list(places) == list(range(len(theta))):
            return self
        index = torch.as_tensor(places, device=theta.device)
        x = x[:1].expand(len(index), *x.shape[1:]) if x.stride(0) == 0 else x[index]  # shared data stay one copy
        return StackedProducts(model, loss, theta[index], x, y[index], classes)


def linearized(
    model: MLP, loss: str, theta: Tensor, x: Tensor, y: Tensor, classes: int, v: Tensor, image: Tensor
) -> Callable[[], None]:
    """A function that writes Hv into ``image``, the same operations at every call."""
    model, inputs = MLP(model.hidden, None if model.batch_norm is None else max(x.shape[1], 2)), x.shape[2]
    room = Workspace()
    layers, along, result = (model.layers(t, inputs, classes) for t in (theta, v, image))
    trace = forward(model, layers, x, room)
    scale = theta.new_full((1, 1, 1), 1 / x.shape[1])
    backward(layers, trace, output_gradient(loss, trace, y, scale, room), room)
    depth = len(layers)
    gates = [(h > 0).to(theta.dtype) for h in trace.inputs[1:]]
    probabilities = trace.outputs.softmax(-1)
    for i, h in enumerate(trace.inputs):  # from the memory of this stream, before a launch warms up on another
        room(f"rz{i}", h, *h.shape[:2], layers[i].weight.shape[-1])
        if i:
            room(f"rd{i}", h, *h.shape)

    def step() -> None:
        r_inputs: list[Tensor] = []
        r_normed: list[Tensor] = []
        r_shrink: list[Tensor] = []  # ⟨ẑ R{z}⟩
        rh: Tensor | None = None
        for i, (layer, toward) in enumerate(zip(layers, along, strict=True)):
            h = trace.inputs[i]
            rz = room(f"rz{i}", h, *h.shape[:2], layer.weight.shape[-1])
            if layer.gain is None:
                torch.baddbmm(toward.shift, h, toward.weight, out=rz)
            else:
                torch.bmm(h, toward.weight, out=rz)
            if rh is not None:
                rz.baddbmm_(rh, layer.weight)
            if layer.gain is not None and toward.gain is not None:
                normed, inverse = trace.normed[i].squeeze(1), trace.inverse[i].squeeze(1)
                shrink = (normed * rz).mean(1, keepdim=True)
                rz = rz.sub_(rz.mean(1, keepdim=True)).addcmul_(normed, shrink, value=-1).mul_(inverse)
                r_normed.append(rz)
                r_shrink.append(shrink)
                rz = torch.addcmul(toward.shift, toward.gain, normed).addcmul_(layer.gain, rz)
            rh = rz if i == depth - 1 else rz.mul_(gates[i])
            r_inputs.append(rh)
        assert rh is not None
        if loss == "cross-entropy":  # the Hessian of the softmax: diag(p) − ppᵀ
            rd = probabilities * (rh - (probabilities * rh).sum(-1, keepdim=True)) / x.shape[1]
        else:
            rd = rh / x.shape[1]
        for i in range(depth - 1, -1, -1):
            layer, toward, to = layers[i], along[i], result[i]
            h, d = trace.inputs[i], trace.deltas[i]
            if layer.gain is not None:
                assert to.gain is not None
                assert toward.gain is not None
                normed, inverse = trace.normed[i].squeeze(1), trace.inverse[i].squeeze(1)
                dy, rn, shrink = trace.upstream[i].squeeze(1), r_normed[i], r_shrink[i]
                mean, tilt = dy.mean(1, keepdim=True), (dy * normed).mean(1, keepdim=True)
                turn = rd * normed + dy * rn
                to.gain.copy_(turn.sum(1, keepdim=True))
                to.shift.copy_(rd.sum(1, keepdim=True))
                scale = layer.gain * inverse
                r_scale = toward.gain * inverse - layer.gain * inverse.square() * shrink
                rd = r_scale * (dy - mean - normed * tilt) + scale * (
                    rd - rd.mean(1, keepdim=True) - rn * tilt - normed * turn.mean(1, keepdim=True)
                )
            else:
                torch.sum(rd, 1, keepdim=True, out=to.shift)
            torch.bmm(h.transpose(1, 2), rd, out=to.weight)
            if i:
                to.weight.baddbmm_(r_inputs[i - 1].transpose(1, 2), d)
                rd = torch.bmm(rd, layer.weight.transpose(1, 2), out=room(f"rd{i}", h, *h.shape))
                rd = rd.baddbmm_(d, toward.weight.transpose(1, 2)).mul_(gates[i - 1])

    return step


def numbers(model: MLP, inputs: int, classes: int, examples: int) -> int:
    """Numbers in memory for one run's linearization and product, at the most.

    For each example and hidden unit z, ∂z, gate, R{z} and R{∂z}; with batch norm y, ∂ẑ and R{y} besides, and ten
    results on the way of the widest layer; twelve for each output; and θ, v, Hv and the copies of all three.
    """
    hidden = sum(model.hidden)
    kept = 5 * hidden if model.batch_norm is None else 8 * hidden + 10 * max(model.hidden, default=0)
    return examples * (kept + 12 * classes) + 6 * model.parameters(inputs, classes)
