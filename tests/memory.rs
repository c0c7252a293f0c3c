//! Memory does not grow with the length of a recording. One test, so that nothing else is in its process.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use clipwise::audio::AudioReader;

/// Most bytes of memory that this process has had, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// A WAV file of 16-bit silence at 8 kHz that takes no room on the disk.
fn sparse_wav(path: &Path, seconds: u32) {
    let n_bytes = 2 * 8_000 * seconds;
    let mut file = File::create(path).unwrap();
    file.write_all(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1F\0\0\x80\x3E\0\0\x02\0\x10\0data").unwrap();
    file.write_all(&n_bytes.to_le_bytes()).unwrap();
    file.set_len(44 + u64::from(n_bytes)).unwrap();
}

/// The same bytes again and again.
struct Again {
    bytes: Vec<u8>,
    times: usize,
    at: usize,
}

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.bytes.len() {
            self.times = self.times.saturating_sub(1);
            self.at = 0;
        }
        if self.times == 0 {
            return Ok(0);
        }
        let n = Cursor::new(&self.bytes[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

/// Reads to the end and tells the seconds.
fn read(reader: clipwise::Result<AudioReader>) -> f64 {
    let mut reader = reader.unwrap().resampled(16_000).unwrap();
    for block in &mut reader {
        block.unwrap();
    }
    assert!(reader.skipped().is_empty(), "{:?}", &reader.skipped()[..1]);
    let seconds = reader.seconds_read();
    assert_eq!(reader.samples_read(), (seconds * 16_000.0).ceil() as u64);
    seconds
}

#[test]
fn memory_does_not_grow_with_the_recording() {
    let path = std::env::temp_dir().join(format!("clipwise-memory-{}.wav", std::process::id()));
    let wav = |seconds: u32| {
        sparse_wav(&path, seconds);
        assert_eq!(read(AudioReader::open(&path)), f64::from(seconds));
    };
    let mp3 = |times: usize| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode_no_info.mp3");
        let bytes = std::fs::read(path).unwrap();
        read(AudioReader::read(Again { bytes, times, at: 0 }))
    };
    let mp3 = |times: usize| if cfg!(feature = "symphonia") { mp3(times) } else { 0.0 };
    wav(60);
    let short = mp3(20);
    let before = peak();
    wav(10 * 3600);
    let long = mp3(1_000);
    std::fs::remove_file(&path).unwrap();
    assert!(long >= 45.0 * short, "{short} and {long} seconds");
    let (Some(before), Some(after)) = (before, peak()) else {
        return eprintln!("skipped: this system does not tell the peak of memory");
    };
    eprintln!("{} MB after a minute, {} MB after ten hours and {long:.0} s of MP3", before >> 20, after >> 20);
    assert!(after < before + (8 << 20), "{before} bytes for a minute, {after} for ten hours");
}
