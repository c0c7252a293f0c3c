#!/usr/bin/env python3
"""Golden data from a file to scores: librosa.load, then the published graph of CED-tiny in onnxruntime.

    python ced_librosa.py --onnx tiny.onnx --audio FOLDER        writes ced_librosa.safetensors beside this file

tiny.onnx: see weights/ced-tiny/convert.py. FOLDER holds recordings, and in `esc10` the 400 clips of ESC-10 as `CLASS/FILE.ogg`,
5 s at 44.1 kHz, of which every 16th is used. `PATH` are the 527 scores of a file's first 10 s as loaded by
`librosa.load(file, sr=16000)`, which resamples with soxr's quality HQ. The graph runs without optimisations, as in ced.py. The effect
of quality VHQ is printed.
"""
import argparse
import glob
import os

import librosa
import onnxruntime

import refcommon as rc

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDINGS = ("R9_ZSCveAHg_7s.wav", "jfk.wav", "sample-music.wav", "sample-typing.wav")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--onnx", required=True)
    ap.add_argument("--audio", required=True)
    a = ap.parse_args()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(a.onnx, options, providers=["CPUExecutionProvider"])

    def scores(name, quality):
        x, _ = librosa.load(os.path.join(a.audio, name), sr=16000, duration=10, res_type=quality)
        return session.run(["logits"], {"waveform": x[None]})[0][0]

    clips = sorted(glob.glob("esc10/*/*.ogg", root_dir=a.audio))
    assert len(clips) == 400
    tensors = {}
    for name in [*RECORDINGS, *clips[::16]]:
        tensors[name] = scores(name, "soxr_hq")
        print(name, f"{abs(scores(name, 'soxr_vhq') - tensors[name]).max():.4f}")
    versions = rc.versions("librosa", "soxr", "soundfile", "onnxruntime", "numpy")
    rc.save(os.path.join(HERE, "ced_librosa.safetensors"), tensors, versions=versions)


if __name__ == "__main__":
    main()
