"""Mutual information estimated from a matrix of scores, and the local objective of Deep InfoMax.

Sources: Hjelm et al., Learning Deep Representations by Mutual Information Estimation and
Maximization, arXiv 1808.06670, section 3; Poole et al., On Variational Bounds of Mutual
Information, arXiv 1905.06922, section 2; van den Oord et al., arXiv 1807.03748, section 2.3.

Left out: the networks that give the scores; matching the features to a prior; a batch that is
spread over several devices, whose features have to be gathered with their gradients first.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zhixing.convolution.arguments import check_floats, integer


def info_nce(scores: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """log N minus the cross-entropy of finding, in each row, the partner on the diagonal.

    For scores that were not fitted to the batch, its expectation is at most the mutual
    information. No batch gives more than log N. The best score is log p(x, y) / p(x) p(y) plus any
    function of x. To train, minimise its negative.

    Args:
        scores: T(x_i, y_j), with the N pairs on the diagonal, and at least 2 of them.

    Returns:
        The estimate, in nats.

    Raises:
        ValueError: scores is no floating-point matrix (N, N), or N is less than 2.

    Examples:
        >>> import torch
        >>> round(info_nce(torch.zeros(64, 64)).item(), 3)
        0.0
        >>> round(info_nce(1000 * torch.eye(64)).item(), 3)  # log 64
        4.159
    """
    _check_scores(scores)
    return math.log(len(scores)) + scores.log_softmax(1).diagonal().mean()


def donsker_varadhan(scores: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The mean score of the pairs, minus log of the mean of e^T over all the other combinations.

    With expectations instead of both means, it is at most the mutual information. Its expectation
    over batches is at least that value, and may exceed the mutual information. The best score is
    log p(x, y) / p(x) p(y) plus any constant.

    Args:
        scores: T(x_i, y_j), with the N pairs on the diagonal, and at least 2 of them.

    Returns:
        The estimate, in nats.

    Raises:
        ValueError: scores is no floating-point matrix (N, N), or N is less than 2.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> donsker_varadhan(scores).item(), donsker_varadhan(scores - 100).item()
        (3.0, 3.0)
    """
    _check_scores(scores)
    others = _off_diagonal(scores)
    return scores.diagonal().mean() - (others.logsumexp((0, 1)) - math.log(others.numel()))


def nwj(scores: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The mean score of the pairs, minus the mean of e^(T - 1) over all the other combinations.

    For scores that were not fitted to the batch, its expectation is at most the mutual
    information. The best score is 1 + log p(x, y) / p(x) p(y); with it, the variance grows
    exponentially with the mutual information. Named after Nguyen, Wainwright and Jordan; also
    called f-GAN KL and MINE-f.

    Args:
        scores: T(x_i, y_j), with the N pairs on the diagonal, and at least 2 of them. In float16,
            e^(T - 1) is infinite from T = 12.1 on.

    Returns:
        The estimate, in nats.

    Raises:
        ValueError: scores is no floating-point matrix (N, N), or N is less than 2.

    Examples:
        >>> import torch
        >>> round(nwj(torch.tensor([[4.0, 1.0], [1.0, 4.0]])).item(), 3)
        3.0
    """
    _check_scores(scores)
    return scores.diagonal().mean() - (_off_diagonal(scores) - 1).exp().mean()


def jsd(scores: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The mean log likelihood of telling pairs from other combinations, by the sigmoid of T.

    This is equation 4 of Deep InfoMax, and noise-contrastive estimation with as many noise samples
    as data. Its expectation is at most 2 JSD - log 4, with the Jensen-Shannon divergence between
    p(x, y) and p(x) p(y), so it is never positive, and no estimate of the mutual information. The
    best score is log p(x, y) / p(x) p(y).

    Args:
        scores: T(x_i, y_j), with the N pairs on the diagonal, and at least 2 of them.

    Raises:
        ValueError: scores is no floating-point matrix (N, N), or N is less than 2.

    Examples:
        >>> import torch
        >>> round(jsd(torch.zeros(5, 5)).item(), 3)  # -log 4
        -1.386
    """
    _check_scores(scores)
    return F.logsigmoid(scores.diagonal()).mean() + F.logsigmoid(-_off_diagonal(scores)).mean()


def local_info_nce(y: Float[Tensor, "b d"], maps: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
    """The mean of `info_nce` over the places of feature maps, each scored with its image's vector.

    This is the local objective of Deep InfoMax, (1 / HW) Σ I(C_p; Y), with the scores y_i · c_jp.
    The negatives of a place are those of the other images at the same place; the authors' code
    takes all places of the other images.

    Args:
        y: Features of the whole images, at least 2 images.
        maps: Features of their places, brought to the same D channels.

    Returns:
        The estimate, in nats; at most log B.

    Raises:
        ValueError: The tensors are not of these shapes, or there are fewer than 2 images.

    Examples:
        >>> import torch
        >>> y = torch.eye(4)
        >>> maps = 100 * y[:, :, None, None].expand(4, 4, 3, 3)
        >>> round(local_info_nce(y, maps).item(), 3)  # log 4
        1.386
    """
    check_floats(y, "y", "N", "D")
    check_floats(maps, "maps", *y.shape, "H", "W")
    if len(y) < 2:
        raise ValueError("y and maps must be of at least 2 images, but are of 1")
    scores = torch.einsum("id,jdhw->hwij", y, maps)
    return math.log(len(y)) + scores.log_softmax(3).diagonal(dim1=2, dim2=3).mean()


def gaussian_mi(rho: float | int, d: int) -> float:
    """-(d / 2) log(1 - ρ²), the mutual information of d independent pairs of normal variables.

    Args:
        rho: ρ, the correlation within each pair, between -1 and 1.
        d: Number of pairs.

    Returns:
        The mutual information, in nats.

    Raises:
        ValueError: rho is not strictly between -1 and 1, or d is no positive integer.

    Examples:
        >>> round(gaussian_mi(0.5, 128), 2)
        18.41
    """
    if isinstance(rho, bool) or not isinstance(rho, float | int) or not -1 < rho < 1:
        raise ValueError(f"rho must be between -1 and 1, but is {rho!r}")
    return -0.5 * integer(d, "d") * math.log1p(-rho * rho)


def _off_diagonal(scores: Tensor) -> Tensor:
    # after the first entry, each N + 1 entries end with one of the diagonal
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1]


def _check_scores(scores: Tensor) -> None:
    check_floats(scores, "scores", "N", "N")
    if scores.shape[0] != scores.shape[1] or len(scores) < 2:
        raise ValueError(
            f"scores must be (N, N), with N of at least 2, but its shape is {(*scores.shape,)}"
        )
