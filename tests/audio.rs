//! WAV files, waveforms, batches and resampling. The tests build WAV bytes by hand, not with the writer under test.

mod common;

use std::f64::consts::{PI, TAU};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clipwise::audio::{
    AudioReader, AudioReason, Channels, Note, ReadOptions, SampleFormat, Waveform, WaveformBatch, resample,
};
use clipwise::frontend::Complex;
use clipwise::{Error, Result, Weights};
use common::{Random, golden, max_difference};

/// The contents of a fmt chunk.
fn fmt(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
    let block = channels.wrapping_mul(bits / 8);
    let mut out = Vec::new();
    out.extend(tag.to_le_bytes());
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.wrapping_mul(u32::from(block)).to_le_bytes());
    out.extend(block.to_le_bytes());
    out.extend(bits.to_le_bytes());
    out
}

/// The contents of an extensible fmt chunk.
fn extensible(tag: u16, channels: u16, rate: u32, (bits, valid_bits): (u16, u16), mask: u32) -> Vec<u8> {
    let mut out = fmt(0xFFFE, channels, rate, bits);
    out.extend(22_u16.to_le_bytes());
    out.extend(valid_bits.to_le_bytes());
    out.extend(mask.to_le_bytes());
    out.extend(tag.to_le_bytes());
    out.extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
    out
}

