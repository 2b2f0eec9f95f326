"""Colours that all pictures share; Okabe and Ito's, which colour-blind eyes can tell apart."""

from __future__ import annotations

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8a8a8a"
#: Lines and bars, in the order of their use.
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)
#: Letters, softer letters and lines, grids. In the page each gives way to the page's own.
INK, SOFT, LINE = "#1d2125", "#5d666f", "#dde1e5"
#: Letters on a strong colour.
WHITE = "#ffffff"
