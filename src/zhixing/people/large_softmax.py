"""Softmax over very many classes: on a sample of them, or on shards that several devices hold.

Sources: Jean et al., On Using Very Large Target Vocabulary for Neural Machine Translation,
arXiv 1412.2007, section 3 (sampling); An et al., Partial FC, arXiv 2010.05222 (sampling, shards);
Taigman et al., DeepFace, CVPR 2014 (locally connected layers).

Left out: margins, which go between the logits and the loss; communication between processes, for
which torch has `torch.distributed.tensor.parallel.loss_parallel`; optimisers that skip the classes
outside the sample.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer, pair


def sample_classes(
    labels: Int[Tensor, " b"],
    classes: int,
    *,
    rate: float | int,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, " s"], Int[Tensor, " b"], Float[Tensor, " s"]]:
    """The classes of the labels, and as many others, drawn uniformly, as complete the sample.

    This is the sample of Partial FC, with S = max(1, round(rate · classes)) different classes, or
    more if the labels alone have more.

    Args:
        labels: Class of each sample, from 0 to classes - 1, in int64.
        classes: C, the number of classes.
        rate: r, the sampled share of the classes, above 0 and at most 1.
        generator: Source of the draws, on the device of the labels; None stands for torch's own.

    Returns:
        The sampled classes, in ascending order; the labels as positions in this list; and the
            logarithm of the probability with which each class is in the sample, in float32: 0 for
            the P classes of the labels, and log (S - P) / (C - P) for the others.

    Raises:
        ValueError: labels are not int64 (B,) in this range, or an option is out of range.

    Examples:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.tensor([7, 2, 7])
        >>> index, positions, log_q = sample_classes(labels, 10, rate=0.5, generator=generator)
        >>> len(index), bool((index[positions] == labels).all())
        (5, True)
        >>> log_q[positions].tolist()  # of the classes that are always there
        [0.0, 0.0, 0.0]
        >>> round(log_q.exp().min().item(), 3)  # 3 of the 8 others
        0.375
    """
    classes = integer(classes, "classes")
    _check_labels(labels, classes)
    if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, but is {rate!r}")
    positive = labels.unique()
    size = max(1, round(rate * classes), len(positive))
    # in half precision, many would be equal
    priority = torch.rand(classes, generator=generator, dtype=torch.float32, device=labels.device)
    priority[positive] = 2.0
    index = priority.topk(size).indices.sort().values
    others = classes - len(positive)
    # without others, or with all of them, each class is certain
    q = (size - len(positive)) / others if others else 1.0
    log_q = torch.full(
        (size,), math.log(q) if q else 0.0, dtype=torch.float32, device=labels.device
    )
    log_q[torch.searchsorted(index, positive)] = 0.0
    return index, torch.searchsorted(index, labels), log_q


def sampled_softmax_loss(
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    samples: Int[Tensor, " s"],
    log_count: Float[Tensor, " s"] | None = None,
) -> Float[Tensor, ""]:
    """The mean cross-entropy, with the sum over all classes estimated from a sample.

    -log e^{z_y} / (e^{z_y} + Σ_{j in samples, j ≠ y} e^{z_j - log_count_j}), with z = weight · x.
    The target is added if it was not drawn, and counted once if it was. The estimate of the sum is
    unbiased if log_count is right; that of the loss is then too small on average. With log_count
    None, the loss is that of a softmax over the sample. TensorFlow's function of this name also
    subtracts the logarithm of the target's count from the target's logit.

    Args:
        features: x of each sample.
        weight: One row for each of the C classes, as in `nn.Linear(d, c)`.
        labels: Class of each sample, from 0 to C - 1, in int64.
        samples: Drawn classes. A class drawn twice counts twice.
        log_count: Logarithm of the expected number of times that each of them is drawn: log S · Q
            for S draws with replacement from Q; the third result of `sample_classes`.

    Raises:
        ValueError: The tensors do not fit each other, or a class is out of range.

    Examples:
        With all classes, it is the cross-entropy.

        >>> import torch
        >>> features, weight = torch.eye(3), torch.eye(3)[[0, 1, 2, 0]]
        >>> labels = torch.tensor([0, 1, 2])
        >>> loss = sampled_softmax_loss(features, weight, labels, samples=torch.arange(4))
        >>> full = torch.nn.functional.cross_entropy(features @ weight.T, labels)
        >>> torch.allclose(loss, full)
        True

        Half of the classes, and each counts for two.

        >>> samples, log_count = torch.tensor([1, 3]), torch.tensor([0.5, 0.5]).log()
        >>> half = sampled_softmax_loss(
        ...     features, weight, labels, samples=samples, log_count=log_count
        ... )
        >>> [round(x.item(), 3) for x in (full, half)]
        [0.831, 0.925]
    """
    check_floats(features, "features", "B", "D")
    check_floats(weight, "weight", "C", features.shape[1])
    _check_labels(labels, len(weight), len(features))
    _check_labels(samples, len(weight), name="samples")
    if log_count is not None:
        check_floats(log_count, "log_count", len(samples))
    # one indexing, since the gradient of each is as large as the weight
    own, drawn = weight[torch.cat([labels, samples])].split([len(labels), len(samples)])
    target = (features * own).sum(1)
    logits = features @ drawn.T
    if log_count is not None:
        logits = logits - log_count.to(logits)
    logits = logits.masked_fill(samples == labels[:, None], -math.inf)
    return F.cross_entropy(torch.cat([target[:, None], logits], 1), torch.zeros_like(labels))


def sharded_cross_entropy(
    shards: Sequence[Float[Tensor, "b _"]], labels: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    """The mean cross-entropy of logits that are divided by classes into shards.

    log Σ_k t_k - (z_y - M), with the largest logit M of all shards, and t_k = Σ_j e^{z_j - M} over
    shard k. A device that holds a shard sends three numbers for each sample: its largest logit,
    then t_k, and z_y - M if it holds the label's class, else 0. Logits are not sent.

    Args:
        shards: Logits (B, C_k) of neighbouring classes, in order; each C_k is at least 1.
        labels: Class of each sample, counted over all shards, in int64.

    Raises:
        ValueError: There is no shard, their sizes do not fit, or a class is out of range.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0, 1.0], [0.0, 2.0, 500.0]])
        >>> labels = torch.tensor([0, 2])
        >>> loss = sharded_cross_entropy([logits[:, :2], logits[:, 2:]], labels)
        >>> torch.allclose(loss, torch.nn.functional.cross_entropy(logits, labels))
        True
    """
    if not isinstance(shards, list | tuple) or not shards:
        raise ValueError(f"shards must be a list of at least one tensor, but are {shards!r}")
    check_floats(shards[0], "shards[0]", "B", "C")
    for k, shard in enumerate(shards):
        check_floats(shard, f"shards[{k}]", "C" if len(shards[0]) else "B", "C")
        if len(shard) != len(shards[0]):
            raise ValueError(
                f"shards[{k}] has {len(shard)} samples, but shards[0] {len(shards[0])}"
            )
    _check_labels(labels, sum(shard.shape[1] for shard in shards), len(shards[0]))
    # each of the three results of a shard, largest, total and target, is a number for each sample
    largest = torch.stack([shard.detach().amax(1) for shard in shards]).amax(0)
    total, target, first = 0.0, 0.0, 0
    for shard in shards:
        total = total + (shard - largest[:, None]).exp().sum(1)
        local = labels - first
        mine = (local >= 0) & (local < shard.shape[1])
        logit = shard.gather(1, local.where(mine, 0)[:, None])[:, 0]
        target = target + (logit - largest).where(mine, 0.0)
        first += shard.shape[1]
    return (total.log() - target).mean()


class LocallyConnected2d(nn.Module):
    """A convolution whose kernel and bias differ from place to place, as in DeepFace.

    Without padding. The weight has a kernel (O, C, K, K), as that of `nn.Conv2d`, for each of the
    HO × WO outputs, so the size of the images is fixed.

    Args:
        channels: C, of the input.
        out_channels: O.
        size: (H, W), height and width of the input.
        kernel_size: K.
        stride: Distance of the places.

    Raises:
        ValueError: An option is out of range, or the input does not have this size.

    Examples:
        Layer L4 of DeepFace has more than half of the network's parameters.

        >>> import torch
        >>> with torch.device("meta"):
        ...     layer = LocallyConnected2d(16, 16, (63, 63), kernel_size=9)
        >>> sum(p.numel() for p in layer.parameters())
        62774800
        >>> layer(torch.empty(2, 16, 63, 63, device="meta")).shape
        torch.Size([2, 16, 55, 55])
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        kernel_size: int,
        stride: int = 1,
    ) -> None:
        super().__init__()
        channels, out_channels = (
            integer(channels, "channels"),
            integer(out_channels, "out_channels"),
        )
        self.kernel_size, self.stride = (
            integer(kernel_size, "kernel_size"),
            integer(stride, "stride"),
        )
        self.size = pair(size, "size")
        if self.kernel_size > min(self.size):
            raise ValueError(f"kernel_size must be at most {min(self.size)}, but is {kernel_size}")
        ho, wo = ((length - self.kernel_size) // self.stride + 1 for length in self.size)
        kernel = (out_channels, channels, self.kernel_size, self.kernel_size)
        bound = 1 / math.sqrt(math.prod(kernel[1:]))  # as nn.Conv2d
        self.weight = nn.Parameter(torch.empty(ho, wo, *kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels, ho, wo).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        check_floats(x, "x", "B", self.weight.shape[3], *self.size)
        patches = F.unfold(x, self.kernel_size, stride=self.stride)  # (B, C · K · K, HO · WO)
        weight = self.weight.flatten(3).flatten(0, 1)  # (HO · WO, O, C · K · K)
        y = torch.einsum("bil,loi->bol", patches, weight)
        return y.unflatten(2, self.weight.shape[:2]) + self.bias


def _check_labels(
    labels: Tensor, classes: int, number: int | None = None, name: str = "labels"
) -> None:
    wanted = "B" if number is None else number
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        what = f"a {type(labels).__name__}"
        if isinstance(labels, Tensor):
            what = f"{labels.dtype} {(*labels.shape,)}"
        raise ValueError(f"{name} must be int64 ({wanted},), but is {what}")
    if number is not None and len(labels) != number:
        raise ValueError(f"{name} must be int64 ({number},), but has {len(labels)} entries")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        found = f"from {labels.min()} to {labels.max()}"
        raise ValueError(f"{name} must be from 0 to {classes - 1}, but are {found}")