/// A WAV file of the given chunks, padded to even sizes.
fn wav(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WAVE".to_vec();
    for (name, contents) in chunks {
        body.extend(*name);
        body.extend((contents.len() as u32).to_le_bytes());
        body.extend(*contents);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    let mut file = b"RIFF".to_vec();
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    file
}

fn simple(fmt: &[u8], data: &[u8]) -> Vec<u8> {
    wav(&[(b"fmt ", fmt), (b"data", data)])
}

fn pcm16(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A mono 16-bit file of 8 samples, with its data length at bytes 40..44.
fn small() -> Vec<u8> {
    simple(&fmt(1, 1, 16_000, 16), &pcm16(&[1, -2, 3, -4, 5, -6, 7, -8]))
}

fn read(bytes: &[u8]) -> Result<Waveform> {
    Waveform::read(bytes)
}

/// A path in the temporary folder, removed at the end of the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("clipwise_{}_{n}_{name}", std::process::id())))
    }

    fn holding(name: &str, bytes: &[u8]) -> Self {
        let path = Self::new(name);
        std::fs::write(&path.0, bytes).unwrap();
        path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens bytes as a file, which must fail. Checks that the message names the file and the reason, and returns the
/// reason.
fn refused(bytes: &[u8], in_message: &str) -> AudioReason {
    let file = Temporary::holding("refused.wav", bytes);
    let error = Waveform::open(&file.0).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("refused.wav") && message.contains(in_message), "{message}");
    match error {
        Error::Audio { path, reason } if path == file.0 => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_bit_depth_is_read_with_plain_and_extensible_headers() {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let cases: [(u16, u16, Vec<u8>, Vec<f32>); 5] = [
        (1, 8, vec![0, 64, 128, 192, 255], vec![-1.0, -0.5, 0.0, 0.5, 127.0 / 128.0]),
        (
            1,
            16,
            pcm16(&[i16::MIN, -1, 0, 1, i16::MAX]),
            vec![-1.0, -1.0 / 32768.0, 0.0, 1.0 / 32768.0, 32767.0 / 32768.0],
        ),
        (
            1,
            24,
            vec![0, 0, 0x80, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0x40],
            vec![-1.0, -(2_f32.powi(-23)), 2_f32.powi(-23), 0.5],
        ),
        (
            1,
            32,
            [i32::MIN, -1, 1 << 30].iter().flat_map(|v| v.to_le_bytes()).collect(),
            vec![-1.0, -(2_f32.powi(-31)), 0.5],
        ),
        (3, 32, floats(&[-1.5, 0.1, 1e-30]), vec![-1.5, 0.1, 1e-30]),
    ];
    for (tag, bits, data, expected) in cases {
        let plain = fmt(tag, 1, 44_100, bits);
        let mut with_size = plain.clone();
        with_size.extend([0, 0]);
        let mut with_more = plain.clone();
        with_more.extend([22, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]);
        for header in [
            plain,
            with_size,
            with_more,
            extensible(tag, 1, 44_100, (bits, bits), 4),
            extensible(tag, 1, 44_100, (bits, 0), 0),
        ] {
            let waveform = read(&simple(&header, &data)).unwrap();
            assert_eq!(waveform, Waveform::new(expected.clone(), 44_100), "{bits} bits, {} bytes of fmt", header.len());
        }
    }
}

#[test]
fn valid_bits_are_the_high_bits() {
    // 24 bits in 32, and 20 in 24, lie in the high bits; the low ones are zero.
    let data: Vec<u8> = [i32::MIN, 0x4000_0000, -0x4000_0000].iter().flat_map(|v| v.to_le_bytes()).collect();
    let waveform = read(&simple(&extensible(1, 1, 48_000, (32, 24), 4), &data)).unwrap();
    assert_eq!(waveform.samples, [-1.0, 0.5, -0.5]);
    let waveform = read(&simple(&extensible(1, 1, 48_000, (24, 20), 4), &[0, 0, 0xC0, 0x10, 0, 0])).unwrap();
    assert_eq!(waveform.samples, [-0.5, 16.0 / 8_388_608.0]);
}

#[test]
fn channels_are_averaged_or_chosen() {
    for n_channels in [1_u16, 2, 3, 6, 63, 64] {
        // Channel c of sample i is 100 i + c.
        let data: Vec<i16> = (0..5).flat_map(|i| (0..n_channels as i16).map(move |c| 100 * i + c)).collect();
        let header = extensible(1, n_channels, 8_000, (16, 16), 0x3F);
        let file = Temporary::holding("channels.wav", &simple(&header, &pcm16(&data)));
        let mean = Waveform::open(&file.0).unwrap();
        for (i, &x) in mean.samples.iter().enumerate() {
            let expected = (100.0 * i as f64 + f64::from(n_channels - 1) / 2.0) / 32768.0;
            assert_eq!(x, expected as f32);
        }
        for channel in [0, usize::from(n_channels) / 2, usize::from(n_channels) - 1] {
            let options = ReadOptions { channels: Channels::One(channel), ..ReadOptions::default() };
            let one = Waveform::open_with(&file.0, &options).unwrap();
            let expected: Vec<f32> = (0..5).map(|i| (100 * i + channel) as f32 / 32768.0).collect();
            assert_eq!(one.samples, expected);
        }
        let options = ReadOptions { channels: Channels::One(usize::from(n_channels)), ..ReadOptions::default() };
        match Waveform::open_with(&file.0, &options) {
            Err(Error::Audio { reason: AudioReason::NoSuchChannel { channel, count }, .. }) => {
                assert_eq!((channel, count), (usize::from(n_channels), n_channels));
            }
            other => panic!("{other:?}"),
        }
    }
    // Two floats whose sum is infinite in f32 have a finite mean; the mean of 3 channels is rounded once.
    let data: Vec<u8> = [f32::MAX, f32::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(&simple(&fmt(3, 2, 8_000, 32), &data)).unwrap().samples, [f32::MAX]);
}

#[test]
fn agrees_with_hound() {
    let mut random = Random(0xC11B);
    for (bits, sample_format) in
        [8, 16, 24, 32].map(|b| (b, hound::SampleFormat::Int)).into_iter().chain([(32, hound::SampleFormat::Float)])
    {
        for channels in [1, 2, 5] {
            let spec = hound::WavSpec { channels, sample_rate: 8_000, bits_per_sample: bits, sample_format };
            let mut bytes = std::io::Cursor::new(Vec::new());
            let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
            // More than the reader decodes in one block.
            for _ in 0..30_000 * u32::from(channels) {
                let integer = ((random.below(1 << 16) << 16) + random.below(1 << 16)) as u32 as i32;
                match sample_format {
                    hound::SampleFormat::Int => writer.write_sample(integer >> (32 - bits)).unwrap(),
                    hound::SampleFormat::Float => writer.write_sample(integer as f32 / 1e9).unwrap(),
                }
            }
            writer.finalize().unwrap();
            let bytes = bytes.into_inner();
            let mut reader = hound::WavReader::new(&bytes[..]).unwrap();
            let samples: Vec<f64> = match sample_format {
                hound::SampleFormat::Int => {
                    reader.samples::<i32>().map(|x| f64::from(x.unwrap()) / 2_f64.powi(i32::from(bits) - 1)).collect()
                }
                hound::SampleFormat::Float => reader.samples::<f32>().map(|x| f64::from(x.unwrap())).collect(),
            };
            let expected: Vec<f64> =
                samples.chunks(channels.into()).map(|frame| frame.iter().sum::<f64>() / f64::from(channels)).collect();
            let read = read(&bytes).unwrap();
            assert_eq!(read.n_samples(), 30_000);
            for (&x, &y) in read.samples.iter().zip(&expected) {
                // One rounding to f32.
                assert!((f64::from(x) - y).abs() <= 1e-7 * y.abs(), "{bits} bits, {channels} channels: {x} {y}");
            }
        }
    }
}

#[test]
fn chunks_around_the_samples_are_skipped() {
    let data = pcm16(&[100, -100]);
    let header = fmt(1, 1, 11_025, 16);
    let file = wav(&[
        (b"JUNK", &[7; 27]), // odd: padded
        (b"bext", &[]),
        (b"fmt ", &header),
        (b"fact", &[2, 0, 0, 0, 9, 9, 9, 9]),
        (b"LIST", b"INFOISFT\x05\0\0\0Lavf\0"), // odd
        (b"data", &data),
        (b"LIST", b"anything"),
    ]);
    assert_eq!(read(&file).unwrap(), Waveform::new(vec![100.0 / 32768.0, -100.0 / 32768.0], 11_025));
    // The bytes per second are redundant and wrong in many files, as is the length of the whole file.
    let mut file = small();
    file[28..32].fill(0x55);
    file[4..8].fill(0xFF);
    assert_eq!(read(&file).unwrap().n_samples(), 8);
}

#[test]
fn any_rate_is_read() {
    for rate in [1, 11_025, 44_101, 192_000, 100_000_000] {
        assert_eq!(read(&simple(&fmt(1, 1, rate, 16), &pcm16(&[1]))).unwrap().sample_rate, rate);
    }
}

#[test]
fn written_files_read_back() {
    let file = Temporary::new("written.wav");
    let waveform = Waveform::new((0..10_000).map(|i| (i as f32 * 0.37).sin() * 1.2).collect(), 22_050);
    waveform.write(&file.0).unwrap();
    assert_eq!(Waveform::open(&file.0).unwrap(), waveform);
    assert!((waveform.duration() - 10_000.0 / 22_050.0).abs() < 1e-12);

    waveform.write_with(&file.0, SampleFormat::Int16).unwrap();
    let read_back = Waveform::open(&file.0).unwrap();
    assert_eq!((read_back.sample_rate, read_back.n_samples()), (22_050, 10_000));
    for (&x, &y) in waveform.samples.iter().zip(&read_back.samples) {
        // Half a step of rounding; clipped beyond full scale.
        assert!((x.clamp(-1.0, 32767.0 / 32768.0) - y).abs() <= 0.5 / 32768.0, "{x} {y}");
    }
    assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 44 + 2 * 10_000);

    let refused = Temporary::new("refused.wav");
    let cases = [
        (Waveform::new(vec![], 8_000), AudioReason::NoSamples),
        (Waveform::new(vec![0.0], 0), AudioReason::SampleRate(0)),
        (Waveform::new(vec![0.0], u32::MAX), AudioReason::SampleRate(u32::MAX)),
        (
            Waveform::new(vec![0.0, f32::INFINITY], 8_000),
            AudioReason::NonFinite { index: 1, channel: 0, value: f32::INFINITY },
        ),
    ];
    for (waveform, expected) in cases {
        assert!(matches!(waveform.write(&refused.0), Err(Error::Audio { reason, .. }) if reason == expected));
        assert!(!refused.0.exists());
    }
    let nowhere = waveform.write(refused.0.join("no/such/folder.wav")).unwrap_err();
    assert!(matches!(nowhere, Error::Io { action: "write", .. }));
}

#[test]
fn other_formats_are_identified() {
    let not_wav: [(&[u8], &str); 13] = [
        (b"OggS\0\x02\0\0\0\0\0\0\0\0", "Ogg"),
        (b"fLaC\0\0\0\x22\x10\0\x10\0", "FLAC"),
        (b"ID3\x04\0\0\0\0\0\0TIT2", "MP3"),
        (b"\xFF\xFB\x90\x64\0\0\0\0\0\0\0\0", "MP3"),
        (b"\xFF\xF1\x50\x80\0\0\0\0\0\0\0\0", "AAC"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MPEG-4"),
        (b"FORM\0\0\0\0AIFFCOMM", "AIFF"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"hello", "text"),
        (&[0; 100], "zeros"),
        (&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 200], "unknown"),
    ];
    for (bytes, name) in not_wav {
        let is_read = ["Ogg", "FLAC", "MP3", "MPEG-4", "AIFF"].contains(&name);
        if cfg!(feature = "symphonia") && is_read {
            continue;
        }
        let in_message = if is_read { "which the cargo feature `symphonia` reads" } else { "expected a WAV" };
        assert!(
            matches!(refused(bytes, in_message), AudioReason::UnsupportedFormat { format, .. } if format.contains(name)),
            "{name}"
        );
    }
    assert_eq!(refused(b"", "empty"), AudioReason::Empty);
    let missing = Waveform::open("/no/such/file.wav").unwrap_err();
    assert!(matches!(missing, Error::Io { action: "open", .. }) && missing.to_string().contains("/no/such/file.wav"));
    let folder = Waveform::open(std::env::temp_dir()).unwrap_err();
    assert!(matches!(folder, Error::Io { .. }));
}

#[test]
fn damaged_headers_are_rejected() {
    let good = fmt(1, 1, 16_000, 16);
    let data = pcm16(&[1, 2, 3]);
    let malformed: [(Vec<u8>, &str); 9] = [
        (small()[..7].to_vec(), "after 7"),
        (small()[..12].to_vec(), "expected a data chunk"),
        (small()[..17].to_vec(), "after 5 of the 8"),
        (small()[..30].to_vec(), "in the fmt chunk"),
        (wav(&[(b"data", &data), (b"fmt ", &good)]), "expected a fmt chunk"),
        (wav(&[(b"fmt ", &good[..14]), (b"data", &data)]), "got 14"),
        (simple(&extensible(1, 1, 8_000, (16, 16), 4)[..30], &data), "at least 40 bytes"),
        (simple(&good, &[1, 2, 3]), "1 of 2 bytes"),
        (
            {
                let mut file = wav(&[(b"LIST", &[0; 4]), (b"fmt ", &good), (b"data", &data)]);
                file[16..20].copy_from_slice(&4_000_000_000_u32.to_le_bytes());
                file
            },
            "\"LIST\" declares 4000000000 bytes",
        ),
    ];
    for (bytes, detail) in malformed {
        assert!(matches!(refused(&bytes, "damaged"), AudioReason::Malformed(d) if d.contains(detail)), "{detail}");
    }
    let mut block_align = small();
    block_align[32] = 4;
    assert!(matches!(refused(&block_align, "got 4 bytes"), AudioReason::Malformed(_)));

    for n in [0, 65, u16::MAX] {
        let file = simple(&fmt(1, n, 16_000, 16), &data);
        assert_eq!(refused(&file, &format!("channels, got {n}")), AudioReason::ChannelCount(n));
    }
    for rate in [0, 100_000_001, u32::MAX] {
        let file = simple(&fmt(1, 1, rate, 16), &data);
        assert_eq!(refused(&file, &format!("{rate} Hz")), AudioReason::SampleRate(rate));
    }
}

#[test]
fn unsupported_encodings_are_named() {
    let mut guid = extensible(1, 1, 8_000, (16, 16), 4);
    guid[30] ^= 0xFF;
    let cases = [
        (fmt(6, 1, 8_000, 16), "A-law of 16 bits"),
        (extensible(2, 1, 8_000, (4, 4), 0), "Microsoft ADPCM"),
        (extensible(0x11, 1, 8_000, (4, 4), 0), "IMA ADPCM"),
        (fmt(0x55, 1, 8_000, 0), "MP3"),
        (fmt(0x1234, 1, 8_000, 16), "0x1234"),
        (fmt(3, 1, 8_000, 16), "16-bit float"),
        (fmt(1, 1, 8_000, 12), "12-bit integer"),
        (fmt(1, 1, 8_000, 64), "64-bit integer"),
        (fmt(1, 1, 8_000, 0), "0-bit integer"),
        (guid, "extensible"),
    ];
    for (header, name) in cases {
        let file = simple(&header, &[0; 16]);
        assert!(matches!(refused(&file, name), AudioReason::Encoding(_)));
    }
}

#[test]
fn truncated_files_state_how_much_is_there() {
    let file = small();
    for n_bytes in 0..16 {
        let reason = refused(&file[..44 + n_bytes], "8 samples per channel");
        assert_eq!(reason, AudioReason::Truncated { declared: 8, found: n_bytes as u64 / 2 });
    }
    // 28 stereo 16-bit samples in a file of 156 bytes that claims 4 GB, with lengths that are not the usual
    // placeholders.
    for declared in [u32::MAX - 1, u32::MAX - 7, 0x8000_0004, 0x7FFF_EFFC, 1 << 30] {
        let mut file = simple(&fmt(1, 2, 44_100, 16), &[1; 112]);
        file[40..44].copy_from_slice(&declared.to_le_bytes());
        let begun = Instant::now();
        let reason = refused(&file, "the file holds 28");
        assert_eq!(reason, AudioReason::Truncated { declared: u64::from(declared) / 4, found: 28 });
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(refused(&simple(&fmt(1, 1, 8_000, 16), &[]), "no samples"), AudioReason::NoSamples);
}

#[test]
fn a_placeholder_length_is_accepted_in_a_stream() {
    let accept = ReadOptions { accept_placeholder_length: true, ..ReadOptions::default() };
    let whole = read(&small()).unwrap();
    for placeholder in [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        let mut file = small();
        file[4..8].fill(0xFF);
        file[40..44].copy_from_slice(&placeholder.to_le_bytes());
        let refused = Waveform::read(&file[..]).unwrap_err();
        assert!(matches!(refused, Error::Audio { reason: AudioReason::UnknownLength { .. }, .. }), "{refused}");
        assert!(refused.to_string().contains("accept_placeholder_length"), "{refused}");
        let accepted = Waveform::read_with(&file[..], &accept).unwrap();
        let note = Note::UnknownLength { declared_bytes: placeholder.into() };
        assert_eq!((&accepted, accepted.notes()), (&whole, &[note.clone()][..]));
        // In a file, the length is known.
        let on_disk = Temporary::holding("placeholder.wav", &file);
        let accepted = Waveform::open(&on_disk.0).unwrap();
        assert_eq!((&accepted, accepted.notes()), (&whole, &[note][..]));
        let odd = Waveform::read_with(&file[..file.len() - 1], &accept).unwrap_err();
        assert!(matches!(odd, Error::Audio { reason: AudioReason::EndsEarly { found: 7, .. }, .. }), "{odd}");
        let none = Waveform::read_with(&file[..44], &accept).unwrap_err();
        assert!(matches!(none, Error::Audio { reason: AudioReason::NoSamples, .. }));
    }
    // Any other wrong length is still an error.
    let error = Waveform::read_with(&small()[..50], &accept).unwrap_err();
    assert!(error.to_string().starts_with("<stream>: truncated"), "{error}");
}

#[test]
fn samples_are_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let data: Vec<u8> = [0.0, 0.5, 1.0, bad].iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = simple(&fmt(3, 2, 8_000, 32), &data);
        match refused(&file, "sample 1 of channel 1") {
            AudioReason::NonFinite { index: 1, channel: 1, value } => assert_eq!(value.to_bits(), bad.to_bits()),
            other => panic!("{other:?}"),
        }
        let first = ReadOptions { channels: Channels::One(0), ..ReadOptions::default() };
        assert_eq!(Waveform::read_with(&file[..], &first).unwrap().samples, [0.0, 1.0]);
    }
}

/// A reader that fails after its bytes, with the kind of error that the WAV decoder itself reports at an early end.
struct Failing<'a>(&'a [u8]);

