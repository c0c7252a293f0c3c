#!/usr/bin/env python3
"""Golden data of CTC decoding and alignment and of edit distances.

    python ctc.py        writes ctc.safetensors, ctc.json, ctc_words.arpa and ctc_tokens.arpa beside this file

Beam search: sums over all paths of small cases, with language model scores from KenLM, so that the score of every hypothesis is
known. Alignment: torchaudio's forced_align and merge_tokens. Edit distances: jiwer. `ctc_pyctcdecode.py` adds pyctcdecode.
"""
import itertools
import json
import math
import os
from collections import Counter, defaultdict

import numpy as np

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 61
LN10 = math.log(10.0)

CORPUS = """ab ba ab
ba b ab a
a ab ba ba
ab ba b
b ab ab ba
ba ab b a
ab a ba ab
aa ab b
ba ab ba"""


def log_softmax(x):
    """Computed in f64, rounded to f32 at the end."""
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return (x - np.log(np.exp(x).sum(-1, keepdims=True))).astype(np.float32)


def frames(name, n_frames, n_tokens, spread):
    return log_softmax(rc.hashed(name, (n_frames, n_tokens), -spread, spread, SEED))


def write_arpa(path, sentences, order, drop=()):
    """A back-off model with hashed probabilities and weights for the n-grams of a corpus; the n-grams in `drop` are omitted, as
    by pruning."""
    grams = [set() for _ in range(order)]
    for sentence in sentences:
        words = ["<s>", *sentence, "</s>"]
        for n in range(1, order + 1):
            grams[n - 1] |= {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    grams[0].add(("<unk>",))
    grams = [sorted(g for g in level if " ".join(g) not in drop) for level in grams]
    with open(path, "w") as f:
        f.write("\\data\\\n" + "".join(f"ngram {n + 1}={len(g)}\n" for n, g in enumerate(grams)))
        for n, level in enumerate(grams):
            f.write(f"\n\\{n + 1}-grams:\n")
            for gram in level:
                text = " ".join(gram)
                p, b = rc.hashed(f"{os.path.basename(path)} {text}", (2,), 0, 1, SEED)
                p = -99.0 if gram == ("<s>",) else -3.0 + 2.8 * float(p)
                weight = f"\t{-0.8 * float(b):.4f}" if n + 1 < order and gram[-1] != "</s>" and b > 0.15 else ""
                f.write(f"{p:.4f}\t{text}{weight}\n")
        f.write("\n\\end\\\n")
    os.chmod(path, 0o644)


def kenlm_score(model, units, bos, eos):
    """The natural logarithm of the probability of each unit and of the end; whether each unit is unknown."""
    scores = list(model.full_scores(" ".join(units), bos=bos, eos=eos))
    return [s[0] * LN10 for s in scores], [s[2] for s in scores[: len(units)]]


def all_sums(log_probs, blank):
    """The log of the total probability of every token sequence, over all paths, and the best path of each."""
    sums, best = defaultdict(float), {}
    n_frames, n_tokens = log_probs.shape
    for path in itertools.product(range(n_tokens), repeat=n_frames):
        ids = tuple(k for k, _ in itertools.groupby(path) if k != blank)
        score = sum(float(log_probs[t, k]) for t, k in enumerate(path))
        sums[ids] += math.exp(score)
        if ids not in best or score > best[ids][0]:
            best[ids] = (score, path)
    return {ids: math.log(p) for ids, p in sums.items()}, best


def ranked(tokens, sums, best, scores, top=30):
    """The best hypotheses by `scores(ids) = (added, lm)`."""
    rows = []
    for ids, ctc in sums.items():
        added, lm = scores(ids)
        rows.append({"ids": ids, "score": ctc + added, "ctc": ctc, "lm": lm, "path": best[ids][1]})
    rows.sort(key=lambda row: -row["score"])
    return rows[:top]


def beam_cases(out):
    import kenlm

    words_lm = kenlm.Model(os.path.join(HERE, "ctc_words.arpa"))
    tokens_lm = kenlm.Model(os.path.join(HERE, "ctc_tokens.arpa"))

    def by_units(model, split, weight, bonus, unknown, boundaries):
        def scores(tokens, ids):
            units = split(tokens, ids)
            each, oov = kenlm_score(model, units, boundaries, boundaries)
            lm = sum(each) + unknown * sum(oov)
            return weight * lm + bonus * len(units), lm

        return scores

    def words(tokens, ids):
        return "".join(tokens[i] for i in ids).replace("|", " ").split()

    def names(tokens, ids):
        return [tokens[i] for i in ids]

    nothing = lambda tokens, ids: (0.0, 0.0)
    cases = {
        # name: (tokens, blank, frames, spread, settings for Rust, scorer)
        "plain": (["<pad>", "a", "b"], 0, 8, 2.0, None, nothing),
        "blank_last": (["a", "b", "|", "<blank>"], 3, 7, 3.0, None, nothing),
        "words": (["<pad>", "a", "b", "|"], 0, 7, 1.5, dict(model="ctc_words.arpa", weight=0.8, bonus=0.7, unknown=-4.0, boundaries=True, unit="words"), None),
        "words_no_boundaries": (["a", "|", "b", "<pad>"], 3, 7, 1.5, dict(model="ctc_words.arpa", weight=1.3, bonus=-0.4, unknown=0.0, boundaries=False, unit="words"), None),
        "tokens": (["<pad>", "a", "b", "|"], 0, 7, 1.5, dict(model="ctc_tokens.arpa", weight=0.6, bonus=0.9, unknown=-1.0, boundaries=True, unit="tokens"), None),
        "tokens_unknown": (["<pad>", "a", "c", "b"], 0, 7, 1.5, dict(model="ctc_tokens.arpa", weight=0.6, bonus=0.9, unknown=-1.0, boundaries=False, unit="tokens"), None),
    }
    rows = {}
    for name, (tokens, blank, n_frames, spread, settings, scorer) in cases.items():
        if settings:
            model = words_lm if settings["model"] == "ctc_words.arpa" else tokens_lm
            split = words if settings["unit"] == "words" else names
            scorer = by_units(model, split, *(settings[k] for k in ("weight", "bonus", "unknown", "boundaries")))
        log_probs = frames(f"beam.{name}", n_frames, len(tokens), spread)
        out[f"beam.{name}"] = log_probs
        sums, best = all_sums(log_probs, blank)
        assert abs(sum(map(math.exp, sums.values())) - 1.0) < 1e-5
        rows[name] = {
            "tokens": tokens,
            "blank": blank,
            "language_model": settings,
            "n": len(sums),
            "best": ranked(tokens, sums, best, lambda ids: scorer(tokens, ids)),
        }
        print(name, len(sums), rows[name]["best"][0])
    sentences = [["ab", "ba", "ab"], ["aa", "b"], ["xy", "ab", "ba", "xy"], [], ["b", "b", "b", "ab", "a", "ba"]]
    lm = []
    for file, model in (("ctc_words.arpa", words_lm), ("ctc_tokens.arpa", tokens_lm)):
        for sentence in [s if file == "ctc_words.arpa" else list("|".join(s)) for s in sentences]:
            for whole in (True, False):
                each, oov = kenlm_score(model, sentence, whole, whole)
                lm.append({"model": file, "units": sentence, "whole": whole, "scores": each, "unknown": oov})
    return {"beam": rows, "language_model": lm}


def align_cases(out):
    import torch

    cuda, torch.version.cuda = torch.version.cuda, None  # torchaudio rejects a torch of another CUDA version
    from torchaudio.functional import forced_align, merge_tokens

    torch.version.cuda = cuda
    cases = {
        "short": (5, 4, [1, 2, 3], 0),
        "repeats": (40, 6, [1, 1, 2, 5, 5, 5, 3], 0),
        "tight": (9, 5, [1, 1, 2, 2, 3, 3], 0),  # exactly as many frames as needed
        "one": (1, 3, [2], 0),
        "blank_last": (60, 9, [3, 1, 4, 1, 5, 2, 6, 5, 3], 8),
        "long": (700, 12, [int(x) for x in rc.hashed("align.targets", (150,), 1, 12, SEED)], 0),
    }
    rows = {}
    for name, (n_frames, n_tokens, targets, blank) in cases.items():
        log_probs = frames(f"align.{name}", n_frames, n_tokens, 3.0)
        if n_frames * n_tokens < 1000:
            out[f"align.{name}"] = log_probs
        path, scores = forced_align(
            torch.from_numpy(log_probs)[None].double(), torch.tensor([targets], dtype=torch.int32), blank=blank
        )
        spans = merge_tokens(path[0], scores[0].exp(), blank=blank)
        rows[name] = {
            "targets": targets,
            "blank": blank,
            "n_frames": n_frames,
            "n_tokens": n_tokens,
            "path": path[0].tolist(),
            "spans": [[s.token, s.start, s.end, round(s.score, 7)] for s in spans],
            "score": scores[0].sum().item(),
        }
        assert [s.token for s in spans] == targets
    return rows


def edit_cases():
    import jiwer

    rows = []
    for case in range(40):
        n, m, kinds = (int(x) for x in rc.hashed(f"edit.{case}", (3,), 0, 1, SEED) * [30, 30, 6])
        n, kinds = n + 1, kinds + 2
        reference = [int(x) for x in rc.hashed(f"edit.{case}.r", (n,), 0, kinds, SEED)]
        hypothesis = [int(x) for x in rc.hashed(f"edit.{case}.h", (m,), 0, kinds, SEED)]
        if case % 2:  # mostly right
            hypothesis = [h if at % 7 == 3 else r for at, (r, h) in enumerate(itertools.zip_longest(reference, hypothesis)) if r is not None and at % 9 != 5 and h is not None]
        measured = jiwer.process_words(" ".join(map(str, reference)), " ".join(map(str, hypothesis)))
        errors = measured.substitutions + measured.deletions + measured.insertions
        rows.append({"reference": reference, "hypothesis": hypothesis, "errors": errors})
    texts = [
        ("ask not what your country", "ask what your county can"),
        ("ʃ iː | s ɛ l z", "s iː | s ɛ l"),
        ("can do for you", ""),
        ("a", "b c d"),
    ]
    corpus = [list(x) for x in zip(*texts)]
    return {
        "sequences": rows,
        "texts": texts,
        "wer": jiwer.wer(corpus[0], corpus[1]),
        "cer": jiwer.cer(corpus[0], corpus[1]),
    }


def main():
    words = [line.split() for line in CORPUS.splitlines()]
    write_arpa(os.path.join(HERE, "ctc_words.arpa"), words, 3, drop={"ab ba", "b ab"})
    write_arpa(os.path.join(HERE, "ctc_tokens.arpa"), [list(line.replace(" ", "|")) for line in CORPUS.splitlines()], 4)
    out = {}
    data = beam_cases(out) | {"align": align_cases(out), "edit": edit_cases()}
    versions = rc.versions("torch", "torchaudio", "kenlm", "jiwer", "numpy")
    rc.save(os.path.join(HERE, "ctc.safetensors"), out, seed=SEED, versions=versions)
    data["versions"] = json.loads(versions)
    path = os.path.join(HERE, "ctc.json")
    with open(path, "w") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    os.chmod(path, 0o644)
    print(os.path.getsize(path), "bytes of JSON")


if __name__ == "__main__":
    main()
