"""Simulation: trajectories of stochastic processes by the thousand, produced without knowing what theory predicts."""

from threefactors.simulation.ensemble import Draws, Path, simulate

__all__ = ["Draws", "Path", "simulate"]
