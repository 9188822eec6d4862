"""What lm-evaluation-harness 0.4.13 reads off 36 awkward answers and scores for GSM8K; 12 texts normalised.

Its own YAML of the task, its own filters, its own exact_match. Run from the root of the repository, with
lm_eval installed, and store what it prints, one JSON object a line:

    pip install lm_eval==0.4.13
    python tests/reference/lm_eval_answers.py > tests/reference/lm_eval_answers.txt
"""

import json
import re
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import build_filter_ensemble

ANSWERS = [  # generated text, reference answer
    ("29-9=20\n#### 20", "29-9=20\n#### 20"),
    ("#### 1,234", "#### 1234"),
    ("#### 1234", "#### 1,234"),
    ("#### 1,234,567.", "#### 1,234,567"),
    ("#### -7", "#### -7"),
    ("3-10=-7\n#### 7", "#### -7"),
    ("#### $20", "#### 20"),
    ("The answer is $1,050.00", "#### 1,050.00"),
    ("The answer is $1,050.00", "#### 1050"),
    ("#### 20.", "#### 20"),
    ("#### 20..", "#### 20"),
    ("#### 20.0", "#### 20"),
    ("#### 20.\nThat is 20 apples.", "#### 20"),
    ("#### 20\n#### 21", "#### 20"),
    ("#### 21\n#### 20", "#### 20"),
    ("#### 20 of the 29 apples", "#### 20"),
    ("First 5, then 12, then 20.", "#### 20"),
    ("I do not know", "#### 20"),
    ("", "#### 20"),
    ("####", "#### 20"),
    ("#### ", "#### 20"),
    ("####20", "#### 20"),
    ("29-9=20\n20*2=", "#### 40"),
    ("29-9=20\n20*2=40\n####", "#### 40"),
    ("#### .", "#### 20"),
    ("#### twenty", "#### 20"),
    ("it costs 5 ... or so", "#### 5"),
    ("#### 1/2", "#### 1"),
    ("#### - 5", "#### -5"),
    ("between 20-29", "#### -29"),
    ("#### 20%", "#### 20"),
    ("#### 3.5e2", "#### 350"),
    ("A: 20\n\nQuestion: What is 7?", "#### 20"),
    ("#### \u0662\u0660", "#### 20"),
    ("$", "#### 20"),
    ("#### 2,0,", "#### 20"),
]
GOLDS = [
    "so 5*4=20\n#### 20",
    "#### 1,000",
    "#### -3",
    "#### -1,200",
    "#### $15",
    "#### 0.5",
    "#### 18.",
    "she has #### 4 and then\n#### 5",
    "5*210=<<5*210=1050>>1,050\n#### 1,050",
    "#### 7,",
    "no mark, 1,000 Apples.",
    "#### 20.\n",
]

task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
metric = task["metric_list"][0]
options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
for text, answer in ANSWERS:
    row = {"text": text, "answer": answer}
    for listed in task["filter_list"]:
        steps = []
        for step in listed["filter"]:
            arguments = {key: value for key, value in step.items() if key != "function"}
            steps.append([step["function"], arguments or None])
        ensemble = build_filter_ensemble(listed["name"], steps)
        asked = Instance(request_type="generate_until", doc={}, arguments=("", {}), idx=0, resps=[text])
        ensemble.apply([asked])
        found = asked.filtered_resps[listed["name"]]
        score = exact_match_hf_evaluate([found], [answer], **options)["exact_match"]
        row[listed["name"]] = {"found": found, "correct": bool(score)}
    print(json.dumps(row))
for gold in GOLDS:
    left = gold
    for pattern in metric["regexes_to_ignore"]:
        left = re.sub(pattern, "", left)
    print(json.dumps({"gold": gold, "normalised": left.lower()}))
