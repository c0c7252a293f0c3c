//! The default microphone, through cpal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{FromSample, Sample, SampleFormat, SizedSample, Stream, SupportedStreamConfig};

use crate::message::{Failure, say};

/// Blocks that may wait for the model; more are lost.
const MAX_WAITING: usize = 1024;

type Block = Result<Vec<f32>, String>;

pub struct Microphone {
    blocks: Receiver<Block>,
    sample_rate: u32,
    /// Blocks that found no place.
    lost: Arc<AtomicUsize>,
    _stream: Stream, // listens as long as it lives
}

impl Microphone {
    pub fn open() -> Result<Self, Failure> {
        let device = cpal::default_host().default_input_device().ok_or("there is no microphone")?;
        let config = device.default_input_config()?;
        let (sender, blocks) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicUsize::new(0));
        let to = (sender, lost.clone());
        let stream = match config.sample_format() {
            SampleFormat::F32 => build::<f32>(&device, &config, to),
            SampleFormat::I16 => build::<i16>(&device, &config, to),
            SampleFormat::U16 => build::<u16>(&device, &config, to),
            SampleFormat::I32 => build::<i32>(&device, &config, to),
            other => return Err(format!("samples of the form {other} are not read").into()),
        }?;
        stream.play()?;
        Ok(Self { blocks, sample_rate: config.sample_rate(), lost, _stream: stream })
    }

    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// What was heard since the last call, mixed to one channel; waits for it. `None` when the device is gone.
    pub fn next(&self) -> Result<Option<Vec<f32>>, Failure> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => {}
            n => say(format_args!("note: the model is too slow: {n} blocks of the microphone were lost")),
        }
        match self.blocks.recv() {
            Ok(Ok(block)) => Ok(Some(block)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

fn build<T>(
    device: &cpal::Device,
    config: &SupportedStreamConfig,
    (sender, lost): (SyncSender<Block>, Arc<AtomicUsize>),
) -> Result<Stream, cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let n_channels = usize::from(config.channels()).max(1);
    let errors = sender.clone();
    let heard = move |samples: &[T], _: &cpal::InputCallbackInfo| {
        let mix = |frame: &[T]| frame.iter().map(|&x| f32::from_sample(x)).sum::<f32>() / n_channels as f32;
        if sender.try_send(Ok(samples.chunks_exact(n_channels).map(mix).collect())).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    let failed = move |error: cpal::Error| match error.kind() {
        cpal::ErrorKind::Xrun | cpal::ErrorKind::RealtimeDenied | cpal::ErrorKind::DeviceChanged => {
            say(format_args!("note: {error}"))
        }
        _ => drop(errors.try_send(Err(error.to_string()))),
    };
    device.build_input_stream(config.config(), heard, failed, None)
}
