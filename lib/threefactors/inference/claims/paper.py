"""What the paper (arXiv 1711.04623) and its rival (arXiv 1709.04718) claim: questions that the book's claims answer.

An answer to C3 is any claim of ``CLAIMS`` whose id is C3 or begins with it: C3a, C3b, C3c.
"""

PAPER_CLAIMS = {
    "C1": "A schedule of the learning rate can be replaced by the schedule of the batch size with the same η/S",
    "C2": "Constant pairs with the same η/S learn alike; pairs with the same η/√S do not",
    "C3": "A higher η/S gives a wider minimum, and only the ratio counts",
    "C4": "A higher η/S often gives a better validation accuracy",
    "C5": "On the line between two minima, the one from the lower η/S is the sharper",
    "C6": "Minima from the same η/S are equally wide",
    "C7": "Scaling η and S together breaks down when the factor is large, and earlier for smaller training sets",
    "C8": "With a smaller η/S it breaks down later",
    "C9": "Cyclic schedules end in wider minima than constant ones at similar loss",
    "C10": "A higher η/S means less memorization of random labels",
    "C11": "The diffusion picture fails where η is large or S is not small against N",
    "C12": "The covariance of the gradients is a factor of its own",
    "C13": "In the stationary state the loss stands (η/4S) Tr H above its minimum",
    "C14": "More noise favors wide minima over deep ones",
}

RIVAL_CLAIMS = {
    "P1": "Whether SGD leaves a minimum is decided by η, S and the curvatures of the terms, and not by gradient noise",
    "P2": "In many dimensions too there is an exact threshold",
    "P3": "At a large batch size the threshold is blind to flatness; at a small one it is proportional to S",
    "P4": "On a nonconvex sum the local geometry of a minimum foretells whether SGD leaves it",
    "P5": "It foretells it for the minima of a network",
}
