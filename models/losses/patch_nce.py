"""PatchNCE (CUT, section 3, equations 2 and 3): a patch of the output shall be told from other patches of the input by the
patch of the input at the same place."""

import torch
import torch.nn.functional as F
from torch import Tensor

# What the negatives' diagonal is filled with: the positive has a logit of its own, so there it must not count again.
# exp(-10 / 0.07) is nothing beside any cosine similarity.
MASK_LOGIT = -10.0


def patch_nce(
    queries: Tensor, keys: Tensor, num_groups: int, temperature: float, extra_negatives: Tensor | None = None
) -> Tensor:
    """The cross-entropy of finding each query's own key among all keys of its group.

    `queries` and `keys` are (groups * S, C) unit vectors, row i of one belonging to row i of the other. A group is a
    image, whose S patches are each other's negatives, or the whole minibatch (`num_groups` = 1).
    `extra_negatives` are M keys more, (M, C), that are none of any query's.
    Returns the loss of every query, (groups * S,); guessing gives ln (S + M).
    No gradient reaches the keys.
    """
    keys = keys.detach()
    positives = (queries * keys).sum(dim=1, keepdim=True)

    grouped_queries, grouped_keys = queries.unflatten(0, (num_groups, -1)), keys.unflatten(0, (num_groups, -1))
    negatives = torch.bmm(grouped_queries, grouped_keys.transpose(1, 2))
    diagonal = torch.eye(negatives.shape[1], dtype=torch.bool, device=negatives.device)
    negatives = negatives.masked_fill(diagonal, MASK_LOGIT).flatten(0, 1)

    if extra_negatives is not None:
        negatives = torch.cat((negatives, queries @ extra_negatives.detach().T), dim=1)

    logits = torch.cat((positives, negatives), dim=1) / temperature
    targets = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, targets, reduction="none")
