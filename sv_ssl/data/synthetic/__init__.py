"""Corpora that a program makes: voices, rooms, noises and sounds."""
