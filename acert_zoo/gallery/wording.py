"""Words of the gallery that people read: titles, and one sentence for each technical term."""

from __future__ import annotations

METHOD_TITLES = {
    "acert": "ACERT",
    "ibp": "IBP",
    "crown-ibp": "CROWN-IBP",
    "sabr": "SABR",
    "mtl-ibp": "MTL-IBP",
    "cc-ibp": "CC-IBP",
    "exp-ibp": "EXP-IBP",
    "acert-mtl": "ACERT-MTL",
    "cascade": "Cascade",
    "standard": "Standard",
}

VERIFIERS = {
    "ibp": "IBP",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "alpha-crown": "alpha-CROWN",
    "branch-and-bound": "branch and bound",
}

TERMS = {
    "certified radius": "How far every pixel may be changed, by anyone and in any way, with a proof that the "
    "answer stays the "
    "same. A radius of 2/255 means: each pixel by up to two of 255 grey levels, all at once.",
    "certified accuracy": "The share of test images that are classified correctly and proved to stay so within eps.",
    "natural accuracy": "The share of unchanged test images that are classified correctly.",
    "attacked accuracy": "The share of test images that an actual attack failed to break. The true robust accuracy "
    "lies "
    "between the certified and the attacked one.",
    "eps": "The size of the change that is allowed: the largest difference of any pixel, where 0 is black and 1 "
    "is white. 2/255 is two grey levels.",
    "ACR": "Average certified radius: the mean over all test images, misclassified ones counting 0 and radii "
    "above eps_max counting as eps_max, in percent of eps_max. A few very robust images can raise it, so "
    "certified accuracy comes first.",
    "kappa": "The weight of natural accuracy in training: 0 trains for robustness alone, 1 is standard training.",
    "ACERT": "Adaptive certified training (arXiv 2307.13078): each image is trained at the radius up to which it "
    "is robust.",
    "IBP": "Interval bound propagation: push the interval of every pixel through the network; the intervals that "
    "come out contain every possible answer. Fast, and loose for networks that were not trained for it.",
    "gate": "A member of a cascade answers only where its own answer is proved to hold within its gate, a radius; else "
    "the next member is asked.",
    "MTL-IBP": "Expressive losses (arXiv 2305.13991): trained on attacks with a small share of interval bounds. Made "
    "for complete verification; interval bounds alone prove little of it.",
    "SABR": "Trained on small boxes around attacks (arXiv 2210.04871).",
    "CROWN-IBP": "Trained with a mix of linear and interval bounds (arXiv 1906.06316).",
    "Standard": "Trained for accuracy alone, without any thought of robustness.",
    "proof": "The method that proved the figure, and whether rounding errors are accounted for (real-sound: they are).",
    "complete verification": "The most thorough proof: for each image it either proves that no change within eps "
    "alters the answer, or finds one that does, or gives up when its time is over. Slow, so only the first test images "
    "got it.",
    "CROWN": "Linear bound propagation: bound the network's output by straight lines from below and above. Tighter and "
    "slower than intervals. alpha-CROWN tunes the lines; CROWN-IBP takes the inner intervals from IBP.",
    "branch and bound": "Split a neuron's possible values in two and bound both halves by themselves, again and again, "
    "until every part is proved.",
    "robust accuracy": "The share of test images that are right and stay right whatever happens to them within eps. "
    "Nobody knows it exactly: proofs bound it from below, attacks from above.",
    "undecided": "Neither proved nor broken in the time that an image was given.",
    "cascade": "Several networks in a row: a robust one answers where it can prove its answer, else the next, more "
    "accurate one. The whole is certified.",
    "real-sound": "The proof holds for the network in real arithmetic with exactly the stored weights; "
    "rounding errors "
    "of the proof itself are bounded, too.",
    "float32": "Computed in ordinary floating point; rounding errors of the bounds are not covered by the proof.",
    "margin": "How far the winning class is ahead of another one, in the network's own units. As long as the lower "
    "bound of every margin is above 0, no change within eps can alter the answer.",
    "logit": "The raw score of one class; the class with the largest logit is the answer.",
    "eps_max": "The largest radius that the model was trained for.",
    "confidence interval": "With another draw of test images the figure would lie in this range 95 times of 100.",
}
