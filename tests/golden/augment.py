"""The distributions of torchlibrosa's SpecAugmentation and of scipy's beta distribution: `augment.safetensors`.

`spec.time` [n_frames], `spec.freq` [n_mels]: share of `draws` clips in which a frame or band was set to 0; the settings are
in the metadata. `beta.x` [k], `beta.ALPHA` [k]: the distribution function of Beta(ALPHA, ALPHA) at these points.
"""
import json
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta
from torchlibrosa.augmentation import SpecAugmentation

import refcommon

N_FRAMES, N_MELS, DRAWS = 40, 24, 40_000
SETTINGS = dict(time_drop_width=12, time_stripes=2, freq_drop_width=5, freq_stripes=3)


def main():
    torch.manual_seed(9)
    names = {key.replace("stripes", "stripes_num"): value for key, value in SETTINGS.items()}
    # Each kind of stripe is measured separately.
    time = SpecAugmentation(**names | dict(freq_stripes_num=0)).train()(torch.ones(DRAWS, 1, N_FRAMES, N_MELS))
    freq = SpecAugmentation(**names | dict(time_stripes_num=0)).train()(torch.ones(DRAWS, 1, N_FRAMES, N_MELS))
    x = np.linspace(0.0, 1.0, 41)[1:-1]
    tensors = {
        "spec.time": (time[:, 0, :, 0] == 0).float().mean(0).numpy(),
        "spec.freq": (freq[:, 0, 0] == 0).float().mean(0).numpy(),
        "beta.x": x.astype(np.float32),
    } | {f"beta.{alpha}": beta.cdf(x, alpha, alpha).astype(np.float32) for alpha in (0.05, 0.2, 0.5, 1.0, 4.0)}
    refcommon.save(
        Path(__file__).with_name("augment.safetensors"), tensors, settings=json.dumps(SETTINGS), draws=DRAWS,
        versions=refcommon.versions("torch", "torchlibrosa", "scipy"), seed=9)


if __name__ == "__main__":
    main()
