"""Metrics of a text with its reasoning left in, for the analysis of how much leaving it out changes.

What decides is measured without `<think>...</think>`. Where a text has such a part, the same metrics of the
whole, reasoning and answer together, are kept beside them.
"""

from __future__ import annotations

import re

from stats.diversity import EXTRA, METRICS, Value, measure_text, text_failure

PREFIX = "with_thinking."
"""Before a metric's name where it is of the whole text."""

_TAG = re.compile(r"</?think>", re.IGNORECASE)


def measure_with_thinking(text: str | None) -> dict[str, Value] | None:
    """METRICS and EXTRA of reasoning and answer together, the tags themselves left out.

    Parameters
    ----------
    text : str or None
        As generated.

    Returns
    -------
    dict of str to Value, or None
        None for a text without reasoning, where it would repeat the metrics of the answer, and where there is
        no text. A failure, such as reasoning that is never closed, has its reason for every value.

    Examples
    --------
    >>> found = measure_with_thinking("<think>two words</think>the answer has five words")
    >>> found["length_words"]
    (7.0, None)
    >>> measure_with_thinking("only an answer") is None
    True
    >>> measure_with_thinking("<think>cut off")["mtld"]
    (None, 'unclosed <think>: reasoning and answer cannot be told apart')
    """
    if text is None or not _TAG.search(text):
        return None
    failure = text_failure(text)
    if failure is not None:
        return dict.fromkeys(METRICS + EXTRA, (None, failure))
    return measure_text(_TAG.sub(" ", text))
