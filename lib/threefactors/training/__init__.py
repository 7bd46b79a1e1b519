"""Training: stacks of networks on flat θ (R, P), trained at once and each as if alone."""

from threefactors.training.architecture import Architecture
from threefactors.training.convolution import RESNET56, VGG11, ConvNet
from threefactors.training.data import Dataset, load
from threefactors.training.models import MLP
from threefactors.training.runs import SGD, Clock, Epochs, Run, Stack, Steps, Sweep, Task, TrainLoss
from threefactors.training.schedules import Constant, Custom, SquareCycle, Step, TriangularCycle
from threefactors.training.train import Trainer, train

__all__ = [
    "MLP", "RESNET56", "SGD", "VGG11", "Architecture", "Clock", "Constant", "ConvNet", "Custom", "Dataset", "Epochs",
    "Run", "SquareCycle", "Stack", "Step", "Steps", "Sweep", "Task", "TrainLoss", "Trainer", "TriangularCycle", "load",
    "train",
]  # fmt: skip
