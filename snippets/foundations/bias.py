# %% setup
import torch

from zhixing.foundations.bias import bias

# %% picture tags=["hidden"]
import matplotlib.pyplot as plt

grid = torch.linspace(-6, 6, 401, dtype=torch.float64)
figure, axes = plt.subplots()
axes.plot(grid, bias(grid))
axes.set(xlabel="angle $x$", ylabel="$f(x)$")

# %% largest
x = torch.linspace(0, 3, 3_001, dtype=torch.float64)
at = x[bias(x).argmax()].item()
print(f"largest at x = {at:.3f}")

# %% largest_holds tags=["hidden"]
assert abs(at - torch.pi / 2) < 1e-3
