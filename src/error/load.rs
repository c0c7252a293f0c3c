//! What does not fit between a checkpoint and a model.

use std::fmt;
use std::path::PathBuf;

/// Everything that kept a checkpoint from loading into a model, at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The model's name.
    pub model: String,
    /// The checkpoint; `None` where bytes or tensors were given.
    pub path: Option<PathBuf>,
    /// Where in the checkpoint the model's tensors were looked for: see [`Weights::at`](crate::Weights::at). Empty for all of it.
    pub place: String,
    /// Tensors of the model that the checkpoint lacks, in the order in which the model asked for them.
    pub missing: Vec<MissingTensor>,
    /// Tensors of the checkpoint that the model neither read nor knowingly left aside, sorted.
    pub unexpected: Vec<String>,
    /// Tensors whose shapes differ, in the order in which the model asked for them.
    pub wrong_shape: Vec<WrongShape>,
    /// Where in the checkpoint most of the missing tensors are: [`Weights::at`](crate::Weights::at) gives the tensors there.
    pub found_below: Option<String>,
    /// Whether loading stopped early, since far more is missing than the checkpoint holds. What follows was not compared.
    pub stopped: bool,
}

/// A tensor of the model that the checkpoint lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// Its full name.
    pub name: String,
    /// The shape the model wants.
    pub shape: Vec<usize>,
    /// The most similar unexpected name of the checkpoint, if one is similar. Looked for for the first 1,000 missing ones.
    pub nearest: Option<String>,
}

/// A tensor of another shape than the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape {
    /// Its full name.
    pub name: String,
    /// The shape the model wants.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub got: Vec<usize>,
}

impl LoadReport {
    /// Whether everything fits.
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
            write!(f, "\n  what is missing stands below `{place}.`: Weights::at({place:?}) gives the tensors there")?;
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
            write!(f, "\n  and perhaps more: far more is missing than there is, so the rest was not compared")?;
        }
        Ok(())
    }
}

/// Most entries of a list that are printed.
const MAX_PRINTED: usize = 20;

/// Prints the first entries of a list, a line each, and the number of the others.
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