impl std::io::Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::Error::other("the cable is out"));
        }
        // One byte at a time, which a reader is free to do.
        let n = buffer.len().min(1);
        std::io::Read::read(&mut self.0, &mut buffer[..n])
    }
}

/// Reads bytes as a file, as a stream and from memory, which must all give the same result.
fn everywhere(bytes: &[u8], options: &ReadOptions) -> Waveform {
    let file = Temporary::holding("everywhere.wav", bytes);
    let from_file = Waveform::open_with(&file.0, options).unwrap();
    let stream =
        AudioReader::read_with(std::io::Cursor::new(bytes.to_vec()), options).unwrap().into_waveform().unwrap();
    let from_bytes = Waveform::read_with(bytes, options).unwrap();
    assert_eq!((&stream, &from_bytes), (&from_file, &from_file));
    assert_eq!((stream.notes(), from_bytes.notes()), (from_file.notes(), from_file.notes()));
    from_file
}

#[test]
fn a_size_rounded_down_to_whole_frames_is_a_placeholder() {
    // SoX's placeholder for 24 bits: 0x7FFFF000 is not a multiple of 3.
    let accept = ReadOptions { accept_placeholder_length: true, ..ReadOptions::default() };
    for (n_channels, bits) in [(1, 24), (2, 24), (3, 16), (5, 32)] {
        let frame_bytes = u32::from(n_channels * bits / 8);
        let mut file = simple(&fmt(1, n_channels, 16_000, bits), &vec![0x11; 40 * frame_bytes as usize]);
        let size = 0x7FFF_F000 / frame_bytes * frame_bytes;
        file[40..44].copy_from_slice(&size.to_le_bytes());
        let waveform = everywhere(&file, &accept);
        assert_eq!(waveform.n_samples(), 40);
        assert_eq!(waveform.notes(), [Note::UnknownLength { declared_bytes: size.into() }]);
    }
}

