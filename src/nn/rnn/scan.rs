//! GRU with gradients on the CPU.

use candle_core::{D, DType, Result, Tensor};

use super::{Rnn, RnnState};
use crate::nn::ops::train;

impl Rnn {
    /// Runs a GRU from zero states: per direction, one product over all frames, then one operation.
    pub(super) fn scanned(&self, x: &Tensor, lengths: &[usize]) -> Result<(Tensor, RnnState)> {
        let (batch, n_frames, _) = x.dims3()?;
        let hidden = self.config.hidden;
        let (mut x, mut states) = (x.clone(), Vec::new());
        for directions in &self.layers {
            let frames = x.contiguous()?.flatten(0, 1)?; // [batch · n_frames, inputs]
            let mut outputs = Vec::with_capacity(directions.len());
            for (direction, backward) in directions.iter().zip([false, true]) {
                let mut products = frames.matmul(&direction.input.t()?)?;
                let mut bias = Tensor::zeros(3 * hidden, DType::F32, x.device())?;
                if let Some((of_input, of_state)) = &direction.biases {
                    (products, bias) = (products.broadcast_add(of_input)?, of_state.clone());
                }
                let products = products.reshape((batch, n_frames, 3 * hidden))?;
                let y = train::gru(&products, &direction.recurrent, &bias, lengths, backward)?;
                let last =
                    |(row, &length): (usize, &usize)| (row * n_frames + if backward { 0 } else { length - 1 }) as u32;
                let last = Tensor::from_iter(lengths.iter().enumerate().map(last), x.device())?;
                states.push(y.flatten(0, 1)?.index_select(&last, 0)?);
                outputs.push(y);
            }
            x = Tensor::cat(&outputs, D::Minus1)?;
        }
        Ok((x, RnnState { h: Tensor::stack(&states, 0)?, c: None }))
    }
}
