"""RAFT: optical flow by looking up all-pairs correlations and updating one flow field many times.

Source: Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow,
arXiv 2003.12039.

Positions and flows are (x, y): x counts columns to the right, y rows downwards, and whole numbers
are the centres of pixels. In a network, call `torchvision.models.optical_flow.raft_large`, whose
parameters have the same names. Left out are the two encoders, which are residual networks of
stride 8 (pass torchvision's), the smaller model, and the start from the flow of an earlier frame.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zhixing.convolution.arguments import check_floats, integer
from zhixing.foundations.autocast import autocast_off


def correlation_pyramid(
    f: Float[Tensor, "b c h w"], g: Float[Tensor, "b c h w"], *, levels: int = 4
) -> list[Float[Tensor, "b h w _ _"]]:
    """Compare each cell of `f` with each cell of `g`, then pool over the cells of `g` only.

    Level 0 is ⟨f(y, x), g(v, u)⟩ / √C; level l is its mean over squares of 2ˡ × 2ˡ cells of `g`.

    Args:
        f: Features (B, C, H, W) of the image from which the flow starts.
        g: Features of the other image, with the same sizes.
        levels: Number of levels.

    Returns:
        For each level l, a tensor (B, H, W, ⌊H / 2ˡ⌋, ⌊W / 2ˡ⌋): row and column in `f`, then
            in `g`. Features of fewer than 32 bits are compared in float32, also under autocast.

    Raises:
        ValueError: The features do not fit each other, or are too small for the last level.

    Examples:
        The second cell of `f` matches the third of `g`.

        >>> import torch
        >>> f = torch.tensor([1.0, 3.0, 0.0, 0.0]).view(1, 1, 1, 4)
        >>> g = torch.tensor([0.0, 1.0, 3.0, 0.0]).view(1, 1, 1, 4)
        >>> (volume,) = correlation_pyramid(f, g, levels=1)
        >>> volume[0, 0, 1, 0].tolist()
        [0.0, 3.0, 9.0, 0.0]
    """
    levels = integer(levels, "levels")
    check_floats(f, "f", "B", "C", "H", "W")
    b, c, h, w = f.shape
    check_floats(g, "g", "B", c, h, w)
    if len(g) != b:
        raise ValueError(f"f holds {b} images, but g holds {len(g)}")
    if min(h, w) < 2 ** (levels - 1):
        least = 2 ** (levels - 1)
        raise ValueError(f"{levels} levels need {least} × {least} cells, not {h} × {w}")
    wide = torch.promote_types(torch.promote_types(f.dtype, g.dtype), torch.float32)
    with autocast_off(f):
        # Dividing f, and not the volume, saves a copy of the largest tensor.
        volume = torch.einsum("bcyx,bcvu->byxvu", f.to(wide) / c**0.5, g.to(wide))
    pyramid = [volume]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1].flatten(0, 1), 2).unflatten(0, (b, h)))
    return pyramid


def lookup(
    pyramid: list[Float[Tensor, "b h w _ _"]], coords: Float[Tensor, "b 2 h w"], *, radius: int = 4
) -> Float[Tensor, "b n h w"]:
    """Read a window of correlations around the current match of each cell, from each level.

    Level l is read at (x, y) / 2ˡ + (dx, dy) for all whole dx and dy from -r to r, by bilinear
    interpolation, and as 0 outside. As in RAFT, this is (2ˡ - 1) / 2ˡ⁺¹ of its cells too far to the
    right and below, since the centre of cell u lies at 2ˡ u + (2ˡ - 1) / 2.

    Args:
        pyramid: As `correlation_pyramid` returns it.
        coords: The current match (x, y) of each cell, (B, 2, H, W), in cells of level 0.
        radius: r, in cells of each level.

    Returns:
        (B, levels · (2r + 1)², H, W). The order is level, dx, dy: dy changes from each channel to
            the next.

    Raises:
        ValueError: The tensors do not fit each other, or `radius` is no positive integer.

    Examples:
        Image 1 has one cell, whose match lies at (2, 2). Its correlation at (x, y) is 5 y + x.

        >>> import torch
        >>> volume, coords = torch.arange(25.0).view(1, 1, 1, 5, 5), torch.full((1, 2, 1, 1), 2.0)
        >>> lookup([volume], coords, radius=1).round().flatten().tolist()
        [6.0, 11.0, 16.0, 7.0, 12.0, 17.0, 8.0, 13.0, 18.0]
    """
    radius = integer(radius, "radius")
    if not pyramid or any(not isinstance(v, Tensor) or v.ndim != 5 for v in pyramid):
        raise ValueError("needs the pyramid as a list of tensors (B, H, W, H of g, W of g)")
    b, h, w = pyramid[0].shape[:3]
    check_floats(coords, "coords", "B", 2, h, w)
    if len(coords) != b:
        raise ValueError(f"the pyramid holds {b} images, but coords holds {len(coords)}")
    like = {"dtype": pyramid[0].dtype, "device": coords.device}
    steps = torch.arange(-radius, radius + 1, **like)
    delta = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # the rows move x
    match = coords.to(like["dtype"]).movedim(1, -1).reshape(-1, 1, 1, 2)
    windows = []
    for level, volume in enumerate(pyramid):
        points = match / 2**level + delta  # b·h·w 2r+1 2r+1 2
        # In `grid_sample`, -1 and 1 are the outer edges: no division by 0, even for a single cell.
        size = torch.tensor([volume.shape[4], volume.shape[3]], **like)
        grid = (2 * points + 1) / size - 1
        window = F.grid_sample(volume.flatten(0, 2)[:, None], grid, align_corners=False)
        windows.append(window.reshape(b, h, w, len(steps) ** 2))
    return torch.cat(windows, dim=-1).movedim(-1, 1)


def pixel_grid(
    b: int,
    h: int,
    w: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "{b} 2 {h} {w}"]:
    """The position (x, y) of each pixel, which is its match if nothing moves.

    Args:
        b: Number of images.
        h: Number of rows.
        w: Number of columns.
        dtype: Type of the result.
        device: Where to make it.

    Returns:
        (B, 2, H, W); the first channel counts columns.

    Raises:
        ValueError: A size is no positive integer (`b`: nor 0).

    Examples:
        >>> pixel_grid(1, 2, 3).tolist()
        [[[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]]
    """
    b, h, w = integer(b, "b", least=0), integer(h, "h"), integer(w, "w")
    y = torch.arange(h, dtype=dtype, device=device)
    x = torch.arange(w, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy")).repeat(b, 1, 1, 1)


def convex_upsample(
    flow: Float[Tensor, "b 2 h w"], mask: Float[Tensor, "b n h w"], *, factor: int = 8
) -> Float[Tensor, "b 2 _ _"]:
    """Enlarge a flow: each fine vector is a weighted mean of 3 × 3 coarse vectors, times `factor`.

    The weights are a softmax of `mask`. Beyond the border the vectors are 0, so weights that fall
    there shorten the flow.

    Args:
        flow: (B, 2, H, W) in cells.
        mask: Logits (B, 9 · factor², H, W). The order is neighbour (row by row), row and column
            of the fine pixel within the cell.
        factor: Pixels along the side of a cell.

    Returns:
        The flow in pixels, (B, 2, factor · H, factor · W).

    Raises:
        ValueError: The tensors do not fit each other, or `factor` is no positive integer.

    Examples:
        A flow of one cell; the weights of the four pixels prefer the middle neighbour.

        >>> import torch
        >>> mask = torch.zeros(1, 9, 2, 2, 1, 1)
        >>> mask[:, 4] = 20.0
        >>> flow = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
        >>> convex_upsample(flow, mask.view(1, 36, 1, 1), factor=2).round().tolist()
        [[[[6.0, 6.0], [6.0, 6.0]], [[-2.0, -2.0], [-2.0, -2.0]]]]
    """
    factor = integer(factor, "factor")
    check_floats(flow, "flow", "B", 2, "H", "W")
    b, _, h, w = flow.shape
    check_floats(mask, "mask", "B", 9 * factor**2, h, w)
    if len(mask) != b:
        raise ValueError(f"flow holds {b} images, but mask holds {len(mask)}")
    weights = mask.reshape(b, 1, 9, factor, factor, h, w).softmax(dim=2)
    neighbours = F.unfold(factor * flow, 3, padding=1).view(b, 2, 9, 1, 1, h, w)
    fine = (weights * neighbours).sum(dim=2)  # b 2 factor factor h w
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(b, 2, factor * h, factor * w)


def sequence_loss(
    flows: list[Float[Tensor, "b 2 h w"]],
    target: Float[Tensor, "b 2 h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    gamma: float | int = 0.8,
    max_flow: float | int = 400,
) -> Float[Tensor, ""]:
    """Mean absolute error of each predicted flow, summed with weights that grow to the last.

    Prediction i of N has the weight γᴺ⁻ⁱ. As in the authors' code, the mean runs over both
    components and over all pixels, with an error of 0 where there is no valid target.

    Args:
        flows: The predictions, first to last.
        target: The true flow; what it holds at invalid pixels, even NaN, has no effect.
        valid: Where the target is known.
        gamma: γ, from 0 (only the last counts) to 1 (all count alike).
        max_flow: Pixels whose true flow is at least this long (in pixels) do not count.

    Returns:
        A scalar.

    Raises:
        ValueError: The tensors do not fit each other, or an option is out of range.

    Examples:
        Errors of 2 and 1 in one of two components: 0.8 · 2 / 2 + 1 / 2.

        >>> import torch
        >>> target = torch.zeros(1, 2, 1, 1)
        >>> flows = [torch.tensor([e, 0.0]).view(1, 2, 1, 1) for e in (2.0, 1.0)]
        >>> round(sequence_loss(flows, target, torch.ones(1, 1, 1).bool()).item(), 6)
        1.3
    """
    check_floats(target, "target", "B", 2, "H", "W")
    if not flows or any(not isinstance(p, Tensor) or p.shape != target.shape for p in flows):
        raise ValueError(f"needs one or more flows of the target's shape {tuple(target.shape)}")
    wanted = (len(target), *target.shape[2:])
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool or valid.shape != wanted:
        raise ValueError(f"valid must be a tensor {wanted} of torch.bool, but is {valid!r:.60}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be between 0 and 1, but is {gamma!r}")
    if not max_flow > 0:
        raise ValueError(f"max_flow must be positive, but is {max_flow!r}")
    counts = (valid & (target.norm(dim=1) < max_flow))[:, None]
    target = target.masked_fill(~counts, 0)  # no NaN may reach the difference
    errors = [(counts * (flow - target).abs()).mean() for flow in flows]
    return sum(gamma ** (len(errors) - i) * error for i, error in enumerate(errors, 1))


class ConvGRU(nn.Module):
    """A gated recurrent unit whose three maps are convolutions.

    z = σ(Conv([h, x])), r = σ(Conv([h, x])), q = tanh(Conv([r h, x])), and the new state is
    (1 - z) h + z q.

    Args:
        hidden: Channels of the state h.
        inputs: Channels of the input x.
        kernel_size: Rows and columns, both odd.

    Examples:
        >>> import torch
        >>> gru = ConvGRU(4, 6, (1, 5))
        >>> gru(torch.zeros(1, 4, 3, 3), torch.rand(1, 6, 3, 3)).shape
        torch.Size([1, 4, 3, 3])
    """

    def __init__(self, hidden: int, inputs: int, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        hidden, inputs = integer(hidden, "hidden"), integer(inputs, "inputs")
        self.convz = nn.Conv2d(hidden + inputs, hidden, kernel_size, padding="same")
        self.convr = nn.Conv2d(hidden + inputs, hidden, kernel_size, padding="same")
        self.convq = nn.Conv2d(hidden + inputs, hidden, kernel_size, padding="same")

    def forward(
        self, h: Float[Tensor, "b c h w"], x: Float[Tensor, "b n h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the next state."""
        hx = torch.cat([h, x], dim=1)
        z, r = torch.sigmoid(self.convz(hx)), torch.sigmoid(self.convr(hx))
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)))
        return (1 - z) * h + z * q


