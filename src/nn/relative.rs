//! Relative positions: what attention adds to its scores by the distance from query to key.

use candle_core::Tensor;

use super::kernels::attention::Relative;
use crate::error::{Context, Error, Result};
use crate::tensor::with_values;

/// Numbers by distance, added to the scaled scores of attention before its softmax: for query `i` and key `j` the number
/// `clamp(j − i + left, 0, n_distances − 1)` of a row.
#[derive(Debug, Clone)]
pub struct RelativeScores {
    /// `[batch, n_tokens, n_heads, n_distances]`, or with gates `[n_heads, n_distances]`.
    rows: Tensor,
    gates: Option<Tensor>,
    n_distances: usize,
    left: usize,
}

impl RelativeScores {
    /// A row of its own for each query: `rows` `[batch, n_tokens, n_heads, n_distances]`, f32 (Shaw et al., 2018, arXiv
    /// 1803.02155; Dai et al., 2019, arXiv 1901.02860). Distance 0 is number `left` of a row.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor with other than 4 dimensions, [`Error::Argument`] unless `left` is below `n_distances`.
    pub fn new(rows: &Tensor, left: usize) -> Result<Self> {
        let context = "relative positions";
        let (_, _, _, n_distances) = rows.dims4().context(context)?;
        Self::with(rows, None, n_distances, left)
    }

    /// One row per head, `rows` `[n_heads, n_distances]`, times a number per query and head, `gates` `[batch, n_tokens, n_heads]`,
    /// both f32 (Chi et al., "XLM-E", 2021, arXiv 2106.16138, as WavLM uses it).
    ///
    /// # Errors
    /// [`Error::Tensor`] for tensors with other numbers of dimensions, [`Error::Argument`] unless `left` is below `n_distances`.
    pub fn gated(rows: &Tensor, gates: &Tensor, left: usize) -> Result<Self> {
        let context = "relative positions";
        let (_, n_distances) = rows.dims2().context(context)?;
        gates.dims3().context(context)?;
        Self::with(rows, Some(gates.contiguous().context(context)?), n_distances, left)
    }

    fn with(rows: &Tensor, gates: Option<Tensor>, n_distances: usize, left: usize) -> Result<Self> {
        if left >= n_distances {
            return Err(Error::argument("left", left, format!("expected less than the {n_distances} distances")));
        }
        Ok(Self { rows: rows.contiguous().context("relative positions")?, gates, n_distances, left })
    }

    /// Checks that they are those of `batch` sequences of `n_tokens` tokens.
    pub(super) fn check(&self, batch: usize, n_tokens: usize, n_heads: usize) -> candle_core::Result<()> {
        let fits = match &self.gates {
            Some(gates) => gates.dims() == [batch, n_tokens, n_heads] && self.rows.dims()[0] == n_heads,
            None => self.rows.dims()[..3] == [batch, n_tokens, n_heads],
        };
        match fits {
            true => Ok(()),
            false => Err(candle_core::Error::Msg(format!(
                "expected relative positions of {batch} x {n_tokens} queries and {n_heads} heads, got {:?}",
                self.gates.as_ref().unwrap_or(&self.rows).dims()
            ))),
        }
    }

    /// Runs `f` on what the kernel takes.
    pub(super) fn on_host<R>(&self, f: impl FnOnce(Relative) -> R) -> candle_core::Result<R> {
        let Self { n_distances, left, .. } = *self;
        let tensors: Vec<&Tensor> = std::iter::once(&self.rows).chain(&self.gates).collect();
        with_values(&tensors, |values| {
            f(Relative { rows: values[0], gates: values.get(1).copied(), n_distances, left })
        })
    }

    /// `[batch, n_heads, n_tokens, n_tokens]`, for queries and keys.
    pub(super) fn expand(&self, n_tokens: usize) -> candle_core::Result<Tensor> {
        let last = self.n_distances - 1;
        let place = |query: usize, key: usize| (key + self.left).saturating_sub(query).min(last) as u32;
        let places = (0..n_tokens).flat_map(|query| (0..n_tokens).map(move |key| place(query, key)));
        let places = Tensor::from_iter(places, self.rows.device())?;
        match &self.gates {
            Some(gates) => {
                let rows = self.rows.index_select(&places, 1)?.reshape(((), n_tokens, n_tokens))?.unsqueeze(0)?;
                rows.broadcast_mul(&gates.transpose(1, 2)?.unsqueeze(3)?)
            }
            None => {
                let rows = self.rows.transpose(1, 2)?.contiguous()?; // [batch, n_heads, n_tokens, n_distances]
                let (batch, n_heads, _, _) = rows.dims4()?;
                let places = places.reshape((1, 1, n_tokens, n_tokens))?;
                rows.gather(&places.broadcast_as((batch, n_heads, n_tokens, n_tokens))?.contiguous()?, 3)
            }
        }
    }
}
