//! Recurrent networks on the CPU kernels.

use candle_core::{Device, Result, Tensor};

use super::{DirectionWeights, Rnn, RnnState};
use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::rnn::{Direction, layer as run_layer};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::count;
use crate::tensor::with_values;

/// The weights of each direction of each layer, packed.
pub(super) type Packed = Vec<Vec<Direction>>;

impl Rnn {
    /// Packs the weights for the kernels.
    pub(super) fn pack(&self) -> Result<Packed> {
        let pack = |weight: &Tensor, bias: Option<&Tensor>| {
            let packed = PackedMatrix::pack(&values(weight)?, weight.dim(1)?, weight.dim(0)?);
            Ok::<_, candle_core::Error>(match bias {
                Some(bias) => packed.with_bias(&values(bias)?),
                None => packed,
            })
        };
        let direction = |direction: &DirectionWeights| {
            let (input_bias, recurrent_bias) = direction.biases.as_ref().map(|(a, b)| (a, b)).unzip();
            let input = pack(&direction.input, input_bias)?;
            Ok(Direction { input, recurrent: pack(&direction.recurrent, recurrent_bias)? })
        };
        self.layers.iter().map(|directions| directions.iter().map(direction).collect()).collect()
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
        let outputs = self.config.outputs();
        let Some(len) = count(&[batch, n_frames, outputs]) else {
            let reason =
                format!("{batch} sequences of {n_frames} frames with {outputs} outputs exceed the address space");
            return Err(candle_core::Error::Msg(reason));
        };
        let of_layer = outputs * batch;
        let y = with_values(&[x], |x| {
            let mut frames = Vec::new(); // of the previous layer
            for (layer, directions) in packed.iter().enumerate() {
                let mut y = vec![0.0; len];
                let cells = if c.is_empty() { &mut [][..] } else { &mut c[layer * of_layer..][..of_layer] };
                let states = (&mut h[layer * of_layer..][..of_layer], cells);
                let x = if layer == 0 { x[0] } else { &frames };
                run_layer(self.config.cell.gates(), directions, x, lengths, states, &mut y, Isa::best());
                frames = y;
            }
            frames
        })?;
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, state.h.shape(), &Device::Cpu);
        let state = RnnState { h: tensor(h)?, c: state.c.as_ref().map(|_| tensor(c)).transpose()? };
        Ok((Tensor::from_vec(y, (batch, n_frames, outputs), &Device::Cpu)?, state))
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
