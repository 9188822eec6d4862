"""Scores of sense_retrieval.jsonl by scikit-learn 1.9.1 (pip install scikit-learn==1.9.1).

Columns: item, candidate, word Jaccard of CountVectorizer's sets, cosine of TfidfVectorizer by words and by
char_wb 3- to 5-grams, and log odds of MultinomialNB between correct candidates and others, trained on the
other lemmas. The lemma is masked by blanking every word that is the lemma or the text's surface. The
order of the candidates by each score follows, ties in file order (numpy's stable sort).
"""

import json
import re
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.naive_bayes import MultinomialNB


def masked(text, lemma):
    away = {lemma.lower(), text["span"]["surface"].lower()}
    return "".join(" " if part.lower() in away else part for part in re.split(r"(\w+)", text["text"]))


lines = Path(__file__).with_name("sense_retrieval.jsonl").read_text().splitlines()
items = [json.loads(line) for line in lines]
queries = [masked(item["query"], item["lemma"]) for item in items]
answers = [[masked(one, item["lemma"]) for one in item["candidates"]] for item in items]
distinct = list(
    dict.fromkeys(text for query, rest in zip(queries, answers, strict=True) for text in (query, *rest))
)

word = TfidfVectorizer().fit(distinct)
char = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(distinct)
sets = CountVectorizer(binary=True).fit(distinct)

counted = CountVectorizer().fit([text for rest in answers for text in rest])


def role_odds(lemma, texts):
    others = [(rest, item) for rest, item in zip(answers, items, strict=True) if item["lemma"] != lemma]
    right = [i in item["correct"] for rest, item in others for i in range(len(rest))]
    model = MultinomialNB(alpha=1.0).fit(counted.transform([t for rest, _ in others for t in rest]), right)
    logs = model.predict_joint_log_proba(counted.transform(texts))
    return logs[:, 1] - logs[:, 0]


print("item\tcandidate\tword_jaccard\tword_tfidf\tchar_tfidf\trole_classifier")
orders = []
for item, query, rest in zip(items, queries, answers, strict=True):
    first = sets.transform([query]).toarray()[0]
    columns = {
        "word_jaccard": np.array([jaccard_score(first, sets.transform([one]).toarray()[0]) for one in rest]),
        "word_tfidf": cosine_similarity(word.transform([query]), word.transform(rest))[0],
        "char_tfidf": cosine_similarity(char.transform([query]), char.transform(rest))[0],
        "role_classifier": role_odds(item["lemma"], rest),
    }
    for place in range(len(rest)):
        print(item["id"], place, *(repr(float(column[place])) for column in columns.values()), sep="\t")
    for name, column in columns.items():
        order = np.argsort(-column.round(12), kind="stable")
        orders.append(f"{item['id']}\torder\t{name}\t{' '.join(map(str, order))}")
print(*orders, sep="\n")
