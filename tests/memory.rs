//! Memory does not grow with the length of a recording. One test, so that nothing else runs in its process.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use clipwise::audio::AudioReader;
use clipwise::{Device, Tagger, WindowConfig};

/// Peak memory of this process in bytes, if the system reports it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// A sparse WAV file of 16-bit silence at 8 kHz.
fn sparse_wav(path: &Path, seconds: u32) {
    let n_bytes = 2 * 8_000 * seconds;
    let mut file = File::create(path).unwrap();
    file.write_all(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1F\0\0\x80\x3E\0\0\x02\0\x10\0data").unwrap();
    file.write_all(&n_bytes.to_le_bytes()).unwrap();
    file.set_len(44 + u64::from(n_bytes)).unwrap();
}

/// Repeats the same bytes.
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

/// Tags a recording window by window and returns its length in seconds.
fn tag(tagger: &Tagger, recording: clipwise::Result<AudioReader>) -> f64 {
    let config = WindowConfig { length: 10.0, hop: 10.0, ..WindowConfig::default() };
    let (mut n_windows, mut end) = (0, 0.0);
    let mut windows = tagger.windows(recording.unwrap(), &config).unwrap();
    for window in &mut windows {
        let window = window.unwrap();
        assert!((window.start - end).abs() < 1e-3, "{} after {end}", window.start);
        (n_windows, end) = (n_windows + 1, window.end);
    }
    let seconds = windows.source().seconds_read();
    assert!((end - seconds).abs() < 1e-3 && n_windows == (seconds / 10.0).ceil() as usize, "{n_windows}, {end}");
    assert!(windows.source().skipped().is_empty());
    seconds
}

#[test]
fn memory_does_not_grow_with_the_recording() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/m5-spoken-digits");
    let tagger = Tagger::open(weights, &Device::Cpu).unwrap();
    let path = std::env::temp_dir().join(format!("clipwise-memory-{}.wav", std::process::id()));
    let wav = |seconds: u32| {
        sparse_wav(&path, seconds);
        assert_eq!(tag(&tagger, AudioReader::open(&path)), f64::from(seconds));
    };
    // A chain of streams of 0.8 s.
    let ogg = |times: usize| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode_vorbis_mono.ogg");
        let bytes = std::fs::read(path).unwrap();
        let seconds = tag(&tagger, AudioReader::read(Again { bytes, times, at: 0 }));
        assert!((seconds - 0.8 * times as f64).abs() < 1e-6, "{seconds} seconds of {times}");
    };
    wav(60);
    if cfg!(feature = "symphonia") {
        ogg(75);
    }
    let before = peak();
    wav(10 * 3600);
    if cfg!(feature = "symphonia") {
        ogg(9_000); // two hours
    }
    std::fs::remove_file(&path).unwrap();
    let (Some(before), Some(after)) = (before, peak()) else {
        return eprintln!("skipped: this system does not report peak memory");
    };
    eprintln!("{} MB after a minute, {} MB after hours", before >> 20, after >> 20);
    assert!(after < before + (8 << 20), "{before} bytes for a minute, {after} for hours");
}