#[test]
fn samples_beyond_the_declared_length_are_read() {
    let whole = read(&simple(&fmt(1, 1, 16_000, 16), &pcm16(&(1..=500).collect::<Vec<_>>()))).unwrap();
    let with_size = |n_samples: u32, after: &[u8]| {
        let mut file = simple(&fmt(1, 1, 16_000, 16), &pcm16(&(1..=500).collect::<Vec<_>>()));
        file[40..44].copy_from_slice(&(2 * n_samples).to_le_bytes());
        file.extend_from_slice(after);
        file
    };
    let stale = everywhere(&with_size(125, &[]), &ReadOptions::default());
    assert_eq!((&stale, stale.notes()), (&whole, &[Note::MoreThanDeclared { declared: 125 }][..]));
    // A recorder that lost power leaves a size of 0. A stream without a length must be accepted explicitly.
    let accept = ReadOptions { accept_placeholder_length: true, ..ReadOptions::default() };
    let crashed = everywhere(&with_size(0, &[]), &accept);
    assert_eq!((&crashed, crashed.notes()), (&whole, &[Note::UnknownLength { declared_bytes: 0 }][..]));
    let crashed = Temporary::holding("crashed.wav", &with_size(0, &[]));
    assert_eq!(Waveform::open(&crashed.0).unwrap(), whole);
    // Chunks and tags after the samples are not samples.
    let chunk = |name: &[u8; 4], n: u32| [&name[..], &n.to_le_bytes(), &vec![0x55; n as usize]].concat();
    for after in [
        chunk(b"LIST", 26),
        chunk(b"bext", 602),
        [chunk(b"cue ", 4), chunk(b"what", 3)].concat(),
        chunk(b"LIST", 26)[..20].to_vec(),
        [&b"TAG"[..], &[0; 125]].concat(),
        chunk(b"ID3\x03", 90),
    ] {
        let waveform = everywhere(&with_size(500, &after), &ReadOptions::default());
        assert!(waveform == whole && waveform.notes().is_empty(), "{after:?}");
    }
    // Odd sizes, with and without the padding byte.
    for n_padding in [0, 1] {
        let file = [&simple(&fmt(1, 1, 8_000, 8), &[7; 9])[..53], &vec![0; n_padding], &chunk(b"LIST", 4)].concat();
        assert_eq!(everywhere(&file, &ReadOptions::default()).n_samples(), 9);
    }
}

#[test]
fn a_header_that_counts_itself_is_damage_that_can_be_skipped() {
    let mut file = small();
    file[40..44].copy_from_slice(&(16_u32 + 44).to_le_bytes());
    assert!(matches!(refused(&file, "the file holds 8"), AudioReason::Truncated { declared: 30, found: 8 }));
    let reason = AudioReason::Truncated { declared: 30, found: 8 };
    for options in [ReadOptions::SKIP_DAMAGE, ReadOptions { accept_truncated: true, ..ReadOptions::default() }] {
        let waveform = everywhere(&file, &options);
        assert_eq!((&waveform, waveform.notes()), (&read(&small()).unwrap(), &[Note::CutShort(reason.clone())][..]));
    }
    // More than that is missing.
    file[40..44].copy_from_slice(&(16_u32 + 46).to_le_bytes());
    assert!(Waveform::read_with(&file[..], &ReadOptions::SKIP_DAMAGE).is_err());
    let accept = ReadOptions { accept_truncated: true, ..ReadOptions::default() };
    assert_eq!(everywhere(&file[..file.len() - 1], &accept).n_samples(), 7);
    // But some of it must be there.
    assert!(Waveform::read_with(&file[..44], &accept).is_err());
}

