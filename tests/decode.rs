//! Ogg, FLAC, MP3 and MPEG-4 files: compared with libsndfile and ffmpeg, and damaged.
#![cfg(feature = "symphonia")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clipwise::audio::{AudioReader, AudioReason, Channels, Note, ReadOptions, Waveform};
use clipwise::{Error, Result};
use common::Random;

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", name].iter().collect()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden(&format!("decode_{name}"))).unwrap()
}

fn read(bytes: &[u8]) -> Result<Waveform> {
    Waveform::read(bytes)
}

/// Reads a file that must be rejected, and checks the message.
fn refused(bytes: &[u8], in_message: &str) -> AudioReason {
    match read(bytes) {
        Err(Error::Audio { path, reason }) => {
            assert_eq!(path.to_str(), Some("<stream>"));
            assert!(reason.to_string().contains(in_message), "{reason}");
            reason
        }
        other => panic!("{:?}", other.map(|waveform| waveform.n_samples())),
    }
}

const FILES: [&str; 12] = [
    "vorbis_mono.ogg",
    "vorbis_stereo.ogg",
    "flac.oga",
    "16.flac",
    "24.flac",
    "alac.m4a",
    "mono.mp3",
    "stereo.mp3",
    "no_info.mp3",
    "mono.m4a",
    "stereo.m4a",
    "fragmented.m4a",
];

/// Files in the other formats. A loss is detected only by comparing their length.
const MORE: [&str; 14] = [
    "adpcm_ms.wav",
    "adpcm_ima.wav",
    "a_law.wav",
    "mu_law.wav",
    "64.wav",
    "16.aiff",
    "float.aiff",
    "little_endian.aiff",
    "24.caf",
    "alac.caf",
    "vorbis.webm",
    "flac.mka",
    "layer2.mp2",
    "layer2_mpeg2.mp2",
];

#[test]
fn files_equal_libsndfile_and_ffmpeg() {
    agrees(&FILES, "decode.safetensors");
    agrees(&MORE, "decode_more.safetensors");
}

