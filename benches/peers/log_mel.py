#!/usr/bin/env python3
"""Log-mel of PANNs (32 kHz, window 1024, hop 320, 64 mel bins): torchlibrosa, librosa and torchaudio compared with ours, interleaved.

What can be prepared is prepared before timing: DFT kernels, windows, filters. `librosa` is its STFT, a product with its
filters, and its decibels; `librosa-call` is `librosa.feature.melspectrogram` as documented, which computes the filters
in every call. Each result is compared with librosa's before timing.
"""
from turns import arguments, compare, confine, ours, ready

args = arguments(__doc__).parse_args()
confine(args.threads)

import numpy as np
import torch

RATE, N_FFT, HOP, MELS, LOW, HIGH, AMIN = 32_000, 1024, 320, 64, 50, 14_000, 1e-10
# In dB. All peers compute in f32, which differs by a few 1e-5 dB on noise.
TOLERANCE = 1e-2

torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)
clip = np.random.default_rng(2).uniform(-0.1, 0.1, round(args.seconds * RATE)).astype(np.float32)


def torchlibrosa():
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    spectrum = Spectrogram(n_fft=N_FFT, hop_length=HOP, freeze_parameters=True)
    log_mel = LogmelFilterBank(sr=RATE, n_fft=N_FFT, n_mels=MELS, fmin=LOW, fmax=HIGH, amin=AMIN, top_db=None)
    x = torch.from_numpy(clip)[None]
    return lambda: log_mel(spectrum(x))[0, 0].numpy()


def librosa():
    import librosa

    filters = librosa.filters.mel(sr=RATE, n_fft=N_FFT, n_mels=MELS, fmin=LOW, fmax=HIGH)

    def call():
        x = librosa.stft(clip, n_fft=N_FFT, hop_length=HOP, pad_mode="reflect")
        return librosa.power_to_db(filters @ (x.real**2 + x.imag**2), amin=AMIN, top_db=None).T

    return call


def librosa_call():
    import librosa

    settings = dict(sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=MELS, fmin=LOW, fmax=HIGH, pad_mode="reflect")
    return lambda: librosa.power_to_db(librosa.feature.melspectrogram(y=clip, **settings), amin=AMIN, top_db=None).T


def torchaudio():
    # A torchaudio built for another CUDA version than PyTorch cannot be imported, although no GPU is used here.
    cuda, torch.version.cuda = torch.version.cuda, None
    try:
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram
    finally:
        torch.version.cuda = cuda
    mel = MelSpectrogram(RATE, N_FFT, hop_length=HOP, n_mels=MELS, f_min=LOW, f_max=HIGH, norm="slaney", mel_scale="slaney")
    decibel, x = AmplitudeToDB("power"), torch.from_numpy(clip)
    return lambda: decibel(mel(x)).numpy().T


builders = {"torchlibrosa": torchlibrosa, "librosa": librosa, "librosa-call": librosa_call, "torchaudio": torchaudio}
peers = ready(builders, args)
expected = librosa()()
for name, call in peers.items():
    difference = float(np.abs(call() - expected).max())
    if not difference < TOLERANCE:
        raise SystemExit(f"{name} computes something else: {difference:.1e} dB")
compare(f"log-mel: {args.seconds:g} s", args, peers, lambda: ours(args, "--model", "log-mel"))
