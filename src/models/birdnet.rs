//! BirdNET V2.4: sounds of 6,522 species, mostly birds, in windows of 3 s.
//!
//! Paper: Kahl et al., "BirdNET: A deep learning solution for avian diversity monitoring", 2021 (Ecological Informatics
//! 61). Reference: the published TensorFlow Lite file `BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite`. Its licence, CC
//! BY-NC-SA 4.0, forbids commercial use.
//!
//! waveform at 48 kHz → windows of 144,000 samples, each scaled to −1..1 by its minimum and maximum → two spectrograms
//! `[n_windows, 2, 96, 511]` → 4x8 convolution, max and mean over pairs of columns, 1x1 convolution → four stages of 3,
//! 4, 5 and 4 inverted residual blocks with squeeze-and-excitation → affine, ReLU, 3x3 convolution with ReLU
//! `[n_windows, 1024, 1, 6]` → mean (the embedding of a window) → fully connected layer, sigmoid.
//!
//! Each spectrogram passes the **real part** of a frame's Fourier transform through mel filters, squares the result and
//! raises it to a learnt power. One has frames of 2,048 samples every 278 and filters of 0 to 3 kHz, the other frames
//! of 1,024 samples every 280 and filters of 0.5 to 15 kHz. High bands come first.
//!
//! Scores and embedding of a clip are means over its windows, which do not overlap; `logits` are `ln(p / (1 − p))` of
//! the mean score. The last window is zero-padded, as is a shorter clip. On request, frames are the windows.
//!
//! The species names are in a separate file, one per line.
//!
//! Scores are within 2e-3 of those of the TensorFlow Lite runtime. It computes the Fourier transform in f32, and a
//! power of 0.2 amplifies small differences. From equal spectrograms, embeddings are within 1e-5.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::forward_by_length;
use super::family::Family;
use super::frames::mean_of_segments;
use super::{Detail, FrameGrid, ModelInfo, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES};
use crate::error::{Context, Result};
use crate::frontend::{Fbank, FbankConfig, Spectrum, Window};
use crate::nn::{Activation, ConvAxis, ConvConfig, ConvStack, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

const SAMPLE_RATE: u32 = 48_000;
const WINDOW: usize = 144_000;
/// Windows per forward pass, which bounds the memory for a long clip.
const WINDOWS_AT_ONCE: usize = 8;
const N_MELS: usize = 96;
/// Frame length and hop of the two spectrograms, in samples.
const FRAMES: [(usize, usize); 2] = [(2048, 278), (1024, 280)];
const EMBEDDING: usize = 1024;

/// Channels of the stem.
const STEM: usize = 24;
/// Blocks of a stage, their inner and outer channels, and the channels of the squeeze-and-excitation (0 for none).
const STAGES: [(usize, usize, usize, usize); 4] =
    [(3, 72, 36, 0), (4, 288, 72, 18), (5, 864, 108, 27), (4, 1536, 192, 48)];

/// The configuration of a BirdNET.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `birdnet`.
    #[serde(default = "birdnet")]
    pub name: Cow<'static, str>,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn birdnet() -> Cow<'static, str> {
    Cow::Borrowed("birdnet")
}

impl Config {
    /// `BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite`: 6,522 species.
    pub const V2_4: Self = Self { name: Cow::Borrowed("birdnet-v2.4"), n_classes: 6522 };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::V2_4, "BirdNET V2.4, 48 kHz, 6,522 species; not for commercial use")];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["76.conv.weight", "02.fully_connected.weight", "00.pow"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let is_first = weights.shape("00.conv.weight") == Some(&[STEM, 2, 4, 8]);
        let is_last = weights.shape("76.conv.weight") == Some(&[EMBEDDING, STAGES[3].2, 3, 3]);
        let mut config = Self::V2_4;
        config.fit(weights);
        Ok((is_first && is_last).then_some((config, Vec::new())))
    }

    /// The number of classes.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, _]) = weights.shape("02.fully_connected.weight") {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(BirdNet::load(self, weights, device)?))
    }
}

/// A loaded BirdNET.
#[derive(Debug)]
pub struct BirdNet {
    config: Config,
    info: ModelInfo,
    device: Device,
    spectrograms: [Spectrogram; 2],
    stem: ConvStack,
    blocks: ConvStack,
    scale: Tensor, // [1, 192, 1, 1]
    shift: Tensor, // [1, 192, 1, 1]
    last: ConvStack,
    head: Linear,
}

/// One of the two input channels of the first convolution.
#[derive(Debug)]
struct Spectrogram {
    fbank: Fbank,
    /// Power to which the squared filter outputs are raised.
    exponent: f32,
    scale: f32,
    shift: f32,
}