class UpdateBlock(nn.Module):
    """One step of RAFT: from state, context, correlations and flow to the next state and a change.

    The motion encoder reads correlations and flow, a row GRU and a column GRU update the state, and
    the flow head reads the change from it. With the default width these are torchvision's
    `MotionEncoder`, `RecurrentBlock` and `FlowHead` of `raft_large`, with their parameter names.

    Args:
        correlations: Channels that `lookup` returns.
        width: Channels of the state, of the context and of the encoded motion.

    Raises:
        ValueError: `width` is odd or less than 4, or `correlations` is no positive integer.

    Examples:
        >>> import torch
        >>> update = UpdateBlock(2 * 7 * 7, width=16)
        >>> h, context = torch.zeros(2, 1, 16, 5, 6)
        >>> h, change = update(h, context, torch.zeros(1, 98, 5, 6), torch.zeros(1, 2, 5, 6))
        >>> h.shape, change.shape
        (torch.Size([1, 16, 5, 6]), torch.Size([1, 2, 5, 6]))
    """

    def __init__(self, correlations: int = 324, *, width: int = 128) -> None:
        super().__init__()
        correlations, width = integer(correlations, "correlations"), integer(width, "width")
        if width % 2 or width < 4:
            raise ValueError(f"width must be even and at least 4, but is {width}")
        wide = 3 * width // 2
        self.motion_encoder = nn.ModuleDict(
            {
                "convcorr1": _conv_relu(correlations, 2 * width, 1),
                "convcorr2": _conv_relu(2 * width, wide, 3),
                "convflow1": _conv_relu(2, width, 7),
                "convflow2": _conv_relu(width, width // 2, 3),
                "conv": _conv_relu(wide + width // 2, width - 2, 3),
            }
        )
        self.recurrent_block = nn.ModuleDict(
            {
                "convgru1": ConvGRU(width, 2 * width, (1, 5)),
                "convgru2": ConvGRU(width, 2 * width, (5, 1)),
            }
        )
        self.flow_head = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(width, 2 * width, 3, padding=1),
                "conv2": nn.Conv2d(2 * width, 2, 3, padding=1),
            }
        )

    def forward(
        self,
        h: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b c h w"],
        correlations: Float[Tensor, "b n h w"],
        flow: Float[Tensor, "b 2 h w"],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 2 h w"]]:
        """Return the next state, and what to add to the flow (in cells)."""
        encode, gru, head = self.motion_encoder, self.recurrent_block, self.flow_head
        seen = encode["convcorr2"](encode["convcorr1"](correlations))
        moved = encode["convflow2"](encode["convflow1"](flow))
        motion = encode["conv"](torch.cat([seen, moved], dim=1))
        x = torch.cat([context, motion, flow], dim=1)
        h = gru["convgru2"](gru["convgru1"](h, x), x)
        return h, head["conv2"](F.relu(head["conv1"](h)))


class RAFT(nn.Module):
    """Optical flow by repeated lookups and updates, starting from a flow of 0.

    With torchvision's encoders and the defaults, the parameters have the names of torchvision's
    `raft_large`, so that its weights can be loaded, and the flows are the same.

    Args:
        feature_encoder: From images (2B, 3, H, W) to features at 1/stride of the size. Both images
            pass as one batch.
        context_encoder: From images (B, 3, H, W) to 2 · width channels at 1/stride of the size.
        width: Channels of the state, as for `UpdateBlock`.
        levels: Levels of the pyramid.
        radius: Radius of the windows, in cells.
        stride: Pixels along the side of a cell.

    Raises:
        ValueError: The images do not fit each other, their sides are no multiples of `stride`, or
            they are too small for the pyramid.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> encoders = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(3, 32, 4, stride=4)
        >>> net = RAFT(*encoders, width=16, levels=2, radius=2, stride=4)
        >>> flows = net(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20), updates=5)
        >>> len(flows), flows[-1].shape
        (5, torch.Size([1, 2, 16, 20]))
    """

    def __init__(
        self,
        feature_encoder: nn.Module,
        context_encoder: nn.Module,
        *,
        width: int = 128,
        levels: int = 4,
        radius: int = 4,
        stride: int = 8,
    ) -> None:
        super().__init__()
        levels, radius = integer(levels, "levels"), integer(radius, "radius")
        self.levels, self.radius, self.stride = levels, radius, integer(stride, "stride")
        self.feature_encoder, self.context_encoder = feature_encoder, context_encoder
        self.update_block = UpdateBlock(levels * (2 * radius + 1) ** 2, width=width)
        last = nn.Conv2d(2 * width, 9 * stride**2, 1)
        self.mask_predictor = nn.ModuleDict(
            {"convrelu": _conv_relu(width, 2 * width, 3), "conv": last}
        )

    def forward(
        self,
        image1: Float[Tensor, "b 3 h w"],
        image2: Float[Tensor, "b 3 h w"],
        *,
        updates: int = 12,
    ) -> list[Float[Tensor, "b 2 h w"]]:
        """Return the flow from `image1` to `image2` in pixels after each update."""
        updates = integer(updates, "updates")
        check_floats(image1, "image1", "B", 3, "H", "W")
        if not isinstance(image2, Tensor) or image2.shape != image1.shape:
            raise ValueError(f"image2 must have the shape of image1, {tuple(image1.shape)}")
        if image1.shape[2] % self.stride or image1.shape[3] % self.stride:
            sides = "{} × {}".format(*image1.shape[2:])
            raise ValueError(f"the sides must be multiples of {self.stride}, but are {sides}")
        f, g = self.feature_encoder(torch.cat([image1, image2])).chunk(2)
        pyramid = correlation_pyramid(f, g, levels=self.levels)
        h, context = self.context_encoder(image1).chunk(2, dim=1)
        h, context = torch.tanh(h), F.relu(context)
        start = pixel_grid(len(f), *f.shape[2:], dtype=f.dtype, device=f.device)
        flow, flows = torch.zeros_like(start), []
        for _ in range(updates):
            flow = flow.detach()  # gradients pass from update to update through the state only
            correlations = lookup(pyramid, start + flow, radius=self.radius).to(f.dtype)
            h, change = self.update_block(h, context, correlations, flow)
            flow = flow + change
            mask = 0.25 * self.mask_predictor["conv"](self.mask_predictor["convrelu"](h))
            flows.append(convex_upsample(flow, mask, factor=self.stride))
        return flows


def _conv_relu(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(convolution, nn.ReLU())
