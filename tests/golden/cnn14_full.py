#!/usr/bin/env python3
"""CNN14 at its published width against PyTorch, end to end. Not part of the test suite: it needs PyTorch and 1 GB of disk.

    cargo build --release --features cli --bin clipwise
    python tests/golden/cnn14_full.py --clipwise target/release/clipwise --out DIR [--panns CHECKOUT]

Fills the reference's `Cnn14` (and with a checkout `Cnn14_16k` and `Cnn14_8k`, whose classes the package lacks) with
hashed weights, writes them to DIR as published (a legacy `.pth` with a sampler beside the weights) and as safetensors,
tags a 10 s and a 1.237 s clip with the reference and with `clipwise tag --format json --full`, and prints the largest differences.
Exits with 1 if a difference exceeds its bar: 1e-5 for scores, 1e-4 of the largest value for embeddings.
"""
import argparse
import json
import os
import subprocess
import sys
import wave

import numpy as np
import torch

import refcommon as rc

FRONT_ENDS = {
    "Cnn14": dict(sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000),
    "Cnn14_16k": dict(sample_rate=16000, window_size=512, hop_size=160, mel_bins=64, fmin=50, fmax=8000),
    "Cnn14_8k": dict(sample_rate=8000, window_size=256, hop_size=80, mel_bins=64, fmin=50, fmax=4000),
}


def write_wav(path, pcm, rate):
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--clipwise", required=True, help="the built program")
    ap.add_argument("--out", required=True)
    ap.add_argument("--panns")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_grad_enabled(False)
    models = rc.import_panns(a.panns)
    missed = False
    for arch in FRONT_ENDS if a.panns else ["Cnn14"]:
        front_end = FRONT_ENDS[arch]
        rate = front_end["sample_rate"]
        model = rc.fill(getattr(models, arch)(classes_num=527, **front_end), seed=20)
        state = model.state_dict()
        checkpoints = [os.path.join(a.out, arch + suffix) for suffix in (".pth", ".safetensors")]
        sampler = {"indexes_per_class": [np.arange(9)], "queue": [1, 2], "pointers_of_classes": [0] * 527}
        torch.save({"iteration": 1, "model": state, "sampler": sampler}, checkpoints[0], _use_new_zipfile_serialization=False)
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, checkpoints[1])
        for seconds in (10, 1.237):
            pcm = rc.signal(round(seconds * rate), rate, seed=1)
            clip = os.path.join(a.out, f"{rate}_{seconds}.wav")
            write_wav(clip, pcm, rate)
            wanted = model(torch.from_numpy(rc.as_float(pcm))[None])
            for checkpoint in checkpoints:
                line = subprocess.run([a.clipwise, "tag", "--weights", checkpoint, "--format", "json", "--full", clip], check=True, capture_output=True, text=True).stdout
                got = json.loads(line)
                score, embedding = (np.abs(np.array(got[k], np.float32) - wanted[k][0].numpy()).max() for k in ("clipwise_output", "embedding"))
                embedding /= wanted["embedding"].abs().max().item()
                missed |= score > 1e-5 or embedding > 1e-4
                print(f"{os.path.basename(checkpoint)} {seconds} s as {got['model']}: clipwise_output {score:.1e}, embedding {embedding:.1e} of the largest")
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
