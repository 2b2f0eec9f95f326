"""Colours that all pictures share; Okabe and Ito's, which colour-blind eyes can tell apart."""

from __future__ import annotations

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8a8a8a"
#: Lines and bars, in the order of their use.
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)
#: Cosines from −1 over 0 to +1.
DIVERGING = (BLUE, "#f7f7f7", VERMILION)
