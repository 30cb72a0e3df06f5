"""Corpora that a program makes: `corpus.corpus` of voices, rooms and noises, `sounds.corpus` of sound classes."""
