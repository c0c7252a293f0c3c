//! Opus: the identification header (RFC 7845, 5.1), and the decoder of `opus-pure` as an `AudioDecoder` of
//! `symphonia`.

use symphonia::core::codecs::audio::AudioCodecParameters;

/// Opus is always decoded at this rate, whatever the rate of the encoder's input.
pub(super) const SAMPLE_RATE: u32 = 48_000;

/// The identification header, as all containers store it.
#[cfg_attr(not(feature = "opus"), allow(dead_code))]
pub(super) struct Head {
    pub(super) n_channels: usize,
    /// Samples to drop before the audio (encoder delay).
    pub(super) pre_skip: u16,
    /// Output gain in 1/256 dB.
    gain: i16,
    /// 0 for one stream of one or two channels.
    mapping_family: u8,
}

impl Head {
    /// Parses the header, which begins with the signature "OpusHead".
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[version, n_channels, a, b, _, _, _, _, c, d, mapping_family] = bytes.get(8..)?.first_chunk()?;
        // In MPEG-4 the header has version 0 and is big-endian.
        let u16_of = if version == 0 { u16::from_be_bytes } else { u16::from_le_bytes };
        let (pre_skip, gain) = (u16_of([a, b]), u16_of([c, d]) as i16);
        Some(Self { n_channels: n_channels.into(), pre_skip, gain, mapping_family })
    }

    /// The header of a track. `None` if its codec is not Opus.
    pub(super) fn from_params(params: &AudioCodecParameters) -> Option<Self> {
        let is_opus = params.codec == symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
        params.extra_data.as_deref().filter(|_| is_opus).and_then(Self::read)
    }
}

#[cfg(feature = "opus")]
pub(super) use decoder::Opus;

