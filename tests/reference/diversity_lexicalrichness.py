"""MTLD and TTR of diversity_texts.txt by lexicalrichness 0.5.1 (pip install lexicalrichness==0.5.1).

Its MTLD closes a factor at TTR <= 0.72 and adds the partial factor, as ours does; for a text without a factor
it falls back on the whole text's TTR, where ours has no value, and none of these texts is one.
"""

from pathlib import Path

from lexicalrichness import LexicalRichness

print("text\tmtld\tttr")
for i, line in enumerate(Path(__file__).with_name("diversity_texts.txt").read_text().splitlines()):
    richness = LexicalRichness(line, preprocessor=None, tokenizer=str.split)
    print(f"{i}\t{richness.mtld(threshold=0.72)!r}\t{richness.ttr!r}")
