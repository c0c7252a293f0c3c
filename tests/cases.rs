//! Users' files that were once read wrongly or not at all, in the folder named by `CLIPWISE_REAL`.
#![cfg(feature = "symphonia")]

mod common;

use clipwise::Error;
use clipwise::audio::{AudioReader, AudioReason, Note, ReadOptions, Waveform};

fn waveform(name: &str) -> Option<Waveform> {
    let path = common::real("cases")?.join(name);
    let waveform = Waveform::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let blocks = AudioReader::open(&path).unwrap().into_waveform().unwrap();
    assert_eq!(blocks, waveform, "{name}");
    Some(waveform)
}

#[test]
fn supported_files_are_read() {
    let unknown = |declared_bytes| vec![Note::UnknownLength { declared_bytes }];
    let more = |declared| vec![Note::MoreThanDeclared { declared }];
    // Lengths are those of ffmpeg's decoder, without the encoder's delay and padding.
    let cases = [
        ("aac96k.m4a", 57_600, 96_000, vec![]),
        ("concat_id3.mp3", 96_000, 24_000, vec![]),
        ("crash_data0.wav", 32_000, 16_000, unknown(0)),
        ("float64.wav", 20_000, 16_000, vec![]),
        ("id3_at_end.mp3", 48_000, 24_000, vec![]),
        ("id3_before_riff.wav", 32_000, 16_000, vec![]),
        ("intscaled_f32.wav", 32_000, 16_000, vec![Note::IntegerScale { peak: 29_490.0, full_scale: 32_768.0 }]),
        ("layer2.mp2", 88_704, 44_100, vec![]),
        ("lead_junk.mp3", 48_000, 24_000, vec![Note::LeadingJunk { n_bytes: 440 }]),
        ("lead_zeros.mp3", 48_000, 24_000, vec![]),
        ("minblock0.flac", 32_000, 16_000, vec![]),
        ("mulaw.wav", 16_000, 8_000, vec![]),
        ("no_eos.ogg", 32_000, 16_000, vec![Note::NoEndMark]),
        ("sox_pipe_24bit.wav", 32_000, 16_000, unknown(0x7FFF_EFFF)),
        ("stale_header.wav", 32_000, 16_000, more(8_000)),
        ("total_less.flac", 32_000, 16_000, more(27_000)),
    ];
    for (name, n_samples, sample_rate, notes) in cases {
        let Some(waveform) = waveform(name) else { return };
        assert_eq!((waveform.n_samples(), waveform.sample_rate), (n_samples, sample_rate), "{name}");
        assert_eq!(waveform.notes(), notes, "{name}");
    }
    if cfg!(feature = "opus") {
        let Some(opus) = waveform("opus.ogg") else { return };
        assert_eq!((opus.n_samples(), opus.sample_rate), (96_000, 48_000));
    }
    let Some(antiphase) = waveform("antiphase.wav") else { return };
    assert!(matches!(antiphase.notes(), [Note::ChannelsCancel { .. }]), "{:?}", antiphase.notes());
}

#[test]
fn unsupported_files_are_rejected() {
    let Some(folder) = common::real("cases") else { return };
    for name in ["he_compat.m4a", "he_explicit.m4a"] {
        match Waveform::open(folder.join(name)) {
            Err(Error::Audio { reason: AudioReason::Codec(what), .. }) => assert!(what.contains("HE-AAC"), "{what}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let name = folder.join("plus16.wav");
    let reason = AudioReason::Truncated { declared: 32_008, found: 32_000 };
    match Waveform::open(&name) {
        Err(Error::Audio { reason: found, .. }) => assert_eq!(found, reason),
        other => panic!("{other:?}"),
    }
    let waveform = Waveform::open_with(&name, &ReadOptions::SKIP_DAMAGE).unwrap();
    assert_eq!((waveform.n_samples(), waveform.notes()), (32_000, &[Note::CutShort(reason)][..]));
}
