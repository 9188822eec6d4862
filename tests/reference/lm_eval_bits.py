"""Log-likelihoods and bits per byte by lm-evaluation-harness 0.4.13 of the models in tests/scored_models.py.

Run from the root of the repository, with lm_eval installed, and store what it prints:

    pip install lm_eval==0.4.13
    python tests/reference/lm_eval_bits.py > tests/reference/lm_eval_bits.txt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.models.huggingface import HFLM

from tests.scored_models import FAMILY_NAMES, POSITIONS, TEXTS, small_model, small_tokenizer

transformers.logging.set_verbosity_error()
print("family\ttext\ttokens\tbytes\tlog_likelihood_nats")
for family in FAMILY_NAMES:
    tokenizer = small_tokenizer()
    harness = HFLM(
        pretrained=small_model(family),
        tokenizer=tokenizer,
        batch_size=4,
        add_bos_token=False,
        device="cpu",
        max_length=POSITIONS if family == "bloom" else None,  # its config has no number of positions
    )
    if harness.max_length != POSITIONS:
        raise SystemExit(f"lm_eval reads a window of {harness.max_length}, not {POSITIONS}")
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=i)
        for i, text in enumerate(TEXTS)
    ]
    found = harness.loglikelihood_rolling(requests, disable_tqdm=True)
    for i, (text, nats) in enumerate(zip(TEXTS, found, strict=True)):
        print(f"{family}\t{i}\t{len(harness.tok_encode(text))}\t{len(text.encode())}\t{nats!r}")
    weighted = [(nats, len(text.encode())) for text, nats in zip(TEXTS, found, strict=True)]
    print(f"{family}\tall\t\t\t{bits_per_byte(weighted)!r}")
