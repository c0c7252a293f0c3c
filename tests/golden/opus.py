"""Writes opus_*.{ogg,webm,mp4} and opus.safetensors: small Opus files of every mode, and libopus's output.

    python tests/golden/opus.py

Needs the programs ffmpeg with libopus, opusenc and opusdec. The reference is `opusdec --float`, and for WebM and MPEG-4 ffmpeg
with libopus; every 16th frame is stored, with the number of frames. ffmpeg drops the padding at the end of WebM, which
is given by a field that the crate does not read.
"""

import os
import subprocess
import tempfile

import numpy as np
import safetensors.numpy
import soundfile
from decode import ffmpeg, signal

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20241126
STEP = 16
# name: rate, channels, seconds, options of ffmpeg, or of opusenc if they begin with --
FILES = {
    "silk.ogg": (16000, 1, 0.6, "-b:a 10k -application voip -frame_duration 60"),
    "silk_stereo.ogg": (16000, 2, 0.5, "-b:a 20k -application voip -frame_duration 40"),
    "hybrid.ogg": (48000, 1, 0.5, "-b:a 28k -application voip"),
    "celt.ogg": (48000, 2, 0.4, "-b:a 96k"),
    "mono_music.ogg": (44100, 1, 0.4, "-b:a 48k -vbr off"),
    "short_frames.ogg": (48000, 1, 0.2, "-b:a 64k -application lowdelay -frame_duration 2.5"),
    "long_packets.ogg": (24000, 1, 0.5, "-b:a 24k -frame_duration 120"),
    "gaps.ogg": (16000, 1, 0.9, "--bitrate 16 --set-ctl-int 4016=1 --speech"),
    "fec.ogg": (16000, 1, 0.4, "-b:a 24k -application voip -fec 1 -packet_loss 20"),
    "surround.ogg": (48000, 6, 0.1, "-b:a 128k -mapping_family 1"),
    "stereo.webm": (48000, 2, 0.3, "-b:a 48k"),
    "mono.mp4": (48000, 1, 0.3, "-b:a 24k"),
}


def main():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for name, (rate, n_channels, seconds, options) in FILES.items():
        x = signal(rng, rate, n_channels, seconds)
        if name == "gaps.ogg":
            x[len(x) // 4 : len(x) * 3 // 4] = 0
        path = os.path.join(HERE, f"opus_{name}")
        with tempfile.TemporaryDirectory() as folder:
            wav, decoded = os.path.join(folder, "signal.wav"), os.path.join(folder, "decoded.wav")
            soundfile.write(wav, x, rate, subtype="PCM_16")
            if options.startswith("--"):
                subprocess.run(["opusenc", "--quiet", *options.split(), wav, path], check=True)
            else:
                ffmpeg(["-i", wav, "-map_metadata", "-1", "-fflags", "+bitexact", "-c:a", "libopus", *options.split(), path])
            if name.endswith("ogg"):
                subprocess.run(["opusdec", "--quiet", "--float", "--rate", "48000", path, decoded], check=True)
                reference, _ = soundfile.read(decoded, dtype="float32", always_2d=True)
            else:
                by_ffmpeg = ffmpeg(["-c:a", "libopus", "-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "-"])
                reference = np.frombuffer(by_ffmpeg, dtype="<f4").reshape(-1, n_channels)
        print(f"{name}: {os.path.getsize(path)} bytes, {len(x)} frames at {rate} Hz, {len(reference)} decoded")
        if name != "surround.ogg":
            tensors[f"{name}.samples"] = np.ascontiguousarray(reference[::STEP])
            tensors[f"{name}.n_frames"] = np.array([len(reference)], dtype=np.uint32)
    version = subprocess.run(["opusdec", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    metadata = {"generator": "tests/golden/opus.py", "opusdec": version, "seed": str(SEED), "step": str(STEP)}
    safetensors.numpy.save_file(tensors, os.path.join(HERE, "opus.safetensors"), metadata)


if __name__ == "__main__":
    main()
