//! Properties of a model that its checkpoint does not state, and that had to be assumed.

use std::fmt;

/// A property that a checkpoint does not state, with the value that was assumed. [`Display`](fmt::Display) gives one
/// line for users.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assumption {
    /// Only the tensors below a prefix were loaded into the model; those outside it were ignored.
    LeftOut {
        /// The prefix, without its dot.
        place: String,
        /// The tensors outside it.
        tensors: Vec<String>,
    },
    /// The sample rate.
    SampleRate {
        /// The model.
        model: String,
        /// The assumed rate, in Hz.
        sample_rate: u32,
    },
    /// The stride of the first convolution.
    Stride {
        /// The model.
        model: String,
        /// The assumed stride, in samples.
        stride: usize,
    },
    /// The model variant, chosen by the file name because the tensors fit several variants.
    FileName {
        /// The word in the file name that decided.
        word: &'static str,
        /// The variant that has the same tensors, without this word in its name.
        otherwise: &'static str,
    },
    /// The classes: AudioSet's, sorted by display name.
    AudioSetByName,
    /// The class names: unknown, so the classes are numbered.
    NumberedLabels {
        /// The number of classes.
        n_classes: usize,
    },
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut { place, tensors } => {
                write!(f, "using the tensors below `{place}.`, ignoring ")?;
                write!(f, "{}", tensors[..tensors.len().min(3)].join(", "))?;
                match tensors.len().saturating_sub(3) {
                    0 => Ok(()),
                    n => write!(f, " and {n} more"),
                }
            }
            Self::SampleRate { model, sample_rate } => {
                write!(f, "this {model} checkpoint does not state its sample rate: {sample_rate} Hz is assumed")
            }
            Self::Stride { model, stride } => {
                write!(f, "this {model} checkpoint does not state the stride of its first convolution: ")?;
                write!(f, "{stride} samples are assumed")
            }
            Self::FileName { word, otherwise } => {
                write!(f, "the word {word} in the file name decides between models: ")?;
                write!(f, "the tensors also fit `{otherwise}`")
            }
            Self::AudioSetByName => f.write_str(
                "this checkpoint has no labels: AudioSet's 527 classes, sorted by display name, are assumed",
            ),
            Self::NumberedLabels { n_classes } => {
                write!(f, "this checkpoint has no labels: its {n_classes} classes are numbered")
            }
        }
    }
}
