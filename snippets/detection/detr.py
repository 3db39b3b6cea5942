# %% quick_start
import torch

from zhixing.detection.detr import match, set_loss, to_centers

pixels = torch.tensor([[6.0, 10, 26, 34], [22, 14, 44, 40]])  # two objects
target = {"labels": torch.tensor([0, 2]), "boxes": to_centers(pixels / 64)}

# Four queries, three classes and "no object".
logits = torch.zeros(1, 4, 4, requires_grad=True)
guesses = [14.0, 12, 36, 38], [2, 6, 18, 30], [40, 40, 62, 60], [0, 50, 9, 60]
boxes = to_centers(torch.tensor([guesses]) / 64).requires_grad_()

queries, objects = match(logits[0], boxes[0], target["labels"], target["boxes"])
for query, thing in zip(queries.tolist(), objects.tolist(), strict=True):
    print(f"query {query} answers for object {thing}")
losses = set_loss(logits, boxes, [target])
losses["total"].backward()
print({name: round(loss.item(), 3) for name, loss in losses.items()})

# %% quick_start_holds tags=["hidden"]
assert (queries.tolist(), objects.tolist()) == ([0, 1], [1, 0])
assert (boxes.grad[0, 2:] == 0).all()
assert (boxes.grad[0, :2] != 0).any(1).all()
assert (logits.grad != 0).all()

# %% setup
import torch.nn.functional as F
from torch import nn

from zhixing.detection.detr import (
    assign,
    detections,
    generalized_iou,
    position_encoding,
    set_loss,
    to_centers,
)
from zhixing.detection.scenes import draw_scenes
from zhixing.metrics.mean_average_precision import box_iou, mean_average_precision

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # so that other processors print the same

# %% picture_data tags=["hidden"]
objects_drawn = (
    torch.tensor([[6.0, 10, 26, 34], [22, 14, 44, 40], [42, 44, 60, 59]]) / 64
)
queries_drawn = (
    torch.tensor(
        [[14.0, 12, 36, 38], [2, 6, 18, 30], [38, 40, 57, 61], [34, 3, 60, 22]]
    )
    / 64
)
p_drawn = torch.tensor([0.6, 0.3, 0.6, 0.2])[:, None]  # of the one class there is
l1_drawn = (to_centers(queries_drawn)[:, None] - to_centers(objects_drawn)).abs().sum(2)
giou_drawn = generalized_iou(queries_drawn[:, None], objects_drawn)
costs_drawn = -p_drawn + 5 * l1_drawn - 2 * giou_drawn
pairs_drawn = list(zip(*(x.tolist() for x in assign(costs_drawn)), strict=True))
cheapest_drawn = costs_drawn.argmin(0).tolist()
assert cheapest_drawn == [0, 0, 2]
assert pairs_drawn == [(0, 1), (1, 0), (2, 2)]

# %% picture tags=["hidden"]
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle


def outline(axes, box, **options):
    x1, y1, x2, y2 = box.tolist()
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **options))
    return x1, y1, x2, y2


figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
for i, box in enumerate(objects_drawn * 64):
    x1, _, _, y2 = outline(left, box, color="C0", linewidth=2)
    left.text(x1 + 1, y2 - 1, i, color="C0", va="bottom", weight="bold")
for i, box in enumerate(queries_drawn * 64):
    x1, y1, _, _ = outline(left, box, color="C1", linestyle="--")
    left.text(x1 + 1, y1 + 1, i, color="C1", va="top", weight="bold")
left.set(
    xlim=(0, 64), ylim=(64, 0), aspect="equal", xlabel="x (pixels)", ylabel="y (pixels)"
)
shown = right.imshow(costs_drawn, cmap="viridis_r")
for i in range(4):
    for j in range(3):
        dark = costs_drawn[i, j] > costs_drawn.mean()
        right.text(
            j,
            i,
            f"{costs_drawn[i, j]:.1f}".replace("-", "−"),
            ha="center",
            va="center",
            color="#fdfdfd" if dark else "#101010",
        )
for i, j in pairs_drawn:
    right.add_patch(
        Rectangle(
            (j - 0.46, i - 0.44), 0.92, 0.88, fill=False, color="#6a1b8a", linewidth=3
        )
    )
for j, i in enumerate(cheapest_drawn):
    right.plot(
        j,
        i,
        "o",
        markersize=34,
        markerfacecolor="none",
        markeredgecolor="#b5341c",
        markeredgewidth=2,
    )
