//! Front ends: from samples to spectrograms.
