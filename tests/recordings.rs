//! Audio in blocks: the resampler and the reader.

mod common;

use std::io::{self, Read};

use clipwise::audio::{
    AudioReader, AudioReason, Channels, Note, RawFormat, ReadOptions, Resampler, SampleFormat, Waveform, resample,
};
use clipwise::{Error, Result};
use common::Random;

fn bits(samples: &[f32]) -> Vec<u32> {
    samples.iter().map(|x| x.to_bits()).collect()
}

/// A WAV file of 16-bit samples.
fn wav(values: &[i16], n_channels: u16, rate: u32) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0".to_vec();
    file.extend(n_channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * 2 * u32::from(n_channels)).to_le_bytes());
    file.extend((2 * n_channels).to_le_bytes());
    file.extend([16, 0]);
    file.extend(b"data");
    file.extend((2 * values.len() as u32).to_le_bytes());
    file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    file
}

/// A reader that returns arbitrary numbers of bytes and, if told to, fails at the end.
struct Pipe {
    bytes: Vec<u8>,
    at: usize,
    random: Random,
    at_most: usize,
    fails: bool,
}

impl Pipe {
    fn new(bytes: &[u8], at_most: usize) -> Self {
        Self { bytes: bytes.into(), at: 0, random: Random(at_most as u64), at_most, fails: false }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random.below(5) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = (1 + self.random.below(self.at_most)).min(buffer.len()).min(self.bytes.len() - self.at);
        if n == 0 && self.fails && !buffer.is_empty() {
            return Err(io::Error::other("the cable is out"));
        }
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// All blocks before the end or an error, and the error.
fn drain(reader: &mut AudioReader) -> (Vec<f32>, Option<Error>) {
    let mut samples = Vec::new();
    let mut failure = None;
    for block in &mut *reader {
        assert!(failure.is_none(), "something after an error");
        match block {
            Ok(block) => {
                assert!(!block.is_empty());
                samples.extend(block);
            }
            Err(error) => failure = Some(error),
        }
    }
    assert_eq!(reader.samples_read(), samples.len() as u64);
    assert!(reader.next().is_none());
    (samples, failure)
}

#[test]
fn a_resampled_stream_equals_the_resampled_clip() {
    fn is_send<T: Send>() {}
    is_send::<Resampler>();
    is_send::<AudioReader>();
    let mut random = Random(7);
    // By FFT, by sinc interpolation, with a filter longer than the clip, and without resampling.
    let by_fft = [(44_100, 32_000), (44_100, 16_000), (8_000, 32_000), (48_000, 16_000), (1_000, 999)];
    let pairs = by_fft.into_iter().chain([(44_101, 32_000), (7_919, 50_021), (48_000, 7), (8, 8)]);
    for (from, to) in pairs {
        let mut resampler = Resampler::new(from, to).unwrap();
        for n in [0, 1, 500, 5_000, 30_000] {
            let samples = random.samples(n);
            let whole = resample(&samples, from, to).unwrap();
            for block in [1, 7, 441, 4_096, usize::MAX] {
                if block == 1 && n > 5_000 {
                    continue;
                }
                let mut output = vec![0.5];
                for (i, piece) in samples.chunks(block).enumerate() {
                    resampler.push(piece, &mut output).unwrap();
                    let next = (output.len() - 1) as f64 * f64::from(from) / f64::from(to);
                    let n_in = (i * block + piece.len()) as f64;
                    assert!(
                        n_in - next <= resampler.lookahead() as f64,
                        "{from} to {to} Hz: {n_in} in, {next} is missing"
                    );
                }
                resampler.finish(&mut output).unwrap();
                assert!(bits(&output[1..]) == bits(&whole), "{from} to {to} Hz, {n} samples by {block}");
            }
            // An abandoned stream leaves no state behind.
            resampler.push(&samples, &mut Vec::new()).unwrap();
            resampler.reset();
        }
    }
    let mut resampler = Resampler::new(16_000, 8_000).unwrap();
    resampler.push(&[0.0; 1_000], &mut Vec::new()).unwrap();
    match resampler.push(&[0.0, f32::NAN], &mut Vec::new()) {
        Err(Error::NonFinite { index: 1_001, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(Resampler::new(0, 1), Err(Error::Argument { name: "from", .. })));
    assert!(matches!(Resampler::new(u32::MAX, 1), Err(Error::Argument { name: "to", .. })));
    let mut slow = Resampler::new(1, 32_000).unwrap();
    let refused = (0..1_000).map(|_| slow.push(&[0.0], &mut Vec::new())).find(Result::is_err).unwrap();
    assert!(matches!(refused, Err(Error::Argument { name: "to", .. })));
}

#[test]
fn the_blocks_of_a_reader_add_up_to_the_file() {
    let mut random = Random(11);
    let values: Vec<i16> = (0..150_000).map(|_| random.below(1 << 16) as u16 as i16).collect();
    for n_channels in [1, 3] {
        let file = wav(&values, n_channels, 44_100);
        let whole = Waveform::read(&file[..]).unwrap();
        let resampled = whole.resample(32_000).unwrap();
        for at_most in [5, 1_000, 1 << 20] {
            let mut reader = AudioReader::read(Pipe::new(&file, at_most)).unwrap();
            assert_eq!((reader.sample_rate(), reader.source_rate()), (44_100, 44_100));
            assert_eq!(reader.declared_length(), Some(whole.n_samples() as u64));
            let (samples, failure) = drain(&mut reader);
            assert!(failure.is_none() && bits(&samples) == bits(&whole.samples));
            assert_eq!(reader.seconds_read(), whole.duration());
            let mut reader = AudioReader::read(Pipe::new(&file, at_most)).unwrap().resampled(32_000).unwrap();
            assert_eq!((reader.sample_rate(), reader.source_rate()), (32_000, 44_100));
            assert_eq!(reader.declared_length(), Some(resampled.n_samples() as u64));
            let first = reader.next().unwrap().unwrap();
            assert_eq!(reader.samples_read(), first.len() as u64);
            let rest = reader.into_waveform().unwrap();
            assert_eq!(rest.sample_rate, 32_000);
            assert!(bits(&[first, rest.samples].concat()) == bits(&resampled.samples));
        }
        let from_clip = AudioReader::from(whole.clone()).resampled(32_000).unwrap().into_waveform().unwrap();
        assert_eq!(from_clip, resampled);
    }
    let mut reader = AudioReader::from(Waveform::new(vec![0.0; 10], 8_000));
    reader.next();
    assert!(matches!(reader.resampled(16_000), Err(Error::Argument { name: "sample_rate", .. })));
    assert!(AudioReader::from(Waveform::new(vec![], 8_000)).next().is_none());
}

#[test]
fn rf64_files_are_read() {
    let values: Vec<i16> = (0..1_000).collect();
    let short = wav(&values, 1, 16_000);
    let expected = Waveform::read(&short[..]).unwrap();
    for name in [b"RF64", b"BW64"] {
        let long = |ds64: &[u8]| {
            let mut file = [&name[..], b"\xFF\xFF\xFF\xFFWAVEds64", &(ds64.len() as u32).to_le_bytes(), ds64].concat();
            file.extend_from_slice(&short[12..40]);
            file.extend([0xFF; 4]);
            file.extend_from_slice(&short[44..]);
            file
        };
        let lengths = [[0; 8], 2_000_u64.to_le_bytes(), [0; 8]].concat();
        assert_eq!(Waveform::read(&long(&[&lengths[..], &[0; 4]].concat())[..]).unwrap(), expected);
        let error = Waveform::read(&long(&[[0; 8], 9_000_000_000_u64.to_le_bytes()].concat())[..]).unwrap_err();
        assert!(error.to_string().contains("4500000000 samples per channel, the file holds 1000"), "{error}");
        let error = Waveform::read(&long(&[0; 8])[..]).unwrap_err();
        assert!(error.to_string().contains("ds64"), "{error}");
    }
}

#[test]
fn an_early_end_is_an_error_after_the_available_samples() {
    let values: Vec<i16> = (0..100_000).map(|i| i as i16).collect();
    let file = wav(&values, 1, 8_000);
    let whole = Waveform::read(&file[..]).unwrap();
    let cut = &file[..44 + 2 * 60_000 + 1];
    for rate in [8_000, 16_000] {
        let mut reader = AudioReader::read(Pipe::new(cut, 4_000)).unwrap().resampled(rate).unwrap();
        let (samples, failure) = drain(&mut reader);
        let expected = resample(&whole.samples[..60_000], 8_000, rate).unwrap();
        assert!(bits(&samples) == bits(&expected));
        assert_eq!(reader.seconds_read(), 60_000.0 / 8_000.0);
        let message = failure.unwrap().to_string();
        assert_eq!(
            message,
            "<stream>: truncated: the header declares 100000 samples per channel, the file holds 60000"
        );
    }
    // A failing disk reports how much came before.
    let mut pipe = Pipe::new(cut, 4_000);
    pipe.fails = true;
    let (samples, failure) = drain(&mut AudioReader::read(pipe).unwrap());
    assert_eq!(samples, whole.samples[..60_000]);
    match failure.unwrap() {
        Error::Io { action: "read", cause, .. } => {
            assert_eq!(cause.to_string(), "after 60000 samples: the cable is out");
        }
        other => panic!("{other:?}"),
    }
    // So do samples without a header, and a non-finite sample.
    let format = RawFormat { sample_format: SampleFormat::Float32, sample_rate: 8_000, n_channels: 2 };
    let mut bytes: Vec<u8> = [0.5_f32, 0.25, 1.0, -1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let right = ReadOptions { channels: Channels::One(1), ..ReadOptions::default() };
    let raw = |bytes: &[u8], options: &ReadOptions| AudioReader::raw(Pipe::new(bytes, 3), &format, options).unwrap();
    assert_eq!(raw(&bytes, &ReadOptions::default()).into_waveform().unwrap().samples, [0.375, 0.0]);
    assert_eq!(raw(&bytes, &right).into_waveform().unwrap().samples, [0.25, -1.0]);
    let (samples, failure) = drain(&mut raw(&bytes[..13], &right));
    assert_eq!(samples, [0.25]);
    let message = failure.unwrap().to_string();
    assert_eq!(message, "<stream>: truncated after 1 samples per channel: the last sample has 5 of 8 bytes");
    bytes.extend([f32::NAN, 0.0].iter().flat_map(|x| x.to_le_bytes()));
    let (samples, failure) = drain(&mut raw(&bytes, &ReadOptions::default()));
    assert_eq!(samples, [0.375, 0.0]);
    let reason = match failure.unwrap() {
        Error::Audio { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert!(matches!(reason, AudioReason::NonFinite { index: 2, channel: 0, .. }), "{reason}");
    let (_, failure) = drain(&mut raw(&[], &right));
    assert!(matches!(failure, Some(Error::Audio { reason: AudioReason::NoSamples, .. })));
    for (format, expected) in [
        (RawFormat { n_channels: 0, ..format }, AudioReason::ChannelCount(0)),
        (RawFormat { sample_rate: 0, ..format }, AudioReason::SampleRate(0)),
    ] {
        match AudioReader::raw(io::empty(), &format, &right) {
            Err(Error::Audio { reason, .. }) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn files_may_exceed_a_32_bit_size() {
    // A recorder that writes more than 4 GiB leaves the size modulo 2^32 in the header.
    let mut file = wav(&[0; 1_000], 1, 44_100);
    file[40..44].copy_from_slice(&2_000_u32.to_le_bytes());
    let path = std::env::temp_dir().join(format!("clipwise_{}_long.wav", std::process::id()));
    std::fs::write(&path, &file).unwrap();
    // A sparse file, which takes no space.
    let is_long = std::fs::File::options().write(true).open(&path).unwrap().set_len((1 << 32) + 2_044).is_ok();
    let reader = AudioReader::open(&path);
    std::fs::remove_file(&path).unwrap();
    if !is_long {
        println!("skipped: the temporary folder takes no files of more than 4 GiB");
        return;
    }
    let mut reader = reader.unwrap();
    assert_eq!(reader.notes(), [Note::MoreThanDeclared { declared: 1_000 }]);
    assert_eq!(reader.declared_length(), None);
    for _ in 0..100 {
        assert!(reader.next().unwrap().unwrap().iter().all(|&x| x == 0.0));
    }
    assert!(reader.samples_read() > 1_000_000);
}
