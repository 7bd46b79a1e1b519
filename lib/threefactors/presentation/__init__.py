"""Presentation: tables of statistics as figures, verdicts as words."""