#[test]
fn logarithmic_samples_and_double_precision() {
    // ITU-T G.711: the largest, the smallest and the middle value of both laws, in 16-bit units.
    let a_law = [(0xD5, 8), (0x55, -8), (0xAA, 32_256), (0x2A, -32_256), (0x80, 5504), (0xC5, 264)];
    let mu_law = [(0xFF, 0), (0x7F, 0), (0x80, 32_124), (0x00, -32_124), (0xDF, 396), (0xF0, 120)];
    for (tag, codes) in [(6, a_law), (7, mu_law)] {
        let data: Vec<u8> = codes.iter().map(|&(code, _)| code).collect();
        for header in [fmt(tag, 1, 8_000, 8), extensible(tag, 1, 8_000, (8, 8), 4)] {
            let waveform = read(&simple(&header, &data)).unwrap();
            let expected: Vec<f32> = codes.iter().map(|&(_, value)| value as f32 / 32768.0).collect();
            assert_eq!(waveform.samples, expected, "format {tag}");
        }
    }
    let doubles = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let header = fmt(3, 2, 8_000, 64);
    let waveform = read(&simple(&header, &doubles(&[0.5, 0.25, -1.5, 0.1]))).unwrap();
    assert_eq!(waveform.samples, [0.375, -0.7]);
    // Finite in f64, but not in f32.
    let huge = refused(&simple(&header, &doubles(&[0.0, 0.0, 1e300, 0.0])), "sample 1 of channel 0");
    assert!(matches!(huge, AudioReason::NonFinite { index: 1, channel: 0, .. }));
    let nan = refused(&simple(&header, &doubles(&[0.0, f64::NAN])), "sample 0 of channel 1 is NaN");
    assert!(matches!(nan, AudioReason::NonFinite { .. }));
}

#[test]
fn tags_before_a_wav_file_are_skipped() {
    let tag = |n: u8| [&b"ID3\x03\0\0\0\0\0"[..], &[n], &vec![1; n.into()]].concat();
    let whole = read(&small()).unwrap();
    for before in [tag(10), tag(0), [tag(100), tag(3)].concat()] {
        assert_eq!(everywhere(&[&before[..], &small()].concat(), &ReadOptions::default()), whole);
    }
    refused(&[&tag(10)[..], &small()[..30]].concat(), "in the fmt chunk");
}

