//! What a checkpoint does not say and had to be assumed.

use std::fmt;

/// What a checkpoint does not say and was assumed. Its text is one line for a person to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assumption {
    /// The model's tensors stand below a prefix, and those outside it were left out.
    LeftOut {
        /// The prefix, without its dot.
        place: String,
        /// The tensors outside it.
        tensors: Vec<String>,
    },
    /// Nothing in the checkpoint tells the sample rate.
    SampleRate {
        /// The model.
        model: String,
        /// The rate that was assumed, in Hz.
        sample_rate: u32,
    },
    /// Nothing in the checkpoint tells the stride of the first convolution.
    Stride {
        /// The model.
        model: String,
        /// The stride that was assumed, in samples.
        stride: usize,
    },
    /// The tensors fit several models, and the name of the file decided.
    FileName {
        /// The word in the file's name.
        word: &'static str,
        /// The name of the model without this word, whose tensors are the same.
        otherwise: &'static str,
    },
    /// The classes are taken to be AudioSet's, sorted by display name.
    AudioSetByName,
    /// Nothing names the classes, so they are numbered.
    NumberedLabels {
        /// The number of classes.
        n_classes: usize,
    },
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut { place, tensors } => {
                write!(f, "the model is taken to be the tensors below `{place}.`; left out: ")?;
                write!(f, "{}", tensors[..tensors.len().min(3)].join(", "))?;
                match tensors.len().saturating_sub(3) {
                    0 => Ok(()),
                    n => write!(f, " and {n} more"),
                }
            }
            Self::SampleRate { model, sample_rate } => {
                write!(f, "nothing in this {model} checkpoint tells its sample rate: {sample_rate} Hz is assumed")
            }
            Self::Stride { model, stride } => {
                write!(f, "nothing in this {model} checkpoint tells the stride of its first convolution: ")?;
                write!(f, "{stride} samples are assumed")
            }
            Self::FileName { word, otherwise } => {
                write!(f, "the file's name has the word {word}, which decides the model; ")?;
                write!(f, "its tensors would fit `{otherwise}` too")
            }
            Self::AudioSetByName => {
                f.write_str("this checkpoint has no labels: AudioSet's 527, sorted by display name, are assumed")
            }
            Self::NumberedLabels { n_classes } => {
                write!(f, "no labels are known for {n_classes} classes: they are numbered")
            }
        }
    }
}
