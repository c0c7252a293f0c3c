#!/usr/bin/env python3
"""Golden data of the metrics, from scikit-learn (normal quantiles from SciPy).

    python metrics.py        writes metrics.safetensors beside this file

Inputs are stored beside the expected values, because they include ties, absent classes and constant columns. NaN means
"undefined": AP of a class without positives, ROC AUC of a class with only one kind of target.
"""
import os
import warnings

import numpy as np
from scipy import stats
from sklearn import metrics as sk

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 21
NAN = np.float64("nan")


def coarse(name, shape, levels):
    """Scores with ties: multiples of 1/levels in 0..1."""
    return (np.floor(rc.hashed(name, shape, 0, 1, SEED) * levels) / levels).astype(np.float32)


def flags(name, shape, share):
    return rc.hashed(name, shape, 0, 1, SEED) < share


def ranking(scores, targets):
    ap = sk.average_precision_score(targets, scores) if targets.any() else NAN
    auc = sk.roc_auc_score(targets, scores) if targets.any() and not targets.all() else NAN
    return np.array([ap, auc], np.float64)


def binary(out):
    n = 201
    fine = rc.hashed("fine", (n,), 0, 1, SEED)
    half = flags("half", (n,), 0.5)
    signed_zero = np.array([0.0, -0.0, 0.0, -0.0, 0.5, -0.5], np.float32)
    cases = {
        "distinct": (fine, half),
        "informative": (fine + half.astype(np.float32) * np.float32(0.4), half),
        "ties": (coarse("ties", (n,), 7), half),
        "two_levels": (coarse("two", (n,), 2), flags("rare", (n,), 0.1)),
        "constant": (np.full(n, 0.25, np.float32), half),
        "one_positive": (fine, np.arange(n) == 17),
        "one_negative": (fine, np.arange(n) != 17),
        "all_positive": (fine, np.ones(n, bool)),
        "all_negative": (fine, np.zeros(n, bool)),
        "perfect": (fine, fine > 0.5),
        "reversed": (fine, fine < 0.5),
        "signed_zero": (signed_zero, np.array([1, 0, 0, 1, 0, 1], bool)),
        "single_sample": (np.array([0.5], np.float32), np.array([True])),
    }
    for name, (scores, targets) in cases.items():
        out[f"binary.{name}.scores"] = scores
        out[f"binary.{name}.targets"] = targets.astype(np.uint8)
        out[f"binary.{name}.expected"] = ranking(scores, targets)
        decisions = []
        for threshold in (0.0, 0.25, 0.5, 2.0):
            taken = scores > np.float32(threshold)
            matrix = sk.confusion_matrix(targets, taken, labels=[False, True])
            ratios = [
                f(targets, taken, zero_division=NAN) for f in (sk.precision_score, sk.recall_score, sk.f1_score)
            ]
            specificity = sk.recall_score(targets, taken, pos_label=0, zero_division=NAN)
            decisions.append([threshold, *matrix.ravel(), sk.accuracy_score(targets, taken), *ratios, specificity])
        out[f"binary.{name}.decisions"] = np.array(decisions, np.float64)


def multi_label(out):
    n, n_classes = 60, 12
    targets = flags("multi", (n, n_classes), 0.2)
    scores = coarse("multi.scores", (n, n_classes), 20) + targets * coarse("multi.lift", (n, n_classes), 5)
    scores = scores.astype(np.float32)
    targets[:, 3] = targets[:, 8] = False
    targets[:, 5] = True
    scores[:, 6] = 0.5
    per_class = np.array([ranking(scores[:, c], targets[:, c]) for c in range(n_classes)])
    some, both = targets.any(0), targets.any(0) & ~targets.all(0)
    mean_ap = sk.average_precision_score(targets[:, some], scores[:, some], average="macro")
    mean_auc = sk.roc_auc_score(targets[:, both], scores[:, both], average="macro")
    d_prime = np.sqrt(2.0) * stats.norm.ppf(mean_auc)
    taken = scores > 0.5
    labels = [c for c in range(n_classes) if targets[:, c].any() or taken[:, c].any()]
    averages = [
        sk.precision_recall_fscore_support(targets, taken, labels=labels, average=kind, zero_division=0)[:3]
        for kind in ("macro", "micro")
    ]
    out["multi.scores"], out["multi.targets"] = scores, targets.astype(np.uint8)
    out["multi.per_class"] = per_class
    out["multi.means"] = np.array([mean_ap, mean_auc, d_prime])
    out["multi.averages"] = np.array(averages, np.float64)


def single_label(out):
    n, n_classes = 150, 8  # class 2 is never a target, 5 never predicted, 6 neither
    targets = np.floor(rc.hashed("single", (n,), 0, n_classes, SEED)).astype(np.int64)
    targets[(targets == 2) | (targets == 6)] = 0
    scores = coarse("single.scores", (n, n_classes), 6)
    scores[np.arange(n), targets] += coarse("single.lift", (n,), 4)
    ranked = scores.copy()
    scores[:, 5] = scores[:, 6] = -1.0
    predictions = scores.argmax(1)
    matrix = sk.multilabel_confusion_matrix(targets, predictions, labels=range(n_classes))
    each = sk.precision_recall_fscore_support(targets, predictions, labels=range(n_classes), zero_division=NAN)
    averages = [
        sk.precision_recall_fscore_support(targets, predictions, average=kind, zero_division=0)[:3]
        for kind in ("macro", "micro")
    ]
    out["single.targets"], out["single.predictions"] = targets, predictions
    out["single.confusion"] = sk.confusion_matrix(targets, predictions, labels=range(n_classes))
    out["single.accuracy"] = np.array([sk.accuracy_score(targets, predictions)])
    out["single.one_against_rest"] = matrix.reshape(n_classes, 4)  # TN, FP, FN, TP
    out["single.each"] = np.array(each[:3], np.float64)
    out["single.averages"] = np.array(averages, np.float64)
    top = [sk.top_k_accuracy_score(targets, ranked, k=k, labels=range(n_classes)) for k in range(1, n_classes + 1)]
    out["single.scores"], out["single.top_k"] = ranked, np.array(top, np.float64)


def main():
    warnings.simplefilter("ignore")
    out = {}
    binary(out)
    multi_label(out)
    single_label(out)
    tiny = 10.0 ** -np.array([300, 100, 30, 12, 11, 10, 9, 6, 3])
    p = np.concatenate([tiny, np.linspace(0.0005, 0.9995, 1999), 1 - tiny[3:], [0, 1, 0.5]])
    out["normal.p"], out["normal.d_prime"] = p, np.sqrt(2.0) * stats.norm.ppf(p)
    path = os.path.join(HERE, "metrics.safetensors")
    rc.save(path, out, seed=SEED, versions=rc.versions("scikit-learn", "scipy", "numpy"))


if __name__ == "__main__":
    main()