impl BirdNet {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration is invalid,
    /// [`Error::Weights`](crate::Error::Weights) listing every tensor that is missing, unexpected or of the wrong
    /// shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        check::size("n_classes", config.n_classes, MAX_CLASSES)?;
        let root = weights.loader(device);
        root.ignore("00.add"); // the ε of the window normalisation, 1e-6
        ["00.mul", "01.mul", "02.mul"].iter().for_each(|name| root.ignore(name)); // its factor 2, and the FFT windows
        let (scale, shift) = (root.get_vec("03.mul", &[2])?, root.get_vec("01.add", &[2])?);
        let spectrogram = |i: usize| Spectrogram::load(&root, i, scale[i], shift[i]);
        let spectrograms = [spectrogram(0)?, spectrogram(1)?];
        let mut layers = Layers { root: &root, next: 0 };
        let (stem, blocks) = (layers.stem()?, layers.blocks()?);
        let channels = STAGES[3].2;
        let per_channel = |name: &str| {
            let values = Tensor::from_vec(root.get_vec(name, &[channels])?, (1, channels, 1, 1), device);
            values.context("moving weights to the device")
        };
        let (scale, shift) = (per_channel("04.mul")?, per_channel("02.add")?);
        let mut last = ConvStack::on_maps(None);
        layers.conv(&mut last, ConvConfig::new(channels, EMBEDDING, 3), Activation::Relu)?;
        let head = root.at("02.fully_connected");
        let head = Linear::load(&head.in_f32(), EMBEDDING, config.n_classes, Activation::Identity)?;
        root.finish(&config.name)?;
        let info = ModelInfo {
            min_samples: WINDOW,
            frames: Some(FrameGrid { first: 0, step: WINDOW }),
            ..ModelInfo::new(config.name.clone(), SAMPLE_RATE, config.n_classes, EMBEDDING)
        };
        let (config, device) = (config.clone(), device.clone());
        Ok(Self { config, info, device, spectrograms, stem, blocks, scale, shift, last, head })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The spectrograms of a window of 144,000 samples, `[1, 2, 96, 511]`: the input of the first convolution.
    ///
    /// # Errors
    /// [`Error::TooShort`](crate::Error::TooShort) for a window shorter than a frame,
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or infinite sample,
    /// [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device.
    pub fn spectrograms(&self, window: &[f32]) -> Result<Tensor> {
        let window = normalized(window);
        let maps = self.spectrograms.iter().map(|spectrogram| spectrogram.compute(&window, &self.device));
        Tensor::stack(&maps.collect::<Result<Vec<_>>>()?, 0)?.unsqueeze(0).context("stacking BirdNET's spectrograms")
    }

    /// Tags clips with the same number of windows.
    fn run(&self, clips: &[&[f32]], detail: Detail) -> Result<TaggingOutput> {
        let n_windows = clips.iter().map(|clip| clip.len().div_ceil(WINDOW)).max().unwrap_or(1);
        let windows: Vec<(&[f32], usize)> =
            clips.iter().flat_map(|clip| (0..n_windows).map(move |window| (*clip, window))).collect();
        let embeddings = windows.chunks(WINDOWS_AT_ONCE).map(|windows| {
            let maps = windows.iter().map(|(clip, window)| {
                let mut window = clip[window * WINDOW..clip.len().min((window + 1) * WINDOW)].to_vec();
                window.resize(WINDOW, 0.0);
                self.spectrograms(&window)
            });
            self.embed_observed(&Tensor::cat(&maps.collect::<Result<Vec<_>>>()?, 0)?, |_, _| Ok(()))
        });
        let embeddings = Tensor::cat(&embeddings.collect::<Result<Vec<_>>>()?, 0)?;
        let embeddings = embeddings.reshape((clips.len(), n_windows, EMBEDDING))?;
        let scores = candle_nn::ops::sigmoid(&self.head.forward(&embeddings)?)?;
        mean_of_segments(scores, &embeddings, detail)
    }

