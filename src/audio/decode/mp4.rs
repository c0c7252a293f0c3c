//! MPEG-4 files: boxes within boxes (ISO/IEC 14496-12).
//!
//! The encoder delay and padding are given by an edit list, which `symphonia` ignores.

use std::io::{Read, Seek, SeekFrom};

use super::input::{SeekableSource, into_seekable};
use super::opus::Head;
use super::{Demux, Next, Packets, Sink, SourceStatus, decoder_for, malformed, probe};
use crate::audio::AudioReason;
use crate::audio::source::{Bytes, Failure, Input, read_up_to};

/// Name of the codec "mp4a" in errors, if it is not AAC-LC.
const HE_AAC: &str = "MPEG-4 audio other than AAC-LC in one or two channels (such as HE-AAC)";

pub(super) struct Mp4 {
    packets: Packets,
    /// Number of samples that the edit list selects; unknown for fragmented files.
    declared: Option<u64>,
    cut: Option<String>,
    /// Limit on the bytes of the packets to come: crafted tables can refer to the same bytes again and again.
    n_bytes_left: u64,
    rate: u32,
    timescale: u32,
}

impl Mp4 {
    pub(super) fn open(input: Input, status: &SourceStatus, sink: &mut Sink) -> Result<Self, Failure> {
        let (mut bytes, n_bytes) = into_seekable(input, status)?;
        let (boxes, cut) = top_level(&mut *bytes, n_bytes)?;
        let Some(movie) = boxes.iter().find(|found| &found.name == b"moov") else {
            let no_movie = cut.map_or("expected a moov box, found none".into(), |cut| {
                format!("expected a moov box, found none: {}", cut.detail)
            });
            return Err(malformed(no_movie));
        };
        // `symphonia` processes as many packets as a run claims, even a billion.
        let mut n_packets = 0_u64;
        let mut fragments = boxes.iter().filter(|found| &found.name == b"moof").peekable();
        let is_fragmented = fragments.peek().is_some();
        for fragment in fragments {
            n_packets = n_packets.saturating_add(n_packets_in(&fragment.read(&mut *bytes)?));
        }
        if n_packets > n_bytes {
            return Err(malformed(format!("the fragments claim {n_packets} packets in a file of {n_bytes} bytes")));
        }
        let sound = Sound::read(&movie.read(&mut *bytes)?)?;
        if !matches!(&sound.codec, b"mp4a" | b"alac" | b"fLaC" | b"Opus") {
            return Err(AudioReason::Codec(sound.codec_name()).into());
        }
        bytes.seek(SeekFrom::Start(0))?;
        // `symphonia` does not read a box that exceeds the file. A length of zero means: to the end of the file.
        let zeros_at = cut.as_ref().map(|cut| cut.at);
        let reader = probe(Box::new(SeekableSource { bytes, n_bytes, position: 0, zeros_at }), "m4a")?;
        let track = reader.tracks().iter().find(|track| track.id == sound.track_id);
        let params = track.and_then(|track| track.codec_params.as_ref()).and_then(|params| params.audio());
        let mut params = params.ok_or_else(|| malformed("the audio track is damaged"))?.clone();
        if let Some(config) = params.extra_data.as_deref().filter(|_| &sound.codec == b"mp4a").and_then(AacConfig::read)
        {
            if config.is_he {
                return Err(AudioReason::Codec(HE_AAC.into()).into());
            }
            // The rate in the track has 16 bits only.
            params.with_sample_rate(config.sample_rate);
        }
        let decoder = decoder_for(&params).map_err(|failure| match failure {
            Failure::Audio(AudioReason::Codec(_)) if &sound.codec != b"Opus" => {
                AudioReason::Codec(sound.codec_name()).into()
            }
            failure => failure,
        })?;
        let rate = params.sample_rate;
        let mut mp4 = Self {
            packets: Packets { reader, decoder, track_id: sound.track_id },
            declared: None,
            cut: cut.map(|cut| cut.detail),
            n_bytes_left: n_bytes,
            rate: rate.unwrap_or(0),
            timescale: sound.timescale,
        };
        sink.encoder_delay = match Head::from_params(&params) {
            Some(head) if !sound.is_edited => head.pre_skip.into(),
            _ => mp4.in_samples(sound.start),
        };
        if !is_fragmented {
            mp4.declared = Some(mp4.in_samples(sound.end).saturating_sub(sink.encoder_delay));
        }
        sink.max_samples = mp4.declared;
        Ok(mp4)
    }

    fn in_samples(&self, time: u64) -> u64 {
        let n = u128::from(time) * u128::from(self.rate) / u128::from(self.timescale);
        u64::try_from(n).unwrap_or(u64::MAX)
    }
}