#[test]
fn suspicious_levels_are_noted() {
    let integers: Vec<u8> = [0.0_f32, 100.5, -29_490.0, 29_000.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let waveform = everywhere(&simple(&fmt(3, 1, 16_000, 32), &integers), &ReadOptions::default());
    assert_eq!(waveform.notes(), [Note::IntegerScale { peak: 29_490.0, full_scale: 32_768.0 }]);
    assert!(waveform.notes()[0].to_string().contains("divide them by 32768"));
    assert_eq!(waveform.resample(8_000).unwrap().notes(), waveform.notes());
    let scaled = waveform.scaled(1.0 / 32_768.0);
    assert!(scaled.notes().is_empty() && scaled.samples[2] == -29_490.0 / 32_768.0);
    for (peak, full_scale) in [(40_000.0_f32, 8_388_608.0), (1e8, 2_147_483_648.0), (1e12, 2_147_483_648.0)] {
        let waveform = read(&simple(&fmt(3, 1, 16_000, 32), &peak.to_le_bytes())).unwrap();
        assert_eq!(waveform.notes(), [Note::IntegerScale { peak, full_scale }]);
    }
    // A float file may exceed full scale by some dB.
    assert!(read(&simple(&fmt(3, 1, 16_000, 32), &8.0_f32.to_le_bytes())).unwrap().notes().is_empty());

    // One channel is almost the negative of the other.
    let stereo: Vec<i16> = (0..2_000).flat_map(|i| [(i * 37 % 20_000) as i16, -(i * 37 % 20_000) as i16 + 3]).collect();
    let file = simple(&fmt(1, 2, 16_000, 16), &pcm16(&stereo));
    let waveform = everywhere(&file, &ReadOptions::default());
    assert!(
        matches!(waveform.notes(), [Note::ChannelsCancel { decibels }] if *decibels > 60.0),
        "{:?}",
        waveform.notes()
    );
    let left = everywhere(&file, &ReadOptions { channels: Channels::One(0), ..ReadOptions::default() });
    assert!(left.notes().is_empty());
    // Unrelated channels lose power in their mean but do not cancel; neither does silence.
    let mut random = Random(7);
    for n_channels in [2, 5, 64] {
        let data: Vec<i16> =
            (0..1_000 * usize::from(n_channels)).map(|_| random.below(1 << 16) as u16 as i16).collect();
        assert!(read(&simple(&fmt(1, n_channels, 16_000, 16), &pcm16(&data))).unwrap().notes().is_empty());
    }
    assert!(read(&simple(&fmt(1, 2, 16_000, 16), &[0; 400])).unwrap().notes().is_empty());
}

#[test]
fn a_failing_reader_is_not_reported_as_a_truncated_file() {
    let file = small();
    for n in 0..file.len() {
        match Waveform::read(Failing(&file[..n])) {
            Err(Error::Io { action: "read", cause, .. }) => assert_eq!(cause.to_string(), "the cable is out"),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert!(Waveform::read(Failing(&file)).is_ok());
}

#[test]
fn no_input_causes_a_panic() {
    let files = [
        small(),
        simple(&extensible(3, 2, 48_000, (32, 32), 3), &[0x3E; 64]),
        wav(&[(b"JUNK", &[1; 5]), (b"fmt ", &fmt(1, 3, 8_000, 24)), (b"fact", &[1; 4]), (b"data", &[0x80; 54])]),
    ];
    let mut random = Random(0x5EED);
    let begun = Instant::now();
    let (mut n_read, mut n_refused) = (0, 0);
    for i in 0..30_000 {
        let mut file = files[i % files.len()].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(file.len());
            match random.below(4) {
                0 => file[at] ^= 1 << random.below(8),
                1 => file[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
                2 => file.truncate(at.max(1)),
                _ => {
                    let end = (at + 4).min(file.len());
                    file[at..end].fill(random.below(256) as u8);
                }
            }
        }
        let channels = if i % 2 == 0 { Channels::Mean } else { Channels::One(random.below(4)) };
        let options = ReadOptions { channels, accept_placeholder_length: i % 3 == 0, ..ReadOptions::default() };
        match Waveform::read_with(&file[..], &options) {
            Ok(waveform) => {
                n_read += 1;
                assert!(waveform.n_samples() <= file.len() && waveform.samples.iter().all(|x| x.is_finite()));
                assert!(waveform.samples.capacity() <= 2 * file.len() + 64);
            }
            Err(error @ Error::Audio { .. }) => {
                n_refused += 1;
                assert!(error.to_string().starts_with("<stream>: "));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(n_read > 3_000 && n_refused > 3_000, "{n_read} read, {n_refused} refused");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn clips_of_a_batch_must_have_one_rate() {
    let clips = [Waveform::new(vec![1.0; 3], 8_000), Waveform::new(vec![2.0; 5], 8_000), Waveform::new(vec![], 16_000)];
    let batch = WaveformBatch::try_from(&clips[..2]).unwrap();
    assert_eq!((batch.len(), batch.lengths(), batch.sample_rate()), (2, vec![3, 5], 8_000));
    assert_eq!(batch.rows()[1], [2.0; 5]);
    assert_eq!(WaveformBatch::from(&clips[0]), WaveformBatch::new(vec![vec![1.0; 3]], 8_000).unwrap());
    assert_eq!(WaveformBatch::from(clips[0].clone()), WaveformBatch::from(&clips[0]));

    let message = WaveformBatch::try_from(&clips[..]).unwrap_err().to_string();
    assert!(message.contains("16000") && message.contains("8000") && message.contains("clip 2"), "{message}");
    assert!(matches!(WaveformBatch::try_from(&clips[..0]), Err(Error::Argument { name: "rows", .. })));
    assert!(matches!(WaveformBatch::new(vec![], 8_000), Err(Error::Argument { name: "rows", .. })));
    assert!(matches!(WaveformBatch::new(vec![vec![]], 0), Err(Error::Argument { name: "sample_rate", .. })));
}

/// Pairs of rates: usual ones, resampled by FFT, and odd ones, resampled by sinc interpolation.
const PAIRS: [(u32, u32); 14] = [
    (44_100, 32_000),
    (48_000, 32_000),
    (8_000, 32_000),
    (22_050, 16_000),
    (32_000, 44_100),
    (11_025, 48_000),
    (192_000, 8_000),
    (16_000, 8_000),
    (44_101, 32_000),
    (32_000, 44_101),
    (50_021, 7_919),
    (7_919, 50_021),
    (48_000, 47_999),
    (384_000, 997),
];

fn sine(frequency: f64, rate: u32, n: usize) -> Vec<f32> {
    (0..n).map(|i| (2.0 * PI * frequency * i as f64 / f64::from(rate) + 0.3).sin() as f32).collect()
}

/// The number of input samples that gives about 3000 samples at the lower rate of a pair.
fn n_for(from: u32, to: u32) -> usize {
    3_000 * from as usize / from.min(to) as usize
}

/// The middle half, at least half a filter length away from the ends.
fn middle(x: &[f32]) -> &[f32] {
    &x[x.len() / 4..x.len() / 4 * 3]
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

fn rms(x: &[f32]) -> f64 {
    (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
}

#[test]
fn the_pass_band_is_flat_and_without_delay() {
    for (from, to) in PAIRS {
        let nyquist = f64::from(from.min(to)) / 2.0;
        for relative in [0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9] {
            let frequency = relative * nyquist;
            let output = resample(&sine(frequency, from, n_for(from, to)), from, to).unwrap();
            let expected = sine(frequency, to, output.len());
            // A 0.1 dB ripple or a delay of 1/100 sample would differ by 1e-2; f32 sums of 1e4 terms by 1e-5.
            for (&a, &b) in middle(&output).iter().zip(middle(&expected)) {
                assert!((a - b).abs() < 5e-5, "{from} to {to} Hz, {frequency} Hz: {a} {b}");
            }
            let ripple = decibels(rms(middle(&output)) / rms(middle(&expected)));
            assert!(ripple.abs() < 1e-3, "{from} to {to} Hz, {frequency} Hz: {ripple} dB");
        }
    }
}

#[test]
fn aliases_are_below_110_decibels() {
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| from > to) {
        for relative in [1.0, 1.005, 1.02, 1.05, 1.1, 1.2, 1.5, 1.9, 2.0, 2.9, 5.3] {
            let frequency = relative * f64::from(to) / 2.0;
            if frequency < f64::from(from) / 2.0 {
                let input = sine(frequency, from, n_for(from, to));
                let output = resample(&input, from, to).unwrap();
                let alias = decibels(rms(middle(&output)) / rms(&input));
                assert!(alias < -110.0, "{from} to {to} Hz, {frequency} Hz: {alias} dB");
            }
        }
    }
}

#[test]
fn images_are_below_110_decibels() {
    // The images of a tone are the output minus its component at the tone's frequency.
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| from < to) {
        for relative in [0.5, 0.9, 0.95, 0.98, 0.995] {
            let frequency = relative * f64::from(from) / 2.0;
            let input = sine(frequency, from, n_for(from, to));
            let output = resample(&input, from, to).unwrap();
            let output: Vec<f64> = middle(&output).iter().map(|&y| f64::from(y)).collect();
            let turns = |j: usize| Complex::from_polar(1.0, TAU * frequency * j as f64 / f64::from(to));
            // Least squares: the sums of squares and products of cosine, sine and output.
            let (mut cc, mut cs, mut ss, mut cy, mut sy) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (j, y) in output.iter().enumerate() {
                let Complex { re: c, im: s } = turns(j);
                (cc, cs, ss, cy, sy) = (cc + c * c, cs + c * s, ss + s * s, cy + c * y, sy + s * y);
            }
            let (c, s) = ((cy * ss - sy * cs) / (cc * ss - cs * cs), (sy * cc - cy * cs) / (cc * ss - cs * cs));
            let rest: Vec<f32> =
                output.iter().enumerate().map(|(j, y)| (y - c * turns(j).re - s * turns(j).im) as f32).collect();
            let image = decibels(rms(&rest) / rms(&input));
            assert!(image < -110.0, "{from} to {to} Hz, {frequency} Hz: {image} dB");
        }
    }
}

#[test]
fn a_sweep_stays_in_the_band() {
    // Half a second from 0 Hz to the input's Nyquist frequency: at time t the frequency is t · from.
    for (from, to) in [(44_100_u32, 32_000_u32), (48_000, 16_000), (44_101, 32_000)] {
        let rate = f64::from(from);
        let chirp = |t: f64| (PI * rate * t * t).sin();
        let input: Vec<f32> = (0..from / 2).map(|i| chirp(f64::from(i) / rate) as f32).collect();
        let output = resample(&input, from, to).unwrap();
        let end_of_band = f64::from(to) / 2.0 / rate;
        for (j, &y) in output.iter().enumerate() {
            let t = j as f64 / f64::from(to);
            if t > 0.01 && t < 0.88 * end_of_band {
                // The filter spans 16 ms, in which the sweep moves by 0.1 of the band.
                assert!((f64::from(y) - chirp(t)).abs() < 1e-3, "{from} to {to} Hz at {t} s: {y} {}", chirp(t));
            } else if t > 1.1 * end_of_band && t < 0.48 {
                assert!(y.abs() < 1e-4, "{from} to {to} Hz at {t} s: {y}");
            }
        }
    }
}

#[test]
fn the_length_is_exact() {
    let pairs = [(1, 3), (3, 1), (147, 160), (44_100, 1), (1, 1_000), (7, 7), (96_000, 44_100), (u32::MAX, 8_000)];
    for (from, to) in PAIRS.into_iter().chain(pairs) {
        for n in [0, 1, 2, 3, 10, 147, 441, 1_000, 4_999] {
            let output = resample(&vec![0.5; n], from, to).unwrap();
            let expected = (n as u64 * u64::from(to)).div_ceil(u64::from(from));
            assert_eq!(output.len() as u64, expected, "{n} samples, {from} to {to} Hz");
            assert!(output.iter().all(|x| x.abs() < 1.0));
        }
    }
    // Ten minutes: with the ratio rounded to f64 there would be one sample too many.
    assert_eq!(resample(&vec![0.0; 600 * 44_100], 44_100, 32_000).unwrap().len(), 600 * 32_000);
}

#[test]
fn the_ends_are_extended_by_zeros() {
    // An impulse at either end gives the inner half of the filter, with its peak at the impulse.
    for (from, to) in [(32_000, 48_000), (44_100, 32_000), (44_101, 32_000)] {
        let n = 4 * from as usize / 100 + 1;
        let impulse_at = |at: usize| {
            let mut x = vec![0.0; n];
            x[at] = 1.0;
            resample(&x, from, to).unwrap()
        };
        let (first, last) = (impulse_at(0), impulse_at(n - 1));
        let peak = |y: &[f32]| (0..y.len()).max_by(|&i, &j| y[i].total_cmp(&y[j])).unwrap();
        assert_eq!(peak(&first), 0);
        assert_eq!(peak(&last), ((n - 1) as f64 * f64::from(to) / f64::from(from)).round() as usize);
        // Trailing zeros do not change the samples at a clip's own end.
        let mut x = sine(1_000.0, from, n);
        let short = resample(&x, from, to).unwrap();
        x.resize(3 * n, 0.0);
        let long = resample(&x, from, to).unwrap();
        for (&a, &b) in short.iter().zip(&long) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn resampling_rejects_invalid_input() {
    assert!(matches!(resample(&[1.0], 0, 8_000), Err(Error::Argument { name: "from", .. })));
    assert!(matches!(resample(&[1.0], 8_000, 0), Err(Error::Argument { name: "to", .. })));
    assert!(matches!(resample(&[], 0, 0), Err(Error::Argument { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        let message = resample(&[0.0, bad], 8_000, 16_000).unwrap_err().to_string();
        assert!(message.contains("sample 1"), "{message}");
    }
    // A small file that claims 1 Hz must not turn into gigabytes.
    assert!(matches!(resample(&vec![0.0; 1 << 20], 1, 32_000), Err(Error::Argument { name: "to", .. })));
    assert!(matches!(resample(&[0.0; 1], 1, u32::MAX), Err(Error::Argument { name: "to", .. })));
    let same = sine(440.0, 8_000, 100);
    assert_eq!(resample(&same, 8_000, 8_000).unwrap(), same);
    let waveform = Waveform::new(same, 8_000).resample(16_000).unwrap();
    assert_eq!((waveform.sample_rate, waveform.n_samples()), (16_000, 200));
}

#[test]
fn agrees_with_soxr_and_scipy() {
    let golden = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/resample.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let tensor = |name: String| -> Vec<f32> {
        let data = golden.tensor(&name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    let names: Vec<&str> = golden.names().into_iter().filter_map(|n| n.strip_suffix(".input")).collect();
    assert_eq!(names.len(), 7);
    for name in names {
        let (from, to) = name.split_once('_').unwrap();
        let output = resample(&tensor(format!("{name}.input")), from.parse().unwrap(), to.parse().unwrap()).unwrap();
        // The signal is known as a formula: scipy's polyphase filter is within 1e-7 of the exact result, soxr within 7e-5.
        // Our own error is the f32 rounding of FFTs and of sums of some hundred products.
        for (reference, tolerance) in [("scipy", 1e-6), ("soxr", 1e-4)] {
            let expected = tensor(format!("{name}.{reference}"));
            // soxr rounds the length to the nearest integer; ours and scipy's is the ceiling.
            let n_fewer = output.len() - expected.len();
            assert!(n_fewer <= usize::from(reference == "soxr"), "{name}, {reference}: {n_fewer} samples fewer");
            let worst = output.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name}, {reference}: {worst:e}");
            assert!(worst < tolerance, "{name}, {reference}: {worst}");
        }
    }
}

/// The complex gain for a tone whose frequency is relative to the lower Nyquist frequency. Measured as in
/// `resample.py`.
fn gain(relative: f64, from: u32, to: u32) -> Complex<f64> {
    let lower = f64::from(from.min(to));
    let window = |t: f64| (PI * (t * lower / 6_000.0).clamp(0.0, 1.0)).sin().powi(4);
    let turns = |t: f64| Complex::from_polar(1.0, PI * relative * lower * t);
    let times = |n: usize, rate: u32| (0..n).map(move |i| i as f64 / f64::from(rate));
    let input: Vec<f32> = times(n_for(from, to) * 2, from).map(|t| (window(t) * turns(t).re) as f32).collect();
    let output = resample(&input, from, to).unwrap();
    let products = |(t, &y): (f64, &f32)| turns(t).conj() * (2.0 * window(t) * f64::from(y));
    let sum: Complex<f64> = times(output.len(), to).zip(&output).map(products).sum();
    sum / times(output.len(), to).map(|t| window(t).powi(2)).sum::<f64>()
}

/// Pairs of rates in `resample_hq.safetensors`.
fn hq_pairs(golden: &Weights) -> Vec<(String, u32, u32)> {
    let names: Vec<String> = golden.names().filter_map(|n| Some(n.strip_suffix(".gain")?.to_owned())).collect();
    assert_eq!(names.len(), 16);
    let parse = |name: String| {
        let (from, to) = name.split_once('_').unwrap();
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        (name, from, to)
    };
    names.into_iter().map(parse).collect()
}

#[test]
fn the_response_equals_soxr_hq_for_all_pairs() {
    let golden = golden("resample_hq.safetensors");
    let pairs = hq_pairs(&golden);
    let gains: Vec<Vec<f32>> = pairs.iter().map(|(name, ..)| golden.to_vec(&format!("{name}.gain")).unwrap()).collect();
    let mut worst = [0.0_f64; 2];
    for (i, frequency) in golden.to_vec("frequency").unwrap().into_iter().map(f64::from).enumerate() {
        let soxr: Vec<f64> = gains.iter().map(|gains| gains[i].into()).collect();
        let (lowest, highest) = (soxr.iter().copied().reduce(f64::min), soxr.iter().copied().reduce(f64::max));
        let first = gain(frequency, pairs[0].1, pairs[0].2);
        for ((name, from, to), soxr) in pairs.iter().zip(soxr) {
            let ours = gain(frequency, *from, *to);
            assert!((ours - first).norm() < 2e-6, "{name}, {frequency}: {ours} is not the {first} of {}", pairs[0].0);
            let (level, what) = (decibels(ours.norm()), format!("{name}, {frequency}: {soxr} dB by soxr"));
            // No single response can be closer: soxr's own differ between these pairs by 0.5 dB at -20 dB, 1.6 dB at
            // -40 dB.
            let apart = (level - soxr).abs();
            for (worst, from) in worst.iter_mut().zip([-20.0, -40.0]) {
                *worst = if soxr >= from { worst.max(apart) } else { *worst };
            }
            if soxr >= -40.0 {
                assert!(level > lowest.unwrap() - 0.05 && level < highest.unwrap() + 0.05, "{what}, {level} dB by us");
                assert!(ours.arg().abs() < 1e-4, "{what}, phase {}", ours.arg());
            }
            assert!((ours.norm() - 10_f64.powf(soxr / 20.0)).abs() < 6e-3, "{what}, {level} dB by us");
        }
    }
    println!("off soxr HQ by {:.2} dB down to -20 dB, {:.2} dB down to -40 dB", worst[0], worst[1]);
    assert!(worst[0] < 0.3 && worst[1] < 0.85);
}

#[test]
fn tones_resampled_to_16_khz_equal_librosa() {
    // The level does not depend on the original rate. soxr HQ gives -51.0 to -53.4 dB for the last one.
    for (frequency, level, tolerance) in
        [(7_500, -0.4, 0.3), (7_600, -2.8, 0.3), (7_700, -9.8, 0.3), (7_800, -24.5, 0.3), (7_900, -51.1, 1.5)]
    {
        for from in [44_100, 48_000, 44_101, 22_050, 32_000, 96_000, 16_001] {
            let ours = decibels(gain(f64::from(frequency) / 8_000.0, from, 16_000).norm());
            assert!((ours - level).abs() < tolerance, "{frequency} Hz from {from} Hz: {ours} dB");
        }
    }
}

#[test]
fn noise_equals_soxr_hq_sample_by_sample() {
    let golden = golden("resample_hq.safetensors");
    for (name, from, to) in hq_pairs(&golden) {
        let tensor = |what: &str| golden.to_vec(&format!("{name}.{what}")).unwrap();
        let (output, expected) = (resample(&tensor("input"), from, to).unwrap(), tensor("output"));
        assert!(output.len() - expected.len() <= 1, "{name}: {} and {} samples", output.len(), expected.len());
        let apart = max_difference(&output[..expected.len()], &expected);
        println!("{name}: {apart:e}");
        // soxr's pass band has ripples of 0.01 dB where the ratio has large terms, 1.2e-3 of a tone.
        assert!(apart < 2e-4, "{name}: {apart}");
    }
}

#[test]
fn interleaved_samples_give_the_same_as_a_file() {
    let file = |tag: u16, bits: u16, data: &[u8]| {
        Waveform::read_with(simple(&fmt(tag, 3, 44_100, bits), data).as_slice(), &ReadOptions::default()).unwrap()
    };
    let mut random = Random(9);
    let n = 3 * 1_000;
    let i16s: Vec<i16> = (0..n).map(|_| random.below(1 << 16) as u16 as i16).chain([i16::MIN, i16::MAX, 0]).collect();
    let i32s: Vec<i32> = i16s.iter().map(|&x| (i32::from(x) << 16) | random.below(1 << 16) as i32).collect();
    let f32s: Vec<f32> = random.samples(n);
    let bytes = |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let floats: Vec<u8> = f32s.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(Waveform::from_interleaved(&i16s, 3, 44_100).unwrap(), file(1, 16, &pcm16(&i16s)));
    assert_eq!(Waveform::from_interleaved(&i32s, 3, 44_100).unwrap(), file(1, 32, &bytes(&i32s)));
    assert_eq!(Waveform::from_interleaved(&f32s, 3, 44_100).unwrap(), file(3, 32, &floats));
    assert_eq!(Waveform::from_interleaved(&[-128_i8, 64], 1, 8_000).unwrap().samples, [-1.0, 0.5]);
    assert_eq!(Waveform::from_interleaved(&[0.25_f64, 0.75], 2, 8_000).unwrap().samples, [0.5]);

    let cancels = Waveform::from_interleaved(&[0.5_f32, -0.5, 0.25, -0.25], 2, 8_000).unwrap();
    assert!(matches!(cancels.notes(), [Note::ChannelsCancel { .. }]), "{:?}", cancels.notes());
    assert!(Waveform::from_interleaved::<i16>(&[], 2, 8_000).unwrap().is_empty());
}

#[test]
fn invalid_interleaved_samples_are_errors() {
    let refused = |samples: &[f32], n_channels, rate| match Waveform::from_interleaved(samples, n_channels, rate) {
        Err(Error::Audio { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[0.0; 4], 0, 8_000), AudioReason::ChannelCount(0));
    assert_eq!(refused(&[0.0; 65], 65, 8_000), AudioReason::ChannelCount(65));
    assert_eq!(refused(&[0.0; 4], 2, 0), AudioReason::SampleRate(0));
    let reason = refused(&[0.0, 0.0, 0.0, f32::INFINITY], 2, 8_000);
    assert_eq!(reason, AudioReason::NonFinite { index: 1, channel: 1, value: f32::INFINITY });
    let error = Waveform::from_interleaved(&[0_i16; 5], 2, 8_000).unwrap_err();
    assert_eq!(error.to_string(), "samples.len() = 5: expected a multiple of 2, the number of channels");
}
