"""Writes diversity_texts.txt, one text a line: skewed word frequencies, lengths around each null rule."""

import random

rng = random.Random(20261)
words = [f"word{i}" for i in range(60)]
weights = [1 / (i + 1) for i in range(60)]
for length in (10, 11, 12, 25, 49, 50, 51, 75, 100, 150, 300, 60):
    print(" ".join(rng.choices(words, weights, k=length)))
