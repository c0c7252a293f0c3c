//! A recurrent net by the kernels.

use candle_core::{Device, Result, Tensor};

use super::{DirectionWeights, Rnn, RnnState};
use crate::nn::kernels::matmul::gates::GateWeights;
use crate::nn::kernels::rnn::{Direction, layer as run_layer};
use crate::tensor::with_values;

/// The weights of each direction of each layer, packed.
pub(super) type Packed = Vec<Vec<Direction>>;

impl Rnn {
    /// The weights, of which the kernels can take each.
    pub(super) fn pack(&self) -> Result<Packed> {
        let (gates, hidden) = (self.config.cell.n_gates(), self.config.hidden);
        let panels = |weight: &Tensor, bias: Option<&Tensor>| {
            let bias = bias.map(values).transpose()?;
            Ok::<_, candle_core::Error>(GateWeights::new(
                &values(weight)?,
                bias.as_deref(),
                (gates, hidden, weight.dim(1)?),
            ))
        };
        let pack = |direction: &DirectionWeights| {
            let (input_bias, recurrent_bias) = direction.biases.as_ref().map(|(a, b)| (a, b)).unzip();
            let input = panels(&direction.input, input_bias)?;
            Ok(Direction { input, recurrent: panels(&direction.recurrent, recurrent_bias)? })
        };
        self.layers.iter().map(|directions| directions.iter().map(pack).collect()).collect()
    }

    pub(super) fn on_cpu(
        &self,
        packed: &Packed,
        x: &Tensor,
        lengths: &[usize],
        state: &RnnState,
    ) -> Result<(Tensor, RnnState)> {
        let (batch, n_frames, _) = x.dims3()?;
        let mut h = values(&state.h)?;
        let mut c = state.c.as_ref().map(values).transpose()?.unwrap_or_default();
        let of_layer = self.config.outputs() * batch;
        let y = with_values(&[x], |x| {
            let mut frames = Vec::new(); // of the layer before
            for (layer, directions) in packed.iter().enumerate() {
                let mut y = vec![0.0; of_layer * n_frames];
                let cells = if c.is_empty() { &mut [][..] } else { &mut c[layer * of_layer..][..of_layer] };
                let states = (&mut h[layer * of_layer..][..of_layer], cells);
                let x = if layer == 0 { x[0] } else { &frames };
                run_layer(self.config.cell.gates(), directions, x, lengths, states, &mut y);
                frames = y;
            }
            frames
        })?;
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, state.h.shape(), &Device::Cpu);
        let state = RnnState { h: tensor(h)?, c: state.c.as_ref().map(|_| tensor(c)).transpose()? };
        Ok((Tensor::from_vec(y, (batch, n_frames, self.config.outputs()), &Device::Cpu)?, state))
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
