//! Augmentation of training examples, so that a small data set goes further. Never used at inference.
//!
//! | on | by | what |
//! |---|---|---|
//! | samples, `&mut [f32]` on the host | [`add_gaussian_noise`], [`add_noise`] | noise at a signal-to-noise ratio |
//! | | [`shift`], [`random_shift`] | the clip earlier or later |
//! | features, tensor `[batch, channels, n_frames, n_mels]` or array `[n_frames, n_mels]` | [`SpecAugment`] | stripes of time and frequency set to 0 |
//! | any tensor `[batch, ...]`, its labels with it | [`Mixup`] | weighted means of two examples |
//!
//! Augmentation of tensors is differentiable and stays on the tensor's device; its random choices are made on the host.
//! Everything takes a [`Random`]: the same seed gives the same augmentation on every machine.
//!
//! PANNs' training applies, in this order: front end, batch norm over the mels, [`SpecAugment::PANNS`],
//! [`Mixup::PANNS`] on features and labels.

mod mixup;
mod spec_augment;
mod waveform;

pub use crate::random::Random;
pub use mixup::{Mixup, MixupPairing, MixupPlan};
pub use spec_augment::{SpecAugment, Stripes};
pub use waveform::{ShiftFill, add_gaussian_noise, add_noise, random_shift, shift};
