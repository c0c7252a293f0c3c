//! Reused buffers: large ones fresh from the system cost a page fault every 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Longer buffers, in values, go back to the system: a model must not hold gigabytes after one long recording.
const LONGEST_KEPT: usize = 1 << 25;

/// Bytes in a cache line.
const CACHE_LINE: usize = 64;

/// Number of values of an f32 array of these sizes; `None` if no memory could hold it.
pub fn count(sizes: &[usize]) -> Option<usize> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    product.filter(|&len| len <= isize::MAX as usize / size_of::<f32>())
}

/// Whether the element at the sum of `index · stride` lies in a slice of `len`.
pub fn is_inside(indices: &[(usize, usize)], len: usize) -> bool {
    let add = |sum: usize, &(index, stride): &(usize, usize)| sum.checked_add(index.checked_mul(stride)?);
    indices.iter().try_fold(0, add).is_some_and(|place| place < len)
}

/// Buffers that are not in use. Clones share them; they are freed with the last clone.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Buffers>);

type Buffers = Mutex<Vec<Vec<f32>>>;

/// What all layers share while there are any.
static SHARED: Mutex<Weak<Buffers>> = Mutex::new(Weak::new());

impl Workspace {
    /// The workspace of all layers: the next layer uses the buffers of the last one, which are in the cache.
    pub fn shared() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&buffers);
        Self(buffers)
    }

    /// A buffer of `len` values. What it holds is left over from its last use.
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        // If none is long enough, the longest is replaced, so that there are never more than were in use at once.
        let longest = || (0..free.len()).max_by_key(|&i| free[i].len());
        let found = fitting.or_else(longest).map(|i| free.swap_remove(i));
        drop(free);
        let values = match found {
            Some(values) if values.len() >= len => values,
            _ => vec![0.0; len],
        };
        Buffer { values, len, home: self.clone() }
    }
}

/// A buffer on loan, given back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    values: Vec<f32>,
    len: usize,
    home: Workspace,
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = self.home.take(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.values.len() <= LONGEST_KEPT {
            let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.push(std::mem::take(&mut self.values));
        }
    }
}

/// f32 values aligned to a cache line, so that no register is loaded from two lines.
#[derive(Debug)]
pub struct AlignedVec {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedVec {
    pub fn zeros(len: usize) -> Self {
        let values = vec![0.0; len + CACHE_LINE / size_of::<f32>()];
        let start = values.as_ptr().align_offset(CACHE_LINE).min(values.len() - len);
        Self { values, start, len }
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_long_ones_are_not_kept() {
        let workspace = Workspace::default();
        let kept = |workspace: &Workspace| workspace.0.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        drop((workspace.take(10), workspace.take(30)));
        assert_eq!(kept(&workspace).len(), 2);
        let buffer = workspace.take(20);
        assert_eq!((buffer.len(), kept(&workspace)), (20, vec![10]));
        drop(buffer);
        drop(workspace.take(LONGEST_KEPT + 1));
        assert!(kept(&workspace).iter().all(|&len| len <= LONGEST_KEPT));
        drop((workspace.take(100), workspace.take(100)));
        assert!(kept(&workspace).len() <= 2, "no more than were in use at once");
    }
}
