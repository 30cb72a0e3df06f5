"""The phones of synthetic speech: how each sounds in a tract of 17 cm, and how they make syllables."""

from __future__ import annotations

import numpy as np

# Name; seconds; F1 F2 F3 (Hz) of a tract of 17 cm; amplitudes of voice, breath, hiss; nasality; poles of the hiss (Hz).
# Lines of the same name follow each other: a plosive is a closure, a burst and its breath. "_" is a pause.
TABLE = """
i    .100  280 2250 2950  .9  0  0  0     0    0
I    .075  400 1950 2550  1.  0  0  0     0    0
e    .100  450 2050 2600  1.  0  0  0     0    0
E    .085  550 1800 2480  1.  0  0  0     0    0
ae   .120  680 1700 2420  1.  0  0  0     0    0
a    .120  760 1250 2500  1.  0  0  0     0    0
V    .080  630 1200 2400  1.  0  0  0     0    0
o    .110  480  850 2400  1.  0  0  0     0    0
U    .075  440 1050 2250  1.  0  0  0     0    0
u    .100  310  900 2250  .9  0  0  0     0    0
er   .110  490 1350 1700  1.  0  0  0     0    0
@    .050  500 1450 2450  .8  0  0  0     0    0
m    .070  260 1050 2250  .6  0  0  1     0    0
n    .065  270 1600 2600  .6  0  0  1     0    0
N    .070  270 2100 2700  .6  0  0  1     0    0
l    .060  360 1200 2800  .7  0  0 .1     0    0
r    .060  350 1150 1600  .7  0  0  0     0    0
w    .060  300  720 2250  .7  0  0  0     0    0
j    .055  270 2200 3000  .7  0  0  0     0    0
s    .100  320 1700 2600   0 .1 .8  0  4900 6600
S    .100  320 1850 2500   0 .1 .8  0  2800 4600
f    .090  330 1150 2250   0 .2 .3  0  1700 7000
T    .080  330 1400 2550   0 .2 .3  0  5800 7300
z    .070  300 1700 2600  .3  0 .4  0  4900 6600
v    .055  300 1150 2250  .4  0 .1  0  1700 7000
h    .060  500 1500 2500   0 .8  0  0     0    0
p    .065  300  950 2200   0  0  0  0     0    0
p    .010  300  950 2200   0  0 .5  0   900 2500
p    .025  400 1050 2300   0 .7  0  0     0    0
t    .055  300 1750 2650   0  0  0  0     0    0
t    .012  300 1750 2650   0  0 .9  0  3800 5800
t    .030  400 1700 2600   0 .7  0  0     0    0
k    .060  300 1900 2350   0  0  0  0     0    0
k    .016  300 1900 2350   0  0 .8  0  1900 3900
k    .035  400 1850 2350   0 .7  0  0     0    0
b    .055  250  900 2150  .2  0  0  0     0    0
b    .008  300  950 2200  .4  0 .3  0   900 2500
d    .045  250 1750 2650  .2  0  0  0     0    0
d    .010  300 1750 2650  .4  0 .5  0  3800 5800
g    .050  250 1950 2350  .2  0  0  0     0    0
g    .014  300 1900 2350  .4  0 .5  0  1900 3900
_    .220  450 1450 2450   0  0  0  0     0    0
"""
_NAMES = [line.split()[0] for line in TABLE.split("\n") if line]
ROWS = np.array([line.split()[1:] for line in TABLE.split("\n") if line], dtype=float)
# The columns of ROWS.
SECONDS, VOICE, BREATH, HISS, NASAL = 0, 4, 5, 6, 7
FORMANTS, POLES = slice(1, 4), slice(8, 10)
PIECES = {name: [row for row, other in enumerate(_NAMES) if other == name] for name in _NAMES}  # rows of a phone
# How far habits go, as standard deviations of the logarithm of each column of the table.
HABITS = np.array([0.15, 0.06, 0.05, 0.05, 0.1, 0.3, 0.3, 0.2, 0.08, 0.06])

# What is named twice is twice as frequent.
_VOWELS = ["i", "I", "e", "E", "ae", "a", "V", "o", "U", "u", "er", "@", "@", "i", "a", "I"]
_ONSETS = [*"mnlrwjsSfTzvhptkbdg", "t", "n", "s", "d", "k"]
_CODAS = ["m", "n", "N", "l", "r", "s", "S", "f", "z", "v", "t", "k", "d", "n", "t", "s"]


def draw_syllable(rng: np.random.Generator) -> list[str]:
    """Draw the names of the phones of a syllable: perhaps an onset, a vowel, perhaps a coda."""
    onset = [_pick(rng, _ONSETS)] if rng.random() < 0.85 else []
    return onset + [_pick(rng, _VOWELS)] + ([_pick(rng, _CODAS)] if rng.random() < 0.4 else [])


def _pick(rng: np.random.Generator, names: list[str]) -> str:
    return names[rng.integers(len(names))]
