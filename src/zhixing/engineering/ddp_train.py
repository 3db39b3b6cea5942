"""Train on one process or many, on one machine or several; killed, it goes on where it was.

Left out: mixed precision, accumulation of gradients, evaluation, a schedule of the learning rate.

torchrun --standalone --nproc-per-node=2 train.py --epochs 5
"""

import argparse
import gc
import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def make_dataset() -> TensorDataset:
    """Replace me. 512 points; the same on every rank, since the seed is.

    Examples:
        >>> len(make_dataset())
        512
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 16, generator=generator)
    return TensorDataset(inputs, inputs.norm(dim=1, keepdim=True))


def make_model() -> nn.Module:
    """Replace me.

    Examples:
        >>> import torch
        >>> make_model()(torch.zeros(3, 16)).shape
        torch.Size([3, 1])
    """
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 1))


def resume(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """How many epochs are done, by the file of rank 0, which alone needs to see it.

    All ranks get the optimizer's state. The model is loaded on rank 0 only: DDP sends it to the
    others. Learning rate and other settings are those of the script, not of the file.

    Examples:
        >>> from pathlib import Path
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> resume(Path("no such file"), model, optimizer, torch.device("cpu"))
        0
        >>> dist.destroy_process_group()
    """
    epochs, state = 0, {}
    if dist.get_rank() == 0 and checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu")
        model.load_state_dict(saved["model"])
        epochs, state = saved["epochs"], saved["optimizer"]["state"]
        print(f"{checkpoint}: {epochs} epochs are done", flush=True)
    # Names and shapes are pickled, tensors sent one by one: pickled together, they would need as
    # much memory again on each GPU.
    outline = {
        index: {name: v.to("meta") if torch.is_tensor(v) else v for name, v in values.items()}
        for index, values in state.items()
    }
    message = [epochs, outline]
    dist.broadcast_object_list(message, device=device)
    epochs, outline = message
    for index, values in outline.items():
        for name, value in values.items():
            if torch.is_tensor(value):
                tensor = torch.empty(value.shape, dtype=value.dtype, device=device)
                if dist.get_rank() == 0:
                    tensor.copy_(state[index][name])
                dist.broadcast(tensor, 0)
                values[name] = tensor.cpu()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": outline, "param_groups": groups})
    return epochs


def train(epochs: int, batch: int, checkpoint: Path, device: torch.device) -> None:
    """Rank 0 prints the mean loss of each epoch and writes the checkpoint after it.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(1, 64, Path(folder, "c.pt"), torch.device("cpu"))  # doctest: +ELLIPSIS
        epoch 1: loss 6.1...
        >>> dist.destroy_process_group()
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if batch % ranks:
        raise ValueError(f"{ranks} ranks cannot share a batch of {batch} evenly")
    if rank == 0:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)  # or fail now, not after an epoch
    dataset = make_dataset()
    # Each rank draws its share. Where they do not divide the data, the sampler repeats some.
    sampler = DistributedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch // ranks, sampler=sampler)
    torch.manual_seed(0)
    model = make_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    done = resume(checkpoint, model, optimizer, device)
    replica = DistributedDataParallel(model)

    for epoch in range(done, epochs):
        sampler.set_epoch(epoch)  # or every epoch has the same order
        torch.manual_seed(epoch * ranks + rank)  # dropout differs from rank to rank
        total = torch.zeros(2, device=device)
        for inputs, targets in loader:
            loss = F.mse_loss(replica(inputs.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()  # the gradients are averaged in here
            optimizer.step()
            total += torch.stack([loss.detach() * len(inputs), loss.new_tensor(len(inputs))])
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {total[0] / total[1]:.6f}", flush=True)
            # The names in `model` have no `module.` before them, unlike those in `replica`.
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "epochs": epoch + 1}, aside := checkpoint.with_suffix(".new"))
            aside.replace(checkpoint)  # at once: killed here, it leaves a whole checkpoint


def main() -> None:
    """What torchrun starts on each rank.

    Examples:
        >>> import contextlib, sys
        >>> sys.argv = ["train.py", "--help"]
        >>> with contextlib.suppress(SystemExit):
        ...     main()  # doctest: +ELLIPSIS
        usage: train.py [-h] [--epochs EPOCHS] ...
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="of all ranks together")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--time-limit", type=float, default=600, help="of a collective, in s")
    options = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("torchrun starts this script: torchrun --standalone --nproc-per-node=2 …")
    limit = timedelta(seconds=options.time_limit)
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=limit, device_id=device)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo", timeout=limit)
    train(options.epochs, options.batch, options.checkpoint, device)
    gc.collect()  # DDP's module, in a cycle, would keep gloo's threads until Python is gone
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
