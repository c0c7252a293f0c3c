//! Gaps in damaged files.

/// A gap in a file, where damaged or missing packets were skipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// Position of the gap: number of samples per channel before it, at the file's rate.
    pub index: u64,
    /// Position of the gap in seconds.
    pub seconds: f64,
    /// Number of zero samples that replace the missing audio; 0 if its length is unknown.
    pub n_samples: u64,
    /// Number of packets skipped; 0 if only bytes between packets were skipped.
    pub n_packets: u64,
    /// Description of the damage.
    pub detail: String,
}
