//! What was left out of a damaged file.

/// A place in a file where packets are damaged or lost, and were skipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// Samples per channel before it, at the file's rate.
    pub index: u64,
    /// The same place in seconds.
    pub seconds: f64,
    /// Samples of silence in place of what is missing; 0 where the file does not tell its length.
    pub n_samples: u64,
    /// Packets left out; 0 where only bytes between packets were.
    pub n_packets: u64,
    /// What is wrong.
    pub detail: String,
}
