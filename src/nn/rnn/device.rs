//! Recurrent networks frame by frame with candle's operations, on any device and differentiable.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::sigmoid;

use super::{DirectionWeights, Rnn, RnnState};

impl Rnn {
    /// `x` `[batch, n_frames, inputs]`, as [`Rnn::forward`] takes it.
    pub(super) fn on_device(&self, x: &Tensor, lengths: &[usize], state: &RnnState) -> Result<(Tensor, RnnState)> {
        // Separate tensors per frame: the gradient of a slice would be as large as the whole tensor.
        let mut x = (0..x.dim(1)?).map(|frame| x.narrow(1, frame, 1)?.squeeze(1)).collect::<Result<Vec<_>>>()?;
        let (mut h, mut c) = (Vec::new(), Vec::new());
        for (layer, directions) in self.layers.iter().enumerate() {
            let mut outputs = Vec::with_capacity(directions.len());
            for (i, direction) in directions.iter().enumerate() {
                let place = layer * directions.len() + i;
                let cells = state.c.as_ref().map(|c| c.get(place)).transpose()?;
                let (y, last, cells) = self.direction(direction, &x, lengths, i == 1, (state.h.get(place)?, cells))?;
                outputs.push(y);
                h.push(last);
                c.extend(cells);
            }
            let frame = |i: usize| {
                let parts: Vec<&Tensor> = outputs.iter().map(|frames: &Vec<Tensor>| &frames[i]).collect();
                Tensor::cat(&parts, D::Minus1)
            };
            x = (0..x.len()).map(frame).collect::<Result<_>>()?;
        }
        let x = Tensor::stack(&x, 1)?;
        let c = if c.is_empty() { None } else { Some(Tensor::stack(&c, 0)?) };
        Ok((x, RnnState { h: Tensor::stack(&h, 0)?, c }))
    }

    /// One direction of a layer. Returns its frames, its last state and its last cell, each `[batch, hidden]`.
    fn direction(
        &self,
        weights: &DirectionWeights,
        frames: &[Tensor],
        lengths: &[usize],
        backward: bool,
        (mut h, mut c): (Tensor, Option<Tensor>),
    ) -> Result<(Vec<Tensor>, Tensor, Option<Tensor>)> {
        let (batch, n_frames) = (lengths.len(), frames.len());
        let input = weights.input.t()?.contiguous()?;
        let recurrent = weights.recurrent.t()?.contiguous()?;
        let mut outputs = Vec::with_capacity(n_frames);
        for step in 0..n_frames {
            let frame = if backward { n_frames - 1 - step } else { step };
            let mut x = frames[frame].contiguous()?.matmul(&input)?; // [batch, gates · hidden]
            if let Some((bias, _)) = &weights.biases {
                x = x.broadcast_add(bias)?;
            }
            let mut s = h.matmul(&recurrent)?; // [batch, gates · hidden]
            if let Some((_, bias)) = &weights.biases {
                s = s.broadcast_add(bias)?;
            }
            let (new_h, new_c) = self.step(&x, &s, &h, c.as_ref())?;
            if lengths.iter().all(|&length| frame < length) {
                outputs.push(new_h.clone());
                (h, c) = (new_h, new_c);
                continue;
            }
            // Beyond its end, a sequence keeps its state and outputs zeros.
            let counts = lengths.iter().map(|&length| u8::from(frame < length));
            let counts = Tensor::from_iter(counts, x.device())?.reshape((batch, 1))?.broadcast_as(h.shape())?;
            outputs.push(counts.where_cond(&new_h, &new_h.zeros_like()?)?);
            h = counts.where_cond(&new_h, &h)?;
            c = match (new_c, c) {
                (Some(new_c), Some(c)) => Some(counts.where_cond(&new_c, &c)?),
                _ => None,
            };
        }
        if backward {
            outputs.reverse();
        }
        Ok((outputs, h, c))
    }

    /// One step. `x` and `s` `[batch, gates · hidden]` are the frame and the state multiplied by their weights.
    fn step(&self, x: &Tensor, s: &Tensor, h: &Tensor, c: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let hidden = self.config.hidden;
        let part = |tensor: &Tensor, gate: usize| tensor.narrow(1, gate * hidden, hidden)?.contiguous();
        let sum = |gate: usize| part(x, gate)? + part(s, gate)?;
        match c {
            None => {
                let (reset, keep) = (sigmoid(&sum(0)?)?, sigmoid(&sum(1)?)?);
                let new = (part(x, 2)? + (reset * part(s, 2)?)?)?.tanh()?;
                Ok((((h - &new)? * keep)?.add(&new)?, None))
            }
            Some(c) => {
                let (input, forget, output) = (sigmoid(&sum(0)?)?, sigmoid(&sum(1)?)?, sigmoid(&sum(3)?)?);
                let c = ((forget * c)? + (input * sum(2)?.tanh()?)?)?;
                Ok(((output * c.tanh()?)?, Some(c)))
            }
        }
    }
}