#[cfg(feature = "opus")]
mod decoder {
    use opus_pure::{MAX_PACKET_SAMPLES, OpusDecoder, packet};
    use symphonia::core::audio::{
        AsGenericAudioBufferRef, Audio, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef,
    };
    use symphonia::core::codecs::CodecInfo;
    use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, FinalizeResult};
    use symphonia::core::errors::{Error, Result};
    use symphonia::core::packet::PacketRef;

    use super::{Head, SAMPLE_RATE};

    /// Number of channels that are decoded. The decoder's downmix of stereo packets to mono differs from libopus, so
    /// mono is computed from two channels (which are equal for mono packets).
    const N_DECODED: usize = 2;

    /// Limit on the length of a frame in bytes (RFC 6716, 3.4, R2).
    const MAX_FRAME: usize = 1275;

    pub(in super::super) struct Opus {
        decoder: OpusDecoder,
        params: AudioCodecParameters,
        n_channels: usize,
        interleaved: Vec<f32>,
        /// A packet of one frame.
        frame: Vec<u8>,
        buffer: AudioBuffer<f32>,
    }

    impl Opus {
        pub(in super::super) fn new(params: &AudioCodecParameters) -> Result<Self> {
            let n_channels = params.channels.as_ref().map_or(2, Channels::count);
            let head = Head::from_params(params);
            let head = head.unwrap_or(Head { n_channels, pre_skip: 0, gain: 0, mapping_family: 0 });
            if head.mapping_family != 0 || !(1..=N_DECODED).contains(&head.n_channels) {
                return Err(Error::Unsupported("Opus of more than one stream (surround sound)"));
            }
            let mut decoder = OpusDecoder::new(SAMPLE_RATE as i32, N_DECODED).map_err(|_| DAMAGED)?;
            decoder.gain_q8 = head.gain.into();
            let spec = AudioSpec::new(SAMPLE_RATE, Channels::Discrete(head.n_channels as u16));
            Ok(Self {
                decoder,
                params: params.clone(),
                n_channels: head.n_channels,
                interleaved: vec![0.0; MAX_PACKET_SAMPLES * N_DECODED],
                frame: Vec::new(),
                buffer: AudioBuffer::new(spec, MAX_PACKET_SAMPLES),
            })
        }

        fn decode_packet(&mut self, bytes: &[u8]) -> Result<()> {
            let frames = frames(bytes).ok_or(DAMAGED)?;
            let n_per_frame = packet::samples_per_frame(bytes, SAMPLE_RATE as i32).map_err(|_| DAMAGED)?;
            if n_per_frame * frames.len() > MAX_PACKET_SAMPLES {
                return Err(DAMAGED);
            }
            for frame in frames {
                self.frame.clear();
                // A frame of 0 or 1 bytes is discontinuous transmission (DTX), and is concealed (RFC 6716, 2.1.9).
                if frame.len() > 1 {
                    self.frame.push(bytes[0] & 0xFC);
                    self.frame.extend_from_slice(frame);
                }
                let n = self.decoder.decode(&self.frame, n_per_frame, &mut self.interleaved).map_err(|_| DAMAGED)?;
                let begin = self.buffer.frames();
                self.buffer.render_uninit(Some(n));
                for channel in 0..self.n_channels {
                    let samples = self.interleaved[..n * N_DECODED].as_chunks::<N_DECODED>().0;
                    let plane = self.buffer.plane_mut(channel).ok_or(DAMAGED)?;
                    for (x, [left, right]) in plane[begin..].iter_mut().zip(samples) {
                        *x = match (self.n_channels, channel) {
                            (1, _) => 0.5 * (left + right),
                            (_, 0) => *left,
                            _ => *right,
                        };
                    }
                }
            }
            Ok(())
        }
    }

    const DAMAGED: Error = Error::DecodeError("a damaged Opus packet");

    impl AudioDecoder for Opus {
        fn reset(&mut self) {
            // If this fails the state stays as it is: audible for a moment, but harmless.
            let _ = self.decoder.reset_state();
        }

        fn codec_info(&self) -> &CodecInfo {
            const INFO: CodecInfo = CodecInfo { short_name: "opus", long_name: "Opus", profiles: &[] };
            &INFO
        }

        fn codec_params(&self) -> &AudioCodecParameters {
            &self.params
        }

        fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
            self.buffer.clear();
            if let Err(error) = self.decode_packet(packet.data) {
                self.buffer.clear();
                return Err(error);
            }
            Ok(self.buffer.as_generic_audio_buffer_ref())
        }

        fn finalize(&mut self) -> FinalizeResult {
            FinalizeResult::default()
        }

        fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
            self.buffer.as_generic_audio_buffer_ref()
        }
    }

    /// The frames of a packet (RFC 6716, 3.2); `None` if their lengths are inconsistent.
    fn frames(packet: &[u8]) -> Option<Vec<&[u8]>> {
        let (&first, mut rest) = packet.split_first()?;
        let mut lengths = Vec::new();
        match first & 3 {
            0 => lengths.push(rest.len()),
            1 => lengths.extend(rest.len().is_multiple_of(2).then_some([rest.len() / 2; 2])?),
            2 => {
                let n = take_length(&mut rest)?;
                lengths.extend([n, rest.len().checked_sub(n)?]);
            }
            _ => {
                let count = take_byte(&mut rest)?;
                let n_frames = usize::from(count & 63);
                if count & 64 != 0 {
                    let n_padding = take_padding_length(&mut rest)?;
                    rest = &rest[..rest.len().checked_sub(n_padding)?];
                }
                if count & 128 == 0 {
                    let n = rest.len().checked_div(n_frames).filter(|n| n * n_frames == rest.len())?;
                    lengths.resize(n_frames, n);
                } else {
                    for _ in 1..n_frames {
                        lengths.push(take_length(&mut rest)?);
                    }
                    lengths.push(rest.len().checked_sub(lengths.iter().sum())?);
                }
            }
        }
        let mut take = |n: usize| {
            let (frame, after) = rest.split_at_checked(n).filter(|_| n <= MAX_FRAME)?;
            rest = after;
            Some(frame)
        };
        lengths.into_iter().map(&mut take).collect()
    }

    fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(first)
    }

    /// A length in one or two bytes.
    fn take_length(bytes: &mut &[u8]) -> Option<usize> {
        let first = usize::from(take_byte(bytes)?);
        if first < 252 { Some(first) } else { Some(4 * usize::from(take_byte(bytes)?) + first) }
    }

    /// A padding length: a sum of bytes, in which 255 stands for 254 and continues.
    fn take_padding_length(bytes: &mut &[u8]) -> Option<usize> {
        let mut n = 0;
        loop {
            match take_byte(bytes)? {
                255 => n += 254,
                last => return Some(n + usize::from(last)),
            }
        }
    }
}
