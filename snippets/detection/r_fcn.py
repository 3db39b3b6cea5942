# %% quick_start
import torch

from zhixing.detection.r_fcn import ps_pool, vote

maps = torch.rand(1, 21 * 7 * 7, 38, 63)  # 20 classes and the background, 7 × 7 parts
boxes = torch.tensor([[0, 100.0, 150.0, 400.0, 420.0]])  # image, x1, y1, x2, y2
pooled = ps_pool(maps, boxes, k=7, scale=1 / 16)  # or torchvision.ops.ps_roi_pool
print(tuple(pooled.shape), tuple(vote(pooled).shape))

# %% setup
import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch import nn

from zhixing.detection.r_fcn import RFCNHead, decode, encode, rfcn_loss
from zhixing.detection.scenes import CLASSES, draw_scenes
from zhixing.metrics.mean_average_precision import box_iou, mean_average_precision

torch.manual_seed(0)
torch.set_num_threads(1)

# %% theorem
features = torch.randn(1, 8, 20, 30, dtype=torch.float64)
score_maps = nn.Conv2d(8, 5 * 9, 1).double()  # five classes, 3 × 3 parts
region = torch.tensor([[0, 40.0, 30.0, 300.0, 200.0]], dtype=torch.float64)

by_maps = vote(ps_pool(score_maps(features), region, k=3))

# The other way round: pool each feature in 3 × 3 bins, then one linear layer.
average = ps_pool(features.repeat_interleave(9, dim=1), region, k=3)
weight = score_maps.weight.view(5, 3, 3, 8) / 9  # class, bin, feature
bias = score_maps.bias.view(5, 9).mean(1)
by_layer = torch.einsum("cijf,nfij->nc", weight, average) + bias
print("equal:", torch.allclose(by_maps, by_layer, rtol=1e-12, atol=1e-12))

# %% theorem_holds tags=["hidden"]
assert torch.allclose(by_maps, by_layer, rtol=1e-10, atol=1e-10)
assert by_maps.abs().max() > 0.01


# %% regions
def windows(step=4, sides=(12.0, 18.0, 25.0)):
    """Boxes of nine shapes, all over the image: the regions to be judged."""
    center = torch.arange(step / 2, 64, step)
    x, y, w, h = torch.cartesian_prod(center, center, *2 * [torch.tensor(sides)]).T
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    return boxes[((boxes >= -4) & (boxes <= 68)).all(1)]


WINDOWS = windows()


def training_regions(target, generator):
    """Each true box six times, moved and stretched, and 16 windows."""
    true = target["boxes"].repeat(6, 1)
    sides = (true[:, 2:] - true[:, :2]).repeat(1, 2)
    moved = true + sides * (0.5 * torch.rand(true.shape, generator=generator) - 0.25)
    weights = 0.1 + box_iou(WINDOWS, target["boxes"]).amax(1)
    chosen = torch.multinomial(weights, 16, generator=generator)
    boxes = torch.cat([moved, WINDOWS[chosen]])
    iou, nearest = box_iou(boxes, target["boxes"]).max(1)
    labels = torch.where(iou >= 0.5, target["labels"][nearest] + 1, 0)
    return boxes, labels, encode(boxes, target["boxes"][nearest])


# %% network
class RFCN(nn.Module):
    def __init__(self, k, width=16):
        super().__init__()
        convolutions = (
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.Conv2d(width, width, 3, padding=3, dilation=3),
        )
        pairs = [(convolution, nn.ReLU()) for convolution in convolutions]
        self.backbone = nn.Sequential(*sum(pairs, ()))
        self.head = RFCNHead(width, len(CLASSES), k=k, scale=1 / 2)

    def forward(self, images, boxes):
        return self.head(self.backbone(images - 0.3), boxes)


def train(k, images, regions, seed=0, steps=100):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = RFCN(k)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-2, steps)
    for _ in range(steps):
        batch = torch.randint(len(images), (8,), generator=generator).tolist()
        boxes = [F.pad(regions[b][0], (1, 0), value=n) for n, b in enumerate(batch)]
        labels, deltas = (torch.cat([regions[b][i] for b in batch]) for i in (1, 2))
        outputs = net(images[batch], torch.cat(boxes))
        optimizer.zero_grad()
        rfcn_loss(*outputs, labels, deltas, weight=3).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


