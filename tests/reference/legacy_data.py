"""Writes legacy_data.txt: 2 sources, 9 prompts, 6 texts a cell, 2 metrics; `kept` unbalances it."""

import random

rng = random.Random(20263)
print("source\tprompt\tmtld\tlength\tkept")
for p in range(9):
    level, slope = rng.gauss(60, 8), rng.gauss(0, 5)
    for source in ("PRNG", "TRNG"):
        for _ in range(6):
            mtld = level + (slope + 4.0) * (source == "TRNG") + rng.gauss(0, 6)
            length = round(level / 2 + rng.gauss(0, 3))
            print(f"{source}\tp{p}\t{mtld:.6f}\t{length}\t{int(rng.random() < 0.8)}")
