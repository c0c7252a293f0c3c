//! How audio is read.

use std::io;
use std::num::NonZero;
use std::path::Path;

use clipwise::audio::{AudioReader, Channels, ReadOptions};
use clipwise::{Result, Waveform};

use crate::message::say_about;

/// The name of standard input in messages, as the library has it.
pub const STREAM: &str = "<stream>";

/// How audio files are read.
#[derive(clap::Args, Clone, Debug)]
pub struct ReadArgs {
    /// Take channel N, counted from 1, instead of the mean of all channels
    #[arg(long, value_name = "N", help_heading = "Audio")]
    channel: Option<NonZero<u16>>,
    /// Go on after damage within a file, with silence in its place and a note on stderr
    #[arg(long, help_heading = "Audio")]
    skip_damage: bool,
    /// Take what is there of a file that is cut short, with a note on stderr
    #[arg(long, help_heading = "Audio")]
    accept_truncated: bool,
}

impl ReadArgs {
    /// The options for a file, or for a stream.
    pub fn options(&self, is_stream: bool) -> ReadOptions {
        ReadOptions {
            channels: self.channel.map_or(Channels::Mean, |n| Channels::One(usize::from(n.get()) - 1)),
            skip_damage: self.skip_damage || is_stream,
            accept_truncated: self.accept_truncated,
            accept_placeholder_length: is_stream, // a program that writes to a pipe does not know the length
        }
    }

    /// Opens a file, or standard input for `-`.
    pub fn open(&self, file: &Path) -> Result<AudioReader> {
        let is_stream = file == Path::new("-");
        let options = self.options(is_stream);
        if is_stream { AudioReader::read_with(io::stdin(), &options) } else { AudioReader::open_with(file, &options) }
    }

    /// Reads a whole file, with notes on stderr.
    pub fn waveform(&self, file: &Path) -> Result<Waveform> {
        let mut reader = self.open(file)?;
        let mut samples = Vec::new();
        for block in &mut reader {
            samples.append(&mut block?);
        }
        say_about(&reader);
        Ok(Waveform::new(samples, reader.sample_rate()))
    }
}