# %% detect
def nms(boxes, scores, threshold=0.2):
    """Keep the best box, drop all that overlap it too much, and so on."""
    kept, order = [], scores.argsort(descending=True)
    while len(order):
        kept.append(order[0])
        others = box_iou(boxes[order[:1]], boxes[order[1:]])[0] <= threshold
        order = order[1:][others]
    return torch.tensor(kept, dtype=torch.long)


@torch.no_grad()
def detect(net, image, least=0.1):
    logits, deltas = net(image[None], F.pad(WINDOWS, (1, 0)))
    scores, labels = logits.softmax(1)[:, 1:].max(1)
    likely = scores > least
    boxes, scores = decode(WINDOWS, deltas)[likely], scores[likely]
    kept = nms(boxes, scores)
    found = boxes[kept], scores[kept], labels[likely][kept]
    return dict(zip(("boxes", "scores", "labels"), found, strict=True))


# %% compare
generator = torch.Generator().manual_seed(0)
images, targets = draw_scenes(200, generator=generator)
regions = [training_regions(target, generator) for target in targets]
test_images, test_targets = draw_scenes(20, generator=torch.Generator().manual_seed(99))
nets, found, ap50 = {}, {}, {}
for k in (3, 1):
    nets[k] = train(k, images, regions)
    found[k] = [detect(nets[k], image) for image in test_images]
    ap50[k] = mean_average_precision(found[k], test_targets, iou_thresholds=[0.5])
    print(f"{k} × {k} parts: AP50 is {'above' if ap50[k] > 0.2 else 'below'} 0.2")

# %% compare_holds tags=["hidden"]
window_count = len(WINDOWS)
assert ap50[3] > 0.25
assert ap50[1] < 0.15
assert ap50[3] > ap50[1] + 0.15


# %% drawn tags=["hidden"]
# On the images and maps, colours must not change with the theme, as "black" would.
DARK, LIGHT, ORANGE = "#010101", "#fefefe", "#ff8c1a"


def draw_box(axes, box, color, style="-", text=None):
    x1, y1, x2, y2 = box.tolist()
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], style, color=color, lw=1.5)
    if text:
        background = {"facecolor": color, "pad": 0.8, "linewidth": 0}
        x, y = max(x1, 0) + 1, max(y1, 5)
        axes.text(x, y, text, color=DARK, fontsize=7, bbox=background)


SHOWN = (1, 2, 8, 16)
figure, panels = plt.subplots(2, len(SHOWN), figsize=(7.2, 4), layout="constrained")
for row, k in zip(panels, (3, 1), strict=True):
    for axes, i in zip(row, SHOWN, strict=True):
        axes.imshow(test_images[i].permute(1, 2, 0), extent=(0, 64, 64, 0))
        for box in test_targets[i]["boxes"]:
            draw_box(axes, box, LIGHT, "--")
        for box, score in zip(found[k][i]["boxes"], found[k][i]["scores"], strict=True):
            if score > 0.7:
                draw_box(axes, box, ORANGE, text=f"{score:.1f}")
        axes.set(xlim=(0, 64), ylim=(64, 0), xticks=[], yticks=[])
        axes.grid(visible=False)
    row[0].set(ylabel=f"{k} × {k} parts\nAP50 {ap50[k]:.2f}")

# %% picture tags=["hidden"]
# One object, seen by a region that fits, and by one that is moved to the right.
SCENE, GAP = 9, 3
with torch.no_grad():
    all_maps = nets[3].head.rfcn_cls(nets[3].backbone(test_images[[SCENE]] - 0.3))
