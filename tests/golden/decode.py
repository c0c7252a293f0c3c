"""Writes decode_*.{ogg,oga,flac,mp3,m4a} and decode.safetensors: small audio files and the output of other decoders.
With `more`, decode_*.{wav,aiff,caf,webm,mka} and decode_more.safetensors.

    python tests/golden/decode.py [more]

Needs the program ffmpeg with libvorbis and libmp3lame. The signal consists of tones and noise. The reference is
libsndfile where it supports the format, and ffmpeg for Ogg FLAC and MPEG-4. Every 16th frame is stored, with the number of
decoded frames, the number of encoded frames, and the rate. ffmpeg (5.1) drops the first block of Vorbis and keeps the padding at
the end of AAC, so its number of frames is not the expected one there.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.numpy
import soundfile

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20240617
STEP = 16
# name: rate, channels, seconds, ffmpeg's options
FILES = {
    "vorbis_mono.ogg": (44100, 1, 0.8, "-c:a libvorbis -q:a 2 -page_duration 100000"),
    "vorbis_stereo.ogg": (32000, 2, 0.7, "-c:a libvorbis -q:a 1 -page_duration 100000"),
    "flac.oga": (16000, 2, 0.2, "-c:a flac -page_duration 50000 -f ogg"),
    "16.flac": (16000, 2, 0.2, "-c:a flac -sample_fmt s16 -frame_size 1024"),
    "24.flac": (22050, 1, 0.2, "-c:a flac -sample_fmt s32 -bits_per_raw_sample 24 -frame_size 576"),
    "mono.mp3": (44100, 1, 0.9, "-c:a libmp3lame -b:a 64k -id3v2_version 3 -metadata title=clipwise"),
    "stereo.mp3": (16000, 2, 0.8, "-c:a libmp3lame -q:a 6 -write_id3v1 1 -metadata title=clipwise"),
    "no_info.mp3": (32000, 1, 0.5, "-c:a libmp3lame -b:a 48k -write_xing 0 -id3v2_version 0"),
    "mono.m4a": (44100, 1, 0.9, "-c:a aac -b:a 64k"),
    "stereo.m4a": (32000, 2, 0.8, "-c:a aac -b:a 64k -movflags +faststart"),
    "fragmented.m4a": (16000, 1, 0.5, "-c:a aac -b:a 24k -movflags +frag_keyframe+empty_moov -frag_duration 200000"),
    "alac.m4a": (16000, 2, 0.2, "-c:a alac"),
}
MORE = {
    "adpcm_ms.wav": (22050, 1, 0.2, "-c:a adpcm_ms"),
    "adpcm_ima.wav": (16000, 2, 0.3, "-c:a adpcm_ima_wav"),
    "a_law.wav": (8000, 1, 0.2, "-c:a pcm_alaw"),
    "mu_law.wav": (8000, 2, 0.2, "-c:a pcm_mulaw"),
    "64.wav": (8000, 1, 0.2, "-c:a pcm_f64le"),
    "16.aiff": (16000, 2, 0.1, "-c:a pcm_s16be"),
    "float.aiff": (8000, 1, 0.2, "-c:a pcm_f32be"),
    "little_endian.aiff": (8000, 1, 0.2, "-c:a pcm_s16le"),
    "24.caf": (16000, 2, 0.1, "-c:a pcm_s24be"),
    "alac.caf": (16000, 1, 0.3, "-c:a alac"),
    "vorbis.webm": (32000, 1, 0.4, "-c:a libvorbis -q:a 1"),
    "flac.mka": (16000, 1, 0.2, "-c:a flac"),
    "layer2.mp2": (32000, 2, 0.3, "-c:a mp2 -b:a 96k"),
    "layer2_mpeg2.mp2": (16000, 1, 0.4, "-c:a mp2 -b:a 24k"),
}


def signal(rng, rate, n_channels, seconds):
    """Tones, one of them swept, and noise: [n_frames, n_channels], up to 0.7."""
    t = np.arange(round(rate * seconds)) / rate
    channels = []
    for c in range(n_channels):
        tones = 0.3 * np.sin(2 * np.pi * (440 + 110 * c) * t) + 0.2 * np.sin(2 * np.pi * (300 + 1500 * t) * t + c)
        channels.append(tones + 0.05 * rng.standard_normal(len(t)).clip(-4, 4))
    return np.stack(channels, axis=1).astype(np.float32)


def ffmpeg(arguments):
    return subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, capture_output=True).stdout


def main(files, name_out):
    rng = np.random.default_rng(SEED)
    tensors = {}
    for name, (rate, n_channels, seconds, options) in files.items():
        x = signal(rng, rate, n_channels, seconds)
        path = os.path.join(HERE, f"decode_{name}")
        with tempfile.TemporaryDirectory() as folder:
            wav = os.path.join(folder, "signal.wav")
            soundfile.write(wav, x, rate, subtype="PCM_24")
            ffmpeg(["-i", wav, "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact", *options.split(), path])
        decoded = np.frombuffer(ffmpeg(["-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "-"]), dtype="<f4")
        decoded = decoded.reshape(-1, n_channels)
        reference = decoded
        line = f"{name}: {os.path.getsize(path)} bytes, {len(x)} frames, ffmpeg {len(decoded)}"
        try:
            by_sndfile, _ = soundfile.read(path, dtype="float32", always_2d=True)
            # libsndfile decodes IMA ADPCM with different arithmetic.
            reference = decoded if "adpcm" in name else by_sndfile
            n = min(len(decoded), len(by_sndfile))
            line += f", libsndfile {len(by_sndfile)}, differing by {np.abs(decoded[:n] - by_sndfile[:n]).max():.1e}"
        except soundfile.LibsndfileError:
            pass
        print(line)
        tensors[f"{name}.samples"] = np.ascontiguousarray(reference[::STEP])
        tensors[f"{name}.n_frames"] = np.array([len(reference), len(x), rate], dtype=np.uint32)
    version = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True).stdout.split()[2]
    metadata = {
        "generator": "tests/golden/decode.py",
        "ffmpeg": version,
        "soundfile": f"{soundfile.__version__}, {soundfile.__libsndfile_version__}",
        "numpy": np.__version__,
        "seed": str(SEED),
        "step": str(STEP),
    }
    safetensors.numpy.save_file(tensors, os.path.join(HERE, name_out), metadata)


if __name__ == "__main__":
    if sys.argv[1:] == ["more"]:
        main(MORE, "decode_more.safetensors")
    else:
        main(FILES, "decode.safetensors")
