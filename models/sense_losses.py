"""What a head learns from: an anchor nearer to its positive than to texts of other senses.

Candidates of every anchor of a batch are all positives of the batch and all hard negatives of the batch,
texts of other senses of the lemmas. Those of the anchor's own sense, its positive apart, are masked: two
bundles of one sense in a batch would else push the sense apart.

infonce
    -ln softmax(cos / temperature) of the positive (van den Oord et al. 2018, arXiv:1807.03748).
triplet
    relu(margin - cos to the positive + the largest cos to a candidate) (Schroff et al. 2015,
    arXiv:1503.03832, in cosines).
hinge
    relu(margin - cos to the positive + cos to a candidate), the mean over candidates: each may take up slack
    (ranking SVM; Joachims 2002, doi:10.1145/775047.775067).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.sense_recipe import LOSSES, Loss

MARGIN = 0.5
"""Of triplet and hinge, in cosine."""


def contrast_loss(
    anchors: Tensor,
    candidates: Tensor,
    anchor_senses: Tensor,
    candidate_senses: Tensor,
    *,
    loss: Loss = "infonce",
    temperature: float = 0.07,
) -> Tensor:
    """Loss of a batch, the mean over anchors.

    Parameters
    ----------
    anchors : (N, D) float, of length 1
    candidates : (M, D) float, of length 1
        The first N are the anchors' positives, in order.
    anchor_senses, candidate_senses : (N,), (M,) int
        Equal numbers are one sense; below 0 is no text.

    Raises
    ------
    ValueError
        For another loss or a temperature not above 0.

    Examples
    --------
    Two anchors on their positives, at right angles to each other: -ln(e^10 / (e^10 + 1)).

    >>> z, senses = torch.eye(2), torch.tensor([0, 1])
    >>> round(float(contrast_loss(z, z, senses, senses, temperature=0.1)), 6)
    4.5e-05
    >>> float(contrast_loss(z, z, senses, senses, loss="triplet"))
    0.0
    """
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; allowed are {', '.join(LOSSES)}")
    if not temperature > 0.0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    n = len(anchors)
    cosines = anchors @ candidates.T  # (N, M)
    own = torch.eye(n, len(candidates), dtype=torch.bool)
    left_out = (candidate_senses[None] == anchor_senses[:, None]) | (candidate_senses < 0)[None]
    if loss == "infonce":
        logits = (cosines / temperature).masked_fill(left_out & ~own, -torch.inf)
        return functional.cross_entropy(logits, torch.arange(n))
    slack = MARGIN - cosines.diagonal()[:, None] + cosines
    against = ~(left_out | own)
    if loss == "triplet":
        hardest = slack.masked_fill(~against, -torch.inf).amax(1)
        return functional.relu(hardest).mean()
    each = functional.relu(slack) * against
    return (each.sum(1) / against.sum(1).clamp(min=1)).mean()
