"""torch.hub entry points: every checkpoint of the registry by its name, and `acert(dataset=..., kappa=...)`.

model = torch.hub.load("acert-zoo/acert", "cifar10_kappa025", trust_repo=True)
"""

from acert_zoo.zoo.hub_entries import entry_points as _entry_points

dependencies = ["torch", "safetensors", "numpy"]

globals().update(_entry_points())
