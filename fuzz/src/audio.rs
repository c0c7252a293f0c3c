//! Audio files.

use std::io::Cursor;

use clipwise::audio::{AudioReader, Channels, ReadOptions};
use clipwise::{Error, Waveform};

/// The strictest reading, and the one that accepts most.
fn options() -> [ReadOptions; 2] {
    let mut lenient = ReadOptions::SKIP_DAMAGE;
    lenient.channels = Channels::One(0);
    lenient.accept_placeholder_length = true;
    lenient.accept_truncated = true;
    [ReadOptions::default(), lenient]
}

/// An audio file of any format. A file that is read whole gives the samples that it gives block by block; what can be read
/// strictly can be read leniently.
pub fn audio(data: &[u8]) {
    let [strict, lenient] = options().map(|options| {
        let whole = Waveform::read_with(data, &options);
        let blocks = blocks(data, &options);
        match (&whole, &blocks) {
            (Ok(whole), Ok((samples, sample_rate))) => {
                assert_eq!(whole.sample_rate, *sample_rate);
                assert!(same(&whole.samples, samples), "{} and {} samples", whole.n_samples(), samples.len());
                assert!(whole.samples.iter().all(|sample| sample.is_finite()));
            }
            (Err(whole), Err(blocks)) => assert_eq!(whole.to_string(), blocks.to_string()),
            (whole, blocks) => panic!("whole: {whole:?}, in blocks: {blocks:?}"),
        }
        whole
    });
    if let (Ok(strict), Err(lenient)) = (&strict, &lenient) {
        panic!("{} samples, but read leniently: {lenient}", strict.n_samples());
    }
}

/// An Ogg file. The checksums of its pages are made right first: otherwise next to nothing gets past them.
pub fn ogg(data: &[u8]) {
    let mut data = data.to_vec();
    repair(&mut data);
    audio(&data);
}

fn blocks(data: &[u8], options: &ReadOptions) -> Result<(Vec<f32>, u32), Error> {
    let reader = AudioReader::read_with(Cursor::new(data.to_vec()), options)?;
    let sample_rate = reader.sample_rate();
    let mut samples = Vec::new();
    for block in reader {
        samples.extend(block?);
    }
    Ok((samples, sample_rate))
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Writes the checksum of each Ogg page (RFC 3533, section 6) whose header and segments are there.
fn repair(data: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = data[at..].windows(4).position(|window| window == b"OggS") {
        at += found;
        let Some(&n_segments) = data.get(at + 26) else { return };
        let body = at + 27 + usize::from(n_segments);
        let Some(segments) = data.get(at + 27..body) else { return };
        let end = body + segments.iter().map(|&length| usize::from(length)).sum::<usize>();
        if end > data.len() {
            at += 4;
            continue;
        }
        data[at + 22..at + 26].fill(0);
        let checksum = data[at..end].iter().fold(0u32, |sum, &byte| {
            (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04C1_1DB7 } else { 0 })
        });
        data[at + 22..at + 26].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
}
