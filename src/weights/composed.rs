//! Tensors that are stored in several parts and listed under one name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::{Bytes, Fault};
use super::entry::{Dtype, Entry};
use super::four_bit;

/// Factor of the elements of a tensor.
#[derive(Debug, Clone)]
pub(super) enum Factor {
    /// One scale for all elements.
    Scale(f32),
    /// One scale per index of the first axis.
    Scales(Vec<f32>),
    /// Weight norm: scales each slice along this axis, or the whole tensor, to the norm in the entry.
    Norm(Box<Entry>, Option<usize>),
}

/// Names of norm and direction in weight norm: before PyTorch 2.1, and since.
const WEIGHT_NORMS: [[&str; 2]; 2] =
    [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]];

/// Replaces the parts of composed tensors by single entries.
pub(super) fn compose(files: &[Arc<Bytes>], entries: &mut BTreeMap<String, Entry>) -> Result<(), Fault> {
    four_bit::compose(files, entries)?;
    scales(files, entries)?;
    weight_norms(entries);
    Ok(())
}

/// Combines 8-bit tensors with their scales.
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

/// Combines directions and norms of weight norm into a `weight`.
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

/// The axis of the directions along which there is one norm per index; `Some(None)` for a single norm, `None` if the
/// shapes do not match.
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
    /// The same factor, with file indices shifted by `n_files`.
    pub(super) fn after(&self, n_files: usize) -> Self {
        match self {
            Self::Scale(_) | Self::Scales(_) => self.clone(),
            Self::Norm(norms, axis) => Self::Norm(Box::new(norms.after(n_files)), *axis),
        }
    }

    /// Multiplies the elements `values` of a tensor of `shape` in place.
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
                // Each chunk belongs to one norm; the norms repeat in order.
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