fn agrees(names: &[&str], tensors: &str) {
    const STEP: usize = 16;
    let bytes = std::fs::read(golden(tensors)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for &name in names {
        let samples = tensors.tensor(&format!("{name}.samples")).unwrap();
        let n_channels = samples.shape()[1];
        let expected: Vec<f32> = samples.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let n_frames = tensors.tensor(&format!("{name}.n_frames")).unwrap();
        let n_frames: Vec<u32> = n_frames.data().as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
        let [n_decoded, n_encoded, rate] = n_frames[..] else { panic!() };

        let path = golden(&format!("decode_{name}"));
        let mean = Waveform::open(&path).unwrap();
        assert_eq!(mean.sample_rate, rate, "{name}");
        // Without a header that gives the encoder's delay, every decoder outputs more than was encoded.
        let as_decoded = ["no_info", "fragmented", "adpcm", "layer2"].iter().any(|part| name.contains(part));
        let n_expected = if as_decoded { n_decoded } else { n_encoded };
        assert_eq!(mean.n_samples(), n_expected as usize, "{name}");

        // Lossless: exact. Lossy: f32 transforms by other algorithms. AAC's values have 16-bit scale, of which one step
        // is 3e-5.
        let tolerance = match name {
            "mono.m4a" | "stereo.m4a" | "fragmented.m4a" => 3e-5,
            "layer2.mp2" | "layer2_mpeg2.mp2" => 3.2e-5, // libsndfile rounds to 16 bits
            _ if name.contains("flac") || name.contains("alac") => 0.0,
            _ if name.ends_with("aiff") || name.ends_with("caf") || name.ends_with("wav") => 0.0,
            _ => 2e-6,
        };
        let mut worst = 0.0_f32;
        let channels: Vec<Waveform> = (0..n_channels)
            .map(|channel| {
                let options = ReadOptions { channels: Channels::One(channel), ..ReadOptions::default() };
                Waveform::open_with(&path, &options).unwrap()
            })
            .collect();
        for (i, frame) in expected.chunks(n_channels).enumerate().take_while(|(i, _)| i * STEP < mean.n_samples()) {
            for (channel, &expected) in channels.iter().zip(frame) {
                worst = worst.max((channel.samples[i * STEP] - expected).abs());
            }
            let sum: f64 = channels.iter().map(|channel| f64::from(channel.samples[i * STEP])).sum();
            assert_eq!(mean.samples[i * STEP], (sum / n_channels as f64) as f32, "{name}");
        }
        println!("{name}: {worst:e}");
        assert!(worst <= tolerance, "{name}: {worst}");

        let absent = ReadOptions { channels: Channels::One(n_channels), ..ReadOptions::default() };
        match Waveform::open_with(&path, &absent).unwrap_err() {
            Error::Audio { path: named, reason: AudioReason::NoSuchChannel { channel, count } } => {
                assert_eq!((named, channel, usize::from(count)), (path, n_channels, n_channels));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(not(feature = "opus"))]
#[test]
fn opus_is_rejected_without_its_feature() {
    for name in ["hybrid.ogg", "stereo.webm", "mono.mp4"] {
        let bytes = std::fs::read(golden(&format!("opus_{name}"))).unwrap();
        let reason = refused(&bytes, "Opus without the cargo feature `opus` is not supported: expected Vorbis, FLAC");
        assert!(matches!(reason, AudioReason::Codec(_)));
    }
}

#[cfg(feature = "opus")]
#[test]
fn opus_equals_libopus() {
    const STEP: usize = 16;
    let bytes = std::fs::read(golden("opus.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in [
        "silk.ogg",
        "silk_stereo.ogg",
        "hybrid.ogg",
        "celt.ogg",
        "mono_music.ogg",
        "short_frames.ogg",
        "long_packets.ogg",
        "gaps.ogg",
        "fec.ogg",
        "stereo.webm",
        "mono.mp4",
    ] {
        let samples = tensors.tensor(&format!("{name}.samples")).unwrap();
        let n_channels = samples.shape()[1];
        let expected: Vec<f32> = samples.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let n_frames = tensors.tensor(&format!("{name}.n_frames")).unwrap();
        let n_frames = u32::from_le_bytes(n_frames.data().try_into().unwrap()) as usize;
        let path = golden(&format!("opus_{name}"));
        let mean = Waveform::open(&path).unwrap();
        // The padding at the end: WebM keeps it, and ffmpeg keeps it in MPEG-4.
        let n_expected = match name {
            "stereo.webm" => n_frames + 648,
            "mono.mp4" => n_frames - 648,
            _ => n_frames,
        };
        assert_eq!((mean.sample_rate, mean.n_samples()), (48_000, n_expected), "{name}");
        // Rounded to 16 bits like the reference. Concealment while nothing is sent is not specified bit-exactly.
        let tolerance = if name == "gaps.ogg" { 0.02 } else { 1.6e-5 };
        let mut worst = 0.0_f32;
        for channel in 0..n_channels {
            let options = ReadOptions { channels: Channels::One(channel), ..ReadOptions::default() };
            let one = Waveform::open_with(&path, &options).unwrap();
            for (x, frame) in one.samples.iter().step_by(STEP).zip(expected.chunks(n_channels)) {
                worst = worst.max((x - frame[channel]).abs());
            }
        }
        println!("{name}: {worst:e}");
        assert!(worst <= tolerance, "{name}: {worst}");
        assert_eq!(stream(&std::fs::read(&path).unwrap()).unwrap().into_waveform().unwrap(), mean, "{name}");
    }
    let surround = std::fs::read(golden("opus_surround.ogg")).unwrap();
    refused(&surround, "Opus of more than one stream (surround sound) is not supported");
}

#[cfg(feature = "opus")]
#[test]
fn the_end_and_damage_of_opus_files_are_reported() {
    let ogg = std::fs::read(golden("opus_celt.ogg")).unwrap();
    let whole = read(&ogg).unwrap();
    let last = ogg.windows(4).rposition(|mark| mark == b"OggS").unwrap();
    let mut unmarked = ogg.clone();
    unmarked[last + 5] &= !4;
    seal(&mut unmarked);
    let waveform = read(&unmarked).unwrap();
    assert_eq!((&waveform, waveform.notes()), (&whole, &[Note::NoEndMark][..]));
    refused(&ogg[..ogg.len() - 1], "truncated");
    // A second stream has its own delay.
    let both = read(&[&ogg[..], &ogg].concat()).unwrap();
    assert_eq!(both.samples, [&whole.samples[..], &whole.samples].concat());
    let mut damaged = ogg.clone();
    damaged[last + 200] ^= 1;
    refused(&damaged, "wrong checksum");
}

#[test]
fn unsupported_codecs_are_named() {
    // MPEG layer 1.
    let mut layer1 = file("layer2.mp2");
    layer1[1] |= 2;
    assert!(matches!(refused(&layer1, "MP1 (MPEG audio of layer I) is not supported"), AudioReason::Codec(_)));
    let mut opus = file("mono.m4a");
    replace(&mut opus, b"mp4a", b"Mlp ");
    assert!(matches!(refused(&opus, "\"Mlp \""), AudioReason::Codec(_)));
    let mut video = file("mono.m4a");
    replace(&mut video, b"soun", b"vide");
    refused(&video, "there is no audio track");
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn truncated_files_state_how_much_is_there() {
    for name in FILES.into_iter().chain(MORE) {
        let whole = file(name);
        let n_whole = read(&whole).unwrap().n_samples() as u64;
        for tenths in 1..10 {
            // Not at a frame boundary.
            let cut = &whole[..whole.len() * tenths / 10 - 1];
            let error = match read(cut) {
                Err(Error::Audio { reason, .. }) => reason,
                other => panic!("{name}, {tenths}/10: {:?}", other.map(|waveform| waveform.n_samples())),
            };
            match error {
                AudioReason::Truncated { declared, found } => {
                    assert!(found < declared && declared == n_whole, "{name}")
                }
                AudioReason::EndsEarly { found, .. } => assert!(found < n_whole, "{name}: {found} of {n_whole}"),
                // Before the first sample, or before the index that most MPEG-4 files have at their end.
                AudioReason::Malformed(_) => {
                    assert!(tenths < 7 || name.ends_with("m4a") || name.ends_with("caf"), "{name} {tenths}: {error}")
                }
                other => panic!("{name}, {tenths}/10: {other:?}"),
            }
        }
    }
    // These formats declare the length at the beginning.
    for name in ["16.flac", "24.flac", "mono.mp3", "stereo.mp3", "stereo.m4a"] {
        let whole = file(name);
        let n_whole = read(&whole).unwrap().n_samples() as u64;
        match refused(&whole[..whole.len() * 3 / 4], "truncated") {
            AudioReason::Truncated { declared, found } => {
                assert!(declared == n_whole && found > 0 && found < n_whole, "{name}: {found} of {n_whole}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // Without a declared length, missing whole MP3 frames are not noticed.
    let no_info = file("no_info.mp3");
    let (n_whole, frame) = (read(&no_info).unwrap().n_samples(), 216);
    assert_eq!(read(&no_info[..no_info.len() - frame]).unwrap().n_samples(), n_whole - 1152);
    assert!(matches!(refused(&no_info[..no_info.len() - 1], "the file ends within"), AudioReason::EndsEarly { .. }));
}

#[test]
fn damaged_files_are_errors() {
    // With checksums, any changed byte after the header is detected.
    for name in ["vorbis_mono.ogg", "vorbis_stereo.ogg", "flac.oga", "16.flac", "24.flac"] {
        let whole = file(name);
        for at in (whole.len() / 2..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let reason = refused(&damaged, "");
            if name.ends_with("flac") {
                assert!(
                    matches!(reason, AudioReason::Damaged { .. } | AudioReason::Truncated { .. }),
                    "{name} {reason}"
                );
            } else {
                assert!(matches!(reason, AudioReason::Malformed(_)), "{name}: {reason}");
            }
        }
    }
    // A missing page: the page numbers reveal the gap.
    let ogg = file("vorbis_mono.ogg");
    let pages: Vec<usize> = (0..ogg.len() - 4).filter(|&at| &ogg[at..at + 4] == b"OggS").collect();
    assert!(pages.len() >= 4);
    let gap = [&ogg[..pages[2]], &ogg[pages[3]..]].concat();
    refused(&gap, "follows page 1");
    // Bytes between MP3 frames.
    let mp3 = file("no_info.mp3");
    let junk = [&mp3[..216 * 5], b"junk", &mp3[216 * 5..]].concat();
    match refused(&junk, "expected an MPEG frame at byte 1080") {
        AudioReason::Damaged { index, .. } => assert_eq!(index, 5 * 1152),
        other => panic!("{other:?}"),
    }
}

/// A stream that returns at most 1000 bytes at a time and cannot seek.
struct Stream(std::io::Cursor<Vec<u8>>);

impl std::io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = buffer.len().min(1_000);
        std::io::Read::read(&mut self.0, &mut buffer[..n])
    }
}

fn stream(bytes: &[u8]) -> Result<AudioReader> {
    AudioReader::read(Stream(std::io::Cursor::new(bytes.to_vec())))
}

#[test]
fn the_blocks_of_a_reader_add_up_to_the_file() {
    for name in FILES.into_iter().chain(MORE) {
        let whole = Waveform::open(golden(&format!("decode_{name}"))).unwrap();
        let mut from_file = AudioReader::open(golden(&format!("decode_{name}"))).unwrap();
        // The end of a stream is not known in advance, and some files do not declare their length.
        let n = whole.n_samples() as u64;
        let unknown = ["no_info", "fragmented", "webm", "mka", "mp2"].iter().any(|part| name.contains(part));
        let n_declared = if name == "alac.caf" { 8192 } else { n };
        assert_eq!(from_file.declared_length(), (!unknown).then_some(n_declared), "{name}");
        let mut largest = 0;
        let mut samples = Vec::new();
        for block in &mut from_file {
            let block = block.unwrap();
            largest = largest.max(block.len());
            samples.extend(block);
        }
        assert!(largest <= 20_000 && from_file.skipped().is_empty(), "{name}: {largest}");
        assert_eq!((from_file.samples_read(), &samples), (n, &whole.samples), "{name}");
        assert_eq!(stream(&file(name)).unwrap().into_waveform().unwrap(), whole, "{name}");
        let at_16k = stream(&file(name)).unwrap().resampled(16_000).unwrap().into_waveform().unwrap();
        assert_eq!(at_16k, whole.resample(16_000).unwrap(), "{name}");
    }
    // The available samples of a truncated file come before the error.
    for name in FILES.into_iter().filter(|name| !name.ends_with("m4a") || *name == "stereo.m4a") {
        let (whole, bytes) = (read(&file(name)).unwrap(), file(name));
        let mut samples = Vec::new();
        let mut failure = None;
        for block in stream(&bytes[..bytes.len() * 3 / 4 - 1]).unwrap() {
            match block {
                Ok(block) => samples.extend(block),
                Err(error) => failure = Some(error),
            }
        }
        let message = failure.unwrap().to_string();
        assert!(message.contains("truncated"), "{name}: {message}");
        assert!(samples.len() > whole.n_samples() / 4 && whole.samples.starts_with(&samples), "{name}");
    }
}

#[test]
fn damage_in_the_middle_is_skipped_on_request() {
    for name in FILES {
        let (whole, mut bytes) = (read(&file(name)).unwrap(), file(name));
        // Long enough for every decoder to notice, short enough to leave most of the file.
        // Padding fills almost half of a FLAC file.
        let at = if name.ends_with("flac") { bytes.len() * 2 / 3 } else { bytes.len() / 2 };
        let is_mpeg = name.ends_with("mp3") || name.ends_with("m4a");
        let n_damaged = if name.ends_with("flac") || name.ends_with("oga") { 8 } else { 60 };
        let alac = name.starts_with("alac");
        bytes[at..at + n_damaged].fill(if alac { 0xFF } else { 0x5A });
        let strict = read(&bytes);
        let mut reader = stream(&bytes).unwrap();
        let samples: Vec<f32> = (&mut reader).flat_map(|block| block.unwrap()).collect();
        assert_eq!(samples.len(), whole.n_samples(), "{name}");
        // In MPEG audio, only damaged frame headers are sure to be noticed.
        if is_mpeg && reader.skipped().is_empty() {
            assert_eq!(strict.unwrap().samples, samples, "{name}");
            continue;
        }
        assert!(strict.is_err(), "{name}");
        let [skipped] = reader.skipped() else { panic!("{name}: {:?}", reader.skipped()) };
        println!("{name}: {skipped:?}");
        let (index, end) = (skipped.index as usize, (skipped.index + skipped.n_samples) as usize);
        assert!(index > whole.n_samples() / 20 && end < whole.n_samples() * 9 / 10 && skipped.n_packets > 0);
        assert_eq!(skipped.seconds, index as f64 / f64::from(whole.sample_rate));
        assert_eq!(samples[..index], whole.samples[..index], "{name}");
        assert!(samples[index..end].iter().all(|&x| x == 0.0), "{name}");
        // An MP3 frame depends on the two before it.
        let sound = if is_mpeg { end + 3 * 1152 } else { end };
        assert!(sound < samples.len(), "{name}");
        // In bands stored as noise, a decoder generates different noise after a gap.
        let tolerance = if name.ends_with("m4a") && !alac { 0.2 } else { 0.0 };
        let difference = |(a, b): (&f32, &f32)| (a - b).abs();
        let after = samples[sound..].iter().zip(&whole.samples[sound..]).map(difference).fold(0.0, f32::max);
        assert!(after <= tolerance, "{name}: {after}");
        // As an option of `Waveform`.
        let options = ReadOptions { skip_damage: true, ..ReadOptions::default() };
        assert_eq!(Waveform::read_with(&bytes[..], &options).unwrap().samples, samples);
    }
    // A lost page, and a page that claims hours of samples.
    let ogg = file("vorbis_mono.ogg");
    let whole = read(&ogg).unwrap();
    let pages: Vec<usize> = (0..ogg.len() - 4).filter(|&at| &ogg[at..at + 4] == b"OggS").collect();
    let mut reader = stream(&[&ogg[..pages[3]], &ogg[pages[4]..]].concat()).unwrap();
    let samples: Vec<f32> = (&mut reader).flat_map(|block| block.unwrap()).collect();
    assert_eq!(samples.len(), whole.n_samples());
    assert!(reader.skipped().len() == 1 && reader.skipped()[0].n_samples > 0, "{:?}", reader.skipped());
    let mut far = ogg.clone();
    far[pages[4] + 6..pages[4] + 14].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let mut far = [&far[..pages[3]], &far[pages[4]..]].concat();
    seal(&mut far);
    let failure = stream(&far).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(failure.contains("samples are missing"), "{failure}");
    // Lost MP3 frames are reported by number; bytes between frames as no frames.
    let mp3 = file("no_info.mp3");
    let whole = read(&mp3).unwrap();
    let mut reader = stream(&[&mp3[..216 * 5], b"junk", &mp3[216 * 5..]].concat()).unwrap();
    let samples: Vec<f32> = (&mut reader).flat_map(|block| block.unwrap()).collect();
    assert_eq!(samples, whole.samples);
    let [skipped] = reader.skipped() else { panic!("{:?}", reader.skipped()) };
    assert_eq!((skipped.index, skipped.n_samples, skipped.n_packets), (5 * 1152, 0, 0));
    let mut lost = mp3.clone();
    lost[216 * 5..216 * 7].fill(0x5A);
    let mut reader = stream(&lost).unwrap();
    let samples: Vec<f32> = (&mut reader).flat_map(|block| block.unwrap()).collect();
    assert_eq!(samples.len(), whole.n_samples());
    assert!(reader.skipped()[0].index == 5 * 1152 && reader.skipped()[0].n_samples >= 2 * 1152);
    // A single header with another version or another number of channels.
    for (byte, flip) in [(1, 8), (3, 0xC0)] {
        let mut odd = mp3.clone();
        odd[216 * 6 + byte] ^= flip;
        assert!(read(&odd).is_err());
        let mut reader = stream(&odd).unwrap();
        let samples: Vec<f32> = (&mut reader).flat_map(|block| block.unwrap()).collect();
        assert_eq!(samples.len(), whole.n_samples());
        let [skipped] = reader.skipped() else { panic!("{:?}", reader.skipped()) };
        assert_eq!((skipped.index, skipped.n_samples, skipped.n_packets), (6 * 1152, 1152, 1));
    }
}

#[test]
fn a_failing_reader_is_not_reported_as_a_truncated_file() {
    struct Failing(std::io::Cursor<Vec<u8>>);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match std::io::Read::read(&mut self.0, buffer)? {
                0 if !buffer.is_empty() => Err(std::io::Error::other("the cable is out")),
                n => Ok(n),
            }
        }
    }
    for name in FILES.into_iter().chain(MORE) {
        for n in [3, 2] {
            let bytes = file(name);
            let part = Failing(std::io::Cursor::new(bytes[..bytes.len() * n / 4].to_vec()));
            let failure = AudioReader::read(part).and_then(AudioReader::into_waveform).unwrap_err();
            assert!(matches!(failure, Error::Io { action: "read", .. }), "{name}: {failure}");
        }
    }
}

#[test]
fn tags_around_mp3_are_skipped() {
    let bare = file("no_info.mp3");
    let expected = read(&bare).unwrap();
    let id3v1 = [&b"TAG"[..], &[b'x'; 125]].concat();
    let mut ape = b"APETAGEX\xD0\x07\0\0\x2A\0\0\0\x01\0\0\0".to_vec();
    ape.resize(32, 0);
    let ape = [&[b'v'; 10][..], &ape].concat();
    let lyrics = [&b"LYRICSBEGININD0000200"[..], b"000021LYRICS200"].concat();
    let id3 = b"ID3\x04\0\0\0\0\x01\x00".iter().copied().chain([7; 128]).collect::<Vec<u8>>();
    for (before, after) in [
        (vec![], id3v1.clone()),
        (id3.clone(), vec![]),
        ([&id3[..], &id3].concat(), [&lyrics[..], &id3v1].concat()),
        (id3.iter().copied().chain([0; 500]).collect(), [&ape[..], &id3v1].concat()),
        (vec![], vec![0; 5000]),
    ] {
        let tagged = [&before[..], &bare, &after].concat();
        assert_eq!(read(&tagged).unwrap(), expected, "{} before, {} after", before.len(), after.len());
    }
    refused(&id3, "ID3 tag");
    let flac = [&id3[..], &file("16.flac"), &id3v1].concat();
    assert_eq!(read(&flac).unwrap(), read(&file("16.flac")).unwrap());
}

#[test]
fn joined_mp3_files_are_read_as_one() {
    let alone = read(&file("mono.mp3")).unwrap();
    let expected = [&alone.samples[..], &alone.samples].concat();
    // The second has an ID3v2 tag before it, and both have a first frame with delay and padding.
    let mp3 = file("mono.mp3");
    let id3v1 = [&b"TAG"[..], &[b'x'; 125]].concat();
    let ape = [&b"APETAGEX\xD0\x07\0\0\x2A\0\0\0\x01\0\0\0\0\0\0\xA0\0\0\0\0\0\0\0\0"[..], &[b'v'; 42]].concat();
    for between in [vec![], id3v1.clone(), [&ape[..], &id3v1].concat()] {
        let both = read(&[&mp3[..], &between, &mp3].concat()).unwrap();
        assert_eq!(both.samples, expected, "{} bytes between", between.len());
        assert!(both.notes().is_empty());
    }
    // An ID3v2 tag after the frames, longer than the look-ahead.
    let n = 200_000_u32;
    let size = [21, 14, 7, 0].map(|shift| (n >> shift & 0x7F) as u8);
    let id3v2 = [&b"ID3\x04\0\0"[..], &size, &vec![0xFF; n as usize]].concat();
    assert_eq!(read(&[&mp3[..], &id3v2].concat()).unwrap(), alone);
    assert_eq!(read(&[&mp3[..], &id3v2, &mp3].concat()).unwrap().samples, expected);
    // The first file is truncated between two frames.
    let last = mp3.windows(2).rposition(|pair| pair == [0xFF, 0xFB]).unwrap();
    let cut = [&mp3[..last], &mp3].concat();
    refused(&cut, "truncated");
}

#[test]
fn junk_before_mp3_frames_is_skipped() {
    for name in ["no_info.mp3", "mono.mp3", "layer2.mp2"] {
        let bare = file(name);
        let bare = &bare[bare.windows(2).position(|pair| pair[0] == 0xFF && pair[1] >= 0xE0).unwrap()..];
        let expected = read(bare).unwrap();
        let junk: Vec<u8> = (0..5_000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        for (before, n_bytes) in [(vec![0; 3_000], None), (junk, Some(5_000)), (vec![0xFF; 777], Some(777))] {
            let waveform = read(&[&before[..], bare].concat()).unwrap();
            assert_eq!(waveform, expected, "{name}, {} bytes", before.len());
            let notes: Vec<Note> = n_bytes.map(|n_bytes| Note::LeadingJunk { n_bytes }).into_iter().collect();
            assert_eq!(waveform.notes(), notes);
            assert_eq!(stream(&[&before[..], bare].concat()).unwrap().into_waveform().unwrap(), expected);
        }
        // Too far in, or too few frames.
        refused(&[&vec![0; 70_000][..], bare].concat(), "zeros");
        refused(&[&[0; 100][..], &bare[..300]].concat(), "zeros");
    }
}

#[test]
fn flac_headers_with_wrong_block_sizes_and_lengths_are_tolerated() {
    for name in ["16.flac", "24.flac"] {
        let flac = file(name);
        let whole = read(&flac).unwrap();
        let mut unknown = flac.clone();
        unknown[8..10].fill(0);
        assert_eq!(read(&unknown).unwrap(), whole);
        assert_eq!(stream(&unknown).unwrap().into_waveform().unwrap(), whole);
        // 36 bits, beginning with the low half of byte 21.
        let mut fewer = flac.clone();
        let n = whole.n_samples() as u32 - 1_000;
        fewer[22..26].copy_from_slice(&n.to_be_bytes());
        let waveform = read(&fewer).unwrap();
        assert_eq!((&waveform, waveform.notes()), (&whole, &[Note::MoreThanDeclared { declared: n.into() }][..]));
        let mut more = flac;
        more[22..26].copy_from_slice(&(n + 2_000).to_be_bytes());
        refused(&more, "truncated");
        let accept = ReadOptions { accept_truncated: true, ..ReadOptions::default() };
        let waveform = Waveform::read_with(&more[..], &accept).unwrap();
        assert_eq!(waveform, whole);
        assert!(matches!(waveform.notes(), [Note::CutShort(AudioReason::Truncated { .. })]));
    }
}

#[test]
fn ogg_without_an_end_mark_is_read() {
    for name in ["vorbis_mono.ogg", "vorbis_stereo.ogg", "flac.oga"] {
        let mut ogg = file(name);
        let whole = read(&ogg).unwrap();
        let last = (0..ogg.len() - 4).rev().find(|&at| &ogg[at..at + 4] == b"OggS").unwrap();
        ogg[last + 5] &= !4;
        seal(&mut ogg);
        let waveform = read(&ogg).unwrap();
        assert_eq!(waveform.notes(), [Note::NoEndMark]);
        // The encoder's padding is in the last page.
        assert!(waveform == whole, "{name}: {} of {}", waveform.n_samples(), whole.n_samples());
    }
}

#[test]
fn chained_ogg_is_read_as_one() {
    let link = file("vorbis_mono.ogg");
    let alone = read(&link).unwrap();
    let both = read(&[&link[..], &link].concat()).unwrap();
    assert_eq!(both.samples, [&alone.samples[..], &alone.samples].concat());
    let other = [&link[..], &file("vorbis_stereo.ogg")].concat();
    match refused(&other, "from 44100 Hz, 1 channels to 32000 Hz, 2 channels") {
        AudioReason::FormatChange { index, .. } => assert_eq!(index as usize, alone.n_samples()),
        other => panic!("{other:?}"),
    }
    // The same in MP3.
    let other = [file("no_info.mp3"), file("stereo.mp3")].concat();
    refused(&other, "from 32000 Hz, 1 channels to 16000 Hz, 2 channels");
}

#[test]
fn a_small_file_does_not_allocate_much() {
    // FLAC whose single constant frame of 65535 samples is repeated.
    let flac = silence(20_000);
    let begun = Instant::now();
    assert!(matches!(refused(&flac, "expected at most"), AudioReason::ExpandsTooMuch { .. }));
    assert!(begun.elapsed() < Duration::from_secs(60));
    let short = silence(10);
    assert_eq!(read(&short).unwrap().samples, vec![0.0; 10 * 65_535]);
}

/// A FLAC file of digital silence, without a length.
fn silence(n_frames: u64) -> Vec<u8> {
    let crc = |bytes: &[u8], width: u32, polynomial: u32| {
        bytes.iter().fold(0_u32, |mut sum, &byte| {
            sum ^= u32::from(byte) << (width - 8);
            for _ in 0..8 {
                sum = if sum >> (width - 1) & 1 == 1 { sum << 1 ^ polynomial } else { sum << 1 };
            }
            sum & ((1 << width) - 1)
        })
    };
    let mut file = b"fLaC\x80\0\0\x22\xFF\xFF\xFF\xFF\0\0\0\0\0\0".to_vec();
    // 16 kHz, 1 channel, 16 bits, an unknown number of samples; no MD5.
    file.extend([0x03, 0xE8, 0x00, 0xF0, 0, 0, 0, 0]);
    file.extend([0; 16]);
    for i in 0..n_frames {
        // Fixed block size of 65535 as a 16-bit field, 16 bits, and the frame number in UTF-8.
        let mut frame = vec![0xFF, 0xF8, 0x70, 0x08];
        let number = char::from_u32(i as u32).unwrap();
        frame.extend(number.encode_utf8(&mut [0; 4]).bytes());
        frame.extend([0xFF, 0xFE]);
        frame.push(crc(&frame, 8, 0x07) as u8);
        frame.extend([0, 0, 0]);
        frame.extend((crc(&frame, 16, 0x8005) as u16).to_be_bytes());
        file.extend(frame);
    }
    file
}

/// Corrects the checksums in the pages of an Ogg file, so that damage is not caught by them.
fn seal(ogg: &mut [u8]) {
    let mut at = 0;
    while at + 27 <= ogg.len() && &ogg[at..at + 4] == b"OggS" {
        let n_segments = usize::from(ogg[at + 26]);
        let Some(lacing) = ogg.get(at + 27..at + 27 + n_segments) else { return };
        let end = at + 27 + n_segments + lacing.iter().map(|&n| usize::from(n)).sum::<usize>();
        if end > ogg.len() {
            return;
        }
        ogg[at + 22..at + 26].fill(0);
        let sum = ogg[at..end].iter().fold(0_u32, |mut sum, &byte| {
            sum ^= u32::from(byte) << 24;
            for _ in 0..8 {
                sum = if sum >> 31 == 1 { sum << 1 ^ 0x04C1_1DB7 } else { sum << 1 };
            }
            sum
        });
        ogg[at + 22..at + 26].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

#[test]
fn no_input_causes_a_panic() {
    let n_rounds = std::env::var("CLIPWISE_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let mut random = Random(0x5EED);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let opus = std::fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path());
    let opus = opus.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("opus_"));
    let opus = opus.filter(|_| cfg!(feature = "opus")).map(|path| (path.clone(), std::fs::read(path).unwrap()));
    let files = FILES.into_iter().chain(MORE).map(|name| (golden(name), file(name)));
    for (name, whole) in files.chain(opus) {
        let name = name.display();
        let (mut n_read, mut n_refused) = (0, 0);
        for i in 0..n_rounds {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                // Half of the changes hit the headers, which are at the beginning or, in MPEG-4, at the end.
                let at = match random.below(4) {
                    0 => random.below(bytes.len().min(700)),
                    1 => bytes.len() - 1 - random.below(bytes.len().min(1500)),
                    _ => random.below(bytes.len()),
                };
                match random.below(8) {
                    0..=2 => bytes[at] ^= 1 << random.below(8),
                    3 | 4 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
                    5 => bytes.truncate(at.max(1)),
                    6 => drop(bytes.drain(at..(at + 1 + random.below(64)).min(bytes.len() - 1).max(at))),
                    _ => {
                        let end = (at + 4).min(bytes.len());
                        bytes[at..end].fill(random.below(256) as u8);
                    }
                }
            }
            if i % 4 != 0 {
                seal(&mut bytes);
            }
            let one = Instant::now();
            match read(&bytes) {
                Ok(waveform) => {
                    n_read += 1;
                    assert!(waveform.n_samples() > 0 && waveform.samples.iter().all(|x| x.is_finite()));
                }
                Err(Error::Audio { .. }) => n_refused += 1,
                Err(other) => panic!("{name}: {other:?}"),
            }
            if let Ok(reader) = stream(&bytes) {
                for block in reader {
                    match block {
                        Ok(block) => assert!(!block.is_empty() && block.iter().all(|x| x.is_finite())),
                        Err(Error::Audio { .. }) => {}
                        Err(other) => panic!("{name}: {other:?}"),
                    }
                }
            }
            slowest = slowest.max(one.elapsed());
        }
        println!("{name}: {n_read} read, {n_refused} refused");
        assert!(n_refused > n_rounds / 10, "{name}: {n_read} read, {n_refused} refused");
    }
    println!("slowest {slowest:?}, all {:?}", begun.elapsed());
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn esc10_opens() {
    let Some(real) = std::env::var_os("CLIPWISE_REAL") else {
        println!("skipped: CLIPWISE_REAL is not set");
        return;
    };
    let folder = PathBuf::from(real).join("audio/esc10");
    let (mut n_files, mut n_five) = (0, 0);
    for class in std::fs::read_dir(&folder).unwrap() {
        let class = class.unwrap().path();
        if !class.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(class).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "ogg") {
                let waveform = Waveform::open(&file).unwrap();
                assert_eq!(waveform.sample_rate, 44_100);
                // Most files have exactly five seconds; a few have 3 to 8, also with libsndfile.
                assert!((3.0..8.0).contains(&waveform.duration()), "{}: {}", file.display(), waveform.duration());
                n_five += usize::from((waveform.duration() - 5.0).abs() < 0.01);
                n_files += 1;
            }
        }
    }
    assert!(n_files == 400 && n_five > 350, "{n_files} files, {n_five} of five seconds");
}
