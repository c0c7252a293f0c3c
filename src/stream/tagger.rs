//! Window-by-window tagging of live audio.

use std::ops::Deref;
use std::time::{Duration, Instant};

use super::input::StreamInput;
use crate::error::Result;
use crate::tagger::Tagger;
use crate::windows::{WindowConfig, WindowTagger, WindowTagging};

/// Tags a stream of samples at any sample rate, window by window.
///
/// Results are bit-identical to [`Tagger::windows`] over the same samples, however they are split into blocks. Times
/// are counted in samples and do not drift. Memory does not grow with time.
///
/// ```no_run
/// use clipwise::{Tagger, TaggerStream, WindowConfig};
///
/// # fn main() -> clipwise::Result<()> {
/// # let microphone: Vec<Vec<f32>> = Vec::new();
/// let tagger = Tagger::open("Cnn14_mAP=0.431.pth", &clipwise::device::cpu())?;
/// let config = WindowConfig { length: 2.0, hop: 0.5, ..WindowConfig::default() };
/// let mut stream = TaggerStream::new(&tagger, 44_100, &config)?;
/// for block in microphone {
///     for window in stream.push(&block)? {
///         println!("{:6.1} s  {:?}", window.end, window.tagging.above(0.3));
///     }
/// }
/// let last = stream.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// **Latency** is [`latency`](Self::latency) plus the model's run time for a window. The **real-time factor**
/// (processing time per time of audio) is about `length / hop` times that of the model alone and must stay below 1;
/// [`real_time_factor`](Self::real_time_factor) measures it. CED-tiny reaches 0.03 on one core of a server with windows
/// of 2 s every 0.5 s, and 0.3 with windows every 0.1 s.
///
/// The tagger may be borrowed, or shared in an `Arc`, by any number of streams on any number of threads.
/// [`FrameStream`](super::FrameStream) runs recurrent models without windows.
#[derive(Debug)]
pub struct TaggerStream<T> {
    input: StreamInput,
    windows: WindowTagger<T>,
    /// Time spent in `push` since the stream began.
    busy: Duration,
}

impl Tagger {
    /// Begins a stream of live audio at `sample_rate` Hz. See [`TaggerStream`].
    ///
    /// # Errors
    /// As [`TaggerStream::new`].
    pub fn stream(&self, sample_rate: u32, config: &WindowConfig) -> Result<TaggerStream<&Self>> {
        TaggerStream::new(self, sample_rate, config)
    }
}

impl<T: Deref<Target = Tagger>> TaggerStream<T> {
    /// Begins a stream at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the window settings are invalid, or if frames are requested from a
    /// model without framewise output; [`Error::Argument`](crate::Error::Argument) if the sample rate is 0 Hz or too
    /// far from the model's.
    pub fn new(tagger: T, sample_rate: u32, config: &WindowConfig) -> Result<Self> {
        let input = StreamInput::new(sample_rate, tagger.model().info().sample_rate)?;
        Ok(Self { input, windows: WindowTagger::new(tagger, config)?, busy: Duration::ZERO })
    }

    /// Takes the next samples, any number, and returns the windows that are now complete.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite), with the position in the stream, if a sample is NaN or infinite;
    /// no samples are taken in that case, and the stream can continue. [`Error::Tensor`](crate::Error::Tensor) if a
    /// tensor operation fails on the device; the windows of the failed batch are lost.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<WindowTagging>> {
        let has_clock = !cfg!(all(target_arch = "wasm32", target_os = "unknown")); // there `Instant::now` panics
        let begun = has_clock.then(Instant::now);
        let mut results = Vec::new();
        self.input.push(samples, |samples| self.windows.push_all(samples, &mut results))?;
        self.busy += begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        Ok(results)
    }

    /// Ends the stream: returns the remaining windows, the last of which may be shorter, and begins a new stream.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device.
    pub fn finish(&mut self) -> Result<Vec<WindowTagging>> {
        let mut results = Vec::new();
        let finished = self.input.finish(|samples| {
            self.windows.push_all(samples, &mut results)?;
            self.windows.finish();
            self.windows.tag_all(&mut results)
        });
        self.reset();
        finished.map(|()| results)
    }

    /// Discards the samples so far and begins a new stream at time 0.
    pub fn reset(&mut self) {
        self.input.reset();
        self.windows.reset();
        self.busy = Duration::ZERO;
    }

    /// The tagger.
    pub fn tagger(&self) -> &Tagger {
        self.windows.tagger()
    }

    /// The settings of the windows.
    pub fn config(&self) -> &WindowConfig {
        self.windows.config()
    }

    /// The sample rate of the input, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.input.sample_rate()
    }

    /// Seconds of audio pushed so far.
    pub fn position(&self) -> f64 {
        self.input.position()
    }

    /// Time spent in [`push`](Self::push) per time of audio so far. A stream with a factor above 1 falls behind.
    /// 0 on `wasm32-unknown-unknown`, which has no clock.
    pub fn real_time_factor(&self) -> f64 {
        if self.position() == 0.0 { 0.0 } else { self.busy.as_secs_f64() / self.position() }
    }

    /// Seconds of audio after the end of a window that are needed before its result is ready, at most: the latency of
    /// the resampler, and one sample with [`framewise`](WindowConfig::framewise). The front end needs no audio beyond
    /// the window.
    pub fn lookahead(&self) -> f64 {
        self.input.delay(usize::from(self.config().framewise))
    }

    /// Maximum latency in seconds, from the start of a window to its result: the length of a window plus
    /// [`lookahead`](Self::lookahead). The run time of the model comes on top. (A window ends every
    /// [`hop`](WindowConfig::hop) seconds, so a sound affects a result at the latest one hop plus the lookahead after
    /// it.)
    pub fn latency(&self) -> f64 {
        self.windows.length() as f64 / f64::from(self.tagger().model().info().sample_rate) + self.lookahead()
    }
}
