//! Tensors that are stored in pieces: one name takes the place of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::{Bytes, Fault};
use super::entry::{Dtype, Entry};
use super::four_bit;

/// What the elements of a tensor are multiplied with.
#[derive(Debug, Clone)]
pub(super) enum Factor {
    /// All of them.
    Scale(f32),
    /// Those of each place along the first axis.
    Scales(Vec<f32>),
    /// Weight norm: along this axis, or all together, each part of the tensor is brought to the norm that stands here.
    Norm(Box<Entry>, Option<usize>),
}

/// How weight norm names its norms and directions: before PyTorch 2.1, since then.
const WEIGHT_NORMS: [[&str; 2]; 2] =
    [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]];

/// Puts the pieces of tensors together.
pub(super) fn compose(files: &[Arc<Bytes>], entries: &mut BTreeMap<String, Entry>) -> Result<(), Fault> {
    four_bit::compose(files, entries)?;
    scales(files, entries)?;
    weight_norms(entries);
    Ok(())
}

/// Gives 8-bit tensors the scales that stand beside them.
fn scales(files: &[Arc<Bytes>], entries: &mut BTreeMap<String, Entry>) -> Result<(), Fault> {
    let is_quantised = |entry: &Entry| entry.dtype == Dtype::I8;
    let names: Vec<String> =
        entries.iter().filter(|(_, entry)| is_quantised(entry)).map(|(name, _)| name.clone()).collect();
    for name in names {
        let scale_name = format!("{name}.scale");
        let scale = entries.get(&scale_name).filter(|entry| entry.dtype == Dtype::F32 && entry.count() == 1);
        let Some(scale) = scale else { continue };
        if let (Some(&scale), Some(entry)) = (scale.decode(files)?.first(), entries.get_mut(&name)) {
            entry.factor = Some(Factor::Scale(scale));
            entries.remove(&scale_name);
        }
    }
    Ok(())
}

/// Makes a `weight` of its directions and norms.
fn weight_norms(entries: &mut BTreeMap<String, Entry>) {
    for [norms, directions] in WEIGHT_NORMS {
        let place = |name: &String| {
            let place = name.strip_suffix(norms)?;
            (place.is_empty() || place.ends_with('.')).then(|| place.to_owned())
        };
        for place in entries.keys().filter_map(place).collect::<Vec<_>>() {
            let [norms, directions, weight] = [norms, directions, "weight"].map(|name| format!("{place}{name}"));
            let (Some(norm), Some(direction)) = (entries.get(&norms), entries.get(&directions)) else { continue };
            let Some(axis) = axis_of(&norm.shape, &direction.shape).filter(|_| !entries.contains_key(&weight)) else {
                continue;
            };
            let factor = Some(Factor::Norm(Box::new(norm.clone()), axis));
            let entry = Entry { factor, ..direction.clone() };
            entries.remove(&norms);
            entries.remove(&directions);
            entries.insert(weight, entry);
        }
    }
}

/// The axis of directions along which there is a norm each; `Some(None)` if there is one for all, `None` if they do not fit.
fn axis_of(norms: &[usize], directions: &[usize]) -> Option<Option<usize>> {
    if norms.iter().all(|&n| n == 1) {
        return Some(None);
    }
    let fits = |axis: &usize| {
        let all = norms.iter().zip(directions).enumerate();
        norms.len() == directions.len() && all.into_iter().all(|(i, (&n, &m))| n == if i == *axis { m } else { 1 })
    };
    (0..norms.len()).find(fits).map(Some)
}

impl Factor {
    /// The same, where `n_files` other files come first.
    pub(super) fn after(&self, n_files: usize) -> Self {
        match self {
            Self::Scale(_) | Self::Scales(_) => self.clone(),
            Self::Norm(norms, axis) => Self::Norm(Box::new(norms.after(n_files)), *axis),
        }
    }

    /// Multiplies the elements of a tensor of `shape`.
    pub(super) fn multiply(&self, values: &mut [f32], shape: &[usize], files: &[Arc<Bytes>]) -> Result<(), Fault> {
        match self {
            Self::Scale(scale) => values.iter_mut().for_each(|x| *x *= scale),
            Self::Scales(scales) => {
                let inner = (values.len() / scales.len().max(1)).max(1);
                for (values, scale) in values.chunks_mut(inner).zip(scales) {
                    values.iter_mut().for_each(|x| *x *= scale);
                }
            }
            Self::Norm(norms, axis) => {
                let norms = norms.decode(files)?;
                let inner = axis.map_or(values.len(), |axis| shape[axis + 1..].iter().product()).max(1);
                // A chunk belongs to one norm, and they take turns.
                let mut squares = vec![0.0f64; norms.len()];
                for (chunk, i) in values.chunks(inner).zip((0..norms.len()).cycle()) {
                    squares[i] += chunk.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
                }
                let scales: Vec<f64> =
                    norms.iter().zip(squares).map(|(&norm, squares)| f64::from(norm) / squares.sqrt()).collect();
                for (chunk, scale) in values.chunks_mut(inner).zip(scales.iter().cycle()) {
                    chunk.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
                }
            }
        }
        Ok(())
    }
}