impl Demux for Mp4 {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        let n_bytes_left = &mut self.n_bytes_left;
        let counted = |packet: &symphonia::core::packet::Packet| {
            let n_bytes = packet.data.len().max(1) as u64;
            let left = n_bytes_left.checked_sub(n_bytes);
            *n_bytes_left = left.ok_or_else(|| malformed("the packets claim more bytes than the file has"))?;
            Ok(())
        };
        let is_cut = match self.packets.next(sink, counted)? {
            Next::Packet(packet) => {
                let n_samples = self.in_samples(packet.dur.get());
                self.packets.decode(&packet, n_samples, sink)?;
                return Ok(true);
            }
            Next::End => false,
            Next::Cut => true,
        };
        let found = sink.n_output();
        match (self.declared, &self.cut) {
            (Some(declared), _) if found < declared => Err(AudioReason::Truncated { declared, found }.into()),
            (None, Some(detail)) => Err(AudioReason::EndsEarly { found, detail: detail.clone() }.into()),
            (None, None) if is_cut => Err(malformed("a fragment refers to bytes beyond the end of the file")),
            _ => Ok(false),
        }
    }

    fn declared(&self) -> Option<u64> {
        self.declared
    }
}

/// A top-level box: its name, and the place of its contents.
struct Found {
    name: Name,
    start: u64,
    n_bytes: u64,
}

impl Found {
    /// Reads the contents, which are known to be complete.
    fn read(&self, bytes: &mut dyn Bytes) -> Result<Vec<u8>, Failure> {
        bytes.seek(SeekFrom::Start(self.start))?;
        let mut contents = Vec::new();
        bytes.take(self.n_bytes).read_to_end(&mut contents)?;
        Ok(contents)
    }
}

/// The top-level boxes of a file, and the truncated one, if any.
fn top_level(bytes: &mut dyn Bytes, n_all: u64) -> Result<(Vec<Found>, Option<Cut>), Failure> {
    let (mut found, mut at) = (Vec::new(), 0_u64);
    while n_all - at >= 8 {
        bytes.seek(SeekFrom::Start(at))?;
        let mut header = [0; 16];
        let n = read_up_to(&mut &mut *bytes, &mut header)?;
        let Some((name, n_header, n_bytes)) = box_header(&header[..n], n_all - at) else { break };
        if n_bytes < n_header || n_bytes > n_all - at {
            let name = name.escape_ascii();
            let detail = format!("the box \"{name}\" declares {n_bytes} bytes, the file holds {}", n_all - at);
            return Ok((found, Some(Cut { at, detail })));
        }
        found.push(Found { name, start: at + n_header, n_bytes: n_bytes - n_header });
        at += n_bytes;
    }
    Ok((found, None))
}

/// Name, header length and total length of the box at the beginning of `bytes`. `n_rest` bytes are left in the file.
fn box_header(bytes: &[u8], n_rest: u64) -> Option<(Name, u64, u64)> {
    let &[a, b, c, d, name @ ..] = bytes.first_chunk::<8>()?;
    let (n_header, n_bytes) = match (u32::from_be_bytes([a, b, c, d]), bytes.get(8..).and_then(|r| r.first_chunk())) {
        (0, _) => (8, n_rest),
        (1, Some(&long)) => (16, u64::from_be_bytes(long)),
        (n, _) => (8, u64::from(n)),
    };
    Some((name, n_header, n_bytes))
}

type Name = [u8; 4];

/// A truncated box.
struct Cut {
    at: u64,
    detail: String,
}

/// The complete boxes at the beginning of `bytes`.
fn boxes(bytes: &[u8]) -> Vec<(Name, &[u8])> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let Some((name, n_header, n_bytes)) = box_header(rest, rest.len() as u64) {
        if n_bytes < n_header || n_bytes > rest.len() as u64 {
            break;
        }
        let (this, after) = rest.split_at(n_bytes as usize);
        found.push((name, &this[n_header as usize..]));
        rest = after;
    }
    found
}

/// The number of packets that the runs of a fragment claim.
fn n_packets_in(fragment: &[u8]) -> u64 {
    let within = |contents, name: &'static Name| boxes(contents).into_iter().filter(move |(n, _)| n == name);
    let runs = within(fragment, b"traf").flat_map(|(_, track)| within(track, b"trun"));
    runs.filter_map(|(_, run)| u32_at(run, 4)).map(u64::from).sum()
}

fn find<'a>(boxes: &[(Name, &'a [u8])], name: &Name) -> Option<&'a [u8]> {
    boxes.iter().find(|(n, _)| n == name).map(|&(_, contents)| contents)
}

/// The contents of a nested box.
fn descend<'a>(contents: &'a [u8], path: &[&Name]) -> Option<&'a [u8]> {
    path.iter().try_fold(contents, |contents, name| find(&boxes(contents), name))
}

