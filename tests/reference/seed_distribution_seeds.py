"""Writes seed_distribution_seeds.txt: 300 fair seeds, 300 with P(bit = 1) = .55, 150 fair ones more."""

import random

rng = random.Random(20262)
fair = [rng.getrandbits(32) for _ in range(300)]
biased = [sum((rng.random() < 0.55) << bit for bit in range(32)) for _ in range(300)]
second = [rng.getrandbits(32) for _ in range(150)]
for name, seeds in {"fair": fair, "biased": biased, "second": second}.items():
    for seed in seeds:
        print(f"{name}\t{seed}")
