"""What cards say of methods and rounding levels: facts that no record holds."""

from __future__ import annotations

PAPER_BIBTEX = """@inproceedings{nurlanov2024adaptive,
  title={Adaptive Certified Training: Towards Better Accuracy-Robustness Tradeoffs},
  author={Nurlanov, Zhakshylyk and Schmidt, Frank R. and Bernard, Florian},
  booktitle={Machine Learning and Knowledge Discovery in Databases (ECML PKDD)},
  year={2024},
  note={arXiv:2307.13078}
}"""

METHOD_TEXT = {
    "acert": "ACERT (adaptive certified training, arXiv 2307.13078)",
    "ibp": "IBP (interval bound propagation at one radius for all images, arXiv 1810.12715, kappa-mixed loss)",
    "crown-ibp": "CROWN-IBP (arXiv 1906.06316)",
    "sabr": "SABR (arXiv 2210.04871)",
    "cc-ibp": "CC-IBP (expressive losses, arXiv 2305.13991)",
    "mtl-ibp": "MTL-IBP (expressive losses, arXiv 2305.13991: an adversarial loss and a share of the IBP loss)",
    "exp-ibp": "EXP-IBP (expressive losses, arXiv 2305.13991)",
    "acert-mtl": "ACERT-MTL (MTL-IBP with box and attack of each sample at ACERT's radius)",
    "standard": "standard training (no certified loss)",
}

SHORT_METHOD = {
    "acert": "ACERT", "ibp": "IBP", "crown-ibp": "CROWN-IBP", "sabr": "SABR", "standard": "standard",
    "cc-ibp": "CC-IBP", "mtl-ibp": "MTL-IBP", "exp-ibp": "EXP-IBP", "acert-mtl": "ACERT-MTL",
}  # fmt: skip

ROUNDING_TEXT = {
    "real-sound": "`real-sound`: the bound is computed in float64 with every rounding error accounted for outward, so "
    "each radius is a proof about this network in real arithmetic with exactly the stored weights. It is not a claim "
    "about every float32 program that runs them (`rounding=\"float32-deployed\"` proves that one too, on the CPU).",
    "float32-deployed": "`float32-deployed`: every rounding error of the bound and of the float32 program itself is "
    "accounted for, so each radius is a proof about the network as it runs in float32 on a CPU.",
    "float32": "`float32`: rounding errors of the bound are not accounted for.",
}  # fmt: skip

CASCADE_ROUNDING_TEXT = """Every bound is computed in float64 with every rounding error accounted for outward. What the
gates decide, and what the stages behind them answer, is proved for the program as it runs in float32 on a CPU; only
the last stage's own radius is proved at the level `{level}` (docs/cascade.md)."""

DECIDED_TEXT = """Of the first test images, each decided by complete verification within a budget of wall time
(docs/decide.md): the true robust accuracy on these images lies between *certified* (proved, level `real-sound`) and
*under attack* (no adversarial image found); the difference is *undecided*. *Without splits*: proved by linear bounds
alone. The last interval adds the chance of which images were drawn (95 %, Wilson)."""

SEEDS_TEXT = """The same recipe trained with another seed, on the same test set: how much of a difference between two
models may be chance. Its weights are not in the zoo."""
