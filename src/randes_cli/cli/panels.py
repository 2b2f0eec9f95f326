"""Panels of the help, in the order in which people ask."""

from __future__ import annotations

GOES_IN, MADE, COMES_OUT = "What goes in", "How it is made", "What comes out"
RUNS, SPEAKS = "How it runs", "How it speaks"