/// The first audio track of a movie.
struct Sound {
    track_id: u32,
    codec: Name,
    /// Time units per second.
    timescale: u32,
    /// Start and end of the audio, in time units.
    start: u64,
    end: u64,
    /// Whether start and end come from an edit list.
    is_edited: bool,
}

impl Sound {
    fn read(movie: &[u8]) -> Result<Self, Failure> {
        let tracks = boxes(movie).into_iter().filter(|(name, _)| name == b"trak").map(|(_, track)| track);
        let is_sound = |track: &&[u8]| {
            descend(track, &[b"mdia", b"hdlr"]).is_some_and(|handler| handler.get(8..12) == Some(&b"soun"[..]))
        };
        let track = tracks.into_iter().find(is_sound).ok_or_else(|| malformed("there is no audio track"))?;
        Self::of_track(track, movie).ok_or_else(|| malformed("the boxes of the audio track are damaged"))?
    }

    /// `None` if a required box or field is missing.
    fn of_track(track: &[u8], movie: &[u8]) -> Option<Result<Self, Failure>> {
        let header = descend(track, &[b"tkhd"])?;
        let track_id = u32_at(header, if header.first()? == &1 { 20 } else { 12 })?;
        let media = descend(track, &[b"mdia"])?;
        let timescale = timescale(descend(media, &[b"mdhd"])?)?;
        let table = descend(media, &[b"minf", b"stbl"])?;
        let codec = *descend(table, &[b"stsd"])?.get(12..)?.first_chunk()?;
        let length = duration(descend(table, &[b"stts"])?)?;

        let mut sound = Self { track_id, codec, timescale, start: 0, end: length, is_edited: false };
        if let Some(edits) = descend(track, &[b"edts", b"elst"]) {
            let edits: Vec<(u64, u64)> = edits_of(edits)?;
            match edits[..] {
                [] => {}
                [(start, duration)] => {
                    (sound.start, sound.is_edited) = (start.min(length), true);
                    // The duration of an edit is in the coarser units of the movie; 0 means to the end.
                    let movie_scale = u128::from(movie_timescale(movie)?);
                    let scale = u128::from(timescale);
                    let end = u128::from(start) + (u128::from(duration) * scale).div_ceil(movie_scale);
                    let unit = scale.div_ceil(movie_scale);
                    if duration > 0 && end + unit < u128::from(length) {
                        sound.end = u64::try_from(end).ok()?;
                    }
                }
                _ => return Some(Err(AudioReason::Codec("MPEG-4 with an edit list of several edits".into()).into())),
            }
        }
        Some(Ok(sound))
    }

    fn codec_name(&self) -> String {
        match &self.codec {
            b"mp4a" => HE_AAC.into(),
            b"enca" => "encrypted audio".into(),
            codec => format!("MPEG-4 with the codec \"{}\"", codec.escape_ascii()),
        }
    }
}

/// AAC settings from an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).
struct AacConfig {
    sample_rate: u32,
    /// Whether spectral band replication (SBR, HE-AAC) is signalled, explicitly or backward compatibly.
    is_he: bool,
}

impl AacConfig {
    fn read(bytes: &[u8]) -> Option<Self> {
        const RATES: [u32; 13] =
            [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
        let mut at = 0;
        let mut bits = |n: usize| {
            let bit = |i: usize| Some(u32::from(bytes.get(i / 8)? >> (7 - i % 8) & 1));
            at += n;
            (at - n..at).try_fold(0, |value, i| Some(value << 1 | bit(i)?))
        };
        let object_type = bits(5)?;
        let sample_rate = match bits(4)? {
            15 => bits(24)?,
            index => *RATES.get(index as usize)?,
        };
        let n_channels = bits(4)?;
        if matches!(object_type, 5 | 29) {
            return Some(Self { sample_rate, is_he: true });
        }
        // Skip the frame length flag, the core coder flag and its delay, and the extension flag. Then comes the
        // backward compatible signalling.
        let (_, has_core) = (bits(1)?, bits(1)?);
        if has_core == 1 {
            bits(14)?;
        }
        bits(1)?;
        // With channel configuration 0, the channel layout comes here instead.
        let is_he = n_channels > 0 && bits(11) == Some(0x2B7) && bits(5) == Some(5) && bits(1) == Some(1);
        Some(Self { sample_rate, is_he })
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

/// The sum of the durations in an stts box, which has runs of packets of equal duration.
fn duration(runs: &[u8]) -> Option<u64> {
    let n_runs = u32_at(runs, 4)? as usize;
    let runs = runs.get(8..8_usize.checked_add(n_runs.checked_mul(8)?)?)?;
    runs.as_chunks::<8>()
        .0
        .iter()
        .try_fold(0_u64, |sum, run| sum.checked_add(u64::from(u32_at(run, 0)?) * u64::from(u32_at(run, 4)?)))
}

/// Start and duration of the edits in an elst box, without empty edits (which only delay the audio).
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