right.set(xlabel="object", ylabel="query", xticks=range(3), yticks=range(4))
left.grid(False)
right.grid(False)
figure.colorbar(shown, label="cost")


# %% greedy
def greedy(costs):
    """The cheapest pair, then the cheapest of the other rows and columns, …"""
    costs, total = costs.clone(), 0.0
    for _ in range(len(costs)):
        row, column = divmod(costs.argmin().item(), costs.shape[1])
        total += costs[row, column].item()
        costs[row], costs[:, column] = torch.inf, torch.inf
    return total


generator = torch.Generator().manual_seed(0)
print("  n   optimum  Σ 1/k²   greedy   Σ 1/k")
random_costs = {}
for n in 5, 20, 50:
    drawn = torch.empty(60, n, n).exponential_(generator=generator)
    best = sum(costs[assign(costs)].sum().item() for costs in drawn) / len(drawn)
    first = sum(map(greedy, drawn)) / len(drawn)
    k = torch.arange(1, n + 1.0)
    random_costs[n] = best, (1 / k**2).sum().item(), first, (1 / k).sum().item()
    print(f"{n:3}", *(f"{value:8.2f}" for value in random_costs[n]))

# %% greedy_holds tags=["hidden"]
for best, parisi, first, harmonic in random_costs.values():
    assert abs(best - parisi) < 0.25
    assert abs(first - harmonic) < 0.8
    assert first > 1.3 * best


# %% network
class SmallDetector(nn.Module):
    """Three strided convolutions, four queries, and one layer of a decoder."""

    def __init__(self, queries=4, width=48):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(16, width, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(), nn.Flatten(2)),
        )
        self.queries = nn.Parameter(torch.randn(queries, width))
        places = position_encoding(4, 4, width).flatten(1).T
        self.register_buffer("places", places.double())
        self.read = nn.MultiheadAttention(width, 4, batch_first=True)
        self.compare = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.feed_forward = nn.Sequential(
            *(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        )
        self.classify = nn.Linear(width, 2)  # object or no object
        self.locate = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4), nn.Sigmoid())
        )

    def forward(self, images):
        pixels = self.norms[0](self.features(images).transpose(1, 2)) + self.places
        q = self.queries.expand(len(images), -1, -1)
        q = q + self.read(self.norms[1](q), pixels, pixels, need_weights=False)[0]
        others = self.norms[2](q)
        q = q + self.compare(others, others, others, need_weights=False)[0]
        q = q + self.feed_forward(self.norms[3](q))
        return self.classify(q), self.locate(q)


def draw(count, generator):
    images, targets = draw_scenes(
        count, generator=generator, size=32, objects=(1, 2), sides=(10, 20)
    )
    return images, [{**t, "labels": torch.zeros_like(t["labels"])} for t in targets]


def flip(target):  # left and right
    cx, rest = target["boxes"].split([1, 3], 1)
    return {**target, "boxes": torch.cat([1 - cx, rest], 1)}


images, targets = draw(500, torch.Generator().manual_seed(1))
relative = [{**t, "boxes": to_centers(t["boxes"] / 32)} for t in targets]


# %% train
def train(rule=None, seed=3, steps=200):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    detector = SmallDetector()
    optimizer = torch.optim.AdamW(detector.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.15
    )
    for step in range(steps):
        batch = torch.randint(len(images), (16,), generator=generator)
        x = images[batch][:, torch.randperm(3, generator=generator)]  # other colours
        y = [relative[i] for i in batch]
        if step % 2:
            x, y = x.flip(3), [flip(target) for target in y]
        losses = set_loss(*detector(x), y, eos_weight=0.5, rule=rule)
        optimizer.zero_grad()
        losses["total"].backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return detector


def two_each(costs):
    """Pair each object with its two cheapest queries."""
    queries = costs.topk(2, largest=False).indices
    return torch.arange(len(costs)).repeat_interleave(2), queries.flatten()


# %% measure
def nms(found, threshold=0.5):
    """Without the boxes that overlap a box of higher score."""
    overlap = box_iou(found["boxes"], found["boxes"])
    kept = []
    for i in found["scores"].argsort(descending=True).tolist():
        if (overlap[i, kept] <= threshold).all():
            kept.append(i)
    return {key: value[kept] for key, value in found.items()}


