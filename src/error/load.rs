//! Report of the differences between a checkpoint and a model.

use std::fmt;
use std::path::PathBuf;

/// All the differences that keep a checkpoint from loading into a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The model's name.
    pub model: String,
    /// The checkpoint; `None` where bytes or tensors were given.
    pub path: Option<PathBuf>,
    /// The prefix below which the model's tensors were looked up (see [`Weights::at`](crate::Weights::at)); empty for
    /// none.
    pub place: String,
    /// Tensors of the model that the checkpoint lacks, in the order in which the model reads them.
    pub missing: Vec<MissingTensor>,
    /// Tensors of the checkpoint that the model neither reads nor expects to leave unused, sorted.
    pub unexpected: Vec<String>,
    /// Tensors whose shapes differ, in the order in which the model reads them.
    pub wrong_shape: Vec<WrongShape>,
    /// A prefix below which the checkpoint has most of the missing tensors: pass it to
    /// [`Weights::at`](crate::Weights::at).
    pub found_below: Option<String>,
    /// Whether loading stopped early because most tensors were missing. The remaining tensors were not compared.
    pub stopped: bool,
}

/// A tensor of the model that the checkpoint lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// Its full name.
    pub name: String,
    /// The shape in the model.
    pub shape: Vec<usize>,
    /// The most similar name among the unexpected tensors, if one is similar. Searched for the first 1,000 missing
    /// tensors.
    pub nearest: Option<String>,
}

/// A tensor whose shape in the checkpoint differs from that in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape {
    /// Its full name.
    pub name: String,
    /// The shape in the model.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub got: Vec<usize>,
}

impl LoadReport {
    /// Whether the checkpoint fits the model.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.wrong_shape.is_empty()
    }
}

impl std::error::Error for LoadReport {}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display())?,
            None => write!(f, "the weights")?,
        }
        if !self.place.is_empty() {
            write!(f, " below `{}.`", self.place)?;
        }
        write!(f, " {} not fit {}:", if self.path.is_some() { "does" } else { "do" }, self.model)?;
        let counts = [
            (self.missing.len(), "missing"),
            (self.wrong_shape.len(), "of the wrong shape"),
            (self.unexpected.len(), "unexpected"),
        ];
        let present = counts.into_iter().filter(|(count, _)| *count > 0);
        let summary: Vec<String> = present.map(|(count, what)| format!("{count} {what}")).collect();
        write!(f, " {}", summary.join(", "))?;
        if let Some(place) = &self.found_below {
            write!(f, "\n  the missing tensors are below `{place}.`: use Weights::at({place:?})")?;
        }
        list(f, "missing", &self.missing, |f, MissingTensor { name, shape, nearest }| {
            write!(f, "{name} {shape:?}")?;
            nearest.iter().try_for_each(|nearest| write!(f, " (nearest: {nearest})"))
        })?;
        list(f, "wrong shape", &self.wrong_shape, |f, WrongShape { name, expected, got }| {
            write!(f, "{name}: expected {expected:?}, got {got:?}")
        })?;
        list(f, "unexpected", &self.unexpected, |f, name| write!(f, "{name}"))?;
        if self.stopped {
            write!(f, "\n  the remaining tensors were not compared, because most of those so far are missing")?;
        }
        Ok(())
    }
}

/// Limit on the entries of a list that are printed.
const MAX_PRINTED: usize = 20;

/// Prints the first entries of a list, one per line, and the number of the others.
fn list<T>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    entries: &[T],
    print: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for entry in entries.iter().take(MAX_PRINTED) {
        write!(f, "\n  {what}: ")?;
        print(f, entry)?;
    }
    match entries.len().saturating_sub(MAX_PRINTED) {
        0 => Ok(()),
        more => write!(f, "\n  {what}: {more} more"),
    }
}