    /// Embeddings `[n, 1024]` of [`spectrograms`](Self::spectrograms) `[n, 2, 96, 511]`. Calls `observe` after each
    /// stage with the stage's index from 0 and a function that returns its output, for comparison with a reference.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape or the device does not match, and any error of `observe`.
    pub fn embed_observed(
        &self,
        spectrograms: &Tensor,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<Tensor> {
        let x = self.stem.forward(spectrograms)?;
        let (n, channels, height, width) = x.dims4()?;
        let pairs = x.reshape((n, channels, height, width / 2, 2))?;
        let x = Tensor::cat(&[pairs.max(4)?, pairs.mean(4)?], 1)?;
        let x = self
            .blocks
            .forward_observed(&x, observe)?
            .broadcast_mul(&self.scale)?
            .broadcast_add(&self.shift)?
            .relu()?;
        Ok(self.last.forward(&x)?.mean((2, 3))?)
    }
}

/// A window scaled so that its minimum is −1 and its maximum 1.
fn normalized(window: &[f32]) -> Vec<f32> {
    let low = window.iter().copied().fold(f32::INFINITY, f32::min);
    let high = window.iter().fold(0.0f32, |high, x| high.max(x - low)) + 1e-6;
    window.iter().map(|x| ((x - low) / high - 0.5) * 2.0).collect()
}

impl Spectrogram {
    fn load(root: &Loader, index: usize, scale: f32, shift: f32) -> Result<Self> {
        let (length, hop_length) = FRAMES[index];
        let fbank = Fbank::new(&FbankConfig {
            sample_rate: SAMPLE_RATE,
            n_fft: length,
            win_length: length,
            hop_length,
            window: Window::Hann,
            periodic: true,
            preemphasis: 0.0,
            remove_dc_offset: false,
            power: Spectrum::Real,
            n_mels: N_MELS,
            log: false,
            ..FbankConfig::KALDI_16K
        })?;
        let shape = [N_MELS, fbank.mel().n_bins()];
        let filters = root.get_array(&format!("{index:02}.fully_connected.weight"), shape)?;
        let exponent = root.get_vec(&format!("{index:02}.pow"), &[])?[0];
        Ok(Self { fbank: fbank.with_filters(filters.view())?, exponent, scale, shift })
    }

    /// The spectrogram `[96, 511]`, high bands first.
    fn compute(&self, window: &[f32], device: &Device) -> Result<Tensor> {
        let mels = self.fbank.compute(window)?;
        let value = |mel: f32| (mel * mel).powf(self.exponent) * self.scale + self.shift;
        let values: Vec<f32> = mels.columns().into_iter().rev().flatten().map(|&mel| value(mel)).collect();
        Tensor::from_vec(values, (N_MELS, mels.nrows()), device).context("moving the spectrograms to the device")
    }
}

/// Reads the convolutions of the file in their order.
struct Layers<'a, 'b> {
    root: &'a Loader<'b>,
    next: usize,
}

impl Layers<'_, '_> {
    fn place(&mut self, kind: &str) -> Loader<'_> {
        self.next += 1;
        self.root.at(format_args!("{:02}.{kind}", self.next - 1))
    }

    fn conv(&mut self, stack: &mut ConvStack, config: ConvConfig, activation: Activation) -> Result<()> {
        let place = self.place(if config.groups > 1 { "depthwise" } else { "conv" });
        stack.conv(&place, None, ConvConfig { bias: true, ..config }, activation)
    }

    /// A convolution over a 1x1 map, as a linear layer.
    fn linear(&mut self, inputs: usize, outputs: usize, activation: Activation) -> Result<Linear> {
        let place = self.place("conv");
        let weight = place.get_vec("weight", &[outputs, inputs, 1, 1])?;
        Linear::from_matrix(weight, place.get_vec("bias", &[outputs])?, activation, &place)
    }

    fn stem(&mut self) -> Result<ConvStack> {
        let mut stem = ConvStack::on_maps(None);
        // TensorFlow's `SAME` padding for a 96 x 511 map.
        let along_width = ConvAxis { kernel: 8, stride: 2, padding: 3, padding_after: Some(4) };
        let conv = ConvConfig { stride: 2, padding: 1, along_width: Some(along_width), ..ConvConfig::new(2, STEM, 4) };
        self.conv(&mut stem, conv, Activation::Relu)?;
        Ok(stem)
    }

    fn blocks(&mut self) -> Result<ConvStack> {
        let mut blocks = ConvStack::on_maps(None);
        self.conv(&mut blocks, ConvConfig::new(2 * STEM, STEM, 1), Activation::Identity)?;
        let mut channels = STEM;
        for (n_blocks, inside, outside, squeezed) in STAGES {
            for block in 0..n_blocks {
                let inputs = std::mem::replace(&mut channels, outside);
                let mut add = |stack: &mut ConvStack, stride: usize| {
                    self.conv(stack, ConvConfig::new(inputs, inside, 1), Activation::Swish)?;
                    let depthwise = ConvConfig { stride, ..ConvConfig::depthwise(inside, 3) };
                    self.conv(stack, depthwise, Activation::Swish)?;
                    if squeezed > 0 {
                        let first = self.linear(inside, squeezed, Activation::Swish)?;
                        stack.gates([first, self.linear(squeezed, inside, Activation::Sigmoid)?]);
                    }
                    self.conv(stack, ConvConfig::new(inside, outside, 1), Activation::Identity)
                };
                match block {
                    0 => add(&mut blocks, 2)?,
                    _ => blocks.residual(1, |stack| add(stack, 1))?,
                }
            }
            blocks.end_stage();
        }
        Ok(blocks)
    }
}

impl TaggingModel for BirdNet {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.run(clips, detail).context("running BirdNET");
        forward_by_length(batch, &self.info, |n_samples| n_samples.div_ceil(WINDOW), run)
    }
}
