"""CTC losses and their gradients, by `torch.nn.functional.ctc_loss` in f64.

Three batches of hashed logits: short ones with every kind of length and target, including an empty target, repeated tokens
and too few frames; the same with scores so far apart that alignments are almost certain; long ones with many tokens.
Stored are the losses with each reduction, and the gradients of each sum and mean with respect to the logits.
"""
import os

import numpy as np
import torch
from torch.nn.functional import ctc_loss

import refcommon

SEED = 41
FOLDER = os.path.dirname(os.path.abspath(__file__))

SHORT = dict(
    shape=(7, 13, 6),
    lengths=[13, 9, 5, 1, 4, 3, 6],
    targets=[[1, 2, 3], [4, 4, 1], [], [2], [1, 1, 1], [3, 2], [5, 1, 5, 1, 5]],
)
LONG = dict(
    shape=(3, 150, 40),
    lengths=[150, 120, 90],
    targets=[[1 + (7 * i * i + 3 * i) % 38 for i in range(n)] for n in (60, 45, 40)],
)


def main():
    tensors = {}
    cases = [("short", SHORT, 2.0, 0), ("sharp", SHORT, 60.0, 0), ("last", SHORT, 2.0, 5), ("long", LONG, 4.0, 0)]
    for name, case, high, blank in cases:
        # With the last token as the blank, 5 in targets becomes 0.
        targets = [[0 if token == blank else token for token in target] for target in case["targets"]]
        logits = refcommon.hashed(name, case["shape"], -high, high, SEED)
        lengths = torch.tensor(case["lengths"])
        sizes = torch.tensor([len(target) for target in targets])
        flat = torch.tensor([token for target in targets for token in target])
        for reduction in ("none", "mean", "sum"):
            for zero_infinity in (False, True):
                x = torch.from_numpy(logits).double().requires_grad_(True)
                log_probs = x.log_softmax(2).transpose(0, 1)
                loss = ctc_loss(log_probs, flat, lengths, sizes, blank, reduction, zero_infinity)
                key = f"{name}.{reduction}" + (".zero_infinity" if zero_infinity else "")
                tensors[key] = np.atleast_1d(loss.detach().numpy()).astype(np.float32)
                if zero_infinity and reduction != "none":
                    loss.backward()
                    if not (name == "long" and reduction == "sum"):
                        tensors[f"{key}.gradient"] = x.grad.numpy().astype(np.float32)
    refcommon.save(
        os.path.join(FOLDER, "ctc_loss.safetensors"), tensors, seed=SEED, versions=refcommon.versions("torch", "numpy")
    )


if __name__ == "__main__":
    main()
