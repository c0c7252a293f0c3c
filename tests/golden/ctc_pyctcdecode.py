#!/usr/bin/env python3
"""Golden data of beam search with a language model at a usual width: pyctcdecode and KenLM.

    python ctc_pyctcdecode.py        writes ctc_pyctcdecode.safetensors and ctc_pyctcdecode.json beside this file

pyctcdecode needs numpy below 2, hence a separate virtual environment. Frames are made from the corpus of `ctc_words.arpa`: each
letter lasts some frames, in which it is more probable than the others on average, but not always the most probable.
"""
import json
import logging
import os

import numpy as np

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 67
LABELS = ["", "a", "b", " "]
TEXTS = ["ab ba ab", "ba ab ba ba b", "a ab ba ba", "aa ab b ab ba"]


def render(name, text):
    """Log-probabilities [n_frames, 4] that favour the letters of `text`."""
    path = []
    for at, letter in enumerate(text):
        repeated = at > 0 and text[at - 1] == letter
        path += [0] * (1 + repeated) + [LABELS.index(letter)] * 2
    path.append(0)
    logits = rc.hashed(name, (len(path), len(LABELS)), -2.0, 2.0, SEED).astype(np.float64)
    logits[np.arange(len(path)), path] += 3.2
    # pyctcdecode merges two spaces in a row, which are another sequence here, so they are made very improbable.
    logits[np.array(path) != LABELS.index(" "), LABELS.index(" ")] -= 8.0
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


def main():
    logging.disable(logging.WARNING)
    from pyctcdecode import build_ctcdecoder

    words = sorted({word for line in TEXTS for word in line.split()})
    settings = dict(alpha=0.5, beta=0.5)
    arpa = os.path.join(HERE, "ctc_words.arpa")
    with_model = build_ctcdecoder(LABELS, arpa, unigrams=words, **settings)
    without = build_ctcdecoder(LABELS)
    out, rows = {}, []
    for at, text in enumerate(TEXTS):
        log_probs = render(f"speech.{at}", text)
        out[f"speech.{at}"] = log_probs
        found = {}
        for kind, decoder in (("without", without), ("with", with_model)):
            best = decoder.decode_beams(log_probs)[0]
            found[kind] = {"text": best[0], "ctc": float(best[3]), "score": float(best[4])}
        rows.append({"said": text, **found})
        print(rows[-1])
    versions = rc.versions("pyctcdecode", "kenlm", "numpy")
    rc.save(os.path.join(HERE, "ctc_pyctcdecode.safetensors"), out, seed=SEED, versions=versions)
    path = os.path.join(HERE, "ctc_pyctcdecode.json")
    with open(path, "w") as f:
        json.dump({"labels": LABELS, **settings, "clips": rows, "versions": json.loads(versions)}, f, indent=1)
        f.write("\n")
    os.chmod(path, 0o644)


if __name__ == "__main__":
    main()
