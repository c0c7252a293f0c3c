//! Data augmentation for training.
//!
//! | input | function | effect |
//! |---|---|---|
//! | samples, `&mut [f32]` on the host | [`add_gaussian_noise`], [`add_noise`] | adds noise at a signal-to-noise ratio |
//! | | [`shift`], [`random_shift`] | moves the clip in time |
//! | features: tensor `[batch, channels, n_frames, n_mels]` or array `[n_frames, n_mels]` | [`SpecAugment`] | sets stripes of time and frequency to 0 |
//! | any tensor `[batch, ...]` and its labels | [`Mixup`] | weighted means of two examples |
//!
//! Augmentation of tensors is differentiable and runs on the tensor's device; random numbers are drawn on the host from
//! a [`Random`], so that a seed gives the same augmentation on every machine.
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
