//! `Display` and `FromStr` of unit-only enums. The names are those in configuration files.

use std::fmt;
use std::str::FromStr;

use crate::ctc::beam::Unit;
use crate::error::{Error, Result};
use crate::events::EventFormat;
use crate::frontend::{DeltaEdge, DeltaMethod, LogScale, MelAxis, MelNorm, MelScale, PadMode, Spectrum, Window};
use crate::fusion::Average;
use crate::models::{ced::WindowMean, cnn14::Decision, rnn::TimePooling};
use crate::nn::{Cell, Pooling};
use crate::output::OutputActivation;
use crate::weights::Precision;
use crate::windows::Aggregation;

macro_rules! names {
    ($($type:ident),* $(,)?) => {
        $(
            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(&serde_plain::to_string(self).map_err(|_| fmt::Error)?)
                }
            }

            impl FromStr for $type {
                type Err = Error;

                fn from_str(name: &str) -> Result<Self> {
                    // The message of serde lists all variants.
                    serde_plain::from_str(name).map_err(|error| Error::argument(stringify!($type), name, error.to_string()))
                }
            }
        )*
    };
}

names!(
    Aggregation,
    Average,
    Cell,
    Decision,
    DeltaEdge,
    DeltaMethod,
    EventFormat,
    LogScale,
    MelAxis,
    MelNorm,
    MelScale,
    OutputActivation,
    PadMode,
    Pooling,
    Precision,
    Spectrum,
    TimePooling,
    Unit,
    Window,
    WindowMean,
);
