//! Reused buffers. A large buffer fresh from the operating system costs a page fault every 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Longer buffers (in values) are freed, so that a model does not hold gigabytes after one long recording.
const LONGEST_KEPT: usize = 1 << 25;

/// Bytes in a cache line.
const CACHE_LINE: usize = 64;

/// The number of values of an f32 array of these sizes; `None` if it exceeds the address space.
pub fn count(sizes: &[usize]) -> Option<usize> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    product.filter(|&len| len <= isize::MAX as usize / size_of::<f32>())
}

/// Whether the element at the sum of all `index · stride` lies in a slice of length `len`.
pub fn is_inside(indices: &[(usize, usize)], len: usize) -> bool {
    let add = |sum: usize, &(index, stride): &(usize, usize)| sum.checked_add(index.checked_mul(stride)?);
    indices.iter().try_fold(0, add).is_some_and(|index| index < len)
}

/// A pool of free buffers. Clones share the pool; it is freed with the last clone.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Buffers>);

type Buffers = Mutex<Vec<AlignedVec>>;

/// The pool that all layers share, while any layer exists.
static SHARED: Mutex<Weak<Buffers>> = Mutex::new(Weak::new());

impl Workspace {
    /// The workspace of all layers: each layer reuses the buffers of the previous one, which are still in the cache.
    pub fn shared() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&buffers);
        Self(buffers)
    }

    /// Takes a buffer of `len` values with arbitrary contents.
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        // If none is long enough, replace the longest, so that there are never more buffers than were in use at once.
        let longest = || (0..free.len()).max_by_key(|&i| free[i].len());
        let found = fitting.or_else(longest).map(|i| free.swap_remove(i));
        drop(free);
        let values = match found {
            Some(values) if values.len() >= len => values,
            _ => AlignedVec::zeros(len),
        };
        Buffer { values, len, home: self.clone() }
    }
}

/// A buffer that returns to its workspace when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    values: AlignedVec,
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

/// Values aligned to a cache line, so that no vector load spans two lines.
#[derive(Debug, Default)]
pub struct AlignedVec<T = f32> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> AlignedVec<T> {
    pub fn zeros(len: usize) -> Self {
        let values = vec![T::default(); len + CACHE_LINE / size_of::<T>()];
        let start = values.as_ptr().align_offset(CACHE_LINE).min(values.len() - len);
        Self { values, start, len }
    }

    pub fn copy(values: &[T]) -> Self {
        let mut copy = Self::zeros(values.len());
        copy.copy_from_slice(values);
        copy
    }
}

impl<T> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }
}

impl<T> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_long_ones_are_not_kept() {
        let workspace = Workspace::default();
        let kept =
            |workspace: &Workspace| workspace.0.lock().unwrap().iter().map(|values| values.len()).collect::<Vec<_>>();
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
