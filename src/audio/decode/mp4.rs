//! MPEG-4 files: boxes within boxes (ISO/IEC 14496-12).
//!
//! The samples that an encoder put before and after the audio are told by an edit list, which `symphonia` does not
//! follow.

use super::{Sink, decoder, is_end, malformed, probe};
use crate::audio::AudioReason;
use crate::audio::source::Failure;

pub(super) fn decode(bytes: &[u8], sink: &mut Sink) -> Result<(), Failure> {
    let (boxes, cut) = boxes(bytes);
    let Some(movie) = find(&boxes, b"moov") else {
        return Err(malformed(cut.map_or("there is no moov box".into(), |cut| format!("no moov box: {}", cut.detail))));
    };
    let is_fragmented = boxes.iter().any(|(name, _)| name == b"moof");
    // `symphonia` goes through as many packets as a run claims, be it a billion.
    if n_packets_in_fragments(&boxes) > bytes.len() as u64 {
        return Err(malformed("its fragments claim more packets than the file has bytes"));
    }
    let sound = Sound::read(movie)?;
    if !matches!(&sound.codec, b"mp4a" | b"alac" | b"fLaC") {
        return Err(AudioReason::Codec(sound.codec_name()).into());
    }
    // A last box that is cut short goes on to the end of the file: `symphonia` reads nothing of a box too long.
    let mut patched = Vec::new();
    if let Some(&Cut { at, .. }) = cut.as_ref() {
        patched.extend_from_slice(bytes);
        patched[at..at + 4].fill(0);
    }
    let mut reader = probe(if cut.is_some() { &patched } else { bytes }, "m4a")?;
    let track = reader.tracks().iter().find(|track| track.id == sound.track_id).cloned();
    let track = track.ok_or_else(|| malformed("the audio track is damaged"))?;
    let mut decoder = decoder(&track).map_err(|failure| match failure {
        Failure::Audio(AudioReason::Codec(_)) => AudioReason::Codec(sound.codec_name()).into(),
        failure => failure,
    })?;
    let rate = track.codec_params.as_ref().and_then(|params| params.audio()).and_then(|params| params.sample_rate);
    let timescale = u64::from(sound.timescale);
    let in_samples = |time: u64| (u128::from(time) * u128::from(rate.unwrap_or(0)) / u128::from(timescale)) as u64;
    sink.skip = in_samples(sound.start);
    // In fragments the length is not known beforehand.
    let declared = in_samples(sound.end).saturating_sub(sink.skip);

    // Crafted tables can name the same bytes over and over.
    let mut n_bytes_left = bytes.len();
    let mut is_cut = false;
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(error) if is_end(&error) => {
                is_cut = true;
                break;
            }
            Err(error) => return Err(sink.damaged(&error)),
        };
        n_bytes_left = match n_bytes_left.checked_sub(packet.data.len().max(1)) {
            Some(n) => n,
            None => return Err(malformed("its packets take more bytes than the file has")),
        };
        if packet.track_id == track.id {
            sink.decode(decoder.as_mut(), &packet)?;
        }
    }
    let found = sink.n_kept();
    if is_fragmented {
        match cut {
            Some(Cut { detail, .. }) => return Err(AudioReason::EndsEarly { found, detail }.into()),
            None if is_cut => return Err(malformed("a fragment refers to bytes that are not there")),
            None => return Ok(()),
        }
    }
    if found < declared {
        return Err(AudioReason::Truncated { declared, found }.into());
    }
    sink.keep(declared);
    Ok(())
}

type Name = [u8; 4];

/// A box that is cut short.
struct Cut {
    at: usize,
    detail: String,
}

/// The boxes that `bytes` consist of, and the one that is cut short if one is.
fn boxes(bytes: &[u8]) -> (Vec<(Name, &[u8])>, Option<Cut>) {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let Some(&[a, b, c, d, name @ ..]) = rest.first_chunk::<8>() {
        let (header, n_bytes) = match (u32::from_be_bytes([a, b, c, d]), rest.get(8..).and_then(|r| r.first_chunk())) {
            (0, _) => (8, rest.len() as u64),
            (1, Some(&long)) => (16, u64::from_be_bytes(long)),
            (n, _) => (8, u64::from(n)),
        };
        if n_bytes < header || n_bytes > rest.len() as u64 {
            let name = name.escape_ascii();
            let detail = format!("the box \"{name}\" declares {n_bytes} bytes, {} are there", rest.len());
            return (found, Some(Cut { at: bytes.len() - rest.len(), detail }));
        }
        let (this, after) = rest.split_at(n_bytes as usize);
        found.push((name, &this[header as usize..]));
        rest = after;
    }
    (found, None)
}

/// How many packets the runs of all fragments claim.
fn n_packets_in_fragments(found: &[(Name, &[u8])]) -> u64 {
    let within = |contents, name: &'static Name| boxes(contents).0.into_iter().filter(move |(n, _)| n == name);
    let fragments = found.iter().filter(|(name, _)| name == b"moof");
    let tracks = fragments.flat_map(|&(_, fragment)| within(fragment, b"traf"));
    let runs = tracks.flat_map(|(_, track)| within(track, b"trun"));
    runs.filter_map(|(_, run)| u32_at(run, 4)).map(u64::from).sum()
}