by_class = all_maps.unflatten(1, (-1, 9))
label = test_targets[SCENE]["labels"][0] + 1
nine = by_class[:, label] - by_class[:, 0]  # how much each part speaks for the class
hit = test_targets[SCENE]["boxes"][0]
shifted = hit + torch.tensor([13.0, 0, 13, 0])
tiles = F.pad(nine[0].view(3, 3, 32, 32), (0, GAP, 0, GAP), value=float("nan"))
mosaic = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)[:-GAP, :-GAP]
figure, panels = plt.subplots(
    2, 3, figsize=(7.2, 5), width_ratios=(1, 1.3, 1), layout="constrained"
)
votes = []
for row, region, name in zip(panels, (hit, shifted), ("hit", "shifted"), strict=True):
    row[0].imshow(test_images[SCENE].permute(1, 2, 0), extent=(0, 64, 64, 0))
    draw_box(row[0], region, ORANGE)
    row[0].set(ylabel=name, xlabel="region")
    row[1].imshow(mosaic, cmap="coolwarm", vmin=-16, vmax=16)
    pooled = ps_pool(nine, F.pad(region[None], (1, 0)), k=3, scale=1 / 2)[0, 0]
    votes.append(pooled.mean().item())
    row[2].imshow(pooled, cmap="coolwarm", vmin=-16, vmax=16)
    x1, y1, x2, y2 = (region / 2).round().int().tolist()
    for i in range(3):
        for j in range(3):
            left, top = x1 + j * (x2 - x1) / 3, y1 + i * (y2 - y1) / 3
            corner = torch.tensor([left + j * (32 + GAP), top + i * (32 + GAP)]) - 0.5
            side = torch.tensor([(x2 - x1) / 3, (y2 - y1) / 3])
            draw_box(row[1], torch.cat([corner, corner + side]), DARK)
            value = f"{pooled[i, j].item():+.1f}".replace("-", "−")
            color = LIGHT if pooled[i, j].abs() > 12 else DARK
            row[2].text(j, i, value, ha="center", va="center", color=color)
    row[1].set(xlabel="nine maps of the class")
    row[2].set(xlabel="means of the bins")
    title = f"vote {votes[-1]:+.1f}".replace("-", "−")
    row[2].set_title(title, fontsize="medium")
    for axes in row:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)

# %% picture_holds tags=["hidden"]
assert votes[0] > 0 > votes[1]
assert CLASSES[label - 1] == "ellipse"


# %% cost
def conv5_products(rows, columns, stride):
    """Multiplications in the last nine layers of ResNet-101, without the classifier."""
    outputs = rows * columns // stride**2
    entry = 1024 * 512 * rows * columns + 1024 * 2048 * outputs  # and the shortcut
    middle = (3 * 9 * 512 * 512 + 3 * 512 * 2048 + 2 * 2048 * 512) * outputs
    return entry + middle


per_region = conv5_products(14, 14, stride=2)
once = conv5_products(38, 63, stride=1)  # an image of 600 × 1000, dilated
score_layers = (2048 * 1024 + 1024 * 49 * (21 + 4)) * 38 * 63
print(f"conv5 for 300 regions    {300 * per_region / 1e9:4.0f} billion")
print(f"conv5 once for the image {once / 1e9:4.0f} billion")
print(f"maps of R-FCN            {score_layers / 1e9:4.0f} billion")

# %% cost_holds tags=["hidden"]
equal_at = (once + score_layers) / per_region
assert 240e9 < 300 * per_region < 246e9
assert 35e9 < once < 37e9
assert 50 < equal_at < 60

# %% channel_order
conv = nn.Conv2d(8, 21 * 49, 1)  # class, row, column: as in Caffe and torchvision
by_part = conv.weight.view(21, 49, 8).transpose(0, 1).flatten(0, 1)  # part, class
x = torch.randn(1, 8, 38, 63)
right = vote(ps_pool(conv(x), boxes))
wrong = vote(ps_pool(F.conv2d(x, by_part[..., None, None]), boxes))
print("same class wins:", (right.argmax() == wrong.argmax()).item())

# %% channel_order_holds tags=["hidden"]
assert right.shape == wrong.shape == (1, 21)
repaired = by_part.view(49, 21, 8).transpose(0, 1).flatten(0, 1)
assert torch.equal(repaired, conv.weight.flatten(1))
assert not torch.allclose(right, wrong, atol=1e-3)

# %% slides
maps = torch.randn(1, 49, 40, 40, dtype=torch.float64)
slides = torch.arange(65)[:, None] * torch.tensor([0, 1, 0, 1, 0])
start = torch.tensor([[0, 100.0, 100.0, 300.0, 260.0]])
scores = vote(ps_pool(maps, start + slides))[:, 0]
print(len(scores), "positions,", len(scores.unique()), "scores")

# %% slides_holds tags=["hidden"]
distinct = len(scores.unique())
longest = max(len(list(run)) for run in [scores[scores == s] for s in scores.unique()])
assert distinct == 9
assert longest == 8

# %% border
ones = torch.ones(1, 49, 38, 63)  # a score of 1 everywhere
inside = torch.tensor([[0, 0.0, 100.0, 224.0, 324.0]])
for left in (0, -64, -112):
    score = vote(ps_pool(ones, inside + torch.tensor([0, left, 0, left, 0]))).item()
    print(f"x1 = {left:4}: score {score:.2f}")

# %% border_holds tags=["hidden"]
assert abs(score - 4 / 7) < 1e-6
assert abs(vote(ps_pool(ones, inside)).item() - 1) < 1e-6