def measure(found, targets):
    """Boxes of score 0.5 or more for each object; objects found twice; AP50."""
    hits, shown = [], 0
    for f, target in zip(found, targets, strict=True):
        sure = f["boxes"][f["scores"] >= 0.5]
        shown += len(sure)
        hits.append((box_iou(sure, target["boxes"]) >= 0.5).sum(0))
    hits = torch.cat(hits).double()
    ap = [
        mean_average_precision(boxes, targets, iou_thresholds=[0.5])
        for boxes in (found, [nms(f) for f in found])
    ]
    return shown / len(hits), (hits > 1).double().mean().item(), *ap


# %% run
test_images, test_targets = draw(150, torch.Generator().manual_seed(99))
found, results = {}, {}
print("                 boxes an object   found twice   AP50   AP50 after NMS")
for name, rule in {"optimal assignment": None, "two queries each": two_each}.items():
    detector = train(rule)
    with torch.no_grad():
        outputs = detector(test_images)
    found[name] = detections(*outputs, size=(32, 32))
    results[name] = measure(found[name], test_targets)
    print(f"{name:18}" + "{:14.2f}{:14.2f}{:7.2f}{:17.2f}".format(*results[name]))

# %% run_holds tags=["hidden"]
one, two = results.values()
assert one[0] < 1.4 < 1.75 < two[0]
assert 0 < one[1] < 0.25 < 0.4 < two[1]
assert abs(one[3] - one[2]) < 0.06
assert two[3] > two[2] + 0.04
assert one[2] > two[3] + 0.03
boxes_one, boxes_two = one[0], two[0]
ap_two, ap_nms = two[2:]
parameters = sum(p.numel() for p in SmallDetector().parameters())

# %% scenes tags=["hidden"]
crowded = [i for i, target in enumerate(test_targets) if len(target["labels"]) == 2]
figure, rows = plt.subplots(2, 3, figsize=(7.2, 5.2), layout="constrained")
for axes_row, (name, boxes_found) in zip(rows, found.items(), strict=True):
    for axes, i in zip(axes_row, crowded, strict=False):
        axes.imshow(test_images[i].permute(1, 2, 0), extent=(0, 32, 32, 0))
        for box in test_targets[i]["boxes"]:
            outline(axes, box, color="#fdfdfd", linewidth=2)
        taken = []
        for box, score in zip(
            boxes_found[i]["boxes"], boxes_found[i]["scores"], strict=True
        ):
            if score < 0.5:
                continue
            x1, y1, x2, y2 = outline(
                axes, box, color="#ffd000", linestyle="--", linewidth=2
            )
            # The first corner of the box where no other score stands.
            for x, y in [
                (x, y) for y in (y2 - 1.8, y1 + 1.8) for x in (x2 - 2.9, x1 + 2.9)
            ]:
                x, y = min(max(x, 3), 29), min(max(y, 2), 30)
                if all(abs(x - a) > 5.6 or abs(y - b) > 3.4 for a, b in taken):
                    break
            taken.append((x, y))
            label = axes.text(x, y, f"{score:.2f}", color="#ffd000")
            label.set(fontsize=8, ha="center", va="center")
            label.set_bbox(
                {"facecolor": "#101010", "alpha": 0.8, "pad": 1, "linewidth": 0}
            )
        axes.set(xticks=(0, 16, 32), yticks=(0, 16, 32), xlim=(0, 32), ylim=(32, 0))
        axes.grid(False)
    axes_row[0].set_ylabel(name)
for axes in rows[1]:
    axes.set_xlabel("x (pixels)")

# %% errors
logits = torch.zeros(1, 4, 2)
boxes = torch.full((1, 4, 4), 0.5)
target = {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
for wrong_logits, wrong_target in (
    (logits, target),  # labels from 1, but one class
    (logits / 0, {**target, "labels": torch.tensor([0])}),
    (logits, {"labels": torch.tensor([0]), "boxes": 64 * target["boxes"]}),
):
    try:
        set_loss(wrong_logits, boxes, [wrong_target])
    except ValueError as error:
        print(error)

# %% weights
classes = torch.full((100,), 91)  # no object
classes[:7] = 0
for w in 1.0, 0.1:
    weights = torch.ones(92)
    weights[91] = w
    share = weights[classes[:7]].sum() / weights[classes].sum()
    print(f"∅ weighs {w}: seven objects have {share:.0%} of the weight")

# %% weights_hold tags=["hidden"]
assert abs(share - 7 / 16.3) < 1e-12
logits = torch.randn(100, 92, generator=torch.Generator().manual_seed(0))
one_by_one = weights[classes] * F.cross_entropy(logits, classes, reduction="none")
torch.testing.assert_close(
    F.cross_entropy(logits, classes, weights), one_by_one.sum() / weights[classes].sum()
)
