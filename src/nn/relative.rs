//! Relative position scores, which attention adds by the distance from query to key.

use candle_core::Tensor;

use super::kernels::attention::Relative;
use crate::error::{Context, Error, Result};
use crate::tensor::with_values;

/// Relative position scores: for query `i` and key `j`, entry `clamp(j − i + left, 0, n_distances − 1)` of a row is
/// added to the scaled attention score before the softmax.
#[derive(Debug, Clone)]
pub struct RelativeScores {
    /// `[batch, n_tokens, n_heads, n_distances]`, or with gates `[n_heads, n_distances]`.
    rows: Tensor,
    gates: Option<Tensor>,
    n_distances: usize,
    left: usize,
}

impl RelativeScores {
    /// A separate row for each query: `rows` `[batch, n_tokens, n_heads, n_distances]`, f32 (Shaw et al., 2018, arXiv
    /// 1803.02155; Dai et al., 2019, arXiv 1901.02860). Distance 0 is entry `left` of a row.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor without 4 dimensions, [`Error::Argument`] unless `left` is below `n_distances`.
    pub fn new(rows: &Tensor, left: usize) -> Result<Self> {
        let context = "reading relative position scores";
        let (_, _, _, n_distances) = rows.dims4().context(context)?;
        Self::with(rows, None, n_distances, left)
    }

    /// One row per head, `rows` `[n_heads, n_distances]`, multiplied by a gate per query and head, `gates` `[batch,
    /// n_tokens, n_heads]`, both f32 (Chi et al., "XLM-E", 2021, arXiv 2106.16138, as in WavLM).
    ///
    /// # Errors
    /// [`Error::Tensor`] for `rows` without 2 or `gates` without 3 dimensions, [`Error::Argument`] unless `left` is
    /// below `n_distances`.
    pub fn gated(rows: &Tensor, gates: &Tensor, left: usize) -> Result<Self> {
        let context = "reading gated relative position scores";
        let (_, n_distances) = rows.dims2().context(context)?;
        gates.dims3().context(context)?;
        Self::with(rows, Some(gates.contiguous().context(context)?), n_distances, left)
    }

    fn with(rows: &Tensor, gates: Option<Tensor>, n_distances: usize, left: usize) -> Result<Self> {
        if left >= n_distances {
            return Err(Error::argument("left", left, format!("expected less than n_distances = {n_distances}")));
        }
        Ok(Self { rows: rows.contiguous().context("reading relative position scores")?, gates, n_distances, left })
    }

    /// Checks the shape against `batch` sequences of `n_tokens` tokens.
    pub(super) fn check(&self, batch: usize, n_tokens: usize, n_heads: usize) -> candle_core::Result<()> {
        let fits = match &self.gates {
            Some(gates) => gates.dims() == [batch, n_tokens, n_heads] && self.rows.dims()[0] == n_heads,
            None => self.rows.dims()[..3] == [batch, n_tokens, n_heads],
        };
        match fits {
            true => Ok(()),
            false => Err(candle_core::Error::Msg(format!(
                "expected relative position scores for {batch} x {n_tokens} queries and {n_heads} heads, got {:?}",
                self.gates.as_ref().unwrap_or(&self.rows).dims()
            ))),
        }
    }

    /// Calls `f` with the scores in the kernel's form.
    pub(super) fn on_host<R>(&self, f: impl FnOnce(Relative) -> R) -> candle_core::Result<R> {
        let Self { n_distances, left, .. } = *self;
        let tensors: Vec<&Tensor> = std::iter::once(&self.rows).chain(&self.gates).collect();
        with_values(&tensors, |values| {
            f(Relative { rows: values[0], gates: values.get(1).copied(), n_distances, left })
        })
    }

    /// The scores of all queries and keys, `[batch, n_heads, n_tokens, n_tokens]`.
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