fn find<'a>(boxes: &[(Name, &'a [u8])], name: &Name) -> Option<&'a [u8]> {
    boxes.iter().find(|(n, _)| n == name).map(|&(_, contents)| contents)
}

/// The contents of a box within boxes.
fn descend<'a>(contents: &'a [u8], path: &[&Name]) -> Option<&'a [u8]> {
    path.iter().try_fold(contents, |contents, name| find(&boxes(contents).0, name))
}

/// The first audio track of a movie.
struct Sound {
    track_id: u32,
    codec: Name,
    /// Units of a second in which the times are.
    timescale: u32,
    /// Where the audio begins and ends.
    start: u64,
    end: u64,
}

impl Sound {
    fn read(movie: &[u8]) -> Result<Self, Failure> {
        let tracks = boxes(movie).0.into_iter().filter(|(name, _)| name == b"trak").map(|(_, track)| track);
        let is_sound = |track: &&[u8]| {
            descend(track, &[b"mdia", b"hdlr"]).is_some_and(|handler| handler.get(8..12) == Some(&b"soun"[..]))
        };
        let track = tracks.into_iter().find(is_sound).ok_or_else(|| malformed("there is no audio track"))?;
        Self::of_track(track, movie).ok_or_else(|| malformed("the boxes of the audio track are damaged"))?
    }

    /// `None` if a box or field that must be there is not.
    fn of_track(track: &[u8], movie: &[u8]) -> Option<Result<Self, Failure>> {
        let header = descend(track, &[b"tkhd"])?;
        let track_id = u32_at(header, if header.first()? == &1 { 20 } else { 12 })?;
        let media = descend(track, &[b"mdia"])?;
        let timescale = timescale(descend(media, &[b"mdhd"])?)?;
        let table = descend(media, &[b"minf", b"stbl"])?;
        let codec = *descend(table, &[b"stsd"])?.get(12..)?.first_chunk()?;
        let length = duration(descend(table, &[b"stts"])?)?;

        let mut sound = Self { track_id, codec, timescale, start: 0, end: length };
        if let Some(edits) = descend(track, &[b"edts", b"elst"]) {
            let edits: Vec<(u64, u64)> = edits_of(edits)?;
            match edits[..] {
                [] => {}
                [(start, duration)] => {
                    sound.start = start.min(length);
                    // The edit's duration is in the movie's coarser units, and 0 for all that there is.
                    let movie_scale = u128::from(movie_timescale(movie)?);
                    let scale = u128::from(timescale);
                    let end = u128::from(start) + (u128::from(duration) * scale).div_ceil(movie_scale);
                    let unit = scale.div_ceil(movie_scale);
                    if duration > 0 && end + unit < u128::from(length) {
                        sound.end = u64::try_from(end).ok()?;
                    }
                }
                _ => return Some(Err(AudioReason::Codec("MPEG-4 cut by an edit list of several parts".into()).into())),
            }
        }
        Some(Ok(sound))
    }

    fn codec_name(&self) -> String {
        match &self.codec {
            b"mp4a" => "MPEG-4 audio other than AAC-LC in one or two channels".into(),
            b"enca" => "encrypted audio".into(),
            codec => format!("MPEG-4 with the codec \"{}\"", codec.escape_ascii()),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The timescale of an mdhd or mvhd box; not 0.
fn timescale(header: &[u8]) -> Option<u32> {
    u32_at(header, if header.first()? == &1 { 20 } else { 12 }).filter(|&scale| scale > 0)
}

fn movie_timescale(movie: &[u8]) -> Option<u32> {
    timescale(descend(movie, &[b"mvhd"])?)
}

/// The sum of an stts box: runs of packets of one duration.
fn duration(runs: &[u8]) -> Option<u64> {
    let n_runs = u32_at(runs, 4)? as usize;
    let runs = runs.get(8..8_usize.checked_add(n_runs.checked_mul(8)?)?)?;
    runs.as_chunks::<8>()
        .0
        .iter()
        .try_fold(0_u64, |sum, run| sum.checked_add(u64::from(u32_at(run, 0)?) * u64::from(u32_at(run, 4)?)))
}

/// Start and duration of the parts of an elst box, without the empty ones, which only delay.
fn edits_of(edits: &[u8]) -> Option<Vec<(u64, u64)>> {
    let is_long = edits.first()? == &1;
    let size = if is_long { 20 } else { 12 };
    let n_edits = u32_at(edits, 4)? as usize;
    let edits = edits.get(8..8_usize.checked_add(n_edits.checked_mul(size)?)?)?;
    let mut parts = Vec::new();
    for edit in edits.chunks_exact(size) {
        let (duration, start) = if is_long {
            (u64_at(edit, 0)?, u64_at(edit, 8)? as i64)
        } else {
            (u64::from(u32_at(edit, 0)?), i64::from(u32_at(edit, 4)? as i32))
        };
        if let Ok(start) = u64::try_from(start) {
            parts.push((start, duration));
        }
    }
    Some(parts)
}
